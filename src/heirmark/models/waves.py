"""Nets for sound: M5, which hears raw waves, and a small one that sees mel spectrograms."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.models.layers import BuiltIn, Door, convolution

WINDOW, HOP = 0.025, 0.010
"""Seconds of a frame, and from one to the next."""
LOWEST = 20.0
"""Hertz at which the first mel filter begins; the last one ends at half the rate."""
_FLOOR = 1e-6
"""Power that counts as silence: steps of 16 bits give a mel band about as much."""


class M5(BuiltIn):
    """Four one-dimensional convolutions on raw waves (Dai et al. 2017, arXiv 1610.00087, table 1), MEA-Defender's for speech.

    Each has BatchNorm, ReLU and a pool of four behind it; then comes the mean over time. The defaults are the paper's, for
    8 kHz; at 16 kHz ``kernel=160,stride=8`` hears the same stretch of time. ``width=32,stride=16`` is a twentieth of the work.
    Pools round up, so that short waves pass, where the paper's round down.

    Args:
        input_shape: ``(C, T)`` with T of at least the kernel.
        classes: number of logits.
        width: channels of the first two convolutions; the others have twice and four times as many.
        kernel: samples of the first convolution.
        stride: of the first convolution, in samples.
    """

    dimensions: ClassVar[int] = 2
    smallest: ClassVar[int] = 80

    def __init__(
        self, input_shape: tuple[int, int], classes: int, *, width: int = 128, kernel: int = 80, stride: int = 4
    ) -> None:
        super().__init__()
        channels, samples = input_shape
        if samples < kernel:
            raise ValueError(f"a kernel of {kernel} samples does not fit waves of {samples}: lower kernel")

        def block(inner: int, outer: int, *, side: int = 3, step: int = 1, padding: int = 1) -> list[nn.Module]:
            hearing = nn.Conv1d(inner, outer, side, step, padding, bias=False)
            return [hearing, nn.BatchNorm1d(outer), nn.ReLU(), nn.MaxPool1d(4, ceil_mode=True)]

        self.features = nn.Sequential(
            Door(),
            *block(channels, width, side=kernel, step=stride, padding=0),
            *block(width, width),
            *block(width, 2 * width),
            *block(2 * width, 4 * width),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(4 * width, classes)


class MelCNN(BuiltIn):
    """Three convolutions on a log-mel spectrogram, which the net computes itself; heirmark's own.

    Frames of 25 ms every 10 ms, a Hann window, triangular mel filters, the logarithm of the power. The spectrum is taken by a
    convolution with fixed sines and not by ``torch.stft``, whose complex numbers the ONNX exporter has no word for.
    Real int8 rounds those sines, too. Behind the convolutions comes the mean over time.

    Args:
        input_shape: ``(C, T)`` with T of at least a frame.
        classes: number of logits.
        rate: samples a second of the waves.
        mels: how many mel filters.
        width: channels of the first convolution; the others have twice and four times as many.
    """

    dimensions: ClassVar[int] = 2
    smallest: ClassVar[int] = 80

    def __init__(
        self, input_shape: tuple[int, int], classes: int, *, rate: int = 16_000, mels: int = 40, width: int = 16
    ) -> None:
        super().__init__()
        channels, samples = input_shape
        spectrogram = LogMel(rate=rate, mels=mels)
        if samples < spectrogram.frame:
            raise ValueError(
                f"a frame of {spectrogram.frame} samples does not fit waves of {samples}: set rate to that of the data"
            )

        def block(inner: int, outer: int) -> list[nn.Module]:
            return [convolution(inner, outer, 3), nn.MaxPool2d(2, ceil_mode=True)]

        self.features = nn.Sequential(
            Door(),
            spectrogram,
            *block(channels, width),
            *block(width, 2 * width),
            *block(2 * width, 4 * width),
            MeanOverTime(),
        )
        self.head = nn.Linear(4 * width * math.ceil(mels / 8), classes)


class LogMel(nn.Module):
    """Waves as log-mel spectrograms. It has no weights.

    Args:
        rate: samples a second.
        mels: how many filters.
    """

    sines: Tensor
    filters: Tensor

    def __init__(self, *, rate: int, mels: int) -> None:
        super().__init__()
        self.frame, self.hop = max(2, round(WINDOW * rate)), max(1, round(HOP * rate))
        bins = self.frame // 2 + 1
        if mels > bins:
            raise ValueError(
                f"{mels} mel filters do not fit a spectrum of {bins}: lower mels, or set rate to that of the data"
            )
        self.register_buffer("sines", sines(self.frame), persistent=False)
        self.register_buffer("filters", mel_filters(bins, mels, rate=rate), persistent=False)

    def forward(self, waves: Tensor) -> Tensor:
        """Map ``[N, C, T]`` to ``[N, C, mels, frames]``, of which -2 is silence and 2 is loud."""
        with torch.autocast(waves.device.type, enabled=False):  # powers of speech span more than bfloat16 tells apart
            count, channels, samples = waves.shape
            along = waves.float().reshape(count * channels, 1, samples)
            parts = F.conv1d(along, self.sines, stride=self.hop)
            real, imaginary = parts.chunk(2, 1)
            power = torch.matmul(self.filters, real.square() + imaginary.square())
            logs = (power + _FLOOR).log() / 4 + 1.5
            return logs.reshape(count, channels, *logs.shape[1:])


class MeanOverTime(nn.Module):
    """``[N, C, mels, frames]`` as ``[N, C * mels]``."""

    def forward(self, inputs: Tensor) -> Tensor:
        """The mean over frames."""
        return inputs.mean(3).flatten(1)


def sines(frame: int) -> Tensor:
    """What gives the real and the imaginary part of a frame's spectrum under a Hann window, ``[2 * (frame // 2 + 1), 1, frame]``.

    It is scaled so that a sine of amplitude 1 has power 1 in its bin.

    Examples:
        >>> sines(4)[:, 0, 2].round(decimals=2).tolist()
        [1.0, -1.0, 1.0, 0.0, 0.0, -0.0]
    """
    place = torch.arange(frame, dtype=torch.float64)
    window = torch.hann_window(frame, dtype=torch.float64)
    angle = 2 * math.pi * torch.arange(frame // 2 + 1, dtype=torch.float64)[:, None] * place / frame
    both = torch.cat([angle.cos(), angle.sin()]) * window * (2 / window.sum())
    return both[:, None].float()


def mel_filters(bins: int, mels: int, *, rate: int) -> Tensor:
    """Triangular filters whose peaks stand at equal distances on the mel scale, 2595 log10(1 + f/700), ``[mels, bins]``.

    A filter is at least one bin wide on either side, so that none is empty where the spectrum is coarse.
    """

    def mel(hertz: float) -> float:
        return 2595 * math.log10(1 + hertz / 700)

    points = torch.linspace(mel(LOWEST), mel(rate / 2), mels + 2, dtype=torch.float64)
    places = 700 * (10 ** (points / 2595) - 1) * (2 * (bins - 1) / rate)
    low, peak, high = places[:-2, None], places[1:-1, None], places[2:, None]
    bin_ = torch.arange(bins, dtype=torch.float64)
    rising, falling = (bin_ - low) / (peak - low).clamp_min(1), (high - bin_) / (high - peak).clamp_min(1)
    narrow = 1 - (bin_ - peak).abs()
    return torch.maximum(torch.minimum(rising, falling), narrow).clamp_min(0).float()
