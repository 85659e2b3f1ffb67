r"""Evidence that may be looked at after every query: e-processes of a proportion. Free of any model, as :mod:`.statistics`.

An e-process is not negative and has a mean of at most 1 under the null at every stopping time. So it ever reaches
:math:`1/\alpha` with a chance of at most :math:`\alpha` (Ville's inequality): one may stop when one likes, and one over the
largest value is a p-value.
"""

from __future__ import annotations

import math
import sys

from scipy.special import betaln, hyp2f1
from scipy.stats import beta

_LARGEST = math.log(sys.float_info.max)
_SMALLEST = math.log(sys.float_info.min) + 40


def log_e_value(hits: int, misses: int, p0: float) -> float:
    r"""Logarithm of the e-process against a proportion of at most :math:`p_0`, after so many hits and misses.

    The likelihood ratio of every proportion above, in equal measure:

    .. math:: E = \frac{1}{1-p_0} \int_{p_0}^1 \Big(\frac{q}{p_0}\Big)^k \Big(\frac{1-q}{1-p_0}\Big)^m dq
        = \frac{B(k+1, m+1)\,\big(1 - I_{p_0}(k+1, m+1)\big)}{(1-p_0)\; p_0^k\, (1-p_0)^m}

    If each trial, whatever came before, hits with a chance of at most :math:`p_0`, no ratio rises on average, for
    :math:`p\,q/p_0 + (1-p)(1-q)/(1-p_0)` grows with p and is 1 at :math:`p_0`; nor does their mean.

    Source: Robbins, "Statistical methods related to the law of the iterated logarithm", Ann. Math.
    Stat. 41 (1970). The order of hits and misses does not matter.

    Args:
        hits: successes k so far.
        misses: failures m so far.
        p0: proportion under the null hypothesis, in (0, 1]; at 1 nothing speaks against it.

    Returns:
        The natural logarithm.

    Raises:
        ValueError: if an argument is out of range.

    Examples:
        >>> log_e_value(0, 0, 0.1)
        0.0
        >>> log_e_value(6, 0, 0.1) < math.log(1e6) < log_e_value(7, 0, 0.1)
        True
    """
    if min(hits, misses) < 0:
        raise ValueError(f"counts must not be negative: {hits}, {misses}")
    if not 0 < p0 <= 1:
        raise ValueError(f"p0 must lie above 0 and at most at 1, not {p0}")
    if p0 == 1 or not hits + misses:
        return 0.0
    null = hits * math.log(p0) + (misses + 1) * math.log1p(-p0)
    return _log_above(hits + 1, misses + 1, p0) - null


def _log_above(a: int, b: int, p0: float) -> float:
    r"""Logarithm of :math:`\int_{p_0}^1 q^{a-1} (1-q)^{b-1} dq`.

    Where the share of the whole is too small for a float, by :math:`\frac{(1-p_0)^b p_0^a}{b}\,{}_2F_1(a+b, 1; b+1; 1-p_0)` (DLMF
    8.17.8), whose terms are all positive and fall fast there.
    """
    share = float(beta.logsf(p0, a, b))
    if share > _SMALLEST:
        return float(betaln(a, b)) + share
    return b * math.log1p(-p0) + a * math.log(p0) - math.log(b) + math.log(float(hyp2f1(a + b, 1, b + 1, 1 - p0)))


def e_value(logarithm: float) -> float:
    """From its logarithm; one too large for a float is the largest there is.

    Examples:
        >>> e_value(0.0), e_value(1e9) < math.inf
        (1.0, True)
    """
    return math.exp(min(logarithm, _LARGEST))
