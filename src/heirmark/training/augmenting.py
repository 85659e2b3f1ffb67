"""Flips and shifts of images, drawn from a generator and done where the images lie."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.errors import BadConfig
from heirmark.runtime import to_device


def augment(images: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Augment a batch ``[B, C, H, W]``, uint8 or float, where it lies; the kinds are those of a ``Recipe``.

    The generator is on the CPU.

    Raises:
        BadConfig: for inputs that are not images.
    """
    if kind == "none":
        return images
    if images.ndim != 4:
        raise BadConfig(f"augmentation {kind!r} is for images [N, C, H, W]: set augment=none")
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
