"""What the extraction attacks share: answers as targets, a fresh copy, and training with a loss of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.augmenting import augment
from heirmark.batches import Batches
from heirmark.blackbox import Answers
from heirmark.errors import BadConfig
from heirmark.runtime import Runtime
from heirmark.steps import backward
from heirmark.training import Recipe, descend


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


def enough(queries: int, available: int) -> int:
    """The same number of queries, if there are so many images.

    Raises:
        BadConfig: if there are not.
    """
    if queries > available:
        raise BadConfig(f"{queries} queries were asked for, but the adversary has {available} images: lower queries")
    return queries


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
) -> tuple[float, ...]:
    """Train a model in place as :func:`heirmark.training.fit` does, with any loss, and until one says stop.

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

    Returns:
        The mean training loss of every epoch that was run.

    Raises:
        BadData: when the loss is no longer finite.
    """
    device = runtime.torch_device
    batches, targets, run = Batches(inputs, device), tuple(each.to(device) for each in targets), runtime.compiled(model)

    def draw(chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        return augment(batches[chosen], recipe.augment, generator), *(each[chosen] for each in targets)

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
