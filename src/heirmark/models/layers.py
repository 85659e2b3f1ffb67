"""Layers that the built-in models share, and what counts as a convolution in any model."""

from __future__ import annotations

from torch import Tensor, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers whose outputs ``[N, channels, ...]`` are one neuron a channel."""


class Normalise(nn.Module):
    """Map pixels in [0, 1] to about [-2, 2], so that a model takes images as they are stored.

    One fixed map for every data set: nothing to look up, nothing to get wrong when a model is loaded elsewhere.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[N, ...]`` in [0, 1] to the same shape in [-2, 2]."""
        return inputs * 4 - 2
