"""Where data sets lie on disk, and errors that say where they were looked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from heirmark.errors import BadData, DataNotFound

VARIABLE = "HEIRMARK_DATA"


def data_root(root: Path | str | None = None) -> Path:
    """The folder of data sets: the argument, else the environment variable ``HEIRMARK_DATA``, else ``./data``."""
    if root is not None:
        return Path(root)
    return Path(os.environ.get(VARIABLE) or "data")


def find(candidates: Sequence[Path], *, remedy: str) -> Path:
    """The first candidate that is a file.

    Args:
        candidates: paths in order of preference.
        remedy: how to get the data set, appended to the error.

    Raises:
        DataNotFound: if none is a file.
    """
    for path in candidates:
        if path.is_file():
            return path
    looked = ", ".join(str(path) for path in candidates)
    raise DataNotFound(
        f"there is no {looked}: {remedy}; the data root is what you give as root, else the environment variable "
        f"{VARIABLE} (now {os.environ.get(VARIABLE) or 'not set'}), else ./data"
    )


_HEAD = 1024


def read_bounded(path: Path, *, most: int, sign: bytes, at: int = 0) -> bytes:
    """Read a whole file that may not be larger than expected.

    Args:
        path: the file.
        most: bytes that it may have.
        sign: bytes by which its format is known. Of a file that has others its first ones alone are read, for its parser to
            refuse: gigabytes of zeros take no room on a disk.
        at: their place.

    Raises:
        BadData: if the file is larger than ``most`` bytes or cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.peek(_HEAD)[:_HEAD]
            content = file.read(most + 1) if head[at : at + len(sign)] == sign else head
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror or error}") from error
    if len(content) > most:
        raise BadData(f"{path} is larger than the {most:,} bytes its format allows: put the official file there")
    return content
