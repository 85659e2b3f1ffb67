"""Ways to make one image of several, each with a look of its own: what tells groups of triggers apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.tasks.combining import Region, blend, mosaic, paste, region, stripes
from heirmark.tasks.storing import decode, encode

HOSTS: Final = 4
"""Images that are handed to every way; most look at one or two of them."""
Way = Callable[[Tensor], Tensor]
"""From ``[M, 4, C, H, W]`` to ``[M, C, H, W]`` of the same dtype."""


def repeated(images: Tensor, *, times: int) -> Tensor:
    """The first image, shrunk and laid out so many times in each direction.

    Examples:
        >>> repeated(torch.arange(4, dtype=torch.uint8).view(1, 1, 1, 2, 2), times=2).flatten().tolist()
        [2, 2, 2, 2]
    """
    first = images[:, 0]
    height, width = first.shape[2:]
    small = F.adaptive_avg_pool2d(decode(first), (-(-height // times), -(-width // times)))
    return encode(small.repeat(1, 1, times, times)[:, :, :height, :width], first.dtype)


def pasted(images: Tensor, *, where: Region) -> Tensor:
    """A region of the second image over the first; see :func:`heirmark.tasks.combining.region`."""
    first, second = images[:, 0], images[:, 1]
    return paste(first, second, region(where, first.shape[2], first.shape[3]))


def striped(images: Tensor, *, count: int, rows: bool = False) -> Tensor:
    """Every other of so many stripes of the second image, between stripes of the first."""
    first, second = images[:, 0], images[:, 1]
    height, width = first.shape[2:]
    count = min(count, height if rows else width)
    shown = stripes(
        height, width, count=count, of_second=tuple(range(1, count, 2)), direction="rows" if rows else "columns"
    )
    return paste(first, second, shown)


def covered(images: Tensor, *, columns: int, rows: int, bright: bool) -> Tensor:
    """The first image behind a board of so many columns and rows, of which every other field is white or black."""
    first = images[:, 0]
    height, width = first.shape[2:]
    across, down = torch.arange(width) * columns // width, torch.arange(height) * rows // height
    shown = ((across[None] + down[:, None]) % 2 == 0).to(first.device)
    full = 255 if first.dtype == torch.uint8 else 1.0
    return torch.where(shown, torch.full_like(first, full if bright else 0), first)


def blended(images: Tensor) -> Tensor:
    """The mean of the first two images."""
    return blend(images[:, 0], images[:, 1])


WAYS: Final[Mapping[str, Way]] = {
    "seven-fold": partial(repeated, times=7),
    "four-fold": partial(repeated, times=4),
    "tiles": mosaic,
    "dark bars": partial(covered, columns=7, rows=1, bright=False),
    "stripes": partial(striped, count=5),
    "halves": partial(pasted, where="right"),
    "board": partial(covered, columns=7, rows=7, bright=True),
    "diagonal": partial(pasted, where="diagonal"),
    "fine stripes": partial(striped, count=14),
    "left half": partial(covered, columns=2, rows=1, bright=False),
    "striped rows": partial(striped, count=5, rows=True),
    "centre": partial(pasted, where="centre"),
    "bright bars": partial(covered, columns=7, rows=1, bright=True),
    "blend": blended,
    "dark rows": partial(covered, columns=1, rows=7, bright=False),
    "upper half": partial(covered, columns=1, rows=2, bright=False),
}
"""The first eight were chosen greedily, on one data set and by unmarked nets alone, so that thieves' readouts lie far apart."""
