"""What kinds of trigger have in common that put a mark on images of one class."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from heirmark.configuration import checked
from heirmark.errors import BadData
from heirmark.runtime import generator_of
from heirmark.tasks.task import Split, Task
from heirmark.triggers.base import Secret, Trigger, TriggerSet, check_apart, check_label, pick


@dataclass(frozen=True, kw_only=True)
@checked
class Marking(Trigger):
    """A mark on images of one class, labelled with another.

    Attributes:
        source: class of the hosts; None draws one.
        target: the label; None draws one that is not the source.
    """

    source: int | None = None
    target: int | None = None

    def __post_init__(self) -> None:
        check_apart(self.target, self.source)


@dataclass(frozen=True, kw_only=True, eq=False)
class MarkedSecret(Secret):
    """A settled mark.

    Attributes:
        source: class of the hosts; None for every class but the target.
        target: the label.
    """

    source: int | None
    target: int

    @abstractmethod
    def mark(self, images: Tensor) -> Tensor:
        """A copy of ``[M, ...]`` images with the mark on them, of their dtype."""

    def draw(self, hosts: Split, count: int, *, seed: int, held_out: bool = True) -> TriggerSet:
        """Marked hosts, each once; the control is the host itself.

        Raises:
            BadData: when the split has no such host.
        """
        generator = generator_of(seed)
        if self.source is not None:
            images = pick(hosts, self.source, count, generator)
            labels = torch.full((len(images),), self.source)
        else:
            others = torch.nonzero(hosts.labels != self.target).flatten()
            if len(others) == 0:
                raise BadData(
                    f"every image is of the target class {self.target}: choose another target or a larger split"
                )
            chosen = others[torch.randperm(len(others), generator=generator)[:count]]
            images, labels = hosts.inputs[chosen], hosts.labels[chosen]
        return TriggerSet.on_hosts(self.mark(images), images, labels, self.target)


def choose_pair(source: int | None, target: int | None, task: Task, seed: int) -> tuple[int, int]:
    """Source class and target; what is left open is drawn.

    Args:
        source: class of the hosts, or None.
        target: the label, or None.
        task: whose classes they are.
        seed: of the draw.

    Raises:
        BadConfig: when a class is none of the task.
    """
    order = torch.randperm(len(task.classes), generator=generator_of(seed)).tolist()
    if source is None:
        source = next(label for label in order if label != target)
    if target is None:
        target = next(label for label in order if label != source)
    return check_label(source, task, "source class"), check_label(target, task, "target")
