"""Fit one net to several losses at once: a clean batch with parts of other samples in it, every loss its weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor, nn

from heirmark.configuration import above, at_least, at_most, checked
from heirmark.errors import BadConfig
from heirmark.runtime import Runtime
from heirmark.tasks.storing import decode, join
from heirmark.tasks.task import Split
from heirmark.training.augmenting import augment
from heirmark.training.batches import Batches
from heirmark.training.fitting import Recipe, descend
from heirmark.training.mgda import Normalisation, mgda_weights
from heirmark.training.samples import Joining, Samples, check_answered
from heirmark.training.steps import Weights, backward

__all__ = ["Extra", "JointLosses", "Outputs", "Phase", "check_sets", "fit_jointly", "fit_phases", "mgda"]


@dataclass(frozen=True, kw_only=True)
@checked
class Phase:
    """One stretch of joint training.

    Attributes:
        recipe: optimiser and schedule; its ``batch_size`` counts the clean samples of a batch.
        extras: how many samples of each set join a batch, by the set's name; a set that is not named is left out.
        share: of the clean data that an epoch goes through, in (0, 1].
    """

    recipe: Recipe
    extras: Mapping[str, Annotated[int, at_least(0)]] = field(default_factory=dict, hash=False)
    share: Annotated[float, above(0), at_most(1)] = 1.0


def check_sets(phases: Iterable[Phase], *names: str) -> None:
    """Make sure that phases name no other sets of samples than these.

    Raises:
        BadConfig: when one does.
    """
    for name in {name for phase in phases for name in phase.extras} - {*names}:
        raise BadConfig(f"no samples {name!r} join a batch here: extras of a phase count {' and '.join(names)} samples")


@dataclass(frozen=True, kw_only=True, eq=False)
class Extra:
    """Samples that join clean batches; never augmented, nor are their companions.

    Attributes:
        samples: to join.
        companions: ``[M, K, ...]`` samples whose logits are wanted beside those of row i, without a gradient; None for none.
        change: called as ``change(inputs, targets)`` with those of a step, float32 on the device, before the model is asked
            about what it returns; it may ask the model itself, and leaves its modes and gradients as they are.
    """

    samples: Samples
    companions: Tensor | None = None
    change: Callable[[Tensor, Tensor], Tensor] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Outputs:
    """What the net says to one set of samples of a batch.

    Attributes:
        logits: ``[m, C]`` float32.
        targets: ``[m]`` int64.
        companions: ``[m, K, C]`` detached logits of the companions.
    """

    logits: Tensor
    targets: Tensor
    companions: Tensor


JointLosses = Callable[[Outputs, Mapping[str, Outputs]], Mapping[str, Tensor]]
"""``losses(clean, extras)``: scalars by name, of the clean samples and of each set that joins the phase's batches."""


def mgda(normalisation: Normalisation, together: Sequence[str] = ()) -> Weights:
    """Weights by MGDA, anew at every step: one backward pass a loss.

    Args:
        normalisation: see :func:`heirmark.training.mgda.mgda_weights`.
        together: losses that are first weighed among themselves, and then count as one. Two losses that pull against each other
            would take nearly all weight from the rest: their sum is short whatever the others do.
    """

    def weigh(losses: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> Mapping[str, float]:
        gradients = {name: _gradient(loss, parameters) for name, loss in losses.items()}
        # In double precision: weights that are Python's numbers multiply them without a further rounding.
        values = {name: loss.detach().double() for name, loss in losses.items()}

        def weights(names: Iterable[str]) -> dict[str, float]:
            chosen = list(names)
            stacked = torch.stack([values[name] for name in chosen])
            found = mgda_weights([gradients[name] for name in chosen], stacked, normalisation)
            return dict(zip(chosen, found, strict=True))

        inner = [name for name in losses if name in together]
        if len(inner) < 2:
            return weights(losses)
        shares = weights(inner)
        gradients[""] = [
            torch.stack([share * part for share, part in zip(shares.values(), parts, strict=True)]).sum(0)
            for parts in zip(*(gradients[name] for name in inner), strict=True)
        ]
        values[""] = torch.stack([share * values[name] for name, share in shares.items()]).sum()
        outer = weights(["", *(name for name in losses if name not in together)])
        whole = outer.pop("")
        return {name: whole * share for name, share in shares.items()} | outer

    return weigh


def _gradient(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Of one loss of several over the same graph; zero for a parameter that takes no part."""
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if grad is None else grad for p, grad in zip(parameters, found, strict=True)]


def fit_jointly(
    model: nn.Module,
    data: Split,
    extras: Mapping[str, Extra | None],
    losses: JointLosses,
    phase: Phase,
    *,
    seed: int,
    weights: Weights | None = None,
    recordable: bool = True,
    state: Sequence[Tensor] = (),
    before_epoch: Callable[[int], object] | None = None,
    views: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    runtime: Runtime | None = None,
    description: str = "training",
) -> tuple[Mapping[str, float], ...]:
    """Train a model in place; the global generators are untouched.

    All samples of a step go through the net in one batch, as they would if they lay mixed in one training set. The sets of
    ``extras`` join in their order, where the phase counts them; None stands for one that there is not. For all that is not told
    here see :func:`heirmark.training.steps.backward` and :func:`heirmark.training.fitting.descend`. With ``views`` clean samples
    are shown as it makes them of a batch, several for each perhaps, one set after another.

    Returns:
        One row an epoch: its number, the mean of every loss, and its mean weight as ``weight of ...``.

    Raises:
        BadConfig: when the phase names a set that there is not.
        ShapeMismatch: when it takes samples of a set that has none.
        BadData: when a loss is no longer finite.
    """
    runtime = runtime or Runtime()
    check_sets([phase], *extras)
    device, recipe = runtime.torch_device, phase.recipe
    batches, labels = Batches(data.inputs, device), data.labels.to(device)
    joining = {name: extra for name, extra in extras.items() if extra is not None and phase.extras.get(name)}
    samples = {name: _accompanied(extra) for name, extra in joining.items()}
    sets = {name: Joining(each, phase.extras[name], device) for name, each in samples.items()}
    sizes = [phase.extras[name] * k for name, each in samples.items() for k in (1, each.companions.shape[1])]

    def draw(chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        clean = batches[chosen]
        shown = augment(clean, recipe.augment, generator) if views is None else views(clean, generator)
        parts, targets = [shown], [labels[chosen].repeat(len(shown) // len(chosen))]
        for name, extra in joining.items():
            more = sets[name].draw(generator)
            own = more.inputs if extra.change is None else extra.change(decode(more.inputs), more.targets)
            parts += [own, more.companions.flatten(0, 1)]
            targets.append(more.targets)
        return join(parts), *targets

    def found(images: Tensor, clean: Tensor, *targets: Tensor) -> Mapping[str, Tensor]:
        with runtime.autocast():
            logits = model(images).float()
        first, *pieces = logits.split([len(clean), *sizes])
        answers = {
            name: Outputs(logits=own, targets=wanted, companions=others.detach().reshape(len(own), -1, own.shape[1]))
            for name, wanted, own, others in zip(sets, targets, pieces[::2], pieces[1::2], strict=True)
        }
        return losses(Outputs(logits=first, targets=clean, companions=first[:, None][:, :0].detach()), answers)

    return descend(
        model,
        len(data),
        draw,
        backward(model, found, weights or {}, recordable=recordable, state=state),
        batches=batches,
        recipe=recipe,
        seed=seed,
        runtime=runtime,
        share=phase.share,
        before_epoch=before_epoch,
        description=description,
    )


def fit_phases(
    model: nn.Module,
    data: Split,
    extras: Mapping[str, Extra | None],
    losses: JointLosses,
    phases: Sequence[Phase],
    *,
    seeds: Sequence[int],
    weights: Weights | None = None,
    recordable: bool = True,
    before_epoch: Callable[[int], object] | None = None,
    runtime: Runtime | None = None,
) -> tuple[Mapping[str, float], ...]:
    """:func:`fit_jointly` for one phase after another, each from where the last ended, and each with a seed of its own.

    Returns:
        The rows of all phases, epochs counted through, with the 1-based ``phase``; ``before_epoch`` counts those of its phase.
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
            weights=weights,
            recordable=recordable,
            before_epoch=before_epoch,
            runtime=runtime,
            description=f"embedding, phase {number}",
        )
        history += [{**row, "epoch": row["epoch"] + len(history), "phase": float(number)} for row in rows]
    return tuple(history)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Accompanied(Samples):
    """Samples and their companions ``[M, K, ...]``."""

    companions: Tensor


def _accompanied(extra: Extra) -> _Accompanied:
    check_answered("samples that join a batch", extra.samples)
    inputs, targets = extra.samples.inputs, extra.samples.targets
    companions = inputs[:, None][:, :0] if extra.companions is None else extra.companions
    return _Accompanied(inputs=inputs, targets=targets, companions=companions)
