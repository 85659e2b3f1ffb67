"""What DFME and MAZE have in common: a copy and a generator of images that play against each other, and ask a victim."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from heirmark.attacks.base import LEARNS_LATE, Extraction
from heirmark.attacks.extraction.generating import (
    Generator,
    check_finite,
    gradient_by_differences,
    gradient_by_labels,
    pixels,
    sphere,
)
from heirmark.configuration import above, at_least, below, checked
from heirmark.errors import BadConfig
from heirmark.models import Net
from heirmark.querying.blackbox import Answers, BlackBox
from heirmark.runtime import Runtime, derive_seed, generator_of, seeded
from heirmark.tasks.space import Images
from heirmark.tasks.task import Split


@dataclass(frozen=True, kw_only=True, eq=False)
class Game:
    """Both players, and whom they ask.

    Attributes:
        box: the victim.
        student: the copy, in training mode on the runtime's device.
        generator: the same.
        iterations: that the queries pay for.
        draws: noise, directions and the rest that is drawn, on the CPU.
        runtime: device, precision, progress.
    """

    box: BlackBox
    student: nn.Module
    generator: Generator
    iterations: int
    draws: torch.Generator
    runtime: Runtime

    @property
    def labels_only(self) -> bool:
        """Whether the victim shows labels alone."""
        return self.box.api.answers == "label"


@dataclass(frozen=True, kw_only=True)
@checked
class DataFree(Extraction):
    """Steal without data: a generator looks for images on which copy and victim differ, the copy learns to agree on them.

    Of the data only the shape of an input is used. All images of one step of the generator are asked about in one call, and so
    are those of all the copy's steps in an iteration.

    Attributes:
        queries: at most. What is no whole iteration is not asked.
        batch_size: images in a step.
        learning_rate: of the copy's SGD, at the start.
        generator_rate: of the generator's optimiser, at the start.
        momentum: of SGD.
        weight_decay: of SGD.
        latent: length of the generator's noise.
        width: channels of the generator's last hidden layer.
        generator_steps: in an iteration.
        student_steps: in an iteration.
        directions: m of the forward differences.
        epsilon: their step, before the tanh that gives pixels.
        diversity: weight of the entropy of the mean answer, with labels alone (ours).
    """

    slow: ClassVar[str] = LEARNS_LATE
    needs: ClassVar = Images
    affine: ClassVar[bool] = False
    """Whether the generator's last normalisation learns a scale and a shift."""

    queries: int = 20_000_000
    batch_size: Annotated[int, at_least(2)] = 256
    learning_rate: Annotated[float, above(0)] = 0.1
    generator_rate: Annotated[float, above(0)] = 1e-4
    momentum: Annotated[float, at_least(0), below(1)] = 0.9
    weight_decay: Annotated[float, at_least(0)] = 5e-4
    latent: Annotated[int, at_least(1)] = 256
    width: Annotated[int, at_least(1)] = 64
    generator_steps: Annotated[int, at_least(1)] = 1
    student_steps: Annotated[int, at_least(1)] = 5
    directions: Annotated[int, at_least(1)] = 1
    epsilon: Annotated[float, above(0)] = 1e-3
    diversity: Annotated[float, at_least(0)] = 1.0

    def __post_init__(self) -> None:
        self._iterations(self.cost(labels=True))

    @property
    def fresh_batches(self) -> int:
        """Batches of new images that the copy learns in an iteration."""
        return self.student_steps

    def cost(self, *, labels: bool) -> int:
        """Queries of one iteration, of a victim that shows labels alone or one that shows more."""
        asked = 1 if labels else self.directions + 1
        return self.batch_size * (self.generator_steps * asked + self.fresh_batches)

    def _iterations(self, cost: int) -> int:
        if self.queries < cost:
            raise BadConfig(
                f"queries must pay for an iteration, which costs {cost}, not {self.queries}: raise queries or lower batch_size"
            )
        return self.queries // cost

    @abstractmethod
    def play(self, game: Game) -> None:
        """Train copy and generator in place, and ask about :meth:`cost` images an iteration."""

    def steal(self, box: BlackBox, data: Split, *, seed: int, runtime: Runtime) -> Net:
        """Make both nets and let them play; see :class:`heirmark.attacks.base.Extraction`.

        Raises:
            BadConfig: when ``queries`` do not pay for one iteration against such answers.
        """
        cost = self.cost(labels=box.api.answers == "label")
        iterations = self._iterations(cost)
        box.require(iterations * cost)
        net = self.fresh_copy(box, data, seed=derive_seed(seed, "copy"))
        channels, height, side = data.inputs.shape[1:]
        with seeded(derive_seed(seed, "generator")):
            generator = Generator((channels, height, side), latent=self.latent, width=self.width, affine=self.affine)
        generator.to(runtime.torch_device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        game = Game(
            box=box,
            student=net.model.to(runtime.torch_device).train(),
            generator=generator.train(),
            iterations=iterations,
            draws=generator_of(derive_seed(seed, "noise")),
            runtime=runtime,
        )
        with seeded(derive_seed(seed, "training")):
            self.play(game)
        net.model.eval()
        return net

    def sgd(self, net: nn.Module, rate: float) -> torch.optim.Optimizer:
        """Stochastic gradient descent on all that is to be trained."""
        trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
        return torch.optim.SGD(trained, rate, momentum=self.momentum, weight_decay=self.weight_decay)

    def train_generator(
        self,
        game: Game,
        optimizer: torch.optim.Optimizer,
        iteration: int,
        *,
        learned: Callable[[Answers], Tensor],
        gap: Callable[[Tensor, Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """The generator's steps of one iteration, towards images on which copy and victim differ more.

        Args:
            game: its players.
            optimizer: of the generator.
            iteration: counted from 0.
            learned: what the copy learns of N answers, ``[N, ...]``.
            gap: see :func:`~heirmark.attacks.extraction.generating.gradient_by_differences`; of no use with labels alone.

        Returns:
            The last step's images ``[B, C, H, W]`` in [0, 1], and what is learned of the answers to them.

        Raises:
            BadData: when images or gradient are no longer finite.
        """
        for _ in range(self.generator_steps):
            raw = game.generator.draw(self.batch_size, game.draws, game.runtime)
            points = raw.detach()
            if game.labels_only:
                gradient, truth = gradient_by_labels(
                    game.box, game.student, points, learned=learned, diversity=self.diversity
                )
            else:
                directions = sphere(self.directions, points, game.draws)
                gradient, truth = gradient_by_differences(
                    game.box, game.student, points, directions, learned=learned, gap=gap, epsilon=self.epsilon
                )
            # Images and answers are finite, so it is the copy that is not.
            check_finite(gradient.sum(), iteration, what="the generator's gradient")
            optimizer.zero_grad(set_to_none=True)
            raw.backward(-gradient / self.batch_size)  # type: ignore[no-untyped-call]
            optimizer.step()
        return pixels(points), truth

    def ask_about_fresh(self, game: Game, learned: Callable[[Answers], Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Batches of new images in [0, 1], each with what is learned of the answers to it."""
        with torch.no_grad():
            batches = [
                pixels(game.generator.draw(self.batch_size, game.draws, game.runtime))
                for _ in range(self.fresh_batches)
            ]
        if not batches:
            return []
        targets = learned(game.box.query(torch.cat(batches))).to(game.runtime.torch_device)
        return list(zip(batches, targets.split(self.batch_size), strict=True))  # type: ignore[no-untyped-call]
