"""MGDA's weights against closed forms and a convex solver."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from heirmark.errors import BadConfig
from heirmark.training.mgda import NORMALISATIONS, mgda_weights, min_norm_weights


def solved(gram: np.ndarray) -> float:
    """The least squared length on the simplex, by a general solver from several starts."""
    count = len(gram)
    starts = [np.full(count, 1 / count), *np.eye(count)]
    found = [
        minimize(
            lambda w: float(w @ gram @ w),
            start,
            jac=lambda w: 2 * gram @ w,
            method="SLSQP",
            bounds=[(0, 1)] * count,
            constraints={"type": "eq", "fun": lambda w: float(w.sum() - 1)},
            options={"maxiter": 500, "ftol": 1e-14},
        )
        for start in starts
    ]
    return min(float(result.fun) for result in found)


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 6), st.integers(1, 8), st.integers(0, 10_000), st.floats(0.01, 100))
def test_as_short_as_a_convex_solver_finds(count: int, size: int, seed: int, spread: float) -> None:
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(count, size)) * generator.uniform(1, spread + 1, size=(count, 1))
    vectors += generator.normal(size=size)  # so that zero is not always within reach
    gram = vectors @ vectors.T
    weights = np.array(min_norm_weights(gram.tolist()))
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    assert weights @ gram @ weights <= solved(gram) + 1e-6 * gram.diagonal().max()


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(0, 10_000))
def test_two_are_exact(size: int, seed: int) -> None:
    first, second = np.random.default_rng(seed).normal(size=(2, size))
    weights = min_norm_weights([[first @ first, first @ second], [first @ second, second @ second]])
    grid = np.linspace(0, 1, 2001)[:, None]
    best = np.square(grid * first + (1 - grid) * second).sum(1).min()
    assert np.square(weights[0] * first + weights[1] * second).sum() <= best + 1e-12


def test_one_and_equal_and_vanishing() -> None:
    assert min_norm_weights([[4.0]]) == [1.0]
    assert sum(min_norm_weights([[0.0] * 3] * 3)) == 1.0
    same = min_norm_weights([[1.0] * 4] * 4)
    assert sum(same) == pytest.approx(1)
    zero_among = min_norm_weights([[1.0, 0.0, 0.2], [0.0, 0.0, 0.0], [0.2, 0.0, 1.0]])
    assert zero_among == [0.0, 1.0, 0.0]


def test_no_loss_rises_along_the_common_direction() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(7, generator=generator).double() for _ in range(4)]
    weights = mgda_weights([[g[:3], g[3:]] for g in gradients], [1.0] * 4, "none")
    direction = sum(w * g for w, g in zip(weights, gradients, strict=True))
    assert isinstance(direction, torch.Tensor)
    for gradient in gradients:
        assert float(gradient @ direction) >= float(direction @ direction) - 1e-7


@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_normalisations(kind: str) -> None:
    first, second = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0])
    losses = [2.0, 0.5]
    lengths = {"loss+": (6.0, 0.5), "l2": (3.0, 1.0), "loss": (2.0, 0.5), "none": (1.0, 1.0)}[kind]
    one, other = (float(g.norm()) / length for g, length in zip((first, second), lengths, strict=True))
    found = mgda_weights([[first], [second]], losses, kind)  # type: ignore[arg-type]
    assert found == pytest.approx([other**2 / (one**2 + other**2), one**2 / (one**2 + other**2)])


def test_lengths_orders_apart() -> None:
    losses = [0.3, 0.4, 1e-5, 0.25]
    found = mgda_weights([[row] for row in torch.eye(4)], losses, "loss+")
    squares = [loss**2 for loss in losses]  # orthogonal: weights go with the inverse of the squared lengths
    assert found == pytest.approx([square / sum(squares) for square in squares], abs=1e-4)


def test_a_loss_at_rest_does_not_stop_the_others() -> None:
    zero, one, two = torch.zeros(2), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert mgda_weights([[zero], [one], [two]], [1.0] * 3, "none") == [0.0, 0.5, 0.5]
    assert mgda_weights([[zero], [zero]], [1.0, 2.0]) == [0.5, 0.5]


def test_mistakes_name_their_remedy() -> None:
    with pytest.raises(BadConfig, match="at least one"):
        mgda_weights([], [])
    with pytest.raises(BadConfig, match="give one each"):
        mgda_weights([[torch.ones(1)]], [1.0, 2.0])
    with pytest.raises(BadConfig, match="unknown normalisation 'l1'"):
        mgda_weights([[torch.ones(1)]], [1.0], "l1")  # type: ignore[arg-type]
