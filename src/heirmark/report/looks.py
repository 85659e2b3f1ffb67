"""What an input looks like on a page: a picture, a sound to be played beside its spectrogram, or a text."""

from __future__ import annotations

import base64
import io
import wave
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heirmark.errors import ShapeMismatch, printable
from heirmark.report.section import Look

LONGEST = 600
"""Characters of a text that are shown."""
_ROWS, _COLUMNS = 64, 128
_DECIBELS = 60.0


def picture(image: NDArray[np.uint8]) -> Look:
    """An image at its own resolution.

    Args:
        image: ``[C, H, W]`` uint8; grey, or the first three channels as RGB.

    Raises:
        ShapeMismatch: when it is anything else.
    """
    from heirmark.report.svg import png_uri

    if image.dtype != np.uint8 or image.ndim != 3 or 0 in image.shape:
        raise ShapeMismatch(f"an image is {image.dtype} {list(image.shape)}: give uint8 [C, H, W], pixels 0..255")
    return Look(image=png_uri(image))


def sound(samples: NDArray[Any], rate: int) -> Look:
    """A wave as its spectrogram, time to the right and pitch upwards, and as a WAV file of 16 bits to play.

    Args:
        samples: ``[C, T]`` floats in [-1, 1].
        rate: samples a second.

    Raises:
        ShapeMismatch: when they are anything else.
    """
    from heirmark.report.svg import png_uri

    if samples.ndim != 2 or not samples.size or not np.isfinite(samples).all():
        raise ShapeMismatch(f"a wave has the shape {list(samples.shape)}: give finite samples [C, T] in [-1, 1]")
    levels = np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(len(levels))
        written.setsampwidth(2)
        written.setframerate(rate)
        written.writeframes(levels.T.tobytes())
    played = "data:audio/wav;base64," + base64.b64encode(file.getvalue()).decode()
    return Look(image=png_uri(_spectrogram(samples.mean(0), rate)), sound=played)


def _spectrogram(samples: NDArray[Any], rate: int) -> NDArray[np.uint8]:
    """The loudness of pitches over time, ``[1, H, W]``: white is the loudest, black 60 dB below."""
    from scipy.signal import spectrogram  # takes a while to import, and most pages have no sound

    width = min(len(samples), 2 * _ROWS)
    step = max(1, (len(samples) - width) // (_COLUMNS - 1))
    _, _, power = spectrogram(samples, rate, nperseg=width, noverlap=max(0, width - step))
    loudness = 10 * np.log10(np.maximum(power, 1e-20))
    shown = np.clip((loudness - loudness.max()) / _DECIBELS + 1, 0, 1) * (power.max() > 0)
    image: NDArray[np.uint8] = np.round(shown[::-1] * 255).astype(np.uint8)[None]
    return image


def words(text: str) -> Look:
    """A text, which may be anybody's; what is longer than 600 characters is cut."""
    said = printable(text)
    return Look(words=said if len(said) <= LONGEST else said[: LONGEST - 1] + "…")
