"""Run a grid, or what is left of it, or put parts of it together; write rows and report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from heirmark.configuration import to_json
from heirmark.errors import BadConfig, told
from heirmark.files import atomic_write_bytes, atomic_write_json
from heirmark.grids.executors.here import run_here
from heirmark.grids.grid import Grid
from heirmark.grids.parts import BENCH, LAYOUT, PARTS, ROWS, join, read_part
from heirmark.grids.pictures import Pictures, pictures_of
from heirmark.grids.reporting import part_command, report_of
from heirmark.grids.run import Executor, Run, check_writable, run_grid
from heirmark.grids.settings import Contexts
from heirmark.grids.tracking import Tracker, runs_of
from heirmark.jobs.means import OnEvent
from heirmark.report.page import markdown, render
from heirmark.report.section import Report
from heirmark.results.rows import Row, write_rows
from heirmark.results.summary import Summary, summarise, summary_to_json


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """What a grid found.

    Attributes:
        rows: one a cell.
        summary: one a cell over all seeds.
        provenance: how to make these numbers again.
        report: the same for people.
        page: where the report was written as HTML; its tables lie beside it as ``tables.md``.
        untold: why trackers were not told, in words; these are among the report's notes.
    """

    rows: tuple[Row, ...]
    summary: tuple[Summary, ...]
    provenance: Mapping[str, str]
    report: Report
    page: Path
    untold: tuple[str, ...] = ()


def run_bench(
    grid: Grid,
    out: Path,
    *,
    contexts: Contexts,
    command: str,
    store: Path | str | None = None,
    execute: Executor = run_here,
    facts: Mapping[str, str] | None = None,
    on_event: OnEvent | None = None,
    trackers: Sequence[Tracker] = (),
) -> BenchResult:
    """Run a grid, or what is left of it.

    Args:
        grid: what is wanted.
        out: gets ``rows.jsonl`` (one cell a line), ``bench.json`` (provenance, grid, figures over seeds), ``report.html``,
            ``tables.md`` and, unless a store is named, ``stages/``, by which a second call resumes.
        contexts: data and hardware.
        command: that makes these numbers again.
        store: of finished stages, which several grids may share: a folder, or a URL of which ``stages/`` then is the cache.
        execute: where stages run.
        facts: of these, where they are not those of this process (``threads``); they go into the provenance.
        on_event: told of every stage.
        trackers: of experiments, told of the histories and figures at the end. What one raises is a note of the report.

    Raises:
        BadConfig: when the grid holds what JSON cannot, ``out`` cannot be written, or the store cannot be reached; all before
            anything is computed.
    """
    run = run_grid(
        grid,
        out,
        contexts=contexts,
        command=command,
        store=store,
        execute=execute,
        facts=facts,
        on_event=on_event,
    )
    drawn = pictures_of(run.plan, run.store, contexts)
    write = partial(_write, grid, run.rows, out, made_by=lambda row: command, provenance=run.provenance, drawn=drawn)
    made = write()
    # With everything written: a tracker may be slow, and be interrupted.
    untold = tuple(_track(trackers, grid.name, run))
    if untold:
        made = write(incidents=untold)
    return replace(made, untold=untold)


def join_bench(grid: Grid, out: Path, folders: Sequence[Path], *, command: str) -> BenchResult:
    """Put runs of parts of a grid together, and compute nothing.

    Args:
        grid: the recipe's.
        out: gets what a run of the whole writes, but for stages and pictures of them.
        folders: of the parts, each with its ``rows.jsonl`` and ``bench.json``.
        command: by which this is done.

    Raises:
        BadConfig: when a part was run with other settings, two have the same cell, or ``out`` is one of them.
        BadArtifact: when a part's files are missing or damaged.
    """
    if out.resolve() in [folder.resolve() for folder in folders]:
        raise BadConfig(f"{out} is one of the parts, which would be overwritten: name another folder for the whole")
    parts = [read_part(folder) for folder in folders]
    whole = join(grid, parts, command)
    check_writable(out, "name another folder for the results")
    notes = []
    if whole.absent:
        notes.append(f"Of the recipe, in no part yet: {', '.join(whole.absent)}.")
    if whole.missing:
        notes.append(f"{whole.missing:,} cells of these watermarks and seeds are in none of the parts.")
    if whole.uneven:
        notes.append(
            "The unmarked control is not one model in all parts, as when they ran on unlike machines: "
            f"seed {', '.join(map(str, whole.uneven))}."
        )
    notes += whole.unlike
    if any(block.pictures for block in whole.grid.blocks):
        notes.append("Pictures are of stages: they stand in the reports of the parts.")
    return _write(
        whole.grid,
        whole.rows,
        out,
        made_by=whole.made_by,
        provenance=whole.provenance,
        notes=notes,
        parts=[part.provenance for part in parts],
    )


def _write(
    grid: Grid,
    rows: tuple[Row, ...],
    out: Path,
    *,
    made_by: Callable[[Row], str],
    provenance: Mapping[str, str],
    drawn: Pictures | None = None,
    notes: Sequence[str] = (),
    incidents: Sequence[str] = (),
    parts: Sequence[Mapping[str, str]] = (),
) -> BenchResult:
    """Rows, figures, page and tables into ``out``."""
    summary = tuple(summarise(rows, grid.papers))
    write_rows(out / ROWS, rows)
    atomic_write_json(
        out / BENCH,
        {
            "provenance": provenance,
            **({PARTS: parts} if parts else {}),
            "layout": LAYOUT,
            "grid": to_json(grid),
            "summary": [summary_to_json(figures) for figures in summary],
        },
    )
    drawn = drawn or Pictures()
    report = report_of(
        grid,
        summary,
        made_by=lambda row: part_command(made_by(row), row.marking, row.seed),
        provenance=provenance,
        pictures=drawn.sections,
        notes=notes,
        incidents=[*drawn.notes, *incidents],
    )
    page = out / "report.html"
    atomic_write_bytes(page, render(report).encode())
    atomic_write_bytes(out / "tables.md", markdown(report).encode())
    return BenchResult(rows=rows, summary=summary, provenance=provenance, report=report, page=page)


def _track(trackers: Sequence[Tracker], experiment: str, run: Run) -> Iterator[str]:
    """Tell the trackers; what keeps one from listening, in words, for the figures stand without it."""
    runs = cache(lambda: runs_of(run.plan, run.store, run.rows))
    for tracker in trackers:
        try:
            tracker(experiment, runs())
        except Exception as error:  # every tracker has errors of its own
            yield f"A tracker was not told ({told(error)}): mend it, and run the same command again."
