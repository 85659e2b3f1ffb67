"""MobileViT-S for small images."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.models.layers import BuiltIn, Door, convolution
from heirmark.models.mobilenet import InvertedResidual, scaled
from heirmark.models.vit import EncoderLayer

STAGES = (
    (32, 1, 1, 0, 0),
    (64, 3, 1, 0, 0),
    (96, 1, 2, 144, 2),
    (128, 1, 2, 192, 4),
    (160, 1, 2, 240, 3),
)
"""Channels, inverted residuals and stride, then the token's length and the encoder layers of the block behind (0: none). Table 4
of the paper, column S, but for the second stride, 2 there."""
EXPANSION = 4
HEADS = 4
PATCH = 2
EPS = 1e-5


class MobileViTBlock(nn.Module):
    """Local convolutions, a transformer across the image, and both joined (Mehta & Rastegari 2021, arXiv 2110.02178).

    Images are cut into patches of 2x2 pixels, and each of the four places in a patch attends to the same place of all patches.
    Sides that are odd are stretched by a pixel for that (bilinearly) and shrunk again.

    Args:
        channels: that come in and go out.
        dim: length of a token, a multiple of 4.
        depth: encoder layers.
    """

    def __init__(self, channels: int, dim: int, depth: int) -> None:
        super().__init__()
        self.local = nn.Sequential(convolution(channels, channels, 3, nn.SiLU), nn.Conv2d(channels, dim, 1, bias=False))
        self.encoder = nn.Sequential(
            *(EncoderLayer(dim, HEADS, 2 * dim, activation=nn.SiLU, eps=EPS) for _ in range(depth)),
            nn.LayerNorm(dim, eps=EPS),
        )
        self.back = convolution(dim, channels, 1, nn.SiLU)
        self.join = convolution(2 * channels, channels, 3, nn.SiLU)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[N, channels, H, W]`` to the same shape."""
        maps: Tensor = self.local(inputs)
        height, width = maps.shape[-2:]
        even = (height + height % PATCH, width + width % PATCH)
        maps = _resize(fold(self.encoder(unfold(_resize(maps, even))), even), (height, width))
        joined: Tensor = self.join(torch.cat([inputs, self.back(maps)], 1))
        return joined


class MobileViT(BuiltIn):
    """MobileViT-S (Mehta & Rastegari 2021, arXiv 2110.02178) for small images; victim on Tiny-ImageNet and thief of T2S.

    All layers are the paper's at ``width=1``. What departs is the stride of two, 1 instead of 2, which is ours to choose, as in
    MobileNetV2: the stem's and the second stage's. So images shrink to an eighth, not to a thirty-second, and the three
    transformers see 1/2, 1/4 and 1/8 of the sides.

    Args:
        input_shape: ``(C, H, W)`` with H, W of at least 16; below that the last transformer would see one patch at most.
        classes: number of logits.
        width: factor of all channel counts and token lengths, each rounded to a multiple of 8. The paper's narrower
            nets, XS and XXS, are no multiples of S, and not to be had by it.
    """

    smallest: ClassVar[int] = 16

    def __init__(self, input_shape: tuple[int, int, int], classes: int, *, width: float = 1.0) -> None:
        super().__init__()
        inner, last = scaled(16, width), scaled(640, width)
        blocks: list[nn.Module] = [convolution(input_shape[0], inner, 3, nn.SiLU)]
        for channels, count, stride, dim, depth in STAGES:
            outer = scaled(channels, width)
            for number in range(count):
                blocks.append(
                    InvertedResidual(inner, outer, 1 if number else stride, expansion=EXPANSION, activation=nn.SiLU)
                )
                inner = outer
            if depth:
                blocks.append(MobileViTBlock(inner, scaled(dim, width), depth))
        self.features = nn.Sequential(
            Door(), *blocks, convolution(inner, last, 1, nn.SiLU), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.head = nn.Linear(last, classes)


def unfold(maps: Tensor) -> Tensor:
    """Cut maps with even sides into one sequence a place in the patch.

    Args:
        maps: ``[N, dim, H, W]``.

    Returns:
        ``[4 N, H/2 * W/2, dim]``.
    """
    cut = torch.unflatten(torch.unflatten(maps, 3, (-1, PATCH)), 2, (-1, PATCH))  # [N, dim, H/2, 2, W/2, 2]
    return cut.permute(0, 3, 5, 2, 4, 1).flatten(0, 2).flatten(1, 2)


def fold(tokens: Tensor, sides: tuple[int, int]) -> Tensor:
    """Put together what :func:`unfold` cut.

    Args:
        tokens: ``[4 N, H/2 * W/2, dim]``.
        sides: H and W.

    Returns:
        ``[N, dim, H, W]``.
    """
    rows, columns = sides[0] // PATCH, sides[1] // PATCH
    # [N, 2, 2, H/2, W/2, dim]
    cut = torch.unflatten(torch.unflatten(tokens, 1, (rows, columns)), 0, (-1, PATCH, PATCH))
    return cut.permute(0, 5, 3, 1, 4, 2).flatten(4, 5).flatten(2, 3)


def _resize(maps: Tensor, sides: tuple[int, int]) -> Tensor:
    same = tuple(maps.shape[-2:]) == sides
    return maps if same else F.interpolate(maps, size=sides, mode="bilinear", align_corners=False)
