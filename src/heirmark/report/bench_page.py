"""The report of a grid as one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from heirmark.report.bench import (
    BenchBlock,
    BenchReport,
    Course,
    axes_of,
    called,
    hits,
    paper_text,
    probed,
    reasons,
    remarks,
    tabled,
    trial_name,
    worst_seed,
)
from heirmark.report.content import OUTCOMES, spread_text
from heirmark.report.render import environment
from heirmark.results.spreads import Spread
from heirmark.results.summary import Summary


@dataclass(frozen=True, kw_only=True)
class _Figure:
    """A drawing with its legend, and the rows that hold its numbers."""

    title: str
    drawing: Markup
    legend: tuple[tuple[Markup, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """Drawings of the same rows, which have names for a table."""

    title: str
    figures: tuple[_Figure, ...]
    rows: tuple[tuple[str, Summary], ...] = ()


def render_bench(report: BenchReport) -> str:
    """The page of a grid: one HTML document that loads nothing and runs nothing, the same for the same report.

    Args:
        report: what to show. Its texts are escaped; none is trusted as HTML.

    Returns:
        The document. Write it as UTF-8.
    """
    # Here and not above: importing matplotlib takes a second, and the terminal's table needs none of it.
    from heirmark.report import figures

    made = environment()
    made.filters |= {"spread": spread_text, "paper": paper_text, "hits": hits, "called": called}
    return made.get_template("bench.html").render(
        report=report,
        palette=figures.PALETTE,
        outcomes={"": "", **OUTCOMES},
        glance=_glance,
        tabled=lambda block: list(tabled(block)),
        probed=probed,
        curves=lambda block, number: list(_curves(block, f"b{number}")),
        maps=lambda block, number: list(_maps(block, f"b{number}")),
        courses=lambda block, number: list(_courses(block, f"b{number}")),
        shifts=lambda block, number: _shifts(block, f"b{number}"),
        clouds=lambda block, number: list(_clouds(block, f"b{number}")),
        reasons=reasons,
        remarks=remarks,
        worst_seed=worst_seed,
        trial_name=trial_name,
    )


def _glance(block: BenchBlock) -> tuple[list[str], list[tuple[str, list[Summary | None]]]]:
    """The whole block in one small table: of watermarks and trials, those are its rows of which there are more."""
    trials = {trial: {row.marking: row for row in rows} for _, group in tabled(block) for trial, rows in group}
    markings = list(dict.fromkeys(marking for rows in trials.values() for marking in rows))
    if len(markings) > len(trials):
        lines = [(marking, [rows.get(marking) for rows in trials.values()]) for marking in markings]
        return [trial_name(trial) for trial in trials], lines
    return markings, [(trial_name(trial), [rows.get(name) for name in markings]) for trial, rows in trials.items()]


def _curves(block: BenchBlock, where: str) -> Iterator[_Panel]:
    """Curves by the axis that they share: of a trial with a line a watermark, of watermarks with a figure a trial."""
    shared: dict[tuple[str, str, str], list[Summary]] = {}
    own = axes_of(block)
    for row in block.rows:
        if row.curve is not None and row.square is None:
            along = "marking" if own.get(row.marking) == row.curve else "trial"
            shared.setdefault((along, row.curve[0], row.first.group if along == "trial" else ""), []).append(row)
    for number, ((along, axis, group), rows) in enumerate(shared.items()):
        parts: dict[str, list[Summary]] = {}
        for row in rows:
            parts.setdefault("" if along == "trial" else _headline(row.question), []).append(row)
        yield _Panel(
            title=f"{group}, by {axis}" if group else f"By {axis}",
            figures=tuple(
                figure
                for place, (name, members) in enumerate(parts.items())
                for figure in _axis(members, along, axis, name, f"{where}-curve-{number}-{place}")
            ),
            rows=tuple((_point_name(row, along), row) for row in rows),
        )


def _headline(trial: str) -> str:
    return trial_name(trial) if trial else trial_name(trial).capitalize()


def _point_name(row: Summary, along: str) -> str:
    if along == "trial" and row.curve:
        return f"{row.marking}, {row.curve[0]} {row.curve[1]:g}"
    return f"{row.marking}: {trial_name(row.question)}"


def _axis(rows: Sequence[Summary], along: str, axis: str, title: str, where: str) -> Iterator[_Figure]:
    """One figure of a single line's rates; for several lines one of their WSR and one of their accuracy."""
    from heirmark.report.bench_figures import CONTROL_LOOK, LOOKS, Look, Rates, rate_lines, swatch

    lines: dict[str, list[Summary]] = {}
    for row in rows:
        lines.setdefault(row.marking if along == "trial" else family(row.marking), []).append(row)

    def line(members: Sequence[Summary], field: str, look: Look) -> Rates:
        return Rates(points=tuple((row.curve[1], getattr(row, field)) for row in members if row.curve), look=look)

    if len(lines) == 1:
        told = (
            ("wsr", LOOKS[0], "WSR"),
            ("accuracy", LOOKS[1], "ACC"),
            ("control_wsr", CONTROL_LOOK, "the control’s WSR"),
        )
        alt = f"Lines: WSR, accuracy and the control’s WSR by {axis}; the numbers follow below."
        yield _Figure(
            title=title,
            drawing=rate_lines([line(rows, field, look) for field, look, _ in told], axis, where, alt),
            legend=tuple((swatch(look), name) for _, look, name in told),
        )
        return
    looks = {name: LOOKS[place % len(LOOKS)] for place, name in enumerate(lines)}
    legend = tuple((swatch(look), name or "others") for name, look in looks.items())
    worst = Rates(points=tuple(_worst_controls(rows)), look=CONTROL_LOOK)
    for field, name, more in (("wsr", "WSR", (worst,)), ("accuracy", "ACC", ())):
        yield _Figure(
            title=f"{title}: {name}" if title else name,
            drawing=rate_lines(
                [*(line(members, field, looks[each]) for each, members in lines.items()), *more],
                axis,
                f"{where}-{field}",
                f"Lines: {name} of each watermark by {axis}; the numbers follow below.",
                whole=field == "wsr",
            ),
            legend=(*legend, *((swatch(CONTROL_LOOK), "the worst control’s WSR") for _ in more)),
        )


def family(marking: str) -> str:
    """The line of a curve that a marking belongs to: its name up to the last comma.

    Example:
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
        highest = max((rate for rate in found if math.isfinite(rate)), default=math.nan)
        yield place, Spread(mean=highest, lowest=highest, highest=highest)


def _maps(block: BenchBlock, where: str) -> Iterator[_Panel]:
    """A pair of heat maps a trial."""
    from heirmark.report.bench_figures import heat_map

    by_trial: dict[str, list[Summary]] = {}
    for row in block.rows:
        if row.square is not None and row.kind == "verdict":
            by_trial.setdefault(row.question, []).append(row)
    for number, (trial, rows) in enumerate(by_trial.items()):
        figures = tuple(
            _Figure(
                title=title,
                drawing=heat_map(
                    {row.square: getattr(row, field).mean for row in rows if row.square},
                    ("source", "target"),
                    f"{where}-map-{number}-{field}",
                    f"Heat map: {title.lower()} in percent; the numbers follow below.",
                ),
            )
            for title, field in (("Watermark success rate", "wsr"), ("Accuracy", "accuracy"))
        )
        yield _Panel(title=_headline(trial), figures=figures, rows=tuple((row.marking, row) for row in rows))


COURSES = (
    ("target_wsr", "WSR of the marked model"),
    ("student_wsr", "WSR of its simulated thief"),
    ("target_accuracy", "ACC of the marked model"),
    ("student_accuracy", "ACC of its simulated thief"),
)
"""Fields of a history that are drawn, and what they are called."""


def _courses(block: BenchBlock, where: str) -> Iterator[_Figure]:
    from heirmark.report.bench_figures import LOOKS, history_lines, swatch

    for number, course in enumerate(block.courses):
        told = [(field, name) for field, name in COURSES if _holds(course, field)]
        if told:
            yield _Figure(
                title=course.marking,
                drawing=history_lines(
                    course.history,
                    [field for field, _ in told],
                    f"{where}-course-{number}",
                    "Lines: success rates and accuracy by epoch of the embedding, means over seeds.",
                ),
                legend=tuple((swatch(LOOKS[place]), name) for place, (_, name) in enumerate(told)),
            )


def _holds(course: Course, field: str) -> bool:
    return any(math.isfinite(row.get(field, math.nan)) for row in course.history)


def _shifts(block: BenchBlock, where: str) -> Markup | None:
    from heirmark.report.bench_figures import heat_map

    if not block.shifts:
        return None
    alt = "Heat map: how far the weights of each layer moved, in percent of their length."
    known = [shift for shift in block.shifts.values() if math.isfinite(shift)]
    return heat_map(block.shifts, ("watermark", "layer"), f"{where}-shifts", alt, most=max(known, default=1.0) or 1.0)


def _clouds(block: BenchBlock, where: str) -> Iterator[_Panel]:
    from heirmark.report.bench_figures import cloud, group_looks, swatch

    for number, projection in enumerate(block.projections):
        looks = group_looks(list(dict.fromkeys(name for each in projection.clouds for name in each.groups)))
        legend = tuple((swatch(look), name) for name, look in looks.items())
        figures = tuple(
            _Figure(
                title=f"{each.model} ({100 * sum(each.explained):.0f} %)",
                drawing=cloud(
                    each.groups,
                    looks,
                    f"{where}-cloud-{number}-{place}",
                    f"Points: features of {each.model} in two dimensions, by kind of sample.",
                ),
                legend=legend if place == 0 else (),
            )
            for place, each in enumerate(projection.clouds)
        )
        yield _Panel(title=f"{projection.marking}, seed {projection.seed}", figures=figures)
