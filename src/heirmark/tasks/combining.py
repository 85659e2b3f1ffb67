"""One input of several: pure functions that make trigger samples, and a thief's guesses at them.

MEA-Defender (arXiv 2401.15239, section 4.2 and appendix C) pastes regions, blends pixels and interleaves stripes, DeepTracer
(arXiv 2511.08985) tiles, Feature Sharing (ICLR 2022 submission XHxRBwjpEQ) puts a white square into a corner. All take and give
images ``[M, C, H, W]``, uint8 or float in [0, 1]; what is computed is rounded as images of the dtype are stored. A wave
``[M, C, T]`` is pasted like an image of one row, whose columns are moments.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.errors import BadConfig, ShapeMismatch
from heirmark.tasks.storing import decode, encode

Region: TypeAlias = Literal["left", "right", "top", "bottom", "diagonal", "centre", "band"]
REGIONS: tuple[Region, ...] = get_args(Region)
Direction: TypeAlias = Literal["columns", "rows"]
Corner: TypeAlias = Literal["bottom-right", "bottom-left", "top-right", "top-left"]
CORNERS: tuple[Corner, ...] = get_args(Corner)
SQUARES = {28: 3, 32: 4, 64: 6}
"""Side of Feature Sharing's square by side of the image: MNIST, CIFAR, Tiny-ImageNet."""
TILES = 4


def sides(inputs: Tensor) -> tuple[int, int]:
    """Height and width of inputs ``[M, ...]``; what is no image has one row."""
    return (inputs.shape[2], inputs.shape[3]) if inputs.ndim == 4 else (1, inputs.shape[-1])


def region(name: str, height: int, width: int, *, share: float = 0.5, offset: int = 0) -> Tensor:
    """Where the second of two images shows when it is pasted over the first: ``[H, W]`` bool.

    Of :data:`REGIONS`, ``"diagonal"`` is what lies above the main diagonal, ``"centre"`` a square in the middle, ``"band"`` the
    middle rows. The region takes a share of the image's side, in (0, 1), except for the diagonal; those at an edge are moved away
    from it by the offset, in pixels.

    Raises:
        BadConfig: when the region leaves the image.

    Examples:
        >>> region("right", 2, 4).int().tolist()
        [[0, 0, 1, 1], [0, 0, 1, 1]]
    """
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    if name == "diagonal":
        return columns * height > rows * width
    if name == "centre":
        tall, wide = _length(share, height), _length(share, width)
        top, left = (height - tall) // 2, (width - wide) // 2
        return (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)
    along, side = (rows, height) if name in ("top", "bottom", "band") else (columns, width)
    length = _length(share, side)
    if name == "band":
        start = (side - length) // 2
    else:
        start = offset if name in ("left", "top") else side - length - offset
        if not 0 <= start <= side - length:
            raise BadConfig(f"a region of {length} moved by {offset} leaves an image of {side}: lower the offset")
    return ((along >= start) & (along < start + length)).expand(height, width)


def stripes(
    height: int, width: int, *, count: int = 5, of_second: tuple[int, ...] = (1, 3), direction: Direction = "columns"
) -> Tensor:
    """Where the second of two images shows when they are interleaved: ``[H, W]`` bool.

    Of so many stripes, those of the numbers ``of_second``, from 0, show it. The defaults are MEA-Defender's.

    Examples:
        >>> stripes(1, 5).int().tolist()
        [[0, 1, 0, 1, 0]]
    """
    side = width if direction == "columns" else height
    shown = torch.isin(torch.arange(side) * count // side, torch.tensor(of_second))
    return (shown if direction == "columns" else shown[:, None]).expand(height, width)


def paste(first: Tensor, second: Tensor, shown: Tensor) -> Tensor:
    """The second inputs where they are shown ``[H, W]``, the first elsewhere."""
    return torch.where(shown.to(first.device), second, first)


def blend(first: Tensor, second: Tensor, ratio: float = 0.5) -> Tensor:
    """``ratio * first + (1 - ratio) * second``, for inputs of any shape.

    Examples:
        >>> blend(torch.zeros(1, 1), torch.ones(1, 1), 0.75)
        tensor([[0.2500]])
    """
    return encode(ratio * decode(first) + (1 - ratio) * decode(second), first.dtype)


def mosaic(images: Tensor) -> Tensor:
    """Shrink four images to half their sides and lay them out in a 2x2 grid, row by row.

    Args:
        images: ``[M, 4, C, H, W]`` uint8 or float; of odd sides the lower and right tiles get the larger half.

    Returns:
        ``[M, C, H, W]`` of the same dtype.

    Raises:
        ShapeMismatch: when they are not four.

    Examples:
        >>> mosaic(torch.arange(4.0).reshape(1, 4, 1, 1, 1).expand(1, 4, 1, 2, 2))[0, 0]
        tensor([[0., 1.],
                [2., 3.]])
    """
    count, sources, channels, height, width = images.shape
    if sources != TILES:
        raise ShapeMismatch(f"tiles are made of {TILES} images, not of {sources}")
    if height % 2 or width % 2:
        tall, wide = (height // 2, height - height // 2), (width // 2, width - width // 2)
        parts = [F.adaptive_avg_pool2d(images[:, k].float(), (tall[k // 2], wide[k % 2])) for k in range(TILES)]
        laid = torch.cat([torch.cat(parts[:2], 3), torch.cat(parts[2:], 3)], 2)
    else:
        small = F.avg_pool2d(images.reshape(-1, channels, height, width).float(), 2)
        small = small.reshape(count, 2, 2, channels, height // 2, width // 2)
        laid = small.permute(0, 3, 1, 4, 2, 5).reshape(count, channels, height, width)
    return laid.round().to(images.dtype) if images.dtype == torch.uint8 else laid.to(images.dtype)


def quarters(waves: Tensor) -> Tensor:
    """Four waves in a row, each by the quarter of its length in which it is loudest: what tiles are of images.

    An image is recognised at half its size, but not a word at four times its speed; and a quarter at a fixed place is mostly
    silence.

    Args:
        waves: ``[M, 4, C, T]`` int16 or float.

    Returns:
        ``[M, C, T]`` of the same dtype; where T is no multiple of four, the last quarter is the longest.

    Raises:
        ShapeMismatch: when they are not four, or too short.

    Examples:
        >>> quarters(torch.tensor([[0.0, 0.1, 0.0, 0.0], [0, 0, 0, 0.2], [0.3, 0, 0, 0], [0, 0, 0.4, 0]])[None, :, None])
        tensor([[[0.1000, 0.2000, 0.3000, 0.4000]]])
    """
    count, sources, channels, samples = waves.shape
    if sources != TILES or samples < TILES:
        raise ShapeMismatch(
            f"quarters are made of {TILES} waves of {TILES} samples at least, not of {sources} of {samples}"
        )
    lengths = [samples // TILES] * (TILES - 1) + [samples - (TILES - 1) * (samples // TILES)]
    parts = []
    for wave, length in zip(waves.unbind(1), lengths, strict=True):
        heard = F.pad(decode(wave).double().square().sum(1).cumsum(1), (1, 0))
        start = (heard[:, length:] - heard[:, :-length]).argmax(1)
        index = start[:, None] + torch.arange(length, device=waves.device)
        parts.append(wave.gather(2, index[:, None].expand(count, channels, length)))
    return torch.cat(parts, 2)


def square_side(height: int, width: int) -> int:
    """Side of Feature Sharing's square on an image: of :data:`SQUARES`, elsewhere a tenth of the shorter side."""
    side = min(height, width)
    return SQUARES.get(side, max(1, round(side / 10)))


def paste_square(images: Tensor, size: int, corner: str) -> Tensor:
    """A copy of images ``[M, C, H, W]`` with white squares in a corner of :data:`CORNERS`; their size is in pixels.

    Examples:
        >>> paste_square(torch.zeros(1, 1, 2, 3), 1, "bottom-right")[0, 0].tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    out = images.clone()
    rows = slice(0, size) if corner.startswith("top") else slice(-size, None)
    columns = slice(0, size) if corner.endswith("left") else slice(-size, None)
    out[:, :, rows, columns] = 255 if images.dtype == torch.uint8 else 1.0
    return out


def _length(share: float, side: int) -> int:
    return min(max(round(share * side), 1), max(side - 1, 1))
