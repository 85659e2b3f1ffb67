"""Nets that methods train, and what they start from."""

from __future__ import annotations

from torch import nn

from heirmark.errors import BadConfig
from heirmark.models import Architecture, ModelSpec, Net, fresh_net, specify
from heirmark.querying.layout import copied
from heirmark.runtime import Runtime, derive_seed
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
    """The specification of an architecture for a task."""
    return specify(architecture, input_shape=task.input_shape, classes=len(task.classes))


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
    """A copy of a model, to be marked.

    Args:
        model: stays as it is.
        task: gives shapes.
        architecture: that the marked model is said to have.

    Raises:
        BadConfig: when the model is of another: what is saved of it could not be loaded again.
    """
    wanted = {name: tensor.shape for name, tensor in new_model(task, architecture, seed=0).state_dict().items()}
    if wanted != {name: tensor.shape for name, tensor in model.state_dict().items()}:
        raise BadConfig(
            f"the model to start from is not of the architecture {spec_for(task, architecture).name!r} with the options that "
            "the method has: give one that is, or set model"
        )
    return copied(model)
