"""Read any map-style torch data set into two tensors."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from heirmark.errors import BadConfig, BadData, told
from heirmark.tasks.storing import TYPES, fault

_CHANNELS = (1, 3, 4)


def read_items(dataset: Dataset[Any], *, limit: int | None = None) -> tuple[Tensor, Tensor]:
    """Inputs ``[N, ...]`` uint8 or float32 and labels ``[N]`` int64 of a map-style data set, or of so many evenly spaced items.

    :meth:`heirmark.tasks.task.Split.from_dataset` says what an item may be.

    Raises:
        BadData: for an item that cannot be used; the message names it.
        BadConfig: if ``limit`` is not positive.
    """
    if limit is not None and limit < 1:
        raise BadConfig(f"limit must be at least 1, not {limit}")
    try:
        size = len(dataset)  # type: ignore[arg-type]
    except TypeError:
        size = -1
    if size < 0 or not hasattr(dataset, "__getitem__"):
        raise BadData(
            f"{type(dataset).__name__} has no length or no items by index: give a map-style data set, "
            "or read the stream into a TensorDataset"
        )
    if not size:
        raise BadData(f"{type(dataset).__name__} is empty: give a data set with at least one item")
    taken = size if limit is None else min(limit, size)
    positions = [step * size // taken for step in range(taken)]
    if type(dataset) is TensorDataset and len(dataset.tensors) == 2:
        index = torch.tensor(positions)
        inputs, labels = dataset.tensors[0][index], dataset.tensors[1][index]
        return inputs, labels.flatten() if labels.shape == (taken, 1) else labels
    return _gather(dataset, positions)


def _gather(dataset: Dataset[Any], positions: Sequence[int]) -> tuple[Tensor, Tensor]:
    inputs: Tensor | None = None
    labels = torch.empty(len(positions), dtype=torch.int64)
    for row, position in enumerate(positions):
        try:
            pair = dataset[position]
            x, y = pair
        except (TypeError, ValueError) as error:
            raise BadData(f"item {position} is not a readable pair (x, y): {error}") from error
        x = _as_tensor(x, position)
        if inputs is None:
            inputs = torch.empty((len(positions), *x.shape), dtype=x.dtype)
        if x.shape != inputs.shape[1:] or x.dtype != inputs.dtype:
            raise BadData(
                f"item {position} is {x.dtype} {list(x.shape)} but item {positions[0]} is {inputs.dtype} "
                f"{list(inputs.shape[1:])}: resize and convert in the data set's transform"
            )
        inputs[row] = x
        try:
            labels[row] = operator.index(y)
        except (TypeError, RuntimeError, OverflowError, ValueError):
            raise BadData(f"item {position} has the label {y!r:.40}: labels must be integer class indices") from None
    assert inputs is not None  # positions is never empty
    return inputs, labels


def _as_tensor(x: Any, position: int) -> Tensor:
    """One item as inputs are stored, channels first."""
    # A PIL image; not imported, because only users who have it need it.
    if hasattr(x, "convert") and hasattr(x, "mode"):
        x = _pixels(x, position)
    if isinstance(x, np.ndarray):
        if x.ndim == 2:
            x = x[None]
        elif x.ndim == 3 and x.shape[2] in _CHANNELS:
            x = x.transpose(2, 0, 1)
        try:
            x = torch.from_numpy(np.array(x))  # a copy: the array may be read-only
        except TypeError:
            raise BadData(f"item {position} is an array of {x.dtype}: convert it to {TYPES}") from None
    if not isinstance(x, Tensor):
        raise BadData(f"item {position} is a {type(x).__name__}: give a tensor, an ndarray or a PIL image")
    if not x.ndim or not x.numel():
        raise BadData(f"item {position} is a tensor of shape {list(x.shape)}: inputs need at least one dimension")
    pixels: Tensor = x.detach().cpu()
    if wrong := fault(pixels[None]):
        raise BadData(f"the values of item {position} {wrong}")
    return pixels.float() if pixels.is_floating_point() else pixels


def _pixels(image: Any, position: int) -> NDArray[Any]:
    """A PIL image ``[H, W]`` or ``[H, W, 3]``: uint8, or float32 where it holds more than 8 bits, which PIL would cut off."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.float32) / 65535
    if image.mode == "F":
        return np.asarray(image)
    if image.mode == "I":
        raise BadData(
            f"item {position} is a PIL image of mode I, whose 32-bit integers have no known range: divide them by the largest "
            "there can be, as in numpy.asarray(image) / 65535, which gives floats in [0, 1]"
        )
    try:
        return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except ValueError as error:
        raise BadData(
            f"item {position} is a PIL image of mode {image.mode} ({told(error)}): convert it to RGB"
        ) from error
