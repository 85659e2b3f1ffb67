"""Figures of a report: inline SVG that follows the page's light and dark colours, and images as PNG data URIs.

Text stays text (it takes the page's font) and every colour is a CSS variable, so one drawing serves light, dark and print.
Panels are drawn 400 px wide, small enough to stay legible on a phone; a wide page sets two side by side.
"""

from __future__ import annotations

import base64
import io
import math
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib.style
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from heirmark.errors import printable
from heirmark.report.content import Row, percent

PALETTE = {
    "paper": ("#fbfaf7", "#131519"),
    "card": ("#ffffff", "#1b1e23"),
    "ink": ("#1d2127", "#e9e7e2"),
    "muted": ("#5c626b", "#a4a9b2"),
    "line": ("#e2dfd7", "#31353d"),
    "blue": ("#0b62a8", "#74b6f0"),
    "orange": ("#b65208", "#f0a461"),
    "green": ("#0b7a5a", "#52cba3"),
    "stone": ("#a5a39b", "#6b7079"),
    "alert": ("#a5301d", "#ff9d88"),
}
"""CSS variable to its (light, dark) colour. Blue, orange and green stay apart for colour-blind eyes (after Okabe and Ito),
and never speak alone: dashes, markers, fills and words repeat what they say."""

INK, MUTED, LINE, BLUE, ORANGE, GREEN, STONE, ALERT, PAPER = (
    PALETTE[name][0] for name in ("ink", "muted", "line", "blue", "orange", "green", "stone", "alert", "paper")
)

WIDTH = 400
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "heirmark",
    "font.size": 11.5,
    "hatch.linewidth": 1.0,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
}

LINES = (
    ("target", "marked model", BLUE, "-", "o"),
    ("student", "simulated thief", ORANGE, (0, (5, 2)), "s"),
    ("thief", "real thief", GREEN, (0, (1, 1.6)), "D"),
)
"""Lines of the rehearsal panels: key prefix in the history, name, colour, dashes, marker."""


def wsr_bars(rows: Sequence[Row]) -> Markup:
    """Watermark success rate of every suspect, with its confidence interval and the null rate as a line."""
    with styled():
        figure, axes = _bar_panel(len(rows))
        for place, row in enumerate(rows):
            _bar(axes, place, row.wsr, row.outcome)
            low, high = (100 * end for end in row.interval)
            if math.isfinite(low) and math.isfinite(high):
                # Twice, wide in the paper's colour first, so that a whisker shows on its bar too.
                for colour, width in ((PAPER, 3.3), (INK, 1.3)):
                    axes.hlines(place, low, high, color=colour, linewidth=width, zorder=4)
                    axes.vlines([low, high], place - 0.11, place + 0.11, color=colour, linewidth=width, zorder=4)
        for first, last, rate in _runs([row.null_rate for row in rows]):
            _reference(axes, rate, first, last)
        return as_svg(
            figure,
            "wsr",
            "Bars: watermark success rate of each suspect; the table holds the same numbers.",
            _names(rows),
        )


def accuracy_bars(rows: Sequence[Row], clean_accuracy: float | None) -> Markup:
    """Clean accuracy of every suspect; the line is the accuracy of the unmarked twin, when it is known."""
    with styled():
        figure, axes = _bar_panel(len(rows))
        for place, row in enumerate(rows):
            _bar(axes, place, row.accuracy, None)
        if clean_accuracy is not None:
            _reference(axes, clean_accuracy, 0, len(rows) - 1)
        return as_svg(
            figure, "acc", "Bars: clean accuracy of each suspect; the table holds the same numbers.", _names(rows)
        )


def rehearsal_curve(
    history: Sequence[Mapping[str, float]], measure: str, clean_accuracy: float | None = None
) -> Markup | None:
    """One measure per epoch of rehearsal, for the marked model and its thieves (T2S, Fig. 3).

    Args:
        history: mappings with ``epoch`` and rates 0..1 under ``target_<measure>``, ``student_<measure>``,
            ``thief_<measure>``; what is missing or NaN is left out.
        measure: ``"wsr"`` or ``"accuracy"``.
        clean_accuracy: drawn as a dashed line in the accuracy panel.

    Returns:
        The panel, or None when the history holds nothing of this measure.
    """
    series = [(curve(history, f"{prefix}_{measure}"), *look) for prefix, *look in LINES]
    series = [line for line in series if line[0]]
    if not series:
        return None
    with styled():
        figure, axes = open_panel(288, left=44, right=14, top=52, bottom=42)
        for line, name, colour, dashes, marker in series:
            draw_line(axes, [(x, 100 * y) for x, y in line], name, colour, dashes, marker if len(line) <= 24 else None)
        low, high = 0.0, 100.0
        if measure == "accuracy":
            # A line, unlike a bar, needs no zero: the few points that a mark costs must be visible.
            values = [value for line, *_ in series for _, value in line]
            values += [] if clean_accuracy is None else [clean_accuracy]
            low, high = 5 * math.floor(20 * min(values)), 5 * math.ceil(20 * max(values))
            low, high = max(0, min(low, high - 10)), max(high, 10)
            if clean_accuracy is not None:
                axes.axhline(
                    100 * clean_accuracy, color=MUTED, linewidth=1.2, linestyle=(0, (2, 2)), label="clean model"
                )
        axes.set_ylim(low, high)
        axes.margins(x=0.03)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], min_n_ticks=2))
        axes.grid(axis="y", color=LINE, linewidth=1)
        axes.set_xlabel("epoch of rehearsal", labelpad=6)
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.03),
            ncols=2,
            handlelength=2.6,
            columnspacing=2.5,
            borderpad=0.2,
            fontsize=11,
        )
        name = {"wsr": "watermark success rate", "accuracy": "clean accuracy"}[measure]
        alt = f"Lines: {name} per epoch of rehearsal; the numbers follow below the figure."
        return as_svg(figure, f"rehearsal-{measure}", alt)


def attack_curve(places: Sequence[float], series: Mapping[str, Sequence[float]], axis: str, number: int) -> Markup:
    """Rates as an attack grows stronger, up to three lines.

    Args:
        places: on the axis, from the mildest on: where they fall, as bits do, the axis does too.
        series: by name, a rate 0..1 for each place; NaN is left out.
        axis: its name.
        number: of the panel on its page.
    """
    looks = ((BLUE, "-", "o"), (STONE, (0, (5, 2)), "s"), (ORANGE, (0, (1, 1.6)), "D"))
    with styled():
        figure, axes = open_panel(288, left=44, right=14, top=36, bottom=42)
        for (name, rates), (colour, dashes, marker) in zip(series.items(), looks, strict=False):
            pairs = [(place, 100 * rate) for place, rate in zip(places, rates, strict=True) if math.isfinite(rate)]
            if pairs:
                draw_line(axes, pairs, name, colour, dashes, marker)
        axes.set_ylim(0, 100)
        axes.margins(x=0.03)
        if len(places) > 1 and places[0] > places[-1]:
            axes.invert_xaxis()
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}%"))
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10], min_n_ticks=2))
        axes.grid(axis="y", color=LINE, linewidth=1)
        axes.set_xlabel(axis, labelpad=6)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, handlelength=2.4, columnspacing=1.6)
        return as_svg(
            figure, f"curve-{number}", f"Lines: success rates and accuracy by {axis}; the numbers follow below."
        )


def curve(history: Sequence[Mapping[str, float]], name: str) -> list[tuple[float, float]]:
    """The finite (epoch, value) pairs of one named series of a history."""
    pairs = [(float(step.get("epoch", math.nan)), float(step.get(name, math.nan))) for step in history]
    return [pair for pair in pairs if all(map(math.isfinite, pair))]


def png_uri(image: NDArray[np.uint8]) -> str:
    """An image as a PNG data URI at its own resolution.

    Args:
        image: ``[C, H, W]`` uint8. Three or more channels are read as RGB (the rest is dropped), fewer as grey.
    """
    channels = 3 if image.shape[0] >= 3 else 1
    _, height, width = image.shape
    pixels = image[:channels].transpose(1, 2, 0).reshape(height, width * channels)
    lines = np.pad(pixels, ((0, 0), (1, 0)))  # the leading 0 of a scan line: no filter
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


def styled() -> AbstractContextManager[None]:
    """The style of all figures, to draw and to save them in."""
    # Start from matplotlib's own defaults: a user's matplotlibrc must not change a report.
    context: AbstractContextManager[None] = matplotlib.style.context(["default", STYLE])
    return context


def open_panel(height: float, *, left: float, right: float, top: float, bottom: float) -> tuple[Figure, Axes]:
    """A figure of WIDTH x height px (an SVG point is a px here) and its one pair of axes, margins in px."""
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    axes = figure.add_axes(
        (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, (height - top - bottom) / height)
    )
    axes.patch.set_visible(False)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.tick_params(length=0, pad=7)
    return figure, axes


def draw_line(
    axes: Axes, pairs: Sequence[tuple[float, float]], name: str, colour: str, dashes: Any, marker: str | None
) -> None:
    """A line through (x, y) pairs."""
    x, y = zip(*pairs, strict=True)
    axes.plot(
        x,
        y,
        color=colour,
        linestyle=dashes,
        marker=marker,
        linewidth=2,
        markersize=5.5,
        markeredgecolor=PAPER,
        label=name,
        clip_on=False,
        zorder=3,
    )


def _names(rows: Sequence[Row]) -> list[str]:
    return [row.label for row in rows]


def _bar_panel(rows: int) -> tuple[Figure, Axes]:
    figure, axes = open_panel(40 * rows + 36, left=1, right=56, top=4, bottom=32)
    axes.set_xlim(0, 100)
    axes.set_ylim(rows - 0.6, -0.6)
    axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100%"])
    axes.set_yticks([])
    axes.get_xticklabels()[0].set_horizontalalignment("left")
    axes.grid(axis="x", color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    return figure, axes


def _bar(axes: Axes, place: int, rate: float, outcome: str | None) -> None:
    """One suspect: its name (put in later, see as_svg) over its bar, the value at the right edge."""
    looks: Mapping[str | None, Mapping[str, Any]] = {
        "MARKED": {"facecolor": BLUE, "edgecolor": BLUE},
        "NOT_ESTABLISHED": {"facecolor": PAPER, "edgecolor": BLUE},
        "INVALID": {"facecolor": PAPER, "edgecolor": ALERT, "hatch": "////"},
        None: {"facecolor": STONE, "edgecolor": STONE},
    }
    axes.text(0, place - 0.24, f"@{place}@", va="baseline", fontsize=11.5, zorder=6)
    value = percent(rate) if outcome != "INVALID" else "invalid"
    axes.text(116.5, place, value, ha="right", va="center_baseline", fontsize=11.5, color=INK)
    if math.isfinite(rate):
        axes.barh(place, 100 * rate, height=0.27, linewidth=1.2, zorder=2, **looks[outcome])


def _reference(axes: Axes, rate: float, first: int, last: int) -> None:
    """A vertical line at a rate, beside the bars first..last."""
    if math.isfinite(rate):
        # In pieces beside the bars, so that it crosses out no name.
        places = np.arange(first, last + 1)
        axes.vlines(np.full(len(places), 100 * rate), places - 0.2, places + 0.2, color=ORANGE, linewidth=1.8, zorder=3)


def _runs(values: Sequence[float]) -> list[tuple[int, int, float]]:
    """Stretches of equal neighbours as (first, last, value), so that equal null rates make one unbroken line."""
    runs: list[tuple[int, int, float]] = []
    for place, value in enumerate(values):
        if runs and runs[-1][2] == value:
            runs[-1] = (runs[-1][0], place, value)
        else:
            runs.append((place, place, value))
    return runs


def as_svg(figure: Figure, name: str, alt: str, labels: Sequence[str] = ()) -> Markup:
    """A figure as inline SVG: no XML prologue, metadata or namespaces; ids of its own; colours as CSS variables.

    Args:
        figure: whose texts ``@0@``, ``@1@`` ... stand for labels.
        name: before every id, so that several figures fit on a page.
        alt: what the figure shows, for those who do not see it.
        labels: untrusted texts.
    """
    sink = io.StringIO()
    figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = sink.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view, "matplotlib writes a viewBox"
    opening = f'<svg {view[0]} role="img" aria-label="{escape(printable(alt))}">'
    svg = re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'\bid="|url\(#|href="#', lambda match: f"{match[0]}{name}-", svg)
    variables = {light: f"var(--{variable})" for variable, (light, _) in PALETTE.items()}
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda match: variables.get(match[0], match[0]), svg)
    # Names go in last and in one pass. They are untrusted: matplotlib would read $ as mathematics and warn of
    # letters that its font lacks, and nothing written by others should pass through the replacements above.
    labels = [printable(label) for label in labels]
    short = [label if len(label) <= 46 else label[:45] + "…" for label in labels]
    return Markup(re.sub(r"@(\d+)@", lambda match: str(escape(short[int(match[1])])), svg))
