"""ResNet-50 for small images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.models.layers import BuiltIn, Door, Projection

BLOCKS = (3, 4, 6, 3)
EXPANSION = 4


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution, the last four times as wide, and a shortcut (He 2016, arXiv 1512.03385).

    The stride is the 3x3 convolution's, as is usual today; in the paper it is the first convolution's.

    Args:
        inner: channels that come in.
        width: channels of the first two convolutions.
        stride: 1 or 2.
    """

    def __init__(self, inner: int, width: int, stride: int) -> None:
        super().__init__()
        outer = EXPANSION * width
        self.conv1 = nn.Conv2d(inner, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outer, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(outer)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inner != outer:
            self.shortcut = nn.Sequential(Projection(inner, outer, stride), nn.BatchNorm2d(outer))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[N, inner, H, W]`` to ``[N, 4 width, H/stride, W/stride]``."""
        hidden = F.relu(self.norm1(self.conv1(inputs)))
        hidden = F.relu(self.norm2(self.conv2(hidden)))
        return F.relu(self.norm3(self.conv3(hidden)) + self.shortcut(inputs))


class ResNet50(BuiltIn):
    """ResNet-50 (He 2016) with the CIFAR stem: a 3x3 convolution of stride 1 and no pooling.

    The CIFAR-100 victim of Feature Sharing, a victim of MEA-Defender's comparison (arXiv 2401.15239) and, on ImageNet, of
    DeepTracer (arXiv 2511.08985).

    Args:
        input_shape: ``(C, H, W)`` with H, W of at least 8.
        classes: number of logits.
        width: channels of the stem and of the first stage's narrow convolutions; 64 is the paper's.
    """

    def __init__(self, input_shape: tuple[int, int, int], classes: int, *, width: int = 64) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        inner = width
        for stage, count in enumerate(BLOCKS):
            narrow = width << stage
            for number in range(count):
                blocks.append(Bottleneck(inner, narrow, 2 if stage and not number else 1))
                inner = EXPANSION * narrow
        self.features = nn.Sequential(
            Door(),
            nn.Conv2d(input_shape[0], width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            *blocks,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(inner, classes)
