"""A grid's histories and figures in a tracker of experiments: TensorBoard or MLflow, both optional."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from heirmark.configuration import to_json
from heirmark.errors import BadConfig, HeirmarkError
from heirmark.grids.plan import Cell, Plan
from heirmark.results.rows import Row
from heirmark.stages.stage import lineage
from heirmark.stages.store import Store
from heirmark.work.marked_folder import read_history

MINE = "heirmark.run"
"""Tag of MLflow by which a run is found again."""
FIGURES = ("accuracy", "wsr", "found", "detected", "flagged")
"""Of a row, those that a tracker is told."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One watermark and seed, as trackers see it.

    Attributes:
        name: block, marking and seed, by slashes.
        settings: of the method, flat, with block, marking and seed.
        figures: rates by name, such as ``"Knockoff/marked/wsr"``; finite.
        histories: rows by epoch of every embedding, by name of what it made.
    """

    name: str
    settings: Mapping[str, str | int | float | bool]
    figures: Mapping[str, float]
    histories: Mapping[str, tuple[Mapping[str, float], ...]]


Tracker: TypeAlias = Callable[[str, Sequence[Run]], None]
"""Keeps the runs of an experiment, whose name comes first."""


def runs_of(plan: Plan, store: Store, rows: Sequence[Row]) -> list[Run]:
    """A run for every watermark, block and seed.

    Args:
        plan: what was run; its cells are those of the rows, in the same order.
        store: of its finished stages.
        rows: what they say.
    """
    groups: dict[tuple[str, str, int], list[tuple[Cell, Row]]] = {}
    for cell, row in zip(plan.cells, rows, strict=True):
        groups.setdefault((row.block, row.marking, row.seed), []).append((cell, row))
    return [
        Run(
            name=f"{_tag(block)}/{_tag(marking)}/seed {seed}",
            settings={"block": block, "marking": marking, "seed": seed, **flat(to_json(members[0][0].marking.method))},
            figures=dict(_figures([row for _, row in members])),
            histories=_histories(members[0][0], store),
        )
        for (block, marking, seed), members in groups.items()
    ]


def tensorboard(folder: Path) -> Tracker:
    """Event files in ``folder/experiment/block/marking/seed``: scalars by epoch, and the figures as hyperparameters' metrics.

    Raises:
        BadConfig: when TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise BadConfig("--tensorboard needs TensorBoard: pip install 'heirmark[tensorboard]'") from error

    def track(experiment: str, runs: Sequence[Run]) -> None:
        for run in runs:
            with SummaryWriter(str(folder / _tag(experiment) / run.name)) as writer:
                for name, step, value in _scalars(run):
                    writer.add_scalar(name, value, step)
                writer.add_hparams(dict(run.settings), dict(run.figures), run_name=".")

    return track


def mlflow(uri: str) -> Tracker:
    """Runs of an MLflow experiment, at a tracking URI. One that an earlier call made of the same name is replaced.

    Raises:
        BadConfig: when MLflow is not installed.
    """
    try:
        import mlflow as client
    except ImportError as error:
        raise BadConfig("--mlflow needs MLflow: pip install 'heirmark[mlflow]'") from error

    def track(experiment: str, runs: Sequence[Run]) -> None:
        client.set_tracking_uri(uri)
        place = client.set_experiment(experiment)
        # A grid that is run again replaces what it told before: a parameter of a run cannot be changed.
        older: dict[str, list[str]] = {}
        for known in client.search_runs([place.experiment_id], output_format="list"):
            older.setdefault(known.data.tags.get(MINE, ""), []).append(known.info.run_id)
        for run in runs:
            with client.start_run(run_name=run.name, tags={MINE: run.name}):
                # Servers refuse longer values.
                client.log_params({name: str(value)[:250] for name, value in run.settings.items()})
                client.log_metrics(dict(run.figures))
                for name, step, value in _scalars(run):
                    client.log_metric(name, value, step=step)
            for stale in older.get(run.name, []):  # only now: what cannot be written takes nothing away
                client.delete_run(stale)

    return track


def flat(settings: Any, prefix: str = "") -> dict[str, str | int | float | bool]:
    """Nested settings with dotted names; None and lists become text.

    Examples:
        >>> flat({"type": "T2S", "rehearsal": {"rho": 2.0, "sizes": [3, 5]}, "key_filter": None})
        {'type': 'T2S', 'rehearsal.rho': 2.0, 'rehearsal.sizes': '[3, 5]', 'key_filter': 'none'}
    """
    if isinstance(settings, Mapping):
        found: dict[str, str | int | float | bool] = {}
        for name, value in settings.items():
            found |= flat(value, f"{prefix}.{name}" if prefix else name)
        return found
    if settings is None:
        return {prefix: "none"}
    return {prefix: settings if isinstance(settings, (str, int, float, bool)) else json.dumps(settings)}


def _figures(rows: Sequence[Row]) -> Iterator[tuple[str, float]]:
    for row in rows:
        for name in FIGURES:
            value = getattr(row, name)
            if math.isfinite(value):
                yield f"{_tag(row.probe or row.trial or 'itself')}/{row.arm}/{name}", value


def _histories(cell: Cell, store: Store) -> dict[str, tuple[Mapping[str, float], ...]]:
    """Of the embedding, and of the watermark that it started from, if it did."""
    marked = cell.goal.inputs["marked"]
    found = {}
    for stage in lineage(marked):
        artifact = None
        if stage.kind == "embed":
            with contextlib.suppress(HeirmarkError):  # a store that does not answer: the figures are told without
                artifact = store.find(stage)
        if artifact is not None:
            found["embedding" if stage is marked else "embedding before"] = read_history(artifact.folder)
    return found


def _scalars(run: Run) -> Iterator[tuple[str, int, float]]:
    for name, rows in run.histories.items():
        for number, row in enumerate(rows):
            step = row.get("epoch", float(number))
            for field, value in row.items():
                if field != "epoch" and math.isfinite(value):
                    yield f"{name}/{_tag(field)}", int(step), float(value)


def _tag(text: str) -> str:
    """A name that both trackers take and that stays one part of a path."""
    return re.sub(r"[^\w .-]", "_", text).strip(". ") or "_"
