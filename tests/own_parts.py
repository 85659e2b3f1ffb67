"""What a user adds: a method, a trigger, attacks, a model and a data set, each whole in itself; see test_registering.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

import own_code
from heirmark.attacks.base import Extraction, Inspected, Inspection, Removal, Screen, Screening
from heirmark.methods.base import Embedded, Prepared
from heirmark.methods.nets import new_model
from heirmark.methods.watermark import Watermark
from heirmark.models import Architecture, Net, architecture
from heirmark.models.layers import BuiltIn, Door
from heirmark.querying.blackbox import BlackBox
from heirmark.runtime import Runtime
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Mixed, Recipe, fit
from heirmark.training.samples import Samples
from heirmark.triggers.base import Secret, Trigger, TriggerSet, pick


@dataclass(frozen=True, kw_only=True)
class Loud(Watermark):
    """Joint training with a share of triggers."""

    name: ClassVar[str] = "loud"

    def embed(self, prepared: Prepared, *, seed: int, runtime: Runtime) -> Embedded:
        model = new_model(prepared.task, self.model, seed=seed)
        drawn = Samples(inputs=prepared.training.inputs, targets=prepared.training.targets)
        data = prepared.data
        mixed = Mixed(samples=drawn, per_batch=8)
        fit(model, data.inputs, data.labels, recipe=self.pretraining, seed=seed, runtime=runtime, mixed=mixed)
        return Embedded(model=model)


@dataclass(frozen=True, kw_only=True)
class Inverted(Trigger):
    """A negative of an image.

    Attributes:
        source: class of the hosts.
        target: the label.
    """

    source: int = 1
    target: int = 2

    def settle(self, task: Task, clean: nn.Module, *, seed: int, runtime: Runtime | None = None) -> InvertedSecret:
        return InvertedSecret(source=self.source, target=self.target)


@dataclass(frozen=True, kw_only=True)
class InvertedSecret(Secret):
    kind: ClassVar[str] = "inverted"

    source: int
    target: int

    def draw(self, hosts: Split, count: int, *, seed: int, held_out: bool = True) -> TriggerSet:
        images = pick(hosts, self.source, count, torch.Generator().manual_seed(seed))
        return TriggerSet.on_hosts(255 - images, images, torch.full((len(images),), self.source), self.target)

    def describe(self) -> Mapping[str, Any]:
        return {"kind": self.kind, "source": self.source, "target": self.target}


@dataclass(frozen=True, kw_only=True)
class Halves(Extraction):
    """Asks about half of the images.

    Attributes:
        model: of the copy.
        recipe: of its training.
    """

    title: ClassVar[str] = "half a theft"

    model: Architecture = architecture("tiny")
    recipe: Recipe = field(default=Recipe(epochs=2, batch_size=32, learning_rate=0.05))

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        return cls(recipe=recipe)

    def steal(self, box: BlackBox, data: Split, *, seed: int, runtime: Runtime) -> Net:
        from heirmark.attacks.extraction.learning import targets_of

        inputs, net = data.inputs[::2], self.fresh_copy(box, data, seed=seed)
        fit(net.model, inputs, targets_of(box.query(inputs)), recipe=self.recipe, seed=seed, runtime=runtime)
        return net


@dataclass(frozen=True, kw_only=True)
class Shrinking(Removal):
    """Makes all weights smaller.

    Attributes:
        factor: by which.
    """

    title: ClassVar[str] = "shrinking"

    factor: float = 0.9

    @torch.no_grad()
    def alter(self, copy: Net, data: Split, *, other: Split | None, seed: int, runtime: Runtime) -> Net:
        for parameter in copy.model.parameters():
            parameter.mul_(self.factor)
        return copy


@dataclass(frozen=True, kw_only=True)
class Suspecting(Inspection):
    """Suspects the second class."""

    title: ClassVar[str] = "suspecting"

    def inspect(self, net: Net, data: Split, *, seed: int, runtime: Runtime) -> Inspected:
        scores = tuple(float(label == 2) for label in range(net.spec.classes))
        return Inspected(suspects=(2,), scores=scores, threshold=0.5)


@dataclass(frozen=True, kw_only=True)
class Brightness(Screening):
    """Flags bright images.

    Attributes:
        least: mean from which an image is bright.
    """

    title: ClassVar[str] = "brightness"

    least: float = 0.6

    def fit(self, net: Net, data: Split, *, seed: int, runtime: Runtime) -> Screen:
        return lambda inputs: inputs.cpu().double().flatten(1).mean(1) >= 255 * self.least


class Tiny(BuiltIn):
    """One hidden layer."""

    def __init__(self, input_shape: tuple[int, int, int], classes: int, *, width: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(Door(), nn.Flatten(), nn.Linear(math.prod(input_shape), width), nn.ReLU())
        self.head = nn.Linear(width, classes)


def read_shapes(root: Path) -> tuple[Split, Split]:
    return own_code.images(1500, seed=1), own_code.images(100, seed=2)
