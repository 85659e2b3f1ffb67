"""Mark a model that is there, in Python: a trained module and data in, a marked module and its key out."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

from heirmark.errors import BadConfig, BadData
from heirmark.jobs.preflight import preflight
from heirmark.jobs.starting import check_starts, check_trained
from heirmark.methods import Marked, Method
from heirmark.models import Factory
from heirmark.models.anew import Anew
from heirmark.models.storage import rounded
from heirmark.querying.asking import outputs_of
from heirmark.querying.layout import copied, unwrapped
from heirmark.querying.oracle import call_model
from heirmark.runtime import Runtime, derive_seed, drawn_seed
from heirmark.suiting import default_method
from heirmark.tasks.splitting import own_task
from heirmark.tasks.task import Split, Task

Examples: TypeAlias = Split | tuple[Tensor, Tensor]
"""Labelled examples, or inputs and labels."""


def mark(
    model: nn.Module,
    data: Task | Examples,
    *,
    held_out: Examples | None = None,
    method: Method | None = None,
    factory: Factory | None = None,
    seed: int | None = None,
    runtime: Runtime | None = None,
) -> Marked:
    """Mark a trained model: the given weights are where the marked ones start, and no model is trained in their place.

    Layers with ``requires_grad`` off stay as they are to the last bit, running statistics and all. A model in half precision is
    marked in float32, and what is returned is rounded to what its own type holds: ``.to(torch.bfloat16)``, say, loses nothing.

    Args:
        model: maps ``[B, ...]`` floats in [0, 1] to logits ``[B, C]``; stays as it is.
        data: what it learned, as a task, or as labelled examples ``[N, ...]``, uint8 or float in [0, 1], of which
            :func:`heirmark.tasks.splitting.own_task` makes one: a part of them is left out of the marking.
        held_out: examples that the model has not learned from, if ``data`` is no task: of these the key is made.
        method: one that starts from a given model; its architecture is the model's. None is
            :class:`heirmark.methods.robust.Robust` with the settings of ``--quick``.
        factory: builds nets of the model's structure for simulated thieves; None makes copies with weights drawn anew.
        seed: of everything random; the key is as secret as it is. None draws one that nobody can guess.
        runtime: device, precision, progress.

    Returns:
        The marked model, in eval mode, and its key.

    Raises:
        BadConfig: when the method trains its own model, cannot work on such inputs or with such a model, or all is frozen.
        BadData: when the data are too few, or the model has not learned them.
        ModelFault: when the model fails on the inputs.
    """
    seed, runtime = drawn_seed(seed), runtime or Runtime()
    if method is not None:
        check_starts(method)
    start = copied(unwrapped(model))
    weights = start.state_dict()
    stored = {name: each.dtype for name, each in weights.items() if each.is_floating_point()}
    stored = {name: kind for name, kind in stored.items() if kind != torch.float32}
    start = start.float() if stored else start
    task = _task(data, held_out, start, seed=seed, runtime=runtime)
    method = method or default_method("robust", task.space, task.num_classes, quick=True)
    check_trained(start, task.calibration, classes=task.num_classes, runtime=runtime)
    method = replace(method, model=factory or Anew(start.cpu()))
    preflight(method, task, seed=seed, runtime=runtime)
    made = method(task, seed=seed, runtime=runtime, clean=start)
    return replace(made, net=rounded(made.net, stored))


def _task(data: Task | Examples, held_out: Examples | None, model: nn.Module, *, seed: int, runtime: Runtime) -> Task:
    """The task that data are, or that is made of them with as many classes as the model knows."""
    if isinstance(data, Task):
        if held_out is not None:
            raise BadConfig("a task has its own calibration and test split: leave held_out out")
        return data
    examples = _split(data)
    logits = call_model(lambda given: outputs_of(model, given, runtime=runtime), examples.inputs[:2])
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise BadData("the model does not return logits [N, C]: wrap it so that it does")
    return own_task(
        examples,
        held_out=None if held_out is None else _split(held_out),
        classes=logits.shape[1],
        seed=derive_seed(seed, "splits"),
    )


def _split(examples: Examples) -> Split:
    return examples if isinstance(examples, Split) else Split(inputs=examples[0], labels=examples[1])
