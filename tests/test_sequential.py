"""Evidence that may be looked at at any time: e-processes against integrals and simulation, and a verdict that stops by them."""

from __future__ import annotations

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from heirmark.errors import BadArtifact, BadConfig, BudgetExhausted
from heirmark.querying.blackbox import Api, BlackBox
from heirmark.verification import SequentialVerdict, Suspect, calibrate
from heirmark.verification import verify_sequentially as by_grade
from heirmark.verification.e_process import e_value, log_e_value
from test_verify import answering, calibration_of, make

verify_sequentially = partial(by_grade, accept="assumed")
counts = st.integers(0, 300)
nulls = st.floats(0.01, 0.95)


@given(st.integers(0, 40), st.integers(0, 40), nulls)
def test_the_e_value_is_the_mean_likelihood_ratio(hits: int, misses: int, p0: float) -> None:
    def ratio(q: float) -> float:
        return (q / p0) ** hits * ((1 - q) / (1 - p0)) ** misses

    peak = min(1.0, max(p0, hits / max(1, hits + misses)))
    mean = (quad(ratio, p0, peak)[0] + quad(ratio, peak, 1)[0]) / (1 - p0)
    assert log_e_value(hits, misses, p0) == pytest.approx(math.log(mean), abs=1e-5)


@given(counts, counts, nulls, st.floats(0, 1))
def test_no_trial_of_the_null_raises_it_on_average(hits: int, misses: int, p0: float, share: float) -> None:
    now = log_e_value(hits, misses, p0)
    hit, miss = log_e_value(hits + 1, misses, p0) - now, log_e_value(hits, misses + 1, p0) - now
    assert p0 * math.exp(hit) + (1 - p0) * math.exp(miss) == pytest.approx(1, rel=1e-6)
    below = share * p0
    assert below * math.exp(hit) + (1 - below) * math.exp(miss) <= 1 + 1e-6


def test_it_says_what_it_may_and_refuses_what_makes_no_sense() -> None:
    assert log_e_value(5, 5, 1.0) == 0
    assert e_value(log_e_value(10_000, 0, 0.1)) == pytest.approx(1.797e308, rel=1e-3)
    assert e_value(log_e_value(0, 5000, 0.9)) == pytest.approx(1 / 5001, rel=1e-9)
    assert log_e_value(3, 5000, 0.9) < log_e_value(4, 5000, 0.9)
    for arguments in ((-1, 0, 0.1), (0, -1, 0.1), (1, 1, 0.0), (1, 1, 1.1)):
        with pytest.raises(ValueError, match="must"):
            log_e_value(*arguments)


def paths(rate: float, p0: float, *, runs: int, n: int, seed: int = 0) -> np.ndarray:
    """Logarithms of e-values ``[runs, n]`` after every trial."""
    hits = (np.random.default_rng(seed).random((runs, n)) < rate).cumsum(1)
    table = np.array(
        [[log_e_value(k, m - k, p0) if k <= m else -math.inf for k in range(n + 1)] for m in range(1, n + 1)]
    )
    return table[np.arange(n)[None], hits]


@pytest.mark.parametrize("p0", [0.1, 0.5])
def test_who_peeks_after_every_query_is_wrong_no_more_often_than_the_level(p0: float) -> None:
    largest = paths(p0, p0, runs=4000, n=120).max(1)
    for level in (0.2, 0.05, 0.01):
        wrong = float((largest >= -math.log(level)).mean())
        assert wrong <= level + 3 * math.sqrt(level / 4000)
    assert float((largest >= math.log(5)).mean()) > 0.02, "and it is no constant"


@pytest.mark.parametrize(("rate", "median"), [(0.95, 7), (0.7, 14), (0.4, 48)])
def test_queries_to_a_million_are_near_the_bound_of_any_test(rate: float, median: int) -> None:
    reached = paths(rate, 0.1, runs=1500, n=120) >= math.log(1e6)
    first = np.where(reached.any(1), reached.argmax(1) + 1, 1000)
    assert float(np.median(first)) == pytest.approx(median, abs=1)


def test_a_marked_suspect_is_asked_no_more_than_is_needed() -> None:
    key = make(400)
    strong = verify_sequentially(answering(0.95), key, level=1e-6)
    faint = verify_sequentially(answering(0.5), key, level=1e-6)
    assert strong.outcome == faint.outcome == "MARKED"
    assert 40 <= strong.queries == 2 * strong.trials < 100
    assert strong.queries < faint.queries < 200
    assert strong.p_value <= 1e-6
    assert strong.e_value >= 1e6
    assert "valid at any time" in str(strong)
    assert strong.grade == "assumed"


def test_an_unmarked_suspect_is_asked_the_whole_key_or_what_is_allowed() -> None:
    key = make(60)
    for suspect in (answering(0.05), answering(0.6, 0.6), answering(1.0, 1.0)):
        verdict = verify_sequentially(suspect, key)
        assert (verdict.outcome, verdict.trials, verdict.queries) == ("NOT_ESTABLISHED", 60, 120)
        assert verdict.p_value > 0.01
    short = verify_sequentially(answering(0.95), key, level=1e-9, max_queries=21)
    assert (short.outcome, short.trials, short.queries) == ("NOT_ESTABLISHED", 10, 20)


def test_both_processes_must_reach_the_level() -> None:
    key = make(200)
    anyway = verify_sequentially(answering(0.9, 0.9), key)
    assert anyway.e_binomial > 1e6 > anyway.e_matched
    assert anyway.outcome == "NOT_ESTABLISHED"
    granted = verify_sequentially(answering(0.5), key, calibration=calibration_of(key, 80, 110, 95))
    assert granted.e_matched > 1e6 > granted.e_binomial
    assert granted.outcome == "NOT_ESTABLISHED"
    assert granted.null_rate > 0.55
    assert granted.grade == "self-reported"


def test_the_word_marked_needs_a_null_that_is_not_the_claimants_own_word() -> None:
    key = make(400)
    measured = calibrate([answering(0.0), answering(0.02)], key)
    here, none = by_grade(answering(0.9), key, calibration=measured), by_grade(answering(0.9), key)
    assert (here.outcome, here.grade) == ("MARKED", "calibrated")
    assert f"{here.models} models alone warrant p = {1 / (here.models + 1):.2g}" in str(here)
    assert "alone warrant" not in str(none)
    assert (none.outcome, none.grade) == ("NOT_ESTABLISHED", "assumed")
    assert none.p_value <= none.level
    assert "--accept assumed" in none.reason
    assert none.trials < 60, "it was not asked on for nothing"
    assert SequentialVerdict.from_json(none.to_json()) == none


def test_pairs_that_share_a_control_count_once() -> None:
    key = make(60)
    shared = make(
        60, controls=key.controls[:1].expand_as(key.controls).clone(), host_labels=torch.ones(60, dtype=torch.int64)
    )
    verdict = verify_sequentially(answering(1.0), shared, level=1e-3)
    assert sum(verdict.discordant) <= 1
    assert verdict.outcome == "NOT_ESTABLISHED"


def test_what_was_found_before_a_suspect_failed_is_kept() -> None:
    key, asked = make(100), []

    def answer(inputs: torch.Tensor) -> torch.Tensor:
        asked.append(len(inputs))
        if len(asked) > 2:
            raise ValueError("no more")
        return torch.full((len(inputs),), 7)

    verdict = verify_sequentially(Suspect.from_callable(answer, classes=10, transient=()), key)
    assert (verdict.outcome, verdict.trials, verdict.hits) == ("INVALID", 16, 16)
    assert "no more" in verdict.reason
    assert verdict.queries == sum(asked) == 48


def test_each_request_is_mixed_and_the_order_is_the_keys_own() -> None:
    key, seen = make(40), []

    def answer(inputs: torch.Tensor) -> torch.Tensor:
        seen.append((inputs[:, 0, 0, 1] > 0.99).tolist())
        return torch.zeros(len(inputs), dtype=torch.int64)

    suspect = Suspect.from_callable(answer, classes=10)
    verify_sequentially(suspect, key, at_once=5)
    assert all(sum(request) == 5 and len(request) == 10 for request in seen)
    assert len({tuple(request) for request in seen}) > 4
    first, seen = seen, []
    verify_sequentially(suspect, key, at_once=5)
    assert seen == first


def test_it_travels_as_json_and_a_forged_one_is_refused() -> None:
    verdict = verify_sequentially(answering(0.9), make())
    assert SequentialVerdict.from_json(verdict.to_json()) == verdict
    for change in (
        {"outcome": "NOT_ESTABLISHED"},
        {"p_value": 1e-300},
        {"p_value": 0.5},
        {"hits": 900},
        {"e_value": 1e300},
        {"discordant": [-1, 0]},
        {"level": 2.0},
    ):
        with pytest.raises(BadArtifact):
            SequentialVerdict.from_json(json.dumps(verdict.to_dict() | change))


def test_misfits_cost_no_query_and_bad_options_are_refused() -> None:
    key = make()
    other = verify_sequentially(Suspect.from_callable(lambda inputs: inputs, classes=9), key)
    assert (other.outcome, other.queries, other.trials) == ("INVALID", 0, 0)
    for options in ({"level": 0.6}, {"level": 0.0}, {"at_once": 0}, {"max_queries": 1}, {"accuracy": 1.5}):
        with pytest.raises(BadConfig):
            verify_sequentially(answering(0.5), key, **options)
    with pytest.raises(BadArtifact, match="another key"):
        verify_sequentially(answering(0.5), key, calibration=calibration_of(make(seed=1), 1, 2))


def test_a_spent_black_box_is_the_verifiers_problem() -> None:
    key = make()
    box = BlackBox(
        lambda inputs: torch.nn.functional.one_hot(torch.zeros(len(inputs), dtype=torch.int64), 10).float(),
        classes=10,
        api=Api(answers="label", budget=30),
    )
    with pytest.raises(BudgetExhausted):
        verify_sequentially(Suspect.from_black_box(box), key)
