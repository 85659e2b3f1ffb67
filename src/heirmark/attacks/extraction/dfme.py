"""DFME: Data-Free Model Extraction (Truong, Maini, Walls, Papernot 2021, CVPR, arXiv 2011.14779)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.attacks.extraction.data_free import DataFree, Game
from heirmark.attacks.extraction.generating import check_finite
from heirmark.attacks.extraction.learning import targets_of, train_step
from heirmark.configuration import above, within
from heirmark.querying.blackbox import Answers
from heirmark.training.fitting import Recipe

_FLOOR = 1e-7  # what float32 still tells from zero beside a one


def recovered_logits(answers: Answers) -> Tensor:
    """Logits of a victim up to what its probabilities do not tell: log p less its mean over the classes.

    Args:
        answers: with probabilities. Classes at zero, which rounding or top-k hide, share what the others lack to one, and none
            has more than the least that is shown.

    Returns:
        ``[N, C]`` float32 with rows of mean zero.
    """
    if answers.probabilities is None:
        raise TypeError("labels alone have no logits")
    shown = answers.probabilities
    hidden = shown <= 0
    rest = (1 - shown.sum(1, keepdim=True)) / hidden.sum(1, keepdim=True).clamp_min(1)
    least = shown.where(~hidden, torch.inf).amin(1, keepdim=True)
    logs = torch.where(hidden, torch.minimum(rest.clamp_min(_FLOOR), least), shown).log()
    return logs - logs.mean(1, keepdim=True)


def mean_difference(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute difference ``[N]`` between two ``[N, C]`` logits."""
    return (logits - truth).abs().mean(1)


@dataclass(frozen=True, kw_only=True)
class DFME(DataFree):
    """Steal without data: a generator looks for images on which copy and victim differ, the copy learns to agree on them.

    In each iteration the generator takes ``generator_steps`` to raise the mean absolute difference between the copy's logits
    and the victim's mean-centred log-probabilities, its gradient through the victim estimated by forward differences; then
    the copy takes ``student_steps`` to lower it.

    The victim is asked about ``batch_size * (generator_steps * (directions + 1) + student_steps)`` images an iteration. Forward
    differences need answers in full: with rounded ones, or a victim that computes in bfloat16, epsilon is lost in the rounding,
    and the generator drifts at random.

    Where the box gives labels alone, no recipe is published for this method, and what happens is ours: the copy learns the labels
    by cross-entropy, and the generator learns as :func:`~heirmark.attacks.extraction.generating.gradient_by_labels` says, for
    which ``directions`` cost nothing.

    Attributes:
        model: architecture of the copy; ResNet-18 in the paper, against a ResNet-34.
        queries: at most; 20 million for CIFAR-10 and 2 million for SVHN in the paper. What is no whole iteration is not asked.
        generator_rate: learning rate of the generator's Adam, at the start.
        drops: shares of the iterations after which both rates fall.
        drop_factor: what they are multiplied by then.
    """

    title: ClassVar[str] = "DFME"

    drops: tuple[Annotated[float, within(0, 1)], ...] = (0.1, 0.3, 0.5)
    drop_factor: Annotated[float, above(0)] = 0.3

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes; see :class:`heirmark.attacks.base.Attack`."""
        return cls(queries=100_000, learning_rate=0.05, width=32)

    def factor(self, iteration: int, iterations: int) -> float:
        """What both learning rates are multiplied by in an iteration, counted from 0.

        Examples:
            >>> [round(DFME().factor(iteration, 10), 3) for iteration in (0, 1, 2, 3, 5, 9)]
            [1.0, 0.3, 0.3, 0.09, 0.027, 0.027]
        """
        return self.drop_factor ** sum(iteration >= int(drop * iterations) for drop in self.drops)

    def play(self, game: Game) -> None:
        """See :class:`~heirmark.attacks.extraction.data_free.DataFree`."""
        learned = targets_of if game.labels_only else recovered_logits
        loss = F.cross_entropy if game.labels_only else F.l1_loss
        rates = (self.learning_rate, self.generator_rate)
        student = self.sgd(game.student, self.learning_rate)
        generator = torch.optim.Adam(game.generator.parameters(), self.generator_rate)
        for iteration in range(game.iterations):
            for optimizer, rate in zip((student, generator), rates, strict=True):
                optimizer.param_groups[0]["lr"] = self.factor(iteration, game.iterations) * rate
            self.train_generator(game, generator, iteration, learned=learned, gap=mean_difference)
            for images, wanted in self.ask_about_fresh(game, learned):
                value = train_step(game.student, student, images, (wanted,), loss, runtime=game.runtime)
            check_finite(value, iteration, what="the copy's loss")
            game.runtime.progress("stealing", iteration + 1, game.iterations)
