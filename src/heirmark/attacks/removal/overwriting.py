"""Overwriting, or piracy: the thief embeds a watermark of his own (MEA-Defender, arXiv 2401.15239, section 6.3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Self

import torch

from heirmark.attacks.base import Sizes
from heirmark.attacks.composites import LAYOUTS, SOURCES, Kind, compose, fitting, space_for
from heirmark.attacks.removal.parts import Tuning
from heirmark.configuration import at_least
from heirmark.models import Net
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.task import Split
from heirmark.training.fitting import Mixed
from heirmark.training.samples import Samples


@dataclass(frozen=True, kw_only=True)
class Overwriting(Tuning):
    """Fine-tune with the thief's own trigger samples among clean data, in the hope that his mark replaces the owner's.

    His source classes, the way of combining them and the target are drawn from the seed. Counts and recipe are inferred.

    Attributes:
        kind: of his trigger: ``"halves"``, ``"insets"``, ``"blend"``, ``"stripes"`` or ``"tiles"`` of classes, or a ``"patch"``
            on one class, which is all that two classes leave him.
        triggers: trigger samples that he makes.
        per_batch: how many join each batch of clean data.
    """

    title: ClassVar[str] = "overwriting"
    reteaches: ClassVar[bool] = True

    kind: Kind = "halves"
    triggers: Annotated[int, at_least(1)] = 500
    per_batch: Annotated[int, at_least(1)] = 32

    needs = property(lambda self: space_for((self.kind,)))
    otherwise: ClassVar = "blend them"

    def fitted(self, sizes: Sizes) -> Self:
        """Of two classes a pirate makes a mark on one."""
        return replace(self, kind="patch") if sizes.classes < 3 else self

    def own_mark(self, data: Split, *, classes: int, seed: int, count: int, fresh: int = 0) -> Mixed:
        """The thief's trigger samples with their target.

        Args:
            data: to make them of.
            classes: how many the task has.
            seed: that the attack was called with: of source classes, combination and target.
            count: how many samples.
            fresh: 0 gives those that the attack trains with, another number others of the same secret.

        Raises:
            BadData: when the data show too few classes.
        """
        generator = generator_of(derive_seed(seed, "pirate"))
        present = torch.unique(data.labels.cpu())
        order = present[torch.randperm(len(present), generator=generator)]
        fitting((self.kind,), len(order), spare=1)  # the target
        needed, layouts = SOURCES[self.kind], LAYOUTS[self.kind]
        layout = layouts[int(torch.randint(len(layouts), (), generator=generator))]
        made = compose(
            data,
            self.kind,
            count,
            classes=classes,
            seed=derive_seed(seed, "triggers", fresh),
            sources=order[:needed],
            layout=layout,
        )
        samples = Samples(inputs=made.inputs, targets=order[needed].expand(count))
        return Mixed(samples=samples, per_batch=self.per_batch)

    def alter(self, copy: Net, data: Split, *, other: Split | None, seed: int, runtime: Runtime) -> Net:
        """Embed the thief's mark; see :class:`heirmark.attacks.base.Removal`.

        Raises:
            BadData: when the data show too few classes for it.
            BadConfig: when the inputs are no images, and another kind than a blend is asked for.
        """
        mixed = self.own_mark(data, classes=copy.spec.classes, seed=seed, count=self.triggers)
        return self.tuned(copy, data, "overwriting", seed=seed, runtime=runtime, mixed=mixed)
