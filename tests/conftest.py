"""Fixtures that several test files share: tasks, settings and a watch over global state, all small enough for one core."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from heirmark.data import DATASETS
from heirmark.methods.nets import train_from_scratch
from heirmark.runtime import Runtime
from heirmark.tasks.media import Sound
from heirmark.tasks.splitting import make_task
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Recipe
from victims import MODEL, RECIPE

# The reports of several workers on few cores are only comparable, and the sums only bit-identical, with one thread.
torch.set_num_threads(1)

TINY_MODEL = "naivenet:width=4,hidden=16,batch_norm=true"


def tiny_split(count: int, *, classes: int = 6, side: int = 16, seed: int = 0, look: int = 0) -> Split:
    """Images 1 x side x side: a smooth pattern per class, a little moved, with noise. ``look`` changes the patterns."""
    patterns = torch.rand(classes, 1, 5, 5, generator=torch.Generator().manual_seed(1000 + look))
    patterns = F.interpolate(patterns, size=(side + 2, side + 2), mode="bilinear")
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    corners = torch.randint(3, (count, 2), generator=generator).tolist()
    moved = torch.stack(
        [
            patterns[label, :, top : top + side, left : left + side]
            for label, (top, left) in zip(labels.tolist(), corners, strict=True)
        ]
    )
    noisy = moved + 0.08 * torch.randn(moved.shape, generator=generator)
    return Split(inputs=noisy.clamp(0, 1).mul(255).round().to(torch.uint8), labels=labels)


def make_tiny_task(*, classes: int = 6, side: int = 16, train: int = 720, test: int = 120, seed: int = 0) -> Task:
    """A task whose classes a tiny net tells apart after a second: 2/5 owner, 2/5 adversary, 1/5 calibration."""
    return make_task(
        "tiny",
        tuple(f"class {number}" for number in range(classes)),
        tiny_split(train, classes=classes, side=side, seed=seed),
        tiny_split(test, classes=classes, side=side, seed=10_000 + seed),
        seed=seed,
        owner=0.4,
        adversary=0.4,
        calibration=0.2,
    )


@pytest.fixture(scope="session")
def tiny_task() -> Task:
    """Six classes of 1x16x16 uint8: owner 288, adversary 288, calibration 144, test 120 images. Do not change it."""
    return dataclasses.replace(make_tiny_task(), foreign=make_foreign())


@pytest.fixture(scope="session")
def tiny_task_of() -> Callable[..., Task]:
    """Makes other such tasks; keywords ``classes``, ``side``, ``train``, ``test``, ``seed``."""
    return make_tiny_task


def sounds(count: int, *, classes: int = 6, length: int = 400, seed: int = 0, look: int = 0) -> Split:
    """Waves 1 x length: two notes a class, at any moment of their phase, with noise. ``look`` changes the notes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    notes = 0.03 + 0.3 * torch.rand(classes, 2, generator=torch.Generator().manual_seed(2000 + look))
    phases = torch.rand(count, 2, 1, generator=generator)
    heard = torch.sin(2 * torch.pi * (notes[labels][:, :, None] * torch.arange(length) + phases)).sum(1)
    first = torch.arange(length) < length // 2  # the second half is softer, so that a wave has a loudest quarter
    noisy = 0.2 * heard * torch.where(first, 1.0, 0.6) + 0.05 * torch.randn(count, length, generator=generator)
    stored = (noisy.clamp(-1, 1) * 32767).round().to(torch.int16)
    return Split(inputs=stored[:, None], labels=labels)


@pytest.fixture(scope="session")
def tiny_sounds() -> Task:
    """Six classes of 1x400 int16 at 1 kHz: owner 288, adversary 288, calibration 144, test 120 waves. Do not change it."""
    made = make_task(
        "tiny sounds",
        tuple(f"note {number}" for number in range(6)),
        sounds(720),
        sounds(120, seed=10_000),
        seed=0,
        owner=0.4,
        adversary=0.4,
        calibration=0.2,
        medium=Sound(rate=1000),
    )
    return dataclasses.replace(made, foreign=sounds(120, classes=2, length=500, seed=7, look=1))


@pytest.fixture(scope="session")
def foreign_images() -> Split:
    """The foreign images of ``tiny_task``."""
    return make_foreign()


def make_foreign() -> Split:
    """Images 3x20x20 of another data set, two classes, 60 each, for out-of-distribution triggers."""
    grey = tiny_split(120, classes=2, side=20, seed=7, look=1)
    return Split(inputs=grey.inputs.expand(-1, 3, -1, -1).contiguous(), labels=grey.labels)


@pytest.fixture(scope="session")
def tiny_model() -> str:
    """Architecture that learns ``tiny_task`` in about a second."""
    return TINY_MODEL


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    """Training with which ``tiny_model`` learns ``tiny_task``."""
    return Recipe(epochs=2, batch_size=16, learning_rate=0.05)


@pytest.fixture(scope="session", autouse=True)
def _unpacked_once() -> Iterator[None]:
    """``fashion-mini`` is unpacked once, which takes a second, and every reader gets a copy of their own."""
    whole = DATASETS["fashion-mini"]
    kept: list[Split] = []

    def read(root: Path) -> tuple[Split, Split]:
        if not kept:
            kept.extend(whole.read(root))
        train, test = (Split(inputs=part.inputs.clone(), labels=part.labels.clone()) for part in kept)
        return train, test

    DATASETS["fashion-mini"] = dataclasses.replace(whole, read=read)
    yield
    DATASETS["fashion-mini"] = whole


@pytest.fixture(scope="session")
def victim(tiny_task: Task, cpu: Runtime) -> nn.Module:
    """What thieves of ``tiny_task`` ask. Do not change it."""
    return train_from_scratch(tiny_task, MODEL, dataclasses.replace(RECIPE, epochs=6), seed=0, runtime=cpu)


@pytest.fixture(scope="session")
def cpu() -> Runtime:
    """A runtime whose numbers do not depend on the machine's hardware."""
    return Runtime(device="cpu", precision="float32")


def _global_state() -> dict[str, object]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global generator is what is watched
    return {
        "python generator": random.getstate(),
        "numpy generator": (name, np.asarray(keys).tobytes(), *rest),
        "torch generator": torch.random.get_rng_state().numpy().tobytes(),
        "default dtype": torch.get_default_dtype(),
        "grad enabled": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
    }


@contextmanager
def _unchanged_globals() -> Iterator[None]:
    before = _global_state()
    yield
    after = _global_state()
    changed = [name for name, value in before.items() if after[name] != value]
    assert not changed, f"global state was changed: {', '.join(changed)}"


@pytest.fixture(scope="session")
def unchanged_globals() -> Callable[[], AbstractContextManager[None]]:
    """A context that fails when generators, dtype, grad mode or thread count differ afterwards."""
    return _unchanged_globals


def _settings_of(config: Any, default: Any, path: str = "") -> Iterator[str]:
    for field in dataclasses.fields(config):
        value, usual = getattr(config, field.name), getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            if type(value) is not type(usual):
                yield f"{path}{field.name}={type(value).__name__.lower()}"
                usual = type(value)()
            yield from _settings_of(value, usual, f"{path}{field.name}.")
        elif isinstance(value, Mapping):
            yield f"{path}{field.name}={','.join(f'{name}:{item}' for name, item in value.items())}"
        elif isinstance(value, tuple):
            yield f"{path}{field.name}={','.join(map(str, value))}"
        else:
            yield f"{path}{field.name}={str(value).lower() if value is None or isinstance(value, bool) else value}"


@pytest.fixture(scope="session")
def settings_of() -> Callable[[Any, Any], Iterator[str]]:
    """Gives all that a configuration says as text that turns a default one into it: ``settings_of(config, default)``."""
    return _settings_of
