"""Unrelated watermarks: images of another task (Zhang et al., AsiaCCS 2018, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from heirmark.methods.scale import Scale
from heirmark.methods.vanilla import Vanilla
from heirmark.triggers import AbstractImages, AnyTrigger, OutOfDistribution


@dataclass(frozen=True, kw_only=True)
class Unrelated(Vanilla):
    """Images of another task, all labelled with one target ("Protecting intellectual property of DNNs with watermarking").

    Joint training on clean and trigger samples.

    Attributes:
        trigger: kind of trigger; the paper took MNIST's ones for CIFAR-10. AbstractImages need no other data.
        triggers: trigger samples that train (inferred).
        pretraining: of the clean and of the marked model; T2S', so that the methods compare (inferred).
    """

    name: ClassVar[str] = "unrelated"

    trigger: AnyTrigger = field(default=OutOfDistribution(dataset="mnist"))
    trigger_batch: int = 32

    @classmethod
    def quick(cls, scale: Scale) -> Self:
        """Abstract images, where another data set would be needed."""
        return replace(super().quick(scale), trigger=AbstractImages())
