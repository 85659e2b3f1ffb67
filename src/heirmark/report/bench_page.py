"""The report of a grid as one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from heirmark.report.bench import (
    BenchBlock,
    BenchReport,
    BenchRow,
    Course,
    paper_text,
    probed,
    reasons,
    tabled,
    trial_name,
    worst_seed,
)
from heirmark.report.content import DASH, OUTCOMES
from heirmark.report.render import environment
from heirmark.report.spreads import Spread, spread_text


@dataclass(frozen=True, kw_only=True)
class _Figure:
    """A drawing with its legend, and the rows that hold its numbers."""

    title: str
    drawing: Markup
    legend: tuple[tuple[Markup, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """Drawings of the same rows."""

    title: str
    figures: tuple[_Figure, ...]
    rows: tuple[BenchRow, ...] = ()


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
    made.filters |= {"spread": spread_text, "paper": paper_text, "yesno": _yes_no, "hits": hits}
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
        clouds=lambda block, number: list(_clouds(block, f"b{number}")),
        reasons=reasons,
        worst_seed=worst_seed,
        trial_name=trial_name,
        standing=standing,
    )


def standing(row: BenchRow) -> str:
    """How many seeds were called marked, in a word: ``"all"``, ``"some"``, ``"none"``, ``"failed"``."""
    judged = len(row.seeds) - row.failed
    if judged == 0:
        return "failed"
    return "all" if row.marked == len(row.seeds) else "some" if row.marked else "none"


def hits(row: BenchRow, arm: Literal["marked", "control"]) -> str:
    """In how many seeds a search named the key's target, of those in which it ran."""
    known = [found for seed in row.seeds if math.isfinite(found := getattr(seed, arm).found)]
    return f"{sum(map(int, known))} of {len(known)}" if known else DASH


def _yes_no(value: float) -> str:
    return DASH if not math.isfinite(value) else "yes" if value else "no"


def _glance(block: BenchBlock) -> tuple[list[str], list[tuple[str, list[BenchRow | None]]]]:
    """The whole block in one small table: markings, and for each trial a row of their cells."""
    trials = [(trial, rows) for _, group in tabled(block) for trial, rows in group]
    markings = list(dict.fromkeys(row.marking for _, rows in trials for row in rows))
    lines = []
    for trial, rows in trials:
        by_name = {row.marking: row for row in rows}
        lines.append((trial_name(trial), [by_name.get(marking) for marking in markings]))
    return markings, lines


def _curves(block: BenchBlock, where: str) -> Iterator[_Panel]:
    """Curves by the axis that they share: of a trial with a line a marking, of markings with a panel a trial."""
    from heirmark.report.bench_figures import CONTROL_LOOK, LOOKS, Rates, rate_lines, swatch

    shared: dict[tuple[str, ...], list[BenchRow]] = {}
    for row in block.rows:
        if row.curve is not None and row.cell is None:
            key = (row.along, row.curve[0], row.group if row.along == "trial" else row.trial)
            shared.setdefault(key, []).append(row)
    for number, ((along, axis, what), rows) in enumerate(shared.items()):
        lines: dict[str, list[BenchRow]] = {}
        for row in rows:
            lines.setdefault(row.marking if along == "trial" else family(row.marking), []).append(row)
        title = f"{what}, by {axis}" if along == "trial" else f"{trial_name(what)}, by {axis}"
        name = f"{where}-curve-{number}"

        def line(members: Sequence[BenchRow], field: str, look: tuple[str, tuple[float, ...], str]) -> Rates:
            return Rates(points=tuple((row.curve[1], getattr(row, field)) for row in members if row.curve), look=look)

        control = [(swatch(CONTROL_LOOK), "the control’s WSR" if len(lines) == 1 else "the worst control’s WSR")]
        if len(lines) == 1:
            (members,) = lines.values()
            drawn = [line(members, "wsr", LOOKS[0]), line(members, "accuracy", LOOKS[1])]
            alt = f"Lines: WSR, accuracy and the control’s WSR by {axis}; the numbers follow below."
            figures = [
                _Figure(
                    title="",
                    drawing=rate_lines(
                        [*drawn, line(members, "control_wsr", CONTROL_LOOK)], axis, name, alt
                    ),
                    legend=((swatch(LOOKS[0]), "WSR"), (swatch(LOOKS[1]), "ACC"), *control),
                )
            ]
        else:
            looks = {each: LOOKS[place % len(LOOKS)] for place, each in enumerate(lines)}
            legend = [(swatch(look), each) for each, look in looks.items()]
            worst = Rates(points=tuple(_worst_controls(rows)), look=CONTROL_LOOK)
            figures = [
                _Figure(
                    title="Watermark success rate",
                    drawing=rate_lines(
                        [*(line(members, "wsr", looks[each]) for each, members in lines.items()), worst],
                        axis,
                        f"{name}-wsr",
                        f"Lines: WSR of each watermark by {axis}; the numbers follow below.",
                    ),
                    legend=(*legend, *control),
                ),
                _Figure(
                    title="Accuracy",
                    drawing=rate_lines(
                        [line(members, "accuracy", looks[each]) for each, members in lines.items()],
                        axis,
                        f"{name}-acc",
                        f"Lines: accuracy of each watermark by {axis}; the numbers follow below.",
                        whole=False,
                    ),
                    legend=tuple(legend),
                ),
            ]
        yield _Panel(title=title, figures=tuple(figures), rows=tuple(rows))


def family(marking: str) -> str:
    """The line of a curve that a marking belongs to: its name up to the last comma.

    Example:
        >>> family("T2S, Mix, λ = 50")
        'T2S, Mix'
    """
    return marking.rpartition(",")[0].strip()


def _worst_controls(rows: Sequence[BenchRow]) -> Iterator[tuple[float, Spread]]:
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

    by_trial: dict[str, list[BenchRow]] = {}
    for row in block.rows:
        if row.cell is not None and row.kind == "verdict":
            by_trial.setdefault(row.trial, []).append(row)
    for number, (trial, rows) in enumerate(by_trial.items()):
        figures = tuple(
            _Figure(
                title=title,
                drawing=heat_map(
                    {row.cell: getattr(row, field).mean for row in rows if row.cell},
                    ("source", "target"),
                    f"{where}-map-{number}-{field}",
                    f"Heat map: {title.lower()} in percent; the numbers follow below.",
                ),
            )
            for title, field in (("Watermark success rate", "wsr"), ("Accuracy", "accuracy"))
        )
        yield _Panel(title=trial_name(trial), figures=figures, rows=tuple(rows))


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


def _clouds(block: BenchBlock, where: str) -> Iterator[_Panel]:
    from heirmark.report.bench_figures import cloud, group_looks, swatch

    for number, projection in enumerate(block.projections):
        looks = group_looks(list(dict.fromkeys(name for each in projection.clouds for name in each.groups)))
        legend = tuple((swatch(look), name) for name, look in looks.items())
        figures = tuple(
            _Figure(
                title=f"{each.model} ({100 * sum(each.explained):.0f} % of the variance)",
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
