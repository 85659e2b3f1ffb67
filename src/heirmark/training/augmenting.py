"""Flips and shifts of images, and shifts of waves in time, drawn from a generator and done where the inputs lie."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.errors import BadConfig
from heirmark.runtime import to_device
from heirmark.tasks.space import Waves, space_of

LATER = 10
"""A wave is moved by up to a tenth of its length."""


def augment(images: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Augment a batch ``[B, C, H, W]`` or waves ``[B, C, T]`` as they are stored, where it lies; the kinds are a ``Recipe``'s.

    The generator is on the CPU. Waves are moved in time where images are shifted or cropped, and never flipped, for backwards
    they are other sounds: of them ``"flip"`` leaves all as it is.

    Raises:
        BadConfig: for other inputs.
    """
    waves = isinstance(space_of(images), Waves)
    if kind == "none" or (kind == "flip" and waves):
        return images
    if waves:
        return _moved(images, generator)
    if images.ndim != 4:
        raise BadConfig(f"augmentation {kind!r} is for images [N, C, H, W] and waves [N, C, T]: set augment=none")
    count, _, height, width = images.shape
    if kind != "shift":
        flipped = to_device(torch.rand(count, generator=generator) < 0.5, images.device)
        images = torch.where(flipped[:, None, None, None], images.flip(3), images)
    if kind == "flip":
        return images
    most = 2 if kind == "shift" else 4
    top, left = to_device(torch.randint(2 * most + 1, (2, count), generator=generator), images.device)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    index = torch.arange(count, device=images.device)[:, None, None]
    padded = F.pad(images, (most, most, most, most)).permute(0, 2, 3, 1)
    return padded[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _moved(waves: Tensor, generator: torch.Generator) -> Tensor:
    """Waves ``[B, C, T]`` each a little earlier or later, with silence where nothing is left."""
    count, channels, length = waves.shape
    most = max(1, length // LATER)
    start = to_device(torch.randint(2 * most + 1, (count,), generator=generator), waves.device)
    index = start[:, None] + torch.arange(length, device=waves.device)
    return F.pad(waves, (most, most)).gather(2, index[:, None].expand(-1, channels, -1))
