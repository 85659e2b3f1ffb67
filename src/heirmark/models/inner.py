"""What lies inside a model: its layers in order, and what they give out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from heirmark.errors import BadConfig

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
