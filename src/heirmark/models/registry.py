"""The built-in models by name, each imported when it is used.

Names alone stand here: what a stage's result rests on is the class that a name stands for, which its configuration says
(:func:`heirmark.models.architecture`), and not this table. So a new model leaves everything valid that does not use it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import nn

from heirmark.models.from_timm import TIMM

_HOMES: Mapping[str, tuple[str, int]] = {
    "naivenet": ("simple:NaiveNet", 16),
    "alexnet": ("simple:AlexNet", 8),
    "vgg-like": ("simple:VGGLike", 12),
    "resnet18": ("residual:ResNet18", 8),
    "wrn-16-4": ("residual:WideResNet16", 8),
    "resnet50": ("bottleneck:ResNet50", 8),
    "mobilenet-v2": ("mobilenet:MobileNetV2", 8),
    "googlenet": ("googlenet:GoogLeNet", 8),
    "vit-s": ("vit:ViT", 8),
    "mobilevit-s": ("mobilevit:MobileViT", 16),
    **dict.fromkeys(TIMM, ("from_timm:TimmNet", 8)),
}
"""Module and class of each, and the smallest side of images that it takes."""


class _Models(Mapping[str, Callable[..., nn.Module]]):
    """Constructors by name."""

    def __getitem__(self, name: str) -> Callable[..., nn.Module]:
        found = class_of(name)
        return partial(found, name) if name in TIMM else found

    def __iter__(self) -> Iterator[str]:
        return iter(_HOMES)

    def __len__(self) -> int:
        return len(_HOMES)


MODELS: Mapping[str, Callable[..., nn.Module]] = _Models()
"""The built-in models; those of :data:`heirmark.models.from_timm.TIMM` need the extra ``heirmark[timm]``."""


def class_of(name: str) -> type[nn.Module]:
    """The class behind a name.

    Raises:
        KeyError: for an unknown one.
    """
    module, _, attribute = _HOMES[name][0].partition(":")
    found: Any = getattr(importlib.import_module(f"heirmark.models.{module}"), attribute)
    return found  # type: ignore[no-any-return]


def smallest_of(name: str) -> int:
    """The smallest side of images that a model takes, in pixels."""
    return _HOMES[name][1]
