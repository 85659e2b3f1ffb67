"""What the attackers' commands do: a model's folder in, a copy, an altered model or a suspicion out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heirmark.attacks import Inspection, Screening
from heirmark.errors import ShapeMismatch
from heirmark.key import Key
from heirmark.models import Factory, ModelSpec
from heirmark.models.storage import ONNX, load_model, load_spec
from heirmark.pipeline.altering import Alteration, alter_stage
from heirmark.pipeline.context import Context, exact
from heirmark.pipeline.detecting import expose, put_screen
from heirmark.pipeline.exporting import (
    OnEvent,
    Origin,
    check_free,
    export_folder,
    folder_digest,
    labelled_store,
)
from heirmark.pipeline.inspecting import inspect_stage, read_inspected
from heirmark.pipeline.judging import CALIBRATION, read_calibration, read_key
from heirmark.pipeline.loading import (
    check_architecture,
    check_given,
)
from heirmark.pipeline.stealing import Theft, steal_stage
from heirmark.pipeline.victim import check_fit
from heirmark.runtime import Runtime
from heirmark.task import Split, Task


def steal_job(
    theft: Theft,
    victim: Path,
    task: Task,
    out: Path,
    *,
    seed: int,
    runtime: Runtime,
    store: Path,
    origin: Origin,
    pools: Mapping[str, Split] | None = None,
    factory: Factory | None = None,
    on_event: OnEvent | None = None,
) -> dict[str, Any]:
    """Steal the model in a folder and write the copy to another.

    Args:
        theft: attack and answers.
        victim: folder of the model.
        task: whose adversary split queries, unless the theft names a pool.
        out: gets ``model.*`` and ``task.json``.
        seed: of the attack.
        runtime: device, precision, progress.
        store: where finished stages are kept.
        origin: of the data, for ``task.json``.
        pools: other images by name, for a theft that names one.
        factory: of the victim, when it is a custom model.
        on_event: told of every stage.

    Returns:
        Facts to show.

    Raises:
        BadConfig: when ``out`` is not free, or a model does not fit.
        BudgetExhausted: when the attack asks more than the budget.
    """
    check_free(out)
    model = getattr(theft.attack, "model", None)
    if model is not None:
        check_architecture(model, input_shape=task.input_shape, classes=load_spec(victim).classes)
    context = Context(task=task, runtime=runtime, factory=factory, victim=victim, pools=pools or {})
    stage = steal_stage(theft, folder_digest(victim), context, seed=seed)
    labels = {stage.name: "steal", **{needed.name: "answer queries" for needed in stage.inputs.values()}}
    made = labelled_store(store, labels, on_event).get(stage, context)
    export_folder(made, out, task=task, origin=origin)
    return {"model": str(out), "queries": made.summary["queries"], "seconds": made.record["seconds"]}


def remove_job(
    alteration: Alteration,
    held: Path,
    task: Task,
    out: Path,
    *,
    seed: int,
    runtime: Runtime,
    store: Path,
    origin: Origin,
    pools: Mapping[str, Split] | None = None,
    factory: Factory | None = None,
    on_event: OnEvent | None = None,
) -> dict[str, Any]:
    """Work on the model in a folder so that a mark in it may be lost, and write what is left to another.

    Args:
        alteration: attack and further data.
        held: folder of the model.
        task: whose adversary split the thief has, labels and all.
        out: gets ``model.*`` and ``task.json``.
        seed: of the attack.
        runtime: device, precision, progress.
        store: where finished stages are kept.
        origin: of the data, for ``task.json``.
        pools: labelled examples of other tasks by name, for an attack that names one.
        factory: of the model, when it is a custom one.
        on_event: told of every stage.

    Returns:
        Facts to show.

    Raises:
        BadConfig: when ``out`` is not free, or the attack does not fit the model.
    """
    check_free(out)
    spec = _spec_of(held, task, factory)
    model = getattr(alteration.attack, "model", None)
    if model is not None:
        check_architecture(model, input_shape=task.input_shape, classes=spec.classes)
    context = Context(task=task, runtime=runtime, factory=factory, victim=held, pools=pools or {})
    stage = alter_stage(alteration, folder_digest(held), context, seed=seed)
    made = labelled_store(store, {stage.name: "remove"}, on_event).get(stage, context)
    export_folder(made, out, task=task, origin=origin)
    return {"model": str(out / ONNX if made.summary["onnx"] else out), "seconds": made.record["seconds"]}


def inspect_job(
    inspection: Inspection,
    held: Path,
    task: Task,
    *,
    seed: int,
    runtime: Runtime,
    store: Path,
    key: Path | None = None,
    factory: Factory | None = None,
    on_event: OnEvent | None = None,
) -> dict[str, Any]:
    """Look for a mark in the model in a folder, and where a key is given hold what is suspected against it.

    Args:
        inspection: the attack, which never sees the key.
        held: folder of the model.
        task: whose adversary split the thief has.
        seed: of the attack.
        runtime: device, precision, progress.
        store: where finished stages are kept.
        key: folder of the key, or of the marked model.
        factory: of the model, when it is a custom one.
        on_event: told of every stage.

    Returns:
        Facts to show.
    """
    _spec_of(held, task, factory)
    against = None if key is None else _key_of(key, task)
    context = Context(task=task, runtime=runtime, factory=factory, victim=held)
    stage = inspect_stage(inspection, folder_digest(held), context, seed=seed)
    made = labelled_store(store, {stage.name: "look for a mark"}, on_event).get(stage, context)
    found = read_inspected(made.folder)
    facts: dict[str, Any] = {
        "suspects": [task.classes[label] for label in found.suspects],
        "scores": {
            task.classes[label]: round(score, 4) if math.isfinite(score) else None
            for label, score in enumerate(found.scores)
        },
        "threshold": found.threshold,
        **{name: round(value, 4) for name, value in found.details.items() if math.isfinite(value)},
        "seconds": made.record["seconds"],
    }
    if against is not None:
        model, _ = load_model(held, factory=factory)
        truth = expose(found, against, model, task.test, exact(runtime))
        facts |= {
            "targets": [task.classes[label] for label in truth.targets],
            "target_found": truth.found,
            "false_suspects": truth.false_suspects,
            "reversed_success": {
                task.classes[label]: round(share, 4) for label, share in truth.reversed_success.items()
            },
        }
    return facts


def screen_job(
    screening: Screening,
    held: Path,
    task: Task,
    key: Path,
    *,
    seed: int,
    runtime: Runtime,
    factory: Factory | None = None,
) -> dict[str, Any]:
    """Put a screen before the model in a folder and see whether it tells the key's queries from others.

    Args:
        screening: the attack, which never sees the key.
        held: folder of the model.
        task: whose adversary split the thief has.
        key: folder of the marked model, with its calibration.
        seed: of the attack.
        runtime: device, precision, progress.
        factory: of the model, when it is a custom one.

    Returns:
        Facts to show.
    """
    _spec_of(held, task, factory)
    asked = _key_of(key, task)
    model, spec = load_model(held, factory=factory)
    screen = screening(model, spec, task.adversary, seed=seed, runtime=runtime)
    calibration = read_calibration(key / CALIBRATION) if (key / CALIBRATION).is_file() else None
    truth = put_screen(screen, model, spec, asked, calibration, task.test, seed=seed, runtime=exact(runtime))
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in vars(truth).items()}


def _spec_of(held: Path, task: Task, factory: Factory | None) -> ModelSpec:
    """What rebuilds the model in a folder, after everything that can be refused before hours of work.

    Raises:
        BadConfig: when a custom model comes without its factory, or the factory fails.
        ShapeMismatch: when the model is not of the task.
    """
    spec = load_spec(held)
    check_given(spec, factory, held)
    check_fit(spec, task)
    return spec


def _key_of(folder: Path, task: Task) -> Key:
    """The key in a folder.

    Raises:
        ShapeMismatch: when it is of another task.
    """
    key = read_key(folder)
    if key.classes != len(task.classes) or tuple(key.queries.shape[1:]) != task.input_shape:
        raise ShapeMismatch(
            f"the key in {folder} asks inputs of shape {tuple(key.queries.shape[1:])} for {key.classes} classes, but {task.name} "
            f"has {task.input_shape} and {len(task.classes)}: name the key of a model of the same task"
        )
    return key


__all__ = ["inspect_job", "remove_job", "screen_job", "steal_job"]
