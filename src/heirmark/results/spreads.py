"""A figure over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure over seeds; all NaN when no seed has one.

    Attributes:
        mean: of the seeds.
        spread: standard deviation between them; NaN for one.
        lowest: of them.
        highest: of them.
    """

    mean: float = math.nan
    spread: float = math.nan
    lowest: float = math.nan
    highest: float = math.nan


def spread_of(values: Iterable[float]) -> Spread:
    """Mean, standard deviation and extremes of what is no NaN.

    Examples:
        >>> spread_of([0.25, 0.5, 0.75, float("nan")])
        Spread(mean=0.5, spread=0.25, lowest=0.25, highest=0.75)
    """
    found = [value for value in values if not math.isnan(value)]
    if not found:
        return Spread()
    return Spread(
        mean=statistics.fmean(found),
        spread=statistics.stdev(found) if len(found) > 1 else math.nan,
        lowest=min(found),
        highest=max(found),
    )
