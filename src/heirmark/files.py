"""Files: written whole or not at all, read within bounds, never unpickled. Whatever is read is untrusted."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from heirmark.errors import BadArtifact

if TYPE_CHECKING:  # torch takes seconds to import, and JSON needs none of it
    from torch import Tensor

MIB = 2**20
GIB = 2**30

# A header holds names, dtypes and shapes only; even a very deep network needs well under a megabyte.
_MAX_HEADER = 8 * MIB
_DEEPEST = 100
"""Levels of nesting in JSON; what heirmark writes has a dozen."""


@contextmanager
def atomic_file(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Open a file for writing so that a crash leaves the old content or the new, never a part.

    The bytes go to a sibling, are flushed to the disk, and take the final name in one step when the block ends well. Missing
    parent folders are made.

    Args:
        path: the file to write.
        private: readable by the owner only (a key, say); otherwise the process's usual permissions.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # secrets, not tempfile: a temporary file of tempfile's is always private, and os.replace would keep that.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def atomic_write_bytes(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write a whole file; see :func:`atomic_file`.

    Args:
        path: the file to write.
        data: its whole content.
        private: readable by the owner only.
    """
    with atomic_file(path, private=private) as file:
        file.write(data)


def atomic_write_json(path: Path, value: object, *, private: bool = False) -> None:
    """Write JSON (ASCII, sorted keys, indented, no NaN or infinity) as :func:`atomic_write_bytes` does.

    Args:
        path: the file to write.
        value: anything :mod:`json` can write.
        private: readable by the owner only.

    Raises:
        ValueError: if a number is NaN or infinite.
        TypeError: if something in it is not JSON.
    """
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
    atomic_write_bytes(path, text.encode() + b"\n", private=private)


def atomic_write_tensors(path: Path, tensors: Mapping[str, Tensor], *, private: bool = False) -> None:
    """Write tensors as one safetensors file, atomically. The same tensors give the same bytes.

    Args:
        path: the file to write.
        tensors: any devices and layouts; views and tied tensors are written out as copies of their own.
        private: readable by the owner only.
    """
    import torch
    from safetensors.torch import save

    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    atomic_write_bytes(path, save(plain), private=private)


def read_bytes(path: Path, *, max_bytes: int, begins: bytes = b"") -> bytes:
    """Read a regular file of bounded size.

    Args:
        path: the file.
        max_bytes: refuse anything larger, before it is read.
        begins: with which a file begins that is not empty, looked at before the rest is read: a file of gigabytes of zeros takes
            no room on a disk, and all of it in memory.

    Raises:
        BadArtifact: if it is missing, no regular file, unreadable, too large or begins otherwise.
    """
    try:
        # A pipe or a device named by a stranger could block or never end, so look before opening.
        if not path.is_file():
            raise BadArtifact(f"{path} is missing or not a regular file: check the path")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size and file.peek(len(begins))[: len(begins)] != begins:
                raise BadArtifact(f"{path} is another kind of file, or damaged: copy it again from where it was made")
            # By its size, since as much is allocated as is asked for; one byte more shows a file that has grown.
            data = file.read(size + 1) if size <= max_bytes else b""
    except OSError as error:
        raise BadArtifact(
            f"{path} cannot be read ({error.strerror or error}): check the path and its permissions"
        ) from None
    if max(size, len(data)) > max_bytes:
        raise BadArtifact(
            f"{path} is larger than the {max_bytes:,} bytes allowed: pass a larger max_bytes if you trust it"
        )
    return data


def read_json(path: Path, *, max_bytes: int = 16 * MIB) -> Any:
    """Read a bounded JSON file; NaN, infinity and repeated keys are refused.

    Args:
        path: the file.
        max_bytes: refuse anything larger.

    Raises:
        BadArtifact: if it is missing, too large or not strict JSON.
    """
    return parse_json(read_bytes(path, max_bytes=max_bytes), source=str(path))


def parse_json(data: str | bytes, *, source: str) -> Any:
    """Parse strict JSON: no NaN or infinity, no repeated keys, no bottomless nesting.

    Args:
        data: the text.
        source: what to call it in an error.

    Raises:
        BadArtifact: if it is anything else.
    """
    try:
        text = data.decode() if isinstance(data, bytes) else data
        value = json.loads(text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_unique_keys)
        if _is_deep(value):  # whoever goes through it would run out of stack
            raise ValueError
        return value
    except (ValueError, RecursionError):
        raise BadArtifact(
            f"{source} is not valid JSON: it is truncated or not a heirmark file; write it again"
        ) from None


def read_tensors(path: Path, *, max_bytes: int = GIB, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """Read a bounded safetensors file. No code in it can run: the format holds names, shapes and numbers only.

    Args:
        path: the file.
        max_bytes: refuse anything larger.
        names: when given, the file must hold exactly these tensors.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        BadArtifact: if it is missing, too large, truncated, malformed, or holds other tensors than ``names``.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not _has_header(path):  # before gigabytes are read, of which a file of zeros takes none on the disk
        raise BadArtifact(f"{path} is not a safetensors file or is truncated: copy it again from where it was made")
    data = read_bytes(path, max_bytes=max_bytes)
    try:
        tensors = load(data)
    except (SafetensorError, AssertionError, KeyError, OverflowError, RuntimeError, TypeError, ValueError):
        raise BadArtifact(f"{path} is a damaged safetensors file: copy it again from where it was made") from None
    if names is not None and set(tensors) != set(names):
        raise BadArtifact(
            f"{path} does not hold exactly the tensors {', '.join(sorted(names))}: it is another kind of file"
        )
    return tensors


def _has_header(path: Path) -> bool:
    """Whether a file begins as a safetensors file of its size does; what cannot be read, or is no file, is told elsewhere."""
    try:
        if not path.is_file():
            return True
        with path.open("rb") as file:
            begins, size = file.read(9), os.fstat(file.fileno()).st_size
    except OSError:
        return True
    header = int.from_bytes(begins[:8], "little")
    return len(begins) == 9 and header <= min(size - 8, _MAX_HEADER) and begins[8:] == b"{"


def _finite(text: str) -> float:
    number = float(text)  # 1e999 parses as infinity, and Python's reader takes NaN and Infinity by name
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("repeated key")
    return value


def _is_deep(value: Any) -> bool:
    """Whether lists and objects are nested deeper than :data:`_DEEPEST`."""
    level = [value]
    for _ in range(_DEEPEST):
        within = [part for part in level if isinstance(part, dict | list)]
        level = [item for part in within for item in (part.values() if isinstance(part, dict) else part)]
        if not level:
            return False
    return True


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system allows a folder to be flushed."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
