"""What a dialect is: how questions are put to a service, and where in its answers the answers stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from torch import Tensor

from heirmark.querying.oracle import ModelFault
from heirmark.tasks.media import Text
from heirmark.wire.addresses import Address
from heirmark.wire.calling import Call, CallFailed
from heirmark.wire.layouts import Order
from heirmark.wire.rows import Row, row_of


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a client knows beforehand.

    Attributes:
        shape: of one input here.
        order: of its axes at the service.
        output: name of the output to read, where a service has several.
        texts: writes inputs, where they are texts, as which they are put to the service then.
    """

    shape: tuple[int, ...]
    order: Order = "auto"
    output: str | None = None
    texts: Text | None = None


class Dialect(Protocol):
    """A way to talk to services; one that is found knows where and how."""

    name: ClassVar[str]

    @property
    def one_by_one(self) -> bool:
        """Whether a call takes one input only."""

    def call(self, inputs: Tensor) -> Call:
        """A question about inputs ``[N, ...]`` float32, or ids of tokens ``[N, L]``."""

    def rows(self, answer: Any, count: int) -> list[Row]:
        """What is said of so many inputs.

        Raises:
            ModelFault: when that cannot be found in an answer.
        """


class Findable(Dialect, Protocol):
    """A dialect by which one can look round."""

    @classmethod
    def find(cls, address: Address, ask: Callable[[Call], Any], wish: Wish, *, named: bool) -> Self | None:
        """The dialect as a service at an address speaks it; None where it does not.

        Args:
            address: as the user names it.
            ask: makes a call there. Nothing is asked that is a query.
            wish: what the client knows.
            named: whether the user says that the service speaks it.

        Raises:
            BadConfig: when it does, but nothing can be asked as things are.
        """


def quietly(ask: Callable[[Call], Any], call: Call) -> Any:
    """The answer to a call by which one only looks round; None where there is none, unless nobody is there at all.

    Raises:
        CallFailed: when the service cannot be reached, or leads elsewhere.
    """
    try:
        return ask(call)
    except CallFailed as error:
        if not error.refused:
            raise
        return None


def is_there(ask: Callable[[Call], Any], call: Call) -> bool:
    """Whether a service answers a call at all, with JSON or without; raises as :func:`quietly` does."""
    try:
        ask(call)
    except CallFailed as error:
        if not error.refused:
            raise
        return False
    return True


def predictions_of(answer: Any, server: str) -> Any:
    """What an answer holds under ``predictions``, as more than one kind of server writes it.

    Raises:
        ModelFault: when there is nothing; the message names the server.
    """
    said = answer.get("predictions") if isinstance(answer, Mapping) else None
    if said is None:
        raise ModelFault(f"the service's answer has no predictions: does it speak as {server} does?")
    return said


def rows_of(said: Any, count: int) -> list[Row]:
    """What a list says of as many inputs.

    Raises:
        ModelFault: when it says something of more or fewer.
    """
    if not isinstance(said, list):
        raise ModelFault(
            "the service's answer holds no list: name its protocol (--protocol), or describe it by a template"
        )
    if len(said) != count:
        raise ModelFault(f"the service answered {len(said)} of {count} inputs: ask less at once (--batch 1)")
    return [row_of(each) for each in said]


def named_rows(said: Any, count: int, output: str | None) -> list[Row]:
    """What is said of so many inputs, where it may come as several outputs by name: a list each, or one of each for each input.

    Raises:
        ModelFault: when there are more or fewer, or nothing says which output to read.
    """
    if isinstance(said, Mapping):  # outputs by name, each of all inputs
        said = said[chosen(list(map(str, said)), output)] if said else None
    if isinstance(said, list) and said and all(isinstance(each, Mapping) for each in said):
        first: Mapping[str, Any] = said[0]
        several = any(isinstance(value, list) for value in first.values()) or output in first
        if several:  # of each input outputs by name; else scores by name
            wanted = chosen(list(map(str, first)), output)
            if not all(wanted in each for each in said):
                raise ModelFault(f"the service gives {wanted!r} of some inputs only")
            said = [each[wanted] for each in said]
    return rows_of(said, count)


def chosen(outputs: Sequence[str], wanted: str | None) -> str:
    """Which of several outputs is read: one that is wanted, the only one, or the only one whose name speaks of classes.

    Raises:
        ModelFault: when that cannot be told.
    """
    if wanted is not None:
        if wanted not in outputs:
            raise ModelFault(f"the service has no output {wanted!r}: it has {', '.join(map(repr, outputs))[:300]}")
        return wanted
    speaking = [each for each in outputs if any(word in each.lower() for word in ("prob", "score", "logit", "softmax"))]
    for some in (outputs, speaking):
        if len(some) == 1:
            return some[0]
    raise ModelFault(f"the service has several outputs, {', '.join(map(repr, outputs))[:300]}: name one by --output")
