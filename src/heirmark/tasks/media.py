"""How inputs that are no images are shown to people and put to services: sound has a rate, a text a tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from heirmark.configuration import checked, within


@dataclass(frozen=True, kw_only=True)
@checked
class Sound:
    """Waves at a rate.

    Attributes:
        rate: samples a second.
    """

    rate: Annotated[int, within(1000, 384_000)]


Medium: TypeAlias = Sound
