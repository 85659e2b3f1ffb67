"""Whether a key can be put to a suspect at all, and in which order."""

from __future__ import annotations

import hashlib

import torch

from heirmark.errors import told
from heirmark.keys.key import Key
from heirmark.querying.oracle import ModelFault
from heirmark.verification.suspects import Suspect

LEAST_QUERIES = 20
"""A key of fewer judges nobody."""


FAILINGS = (ModelFault, MemoryError, torch.OutOfMemoryError)
"""What ends the asking, and makes a verdict INVALID."""


def failing_of(error: BaseException) -> tuple[str, str]:
    """One of :data:`FAILINGS` as a flag and a reason."""
    if isinstance(error, ModelFault):
        return "suspect-failed", str(error)
    return (
        "out-of-memory",
        f"memory ran out while the suspect was asked ({told(error)}): free some, allow more, or use a larger machine",
    )


def order_seed(key: Key) -> int:
    """Of the order in which a key is asked, drawn from its nonce.

    The nonce, because it is secret: a commitment may have been published, and an order drawn from it alone could be
    worked out by the suspect.
    """
    seed = hashlib.sha256(f"heirmark-order/1:{key.nonce}:{key.content}".encode()).digest()
    return int.from_bytes(seed[:8], "little") >> 1


def misfit_of(suspect: Suspect, key: Key) -> tuple[str, str] | None:
    """What forbids asking at all, as a flag and a reason."""
    if len(key) < LEAST_QUERIES:
        return "key-too-small", f"the key has {len(key)} queries; at least {LEAST_QUERIES} are needed to judge anything"
    if suspect.classes != key.classes:
        return (
            "wrong-classes",
            f"the suspect has {suspect.classes} classes, the key {key.classes}: if they mean the same and some more, say which "
            "is which (--labels), else this is the key of another task",
        )
    if suspect.input_shape is not None and tuple(suspect.input_shape) != key.input_shape:
        return (
            "wrong-shape",
            f"the suspect takes inputs of shape {suspect.input_shape}, the key's are {key.input_shape}: {_bring(suspect, key)}",
        )
    return None


def _bring(suspect: Suspect, key: Key) -> str:
    """What makes a suspect take inputs of a key's shape."""
    theirs, ours = tuple(suspect.input_shape or ()), key.input_shape
    if len(ours) == 3 and theirs == (*ours[1:], ours[0]):
        return "it wants channels last, so ask it through a function that permutes them, inputs.permute(0, 2, 3, 1)"
    if len(theirs) == len(ours) == 3 and theirs[1:] == ours[1:]:
        return "ask it through a function that repeats or averages the channels"
    return "ask it through a function that resizes them"
