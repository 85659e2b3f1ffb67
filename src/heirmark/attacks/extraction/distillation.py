"""Distillation: learn a victim's softened answers (Hinton, Vinyals, Dean 2015, arXiv 1503.02531)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.attacks.base import Extraction
from heirmark.attacks.extraction.learning import enough, learn, targets_of
from heirmark.blackbox import AnswerKind, BlackBox
from heirmark.configuration import at_least, below, checked, within
from heirmark.errors import BadConfig
from heirmark.models import Architecture, Net, architecture, fresh_net
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.task import Split
from heirmark.training import Recipe

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

    Example:
        >>> soften(torch.tensor([[0.9, 0.1]]), 2.0)
        tensor([[0.7500, 0.2500]])
    """
    return (probabilities.log() / temperature).softmax(1)


@dataclass(frozen=True, kw_only=True)
@checked
class Distillation(Extraction):
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
        queries: how many images are asked about, drawn without replacement; None asks about all that the adversary has.
    """

    title: ClassVar[str] = "distillation"
    shown: ClassVar[tuple[AnswerKind, ...]] = ("probabilities",)
    asks_pool: ClassVar[bool] = True

    model: Architecture = architecture("resnet18")
    recipe: Recipe = field(default=DISTILLATION_RECIPE)
    temperature: Annotated[float, within(0.05, 1000)] = 7.0
    label_weight: Annotated[float, at_least(0), below(1)] = 0.0
    queries: Annotated[int, at_least(1)] | None = None

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

    def __call__(self, box: BlackBox, data: Split, *, seed: int, runtime: Runtime | None = None) -> Net:
        """Steal.

        Args:
            box: the victim; its budget is spent by the number of queries.
            data: the adversary's images; labels are looked at only with a ``label_weight``.
            seed: of the choice of queries, the copy's start and its training.
            runtime: device, precision, progress.

        Raises:
            BudgetExhausted: when the box's budget is smaller than the number of queries.
            BadConfig: when true labels have a share, but are not of the victim's classes.
        """
        runtime = runtime or Runtime()
        count = len(data) if self.queries is None else enough(self.queries, len(data))
        if self.label_weight > 0 and int(data.labels.max()) >= box.classes:
            raise BadConfig(
                f"the images have labels up to {int(data.labels.max())}, the victim has {box.classes} classes: "
                "set label_weight=0, these are labels of another task"
            )
        generator = generator_of(derive_seed(seed, "queries"))
        chosen = torch.randperm(len(data), generator=generator)[:count]
        inputs = data.subset(chosen).inputs
        answers = targets_of(box.query(inputs))
        if answers.ndim == 2:
            answers = soften(answers, self.temperature)
        net = fresh_net(
            self.model, input_shape=tuple(inputs.shape[1:]), classes=box.classes, seed=derive_seed(seed, "copy")
        )
        learn(
            net.model,
            inputs,
            (answers, data.labels[chosen]) if self.label_weight > 0 else (answers,),
            self.loss,
            recipe=self.recipe,
            seed=derive_seed(seed, "training"),
            runtime=runtime,
        )
        return net
