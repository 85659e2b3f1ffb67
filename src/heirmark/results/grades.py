"""Grades of a verdict: how its null is warranted, and which claims that carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from heirmark.errors import BadConfig

Grade = Literal["certified", "calibrated", "self-reported", "assumed"]
GRADES: Mapping[Grade, str] = {
    "certified": "the answers, or the whole secret, were drawn after a commitment: exact for any innocent suspect and any owner",
    "calibrated": "unmarked models were asked in this very call, or by a named party other than who claims",
    "self-reported": "who claims says how often unmarked models hit; whoever writes that can claim any model",
    "assumed": "how often unmarked models hit was not measured",
}
"""How a null is warranted, the best first. The word MARKED needs one of the first two, unless less is accepted."""
LEAST_GRADE: Grade = "calibrated"


def suffices(grade: Grade, accept: Grade) -> bool:
    """Whether a claim of a grade is accepted.

    Examples:
        >>> suffices("certified", "calibrated"), suffices("self-reported", "calibrated")
        (True, False)
    """
    order = list(GRADES)
    return order.index(grade) <= order.index(accept)


def as_grade(name: str) -> Grade:
    """The grade of a name.

    Raises:
        BadConfig: for any other name, with those there are.
    """
    for grade in GRADES:
        if name == grade:
            return grade
    raise BadConfig(f"{name!r} is no grade of a verdict: choose one of {', '.join(GRADES)}")


def warranted(p_value: float, models: int, grade: Grade) -> float:
    """A p-value, or 1 / (m + 1) of m unmarked models if that is larger.

    How unlikely a further innocent model is beyond all that were asked, the models alone warrant no further; the rest is the
    binomial model's word. A certified verdict needs no models.

    Examples:
        >>> warranted(1e-9, 9, "calibrated"), warranted(1e-9, 0, "certified")
        (0.1, 1e-09)
    """
    return p_value if grade == "certified" else max(p_value, 1 / (models + 1))


def in_words(grade: Grade, p_value: float, models: int) -> str:
    """A grade with what it means, and what the unmarked models alone warrant, if there are any."""
    if not models or grade == "certified":
        return f"{grade}: {GRADES[grade]}"
    least = warranted(p_value, models, grade)
    return f"{grade}: {GRADES[grade]}; {models} models alone warrant p = {least:.2g}, the rest is the binomial model's"


def withheld(grade: Grade, accept: Grade) -> str:
    """Why a claim whose tests reject is not made, and the remedy; empty if it is accepted."""
    if suffices(grade, accept):
        return ""
    return (
        f"the tests reject, but the null is {grade}: {GRADES[grade]}. Measure it here on unmarked models (--calibrators MODEL), "
        f"have another party measure it, or say --accept {grade} where the claim is to convince you alone"
    )
