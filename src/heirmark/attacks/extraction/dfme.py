"""DFME: Data-Free Model Extraction (Truong, Maini, Walls, Papernot 2021, CVPR, arXiv 2011.14779)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.attacks.base import LEARNS_LATE, Extraction
from heirmark.attacks.extraction.generating import (
    Generator,
    check_affordable,
    check_finite,
    gradient_by_differences,
    gradient_by_labels,
    pixels,
    sphere,
    steal_by_generating,
)
from heirmark.attacks.extraction.learning import targets_of, train_step
from heirmark.blackbox import Answers, BlackBox
from heirmark.configuration import above, at_least, below, checked, within
from heirmark.models import Architecture, Net, architecture
from heirmark.runtime import Runtime
from heirmark.space import Images, check_needs
from heirmark.task import Split
from heirmark.training import Recipe

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


@dataclass(frozen=True, kw_only=True)
@checked
class DFME(Extraction):
    """Steal without data: a generator looks for images on which copy and victim differ, the copy learns to agree on them.

    In each iteration the generator takes ``generator_steps`` to raise the mean absolute difference between the copy's logits
    and the victim's mean-centred log-probabilities, its gradient through the victim estimated by forward differences; then
    the copy takes ``student_steps`` to lower it. Of the data only the shape of an input is used.

    The victim is asked about ``batch_size * (generator_steps * (directions + 1) + student_steps)`` images an iteration, all of
    one step in one call, and the batches of all the copy's steps in one. Forward differences need answers in full: with
    rounded ones, or a victim that computes in bfloat16, epsilon is lost in the rounding, and the generator drifts at random.

    Where the box gives labels alone, no recipe is published for this method, and what happens is ours: the copy learns the labels
    by cross-entropy, and the generator learns as :func:`~heirmark.attacks.extraction.generating.gradient_by_labels` says, for
    which ``directions`` cost nothing.

    Attributes:
        model: architecture of the copy; ResNet-18 in the paper, against a ResNet-34.
        queries: at most; 20 million for CIFAR-10 and 2 million for SVHN in the paper. What is no whole iteration is not asked.
        batch_size: images in a step.
        learning_rate: of the copy's SGD, at the start.
        momentum: of it.
        weight_decay: of it.
        generator_rate: learning rate of the generator's Adam, at the start.
        drops: shares of the iterations after which both rates fall.
        drop_factor: what they are multiplied by then.
        latent: length of the generator's noise.
        width: channels of the generator's last hidden layer.
        generator_steps: in an iteration.
        student_steps: in an iteration.
        directions: m of the forward differences.
        epsilon: their step, before the tanh that gives pixels.
        diversity: weight of the entropy of the mean answer, with labels alone (ours).
    """

    title: ClassVar[str] = "DFME"
    slow: ClassVar[str] = LEARNS_LATE
    needs: ClassVar = Images
    asks_pool: ClassVar[bool] = False

    model: Architecture = architecture("resnet18")
    queries: int = 20_000_000
    batch_size: Annotated[int, at_least(2)] = 256
    learning_rate: Annotated[float, above(0)] = 0.1
    momentum: Annotated[float, at_least(0), below(1)] = 0.9
    weight_decay: Annotated[float, at_least(0)] = 5e-4
    generator_rate: Annotated[float, above(0)] = 1e-4
    drops: tuple[Annotated[float, within(0, 1)], ...] = (0.1, 0.3, 0.5)
    drop_factor: Annotated[float, above(0)] = 0.3
    latent: Annotated[int, at_least(1)] = 256
    width: Annotated[int, at_least(1)] = 64
    generator_steps: Annotated[int, at_least(1)] = 1
    student_steps: Annotated[int, at_least(1)] = 5
    directions: Annotated[int, at_least(1)] = 1
    epsilon: Annotated[float, above(0)] = 1e-3
    diversity: Annotated[float, at_least(0)] = 1.0

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes; see :class:`heirmark.attacks.base.Attack`."""
        return cls(queries=100_000, learning_rate=0.05, width=32)

    def __post_init__(self) -> None:
        check_affordable(self.queries, self.cost(labels=True))

    def cost(self, *, labels: bool) -> int:
        """Queries of one iteration, of a victim that shows labels alone or one that shows more."""
        return self.batch_size * (self.generator_steps * (1 if labels else self.directions + 1) + self.student_steps)

    def factor(self, iteration: int, iterations: int) -> float:
        """What both learning rates are multiplied by in an iteration, counted from 0.

        Example:
            >>> [round(DFME().factor(iteration, 10), 3) for iteration in (0, 1, 2, 3, 5, 9)]
            [1.0, 0.3, 0.3, 0.09, 0.027, 0.027]
        """
        return self.drop_factor ** sum(iteration >= int(drop * iterations) for drop in self.drops)

    def __call__(self, box: BlackBox, data: Split, *, seed: int, runtime: Runtime | None = None) -> Net:
        """Steal.

        Args:
            box: the victim; its budget is spent by whole iterations.
            data: of the adversary; only the shape of its inputs is looked at.
            seed: of the noise, the directions, both nets' start and dropout.
            runtime: device, precision, progress.

        Raises:
            BadConfig: when ``queries`` do not pay for one iteration against such answers, or inputs are no images.
            BudgetExhausted: when the box's budget is smaller than the queries of all iterations.
            BadData: when the copy's loss, the generator's gradient or its images are no longer finite.
        """
        runtime = runtime or Runtime()
        check_needs(self, data.space)
        cost = self.cost(labels=box.api.answers == "label")
        check_affordable(self.queries, cost)
        iterations = self.queries // cost

        def play(student: nn.Module, generator: Generator, draws: torch.Generator) -> None:
            self._play(box, student, generator, iterations, draws, runtime)

        return steal_by_generating(
            box,
            data,
            play,
            model=self.model,
            generator=lambda shape: Generator(shape, latent=self.latent, width=self.width),
            queries=iterations * cost,
            seed=seed,
            runtime=runtime,
        )

    def _play(
        self,
        box: BlackBox,
        student: nn.Module,
        generator: Generator,
        iterations: int,
        draws: torch.Generator,
        runtime: Runtime,
    ) -> None:
        """The game of both nets; each is trained in place."""
        student_optimizer = torch.optim.SGD(
            [parameter for parameter in student.parameters() if parameter.requires_grad],
            self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )
        generator_optimizer = torch.optim.Adam(generator.parameters(), self.generator_rate)
        labels_only = box.api.answers == "label"
        for iteration in range(iterations):
            factor = self.factor(iteration, iterations)
            student_optimizer.param_groups[0]["lr"] = factor * self.learning_rate
            generator_optimizer.param_groups[0]["lr"] = factor * self.generator_rate
            for _ in range(self.generator_steps):
                raw = generator.draw(self.batch_size, draws, runtime)
                if labels_only:
                    gradient, _ = gradient_by_labels(box, student, raw, diversity=self.diversity)
                else:
                    gradient, _ = gradient_by_differences(
                        box,
                        student,
                        raw.detach(),
                        sphere(self.directions, raw, draws),
                        learned=recovered_logits,
                        gap=lambda logits, truth: (logits - truth).abs().mean(1),
                        epsilon=self.epsilon,
                    )
                # Images and answers are finite, so it is the copy that is not.
                check_finite(gradient.sum(), iteration, what="the generator's gradient")
                generator_optimizer.zero_grad(set_to_none=True)
                raw.backward(-gradient / self.batch_size)  # type: ignore[no-untyped-call]
                generator_optimizer.step()
            with torch.no_grad():
                batches = [pixels(generator.draw(self.batch_size, draws, runtime)) for _ in range(self.student_steps)]
            answers = box.query(torch.cat(batches))
            targets = (targets_of(answers) if labels_only else recovered_logits(answers)).to(runtime.torch_device)
            for images, wanted in zip(batches, targets.split(self.batch_size), strict=True):  # type: ignore[no-untyped-call]
                loss = train_step(
                    student,
                    student_optimizer,
                    images,
                    (wanted,),
                    F.cross_entropy if labels_only else F.l1_loss,
                    runtime=runtime,
                )
            check_finite(loss, iteration, what="the copy's loss")
            runtime.progress("stealing", iteration + 1, iterations)
