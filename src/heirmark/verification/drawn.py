r"""The exact test of drawn answers. Free of any model, as :mod:`.statistics`.

Each of G groups has k candidates, of which one was drawn. The suspect's answers give every candidate of every group a score, and
the scores do not depend on the draw. So the sum over the drawn ones is one of :math:`\prod k_g` sums that were equally likely,
and its place among all is a p-value: exact, with no word on how the suspect came by its answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SMOOTHING = 0.02
"""Added to the shares of answers: how little a model may be taken to say a class that it was never seen to say."""
STEPS = 20_000
"""Of the lattice on which sums of scores are counted: p-values are too large by what they are rounded, never too small."""
Scores = Sequence[NDArray[np.float64]]


def scores(said: NDArray[np.float64], usual: NDArray[np.float64], candidates: Sequence[Sequence[int]]) -> Scores:
    r"""How much more often the suspect gives each candidate than models without the mark.

    It is :math:`\log\frac{s+\epsilon}{u+\epsilon}`, so that a group is weighed by how seldom unmarked models give that answer.

    Args:
        said: ``[G, C]`` share of each answer to the triggers of each group, by the suspect.
        usual: ``[G, C]`` the same of unmarked models, fixed before the draw.
        candidates: of each group.

    Returns:
        For each group ``[k]``.
    """
    ratio = np.log((said + SMOOTHING) / (usual + SMOOTHING))
    return [ratio[group, list(options)] for group, options in enumerate(candidates)]


def p_of_drawn(found: Scores, places: Sequence[int]) -> float:
    """Chance that a draw gives a sum of scores at least as large as the one that there was.

    Sums are counted on a lattice: every score is rounded up, the sum that there was down. What comes out is the chance or a
    little more, never less.

    Args:
        found: scores ``[k]`` of each group.
        places: which candidate of each group was drawn.

    Returns:
        A p-value in (0, 1].

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
    # The tail is summed from its thin end, so that small chances keep their digits.
    return min(1.0, float(chances[max(0, math.ceil(own / step - 1e-6)) :][::-1].sum()))


def log_e_of_drawn(found: Scores, places: Sequence[int]) -> float:
    r"""Logarithm of the e-value :math:`\prod_g k_g\, q_g(y_g)` with :math:`q_g \propto \exp(\text{scores})`.

    A bet on what was drawn, its stakes the suspect's own answers: each factor has a mean of 1 over the draw.

    Args:
        found: scores ``[k]`` of each group.
        places: which candidate of each group was drawn.

    Examples:
        >>> round(log_e_of_drawn([np.array([0.0, 0.0])], [0]), 9)
        0.0
    """
    total = 0.0
    for group, place in zip(found, places, strict=True):
        shifted = group - group.max()
        total += math.log(len(group)) + float(shifted[place]) - math.log(float(np.exp(shifted).sum()))
    return total
