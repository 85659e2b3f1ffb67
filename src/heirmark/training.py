"""Fit a classifier: batches that live on the device, augmentation there, mixed precision, one seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.asking import outputs_of
from heirmark.cuda_graphs import Loss, gradients_of
from heirmark.errors import BadConfig, BadData, ShapeMismatch
from heirmark.layout import entering
from heirmark.runtime import Runtime, generator_of, seeded, to_device
from heirmark.space import join
from heirmark.task import Split

__all__ = ["Mixed", "Recipe", "Rotation", "Rows", "accuracy", "augment", "descend", "fit", "make_optimizer"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained. The defaults are T2S's pre-training (section IV-A): SGD, 0.1, cosine, 40 epochs of 256.

    Attributes:
        epochs: passes over the data.
        batch_size: examples per step; an incomplete last batch is dropped when there is a full one.
        optimizer: ``"sgd"`` or ``"adam"``.
        learning_rate: at the start of the schedule.
        momentum: of SGD.
        nesterov: Nesterov's form of it.
        weight_decay: L2 penalty; 5e-4 is inferred, the paper's text lost it.
        schedule: ``"cosine"`` to zero, ``"step"`` (times ``step_factor`` every ``step_epochs``) or ``"constant"``.
        step_epochs: of the step schedule.
        step_factor: of the step schedule.
        warmup: share of all steps over which the rate rises linearly from zero; zero is the paper's, some lets few epochs do.
        augment: ``"none"``, ``"flip"`` (left-right) or ``"crop-flip"`` (4 pixels of zero padding too).
    """

    epochs: int = 40
    batch_size: int = 256
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    step_epochs: int = 10
    step_factor: float = 0.5
    warmup: float = 0.0
    augment: Literal["none", "flip", "crop-flip"] = "none"

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_size < 1 or self.step_epochs < 1:
            raise BadConfig(f"epochs may not be negative, batch_size and step_epochs must be positive: {self}")
        rates = 0 < self.learning_rate < math.inf and 0 <= self.weight_decay < math.inf
        if not (rates and 0 <= self.momentum < 1 and 0 <= self.warmup < 1):
            raise BadConfig(
                "learning_rate must be positive, weight_decay not negative, both finite, "
                f"momentum and warmup in [0, 1): {self}"
            )
        if not 0 < self.step_factor < math.inf:
            raise BadConfig(f"step_factor must be positive and finite, not {self.step_factor}")
        for name, value, known in (
            ("optimizer", self.optimizer, ("sgd", "adam")),
            ("schedule", self.schedule, ("cosine", "step", "constant")),
            ("augment", self.augment, ("none", "flip", "crop-flip")),
        ):
            if value not in known:
                raise BadConfig(f"unknown {name} {value!r}: choose one of {', '.join(known)}")
        if self.nesterov and self.momentum == 0:
            raise BadConfig("nesterov needs a momentum above zero")

    def rate(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """Learning rate of a step.

        Args:
            step: 0-based, below ``steps``.
            steps: of the whole training.
            steps_per_epoch: of one epoch.

        Example:
            >>> [round(Recipe(learning_rate=1.0).rate(step, 4, 1), 2) for step in range(4)]
            [1.0, 0.85, 0.5, 0.15]
        """
        rising = self.warmup * steps
        if step < rising:
            return self.learning_rate * (step + 1) / (rising + 1)
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        if self.schedule == "step":
            return self.learning_rate * self.step_factor ** (step // steps_per_epoch // self.step_epochs)
        return self.learning_rate


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixed:
    """Samples of which some join every mini-batch, as trigger samples join clean ones (T2S, eq. 1).

    Attributes:
        inputs: ``[M, ...]`` uint8 or float32.
        targets: ``[M]`` int64.
        per_batch: how many join each batch, drawn without replacement from a running shuffle.
    """

    inputs: Tensor
    targets: Tensor
    per_batch: int


def fit(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    recipe: Recipe,
    seed: int,
    runtime: Runtime | None = None,
    mixed: Mixed | None = None,
    frozen: Sequence[nn.Module] = (),
    description: str = "training",
) -> tuple[float, ...]:
    """Train a model in place with cross-entropy; the global generators are untouched.

    Args:
        model: maps ``[B, ...]`` to logits ``[B, C]``; left in eval mode. One that takes floats alone is given them decoded.
        inputs: ``[N, ...]`` uint8 or float32.
        targets: ``[N]`` int64 labels, or ``[N, C]`` float probabilities (soft labels).
        recipe: optimiser, schedule, augmentation.
        seed: of the order of batches, the augmentation and dropout.
        runtime: device, precision, progress.
        mixed: samples of which some join every batch; never augmented. With soft labels they are one-hot.
        frozen: modules that run in eval mode all along; the caller stops their gradients.
        description: what the progress bar says.

    Returns:
        The mean training loss of every epoch.

    Raises:
        ShapeMismatch: when inputs and targets do not fit each other.
        BadData: when there is nothing to train on, or the loss is no longer finite.
    """
    runtime = runtime or Runtime()
    if len(inputs) == 0 or len(targets) != len(inputs):
        raise ShapeMismatch(
            f"{len(inputs)} inputs and {len(targets)} targets: training needs one target an input, and some of both"
        )
    device = runtime.torch_device
    inputs, targets, run = inputs.to(device), targets.to(device), runtime.compiled(model)
    extra = None if mixed is None else Rotation(mixed.inputs.to(device), mixed.targets.to(device), mixed.per_batch)

    def draw(chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        images, wanted = augment(inputs[chosen], recipe.augment, generator), targets[chosen]
        if extra is not None:
            images, wanted = _join(images, wanted, *extra.draw(generator))
        return images, wanted

    def loss(images: Tensor, wanted: Tensor) -> Tensor:
        with runtime.autocast():
            logits = run(images)
        return F.cross_entropy(logits.float(), wanted)

    return descend(
        model,
        len(inputs),
        draw,
        loss,
        recipe=recipe,
        seed=seed,
        runtime=runtime,
        frozen=frozen,
        description=description,
    )


def descend(
    model: nn.Module,
    count: int,
    draw: Callable[[Tensor, torch.Generator], tuple[Tensor, ...]],
    loss: Loss,
    *,
    recipe: Recipe,
    seed: int,
    runtime: Runtime,
    frozen: Sequence[nn.Module] = (),
    stop: Callable[[], bool] | None = None,
    description: str = "training",
) -> tuple[float, ...]:
    """The loop under all training with one loss: epochs, batches, schedule, steps; the global generators are untouched.

    Args:
        model: is moved to the runtime's device and left in eval mode.
        count: examples, at least one.
        draw: called as ``draw(chosen, generator)`` with the positions ``[B]`` of a batch, on the device, and the generator (on
            the CPU) that augmentation draws from; gives the batch's tensors, on the device, of the same shapes every time.
        loss: called with these tensors; gives a scalar. It runs the model, under :meth:`Runtime.autocast`, and does the same
            every time: on a GPU it is recorded, see :func:`heirmark.cuda_graphs.gradients_of`.
        recipe: optimiser and schedule; augmentation is up to the loss.
        seed: of the order of batches, the augmentation and dropout.
        runtime: device, precision, progress.
        frozen: modules that run in eval mode all along.
        stop: asked after every epoch whether it was the last; may run the model, and leaves its mode as it is.
        description: what the progress bar says.

    Returns:
        The mean loss of every epoch that was run.

    Raises:
        BadData: when the loss is no longer finite, or batches of one example meet a BatchNorm that needs more.
    """
    device = runtime.torch_device
    model.to(device)
    batch = min(recipe.batch_size, count)
    per_epoch = count // batch
    steps = recipe.epochs * per_epoch
    optimizer = make_optimizer(model, recipe)
    losses: list[float] = []
    with seeded(seed), entering(model):
        generator = generator_of(seed)
        model.train()
        for module in frozen:
            module.eval()
        gradients = gradients_of(model, loss, runtime=runtime, steps=steps)
        for epoch in range(recipe.epochs):
            order = to_device(torch.randperm(count, generator=generator), device)
            total = torch.zeros((), device=device)
            for k in range(per_epoch):
                step = epoch * per_epoch + k
                for group in optimizer.param_groups:
                    group["lr"] = recipe.rate(step, steps, per_epoch)
                try:
                    value = gradients(*draw(order[k * batch : (k + 1) * batch], generator))
                except ValueError as error:
                    if batch > 1 or "more than 1 value per channel" not in str(error):
                        raise
                    raise BadData(
                        "BatchNorm cannot train on batches of one example: raise batch_size, or give it more examples"
                    ) from error
                optimizer.step()
                total += value
                runtime.progress(description, step + 1, steps)
            losses.append(float(total) / per_epoch)
            check_finite(losses[-1], epoch)
            if stop is not None and stop():
                break
    model.zero_grad(set_to_none=True)
    model.eval()
    return tuple(losses)


def check_finite(loss: float, epoch: int) -> None:
    """Make sure that the mean loss of a 0-based epoch is a number.

    Raises:
        BadData: when it is not.
    """
    if not math.isfinite(loss):
        raise BadData(
            f"the training loss became {loss} in epoch {epoch + 1}: lower learning_rate, or use a model with BatchNorm"
        )


def accuracy(model: nn.Module, split: Split, *, runtime: Runtime | None = None) -> float:
    """Share of a split that a model classifies as labelled, in [0, 1]."""
    return float((outputs_of(model, split.inputs, runtime=runtime).argmax(1) == split.labels).double().mean())


def augment(images: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Augment a batch where it lies.

    Args:
        images: ``[B, C, H, W]`` uint8 or float.
        kind: ``"none"``, ``"flip"`` or ``"crop-flip"``.
        generator: on the CPU.

    Returns:
        A batch of the same shape.

    Raises:
        BadConfig: for inputs that are not images.
    """
    drawn = draw_moves(len(images), kind, generator)
    return move(images, kind, tuple(to_device(each, images.device) for each in drawn))


def draw_moves(count: int, kind: str, generator: torch.Generator) -> tuple[Tensor, ...]:
    """What :func:`augment` draws for a batch: nothing, who is flipped ``[count]``, and corners ``[count, 2]`` below 9."""
    if kind == "none":
        return ()
    flipped = torch.rand(count, generator=generator) < 0.5
    return (flipped,) if kind == "flip" else (flipped, torch.randint(9, (2, count), generator=generator).T)


def move(images: Tensor, kind: str, drawn: tuple[Tensor, ...]) -> Tensor:
    """Flip and shift ``[B, C, H, W]`` images as was drawn, where they lie; see :func:`augment`."""
    if kind == "none":
        return images
    if images.ndim != 4:
        raise BadConfig(f"augmentation {kind!r} is for images [N, C, H, W]: set augment=none")
    count, _, height, width = images.shape
    images = torch.where(drawn[0][:, None, None, None], images.flip(3), images)
    if kind == "flip":
        return images
    padded = F.pad(images, (4, 4, 4, 4))
    corner = drawn[1].T
    rows = corner[0][:, None] + torch.arange(height, device=images.device)
    columns = corner[1][:, None] + torch.arange(width, device=images.device)
    index = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class Rows:
    """Draws positions below ``count`` without replacement until all are used up, then shuffles anew."""

    def __init__(self, count: int, per_batch: int) -> None:
        self.count, self.per_batch = count, per_batch
        self.queue = torch.empty(0, dtype=torch.long)

    def draw(self, generator: torch.Generator) -> Tensor:
        """The next ``[per_batch]`` positions, on the CPU."""
        while len(self.queue) < self.per_batch:
            self.queue = torch.cat([self.queue, torch.randperm(self.count, generator=generator)])
        chosen, self.queue = self.queue[: self.per_batch], self.queue[self.per_batch :]
        return chosen


class Rotation:
    """Draws from a fixed set without replacement until it is used up, then shuffles anew."""

    def __init__(self, inputs: Tensor, targets: Tensor, per_batch: int) -> None:
        if len(inputs) == 0 or len(inputs) != len(targets):
            raise ShapeMismatch(
                f"{len(inputs)} mixed-in inputs and {len(targets)} targets: there must be some, one target each"
            )
        self.inputs, self.targets = inputs, targets
        self.rows = Rows(len(inputs), per_batch)

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The next ``[per_batch, ...]`` inputs as they are stored, and their targets."""
        chosen = to_device(self.rows.draw(generator), self.inputs.device)
        return self.inputs[chosen], self.targets[chosen]


def _join(images: Tensor, wanted: Tensor, extra: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    if wanted.ndim == 2:
        return join([images, extra]), torch.cat([wanted, F.one_hot(labels, wanted.shape[1]).to(wanted.dtype)])
    return join([images, extra]), torch.cat([wanted, labels])


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser of a recipe over the parameters that require a gradient."""
    return optimizer_over(model.parameters(), recipe)


def optimizer_over(tensors: Iterable[Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser of a recipe over those of some tensors that require a gradient."""
    parameters = [parameter for parameter in tensors if parameter.requires_grad]
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        parameters,
        recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )
