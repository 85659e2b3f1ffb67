"""Files of one sound: WAV of 16-bit PCM by the standard library, other WAV and FLAC by ``soundfile`` (``heirmark[sound]``)."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heirmark.errors import BadData, told
from heirmark.tasks.storing import encode

_MOST_BYTES = 2**24
"""Of a file: two seconds at the highest rate, at eight bytes a sample, and room for what else a file tells."""
_RATES = range(1000, 384_001)


def read_sound(path: Path, *, longest: float) -> tuple[Tensor, int]:
    """One sound of one channel.

    Args:
        path: a WAV or FLAC file.
        longest: seconds that it may last.

    Returns:
        Its samples ``[T]`` int16, and how many there are a second.

    Raises:
        BadData: for a file that is missing, foreign, too large or truncated; for stereo, silence of no samples, a sound that is
            too long, NaN, or floats out of [-1, 1].
    """
    try:
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise BadData(f"{path} has {size:,} bytes: cut it into sounds of at most {longest:g} seconds")
        with wave.open(str(path), "rb") as file:
            plain = file.getsampwidth() == 2 and file.getcomptype() == "NONE"
            if plain:
                _check(path, file.getnframes(), file.getframerate(), file.getnchannels(), longest)
                samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
                return _whole(path, samples, file.getnframes()), file.getframerate()
    except OSError as error:
        raise BadData(f"{path} cannot be read ({error.strerror or error}): replace or remove it") from error
    except (wave.Error, EOFError, ValueError):
        pass  # no WAV of PCM: what else it may be is for the library to say
    return _by_library(path, longest)


def _by_library(path: Path, longest: float) -> tuple[Tensor, int]:
    try:
        import soundfile
    except ImportError:
        raise BadData(
            f"{path} is no WAV of 16-bit PCM, and others need soundfile: pip install 'heirmark[sound]', or save it as such"
        ) from None
    try:
        facts: Any = soundfile.info(str(path))
    except Exception as error:  # whatever the library raises about a foreign file
        raise BadData(f"{path} is no sound that can be read ({told(error)}): replace or remove it") from error
    _check(path, facts.frames, facts.samplerate, facts.channels, longest)
    kind = "int16" if facts.subtype == "PCM_16" else "float32"
    try:
        samples, rate = soundfile.read(str(path), dtype=kind)
    except Exception as error:
        raise BadData(f"{path} is no sound that can be read ({told(error)}): replace or remove it") from error
    if kind == "int16":
        return _whole(path, samples, facts.frames), int(rate)
    if not np.isfinite(samples).all():
        raise BadData(f"{path} holds samples that are NaN or infinite: remove it, or save it anew")
    if (highest := float(np.abs(samples).max())) > 1:
        raise BadData(
            f"{path} holds samples up to {highest:.4g}, out of [-1, 1]: divide all sounds by their largest sample"
        )
    _whole(path, samples, facts.frames)
    return encode(torch.from_numpy(samples)[None, None], torch.int16)[0, 0], int(rate)


def _check(path: Path, count: int, rate: int, channels: int, longest: float) -> None:
    """Refuse what need not be read to be refused."""
    if channels != 1:
        raise BadData(f"{path} has {channels} channels: mix it down to one")
    if rate not in _RATES:
        raise BadData(f"{path} says {rate:,} samples a second: resample it to a rate from 1,000 to 384,000")
    if not count:
        raise BadData(f"{path} holds no sample: remove it")
    if count > longest * rate:
        raise BadData(f"{path} lasts {count / rate:.1f} seconds: cut it into sounds of at most {longest:g} seconds")


def _whole(path: Path, samples: Any, count: int) -> Tensor:
    """The samples of a file that holds as many as it says."""
    if len(samples) != count:
        raise BadData(f"{path} says it holds {count:,} samples and has {len(samples):,}: it is truncated, replace it")
    return torch.from_numpy(np.array(samples))
