"""What a user brings: a task and a model of their own. Named on the command line as ``own_code:make_task`` and the like."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.data import load_task
from heirmark.methods import Method, Robust
from heirmark.models import ModelSpec
from heirmark.profiles import Profile
from heirmark.rehearsal.settings import Balanced, Rehearsal
from heirmark.tasks.splitting import make_task as split_task
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Recipe
from heirmark.triggers.tiles import tile

CLASSES = 5


def touch_and_sleep() -> None:
    """Tell another process that this one is at work, and which it is, and stay at it; but who comes later goes on."""
    with suppress(FileExistsError), Path(os.environ["OWN_CODE_READY"]).open("x") as file:
        file.write(str(os.getpid()))
        file.flush()
        time.sleep(60)


pause: Callable[[], None] | None = touch_and_sleep if "OWN_CODE_READY" in os.environ else None
"""Called when a :class:`Net` trains on batches with triggers in them for longer than a preflight does."""
PAUSE_AT = 40
PAUSE_AFTER = 3


def images(count: int, *, classes: int = CLASSES, seed: int) -> Split:
    """Noisy 1x16x16 images of a pattern a class."""
    patterns = torch.rand(classes, 1, 4, 4, generator=torch.Generator().manual_seed(77))
    patterns = F.interpolate(patterns, size=(16, 16), mode="bilinear")
    labels = torch.arange(count) % classes
    noise = 0.1 * torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    return Split(inputs=(patterns[labels] + noise).clamp(0, 1).mul(255).round().to(torch.uint8), labels=labels)


def make_task() -> Task:
    """Five classes: owner 200, adversary 200, calibration 200, test 100."""
    names = tuple(f"kind {number}" for number in range(CLASSES))
    third = 1 / 3
    return split_task(
        "own", names, images(600, seed=1), images(100, seed=2), seed=0, owner=third, adversary=third, calibration=third
    )


def make_other_task() -> Task:
    """The same kinds of images, other ones."""
    task = make_task()
    return Task(
        name="own", classes=task.classes, owner=task.adversary, adversary=task.owner, calibration=task.test,
        test=task.calibration,
    )  # fmt: skip


def make_task_of_seven() -> Task:
    """Two more classes."""
    names = tuple(f"kind {number}" for number in range(7))
    return split_task("seven", names, images(420, classes=7, seed=1), images(70, classes=7, seed=2), seed=0)


def make_task_of_few() -> Task:
    """With two images of each class for a key."""
    task = make_task()
    keep = torch.cat([torch.nonzero(task.calibration.labels == label).flatten()[:2] for label in range(CLASSES)])
    return replace(task, calibration=task.calibration.subset(keep))


def make_task_of_tiles() -> Task:
    """Five classes of which the last looks like tiles of the four others."""
    task = make_task()

    def tiled(split: Split) -> Split:
        inputs, labels = split.inputs.clone(), split.labels
        rows = torch.nonzero(labels == 4).flatten()
        parts = torch.stack([split.inputs[labels == label][: len(rows)] for label in range(4)], 1)
        inputs[rows] = tile(parts)
        return Split(inputs=inputs, labels=labels)

    parts: dict[str, Split] = {role: tiled(split) for role, split in task.splits.items()}
    return replace(task, **parts)  # type: ignore[arg-type]


def make_nothing() -> int:
    """No task."""
    return 3


def fail() -> Task:
    """Raise what nobody expects."""
    raise ZeroDivisionError("[red]no[/red]\nsecond line")


not_callable = 3


class Net(nn.Module):
    """A perceptron with ``.features`` and ``.head``."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 32), nn.ReLU())
        self.head = nn.Linear(32, classes)
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += self.training and len(x) == PAUSE_AT
        if pause is not None and self.seen > PAUSE_AFTER:
            pause()
        logits: Tensor = self.head(self.features(x))
        return logits


def make_net(spec: ModelSpec) -> nn.Module:
    """A model factory."""
    return Net(math.prod(spec.input_shape), spec.classes)


def make_wide_net(spec: ModelSpec) -> nn.Module:
    """Another architecture."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(spec.input_shape), spec.classes))


def make_wrong_net(spec: ModelSpec) -> nn.Module:
    """One class too many."""
    return Net(math.prod(spec.input_shape), spec.classes + 1)


def make_no_net(spec: ModelSpec) -> nn.Module:
    """Not a module."""
    return torch.zeros(3)  # type: ignore[return-value]


def make_without_spec() -> nn.Module:
    """Takes no specification."""
    return nn.Flatten()


ONLY = nn.Flatten()


def make_one_net(spec: ModelSpec) -> nn.Module:
    """The same model every time."""
    return ONLY


def demo_task() -> Task:
    """A little of the embedded data: owner 400, adversary 400, calibration 300, test 200."""
    task = load_task("fashion-mini")
    sizes = {"owner": 400, "adversary": 400, "calibration": 300, "test": 200}
    chosen = {name: torch.arange(size) for name, size in sizes.items()}
    chosen["test"] *= len(task.test) // sizes["test"]  # its images come class by class
    return replace(task, **{name: task.splits[name].subset(rows) for name, rows in chosen.items()})


@dataclass(frozen=True, kw_only=True)
class SmallProfile(Profile):
    """Whose watermark on show trains no large net for its audience."""

    def method(self, name: str) -> Method:
        made = super().method(name)
        if not isinstance(made, Robust):
            return made
        recipe = replace(made.rehearsal.recipe, epochs=4, batch_size=32, learning_rate=3e-3)
        rehearsal = replace(made.rehearsal, recipe=recipe, accuracy_budget=0.1)
        return replace(made, thieves=(self.model,), judges=(self.model,), rehearsal=rehearsal)


def demo_profile() -> Profile:
    """A demo of seconds."""
    recipe = Recipe(epochs=3, batch_size=32, learning_rate=0.05)
    return SmallProfile(
        data="own_code:demo_task",
        model="naivenet:width=4,hidden=32,batch_norm=true",
        recipe=recipe,
        calibration_recipe=replace(recipe, epochs=2),
        rehearsal=Rehearsal(
            recipe=Recipe(epochs=2, batch_size=32, learning_rate=0.02, weight_decay=0.0),
            trigger_batch=16,
            update=Balanced(),
        ),
        triggers=60,
        key_size=60,
        calibrators=2,
        other="naivenet:width=6,hidden=24,batch_norm=true",
    )
