"""What a client sends in confidence is blotted out of what a service answers, for reasons, transcripts and bundles are shown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from heirmark.wire.addresses import Address

BLOT: Final = "[blotted out]"
_SHORTEST = 6
"""Characters of what is taken for a secret: a shorter word may stand in any answer."""


def secrets_in(headers: Mapping[str, str], address: Address) -> tuple[str, ...]:
    """What may be a secret of headers and of an address's query: each value whole, and its parts; the longest first.

    Examples:
        >>> from heirmark.wire.addresses import parse_address
        >>> secrets_in({"Authorization": "Bearer abc-123"}, parse_address("http://a.example/m?key=four%2B5&n=3"))
        ('Bearer abc-123', 'four%2B5', 'abc-123', 'four+5')
    """
    query = address.path.partition("?")[2]
    said = {value.strip() for value in headers.values()}
    said |= {part for value in headers.values() for part in re.split(r"[\s;,=\"]+", value)[1:]}
    said |= {part.partition("=")[2] for part in query.split("&")} | {value for _, value in parse_qsl(query)}
    said |= {unquote(each) for each in said}
    return tuple(sorted((each for each in said if len(each) >= _SHORTEST), key=lambda each: (-len(each), each)))


def blotted(said: Any, secrets: Sequence[str]) -> Any:
    """The same text, or JSON, without any of the secrets.

    Examples:
        >>> blotted({"error": ["no such key: abc-123", 0.5]}, ["abc-123"])
        {'error': ['no such key: [blotted out]', 0.5]}
    """
    if not secrets:
        return said
    if isinstance(said, str):
        for secret in secrets:
            said = said.replace(secret, BLOT)
        return said
    if isinstance(said, list):
        return [blotted(each, secrets) if isinstance(each, str | list | dict) else each for each in said]
    if isinstance(said, dict):
        return {blotted(name, secrets): blotted(each, secrets) for name, each in said.items()}
    return said
