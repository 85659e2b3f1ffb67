"""Folders of a user's own: arrays that are mapped, or images, which are packed into such arrays once.

Of arrays: ``train/inputs.npy``, ``train/labels.npy``, the same under ``test/``, and ``classes.txt`` with a name a line where
classes have names. Of images: ``train/CLASS/*.png``, and the same under ``test/``. Neither has to fit into memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from heirmark.errors import BadData, DataNotFound, told
from heirmark.files import atomic_write_bytes
from heirmark.tasks.mapped import UNREADABLE, write_array
from heirmark.tasks.task import Split

PACKED = "packed"
"""Folder beside images where their arrays lie. It may be deleted; then images are packed again."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_PARTS = ("train", "test")
_LARGEST_TEXT = 2**24
_CHUNK = 64


def read_folder(folder: Path) -> tuple[Split, Split, tuple[str, ...]]:
    """The training split, the test split and the names of the classes; inputs are mapped.

    Raises:
        DataNotFound: when the folder holds neither arrays nor images.
        BadData: when what it holds cannot be used.
    """
    if not (folder / "train" / "inputs.npy").is_file():
        folder = pack_images(folder)
    train, test = (_read_part(folder / part) for part in _PARTS)
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


def pack_images(folder: Path) -> Path:
    """Write the images of a folder as arrays, unless that was done since they last changed.

    Images become uint8 ``[N, C, H, W]``, grey where all are grey, class by class in the order of names.

    Returns:
        The folder of arrays.

    Raises:
        DataNotFound: when there are no images.
        BadData: when one cannot be read, or they differ in size.
    """
    found = {part: _images(folder / part) for part in _PARTS}
    if not all(found.values()):
        raise DataNotFound(
            f"{folder} holds neither train/inputs.npy with labels.npy beside it nor train/CLASS/*.png, and the same under test: "
            "put them there, or name a data set or a function"
        )
    names = sorted({path.parent.name for paths in found.values() for path in paths})
    facts = hashlib.sha256()
    for path in (path for paths in found.values() for path in paths):
        facts.update(f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}\n".encode())
    packed = folder / PACKED / facts.hexdigest()[:32]
    if (packed / "classes.txt").is_file():  # it is written last
        return packed
    grey = _read(found["train"][0]).ndim == 2
    for part, paths in found.items():
        shape = _read(paths[0]).shape[:2]
        whole = (len(paths), 1 if grey else 3, *shape)
        write_array(packed / part / "inputs.npy", whole, torch.uint8, _rows(paths, whole[1:]))
        labels = torch.tensor([names.index(path.parent.name) for path in paths])
        write_array(packed / part / "labels.npy", (len(paths),), torch.int64, [labels])
    atomic_write_bytes(packed / "classes.txt", "\n".join(names).encode() + b"\n")
    return packed


def _images(folder: Path) -> list[Path]:
    """The images under the folder's classes, in order."""
    return sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _rows(paths: list[Path], shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Images ``[n, C, H, W]``, some at a time."""
    for start in range(0, len(paths), _CHUNK):
        rows = torch.empty((len(paths[start : start + _CHUNK]), *shape), dtype=torch.uint8)
        for row, path in zip(rows, paths[start : start + _CHUNK], strict=True):
            image = _read(path)
            image = image[None] if image.ndim == 2 else image.permute(2, 0, 1)
            if image.shape[1:] != row.shape[1:] or len(image) > len(row):
                raise BadData(
                    f"{path} is {list(image.shape)} and others are {list(shape)}: bring all images to one size, and all or none "
                    "to grey"
                )
            row.copy_(image)  # a grey one among colours has three like channels
        yield rows


def _read(path: Path) -> Tensor:
    """An image of 8 bits, ``[H, W]`` where it is grey, else ``[H, W, 3]``."""
    try:
        from PIL import Image
    except ImportError:
        raise BadData("folders of images need Pillow: pip install pillow, or save arrays with numpy.save") from None
    try:
        with Image.open(path) as image:
            deep = image.mode.startswith(("I", "F"))
            plain = None if deep else np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except Exception as error:  # whatever Pillow raises about a foreign file
        raise BadData(f"{path} is no image that can be read ({told(error)}): replace or remove it") from error
    if plain is None:
        raise BadData(f"{path} has more than 8 bits: save such images as float32 arrays in [0, 1] with numpy.save")
    return torch.from_numpy(plain)
