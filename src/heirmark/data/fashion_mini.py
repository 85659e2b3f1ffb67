"""Fashion-MNIST in miniature, shipped inside the package: 20,000 training and 2,000 test images, balanced.

The images are real Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747; MIT licence, see the file beside them),
taken by ``scripts/make_fashion_mini.py``. One xz stream holds, in this order: training labels, test labels, training
images, test images, each as plain bytes. Plain LZMA over whole images sorted by class is smaller here than any of the
row predictors of PNG in front of it.
"""

from __future__ import annotations

import hashlib
import lzma
from importlib import resources

import numpy as np
import torch

from heirmark.errors import BadData
from heirmark.tasks.task import Split

FILE = "fashion-mini.xz"
SHA256 = "b16300dd32f69492f7986d368e2e85c00918afd8b5f0d40c0c8557fd82f01983"
TRAIN = 20_000
TEST = 2_000
SIDE = 28


def read_fashion_mini() -> tuple[Split, Split]:
    """Training split ``[20000, 1, 28, 28]`` uint8 and test split ``[2000, 1, 28, 28]``, both sorted by class.

    Raises:
        BadData: if the file inside the installed package is missing or not the one that was shipped.
    """
    try:
        packed = resources.files("heirmark.data").joinpath("embedded", FILE).read_bytes()
    except OSError as error:
        raise BadData(f"the embedded {FILE} cannot be read ({error}): install heirmark again") from error
    return decode(packed)


def decode(packed: bytes) -> tuple[Split, Split]:
    """Check and decode the bytes of the embedded file.

    Raises:
        BadData: if they are not the bytes that were shipped.
    """
    if hashlib.sha256(packed).hexdigest() != SHA256:
        raise BadData(f"the embedded {FILE} is damaged (its SHA-256 is not the expected one): install heirmark again")
    plain = torch.from_numpy(np.frombuffer(bytearray(lzma.decompress(packed)), dtype=np.uint8))
    labels, images = plain[: TRAIN + TEST], plain[TRAIN + TEST :].view(-1, 1, SIDE, SIDE)
    return (
        Split(inputs=images[:TRAIN], labels=labels[:TRAIN]),
        Split(inputs=images[TRAIN:], labels=labels[TRAIN:]),
    )


def encode(train_images: bytes, train_labels: bytes, test_images: bytes, test_labels: bytes) -> bytes:
    """Pack what :func:`decode` reads; ``scripts/make_fashion_mini.py`` is the only caller."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 32 << 20}]
    plain = train_labels + test_labels + train_images + test_images
    return lzma.compress(plain, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=filters)
