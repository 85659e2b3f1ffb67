"""Layers of any model, watched and stimulated through forward hooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from heirmark.errors import BadConfig
from heirmark.models.layers import CONVOLUTIONS
from heirmark.querying.asking import evaluating
from heirmark.runtime import Runtime

TINY = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """A convolution or linear layer whose outputs are looked at; a channel of a convolution is one neuron.

    Attributes:
        name: in the model.
        module: the layer.
        neurons: how many it has.
        largest: the largest output on the images that it was watched on, above zero.
    """

    name: str
    module: nn.Module
    neurons: int
    largest: float

    def neurons_first(self, outputs: Tensor) -> Tensor:
        """A view ``[B, neurons, ...]`` of the layer's outputs."""
        return outputs.movedim(1 if isinstance(self.module, CONVOLUTIONS) else -1, 1)


@contextmanager
def watching(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Collect the last output of each module by name, in the order in which they were first called."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            outputs[name] = output.clone()  # what comes next may work in place

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def layers_of(model: nn.Module, images: Tensor, runtime: Runtime) -> tuple[Layer, ...]:
    """The convolutions and linear layers of a model as a forward pass meets them, without the last, which gives the logits.

    Args:
        model: on the runtime's device.
        images: ``[B, C, H, W]`` float32, there too.
        runtime: precision.

    Raises:
        BadConfig: when there is none to stimulate.
    """
    modules = {name: part for name, part in model.named_modules() if isinstance(part, (*CONVOLUTIONS, nn.Linear))}
    with evaluating(model), watching(modules) as outputs, runtime.autocast():
        model(images)
    layers = []
    for name, output in list(outputs.items())[:-1]:
        neurons = output.shape[1] if isinstance(modules[name], CONVOLUTIONS) else output.shape[-1]
        layers.append(Layer(name=name, module=modules[name], neurons=neurons, largest=max(float(output.max()), TINY)))
    if not layers:
        raise BadConfig(
            f"{type(model).__name__} has no convolution or linear layer before its last: choose another inspection"
        )
    return tuple(layers)


def choose_layers(layers: Sequence[Layer], wanted: str | tuple[int | str, ...]) -> tuple[Layer, ...]:
    """The layers that a configuration means.

    Args:
        layers: of the model, in order.
        wanted: ``"all"``, ``"last"`` (the last convolution, and the layer that gives the features), or names and positions.

    Raises:
        BadConfig: for a layer that the model does not have.
    """
    if wanted == "all":
        return tuple(layers)
    if wanted == "last":
        convolutions = [layer for layer in layers if isinstance(layer.module, CONVOLUTIONS)]
        return tuple(layer for layer in layers if layer in (convolutions[-1:] or layers[-1:]) or layer is layers[-1])
    known = {layer.name: layer for layer in layers}
    chosen = []
    for item in wanted:
        position = range(-len(layers), len(layers))
        if isinstance(item, int) and item in position:
            chosen.append(layers[item])
        elif isinstance(item, str) and item in known:
            chosen.append(known[item])
        else:
            raise BadConfig(
                f"the model has no layer {item!r} to stimulate: choose among {', '.join(known)}, or positions "
                f"from {position[0]} to {position[-1]}"
            )
    return tuple(dict.fromkeys(chosen))


@torch.no_grad()
def stimulated(
    model: nn.Module, layer: Layer, images: Tensor, levels: Tensor, runtime: Runtime, *, batch_size: int = 1000
) -> Tensor:
    """The logits while one neuron after the other is held at given levels.

    Args:
        model: on the runtime's device.
        layer: whose neurons these are.
        images: ``[B, C, H, W]`` float32, on the device.
        levels: ``[L]`` outputs at which a neuron is held.
        runtime: precision, progress.
        batch_size: images per forward pass, about.

    Returns:
        ``[neurons, L, B, classes]`` float32 on the CPU.
    """
    each = len(levels) * len(images)
    at_once = max(batch_size // each, 1)
    held = levels.to(images.device).repeat_interleave(len(images))
    found = []
    for start in range(0, layer.neurons, at_once):
        neurons = torch.arange(start, min(start + at_once, layer.neurons), device=images.device)
        which, values = neurons.repeat_interleave(each), held.repeat(len(neurons))

        def hold(
            module: nn.Module, inputs: Any, output: Tensor, which: Tensor = which, values: Tensor = values
        ) -> Tensor:
            output = output.clone()
            view = layer.neurons_first(output)
            rows = torch.arange(len(view), device=view.device)
            view[rows, which] = values.to(view.dtype).reshape(-1, *[1] * (view.ndim - 2)).expand(-1, *view.shape[2:])
            return output

        handle = layer.module.register_forward_hook(hold)
        try:
            with evaluating(model), runtime.autocast():
                logits = model(images.repeat(len(neurons) * len(levels), 1, 1, 1))
        finally:
            handle.remove()
        found.append(logits.float().cpu().unflatten(0, (len(neurons), len(levels), len(images))))
        runtime.progress(f"stimulating {layer.name}", int(neurons[-1]) + 1, layer.neurons)
    return torch.cat(found)
