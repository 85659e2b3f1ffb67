"""A task: named, disjoint splits of labelled examples, checked when made.

The owner trains on ``owner``; a thief has only ``adversary``; ``calibration`` is for whoever fits a null distribution;
``test`` selects nothing and only measures. No example stands in two of them, which is asserted on the content of the
examples and not on their indices. In the papers' protocol alone the thief asks about the very examples that the owner trained on.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Literal, TypeAlias

from heirmark.errors import BadData
from heirmark.tasks.media import Medium
from heirmark.tasks.space import AnySpace
from heirmark.tasks.split import Split as Split
from heirmark.tasks.split import raw

ROLES = ("owner", "adversary", "calibration", "test")
Protocol: TypeAlias = Literal["disjoint", "paper"]
"""What a thief has: ``"disjoint"``, fresh examples of the owner's kind; ``"paper"``, as most papers measure, the owner's own."""


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
        BadData: if splits differ in shape or type, a label has no class, two splits share an example or a group, or one and
            ``foreign`` an example;
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
            if first.groups is None or second.groups is None:
                continue
            if shared := len(set(first.groups.tolist()) & set(second.groups.tolist())):
                raise BadData(
                    f"task {self.name!r}: {one} and {other} share {shared} groups, as speakers are: put all of a group into one "
                    "of the two, or let make_task do the splitting"
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
            total.update(raw(split.inputs))
            total.update(raw(split.labels))
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


def _kind(split: Split) -> str:
    shape = "x".join(str(size) for size in split.inputs.shape[1:])
    return f"{shape} {str(split.inputs.dtype).removeprefix('torch.')}"
