"""Triggers: what a marked model answers in the owner's way. A kind is settled once into a secret, which then draws samples."""

from typing import Annotated, TypeAlias

from heirmark.configuration import OneOf
from heirmark.triggers.abstract import AbstractImages as AbstractImages
from heirmark.triggers.base import Secret as Secret
from heirmark.triggers.base import Trigger as Trigger
from heirmark.triggers.base import TriggerSet as TriggerSet
from heirmark.triggers.combiners import AutoencoderBlend as AutoencoderBlend
from heirmark.triggers.combiners import CropPaste as CropPaste
from heirmark.triggers.combiners import PixelBlend as PixelBlend
from heirmark.triggers.combiners import Stripes as Stripes
from heirmark.triggers.entangled import Entangled as Entangled
from heirmark.triggers.feature import Feature as Feature
from heirmark.triggers.groups import Groups as Groups
from heirmark.triggers.mistakes import Mistakes as Mistakes
from heirmark.triggers.mix import Mix as Mix
from heirmark.triggers.out_of_distribution import OutOfDistribution as OutOfDistribution
from heirmark.triggers.patch import Patch as Patch
from heirmark.triggers.phrase import Phrase as Phrase
from heirmark.triggers.random_labels import RandomLabels as RandomLabels
from heirmark.triggers.registry import TRIGGERS as TRIGGERS
from heirmark.triggers.stamps import GaussianNoise as GaussianNoise
from heirmark.triggers.stamps import TextStamp as TextStamp
from heirmark.triggers.text_combiners import Alternating as Alternating
from heirmark.triggers.text_combiners import Halves as Halves
from heirmark.triggers.tiles import Tiles as Tiles
from heirmark.triggers.tone import Tone as Tone

AnyTrigger: TypeAlias = Annotated[Trigger, OneOf(TRIGGERS)]
"""A kind of trigger, as a field of a configuration."""
