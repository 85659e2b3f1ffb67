"""What lies inside a model: its layers in order, and what they give out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from heirmark.errors import BadConfig
from heirmark.querying.layout import entering, through_entry

NORMS = (
    nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.modules.instancenorm._InstanceNorm,
)  # fmt: skip


def layers_of(model: nn.Module) -> tuple[tuple[str, tuple[nn.Module, ...]], ...]:
    """The layers of a model, from the input on: modules with parameters of their own, by name.

    A normalisation belongs to the layer before it. The order is that in which the model registers its modules.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(2, 2))
        >>> [(name, len(modules)) for name, modules in layers_of(net)]
        [('0', 2), ('4', 1)]
    """
    layers: list[tuple[str, tuple[nn.Module, ...]]] = []
    for name, module in model.named_modules():
        if next(module.parameters(recurse=False), None) is None:
            continue
        if isinstance(module, NORMS) and layers:
            last, modules = layers[-1]
            layers[-1] = (last, (*modules, module))
        else:
            layers.append((name, (module,)))
    return tuple(layers)


def hidden_layers(model: nn.Module, count: int, names: Sequence[str] = ()) -> tuple[nn.Module, ...]:
    """Modules whose outputs stand for hidden layers.

    Args:
        model: any.
        count: how many, counted back from the last layer, which is left out; fewer where there are fewer.
        names: of modules, in place of the last ones.

    Returns:
        The last module of each layer, its normalisation where it has one.

    Raises:
        BadConfig: when the model has no module of a name, or no hidden layer.

    Examples:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(2, 2))
        >>> [type(layer).__name__ for layer in hidden_layers(net, 3)]
        ['BatchNorm2d']
    """
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            raise BadConfig(f"the model has no layer {name!r}: choose from {', '.join(filter(None, modules))}")
    chosen = tuple(modules[name] for name in names) or tuple(parts[-1] for _, parts in layers_of(model)[:-1][-count:])
    if not chosen:
        raise BadConfig("the model has no hidden layer: use a deeper one")
    return chosen


@contextmanager
def listening(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Keep what modules give out in the last forward pass.

    Yields:
        A list with one tensor a module, in the order given, as soon as the model has run.
    """
    heard = [torch.empty(0) for _ in modules]

    def keep(place: int, output: Tensor) -> None:
        heard[place] = output

    handles = [
        module.register_forward_hook(lambda module, inputs, output, place=place: keep(place, output))
        for place, module in enumerate(modules)
    ]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def features_of(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The feature extractor of a model, for stored inputs: its ``features``, or what the linear layer that runs last is given.

    Raises:
        BadConfig: when the model has neither.
    """
    features: Any = getattr(model, "features", None)
    if callable(features):
        return through_entry(model, features)
    if not any(isinstance(module, nn.Linear) for module in model.modules()):
        raise BadConfig(
            f"{type(model).__name__} has neither a callable .features nor a linear layer, of which features could be taken: "
            "give it .features, or, for a trigger that looks at them, set trigger.sources and trigger.target"
        )
    return partial(_before_last_linear, model)


def _before_last_linear(model: nn.Module, inputs: Tensor) -> Tensor:
    """What the linear layer that runs last is given, for inputs ``[N, ...]``."""
    heard: list[Tensor] = []

    def keep(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        heard[:] = given[:1]

    handles = [module.register_forward_pre_hook(keep) for module in model.modules() if isinstance(module, nn.Linear)]
    try:
        with entering(model):
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not heard:
        raise BadConfig(
            f"no linear layer of {type(model).__name__} runs, of which features could be taken: give it .features, "
            "or, for a trigger that looks at them, set trigger.sources and trigger.target"
        )
    return heard[0]
