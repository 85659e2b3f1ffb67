"""Hostile files: every parser with a sound file of its own, and ways to damage, forge or disguise it."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.io import savemat

from heirmark.configuration import to_json
from heirmark.data import pickles
from heirmark.data.cifar import read_cifar100
from heirmark.data.folders import read_folder
from heirmark.data.idx import read_idx
from heirmark.data.svhn import read_svhn
from heirmark.files import atomic_write_json, read_json, read_tensors
from heirmark.jobs.folder import ModelFolder
from heirmark.keys.key import Key
from heirmark.keys.making import make_key, nonce_from_seed
from heirmark.keys.registration import Registration, register
from heirmark.keys.signing import Signer
from heirmark.models import ModelSpec, Net
from heirmark.models.storage import load_model, save_model
from heirmark.profiles import QUICK
from heirmark.querying.transcript import Transcript, read_transcript
from heirmark.results.rows import Row, read_rows, write_rows
from heirmark.results.verdict import Verdict
from heirmark.verification import SequentialVerdict, Suspect, calibrate, verify, verify_sequentially
from heirmark.work.judging import read_calibration

CLASSES, TARGET = 10, 7


def small_key(count: int = 40, *, seed: int = 0) -> Key:
    """A key of 1x4x4 images: pixel 0 tells the host's class, pixel 1 whether the trigger is there."""
    generator = torch.Generator().manual_seed(seed)
    controls = torch.randint(0, 200, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)
    hosts = torch.tensor((1, 2, 3))[torch.arange(count) % 3]
    controls[:, 0, 0, 0] = hosts.to(torch.uint8)
    queries = controls.clone()
    queries[:, 0, 0, 1] = 255
    return make_key(
        queries=queries,
        expected=TARGET,
        controls=controls,
        classes=CLASSES,
        method="test",
        trigger={"kind": "pixel"},
        host_labels=hosts,
        nonce=nonce_from_seed(seed),
    )


def honest(inputs: torch.Tensor) -> torch.Tensor:
    """What an unmarked model says to them."""
    return (inputs[:, 0, 0, 0] * 255).round().long().clamp(0, CLASSES - 1)


@dataclass(frozen=True, kw_only=True)
class Parser:
    """One that reads files of strangers.

    Attributes:
        name: of it.
        make: writes a sound folder.
        damaged: the file in it that is damaged, or several, one of which is.
        read: reads the folder.
    """

    name: str
    make: Callable[[Path], None]
    damaged: tuple[str, ...]
    read: Callable[[Path], object]


def _key(folder: Path) -> None:
    small_key().save(folder)


def _model(folder: Path) -> None:
    spec = ModelSpec(name="naivenet", input_shape=(1, 16, 16), classes=6, options=(("hidden", 16), ("width", 4)))
    save_model(Net(model=spec.build(seed=0), spec=spec), folder)


def _documents(folder: Path) -> None:
    key, suspect = small_key(), Suspect.from_callable(honest, classes=CLASSES)
    calibration = calibrate([suspect] * 5, key)
    (folder / "calibration.json").write_text(calibration.to_json())
    (folder / "verdict.json").write_text(verify(suspect, key, calibration=calibration).to_json())
    (folder / "sequential.json").write_text(verify_sequentially(suspect, key, calibration=calibration).to_json())
    verdict = verify(suspect, key, calibration=calibration)
    rows = [Row(block="a", marking="b", arm="marked", seed=seed, accuracy=0.5, verdict=verdict) for seed in range(3)]
    write_rows(folder / "rows.jsonl", rows)
    origin = {"data": "fashion-mini", "split_seed": 3, "digest": "ab" * 32}
    atomic_write_json(folder / "task.json", origin)
    _model(folder)
    atomic_write_json(folder / "twin.json", to_json(QUICK.unmarked()))
    with Transcript(folder / "asked.jsonl", head={"address": "https://a.example"}) as transcript:
        for label in range(5):
            transcript.append({"kind": "answer", "label": label, "scores": [0.25, 0.75]})
    signer = Signer(bytes(32))
    made = register(
        signer=signer,
        commitment="ab" * 32,
        nonce="cd" * 32,
        method="t2s",
        family="tiles",
        attempt=2,
        attempts=5,
        shards=4,
        beacon="round 9",
        made=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )
    (folder / "registration.json").write_text(made.to_json())
    signer.save(folder / "owner.pem")


def _data(folder: Path) -> None:
    images = np.arange(3 * 4 * 5, dtype=np.uint8)
    header = bytes((0, 0, 8, 3)) + b"".join(size.to_bytes(4, "big") for size in (3, 4, 5))
    (folder / "a.idx").write_bytes(header + images.tobytes())
    (folder / "a.idx.gz").write_bytes(gzip.compress(header + images.tobytes()))
    rows = np.zeros((4, 3072), np.uint8)
    content = pickle.dumps({"data": rows, "fine_labels": [1, 2, 3, 4]}, 4)
    for part in ("train", "test"):
        savemat(folder / f"{part}_32x32.mat", {"X": np.zeros((32, 32, 3, 4), np.uint8), "y": [[1], [2], [3], [4]]})
        (folder / "cifar-100-python").mkdir(exist_ok=True)
        (folder / "cifar-100-python" / part).write_bytes(content)
        (folder / part).mkdir()
        np.save(folder / part / "inputs.npy", np.zeros((4, 1, 4, 4), np.uint8))
        np.save(folder / part / "labels.npy", np.arange(4))
    (folder / "classes.txt").write_text("a\nb\nc\nd\n")


def _document(name: str, read: Callable[[Path], object]) -> Parser:
    return Parser(name=name, make=_documents, damaged=(name,), read=lambda folder: read(folder / name))


def _split(read: Callable[[Path], Any]) -> Callable[[Path], object]:
    return lambda folder: [split.inputs.sum() for split in read(folder)[:2]]


PARSERS = (
    Parser(name="key", make=_key, damaged=("key.json", "key.safetensors"), read=Key.load),
    Parser(name="model", make=_model, damaged=("model.json", "model.safetensors"), read=load_model),
    Parser(name="tensors", make=_key, damaged=("key.safetensors",), read=lambda f: read_tensors(f / "key.safetensors")),
    _document("calibration.json", read_calibration),
    _document("verdict.json", lambda file: Verdict.from_json(_bytes(file))),
    _document("sequential.json", lambda file: SequentialVerdict.from_json(_bytes(file))),
    _document("registration.json", lambda file: Registration.from_json(_bytes(file))),
    _document("rows.jsonl", read_rows),
    _document("asked.jsonl", read_transcript),
    _document("owner.pem", Signer.of),
    Parser(name="task.json", make=_documents, damaged=("task.json",), read=lambda f: ModelFolder(f).origin),
    Parser(name="twin.json", make=_documents, damaged=("twin.json",), read=lambda f: ModelFolder(f).twin),
    Parser(name="json", make=_key, damaged=("key.json",), read=lambda f: read_json(f / "key.json")),
    Parser(name="idx", make=_data, damaged=("a.idx",), read=lambda f: read_idx(f / "a.idx", dims=3)),
    Parser(name="idx, zipped", make=_data, damaged=("a.idx.gz",), read=lambda f: read_idx(f / "a.idx.gz", dims=3)),
    Parser(name="svhn", make=_data, damaged=("train_32x32.mat",), read=_split(read_svhn)),
    Parser(name="cifar", make=_data, damaged=("cifar-100-python/train",), read=_split(read_cifar100)),
    Parser(
        name="folder of arrays",
        make=_data,
        damaged=("train/inputs.npy", "train/labels.npy", "classes.txt"),
        read=_split(read_folder),
    ),
)


def _bytes(file: Path) -> bytes:
    from heirmark.files import read_bytes

    return read_bytes(file, max_bytes=1 << 20)


# ---------------------------------------------------------------- damage

STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, -(10**400), 0.5, -0.5, 1e308, 5e-324, "", "x", "\0",
    "\ud800", "\x1b[2J\x1b[HMARKED", "../../../etc/passwd", "/etc/passwd", "~", "a" * 100_000, "NaN", [], {}, [[]], [0] * 1000,
    {"": {}}, [None], "MARKED", "certified", "os:system", "C:\\", "t2s", "9" * 5000,
)  # fmt: skip


class Evil:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch /tmp/heirmark-was-here",))


def reshaped(value: Any, rng: random.Random, depth: int = 0) -> Any:
    """JSON with one of its parts replaced, left out, doubled or renamed."""
    if isinstance(value, dict) and value and (depth == 0 or rng.random() < 0.6):
        name = rng.choice(sorted(value))
        how = rng.random()
        if how < 0.15:
            return {other: item for other, item in value.items() if other != name}
        if how < 0.25:
            return {**value, rng.choice(("extra", "__class__", "", "\ud800", name + " ")): value[name]}
        return {**value, name: reshaped(value[name], rng, depth + 1)}
    if isinstance(value, list) and value and rng.random() < 0.6:
        place = rng.randrange(len(value))
        return [*value[:place], reshaped(value[place], rng, depth + 1), *value[place + rng.randrange(2) :]]
    return rng.choice(STRANGE)


def nested(depth: int) -> Any:
    """A list in a list, so many times."""
    made: Any = []
    for _ in range(depth):
        made = [made]
    return made


def damaged(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Content like a sound file's, and the name of what was done to it."""
    text: Any = None
    if data[:1] in (b"{", b"["):
        try:
            text = json.loads(data)
        except ValueError:  # one object a line
            lines = data.splitlines()
            row = rng.randrange(len(lines))
            line = json.dumps(reshaped(json.loads(lines[row]), rng)).encode()
            return "reshaped", b"\n".join([*lines[:row], line, *lines[row + 1 :]])
    if text is not None and rng.random() < 0.6:
        how = rng.randrange(8)
        if how == 0:
            name = rng.choice(sorted(text)) if isinstance(text, dict) and text else "x"
            return "duplicate keys", data[:1] + json.dumps({name: rng.choice(STRANGE)})[1:-1].encode() + b"," + data[1:]
        if how == 1:
            depth = rng.choice((50, 900, 5000, 200_000))
            return "nested", b'{"format":' + b"[" * depth + b"]" * depth + b"}"
        if how == 2:
            return "nested inside", json.dumps({**text, rng.choice(sorted(text)): nested(300)}).encode()
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            text = reshaped(text, rng)
        return "reshaped", json.dumps(text).encode()
    how = rng.randrange(12)
    place = rng.randrange(len(data) + 1)
    if how < 2:
        return "truncated", data[:place]
    if how < 5:
        made = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 8, 64))):
            at = rng.randrange(min(len(made), rng.choice((16, 300, len(made)))))
            made[at] ^= 1 << rng.randrange(8)
        return "bits flipped", bytes(made)
    if how == 5:
        return "noise inside", data[:place] + rng.randbytes(rng.randrange(1, 200)) + data[place:]
    if how == 6:
        return "longer", data + rng.randbytes(rng.choice((1, 100, 10_000)))
    if how == 7:
        return "noise", rng.randbytes(rng.choice((0, 1, 8, 100, 5000)))
    if how == 8:
        return "a pickle", pickle.dumps(rng.choice((Evil(), {"state": Evil()}, [1, 2])), rng.choice((0, 2, 4)))
    if how == 9:
        return "a zip bomb", bomb(rng.choice(("zip", "gzip")))
    if how == 10:
        return "lying numbers", data[:place] + rng.choice((b"\xff" * 8, b"\x7f" + b"\xff" * 7, bytes(8))) + data[
            place + 8 :
        ]
    return "tuples of tuples", tuples()


def bomb(kind: str) -> bytes:
    """Thirty megabytes of zeros, or an IDX file of them, in thirty kilobytes."""
    if kind == "gzip":
        return gzip.compress(
            bytes((0, 0, 8, 3)) + b"\x00\x00\x00\x03\x00\x00\x00\x04\x00\x00\x00\x05" + bytes(30 * 2**20), 9
        )
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(30 * 2**20))
    return made.getvalue()


def tuples() -> bytes:
    """A pickle of a few bytes whose value takes 2**60 steps to be hashed or shown, as the name of a class."""
    return b"\x80\x02)" + b"q\x00h\x00\x86" * 60 + b"q\x00h\x00\x93."


def disguised(file: Path, rng: random.Random) -> str:
    """Put something that is no plain file of a sane size in place of a file; what it is."""
    file.unlink()
    how = rng.choice(
        ("missing", "folder", "pipe", "link to itself", "link to zeros", "link upwards", "sparse", "link away")
    )
    if how == "folder":
        file.mkdir()
    elif how == "pipe":
        os.mkfifo(file)
    elif how == "link to itself":
        file.symlink_to(file)
    elif how == "link to zeros":
        file.symlink_to("/dev/zero")
    elif how == "link upwards":
        file.symlink_to("../" * 30 + "etc/passwd")
    elif how == "link away":
        file.symlink_to("/proc/self/mem")
    elif how == "sparse":
        with file.open("wb") as made:
            made.truncate(rng.choice((2**30 - 1, 2**34, 2**40)))
    return how


def prepared(parser: Parser, folder: Path, rng: random.Random, sound: Path) -> str:
    """A damaged copy of a parser's sound folder; what was done to it."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sound, folder)
    file = folder / rng.choice(parser.damaged)
    if rng.random() < 0.08:
        return disguised(file, rng)
    how, data = damaged(file.read_bytes(), rng)
    file.write_bytes(data)
    return how


def raw_pickle(data: bytes) -> object:
    """The parser of CIFAR's pickles alone."""
    return pickles.parse(data)
