"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009, "Learning multiple layers of features from tiny images"), "python version".

The published files are pickles; :mod:`heirmark.data.pickles` reads them without unpickling.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from heirmark.data import pickles
from heirmark.data.root import find, read_bounded
from heirmark.errors import BadData
from heirmark.tasks.task import Split

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR100_CLASSES = tuple(_CIFAR100.split())

_SHAPE = (3, 32, 32)
# the largest official file is CIFAR-100's train, 155 MB
_MOST_BYTES = 256 * 2**20


def read_cifar10(root: Path) -> tuple[Split, Split]:
    """CIFAR-10 from ``<root>/cifar-10-batches-py``: inputs ``[N, 3, 32, 32]`` uint8.

    Raises:
        DataNotFound: if a file is missing.
        BadData: if a file is truncated, or holds anything that the official files do not.
    """
    folder = root / "cifar-10-batches-py"
    remedy = "download cifar-10-python.tar.gz from www.cs.toronto.edu/~kriz/cifar.html and unpack it in the data root"
    batches = [_read(folder / f"data_batch_{number}", "labels", remedy) for number in range(1, 6)]
    test = _read(folder / "test_batch", "labels", remedy)
    train = Split(
        inputs=torch.cat([batch.inputs for batch in batches]), labels=torch.cat([batch.labels for batch in batches])
    )
    return train, test


def read_cifar100(root: Path) -> tuple[Split, Split]:
    """CIFAR-100 with its 100 fine labels from ``<root>/cifar-100-python``: inputs ``[N, 3, 32, 32]`` uint8.

    Raises:
        DataNotFound: if a file is missing.
        BadData: if a file is truncated, or holds anything that the official files do not.
    """
    folder = root / "cifar-100-python"
    remedy = "download cifar-100-python.tar.gz from www.cs.toronto.edu/~kriz/cifar.html and unpack it in the data root"
    train, test = (_read(folder / part, "fine_labels", remedy) for part in ("train", "test"))
    return train, test


def _read(path: Path, labels_key: str, remedy: str) -> Split:
    again = "put the official file there"
    raw = read_bounded(find([path], remedy=remedy), most=_MOST_BYTES, sign=pickles.SIGN)
    try:
        content = pickles.parse(raw)
    except ValueError as error:
        raise BadData(f"{path} is not a CIFAR file, or is truncated: it has {error}; {again}") from error
    data, labels = content.get("data"), content.get(labels_key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3072,):
        raise BadData(f"{path} has no 'data' of N rows of 3072 bytes: {again}")
    if isinstance(labels, np.ndarray):
        labels = labels.tolist()
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 100 for label in labels):
        raise BadData(f"{path} has no list {labels_key!r} of class indices: {again}")
    if len(labels) != len(data) or not labels:
        raise BadData(f"{path} holds {len(data)} images but {len(labels)} labels: {again}")
    images = torch.from_numpy(np.array(data)).view(-1, *_SHAPE)  # np.array copies: the parsed array is read-only
    return Split(inputs=images, labels=torch.tensor(labels))
