"""Whether unmarked models carry a null that a stranger believes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from heirmark.evidence.case import Asked
from heirmark.results.verdict import Calibration

LEAST: Final = 5
"""Unmarked models, at least, that are about as good as the suspect."""
ALIKE: Final = 0.9
"""Of the share of hosts that the suspect knows, what an unmarked model has to know to be as good."""


def weigh_models(calibration: Calibration, told: Sequence[Asked], *, suspect_knows: float | None) -> list[str]:
    """Why a calibration does not carry a claim; empty where nothing speaks against it.

    Args:
        calibration: measured on the models.
        told: what is said of each.
        suspect_knows: share of the hosts that the suspect gives their class, in [0, 1]; None where there are no hosts.

    Examples:
        >>> measured = Calibration(hits=(0, 1), trials=100, key="0" * 64, known=(0.9, 0.4))
        >>> weigh_models(measured, (), suspect_knows=0.9)
        ['1 of 2 unmarked models know as many of the hosts as the suspect, and 5 have to: those that learned little say nothing']
    """
    good = len(calibration.hits)
    if suspect_knows is not None and calibration.known:
        good = sum(share >= ALIKE * suspect_knows for share in calibration.known)
    found = []
    if good < LEAST:
        found.append(
            f"{good} of {len(calibration.hits)} unmarked models know as many of the hosts as the suspect, and {LEAST} have to: "
            "those that learned little say nothing"
        )
    if nameless := [each.name for each in told if not each.trained_by]:
        found.append(f"nobody is said to have trained {nameless[0]}")
    return found
