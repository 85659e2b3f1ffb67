"""Drawn answers: the draw is uniform and fixed by what was registered, and the test is exact."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heirmark.errors import BadConfig
from heirmark.keys.drawing import drawn_answers
from heirmark.verification.drawn import log_e_of_drawn, p_of_drawn, scores

values = st.integers(-400, 400).map(lambda value: value / 100)
tables = st.lists(st.lists(values, min_size=2, max_size=3), min_size=1, max_size=4)


def arrays(table: list[list[float]]) -> list[np.ndarray]:
    return [np.array(row) for row in table]


@given(tables)
def test_the_p_value_is_the_share_of_draws_that_score_as_high(table: list[list[float]]) -> None:
    found = arrays(table)
    draws = list(itertools.product(*(range(len(row)) for row in table)))
    sums = np.array([sum(row[place] for row, place in zip(table, draw, strict=True)) for draw in draws])
    reach = sum(max(row) - min(row) for row in table)
    for draw, own in zip(draws, sums, strict=True):
        p = p_of_drawn(found, draw)
        exact = float((sums >= own - 1e-12).mean())
        loose = float((sums >= own - 1e-9 - len(table) * reach / 20_000).mean())
        assert exact - 1e-12 <= p <= loose + 1e-12


@given(tables)
def test_the_p_value_keeps_every_level_and_the_e_value_has_mean_one(table: list[list[float]]) -> None:
    found = arrays(table)
    draws = list(itertools.product(*(range(len(row)) for row in table)))
    p = np.array([p_of_drawn(found, draw) for draw in draws])
    for level in p:
        assert (p <= level).mean() <= level + 1e-12
    assert math.isclose(np.mean([math.exp(log_e_of_drawn(found, draw)) for draw in draws]), 1, rel_tol=1e-9)


def test_small_p_values_are_told() -> None:
    found = [np.eye(8)[0] * 3.0] * 20
    assert math.isclose(p_of_drawn(found, [0] * 20), 8.0**-20, rel_tol=1e-9)
    assert log_e_of_drawn(found, [0] * 20) > math.log(1e6)
    assert 0 < p_of_drawn([np.eye(8)[0] * 3.0] * 600, [0] * 600) < 1e-300, "smaller than any float, and still a p-value"
    assert p_of_drawn([np.zeros(3)] * 2, [0, 2]) == 1.0, "a suspect that answers all alike says nothing"


def test_what_unmarked_models_say_too_counts_for_nothing() -> None:
    said = np.array([[0.0, 0.9, 0.1], [0.0, 0.9, 0.1]])
    same, seldom = np.array([0.0, 0.9, 0.1]), np.array([0.5, 0.0, 0.5])
    first, second = scores(said, np.array([[same, seldom]] * 2), [(1, 2), (1, 2)])
    assert np.allclose(first, 0)
    assert second[0] > 3 > 0 > second[1]
    at_odds = scores(said, np.array([[same, seldom], [same, 1 - seldom]]), [(1, 2), (1, 2)])[1]
    assert 0 < at_odds[0] < second[0], "models that differ among themselves weigh less"
    alone = scores(said, np.empty((0, 2, 3)), [(1, 2), (1, 2)])
    assert alone[0][0] > 0 > alone[0][1]


def test_the_draw_is_uniform_and_depends_on_all_that_was_fixed() -> None:
    candidates = [(1, 5, 7)] * 3000
    drawn = drawn_answers(bytes(32), "beacon", candidates)
    assert drawn == drawn_answers(bytes(32), " beacon\n", candidates)
    counts = Counter(drawn)
    assert set(counts) == {1, 5, 7}
    assert all(abs(count - 1000) < 120 for count in counts.values())
    for digest, beacon in ((bytes(31) + b"\1", "beacon"), (bytes(32), "beacons")):
        other = drawn_answers(digest, beacon, candidates)
        assert sum(one == two for one, two in zip(drawn, other, strict=True)) < 1150
    assert drawn[:5] == drawn_answers(bytes(32), "beacon", candidates[:5]), "each group has a draw of its own"


def test_a_draw_from_nothing_is_refused() -> None:
    for digest, beacon, candidates in (
        (bytes(32), " ", [(0, 1)]),
        (bytes(32), "x" * 1001, [(0, 1)]),
        (bytes(32), "x", []),
        (bytes(32), "x", [(0, 1), (3,)]),
        (bytes(32), "x", [(0, 0)]),
    ):
        with pytest.raises(BadConfig):
            drawn_answers(digest, beacon, candidates)
