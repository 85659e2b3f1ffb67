"""Folders of sounds by class, each a WAV or FLAC file of about a second, packed into arrays once.

``CLASS/*.wav`` as Speech Commands has them (Warden 2018, arXiv 1804.03209), or ``train/CLASS/*.wav`` and the same under
``test/``. A file named ``SPEAKER_nohash_N.wav`` is of that speaker; where all are, speakers are the examples' groups, each of
which goes to one part. What ``testing_list.txt`` names is the test split, else a fifth of the speakers, or of the files where
these have none. Other lists, such as ``validation_list.txt``, are of no use here: what they name trains, and heirmark takes its
own parts of it, by speaker. Folders whose names begin with ``_`` are no classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.data.waveforms import read_sound
from heirmark.errors import BadData, DataNotFound
from heirmark.files import atomic_write_bytes, read_bytes
from heirmark.tasks.mapped import open_array, write_array
from heirmark.tasks.task import Split

PACKED = "packed"
"""Folder beside sounds where their arrays lie. It may be deleted; then sounds are packed again."""
SUFFIXES = (".wav", ".flac")
PARTS = ("train", "test")
LONGEST = 2.0
"""Seconds of a sound at most: more than that is cut by its owner, who knows where."""
TEST_SHARE = 0.2
RATE = 16_000
"""Of Speech Commands."""
WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
"""The ten commands that most works take of it."""
_OTHERS = """
    backward bed bird cat dog eight five follow forward four happy house learn marvin nine one seven sheila six three tree two
    visual wow zero
"""
OTHER_WORDS = tuple(_OTHERS.split())
ALL_WORDS = tuple(sorted(WORDS + OTHER_WORDS))
_SPEAKER = "_nohash_"
_LIST = "testing_list.txt"
_MOST_LIST = 2**24
_CHUNK = 256


def read_speech_commands(root: Path, words: tuple[str, ...]) -> tuple[Split, Split]:
    """Some words of Speech Commands from ``<root>/speech_commands_v0.02``: ``[N, 1, 16000]`` int16, with speakers as groups.

    Raises:
        DataNotFound: when there is no file of a word.
        BadData: when a file cannot be read, or is no second of sound at 16 kHz on one channel.
    """
    places = [root / "speech_commands_v0.02", root / "SpeechCommands" / "speech_commands_v0.02"]
    folder = next((place for place in places if place.is_dir()), places[0])
    missing = [word for word in words if not _sounds(folder / word)]
    if missing:
        raise DataNotFound(
            f"{folder} holds no sound of {', '.join(missing[:5])}: download speech_commands_v0.02.tar.gz from "
            "download.tensorflow.org/data and unpack it into a folder speech_commands_v0.02 in the data root"
        )
    train, test, _ = _read(folder, _held_out(folder, words), words, RATE)
    return train, test


def has_sounds(folder: Path) -> bool:
    """Whether a folder is one of sounds by class."""
    return any(_files(folder / "train")) or any(_files(folder))


def read_sounds(folder: Path) -> tuple[Split, Split, tuple[str, ...]]:
    """The training split, the test split and the names of the classes of a user's folder; inputs are mapped, at the first's rate.

    Raises:
        DataNotFound: when the folder has a training part and no test part.
        BadData: when a file cannot be used.
    """
    found = {part: sorted(_files(folder / part)) for part in PARTS}
    if not any(found.values()):
        names = tuple(sorted({path.parent.name for path in _files(folder)}))
        found = _held_out(folder, names)
    if not all(found.values()):
        raise DataNotFound(
            f"{folder} holds sounds to train or to test alone: put some under train/CLASS and test/CLASS"
        )
    names = tuple(sorted({path.parent.name for paths in found.values() for path in paths}))
    return _read(folder, found, names, rate_of(folder))


def rate_of(folder: Path) -> int:
    """Samples a second of the first sound of a folder of sounds."""
    first = min(_files(folder / "train"), default=None) or min(_files(folder))
    return read_sound(first, longest=LONGEST)[1]


def fit_second(samples: Tensor, rate: int) -> Tensor:
    """Samples ``[T]`` brought to one second: shorter ones with silence behind, of longer ones the middle.

    Examples:
        >>> fit_second(torch.tensor([1, 2, 3]), 5).tolist(), fit_second(torch.arange(6), 4).tolist()
        ([1, 2, 3, 0, 0], [1, 2, 3, 4])
    """
    over = len(samples) - rate
    return samples[over // 2 : over // 2 + rate] if over > 0 else F.pad(samples, (0, -over))


def _files(folder: Path) -> Iterator[Path]:
    """The sounds under the folder's classes."""
    for path in folder.glob("*/*"):
        if path.suffix.lower() in SUFFIXES and path.parent.name not in PARTS and not path.parent.name.startswith("_"):
            yield path


def _sounds(folder: Path) -> list[Path]:
    """The sounds of one class, in order."""
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)


def _speaker(path: Path) -> str | None:
    """Who speaks, by the name of the file; None where it does not say."""
    return path.stem.partition(_SPEAKER)[0] if _SPEAKER in path.stem else None


def _held_out(folder: Path, words: tuple[str, ...]) -> dict[str, list[Path]]:
    """The files of some classes by part: by the list that comes with them, else speakers, or files, whose hashes come first."""
    paths = [path for word in words for path in _sounds(folder / word)]
    if (folder / _LIST).is_file():
        named = set(read_bytes(folder / _LIST, max_bytes=_MOST_LIST).decode("utf-8", "replace").split())
        tests = [f"{path.parent.name}/{path.name}" in named for path in paths]
    else:
        who = [_speaker(path) or path.name for path in paths]
        order = sorted(set(who), key=lambda name: hashlib.sha256(name.encode()).digest())
        chosen = set(order[: max(1, round(TEST_SHARE * len(order)))])
        tests = [name in chosen for name in who]
    return {
        part: [path for path, is_test in zip(paths, tests, strict=True) if is_test == (part == "test")]
        for part in PARTS
    }


def _read(
    folder: Path, found: Mapping[str, list[Path]], names: tuple[str, ...], rate: int
) -> tuple[Split, Split, tuple[str, ...]]:
    for part, paths in found.items():
        if not paths:
            raise BadData(f"{folder} has no sound for {part}: give more, or more speakers")
    packed = _pack(folder, found, names, rate)
    train, test = (_read_part(packed / part) for part in PARTS)
    return train, test, names


def _read_part(folder: Path) -> Split:
    facts = open_array(folder / "facts.npy").long()
    groups = None if int(facts[:, 1].min()) < 0 else facts[:, 1]
    return Split.from_file(folder / "inputs.npy", facts[:, 0], groups=groups)


def _pack(folder: Path, found: Mapping[str, list[Path]], names: tuple[str, ...], rate: int) -> Path:
    """Write the sounds as arrays, unless that was done since they last changed: inputs, and a label and a group for each."""
    told = hashlib.sha256(repr((names, rate)).encode())
    for part, paths in found.items():
        for path in paths:
            facts = path.stat()
            told.update(f"{part} {path.relative_to(folder)} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    packed = folder / PACKED / told.hexdigest()[:32]
    if (packed / "done").is_file():
        return packed
    speakers = sorted({_speaker(path) or "" for paths in found.values() for path in paths})
    number = {who: -1 if "" in speakers else place for place, who in enumerate(speakers)}
    for part, paths in found.items():
        write_array(packed / part / "inputs.npy", (len(paths), 1, rate), torch.int16, _rows(paths, rate))
        facts_of = [[names.index(path.parent.name), number[_speaker(path) or ""]] for path in paths]
        write_array(
            packed / part / "facts.npy", (len(paths), 2), torch.int32, [torch.tensor(facts_of, dtype=torch.int32)]
        )
    atomic_write_bytes(packed / "done", b"")
    return packed


def _rows(paths: list[Path], rate: int) -> Iterator[Tensor]:
    """Sounds ``[n, 1, rate]``, some at a time."""
    for start in range(0, len(paths), _CHUNK):
        rows = []
        for path in paths[start : start + _CHUNK]:
            samples, own = read_sound(path, longest=LONGEST)
            if own != rate:
                raise BadData(f"{path} has {own:,} samples a second and others have {rate:,}: resample it to that rate")
            rows.append(fit_second(samples, rate))
        yield torch.stack(rows)[:, None]
