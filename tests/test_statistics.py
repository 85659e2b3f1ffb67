import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from heirmark.verification.power import MOST, queries_needed, verdict_power
from heirmark.verification.statistics import binomial_p, clopper_pearson, e_bh, holm, least_hits, mcnemar_p, null_rate

rates = st.floats(0, 1)
sizes = st.integers(1, 60)


def chance(hits, n, rate):
    """The slow reference: P[X = hits] of a binomial, as the textbook has it."""
    return math.comb(n, hits) * rate**hits * (1 - rate) ** (n - hits)


@st.composite
def counts(draw, largest=10**9):
    n = draw(st.integers(0, largest))
    return draw(st.integers(0, n)), n


@given(sizes, rates, st.sampled_from([0.8, 0.95, 0.99]))
def test_clopper_pearson_covers_at_least_as_promised(n, rate, confidence):
    # Exact coverage: the probability of every outcome whose interval holds the true rate.
    intervals = [clopper_pearson(hits, n, confidence) for hits in range(n + 1)]
    covered = sum(
        chance(hits, n, rate) for hits, (low, high) in enumerate(intervals) if low - 1e-12 <= rate <= high + 1e-12
    )
    assert covered >= confidence - 1e-9


@given(counts())
@example((0, 10**12))
@example((10**12, 10**12))
@example((0, 0))
def test_clopper_pearson_holds_the_estimate_and_mirrors(pair):
    hits, n = pair
    low, high = clopper_pearson(hits, n)
    assert 0 <= low < high <= 1
    if n:
        assert low <= hits / n <= high
    mirrored = clopper_pearson(n - hits, n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)


@given(st.integers(1, 500), st.data())
def test_clopper_pearson_rises_with_hits_and_narrows_with_confidence(n, data):
    hits = data.draw(st.integers(0, n - 1))
    low, high = clopper_pearson(hits, n)
    more_low, more_high = clopper_pearson(hits + 1, n)
    assert low < more_low
    assert high <= more_high
    wide_low, wide_high = clopper_pearson(hits, n, 0.999)
    assert wide_low <= low
    assert wide_high >= high


@given(sizes, rates, st.sampled_from([0.001, 0.01, 0.05, 0.2]))
def test_binomial_p_keeps_its_level_exactly(n, p0, level):
    rejected = sum(chance(hits, n, p0) for hits in range(n + 1) if binomial_p(hits, n, p0) <= level)
    assert rejected <= level + 1e-9


@given(counts(), rates)
@example((10**9, 10**9), 1e-9)
@example((10**6, 10**6), 0.0)
@example((0, 0), 0.0)
def test_binomial_p_lies_in_half_open_unit_interval(pair, p0):
    assert 0 < binomial_p(*pair, p0) <= 1


@given(st.integers(1, 300), rates, rates, st.data())
def test_binomial_p_falls_with_hits_and_rises_with_the_null(n, p0, p1, data):
    hits = data.draw(st.integers(0, n - 1))
    assert binomial_p(hits + 1, n, p0) <= binomial_p(hits, n, p0)
    low, high = sorted((p0, p1))
    assert binomial_p(hits, n, low) <= binomial_p(hits, n, high) * (1 + 1e-9)


@given(st.lists(rates, min_size=1, max_size=12), st.data())
def test_binomial_p_bounds_unequal_trials_above_their_mean(single_rates, data):
    # Hoeffding 1956: for k >= n * mean + 1 the Poisson binomial tail is at most the binomial one.
    n, mean = len(single_rates), math.fsum(single_rates) / len(single_rates)
    distribution = np.ones(1)
    for rate in single_rates:
        distribution = np.convolve(distribution, [1 - rate, rate])
    hits = data.draw(st.integers(0, n))
    if hits >= n * mean + 1:
        assert distribution[hits:].sum() <= binomial_p(hits, n, mean) + 1e-9


def test_mcnemar_p_is_the_exact_null_distribution():
    # Pairs whose members are exchangeable: the trigger makes no difference, whatever the hosts' own rates are.
    generator = np.random.default_rng(0)
    pairs, runs = 80, 4000
    own_rates = generator.uniform(0, 0.6, pairs)
    triggers, controls = (generator.random((runs, pairs)) < own_rates for _ in range(2))
    p_values = [
        mcnemar_p(int(only_trigger), int(only_control))
        for only_trigger, only_control in zip((triggers & ~controls).sum(1), (controls & ~triggers).sum(1), strict=True)
    ]
    for level in (0.01, 0.05, 0.2):
        # Three standard errors of the simulation; a discrete test may fall short of the level, not exceed it.
        assert np.mean(np.array(p_values) < level) <= level + 3 * math.sqrt(level / runs)
    assert np.mean(np.array(p_values) < 0.2) > 0.1  # and it is a test, not a constant


@given(st.integers(0, 500), st.integers(0, 500))
def test_mcnemar_p_rises_with_pairs_against(only_trigger, only_control):
    p = mcnemar_p(only_trigger, only_control)
    assert 0 < p <= mcnemar_p(only_trigger, only_control + 1) * (1 + 1e-9)
    assert mcnemar_p(only_trigger + 1, only_control) <= p * (1 + 1e-9)


@given(st.integers(1, 2000), st.integers(2, 1000), st.data())
def test_null_rate_is_never_below_chance_nor_any_model(n, classes, data):
    hits = data.draw(st.lists(st.integers(0, n), max_size=8))
    rate = null_rate(hits, n, 1 / classes)
    assert 1 / classes <= rate <= 1
    for count in hits:
        assert rate >= count / n
        assert rate >= clopper_pearson(count, n, 0.9)[1]
    # One more model with another count can only raise it: it takes its share of the error, and may widen the range.
    assert null_rate([*hits, data.draw(st.integers(0, n))], n, 1 / classes) >= rate


def wrong_claims(models, mean, spread, *, runs, level=0.01, n=500, least=1 / 10):
    """How often a further unmarked model is rejected, when models' rates are normal on the logit scale."""
    generator = np.random.default_rng(0)
    logits = math.log(mean / (1 - mean)) + spread * generator.standard_normal((runs, models + 1))
    rows = generator.binomial(n, 1 / (1 + np.exp(-logits))).tolist()
    return sum(binomial_p(row[-1], n, null_rate(row[:-1], n, least)) < level for row in rows) / runs


@pytest.mark.parametrize(("mean", "spread"), [(0.02, 0.3), (0.1, 0.0), (0.3, 0.6), (0.6, 0.6)])
def test_null_rate_of_five_models_keeps_the_level_for_a_sixth(mean, spread):
    runs = 1500
    assert wrong_claims(5, mean, spread, runs=runs) <= 0.01 + 3 * math.sqrt(0.01 / runs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("models", "spread", "documented"),
    [
        *((1, 0.0, 0.002), (1, 0.3, 0.20), (1, 0.6, 0.33), (1, 1.0, 0.39)),
        *((3, 0.0, 0.000), (3, 0.3, 0.008), (3, 0.6, 0.033), (3, 1.0, 0.062)),
        *((5, 0.0, 0.000), (5, 0.3, 0.001), (5, 0.6, 0.008), (5, 1.0, 0.025)),
        *((10, 0.0, 0.000), (10, 0.3, 0.000), (10, 0.6, 0.001), (10, 1.0, 0.006)),
    ],
)
def test_the_table_in_the_documentation_holds(models, spread, documented):
    runs = 6000
    worst = max(wrong_claims(models, mean, spread, runs=runs) for mean in (0.02, 0.1, 0.3, 0.6))
    # Four standard errors, and the table's own rounding, which is to whole percents in the first column of numbers.
    assert worst == pytest.approx(documented, abs=4 * math.sqrt(max(documented, 0.001) / runs) + 0.0005)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("models", "spread", "documented"),
    [
        *((10, 0.6, 0.0), (10, 1.0, 0.008), (10, 1.5, 0.018), (10, 2.0, 0.026)),
        *((16, 0.6, 0.0), (16, 1.0, 0.003), (16, 1.5, 0.011), (16, 2.0, 0.016)),
    ],
)
def test_the_table_without_a_floor_holds(models, spread, documented):
    runs = 6000
    floorless = max(wrong_claims(models, mean, spread, runs=runs, least=1 / 500) for mean in (0.002, 0.01, 0.02))
    assert floorless == pytest.approx(documented, abs=4 * math.sqrt(max(documented, 0.001) / runs) + 0.0005)


@given(st.lists(rates, max_size=20))
def test_holm_agrees_with_its_definition(p_values):
    adjusted = holm(p_values)
    for level in (0.01, 0.05, 0.3):
        # The procedure as stated: go up the sorted p-values, stop at the first that fails its share of the level.
        rejected = set()
        for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if (len(p_values) - rank) * p_values[index] > level:
                break
            rejected.add(index)
        assert {index for index, p in enumerate(adjusted) if p <= level} == rejected
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))


@given(st.lists(st.floats(0, 1e6), max_size=20))
def test_e_bh_agrees_with_its_definition(e_values):
    levels, m = e_bh(e_values), len(e_values)
    down = sorted(e_values, reverse=True)
    for level in (0.01, 0.05, 0.3):
        # The procedure as stated: reject the k largest, for the largest k of which the smallest is m / (k level) or more.
        counts = [k for k in range(1, m + 1) if down[k - 1] and m / (k * down[k - 1]) <= level]
        least = down[max(counts) - 1] if counts else math.inf
        assert [each <= level for each in levels] == [e >= least for e in e_values]
    assert all(0 <= each <= 1 and each * e >= 1 - 1e-9 for each, e in zip(levels, e_values, strict=True) if each < 1)


@pytest.mark.parametrize("shown", [0, 1, 3])
def test_e_bh_keeps_the_share_of_false_rejections(shown):
    # Every way that e-values of four innocents, 5 with a chance of 1/5 and else nothing, can fall beside some true ones.
    level, innocents = 0.3, 4
    share = 0.0
    for fall in itertools.product((0.0, 5.0), repeat=innocents):
        rejected = [each <= level for each in e_bh([*fall, *[50.0] * shown])]
        false = sum(rejected[:innocents])
        share += math.prod(0.2 if each else 0.8 for each in fall) * false / max(1, sum(rejected))
    assert share <= level * innocents / (innocents + shown)
    assert share > 0


@given(st.integers(0, 3000), rates, st.sampled_from([0.001, 0.01, 0.05]))
def test_least_hits_is_the_first_that_rejects(n, p0, level):
    least = least_hits(n, p0, level)
    if least is None:
        assert binomial_p(n, n, p0) >= level
    else:
        assert binomial_p(least, n, p0) < level <= binomial_p(least - 1, n, p0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: clopper_pearson(3, 2),
        lambda: clopper_pearson(-1, 2),
        lambda: clopper_pearson(1, 2, 1.0),
        lambda: clopper_pearson(1, 2, math.nan),
        lambda: binomial_p(3, 2, 0.5),
        lambda: binomial_p(1, 2, 1.5),
        lambda: binomial_p(1, 2, math.nan),
        lambda: mcnemar_p(-1, 2),
        lambda: mcnemar_p(3, -1),
        lambda: null_rate([3], 2, 0.1),
        lambda: null_rate([1], 2, 0.0),
        lambda: null_rate([1], 2, 1.1),
        lambda: null_rate([1], 2, 0.1, 0.0),
        lambda: e_bh([1.0, -0.1]),
        lambda: e_bh([math.nan]),
        lambda: holm([0.5, 1.5]),
        lambda: holm([math.nan]),
    ],
)
def test_arguments_out_of_range_are_refused(call):
    with pytest.raises(ValueError, match="must"):
        call()


# ---------------------------------------------------------------- how many queries a verdict needs


def both_reject(n, hit_rate, control_rate, null_rate, level):
    """The slow reference: every outcome of n pairs, with its chance."""
    total = 0.0
    for hits in range(n + 1):
        for alone in range(hits + 1):  # hits whose control misses
            for control_alone in range(n - hits + 1):
                if max(binomial_p(hits, n, null_rate), mcnemar_p(alone, control_alone)) < level:
                    total += (
                        chance(hits, n, hit_rate)
                        * chance(alone, hits, 1 - control_rate)
                        * chance(control_alone, n - hits, control_rate)
                    )
    return total


@pytest.mark.parametrize(
    ("case", "slack"),
    [
        ((12, 0.6, 0.3, 0.1, 0.05), 0.02),
        ((10, 0.9, 0.2, 0.3, 0.1), 0.02),
        ((15, 0.5, 0.1, 0.1, 0.01), 0.06),
        ((3, 0.3, 0.3, 0.1, 0.5), 0.05),
        ((9, 1.0, 0.0, 0.2, 0.01), 1e-9),
        ((6, 1.0, 0.0, 0.1, 0.01), 1e-9),
        ((7, 0.0, 0.5, 0.1, 0.01), 1e-9),
    ],
)
def test_the_power_of_a_verdict_is_a_tight_lower_bound(case, slack):
    true, told = both_reject(*case), verdict_power(*case)
    assert true - slack <= told <= true + 1e-9


@pytest.mark.parametrize("case", [(0.15, 0.02, 0.1, 0.01), (0.4, 0.25, 0.1, 0.01), (0.45, 0.0, 0.3, 0.05)])
def test_with_the_queries_needed_a_suspect_is_called_marked_as_often_as_is_said(case):
    hit_rate, control_rate, null_rate, level = case
    n = queries_needed(*case)
    assert verdict_power(n, *case) >= 0.9 > verdict_power(n - 1, *case)
    generator = np.random.default_rng(0)
    draws = 3000
    hit, control = (generator.random((draws, n)) < rate for rate in (hit_rate, control_rate))
    called = [
        max(binomial_p(hits, n, null_rate), mcnemar_p(alone, control_alone)) < level
        for hits, alone, control_alone in zip(
            hit.sum(1).tolist(), (hit & ~control).sum(1).tolist(), (control & ~hit).sum(1).tolist(), strict=True
        )
    ]
    assert 0.9 - 0.025 <= np.mean(called) <= 0.98


@settings(deadline=None, max_examples=25)
@given(st.floats(0.05, 1), st.floats(0, 0.9), st.floats(0.05, 0.9))
def test_queries_are_counted_where_there_is_a_difference_to_be_seen(hit_rate, control_rate, null_rate):
    needed = queries_needed(hit_rate, control_rate, null_rate)
    if hit_rate <= max(null_rate, control_rate):
        assert needed is None
    elif needed is not None:
        assert needed <= MOST
        assert verdict_power(needed, hit_rate, control_rate, null_rate) >= 0.9
        assert needed == 1 or verdict_power(needed - 1, hit_rate, control_rate, null_rate) < 0.9
    else:
        assert verdict_power(MOST, hit_rate, control_rate, null_rate) < 0.9


def test_the_queries_needed_of_what_is_plain_are_few_and_of_what_is_hidden_none():
    assert queries_needed(1.0, 0.0, 0.1) == 7, "by the matched test: 1/2 ** 7 < 0.01"
    assert queries_needed(1.0, 0.0, 0.1, least=20) == 20
    assert queries_needed(0.5, 0.0, 0.1, power=0.5) < queries_needed(0.5, 0.0, 0.1, power=0.99)
    assert queries_needed(0.3, 0.3, 0.1) is None
    assert queries_needed(1.0, 0.0, 1.0) is None
    with pytest.raises(ValueError, match="power must lie strictly"):
        queries_needed(0.5, 0.0, 0.1, power=1.0)
    with pytest.raises(ValueError, match="power must lie strictly"):
        queries_needed(0.5, 0.0, 0.1, 0.5, power=0.4)
    with pytest.raises(ValueError, match="hit_rate must lie"):
        verdict_power(10, 1.5, 0.0, 0.1)
