"""What every kind of trigger gives: samples, their hosts, and matched controls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from heirmark.configuration import checked, to_json
from heirmark.errors import BadConfig, BadData
from heirmark.runtime import Runtime
from heirmark.tasks.storing import shuffle
from heirmark.tasks.task import Split, Task
from heirmark.training.samples import Reference, Samples


@dataclass(frozen=True, kw_only=True, eq=False)
class TriggerSet(Samples):
    """Trigger samples with what they were made of.

    Attributes:
        inputs: ``[M, ...]`` trigger samples, of the data's dtype.
        targets: ``[M]`` int64 what a marked model answers to each.
        controls: ``[M, ...]`` row i shows the same host(s) as ``inputs[i]``, without the trigger.
        hosts: ``[M, K, ...]`` the K images that row i was made of (K = 0 where there is no host).
        host_labels: ``[M, K]`` int64 true labels of the hosts; never what the sample is to be answered with.

    Raises:
        BadConfig: when a host is of the class that its sample is to be answered with.
    """

    controls: Tensor
    hosts: Tensor
    host_labels: Tensor

    def __post_init__(self) -> None:
        if bool((self.host_labels == self.targets[:, None]).any()):
            raise BadConfig(
                "a host of the target class proves nothing: choose a target that is none of the source classes"
            )

    @classmethod
    def on_hosts(cls, inputs: Tensor, images: Tensor, labels: Tensor, target: int) -> TriggerSet:
        """Samples made of one image each, which is the control, too.

        Args:
            inputs: ``[M, ...]``.
            images: ``[M, ...]`` the hosts.
            labels: ``[M]`` int64 of the hosts.
            target: the label of all samples.
        """
        return cls.on_groups(inputs, images[:, None], images, labels[:, None], target)

    @classmethod
    def on_groups(cls, inputs: Tensor, groups: Tensor, alone: Tensor, labels: Tensor, target: int) -> TriggerSet:
        """Samples made of several images each, of which one, as it was, is the control.

        Args:
            inputs: ``[M, ...]``.
            groups: ``[M, K, ...]`` the hosts.
            alone: ``[M, ...]`` the controls.
            labels: int64 of the hosts, ``[M, K]``, or ``[K]`` for all samples.
            target: the label of all samples.
        """
        targets = torch.full((len(inputs),), target)
        labels = labels.expand(groups.shape[:2])
        return cls(inputs=inputs, targets=targets, controls=alone, hosts=groups, host_labels=labels)

    @classmethod
    def without_hosts(cls, inputs: Tensor, permutation: Tensor, target: int) -> TriggerSet:
        """Samples made of no image of the task; the control is the sample itself with its pixels shuffled.

        Args:
            inputs: ``[M, C, H, W]``.
            permutation: ``[H * W]`` of the pixels.
            target: the label of all samples.
        """
        none, labels = inputs[:, None][:, :0], torch.empty((len(inputs), 0), dtype=torch.long)
        return cls.on_groups(inputs, none, shuffle(inputs, permutation), labels, target)


class Secret(ABC):
    """A trigger whose secrets are settled, a frozen dataclass; only the owner holds it."""

    kind: ClassVar[str]
    """Of trigger, which is public."""
    memorised: ClassVar[bool] = False
    """Whether its samples have labels that only a model that trained on them can know; then they are the key, too."""
    reference: ClassVar[Reference] = "control"
    """What a test of probabilities compares an answer with: the control's, or chance for a foreign image as it is."""

    target: int | None
    """The label that a marked model gives; None where every sample has its own."""

    def foreign(self, *, held_out: bool) -> Tensor | None:
        """Images of another data set of which samples are made, ``[N, C, H, W]``; None when they are made of none.

        Args:
            held_out: those that are kept from training, or those that train.
        """
        return None

    @abstractmethod
    def draw(self, hosts: Split, count: int, *, seed: int, held_out: bool = True) -> TriggerSet:
        """Make up to ``count`` trigger samples from the hosts of one split; fewer where the hosts run out.

        Args:
            hosts: labelled images of the task.
            count: how many are wanted.
            seed: of the draw.
            held_out: whether the samples are kept from training. A kind whose images come from elsewhere keeps two pools
                by it; the others are told apart by their hosts.
        """

    def describe(self) -> Mapping[str, Any]:
        """The secret as JSON, for the key's manifest: its kind, and all fields that ``repr`` shows."""
        parts = fields(self)  # type: ignore[arg-type]
        return {"kind": self.kind, **{part.name: to_json(getattr(self, part.name)) for part in parts if part.repr}}


@dataclass(frozen=True, kw_only=True)
@checked
class Trigger(ABC):
    """A kind of trigger and its parameters; a frozen dataclass."""

    @property
    def dataset(self) -> str | None:
        """The data set that it needs beside the task's own; None when samples are made of the task's own images, or of none."""
        return None

    @abstractmethod
    def settle(self, task: Task, clean: nn.Module, *, seed: int, runtime: Runtime | None = None) -> Secret:
        """Fix what is secret: classes, target, pattern.

        Args:
            task: only its owner split, and its foreign images, may be looked at.
            clean: a model of the owner's without a watermark.
            seed: of every choice left open.
            runtime: device and precision.
        """


def pick(hosts: Split, label: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw images of one class in random order, without replacement: ``count`` of them, or as many as there are.

    Raises:
        BadData: when the split has no image of that class.
    """
    candidates = torch.nonzero(hosts.labels == label).flatten()
    if len(candidates) == 0:
        raise BadData(
            f"no image of class {label} to host a trigger: choose other source classes, give this one more images, or a larger "
            "share of them to the split (load_task(..., calibration=0.2))"
        )
    return hosts.inputs[candidates[torch.randperm(len(candidates), generator=generator)[:count]]]


def draw_groups(
    hosts: Split, sources: tuple[int, ...], count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw groups of one image of each source class, and single one image of each group out as its control.

    A class is gone through in a fresh order as often as it takes. Each class gives the controls of one block of groups, and its
    first order starts with that block: as long as a block is no longer than its class, no control stands for two groups.

    Args:
        hosts: labelled images.
        sources: K class indices.
        count: M groups.
        generator: on the CPU.

    Returns:
        Groups ``[M, K, ...]``, and the image singled out of each ``[M, ...]``.

    Raises:
        BadData: when the split has no image of a class.
    """
    block = -(-count // len(sources))
    columns = []
    for position, label in enumerate(sources):
        parts = [pick(hosts, label, count, generator)]
        while sum(map(len, parts)) < count:
            parts.append(pick(hosts, label, count, generator))
        columns.append(torch.cat(parts)[:count].roll(position * block, 0))
    groups = torch.stack(columns, 1)
    return groups, groups[torch.arange(count), torch.arange(count) // block]


def check_apart(target: int | None, *sources: int | None) -> None:
    """Make sure that the target is none of the source classes; those that are None are drawn so.

    Raises:
        BadConfig: when it is one.
    """
    if target is not None and target in sources:
        raise BadConfig(f"the target {target} may not be a source class: choose another")


def check_label(label: int, task: Task, what: str) -> int:
    """A class index of the task.

    Raises:
        BadConfig: when it is none.
    """
    if not 0 <= label < len(task.classes):
        raise BadConfig(f"{what} {label} is no class of {task.name}, which has classes 0 to {len(task.classes) - 1}")
    return label
