"""What an attack is and what it returns. An attack gets a black box or weights, and the adversary's data; never a key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import nn

from heirmark.blackbox import BlackBox
from heirmark.models import ModelSpec
from heirmark.runtime import Runtime
from heirmark.task import Split


@dataclass(frozen=True, kw_only=True, eq=False)
class Stolen:
    """A stolen model.

    Attributes:
        model: the copy, in eval mode.
        spec: what rebuilds it.
        queries: how many inputs the victim was asked about.
    """

    model: nn.Module
    spec: ModelSpec
    queries: int


class Extraction(Protocol):
    """An extraction attack: a frozen dataclass of its parameters, called with a victim."""

    def __call__(self, box: BlackBox, data: Split, *, seed: int, runtime: Runtime | None = None) -> Stolen:
        """Steal the model behind a black box with the adversary's data."""
