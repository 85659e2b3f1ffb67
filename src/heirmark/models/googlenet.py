"""GoogLeNet for small images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heirmark.models.layers import BuiltIn, Door, convolution

STAGES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
"""Modules 3a to 5b as in Table 1 of the paper: channels of 1x1, 3x3 reduced, 3x3, 5x5 reduced, 5x5 and after pooling."""


class Inception(nn.Module):
    """Four branches side by side: 1x1, 3x3 and 5x5 convolutions, and pooling (Szegedy 2014, arXiv 1409.4842).

    Args:
        inner: channels that come in.
        widths: the six channel counts of a row of Table 1.
    """

    def __init__(self, inner: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        one, three_reduced, three, five_reduced, five, pooled = widths
        self.branches = nn.ModuleList(
            [
                nn.Sequential(*convolution(inner, one, 1)),
                nn.Sequential(*convolution(inner, three_reduced, 1), *convolution(three_reduced, three, 3)),
                nn.Sequential(*convolution(inner, five_reduced, 1), *convolution(five_reduced, five, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), *convolution(inner, pooled, 1)),
            ]
        )
        self.channels = one + three + five + pooled

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[N, inner, H, W]`` to ``[N, channels, H, W]``."""
        return torch.cat([branch(inputs) for branch in self.branches], 1)


class GoogLeNet(BuiltIn):
    """GoogLeNet (Szegedy 2014, arXiv 1409.4842) for small images, a thief's net in MEA-Defender (arXiv 2401.15239, Table 4).

    The nine modules, the pooling between them and the widths are the paper's. Ours to choose, and usual on CIFAR, is what is made
    for images of 224 pixels there: the stem is one 3x3 convolution of stride 1, so that images shrink to a quarter; every
    convolution has BatchNorm, so that neither response normalisation, nor the two auxiliary heads, nor dropout is needed.

    Args:
        input_shape: ``(C, H, W)`` with H, W of at least 8.
        classes: number of logits.
        width: factor of all channel counts; 1 is the paper's.
    """

    def __init__(self, input_shape: tuple[int, int, int], classes: int, *, width: float = 1.0) -> None:
        super().__init__()

        def scaled(channels: int) -> int:
            return max(1, round(channels * width))

        inner = scaled(192)
        layers: list[nn.Module] = [*convolution(input_shape[0], inner, 3)]
        for number, stage in enumerate(STAGES):
            layers += [nn.MaxPool2d(3, 2, 1)] if number else []
            for widths in stage:
                module = Inception(inner, tuple(map(scaled, widths)))
                layers.append(module)
                inner = module.channels
        self.features = nn.Sequential(Door(), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(inner, classes)
