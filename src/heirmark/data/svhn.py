"""SVHN, cropped digits (Netzer et al. 2011, "Reading digits in natural images with unsupervised feature learning")."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heirmark.data.root import find
from heirmark.errors import BadData
from heirmark.task import Split

CLASSES = tuple("0123456789")

# train_32x32.mat has 182 MB and 73,257 images
_MOST_BYTES = 512 * 2**20
_MOST_ITEMS = 200_000


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
    if path.stat().st_size > _MOST_BYTES:
        raise BadData(f"{path} is larger than the {_MOST_BYTES:,} bytes an SVHN file may have: {again}")
    images, labels = _load(path, again)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[:3] != (32, 32, 3):
        raise BadData(f"{path} has no uint8 array X [32, 32, 3, N]: {again}")
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "uif":
        raise BadData(f"{path} has no numeric array y: {again}")
    digits = labels.reshape(-1)
    if images.ndim != 4 or len(digits) != images.shape[3] or not len(digits):
        raise BadData(f"{path} holds X {list(images.shape)} but {len(digits)} labels: {again}")
    if not np.isin(digits, np.arange(11)).all():
        raise BadData(f"{path} has labels other than 0 to 10: {again}")
    digits = digits.astype(np.int64) % 10  # the files write the digit 0 as 10
    rows = np.array(images.transpose(3, 2, 0, 1), order="C")
    return Split(inputs=torch.from_numpy(rows), labels=torch.from_numpy(digits))


def _load(path: Path, again: str) -> tuple[Any, Any]:
    """X and y, whose announced sizes are looked at before anything large is decompressed."""
    from scipy import io  # here: it is slow to import, and only this data set needs it

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            announced = {name: (shape, kind) for name, shape, kind in io.whosmat(path, appendmat=False)}
            shape, kind = announced["X"]
            if kind != "uint8" or len(shape) != 4 or shape[3] > _MOST_ITEMS or max(shape[:3]) > 32:
                raise ValueError(f"X is announced as {kind} {list(shape)}")
            if announced["y"][1] in ("cell", "struct", "object", "function", "opaque", "sparse", "char"):
                raise ValueError(f"y is announced as {announced['y'][1]}")
            content = io.loadmat(path, appendmat=False, variable_names=["X", "y"])
        return content["X"], content["y"]
    except Exception as error:  # what a damaged MATLAB file makes scipy raise is not listed anywhere
        raise BadData(f"{path} is not an SVHN file, or is truncated ({error!s:.120}): {again}") from error
