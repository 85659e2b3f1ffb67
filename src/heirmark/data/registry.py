"""The data sets by name, or by the folder that they lie in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, cast

import torch

from heirmark.data.chirps import CLASSES as CHIRPS
from heirmark.data.chirps import chirps_medium, read_chirps
from heirmark.data.cifar import CIFAR10_CLASSES, CIFAR100_CLASSES, read_cifar10, read_cifar100
from heirmark.data.fashion_mini import read_fashion_mini
from heirmark.data.folders import read_folder
from heirmark.data.idx import FASHION_CLASSES, MNIST_CLASSES, read_fashion_mnist, read_mnist
from heirmark.data.naming import is_folder, parts_of
from heirmark.data.root import data_root
from heirmark.data.sentences import CLASSES as TOPICS
from heirmark.data.sentences import read_sentences
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
from heirmark.data.texts import (
    AG_NEWS_CLASSES,
    SST2_CLASSES,
    Rows,
    read_ag_news,
    read_imdb,
    read_sst2,
    read_tables,
    read_yelp,
    read_yelp_sentences,
    table_in,
)
from heirmark.data.tokenised import Tokenising, split_of
from heirmark.errors import BadConfig, BadData
from heirmark.tasks.media import Medium, Sound, Text
from heirmark.tasks.space import Tokens
from heirmark.tasks.splitting import make_task
from heirmark.tasks.task import Protocol, Split, Task


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A named data set.

    Attributes:
        classes: class names, by label.
        read: given the data root, its training and test split; or the texts of the two, with their labels.
        medium: given the data root, how its inputs are shown, where they are sound.
        tokenising: how texts become ids of tokens, where it is made of such.
    """

    classes: tuple[str, ...]
    read: Callable[[Path], tuple[Split, Split] | Rows]
    medium: Callable[[Path], Medium] | None = None
    tokenising: Tokenising | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """A data set that is read.

    Attributes:
        train: its training split.
        test: its test split.
        classes: class names.
        medium: how its inputs are shown, where they are sound or text.
    """

    train: Split
    test: Split
    classes: tuple[str, ...]
    medium: Medium | None = None


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
    "sentences": DataSet(
        classes=TOPICS, read=lambda root: read_sentences(), tokenising=Tokenising(length=32)
    ),  # 11,200 made-up texts on eight topics, drawn from a seed
    "sst2": DataSet(
        classes=SST2_CLASSES, read=read_sst2, tokenising=Tokenising(length=48)
    ),  # 68,221 phrases and sentences of film reviews
    "ag-news": DataSet(
        classes=AG_NEWS_CLASSES, read=read_ag_news, tokenising=Tokenising(length=64)
    ),  # 127,600 titles of news with what follows
    "imdb": DataSet(classes=SST2_CLASSES, read=read_imdb, tokenising=Tokenising(length=256)),  # 50,000 reviews of films
    "yelp": DataSet(
        classes=SST2_CLASSES, read=read_yelp, tokenising=Tokenising(length=256)
    ),  # 598,000 reviews of restaurants and shops
    "yelp-sentences": DataSet(
        classes=SST2_CLASSES, read=read_yelp_sentences, tokenising=Tokenising(length=32)
    ),  # sentences of such
}


def load_images(name: str, *, root: Path | str | None = None) -> tuple[Split, Split, tuple[str, ...]]:
    """Read a data set as it was published; see :func:`load_data`.

    Returns:
        Training split, test split (inputs of images ``[N, C, H, W]`` uint8; those of a folder as it has them, mapped) and class
        names.
    """
    found = load_data(name, root=root)
    return found.train, found.test, found.classes


def load_data(name: str, *, root: Path | str | None = None, like: Task | None = None) -> Loaded:
    """Read a data set as it was published.

    Args:
        name: a key of :data:`DATASETS`, or a folder of yours with a slash in its name; see :mod:`heirmark.data.folders` and
            :mod:`heirmark.data.sounds`. Texts take options: ``"sst2:length=32,vocabulary=4096"``,
            ``"./mine:tokenizer=./minilm"``; see :class:`heirmark.data.tokenised.Tokenising`.
        root: folder of data sets; default: environment variable ``HEIRMARK_DATA``, else ``./data``.
        like: a task of texts, whose tokenizer and length other texts get, too.

    Raises:
        BadConfig: for an unknown name or option.
        DataNotFound: if a file of it is missing; the message says where it was looked for and how to get it.
        BadData: if a file is truncated, foreign or damaged.
    """
    own, options = parts_of(name)
    folder = Path(own).expanduser()
    if not is_folder(own) and own not in DATASETS:
        raise BadConfig(
            f"unknown data set {own!r}: choose one of {', '.join(DATASETS)}, or name a folder with a slash, as ./{own}"
        )
    if is_folder(own):
        found = _in_folder(folder)
    else:
        _check_options(own, options, DATASETS[own].tokenising)
        found = _Found(DATASETS[own].read(data_root(root)), DATASETS[own].classes, DATASETS[own].tokenising)
        shown = DATASETS[own].medium
        found = found if shown is None else found._replace(medium=shown(data_root(root)))
    _check_options(own, options, found.tokenising)
    if found.tokenising is None:
        train, test = cast(tuple[Split, Split], found.content)
        return Loaded(train=train, test=test, classes=found.classes, medium=found.medium)
    rows = cast(Rows, found.content)
    if like is not None and isinstance(like.medium, Text):
        train, test = (split_of(some, like.medium, like.input_shape[0]) for some in rows)
        return Loaded(train=train, test=test, classes=found.classes, medium=like.medium)
    train, test, medium = found.tokenising.told(options).splits(rows)
    return Loaded(train=train, test=test, classes=found.classes, medium=medium)


def _check_options(name: str, options: Mapping[str, str], tokenising: Tokenising | None) -> None:
    if options and tokenising is None:
        raise BadConfig(f"{name} is not made of texts, which alone have options: leave {', '.join(options)} out")


class _Found(NamedTuple):
    content: tuple[Split, Split] | Rows
    classes: tuple[str, ...]
    tokenising: Tokenising | None = None
    medium: Medium | None = None


def _in_folder(folder: Path) -> _Found:
    """What a user's folder holds: texts, sounds, or images."""
    if table_in(folder, "train") is not None:
        rows, names = read_tables(folder)
        return _Found(rows, names, Tokenising())
    if has_sounds(folder):
        train, test, names = read_sounds(folder)
        return _Found((train, test), names, medium=Sound(rate=rate_of(folder)))
    train, test, names = read_folder(folder)
    return _Found((train, test), names)


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
    found = load_data(name, root=root)
    own = parts_of(name)[0]
    shares = {"owner": owner, "adversary": adversary, "calibration": calibration}
    task = make_task(
        Path(own).expanduser().resolve().name if is_folder(own) else own,
        found.classes,
        found.train,
        found.test,
        seed=seed,
        protocol=protocol,
        medium=found.medium,
        **shares,
    )
    return (
        task
        if foreign is None
        else replace(task, foreign=foreign_to(task, load_data(foreign, root=root, like=task).test))
    )


def foreign_to(task: Task, split: Split) -> Split:
    """A split of another data set, of texts without those that stand in the task, too: short ones may stand anywhere.

    Raises:
        BadData: when nothing is left.
    """
    if not isinstance(task.space, Tokens):
        return split
    own = set().union(*(each.digests() for each in task.splits.values()))
    left = torch.tensor([digest not in own for digest in split.row_digests])
    if not left.any():
        raise BadData(f"every text of the other data set stands in {task.name}, too: name another one")
    return split if left.all() else split.subset(left)
