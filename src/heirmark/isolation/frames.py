"""What two processes say to each other: arrays in bounded binary frames. Nothing in a frame is ever unpickled or run."""

from __future__ import annotations

import json
import math
import socket
import struct
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heirmark.errors import BadArtifact
from heirmark.files import MIB, parse_json

SMALL = MIB
"""Bytes that a frame with words or facts may hold."""
_MAGIC = b"HMF1"
_HEADER = struct.Struct("<4sBBBxQQ8Q")
DTYPES = tuple(
    np.dtype(name) for name in ("<f4", "<f8", "<f2", "<i8", "<i4", "<i2", "<i1", "<u8", "<u4", "<u2", "<u1", "?")
)


class Kind(IntEnum):
    """What a frame is."""

    FACTS = 1
    """JSON: what is to be opened, or what was."""
    ASK = 2
    """Inputs."""
    ANSWER = 3
    """What a model said to them."""
    FAULT = 4
    """JSON: what went wrong, in words."""
    MEMORY = 5
    """Likewise, of memory that ran out."""


class Silence(Exception):
    """The other side said nothing in time."""


class Gone(Exception):
    """The other side has closed, or said something that is no frame."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One thing said.

    Attributes:
        kind: what it is.
        values: an array of up to eight dimensions.
        most: bytes that the answer to it may hold.
    """

    kind: Kind
    values: NDArray[Any]
    most: int = 0

    @property
    def facts(self) -> dict[str, Any]:
        """The JSON object in a frame of words.

        Raises:
            BadArtifact: where there is none.
        """
        found = parse_json(self.values.tobytes(), source="what a process said")
        if not isinstance(found, dict):
            raise BadArtifact("what a process said is no object of JSON: it is not heirmark's")
        return found


def frame_of(kind: Kind, facts: dict[str, Any]) -> Frame:
    """A frame of words, cut where they are too many."""
    text = json.dumps(facts).encode()
    return Frame(kind=kind, values=np.frombuffer(text, np.uint8))


def header_of(frame: Frame) -> bytes:
    """The fixed bytes that precede a frame's values.

    Raises:
        ValueError: for values of a kind, or of more dimensions, than a frame can hold.
    """
    values = frame.values
    dtype = values.dtype.newbyteorder("<")
    if dtype not in DTYPES or values.ndim > 8:
        raise ValueError(f"{values.ndim} dimensions of {values.dtype} do not fit into a frame")
    sizes = (*values.shape, *[0] * (8 - values.ndim))
    return _HEADER.pack(_MAGIC, frame.kind, DTYPES.index(dtype), values.ndim, values.nbytes, frame.most, *sizes)


def read_header(data: bytes, *, most: int) -> tuple[Kind, np.dtype[Any], tuple[int, ...], int]:
    """Kind, dtype and shape of the values that follow a header, and how many bytes the answer to them may hold.

    Args:
        data: the header.
        most: bytes that the values may take.

    Raises:
        Gone: if it is no header, or announces more.
    """
    if len(data) != _HEADER.size:
        raise Gone("a frame ends within its header")
    magic, kind, dtype, dims, size, answer, *sizes = _HEADER.unpack(data)
    shape = tuple(sizes[:dims])
    if (
        magic != _MAGIC
        or kind not in set(Kind)
        or dtype >= len(DTYPES)
        or dims > 8
        or math.prod(shape) * DTYPES[dtype].itemsize != size
    ):
        raise Gone("what came is no frame")
    if size > most:
        raise Gone(f"a frame of {size:,} bytes came where {most:,} are allowed")
    return Kind(kind), DTYPES[dtype], shape, answer


def send(channel: socket.socket, frame: Frame, *, until: float | None = None) -> None:
    """Say something.

    Args:
        channel: to the other side.
        frame: what is said.
        until: time of :func:`time.monotonic` by which the other side must have taken it.

    Raises:
        Silence: if it has not.
        Gone: if it has closed.
        ValueError: see :func:`header_of`.
    """
    header = header_of(frame)
    values = np.ascontiguousarray(frame.values, dtype=frame.values.dtype.newbyteorder("<"))
    try:
        for part in (header, values.reshape(-1).view(np.uint8).data):
            channel.settimeout(_left(until))
            channel.sendall(part)
    except TimeoutError:
        raise Silence from None
    except OSError as error:
        raise Gone(str(error)) from None


def receive(channel: socket.socket, *, most: int, until: float | None = None) -> Frame:
    """Wait for something to be said.

    Args:
        channel: to the other side.
        most: bytes that its values may take; no more is ever read or allocated.
        until: see :func:`send`.

    Raises:
        Silence: if nothing whole came in time.
        Gone: if the other side has closed, or what came is no frame or larger.
    """
    kind, dtype, shape, answer = read_header(bytes(_exactly(channel, _HEADER.size, until)), most=most)
    data = _exactly(channel, math.prod(shape) * dtype.itemsize, until)
    return Frame(kind=kind, values=np.frombuffer(data, dtype).reshape(shape), most=answer)


def _exactly(channel: socket.socket, count: int, until: float | None) -> bytearray:
    data = bytearray(count)
    view, done = memoryview(data), 0
    try:
        while done < count:
            channel.settimeout(_left(until))
            came = channel.recv_into(view[done:])
            if not came:
                raise Gone("the other side has closed")
            done += came
    except TimeoutError:
        raise Silence from None
    except OSError as error:
        raise Gone(str(error)) from None
    return data


def _left(until: float | None) -> float | None:
    if until is None:
        return None
    left = until - time.monotonic()
    if left <= 0:
        raise Silence
    return left
