"""Rules that turn a hypergradient and a utility gradient into one direction. Pure functions over named tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from heirmark.errors import BadConfig, ShapeMismatch


def norm(tensors: Iterable[Tensor]) -> Tensor:
    """Euclidean norm of all tensors taken as one vector, a scalar on their device.

    >>> norm([torch.tensor([3.0]), torch.tensor([[4.0]])]).item()
    5.0
    """
    norms = [torch.linalg.vector_norm(tensor) for tensor in tensors]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


def cosine(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Tensor:
    """Cosine of the angle between two sets of named tensors taken as vectors, a scalar; 0 where one vanishes."""
    # Each side is scaled before the product: with norms orders apart a plain inner product may overflow.
    length_left, length_right = (_at_least_tiny(norm(side.values())) for side in (left, right))
    parts = [
        torch.dot((left[name] / length_left).reshape(-1), (right[name] / length_right).reshape(-1)) for name in left
    ]
    return torch.stack(parts).sum().clamp(-1, 1) if parts else torch.zeros(())


def _at_least_tiny(length: Tensor) -> Tensor:
    return length.clamp_min(torch.finfo(length.dtype).tiny)


def combine_balanced(
    hypergradient: Mapping[str, Tensor],
    utility_gradient: Mapping[str, Tensor],
    ratio: float = 1.0,
    *,
    remove_conflict: bool = True,
    reference: Tensor | None = None,
) -> dict[str, Tensor]:
    """Utility first: the hypergradient at a set share of the utility gradient's norm, and never against it.

    The hypergradient is first scaled to norm ρ ‖g_c‖; then, if it still has a negative inner product with g_c, its
    component along g_c is removed (the projection of PCGrad, arXiv 2001.06782, one-sided), so what is left of it can be
    shorter than ρ ‖g_c‖. The raw hypergradient may be thousands of times longer than g_c and nearly opposite to it,
    because the cheapest way to teach a thief the trigger is to mislabel clean images; this rule takes that way from it.

    Args:
        hypergradient: g_h by parameter name.
        utility_gradient: g_c by parameter name.
        ratio: ρ >= 0.
        remove_conflict: whether the conflicting component is removed.
        reference: scalar > 0, the length that ρ multiplies in place of ‖g_c‖.

    Returns:
        ``g_c + g_h'`` by parameter name. A vanishing g_h leaves g_c; a vanishing g_c gives zero where its norm is the
        scale.

    Raises:
        BadConfig: for a ratio that is negative or not finite.
        ShapeMismatch: when the two do not name the same parameters.
    """
    if not hypergradient or hypergradient.keys() != utility_gradient.keys():
        raise ShapeMismatch(
            "the two gradients do not name the same parameters: take both from one rehearsal_step without weights"
        )
    if not 0 <= ratio < float("inf"):
        raise BadConfig(f"the balance ratio is {ratio}: give a number from 0 up, 1 gives both gradients the same norm")
    norm_h, norm_c = norm(hypergradient.values()), norm(utility_gradient.values())
    # Tensors, not floats: on a GPU nothing here waits for the device.
    length = ratio * (norm_c if reference is None else reference.to(norm_h))
    scale = torch.where(norm_h > 0, length / _at_least_tiny(norm_h), torch.zeros_like(norm_h))
    share = torch.ones_like(scale)
    if remove_conflict:
        # Of length l along ĥ, its part along ĉ is l o with o = <ĥ, ĉ>; where o < 0, taking it out adds -l o ĉ.
        share = share - length / _at_least_tiny(norm_c) * cosine(hypergradient, utility_gradient).clamp_max(0)
    return {name: scale * g + share * utility_gradient[name] for name, g in hypergradient.items()}
