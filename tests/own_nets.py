"""Nets as users write them, of the layers that today's nets are made of: no ``.features``, no door, few BatchNorms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.models import ModelSpec


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of a map, as ConvNeXt has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, inputs: Tensor) -> Tensor:
        normal: Tensor = self.norm(inputs.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return normal


class Block(nn.Module):
    """A depthwise convolution, a norm, and two pointwise layers around a GELU, beside a shortcut."""

    def __init__(self, channels: int, norm: nn.Module, dropout: float) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(channels, channels, 3, padding=1, groups=channels), norm
        self.wider, self.back = nn.Conv2d(channels, 2 * channels, 1), nn.Conv2d(2 * channels, channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        inner = self.back(F.gelu(self.wider(self.norm(self.depthwise(inputs)))))
        return inputs + self.dropout(inner)


class Modern(nn.Module):
    """A small net in the way of ConvNeXt, for floats in [0, 1]."""

    def __init__(self, spec: ModelSpec, norm: str = "layer", width: int = 12) -> None:
        super().__init__()
        norms = [ChannelNorm(width) if norm == "layer" else nn.GroupNorm(3, width) for _ in range(3)]
        self.stem = nn.Sequential(nn.Conv2d(spec.input_shape[0], width, 4, stride=2, padding=1), norms[0])
        self.blocks = nn.Sequential(*(Block(width, each, 0.1) for each in norms[1:]))
        self.pool, self.norm, self.dropout = nn.AdaptiveAvgPool2d(2), nn.LayerNorm(4 * width), nn.Dropout(0.1)
        self.classifier = nn.Linear(4 * width, spec.classes)

    def inner(self, inputs: Tensor) -> Tensor:
        """What the classifier is given."""
        return self.dropout(self.norm(self.pool(self.blocks(self.stem(inputs * 4 - 2))).flatten(1)))

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.inner(inputs))
        return logits


def layer_norms(spec: ModelSpec) -> nn.Module:
    return Modern(spec)


def group_norms(spec: ModelSpec) -> nn.Module:
    return Modern(spec, norm="group")


class Ended(Modern):
    """The same net, with another end."""

    def __init__(self, spec: ModelSpec, end: str) -> None:
        super().__init__(spec)
        self.end, weights = end, self.classifier.weight
        del self.classifier
        self.weights = nn.Parameter(weights.detach().clone())

    def forward(self, inputs: Tensor) -> Tensor:
        inner = self.inner(inputs)
        if self.end == "function":
            return F.linear(inner, self.weights)
        if self.end == "product":
            return inner @ self.weights.T
        if self.end == "temperature":
            return F.log_softmax(3.0 * F.linear(inner, self.weights), 1)
        if self.end == "softmax":
            return F.linear(inner, self.weights).softmax(1)
        assert self.end == "distance"
        return -torch.cdist(inner, self.weights)


class Tuned(nn.Module):
    """A head that is tuned over frozen layers, of which BatchNorm would go on learning in train mode."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(spec.input_shape[0], 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.mixer = nn.Sequential(
            nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.GELU(), nn.AdaptiveAvgPool2d(3)
        )
        self.classifier = nn.Linear(144, spec.classes)
        self.trunk.requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.mixer(self.trunk(inputs * 4 - 2)).flatten(1))
        return logits


def tuned(spec: ModelSpec) -> nn.Module:
    return Tuned(spec)
