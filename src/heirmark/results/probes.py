"""What detection attacks are worth, held against the key: searches of a model for a mark, and screens of queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Exposed:
    """What a search for the mark was worth. Rows of before there was this record tell of ``found`` and ``false_suspects`` alone.

    Attributes:
        suspects: classes that it suspects.
        targets: classes that the key expects, which an inspector wants to know.
        found: whether a target is among the suspects.
        false_suspects: how many of the suspects are no target.
        reversed_success: suspects, and for each the share of test inputs of other classes that its reconstructed trigger sends
            there; those alone of which there is a trigger.
        details: the inspection's own figures.
    """

    suspects: tuple[int, ...] = ()
    targets: tuple[int, ...] = ()
    found: bool
    false_suspects: int
    reversed_success: tuple[tuple[int, float], ...] = ()
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Screened:
    """What a screen of queries flags.

    Attributes:
        detected: share of the key's triggers.
        controls_detected: share of their matched controls; NaN in rows of before it was kept.
        flagged: share of the test inputs, which it had better let pass.
    """

    detected: float
    controls_detected: float = float("nan")
    flagged: float
