"""Which of a service's classes is which of one's own: by name, by order, and always held against ordinary inputs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from heirmark.errors import BadConfig, printable
from heirmark.wire.rows import Classes, Row

_NUMBERED = re.compile(r"(?:label|class|category|kind)?[^a-z0-9]*([0-9]+)")
_SHORT = 0.1
"""By how much an order may agree less than the best one: as much as inputs of classes that are much alike may bring about."""
_MOST = 1 << 16
"""Classes of a service: a table of them and of one's own is made."""
Said = str | int
"""What a service calls a class."""
Counts = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Match:
    """What a service's classes mean.

    Attributes:
        meaning: for each that is known the class, -1 for none.
        agreement: share of ordinary inputs of which the service says the class that they are of.
        inputs: how many there were.
        how: that was found, in a word.
    """

    meaning: Mapping[Said, int]
    agreement: float
    inputs: int
    how: str

    def words(self, classes: Sequence[str]) -> str:
        """In words, with the names of one's own classes."""
        pairs = [
            f"{said} = {'none' if label < 0 else printable(classes[label])}" for said, label in self.meaning.items()
        ]
        shown = "; ".join(pairs[:20]) + (f"; {len(pairs) - 20} more" if len(pairs) > 20 else "")
        return f"classes by {self.how}: {shown}. {self.agreement:.0%} of {self.inputs} ordinary inputs agree"

    def reading(self, classes: int) -> Classes:
        """How the service's answers are read."""
        if all(isinstance(said, str) for said in self.meaning):
            return Classes(classes=classes, names={str(said): label for said, label in self.meaning.items()})
        order = tuple(self.meaning.values())
        return Classes(classes=classes, order=None if order == tuple(range(classes)) else order)


def match(
    rows: Sequence[Row],
    truth: Sequence[int],
    classes: Sequence[str],
    *,
    given: Mapping[str, int] | Sequence[int] | None = None,
    inferred: bool = False,
) -> Match:
    """What a service's classes mean, from what it says of ordinary inputs.

    What is given, by name or by order, is held against the inputs. Where nothing is given, names that are one's own, or numbers,
    are; where these are not, or ``inferred`` asks for it, the inputs alone decide, if each class has most of its own inputs.

    Args:
        rows: of N inputs what was said.
        truth: of each the class, 0 to C - 1.
        classes: names of the C classes.
        given: for each name of the service's, or in its order for each class, the class that it means, -1 for none.
        inferred: leave names and numbers aside.

    Raises:
        BadConfig: when what is given is not what the inputs say, or they do not decide; with what there is to be said.
    """
    tops = [_top(row) for row in rows]
    known = _known(rows, tops, given, len(classes))
    places = {said: place for place, said in enumerate(known)}
    votes = np.zeros((len(known), len(classes)), dtype=np.int64)
    for said, label in zip(tops, truth, strict=True):
        votes[places[said], label] += 1
    if given is not None:
        meaning = [_given(said, given) for said in known]
        how = "what was given"
    else:
        meaning = by_name(known, classes)
        how = "name" if isinstance(known[0], str) else "number"
    total, best = len(tops), best_order(votes)
    reached = agreement(votes, best)
    # Numbers of which there are more may be in any order; names say themselves what they mean.
    alike = isinstance(known[0], str) or len(known) == len(classes)
    whole = sorted(label for label in meaning if label >= 0) == list(range(len(classes)))
    if given is not None or (not inferred and alike and whole):
        share = agreement(votes, meaning)
        chance = 1 / len(classes)
        if share <= chance + 3 * math.sqrt(chance * (1 - chance) / total) or reached - share > _SHORT:
            raise BadConfig(
                f"the service's classes by {how} agree with {share:.0%} of {total} ordinary inputs, and in another order with "
                f"{reached:.0%}: if you trust these inputs say {_option(known, best)}, else name other ones (--ordinary)"
            )
        return Match(meaning=dict(zip(known, meaning, strict=True)), agreement=share, inputs=total, how=how)
    doubtful = [name for label, name in enumerate(classes) if not _clear(votes, best, label)]
    if doubtful:
        raise BadConfig(
            f"the service's classes ({', '.join(printable(str(said)) for said in known[:20])}) cannot be told from {total} "
            f"ordinary inputs, not {', '.join(map(printable, doubtful[:10]))}: say what they mean, as in {_option(known, best)}"
        )
    return Match(meaning=dict(zip(known, best, strict=True)), agreement=reached, inputs=total, how="agreement")


def by_name(known: Sequence[Said], classes: Sequence[str]) -> list[int]:
    """For each of a service's classes the one of the same name, or number; -1 where there is none, or more than one.

    Examples:
        >>> by_name(["T-Shirt", "bag", "other"], ["bag", "t shirt"]), by_name(["LABEL_1", "LABEL_0"], ["bag", "t shirt"])
        ([1, 0, -1], [1, 0])
    """
    own: dict[str, list[int]] = {}
    for label, name in enumerate(classes):
        own.setdefault(_plain(name), []).append(label)
    meaning = []
    for said in known:
        found = own.get(_plain(said), []) if isinstance(said, str) else []
        numbered = _NUMBERED.fullmatch(said.lower()) if isinstance(said, str) else None
        number = said if isinstance(said, int) else int(numbered[1]) if numbered and len(numbered[1]) < 8 else -1
        if not found and 0 <= number < len(classes):
            found = [number]
        meaning.append(found[0] if len(found) == 1 else -1)
    return [label if label < 0 or meaning.count(label) == 1 else -1 for label in meaning]


def best_order(votes: Counts) -> list[int]:
    """For each of a service's classes the one that makes most inputs agree, each at most once; -1 for none.

    Args:
        votes: ``[S, C]``, how many inputs of each class the service says each of its own of.
    """
    rows, columns = linear_sum_assignment(votes, maximize=True)
    order = [-1] * len(votes)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if votes[row, column]:
            order[row] = column
    return order


def agreement(votes: Counts, meaning: Sequence[int]) -> float:
    """Share of inputs of which the service says their class."""
    return sum(int(votes[place, label]) for place, label in enumerate(meaning) if label >= 0) / max(1, int(votes.sum()))


def _clear(votes: Counts, order: Sequence[int], label: int) -> bool:
    """Whether a class has one of the service's for most of its inputs, and that says mostly it."""
    if label not in order:
        return False
    place = order.index(label)
    own = int(votes[place, label])
    return own >= 3 and 2 * own > int(votes[:, label].sum()) and 2 * own > int(votes[place].sum())


def _top(row: Row) -> Said:
    if isinstance(row, dict):
        return max(row, key=row.__getitem__, default="")
    return max(range(len(row)), key=row.__getitem__) if isinstance(row, list) else row


def _known(rows: Sequence[Row], tops: Sequence[Said], given: object, classes: int) -> list[Said]:
    """All that the service is known to call classes: names in the order of the alphabet, or numbers from 0 on."""
    names = {said for said in tops if isinstance(said, str)} | {
        name for row in rows if isinstance(row, dict) for name in row
    }
    if names and any(isinstance(said, int) for said in tops):
        raise BadConfig("the service calls classes now by name, now by number: nothing can be made of it")
    if len(names) > _MOST:
        raise BadConfig(
            f"the service calls its classes by {len(names):,} names, and these are none: read another output (--output)"
        )
    if names:
        return sorted(names | set(given if isinstance(given, Mapping) else ()))
    widths = [len(row) for row in rows if isinstance(row, list)]
    most = max([*widths, *(said + 1 for said in tops if isinstance(said, int)), *([] if widths else [classes])])
    if most > _MOST or min(said for said in tops if isinstance(said, int)) < 0:
        raise BadConfig("the service says numbers that are no classes: read another output (--output)")
    return list(range(most))


def _given(said: Said, given: Mapping[str, int] | Sequence[int]) -> int:
    if isinstance(given, Mapping):
        return given.get(str(said), -1)
    if not isinstance(said, int):
        raise BadConfig("the service calls its classes by name: say --labels NAME=NUMBER,... for them, or auto")
    return given[said] if said < len(given) else -1


def _option(known: Sequence[Said], order: Sequence[int]) -> str:
    numbers = ["-" if label < 0 else str(label) for label in order]
    if all(isinstance(said, int) for said in known):
        return f"--labels {','.join(numbers)}"
    pairs = zip(known, numbers, strict=True)
    return "--labels '" + ",".join(f"{printable(str(said))}={number}" for said, number in pairs)[:300] + "'"


def _plain(name: str) -> str:
    return "".join(char for char in name.casefold() if char.isalnum())
