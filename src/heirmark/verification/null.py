"""The null of a verdict's first test: the hit rate that unmarked models about as good as the suspect stay below."""

from __future__ import annotations

from dataclasses import dataclass

from heirmark.keys.key import MISTAKES, Key
from heirmark.results.grades import Grade
from heirmark.results.verdict import Calibration
from heirmark.verification.statistics import null_rate

CONFIDENCE = 0.95
_ALIKE = 0.9
"""Of a suspect's accuracy, what an unmarked model must have for its hits to be compared."""
_FEW_MODELS = 5
"""Unmarked models below which none is left aside, whatever its accuracy."""
_MANY_MODELS = 10
"""From so many on, what they hit is granted and no more: simulated, a floor of 1/C changes little then (``docs/verdicts.md``)."""
_HOSTLESS = 0.5
"""Rate granted to unmarked models in any case where queries show nothing of the task. Such queries are nearly alike, and a model
takes most of them for one class or hardly any: few models do not show how much models differ (``docs/verdicts.md``)."""


@dataclass(frozen=True, kw_only=True)
class Null:
    """What is tested against.

    Attributes:
        rate: hit rate of an unmarked model at most, in (0, 1].
        words: the whole null hypothesis, with where the rate comes from.
        models: unmarked models whose hits made the rate.
    """

    rate: float
    words: str
    models: int = 0


def null_of(key: Key, calibration: Calibration | None, accuracy: float | None, *, hostless: bool) -> Null:
    """The null for one suspect.

    Args:
        key: that is asked.
        calibration: of this key, if it has one.
        accuracy: of the suspect on ordinary images, in [0, 1]; None where it is not known.
        hostless: whether the queries show nothing of the task.

    Returns:
        The rate and its words.
    """
    unmarked = () if calibration is None else calibration.comparable(accuracy, share=_ALIKE, least=_FEW_MODELS)
    least, granted = _granted(key, hostless=hostless, models=len(unmarked))
    rate = null_rate(unmarked, len(key), least, CONFIDENCE)
    matched = "and the trigger makes no difference to its host"
    if calibration is None:
        return Null(
            rate=rate,
            words=f"hit rate at most {rate:.3g} = {granted}, assumed without asking any unmarked model, {matched}",
        )
    every = len(calibration.hits)
    which = f"{every} unmarked models"
    if len(unmarked) < every:
        which = f"{len(unmarked)} of {every} unmarked models, those about as accurate,"
    return Null(
        rate=rate,
        words=f"hit rate at most {rate:.3g}, the larger of {granted} and the {CONFIDENCE:.0%} upper bound of {which} plus their "
        f"range, {matched}",
        models=len(unmarked),
    )


def grade_of(calibration: Calibration | None, calibrated_by: str | None) -> Grade:
    """How a null is warranted.

    Args:
        calibration: of the key, if there is one.
        calibrated_by: who measured it, where that is established and is not who claims; ``""`` or None otherwise.
    """
    if calibration is None:
        return "assumed"
    return "calibrated" if calibrated_by or calibration.made_here else "self-reported"


def _granted(key: Key, *, hostless: bool, models: int) -> tuple[float, str]:
    """Hit rate that is granted whatever unmarked models hit, in (0, 1], and in words."""
    if key.kind == MISTAKES and not models:
        return 1.0, "1"
    if hostless:
        return _HOSTLESS, "1/2"
    # A memorised key's answers are drawn, so that 1/C is no allowance but the truth.
    if models < _MANY_MODELS or key.memorised:
        return 1 / key.classes, f"1/{key.classes}"
    return 1 / len(key), f"1/{len(key)}"
