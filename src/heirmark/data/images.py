"""Folders of images by class, of any size, packed into arrays once.

``train/CLASS/*.png`` and the same under ``test/``; or ``CLASS/*.png`` alone, of which a share of every class is held out as the
test split. Beside them ``heirmark.toml`` may say ``size = [112, 92]`` (height, width) or ``size = 64``, and ``test = 0.2``.
"""

from __future__ import annotations

import hashlib
import tomllib
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heirmark.errors import BadConfig, BadData, DataNotFound, HeirmarkWarning, told
from heirmark.files import atomic_write_bytes
from heirmark.runtime import derive_seed, generator_of
from heirmark.tasks.mapped import write_array

PACKED = "packed"
"""Folder beside images where their arrays lie. It may be deleted; then images are packed again."""
OPTIONS = "heirmark.toml"
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".pgm")
PARTS = ("train", "test")
LEAST = 8
"""Images that a class must have where a share of them is held out: fewer leave none for the test, the owner, the adversary or
the calibration."""
_LARGEST_SIDE = 4096
_CHUNK = 64


@dataclass(frozen=True, kw_only=True)
class Options:
    """What ``heirmark.toml`` says of a folder of images.

    Attributes:
        size: height and width that images are brought to; None takes the one that most images have.
        test: share of every class that is held out as the test split, where the folder has no such part.
    """

    size: tuple[int, int] | None = None
    test: float = 0.2


def read_options(folder: Path) -> Options:
    """The options of a folder; the defaults where it has no file of them.

    Raises:
        BadConfig: when the file holds anything else.
    """
    path = folder / OPTIONS
    if not path.is_file():
        return Options()
    try:
        held = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadConfig(
            f"{path} cannot be read ({told(error)}): write size = [HEIGHT, WIDTH] and test = 0.2"
        ) from error
    for name in held.keys() - {"size", "test"}:
        raise BadConfig(f"{path} says {name!r}, which is no option of a folder of images: choose from size and test")
    size, test = held.get("size"), held.get("test", Options.test)
    sides: Any = [size, size] if _whole(size) else size
    if size is not None and not (isinstance(sides, list) and len(sides) == 2 and all(map(_whole, sides))):
        raise BadConfig(
            f"{path} says size = {size}: write [HEIGHT, WIDTH] or a side, from 1 to {_LARGEST_SIDE:,} pixels"
        )
    if isinstance(test, bool) or not isinstance(test, int | float) or not 0 < test < 1:
        raise BadConfig(f"{path} says test = {test}: write the share of images that is held out, above 0 and below 1")
    return Options(size=None if sides is None else (sides[0], sides[1]), test=float(test))


def _whole(side: object) -> bool:
    return isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= _LARGEST_SIDE


def pack_images(folder: Path) -> Path:
    """Write the images of a folder as arrays, unless that was done since they, or the options, last changed.

    Images become uint8 ``[N, C, H, W]``, grey where all are grey, class by class in the order of names. Those of another size are
    resized, by their shorter side, and cropped at the centre.

    Returns:
        The folder of arrays.

    Raises:
        DataNotFound: when there are no images.
        BadConfig: when ``heirmark.toml`` cannot be used.
        BadData: when an image cannot be read, or a class has too few to hold any out.
    """
    options = read_options(folder)
    found = {part: _images(folder / part) for part in PARTS}
    own = [] if any(found.values()) else _images(folder)
    if not own and not all(found.values()):
        raise DataNotFound(
            f"{folder} holds neither train/inputs.npy with labels.npy beside it, nor train/CLASS/*.png, and the same under test, "
            "nor CLASS/*.png: put them there, or name a data set or a function"
        )
    if own:
        found = dict(zip(PARTS, held_out(own, options.test), strict=True))
    names = sorted({path.parent.name for paths in found.values() for path in paths})
    facts = hashlib.sha256(repr(options).encode())
    for path in (path for paths in found.values() for path in paths):
        facts.update(f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}\n".encode())
    packed = folder / PACKED / facts.hexdigest()[:32]
    if (packed / "classes.txt").is_file():  # it is written last
        return packed
    looks = [_look(path) for paths in found.values() for path in paths]
    size = options.size or _usual({look[0] for look in looks}, Counter(look[0] for look in looks), folder)
    channels = 1 if all(grey for _, grey in looks) else 3
    for part, paths in found.items():
        whole = (len(paths), channels, *size)
        write_array(packed / part / "inputs.npy", whole, torch.uint8, _rows(paths, whole[1:]))
        labels = torch.tensor([names.index(path.parent.name) for path in paths])
        write_array(packed / part / "labels.npy", (len(paths),), torch.int64, [labels])
    atomic_write_bytes(packed / "classes.txt", "\n".join(names).encode() + b"\n")
    return packed


def held_out(paths: list[Path], share: float) -> tuple[list[Path], list[Path]]:
    """Images shared out into a training and a test part, class by class, always in the same way.

    Of every class at least one image goes into either part; which ones its name and their number decide, and no seed, so that the
    test split is a fact of the folder.

    Raises:
        BadData: when a class has fewer than :data:`LEAST` images.
    """
    by_class: dict[str, list[Path]] = {}
    for path in paths:
        by_class.setdefault(path.parent.name, []).append(path)
    train, test = [], []
    for name, own in by_class.items():
        if len(own) < LEAST:
            raise BadData(
                f"class {name!r} has {len(own)} images, and the test, the owner, the adversary and the calibration "
                f"each need some: give it {LEAST} at least, or take its folder away"
            )
        count = min(max(1, round(share * len(own))), len(own) - 1)
        order = torch.randperm(len(own), generator=generator_of(derive_seed(0, "held out", name)))
        chosen = {int(place) for place in order[:count]}
        test += [path for place, path in enumerate(own) if place in chosen]
        train += [path for place, path in enumerate(own) if place not in chosen]
    return train, test


def _usual(sizes: set[tuple[int, int]], counted: Counter[tuple[int, int]], folder: Path) -> tuple[int, int]:
    """The size that most images have, of equally many the smallest; told where there are several."""
    size = max(sorted(counted), key=lambda each: counted[each])
    if len(sizes) > 1:
        warnings.warn(
            f"images of {len(sizes)} sizes are resized and cropped to {size[0]}x{size[1]}, which {counted[size]} of "
            f"{counted.total()} have: write size = [HEIGHT, WIDTH] into {folder / OPTIONS} for another",
            HeirmarkWarning,
            stacklevel=3,
        )
    return size


def _images(folder: Path) -> list[Path]:
    """The images under the folder's classes, in order."""
    return sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _rows(paths: list[Path], shape: tuple[int, ...]) -> Iterator[Tensor]:
    """Images ``[n, C, H, W]``, some at a time."""
    for start in range(0, len(paths), _CHUNK):
        rows = torch.empty((len(paths[start : start + _CHUNK]), *shape), dtype=torch.uint8)
        for row, path in zip(rows, paths[start : start + _CHUNK], strict=True):
            image = torch.from_numpy(_read(path, (shape[1], shape[2])))
            row.copy_(image[None] if image.ndim == 2 else image.permute(2, 0, 1))  # a grey one has three like channels
        yield rows


@cache
def _pillow() -> Any:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise BadData("folders of images need Pillow: pip install pillow, or save arrays with numpy.save") from None
    return Image, ImageOps


def _look(path: Path) -> tuple[tuple[int, int], bool]:
    """Height and width of an image, and whether it is grey; of its header alone."""
    image, _ = _pillow()
    try:
        with image.open(path) as opened:
            return (opened.height, opened.width), opened.mode in ("1", "L")
    except Exception as error:  # whatever Pillow raises about a foreign file
        raise _unreadable(path, error) from error


def _read(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image of 8 bits in a size, ``[H, W]`` where it is grey, else ``[H, W, 3]``."""
    image, operations = _pillow()
    try:
        with image.open(path) as opened:
            deep = opened.mode.startswith(("I", "F"))
            plain = None if deep else opened.convert("L" if opened.mode in ("1", "L") else "RGB")
            if plain is not None and (plain.height, plain.width) != size:
                plain = operations.fit(plain, size[::-1], method=image.Resampling.LANCZOS)
            pixels = None if plain is None else np.array(plain)
    except Exception as error:  # whatever Pillow raises about a foreign file
        raise _unreadable(path, error) from error
    if pixels is None:
        raise BadData(f"{path} has more than 8 bits: save such images as float32 arrays in [0, 1] with numpy.save")
    return pixels


def _unreadable(path: Path, error: Exception) -> BadData:
    return BadData(f"{path} is no image that can be read ({told(error)}): replace or remove it")
