"""What the report of a grid says, before anyone decides how it looks: rows over seeds, papers' figures, pictures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from heirmark.errors import printable
from heirmark.report.content import DASH, percent
from heirmark.report.spreads import UNKNOWN, Spread

ITSELF = "the model itself"
"""What a row is called in which nothing was done to the model."""

TRIGGERS, OTHERS, SOURCE, TARGET = "triggers", "other classes", "source", "target"
"""Names of groups of points; those of sources and targets go on with the class's."""

MANY_HOSTS = 0.2
"""Above this share of hosts with the expected answer a row says so; the verdict's flag is raised there too."""

Kind = Literal["verdict", "search", "screen"]


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """One seed of the marked model, or of its unmarked control. What does not apply is NaN.

    Attributes:
        accuracy: on the test split, 0..1.
        wsr: share of the key's held-out triggers that are answered as marked, 0..1.
        p_value: of the verdict.
        outcome: of the verdict; empty for a search, and where the run failed.
        reason: why it is INVALID; WSR and p-value are NaN then.
        hosts: share of the key's controls, the same inputs without the trigger, that get the expected answer, 0..1.
        found: 1 where a search names the key's target, else 0.
        false_suspects: classes that a search names and that are no target.
        detected: share of the key's triggers that a screen flags.
        flagged: share of the test inputs that a screen flags.
        stage: name of the stage that said so, which is its folder in the store.
        error: why it failed; empty when it did not.
    """

    accuracy: float = math.nan
    wsr: float = math.nan
    p_value: float = math.nan
    outcome: str = ""
    reason: str = ""
    hosts: float = math.nan
    found: float = math.nan
    false_suspects: float = math.nan
    detected: float = math.nan
    flagged: float = math.nan
    stage: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class SeedRow:
    """One seed of a cell.

    Attributes:
        seed: of the grid.
        command: that makes these numbers again, and not much else.
        marked: what it says of the marked model.
        control: what it says of the unmarked one.
        asked: queries of the thief; 0 where he asked none.
        seconds: that the trial or probe took on the marked model; NaN when it failed.
    """

    seed: int
    command: str
    marked: ArmRow
    control: ArmRow = field(default_factory=ArmRow)
    asked: int = 0
    seconds: float = math.nan


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """What a paper prints for a cell: source, and the two rates 0..1 as far as they are printed."""

    source: str
    accuracy: float | None = None
    wsr: float | None = None


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """A cell over all seeds, the control beside it.

    Attributes:
        marking: whose key judged.
        trial: what was done first, or the name of the probe; empty for the model itself.
        group: of the trial.
        kind: what the row tells: a verdict, a search for the mark, or a screen of queries.
        curve: axis and place of a point of a curve.
        along: whether the places are those of the trial or of the marking; empty for no point.
        cell: row and column of a heat map.
        accuracy: of the marked model.
        wsr: of the marked model; the lowest is its worst.
        wfpr: of the marked model, for samples that are mixed otherwise than the watermark; the highest is its worst.
        marked: how many seeds were called marked.
        invalid: how many seeds' verdicts are INVALID.
        failed: how many seeds failed on the marked model.
        control_accuracy: of the unmarked control.
        control_wsr: of the control; the highest is its worst.
        control_wfpr: of the control, the mean.
        false_alarms: how many seeds' controls were called marked.
        control_failed: how many seeds failed on the control.
        control_invalid: how many seeds' verdicts on the control are INVALID.
        asked: queries of the thief, the mean.
        seconds: the mean.
        found: share of seeds in which a search named the target.
        control_found: the same on the control.
        false_suspects: of a search, the mean.
        detected: share of triggers that a screen flags, the mean.
        flagged: share of test inputs that a screen flags, the mean.
        seeds: one by one.
        papers: what is printed elsewhere.
    """

    marking: str
    trial: str = ""
    group: str = ""
    kind: Kind = "verdict"
    curve: tuple[str, float] | None = None
    along: Literal["", "trial", "marking"] = ""
    cell: tuple[str, str] | None = None
    accuracy: Spread = UNKNOWN
    wsr: Spread = UNKNOWN
    wfpr: Spread = UNKNOWN
    marked: int = 0
    invalid: int = 0
    failed: int = 0
    control_accuracy: Spread = UNKNOWN
    control_wsr: Spread = UNKNOWN
    control_wfpr: float = math.nan
    false_alarms: int = 0
    control_failed: int = 0
    control_invalid: int = 0
    asked: float = math.nan
    seconds: float = math.nan
    found: float = math.nan
    control_found: float = math.nan
    false_suspects: float = math.nan
    detected: float = math.nan
    flagged: float = math.nan
    seeds: tuple[SeedRow, ...]
    papers: tuple[PaperRow, ...] = ()


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
    rows: tuple[BenchRow, ...]
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
    """

    title: str
    note: str = ""
    summary: tuple[str, ...] = ()
    blocks: tuple[BenchBlock, ...]
    notes: tuple[str, ...] = ()
    incidents: tuple[str, ...] = ()
    provenance: Mapping[str, str]


def tabled(block: BenchBlock) -> Iterator[tuple[str, list[tuple[str, list[BenchRow]]]]]:
    """The verdicts that stand in tables, by group and then by trial: no points of curves and no squares of heat maps."""
    groups: dict[str, dict[str, list[BenchRow]]] = {}
    for row in block.rows:
        if row.kind == "verdict" and row.curve is None and row.cell is None:
            groups.setdefault(row.group, {}).setdefault(row.trial, []).append(row)
    for group, trials in groups.items():
        yield group, list(trials.items())


def probed(block: BenchBlock, kind: Kind) -> dict[str, list[BenchRow]]:
    """The searches or screens by name."""
    found: dict[str, list[BenchRow]] = {}
    for row in block.rows:
        if row.kind == kind:
            found.setdefault(row.trial, []).append(row)
    return found


def worst_seed(row: BenchRow, name: Literal["accuracy", "wsr"]) -> int | None:
    """The seed with the lowest figure on the marked model; None when there is no choice."""
    known = [seed for seed in row.seeds if math.isfinite(getattr(seed.marked, name))]
    return min(known, key=lambda seed: getattr(seed.marked, name)).seed if len(known) > 1 else None


def hits(row: BenchRow, arm: Literal["marked", "control"]) -> str:
    """In how many seeds a search named the key's target, of those in which it ran."""
    known = [found for seed in row.seeds if math.isfinite(found := getattr(seed, arm).found)]
    return f"{sum(map(int, known))} of {len(known)}" if known else DASH


def called(row: BenchRow, arm: Literal["marked", "control"]) -> str:
    """In how many seeds an arm was called marked, of those in which it was judged, and how many verdicts are invalid."""
    if arm == "marked":
        said, failed, invalid = row.marked, row.failed, row.invalid
    else:
        said, failed, invalid = row.false_alarms, row.control_failed, row.control_invalid
    judged = len(row.seeds) - failed
    return f"{said} of {judged}" + (f", {invalid} invalid" if invalid else "") if judged else DASH


def reasons(row: BenchRow) -> list[str]:
    """Why seeds failed, or why their verdicts are invalid: each reason once, the seeds before it."""
    told: dict[str, list[int]] = {}
    for seed in row.seeds:
        for whom, arm in (("", seed.marked), ("the control: ", seed.control)):
            if arm.error:
                told.setdefault(f"failed: {whom}{arm.error}", []).append(seed.seed)
            elif arm.outcome == "INVALID":
                told.setdefault(f"invalid: {whom}{arm.reason or 'it cannot be judged'}", []).append(seed.seed)
    return [f"{_seeds(seeds)} {why}" for why, seeds in told.items()]


def remarks(row: BenchRow) -> list[str]:
    """What a reader must know to understand a verdict: what else than the trigger gets the expected answer."""
    told = []
    rates = [seed.marked.hosts for seed in row.seeds if math.isfinite(seed.marked.hosts)]
    if rates and statistics.fmean(rates) > MANY_HOSTS:
        hosts = percent(statistics.fmean(rates))
        told.append(f"Matched queries without the trigger get the expected answer in {hosts} of cases.")
    if math.isfinite(row.wfpr.mean):
        told.append(
            f"WFPR {percent(row.wfpr.mean)}, at most {percent(row.wfpr.highest)} "
            f"({percent(row.control_wfpr)} of the control): the same classes mixed otherwise."
        )
    return told


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def paper_text(paper: PaperRow) -> str:
    """A paper's figures in a line.

    Example:
        >>> paper_text(PaperRow(source="T2S, Table I", accuracy=0.82, wsr=0.976))
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
    judged = sum(bool(seed.marked.outcome) for row in verdicts for seed in row.seeds)
    freed = sum(bool(seed.control.outcome) for row in verdicts for seed in row.seeds)
    lines = []
    if judged:
        marked = sum(row.marked for row in verdicts)
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
