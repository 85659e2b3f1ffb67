"""Arrays larger than memory: ``.npy`` files that are mapped, of which only what is looked at is read, and may be forgotten."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from pathlib import Path
from tokenize import TokenError

import numpy as np
import torch
from torch import Tensor

from heirmark.errors import BadData, told
from heirmark.files import MIB, atomic_file
from heirmark.tasks.storing import TYPES

COPIED = 32 * MIB
"""Rows of a mapped array that take no more than this are copied into memory; more of them become a file of their own."""
PARTS = "parts"
"""Folder beside a mapped array where such files lie. It may be deleted at any time when nobody works with them."""
_CHUNK = 8 * MIB
_DTYPES = (np.uint8, np.int16, np.int32, np.float32)
UNREADABLE = (OSError, ValueError, TypeError, EOFError, OverflowError, SyntaxError, TokenError, MemoryError)
"""What ``numpy.lib.format`` raises of a file that is damaged or something else."""


def open_array(path: Path) -> Tensor:
    """Map an array of inputs. The tensor is for reading: to write to it ends the process.

    Args:
        path: an ``.npy`` file of ``[N, ...]`` uint8, int16, int32 or float32 in C order. Nothing in it is ever run.

    Raises:
        BadData: when it is missing, truncated, or anything else.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except UNREADABLE as error:
        raise BadData(f"{path} cannot be mapped ({told(error)}): save it anew with numpy.save") from error
    if not (array.dtype in _DTYPES and array.ndim >= 2 and array.size and array.flags.c_contiguous):
        raise BadData(
            f"{path} is an array of {array.dtype} {list(array.shape)}: save inputs [N, ...] in C order, converted to "
            f"{TYPES}"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")  # which is what it is to be
        return torch.from_numpy(array)


def write_array(path: Path, shape: tuple[int, ...], dtype: torch.dtype, parts: Iterable[Tensor]) -> None:
    """Write an ``.npy`` file of a shape ``(N, ...)``, whole or not at all, from parts ``[n, ...]`` of N rows together.

    Raises:
        BadData: when it cannot be written.
    """
    numpy_dtype = torch.empty(0, dtype=dtype).numpy().dtype
    header = {"descr": np.lib.format.dtype_to_descr(numpy_dtype), "fortran_order": False, "shape": shape}
    try:
        with atomic_file(path) as file:
            np.lib.format.write_array_header_1_0(file, header)
            rows = 0
            for part in parts:
                file.write(part.contiguous().numpy().data)
                rows += len(part)
            assert rows == shape[0], "as many rows as were announced"
    except OSError as error:
        raise BadData(
            f"{path} cannot be written ({error.strerror or error}), where large data are kept: "
            "make room and the folder writable, or copy the data to where it is"
        ) from error


def gathered(array: Tensor, index: Tensor, source: Path) -> tuple[Tensor, Path | None]:
    """Rows of a mapped array: copied into memory where they are few, else mapped from a file of their own, written once.

    Returns:
        The rows at ``[M]`` int64 positions, and the file that they are mapped from; None where they are in memory.

    Raises:
        BadData: when the file cannot be written.
    """
    row = array[0].numel() * array.element_size()
    if len(index) * row <= COPIED:
        return array[index], None
    facts = source.stat()
    name = hashlib.sha256(f"{source.name} {facts.st_size} {facts.st_mtime_ns}".encode())
    name.update(index.contiguous().numpy().data)
    folder = source.parent if source.parent.name == PARTS else source.parent / PARTS
    path = folder / f"{name.hexdigest()[:32]}.npy"
    if not path.exists():
        chunks = index.split(max(1, _CHUNK // row))  # type: ignore[no-untyped-call]
        write_array(path, (len(index), *array.shape[1:]), array.dtype, (array[chunk] for chunk in chunks))
    part = open_array(path)
    if part.shape != (len(index), *array.shape[1:]) or part.dtype != array.dtype:
        raise BadData(f"{path} is not what was written there: delete the folder {folder}")
    return part, path
