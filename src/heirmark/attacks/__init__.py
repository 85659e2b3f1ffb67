"""Attacks by name. Each is one file citing its paper."""

from heirmark.attacks.base import Extraction, Stolen
from heirmark.attacks.extraction.knockoff import Knockoff

__all__ = ["EXTRACTIONS", "Extraction", "Knockoff", "Stolen"]

EXTRACTIONS: dict[str, type[Knockoff]] = {"knockoff": Knockoff}
"""Extraction attacks."""
