"""Bars: rates of suspects below each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes

from heirmark.report.svg import ALERT, BLUE, INK, LINE, ORANGE, PAPER, STONE, as_svg, open_panel, styled
from heirmark.report.words import percent

WHOLE_MARK, OPEN_MARK, NULL_MARK = (Markup(f'<span class="mark{more}"></span>') for more in (" full", "", " tick"))
"""Of bars: called marked, not established, and the null rate."""
_LOOKS: Mapping[str, Mapping[str, Any]] = {
    "MARKED": {"facecolor": BLUE, "edgecolor": BLUE},
    "NOT_ESTABLISHED": {"facecolor": PAPER, "edgecolor": BLUE},
    "INVALID": {"facecolor": PAPER, "edgecolor": ALERT, "hatch": "////"},
    "": {"facecolor": STONE, "edgecolor": STONE},
}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar: its name, untrusted; a rate 0..1; the outcome that fills it, if any; an interval; a rate to hold it against."""

    name: str
    rate: float
    outcome: str = ""
    interval: tuple[float, float] | None = None
    reference: float = math.nan


def bars(found: Sequence[Bar], name: str, alt: str) -> Markup:
    """Rates as bars below each other, with their intervals, and what each is held against as a line; see :func:`as_svg`."""
    with styled():
        figure, axes = open_panel(40 * len(found) + 36, left=1, right=56, top=4, bottom=32)
        axes.set_xlim(0, 100)
        axes.set_ylim(len(found) - 0.6, -0.6)
        axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100%"])
        axes.set_yticks([])
        axes.get_xticklabels()[0].set_horizontalalignment("left")
        axes.grid(axis="x", color=LINE, linewidth=1)
        axes.set_axisbelow(True)
        for place, bar in enumerate(found):
            _draw(axes, place, bar)
        return as_svg(figure, name, alt, [bar.name for bar in found])


def _draw(axes: Axes, place: int, bar: Bar) -> None:
    """One suspect: its name (put in later, see as_svg) over its bar, the value at the right edge."""
    axes.text(0, place - 0.24, f"@{place}@", va="baseline", fontsize=11.5, zorder=6)
    value = percent(bar.rate) if bar.outcome != "INVALID" else "invalid"
    axes.text(116.5, place, value, ha="right", va="center_baseline", fontsize=11.5, color=INK)
    if math.isfinite(bar.rate):
        axes.barh(place, 100 * bar.rate, height=0.27, linewidth=1.2, zorder=2, **_LOOKS[bar.outcome])
    if math.isfinite(bar.reference):  # beside the bar alone, so that it crosses out no name
        axes.vlines(100 * bar.reference, place - 0.2, place + 0.2, color=ORANGE, linewidth=1.8, zorder=3)
    if bar.interval is not None:
        low, high = (100 * end for end in bar.interval)
        # Twice, wide in the paper's colour first, so that a whisker shows on its bar too.
        for colour, width in ((PAPER, 3.3), (INK, 1.3)):
            axes.hlines(place, low, high, color=colour, linewidth=width, zorder=4)
            axes.vlines([low, high], place - 0.11, place + 0.11, color=colour, linewidth=width, zorder=4)
