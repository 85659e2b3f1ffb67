"""What a training step computes of a batch: figures to tell, and the gradients that an optimiser follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

Figures: TypeAlias = Mapping[str, Tensor | float]
"""Named scalars without a graph."""
Gradients: TypeAlias = Callable[..., Figures]
"""Maps the tensors of a batch to figures, and leaves the batch's gradients in a model, whatever was there before."""
Losses: TypeAlias = Callable[..., Mapping[str, Tensor]]
"""Maps the tensors of a batch to scalars by name."""
Weights: TypeAlias = Mapping[str, float] | Callable[[Mapping[str, Tensor], Sequence[Tensor]], Mapping[str, float]]
"""What losses count: a weight by name, 1 where there is none; or what finds all weights anew from the losses of a step and the
parameters that train, as :func:`heirmark.training.joint.mgda` does."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """What a training step computes of a batch.

    Attributes:
        gradients: see :data:`Gradients`; batches all have the same shapes.
        recordable: whether it does the same in every call: it looks at no number, draws nothing on the CPU, and what changes
            between calls changes in place.
        state: tensors on the device, besides those of the model, that it changes.
    """

    gradients: Gradients
    recordable: bool = True
    state: Sequence[Tensor] = ()


def backward(
    model: nn.Module,
    losses: Losses,
    weights: Weights | None = None,
    *,
    recordable: bool = True,
    state: Sequence[Tensor] = (),
) -> Step:
    """A :class:`Step` of a model down a weighted sum of losses, which run it under :meth:`Runtime.autocast`.

    With weights, the figures have a ``weight of ...`` for each loss; None adds the losses up. With weights that are found anew
    no step is recordable.
    """

    def gradients(*batch: Tensor) -> Figures:
        model.zero_grad(set_to_none=True)
        found = losses(*batch)
        if callable(weights):
            counts = weights(found, [parameter for parameter in model.parameters() if parameter.requires_grad])
        else:
            counts = {name: (weights or {}).get(name, 1.0) for name in found}
        total = torch.stack([counts[name] * loss for name, loss in found.items()]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        figures: dict[str, Tensor | float] = {}
        for name, loss in found.items():
            figures[name] = loss.detach()
            if weights is not None:
                figures[f"weight of {name}"] = counts[name]
        return figures

    return Step(gradients=gradients, recordable=recordable and not callable(weights), state=state)
