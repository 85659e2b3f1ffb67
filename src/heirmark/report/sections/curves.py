"""Curves, by the axis that their points share: of a trial with a line a watermark, of watermarks with a figure a trial."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import cycle

from heirmark.report.section import Column, Figure, Panels, Section, Source, Table
from heirmark.report.sections.verdicts import COLUMNS, line_of, sheet_of
from heirmark.report.words import ITSELF, trial_name
from heirmark.results.spreads import Spread, spread_of
from heirmark.results.summary import Summary


def curves(source: Source) -> Iterator[Section]:
    """One section, where there are points of curves."""
    rows = [row for row in source.rows if row.curve is not None and row.square is None and row.kind == "verdict"]
    if not rows:
        return
    own = {row.marking: row.curve for row in rows if not row.trial}
    shared: dict[tuple[str, str, str], list[Summary]] = {}
    for row in rows:
        # A watermark that is itself a point of a curve has its place untouched, too.
        along = "marking" if own.get(row.marking) == row.curve else "trial"
        axis = row.curve[0] if row.curve else ""
        shared.setdefault((along, axis, row.first.group if along == "trial" else ""), []).append(row)
    parts: list[Panels | Table] = []
    for place, ((along, axis, group), points) in enumerate(shared.items()):
        parts += _panel(points, along, axis, group, source, f"{source.where}-curve-{place}")
    yield Section(
        title="Curves",
        aside="Lines are means over seeds, bands go from the lowest seed to the highest.",
        parts=tuple(parts),
        sheets=(sheet_of(rows, "Points of curves"),),
    )


def numbers_of(rows: Sequence[tuple[str, Summary]], title: str, source: Source) -> Table:
    """The rows behind drawings, by name, in a table that unfolds."""
    return Table(
        label=f"{title}, numbers",
        columns=(Column(name="Point", number=False), *COLUMNS),
        groups=(("", tuple(line_of(row, name, source) for name, row in rows)),),
        folded="The numbers",
    )


def _panel(
    points: Sequence[Summary], along: str, axis: str, group: str, source: Source, where: str
) -> tuple[Panels, Table]:
    parts: dict[str, list[Summary]] = {}
    for row in points:
        parts.setdefault("" if along == "trial" else headline(row.trial), []).append(row)
    title = f"{group}, by {axis}" if group else f"By {axis}"
    figures = [
        figure
        for place, (name, members) in enumerate(parts.items())
        for figure in _axis(members, along, axis, name, f"{where}-{place}")
    ]
    named = [(_point_name(row, along), row) for row in points]
    return Panels(title=title, figures=tuple(figures)), numbers_of(named, title, source)


def headline(trial: str) -> str:
    """What was done to the model, at the head of a figure."""
    return trial_name(trial) if trial else ITSELF.capitalize()


def _point_name(row: Summary, along: str) -> str:
    if along == "trial" and row.curve:
        return f"{row.marking}, {row.curve[0]} {row.curve[1]:g}"
    return f"{row.marking}: {trial_name(row.trial)}"


def _axis(rows: Sequence[Summary], along: str, axis: str, title: str, where: str) -> Iterator[Figure]:
    """One figure of a single line's rates; for several lines one of their WSR and one of their accuracy."""
    from heirmark.report.charts import CONTROL_LOOK, LOOKS, Look, Rates, rate_figure

    lines: dict[str, list[Summary]] = {}
    for row in rows:
        lines.setdefault(row.marking if along == "trial" else family(row.marking), []).append(row)

    def line(name: str, members: Sequence[Summary], field: str, look: Look) -> Rates:
        points = tuple((row.curve[1], getattr(row, field)) for row in members if row.curve)
        return Rates(name=name, points=points, look=look)

    if len(lines) == 1:
        drawn = [
            line("WSR", rows, "wsr", LOOKS[0]),
            line("ACC", rows, "accuracy", LOOKS[1]),
            line("the control’s WSR", rows, "control_wsr", CONTROL_LOOK),
        ]
        alt = f"Lines: WSR, accuracy and the control’s WSR by {axis}; the numbers follow below."
        yield rate_figure(drawn, title, axis, where, alt)
        return
    worst = Rates(name="the worst control’s WSR", points=tuple(_worst_controls(rows)), look=CONTROL_LOOK)
    for field, short, more in (("wsr", "WSR", (worst,)), ("accuracy", "ACC", ())):
        named = zip(lines.items(), cycle(LOOKS), strict=False)
        drawn = [line(name or "others", members, field, look) for (name, members), look in named]
        head = f"{title}: {short}" if title else short
        alt = f"Lines: {short} of each watermark by {axis}; the numbers follow below."
        yield rate_figure([*drawn, *more], head, axis, f"{where}-{field}", alt, whole=field == "wsr")


def family(marking: str) -> str:
    """The line of a curve that a marking belongs to: its name up to the last comma.

    Examples:
        >>> family("T2S, Mix, λ = 50")
        'T2S, Mix'
    """
    return marking.rpartition(",")[0].strip()


def _worst_controls(rows: Sequence[Summary]) -> Iterator[tuple[float, Spread]]:
    """At every place the highest WSR of any control."""
    places: dict[float, list[float]] = {}
    for row in rows:
        if row.curve is not None:
            places.setdefault(row.curve[1], []).append(row.control_wsr.highest)
    for place, found in places.items():
        yield place, spread_of([max((rate for rate in found if math.isfinite(rate)), default=math.nan)])
