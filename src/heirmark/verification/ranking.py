"""The rank of a drawn secret among decoys of its family. Free of any model, as :mod:`.statistics`.

A beacon draws L lots, each of four source classes in order, and of the first lot a target among the other classes. All lots with
all their targets are the candidates; which of them is the secret was left to the draw. So the place of its score among theirs is
a p-value, exact for any suspect that does not depend on the draw, and the candidates of one lot share all their queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heirmark.errors import BadConfig
from heirmark.keys.drawing import drawn_answers
from heirmark.verification.drawn import log_odds

SOURCES = 4
_ROUNDING = 1e-9
"""Scores that differ by less are ties, which count against the owner."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What a beacon drew.

    Attributes:
        lots: four source classes each, in order; the first is the secret's.
        target: of the secret, which is none of its sources.
    """

    lots: tuple[tuple[int, ...], ...]
    target: int


def drawn_lots(digest: bytes, beacon: str, *, classes: int, lots: int) -> Drawn:
    """Draw the secret and the other lots, each uniformly, by :func:`heirmark.keys.drawing.drawn_answers`.

    Args:
        digest: of the registration, 32 bytes.
        beacon: the value that came later.
        classes: C, six or more.
        lots: L. More of them leave the first and the target as they are.

    Raises:
        BadConfig: if there are too few classes or lots, or the beacon is no value.

    Examples:
        >>> first, second = (drawn_lots(bytes(32), "a judge's number", classes=10, lots=lots) for lots in (1, 3))
        >>> (first.lots, first.target) == (second.lots[:1], second.target)
        True
    """
    if classes < SOURCES + 2 or lots < 1:
        raise BadConfig(f"tiles are drawn from 6 classes or more, in 1 lot or more: not {classes} and {lots}")
    choices = [range(classes - taken) for taken in range(SOURCES)]
    places = drawn_answers(digest, beacon, [*choices, range(classes - SOURCES), *choices * (lots - 1)])
    first, target, others = places[:SOURCES], places[SOURCES], places[SOURCES + 1 :]
    parts = [first, *(others[start : start + SOURCES] for start in range(0, len(others), SOURCES))]
    found = []
    for part in parts:
        free = list(range(classes))
        found.append(tuple(free.pop(place) for place in part))
    return Drawn(lots=tuple(found), target=[label for label in range(classes) if label not in found[0]][target])


def rank_of(shares: NDArray[np.float64], lots: Sequence[Sequence[int]], target: int) -> tuple[int, int]:
    r"""How many candidates score at least as high as the secret, itself among them, and how many there are.

    A candidate's score is the log-odds of the share of its target, less the mean of that over all lots of which the target is no
    source: an answer that the suspect gives to any tile is no evidence. p is the one number over the other,
    :math:`(1 + \#\{\text{decoys} \ge \text{own}\}) / (m + 1)`.

    Args:
        shares: ``[L, C]``, of the answers to each lot.
        lots: source classes of each; the first is the secret's.
        target: the secret's.

    Examples:
        >>> rank_of(np.array([[0.1, 0.0, 0.9, 0.0], [0.0, 0.5, 0.5, 0.0]]), [(0, 1), (1, 0)], 2)
        (1, 4)
    """
    found = log_odds(shares)
    open_to = np.ones(shares.shape, dtype=bool)
    for lot, sources in enumerate(lots):
        open_to[lot, list(sources)] = False
    scores = found - np.where(open_to, found, 0).sum(0) / open_to.sum(0).clip(1)
    own = scores[0, target] - _ROUNDING
    return int((scores[open_to] >= own).sum()), int(open_to.sum())
