"""What inputs are: how they are stored, which numbers a net computes with, and what can be done with them.

Images, and other numbers in [0, 1], are stored as uint8 or as floats; every net takes both (:mod:`heirmark.querying.layout`).
A task has a :class:`Space`, and triggers, methods and attacks say by ``needs`` which kind of space they work on:
:func:`check_needs` is asked once, where one of them starts. Inputs of another kind, such as waves or tokens, are a class beside
:class:`Continuous`, with bounds or a decoding of its own.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from heirmark.errors import BadConfig

DIGEST_BYTES = 16
_ROWS = 4096


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
    """Numbers in [0, 1], any of which may be moved by a little.

    Attributes:
        shape: of one input.
    """

    named: ClassVar[str] = "numbers in [0, 1]"
    kind: ClassVar[str] = "image"  # as digests have always had it
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


def space_of(inputs: Tensor) -> Continuous:
    """The space of stored inputs ``[N, ...]``: images where one of them has three dimensions."""
    shape = tuple(inputs.shape[1:])
    return Images(shape) if len(shape) == 3 else Continuous(shape)


# ---------------------------------------------------------------- needs


def needed_by(asked: object) -> Iterator[tuple[str, type[Any], str]]:
    """What a configuration, and those that its fields hold, say that they need: each one's name, kind of space, and remedy."""
    needs: type[Any] | None = getattr(asked, "needs", None)
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
            raise BadConfig(
                f"{name} needs {needs.named}, and inputs have the shape {space.shape}: give such, or {otherwise}"
            )


# ---------------------------------------------------------------- storage


def fault(stored: Tensor) -> str | None:
    """What is wrong with stored inputs ``[N, ...]``, and the remedy, to follow on "inputs"; None where all is well."""
    if stored.dtype == torch.uint8:
        return None
    if not stored.is_floating_point():
        return f"are {stored.dtype}: convert them to uint8 (0..255) or float32 in [0, 1]"
    if not stored.numel():
        return None
    low, high = (float(edge.float()) for edge in stored.detach().aminmax())  # in float32, as nets will be given them
    if low >= 0 and high <= 1:  # false for NaN
        return None
    wrong = ~((stored >= 0) & (stored <= 1)).reshape(len(stored), -1).all(1)
    first = stored[int(wrong.nonzero()[0])].aminmax()
    return (
        f"leave [0, 1], {int(wrong.sum())} of them, the first number {int(wrong.nonzero()[0])} with values from "
        f"{float(first.min):.4g} to {float(first.max):.4g}: rescale or clamp them (divide 0..255 pixels by 255; normalisation "
        "belongs in the model), and remove NaN or infinite values"
    )


def decode(stored: Tensor) -> Tensor:
    """The float32 numbers that stored inputs ``[N, ...]`` stand for: uint8 pixels become x/255, float32 is passed on as it is."""
    if stored.dtype != torch.uint8:
        return stored.float()
    # By a tensor: by a plain number CUDA multiplies with its reciprocal, and half of the grey levels differ from the CPU's.
    return stored.float().div_(torch.full((), 255.0, device=stored.device))


def numbers(stored: Tensor) -> Tensor:
    """What a net computes with: pixels decoded, all else as it is, in its own precision and with its gradients."""
    return decode(stored) if stored.dtype == torch.uint8 else stored


def clip(values: Tensor) -> Tensor:
    """Numbers brought into [0, 1], the bounds of a :class:`Continuous` space."""
    return values.clamp(0, 1)


def encode(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers as inputs of a dtype are stored: clipped, and rounded to a grey level where that is uint8."""
    values = clip(values)
    return values.mul(255).round().to(dtype) if dtype == torch.uint8 else values.to(dtype)


def join(parts: Sequence[Tensor]) -> Tensor:
    """Stored inputs ``[N, ...]`` one after another; pixels among floats are decoded first, for torch would not."""
    if len({part.dtype for part in parts}) > 1:
        parts = [numbers(part) for part in parts]
    return torch.cat(list(parts))


def shuffle(inputs: Tensor, permutation: Tensor) -> Tensor:
    """Inputs with their places in another order: the controls of triggers that have no host.

    A twin keeps the pixels and loses the picture, so a model that sends any strange input to the target fails the matched test.

    Args:
        inputs: ``[M, C, H, W]``, or other numbers ``[M, ...]``.
        permutation: of the space's ``places``; the same for all channels of an image.

    Examples:
        >>> shuffle(torch.arange(4.0).reshape(1, 1, 2, 2), torch.tensor([3, 2, 1, 0]))[0, 0].tolist()
        [[3.0, 2.0], [1.0, 0.0]]
    """
    return inputs.flatten(2 if inputs.ndim == 4 else 1)[..., permutation].reshape(inputs.shape)


def row_digests(stored: Tensor) -> Iterator[bytes]:
    """A BLAKE2b digest of each input's content, in order: the same for uint8 x and float x/255, and for 0.0 and -0.0.

    Args:
        stored: ``[N, ...]`` uint8, or float in [0, 1], on any device; it is gone through by parts.
    """
    for part in stored.detach().split(_ROWS):  # type: ignore[no-untyped-call]
        part = part.cpu().contiguous()
        levels = part if part.dtype == torch.uint8 else encode(part, torch.uint8)
        rows = levels.numpy()
        if part.dtype != torch.uint8:
            floats = decode(part) + 0.0
            finer = (decode(levels) != floats).reshape(len(part), -1).any(1).tolist()
            values = floats.numpy()
            rows = [values[k] if fine else row for k, (row, fine) in enumerate(zip(rows, finer, strict=True))]
        yield from (hashlib.blake2b(row, digest_size=DIGEST_BYTES).digest() for row in rows)
