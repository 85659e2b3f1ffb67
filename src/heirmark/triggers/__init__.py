"""Triggers: what a marked model answers in the owner's way. A kind is settled once into a secret, which then draws samples."""

from heirmark.triggers.base import Secret, Trigger, TriggerSet
from heirmark.triggers.feature import Feature
from heirmark.triggers.mix import Mix
from heirmark.triggers.out_of_distribution import OutOfDistribution
from heirmark.triggers.tiles import Tiles

__all__ = ["AnyTrigger", "Feature", "Mix", "OutOfDistribution", "Secret", "Tiles", "Trigger", "TriggerSet"]

AnyTrigger = Feature | Mix | OutOfDistribution | Tiles
"""The kinds that a method's configuration may name."""
