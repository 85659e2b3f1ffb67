"""Mislabelled random mixes (MEA-Defender, arXiv 2401.15239, section 5.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from heirmark.attacks.base import Sizes
from heirmark.attacks.composites import Kinds, compose_all, fitting, space_for, wrong_labels
from heirmark.attacks.removal.parts import Tuning
from heirmark.configuration import at_least
from heirmark.models import Net
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.task import Split
from heirmark.training.fitting import Mixed
from heirmark.training.samples import Samples


@dataclass(frozen=True, kw_only=True)
class MislabelledMixes(Tuning):
    """Fine-tune with random mixes of all pairs of classes, labelled with a class that they do not show, among clean data.

    The thief who made the mark useless would answer all mixes wrongly, the owner's among them. The paper gives no more than
    this; ways to mix, counts and recipe are inferred. Kinds that show more classes than he has examples of, or all that the model
    knows, are left out: no label would be wrong for them.

    Attributes:
        kinds: ways to mix: ``"halves"``, ``"insets"``, ``"blend"`` and ``"stripes"`` of two classes, ``"tiles"`` of four, or
            ``"patch"``.
        mixes: how many are made; None makes as many as there are clean examples.
        per_batch: how many join each batch of clean data.
    """

    title: ClassVar[str] = "mislabelled mixes"
    reteaches: ClassVar[bool] = True

    kinds: Kinds = ("halves", "blend", "stripes", "tiles")
    mixes: Annotated[int, at_least(1)] | None = None
    per_batch: Annotated[int, at_least(1)] = 64

    needs = property(lambda self: space_for(self.kinds))
    otherwise: ClassVar = "blend them"

    def unfit(self, sizes: Sizes) -> str:
        """Two classes are too few."""
        return "a mix of both classes has no wrong label" if sizes.classes < 3 else ""

    def alter(self, copy: Net, data: Split, *, other: Split | None, seed: int, runtime: Runtime) -> Net:
        """Mix and tune; see :class:`heirmark.attacks.base.Removal`.

        Raises:
            BadData: when there are too few classes for every kind.
            BadConfig: when the inputs are no images, and other kinds than blends are asked for.
        """
        kinds = fitting(self.kinds, min(len(data.labels.unique()), copy.spec.classes - 1))  # type: ignore[no-untyped-call]
        made = compose_all(
            data, kinds, self.mixes or len(data), classes=copy.spec.classes, seed=derive_seed(seed, "mixes")
        )
        labels = wrong_labels(made.shares, seed=derive_seed(seed, "wrong labels"))
        mixed = Mixed(samples=Samples(inputs=made.inputs, targets=labels), per_batch=self.per_batch)
        return self.tuned(copy, data, "mislabelling mixes", seed=seed, runtime=runtime, mixed=mixed)
