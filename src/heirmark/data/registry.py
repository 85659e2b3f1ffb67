"""The data sets by name, or by the folder that they lie in."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from heirmark.data.chirps import CLASSES as CHIRPS
from heirmark.data.chirps import chirps_medium, read_chirps
from heirmark.data.cifar import CIFAR10_CLASSES, CIFAR100_CLASSES, read_cifar10, read_cifar100
from heirmark.data.fashion_mini import read_fashion_mini
from heirmark.data.folders import read_folder
from heirmark.data.idx import FASHION_CLASSES, MNIST_CLASSES, read_fashion_mnist, read_mnist
from heirmark.data.root import data_root
from heirmark.data.sounds import (
    ALL_WORDS,
    OTHER_WORDS,
    RATE,
    WORDS,
    has_sounds,
    rate_of,
    read_sounds,
    read_speech_commands,
)
from heirmark.data.svhn import CLASSES as SVHN_CLASSES
from heirmark.data.svhn import read_svhn
from heirmark.errors import BadConfig
from heirmark.tasks.media import Medium, Sound
from heirmark.tasks.splitting import make_task
from heirmark.tasks.task import Protocol, Split, Task


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A named data set.

    Attributes:
        classes: class names, by label.
        read: given the data root, its training and test split.
        medium: given the data root, how its inputs are shown, where they are sound or text.
    """

    classes: tuple[str, ...]
    read: Callable[[Path], tuple[Split, Split]]
    medium: Callable[[Path], Medium] | None = None


def _speech_commands(words: tuple[str, ...]) -> DataSet:
    """Some words of Speech Commands."""
    return DataSet(
        classes=words, read=lambda root: read_speech_commands(root, words), medium=lambda root: Sound(rate=RATE)
    )


DATASETS: dict[str, DataSet] = {
    "fashion-mini": DataSet(
        classes=FASHION_CLASSES, read=lambda root: read_fashion_mini()
    ),  # 22,000, shipped with heirmark
    "fashion-mnist": DataSet(classes=FASHION_CLASSES, read=read_fashion_mnist),  # 70,000 grey 28x28 images of clothes
    "mnist": DataSet(classes=MNIST_CLASSES, read=read_mnist),  # 70,000 grey 28x28 handwritten digits
    "cifar10": DataSet(classes=CIFAR10_CLASSES, read=read_cifar10),  # 60,000 colour 32x32 photographs
    "cifar100": DataSet(classes=CIFAR100_CLASSES, read=read_cifar100),  # 60,000 colour 32x32 photographs
    "svhn": DataSet(classes=SVHN_CLASSES, read=read_svhn),  # 99,289 colour 32x32 digits of house numbers
    "chirps": DataSet(
        classes=CHIRPS, read=lambda root: read_chirps(), medium=lambda root: chirps_medium()
    ),  # 7,000 made-up sounds of half a second, drawn from a seed
    "speech-commands": _speech_commands(WORDS),  # 38,546 spoken words of a second at 16 kHz, ten commands
    "speech-commands-35": _speech_commands(ALL_WORDS),  # all 105,829, of 35 words
    "speech-commands-other": _speech_commands(OTHER_WORDS),  # the other 25 words
}


def is_folder(name: str) -> bool:
    """Whether data are named by the folder that they lie in: its name has a slash."""
    return "/" in name or os.sep in name


def load_images(name: str, *, root: Path | str | None = None) -> tuple[Split, Split, tuple[str, ...]]:
    """Read a data set as it was published.

    Args:
        name: a key of :data:`DATASETS`, or a folder of yours with a slash in its name; see :mod:`heirmark.data.folders` and
            :mod:`heirmark.data.sounds`.
        root: folder of data sets; default: environment variable ``HEIRMARK_DATA``, else ``./data``.

    Returns:
        Training split, test split (images ``[N, C, H, W]`` uint8, sounds ``[N, 1, T]`` int16; those of a folder as it has them,
        mapped) and class names.

    Raises:
        BadConfig: for an unknown name.
        DataNotFound: if a file of it is missing; the message says where it was looked for and how to get it.
        BadData: if a file is truncated, foreign or damaged.
    """
    if is_folder(name):
        folder = Path(name).expanduser()
        return read_sounds(folder) if has_sounds(folder) else read_folder(folder)
    if name not in DATASETS:
        raise BadConfig(
            f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}, or name a folder with a slash, as ./{name}"
        )
    chosen = DATASETS[name]
    train, test = chosen.read(data_root(root))
    return train, test, chosen.classes


def load_task(
    name: str,
    *,
    seed: int = 0,
    root: Path | str | None = None,
    foreign: str | None = None,
    protocol: Protocol = "disjoint",
    owner: float | None = None,
    adversary: float | None = None,
    calibration: float | None = None,
) -> Task:
    """Make the task of a named data set.

    Args:
        name: a key of :data:`DATASETS`, of which ``"fashion-mini"`` needs no files, or a folder; see :func:`load_images`.
        seed: chooses which examples go to whom.
        root: folder of data sets; default: environment variable ``HEIRMARK_DATA``, else ``./data``.
        foreign: data set whose test images go with the task, for triggers made of such; thieves ask about training images.
        protocol: ``"disjoint"`` gives the thief fresh examples, ``"paper"`` the owner's own, as most papers have it.
        owner: proportion of the training examples of the owner; see :func:`heirmark.make_task`.
        adversary: the same of the adversary.
        calibration: the same for calibration.

    Returns:
        A task with disjoint owner, adversary, calibration and test splits; by the papers' protocol the adversary's is the
        owner's.

    Raises:
        BadConfig: for an unknown name, or proportions or a seed out of range.
        DataNotFound: if a file is missing.
        BadData: if a file is truncated, foreign or damaged.

    >>> print(load_task("fashion-mini").describe())
    fashion-mini: 10 classes, image 1x28x28 uint8; owner 9,000, adversary 9,000, calibration 2,000, test 2,000
    """
    train, test, classes = load_images(name, root=root)
    medium = _medium(name, data_root(root))
    name = Path(name).expanduser().resolve().name if is_folder(name) else name
    shares = {"owner": owner, "adversary": adversary, "calibration": calibration}
    task = make_task(name, classes, train, test, seed=seed, protocol=protocol, medium=medium, **shares)
    return task if foreign is None else replace(task, foreign=load_images(foreign, root=root)[1])


def _medium(name: str, root: Path) -> Medium | None:
    """How the inputs of a data set are shown."""
    if is_folder(name):
        folder = Path(name).expanduser()
        return Sound(rate=rate_of(folder)) if has_sounds(folder) else None
    shown = DATASETS[name].medium
    return None if shown is None else shown(root)
