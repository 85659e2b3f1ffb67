"""What removal attacks share: a copy to work on, its layers, and training of a part of it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor, nn

from heirmark.attacks.base import Removal, brief_retraining
from heirmark.errors import BadConfig
from heirmark.models import CUSTOM, Net
from heirmark.runtime import Runtime, derive_seed, generator_of, seeded
from heirmark.tasks.task import Split
from heirmark.training.fitting import Mixed, Recipe, fit

TUNING = Recipe(epochs=20, batch_size=100, learning_rate=0.001, schedule="constant")
"""Fine-tuning as in Adi's public code: SGD 0.001, momentum 0.9, weight decay 5e-4, 20 epochs of 100, no schedule."""

RETRAINING = Recipe(epochs=20, batch_size=128, optimizer="adam", learning_rate=1e-3, weight_decay=0.0)
"""For attacks that teach a model something new: Adam 1e-3, the rate at which MEA-Defender trains; epochs and cosine are ours."""


def head_of(model: nn.Module) -> nn.Module:
    """The last layer of a model.

    Raises:
        BadConfig: when the model does not say which it is.
    """
    head = getattr(model, "head", None)
    if not isinstance(head, nn.Module):
        raise BadConfig(
            f"{type(model).__name__} has no layer called .head, which this attack works on: "
            "give the model one, or choose an attack on all layers"
        )
    return head


def replace_head(model: nn.Module, head: nn.Module) -> None:
    """Change the last layer of a model in place, also where ``.head`` is a property that names another part.

    Raises:
        BadConfig: when the model has no ``.head``, or one that is no part of it, such as a property that puts it together anew.
    """
    old = head_of(model)
    paths = [name for name, part in model.named_modules(remove_duplicate=False) if part is old]
    if not paths:
        raise BadConfig(
            f"the .head of {type(model).__name__} is none of its parts, so that another one cannot take its place: "
            "make it one in __init__ and use it in forward, or choose an attack that keeps the head"
        )
    for path in paths:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, head)


def reinitialise(module: nn.Module, *, seed: int) -> None:
    """Give a module and all its parts fresh weights in place; the global generator is untouched.

    Raises:
        BadConfig: when a part has weights and does not know how they start.
    """
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    module.cpu()  # every device draws other numbers
    with seeded(seed):
        for part in module.modules():
            reset = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
            if callable(reset):
                reset()
            elif next(part.parameters(recurse=False), None) is not None:
                raise BadConfig(f"{type(part).__name__} has no reset_parameters(), which a fresh start needs: add it")
    module.to(device)


def fresh_like(held: Net, *, seed: int) -> Net:
    """A model of the same architecture as another, with fresh weights.

    Raises:
        BadConfig: when it is a user's own, and a part of it does not know how its weights start.
    """
    if held.spec.name != CUSTOM:
        return replace(held, model=held.spec.build(seed=seed))
    model = held.working_copy()  # its factory is not at hand
    reinitialise(model, seed=seed)
    return replace(held, model=model)


def fresh_head(head: nn.Module, classes: int, *, seed: int) -> nn.Module:
    """A last layer like another, with fresh weights, for another number of classes.

    Args:
        head: a linear layer, or modules of which the last with weights is one; stays as it is.
        classes: number of logits.
        seed: of the weights.

    Raises:
        BadConfig: when the head does not end in a linear layer.
    """
    fresh = deepcopy(head)
    owners = [name for name, part in fresh.named_modules() if next(part.parameters(recurse=False), None) is not None]
    last = fresh.get_submodule(owners[-1]) if owners else fresh
    if not isinstance(last, nn.Linear):
        raise BadConfig(
            f"the model's .head ends in a {type(last).__name__}, not in a linear layer: choose another attack"
        )
    with seeded(seed):  # so that the global generators stay untouched; its weights are drawn anew below
        wider = nn.Linear(last.in_features, classes, bias=last.bias is not None).to(last.weight)
    if owners[-1]:
        parent, _, name = owners[-1].rpartition(".")
        setattr(fresh.get_submodule(parent), name, wider)
    else:
        fresh = wider
    reinitialise(fresh, seed=seed)
    return fresh


def tune(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    recipe: Recipe,
    seed: int,
    runtime: Runtime | None,
    part: nn.Module | None = None,
    mixed: Mixed | None = None,
    description: str,
) -> None:
    """Train a model, or one part of it alone, in place; see :func:`heirmark.training.fitting.fit`.

    Args:
        model: left in eval mode; which parameters require a gradient is left to :func:`finish`.
        inputs: ``[N, ...]`` uint8 or float32.
        targets: ``[N]`` int64 labels or ``[N, C]`` soft labels.
        recipe: optimiser and schedule.
        seed: of the order of batches and of dropout.
        runtime: device, precision, progress.
        part: the only one that changes; all others run in eval mode, so that no statistic drifts. None trains all.
        mixed: samples of which some join every batch.
        description: what the progress bar says.

    Raises:
        BadConfig: when there is nothing to train.
    """
    if not any(True for _ in (model if part is None else part).parameters()):
        raise BadConfig(f"{type(model).__name__} has no weights that could be trained: choose another attack")
    model.requires_grad_(part is None)
    frozen: list[nn.Module] = []
    if part is not None:
        part.requires_grad_(True)
        inside = set(part.modules())
        # What holds the part keeps its mode, because eval() would reach down to the part.
        frozen = [one for one in model.modules() if one not in inside and part not in set(one.modules())]
    fit(
        model,
        inputs,
        targets,
        recipe=recipe,
        seed=seed,
        runtime=runtime,
        mixed=mixed,
        frozen=frozen,
        description=description,
    )


def drawn(count: int, limit: int | None, *, seed: int) -> Tensor:
    """Up to ``limit`` positions below ``count``, in random order."""
    return torch.randperm(count, generator=generator_of(seed))[:limit]


@dataclass(frozen=True, kw_only=True)
class Tuning(Removal):
    """An attack that tunes the model on the adversary's labelled data, and what joins these.

    Attributes:
        recipe: of the tuning; see :data:`heirmark.attacks.removal.parts.RETRAINING`.
    """

    recipe: Recipe = field(default=RETRAINING)

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes; see :class:`heirmark.attacks.base.Attack`."""
        return cls(recipe=brief_retraining(recipe))

    def tuned(
        self,
        copy: Net,
        data: Split,
        description: str,
        *,
        seed: int,
        runtime: Runtime,
        part: nn.Module | None = None,
        mixed: Mixed | None = None,
    ) -> Net:
        """The copy, tuned in place; see :func:`tune`."""
        tune(
            copy.model,
            data.inputs,
            data.labels,
            recipe=self.recipe,
            seed=derive_seed(seed, "tuning"),
            runtime=runtime,
            part=part,
            mixed=mixed,
            description=description,
        )
        return copy
