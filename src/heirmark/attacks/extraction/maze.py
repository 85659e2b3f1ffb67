"""MAZE: Data-Free Model Stealing Attack Using Zeroth-Order Gradient Estimation (Kariyappa, Prakash, Qureshi 2021, CVPR)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.attacks.extraction.data_free import DataFree, Game
from heirmark.attacks.extraction.generating import check_finite
from heirmark.attacks.extraction.learning import probabilities_of, train_step
from heirmark.configuration import at_least
from heirmark.errors import BadConfig
from heirmark.models import Architecture, architecture
from heirmark.querying.blackbox import Answers
from heirmark.training.fitting import Recipe
from heirmark.training.samples import ShuffledIndex


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
class MAZE(DataFree):
    """Steal without data: a generator looks for images on which copy and victim differ, the copy learns and repeats them.

    In each iteration the generator takes ``generator_steps`` to raise the divergence of the copy's answers from the victim's,
    its gradient through the victim estimated by forward differences, averaged over ``directions``; the copy takes
    ``student_steps`` to lower it, the first on the generator's own images, whose answers it has, the others on new ones; then
    it takes ``replay_steps`` on images of all iterations so far, lest it forget, which cost no query. All rates fall along half
    a cosine. What differs from DFME: the divergence instead of the difference of logits, many directions, the reuse, the replay.

    The victim is asked about ``batch_size * (generator_steps * (directions + 1) + student_steps - 1)`` images an iteration. As in
    DFME, forward differences need answers in full.

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
        generator_rate: of the generator's SGD, at the start; 1e-3 for Fashion-MNIST.
        generator_steps: N_G, in an iteration.
        student_steps: N_C, in an iteration.
        replay_steps: N_R, in an iteration.
        memory: how many images the replay remembers, in float32; None remembers the last batch of every iteration, as the paper
            does: for 5 million queries about images of 28x28 a gigabyte, and three against labels alone, whose iterations cost
            a third; four times that for images of 3x32x32.
        epsilon: mu, the step of the forward differences, before the tanh that gives pixels.
    """

    title: ClassVar[str] = "MAZE"
    affine: ClassVar[bool] = True

    model: Architecture = architecture("wrn-16-4")
    queries: int = 5_000_000
    batch_size: Annotated[int, at_least(2)] = 128
    latent: Annotated[int, at_least(1)] = 100
    replay_steps: Annotated[int, at_least(0)] = 10
    memory: int | None = None
    directions: Annotated[int, at_least(1)] = 10

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes; see :class:`heirmark.attacks.base.Attack`."""
        return cls(queries=100_000, learning_rate=0.05, generator_rate=1e-3, width=32)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory is not None and self.memory < self.batch_size:
            raise BadConfig(f"memory must hold a batch of {self.batch_size}, not {self.memory}: raise it, or say none")

    @property
    def fresh_batches(self) -> int:
        """All but the first, which is the generator's own."""
        return self.student_steps - 1

    def play(self, game: Game) -> None:
        """See :class:`~heirmark.attacks.extraction.data_free.DataFree`."""
        rates = (self.learning_rate, self.generator_rate)
        student, generator = map(self.sgd, (game.student, game.generator), rates)
        last = self.batch_size * game.iterations
        memory = ReplayMemory(last if self.memory is None else min(self.memory, last))

        def learned(answers: Answers) -> Tensor:
            return probabilities_of(answers, game.box.classes)

        def learn(images: Tensor, targets: Tensor) -> Tensor:
            # Of the divergence the entropy of the answers is left out: the copy cannot change it.
            return train_step(game.student, student, images, (targets,), F.cross_entropy, runtime=game.runtime)

        for iteration in range(game.iterations):
            for optimizer, rate in zip((student, generator), rates, strict=True):
                optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * iteration / game.iterations)) / 2
            own = self.train_generator(game, generator, iteration, learned=learned, gap=divergence)
            batches = [own, *self.ask_about_fresh(game, learned)]
            for images, targets in batches:
                loss = learn(images, targets)
            memory.add(*batches[-1])
            rows = ShuffledIndex(len(memory), self.batch_size)
            for _ in range(self.replay_steps):
                loss = learn(*memory.recall(rows.draw(game.draws), game.runtime.torch_device))
            check_finite(loss, iteration, what="the copy's loss")
            game.runtime.progress("stealing", iteration + 1, game.iterations)
