"""The soft nearest neighbour loss against plain loops and hand-computed values."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heirmark.errors import BadConfig, ShapeMismatch
from heirmark.training.snnl import DISTANCES, Distance, pairwise, soft_nearest_neighbour_loss


def slow(points: list[list[float]], groups: list[int], temperature: float, distance: Distance) -> float:
    """The definition, one pair at a time."""

    def far(one: list[float], other: list[float]) -> float:
        if distance == "euclidean":
            return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))
        lengths = [max(math.sqrt(sum(a * a for a in vector)), 1e-12) for vector in (one, other)]
        return 1 - sum(a * b for a, b in zip(one, other, strict=True)) / (lengths[0] * lengths[1])

    terms = []
    for i, one in enumerate(points):
        near = [
            math.exp(-far(one, points[j]) / temperature)
            for j in range(len(points))
            if j != i and groups[j] == groups[i]
        ]
        every = [math.exp(-far(one, points[k]) / temperature) for k in range(len(points)) if k != i]
        if near:
            terms.append(-math.log(sum(near) / sum(every)))
    return sum(terms) / len(terms) if terms else 0.0


coordinates = st.integers(-4, 4).map(float)


@settings(deadline=None)
@given(st.data(), st.integers(1, 7), st.integers(1, 3), st.sampled_from(DISTANCES), st.floats(0.5, 100))
def test_it_is_the_definition(
    data: st.DataObject, count: int, size: int, distance: Distance, temperature: float
) -> None:
    points = data.draw(st.lists(st.lists(coordinates, min_size=size, max_size=size), min_size=count, max_size=count))
    groups = data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    tensor = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    loss = soft_nearest_neighbour_loss(tensor, torch.tensor(groups), temperature, distance=distance)
    assert loss.item() == pytest.approx(slow(points, groups, temperature, distance), rel=1e-6, abs=1e-9)
    (slope,) = torch.autograd.grad(loss, tensor)
    assert bool(slope.isfinite().all()), "points without a neighbour of their group must not spoil the gradient"


def test_a_value_by_hand() -> None:
    # On a line at 0, 1 and 3, the first two alike: d = 1, 9, 4. Point 0: e^-1 / (e^-1 + e^-9); point 1: e^-1 / (e^-1 + e^-4).
    points = torch.tensor([[0.0], [1.0], [3.0]])
    loss = soft_nearest_neighbour_loss(points, torch.tensor([5, 5, 2]), 1.0, distance="euclidean")
    assert loss.item() == pytest.approx((math.log(1 + math.exp(-8)) + math.log(1 + math.exp(-3))) / 2)


def test_it_is_low_for_groups_apart_and_high_for_groups_entangled() -> None:
    apart = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    groups = torch.tensor([0, 0, 1, 1])
    low = soft_nearest_neighbour_loss(apart, groups, 0.1)
    high = soft_nearest_neighbour_loss(apart, torch.tensor([0, 1, 0, 1]), 0.1)
    assert low < 0.01 < 5 < high


@pytest.mark.parametrize("distance", DISTANCES)
def test_shapes_beyond_two_are_flattened_and_the_order_does_not_matter(distance: Distance) -> None:
    points = torch.randn(8, 2, 3, generator=torch.Generator().manual_seed(0))
    groups = torch.arange(8) % 3
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))

    def loss(points: Tensor, groups: Tensor) -> float:
        return soft_nearest_neighbour_loss(points, groups, 2.0, distance=distance).item()

    assert loss(points, groups) == pytest.approx(loss(points.flatten(1), groups))
    assert loss(points, groups) == pytest.approx(loss(points[order], groups[order]), rel=1e-5)


def test_its_gradient_reaches_the_temperature() -> None:
    temperature = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    points = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(value: Tensor) -> Tensor:
        return soft_nearest_neighbour_loss(points, torch.arange(6) % 2, value)

    assert torch.autograd.gradcheck(loss, [temperature])


def test_what_cannot_be_computed_is_an_error() -> None:
    with pytest.raises(ShapeMismatch, match="as many groups"):
        soft_nearest_neighbour_loss(torch.zeros(3, 2), torch.zeros(2), 1.0)
    with pytest.raises(BadConfig, match="unknown distance"):
        pairwise(torch.zeros(2, 2), "manhattan")  # type: ignore[arg-type]
