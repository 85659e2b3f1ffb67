"""Many suspects and many keys in one claim: verdicts corrected for how many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from heirmark.errors import BadArtifact, BadConfig
from heirmark.results.grades import suffices
from heirmark.results.verdict import Document, Outcome, Verdict
from heirmark.verification import statistics
from heirmark.verification.certifying import DrawnVerdict
from heirmark.verification.questions import check_level
from heirmark.verification.sequential import SequentialVerdict

Single = Verdict | SequentialVerdict | DrawnVerdict
"""What one key says about one suspect."""


@dataclass(frozen=True, kw_only=True)
class Together(Document):
    """What several verdicts say together, in their order.

    Attributes:
        rule: ``holm``, by which any innocent suspect is called MARKED with a chance of at most ``level``; or ``e-bh``, by which
            of the suspects that are called so an expected share of at most ``level`` is innocent.
        level: of all verdicts together.
        values: what each counts with, a p-value or an e-value; 1 or 0 for what cannot be judged, or claimed for its grade. Those
            of drawn answers are corrected for their attempts.
        adjusted: for each the least level of all together at which it would be MARKED.
        outcomes: of each after the correction.

    Raises:
        BadArtifact: if the values contradict each other.
    """

    rule: Literal["holm", "e-bh"]
    level: float
    values: tuple[float, ...]
    adjusted: tuple[float, ...]
    outcomes: tuple[Outcome, ...]

    def __post_init__(self) -> None:
        try:
            adjusted = _adjusted(self.rule, self.values)
        except ValueError:
            adjusted = None
        sound = (
            0 < self.level <= 0.5
            and self.adjusted == adjusted
            and len(self.outcomes) == len(self.values)
            and all(
                outcome == "INVALID" or (outcome == "MARKED") == _reached(self.rule, each, self.level)
                for each, outcome in zip(self.adjusted, self.outcomes, strict=True)
            )
        )
        if not sound:
            raise BadArtifact("the verdicts contradict each other: they were changed or damaged; verify again")


def holm(verdicts: Sequence[Single], *, level: float = 0.01) -> Together:
    """Correct the p-values of several verdicts by Holm's step-down procedure.

    The verdicts may depend on each other in any way. Their own levels do not matter, and nor do their outcomes but INVALID: which
    counts as a p-value of 1, as does what its grade does not allow to claim. It still counts as one of them.

    Args:
        verdicts: all that were asked for, and not those alone that look well.
        level: chance that any innocent suspect is called MARKED, in (0, 0.5].

    Returns:
        The outcomes together.

    Raises:
        BadConfig: if ``level`` is out of range, or there is no verdict.
    """
    return _together("holm", verdicts, [_p_value(each) if _counts(each) else 1.0 for each in verdicts], level)


def e_bh(verdicts: Sequence[Single], *, level: float = 0.01) -> Together:
    """Correct the e-values of several verdicts by the e-BH procedure.

    The verdicts may depend on each other in any way, and may have stopped at any time. What cannot be judged or claimed counts as
    an e-value of 0. See :func:`holm`.

    Args:
        verdicts: sequential and drawn ones, all that were asked for.
        level: expected share of innocent suspects among those that are called MARKED, in (0, 0.5].

    Returns:
        The outcomes together.

    Raises:
        BadConfig: if ``level`` is out of range, or there is no verdict, or one has no e-value.
    """
    return _together("e-bh", verdicts, [_e_value(each) if _counts(each) else 0.0 for each in verdicts], level)


def together(verdicts: Sequence[Single], *, level: float = 0.01) -> Together:
    """By :func:`e_bh` if all verdicts that can be judged have e-values, else by :func:`holm`."""
    valid = [each for each in verdicts if each.outcome != "INVALID"]
    by_e = bool(valid) and not any(isinstance(each, Verdict) for each in valid)
    return (e_bh if by_e else holm)(verdicts, level=level)


def _together(rule: Literal["holm", "e-bh"], verdicts: Sequence[Single], values: list[float], level: float) -> Together:
    check_level(level)
    if not verdicts:
        raise BadConfig("there is no verdict to correct: give those of all suspects and keys")
    adjusted = _adjusted(rule, values)
    outcomes: list[Outcome] = [
        "INVALID" if own.outcome == "INVALID" else "MARKED" if _reached(rule, each, level) else "NOT_ESTABLISHED"
        for own, each in zip(verdicts, adjusted, strict=True)
    ]
    return Together(rule=rule, level=level, values=tuple(values), adjusted=adjusted, outcomes=tuple(outcomes))


def _adjusted(rule: str, values: Sequence[float]) -> tuple[float, ...]:
    return tuple((statistics.holm if rule == "holm" else statistics.e_bh)(values))


def _reached(rule: str, adjusted: float, level: float) -> bool:
    """As single verdicts have it: p-values lie below the level, e-values may just reach it."""
    return adjusted < level if rule == "holm" else adjusted <= level


def _counts(verdict: Single) -> bool:
    """Whether anything can follow from a verdict; its grade was settled before anybody was asked."""
    return verdict.outcome != "INVALID" and suffices(verdict.grade, verdict.accepts)


def _p_value(verdict: Single) -> float:
    return min(1.0, verdict.p_value * verdict.attempts) if isinstance(verdict, DrawnVerdict) else verdict.p_value


def _e_value(verdict: Single) -> float:
    if isinstance(verdict, Verdict):
        raise BadConfig("a verdict on the whole key has no e-value: correct by holm, or verify sequentially")
    return verdict.e_value / verdict.attempts if isinstance(verdict, DrawnVerdict) else verdict.e_value
