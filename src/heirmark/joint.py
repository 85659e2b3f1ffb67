"""Fit one net to several losses at once: a clean batch with parts of other samples in it, every loss its weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heirmark.errors import BadConfig, BadData, ShapeMismatch
from heirmark.layout import entering
from heirmark.mgda import Normalisation, mgda_weights
from heirmark.runtime import Runtime, generator_of, seeded, to_device
from heirmark.space import decode, join
from heirmark.task import Split
from heirmark.training import Recipe, Rows, augment, make_optimizer

__all__ = ["Answers", "Extra", "Losses", "Phase", "Weigh", "fit_jointly", "fit_phases", "fixed", "mgda"]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of joint training.

    Attributes:
        recipe: optimiser and schedule; its ``batch_size`` counts the clean samples of a batch.
        extras: how many samples of each extra set join a batch; 0 leaves a set out.
        share: of the clean data that an epoch goes through, in (0, 1].
    """

    recipe: Recipe
    extras: tuple[int, ...]
    share: float = 1.0

    def __post_init__(self) -> None:
        if any(count < 0 for count in self.extras) or not 0 < self.share <= 1:
            raise BadConfig(f"extras may not be negative and share must lie in (0, 1]: {self.extras}, {self.share}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Extra:
    """Samples that join clean batches; never augmented, nor are their companions.

    Attributes:
        inputs: ``[M, ...]``.
        targets: ``[M]`` int64.
        companions: ``[M, K, ...]`` samples whose logits are wanted beside those of row i, without a gradient; K may be 0.
        change: called as ``change(inputs, targets)`` with those of a step, float32 on the device, before the model is asked
            about what it returns; it may ask the model itself, and leaves its modes and gradients as they are.
    """

    inputs: Tensor
    targets: Tensor
    companions: Tensor
    change: Callable[[Tensor, Tensor], Tensor] | None = None

    @staticmethod
    def alone(inputs: Tensor, targets: Tensor) -> Extra:
        """Samples without companions."""
        return Extra(inputs=inputs, targets=targets, companions=inputs[:, None][:, :0])


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What the net says to one set of samples of a batch.

    Attributes:
        logits: ``[m, C]`` float32.
        targets: ``[m]`` int64.
        companions: ``[m, K, C]`` detached logits of the companions.
    """

    logits: Tensor
    targets: Tensor
    companions: Tensor


Losses = Callable[[Answers, Sequence[Answers | None]], Mapping[str, Tensor]]
"""``losses(clean, extras)``: scalars by name; an extra set that is left out of the phase is None."""

Weigh = Callable[[Mapping[str, Tensor], Sequence[Tensor]], Mapping[str, float]]
"""``weigh(losses, parameters)``: a weight for every loss."""


def fixed(weights: Mapping[str, float]) -> Weigh:
    """The same weights at every step; a loss that has none counts once."""
    return lambda losses, parameters: {name: weights.get(name, 1.0) for name in losses}


def mgda(normalisation: Normalisation, together: Sequence[str] = ()) -> Weigh:
    """Weights by MGDA, anew at every step: one backward pass a loss.

    Args:
        normalisation: see :func:`heirmark.mgda.mgda_weights`.
        together: losses that are first weighed among themselves, and then count as one. Two losses that pull against each other
            would take nearly all weight from the rest: their sum is short whatever the others do.
    """

    def weigh(losses: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> Mapping[str, float]:
        gradients = {
            name: [
                torch.zeros_like(parameter) if grad is None else grad
                for parameter, grad in zip(
                    parameters,
                    torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True),
                    strict=True,
                )
            ]
            for name, loss in losses.items()
        }
        # In double precision: weights that are Python's numbers multiply them without a further rounding.
        values = {name: loss.detach().double() for name, loss in losses.items()}

        def weights(names: Iterable[str]) -> list[float]:
            chosen = list(names)
            stacked = torch.stack([values[name] for name in chosen])
            return mgda_weights([gradients[name] for name in chosen], stacked, normalisation)

        inner = [name for name in losses if name in together]
        if len(inner) < 2:
            return dict(zip(losses, weights(losses), strict=True))
        shares, first = weights(inner), values[inner[0]]
        joined = [
            torch.stack([share * part for share, part in zip(shares, parts, strict=True)]).sum(0)
            for parts in zip(*(gradients[name] for name in inner), strict=True)
        ]
        outer = [name for name in losses if name not in together]
        value = sum(
            (share * values[name] for share, name in zip(shares, inner, strict=True)), start=torch.zeros_like(first)
        )
        whole, *rest = mgda_weights(
            [joined, *(gradients[name] for name in outer)],
            torch.stack([value, *(values[name] for name in outer)]),
            normalisation,
        )
        return {name: whole * share for name, share in zip(inner, shares, strict=True)} | dict(
            zip(outer, rest, strict=True)
        )

    return weigh


def fit_jointly(
    model: nn.Module,
    data: Split,
    extras: Sequence[Extra],
    losses: Losses,
    phase: Phase,
    *,
    seed: int,
    weigh: Weigh | None = None,
    on_epoch: Callable[[int], None] | None = None,
    runtime: Runtime | None = None,
    description: str = "training",
) -> tuple[Mapping[str, float], ...]:
    """Train a model in place; the global generators are untouched.

    All samples of a step go through the net in one batch, as they would if they lay mixed in one training set.

    Args:
        model: maps ``[B, ...]`` to logits ``[B, C]``; left in eval mode. One that takes floats alone is given them decoded.
        data: clean examples.
        extras: sets of samples that join.
        losses: see :data:`Losses`.
        phase: how.
        seed: of batches, augmentation and dropout.
        weigh: see :data:`Weigh`; default: all losses count once.
        on_epoch: called with the 0-based epoch before it starts; may run the model, in whatever mode.
        runtime: device, precision, progress.
        description: what the progress bar says.

    Returns:
        One row an epoch: its number, the mean of every loss, and its mean weight as ``weight of ...``.

    Raises:
        ShapeMismatch: when the phase and the extra sets do not fit each other.
        BadData: when a loss is no longer finite.
    """
    runtime = runtime or Runtime()
    if len(phase.extras) != len(extras) or any(
        count and not len(extra.inputs) for count, extra in zip(phase.extras, extras, strict=False)
    ):
        raise ShapeMismatch(
            f"the phase takes {phase.extras} of {[len(extra.inputs) for extra in extras]} extra samples: "
            "give one number a set, and no sample of an empty one"
        )
    device, recipe = runtime.torch_device, phase.recipe
    model.to(device)
    inputs, labels = data.inputs.to(device), data.labels.to(device)
    queues = [_Queue(extra, count, device) for extra, count in zip(extras, phase.extras, strict=True)]
    count = max(1, round(phase.share * len(inputs)))
    batch = min(recipe.batch_size, count)
    per_epoch = count // batch
    steps = recipe.epochs * per_epoch
    optimizer = make_optimizer(model, recipe)
    weigh = weigh or fixed({})
    rows: list[Mapping[str, float]] = []
    with seeded(seed), entering(model):
        generator = generator_of(seed)
        for epoch in range(recipe.epochs):
            if on_epoch is not None:
                on_epoch(epoch)
            model.train()
            order = to_device(torch.randperm(len(inputs), generator=generator), device)
            totals: dict[str, float | Tensor] = {}
            for k in range(per_epoch):
                step = epoch * per_epoch + k
                for group in optimizer.param_groups:
                    group["lr"] = recipe.rate(step, steps, per_epoch)
                chosen = order[k * batch : (k + 1) * batch]
                clean = augment(inputs[chosen], recipe.augment, generator)
                answers = _ask(model, clean, labels[chosen], [queue.draw(generator) for queue in queues], runtime)
                found = losses(answers[0], [answer if len(answer.targets) else None for answer in answers[1:]])
                trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
                weights = weigh(found, trained)
                total = torch.stack([weights[name] * loss for name, loss in found.items()]).sum()
                optimizer.zero_grad(set_to_none=True)
                total.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                for name, loss in found.items():
                    totals[name] = totals.get(name, 0.0) + loss.detach()
                    totals[f"weight of {name}"] = totals.get(f"weight of {name}", 0.0) + weights[name]
                runtime.progress(description, step + 1, steps)
            rows.append({"epoch": epoch + 1.0, **{name: float(total) / per_epoch for name, total in totals.items()}})
            wrong = [name for name, value in rows[-1].items() if not math.isfinite(value)]
            if wrong:
                raise BadData(
                    f"{wrong[0]} became {rows[-1][wrong[0]]} in epoch {epoch + 1}: "
                    "lower learning_rate, or use a model with BatchNorm"
                )
    model.eval()
    return tuple(rows)


def fit_phases(
    model: nn.Module,
    data: Split,
    extras: Sequence[Extra],
    losses: Losses,
    phases: Sequence[Phase],
    *,
    seeds: Sequence[int],
    weigh: Weigh | None = None,
    on_epoch: Callable[[int], None] | None = None,
    runtime: Runtime | None = None,
) -> tuple[Mapping[str, float], ...]:
    """One phase after another, each from where the last ended; see :func:`fit_jointly`.

    Args:
        model: trained in place.
        data: clean examples.
        extras: sets of samples that join.
        losses: see :data:`Losses`.
        phases: how, in order.
        seeds: one a phase.
        weigh: see :data:`Weigh`.
        on_epoch: called with the 0-based epoch of its phase before it starts.
        runtime: device, precision, progress.

    Returns:
        The rows of all phases, epochs counted through, with the 1-based ``phase``.
    """
    history: list[Mapping[str, float]] = []
    for number, (phase, seed) in enumerate(zip(phases, seeds, strict=True), 1):
        rows = fit_jointly(
            model,
            data,
            extras,
            losses,
            phase,
            seed=seed,
            weigh=weigh,
            on_epoch=on_epoch,
            runtime=runtime,
            description=f"embedding, phase {number}",
        )
        history += [{**row, "epoch": row["epoch"] + len(history), "phase": float(number)} for row in rows]
    return tuple(history)


class _Queue:
    """An extra set in rotation, on the device."""

    def __init__(self, extra: Extra, count: int, device: torch.device) -> None:
        self.inputs, self.targets = extra.inputs.to(device), extra.targets.to(device)
        self.companions, self.rows = extra.companions.to(device), Rows(len(extra.inputs), count)
        self.change = extra.change

    def draw(self, generator: torch.Generator) -> Extra:
        rows = to_device(self.rows.draw(generator), self.inputs.device)
        inputs, targets = self.inputs[rows], self.targets[rows]
        if self.change is not None and len(rows):
            inputs = self.change(decode(inputs), targets)
        return Extra(inputs=inputs, targets=targets, companions=self.companions[rows])


def _ask(model: nn.Module, clean: Tensor, labels: Tensor, drawn: list[Extra], runtime: Runtime) -> list[Answers]:
    """One forward pass over everything, cut up again."""
    parts = [clean]
    for extra in drawn:
        parts += [extra.inputs, extra.companions.flatten(0, 1)]
    with runtime.autocast():
        logits = model(join(parts)).float()
    pieces = list(logits.split([len(part) for part in parts]))
    answers = [Answers(logits=pieces[0], targets=labels, companions=pieces[0][:, None][:, :0].detach())]
    for extra, own, others in zip(drawn, pieces[1::2], pieces[2::2], strict=True):
        companions = others.detach().reshape(*extra.companions.shape[:2], others.shape[1])
        answers.append(Answers(logits=own, targets=extra.targets, companions=companions))
    return answers
