"""MGDA: weights that make several losses fall together (Desideri 2012; Sener and Koltun, arXiv 1810.04650). Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from heirmark.errors import BadConfig

Normalisation: TypeAlias = Literal["loss+", "l2", "loss", "none"]
NORMALISATIONS: tuple[Normalisation, ...] = get_args(Normalisation)

_TINY = 1e-12


def mgda_weights(
    gradients: Sequence[Sequence[Tensor]], losses: Sequence[float] | Tensor, normalisation: Normalisation = "loss+"
) -> list[float]:
    """Weights of the losses whose weighted gradients have the shortest sum (MEA-Defender, arXiv 2401.15239, eq. 9).

    Args:
        gradients: one for each of T losses, as the tensors of all parameters.
        losses: their values, numbers or ``[T]`` on the gradients' device; from there nothing waits for the device but one
            look at the inner products.
        normalisation: what each gradient is divided by before the shortest sum is sought: its norm (``"l2"``), its loss
            (``"loss"``), both (``"loss+"``) or nothing. The weights are meant for the losses as they are, as in the
            reference code of Sener and Koltun.

    Returns:
        T weights, not negative, that add up to 1; 0 for a loss whose gradient vanishes, unless all do.

    Raises:
        BadConfig: when there is no loss, the counts differ, or the normalisation is unknown.
    """
    if not gradients or len(gradients) != len(losses):
        raise BadConfig(f"{len(gradients)} gradients for {len(losses)} losses: give one each, and at least one")
    if normalisation not in NORMALISATIONS:
        raise BadConfig(f"unknown normalisation {normalisation!r}: choose one of {', '.join(NORMALISATIONS)}")
    flat = torch.stack([torch.cat([part.detach().reshape(-1) for part in parts]).double() for parts in gradients])
    norms = flat.norm(dim=1).clamp_min(_TINY)
    values = torch.as_tensor(losses, dtype=torch.float64).to(flat).abs().clamp_min(_TINY)
    divisors = {"loss+": norms * values, "l2": norms, "loss": values, "none": torch.ones_like(norms)}
    flat = flat / divisors[normalisation][:, None]
    told = torch.cat([norms[None], flat @ flat.T]).tolist()
    # A loss that is at rest would take all the weight, and stop the others.
    moving = [index for index, norm in enumerate(told[0]) if norm > _TINY]
    if not moving:
        return [1 / len(losses)] * len(losses)
    found = min_norm_weights([[told[1 + i][j] for j in moving] for i in moving])
    weights = [0.0] * len(losses)
    for index, weight in zip(moving, found, strict=True):
        weights[index] = weight
    return weights


def min_norm_weights(gram: Sequence[Sequence[float]], *, steps: int = 20_000, tolerance: float = 1e-7) -> list[float]:
    """The point of the simplex at which the combination of T vectors is shortest, from their inner products.

    Two vectors have a closed form. For more, Frank-Wolfe with exact line search, in its pairwise form, which moves weight
    from the worst vector to the best and converges linearly (Lacoste-Julien and Jaggi, arXiv 1511.05932, algorithm 2).

    Args:
        gram: ``[T][T]`` inner products, symmetric and positive semidefinite.
        steps: at most.
        tolerance: of the duality gap, relative to the squared length that is reached.

    Returns:
        T weights, not negative, that add up to 1.

    Examples:
        >>> min_norm_weights([[1.0, 0.0], [0.0, 3.0]])
        [0.75, 0.25]
        >>> min_norm_weights([[1.0, 2.0], [2.0, 9.0]])  # the first is the shortest of all
        [1.0, 0.0]
    """
    count = len(gram)
    if count == 1:
        return [1.0]
    if count == 2:
        first = _two(gram[0][0], gram[0][1], gram[1][1])
        return [first, 1 - first]
    every = range(count)
    best = min(every, key=lambda i: gram[i][i])
    weights = [float(i == best) for i in every]
    for _ in range(steps):
        slopes = [sum(gram[i][j] * weights[j] for j in every) for i in every]
        to = min(every, key=lambda i: slopes[i])
        off = max((i for i in every if weights[i] > 0), key=lambda i: slopes[i])
        if slopes[off] - slopes[to] <= tolerance * sum(weights[i] * slopes[i] for i in every):
            break
        curvature = gram[to][to] - 2 * gram[to][off] + gram[off][off]
        most = weights[off]
        moved = min(most, (slopes[off] - slopes[to]) / curvature) if curvature > 0 else most
        weights[to] += moved
        weights[off] = 0.0 if moved == most else most - moved
    total = sum(weights)
    return [weight / total for weight in weights]


def _two(first: float, inner: float, second: float) -> float:
    """Weight of the first of two vectors (Sener and Koltun, algorithm 1)."""
    if inner >= first:
        return 1.0
    if inner >= second:
        return 0.0
    return (second - inner) / (first - 2 * inner + second)
