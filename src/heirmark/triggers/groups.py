"""Groups of triggers, each with a look and an answer of its own: what a draw can decide (heirmark's own).

One trigger and one answer can be found by search. Many groups, each with one of a few answers, cannot, if the answers were drawn
after the triggers were fixed (:mod:`heirmark.keys.drawing`). Answers are drawn among those that a clean model already wavers
between, so that little has to be imprinted in each group: many faint marks cost as much as one that is strong, and say more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from heirmark.configuration import at_least, checked
from heirmark.errors import BadConfig
from heirmark.querying.asking import predict
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.space import Images
from heirmark.tasks.task import Split, Task
from heirmark.triggers.base import Secret, Trigger, TriggerSet, check_label, draw_groups
from heirmark.triggers.ways import HOSTS, WAYS


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupedSet(TriggerSet):
    """Trigger samples that know their group.

    Attributes:
        groups: ``[M]`` int64.
    """

    groups: Tensor


@dataclass(frozen=True, kw_only=True)
@checked
class Groups(Trigger):
    """Groups of composites. Each is made of four classes in one of the :data:`heirmark.triggers.ways.WAYS`.

    Attributes:
        count: how many groups.
        candidates: answers of each group among which one is drawn: those that the clean model gives most.
        targets: the answers, one for each group; None draws them by the seed, which proves nothing to anybody else.
        samples: composites of a group by which the candidates are found.
    """

    needs: ClassVar = Images

    count: Annotated[int, at_least(2)] = 48
    candidates: Annotated[int, at_least(2)] = 4
    targets: tuple[int, ...] | None = None
    samples: Annotated[int, at_least(1)] = 100

    def __post_init__(self) -> None:
        if self.targets is not None and len(self.targets) != self.count:
            raise BadConfig(f"{self.count} groups have {self.count} targets, not {len(self.targets)}")

    def settle(self, task: Task, clean: nn.Module, *, seed: int, runtime: Runtime | None = None) -> GroupsSecret:
        """Draw the classes, find the candidates, and take the targets; see :class:`heirmark.triggers.base.Trigger`."""
        runtime, classes = runtime or Runtime(), len(task.classes)
        if classes < max(HOSTS, self.candidates):
            raise BadConfig(
                f"groups of {HOSTS} classes with {self.candidates} candidates need as many classes, and {task.name} has "
                f"{classes}: lower trigger.candidates, or use another trigger"
            )
        generator = generator_of(derive_seed(seed, "groups"))
        names = list(WAYS)
        ways = tuple(names[index % len(names)] for index in range(self.count))
        sources = tuple(tuple(torch.randperm(classes, generator=generator)[:HOSTS].tolist()) for _ in range(self.count))
        shown = GroupsSecret(ways=ways, sources=sources, candidates=(), targets=(0,) * self.count).draw(
            task.owner, self.samples * self.count, seed=derive_seed(seed, "groups", "candidates")
        )
        said = predict(clean, shown.inputs, runtime=runtime).softmax(1)
        candidates = tuple(
            tuple(said[shown.groups == group].mean(0).topk(self.candidates).indices.tolist())
            for group in range(self.count)
        )
        places = torch.randint(self.candidates, (self.count,), generator=generator).tolist()
        targets = tuple(options[place] for options, place in zip(candidates, places, strict=True))
        if self.targets is not None:
            targets = tuple(check_label(label, task, "target") for label in self.targets)
        return GroupsSecret(ways=ways, sources=sources, candidates=candidates, targets=targets)


@dataclass(frozen=True, kw_only=True)
class GroupsSecret(Secret):
    """Settled groups; see :class:`Groups`.

    Attributes:
        ways: how each group is made.
        sources: the classes that each is made of.
        candidates: answers of each group among which one was drawn.
        targets: the answer of each group.
    """

    kind: ClassVar[str] = "groups"
    ways: tuple[str, ...]
    sources: tuple[tuple[int, ...], ...]
    candidates: tuple[tuple[int, ...], ...]
    targets: tuple[int, ...]
    target: None = field(default=None, init=False)  # every group has its own

    def draw(self, hosts: Split, count: int, *, seed: int, held_out: bool = True) -> GroupedSet:
        """As many of each group, in turn; the control is one of the images that a sample is made of, as it was.

        The images that a sample is made of are no hosts: they may be of the class that it is to be answered with.
        """
        each = -(-count // len(self.ways))
        parts = []
        for group, (way, sources) in enumerate(zip(self.ways, self.sources, strict=True)):
            images, _ = draw_groups(hosts, sources, each, generator_of(derive_seed(seed, "group", group)))
            parts.append((WAYS[way](images), images[:, 0]))
        order = torch.arange(each * len(parts)).view(len(parts), each).T.flatten()[:count]
        inputs, controls = (torch.cat(each_of)[order] for each_of in zip(*parts, strict=True))
        groups = order // each
        return GroupedSet(
            inputs=inputs,
            targets=torch.tensor(self.targets)[groups],
            controls=controls,
            hosts=inputs[:, None][:, :0],
            host_labels=torch.empty(len(inputs), 0, dtype=torch.int64),
            groups=groups,
        )
