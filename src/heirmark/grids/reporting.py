"""A grid's rows as a report: what the page, the Markdown and the terminal show."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence

from heirmark.grids.grid import Block, Grid
from heirmark.loading import splits_by_seed
from heirmark.report.section import Chapter, Report, Section, Source
from heirmark.report.sections import sections_of
from heirmark.report.sections.catches import TITLE, WORDS, caught
from heirmark.report.sections.verdicts import ASIDE
from heirmark.report.story import tell
from heirmark.report.words import count
from heirmark.results.rows import Row
from heirmark.results.summary import Summary
from heirmark.work.answering import ADVERSARY
from heirmark.work.stealing import Theft


def report_of(
    grid: Grid,
    summary: Sequence[Summary],
    *,
    made_by: Callable[[Row], str],
    provenance: Mapping[str, str],
    pictures: Mapping[str, Sequence[Section]] | None = None,
    notes: Sequence[str] = (),
    incidents: Sequence[str] = (),
) -> Report:
    """The report of a grid's figures over seeds; ``made_by`` gives the command that makes a row again, and not much else.

    ``pictures`` are further sections by block, ``notes`` remarks on the rows, ``incidents`` remarks on the run that made them.
    """
    over = tuple(caught(Source(name=grid.title, rows=tuple(summary))))
    chapters = [Chapter(name=TITLE, aside=WORDS, sections=over)] if over else []
    for number, block in enumerate(grid.blocks):
        rows = tuple(figures for figures in summary if figures.block == block.name)
        source = Source(name=block.name, rows=rows, command=made_by, where=where(number))
        chapters.append(
            Chapter(
                name=block.name,
                aside="" if number else ASIDE,
                facts=_facts(block, grid),
                sections=(*sections_of(source), *(pictures or {}).get(block.name, ())),
                rows=rows,
            )
        )
    return Report(
        kind="bench",
        title=grid.title,
        note=grid.note,
        summary=tell(summary),
        chapters=tuple(chapters),
        notes=(*incidents, *notes, *_unmatched(grid)),
        incidents=tuple(incidents),
        provenance=provenance,
    )


def where(number: int) -> str:
    """Before the names of drawings of a block, by its place in the grid."""
    return f"b{number + 1}"


def part_command(command: str, marking: str, seed: int) -> str:
    """The command that makes one row and seed again: that of the whole, with one marking and one seed.

    ``--only`` takes parts of names, so markings whose names hold this one are run as well; an empty name leaves it out.

    Examples:
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
    return shlex.join([*kept, *(["--only", marking] if marking else []), "--seed", str(seed)])


def _facts(block: Block, grid: Grid) -> dict[str, str]:
    load = block.workload
    facts = {"data": load.data if splits_by_seed(load.data) else f"{load.data}, split alike for all seeds"}
    pools = _pools(block)
    if pools:
        facts["thieves ask"] = ", ".join(pools)
    if load.foreign and any(marking.method.needs_foreign for marking in block.markings):
        facts["foreign images"] = load.foreign
    cells = f"{count(len(block.markings), 'watermark')} x {count(len(block.trials) + 1, 'trial')}"
    cells += f" + {count(len(block.probes), 'probe')}" if block.probes else ""
    brought = f"{count(len(block.calibrators), 'unmarked model')}, and copies" if block.calibrators else ""
    return facts | {
        "grid": f"{cells}, {count(len(grid.seeds), 'seed')}",
        "calibrated on": brought or "what the marked model brings",
    }


def _pools(block: Block) -> list[str]:
    """Whose images thieves ask about, in words; those who make theirs up ask about none."""
    words = {ADVERSARY: "fresh images of the same data", "owner": "the owner's own images"}
    steps = [step for trial in block.trials for step in trial.steps]
    steps += [step for probe in block.probes for step in probe.stolen]
    pools = [step.pool for step in steps if isinstance(step, Theft) and step.attack.asks_pool]
    return [words.get(pool, f"images of {pool}") for pool in dict.fromkeys(pools)]


def _unmatched(grid: Grid) -> list[str]:
    """Figures of papers that stand beside no row, of watermarks that the grid has."""
    known = {
        (block.name, marking.name, trial)
        for block in grid.blocks
        for marking in block.markings
        for trial in ("", *(trial.name for trial in block.trials))
    }
    names = {marking for _, marking, _ in known}
    blocks = [block.name for block in grid.blocks]
    return [
        f"{paper.source} prints a figure for {paper.marking} after {paper.trial!r}, which is no trial of this grid."
        for paper in grid.papers
        if paper.marking in names
        and not any(
            (block, paper.marking, paper.trial) in known for block in ([paper.block] if paper.block else blocks)
        )
    ]
