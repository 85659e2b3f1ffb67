"""The null of a verdict's first test: the hit rate that unmarked models about as good as the suspect stay below."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from heirmark.keys.key import MISTAKES, Key
from heirmark.results.grades import Grade, withheld
from heirmark.results.verdict import Calibration
from heirmark.verification.scrutiny import CHOSEN_LABELS, FOREIGN_CONTROLS, NO_HOSTS
from heirmark.verification.statistics import null_rate

CONFIDENCE = 0.95
_ALIKE = 0.9
"""Of a suspect's accuracy, what an unmarked model must have for its hits to be compared."""
_FAR_BELOW = 0.8
"""Of the share of hosts that a suspect knows, what an unmarked model must know to have a say, where accuracies are not known.
Of good nets the best of five knows more than 0.83 times what another does, even of the hardest class (``docs/verdicts.md``)."""
_HALF = 0.5
DISPUTED_HOSTS = "disputed-hosts"
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
        models: unmarked models that have a say: about as good as the suspect, as far as that is known.
        ignorant: unmarked models that know the key's hosts far less than the suspect.
    """

    rate: float
    words: str
    models: int = 0
    ignorant: int = 0


def null_of(
    key: Key,
    calibration: Calibration | None,
    accuracy: float | None,
    *,
    known: float | None = None,
    doubts: Collection[str] = (),
) -> Null:
    """The null for one suspect.

    Args:
        key: that is asked.
        calibration: of this key, if it has one.
        accuracy: of the suspect on ordinary images, in [0, 1]; None where it is not known.
        known: share of the key's hosts that the suspect gives their class; likewise.
        doubts: what speaks against the key, see :func:`heirmark.verification.scrutiny.doubts_of`.

    Returns:
        The rate and its words.
    """
    every = () if calibration is None else calibration.hits
    heard, ignorant = tuple(range(len(every))), 0
    if calibration is not None:
        alike = calibration.comparable(accuracy, known, share=_ALIKE, known_share=_FAR_BELOW)
        if accuracy is None or not calibration.accuracies:
            heard, ignorant = alike, len(every) - len(alike)
        elif len(alike) >= _FEW_MODELS:
            heard = alike
    # Few are not enough to leave others aside: what those hit raises the rate and never lowers it.
    unmarked = tuple(every[place] for place in heard) if len(heard) >= _FEW_MODELS else every
    doubts = {*doubts, *([DISPUTED_HOSTS] if hosts_are_disputed(calibration) else [])}
    least, granted = _granted(key, doubts=doubts, models=len(heard))
    rate = null_rate(unmarked, len(key), least, CONFIDENCE)
    matched = "and the trigger makes no difference to its host"
    if calibration is None:
        return Null(
            rate=rate,
            words=f"hit rate at most {rate:.3g} = {granted}, assumed without asking any unmarked model, {matched}",
        )
    which = f"{len(every)} unmarked models"
    if len(unmarked) < len(every):
        which = f"{len(unmarked)} of {len(every)} unmarked models, those about as accurate,"
    return Null(
        rate=rate,
        words=f"hit rate at most {rate:.3g}, the larger of {granted} and the {CONFIDENCE:.0%} upper bound of {which} plus their "
        f"range, {matched}",
        models=len(heard),
        ignorant=ignorant,
    )


def hosts_are_disputed(calibration: Calibration | None) -> bool:
    """Whether no unmarked model gives half of the hosts the class that the key says."""
    return calibration is not None and bool(calibration.known) and max(calibration.known) < _HALF


def grade_of(calibration: Calibration | None, calibrated_by: str | None, models: int = 1) -> Grade:
    """How a null is warranted.

    Args:
        calibration: of the key, if there is one.
        calibrated_by: who measured it, where that is established and is not who claims; ``""`` or None otherwise.
        models: that have a say, see :attr:`Null.models`; without one nothing was measured.
    """
    if calibration is None or not models:
        return "assumed"
    return "calibrated" if calibrated_by or calibration.made_here else "self-reported"


def shortfall(null: Null, grade: Grade, accept: Grade) -> str:
    """Why a claim whose tests reject is not made, and the remedy; empty if it is accepted."""
    why = withheld(grade, accept)
    if why and null.ignorant and not null.models:
        return f"no unmarked model that was asked knows nearly as many of the hosts as the suspect, so that none has a say; {why}"
    return why


def _granted(key: Key, *, doubts: Collection[str], models: int) -> tuple[float, str]:
    """Hit rate that is granted whatever unmarked models hit, in (0, 1], and in words."""
    if (key.kind == MISTAKES or FOREIGN_CONTROLS in doubts) and not models:
        return 1.0, "1"
    if found := sorted({NO_HOSTS, FOREIGN_CONTROLS, DISPUTED_HOSTS}.intersection(doubts)):
        return _HOSTLESS, "1/2" if found == [NO_HOSTS] else f"1/2 ({', '.join(found)})"
    # A memorised key's answers are drawn, so that 1/C is no allowance but the truth.
    if models < _MANY_MODELS or (key.memorised and CHOSEN_LABELS not in doubts):
        return 1 / key.classes, f"1/{key.classes}"
    return 1 / len(key), f"1/{len(key)}"
