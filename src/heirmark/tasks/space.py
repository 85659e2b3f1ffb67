"""What inputs are: how they are stored, which numbers a net computes with, and what can be done with them.

What inputs are shows in how they are stored, so that a bare tensor is enough to know it (:func:`space_of`):

============================ ================================================ =====================
stored ``[N, ...]``          what a number means                              space
============================ ================================================ =====================
uint8, or floats ``C, H, W`` a pixel x/255, or one in [0, 1]                  :class:`Images`
int16, or floats ``C, T``    a sample x/32768, or one in [-1, 1]              :class:`Waves`
int32 ``L``                  the id of a token; 0 is padding, 1 an unknown    :class:`Tokens`
uint8, or floats, other      x/255, or a number in [0, 1]                     :class:`Continuous`
============================ ================================================ =====================

Every net takes what is stored, and floats besides (:mod:`heirmark.querying.layout`); :mod:`heirmark.tasks.storing` decodes and
encodes. Triggers, methods and attacks say by ``needs`` which kinds of space they work on: :func:`check_needs` is asked once,
where one of them starts. How inputs are shown to people and put to services is a task's :mod:`medium <heirmark.tasks.media>`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, ClassVar, Protocol, TypeAlias, get_args

import torch
from torch import Tensor

from heirmark.errors import BadConfig

PADDING, UNKNOWN = 0, 1
"""Ids that every tokenizer here keeps for what fills a text up, and for what it does not know."""


class Space(Protocol):
    """The inputs of a task."""

    named: ClassVar[str]
    """What the inputs are, in the plural, for messages."""
    kind: ClassVar[str]
    """The same in one word, which digests of tasks hold."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input."""


@dataclass(frozen=True)
class Continuous:
    """Numbers between two bounds, any of which may be moved by a little.

    Attributes:
        shape: of one input.
    """

    named: ClassVar[str] = "numbers in [0, 1]"
    kind: ClassVar[str] = "image"  # as digests have always had it
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0
    shape: tuple[int, ...]

    @property
    def places(self) -> int:
        """How many places an input has that can change theirs; see :func:`shuffle`."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Images(Continuous):
    """Images; their shape is ``(C, H, W)``."""

    named: ClassVar[str] = "images [C, H, W]"

    @property
    def places(self) -> int:
        """How many pixels an image has, each of C numbers."""
        return self.shape[1] * self.shape[2]


@dataclass(frozen=True)
class Waves(Continuous):
    """Sound; its shape is ``(C, T)``: channels and samples."""

    named: ClassVar[str] = "waves [C, T]"
    kind: ClassVar[str] = "wave"
    low: ClassVar[float] = -1.0

    @property
    def places(self) -> int:
        """How many moments a wave has, each of C numbers."""
        return self.shape[1]


@dataclass(frozen=True)
class Tokens:
    """Texts, as ids of tokens: of one length ``(L,)``, those that are shorter filled up with :data:`PADDING` behind.

    There is no token between two others: what moves inputs by a little does not work on them.
    """

    named: ClassVar[str] = "tokens [L]"
    kind: ClassVar[str] = "text"
    shape: tuple[int, ...]

    @property
    def places(self) -> int:
        """How many tokens a text has at most."""
        return self.shape[0]


AnySpace: TypeAlias = Continuous | Tokens


def space_of(inputs: Tensor) -> AnySpace:
    """The space of stored inputs ``[N, ...]``; see the table above.

    Examples:
        >>> space_of(torch.zeros(4, 1, 800, dtype=torch.int16))
        Waves(shape=(1, 800))
    """
    shape = tuple(inputs.shape[1:])
    if inputs.dtype == torch.int32:
        return Tokens(shape)
    if len(shape) == 2 and inputs.dtype != torch.uint8:
        return Waves(shape)
    return Images(shape) if len(shape) == 3 else Continuous(shape)


# ---------------------------------------------------------------- needs


Need: TypeAlias = type[Any] | UnionType
"""A kind of space, or several: ``Images``, or ``Images | Waves``."""


def needed_by(asked: object) -> Iterator[tuple[str, Need, str]]:
    """What a configuration, and those that its fields hold, say that they need: each one's name, kind of space, and remedy."""
    needs: Need | None = getattr(asked, "needs", None)
    if needs is not None:
        yield getattr(asked, "name", type(asked).__name__), needs, getattr(asked, "otherwise", "use another one")
    if is_dataclass(asked):
        for field in fields(asked):
            yield from needed_by(getattr(asked, field.name))
    elif isinstance(asked, tuple | list):
        for each in asked:
            yield from needed_by(each)
    elif isinstance(asked, Mapping):
        yield from needed_by(list(asked.values()))


def suits(asked: object, space: Space) -> bool:
    """Whether something, and all that its fields hold, works on such inputs; see :func:`check_needs`."""
    return all(isinstance(space, needs) for _, needs, _ in needed_by(asked))


def check_needs(asked: object, space: Space) -> None:
    """Refuse inputs that something cannot work on. It says ``needs: ClassVar = Images``, or by a property; else it takes all.

    What else helps than other inputs it may say by ``otherwise``.

    Args:
        asked: a method, an attack or a trigger; what its fields hold counts too.
        space: of the inputs.

    Raises:
        BadConfig: names what cannot, what it needs and what there is.

    Examples:
        >>> from types import SimpleNamespace
        >>> check_needs(SimpleNamespace(name="patch", needs=Images), Continuous((9,)))
        Traceback (most recent call last):
            ...
        heirmark.errors.BadConfig: patch needs images [C, H, W], and inputs have the shape (9,): give such, or use another one
    """
    for name, needs, otherwise in needed_by(asked):
        if not isinstance(space, needs):
            kinds = " or ".join(kind.named for kind in get_args(needs) or (needs,))
            raise BadConfig(f"{name} needs {kinds}, and inputs have the shape {space.shape}: give such, or {otherwise}")
