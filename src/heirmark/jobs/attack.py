"""What the attackers' commands do: a model's folder in, a copy, an altered model or a suspicion out.

The folder is adopted into the store without its key (:mod:`heirmark.work.adopting`); where what a thief suspects is held
against a key, the key is adopted apart, and only stages of :mod:`heirmark.work.detecting` read it.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from heirmark.attacks import Inspection, Screening
from heirmark.jobs.exporting import check_free, export_files, export_folder
from heirmark.jobs.folder import Data, ModelFolder
from heirmark.jobs.means import Work
from heirmark.jobs.services import ServedVictim, open_service
from heirmark.loading import check_architecture
from heirmark.models import architectures_of
from heirmark.models.storage import ONNX, save_model
from heirmark.querying.blackbox import BlackBox
from heirmark.stages.store import Store
from heirmark.tasks.space import check_needs
from heirmark.work.altering import Alteration, alter_stage
from heirmark.work.answering import pool_of
from heirmark.work.context import Context
from heirmark.work.detecting import expose_stage, read_exposed, read_served, screen_stage
from heirmark.work.inspecting import inspect_stage, read_inspected
from heirmark.work.stealing import Theft, steal_stage


def steal_job(theft: Theft, victim: ModelFolder, data: Data, out: Path, work: Work) -> dict[str, Any]:
    """Steal the model in a folder and write ``model.*`` and ``task.json`` of the copy to another; returns facts to show.

    The adversary's split of the data queries, unless the theft names a pool.

    Raises:
        BadConfig: when ``out`` is not free, or a model does not fit.
        BudgetExhausted: when the attack asks more than the budget.
    """
    context = _begin(theft.attack, victim, data, out, work)
    stage = steal_stage(theft, victim.model_stage, context, seed=work.seed)
    labels = {needed.name: "answer queries" for needed in stage.inputs.values() if needed.kind == "answer"}
    made = _store(work, victim, {stage.name: "steal", **labels}).get(stage, context)
    export_folder(made, out, data)
    return {"model": str(out), "queries": made.summary["queries"], "seconds": made.record["seconds"]}


def steal_service_job(theft: Theft, victim: ServedVictim, data: Data, out: Path, work: Work) -> dict[str, Any]:
    """Steal a model that is a service, and write the copy to a folder, as :func:`steal_job` does; returns facts to show.

    Nothing is kept in a store, since nobody knows what a service says tomorrow: a transcript is what a theft goes on from.

    Raises:
        BadConfig: when ``out`` is not free, or a model does not fit; or see :func:`heirmark.jobs.services.open_service`.
        BudgetExhausted: when the attack asks more than the budget, or the client's limits.
        ModelFault: when the service fails.
    """
    check_free(out)
    task = data.task
    check_needs(theft.attack, task.space)
    for model in architectures_of(theft.attack):
        check_architecture(model, input_shape=task.input_shape, classes=task.num_classes)
    context = Context(task=task, runtime=work.runtime, pools=data.pools)
    began = time.monotonic()
    known = replace(victim.asking, ordinary=task.adversary, classes=task.classes)
    service = open_service(victim.address, known, classes=task.num_classes, shape=task.input_shape, medium=task.medium)
    api = replace(theft.api, k=min(theft.api.k, task.num_classes))
    box = BlackBox(service, classes=service.classes, api=api, input_shape=task.input_shape)
    stolen = theft.attack(box, pool_of(theft.pool, context), seed=work.seed, runtime=work.runtime)
    with tempfile.TemporaryDirectory() as folder:
        save_model(stolen, Path(folder))
        export_files({file.name: file for file in Path(folder).iterdir()}, out, data)
    facts = {"model": str(out), "queries": box.queries_used, "inputs_put": service.shown, "cost": service.cost}
    return {**facts, "seconds": round(time.monotonic() - began, 3)}


def remove_job(alteration: Alteration, victim: ModelFolder, data: Data, out: Path, work: Work) -> dict[str, Any]:
    """Work on the model in a folder so that a mark in it may be lost, and write what is left to another; returns facts.

    The thief has the adversary's split of the data, labels and all.

    Raises:
        BadConfig: when ``out`` is not free, or the attack does not fit the model.
    """
    context = _begin(alteration.attack, victim, data, out, work)
    stage = alter_stage(alteration, victim.model_stage, context, seed=work.seed)
    made = _store(work, victim, {stage.name: "remove"}).get(stage, context)
    export_folder(made, out, data)
    return {"model": str(out / ONNX if made.summary["onnx"] else out), "seconds": made.record["seconds"]}


def inspect_job(
    inspection: Inspection, victim: ModelFolder, data: Data, work: Work, key: ModelFolder | None = None
) -> dict[str, Any]:
    """Look for a mark in the model in a folder, and where a key is given hold what is suspected against it; returns facts."""
    context, classes = _context(victim, data, work, key), data.task.classes
    stage = inspect_stage(inspection, victim.model_stage, context, seed=work.seed)
    store = _store(work, victim, {stage.name: "look for a mark"}, key)
    made = store.get(stage, context)
    found = read_inspected(made.folder)
    facts: dict[str, Any] = {
        "suspects": [classes[label] for label in found.suspects],
        "scores": {
            classes[label]: round(score, 4) if math.isfinite(score) else None
            for label, score in enumerate(found.scores)
        },
        "threshold": found.threshold,
        **{name: round(value, 4) for name, value in found.details.items() if math.isfinite(value)},
        "seconds": made.record["seconds"],
    }
    if key is not None:
        truth = read_exposed(store.get(expose_stage(stage, victim.model_stage, key.key_stage, context), context).folder)
        facts |= {
            "targets": [classes[label] for label in truth.targets],
            "target_found": truth.found,
            "false_suspects": truth.false_suspects,
            "reversed_success": {classes[label]: round(share, 4) for label, share in truth.reversed_success},
        }
    return facts


def screen_job(screening: Screening, victim: ModelFolder, data: Data, work: Work, key: ModelFolder) -> dict[str, Any]:
    """Put a screen of queries before the model in a folder, and ask its service a key's queries; returns facts to show.

    The screen is fitted on the adversary's split of the data, and should let their test split pass.
    """
    context = _context(victim, data, work, key)
    asked = key.key_stage
    calibration = None if key.calibration is None else asked
    stage = screen_stage(screening, victim.model_stage, asked, calibration, context, seed=work.seed)
    served = read_served(_store(work, victim, {stage.name: "screen queries"}, key).get(stage, context).folder)
    verdict = served.verdict
    facts = {**vars(served.screened), "accuracy": served.accuracy, "wsr": verdict.wsr, "p_value": verdict.p_value}
    return {name: round(value, 4) for name, value in facts.items()} | {"outcome": verdict.outcome}


def _begin(attack: object, victim: ModelFolder, data: Data, out: Path, work: Work) -> Context:
    """The context of an attack that writes a folder, after everything that can be refused before hours of work."""
    check_free(out)
    context = _context(victim, data, work)
    for model in architectures_of(attack):
        check_architecture(model, input_shape=data.task.input_shape, classes=victim.spec.classes)
    return context


def _store(work: Work, victim: ModelFolder, labels: Mapping[str, str], key: ModelFolder | None = None) -> Store:
    """The store, which says of every stage what the user knows it by."""
    read = {victim.model_stage.name: "read the model"}
    if key is not None:
        read[key.key_stage.name] = "read the key"
    return work.labelled({**read, **labels})


def _context(victim: ModelFolder, data: Data, work: Work, key: ModelFolder | None = None) -> Context:
    victim.check_fit(data.task)
    if key is not None:
        key.check_key(data.task)
    return Context(
        task=data.task,
        runtime=work.runtime,
        factories=victim.factories,
        folders=(victim.path, *(() if key is None else (key.path,))),
        pools=data.pools,
    )
