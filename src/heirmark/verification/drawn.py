r"""The exact test of drawn answers. Free of any model, as :mod:`.statistics`.

Each of G groups has k candidates, of which one was drawn. The suspect's answers give every candidate of every group a score, and
the scores do not depend on the draw. So the sum over the drawn ones is one of :math:`\prod k_g` sums that were equally likely,
and its place among all is a p-value: exact, with no word on how the suspect came by its answers.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SMOOTHING = 0.02
"""Added to shares of answers, so that none is impossible."""
STEPS = 20_000
"""Of the lattice on which sums of scores are counted: p-values are too large by what they are rounded, never too small."""
BOLDNESS = (0.125, 0.25, 0.5, 1.0)
"""Of bets: how far they trust the scores."""
Scores = Sequence[NDArray[np.float64]]


def scores(said: NDArray[np.float64], usual: NDArray[np.float64], candidates: Sequence[Sequence[int]]) -> Scores:
    r"""How much more often the suspect gives each candidate than unmarked models do, in units of how these differ.

    With the log-odds l of a share, :math:`(l - \bar l_u) / \sqrt{1 + \sigma_u^2}`. So a group is weighed by how seldom unmarked
    models give that answer, and by how well they agree on it.

    Args:
        said: ``[G, C]`` share of each answer to the triggers of each group, by the suspect.
        usual: ``[m, G, C]`` the same of unmarked models, fixed before the draw; none compares with even shares.
        candidates: of each group.

    Returns:
        For each group ``[k]``.
    """
    if len(usual):
        known = log_odds(usual)
        centre, spread = known.mean(0), known.std(0, ddof=1) if len(known) > 1 else np.zeros_like(known[0])
    else:
        centre, spread = log_odds(np.full_like(said, 1 / said.shape[1])), np.zeros_like(said)
    found = (log_odds(said) - centre) / np.sqrt(1 + spread**2)
    return [found[group, list(options)] for group, options in enumerate(candidates)]


def log_odds(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds of shares in [0, 1], smoothed; of the same shape."""
    return np.log((shares + SMOOTHING) / (1 - shares + SMOOTHING))


def p_of_drawn(found: Scores, places: Sequence[int]) -> float:
    """Chance that a draw gives a sum of scores at least as large as the one that there was.

    Sums are counted on a lattice: every score is rounded up, the sum that there was down. What comes out is the chance or a
    little more, never less.

    Args:
        found: scores ``[k]`` of each group.
        places: which candidate of each group was drawn.

    Returns:
        A p-value in (0, 1], at least the least normal float.

    Examples:
        >>> p_of_drawn([np.array([0.0, 1.0])] * 3, [1, 1, 1]), p_of_drawn([np.array([0.0, 1.0])] * 3, [0, 1, 1])
        (0.125, 0.5)
    """
    own = math.fsum(float(group[place] - group.min()) for group, place in zip(found, places, strict=True))
    reach = math.fsum(float(group.max() - group.min()) for group in found)
    if not reach > 0:
        return 1.0
    step = reach / STEPS
    chances = np.ones(1)
    for group in found:
        moved = np.ceil((group - group.min()) / step - 1e-9).astype(np.int64)
        wider = np.zeros(len(chances) + int(moved.max()))
        for by in moved.tolist():
            wider[by : by + len(chances)] += chances / len(moved)
        chances = wider
    # Every group may have been rounded down by as much as the ceiling forgives; so is the sum, and by what floats err.
    least = max(0, math.ceil(own / step - 1e-6 - 1e-9 * len(found)))
    # The tail is summed from its thin end, so that small chances keep their digits.
    return min(1.0, max(sys.float_info.min, float(chances[least:][::-1].sum())))


def log_e_of_drawn(found: Scores, places: Sequence[int]) -> float:
    r"""Logarithm of the e-value :math:`\frac{1}{|B|}\sum_{\beta \in B} \prod_g k_g\, q_{g\beta}(y_g)`.

    With :math:`q_{g\beta} \propto e^{\beta s_g}` they are bets on what was drawn, bold and timid ones, whose stakes are the
    suspect's own answers: each has a mean of 1 over the draw.

    Args:
        found: scores ``[k]`` of each group.
        places: which candidate of each group was drawn.

    Examples:
        >>> round(log_e_of_drawn([np.array([0.0, 0.0])], [0]), 9)
        0.0
    """
    bets = [
        math.fsum(
            math.log(len(group)) + boldness * float(group[place]) - _log_sum(boldness * group)
            for group, place in zip(found, places, strict=True)
        )
        for boldness in BOLDNESS
    ]
    return _log_sum(np.array(bets)) - math.log(len(bets))


def _log_sum(logarithms: NDArray[np.float64]) -> float:
    largest = float(logarithms.max())
    return largest + math.log(float(np.exp(logarithms - largest).sum()))
