"""DenseNets and EfficientNets of the timm library, which is installed apart: ``pip install heirmark[timm]``."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from heirmark.errors import BadConfig
from heirmark.models.layers import BuiltIn, Door

LEAST = 32
"""Side in pixels, once enlarged; a DenseNet pools anything much smaller to nothing."""
MOST = 600
"""Side in pixels that images may be enlarged to; the largest of these nets was made for 380."""


class TimmNet(BuiltIn):
    """A net of timm (Wightman 2019) with random weights, behind our normalisation and with our head.

    DenseNets (Huang 2016, arXiv 1608.06993) and EfficientNets (Tan & Le 2019, arXiv 1905.11946) as published, for large images:
    DeepTracer (arXiv 2511.08985) marks a DenseNet-161 and an EfficientNet-B2 on ImageNet. They shrink images to a
    thirty-second, so ``enlarge`` small ones. Nothing is downloaded.

    Args:
        input_shape: ``(C, H, W)`` with H, W of at least 8, and of at least 32 once enlarged.
        classes: number of logits.
        enlarge: factor by which both sides are stretched first, bilinearly; at 7 images of 32 pixels become 224.

    Raises:
        BadConfig: when timm, or what it needs, cannot be imported.
        ValueError: when the images are too small, or would be enlarged beyond 600 pixels.
    """

    timm: ClassVar[str]
    """Its name there."""

    def __init__(self, input_shape: tuple[int, int, int], classes: int, *, enlarge: int = 1) -> None:
        super().__init__()
        side = min(input_shape[1:])
        if side * enlarge < LEAST:
            raise ValueError(f"sides of {side} pixels are too small for it: give enlarge={-(-LEAST // side)} or more")
        # No weight depends on it, so a stranger's description could ask for any amount of memory.
        if enlarge > 1 and max(input_shape[1:]) * enlarge > MOST:
            raise ValueError(f"enlarge={enlarge} makes sides of more than {MOST} pixels: lower it")
        net = _timm(self.timm).create_model(
            self.timm, pretrained=False, in_chans=input_shape[0], num_classes=0, global_pool="avg"
        )
        stretch: list[nn.Module] = [nn.Upsample(scale_factor=enlarge, mode="bilinear")] if enlarge > 1 else []
        self.features = nn.Sequential(Door(), *stretch, net)
        self.head = nn.Linear(net.num_features, classes)


class DenseNet121(TimmNet):
    """DenseNet-121."""

    timm: ClassVar[str] = "densenet121"


class DenseNet161(TimmNet):
    """DenseNet-161."""

    timm: ClassVar[str] = "densenet161"


class EfficientNetB0(TimmNet):
    """EfficientNet-B0."""

    timm: ClassVar[str] = "efficientnet_b0"


class EfficientNetB2(TimmNet):
    """EfficientNet-B2."""

    timm: ClassVar[str] = "efficientnet_b2"


def _timm(name: str) -> Any:
    try:
        # Whatever timm computes on import must hold numbers, also where a model is being built on the meta device.
        with torch.device("cpu"):
            import timm
    except Exception as error:  # torchvision below it fails in ways of its own where it was built for another torch
        raise BadConfig(
            f"model {name!r} is one of timm's, which cannot be imported ({type(error).__name__}: {error}): "
            "pip install heirmark[timm], with a torchvision that fits your torch, or choose another model"
        ) from error
    return timm
