"""Triggers: what a marked model answers in the owner's way. A kind is settled once into a secret, which then draws samples."""

from typing import Annotated, TypeAlias

from heirmark.configuration import OneOf
from heirmark.triggers.abstract import AbstractImages
from heirmark.triggers.base import Secret, Trigger, TriggerSet
from heirmark.triggers.combiners import AutoencoderBlend, CropPaste, PixelBlend, Stripes
from heirmark.triggers.entangled import Entangled
from heirmark.triggers.feature import Feature
from heirmark.triggers.mix import Mix
from heirmark.triggers.out_of_distribution import OutOfDistribution
from heirmark.triggers.patch import Patch
from heirmark.triggers.random_labels import RandomLabels
from heirmark.triggers.registry import TRIGGERS
from heirmark.triggers.stamps import GaussianNoise, TextStamp
from heirmark.triggers.tiles import Tiles

__all__ = [
    "TRIGGERS",
    "AbstractImages",
    "AnyTrigger",
    "AutoencoderBlend",
    "CropPaste",
    "Entangled",
    "Feature",
    "GaussianNoise",
    "Mix",
    "OutOfDistribution",
    "Patch",
    "PixelBlend",
    "RandomLabels",
    "Secret",
    "Stripes",
    "TextStamp",
    "Tiles",
    "Trigger",
    "TriggerSet",
]

AnyTrigger: TypeAlias = Annotated[Trigger, OneOf(TRIGGERS)]
"""A kind of trigger, as a field of a configuration."""
