"""Run a grid, or what is left of it, and write its rows."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from heirmark.bench.grid import Grid
from heirmark.bench.logging import Tracker, runs_of
from heirmark.bench.pictures import pictures_of
from heirmark.bench.plan import Plan, plan_grid
from heirmark.bench.reporting import report_of
from heirmark.bench.rows import CellRow, Summary, rows_of, summarise, to_plain
from heirmark.bench.running import run_here
from heirmark.bench.settings import Contexts
from heirmark.configuration import to_json
from heirmark.errors import BadConfig, told
from heirmark.files import atomic_write_bytes, atomic_write_json
from heirmark.pipeline.exporting import OnEvent
from heirmark.pipeline.mirror import open_store
from heirmark.pipeline.store import Store
from heirmark.report.bench import BenchReport
from heirmark.report.bench_page import render_bench
from heirmark.report.bench_tables import markdown
from heirmark.version import __version__

Executor = Callable[[Plan, Store, Contexts], Mapping[str, str]]
"""Computes what is missing of a plan; returns why stages failed, by their names."""


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """What a grid found.

    Attributes:
        rows: one a cell.
        summary: one a cell over all seeds.
        provenance: how to make these numbers again.
        report: the same for people.
        page: where the report was written as HTML; its tables lie beside it as ``tables.md``.
    """

    rows: tuple[CellRow, ...]
    summary: tuple[Summary, ...]
    provenance: Mapping[str, str]
    report: BenchReport
    page: Path


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
    described = to_json(grid)
    _check_writable(out)
    plan = plan_grid(grid, contexts)
    tell = on_event or (lambda event, label: None)
    kept = open_store(store, out / "stages", on_event=lambda event: tell(event, plan.labels.get(event.name, "")))
    failed = execute(plan, kept, contexts)
    rows = tuple(rows_of(plan, kept, failed))
    summary = tuple(summarise(rows))
    provenance = {
        "command": command,
        "seeds": " ".join(map(str, grid.seeds)),
        "date": datetime.now(UTC).date().isoformat(),
        "heirmark": __version__,
        "python": platform.python_version(),
        **contexts.runtime.facts(),
        "threads": str(torch.get_num_threads()),
        "processor": f"{os.cpu_count()} x {platform.machine()}",
        **(facts or {}),
    }
    lines = (
        json.dumps({name: value for name, value in to_plain(row).items() if value not in (None, "")}) for row in rows
    )
    atomic_write_bytes(out / "rows.jsonl", "".join(f"{line}\n" for line in lines).encode())
    atomic_write_json(
        out / "bench.json",
        {"provenance": provenance, "grid": described, "summary": [to_plain(figures) for figures in summary]},
    )
    drawn = pictures_of(plan, kept, contexts)
    notes = [*drawn.notes, *_track(trackers, grid.name, plan, kept, rows)]
    report = report_of(
        grid,
        rows,
        summary,
        command=command,
        provenance=provenance,
        projections=drawn.projections,
        courses=drawn.courses,
        shifts=drawn.shifts,
        notes=notes,
    )
    page = out / "report.html"
    atomic_write_bytes(page, render_bench(report).encode())
    atomic_write_bytes(out / "tables.md", markdown(report).encode())
    return BenchResult(rows=rows, summary=summary, provenance=provenance, report=report, page=page)


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise BadConfig(f"{out} cannot be written ({error.strerror}): name another folder for the results") from error


def _track(
    trackers: Sequence[Tracker], experiment: str, plan: Plan, store: Store, rows: Sequence[CellRow]
) -> Iterator[str]:
    """Tell the trackers; what keeps one from listening, in words, for the figures stand without it."""
    if not trackers:
        return
    runs = runs_of(plan, store, rows)
    for tracker in trackers:
        try:
            tracker(experiment, runs)
        except Exception as error:  # every tracker has errors of its own
            yield f"A tracker was not told ({told(error)}): mend it, and run the same command again."
