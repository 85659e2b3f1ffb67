"""How a key is put to a suspect: whether it can be at all, on which terms, in which order, and how often it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from heirmark.errors import BadArtifact, BadConfig, told
from heirmark.keys.key import Key
from heirmark.querying.oracle import ModelFault
from heirmark.results.verdict import Calibration
from heirmark.runtime import generator_of
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


def check_level(level: float) -> None:
    """Make sure that a level of significance is one.

    Raises:
        BadConfig: when it is out of range.
    """
    if not 0 < level <= 0.5:
        raise BadConfig(f"level must lie above 0 and at most at 0.5, not {level}")


def check_terms(
    key: Key, commitment: str, calibration: Calibration | None, level: float, accuracy: float | None
) -> None:
    """Make sure that a key can be judged on these terms.

    Args:
        key: as it is asked.
        commitment: to the whole of it.
        calibration: of the key.
        level: of significance.
        accuracy: of the suspect.

    Raises:
        BadConfig: if level or accuracy is out of range.
        BadArtifact: if the calibration is of another key.
    """
    check_level(level)
    if accuracy is not None and not 0 <= accuracy <= 1:
        raise BadConfig(f"accuracy must lie in [0, 1], not {accuracy}")
    if calibration is not None and (calibration.key != commitment or calibration.trials != len(key)):
        raise BadArtifact("the calibration belongs to another key: calibrate this key, or verify without a calibration")


def meter(suspect: Suspect) -> Callable[[int], int]:
    """What tells how many inputs are put to a suspect from now on; of one that does not count them, as many as it is told."""
    count = suspect.shown
    if count is None:
        return lambda asked: asked
    before = count()
    return lambda asked: count() - before


def shuffled_labels(suspect: Suspect, inputs: Tensor, *, seed: int) -> Tensor:
    """A suspect's labels ``[N]`` of inputs ``[N, ...]``, which are put to it in an order that the seed draws."""
    order = torch.randperm(len(inputs), generator=generator_of(seed))
    labels = torch.empty(len(inputs), dtype=torch.int64)
    labels[order] = suspect.labels(inputs[order])
    return labels


def order_seed(key: Key) -> int:
    """Of the order in which a key is asked, drawn from its nonce.

    The nonce, because it is secret: a commitment may have been published, and an order drawn from it alone could be
    worked out by the suspect. Answers that were drawn have no say in it: what a suspect is asked is then fixed before the draw,
    and so is what it answers, even if that goes by the order.
    """
    version, content = 1, key.content
    if key.lots is not None:
        version, content = 2, hashlib.sha256(b"".join(key.digests[0])).hexdigest()
    seed = hashlib.sha256(f"heirmark-order/{version}:{key.nonce}:{content}".encode()).digest()
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
