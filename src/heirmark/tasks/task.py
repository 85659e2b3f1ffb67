"""A task: named, disjoint splits of labelled examples, checked when made.

The owner trains on ``owner``; a thief has only ``adversary``; ``calibration`` is for whoever fits a null distribution;
``test`` selects nothing and only measures. No example stands in two of them, which is asserted on the content of the
examples and not on their indices. In the papers' protocol alone the thief asks about the very examples that the owner trained on.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import Dataset

from heirmark.errors import BadData
from heirmark.tasks.items import read_items
from heirmark.tasks.mapped import gathered, open_array
from heirmark.tasks.media import Medium
from heirmark.tasks.space import AnySpace, space_of
from heirmark.tasks.storing import decode, fault, row_digests

ROLES = ("owner", "adversary", "calibration", "test")
Protocol: TypeAlias = Literal["disjoint", "paper"]
"""What a thief has: ``"disjoint"``, fresh examples of the owner's kind; ``"paper"``, as most papers measure, the owner's own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Labelled examples, in memory or mapped from a file; treat the tensors as read-only.

    Attributes:
        inputs: ``[N, ...]`` of a type in the table of :mod:`heirmark.tasks.space`; other floating types become float32.
        labels: ``[N]`` int64, non-negative; other integer types become int64.
        source: the file that the inputs are mapped from; see :meth:`from_file`.

    Raises:
        BadData: for an empty split, a wrong type or shape, NaN or infinite inputs, numbers out of bounds, or an empty text.
    """

    inputs: Tensor
    labels: Tensor
    source: Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        inputs, labels = _checked_inputs(self.inputs), _checked_labels(self.labels)
        if len(inputs) != len(labels):
            raise BadData(f"{len(inputs)} inputs but {len(labels)} labels: give one label for each input")
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def space(self) -> AnySpace:
        """What the inputs are."""
        return space_of(self.inputs)

    def subset(self, index: Tensor) -> Split:
        """Choose examples.

        Args:
            index: ``[M]`` integer positions, in the order wanted, or a ``[N]`` boolean mask.

        Returns:
            The chosen examples, copied: into memory, or where they are many of a mapped file, to another one beside it, once.

        Raises:
            BadData: if nothing is chosen, or the file cannot be written.
        """
        index = index.nonzero().flatten() if index.dtype == torch.bool else index.long()
        if self.source is None:
            inputs, source = self.inputs[index], None
        else:
            inputs, source = gathered(self.inputs, index, self.source)
        chosen = Split(inputs=inputs, labels=self.labels[index], source=source)
        known: tuple[bytes, ...] | None = self.__dict__.get("row_digests")
        if known is not None:  # hashing is the dear part of making a task: hand on what is known
            chosen.__dict__["row_digests"] = tuple(known[i] for i in index.tolist())
        return chosen

    def floats(self, index: Tensor | None = None) -> Tensor:
        """Inputs as a model takes them.

        Args:
            index: ``[M]`` positions or ``[N]`` mask; all examples without it.

        Returns:
            ``[M, ...]`` float32 in [0, 1].
        """
        return decode(self.inputs if index is None else self.inputs[index])

    @cached_property
    def row_digests(self) -> tuple[bytes, ...]:
        """``N`` digests of the inputs' content, in order; labels do not enter."""
        return tuple(row_digests(self.inputs))

    def digest(self) -> str:
        """SHA-256 (hex) of type, shape, and all inputs with labels and order."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        header = [str(self.inputs.dtype), list(self.inputs.shape)]
        total = hashlib.sha256(json.dumps(header).encode() + b"\n")
        total.update(_raw(self.inputs))
        total.update(_raw(self.labels))
        return total.hexdigest()

    def digests(self) -> set[bytes]:
        """One hash per distinct input, by content: two splits are disjoint when these sets are."""
        return set(self.row_digests)

    @classmethod
    def from_file(cls, path: Path, labels: Tensor) -> Split:
        """Examples whose inputs lie in a file and are read when they are looked at, so that they may be larger than memory.

        Args:
            path: an ``.npy`` file of inputs ``[N, ...]`` as they are stored.
            labels: ``[N]`` integers.

        Raises:
            BadData: when the file cannot be mapped.
        """
        return cls(inputs=open_array(path), labels=labels, source=path)

    @classmethod
    def from_dataset(cls, dataset: Dataset[Any], *, limit: int | None = None) -> Split:
        """Read a map-style torch data set into memory.

        Args:
            dataset: items are pairs (x, y). x is a tensor (kept as it is: channels first), a PIL image, or an ndarray
                (``[H, W]`` or ``[H, W, C]`` with C of 1, 3 or 4 becomes ``[C, H, W]``; other shapes are kept). A PIL
                image of 16 bits becomes floats. y is an integer, or an integer tensor or array of one element.
            limit: read at most this many items, evenly spaced, so that a set sorted by class still gives every class.

        Returns:
            The examples in the data set's order.

        Raises:
            BadData: for an item that cannot be used; the message names it.
            BadConfig: if ``limit`` is not positive.
        """
        inputs, labels = read_items(dataset, limit=limit)
        return cls(inputs=inputs, labels=labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Four splits of one classification problem, pairwise disjoint by content; under the papers' protocol three.

    Attributes:
        name: for reports.
        classes: the class names; label ``i`` means ``classes[i]``.
        owner: what the owner trains on.
        adversary: what a thief can send as queries.
        calibration: what the triggers that verify are made of; nothing trains on it.
        test: what only measures.
        foreign: images of another data set in the shape they came in, for triggers that are made of such; not a split of
            this task, so neither :attr:`splits` nor :meth:`digest` cover it.
        protocol: ``"paper"`` says that the adversary's examples are the owner's; what verifies and measures is not.
        medium: how inputs are shown to people and put to services, where they are sound or text.

    Raises:
        BadData: if splits differ in shape or type, a label has no class, or two splits, or one and ``foreign``, share an example;
            or under the papers' protocol if the adversary has an example that the owner has not.
    """

    name: str
    classes: tuple[str, ...]
    owner: Split
    adversary: Split
    calibration: Split
    test: Split
    foreign: Split | None = None
    protocol: Protocol = "disjoint"
    medium: Medium | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise BadData(f"task {self.name!r} needs at least two classes with distinct names, not {self.classes!r}")
        for role, split in self.splits.items():
            if split.inputs.shape[1:] != self.owner.inputs.shape[1:] or split.inputs.dtype != self.owner.inputs.dtype:
                raise BadData(
                    f"task {self.name!r}: {role} inputs are {_kind(split)} but owner inputs are {_kind(self.owner)}: "
                    "bring all splits to one shape and type"
                )
            check_labels(self.name, role, split, self.num_classes)
        if self.foreign is not None and self.foreign.inputs.shape[1:] == self.owner.inputs.shape[1:]:
            known = self.foreign.digests()
            for role, split in self.splits.items():
                if shared := len(known & split.digests()):
                    raise BadData(
                        f"task {self.name!r}: {shared} foreign images stand in {role}: take them from another data set"
                    )
        apart = dict(self.splits)
        if self.protocol == "paper" and (own := len(apart.pop("adversary").digests() - self.owner.digests())):
            raise BadData(
                f"task {self.name!r}: {own} of the adversary's inputs are none of the owner's, and by the papers' protocol all "
                'are: give both the same split, or leave protocol="paper" out'
            )
        for (one, first), (other, second) in combinations(apart.items(), 2):
            if shared := len(first.digests() & second.digests()):
                raise BadData(
                    f"task {self.name!r}: {one} and {other} share {shared} inputs: remove them from one of the two, "
                    "or let make_task do the splitting"
                )

    @property
    def splits(self) -> dict[str, Split]:
        """The four splits by role."""
        return {role: getattr(self, role) for role in ROLES}

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @property
    def space(self) -> AnySpace:
        """What the inputs are."""
        return self.owner.space

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, ``(C, H, W)`` for images."""
        return self.space.shape

    def digest(self) -> str:
        """SHA-256 (hex) of classes, kind of inputs and all examples with labels and order; the name does not enter."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        shapes = {role: [str(split.inputs.dtype), list(split.inputs.shape)] for role, split in self.splits.items()}
        header = {"format": "heirmark-task-1", "classes": self.classes, "modality": self.space.kind, "splits": shapes}
        total = hashlib.sha256(json.dumps(header, sort_keys=True).encode() + b"\n")
        for split in self.splits.values():
            total.update(_raw(split.inputs))
            total.update(_raw(split.labels))
        return total.hexdigest()

    def describe(self) -> str:
        """One line for people: classes, shape and sizes of the splits."""
        sizes = ", ".join(f"{role} {len(split):,}" for role, split in self.splits.items())
        sizes += "; the adversary's are the owner's" if self.protocol == "paper" else ""
        return f"{self.name}: {self.num_classes} classes, {self.space.kind} {_kind(self.owner)}; {sizes}"


def check_labels(name: str, role: str, split: Split, classes: int) -> None:
    """Make sure that all labels of a split are of a task's classes.

    Raises:
        BadData: when one is not.
    """
    if (highest := int(split.labels.max())) >= classes:
        raise BadData(
            f"task {name!r}: {role} has label {highest} but there are {classes} classes: labels run from 0 to the "
            "number of classes minus one"
        )


def _checked_inputs(inputs: Tensor) -> Tensor:
    if not isinstance(inputs, Tensor) or inputs.ndim < 2 or not inputs.numel():
        found = list(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise BadData(f"inputs must be a tensor [N, ...] with N of at least 1, not {found}")
    inputs = inputs.detach()
    if wrong := fault(inputs):
        raise BadData(f"inputs {wrong}")
    return (inputs.float() if inputs.is_floating_point() else inputs).contiguous()


def _checked_labels(labels: Tensor) -> Tensor:
    if not isinstance(labels, Tensor) or labels.ndim != 1:
        found = list(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise BadData(f"labels must be a tensor [N] of class indices, not {found}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise BadData(f"labels are {labels.dtype}: convert them to int64 class indices")
    labels = labels.detach().long().contiguous()
    if len(labels) and int(labels.min()) < 0:
        raise BadData(f"labels go down to {int(labels.min())}: class indices start at 0")
    return labels


def _raw(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor, without a copy on the CPU."""
    return tensor.cpu().numpy().data.cast("B")


def _kind(split: Split) -> str:
    shape = "x".join(str(size) for size in split.inputs.shape[1:])
    return f"{shape} {str(split.inputs.dtype).removeprefix('torch.')}"
