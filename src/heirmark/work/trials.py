"""Trials: what is done to a model, step by step, before it is judged; and probes, which look for a mark in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from heirmark.attacks import SCREENINGS
from heirmark.runtime import derive_seed
from heirmark.stages.stage import Stage
from heirmark.work.altering import Alteration, alter_stage
from heirmark.work.context import Context
from heirmark.work.stealing import Theft, steal_stage


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One row of an audit: what is done to a model, step by step, before it is judged.

    Attributes:
        name: for people.
        group: the table that the row stands in.
        steps: thefts and alterations, each of what the one before it left.
        curve: the axis and place of a row that is a point of a curve.
    """

    name: str
    group: str
    steps: tuple[Theft | Alteration, ...]
    curve: tuple[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One detection attack.

    Attributes:
        name: for people.
        attack: the inspection or screening.
        stolen: how a copy is made that is attacked instead of the model; empty attacks the model.
    """

    name: str
    attack: Any
    stolen: tuple[Theft, ...] = ()

    @property
    def screens(self) -> bool:
        """Whether it screens queries, and searches no model for a mark."""
        return type(self.attack) in SCREENINGS.values()


def chain(steps: Sequence[Theft | Alteration], start: Stage, context: Context, *, seed: int) -> list[Stage]:
    """A stage a step, each on what the one before it made; the first on what ``start`` made."""
    stages = [start]
    for position, step in enumerate(steps):
        own = derive_seed(seed, "attack", position)
        if isinstance(step, Theft):
            stages.append(steal_stage(step, stages[-1], context, seed=own))
        else:
            stages.append(alter_stage(step, stages[-1], context, seed=own))
    return stages[1:]
