"""Inputs as models want them that leave normalisation to their callers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from heirmark.errors import BadConfig

Normalisation = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation, one of each for all channels or for every channel."""


def checked_normalisation(normalise: Normalisation) -> Normalisation:
    """A normalisation as it was given.

    Raises:
        BadConfig: when means and deviations are not as many, not finite, or a deviation is not positive.
    """
    mean, std = (tuple(map(float, numbers)) for numbers in normalise)
    if not mean or len(mean) != len(std) or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise BadConfig(
            f"a normalisation is as many finite means as positive standard deviations, not {mean} and {std}: "
            "one of each, or one of each for every channel"
        )
    return mean, std


def normalised(inputs: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Inputs less the mean, over the standard deviation.

    Args:
        inputs: ``[B, C, ...]`` float in [0, 1].
        mean: one number, or C.
        std: likewise.

    Raises:
        BadConfig: when there are neither one nor C.

    Examples:
        >>> import torch
        >>> normalised(torch.tensor([[0.5, 1.0]]), [0.5], [0.25])
        tensor([[0., 2.]])
    """
    if len(mean) not in (1, inputs.shape[1]):
        raise BadConfig(
            f"a normalisation of {len(mean)} channels does not fit inputs of shape {tuple(inputs.shape[1:])}"
        )
    shape = (1, len(mean), *[1] * (inputs.ndim - 2))
    return (inputs - inputs.new_tensor(mean).view(shape)) / inputs.new_tensor(std).view(shape)


def given_normalised(
    model: nn.Module | Callable[[Tensor], object], normalise: Normalisation | None
) -> nn.Module | Callable[[Tensor], object]:
    """A module or function that takes inputs as they are; without a normalisation the same one.

    Raises:
        BadConfig: see :func:`checked_normalisation`.
    """
    if normalise is None:
        return model
    mean, std = checked_normalisation(normalise)
    return (
        Normalised(model, mean, std)
        if isinstance(model, nn.Module)
        else lambda inputs: model(normalised(inputs, mean, std))
    )


class Normalised(nn.Module):
    """A model that is given normalised inputs; see :func:`normalised`."""

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model, self.mean, self.std = model, mean, std

    def forward(self, inputs: Tensor) -> object:
        """Map ``[B, C, ...]`` in [0, 1] to what the model says."""
        return self.model(normalised(inputs, self.mean, self.std))
