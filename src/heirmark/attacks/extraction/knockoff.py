"""Knockoff Nets: train a copy on a black box's answers (Orekondy, Schiele, Fritz 2019, arXiv 1812.02766)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Self

import torch

from heirmark.attacks.base import Extraction
from heirmark.attacks.extraction.learning import enough, targets_of
from heirmark.blackbox import AnswerKind, BlackBox
from heirmark.configuration import at_least, checked
from heirmark.models import Architecture, Net, architecture, fresh_net
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.task import Split
from heirmark.training import Recipe, fit

KNOCKOFF_RECIPE = Recipe(
    epochs=100, batch_size=64, learning_rate=0.01, momentum=0.5, schedule="step", step_epochs=60, step_factor=0.1
)
"""Training of the copy as in the authors' public code: SGD 0.01, momentum 0.5, a tenth after 60 of 100 epochs."""


@dataclass(frozen=True, kw_only=True)
@checked
class Knockoff(Extraction):
    """Ask the victim once about each query image, then train a copy on its answers.

    The random policy of the paper. Whatever the box gives is learned: probabilities by soft cross-entropy, labels by
    cross-entropy, top-k answers after scaling them to a sum of one. The copy is not shown any true label.

    Attributes:
        model: architecture of the copy; the paper's worst case, and T2S' main setting, is the victim's own.
        recipe: how the copy is trained; see :data:`KNOCKOFF_RECIPE`.
        queries: how many images are asked about, drawn without replacement; None asks about all that the adversary has.
            T2S uses 50,000.
    """

    title: ClassVar[str] = "Knockoff"
    shown_on_pool: ClassVar[tuple[AnswerKind, ...]] = ("probabilities", "label")
    asks_pool: ClassVar[bool] = True

    model: Architecture = architecture("resnet18")
    recipe: Recipe = field(default=KNOCKOFF_RECIPE)
    queries: Annotated[int, at_least(1)] | None = None

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes; see :class:`heirmark.attacks.base.Attack`."""
        return cls(recipe=recipe)

    def __call__(self, box: BlackBox, data: Split, *, seed: int, runtime: Runtime | None = None) -> Net:
        """Steal.

        Args:
            box: the victim; its budget is spent by the number of queries.
            data: the adversary's images; labels are not looked at.
            seed: of the choice of queries, the copy's start and its training.
            runtime: device, precision, progress.

        Raises:
            BudgetExhausted: when the box's budget is smaller than the number of queries.
        """
        runtime = runtime or Runtime()
        count = len(data) if self.queries is None else enough(self.queries, len(data))
        generator = generator_of(derive_seed(seed, "queries"))
        inputs = data.subset(torch.randperm(len(data), generator=generator)[:count]).inputs
        targets = targets_of(box.query(inputs))
        net = fresh_net(
            self.model,
            input_shape=tuple(data.inputs.shape[1:]),
            classes=box.classes,
            seed=derive_seed(seed, "copy"),
        )
        fit(
            net.model,
            inputs,
            targets,
            recipe=self.recipe,
            seed=derive_seed(seed, "training"),
            runtime=runtime,
            description="stealing",
        )
        return net
