"""What the extraction attacks share: questions about a pool, answers as targets, and training with a loss of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.attacks.base import Extraction
from heirmark.configuration import at_least
from heirmark.errors import BadConfig
from heirmark.models import Net
from heirmark.querying.blackbox import Answers
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.task import Split
from heirmark.training.augmenting import augment
from heirmark.training.batches import Batches
from heirmark.training.fitting import Recipe, descend, fit
from heirmark.training.steps import backward


def targets_of(answers: Answers) -> Tensor:
    """What a copy learns from answers.

    Args:
        answers: to N inputs; top-k answers are scaled to a sum of one.

    Returns:
        ``[N, C]`` float32 rows that sum to one, or ``[N]`` int64 where only labels are shown.
    """
    if answers.probabilities is None:
        return answers.labels
    sums = answers.probabilities.sum(1, keepdim=True)
    # Rounding and top-k may leave a row of zeros; such an answer says nothing.
    return torch.where(sums > 0, answers.probabilities / sums.clamp_min(1e-12), 1 / answers.probabilities.shape[1])


def probabilities_of(answers: Answers, classes: int) -> Tensor:
    """Answers as ``[N, C]`` float32 rows that sum to one; a label becomes a one-hot row."""
    targets = targets_of(answers)
    return F.one_hot(targets, classes).float() if targets.ndim == 1 else targets


@dataclass(frozen=True, kw_only=True)
class OfPool(Extraction):
    """An attack that asks about the adversary's images as they are, none twice, and trains a copy on the answers.

    Attributes:
        recipe: how the copy is trained.
        queries: how many images are asked about; None asks about all that the adversary has.
    """

    asks_pool: ClassVar[bool] = True
    chooses: ClassVar[bool] = False
    """Whether it chooses what to ask; then ``queries=None`` asks about half: all would leave nothing to choose."""

    recipe: Recipe = field(default=Recipe())
    queries: Annotated[int, at_least(1)] | None = None

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes; see :class:`heirmark.attacks.base.Attack`."""
        return cls(recipe=recipe)

    def count(self, data: Split) -> int:
        """How many images are asked about.

        Raises:
            BadConfig: when there are fewer.
        """
        if self.queries is None:
            return max(1, len(data) // 2) if self.chooses else len(data)
        if self.queries > len(data):
            raise BadConfig(
                f"{self.queries} queries were asked for, but the adversary has {len(data)} images: lower queries"
            )
        return self.queries

    def draw(self, data: Split, *, seed: int) -> Tensor:
        """Positions of as many images, at random."""
        return torch.randperm(len(data), generator=generator_of(derive_seed(seed, "queries")))[: self.count(data)]

    def train(self, net: Net, inputs: Tensor, targets: Tensor, *, seed: int, runtime: Runtime) -> Net:
        """A copy, trained on all answers; see :func:`heirmark.training.fitting.fit`."""
        seed = derive_seed(seed, "training")
        fit(net.model, inputs, targets, recipe=self.recipe, seed=seed, runtime=runtime, description="stealing")
        return net


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    targets: tuple[Tensor, ...],
    loss: Callable[..., Tensor],
    *,
    runtime: Runtime,
) -> Tensor:
    """One step of an optimiser on one batch; the model keeps its mode.

    Args:
        model: on the runtime's device.
        optimizer: of its parameters.
        images: ``[B, ...]`` as they are stored, on the device.
        targets: what the loss takes besides logits.
        loss: called as ``loss(logits, *targets)``, gives a scalar.
        runtime: precision.

    Returns:
        The loss before the step, a scalar on the device.
    """
    with runtime.autocast():
        logits = model(images)
    value = loss(logits.float(), *targets)
    optimizer.zero_grad(set_to_none=True)
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return value.detach()


def learn(
    model: nn.Module,
    inputs: Tensor,
    targets: tuple[Tensor, ...],
    loss: Callable[..., Tensor],
    *,
    recipe: Recipe,
    seed: int,
    runtime: Runtime,
    description: str = "stealing",
    stop: Callable[[], bool] | None = None,
    teacher: Callable[[Tensor], Tensor] | None = None,
) -> tuple[float, ...]:
    """Train a model in place as :func:`heirmark.training.fitting.fit` does, with any loss, and until one says stop.

    Args:
        model: maps ``[B, ...]`` to logits ``[B, C]``; left in eval mode.
        inputs: ``[N, ...]`` uint8 or float32.
        targets: each ``[N, ...]``.
        loss: called as ``loss(logits, *batch_of_each_target)``, gives a scalar; the same of the same numbers every time.
        recipe: optimiser, schedule, augmentation.
        seed: of the order of batches, the augmentation and dropout.
        runtime: device, precision, progress.
        description: what the progress bar says.
        stop: asked after every epoch whether it was the last.
        teacher: of every batch, as it is augmented, it gives what the loss takes before the targets.

    Returns:
        The mean training loss of every epoch that was run.

    Raises:
        BadData: when the loss is no longer finite.
    """
    device = runtime.torch_device
    batches, targets, run = Batches(inputs, device), tuple(each.to(device) for each in targets), runtime.compiled(model)

    def draw(chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        images = augment(batches[chosen], recipe.augment, generator)
        told = () if teacher is None else (teacher(images),)
        return images, *told, *(each[chosen] for each in targets)

    def batch_loss(images: Tensor, *wanted: Tensor) -> Mapping[str, Tensor]:
        with runtime.autocast():
            logits = run(images)
        return {"loss": loss(logits.float(), *wanted)}

    rows = descend(
        model,
        len(inputs),
        draw,
        backward(model, batch_loss),
        batches=batches,
        recipe=recipe,
        seed=seed,
        runtime=runtime,
        stop=stop,
        description=description,
    )
    return tuple(row["loss"] for row in rows)
