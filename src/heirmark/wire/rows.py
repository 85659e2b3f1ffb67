"""What a service says of one input, and what of it is understood: scores, the top few by name, a label or its name."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from heirmark.errors import printable
from heirmark.querying.oracle import ModelFault

Row = list[float] | dict[str, float] | int | str
"""Scores of all classes; scores of some classes by name; a label; the name of one. As JSON has it, so that it can be kept."""
_LONGEST_NAME = 300


def row_of(said: Any) -> Row:
    """What a service says of one input, if it is anything that can be understood.

    Args:
        said: JSON: numbers; ``{name: number}``; ``[{"label": name, "score": number}, ...]``; a whole number; a text.

    Raises:
        ModelFault: when it is anything else.

    Examples:
        >>> row_of([{"label": "cat", "score": 0.9}]), row_of([0.25, 0.75]), row_of(3), row_of("cat")
        ({'cat': 0.9}, [0.25, 0.75], 3, 'cat')
    """
    if isinstance(said, str):
        return _name(said)
    if isinstance(said, list):
        while len(said) == 1 and isinstance(said[0], list):
            said = said[0]
        if said and all(isinstance(each, Mapping) for each in said):
            return _ranked(said)
        if len(said) == 1:  # one label in brackets: scores are two or more
            return row_of(said[0])
        return [_number(each) for each in said]
    if isinstance(said, Mapping):
        if {"label", "score"} <= set(said):
            return _ranked([said])
        return {_name(name): _number(score) for name, score in said.items()}
    number = _number(said)
    if number != int(number):
        raise ModelFault(f"the service says {number} of an input: neither scores nor a label")
    return int(number)


def _ranked(said: Sequence[Mapping[str, Any]]) -> Row:
    scores: dict[str, float] = {}
    for each in said:
        if not {"label", "score"} <= set(each):
            raise ModelFault(
                "the service says of an input neither scores nor labels: describe its answers by a template"
            )
        name = _name(str(each["label"]))
        if name in scores:
            raise ModelFault(f"the service names the class {name!r} twice in one answer")
        scores[name] = _number(each["score"])
    return scores


def _number(said: Any) -> float:
    number = isinstance(said, int | float) and not isinstance(said, bool)
    if not number or not abs(said) <= sys.float_info.max:  # NaN neither; whole numbers may have thousands of digits
        raise ModelFault(f"the service says {printable(repr(said)[:60])} where a number is expected")
    return float(said)


def _name(said: str) -> str:
    if len(said) > _LONGEST_NAME:
        raise ModelFault(f"the service names a class by {len(said)} characters: it means something else")
    return printable(said)


@dataclass(frozen=True, kw_only=True)
class Classes:
    """What a service's classes mean here.

    Attributes:
        classes: C of the key, or of the task.
        order: for each of its positions the class, -1 for none; None where they are the same, or it has names alone.
        names: for each of its names the class, -1 for none; a name that is not there means none.
    """

    classes: int
    order: tuple[int, ...] | None = None
    names: Mapping[str, int] = field(default_factory=dict)

    @property
    def own(self) -> int:
        """How many classes the service has by number."""
        return self.classes if self.order is None else len(self.order)

    @property
    def plain(self) -> bool:
        """Whether nothing is called otherwise."""
        return self.order is None and not self.names

    def with_names(self, names: Mapping[str, int]) -> Classes:
        """The same, with names."""
        return replace(self, names=dict(names))

    def label(self, row: Row) -> int:
        """The class that an answer means, -1 for none that has a name here.

        Raises:
            ModelFault: when it cannot be told.
        """
        if isinstance(row, str):
            return self._named(row)
        if isinstance(row, int):
            return self._placed(row)
        if isinstance(row, dict):
            if not row:
                raise ModelFault("the service names no class at all")
            return self._named(max(row, key=row.__getitem__))
        self._check(row)
        return self._placed(max(range(len(row)), key=row.__getitem__))

    def scores(self, row: Row) -> list[float]:
        """Scores of all C classes, 0 for those of which nothing is said; of a label alone 1 for it.

        Raises:
            ModelFault: when it cannot be told.
        """
        found = [0.0] * self.classes
        if isinstance(row, dict):
            said = [(self._named(name), score) for name, score in row.items()]
        elif isinstance(row, list):
            self._check(row)
            said = [(self._placed(place), score) for place, score in enumerate(row)]
        else:
            said = [(self.label(row), 1.0)]
        for label, score in said:
            if label >= 0:
                found[label] = score
        return found

    def _named(self, name: str) -> int:
        if name in self.names:
            return self.names[name]
        if not self.names and name.isdecimal():
            return self._placed(int(name))
        if not self.names:
            raise ModelFault(f"the service calls a class {name!r}: say what its names mean (--labels {name}=0,...)")
        return -1

    def _placed(self, place: int) -> int:
        if not 0 <= place < self.own:
            raise ModelFault(
                f"the service says class {place}, and it should have {self.own}: say what its classes mean (--labels)"
            )
        return place if self.order is None else self.order[place]

    def _check(self, row: list[float]) -> None:
        if len(row) != self.own:
            raise ModelFault(
                f"the service says {len(row)} scores of an input, and {self.own} are expected: say what its classes mean "
                "(--labels)"
            )


def labels_of(rows: Sequence[Row], classes: Classes) -> Tensor:
    """Labels ``[N]`` int64, -1 for a class that has no name here; raises as :meth:`Classes.label` does."""
    return torch.tensor([classes.label(row) for row in rows], dtype=torch.int64)


def scores_of(rows: Sequence[Row], classes: Classes) -> Tensor:
    """Scores ``[N, C]`` float32; raises as :meth:`Classes.scores` does."""
    return torch.tensor([classes.scores(row) for row in rows], dtype=torch.float32).reshape(len(rows), classes.classes)
