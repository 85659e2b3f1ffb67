"""What the value of a field must be beyond its type, said beside it: ``learning_rate: Annotated[float, above(0)] = 0.1``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Constraint:
    """What a value must be; stands in ``Annotated``, where several may stand.

    Attributes:
        sign: follows the name of the type in an error and on a help page, such as ``"> 0"``.
        holds: whether a value of the type is so.
    """

    sign: str
    holds: Callable[[Any], bool]


def above(low: float) -> Constraint:
    """A number greater than this."""
    return Constraint(f"> {low}", lambda value: value > low)


def at_least(low: float) -> Constraint:
    """A number no less than this."""
    return Constraint(f">= {low}", lambda value: value >= low)


def below(high: float) -> Constraint:
    """A number less than this."""
    return Constraint(f"< {high}", lambda value: value < high)


def at_most(high: float) -> Constraint:
    """A number no greater than this."""
    return Constraint(f"<= {high}", lambda value: value <= high)


def within(low: float, high: float) -> Constraint:
    """A number from one to the other, both among them."""
    return Constraint(f"from {low} to {high}", lambda value: low <= value <= high)


not_empty = Constraint("(at least one)", lambda items: len(items) > 0)
"""Of a tuple: there is something in it."""
distinct = Constraint("(all different)", lambda items: len(set(items)) == len(items))
"""Of a tuple: nothing stands in it twice."""
