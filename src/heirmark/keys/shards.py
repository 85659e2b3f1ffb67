"""A key cut into shards, so that a dispute shows one of them and the others stay secret.

A shard is a key of its own: some of the rows, without the description of the secret, under a nonce that tells nothing of the
key's. The commitment to a key is the root of the Merkle tree over its shards.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from heirmark.errors import BadArtifact, BadConfig
from heirmark.keys import merkle
from heirmark.keys.key import Key
from heirmark.runtime import generator_of
from heirmark.tasks.media import digest_of

LEAST: Final = 20
"""Rows of a shard, at least: fewer judge nobody."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """That a shard is one of a registered key's.

    Attributes:
        index: which one, from 0.
        path: hashes from its neighbour up, 64 hex digits each; see :func:`heirmark.keys.merkle.path`.
    """

    index: int
    path: tuple[str, ...]

    def shows(self, shard: Key, *, commitment: str, shards: int, drawn: bool) -> bool:
        """Whether the shard is in the tree.

        Args:
            shard: the shard.
            commitment: that was registered.
            shards: how many were.
            drawn: whether the answers were drawn after the registration.
        """
        try:
            path = [bytes.fromhex(each) for each in self.path]
        except ValueError:
            return False
        if any(len(each) != 32 for each in path):
            return False
        found = merkle.root_by(material(shard, drawn=drawn), self.index, shards, path)
        return found is not None and found.hex() == commitment


def cut(key: Key, shards: int, *, drawn: bool = False) -> tuple[Key, ...]:
    """All shards of a key; the same each time.

    Rows are dealt out by an order that only the nonce tells, those of each answer in turn, so that each shard has its share.

    Args:
        key: the whole key.
        shards: how many.
        drawn: whether the answers were drawn after the registration, and so decide nothing here.

    Raises:
        BadConfig: when the key is too small for so many.
    """
    if shards < 1 or len(key) // shards < LEAST:
        raise BadConfig(
            f"a key of {len(key)} queries has {max(1, len(key) // LEAST)} shards of {LEAST} at most, not {shards}: "
            "ask for fewer, or draw a larger key"
        )
    seed = int.from_bytes(_derived(key.nonce, "order")[:8], "little") >> 1
    order = torch.randperm(len(key), generator=generator_of(seed))
    if not drawn:
        order = order[torch.argsort(key.expected[order], stable=True)]
    return tuple(
        key.subset(order[index::shards], trigger={}, nonce=_derived(key.nonce, f"{index}/{shards}").hex())
        for index in range(shards)
    )


def commitment_to(shards: Sequence[Key], *, drawn: bool = False) -> str:
    """What is registered of a key: 64 hex digits over all its shards.

    Args:
        shards: all, in order.
        drawn: leave the answers out, which are drawn later.
    """
    return merkle.root([material(each, drawn=drawn) for each in shards]).hex()


def proof_of(shards: Sequence[Key], index: int, *, drawn: bool = False) -> Proof:
    """That one of the shards is among them; the arguments are those of :func:`commitment_to`.

    Raises:
        BadArtifact: when there is no such shard.
    """
    if not 0 <= index < len(shards):
        raise BadArtifact(f"there is no shard {index + 1} of {len(shards)}: name another")
    path = merkle.path([material(each, drawn=drawn) for each in shards], index)
    return Proof(index=index, path=tuple(each.hex() for each in path))


def material(shard: Key, *, drawn: bool) -> bytes:
    """A SHA-256 (32 bytes) of all that a shard is, or of all but its answers where these are ``drawn`` later."""
    digest = hashlib.sha256()
    names = [name for name in ("queries", "controls", "host_labels", "expected") if not (drawn and name == "expected")]
    facts = {
        name: getattr(shard, name)
        for name in ("classes", "kind", "memorised", "method", "nonce", "reference", "trigger")
    }
    if shard.lots is not None:
        facts["lots"] = shard.lots.digest
    if shard.medium is not None:
        facts["medium"] = digest_of(shard.medium)
    parts = [json.dumps(["heirmark-shard/1", names, facts], sort_keys=True).encode()]
    for name in names:
        values = getattr(shard, name).numpy()
        parts += [
            json.dumps([values.dtype.name, list(values.shape)]).encode(),
            values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes(),
        ]
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def _derived(nonce: str, purpose: str) -> bytes:
    return hmac.digest(bytes.fromhex(nonce), f"heirmark-shards/1:{purpose}".encode(), "sha256")
