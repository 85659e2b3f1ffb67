"""Flips and shifts of images, drawn from a generator and done where the images lie."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.errors import BadConfig
from heirmark.runtime import to_device

__all__ = ["augment", "draw_moves", "move"]


def augment(images: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Augment a batch where it lies.

    Args:
        images: ``[B, C, H, W]`` uint8 or float.
        kind: ``"none"``, ``"flip"`` or ``"crop-flip"``.
        generator: on the CPU.

    Returns:
        A batch of the same shape.

    Raises:
        BadConfig: for inputs that are not images.
    """
    drawn = draw_moves(len(images), kind, generator)
    return move(images, kind, tuple(to_device(each, images.device) for each in drawn))


def draw_moves(count: int, kind: str, generator: torch.Generator) -> tuple[Tensor, ...]:
    """What :func:`augment` draws for a batch: nothing, who is flipped ``[count]``, and corners ``[count, 2]`` below 9."""
    if kind == "none":
        return ()
    flipped = torch.rand(count, generator=generator) < 0.5
    return (flipped,) if kind == "flip" else (flipped, torch.randint(9, (2, count), generator=generator).T)


def move(images: Tensor, kind: str, drawn: tuple[Tensor, ...]) -> Tensor:
    """Flip and shift ``[B, C, H, W]`` images as was drawn, where they lie; see :func:`augment`."""
    if kind == "none":
        return images
    if images.ndim != 4:
        raise BadConfig(f"augmentation {kind!r} is for images [N, C, H, W]: set augment=none")
    count, _, height, width = images.shape
    images = torch.where(drawn[0][:, None, None, None], images.flip(3), images)
    if kind == "flip":
        return images
    padded = F.pad(images, (4, 4, 4, 4))
    corner = drawn[1].T
    rows = corner[0][:, None] + torch.arange(height, device=images.device)
    columns = corner[1][:, None] + torch.arange(width, device=images.device)
    index = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
