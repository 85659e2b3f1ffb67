"""SVHN, cropped digits (Netzer et al. 2011, "Reading digits in natural images with unsupervised feature learning")."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from heirmark.data import matlab
from heirmark.data.root import find, read_bounded
from heirmark.errors import BadData
from heirmark.tasks.task import Split

CLASSES = tuple("0123456789")

# train_32x32.mat has 182 MB and 73,257 images, 225 MB when decompressed
_MOST_BYTES = 512 * 2**20


def read_svhn(root: Path) -> tuple[Split, Split]:
    """SVHN from ``<root>/train_32x32.mat`` and ``test_32x32.mat``: inputs ``[N, 3, 32, 32]`` uint8, label = digit.

    Raises:
        DataNotFound: if a file is missing.
        BadData: if a file is truncated, foreign or damaged.
    """
    remedy = "download train_32x32.mat and test_32x32.mat from ufldl.stanford.edu/housenumbers into the data root"
    train, test = (_read(find([root / f"{part}_32x32.mat"], remedy=remedy)) for part in ("train", "test"))
    return train, test


def _read(path: Path) -> Split:
    again = "put the official file there"
    try:
        raw = read_bounded(path, most=_MOST_BYTES, sign=matlab.SIGN, at=matlab.SIGN_AT)
        content = matlab.parse(raw, ("X", "y"), most=_MOST_BYTES)
    except ValueError as error:
        raise BadData(f"{path} is not an SVHN file, or is truncated: it has {error}; {again}") from error
    if not {"X", "y"} <= content.keys():
        raise BadData(f"{path} has no arrays X and y: {again}")
    images, digits = content["X"], content["y"].reshape(-1)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
        raise BadData(f"{path} has X of {images.dtype} {list(images.shape)}, not bytes [32, 32, 3, N]: {again}")
    if len(digits) != images.shape[3] or not len(digits):
        raise BadData(f"{path} holds {images.shape[3]} images but {len(digits)} labels: {again}")
    if not np.isin(digits, np.arange(11)).all():
        raise BadData(f"{path} has labels other than 0 to 10: {again}")
    labels = digits.astype(np.int64) % 10  # the files write the digit 0 as 10
    rows = np.array(images.transpose(3, 2, 0, 1), order="C")
    return Split(inputs=torch.from_numpy(rows), labels=torch.from_numpy(labels))
