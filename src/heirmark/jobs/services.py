"""Services as suspects and as victims: asked among ordinary inputs, by which it is found out what their classes mean."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from heirmark.data.naming import names_files
from heirmark.errors import BadConfig, BadData, DataNotFound
from heirmark.jobs.folder import Data, ModelFolder, Origin
from heirmark.loading import load_named_task, load_pool
from heirmark.models import Architecture
from heirmark.profiles import QUICK
from heirmark.tasks.media import Medium
from heirmark.tasks.storing import join
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Recipe
from heirmark.triggers import GaussianNoise, Mix, Patch, TextStamp, Tiles, Trigger
from heirmark.verification.normalising import Normalisation, checked_normalisation, normalised
from heirmark.wire.client import Client, connect
from heirmark.wire.matching import match
from heirmark.wire.rows import Classes
from heirmark.wire.service import Cover, Service

_A_CLASS, _IN_ALL = 10, 200
"""Ordinary inputs by which classes are told."""
_POOL = 1000
"""Inputs from which covering ones are drawn."""
_DECOYS: Mapping[str, Trigger] = {
    "tiles": Tiles(selection="random"),
    "mix": Mix(),
    "patch": Patch(),
    "text": TextStamp(),
    "noise": GaussianNoise(),
}
"""Of kinds of keys to which anybody can make like inputs, without a model, what makes them."""


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How a service is asked, and what is known of its classes.

    Attributes:
        client: how it is asked.
        names: for each name of the service's the class that it means, -1 for none; None where none are given.
        inferred: find out by ordinary inputs alone what its classes mean.
        ordinary: labelled inputs of the task; None where there are none.
        classes: names of the task's classes, as far as ``ordinary`` is given.
        tell: is told in words what was found.
    """

    client: Client = field(default=Client())
    names: Mapping[str, int] | None = None
    inferred: bool = False
    ordinary: Split | None = None
    classes: Sequence[str] = ()
    tell: Callable[[str], None] = lambda words: None

    def alone(self) -> Asking:
        """How another service is asked, whose classes may be others and whose answers are not written down."""
        return replace(self, names=None, inferred=False, client=replace(self.client, transcript=None))

    def among(self, task: Task | None) -> Asking:
        """The same with the ordinary inputs of a task's test split."""
        return self if task is None else replace(self, ordinary=task.test, classes=task.classes)

    def covered(self, cover: Cover | None) -> Asking:
        """The same with questions hidden."""
        return replace(self, client=replace(self.client, cover=cover))


def open_service(
    address: str,
    asking: Asking,
    *,
    classes: int,
    shape: Sequence[int],
    order: Sequence[int] | None = None,
    normalise: Normalisation | None = None,
    medium: Medium | None = None,
) -> Service:
    """A service by its address, whose classes are known by what they are called here.

    Args:
        address: of it.
        asking: how.
        classes: of the key, or of the task.
        shape: of one input there.
        order: for each of the service's classes the one that it means, -1 for none.
        normalise: what it wants its inputs normalised by.
        medium: of the key or the task; of texts it writes what is put to the service.

    Raises:
        BadConfig: when it may not be talked to, nothing can be asked there, or its classes are not what is said.
        ModelFault: when it cannot be reached, or fails.
        BudgetExhausted: when a limit forbids it.
    """
    prepare = None
    if normalise is not None:
        mean, std = checked_normalisation(normalise)

        def prepare(inputs: Tensor) -> Tensor:
            return normalised(inputs, mean, std)

    given = None if order is None else tuple(order)
    reading = Classes(classes=classes, order=given, names=asking.names or {})
    service = connect(address, asking.client, shape=shape, reading=reading, prepare=prepare, medium=medium)
    if asking.ordinary is None:
        if asking.inferred:
            raise BadConfig("--labels auto goes by ordinary inputs, and there are none: name them (--ordinary)")
        asking.tell("nothing confirms what the service's classes mean: name ordinary inputs (--ordinary) that show it")
        return service
    some = few_of_each(asking.ordinary, classes)
    rows = service.rows(some.inputs)
    found = match(
        rows,
        some.labels.tolist(),
        asking.classes,
        given=asking.names if given is None else given,
        inferred=asking.inferred,
    )
    alone = "; it gives labels alone, without scores" if all(isinstance(row, int | str) for row in rows) else ""
    asking.tell(found.words(asking.classes) + alone)
    service.reading = found.reading(classes)
    return service


def few_of_each(split: Split, classes: int) -> Split:
    """The first inputs of each class: enough to tell classes by, and the same each time, so that a transcript holds them."""
    most = max(1, min(_A_CLASS, _IN_ALL // classes))
    rows = [torch.nonzero(split.labels == label).flatten()[:most] for label in range(classes)]
    return split.subset(torch.cat(rows))


def ordinary_task(key: ModelFolder, name: str | None, root: Path | None) -> Task | None:
    """The task of which a verifier has ordinary inputs: by name, or the one that the key's folder speaks of, if it runs no code.

    Raises:
        BadConfig: for an unknown name, or a task of other inputs or classes than the key's.
    """
    if name is None:
        origin = key.origin
        if origin is None or names_files(origin.data):
            return None
        try:
            task = load_named_task(origin.data, split_seed=origin.split_seed, root=root, protocol=origin.protocol)
        except (DataNotFound, BadData):
            return None
    else:
        task = load_named_task(name, split_seed=0, root=root)
    if (task.num_classes, task.input_shape) != (key.key.classes, key.key.input_shape):
        raise BadConfig(
            f"{task.name} has {task.num_classes} classes and inputs of shape {task.input_shape}, and the key "
            f"{key.key.classes} and {key.key.input_shape}: name other data (--ordinary)"
        )
    return task


def cover_of(kind: str, task: Task | None, *, ordinary: float, decoys: float) -> Cover | None:
    """Inputs among which a key's questions are hidden.

    Args:
        kind: of the key's triggers.
        task: whose test images are ordinary, and hosts of decoys.
        ordinary: how many of them for each question.
        decoys: how many like the key's triggers, with a secret that is drawn here and now, for each question.

    Raises:
        BadConfig: when there is no task, or anybody cannot make decoys of this kind.
    """
    if ordinary + decoys == 0:
        return None
    if task is None:
        raise BadConfig("--mix and --decoys take ordinary inputs, and there are none: name them (--ordinary)")
    own = task.test.inputs
    parts = []
    if ordinary:
        count = max(1, round(_POOL * ordinary / (ordinary + decoys)))
        parts.append(own[torch.randint(len(own), (count,), generator=_chance())])
    if decoys:
        if kind not in _DECOYS:
            raise BadConfig(
                f"nobody without the owner's means can make inputs like a key of {kind}: leave --decoys out"
            )
        count = max(1, round(_POOL * decoys / (ordinary + decoys)))
        seed = secrets.randbits(62)
        secret = _DECOYS[kind].settle(task, nn.Identity(), seed=seed)
        parts.append(secret.draw(task.test, count, seed=seed).inputs)
    return Cover(inputs=join(parts), share=ordinary + decoys)


def _chance() -> torch.Generator:
    """What no suspect can foresee."""
    return torch.Generator().manual_seed(secrets.randbits(62))


@dataclass(frozen=True, kw_only=True)
class ServedVictim:
    """A victim that is a service: of what a thief needs of a victim's folder that which he brings himself.

    Attributes:
        address: of it.
        architecture: of the thief's model.
        asking: how it is asked.
    """

    address: str
    architecture: Architecture
    asking: Asking

    @property
    def recipe(self) -> Recipe:
        """By what recipe the thief learns with ``--quick``."""
        return QUICK.recipe

    def data(
        self,
        name: str | None = None,
        *,
        split_seed: int | None = None,
        root: Path | None = None,
        pool: str | None = None,
    ) -> Data:
        """The thief's own data.

        Raises:
            BadConfig: when he names none.
        """
        if name is None:
            raise BadConfig("a service does not say of what data it is: name the thief's (--data)")
        task = load_named_task(name, split_seed=split_seed or 0, root=root)
        origin = Origin(data=name, split_seed=split_seed or 0, protocol=task.protocol)
        return Data(task=task, origin=origin, pools={} if pool is None else {pool: load_pool(pool, task, root=root)})
