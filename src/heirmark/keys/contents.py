"""What a key may hold, checked; and its canonical encoding."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import torch

from heirmark.errors import BadConfig, BadData, ShapeMismatch
from heirmark.files import MIB
from heirmark.tasks.storing import STORED, fault

if TYPE_CHECKING:
    from heirmark.keys.key import Key

MAX_TRIGGER: Final = 8 * MIB


def check_tensors(key: Key) -> None:
    """See :class:`heirmark.keys.key.Key`, with the errors."""
    queries, controls = key.queries, key.controls
    if queries.dtype not in STORED or queries.ndim < 2 or not queries.numel():
        raise ShapeMismatch("queries must be a non-empty [M, ...] tensor of dtype uint8, int16, int32 or float32")
    if controls.shape != queries.shape or controls.dtype != queries.dtype:
        raise ShapeMismatch("controls must have the shape and dtype of the queries")
    if key.expected.dtype != torch.int64 or tuple(key.expected.shape) != (len(queries),):
        raise ShapeMismatch(f"expected must be {len(queries)} int64 values, one for each query")
    if key.host_labels.dtype != torch.int64 or key.host_labels.ndim != 2 or len(key.host_labels) != len(queries):
        raise ShapeMismatch(f"host_labels must be a [{len(queries)}, H] tensor of dtype int64")
    for name, values in (("queries", queries), ("controls", controls)):
        if wrong := fault(values):
            raise BadData(f"{name} {wrong}")
    if int(key.expected.min()) < 0 or int(key.expected.max()) >= key.classes:
        raise BadData(f"expected answers must be classes 0 to {key.classes - 1}")
    if bool(((key.host_labels < -1) | (key.host_labels >= key.classes)).any()):
        raise BadData(f"host_labels must be classes 0 to {key.classes - 1}, or -1 where there is no host")
    if bool((key.host_labels == key.expected[:, None]).any()):
        raise BadData(
            "a host is already of the class its query should get, which proves nothing: choose hosts of other classes"
        )
    asked, plain = key.digests
    if len(set(asked)) < len(asked):
        raise BadData(
            "the same query occurs twice, but trials must be independent: leave repeats out, as make_key does"
        )
    if key.lots is not None:
        if len(key.lots.groups) != len(queries):
            raise ShapeMismatch(f"lots must name the group of each of the {len(queries)} queries")
        if int(key.lots.candidates.max()) >= key.classes or (
            len(key.lots.usual) and key.lots.usual.shape[2] != key.classes
        ):
            raise BadData(f"candidates of lots, and what is usual, must be of classes 0 to {key.classes - 1}")
        key.lots.places(key.expected)
    if any(query == control for query, control in zip(asked, plain, strict=True)):
        raise BadData("a query equals its control, so its trigger does nothing: leave it out, as make_key does")


def canonical(value: object) -> bytes:
    """The same bytes for the same JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def plain_json(trigger: dict[str, Any]) -> dict[str, Any]:
    """A copy as JSON gives it back (tuples become lists), so that a loaded key has the commitment of the saved one."""
    try:
        text = canonical(trigger)
    except (TypeError, ValueError, RecursionError):
        raise BadConfig(
            "trigger must hold strings, finite numbers, lists and dicts only: move tensors out of it"
        ) from None
    if len(text) > MAX_TRIGGER:
        raise BadConfig(
            f"trigger takes {len(text):,} bytes as JSON, more than the {MAX_TRIGGER:,} allowed: describe it shorter"
        )
    plain: dict[str, Any] = json.loads(text)
    return plain


def from_description(trigger: dict[str, Any]) -> dict[str, Any]:
    """What a key of the old format says of its kind in the description of its secret."""
    kind = trigger.get("kind", "unknown")
    return {
        "kind": kind,
        "memorised": trigger.get("memorised") is True,
        "reference": "chance" if kind == "out-of-distribution" else "control",
    }
