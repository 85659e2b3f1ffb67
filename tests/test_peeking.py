"""Who looks after every answer: error rates of verify_sequentially by simulation, and its e-processes against other libraries."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from heirmark.verification import verify_sequentially as by_grade
from heirmark.verification.e_process import log_e_value
from heirmark.verification.statistics import e_bh
from test_verify import answering, make

pytestmark = pytest.mark.slow
verify_sequentially = partial(by_grade, accept="assumed", at_once=1)
RUNS, LONG = 400, 60


def trials(rate: float, *, runs: int, n: int, seed: int) -> np.ndarray:
    """Hits ``[runs, n]``."""
    return np.random.default_rng(seed).random((runs, n)) < rate


def own_paths(hits: np.ndarray, p0: float) -> np.ndarray:
    """Logarithms of our e-values after every trial."""
    counts = hits.cumsum(1)
    seen = np.arange(1, hits.shape[1] + 1)[None] - counts
    table = {(k, m): log_e_value(k, m, p0) for k, m in {*zip(counts.ravel().tolist(), seen.ravel().tolist())}}  # noqa: B905
    return np.array([[table[k, m] for k, m in zip(*row, strict=True)] for row in zip(counts.tolist(), seen.tolist())])  # noqa: B905


@pytest.mark.parametrize(("trigger", "control"), [(0.1, 0.0), (0.6, 0.6)])
def test_an_innocent_suspect_is_called_marked_no_more_often_than_the_level(trigger: float, control: float) -> None:
    """At the edge of the first null and of the second, looked at after every pair, at several levels."""
    key = make(LONG)
    smallest = np.array(
        [verify_sequentially(answering(trigger, control, seed=seed), key, level=1e-3).p_value for seed in range(RUNS)]
    )
    for level in (0.2, 0.05, 0.01):
        wrong = float((smallest <= level).mean())
        assert wrong <= level + 3 * math.sqrt(level * (1 - level) / RUNS), (trigger, control, level)
    assert float((smallest <= 0.5).mean()) > 0.02, "and one that never speaks would prove nothing"


def test_peeking_at_the_usual_p_value_is_wrong_far_more_often() -> None:
    """What the e-process is for: the same looks at a fixed-n p-value break the level."""
    binom = pytest.importorskip("scipy.stats").binom
    counts = trials(0.1, runs=4 * RUNS, n=LONG, seed=1).cumsum(1)
    p = binom.sf(counts - 1, np.arange(1, LONG + 1)[None], 0.1)
    fixed = float((p.min(1) <= 0.01).mean())
    ours = float((own_paths(trials(0.1, runs=4 * RUNS, n=LONG, seed=1), 0.1).max(1) >= math.log(100)).mean())
    assert fixed > 0.03 > 0.01 + 3 * math.sqrt(0.01 / (4 * RUNS)) > ours


@pytest.mark.parametrize("p0", [0.05, 0.1, 0.5, 0.8])
def test_it_is_the_upper_part_of_villes_two_sided_mixture(p0: float) -> None:
    """Theirs mixes all rates in [0, 1] evenly, ours those above the null; those below are ours with hits and misses exchanged."""
    ville = pytest.importorskip("ville")
    for row in trials(min(1.0, 1.5 * p0), runs=20, n=200, seed=2):
        theirs = ville.BernoulliTest(p0=p0).fit(row.astype(float)).log_e_values_
        hits = row.cumsum()
        ours = [
            np.logaddexp(math.log(1 - p0) + log_e_value(k, n - k, p0), math.log(p0) + log_e_value(n - k, k, 1 - p0))
            for n, k in enumerate(hits.tolist(), start=1)
        ]
        assert np.allclose(theirs, ours, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("p0", [0.1, 0.5])
def test_it_errs_no_more_and_finds_no_later_than_villes_bets(p0: float) -> None:
    ville = pytest.importorskip("ville")
    never = 10_000

    def stops(rate: float, level: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        hits = trials(rate, runs=300, n=150, seed=seed)
        reached = own_paths(hits, p0) >= -math.log(level)
        ours = np.where(reached.any(1), reached.argmax(1) + 1, never)
        test = partial(ville.BettingTest, m0=p0, alternative="greater", alpha=level)
        return ours, np.array([test().fit(row.astype(float)).stopping_time() or never for row in hits])

    ours, theirs = stops(p0, 0.05, 3)
    for found in (ours, theirs):
        assert float((found < never).mean()) <= 0.05 + 3 * math.sqrt(0.05 / 300)
    ours, theirs = stops(min(0.95, p0 + 0.4), 1e-6, 4)
    assert np.median(ours) <= np.median(theirs) < never


def test_e_bh_is_villes() -> None:
    evalues = pytest.importorskip("ville.evalues")
    rng = np.random.default_rng(5)
    for size in (1, 3, 20):
        for _ in range(200):
            values = np.exp(rng.normal(1, 4, size))
            for level in (0.01, 0.1, 0.5):
                ours = [each <= level for each in e_bh(values.tolist())]
                assert ours == evalues.ebh(values, alpha=level).tolist()


def test_against_a_half_it_is_confseqs_one_sided_beta_binomial_mixture() -> None:
    """At a null of 1/2 their truncated Beta mixture is uniform for rho = 1/4 + 1/2, and so the same as ours."""
    boundaries = pytest.importorskip("confseq.boundaries")
    level = 0.05
    optimal = 2 * math.log(1 / (2 * level)) + math.log(1 + 2 * math.log(1 / (2 * level)))  # v / rho of their tuning
    for row in trials(0.7, runs=20, n=200, seed=6):
        for n, k in enumerate(row.cumsum().tolist(), start=1):
            theirs = boundaries.beta_binomial_log_mixture(
                k - n / 2, n / 4, v_opt=0.75 * optimal, g=0.5, h=0.5, alpha_opt=level, is_one_sided=True
            )
            assert theirs == pytest.approx(log_e_value(k, n - k, 0.5), abs=1e-6)
