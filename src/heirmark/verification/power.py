"""How many queries a verdict needs: the power of the two tests together. Free of any model, as :mod:`.statistics`."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import binom

POWER = 0.9
"""Chance of MARKED at which queries are counted, unless another is asked for."""
MOST = 10_000
"""Queries beyond which no key is thought of."""
_TAIL = 1e-9
"""Of a distribution that is left out at either end of a sum."""


def verdict_power(n: int, hit_rate: float, control_rate: float, null_rate: float, level: float = 0.01) -> float:
    r"""The chance that a key of n queries makes both tests of a verdict reject, as they are combined there: at least this.

    The first test rejects from :math:`k` hits on (:func:`heirmark.verification.statistics.least_hits`), with the chance
    :math:`P_1 = P[\mathrm{Bin}(n, h) \ge k]`. Of the pairs, :math:`d \sim \mathrm{Bin}(n, q)` disagree, with
    :math:`q = h(1-c) + c(1-h)`, and :math:`\mathrm{Bin}(d, h(1-c)/q)` of them in favour of the trigger, which gives the chance
    :math:`P_2` of the matched test. More hits help either test, so that they reject together with a chance of at least
    :math:`P_1 P_2` (Harris' inequality) and at most the smaller of the two.

    Args:
        n: queries, each with a control of its own.
        hit_rate: chance h that the suspect gives a query its expected answer.
        control_rate: chance c that it gives it to a control, whether it hits the query or not. In truth hosts that get it
            anyway get it with the trigger too, which helps the matched test.
        null_rate: granted to unmarked models.
        level: of the verdict.

    Returns:
        The chance, in [0, 1].

    Raises:
        ValueError: if a rate is not in [0, 1].

    Examples:
        >>> round(verdict_power(500, 0.15, 0.02, 0.1), 3)
        0.857
        >>> verdict_power(20, 1.0, 0.0, 0.1)
        1.0
    """
    for name, rate in (("hit_rate", hit_rate), ("control_rate", control_rate), ("null_rate", null_rate)):
        if not 0 <= rate <= 1:
            raise ValueError(f"{name} must lie in [0, 1], not {rate}")
    return _both(n, hit_rate, control_rate, null_rate, level, 0.0)


def queries_needed(
    hit_rate: float,
    control_rate: float,
    null_rate: float,
    level: float = 0.01,
    *,
    power: float = POWER,
    least: int = 1,
) -> int | None:
    """How many queries a key must have for a suspect to be called MARKED with a given chance; as many controls come on top.

    The null rate is taken as it is, though a larger key would measure it more closely: the count is on the side of caution.

    Args:
        hit_rate: of the suspect, on the queries; as an estimate from few hits it is as uncertain as these are.
        control_rate: of the suspect, on the controls; see :func:`verdict_power`.
        null_rate: granted to unmarked models.
        level: of the verdict.
        power: the chance, strictly between the level and 1.
        least: the smallest key that is used at all.

    Returns:
        The count: with it the power is reached and with one query less it is not, unless it is ``least``. As hits are whole the
        power is a sawtooth, so that a somewhat smaller count may reach it too. None when no key of up to :data:`MOST` does.

    Raises:
        ValueError: if an argument is out of range.

    Examples:
        >>> queries_needed(1.0, 0.0, 0.1)
        7
        >>> queries_needed(0.15, 0.02, 0.1)
        577
        >>> queries_needed(0.1, 0.02, 0.1) is None
        True
    """
    if not level < power < 1:
        raise ValueError(f"power must lie strictly between the level, {level}, and 1, not {power}")
    if hit_rate <= max(null_rate, control_rate):
        return None  # a test rejects no more often than at its level then

    def found(n: int) -> bool:
        return _both(n, hit_rate, control_rate, null_rate, level, power) >= power

    if not found(MOST):
        return None
    low, high = least - 1, least
    while not found(high):
        low, high = high, min(MOST, 2 * high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


def _both(n: int, hit_rate: float, control_rate: float, null_rate: float, level: float, enough: float) -> float:
    """See :func:`verdict_power`; where the first test alone has not the power that is enough, that of the first."""
    first = float(binom.sf(_least(n, null_rate, level) - 1, n, hit_rate))
    for_trigger = hit_rate * (1 - control_rate)
    discordant = for_trigger + control_rate * (1 - hit_rate)
    if first < enough or discordant == 0:
        return first if discordant else 0.0
    pairs = np.arange(binom.ppf(_TAIL, n, discordant), binom.ppf(1 - _TAIL, n, discordant) + 1)
    matched = binom.sf(_least(pairs, 0.5, level) - 1, pairs, for_trigger / discordant)
    return min(1.0, first * float(binom.pmf(pairs, n, discordant) @ matched))


def _least(n: Any, rate: float, level: float) -> Any:
    """Of a number of trials, or of each of several, the hits from which on a test rejects; more than the trials where none do."""
    hits = binom.isf(level, n, rate) + 1
    return hits + (binom.sf(hits - 1, n, rate) >= level)  # at a p-value of the level itself nothing is rejected
