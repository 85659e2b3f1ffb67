"""The soft nearest neighbour loss (Frosst 2019; Entangled Watermarks, Jia 2021, arXiv 2002.12200, eq. 1). Pure functions."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.errors import BadConfig, ShapeMismatch

Distance: TypeAlias = Literal["cosine", "euclidean"]
DISTANCES: tuple[Distance, ...] = get_args(Distance)


def pairwise(points: Tensor, distance: Distance = "cosine") -> Tensor:
    """All distances between points.

    Args:
        points: ``[N, D]``.
        distance: ``"cosine"`` (one less the cosine, in [0, 2]) or ``"euclidean"`` (squared).

    Returns:
        ``[N, N]``, the diagonal included.

    Raises:
        BadConfig: for another distance.

    Examples:
        >>> pairwise(torch.tensor([[1.0, 0.0], [0.0, 3.0]])).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    if distance == "cosine":
        unit = F.normalize(points, dim=1)
        return 1 - unit @ unit.T
    if distance == "euclidean":
        squares = points.square().sum(1)
        return (squares[:, None] + squares - 2 * points @ points.T).clamp_min(0)
    raise BadConfig(f"unknown distance {distance!r}: choose one of {', '.join(DISTANCES)}")


def soft_nearest_neighbour_loss(
    points: Tensor, groups: Tensor, temperature: Tensor | float, *, distance: Distance = "cosine"
) -> Tensor:
    r"""How far groups of points lie apart: low when each point's near neighbours are of its own group.

    .. math:: -\frac1N \sum_i \log \frac{\sum_{j \ne i,\, g_j = g_i} e^{-d_{ij} / T}}{\sum_{k \ne i} e^{-d_{ik} / T}}

    A point that is alone in its group has no such neighbour and is left out; the public code adds 1e-5 inside the logarithm
    instead. To entangle two groups is to make this large.

    Args:
        points: ``[N, ...]``, flattened.
        groups: ``[N]`` integers.
        temperature: T, positive.
        distance: see :func:`pairwise`.

    Returns:
        A scalar; zero when no point has a neighbour of its group.

    Raises:
        ShapeMismatch: when points and groups differ in number.

    Examples:
        >>> soft_nearest_neighbour_loss(torch.eye(4), torch.tensor([0, 0, 1, 1]), 1.0).item()  # log 3: all equally far
        1.0986...
    """
    if len(points) != len(groups):
        raise ShapeMismatch(f"{len(points)} points need as many groups, not {len(groups)}")
    others = ~torch.eye(len(points), dtype=torch.bool, device=points.device)
    alike = others & (groups[:, None] == groups)
    known = alike.any(1)
    scores = -pairwise(points.flatten(1), distance) / temperature
    # A row of minus infinities has no gradient, so a point that is alone keeps its scores, and is taken out of the sum. Nothing
    # here looks at numbers: on a GPU that would wait.
    near = scores.masked_fill(~alike & known[:, None], -torch.inf).logsumexp(1)
    far = scores.masked_fill(~others & known[:, None], -torch.inf).logsumexp(1)
    return torch.where(known, far - near, 0).sum() / known.sum().clamp_min(1)
