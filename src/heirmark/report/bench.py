"""What the report of a grid says, before anyone decides how it looks: rows over seeds, papers' figures, pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from heirmark.errors import printable
from heirmark.report.content import DASH, percent
from heirmark.results.rows import Kind, Row
from heirmark.results.summary import Published, Summary

ITSELF = "the model itself"
"""What a row is called in which nothing was done to the model."""

TRIGGERS, OTHERS, SOURCE, TARGET = "triggers", "other classes", "source", "target"
"""Names of groups of points; those of sources and targets go on with the class's."""

MANY_HOSTS = 0.2
"""Above this share of hosts with the expected answer a row says so; the verdict's flag is raised there too."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cloud:
    """Features of one model in two dimensions.

    Attributes:
        model: which.
        groups: by name, ``[N, 2]`` points: source classes, target class, other classes, triggers.
        explained: share of the variance that each of the two axes has.
    """

    model: str
    groups: Mapping[str, NDArray[np.float64]]
    explained: tuple[float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Projection:
    """Features of a marked model, of its stolen copy and of the control; see MEA-Defender, Fig. 3.

    Attributes:
        marking: of the marked model.
        seed: of the grid.
        clouds: one a model; all have the same groups.
    """

    marking: str
    seed: int
    clouds: tuple[Cloud, ...]


@dataclass(frozen=True, kw_only=True)
class Course:
    """How an embedding went, epoch by epoch.

    Attributes:
        marking: that was embedded.
        history: rows with ``epoch`` and any of ``target_wsr``, ``student_wsr``, ``target_accuracy``, ``student_accuracy``,
            each 0..1, means over seeds.
    """

    marking: str
    history: tuple[Mapping[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class BenchBlock:
    """One task.

    Attributes:
        name: of the block.
        facts: its data and what else a reader needs, in short.
        rows: cells in the order of the grid.
        projections: pictures of features.
        courses: of the embeddings.
        shifts: how far the weights of a layer moved while a mark was embedded, by marking and layer: the L1 length of the change
            over that of the weights before (Feature Sharing, Fig. 3), the mean over seeds.
    """

    name: str
    facts: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[Summary, ...]
    projections: tuple[Projection, ...] = ()
    courses: tuple[Course, ...] = ()
    shifts: Mapping[tuple[str, str], float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """Everything that the page of a grid shows.

    Attributes:
        title: headline.
        note: what a reader should know of the settings.
        summary: what was found, in sentences.
        blocks: tables.
        notes: remarks, one a paragraph.
        incidents: those of the notes that tell of one run and not of its rows: a picture that failed, a tracker not told.
        provenance: how to make these numbers again.
        command: that makes a row again, and not much else.
    """

    title: str
    note: str = ""
    summary: tuple[str, ...] = ()
    blocks: tuple[BenchBlock, ...]
    notes: tuple[str, ...] = ()
    incidents: tuple[str, ...] = ()
    provenance: Mapping[str, str]
    command: Callable[[Row], str]


def tabled(block: BenchBlock) -> Iterator[tuple[str, list[tuple[str, list[Summary]]]]]:
    """The verdicts that stand in tables, by group and then by trial: no points of curves and no squares of heat maps."""
    groups: dict[str, dict[str, list[Summary]]] = {}
    for row in block.rows:
        if row.kind == "verdict" and row.curve is None and row.square is None:
            groups.setdefault(row.first.group, {}).setdefault(row.question, []).append(row)
    for group, trials in groups.items():
        yield group, list(trials.items())


def probed(block: BenchBlock, kind: Kind) -> dict[str, list[Summary]]:
    """The searches or screens by name."""
    found: dict[str, list[Summary]] = {}
    for row in block.rows:
        if row.kind == kind:
            found.setdefault(row.question, []).append(row)
    return found


def axes_of(block: BenchBlock) -> dict[str, tuple[str, float] | None]:
    """The place on a curve of every watermark that is itself a point of one: that of its untouched model."""
    return {row.marking: row.curve for row in block.rows if not row.question}


def worst_seed(row: Summary, name: Literal["accuracy", "wsr"]) -> int | None:
    """The seed with the lowest figure on the marked model; None when there is no choice."""
    known = [seed for seed in row.marked if math.isfinite(getattr(seed, name))]
    return min(known, key=lambda seed: float(getattr(seed, name))).seed if len(known) > 1 else None


def hits(row: Summary, arm: Literal["marked", "control"]) -> str:
    """In how many seeds a search named the key's target, of those in which it ran."""
    known = [seed.search for seed in getattr(row, arm) if seed.search is not None]
    return f"{sum(search.found for search in known)} of {len(known)}" if known else DASH


def called(row: Summary, arm: Literal["marked", "control"]) -> str:
    """In how many seeds an arm was called marked, of those in which it was judged, and how many verdicts are invalid."""
    if arm == "marked":
        said, failed, invalid, rows = row.called_marked, row.failed, row.invalid, row.marked
    else:
        said, failed, invalid, rows = row.false_alarms, row.control_failed, row.control_invalid, row.control
    judged = len(rows) - failed
    return f"{said} of {judged}" + (f", {invalid} invalid" if invalid else "") if judged else DASH


def reasons(row: Summary) -> list[str]:
    """Why seeds failed, or why their verdicts are invalid: each reason once, the seeds before it."""
    told: dict[str, list[int]] = {}
    for seed in row.seeds:
        for each in (*(mine for mine in row.marked if mine.seed == seed), *row.controls_of(seed)):
            whom = "" if each.marked else "the control: "
            if each.error:
                told.setdefault(f"failed: {whom}{each.error}", []).append(seed)
            elif each.outcome == "INVALID":
                told.setdefault(f"invalid: {whom}{each.reason or 'it cannot be judged'}", []).append(seed)
    return [f"{_seeds(seeds)} {why}" for why, seeds in told.items()]


def remarks(row: Summary) -> list[str]:
    """What a reader must know to understand a verdict: what else than the trigger gets the expected answer."""
    told = []
    if row.control_rate > MANY_HOSTS:
        told.append(
            f"Matched queries without the trigger get the expected answer in {percent(row.control_rate)} of cases."
        )
    if math.isfinite(row.wfpr.mean):
        told.append(
            f"WFPR {percent(row.wfpr.mean)}, at most {percent(row.wfpr.highest)} "
            f"({percent(row.control_wfpr)} of the control): the same classes mixed otherwise."
        )
    return told


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def paper_text(paper: Published) -> str:
    """A paper's figures in a line.

    Example:
        >>> paper_text(Published(source="T2S, Table I", marking="T2S", accuracy=0.82, wsr=0.976))
        'T2S, Table I: ACC 82.00%, WSR 97.60%'
    """
    told = [
        f"{name} {printed(rate)}" for name, rate in (("ACC", paper.accuracy), ("WSR", paper.wsr)) if rate is not None
    ]
    return f"{paper.source}: {', '.join(told) or 'no figure'}"


def printed(rate: float) -> str:
    """A rate as papers print it: rounding 99.95 % to 100 % would be no quotation.

    Example:
        >>> printed(0.9995)
        '99.95%'
    """
    return f"{rate:.2%}"


def trial_name(trial: str) -> str:
    """What was done to the model, for people."""
    return printable(trial) or ITSELF


def tell_bench(blocks: Sequence[BenchBlock]) -> tuple[str, ...]:
    """What the rows say, in sentences."""
    rows = [row for block in blocks for row in block.rows]
    verdicts = [row for row in rows if row.kind != "search"]
    judged = sum(bool(seed.outcome) for row in verdicts for seed in row.marked)
    freed = sum(bool(seed.outcome) for row in verdicts for seed in row.control)
    lines = []
    if judged:
        marked = sum(row.called_marked for row in verdicts)
        lines.append(f"Of {judged:,} verdicts on marked models and what attacks left of them, {marked:,} say marked.")
    if freed:
        alarms = sum(row.false_alarms for row in verdicts)
        lines.append(
            f"Of {freed:,} on unmarked controls under the same attacks, {alarms:,} {'does' if alarms == 1 else 'do'}."
        )
    invalid = sum(row.invalid + row.control_invalid for row in verdicts)
    if invalid:
        lines.append(f"{invalid:,} {'verdict is' if invalid == 1 else 'verdicts are'} invalid; the rows say why.")
    failed = sum(row.failed + row.control_failed for row in rows)
    if failed:
        lines.append(f"{failed:,} {'run' if failed == 1 else 'runs'} failed; the rows say why.")
    return tuple(lines)
