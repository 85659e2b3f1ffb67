"""Folders of a user's own: arrays that are mapped, or images, which are packed into such arrays once.

Of arrays: ``train/inputs.npy``, ``train/labels.npy``, the same under ``test/``, and ``classes.txt`` with a name a line where
classes have names. Of images: see :mod:`heirmark.data.images`. Neither has to fit into memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from heirmark.data.images import PARTS, pack_images
from heirmark.errors import BadData, told
from heirmark.tasks.mapped import UNREADABLE
from heirmark.tasks.task import Split

_LARGEST_TEXT = 2**24


def read_folder(folder: Path) -> tuple[Split, Split, tuple[str, ...]]:
    """The training split, the test split and the names of the classes; inputs are mapped.

    Raises:
        DataNotFound: when the folder holds neither arrays nor images.
        BadData: when what it holds cannot be used.
    """
    if not (folder / "train" / "inputs.npy").is_file():
        folder = pack_images(folder)
    train, test = (_read_part(folder / part) for part in PARTS)
    return train, test, _classes(folder, 1 + max(int(split.labels.max()) for split in (train, test)))


def _read_part(folder: Path) -> Split:
    path = folder / "labels.npy"
    try:
        with path.open("rb") as file:
            labels = torch.from_numpy(np.lib.format.read_array(file, allow_pickle=False))
    except UNREADABLE as error:
        raise BadData(f"{path} cannot be read ({told(error)}): save integer labels [N] with numpy.save") from error
    return Split.from_file(folder / "inputs.npy", labels)


def _classes(folder: Path, count: int) -> tuple[str, ...]:
    path = folder / "classes.txt"
    if not path.is_file():
        return tuple(map(str, range(max(count, 2))))
    if path.stat().st_size > _LARGEST_TEXT:
        raise BadData(f"{path} is larger than {_LARGEST_TEXT:,} bytes: write one class name a line")
    try:
        return tuple(path.read_text("utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path} cannot be read ({told(error)}): write one class name a line, in UTF-8") from error
