"""The rows of a grid, read from its finished stages: one a cell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from heirmark.errors import BadArtifact, HeirmarkError, told
from heirmark.grids.plan import Cell, Plan
from heirmark.results.rows import Row
from heirmark.stages.store import Store
from heirmark.work.detecting import read_exposed, read_served
from heirmark.work.judging import read_judged
from heirmark.work.look_alikes import read_mixed


def rows_of(plan: Plan, store: Store, failed: Mapping[str, str]) -> list[Row]:
    """A row for every cell.

    Args:
        plan: the cells.
        store: in which their stages are.
        failed: why stages failed, by name.
    """
    return [
        _row(cell, store, next((failed[goal.name] for goal in cell.goals if goal.name in failed), None))
        for cell in plan.cells
    ]


def _row(cell: Cell, store: Store, why: str | None) -> Row:
    row = Row(
        block=cell.block,
        marking=cell.marking.name,
        trial=cell.trial.name,
        group=cell.trial.group,
        probe=cell.probe,
        arm=cell.arm,
        seed=cell.seed,
        curve=cell.trial.curve or cell.marking.curve,
        square=cell.marking.cell,
        stage=cell.goal.name,
        error=why or "",
    )
    if why is not None:
        return row
    try:
        return _filled(row, cell, store)
    except (HeirmarkError, OSError) as error:  # a disk or a mirror that does not answer, say, after all was computed
        return replace(row, error=told(error))


def _filled(row: Row, cell: Cell, store: Store) -> Row:
    """The row of a finished cell, with its figures.

    Raises:
        BadArtifact: when it is not in the store.
        BadConfig: when the store's mirror cannot be read.
    """
    artifact = store.find(cell.goal)
    if artifact is None:
        raise BadArtifact("its stage is gone from the store: run the grid again")
    if row.kind == "search":
        searched = store.find(cell.goal.inputs["inspection"])
        seconds = math.nan if searched is None else searched.record["seconds"]
        return replace(row, search=read_exposed(artifact.folder), seconds=seconds)
    if row.kind == "screen":
        served, seconds = read_served(artifact.folder), artifact.record["seconds"]
        return replace(row, accuracy=served.accuracy, verdict=served.verdict, screen=served.screened, seconds=seconds)
    judged = read_judged(artifact.folder)
    made = [found for found in map(store.find, cell.steps) if found is not None]
    mixed = None if cell.mixed is None else store.find(cell.mixed)
    return replace(
        row,
        accuracy=judged.accuracy,
        training_wsr=math.nan if judged.training_wsr is None else judged.training_wsr,
        wfpr=math.nan if mixed is None or judged.verdict.outcome == "INVALID" else read_mixed(mixed.folder),
        verdict=judged.verdict,
        # What a second extraction asks, it asks of the thief's own copy.
        asked=made[0].summary.get("queries", 0) if made else 0,
        seconds=sum(found.record["seconds"] for found in made) if made else math.nan,
    )
