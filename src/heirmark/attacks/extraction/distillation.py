"""Distillation: learn a victim's softened answers (Hinton, Vinyals, Dean 2015, arXiv 1503.02531)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Self

import torch.nn.functional as F
from torch import Tensor

from heirmark.attacks.extraction.learning import OfPool, learn, targets_of
from heirmark.configuration import at_least, below, within
from heirmark.errors import BadConfig
from heirmark.models import Net
from heirmark.querying.blackbox import AnswerKind, BlackBox
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.task import Split
from heirmark.training.fitting import Recipe

DISTILLATION_RECIPE = Recipe(
    epochs=100, batch_size=128, optimizer="adam", learning_rate=1e-3, weight_decay=0.0, schedule="constant"
)
"""Training of the copy in MEA-Defender's run (arXiv 2401.15239): Adam 1e-3, 100 epochs; batch and constant rate are inferred."""


def soften(probabilities: Tensor, temperature: float) -> Tensor:
    """Probabilities as the same model would give them at a temperature: ``softmax(log p / T)``.

    log p is the logits less a constant per row, which softmax does not see, so this is ``softmax(logits / T)`` exactly. A
    class of probability zero keeps it.

    Args:
        probabilities: ``[N, C]`` non-negative, each row with something positive in it.
        temperature: positive.

    Returns:
        ``[N, C]`` rows that sum to one.

    Examples:
        >>> soften(Tensor([[0.9, 0.1]]), 2.0)
        tensor([[0.7500, 0.2500]])
    """
    return (probabilities.log() / temperature).softmax(1)


@dataclass(frozen=True, kw_only=True)
class Distillation(OfPool):
    """Train a copy on the victim's answers at a raised temperature, and on true labels as well if the thief has such.

    The loss is ``(1 - label_weight) * T^2 * CE(copy at T, victim at T) + label_weight * CE(copy, true label)``; T^2 keeps the
    share of both when T changes, as the paper advises. The box gives probabilities, not logits, but these determine the
    logits up to a constant. Where it gives labels alone there is nothing to soften: the copy then learns these by
    cross-entropy at T = 1, as :class:`~heirmark.attacks.extraction.knockoff.Knockoff` does. What top-k answers hide counts
    as zero, and so does what is rounded to zero.

    Attributes:
        model: architecture of the copy; a smaller one is the paper's purpose.
        recipe: how the copy is trained; see :data:`DISTILLATION_RECIPE`.
        temperature: T; 7 in MEA-Defender's run.
        label_weight: share of the loss that true labels have, in [0, 1). At 0, a thief's case, labels are not looked at.
    """

    title: ClassVar[str] = "distillation"
    shown: ClassVar[tuple[AnswerKind, ...]] = ("probabilities",)

    recipe: Recipe = field(default=DISTILLATION_RECIPE)
    temperature: Annotated[float, within(0.05, 1000)] = 7.0
    label_weight: Annotated[float, at_least(0), below(1)] = 0.0

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes; see :class:`heirmark.attacks.base.Attack`."""
        return cls(recipe=recipe, temperature=4.0)

    def loss(self, logits: Tensor, answers: Tensor, labels: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            logits: of the copy, ``[B, C]``.
            answers: ``[B, C]`` the victim's probabilities at the temperature, or ``[B]`` its labels.
            labels: ``[B]`` true labels, where they have a share.

        Returns:
            A scalar.
        """
        if answers.ndim == 1:
            value = F.cross_entropy(logits, answers)
        else:
            value = self.temperature**2 * F.cross_entropy(logits / self.temperature, answers)
        if labels is None:
            return value
        return (1 - self.label_weight) * value + self.label_weight * F.cross_entropy(logits, labels)

    def steal(self, box: BlackBox, data: Split, *, seed: int, runtime: Runtime) -> Net:
        """Ask, then train; see :class:`heirmark.attacks.base.Extraction`.

        Raises:
            BadConfig: when true labels have a share, but are not of the victim's classes.
        """
        if self.label_weight > 0 and int(data.labels.max()) >= box.classes:
            raise BadConfig(
                f"the images have labels up to {int(data.labels.max())}, the victim has {box.classes} classes: "
                "set label_weight=0, these are labels of another task"
            )
        chosen = self.draw(data, seed=seed)
        inputs = data.subset(chosen).inputs
        answers = targets_of(box.query(inputs))
        if answers.ndim == 2:
            answers = soften(answers, self.temperature)
        net = self.fresh_copy(box, data, seed=derive_seed(seed, "copy"))
        targets = (answers, data.labels[chosen]) if self.label_weight > 0 else (answers,)
        seed = derive_seed(seed, "training")
        learn(net.model, inputs, targets, self.loss, recipe=self.recipe, seed=seed, runtime=runtime)
        return net
