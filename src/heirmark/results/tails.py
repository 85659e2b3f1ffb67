"""Tails of the binomial distribution in plain Python, by which a verdict that is read is held to its own counts."""

from __future__ import annotations

import math
import sys

MOST_TRIALS = 10**7
"""More than any key has; beyond, nothing is summed, nor would logarithms of factorials be exact enough."""
_NOTHING = 1e-18
_LEAST = math.log(sys.float_info.min)


def log_tail(hits: int, trials: int, rate: float) -> float:
    r"""The logarithm of :math:`P[X \ge k]` for :math:`X \sim \mathrm{Bin}(n, p)`, at least that of the least normal float.

    Args:
        hits: k, 0 to n.
        trials: n, up to :data:`MOST_TRIALS`.
        rate: p, 0 to 1.

    Examples:
        >>> round(math.exp(log_tail(8, 10, 0.5)), 6), log_tail(0, 10, 0.1), log_tail(9, 9, 0.0) == _LEAST
        (0.054688, 0.0, True)
    """
    if hits <= 0 or rate >= 1:
        return 0.0
    if rate <= 0:
        return _LEAST
    if hits > trials * rate:  # from here on terms become smaller, and so they do downwards below
        return max(_LEAST, min(0.0, _log_term(hits, trials, rate) + math.log(_sum(hits, trials, rate))))
    below = math.exp(_log_term(hits - 1, trials, rate)) * _sum(trials - hits + 1, trials, 1 - rate)
    return max(_LEAST, math.log(max(1 - below, sys.float_info.min)))


def agrees(p_value: float, hits: int, trials: int, rate: float) -> bool:
    """Whether a p-value is the tail that belongs to the counts, up to rounding.

    Examples:
        >>> agrees(0.0546875, 8, 10, 0.5), agrees(1e-300, 0, 60, 0.1)
        (True, False)
    """
    if not (0 < p_value <= 1 and trials <= MOST_TRIALS):
        return False
    wanted = log_tail(hits, trials, rate)
    return abs(math.log(p_value) - wanted) <= 1e-6 * (1 + abs(wanted))


def _log_term(hits: int, trials: int, rate: float) -> float:
    ways = math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
    return ways + hits * math.log(rate) + (trials - hits) * math.log1p(-rate)


def _sum(hits: int, trials: int, rate: float) -> float:
    """The terms from ``hits`` on, as multiples of the first."""
    odds, term, whole = rate / (1 - rate), 1.0, 1.0
    for k in range(hits, trials):
        term *= (trials - k) / (k + 1) * odds
        whole += term
        if term < _NOTHING * whole:
            break
    return whole
