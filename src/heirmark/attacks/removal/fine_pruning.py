"""Fine-pruning: cut dormant channels, then tune (Liu, Dolan-Gavitt, Garg 2018, RAID, arXiv 1805.12185)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Self

import torch
from torch import Tensor, nn

from heirmark.attacks.base import brief_tuning
from heirmark.attacks.removal.parts import TUNING, Tuning, drawn
from heirmark.configuration import at_least, below, within
from heirmark.errors import BadConfig
from heirmark.models import Net
from heirmark.models.layers import CONVOLUTIONS
from heirmark.querying.asking import predict
from heirmark.querying.layout import copied
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.task import Split
from heirmark.training.fitting import Recipe, accuracy

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)
STEPS = 20
"""In how many steps a tolerance is looked for."""


@dataclass(frozen=True, kw_only=True)
class FinePruning(Tuning):
    """Cut the channels of the last convolution that clean data activate least, then fine-tune; what is cut stays dead.

    A channel's activation is the mean, over clean inputs and positions, of its output after the normalisation that follows
    and a ReLU. Cut means that its weights and bias are zero, and those of that normalisation too, so that it says zero to
    every input. With ``recipe.epochs=0`` this is the pruning by activation that Feature Sharing calls model pruning.

    Attributes:
        rate: share of channels that are cut, in [0, 1); None goes on, as the paper does, for as long as the accuracy on the
            adversary's data holds.
        tolerance: by how much that accuracy may fall, in [0, 1], where rate is None (0.04 is inferred).
        measured: how many examples activation and accuracy are measured on, at most.
        recipe: of the tuning; see :data:`heirmark.attacks.removal.parts.TUNING` (inferred, the paper says few epochs).
    """

    title: ClassVar[str] = "fine-pruning"

    rate: Annotated[float, at_least(0), below(1)] | None = None
    tolerance: Annotated[float, within(0, 1)] = 0.04
    measured: Annotated[int, at_least(1)] = 5000
    recipe: Recipe = field(default=TUNING)

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes; see :class:`heirmark.attacks.base.Attack`."""
        return cls(recipe=brief_tuning(recipe))

    def alter(self, copy: Net, data: Split, *, other: Split | None, seed: int, runtime: Runtime) -> Net:
        """Cut and tune; see :class:`heirmark.attacks.base.Removal`.

        Raises:
            BadConfig: when the model has no convolution.
        """
        model = copy.model.requires_grad_(True)
        sample = data.subset(drawn(len(data), self.measured, seed=derive_seed(seed, "sample")))
        layers = last_convolution(model, sample.inputs[:2], runtime=runtime)
        order = mean_activation(model, layers[-1], sample.inputs, runtime=runtime).argsort(stable=True)
        dead = order[: self._count(model, layers, order, sample, runtime)]
        silence(layers, dead)
        # Zero weights without a gradient stay zero: weight decay and momentum add nothing to them.
        kept = [
            parameter.register_hook(lambda gradient: gradient.index_fill(0, dead.to(gradient.device), 0))  # type: ignore[no-untyped-call]
            for layer in layers
            for parameter in layer.parameters(recurse=False)
        ]
        self.tuned(copy, data, "fine-pruning", seed=seed, runtime=runtime)
        for handle in kept:
            handle.remove()
        return copy

    def _count(
        self, model: nn.Module, layers: list[nn.Module], order: Tensor, sample: Split, runtime: Runtime | None
    ) -> int:
        """How many channels are cut; one is always left."""
        channels = len(order)
        if self.rate is not None:
            return min(round(self.rate * channels), channels - 1)
        names = [name for layer in layers for name, module in model.named_modules() if module is layer]
        least = accuracy(model, sample, runtime=runtime) - self.tolerance
        best = 0
        for step in range(1, STEPS):
            count = min(round(step / STEPS * channels), channels - 1)
            if count == best:
                continue
            trial = copied(model)
            silence([trial.get_submodule(name) for name in names], order[:count])
            if accuracy(trial, sample, runtime=runtime) < least:
                break
            best = count
        return best


def last_convolution(model: nn.Module, inputs: Tensor, *, runtime: Runtime | None = None) -> list[nn.Module]:
    """The convolution that runs last, and the normalisation that takes its output, where there is one.

    Args:
        model: whose order of layers is found by running it.
        inputs: a few, ``[N, ...]``.
        runtime: device, precision.

    Raises:
        BadConfig: when no convolution runs.
    """
    # The tensors are kept, so that no later one can take the place of an earlier one in memory and be mistaken for it.
    ran: list[tuple[nn.Module, Tensor, Tensor]] = []

    def note(module: nn.Module, given: tuple[Tensor, ...], said: Tensor) -> None:
        ran.append((module, given[0], said))

    watched = [module for module in model.modules() if isinstance(module, (*CONVOLUTIONS, *NORMS))]
    handles = [module.register_forward_hook(note) for module in watched]
    try:
        predict(model, inputs, runtime=runtime)
    finally:
        for handle in handles:
            handle.remove()
    found = [(module, said) for module, _, said in ran if isinstance(module, CONVOLUTIONS)]
    if not found:
        raise BadConfig(f"{type(model).__name__} has no convolution to prune: choose another attack")
    last, output = found[-1]
    return [last, *[module for module, given, _ in ran if isinstance(module, NORMS) and given is output]]


def mean_activation(model: nn.Module, layer: nn.Module, inputs: Tensor, *, runtime: Runtime | None = None) -> Tensor:
    """Mean over inputs and positions of what a layer says, after a ReLU.

    Args:
        model: in which the layer is.
        layer: whose output is ``[N, channels, ...]``.
        inputs: ``[N, ...]`` uint8 or float32.
        runtime: device, precision.

    Returns:
        ``[channels]`` float64 on the CPU.
    """
    sums: list[Tensor] = []

    def add(module: nn.Module, given: tuple[Tensor, ...], said: Tensor) -> None:
        sums.append(said.double().relu().flatten(2).mean(2).sum(0).cpu())

    handle = layer.register_forward_hook(add)
    try:
        predict(model, inputs, runtime=runtime)
    finally:
        handle.remove()
    return torch.stack(sums).sum(0) / len(inputs)


@torch.no_grad()
def silence(layers: list[nn.Module], channels: Tensor) -> None:
    """Make channels of layers say zero to every input, in place.

    Args:
        layers: a convolution, and perhaps a normalisation after it.
        channels: positions of the channels.
    """
    for layer in layers:
        for tensor in layer.parameters(recurse=False):
            tensor[channels.to(tensor.device)] = 0
        for name, value in (("running_mean", 0.0), ("running_var", 1.0)):
            statistic = getattr(layer, name, None)
            if isinstance(statistic, Tensor):
                statistic[channels.to(statistic.device)] = value
