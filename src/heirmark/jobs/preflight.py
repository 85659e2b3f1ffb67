"""Try everything small before hours are spent: the trigger on the whole task, the model alone, the method in a tiny step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from heirmark.errors import BadConfig, BadData, HeirmarkError, HeirmarkWarning, out_of_memory, told
from heirmark.keys.key import LARGEST
from heirmark.loading import check_architecture
from heirmark.methods import T2S, Method, Watermark
from heirmark.methods.base import draw_training, draw_verification, settle
from heirmark.methods.nets import new_model
from heirmark.querying.asking import floats_for
from heirmark.querying.layout import copied
from heirmark.querying.oracle import call_model, checked_scores
from heirmark.rehearsal.settings import Rehearsal
from heirmark.runtime import Runtime, derive_seed, generator_of, no_progress, seeded
from heirmark.tasks.task import Split, Task
from heirmark.triggers import Tiles
from heirmark.verification.questions import LEAST_QUERIES

SMALL = {
    "epochs": 1,
    "steps": 1,
    "rounds": 1,
    "refinements": 1,
    "samples": 16,
    "triggers": 24,
    "mixed": 24,
    "evasion_samples": 24,
    "key_size": LEAST_QUERIES,
    "candidates": 24,
}
"""The most that the rehearsed method takes of each of these settings."""
IMAGES = 64
"""About how many images of the owner's the rehearsed method trains on."""


def preflight(method: Method, task: Task, *, seed: int, runtime: Runtime | None = None) -> None:
    """Find out in seconds what would end a method after hours.

    Args:
        method: with its settings.
        task: the data.
        seed: the one that the method will be given, by which it draws classes and pattern.
        runtime: device and precision that the method will have.

    Raises:
        BadConfig: when the method or the model of a user's cannot work with the task, or with each other.
        BadData: when the data give no key, or too small a one.
        ShapeMismatch: when a built-in model takes no such inputs.
    """
    runtime = replace(runtime or Runtime(), progress=no_progress, compile=False)
    _check_sizes(method, task)
    method.check(task)
    for architecture in method.architectures(task.space):
        check_architecture(architecture, input_shape=task.input_shape, classes=task.num_classes)
        if not isinstance(architecture, str):
            _check_training(architecture, task, differentiated=method.differentiates)
    few = small_task(task)
    _check_trigger(method, task, few, seed=seed, runtime=runtime)
    _rehearse(method, few, seed=seed, runtime=runtime)


def small(config: Any) -> Any:
    """A configuration that does the same in little time: every setting of :data:`SMALL` at most as large as there."""
    if isinstance(config, tuple):
        return tuple(small(item) for item in config)
    if not is_dataclass(config) or isinstance(config, type):
        return config
    changes: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        limit = SMALL.get(field.name)
        changes[field.name] = min(value, limit) if limit is not None and type(value) is int else small(value)
    if isinstance(config, T2S) and config.watermark is not None:
        changes["watermark"] = replace(
            changes["watermark"], trigger=changes["trigger"]
        )  # T2S' own, whatever comes first
    if (
        isinstance(config, Rehearsal)
        and (size := config.memory.micro_batch) > 1
        and config.recipe.batch_size % size != 1
    ):
        # Two leaves no remainder of one, of which the real size has none either.
        changes["memory"] = replace(config.memory, micro_batch=2)
    return replace(config, **changes)


def small_task(task: Task) -> Task:
    """A task with the same classes and a few images of each, an even number."""
    each = max(2, IMAGES // task.num_classes // 2 * 2)
    parts: dict[str, Any] = {role: split.subset(_first(split, each)) for role, split in task.splits.items()}
    return replace(task, **parts)


def _first(split: Split, each: int) -> Tensor:
    """Positions of the first few examples of every class."""
    order = split.labels.argsort(stable=True)
    counts = split.labels.bincount()
    rank = torch.arange(len(split)) - (counts.cumsum(0) - counts)[split.labels[order]]
    return order[rank < each].sort().values


def _check_sizes(method: Method, task: Task) -> None:
    if method.key_size < LEAST_QUERIES:
        raise BadConfig(
            f"no verdict can rest on a key of {method.key_size} queries: set key_size to {LEAST_QUERIES} or more"
        )
    sample = task.owner.inputs[0]
    size = 2 * method.key_size * sample.numel() * sample.element_size()  # queries and controls
    if size > LARGEST:
        raise BadConfig(
            f"a key of {method.key_size} queries of this size would take {size / 2**30:.1f} GiB, more than the "
            f"{LARGEST >> 30} that are read again: lower key_size"
        )


def _check_training(architecture: Callable[..., nn.Module], task: Task, *, differentiated: bool) -> None:
    """Take one step of gradients through a user's model in train mode.

    Args:
        architecture: the user's factory.
        task: gives shapes.
        differentiated: whether passes through it are differentiated as functions of its weights, as a rehearsal does.

    Raises:
        BadConfig: when that fails.
    """
    name = getattr(architecture, "__qualname__", repr(architecture))
    model = new_model(task, architecture, seed=0).cpu().train()
    inputs = floats_for(task.owner.inputs[:8])
    try:
        with seeded(0), torch.enable_grad():
            scores = checked_scores(call_model(model, inputs), len(inputs), task.num_classes)
            if not scores.requires_grad:
                raise BadConfig(f"the model of {name} gives no gradient: its weights must be parameters in use")
            scores.square().sum().backward()  # type: ignore[no-untyped-call]
        wrong = differentiated and not _is_a_function(model, inputs)
    except BadConfig:
        raise
    except HeirmarkError as error:
        raise BadConfig(f"the model of {name} fails in train mode: {error}") from error
    except Exception as error:
        if out_of_memory(error):
            raise
        raise BadConfig(
            f"the model of {name} cannot be trained ({told(error)}): mend it, or build it otherwise"
        ) from error
    if wrong:
        raise BadConfig(
            f"the model of {name} cannot be differentiated as a function of its weights, which a rehearsal does; activation "
            "checkpointing is a cause, for it computes anew with other weights: build it without, and save memory with "
            "rehearsal.memory.micro_batch and .one_graph"
        )


def _is_a_function(model: nn.Module, inputs: Tensor) -> bool:
    """Whether gradients at other weights than the model's own are those of a model that has these weights."""
    other, generator = copied(model), generator_of(0)
    with torch.no_grad():
        for parameter in other.parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter.add_(noise * parameter.abs().mean().clamp_min(0.1))
    names, weights = zip(*((n, p) for n, p in other.named_parameters() if p.requires_grad), strict=True)
    state = {name: value.clone() for name, value in other.named_buffers()}

    def elsewhere() -> Tensor:
        given = {**dict(zip(names, weights, strict=True)), **state}
        scores: Tensor = torch.func.functional_call(model, given, (inputs,))
        return scores

    def itself() -> Tensor:
        scores: Tensor = other(inputs)
        return scores

    found = []
    for run in (elsewhere, itself):
        with seeded(0), torch.enable_grad():
            found.append(torch.autograd.grad(run().square().sum(), weights, allow_unused=True))
    return all(
        (one is None and two is None)
        or (one is not None and two is not None and torch.allclose(one, two, rtol=1e-3, atol=1e-5))
        for one, two in zip(*found, strict=True)
    )


def _check_trigger(method: Method, task: Task, few: Task, *, seed: int, runtime: Runtime) -> None:
    """Settle a trigger on a few images with an untrained model, and draw from the whole of the data what the method will draw.

    Raises:
        BadConfig: when the trigger does not fit the task.
        BadData: when the data lack its classes, or give too small a key.
    """
    trigger = small(method.trigger)
    absent = set(task.owner.labels.tolist()) - set(task.calibration.labels.tolist())
    if isinstance(trigger, Tiles) and trigger.sources is None and absent - {trigger.target}:
        warnings.warn(
            f"the calibration split has no image of class {min(absent)}: if the trigger is made of it, there can be no key; "
            "give it some, or set trigger.sources and trigger.target",
            HeirmarkWarning,
            stacklevel=2,
        )
    untrained = new_model(task, method.model, seed=derive_seed(seed, "preflight"))
    secret = settle(trigger, few, untrained, seed=seed, runtime=runtime)
    if isinstance(method, Watermark):
        draw_training(secret, task, method.triggers, seed=seed)
    hosts = method.hosts(task, seed=seed) if isinstance(method, Watermark) else None
    count = len(draw_verification(secret, task, method.key_size, seed=seed, hosts=hosts))
    if count < LEAST_QUERIES:
        raise BadData(
            f"the calibration split gives only {count} triggers, and no verdict can rest on fewer than {LEAST_QUERIES}: "
            "give it more images of the source classes"
        )


def _rehearse(method: Method, few: Task, *, seed: int, runtime: Runtime) -> None:
    """Run the whole method on a few images, for an epoch.

    Raises:
        BadConfig: when anything fails that is not a matter of having so little data.
    """
    try:
        small(method)(few, seed=seed, runtime=runtime)
    except BadConfig:
        raise
    except HeirmarkError:
        return  # so few examples may well be too few
    except Exception as error:
        if out_of_memory(error):
            raise
        raise BadConfig(
            f"{type(method).__name__} cannot work with this model and these settings, as one tiny step shows "
            f"({told(error)}): change what the error names"
        ) from error
