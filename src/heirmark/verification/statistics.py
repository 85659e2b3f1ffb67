"""The statistics of a verdict: exact, one-sided, and free of any model. Imports nothing of heirmark.

Every p-value lies in (0, 1]: one too small for a float is given as the smallest positive normal float, never as zero.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from scipy.stats import beta, binom

_TINY = sys.float_info.min


def clopper_pearson(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    r"""Exact two-sided confidence interval of a proportion.

    With :math:`\alpha` = 1 - confidence the bounds are the Beta quantiles

    .. math:: B(\alpha/2;\; k, n-k+1), \qquad B(1-\alpha/2;\; k+1, n-k)

    which cover the true proportion with probability at least ``confidence``, whatever it is.

    Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26 (1934).

    Args:
        hits: successes k, 0 to n.
        n: independent trials; with none the interval is (0, 1).
        confidence: coverage, strictly between 0 and 1.

    Returns:
        Lower and upper bound, in [0, 1].

    Raises:
        ValueError: if an argument is out of range.

    Examples:
        >>> low, high = clopper_pearson(8, 10)
        >>> round(low, 4), round(high, 4)
        (0.4439, 0.9748)
        >>> clopper_pearson(0, 0)
        (0.0, 1.0)
    """
    _check_counts(hits, n)
    _check_open_unit(confidence, "confidence")
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, hits, n - hits + 1)) if hits > 0 else 0.0
    return low, _upper(hits, n, tail)


def binomial_p(hits: int, n: int, p0: float) -> float:
    r"""One-sided exact binomial p-value :math:`P[X \ge k]` for :math:`X \sim \mathrm{Bin}(n, p_0)`.

    It bounds the chance of so many hits under every proportion up to ``p0``, since the tail grows with the proportion,
    and (from a hit above the mean on) under trials whose proportions differ but have a mean up to ``p0``.

    Source: for the second claim, Hoeffding, "On the distribution of the number of successes in independent trials",
    Ann. Math. Stat. 27 (1956), theorem 4.

    Args:
        hits: successes k, 0 to n.
        n: independent trials.
        p0: proportion under the null hypothesis, 0 to 1.

    Returns:
        The p-value, in (0, 1].

    Raises:
        ValueError: if an argument is out of range.

    Examples:
        >>> round(binomial_p(8, 10, 0.5), 6)
        0.054688
        >>> binomial_p(0, 10, 0.1)
        1.0
        >>> 0 < binomial_p(10_000, 10_000, 0.1) < 1e-300
        True
    """
    _check_counts(hits, n)
    if not 0 <= p0 <= 1:
        raise ValueError(f"p0 must lie in [0, 1], not {p0}")
    return min(1.0, max(_TINY, float(binom.sf(hits - 1, n, p0))))


def mcnemar_p(only_trigger: int, only_control: int) -> float:
    r"""One-sided exact McNemar test: does the trigger bring the expected answer on more often than its absence does?

    Of b + c pairs that disagree, b hit with the trigger only. If the trigger made no difference, each would fall either
    way with probability 1/2, so

    .. math:: p = P[X \ge b], \qquad X \sim \mathrm{Bin}(b + c, 1/2).

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12 (1947), in its exact form.

    Args:
        only_trigger: pairs b that hit with the trigger and miss without.
        only_control: pairs c that hit without the trigger and miss with it.

    Returns:
        The p-value, in (0, 1]; 1 when no pair disagrees.

    Raises:
        ValueError: if a count is negative.

    Examples:
        >>> mcnemar_p(5, 0) == 0.5**5
        True
        >>> mcnemar_p(0, 0)
        1.0
    """
    if only_control < 0:
        raise ValueError(f"counts must not be negative, but only_control is {only_control}")
    return binomial_p(only_trigger, only_trigger + only_control, 0.5)


def null_rate(unmarked_hits: Sequence[int], n: int, least: float, confidence: float = 0.95) -> float:
    r"""A hit rate that an unmarked model is taken not to exceed, from m unmarked models asked the same n queries.

    .. math:: \max\Big(r_0,\; \max_j u_j + \frac{\max_j k_j - \min_j k_j}{n}\Big), \quad
        u_j = B\Big(1 - \frac{1 - \mathrm{confidence}}{m};\; k_j + 1, n - k_j\Big)

    Three parts, each on the side of the suspect. What is granted in any case, since a trigger's target is often the class that
    a model says least, so that the unmarked rate can be far below chance and a few odd answers would look like proof. The
    Clopper-Pearson upper bounds :math:`u_j`, with a Bonferroni share of the error each, cover the rates of all m models
    at once. And since the suspect is none of these models, the range of their rates is added once more: an allowance
    for how models differ, not a theorem; ``docs/verdicts.md`` says how it fares in simulation.

    Args:
        unmarked_hits: hits :math:`k_j` of each unmarked model; with none the rate is the least.
        n: queries that each was asked.
        least: :math:`r_0`, which is granted in any case, such as chance, 1/C; in (0, 1].
        confidence: of all the upper bounds together.

    Returns:
        The rate, in (0, 1].

    Raises:
        ValueError: if an argument is out of range.

    Examples:
        >>> null_rate([], 500, 1 / 10)
        0.1
        >>> null_rate([0, 1, 0], 500, 1 / 10)
        0.1
        >>> round(null_rate([300, 290, 310], 500, 1 / 10), 3)
        0.706
    """
    if not 0 < least <= 1:
        raise ValueError(f"least must lie above 0 and at most at 1, not {least}")
    _check_open_unit(confidence, "confidence")
    for hits in unmarked_hits:
        _check_counts(hits, n)
    if not unmarked_hits or not n:
        return least
    most = max(unmarked_hits)
    bound = _upper(most, n, (1 - confidence) / len(unmarked_hits))
    return min(1.0, max(least, bound + (most - min(unmarked_hits)) / n))


def holm(p_values: Sequence[float]) -> list[float]:
    r"""Holm's step-down adjustment: reject what is at most the level, and any false rejection has at most its chance.

    With the p-values sorted, the i-th of m becomes :math:`\max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})`. The tests may
    depend on each other in any way.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).

    Args:
        p_values: one a test, each in [0, 1].

    Returns:
        Adjusted p-values, in the order given.

    Raises:
        ValueError: if a value is not in [0, 1].

    Examples:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError("p-values must lie in [0, 1]")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def e_bh(e_values: Sequence[float]) -> list[float]:
    r"""The e-BH procedure, as levels: what is at most the level is rejected, and few of that falsely.

    The expected share of false ones among all rejections is at most the level times the share of true nulls.
    With the e-values sorted downwards, the i-th of m becomes :math:`\min_{k \ge i} \min(1, m / (k\, e_{(k)}))`. The e-values may
    depend on each other in any way. No rejected one lies below one over the level, so that each keeps that level by itself, too.

    Source: Wang and Ramdas, "False discovery rate control with e-values", J. R. Stat. Soc. B 84 (2022), section 4.

    Args:
        e_values: one a test, none negative.

    Returns:
        The least level at which each is rejected, 1 at most, in the order given.

    Raises:
        ValueError: if a value is negative, or no number.

    Examples:
        >>> e_bh([1000.0, 0.5, 250.0])
        [0.003, 1.0, 0.006]
    """
    if not all(e >= 0 for e in e_values):
        raise ValueError("e-values must not be negative")
    levels = [1.0] * len(e_values)
    least = 1.0
    order = sorted(range(len(e_values)), key=e_values.__getitem__)
    for rank, index in zip(range(len(e_values), 0, -1), order, strict=True):
        least = min(least, len(e_values) / (rank * e_values[index])) if e_values[index] else least
        levels[index] = least
    return levels


def least_hits(n: int, p0: float, level: float) -> int | None:
    """The fewest hits of ``n`` that :func:`binomial_p` rejects: how large a key must be to prove anything.

    Args:
        n: queries.
        p0: proportion under the null hypothesis.
        level: of the test; the p-value must be below it.

    Returns:
        The count, or None if not even n hits suffice.

    Raises:
        ValueError: if an argument is out of range.

    Examples:
        >>> least_hits(500, 0.1, 0.01)
        67
        >>> least_hits(2, 0.5, 0.01) is None
        True
    """
    if binomial_p(n, n, p0) >= level:
        return None
    low, high = 0, n  # binomial_p is 1 at 0 hits, below the level at n, and falls in between
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if binomial_p(middle, n, p0) < level else (middle, high)
    return high


def _upper(hits: int, n: int, tail: float) -> float:
    """The Clopper-Pearson upper bound that leaves ``tail`` above."""
    return float(beta.ppf(1 - tail, hits + 1, n - hits)) if hits < n else 1.0


def _check_counts(hits: int, n: int) -> None:
    if not 0 <= hits <= n:
        raise ValueError(f"hits must lie between 0 and {n} trials, not {hits}")


def _check_open_unit(value: float, name: str) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie strictly between 0 and 1, not {value}")
