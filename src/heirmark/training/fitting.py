"""Fit a classifier: batches that live on the device, augmentation there, mixed precision, one seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.configuration import above, at_least, below, checked
from heirmark.errors import BadConfig, BadData
from heirmark.querying.asking import outputs_of
from heirmark.querying.layout import entering
from heirmark.runtime import Runtime, generator_of, seeded, to_device
from heirmark.tasks.storing import join
from heirmark.tasks.task import Split
from heirmark.training.augmenting import augment
from heirmark.training.batches import Batches
from heirmark.training.cuda_graphs import recorded
from heirmark.training.samples import Joining, Samples, check_answered
from heirmark.training.steps import Gradients, Step, backward

__all__ = ["Mixed", "Recipe", "accuracy", "descend", "fit", "make_optimizer"]


@dataclass(frozen=True, kw_only=True)
@checked
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
        augment: ``"none"``, ``"flip"`` (left-right), ``"crop-flip"`` (4 pixels of zero padding too), or ``"shift"``
            (2 pixels of zero padding and no flip, for images of which a mirror image is another thing). Waves are moved by up
            to a tenth of their length where images are cropped or shifted, and are not flipped.
    """

    epochs: Annotated[int, at_least(0)] = 40
    batch_size: Annotated[int, at_least(1)] = 256
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Annotated[float, above(0)] = 0.1
    momentum: Annotated[float, at_least(0), below(1)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, at_least(0)] = 5e-4
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    step_epochs: Annotated[int, at_least(1)] = 10
    step_factor: Annotated[float, above(0)] = 0.5
    warmup: Annotated[float, at_least(0), below(1)] = 0.0
    augment: Literal["none", "flip", "crop-flip", "shift"] = "none"

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise BadConfig("nesterov needs a momentum above zero")

    def rate(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """Learning rate of a 0-based step of so many in the whole training.

        Examples:
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
        samples: to join.
        per_batch: how many join each batch, drawn without replacement from a running shuffle.
    """

    samples: Samples
    per_batch: int

    def __post_init__(self) -> None:
        check_answered("mixed-in inputs", self.samples)


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
    check_answered("inputs", Samples(inputs=inputs, targets=targets))
    device = runtime.torch_device
    batches, targets, run = Batches(inputs, device), targets.to(device), runtime.compiled(model)
    joining = None if mixed is None else Joining(mixed.samples, mixed.per_batch, device)

    def draw(chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        images, wanted = augment(batches[chosen], recipe.augment, generator), targets[chosen]
        if joining is not None:
            more = joining.draw(generator)
            labels = more.targets if wanted.ndim == 1 else F.one_hot(more.targets, wanted.shape[1]).to(wanted.dtype)
            images, wanted = join([images, more.inputs]), torch.cat([wanted, labels])
        return images, wanted

    def loss(images: Tensor, wanted: Tensor) -> Mapping[str, Tensor]:
        with runtime.autocast():
            logits = run(images)
        return {"loss": F.cross_entropy(logits.float(), wanted)}

    rows = descend(
        model,
        len(inputs),
        draw,
        backward(model, loss),
        batches=batches,
        recipe=recipe,
        seed=seed,
        runtime=runtime,
        frozen=frozen,
        description=description,
    )
    return tuple(row["loss"] for row in rows)


def descend(
    model: nn.Module,
    count: int,
    draw: Callable[[Tensor, torch.Generator], tuple[Tensor, ...]],
    step: Step,
    *,
    recipe: Recipe,
    seed: int,
    runtime: Runtime,
    batches: Batches | None = None,
    share: float = 1.0,
    frozen: Sequence[nn.Module] = (),
    before_epoch: Callable[[int], object] | None = None,
    after_epoch: Callable[[int], Mapping[str, float]] | None = None,
    stop: Callable[[], bool] | None = None,
    remedy: str = "lower learning_rate, or use a model with BatchNorm",
    description: str = "training",
) -> tuple[Mapping[str, float], ...]:
    """The loop under all training: epochs, batches, schedule, steps, history; the global generators are untouched.

    Args:
        model: is moved to the runtime's device and left in eval mode, without gradients.
        count: examples, at least one.
        draw: called as ``draw(chosen, generator)`` with the positions ``[B]`` of a batch, on the device, and the generator (on
            the CPU) that augmentation draws from; gives the batch's tensors, on the device, of the same shapes every time.
        step: called with these tensors. On a GPU it is recorded, see :func:`heirmark.training.cuda_graphs.recorded`.
        recipe: optimiser and schedule; augmentation is up to ``draw``.
        seed: of the order of batches, the augmentation and dropout.
        runtime: device, precision, progress.
        batches: from which ``draw`` takes the chosen examples, once a step; told of the order of every epoch.
        share: of the examples that an epoch goes through, in (0, 1].
        frozen: modules that run in eval mode all along.
        before_epoch: called with the 0-based epoch before it; may run the model, in whatever mode.
        after_epoch: called with the 0-based epoch after it; gives figures for its row, and leaves the model's mode as it is.
        stop: asked after every epoch whether it was the last; may run the model, and leaves its mode as it is.
        remedy: what is advised when a figure is no longer finite.
        description: what the progress bar says.

    Returns:
        One row for every epoch that was run: its 1-based number as ``epoch``, and the mean of every figure of its steps.

    Raises:
        BadData: when a figure is no longer finite, or batches of one example meet a BatchNorm that needs more.
    """
    device = runtime.torch_device
    model.to(device)
    used = max(1, round(share * count))
    batch = min(recipe.batch_size, used)
    per_epoch = used // batch
    steps = recipe.epochs * per_epoch
    optimizer = make_optimizer(model, recipe)
    rows: list[Mapping[str, float]] = []
    gradients: Gradients | None = None
    with seeded(seed), entering(model):
        generator = generator_of(seed)
        for epoch in range(recipe.epochs):
            if before_epoch is not None:
                before_epoch(epoch)
            model.train()
            for module in frozen:
                module.eval()
            gradients = gradients or recorded(model, step, runtime=runtime, steps=steps)
            order = torch.randperm(count, generator=generator)
            if batches is not None:
                batches.announce(order[: per_epoch * batch], batch)
            order = to_device(order, device)
            totals: dict[str, Tensor | float] = {}
            for k in range(per_epoch):
                number = epoch * per_epoch + k
                for group in optimizer.param_groups:
                    group["lr"] = recipe.rate(number, steps, per_epoch)
                try:
                    figures = gradients(*draw(order[k * batch : (k + 1) * batch], generator))
                except ValueError as error:
                    if batch > 1 or "more than 1 value per channel" not in str(error):
                        raise
                    raise BadData(
                        "BatchNorm cannot train on batches of one example: raise batch_size, or give it more examples"
                    ) from error
                optimizer.step()
                for name, value in figures.items():
                    totals[name] = totals.get(name, 0.0) + value
                runtime.progress(description, number + 1, steps)
            means = {name: float(total) / per_epoch for name, total in totals.items()}
            wrong = [name for name, mean in means.items() if not math.isfinite(mean)]
            if wrong:
                name = wrong[0].replace("_", " ")
                raise BadData(f"the training's {name} became {means[wrong[0]]} in epoch {epoch + 1}: {remedy}")
            watched = {} if after_epoch is None else after_epoch(epoch)
            rows.append({"epoch": epoch + 1.0, **watched, **means})
            if stop is not None and stop():
                break
    model.zero_grad(set_to_none=True)
    model.eval()
    return tuple(rows)


def accuracy(model: nn.Module, split: Split, *, runtime: Runtime | None = None) -> float:
    """Share of a split that a model classifies as labelled, in [0, 1]."""
    return float((outputs_of(model, split.inputs, runtime=runtime).argmax(1) == split.labels).double().mean())


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser of a recipe over the parameters that require a gradient.

    Raises:
        BadConfig: when there are none.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise BadConfig("no parameter of the model requires a gradient: unfreeze what is to train")
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        parameters,
        recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )
