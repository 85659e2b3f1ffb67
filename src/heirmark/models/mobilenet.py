"""MobileNetV2 for small images, and the inverted residual that MobileViT shares with it."""

from __future__ import annotations

from torch import Tensor, nn

from heirmark.models.layers import BuiltIn, Door, convolution

STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks and stride of each stage: Table 2 of the paper, but for the second stride, 2 there."""


def scaled(channels: int, width: float) -> int:
    """Channels at a width multiplier: a multiple of 8, never under nine tenths of the product.

    Examples:
        >>> scaled(24, 1.0), scaled(24, 0.5), scaled(24, 0.1)
        (24, 16, 8)
    """
    wanted = channels * width
    nearest = max(8, int(wanted + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * wanted else nearest + 8


class InvertedResidual(nn.Module):
    """Widen by a 1x1 convolution, convolve each channel by itself, narrow without activation, and a shortcut.

    From Sandler 2018 (arXiv 1801.04381); the shortcut is there where both shapes are the same, and only there.

    Args:
        inner: channels that come in.
        outer: channels that go out.
        stride: of the middle convolution.
        expansion: factor t of widening; at 1 the first convolution is left out.
        activation: class of the two activations.
    """

    def __init__(
        self, inner: int, outer: int, stride: int, *, expansion: int, activation: type[nn.Module] = nn.ReLU6
    ) -> None:
        super().__init__()
        hidden = inner * expansion
        self.body = nn.Sequential(
            *([convolution(inner, hidden, 1, activation)] if expansion > 1 else []),
            convolution(hidden, hidden, 3, activation, stride=stride, groups=hidden),
            convolution(hidden, outer, 1, None),
        )
        self.residual = stride == 1 and inner == outer

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[N, inner, H, W]`` to ``[N, outer, H/stride, W/stride]``, rounded up."""
        outputs: Tensor = self.body(inputs)
        return inputs + outputs if self.residual else outputs


class MobileNetV2(BuiltIn):
    """MobileNetV2 (Sandler 2018, arXiv 1801.04381) for small images; the student of T2S' distillation (arXiv 2606.11698).

    All layers are the paper's. What departs is the stride of two, 1 instead of 2, which is ours to choose and usual on CIFAR: the
    stem's and the second stage's. So images shrink to an eighth, not to a thirty-second.

    Args:
        input_shape: ``(C, H, W)`` with H, W of at least 8.
        classes: number of logits.
        width: the paper's width multiplier; as there, the last convolution is not narrower than 1280.
    """

    def __init__(self, input_shape: tuple[int, int, int], classes: int, *, width: float = 1.0) -> None:
        super().__init__()
        inner, last = scaled(32, width), scaled(1280, max(1.0, width))
        blocks: list[nn.Module] = [convolution(input_shape[0], inner, 3, nn.ReLU6)]
        for expansion, channels, count, stride in STAGES:
            outer = scaled(channels, width)
            for number in range(count):
                blocks.append(InvertedResidual(inner, outer, 1 if number else stride, expansion=expansion))
                inner = outer
        self.features = nn.Sequential(
            Door(), *blocks, convolution(inner, last, 1, nn.ReLU6), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.head = nn.Linear(last, classes)
