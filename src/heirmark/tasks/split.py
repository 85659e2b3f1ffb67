"""Labelled examples, checked when made."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from heirmark.errors import BadData
from heirmark.tasks.items import read_items
from heirmark.tasks.mapped import gathered, open_array
from heirmark.tasks.space import AnySpace, space_of
from heirmark.tasks.storing import decode, fault, row_digests


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Labelled examples, in memory or mapped from a file; treat the tensors as read-only.

    Attributes:
        inputs: ``[N, ...]`` of a type in the table of :mod:`heirmark.tasks.space`; other floating types become float32.
        labels: ``[N]`` int64, non-negative; other integer types become int64.
        source: the file that the inputs are mapped from; see :meth:`from_file`.
        groups: ``[N]`` integers, by which examples belong together: of one group, a speaker, say, all go to one part. They are
            numbered across all splits of a task. None where every example stands for itself.

    Raises:
        BadData: for an empty split, a wrong type or shape, NaN or infinite inputs, numbers out of bounds, or an empty text.
    """

    inputs: Tensor
    labels: Tensor
    source: Path | None = field(default=None, repr=False)
    groups: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        inputs, labels = _checked_inputs(self.inputs), _checked_labels(self.labels)
        if len(inputs) != len(labels):
            raise BadData(f"{len(inputs)} inputs but {len(labels)} labels: give one label for each input")
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "labels", labels)
        if self.groups is not None:
            object.__setattr__(self, "groups", _checked_groups(self.groups, len(labels)))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def space(self) -> AnySpace:
        """What the inputs are."""
        return space_of(self.inputs)

    def subset(self, index: Tensor) -> Split:
        """Choose examples.

        Args:
            index: ``[M]`` integer positions, in the order wanted, or a ``[N]`` boolean mask.

        Returns:
            The chosen examples, copied: into memory, or where they are many of a mapped file, to another one beside it, once.

        Raises:
            BadData: if nothing is chosen, or the file cannot be written.
        """
        index = index.nonzero().flatten() if index.dtype == torch.bool else index.long()
        if self.source is None:
            inputs, source = self.inputs[index], None
        else:
            inputs, source = gathered(self.inputs, index, self.source)
        groups = None if self.groups is None else self.groups[index]
        chosen = Split(inputs=inputs, labels=self.labels[index], source=source, groups=groups)
        known: tuple[bytes, ...] | None = self.__dict__.get("row_digests")
        if known is not None:  # hashing is the dear part of making a task: hand on what is known
            chosen.__dict__["row_digests"] = tuple(known[i] for i in index.tolist())
        return chosen

    def floats(self, index: Tensor | None = None) -> Tensor:
        """Inputs as a model takes them.

        Args:
            index: ``[M]`` positions or ``[N]`` mask; all examples without it.

        Returns:
            ``[M, ...]`` float32 in [0, 1].
        """
        return decode(self.inputs if index is None else self.inputs[index])

    @cached_property
    def row_digests(self) -> tuple[bytes, ...]:
        """``N`` digests of the inputs' content, in order; labels do not enter."""
        return tuple(row_digests(self.inputs))

    def digest(self) -> str:
        """SHA-256 (hex) of type, shape, and all inputs with labels and order."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        header = [str(self.inputs.dtype), list(self.inputs.shape)]
        total = hashlib.sha256(json.dumps(header).encode() + b"\n")
        total.update(raw(self.inputs))
        total.update(raw(self.labels))
        return total.hexdigest()

    def digests(self) -> set[bytes]:
        """One hash per distinct input, by content: two splits are disjoint when these sets are."""
        return set(self.row_digests)

    @classmethod
    def from_file(cls, path: Path, labels: Tensor, *, groups: Tensor | None = None) -> Split:
        """Examples whose inputs lie in a file and are read when they are looked at, so that they may be larger than memory.

        Args:
            path: an ``.npy`` file of inputs ``[N, ...]`` as they are stored.
            labels: ``[N]`` integers.
            groups: ``[N]`` integers, or None.

        Raises:
            BadData: when the file cannot be mapped.
        """
        return cls(inputs=open_array(path), labels=labels, source=path, groups=groups)

    @classmethod
    def from_dataset(cls, dataset: Dataset[Any], *, limit: int | None = None) -> Split:
        """Read a map-style torch data set into memory.

        Args:
            dataset: items are pairs (x, y). x is a tensor (kept as it is: channels first), a PIL image, or an ndarray
                (``[H, W]`` or ``[H, W, C]`` with C of 1, 3 or 4 becomes ``[C, H, W]``; other shapes are kept). A PIL
                image of 16 bits becomes floats. y is an integer, or an integer tensor or array of one element.
            limit: read at most this many items, evenly spaced, so that a set sorted by class still gives every class.

        Returns:
            The examples in the data set's order.

        Raises:
            BadData: for an item that cannot be used; the message names it.
            BadConfig: if ``limit`` is not positive.
        """
        inputs, labels = read_items(dataset, limit=limit)
        return cls(inputs=inputs, labels=labels)


def _checked_inputs(inputs: Tensor) -> Tensor:
    if not isinstance(inputs, Tensor) or inputs.ndim < 2 or not inputs.numel():
        found = list(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise BadData(f"inputs must be a tensor [N, ...] with N of at least 1, not {found}")
    inputs = inputs.detach()
    if wrong := fault(inputs):
        raise BadData(f"inputs {wrong}")
    return (inputs.float() if inputs.is_floating_point() else inputs).contiguous()


def _checked_labels(labels: Tensor) -> Tensor:
    if not isinstance(labels, Tensor) or labels.ndim != 1:
        found = list(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise BadData(f"labels must be a tensor [N] of class indices, not {found}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise BadData(f"labels are {labels.dtype}: convert them to int64 class indices")
    labels = labels.detach().long().contiguous()
    if len(labels) and int(labels.min()) < 0:
        raise BadData(f"labels go down to {int(labels.min())}: class indices start at 0")
    return labels


def _checked_groups(groups: Tensor, count: int) -> Tensor:
    whole = isinstance(groups, Tensor) and not groups.is_floating_point() and groups.dtype != torch.bool
    if not whole or groups.shape != (count,):
        found = f"{groups.dtype} {list(groups.shape)}" if isinstance(groups, Tensor) else type(groups).__name__
        raise BadData(f"groups are {found}: give a tensor [{count}] of integers, one for each input")
    return groups.detach().long().contiguous()


def raw(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor, without a copy on the CPU."""
    return tensor.cpu().numpy().data.cast("B")
