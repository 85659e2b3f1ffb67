"""Layers that the built-in models share."""

from __future__ import annotations

from torch import Tensor, nn


class Normalise(nn.Module):
    """Map pixels in [0, 1] to about [-2, 2], so that a model takes images as they are stored.

    One fixed map for every data set: nothing to look up, nothing to get wrong when a model is loaded elsewhere.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[N, ...]`` in [0, 1] to the same shape in [-2, 2]."""
        return inputs * 4 - 2
