"""JBDA: Practical Black-Box Attacks against Machine Learning (Papernot et al. 2017, arXiv 1602.02697)."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from heirmark.attacks.base import Extraction, Sizes
from heirmark.attacks.extraction.learning import targets_of
from heirmark.configuration import above, at_least, at_most, checked
from heirmark.errors import BadConfig
from heirmark.models import Architecture, Net, architecture
from heirmark.querying.asking import batch_for, evaluating
from heirmark.querying.blackbox import BlackBox
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.space import Continuous
from heirmark.tasks.storing import clip
from heirmark.tasks.task import Split
from heirmark.training.fitting import Recipe, fit

JBDA_RECIPE = Recipe(epochs=10, batch_size=64, learning_rate=0.01, momentum=0.9, weight_decay=0.0, schedule="constant")
"""Training of the substitute in each round as in the paper: SGD 0.01, momentum 0.9, 10 epochs; the batch size is inferred."""

_BATCH = 500
_TRIES = 8


def jacobian_step(model: nn.Module, images: Tensor, classes: Tensor, step: float, *, targeted: bool) -> Tensor:
    """Move images by one signed step that raises the score of a class, and clip them to [0, 1].

    Args:
        model: maps float32 ``[B, ...]`` in [0, 1] to logits; computes in eval mode and keeps its modes and gradients.
        images: ``[N, ...]`` float32 in [0, 1], on the model's device.
        classes: ``[N]`` int64, the class of each.
        step: of every pixel; a negative one lowers the score.
        targeted: the score is the log-probability of the class; otherwise its logit.

    Returns:
        ``[N, ...]`` float32.
    """
    moved = []
    with evaluating(model), torch.enable_grad():
        size = min(_BATCH, batch_for(images))
        for some, wanted in zip(images.split(size), classes.split(size), strict=True):  # type: ignore[no-untyped-call]
            leaf = some.detach().requires_grad_()
            logits = model(leaf).float()
            scores = logits.log_softmax(1) if targeted else logits
            (gradient,) = torch.autograd.grad(scores.gather(1, wanted[:, None]).sum(), leaf)
            moved.append(clip(some + step * gradient.sign()))
    return torch.cat(moved)


@dataclass(frozen=True, kw_only=True)
@checked
class JBDA(Extraction):
    """Train a substitute on a few images, step from each along the substitute's Jacobian, ask about the new ones, and repeat.

    Each round trains the copy, then adds ``x + step * sign(d logit_y(x) / dx)`` for every point x with the victim's label y,
    so that the points double; a step is taken in pixels in [0, 1] and clipped to them. No point is knowingly asked about twice:
    where a step ends on a known point (its gradient is zero, or has not turned since the round before), one of random signs
    takes its place. Any kind of answer does; the paper has labels only.

    Attributes:
        model: architecture of the copy. The paper's substitute for MNIST has two convolutional layers, which is nearest to this.
        recipe: how the copy is trained in each round; see :data:`JBDA_RECIPE`.
        seeds: images that the thief starts from, drawn at random; 150 for MNIST in the paper.
        rounds: of augmentation; 6 in the paper, which turns 150 images into 9,600 queries.
        step: lambda, of every pixel, in (0, 1].
        period: tau of the paper's periodic step, which changes sign every so many rounds; 3 there. None never changes it.
        reservoir: kappa, how many points at most a round adds once ``doubling`` rounds are over; 400 in the paper's reduced
            form. None doubles the points in every round.
        doubling: sigma, rounds that double the points before the reservoir limits them; 3 in the paper's reduced form.
        target: what a step raises: the logit of the ``"own"`` label, or the probability of a ``"random"`` other class, which
            is PRADA's T-RND (Juuti et al. 2019, arXiv 1805.02628), JBDA-TR elsewhere.
        restart: train from scratch in each round; the authors' code goes on from the round before.
    """

    needs: ClassVar = Continuous
    title: ClassVar[str] = "JBDA"

    model: Architecture = architecture("naivenet")
    recipe: Recipe = field(default=JBDA_RECIPE)
    seeds: Annotated[int, at_least(1)] = 150
    rounds: Annotated[int, at_least(0)] = 6
    step: Annotated[float, above(0), at_most(1)] = 0.1
    period: Annotated[int, at_least(1)] | None = None
    reservoir: Annotated[int, at_least(1)] | None = None
    doubling: Annotated[int, at_least(0)] = 3
    target: Literal["own", "random"] = "own"
    restart: bool = False

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes; see :class:`heirmark.attacks.base.Attack`."""
        return cls(recipe=recipe, rounds=5)

    def fitted(self, sizes: Sizes) -> Self:
        """Start from no more images than there are."""
        return replace(self, seeds=min(self.seeds, sizes.images))

    def __post_init__(self) -> None:
        if self.queries > 10**9:
            raise BadConfig(
                f"{self.rounds} rounds of doubling are {self.queries} queries: set reservoir, or lower rounds"
            )

    def added(self, points: int, number: int) -> int:
        """How many points a round adds.

        Args:
            points: that there are.
            number: of the round, counted from 1.
        """
        if self.reservoir is None or number <= self.doubling:
            return points
        return min(points, self.reservoir)

    @property
    def queries(self) -> int:
        """How many queries it makes.

        Examples:
            >>> JBDA().queries, JBDA(reservoir=400).queries
            (9600, 2400)
        """
        points = self.seeds
        for number in range(1, self.rounds + 1):
            points += self.added(points, number)
        return points

    def steal(self, box: BlackBox, data: Split, *, seed: int, runtime: Runtime) -> Net:
        """Train and ask in turn; see :class:`heirmark.attacks.base.Extraction`.

        Raises:
            BadConfig: when the adversary has fewer images than seeds.
        """
        device = runtime.torch_device
        if self.seeds > len(data):
            raise BadConfig(f"{self.seeds} seeds were asked for, but the adversary has {len(data)} images: lower seeds")
        box.require(self.queries)
        generator = generator_of(derive_seed(seed, "points"))
        points = data.floats(torch.randperm(len(data), generator=generator)[: self.seeds]).to(device)
        known = {_digest(row) for row in points.cpu()}
        answers = box.query(points)
        targets, labels = targets_of(answers), answers.labels
        net = self.fresh_copy(box, data, seed=derive_seed(seed, "copy"))
        for number in range(self.rounds + 1):
            if number:
                count = self.added(len(points), number)
                parents = torch.arange(count)
                if count < len(points):
                    parents = torch.randperm(len(points), generator=generator)[:count]
                old = points[parents.to(device)]
                new = self._augment(net.model, old, labels[parents], number, box.classes, generator)
                new = _fresh(new, old, self.step, known, generator)
                answers = box.query(new)
                points = torch.cat([points, new])
                targets, labels = torch.cat([targets, targets_of(answers)]), torch.cat([labels, answers.labels])
                if self.restart:
                    net = self.fresh_copy(box, data, seed=derive_seed(seed, "copy"))
            fit(
                net.model,
                points,
                targets,
                recipe=self.recipe,
                seed=derive_seed(seed, "training", number + 1),
                runtime=runtime,
                description=f"stealing, round {number + 1}/{self.rounds + 1}",
            )
        return net

    def _augment(
        self, copy: nn.Module, parents: Tensor, labels: Tensor, number: int, classes: int, generator: torch.Generator
    ) -> Tensor:
        turns = 0 if self.period is None else (number - 1) // self.period
        step = self.step * math.pow(-1, turns)
        if self.target == "random":
            labels = (labels + torch.randint(1, classes, labels.shape, generator=generator)) % classes
        return jacobian_step(copy, parents, labels.to(parents.device), step, targeted=self.target == "random")


def _fresh(new: Tensor, parents: Tensor, step: float, known: set[bytes], generator: torch.Generator) -> Tensor:
    """Replace points that are known, and remember all."""
    rows = []
    for row, parent in zip(new.cpu(), parents.cpu(), strict=True):
        for _ in range(_TRIES):  # inputs of a few pixels may have no unknown neighbour
            if _digest(row) not in known:
                break
            signs = torch.randint(2, row.shape, generator=generator) * 2 - 1
            row = clip((parent + step * signs)[None])[0]
        known.add(_digest(row))
        rows.append(row)
    return torch.stack(rows).to(new.device)


def _digest(row: Tensor) -> bytes:
    # On a grid finer than a grey level: a step there and back is off by a rounding error.
    grid = (row * 10_000).round().to(torch.int16)
    return hashlib.blake2b(grid.contiguous().numpy().tobytes(), digest_size=16).digest()
