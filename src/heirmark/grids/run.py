"""Run the stages of a grid, or what is left of them: the same for a table of a paper, the demo and an audit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from heirmark.configuration import to_json
from heirmark.errors import BadConfig
from heirmark.grids.executors.here import run_here
from heirmark.grids.grid import Grid
from heirmark.grids.plan import Plan, plan_grid
from heirmark.grids.rows import rows_of
from heirmark.grids.settings import Contexts
from heirmark.jobs.means import OnEvent
from heirmark.results.rows import Row
from heirmark.stages.mirror import open_store
from heirmark.stages.provenance import made_here
from heirmark.stages.store import Store

Executor: TypeAlias = Callable[[Plan, Store, Contexts], Mapping[str, str]]
"""Computes what is missing of a plan; returns why stages failed, by their names."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A grid that was run.

    Attributes:
        plan: its stages.
        store: in which these are.
        rows: one a cell.
        failed: why stages failed, by their names.
        provenance: how to make these numbers again.
    """

    plan: Plan
    store: Store
    rows: tuple[Row, ...]
    failed: Mapping[str, str]
    provenance: Mapping[str, str]


def run_grid(
    grid: Grid,
    out: Path,
    *,
    contexts: Contexts,
    command: str,
    store: Path | str | None = None,
    execute: Executor = run_here,
    facts: Mapping[str, str] | None = None,
    on_event: OnEvent | None = None,
    export: bool = False,
) -> Run:
    """Run a grid, or what is left of it.

    Args:
        grid: what is wanted.
        out: gets the results of the caller's and, unless a store is named, ``stages/``, by which a second call resumes.
        contexts: data and hardware.
        command: that makes these numbers again.
        store: of finished stages, which several grids may share: a folder, or a URL of which ``stages/`` then is the cache.
        execute: where stages run.
        facts: of these, where they are not those of this process (``threads``); they go into the provenance.
        on_event: told of every stage.
        export: whether models, keys and calibrations are wanted besides rows, so that those that are gone are made again.

    Raises:
        BadConfig: when the grid holds what JSON cannot, ``out`` cannot be written, or the store cannot be reached; all before
            anything is computed.
        BadArtifact: when the folder of an adopted model lacks a file.
    """
    to_json(grid)  # so that what cannot be written down is said now
    check_writable(out, "name another folder for the results")
    plan = plan_grid(grid, contexts)
    if export:
        plan = replace(plan, exported=tuple(dict.fromkeys(stage for cell in plan.cells for stage in cell.judged)))
    tell = on_event or (lambda event, label: None)
    kept = open_store(store, out / "stages", on_event=lambda event: tell(event, plan.labels.get(event.name, "")))
    check_writable(kept.root, "name another folder for the store")
    for stage, folder in plan.adopted.items():  # of the machine that plans; no other need see it
        kept.get(stage, replace(contexts(plan.settings[stage.identity]), folders=(folder,)))
    failed = execute(plan, kept, contexts)
    provenance = {
        "command": command,
        "seeds": " ".join(map(str, grid.seeds)),
        **made_here(contexts.runtime),
        **(facts or {}),
    }
    return Run(plan=plan, store=kept, rows=tuple(rows_of(plan, kept, failed)), failed=failed, provenance=provenance)


def check_writable(folder: Path, remedy: str) -> None:
    """Make sure that a folder is there and can be written.

    Raises:
        BadConfig: when it cannot; ``remedy`` says what to do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BadConfig(f"{folder} cannot be written ({error.strerror}): {remedy}") from error
