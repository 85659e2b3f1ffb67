"""What counts in the end, of the rows of a grid: which copies worth having are called marked, and which unmarked ones are too."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from heirmark.results.rows import Row
from heirmark.results.spreads import Spread, spread_of

USABLE = 0.9
"""A copy with less than this share of its victim's accuracy is of no use to a thief, and no owner need catch it."""

K = TypeVar("K")


@dataclass(frozen=True, kw_only=True)
class Copy:
    """What a thief made of a model, altered afterwards or not.

    Attributes:
        row: of it, with a verdict.
        victim: accuracy of the model that it was stolen from, in [0, 1]; NaN where no row tells it.
    """

    row: Row
    victim: float

    @property
    def usable(self) -> bool:
        """Whether it has :data:`USABLE` of its victim's accuracy; never where either accuracy is unknown."""
        return self.row.accuracy >= USABLE * self.victim - 1e-9  # no rounding of a product decides

    @property
    def caught(self) -> bool:
        """Whether it is called marked."""
        return self.row.outcome == "MARKED"


@dataclass(frozen=True, kw_only=True)
class Catches:
    """Copies of marked models and, by the same thefts, of unmarked ones. What failed is in no figure but ``failed``.

    Attributes:
        copies: of marked models.
        controls: of unmarked models.
        failed: how many thefts of marked models have no result.
    """

    copies: tuple[Copy, ...] = ()
    controls: tuple[Copy, ...] = ()
    failed: int = 0

    @cached_property
    def usable(self) -> tuple[Copy, ...]:
        """Copies of marked models that a thief would use."""
        return tuple(copy for copy in self.copies if copy.usable)

    @cached_property
    def caught(self) -> int:
        """How many of the usable copies are called marked. One whose verdict is INVALID is not."""
        return sum(copy.caught for copy in self.usable)

    @property
    def rate(self) -> float:
        """Share of the usable copies that are called marked, in [0, 1]; NaN where none is usable."""
        return self.caught / len(self.usable) if self.usable else math.nan

    @cached_property
    def wsr(self) -> Spread:
        """Watermark success rate of the usable copies, in [0, 1]."""
        return spread_of(copy.row.wsr for copy in self.usable)

    @cached_property
    def needed(self) -> tuple[float, ...]:
        """Queries that a key needs to catch them, of the usable copies that are caught, in rising order, where rows tell."""
        told = (copy.row.needed for copy in self.usable if copy.caught)
        return tuple(sorted(queries for queries in told if math.isfinite(queries)))

    @cached_property
    def verdicts(self) -> int:
        """How many verdicts on copies of unmarked models say something; one that is INVALID cannot accuse anybody."""
        return sum(copy.row.outcome in ("MARKED", "NOT_ESTABLISHED") for copy in self.controls)

    @cached_property
    def alarms(self) -> int:
        """How many copies of unmarked models are called marked, usable or not."""
        return sum(copy.caught for copy in self.controls)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a mark took of the accuracy, marked less unmarked, in [-1, 1].

    Attributes:
        change: over victims and seeds; the lowest is the worst.
        worst: the row of the marked model that lost most; None where no pair is known.
    """

    change: Spread
    worst: Row | None


def catches(rows: Iterable[Row]) -> Catches:
    """Copies by theft among the rows of a grid, see :func:`pairs`, of one watermark or several."""
    found = pairs(rows).values()
    return Catches(
        copies=tuple(copy for pair in found for copy in pair.copies),
        controls=tuple(copy for pair in found for copy in pair.controls),
        failed=sum(pair.failed for pair in found),
    )


def pairs(rows: Iterable[Row]) -> dict[tuple[str, str], Catches]:
    """Copies by victim and thief: by block and trial, in the order of the rows.

    A theft is a trial in which something was asked of the victim. One that failed on every model asked nothing as far as its rows
    tell, and counts as a theft that failed.

    Args:
        rows: of a grid, those of the models themselves among them, which the copies are held against.
    """
    verdicts = [row for row in rows if row.kind == "verdict" and not row.probe]
    victims = {_model(row): row.accuracy for row in verdicts if not row.trial}
    found = {}
    for place, tried in by(lambda row: (row.block, row.trial), verdicts).items():
        if not tried[0].trial or not (any(row.asked for row in tried) or all(row.error for row in tried)):
            continue
        copies = [Copy(row=row, victim=victims.get(_model(row), math.nan)) for row in tried if not row.error]
        found[place] = Catches(
            copies=tuple(copy for copy in copies if copy.row.marked),
            controls=tuple(copy for copy in copies if not copy.row.marked),
            failed=sum(row.marked and bool(row.error) for row in tried),
        )
    return found


def costs(rows: Iterable[Row]) -> Cost:
    """What marks took of the accuracy: every marked model less the first control of its block and seed, before any attack."""
    change: list[tuple[float, Row]] = []
    untouched = (row for row in rows if row.kind == "verdict" and not row.trial and not row.probe and not row.error)
    for models in by(lambda row: (row.block, row.marking, row.seed), untouched).values():
        unmarked = next((row.accuracy for row in models if not row.marked), math.nan)
        change += [(row.accuracy - unmarked, row) for row in models if row.marked]
    known = [pair for pair in change if math.isfinite(pair[0])]
    worst = min(known, key=lambda pair: pair[0])[1] if known else None
    return Cost(change=spread_of(lost for lost, _ in known), worst=worst)


def by(key: Callable[[Row], K], rows: Iterable[Row]) -> dict[K, list[Row]]:
    """Rows in groups, in their order."""
    groups: dict[K, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _model(row: Row) -> tuple[str, str, str, int]:
    """Which model a row tells of, or what was stolen from it."""
    return row.block, row.marking, row.arm, row.seed
