"""How much the mark counts beside the utility: measured now and then, and steered by an accuracy budget."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from heirmark.rehearsal.combine import cosine, norm
from heirmark.rehearsal.passes import gradients

SOFTEST, FIRMEST = 0.25, 2.5
"""Between which multiples of its start the weight of the mark is steered: the slice that watches is small, and it errs."""


class Balance:
    """How much the mark counts beside the utility. Measured now and then; the budget steers it from epoch to epoch."""

    def __init__(self, *, rho: float, enough: float, measured: int, fading: float = 1.0) -> None:
        self.rho, self.start, self.enough, self.measured, self.fading = rho, rho, enough, measured, fading
        self.number, self.ratio, self.angle = 0, 0.0, 0.0

    def combine(
        self, logits: Tensor, parameters: Mapping[str, Tensor], utility: Tensor, mark: Tensor, loss: Tensor
    ) -> dict[str, Tensor]:
        """The direction by parameter name: both slopes ``[B, C]`` pulled back, as :func:`combine_balanced` joins gradients."""
        measuring = self.number % self.measured == 0
        self.number += 1
        if measuring:
            pulled = gradients(logits, parameters, mark, keep=True)
            useful = gradients(logits, parameters, utility, keep=True)
            length, other = float(norm(useful.values())), float(norm(pulled.values()))
            self.ratio, self.angle = length / other if other else 0.0, float(cosine(pulled, useful))
        weight = self.rho * (1.0 if not self.enough else min(1.0, float(loss) / self.enough))
        # Of length ρ|g_c| along the mark's gradient; what of it goes against the utility's is taken out (see combine_balanced).
        scale, share = weight * self.ratio, 1.0 - weight * min(0.0, self.angle)
        if measuring:
            return {name: scale * g + share * useful[name] for name, g in pulled.items()}
        return gradients(logits, parameters, scale * mark + share * utility)

    def steer(self, loss: float, budget: float) -> None:
        """Less where more accuracy is lost than the budget, more where less is."""
        room = (budget - loss) / max(budget, 1e-3)
        moved = self.rho * self.fading * math.exp(0.3 * max(-2.0, min(1.0, room)))
        self.rho = max(SOFTEST * self.start, min(FIRMEST * self.start, moved))
