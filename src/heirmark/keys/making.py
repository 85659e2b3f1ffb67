"""Make a key of drawn triggers."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

import torch
from torch import Tensor

from heirmark.errors import BadData, ShapeMismatch
from heirmark.keys.key import Key
from heirmark.keys.lots import Lots
from heirmark.runtime import check_seed
from heirmark.tasks.media import Medium, Text
from heirmark.tasks.storing import STORED, decode, row_digests


def make_key(
    *,
    queries: Tensor,
    expected: Tensor | int,
    controls: Tensor,
    classes: int,
    method: str,
    trigger: dict[str, Any],
    host_labels: Tensor | int | None = None,
    nonce: str | None = None,
    lots: Lots | None = None,
    medium: Medium | None = None,
    **said: Any,
) -> Key:
    """Make a key from drawn triggers, leaving out rows that can bear no evidence.

    Left out are exact repeats of an earlier query (repeated trials are not independent), queries that equal their
    control (the trigger changed nothing), and texts, query or control, that do not come back from their letters as they were,
    by which services are asked; so the key can be shorter than what was passed. A host of the target class is an error, not left
    out: choose other hosts.

    Args:
        queries: ``[M, ...]`` uint8 or floating point in [0, 1].
        expected: the answers ``[M]``, or one target class for all.
        controls: ``[M, ...]`` uint8 or floating point in [0, 1].
        classes: number of classes.
        method: name of the method.
        trigger: JSON description of the secret.
        host_labels: true classes of the hosts, ``[M, H]`` or ``[M]``, or one for all; None where there is no host.
        nonce: 64 hex digits; None draws a fresh one from the operating system. A method that promises the same result
            for the same seed passes :func:`nonce_from_seed`.
        lots: what the answers are drawn among, with the group of each of the M queries.
        medium: how queries are shown and put to services, where they are sound or text.
        said: ``kind``, ``memorised`` and ``reference``, as :class:`heirmark.keys.key.Key` has them.

    Returns:
        The key.

    Raises:
        ShapeMismatch: as :class:`heirmark.keys.key.Key`.
        BadData: as :class:`heirmark.keys.key.Key`, or if no row is left.
        BadConfig: as :class:`heirmark.keys.key.Key`.
    """
    count = _rows(queries)
    if queries.dtype != controls.dtype or queries.dtype not in STORED:
        queries, controls = decode(queries), decode(controls)
    answers = expected if isinstance(expected, Tensor) else torch.full((count,), expected)
    if host_labels is None:
        host_labels = torch.empty(count, 0)
    hosts = host_labels if isinstance(host_labels, Tensor) else torch.full((count,), host_labels)
    if not _rows(controls) == _rows(answers) == _rows(hosts) == count:
        raise ShapeMismatch(
            f"{count} queries need as many controls, answers and host labels, "
            f"not {_rows(controls)}, {_rows(answers)} and {_rows(hosts)}"
        )
    seen: set[bytes] = set()
    keep = []
    whole = torch.ones(count, dtype=torch.bool)
    if isinstance(medium, Text):
        whole = medium.survives(queries) & medium.survives(controls)
        if not whole.any():
            raise BadData(
                "none of the queries comes back from its text as it was, so that no service could be put it: use a tokenizer of "
                "whole words, or another trigger"
            )
    for row, (query, control) in enumerate(zip(row_digests(queries), row_digests(controls), strict=True)):
        if query not in seen and query != control and whole[row]:
            keep.append(row)
        seen.add(query)
    if not keep:
        raise BadData("no usable query is left, for the trigger changes no host: choose another trigger or other hosts")
    return Key(
        queries=queries[keep],
        expected=answers[keep].long(),
        controls=controls[keep],
        classes=classes,
        method=method,
        trigger=trigger,
        nonce=secrets.token_hex(32) if nonce is None else nonce,
        host_labels=(hosts[:, None] if hosts.ndim == 1 else hosts)[keep].long(),
        lots=None if lots is None else lots.rows(torch.tensor(keep)),
        medium=medium,
        **said,
    )


def nonce_from_seed(seed: int) -> str:
    """Derive a nonce from a seed, so that a method gives the same key for the same seed.

    The trade-off: such a nonce is as secret as the seed and no more. Whoever can guess the seed (0, 1, 2 ...) and has
    the data can draw the same key and recognise its commitment. An owner with something to protect uses a large random
    seed, which keeps the triggers secret too, or at least makes the key with ``nonce=secrets.token_hex(32)``.

    Args:
        seed: see :func:`heirmark.runtime.check_seed`.

    Returns:
        64 hex digits.

    Raises:
        BadConfig: when it is no seed; None would give everybody the same nonce.

    Examples:
        >>> nonce_from_seed(0) == nonce_from_seed(0) != nonce_from_seed(1)
        True
    """
    return hashlib.sha256(f"heirmark-nonce/1:{check_seed(seed)}".encode()).hexdigest()


def _rows(tensor: Tensor) -> int:
    return len(tensor) if tensor.ndim else 0
