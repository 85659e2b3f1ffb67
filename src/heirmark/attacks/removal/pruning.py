"""Pruning of the smallest weights (Zhu, Gupta 2017, arXiv 1710.01878; Uchida et al. 2017, arXiv 1701.04082)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.utils import prune

from heirmark.attacks.base import Attempt, Removal
from heirmark.attacks.removal.weights import assign, weights_of
from heirmark.configuration import at_least, below
from heirmark.models import Net
from heirmark.runtime import Runtime
from heirmark.tasks.task import Split

RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""From 10 to 90 % as in MEA-Defender's Fig. 7; the steps between are inferred."""


@dataclass(frozen=True, kw_only=True)
class Pruning(Removal):
    """Set a share of all weights to zero, those of least magnitude; biases and norms stay.

    It is PyTorch's own pruning, made permanent, of every weight that :func:`~heirmark.attacks.removal.weights.weights_of` finds:
    of convolutional, linear, recurrent, attention and embedding layers, and of a user's own. Nothing is tuned afterwards, as
    in the papers on watermarks, which prune 10 % to 90 %.

    Attributes:
        rate: share of the weights that become zero, in [0, 1).
        kind: ``"global-magnitude"`` ranks the weights of all layers together, ``"layer-magnitude"`` prunes every weight tensor
            at the same rate.
    """

    title: ClassVar[str] = "pruning"

    rate: Annotated[float, at_least(0), below(1)] = 0.5
    kind: Literal["global-magnitude", "layer-magnitude"] = "global-magnitude"

    def attempts(self) -> Iterator[Attempt]:
        """Every rate of :data:`RATES`."""
        for rate in RATES:
            yield Attempt(name=f"pruning of {rate:.0%}", attack=replace(self, rate=rate), curve=("pruning rate", rate))

    @torch.no_grad()
    def alter(self, copy: Net, data: Split, *, other: Split | None, seed: int, runtime: Runtime) -> Net:
        """Prune; neither data nor seed matter. See :class:`heirmark.attacks.base.Removal`.

        Raises:
            BadConfig: when the model has no weights, or some that cannot be set; see
                :func:`~heirmark.attacks.removal.weights.weights_of` and :func:`~heirmark.attacks.removal.weights.assign`.
        """
        weights = weights_of(copy.model)
        values = [weight.values for weight in weights]
        if self.kind == "global-magnitude":
            masks = self._masks(values)
        else:
            masks = [mask for one in values for mask in self._masks([one])]
        assign(weights, [mask.to(one.dtype) * one for one, mask in zip(values, masks, strict=True)])
        return copy

    def _masks(self, values: list[Tensor]) -> list[Tensor]:
        """Ones, and zeros for the share of all these numbers together that is to go; of the same shapes."""
        numbers = torch.cat([one.reshape(-1) for one in values])
        method = prune.L1Unstructured(amount=float(self.rate))
        mask = method.compute_mask(numbers, torch.ones_like(numbers))  # type: ignore[no-untyped-call]
        parts = torch.split(mask, [one.numel() for one in values])
        return [part.reshape(one.shape) for one, part in zip(values, parts, strict=True)]
