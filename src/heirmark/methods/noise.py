"""Noise watermarks: Gaussian noise on images of one class (Zhang et al., AsiaCCS 2018, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from heirmark.methods.vanilla import Vanilla
from heirmark.triggers import AnyTrigger, GaussianNoise


@dataclass(frozen=True, kw_only=True)
class Noise(Vanilla):
    """A secret noise on images of one class, all labelled with one target ("Protecting intellectual property of DNNs").

    Joint training on clean and trigger samples.

    Attributes:
        trigger: kind of trigger; noise is the paper's.
        triggers: trigger samples that train (inferred).
        pretraining: of the clean and of the marked model; T2S', so that the methods compare (inferred).
    """

    name: ClassVar[str] = "noise"

    trigger: AnyTrigger = field(default=GaussianNoise())
    trigger_batch: int = 32
