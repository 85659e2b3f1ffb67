"""Weight quantisation, simulated (Hubara et al. 2018, JMLR 18:187; one bit as Rastegari et al. 2016, arXiv 1603.05279)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from heirmark.attacks.base import Attempt, Removal
from heirmark.attacks.removal.weights import Weight, assign, weights_of
from heirmark.configuration import within
from heirmark.models import Net
from heirmark.runtime import Runtime
from heirmark.tasks.task import Split


def quantise(weights: Tensor, bits: int, *, symmetric: bool = True) -> Tensor:
    """Round every row of weights to equally spaced levels of its own, and give the levels' values.

    Args:
        weights: ``[R, ...]`` float.
        bits: from 1 to 16. One bit is XNOR-Net's: the sign times the row's mean magnitude, of all such pairs of values the
            nearest in the mean square; ``symmetric`` has no say then.
        symmetric: ``2**bits - 1`` levels from minus to plus the largest magnitude, zero among them; otherwise ``2**bits``
            levels from the least to the greatest weight.

    Returns:
        ``[R, ...]`` of the same dtype.

    Examples:
        >>> quantise(torch.tensor([[-1.0, -0.2, 0.1, 0.7]]), 2)
        tensor([[-1.,  0.,  0.,  1.]])
        >>> quantise(torch.tensor([[-1.0, -0.2, 0.1, 0.5]]), 2, symmetric=False)
        tensor([[-1.0000,  0.0000,  0.0000,  0.5000]])
        >>> quantise(torch.tensor([[-1.0, -0.2, 0.0, 0.4]]), 1)
        tensor([[-0.4000, -0.4000,  0.4000,  0.4000]])
    """
    rows = weights.flatten(1).double()
    if bits == 1:
        size = rows.abs().mean(1, keepdim=True)
        values = torch.where(rows >= 0, size, -size)
    else:
        low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
        if symmetric:
            high = torch.maximum(high, -low)
            low, steps = torch.zeros_like(high), 2 ** (bits - 1) - 1
        else:
            steps = 2**bits - 1
        step = (high - low) / steps
        # A row of equal weights has no step, and stays as it is.
        values = torch.where(step > 0, low + ((rows - low) / step.clamp_min(1e-300)).round() * step, rows)
    return values.reshape(weights.shape).to(weights)


BITS = (16, 8, 6, 4, 3, 2, 1)
"""As in DeepTracer's Table 3; of T2S' Figs. 5 and 6 the text names 8 and 4."""


@dataclass(frozen=True, kw_only=True)
class Quantisation(Removal):
    """Keep all weights to few bits; computation stays in floating point.

    Rounding to nearest without any training afterwards, as in T2S and DeepTracer (16 down to 1 bit), of every weight that
    :func:`~heirmark.attacks.removal.weights.weights_of` finds: of convolutional, linear, recurrent, attention and embedding
    layers, and of a user's own. Biases and norms keep their precision.

    Attributes:
        bits: per weight, from 16 down to 1; one bit is XNOR-Net's scaled sign.
        per: ``"tensor"``, one scale a weight tensor, or ``"channel"``, one for every output channel.
        symmetric: levels around zero; otherwise from the least weight to the greatest.
    """

    title: ClassVar[str] = "quantisation"

    bits: Annotated[int, within(1, 16)] = 8
    per: Literal["tensor", "channel"] = "tensor"
    symmetric: bool = True

    def attempts(self) -> Iterator[Attempt]:
        """Every number of bits of :data:`BITS`."""
        for bits in BITS:
            yield Attempt(
                name=f"weights of {bits} bits", attack=replace(self, bits=bits), curve=("bits a weight", bits)
            )

    @torch.no_grad()
    def alter(self, copy: Net, data: Split, *, other: Split | None, seed: int, runtime: Runtime) -> Net:
        """Quantise; neither data nor seed matter. See :class:`heirmark.attacks.base.Removal`.

        Raises:
            BadConfig: when the model has no weights, or some that cannot be set; see
                :func:`~heirmark.attacks.removal.weights.weights_of` and :func:`~heirmark.attacks.removal.weights.assign`.
        """
        weights = weights_of(copy.model)
        assign(weights, [self._quantised(weight) for weight in weights])
        return copy

    def _quantised(self, weight: Weight) -> Tensor:
        values = weight.values
        if self.per == "tensor":
            return quantise(values[None], self.bits, symmetric=self.symmetric)[0]
        rows = values.transpose(0, weight.axis)
        return quantise(rows, self.bits, symmetric=self.symmetric).transpose(0, weight.axis)
