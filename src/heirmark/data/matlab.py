"""Read numeric arrays from MATLAB files of level 5 ("MAT-File Format", The MathWorks, chapter 1), compressed or not.

General readers of this format crash on some damaged files; this one checks every length before it believes it, and
knows nothing but real numeric arrays.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

SIGN = b"\x00\x01IM"
"""Of a little-endian file of level 5."""
SIGN_AT = 124
_MATRIX = 14
_COMPRESSED = 15
_COMPLEX = 0x800
_NUMERIC = range(6, 16)  # double, single and the eight integers
# how numbers are stored, which may be narrower than the array's own type
_STORED = {
    1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8",
}  # fmt: skip
# flags, sizes and name of an array stand at its beginning, in much less than this
_HEAD_BYTES = 1024


@dataclass(frozen=True)
class _Head:
    flags: int
    shape: tuple[int, ...]
    name: str
    end: int


def parse(raw: bytes, names: Collection[str], *, most: int) -> dict[str, np.ndarray[Any, Any]]:
    """Read the named arrays; others are passed over without decompressing them.

    Args:
        raw: the file's bytes.
        names: the arrays wanted.
        most: bytes that one array may have after decompression.

    Returns:
        Those of the arrays that the file has, read-only, in the shape and the type in which it stores them.

    Raises:
        ValueError: for a damaged or foreign file; the message says what was met.
    """
    if raw[SIGN_AT : SIGN_AT + len(SIGN)] != SIGN:
        raise ValueError("no header of a little-endian MATLAB file of level 5")
    view, position, found = memoryview(raw), 128, {}
    try:
        while position < len(view):
            kind, size = struct.unpack_from("<II", view, position)
            body = view[position + 8 : position + 8 + size]
            if len(body) < size:
                raise ValueError("an end before its end")
            position, part = position + 8 + size, view[position : position + 8 + size]
            packed = kind == _COMPRESSED
            start = memoryview(zlib.decompressobj().decompress(body, _HEAD_BYTES)) if packed else part[:_HEAD_BYTES]
            kind, inner = struct.unpack_from("<II", start)
            if kind != _MATRIX or (head := _head(start)).name not in names:
                continue
            if inner > most:
                raise ValueError(f"an array of {inner:,} bytes")
            found[head.name] = _array(_inflate(body, 8 + inner) if packed else part, head)
    except (struct.error, zlib.error) as error:
        raise ValueError(f"a damaged part ({error})") from error
    return found


def _inflate(body: memoryview, size: int) -> memoryview:
    stream = zlib.decompressobj()
    plain = stream.decompress(body, size)
    if len(plain) < size or stream.decompress(stream.unconsumed_tail, 1) or not stream.eof:
        raise ValueError("a compressed part of another length than it says")
    return memoryview(plain)


def _element(view: memoryview, position: int) -> tuple[int, memoryview, int]:
    """Type and content of the element at a position, and where the next one begins."""
    kind, size = struct.unpack_from("<II", view, position)
    if kind >> 16:  # the short form: size and type share a word, up to four bytes of content follow
        kind, size, start, end = kind & 0xFFFF, kind >> 16, position + 4, position + 8
        if size > 4:
            raise ValueError("a short element that is not short")
    else:
        start, end = position + 8, position + 8 + -(-size // 8) * 8
    content = view[start : start + size]
    if len(content) < size:
        raise ValueError("an element that ends beyond its array")
    return kind, content, end


def _head(view: memoryview) -> _Head:
    _, flags, position = _element(view, 8)
    _, sizes, position = _element(view, position)
    _, name, position = _element(view, position)
    if len(sizes) % 4 or len(sizes) < 8:
        raise ValueError("an array without sizes")
    shape = struct.unpack(f"<{len(sizes) // 4}i", sizes)
    return _Head(struct.unpack_from("<I", flags)[0], shape, bytes(name).decode("latin-1"), position)


def _array(view: memoryview, head: _Head) -> np.ndarray[Any, Any]:
    if head.flags & 0xFF not in _NUMERIC or head.flags & _COMPLEX:
        raise ValueError(f"{head.name!r:.40}, which is not an array of real numbers")
    kind, content, _ = _element(view, head.end)
    if kind not in _STORED:
        raise ValueError(f"numbers of the unknown type {kind}")
    flat = np.frombuffer(content, dtype=_STORED[kind])
    if min(head.shape) < 0 or math.prod(head.shape) != flat.size:
        raise ValueError(f"an array of shape {head.shape!r:.60} with {flat.size} values")
    return flat.reshape(head.shape, order="F")
