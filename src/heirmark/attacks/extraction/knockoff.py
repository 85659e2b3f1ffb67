"""Knockoff Nets: train a copy on a black box's answers (Orekondy, Schiele, Fritz 2019, arXiv 1812.02766)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from heirmark.attacks.extraction.learning import OfPool, targets_of
from heirmark.models import Net
from heirmark.querying.blackbox import AnswerKind, BlackBox
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.task import Split
from heirmark.training.fitting import Recipe

KNOCKOFF_RECIPE = Recipe(
    epochs=100, batch_size=64, learning_rate=0.01, momentum=0.5, schedule="step", step_epochs=60, step_factor=0.1
)
"""Training of the copy as in the authors' public code: SGD 0.01, momentum 0.5, a tenth after 60 of 100 epochs."""


@dataclass(frozen=True, kw_only=True)
class Knockoff(OfPool):
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

    recipe: Recipe = field(default=KNOCKOFF_RECIPE)

    def steal(self, box: BlackBox, data: Split, *, seed: int, runtime: Runtime) -> Net:
        """Ask, then train; see :class:`heirmark.attacks.base.Extraction`."""
        inputs = data.subset(self.draw(data, seed=seed)).inputs
        targets = targets_of(box.query(inputs))
        net = self.fresh_copy(box, data, seed=derive_seed(seed, "copy"))
        return self.train(net, inputs, targets, seed=seed, runtime=runtime)
