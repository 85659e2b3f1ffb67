"""A grid's rows as a report: what the page, the Markdown and the terminal show."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from heirmark.bench.grid import Block, Grid, Published
from heirmark.bench.rows import CellRow
from heirmark.bench.summaries import Summary
from heirmark.pipeline.answering import ADVERSARY
from heirmark.pipeline.loading import splits_by_seed
from heirmark.pipeline.stealing import Theft
from heirmark.report.bench import (
    ArmRow,
    BenchBlock,
    BenchReport,
    BenchRow,
    Course,
    Kind,
    PaperRow,
    Projection,
    SeedRow,
    tell_bench,
)

KINDS: Mapping[str, Kind] = {"verify": "verdict", "screen": "screen", "expose": "search"}
"""What a row tells, by the kind of the stage that told it."""


def report_of(
    grid: Grid,
    rows: Sequence[CellRow],
    summary: Sequence[Summary],
    *,
    made_by: Callable[[CellRow], str],
    provenance: Mapping[str, str],
    projections: Mapping[str, Sequence[Projection]] | None = None,
    courses: Mapping[str, Sequence[Course]] | None = None,
    shifts: Mapping[str, Mapping[tuple[str, str], float]] | None = None,
    notes: Sequence[str] = (),
    incidents: Sequence[str] = (),
) -> BenchReport:
    """The report of a grid.

    Args:
        grid: what was wanted.
        rows: one a cell.
        summary: one a cell over all seeds, of these rows.
        made_by: the command that made a row; see :func:`part_command`.
        provenance: how to make these numbers again.
        projections: pictures of features by block.
        courses: of embeddings by block.
        shifts: of weights by block.
        notes: remarks on the rows.
        incidents: remarks on the run that made them.
    """
    members: dict[tuple[str, str, str, str], list[CellRow]] = {}
    for row in rows:
        members.setdefault((row.block, row.marking, row.trial, row.probe), []).append(row)
    blocks = tuple(
        BenchBlock(
            name=block.name,
            facts=_facts(block, grid),
            rows=tuple(
                _row(
                    figures, members[figures.block, figures.marking, figures.trial, figures.probe], block, grid, made_by
                )
                for figures in summary
                if figures.block == block.name
            ),
            projections=tuple((projections or {}).get(block.name, ())),
            courses=tuple((courses or {}).get(block.name, ())),
            shifts=(shifts or {}).get(block.name, {}),
        )
        for block in grid.blocks
    )
    return BenchReport(
        title=grid.title,
        note=grid.note,
        summary=tell_bench(blocks),
        blocks=blocks,
        notes=(*incidents, *notes, *_unmatched(grid)),
        incidents=tuple(incidents),
        provenance=provenance,
    )


def part_command(command: str, marking: str, seed: int) -> str:
    """The command that makes one row and seed again: that of the whole, with one marking and one seed.

    ``--only`` takes parts of names, so markings whose names hold this one are run as well.

    Args:
        command: of the whole grid or of a part of it.
        marking: name of the row's marking.
        seed: of the row.

    Example:
        >>> part_command("heirmark bench a.py:table --scale cpu --seed 0 --seed 1 --only x", "T2S, Mix", 1)
        "heirmark bench a.py:table --scale cpu --only 'T2S, Mix' --seed 1"
    """
    words = iter(shlex.split(command))
    kept = []
    for word in words:
        if word in ("--seed", "--only"):
            next(words, None)
        else:
            kept.append(word)
    return shlex.join([*kept, "--only", marking, "--seed", str(seed)])


def _facts(block: Block, grid: Grid) -> dict[str, str]:
    load = block.workload
    facts = {"data": load.data if splits_by_seed(load.data) else f"{load.data}, split alike for all seeds"}
    pools = _pools(block)
    if pools:
        facts["thieves ask"] = ", ".join(pools)
    if load.foreign and any(marking.method.needs_foreign for marking in block.markings):
        facts["foreign images"] = load.foreign
    counts = [_count(len(block.markings), "watermark"), " x ", _count(len(block.trials) + 1, "trial")]
    counts += [" + ", _count(len(block.probes), "probe")] if block.probes else []
    seeds = _count(len(grid.seeds), "seed")
    return facts | {
        "grid": f"{''.join(counts)}, {seeds}",
        "calibrated on": f"{_count(len(block.calibrators), 'unmarked model')}, and copies"
        if block.calibrators
        else "what the marked model brings",
    }


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _pools(block: Block) -> list[str]:
    """Whose images thieves ask about, in words; those who make theirs up ask about none."""
    words = {ADVERSARY: "fresh images of the same data", "owner": "the owner's own images"}
    steps = [step for trial in block.trials for step in trial.steps]
    steps += [step for probe in block.probes for step in probe.stolen]
    pools = [step.pool for step in steps if isinstance(step, Theft) and getattr(step.attack, "asks_pool", False)]
    return [words.get(pool, f"images of {pool}") for pool in dict.fromkeys(pools)]


def _row(
    figures: Summary, members: Sequence[CellRow], block: Block, grid: Grid, made_by: Callable[[CellRow], str]
) -> BenchRow:
    # A probe of a marking that is a point of a curve, or a square of a map, is a row of the probes' tables and no more.
    drawn = not figures.probe
    along: Literal["", "trial", "marking"] = ""
    if drawn and figures.curve is not None:
        along = "trial" if _moves(block, figures) else "marking"
    return BenchRow(
        marking=figures.marking,
        trial=figures.probe or figures.trial,
        group=figures.group,
        kind=KINDS.get(members[0].stage.partition("/")[0], "verdict"),
        curve=figures.curve if drawn else None,
        along=along,
        cell=figures.cell if drawn else None,
        accuracy=figures.accuracy,
        wsr=figures.wsr,
        wfpr=figures.wfpr,
        marked=figures.marked,
        invalid=figures.invalid,
        failed=figures.failed,
        control_accuracy=figures.control_accuracy,
        control_wsr=figures.control_wsr,
        control_wfpr=figures.control_wfpr,
        false_alarms=figures.false_alarms,
        control_failed=figures.control_failed,
        control_invalid=figures.control_invalid,
        asked=figures.asked,
        seconds=figures.seconds,
        found=figures.found,
        control_found=figures.control_found,
        false_suspects=figures.false_suspects,
        detected=figures.detected,
        flagged=figures.flagged,
        seeds=_seeds(members, made_by),
        papers=tuple(
            PaperRow(source=paper.source, accuracy=paper.accuracy, wsr=paper.wsr)
            for paper in grid.papers
            if drawn and _speaks_of(paper, figures)
        ),
    )


def _moves(block: Block, figures: Summary) -> bool:
    """Whether the trial is a point of a curve itself."""
    return any(trial.name == figures.trial and trial.curve is not None for trial in block.trials)


def _speaks_of(paper: Published, figures: Summary) -> bool:
    same = (paper.marking, paper.trial) == (figures.marking, figures.trial)
    return same and paper.block in ("", figures.block)


def _seeds(members: Sequence[CellRow], made_by: Callable[[CellRow], str]) -> tuple[SeedRow, ...]:
    marked = {row.seed: row for row in members if row.arm == "marked"}
    control = {row.seed: row for row in members if row.arm == "unmarked"}
    return tuple(
        SeedRow(
            seed=seed,
            command=part_command(made_by(row), row.marking, seed),
            marked=_arm(row),
            control=_arm(control[seed]) if seed in control else ArmRow(),
            asked=row.asked,
            seconds=row.seconds,
        )
        for seed, row in marked.items()
    )


def _arm(row: CellRow) -> ArmRow:
    return ArmRow(
        accuracy=row.accuracy,
        wsr=row.wsr,
        p_value=row.p_value,
        outcome=row.outcome,
        reason=row.reason,
        hosts=row.control_rate,
        found=row.found,
        false_suspects=row.false_suspects,
        detected=row.detected,
        flagged=row.false_alarms,
        stage=row.stage,
        error=row.error,
    )


def _unmatched(grid: Grid) -> list[str]:
    """Figures of papers that stand beside no row, of watermarks that the grid has."""
    known = {
        (block.name, marking.name, trial)
        for block in grid.blocks
        for marking in block.markings
        for trial in ("", *(trial.name for trial in block.trials))
    }
    names = {marking for _, marking, _ in known}
    return [
        f"{paper.source} prints a figure for {paper.marking} after {paper.trial!r}, which is no trial of this grid."
        for paper in grid.papers
        if paper.marking in names
        and not any(
            (block, paper.marking, paper.trial) in known for block in ({paper.block} if paper.block else _names(grid))
        )
    ]


def _names(grid: Grid) -> set[str]:
    return {block.name for block in grid.blocks}
