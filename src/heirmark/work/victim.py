"""The model that an attack is given, and the stages that attack it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from heirmark.errors import ShapeMismatch
from heirmark.models import ModelSpec, Net
from heirmark.models.storage import load_model
from heirmark.stages.stage import Job, Stage
from heirmark.tasks.space import check_needs
from heirmark.tasks.task import Task
from heirmark.work.context import Context, context_of

VICTIM = "victim"


def attack_stage(
    run: Callable[[Job], Mapping[str, Any]],
    config: object,
    victim: Stage,
    context: Context,
    *,
    seed: int,
    external: Mapping[str, str] | None = None,
    further: Mapping[str, Stage | None] | None = None,
) -> Stage:
    """A stage that attacks a model, and may read ``further`` stages; ``run`` calls :func:`load_victim`.

    Its identity covers the versions of the libraries that the attack says its result rests on, as far as they are installed.

    Raises:
        BadConfig: when the attack cannot work on the task's inputs.
    """
    check_needs(config, context.task.space)
    versions = {}
    for name in getattr(getattr(config, "attack", config), "libraries", ()):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    inputs = {VICTIM: victim, **(further or {})}
    return context.stage(run, config, inputs=inputs, seed=seed, external={**(external or {}), **versions})


def load_victim(job: Job) -> Net:
    """The model that a stage of :func:`attack_stage` is to attack.

    Raises:
        ShapeMismatch: when it is not of the context's task.
    """
    context = context_of(job)
    net = load_model(job.inputs[VICTIM].folder, factories=context.factories)
    check_fit(net.spec, context.task)
    return net


def check_fit(spec: ModelSpec, task: Task) -> None:
    """Make sure that a model is of a task.

    Raises:
        ShapeMismatch: when it is not.
    """
    if spec.input_shape != task.input_shape or spec.classes != len(task.classes):
        raise ShapeMismatch(
            f"the model takes {spec.input_shape} and knows {spec.classes} classes, but {task.name} has "
            f"{task.input_shape} and {len(task.classes)}: name the model's own data with --data"
        )
