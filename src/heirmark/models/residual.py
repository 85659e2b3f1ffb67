"""Residual networks for small images: ResNet-18 and ResNet-50 with a CIFAR stem, and WRN-16-4."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.models.layers import BuiltIn, Door, Projection

EXPANSION = 4
"""How many times as wide the last convolution of a bottleneck is as the others."""


def shortcut(inner: int, outer: int, stride: int) -> nn.Module:
    """What is added to a block's outputs: its inputs, projected where the block changes the channels or the size."""
    if stride == 1 and inner == outer:
        return nn.Identity()
    return nn.Sequential(Projection(inner, outer, stride), nn.BatchNorm2d(outer))


def after_stem(channels: int, width: int, blocks: list[nn.Module]) -> nn.Sequential:
    """Blocks behind the CIFAR stem, a 3x3 convolution of stride 1 without pooling, and averaged over the image."""
    stem = (Door(), nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He 2016, arXiv 1512.03385)."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outer)
        self.shortcut = shortcut(inner, outer, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[N, inner, H, W]`` to ``[N, outer, H/stride, W/stride]``."""
        hidden = F.relu(self.norm1(self.conv1(inputs)))
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(inputs))


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
        self.shortcut = shortcut(inner, outer, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[N, inner, H, W]`` to ``[N, 4 width, H/stride, W/stride]``."""
        hidden = F.relu(self.norm1(self.conv1(inputs)))
        hidden = F.relu(self.norm2(self.conv2(hidden)))
        return F.relu(self.norm3(self.conv3(hidden)) + self.shortcut(inputs))


class PreActivationBlock(nn.Module):
    """Normalise, activate, convolve, twice, and a shortcut (Zagoruyko 2016, arXiv 1605.07146)."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inner != outer:
            self.shortcut = Projection(inner, outer, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[N, inner, H, W]`` to ``[N, outer, H/stride, W/stride]``."""
        active = F.relu(self.norm1(inputs))
        residual: Tensor = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return residual + (inputs if self.shortcut is None else self.shortcut(active))


class ResNet18(BuiltIn):
    """ResNet-18 (He 2016) with the CIFAR stem.

    The CIFAR victim of T2S (arXiv 2606.11698) and, for CIFAR-100, of DeepTracer.

    Args:
        input_shape: ``(C, H, W)`` with H, W of at least 8.
        classes: number of logits.
        width: channels of the first stage; 64 is the paper's, 16 is quick on a CPU.
    """

    def __init__(self, input_shape: tuple[int, int, int], classes: int, *, width: int = 64) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        inner = width
        for stage in range(4):
            outer = width << stage
            blocks += [BasicBlock(inner, outer, 1 if stage == 0 else 2), BasicBlock(outer, outer, 1)]
            inner = outer
        self.features = after_stem(input_shape[0], width, blocks)
        self.head = nn.Linear(inner, classes)


class ResNet50(BuiltIn):
    """ResNet-50 (He 2016) with the CIFAR stem.

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
        for stage, count in enumerate((3, 4, 6, 3)):
            narrow = width << stage
            for number in range(count):
                blocks.append(Bottleneck(inner, narrow, 2 if stage and not number else 1))
                inner = EXPANSION * narrow
        self.features = after_stem(input_shape[0], width, blocks)
        self.head = nn.Linear(inner, classes)


class WideResNet16(BuiltIn):
    """Wide ResNet of depth 16 (Zagoruyko 2016); with ``factor=4`` the WRN-16-4 of T2S, Table III.

    Args:
        input_shape: ``(C, H, W)`` with H, W of at least 8.
        classes: number of logits.
        factor: widening factor k.
    """

    def __init__(self, input_shape: tuple[int, int, int], classes: int, *, factor: int = 4) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        inner = 16
        for stage, base in enumerate((16, 32, 64)):
            outer = base * factor
            blocks += [PreActivationBlock(inner, outer, 1 if stage == 0 else 2), PreActivationBlock(outer, outer, 1)]
            inner = outer
        self.features = nn.Sequential(
            Door(),
            nn.Conv2d(input_shape[0], 16, 3, 1, 1, bias=False),
            *blocks,
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(inner, classes)
