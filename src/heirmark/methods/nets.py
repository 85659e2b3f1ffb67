"""Nets that methods train, and what they start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from heirmark.errors import BadConfig
from heirmark.models import Architecture, ModelSpec, Net, fresh_net, specify
from heirmark.models.from_transformers import tokenizer_of
from heirmark.querying.layout import copied
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.media import digest_of
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Mixed, Recipe, fit


def train_from_scratch(
    task: Task,
    architecture: Architecture,
    recipe: Recipe,
    *,
    seed: int,
    runtime: Runtime,
    data: Split | None = None,
    mixed: Mixed | None = None,
) -> nn.Module:
    """A freshly initialised model trained by cross-entropy: an unmarked one, or a vanilla watermarked one (T2S, eq. 1).

    Args:
        task: gives shapes, and the owner's split.
        architecture: of the model.
        recipe: of the training.
        seed: of initialisation and training.
        runtime: device, precision, progress.
        data: clean examples in place of the owner's split.
        mixed: trigger samples that join each batch, if any.
    """
    data, kind = data or task.owner, "clean" if mixed is None else "watermarked"
    model = new_model(task, architecture, seed=derive_seed(seed, kind, "init"))
    fit(
        model,
        data.inputs,
        data.labels,
        recipe=recipe,
        seed=derive_seed(seed, kind, "training"),
        runtime=runtime,
        mixed=mixed,
        description=f"training {'unmarked' if mixed is None else kind}",
    )
    return model


def spec_for(task: Task, architecture: Architecture) -> ModelSpec:
    """The specification of an architecture for a task.

    Raises:
        BadConfig: for an unknown one, or a pretrained net of texts that reads them by another tokenizer.
    """
    spec = specify(architecture, input_shape=task.input_shape, classes=len(task.classes))
    if spec.config and (task.medium is None or tokenizer_of(spec.config) != digest_of(task.medium)):
        folder = spec.source.rpartition("#")[0]
        raise BadConfig(
            f"{spec.name} reads texts by its own tokenizer, and those of {task.name} have another: give "
            f"--data {task.name}:tokenizer={folder}"
        )
    return spec


def net_of(model: nn.Module, task: Task, architecture: Architecture) -> Net:
    """A model of an architecture for a task, put in eval mode."""
    return Net(model=model.eval(), spec=spec_for(task, architecture))


def new_model(task: Task, architecture: Architecture, *, seed: int) -> nn.Module:
    """A freshly initialised model for a task."""
    return fresh_net(architecture, input_shape=task.input_shape, classes=task.num_classes, seed=seed).model


def own_model(
    task: Task, architecture: Architecture, recipe: Recipe, clean: nn.Module | None, *, seed: int, runtime: Runtime
) -> nn.Module:
    """The owner's unmarked model: the one that was given, see :meth:`heirmark.models.Net.askable`, or else trained."""
    if clean is None:
        return train_from_scratch(task, architecture, recipe, seed=seed, runtime=runtime)
    return Net(model=clean, spec=spec_for(task, architecture)).askable()


def start_from(model: nn.Module, task: Task, architecture: Architecture) -> nn.Module:
    """A copy of a model, to be marked. Layers that it freezes stay as they are, running statistics and all; see :class:`Held`.

    Args:
        model: stays as it is.
        task: gives shapes.
        architecture: that the marked model is said to have.

    Raises:
        BadConfig: when the model is of another: what is saved of it could not be loaded again.
    """
    return start_from_spec(model, spec_for(task, architecture), new_model(task, architecture, seed=0))


def start_from_spec(model: nn.Module, spec: ModelSpec, built: nn.Module) -> nn.Module:
    """The same for what a specification says, of which one has been ``built``; see :func:`start_from`."""
    wanted = {name: tensor.shape for name, tensor in built.state_dict().items()}
    if wanted != {name: tensor.shape for name, tensor in model.state_dict().items()}:
        raise BadConfig(
            f"the model to start from is not of the architecture {spec.name!r} with the options that "
            "the method has: give one that is, or set model"
        )
    copy = copied(model)
    if parts := frozen_parts(copy):
        copy.register_forward_pre_hook(Held(parts=parts))
    return copy


def unfrozen(model: nn.Module) -> nn.Module:
    """A model all of whose weights may be trained, as a thief trains them: itself, or a copy where it freezes some."""
    if all(weight.requires_grad for weight in model.parameters()):
        return model
    return copied(model).requires_grad_(True)


def frozen_parts(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules of which no weight requires a gradient, the outermost alone; none that has no weight at all.

    Examples:
        >>> net = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), nn.ReLU(), nn.Linear(2, 2))
        >>> _ = net[0].requires_grad_(False)
        >>> frozen_parts(net)
        ('0',)
    """
    found: list[str] = []
    for name, module in model.named_modules():
        flags = [weight.requires_grad for weight in module.parameters()]
        inside = any(name.startswith(f"{outer}.") or not outer for outer in found)
        if flags and not any(flags) and not inside:
            found.append(name)
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Held:
    """Runs frozen parts of a model in eval mode whatever its own, as a forward pre-hook: else BatchNorm would go on learning.

    Attributes:
        parts: names of modules.
    """

    parts: tuple[str, ...]

    def __call__(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        """Put the parts in eval mode."""
        for name in self.parts:
            module.get_submodule(name).eval()


def released(model: nn.Module) -> nn.Module:
    """The model without the hook that held its frozen parts while it was marked."""
    for number, hook in list(model._forward_pre_hooks.items()):
        if isinstance(hook, Held):
            del model._forward_pre_hooks[number]
    return model
