"""A service as a user names it, found out about and ready to be asked."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from heirmark.errors import BadConfig, HeirmarkWarning
from heirmark.querying.transcript import Transcript
from heirmark.tasks.media import Medium, Text
from heirmark.wire.addresses import parse_address, seal_of
from heirmark.wire.calling import Caller
from heirmark.wire.dialects.base import Wish
from heirmark.wire.dialects.registry import AUTO, find_dialect
from heirmark.wire.layouts import Order
from heirmark.wire.limits import Limits
from heirmark.wire.rows import Classes
from heirmark.wire.service import Cover, Service

if TYPE_CHECKING:
    import httpx

_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_HEADER = re.compile(r"([A-Za-z0-9!#$%&'*+.^_|~-]+): *([ -~]+)")


@dataclass(frozen=True, kw_only=True)
class Client:
    """How a service is asked.

    Attributes:
        protocol: ``"auto"``, or the name of one; see :data:`heirmark.wire.dialects.registry.DIALECTS`.
        order: of the axes of an input at the service.
        output: name of the output that is read, where there are several.
        headers: sent along, to the service alone, and written down nowhere; see :func:`read_headers`.
        limits: of time, queries, money, and whom it talks to.
        transcript: file of questions and answers; what it holds already is not asked again.
        cover: inputs among which questions are hidden.
    """

    protocol: str = AUTO
    order: Order = "auto"
    output: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    limits: Limits = field(default=Limits())
    transcript: Path | None = None
    cover: Cover | None = None


def connect(
    address: str,
    client: Client,
    *,
    shape: Sequence[int],
    reading: Classes,
    prepare: Callable[[Tensor], Tensor] | None = None,
    medium: Medium | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Service:
    """Find out how a service is asked. Nothing is put to it that is a query.

    Args:
        address: of it, ``http://`` or ``https://``.
        client: how it is asked.
        shape: of one input here.
        reading: what its classes mean.
        prepare: what is done to float32 inputs ``[B, ...]`` in [0, 1] first.
        medium: how inputs are written, where they are texts.
        transport: in place of the network, for tests.

    Raises:
        BadConfig: when the address may not be talked to, or nothing can be asked there.
        BadArtifact: when the transcript is damaged.
        ModelFault: when the service cannot be reached.
    """
    goal = parse_address(address)
    send = Caller(address=goal, limits=client.limits, headers=client.headers, transport=transport)
    texts = medium if isinstance(medium, Text) else None
    wish = Wish(shape=tuple(shape), order=client.order, output=client.output, texts=texts)
    dialect = find_dialect(client.protocol, goal, send, wish)
    if goal.scheme == "http" and not client.limits.allow_private:
        warnings.warn(
            f"{goal.origin} is not encrypted: who listens on the way learns the questions, and these are a key's secret",
            HeirmarkWarning,
            stacklevel=2,
        )
    transcript = None
    if client.transcript is not None:
        head = {"address": str(goal), "protocol": dialect.name, "normalised": prepare is not None}
        if seal := seal_of(goal.whole):
            head["seal"] = seal
        transcript = Transcript(client.transcript, head=head)
    return Service(
        dialect=dialect,
        send=send,
        reading=reading,
        limits=client.limits,
        transcript=transcript,
        prepare=prepare,
        cover=client.cover,
    )


def read_headers(texts: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Headers from texts such as ``"Authorization: Bearer $TOKEN"``; ``$TOKEN`` is looked up, so that no secret is typed.

    Args:
        texts: one header each.
        environment: where to look; the process's own by default.

    Raises:
        BadConfig: when a text is no header, or a variable is not set.

    Examples:
        >>> read_headers(["X-Key: $KEY"], {"KEY": "secret"})
        {'X-Key': 'secret'}
    """
    known: Mapping[str, Any] = os.environ if environment is None else environment
    headers = {}
    for text in texts:
        for name in _VARIABLE.findall(text):
            if name not in known:
                raise BadConfig(f"--header names ${name}, and that is not set in the environment: export it first")
        whole = _VARIABLE.sub(lambda found: known[found[1]], text)
        header = _HEADER.fullmatch(whole)
        if header is None or header[1].lower() in ("host", "content-length", "content-type", "transfer-encoding"):
            raise BadConfig(f"--header {text}: write 'Name: value', and none that the call itself sets")
        headers[header[1]] = header[2].strip()
    return headers
