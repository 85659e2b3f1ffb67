"""A Merkle tree: one hash for many parts, of which each can be shown to be in it without the others.

Source: RFC 9162 (Certificate Transparency 2.0), sections 2.1.1 to 2.1.3, with SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def root(parts: Sequence[bytes]) -> bytes:
    """The hash over all parts, 32 bytes.

    Args:
        parts: any bytes, one part at least.

    Examples:
        >>> root([b""]).hex()[:8]
        '6e340b9c'
    """
    if len(parts) == 1:
        return _hash(b"\0", parts[0])
    half = _split(len(parts))
    return _hash(b"\1", root(parts[:half]), root(parts[half:]))


def path(parts: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """What shows that the part at an index is in the tree: hashes of 32 bytes, from its neighbour up.

    Args:
        parts: all of them.
        index: from 0.
    """
    if len(parts) == 1:
        return ()
    half = _split(len(parts))
    if index < half:
        return (*path(parts[:half], index), root(parts[half:]))
    return (*path(parts[half:], index - half), root(parts[:half]))


def root_by(part: bytes, index: int, count: int, shown: Sequence[bytes]) -> bytes | None:
    """The root that follows from a part and its path, to be compared with the one that is known; None where there is none.

    Args:
        part: the part.
        index: its place, from 0.
        count: parts in the tree.
        shown: see :func:`path`.

    Examples:
        >>> parts = [b"a", b"b", b"c"]
        >>> root_by(b"b", 1, 3, path(parts, 1)) == root(parts), root_by(b"b", 0, 3, path(parts, 1)) == root(parts)
        (True, False)
    """
    if not 0 <= index < count:
        return None
    if count == 1:
        return None if shown else _hash(b"\0", part)
    if not shown:
        return None
    half = _split(count)
    left = index < half
    below = root_by(part, index if left else index - half, half if left else count - half, shown[:-1])
    if below is None:
        return None
    return _hash(b"\1", below, shown[-1]) if left else _hash(b"\1", shown[-1], below)


def _split(count: int) -> int:
    """The largest power of two below a count."""
    return 1 << (count - 1).bit_length() - 1


def _hash(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()
