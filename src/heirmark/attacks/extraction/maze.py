"""MAZE: Data-Free Model Stealing Attack Using Zeroth-Order Gradient Estimation (Kariyappa, Prakash, Qureshi 2021, CVPR)."""

from __future__ import annotations

import math
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
from heirmark.attacks.extraction.learning import probabilities_of, train_step
from heirmark.blackbox import BlackBox
from heirmark.configuration import above, at_least, below, checked
from heirmark.errors import BadConfig
from heirmark.models import Architecture, Net, architecture
from heirmark.runtime import Runtime
from heirmark.samples import ShuffledIndex
from heirmark.space import Images, check_needs
from heirmark.task import Split
from heirmark.training import Recipe


def divergence(logits: Tensor, truth: Tensor) -> Tensor:
    """Kullback-Leibler divergence of a copy from its victim, ``sum_k p_k (log p_k - log q_k)``.

    Args:
        logits: ``[N, C]`` of the copy.
        truth: ``[N, C]`` rows of the victim's that sum to one; zeros count as nothing.

    Returns:
        ``[N]``, not negative.
    """
    return (torch.xlogy(truth, truth) - truth * logits.log_softmax(1)).sum(1)


class ReplayMemory:
    """Images and what was learned of them, on the CPU; when it is full, the newest take the place of the oldest.

    Args:
        capacity: how many images it holds.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.seen = capacity, 0
        self._images = self._targets = torch.empty(0)

    def __len__(self) -> int:
        return min(self.seen, self.capacity)

    def add(self, images: Tensor, targets: Tensor) -> None:
        """Keep ``[B, ...]`` images and ``[B, C]`` targets."""
        if not self.seen:  # pages that are never written take no memory
            self._images = torch.empty(self.capacity, *images.shape[1:])
            self._targets = torch.empty(self.capacity, *targets.shape[1:])
        places = torch.arange(self.seen, self.seen + len(images)) % self.capacity
        self._images[places] = images.cpu()
        self._targets[places] = targets.cpu()
        self.seen += len(images)

    def recall(self, chosen: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images and targets at positions ``[B]`` below the length."""
        return self._images[chosen].to(device), self._targets[chosen].to(device)


@dataclass(frozen=True, kw_only=True)
@checked
class MAZE(Extraction):
    """Steal without data: a generator looks for images on which copy and victim differ, the copy learns and repeats them.

    In each iteration the generator takes ``generator_steps`` to raise the divergence of the copy's answers from the victim's,
    its gradient through the victim estimated by forward differences, averaged over ``directions``; the copy takes
    ``student_steps`` to lower it, the first on the generator's own images, whose answers it has, the others on new ones; then
    it takes ``replay_steps`` on images of all iterations so far, lest it forget, which cost no query. All rates fall along half
    a cosine. Of the data only the shape of an input is used. What differs from DFME: the divergence instead of the difference of
    logits, many directions, the reuse, the replay.

    The victim is asked about ``batch_size * (generator_steps * (directions + 1) + student_steps - 1)`` images an iteration, all
    of one step in one call, and the batches of all the copy's steps in one. As in DFME, forward differences need answers in
    full: with rounded ones epsilon is lost in the rounding, and the generator drifts at random.

    The paper wants probabilities. Where the box gives labels alone, the copy learns these, which is the same loss, and the
    generator learns as in our label-only form of DFME, for which ``directions`` cost nothing: a label does not change over an
    epsilon, and where it does the quotient is thousands of times too large.

    Settings are those of the authors' code. It leaves the copy in training mode while it estimates, so that BatchNorm makes every
    value depend on the whole batch; here the copy is in eval mode then, as in DFME, and forward differences are those of one
    image. The setting with a few images of the task (MAZE-PD) is not there.

    Attributes:
        model: architecture of the copy; WRN-22 in the paper, to which this is nearest (inferred).
        queries: at most; the code's 5 million, 30 million for CIFAR-10 in the paper (inferred). What is no whole iteration is
            not asked.
        batch_size: images in a step.
        learning_rate: of the copy's SGD, at the start.
        generator_rate: of the generator's SGD, at the start; 1e-3 for Fashion-MNIST.
        momentum: of both.
        weight_decay: of both.
        latent: length of the generator's noise.
        width: channels of the generator's last hidden layer.
        generator_steps: N_G, in an iteration.
        student_steps: N_C, in an iteration.
        replay_steps: N_R, in an iteration.
        memory: how many images the replay remembers, in float32; None remembers the last batch of every iteration, as the paper
            does: for 5 million queries about images of 28x28 a gigabyte, and three against labels alone, whose iterations cost
            a third; four times that for images of 3x32x32.
        directions: m of the forward differences.
        epsilon: mu, their step, before the tanh that gives pixels.
        diversity: weight of the entropy of the mean answer, with labels alone (ours).
    """

    title: ClassVar[str] = "MAZE"
    slow: ClassVar[str] = LEARNS_LATE
    needs: ClassVar = Images
    asks_pool: ClassVar[bool] = False

    model: Architecture = architecture("wrn-16-4")
    queries: int = 5_000_000
    batch_size: Annotated[int, at_least(2)] = 128
    learning_rate: Annotated[float, above(0)] = 0.1
    generator_rate: Annotated[float, above(0)] = 1e-4
    momentum: Annotated[float, at_least(0), below(1)] = 0.9
    weight_decay: Annotated[float, at_least(0)] = 5e-4
    latent: Annotated[int, at_least(1)] = 100
    width: Annotated[int, at_least(1)] = 64
    generator_steps: Annotated[int, at_least(1)] = 1
    student_steps: Annotated[int, at_least(1)] = 5
    replay_steps: Annotated[int, at_least(0)] = 10
    memory: int | None = None
    directions: Annotated[int, at_least(1)] = 10
    epsilon: Annotated[float, above(0)] = 1e-3
    diversity: Annotated[float, at_least(0)] = 1.0

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes; see :class:`heirmark.attacks.base.Attack`."""
        return cls(queries=100_000, learning_rate=0.05, generator_rate=1e-3, width=32)

    def __post_init__(self) -> None:
        if self.memory is not None and self.memory < self.batch_size:
            raise BadConfig(f"memory must hold a batch of {self.batch_size}, not {self.memory}: raise it, or say none")
        check_affordable(self.queries, self.cost(labels=True))

    def cost(self, *, labels: bool) -> int:
        """Queries of one iteration, of a victim that shows labels alone or one that shows more.

        Example:
            >>> MAZE().cost(labels=False) == 128 * (11 + 4), 5_000_000 // MAZE().cost(labels=False)
            (True, 2604)
        """
        asked = 1 if labels else self.directions + 1
        return self.batch_size * (self.generator_steps * asked + self.student_steps - 1)

    def __call__(self, box: BlackBox, data: Split, *, seed: int, runtime: Runtime | None = None) -> Net:
        """Steal.

        Args:
            box: the victim; its budget is spent by whole iterations.
            data: of the adversary; only the shape of its inputs is looked at.
            seed: of the noise, the directions, the replay, both nets' start and dropout.
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
            generator=lambda shape: Generator(shape, latent=self.latent, width=self.width, affine=True),
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
        rates = (self.learning_rate, self.generator_rate)
        optimizers = [
            torch.optim.SGD(
                [parameter for parameter in net.parameters() if parameter.requires_grad],
                rate,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
            )
            for net, rate in zip((student, generator), rates, strict=True)
        ]
        last = self.batch_size * iterations
        memory = ReplayMemory(last if self.memory is None else min(self.memory, last))

        def learn(images: Tensor, targets: Tensor) -> Tensor:
            # Of the divergence the entropy of the answers is left out: the copy cannot change it.
            return train_step(student, optimizers[0], images, (targets,), F.cross_entropy, runtime=runtime)

        for iteration in range(iterations):
            for optimizer, rate in zip(optimizers, rates, strict=True):
                optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * iteration / iterations)) / 2
            for _ in range(self.generator_steps):
                raw = generator.draw(self.batch_size, draws, runtime)
                gradient, truth = self._gradient(box, student, raw.detach(), draws)
                # Images and answers are finite, so it is the copy that is not.
                check_finite(gradient.sum(), iteration, what="the generator's gradient")
                optimizers[1].zero_grad(set_to_none=True)
                raw.backward(-gradient / self.batch_size)  # type: ignore[no-untyped-call]
                optimizers[1].step()
            with torch.no_grad():
                batches = [
                    pixels(generator.draw(self.batch_size, draws, runtime)) for _ in range(self.student_steps - 1)
                ]
            targets = [truth]
            if batches:
                answers = box.query(torch.cat(batches))
                targets += probabilities_of(answers, box.classes).to(truth.device).split(self.batch_size)  # type: ignore[no-untyped-call]
            batches.insert(0, pixels(raw.detach()))
            for images, wanted in zip(batches, targets, strict=True):
                loss = learn(images, wanted)
            memory.add(batches[-1], targets[-1])
            rows = ShuffledIndex(len(memory), self.batch_size)
            for _ in range(self.replay_steps):
                loss = learn(*memory.recall(rows.draw(draws), truth.device))
            check_finite(loss, iteration, what="the copy's loss")
            runtime.progress("stealing", iteration + 1, iterations)

    def _gradient(
        self, box: BlackBox, student: nn.Module, raw: Tensor, draws: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Where the generator's images should go, ``[B, C, H, W]``, and what the copy learns of them as they are, ``[B, C]``."""
        if box.api.answers == "label":
            gradient, labels = gradient_by_labels(box, student, raw, diversity=self.diversity)
            return gradient, F.one_hot(labels, box.classes).float().to(raw.device)
        return gradient_by_differences(
            box,
            student,
            raw,
            sphere(self.directions, raw, draws),
            learned=lambda answers: probabilities_of(answers, box.classes),
            gap=divergence,
            epsilon=self.epsilon,
        )
