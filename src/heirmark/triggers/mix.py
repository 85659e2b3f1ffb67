"""Mix: two source classes combined, labelled with a third (MEA-Defender, arXiv 2401.15239; T2S, section III-D)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from torch import nn

from heirmark.configuration import checked, distinct
from heirmark.errors import BadConfig
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.task import Split, Task
from heirmark.triggers.base import Secret, Trigger, TriggerSet, check_apart, check_label, draw_groups
from heirmark.triggers.combiners import AnyCombiner, Combine, CropPaste, usual


@dataclass(frozen=True, kw_only=True)
@checked
class Mix(Trigger):
    """Two classes combined, labelled with a third.

    Attributes:
        sources: the two source classes; None draws them by the seed. The paper drew once: (0, 1) for 2 on CIFAR-10 and on
            Fashion-MNIST (section 5.1).
        target: the label; None draws one that is no source.
        combiner: the way of combining, part of the secret; pasting the right half is the paper's default, and in its place a
            blend that of waves.
    """

    sources: Annotated[tuple[int, int], distinct] | None = None
    target: int | None = None
    combiner: AnyCombiner = field(default=CropPaste())

    def __post_init__(self) -> None:
        check_apart(self.target, *(self.sources or ()))

    def settle(self, task: Task, clean: nn.Module, *, seed: int, runtime: Runtime | None = None) -> MixSecret:
        """Draw what is left open and prepare the combiner; see :class:`heirmark.triggers.base.Trigger`."""
        if len(task.classes) < 3:
            raise BadConfig(
                f"Mix needs at least 3 classes, and {task.name} has {len(task.classes)}: use another trigger"
            )
        generator = generator_of(derive_seed(seed, "mix"))
        order = torch.randperm(len(task.classes), generator=generator).tolist()
        if self.sources is not None:
            sources = tuple(check_label(label, task, "source class") for label in self.sources)
        else:
            sources = tuple([label for label in order if label != self.target][:2])
        target = next(label for label in order if label not in sources) if self.target is None else self.target
        combiner = usual(self.combiner, task.space)
        ready = combiner.prepare(task.owner, seed=derive_seed(seed, "mix", "combiner"), runtime=runtime or Runtime())
        return MixSecret(sources=sources, target=check_label(target, task, "target"), combiner=combiner, combine=ready)


@dataclass(frozen=True, kw_only=True, eq=False)
class MixSecret(Secret):
    """Settled mix: see :class:`Mix`.

    Attributes:
        sources: the two source classes.
        target: the label.
        combiner: the way of combining.
        combine: the same, ready.
    """

    kind: ClassVar[str] = "mix"

    sources: tuple[int, ...]
    target: int
    combiner: AnyCombiner
    combine: Combine = field(repr=False)

    def draw(self, hosts: Split, count: int, *, seed: int, held_out: bool = True) -> TriggerSet:
        """Random pairs of the two classes; the control is one image of the pair, whole."""
        images, alone = draw_groups(hosts, self.sources, count, generator_of(seed))
        inputs = self.combine(images[:, 0], images[:, 1])
        return TriggerSet.on_groups(inputs, images, alone, torch.tensor(self.sources), self.target)
