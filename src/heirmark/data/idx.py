"""MNIST and its drop-in successors: IDX files, plain or gzipped, as torchvision and Debian lay them out.

Format: LeCun, Cortes, Burges, "The MNIST database", section "file formats": big-endian magic ``00 00 08 <ndim>``, one
32-bit size per dimension, then unsigned bytes.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from io import BufferedIOBase
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from heirmark.data.root import find
from heirmark.errors import BadData
from heirmark.tasks.task import Split

MNIST_CLASSES = tuple("0123456789")
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""

_PARTS = ("train", "t10k")
# twice EMNIST ByClass, the largest relative of MNIST
_MOST_BYTES = 2**30


def read_mnist(root: Path) -> tuple[Split, Split]:
    """MNIST from ``<root>/MNIST/raw``: inputs ``[N, 1, 28, 28]`` uint8.

    Raises:
        DataNotFound: if a file is missing.
        BadData: if a file is truncated, foreign or damaged.
    """
    remedy = "download the four files of MNIST (yann.lecun.com/exdb/mnist or a mirror) into <data root>/MNIST/raw"
    return _read_family([root / "MNIST" / "raw"], remedy)


def read_fashion_mnist(root: Path) -> tuple[Split, Split]:
    """Fashion-MNIST from ``<root>/FashionMNIST/raw``, else from where Debian's dataset-fashion-mnist puts it.

    Returns:
        Training and test split, inputs ``[N, 1, 28, 28]`` uint8.

    Raises:
        DataNotFound: if a file is missing.
        BadData: if a file is truncated, foreign or damaged.
    """
    remedy = (
        "run apt-get install dataset-fashion-mnist, or download the four files from "
        "github.com/zalandoresearch/fashion-mnist into <data root>/FashionMNIST/raw"
    )
    return _read_family([root / "FashionMNIST" / "raw", DEBIAN_FASHION], remedy)


def _read_family(folders: list[Path], remedy: str) -> tuple[Split, Split]:
    # once a folder has one of the files it must have them all: releases are not mixed
    present = [folder for folder in folders if any(path.is_file() for path in _candidates([folder], *_PARTS))]
    train, test = (_read_pair(present[:1] or folders, part, remedy) for part in _PARTS)
    return train, test


def _candidates(
    folders: list[Path], *parts: str, kinds: tuple[str, ...] = ("images-idx3", "labels-idx1")
) -> list[Path]:
    names = [f"{part}-{kind}-ubyte{end}" for part in parts for kind in kinds for end in ("", ".gz")]
    return [folder / name for folder in folders for name in names]


def _read_pair(folders: list[Path], part: str, remedy: str) -> Split:
    images_path, labels_path = (
        find(_candidates(folders, part, kinds=(kind,)), remedy=remedy) for kind in ("images-idx3", "labels-idx1")
    )
    images, labels = read_idx(images_path, dims=3), read_idx(labels_path, dims=1)
    if len(images) != len(labels):
        raise BadData(
            f"{images_path} holds {len(images)} images but {labels_path} {len(labels)} labels: "
            "put the files of one official release there"
        )
    if not len(images):
        raise BadData(f"{images_path} holds no images: put the official file there")
    return Split(inputs=images[:, None], labels=labels)


def read_idx(path: Path, *, dims: int) -> Tensor:
    """Read one IDX file of unsigned bytes.

    No more is ever decompressed than the header announces, and the header is bounded first.

    Args:
        path: the file, gzipped if its name ends in ``.gz``.
        dims: number of dimensions it must have.

    Returns:
        uint8 tensor of ``dims`` dimensions.

    Raises:
        BadData: for a wrong magic number, unreasonable sizes, too few or too many bytes, or a damaged gzip stream.
    """
    if not path.is_file():  # a pipe would be waited for without end
        raise BadData(f"{path} is missing or not a regular file: put the official file there")
    try:
        with path.open("rb") as plain:
            if path.suffix != ".gz":
                return _parse(plain, path, dims)
            with gzip.open(plain) as unzipped:
                return _parse(unzipped, path, dims)
    except (OSError, EOFError, zlib.error) as error:
        raise BadData(f"{path} cannot be read ({error}): put the official file there") from error


def _parse(file: BufferedIOBase, path: Path, dims: int) -> Tensor:
    header = file.read(4 + 4 * dims)
    if header[:4] != bytes((0, 0, 8, dims)):
        raise BadData(f"{path} is not an IDX file of bytes in {dims} dimensions: put the official file there")
    if len(header) < 4 + 4 * dims:
        raise BadData(f"{path} ends within its header: put the official file there")
    shape = struct.unpack(f">{dims}I", header[4:])
    announced = math.prod(shape)
    if announced > _MOST_BYTES:
        raise BadData(f"{path} announces the sizes {shape}, more than this family has: put the official file there")
    content = bytearray(file.read(announced))
    if len(content) < announced:
        raise BadData(f"{path} is truncated ({len(content):,} of {announced:,} bytes): put the official file there")
    if file.read(1):
        raise BadData(f"{path} is longer than its header says: put the official file there")
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8)).view(*shape)
