"""Answers drawn by a number that nobody chose: what makes a claim exact for any innocent suspect and any owner.

The owner registers the triggers, in groups, before their answers exist. A number that comes later (a judge's, or a round of
public randomness) draws one answer for each group. The model is marked with what was drawn. Whatever a suspect answers that does
not depend on the draw, it meets drawn answers by luck alone, and how much luck is known exactly
(:mod:`heirmark.verification.drawn`).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from heirmark.errors import BadConfig

_WORD = 8
MOST_BEACON = 1000
"""Characters of a beacon's value at most."""


def drawn_answers(digest: bytes, beacon: str, candidates: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Draw an answer for each group, uniformly among its candidates.

    HMAC-SHA256 under the registration's digest of the beacon's value, the group and a count; words above the largest multiple of
    the number of candidates are passed over, so that no candidate is likelier than another by even one part in 2⁶⁴.

    Args:
        digest: of the registration, 32 bytes; see :func:`heirmark.keys.registration.digest`.
        beacon: the value that came later.
        candidates: for each group the answers among which one is drawn, all different.

    Returns:
        One answer for each group.

    Raises:
        BadConfig: for no group, a group with fewer than two candidates or one twice, and for a beacon that is empty or too long.

    Examples:
        >>> drawn_answers(bytes(32), "a judge's number", [range(10)] * 4)
        (1, 1, 9, 1)
    """
    if not beacon.strip() or len(beacon) > MOST_BEACON:
        raise BadConfig(
            f"a beacon's value has 1 to {MOST_BEACON} characters: give what was published, as it was written"
        )
    if not candidates:
        raise BadConfig("there is no group to draw an answer for: give groups of triggers")
    return tuple(_drawn(digest, beacon.strip(), group, options) for group, options in enumerate(candidates))


def hash_of_beacon(beacon: str) -> str:
    """The hash by which a verdict names the value of a beacon, 64 hex digits."""
    return hashlib.sha256(beacon.strip().encode()).hexdigest()


def _drawn(digest: bytes, beacon: str, group: int, candidates: Sequence[int]) -> int:
    count = len(candidates)
    if count < 2 or len(set(candidates)) < count:
        raise BadConfig(f"group {group} has {count} candidates: give two at least, all different")
    limit = (1 << 8 * _WORD) // count * count
    for attempt in range(1000):
        message = b"heirmark-draw/1\0" + group.to_bytes(4, "big") + attempt.to_bytes(4, "big") + beacon.encode()
        found = hmac.new(digest, message, hashlib.sha256).digest()
        for start in range(0, len(found), _WORD):
            word = int.from_bytes(found[start : start + _WORD], "big")
            if word < limit:
                return candidates[word % count]
    raise AssertionError("unreachable: each word is passed over with a chance below one half")
