"""Layers that the built-in models share, and what counts as a convolution in any model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.querying.layout import enter
from heirmark.tasks.space import Waves, space_of

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose outputs ``[N, channels, ...]`` are one neuron a channel."""


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """What a net is that starts from a folder.

    Attributes:
        config: of the model, as JSON with sorted keys.
        source: where the weights lie that it starts from.
    """

    config: str
    source: str


class Door(nn.Module):
    """The first layer: takes images as they are stored, lays them out, and maps what is in [0, 1] to about [-2, 2].

    Waves stay in [-1, 1]. One fixed map for every data set: nothing to look up, nothing to get wrong when a model is loaded
    elsewhere. It has no weights. Floats pass as they are, gradients and tangents with them.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[N, ...]`` as they are stored to the same shape in [-2, 2], waves in [-1, 1], float32."""
        given = enter(inputs)
        return given if isinstance(space_of(inputs), Waves) else given * 4 - 2


class BuiltIn(nn.Module):
    """A built-in model: a head over features, of which the first layer is a :class:`Door`, or an embedding of tokens.

    Its constructor takes ``input_shape``, ``classes`` and, as keywords with a default, options that are bool, int or float.
    """

    takes_stored = True
    dimensions: ClassVar[int] = 3
    """Of the shape of one input: 3 of an image, 2 of a wave, 1 of a text."""
    smallest: ClassVar[int] = 8
    """The shortest side in pixels of an image, samples of a wave, or tokens of a text, that it takes."""
    from_folder: ClassVar[bool] = False
    """Whether it is named with a folder that says what it is, as nets of transformers are."""
    features: nn.Module
    head: nn.Module

    @classmethod
    def described(cls, folder: str) -> Pretrained:
        """What a folder says, where it is named with one."""
        raise NotImplementedError

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[N, ...]`` as they are stored to logits ``[N, classes]``."""
        logits: Tensor = self.head(self.features(inputs))
        return logits


def convolution(
    inner: int, outer: int, side: int, activation: type[nn.Module] | None = nn.ReLU, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """A convolution that keeps the sides (at stride 1), BatchNorm, and an activation if one is given.

    Args:
        inner: channels that come in.
        outer: channels that go out.
        side: of the kernel.
        activation: its class; ``None`` for a linear layer.
        stride: of the kernel.
        groups: of channels that are convolved apart.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(inner, outer, side, stride, side // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outer),
    ]
    return nn.Sequential(*layers, *([activation()] if activation is not None else []))


class Projection(nn.Conv2d):
    """The 1x1 convolution of a shortcut whose block changes the channels or the size (He 2016, arXiv 1512.03385, 3.3).

    Args:
        inner: channels that come in.
        outer: channels that go out.
        stride: 1 or 2.
    """

    # Of fewer input channels than a vector of the CPU has places (16 with AVX-512, else 8), oneDNN's gradient of the
    # weights of a strided 1x1 convolution writes past its buffer when images are channels-last, as ours are in training
    # (torch 2.13 and 2.14; uxlfoundation/oneDNN issue 6035).
    LEAST_CHANNELS = 16

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__(inner, outer, 1, stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[N, inner, H, W]`` to ``[N, outer, H/stride, W/stride]``, both rounded up."""
        if self.in_channels >= self.LEAST_CHANNELS:
            return super().forward(inputs)
        down, across = self.stride
        return F.conv2d(inputs[:, :, ::down, ::across], self.weight)
