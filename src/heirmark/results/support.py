"""How strongly findings support one proposition over another, in the words of forensic science."""

from __future__ import annotations

from typing import Final

SCALE: Final = (
    (1e6, "extremely strong support"),
    (1e4, "very strong support"),
    (1e3, "strong support"),
    (1e2, "moderately strong support"),
    (1e1, "moderate support"),
    (2.0, "weak support"),
)
"""From which likelihood ratio on one speaks of what: the verbal equivalents of the ENFSI guideline for evaluative reporting in
forensic science (2015). Below all of them findings support neither proposition over the other, as far as is known here."""


def support_of(ratio: float) -> str:
    """The verbal equivalent of a likelihood ratio.

    Args:
        ratio: how much more probable the findings are under the first proposition than under the second; not negative.

    Examples:
        >>> support_of(7), support_of(2e6), support_of(1.5)
        ('weak support', 'extremely strong support', 'no support')
    """
    return next((words for least, words in SCALE if ratio >= least), "no support")
