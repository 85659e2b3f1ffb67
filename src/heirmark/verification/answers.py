"""What a foreign model answers, read as labels: scores, or labels already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heirmark.errors import BadConfig, told
from heirmark.querying.oracle import REMEDY, ModelFault, checked_scores


def labels_from(outputs: object, rows: int, classes: int) -> Tensor:
    """Labels ``[rows]`` int64 on the CPU from a foreign answer.

    Args:
        outputs: scores ``[rows, classes]`` or integer labels ``[rows]``, as a tensor or an array.
        rows: number of inputs that were asked about.
        classes: number of classes.

    Raises:
        ModelFault: when it is anything else.
        torch.OutOfMemoryError: if an accelerator ran out of memory, for which the model is not to blame.
    """
    try:
        return _read_labels(outputs, rows, classes)
    except torch.OutOfMemoryError:  # a RuntimeError, too, but no failing of the suspect's
        raise
    except (TypeError, ValueError, RuntimeError) as error:  # no numbers, or of a kind that torch hardly knows
        raise ModelFault(f"the model's answer cannot be read ({told(error)}): return floats or int64 labels") from error


def _plain(outputs: object) -> np.ndarray[Any, Any]:
    """An array as torch takes it: of this machine's byte order, of no wider numbers than it has, forwards, without a mask.

    Raises:
        ValueError: where answers are masked, which are none.
    """
    if isinstance(outputs, np.ma.MaskedArray) and bool(np.ma.getmaskarray(outputs).any()):
        raise ValueError("some of it is masked")
    values = np.asarray(outputs)
    kind = values.dtype.newbyteorder("=")
    if kind.kind == "f" and kind.itemsize > 8:
        kind = np.dtype(np.float64)
    return np.ascontiguousarray(values, dtype=kind).reshape(values.shape)


def _read_labels(outputs: object, rows: int, classes: int) -> Tensor:
    if isinstance(outputs, np.ndarray | np.generic | list | tuple):
        outputs = torch.as_tensor(_plain(outputs))
    if not isinstance(outputs, Tensor) or outputs.ndim != 1:
        return checked_scores(outputs, rows, classes).detach().argmax(1).cpu()
    if outputs.is_floating_point() or outputs.is_complex() or outputs.dtype == torch.bool or len(outputs) != rows:
        raise ModelFault(
            f"the model returned {len(outputs)} {outputs.dtype} values for {rows} inputs: return integer labels"
        )
    labels = outputs.detach().long().cpu()  # torch cannot compare every kind of unsigned integers
    if bool(((labels < 0) | (labels >= classes)).any()):
        raise ModelFault(
            f"the model returned labels outside 0 to {classes - 1}: check its number of classes and its labels' order, "
            f"or {REMEDY}"
        )
    return labels


def checked_order(order: Sequence[int], classes: int) -> tuple[int, ...]:
    """The class that each of a suspect's means, if it is one: see :meth:`heirmark.verification.suspects.Suspect.relabelled`.

    Raises:
        BadConfig: when a class is out of range, or named twice.
    """
    names = tuple(order)
    named = [name for name in names if name != -1]
    if len(names) < 2 or len(set(named)) < len(named) or not all(0 <= name < classes for name in named):
        raise BadConfig(
            f"labels name, for each class of the suspect's, another class from 0 to {classes - 1}, or none: not {names}"
        )
    return names
