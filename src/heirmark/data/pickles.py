"""Read the pickles in which CIFAR is published, as data: nothing in them is ever imported, called or executed.

A pickle is a program for a small stack machine. The official files need a few of its instructions (strings, numbers,
lists, tuples, one dictionary) and three "calls" that rebuild a numpy array. This module runs those few instructions on
values of its own and knows those calls by their names in a literal table; any other instruction or name is refused.
The standard library's ``pickletools`` only cuts the bytes into instructions. Three dialects occur: Python 2 (protocol
2, byte strings), Python 3 writing protocol 2 (bytes spelled as latin-1 text), and protocol 4; numpy 2 moreover renamed
``numpy.core`` to ``numpy._core``.
"""

from __future__ import annotations

import math
import pickletools
import warnings
from enum import Enum, auto
from typing import Any

import numpy as np

SIGN = b"\x80"
"""With which a pickle of protocol 2 or later begins."""


class Known(Enum):
    """The only names a file may mention."""

    RECONSTRUCT = auto()
    NDARRAY = auto()
    DTYPE = auto()
    ENCODE = auto()
    BYTES = auto()


_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): Known.RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): Known.RECONSTRUCT,
    ("numpy", "ndarray"): Known.NDARRAY,
    ("numpy", "dtype"): Known.DTYPE,
    ("_codecs", "encode"): Known.ENCODE,
    ("__builtin__", "bytes"): Known.BYTES,
    ("builtins", "bytes"): Known.BYTES,
}
_DTYPES = {"u1": "u1", "i4": "<i4", "i8": "<i8"}
_MARK = object()


class _Dtype:
    def __init__(self, code: str) -> None:
        self.code = code


class _Array:
    """An array between its creation, when it is empty, and its BUILD instruction, which fills it."""

    value: np.ndarray[Any, Any] | None = None


def parse(raw: bytes) -> dict[str, Any]:
    """Run a pickle that holds one dictionary of plain values and arrays.

    Args:
        raw: the file's bytes.

    Returns:
        The dictionary; byte-string keys become text. Values are str, bytes, int, bool, None, lists and tuples of such,
        and (read-only) arrays of uint8, int32 or int64.

    Raises:
        ValueError: for anything else; the message says what was met.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pickletools warns of odd escapes, which only hostile files have
            result = _Machine(raw).run()
    except (IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"a broken or unexpected structure ({type(error).__name__})") from error
    if type(result) is not dict:
        raise ValueError(f"a {type(result).__name__} where a dictionary belongs")
    return {key: value.value if isinstance(value, _Array) else value for key, value in result.items()}


class _Machine:
    """Stack and memo of one run."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.encoded = 0

    def run(self) -> Any:
        stack, memo = self.stack, self.memo
        arg: Any
        for opcode, arg, _ in pickletools.genops(self.raw):
            # ordered by how often they occur in the official files
            match opcode.name:
                case "BININT1" | "BININT" | "BININT2" | "LONG1" | "SHORT_BINBYTES" | "BINBYTES":
                    stack.append(arg)
                case "SHORT_BINUNICODE" | "BINUNICODE":
                    stack.append(arg)
                case "SHORT_BINSTRING" | "BINSTRING":  # Python 2's str: bytes, which pickletools shows as latin-1
                    stack.append(arg.encode("latin-1"))
                case "BINPUT" | "LONG_BINPUT":
                    memo[arg] = stack[-1]
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[arg])
                case "EMPTY_LIST":
                    stack.append([])
                case "EMPTY_DICT":
                    stack.append({})
                case "EMPTY_TUPLE":
                    stack.append(())
                case "MARK":
                    stack.append(_MARK)
                case "APPEND":
                    self.extend([stack.pop()])
                case "APPENDS":
                    self.extend(self.pop_to_mark())
                case "SETITEM":
                    self.update(self.pop(2))
                case "SETITEMS":
                    self.update(self.pop_to_mark())
                case "TUPLE":
                    stack.append(tuple(self.pop_to_mark()))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    stack.append(tuple(self.pop(int(opcode.name[-1]))))
                case "NONE":
                    stack.append(None)
                case "NEWTRUE" | "NEWFALSE":
                    stack.append(opcode.name == "NEWTRUE")
                case "GLOBAL":  # pickletools joins module and name by a space
                    stack.append(_known(*str(arg).split(" ", 1)))
                case "STACK_GLOBAL":
                    stack.append(_known(*self.pop(2)))
                case "REDUCE":
                    stack.append(self.call(*self.pop(2)))
                case "BUILD":
                    state = stack.pop()
                    _fill(stack[-1], state)
                case "PROTO" | "FRAME":
                    pass
                case "STOP":
                    (result,) = stack
                    return result
                case other:
                    raise ValueError(f"the instruction {other}, which no official file has")
        raise ValueError("no end")

    def pop(self, count: int) -> list[Any]:
        values = self.stack[-count:]
        if len(values) < count or any(value is _MARK for value in values):
            raise IndexError
        del self.stack[-count:]
        return values

    def pop_to_mark(self) -> list[Any]:
        values: list[Any] = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        values.reverse()
        return values

    def extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise TypeError
        target.extend(values)

    def update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise TypeError
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_text(key)] = value

    def call(self, function: Any, args: Any) -> Any:
        match function, args:
            case Known.RECONSTRUCT, (Known.NDARRAY, tuple(), bytes() | str()):
                return _Array()
            case Known.DTYPE, (bytes() | str() as code, *_):
                return _Dtype(_text(code))
            case Known.ENCODE, (str() as text, "latin1" | "latin-1"):
                # the memo lets one text be encoded over and over; the official files encode each byte once
                self.encoded += len(text)
                if self.encoded > len(self.raw):
                    raise ValueError("more encoded text than the file holds")
                return text.encode("latin-1")
            case Known.BYTES, ():
                return b""
        raise ValueError("a call that no official file has")


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, str):
        raise TypeError
    return value


def _known(module: Any, name: Any) -> Known:
    # Text first: a tuple of the same tuple twice, thirty times over, is never done being hashed or printed.
    if not (isinstance(module, str) and isinstance(name, str)) or (module, name) not in _NAMES:
        named = f"{module:.60}.{name:.60}" if isinstance(module, str) and isinstance(name, str) else "that is no text"
        raise ValueError(f"the name {named}, which is not on the list of what CIFAR needs")
    return _NAMES[module, name]


def _fill(target: Any, state: Any) -> None:
    """Carry out BUILD: an array gets its content; a dtype's state must not be big-endian."""
    match target, state:
        case _Dtype(), (int(), bytes() | str() as order, *_) if _text(order) in ("|", "<"):
            return
        case _Array(), (1, tuple() as shape, _Dtype() as dtype, bool() | 0 | 1 as fortran, bytes() as content):
            if dtype.code not in _DTYPES:
                raise ValueError(f"an array of type {dtype.code!r:.20}")
            flat = np.frombuffer(content, dtype=_DTYPES[dtype.code])
            if any(type(side) is not int or side < 0 for side in shape) or math.prod(shape) != flat.size:
                raise ValueError(f"an array of {len(shape)} dimensions that do not hold its {flat.size} values")
            target.value = flat.reshape(shape, order="F" if fortran else "C")
            return
    raise ValueError("an object state that no official file has")
