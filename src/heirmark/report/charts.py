"""Charts: rates along an axis, bars, heat maps, points in two dimensions.

Names are untrusted and of any length, so legends are no part of a figure: the page writes them beside :func:`swatch`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from heirmark.errors import printable
from heirmark.report.section import Figure
from heirmark.report.svg import (
    ALERT,
    BLUE,
    GREEN,
    INK,
    LINE,
    MUTED,
    ORANGE,
    PALETTE,
    PAPER,
    STONE,
    WIDTH,
    as_svg,
    open_panel,
    styled,
)
from heirmark.results.spreads import Spread, spread_of

Look: TypeAlias = tuple[str, tuple[float, ...], str]
"""Colour, dashes in line widths, marker."""

LOOKS: tuple[Look, ...] = (
    (BLUE, (), "o"),
    (ORANGE, (5, 2), "s"),
    (GREEN, (1, 1.6), "D"),
    (INK, (7, 2, 1, 2), "^"),
    (ALERT, (3, 1.2), "v"),
    (MUTED, (9, 3), "P"),
)
"""Of lines. A seventh looks like the first again."""

CONTROL_LOOK: Look = (STONE, (2, 2), "X")
"""Of the control's line."""

REFERENCE_LOOK: Look = (MUTED, (2, 2), "")
"""Of a rate that lines are held against."""

TRIGGER_LOOK, TARGET_LOOK, OTHER_LOOK = (ALERT, "x"), (GREEN, "D"), (STONE, ".")
SOURCE_LOOKS = ((BLUE, "o"), (ORANGE, "s"), (INK, "^"), (MUTED, "P"))
"""Of groups of points: colour and marker."""

_GLYPHS = {
    "o": "M15 1.9a3.1 3.1 0 1 0 .01 0z",
    "s": "M12.2 2.2h5.6v5.6h-5.6z",
    "D": "M15 1l4 4-4 4-4-4z",
    "^": "M15 1.4l3.7 6.6h-7.4z",
    "v": "M15 8.6l3.7-6.6h-7.4z",
    "P": "M13.7 1.7h2.6v2h2v2.6h-2v2h-2.6v-2h-2v-2.6h2z",
    "X": "M12 3.4l1.4-1.4 1.6 1.6 1.6-1.6L18 3.4 16.4 5 18 6.6 16.6 8 15 6.4 13.4 8 12 6.6 13.6 5z",
    "x": "M12 2l6 6m0-6l-6 6",
    ".": "M15 3.4a1.6 1.6 0 1 0 .01 0z",
}


@dataclass(frozen=True, kw_only=True)
class Rates:
    """A line: its name, untrusted; places of an axis and the rate over seeds there, 0..1; a look such as :data:`LOOKS` has."""

    name: str
    points: tuple[tuple[float, Spread], ...]
    look: Look


def swatch(look: tuple[Any, ...]) -> Markup:
    """A piece of a line with its marker, or a marker alone, to stand in a line of text."""
    colour, marker = _variable(look[0]), look[-1]
    drawn = ""
    if len(look) == 3:
        dashes = f' stroke-dasharray="{" ".join(f"{2 * dash:g}" for dash in look[1])}"' if look[1] else ""
        drawn = f'<path d="M0 5h30" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>'
    if not marker:
        return Markup(f'<svg class="swatch" viewBox="0 0 30 10" aria-hidden="true">{drawn}</svg>')
    open_mark = marker == "x"
    fill = "none" if open_mark else colour
    edge = f' stroke="{colour if open_mark else "var(--paper)"}" stroke-width="{1.8 if open_mark else 0.8}"'
    view = "0 0 30 10" if len(look) == 3 else "10 0 10 10"
    kind = "swatch" if len(look) == 3 else "swatch dot"
    return Markup(
        f'<svg class="{kind}" viewBox="{view}" aria-hidden="true">{drawn}<path d="{_GLYPHS[marker]}" fill="{fill}"{edge}/></svg>'
    )


def rate_figure(
    lines: Sequence[Rates], title: str, axis: str, name: str, alt: str, *, whole: bool = True, clean: float = math.nan
) -> Figure:
    """:func:`rate_lines` below a title, and a legend of them; ``clean`` is the rate of an unmarked model, NaN for none."""
    legend = [(swatch(line.look), line.name) for line in lines]
    if math.isfinite(clean):
        legend.append((swatch(REFERENCE_LOOK), "clean model"))
    drawing = rate_lines(lines, axis, name, alt, whole=whole, reference=clean)
    return Figure(title=title, drawing=drawing, legend=tuple(legend))


def rate_lines(
    lines: Sequence[Rates], axis: str, name: str, alt: str, *, whole: bool = True, reference: float = math.nan
) -> Markup:
    """Rates along an axis: the mean of the seeds as a line, lowest to highest as a band.

    Args:
        lines: at most six look different. Places are in the order of the first line: where they fall, as bits do, the axis
            does too.
        axis: its name, untrusted.
        name: of the figure on its page.
        alt: what it shows.
        whole: from 0 to 100 %; else from a little below the lowest rate, where a few points must be seen.
        reference: a rate to hold the lines against, drawn across; NaN for none.
    """
    with styled():
        figure, axes = open_panel(262, left=44, right=14, top=10, bottom=42)
        for line in lines:
            known = [(place, rate) for place, rate in line.points if math.isfinite(rate.mean)]
            if not known:
                continue
            colour, dashes, marker = line.look
            places, means = zip(*known, strict=True)
            axes.plot(
                places,
                [100 * rate.mean for rate in means],
                color=colour,
                linestyle=(0, dashes) if dashes else "-",
                marker=marker if len(known) <= 24 else None,
                linewidth=2,
                markersize=5.5,
                markeredgecolor=PAPER,
                clip_on=False,
                zorder=3,
            )
            low, high = ([100 * getattr(rate, end) for rate in means] for end in ("lowest", "highest"))
            axes.fill_between(places, low, high, color=colour, alpha=0.13, linewidth=0, zorder=2)
        rates = [rate for line in lines for _, rate in line.points]
        if math.isfinite(reference):
            axes.axhline(100 * reference, color=MUTED, linewidth=1.2, linestyle=(0, REFERENCE_LOOK[1]))
            rates.append(spread_of([reference]))
        _set_rates(axes, rates, whole=whole)
        _set_places(axes, [place for place, _ in lines[0].points] if lines else [])
        axes.set_xlabel("@0@", labelpad=6)
        return as_svg(figure, name, alt, [axis])


def heat_map(
    squares: Mapping[tuple[str, str], float], axes_names: tuple[str, str], name: str, alt: str, *, most: float = 1.0
) -> Markup:
    """A rate for every pair, such as source and target class (T2S, Figs. 9 and 10).

    Args:
        squares: rate 0..most by row and column, both untrusted; NaN is an empty square. Rows and columns come in the order in
            which they first appear, in one order where both are the same.
        axes_names: of rows and columns.
        name: of the figure on its page.
        alt: what it shows.
        most: what has the deepest shade.
    """
    rows, columns = (list(dict.fromkeys(pair[side] for pair in squares)) for side in (0, 1))
    if set(rows) == set(columns):
        columns = rows
    labels = [_shorten(label) for label in (*rows, *columns)]
    left = 22 + 6.2 * max(map(len, labels[: len(rows)]), default=0)
    size = (WIDTH - left - 4) / max(len(columns), 1)
    size_y = min(size, 44.0)
    top = 20 + 5.2 * max(map(len, labels[len(rows) :]), default=0)
    with styled():
        figure, axes = open_panel(size_y * len(rows) + top + 6, left=left, right=4, top=top, bottom=6)
        axes.set_xlim(0, len(columns))
        axes.set_ylim(len(rows), 0)
        axes.spines[:].set_visible(False)
        axes.set_xticks([])
        axes.set_yticks([])
        fontsize = min(11.5, max(7.0, size / 2.9))
        for (row, column), rate in squares.items():
            y, x = rows.index(row), columns.index(column)
            known = math.isfinite(rate)
            # Shades of one colour, so that the same drawing serves a light and a dark page.
            axes.fill(
                [x + 0.03, x + 0.97, x + 0.97, x + 0.03],
                [y + 0.03, y + 0.03, y + 0.97, y + 0.97],
                facecolor=BLUE if known else "none",
                alpha=0.06 + 0.54 * min(rate / most, 1.0) if known else 1.0,
                edgecolor=LINE,
                linewidth=0 if known else 1,
            )
            text = f"{100 * rate:.0f}" if known else "–"
            axes.text(x + 0.5, y + 0.5, text, ha="center", va="center_baseline", fontsize=fontsize)
        for number in range(len(rows)):
            axes.text(-0.12, number + 0.5, f"@{number}@", ha="right", va="center_baseline", fontsize=10, color=MUTED)
        for number in range(len(columns)):
            axes.text(
                number + 0.5,
                -0.15,
                f"@{len(rows) + number}@",
                ha="left",
                va="bottom",
                rotation=45,
                rotation_mode="anchor",
                fontsize=10,
                color=MUTED,
            )
        return as_svg(figure, name, f"{alt} Rows: {axes_names[0]}; columns: {axes_names[1]}.", labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dots:
    """Points of one look: ``[N, 2]`` places, colour and marker, and how far above the others they lie."""

    points: NDArray[np.float64]
    look: tuple[str, str]
    above: int = 2


def cloud(groups: Sequence[Dots], name: str, alt: str) -> Markup:
    """Points in two dimensions, a mark a sample."""
    with styled():
        figure, axes = open_panel(300, left=6, right=6, top=6, bottom=6)
        axes.spines[:].set_visible(True)
        axes.set_xticks([])
        axes.set_yticks([])
        for dots in groups:
            colour, marker = dots.look
            axes.plot(
                dots.points[:, 0],
                dots.points[:, 1],
                linestyle="none",
                color=colour,
                marker=marker,
                markersize=4.4 if marker != "." else 6.5,
                markeredgecolor=colour if marker == "x" else PAPER,
                markeredgewidth=1.5 if marker == "x" else 0.4,
                zorder=dots.above,
            )
        axes.margins(0.04)
        return as_svg(figure, name, alt)


def _variable(colour: str) -> str:
    return next(f"var(--{name})" for name, (light, _) in PALETTE.items() if light == colour)


def _shorten(label: str) -> str:
    label = printable(label)
    return label if len(label) <= 14 else label[:13] + "…"


def _set_rates(axes: Axes, rates: Sequence[Spread], *, whole: bool) -> None:
    lowest = min((rate.lowest for rate in rates if math.isfinite(rate.lowest)), default=0.0)
    axes.set_ylim(0.0 if whole else max(0.0, min(10 * math.floor(10 * lowest), 80.0)), 100.0)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
    axes.grid(axis="y", color=LINE, linewidth=1)


def _set_places(axes: Axes, places: Sequence[float]) -> None:
    if len(places) > 2 and min(places) > 0 and max(places) >= 50 * min(places):
        axes.set_xscale("log")  # what is tried over decades, as the weights of losses are
        axes.xaxis.set_minor_locator(NullLocator())
    if len(places) > 1 and places[0] > places[-1]:
        axes.invert_xaxis()
    axes.margins(x=0.04)
    if 0 < len(places) <= 9:
        axes.set_xticks(list(places), [f"{place:g}" for place in places])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10], min_n_ticks=2))
