"""The model that an attack is given: a stage's, or one in a folder of the user's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from torch import nn

from heirmark.errors import ShapeMismatch
from heirmark.models import ModelSpec
from heirmark.models.storage import load_model
from heirmark.pipeline.context import Context, context_of
from heirmark.pipeline.stage import Job, Stage
from heirmark.task import Task

HELD = "held"


def attack_stage(
    kind: str,
    run: Callable[[Job], Mapping[str, Any]],
    config: object,
    held: Stage | str,
    context: Context,
    *,
    seed: int,
    external: Mapping[str, str],
    further: Mapping[str, Stage] | None = None,
) -> Stage:
    """A stage that attacks a model.

    Args:
        kind: of the stage.
        run: its function, which calls :func:`load_victim`.
        config: the attack.
        held: the stage that makes the model, or the digest of the folder that ``context.victim`` names.
        context: data and hardware.
        seed: of the attack.
        external: digests of what else it reads.
        further: other stages that it reads, by name.
    """
    found = isinstance(held, Stage)
    return Stage(
        kind=kind,
        run=run,
        config=config,
        inputs={**({HELD: held} if isinstance(held, Stage) else {}), **(further or {})},
        seed=seed,
        external={
            **context.external(),
            **external,
            **versions_behind(getattr(config, "attack", config)),
            **({} if found else {HELD: str(held)}),
        },
    )


def versions_behind(attack: object) -> dict[str, str]:
    """Versions of the libraries that an attack says its result rests on, as far as they are installed."""
    versions = {}
    for name in getattr(attack, "libraries", ()):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def load_victim(job: Job) -> tuple[nn.Module, ModelSpec]:
    """The model that a stage of :func:`attack_stage` is to attack.

    Raises:
        ShapeMismatch: when it is not of the context's task.
    """
    context = context_of(job)
    folder = job.inputs[HELD].folder if HELD in job.inputs else context.victim
    if folder is None:
        raise TypeError("an attack needs a model: a stage, or a folder in the context")
    model, spec = load_model(folder, factory=context.factory)
    check_fit(spec, context.task)
    return model, spec


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
