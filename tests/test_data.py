"""Readers of data sets: official layouts in miniature, hostile and damaged files, and the embedded set."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import os
import pickle
import runpy
import struct
import zlib
from dataclasses import replace
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import io

from heirmark.data import (
    DATASETS,
    chirps,
    cifar,
    data_root,
    fashion_mini,
    idx,
    load_images,
    load_task,
    matlab,
    pickles,
    sentences,
    svhn,
)
from heirmark.errors import BadConfig, BadData, DataNotFound
from heirmark.tasks.media import Sound
from heirmark.tasks.space import Waves
from heirmark.tasks.task import Split

RNG = np.random.Generator(np.random.PCG64(0))

# Writers of the official layouts


def idx_bytes(array: np.ndarray[Any, Any]) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder: Path, *, zipped: bool, sizes: tuple[int, int] = (40, 8)) -> dict[str, np.ndarray[Any, Any]]:
    folder.mkdir(parents=True)
    written = {}
    for part, size in zip(("train", "t10k"), sizes, strict=True):
        for name, array in (
            (f"{part}-images-idx3-ubyte", RNG.integers(0, 256, (size, 28, 28)).astype(np.uint8)),
            (f"{part}-labels-idx1-ubyte", (np.arange(size) % 10).astype(np.uint8)),
        ):
            raw = idx_bytes(array)
            (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(raw) if zipped else raw)
            written[name] = array
    return written


def python2_pickle(data: np.ndarray[Any, Any], labels: list[int], key: bytes) -> bytes:
    """What Python 2's cPickle wrote under protocol 2, instruction by instruction, as in the official files."""

    def string(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + struct.pack("<i", len(text)) + text

    def number(value: int) -> bytes:
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x0acnumpy\nndarray\nq\x0bK\x00\x85" + string(b"b") + b"\x87Rq\x0c"
        b"(K\x01" + number(data.shape[0]) + number(data.shape[1]) + b"\x86cnumpy\ndtype\nq\x0d" + string(b"u1")
        + b"K\x00K\x01\x87Rq\x0e(K\x03" + string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + string(data.tobytes()) + b"tb"
    )  # fmt: skip
    numbers = b"]q\x03(" + b"".join(number(label) for label in labels) + b"e"
    names = b"]q\x04(" + b"".join(string(b"%d.png" % i) for i in range(len(labels))) + b"e"
    return (
        b"\x80\x02}q\x01(" + string(b"batch_label") + string(b"training batch 1 of 5") + string(key) + b"q\x02"
        + numbers + string(b"filenames") + names + string(b"data") + array + b"u."
    )  # fmt: skip


def dialects(data: np.ndarray[Any, Any], labels: list[int], key: str) -> dict[str, bytes]:
    return {
        "python 2": python2_pickle(data, labels, key.encode()),
        "python 3, bytes, protocol 2": pickle.dumps({b"data": data, key.encode(): labels, b"empty": b""}, 2),
        "python 3, text, protocol 4": pickle.dumps({"data": data, key: labels, "batch_label": "training"}, 4),
        "python 3, numpy 1": pickle.dumps({"data": data, key: labels}, 2).replace(b"numpy._core", b"numpy.core"),
        "python 3, fortran order": pickle.dumps({"data": np.asfortranarray(data), key: labels}, 4),
        "python 3, labels as array": pickle.dumps({"data": data, key: np.array(labels)}, 4),
    }


DIALECTS = tuple(dialects(np.zeros((1, 3072), np.uint8), [0], "labels"))


def rows(count: int) -> np.ndarray[Any, Any]:
    return RNG.integers(0, 256, (count, 3072)).astype(np.uint8)


def write_cifar10(root: Path, dialect: str = DIALECTS[0], size: int = 12) -> dict[str, np.ndarray[Any, Any]]:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    written = {}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        written[name] = rows(size)
        labels = [i % 10 for i in range(size)]
        (folder / name).write_bytes(dialects(written[name], labels, "labels")[dialect])
    return written


def write_svhn(root: Path, *, zipped: bool = True, **changed: Any) -> np.ndarray[Any, Any]:
    root.mkdir(parents=True, exist_ok=True)
    images = RNG.integers(0, 256, (32, 32, 3, 30)).astype(np.uint8)
    labels = (np.arange(30) % 10 + 1).astype(np.uint8)[:, None]
    for part, taken in (("train", slice(0, 20)), ("test", slice(20, 30))):
        content = {"X": images[..., taken], "y": labels[taken]} | changed
        io.savemat(root / f"{part}_32x32.mat", content, do_compression=zipped)
    return images


# The data root and the registry


def test_the_root_is_argument_then_environment_then_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HEIRMARK_DATA", raising=False)
    assert data_root() == Path("data")
    monkeypatch.setenv("HEIRMARK_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert data_root("elsewhere") == Path("elsewhere")


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(BadConfig, match="fashion-mini, fashion-mnist, mnist, cifar10, cifar100, svhn"):
        load_task("imagenet")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", "MNIST/raw/train-images-idx3-ubyte"),
        ("fashion-mnist", "FashionMNIST/raw/train-images-idx3-ubyte.gz"),
        ("cifar10", "cifar-10-batches-py/data_batch_1"),
        ("cifar100", "cifar-100-python/train"),
        ("svhn", "train_32x32.mat"),
    ],
)
def test_a_missing_file_is_named_with_its_place_and_the_remedy(
    name: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idx, "DEBIAN_FASHION", tmp_path / "not-installed")
    with pytest.raises(DataNotFound) as caught:
        load_task(name, root=tmp_path)
    message = str(caught.value)
    assert str(tmp_path / file) in message
    assert "HEIRMARK_DATA" in message
    assert "download" in message
    assert "\n" not in message


def test_class_names() -> None:
    assert {name: len(data_set.classes) for name, data_set in DATASETS.items()} == {
        "fashion-mini": 10, "fashion-mnist": 10, "mnist": 10, "cifar10": 10, "cifar100": 100, "svhn": 10,
        "chirps": 10, "sentences": 8, "speech-commands": 10, "speech-commands-35": 35, "speech-commands-other": 25,
        "sst2": 2, "ag-news": 4, "imdb": 2, "yelp": 2, "yelp-sentences": 2,
    }  # fmt: skip
    assert len(set(cifar.CIFAR100_CLASSES)) == 100
    assert list(cifar.CIFAR100_CLASSES) == sorted(cifar.CIFAR100_CLASSES)


def test_chirps_are_the_same_sounds_every_time() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(20) % 10
    made = chirps.make(labels, rng)
    assert made.shape == (20, chirps.SAMPLES)
    assert 0.2 <= np.abs(made).max(1).min() <= np.abs(made).max() <= 1
    assert np.array_equal(made, chirps.make(labels, np.random.default_rng(1)))
    assert not np.array_equal(made, chirps.make(labels, rng))


def test_sentences_are_made_once_and_never_twice() -> None:
    train, test = sentences.read_sentences()
    assert (len(train), len(test)) == (sentences.TRAIN, sentences.TEST)
    assert len({text for text, _ in train + test}) == len(train) + len(test)
    assert sentences.read_sentences()[1] == test
    assert sorted({label for _, label in test}) == list(range(8))


@pytest.mark.slow
def test_chirps_make_a_task_of_sound() -> None:
    task = load_task("chirps")
    assert task.medium == Sound(rate=4000)
    assert isinstance(task.space, Waves)
    assert task.test.labels.bincount().tolist() == [100] * 10


# IDX


@pytest.mark.parametrize("zipped", [False, True])
def test_mnist_round_trip(zipped: bool, tmp_path: Path) -> None:
    written = write_mnist(tmp_path / "MNIST" / "raw", zipped=zipped)
    train, test, classes = load_images("mnist", root=tmp_path)
    assert classes == tuple("0123456789")
    assert np.array_equal(train.inputs[:, 0].numpy(), written["train-images-idx3-ubyte"])
    assert test.labels.tolist() == written["t10k-labels-idx1-ubyte"].tolist()
    assert train.inputs.dtype == torch.uint8
    task = load_task("mnist", root=tmp_path, owner=0.25, adversary=0.5, calibration=0.25)
    assert (len(task.owner), len(task.adversary), len(task.calibration), len(task.test)) == (10, 20, 10, 8)


def test_debians_folder_is_found_by_itself_but_the_root_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idx, "DEBIAN_FASHION", tmp_path / "debian")
    write_mnist(tmp_path / "debian", zipped=True, sizes=(40, 8))
    assert len(load_images("fashion-mnist", root=tmp_path / "empty")[0]) == 40
    own = tmp_path / "own" / "FashionMNIST" / "raw"
    write_mnist(own, zipped=False, sizes=(30, 8))
    assert len(load_images("fashion-mnist", root=tmp_path / "own")[0]) == 30
    (own / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataNotFound, match="t10k-labels"):  # never half of one release and half of another
        load_images("fashion-mnist", root=tmp_path / "own")


IMAGES = idx_bytes(np.zeros((3, 4, 4), np.uint8))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not an IDX file"),
        (b"\x89PNG\r\n\x1a\n" + IMAGES, "not an IDX file"),
        (idx_bytes(np.zeros(3, np.uint8)), "not an IDX file"),
        (b"\x00\x00\x0d\x03" + IMAGES[4:], "not an IDX file"),
        (IMAGES[:10], "header"),
        (IMAGES[:-1], "truncated"),
        (IMAGES + b"\x00", "longer"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "announces the sizes"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_wrong_idx_files(raw: bytes, words: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / ("x" + ".gz" * zipped)
    path.write_bytes(gzip.compress(raw) if zipped else raw)
    with pytest.raises(BadData, match=words) as caught:
        idx.read_idx(path, dims=3)
    assert str(path) in str(caught.value)
    assert "put the official file there" in str(caught.value)


def test_damaged_gzip(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    good = gzip.compress(idx_bytes(RNG.integers(0, 256, (3, 9, 9)).astype(np.uint8)))
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    for raw in (good[:-9], good[:5], bytes(flipped), IMAGES):
        path.write_bytes(raw)
        with pytest.raises(BadData, match=r"x\.gz"):
            idx.read_idx(path, dims=3)


def test_a_gzip_bomb_is_not_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = gzip.GzipFile.read

    def read(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        asked.append(-1 if size is None else size)
        return real(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", read)
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(IMAGES + bytes(30_000_000)))
    with pytest.raises(BadData, match="longer"):
        idx.read_idx(path, dims=3)
    path.write_bytes(gzip.compress(b"\x00\x00\x08\x03" + struct.pack(">3I", 2**31, 2**15, 2**15) + bytes(1_000_000)))
    with pytest.raises(BadData, match="announces"):
        idx.read_idx(path, dims=3)
    assert max(asked) <= 48
    assert min(asked) >= 0


def test_counts_must_match(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    write_mnist(folder, zipped=False)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(39, np.uint8)))
    with pytest.raises(BadData, match=r"40 images .* 39 labels"):
        load_images("mnist", root=tmp_path)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(0, np.uint8)))
    (folder / "train-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((0, 28, 28), np.uint8)))
    with pytest.raises(BadData, match="no images"):
        load_images("mnist", root=tmp_path)


@given(st.binary(max_size=60), st.booleans(), st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_arbitrary_idx_bytes_give_a_tensor_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, zipped: bool, dims: int
) -> None:
    path = tmp_path_factory.mktemp("idx") / ("x" + ".gz" * zipped)
    path.write_bytes(bytes((0, 0, 8, dims)) + tail)
    with contextlib.suppress(BadData):
        assert idx.read_idx(path, dims=dims).ndim == dims


# CIFAR


@pytest.mark.parametrize("dialect", DIALECTS)
def test_cifar10_round_trip(dialect: str, tmp_path: Path) -> None:
    written = write_cifar10(tmp_path, dialect)
    train, test, classes = load_images("cifar10", root=tmp_path)
    assert classes[3] == "cat"
    assert train.inputs.shape == (60, 3, 32, 32)
    assert train.inputs.dtype == torch.uint8
    joined = np.concatenate([written[f"data_batch_{i}"] for i in range(1, 6)])
    assert np.array_equal(train.inputs.flatten(1).numpy(), joined)
    assert np.array_equal(test.inputs.flatten(1).numpy(), written["test_batch"])
    assert test.labels.tolist() == [i % 10 for i in range(12)]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_cifar100_round_trip(dialect: str, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for part, size in (("train", 300), ("test", 20)):
        (folder / part).write_bytes(dialects(rows(size), [i % 100 for i in range(size)], "fine_labels")[dialect])
    train, test, classes = load_images("cifar100", root=tmp_path)
    assert (len(train), len(test), len(classes)) == (300, 20, 100)
    assert train.labels[:101].tolist() == [*range(100), 0]


def test_the_python2_writer_above_writes_what_unpickling_would_read() -> None:
    data = rows(3)
    raw = python2_pickle(data, [1, 2, 300], b"labels")
    reference = pickle.loads(raw, encoding="bytes")
    assert np.array_equal(reference[b"data"], data)
    parsed = pickles.parse(raw)
    assert np.array_equal(parsed["data"], data)
    assert parsed["labels"] == reference[b"labels"] == [1, 2, 300]
    assert parsed["filenames"] == [b"0.png", b"1.png", b"2.png"]


class Evil:
    """Pickles as a call of ``function`` on ``arguments``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("place", ["whole", "value", "label", "key"])
@pytest.mark.parametrize("how", ["system", "eval", "mkdir", "getattr", "numpy"])
def test_a_hostile_pickle_is_refused_and_not_run(how: str, place: str, protocol: int, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    evil = {
        "system": Evil(os.system, f"touch {trace}"),
        "eval": Evil(eval, f"open({str(trace)!r}, 'w')"),
        "mkdir": Evil(os.mkdir, str(trace)),
        "getattr": Evil(getattr, int, "from_bytes"),
        "numpy": Evil(np.save, str(trace), 1),
    }[how]
    content: Any = {
        "whole": evil,
        "value": {"labels": [0], "data": rows(1), "x": evil},
        "label": {"labels": [evil], "data": rows(1)},
        "key": {"labels": [0], "data": rows(1), (evil,): 1},
    }[place]
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(BadData, match="data_batch_3"):
        load_task("cifar10", root=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cifar-10-batches-py"]


@pytest.mark.parametrize(
    "raw",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n\x85R.",
        b"\x80\x02cnumpy\ndtype\nU\x02u1\x85R.",
        b"\x80\x02cnumpy\ndtype\n}U\x05alignK\x01sb.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02P0\n.",
        b"\x80\x02r\xff\xff\xff\xff.",
        b"\x80\x02}r\xff\xff\xff\xff0.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x02(((.",
        b"\x80\x02e.",
        b"\x80\x02}}s.",
        b"\x80\x02}]]s.",
        b"\x80\x02}(K\x01u.",
        b"\x80\x02K\x01K\x02.",
        b"\x80\x02.",
        b"\x80\x02}",
        b"",
        b"<!DOCTYPE html>",
    ],
)
def test_strange_programs_are_value_errors(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        pickles.parse(raw)


def test_encoding_one_text_over_and_over_is_refused() -> None:
    text = b"X" + struct.pack("<I", 1000) + b"a" * 1000
    again = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    raw = b"\x80\x02}X\x01\x00\x00\x00a](" + text + b"q\x00" + again * 200 + b"es."
    with pytest.raises(ValueError, match="more encoded text"):
        pickles.parse(raw)


@pytest.mark.parametrize("state", [("i4", ">"), ("f8", "<"), ("O", "|")])
def test_array_types_that_cifar_has_not(state: tuple[str, str]) -> None:
    raw = pickle.dumps({"data": np.zeros(3, np.dtype(state[0]).newbyteorder(state[1]))}, 2)
    with pytest.raises(ValueError, match=r"array of type|object state|structure"):
        pickles.parse(raw)


SMALL = dialects((np.arange(3072) % 256).astype(np.uint8)[None], [7], "labels")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_truncation_is_noticed(dialect: str) -> None:
    raw = SMALL[dialect]
    for end in [*range(60), *range(60, len(raw), 97), *range(len(raw) - 60, len(raw))]:
        with pytest.raises(ValueError, match=r"."):
            pickles.parse(raw[:end])


@given(st.sampled_from(DIALECTS), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4))
@settings(max_examples=300, deadline=None)
def test_flipped_bytes_give_plain_values_or_a_value_error(dialect: str, flips: list[tuple[int, int]]) -> None:
    raw = bytearray(SMALL[dialect])
    for position, value in flips:
        # twice as often among the instructions as in the pixels between them
        raw[position % len(raw) if position % 3 else -1 - position % 200] = value
    try:
        parsed = pickles.parse(bytes(raw))
    except ValueError:
        return
    assert all(isinstance(key, str) for key in parsed)


@given(st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_arbitrary_programs_give_a_dictionary_or_a_value_error(program: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(pickles.parse(b"\x80\x02" + program + b"."), dict)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"labels": [0]}, "no 'data'"),
        ({"data": np.zeros((1, 100), np.uint8), "labels": [0]}, "no 'data'"),
        ({"data": np.zeros((1, 3072), np.int64), "labels": [0]}, "no 'data'"),
        ({"data": [[0] * 3072], "labels": [0]}, "no 'data'"),
        ({"data": rows(1)}, "no list 'labels'"),
        ({"data": rows(1), "labels": ["cat"]}, "no list 'labels'"),
        ({"data": rows(1), "labels": [True]}, "no list 'labels'"),
        ({"data": rows(1), "labels": [-1]}, "no list 'labels'"),
        ({"data": rows(2), "labels": [1]}, "2 images but 1 labels"),
        ({"data": rows(0), "labels": []}, "0 images"),
        ([1, 2], "a list where a dictionary belongs"),
    ],
)
def test_pickles_that_are_not_cifar(content: Any, words: str, tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(pickle.dumps(content, 4))
    with pytest.raises(BadData, match=words) as caught:
        load_images("cifar10", root=tmp_path)
    assert str(path) in str(caught.value)


def test_an_oversized_cifar_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path)
    monkeypatch.setattr(cifar, "_MOST_BYTES", 1000)
    with pytest.raises(BadData, match="larger than the 1,000 bytes"):
        load_images("cifar10", root=tmp_path)


# SVHN


@pytest.mark.parametrize("zipped", [False, True])
def test_svhn_round_trip(zipped: bool, tmp_path: Path) -> None:
    images = write_svhn(tmp_path, zipped=zipped, unrelated={"a": "text"})
    train, test, _ = load_images("svhn", root=tmp_path)
    assert train.inputs.shape == (20, 3, 32, 32)
    assert train.inputs[4, 2, 10, 20] == images[10, 20, 2, 4]
    assert train.labels.tolist() == [*range(1, 10), 0] * 2  # the files write the digit 0 as 10
    assert np.array_equal(test.inputs.numpy(), images[..., 20:].transpose(3, 2, 0, 1))


@pytest.mark.parametrize(
    "changed",
    [
        {"X": np.zeros((32, 32, 3, 20))},
        {"X": np.zeros((32, 32, 3), np.uint8)},
        {"X": np.zeros((32, 30, 3, 20), np.uint8)},
        {"X": np.zeros((64, 64, 3, 20), np.uint8)},
        {"X": np.array([{"a": 1}], dtype=object)},
        {"y": np.zeros((7, 1), np.uint8)},
        {"y": np.full((20, 1), 11, np.uint8)},
        {"y": np.full((20, 1), 0.5)},
        {"y": np.array(["cat"] * 20, dtype=object)},
        {"y": {"a": 1}},
        {"y": "text"},
    ],
)
def test_matlab_files_that_are_not_svhn(changed: dict[str, Any], tmp_path: Path) -> None:
    write_svhn(tmp_path, **changed)
    with pytest.raises(BadData, match=r"train_32x32\.mat"):
        load_images("svhn", root=tmp_path)


def test_foreign_and_damaged_matlab_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_svhn(tmp_path)
    path = tmp_path / "train_32x32.mat"
    good = path.read_bytes()
    for raw in (
        b"",
        b"hello",
        good[:100],
        good[:200],
        good[: len(good) // 2],
        good[:-20],
        b"MATLAB 7.3 MAT" + good[14:],
    ):
        path.write_bytes(raw)
        if raw.startswith(b"MATLAB 7.3"):  # the text is free; the version field is what counts
            path.write_bytes(raw[:124] + b"\x00\x02" + raw[126:])
        with pytest.raises(BadData, match=r"train_32x32\.mat"):
            load_images("svhn", root=tmp_path)
    io.savemat(path, {"other": 1})
    with pytest.raises(BadData, match=r"train_32x32\.mat"):
        load_images("svhn", root=tmp_path)
    monkeypatch.setattr(svhn, "_MOST_BYTES", 1000)
    path.write_bytes(good)
    with pytest.raises(BadData, match="larger than the 1,000 bytes"):
        load_images("svhn", root=tmp_path)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_matlab_arrays_of_every_type(kind: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    wanted = RNG.integers(0, 100, (3, 4, 2)).astype(kind)
    content = {"a": wanted, "tiny": wanted[:1, :1, 0], "text": "skipped", "cells": np.array([wanted, 1], dtype=object)}
    io.savemat(path, content, do_compression=zipped)
    read = matlab.parse(path.read_bytes(), ("a", "tiny", "none"), most=10_000)
    assert read.keys() == {"a", "tiny"}
    assert np.array_equal(read["a"], wanted)
    assert np.array_equal(read["tiny"], wanted[:1, :1, 0])
    with pytest.raises(ValueError, match="not an array of real numbers"):
        matlab.parse(path.read_bytes(), ("text",), most=10_000)
    io.savemat(path, {"a": wanted * 1j}, do_compression=zipped)
    with pytest.raises(ValueError, match="not an array of real numbers"):
        matlab.parse(path.read_bytes(), ("a",), most=10_000)


def test_a_matlab_bomb_is_not_inflated(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    io.savemat(path, {"X": np.zeros(3_000_000, np.uint8)}, do_compression=True)
    with pytest.raises(ValueError, match=r"an array of 3,000,"):
        matlab.parse(path.read_bytes(), ("X",), most=100_000)
    # more data than the array announces
    inside = struct.pack("<II", 14, 0) + struct.pack("<IIIIIIIIIHHI", 6, 8, 9, 0, 5, 8, 1, 1, 0x10001, 88, 0, 0)
    packed = zlib.compress(inside + bytes(1_000_000))
    raw = path.read_bytes()[:128] + struct.pack("<II", 15, len(packed)) + packed
    with pytest.raises(ValueError, match=r"."):
        matlab.parse(raw, ("X",), most=100_000)


def damaged(raw: bytes, flips: list[tuple[int, int]]) -> bytes:
    changed = bytearray(raw)
    for position, value in flips:
        changed[position % len(raw)] = value
    return bytes(changed)


@given(st.booleans(), st.lists(st.tuples(st.integers(100, 400), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_damaged_matlab_bytes_give_arrays_or_a_value_error(zipped: bool, flips: list[tuple[int, int]]) -> None:
    file = BytesIO()
    io.savemat(file, {"X": np.arange(60, dtype=np.uint8).reshape(3, 4, 5), "y": [[1.5]]}, do_compression=zipped)
    with contextlib.suppress(ValueError):
        found = matlab.parse(damaged(file.getvalue(), flips), ("X", "y"), most=10_000)
        assert all(isinstance(array, np.ndarray) for array in found.values())


# The embedded miniature


def test_fashion_mini_is_balanced_distinct_and_licensed() -> None:
    train, test = fashion_mini.read_fashion_mini()
    _, _, classes = load_images("fashion-mini")
    assert train.inputs.shape == (20_000, 1, 28, 28)
    assert test.inputs.shape == (2_000, 1, 28, 28)
    assert train.labels.bincount().tolist() == [2_000] * 10
    assert test.labels.bincount().tolist() == [200] * 10
    assert len(train.digests() | test.digests()) == 22_000
    assert classes == idx.FASHION_CLASSES
    # what is known of Fashion-MNIST: mean 0.286, and trousers (1) are narrow while bags (8) are wide
    assert float(train.inputs.float().mean()) / 255 == pytest.approx(0.286, abs=0.005)
    left_edge = [float(train.inputs[train.labels == label, 0, :, :4].float().mean()) for label in (1, 8)]
    assert left_edge[0] < 5 < 30 < left_edge[1]

    folder = resources.files("heirmark.data").joinpath("embedded")
    assert sum(len(entry.read_bytes()) for entry in folder.iterdir() if entry.is_file()) < 12_000_000
    licence = folder.joinpath("LICENSE-fashion-mnist.txt").read_text("utf-8")
    assert "The MIT License" in licence
    assert "Zalando SE" in licence


def test_fashion_mini_task() -> None:
    task = load_task("fashion-mini", seed=3)
    assert [len(split) for split in task.splits.values()] == [9_000, 9_000, 2_000, 2_000]
    for split in task.splits.values():
        assert split.labels.bincount().tolist() == [len(split) // 10] * 10
    assert task.input_shape == (1, 28, 28)
    assert task.name == "fashion-mini"


def test_a_damaged_copy_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = bytearray(resources.files("heirmark.data").joinpath("embedded", fashion_mini.FILE).read_bytes())
    packed[1_000_000] ^= 1
    for raw in (bytes(packed), bytes(packed[:-1]), b""):
        with pytest.raises(BadData, match="install heirmark again"):
            fashion_mini.decode(raw)
    monkeypatch.setattr(fashion_mini, "FILE", "gone.xz")
    with pytest.raises(BadData, match="install heirmark again"):
        fashion_mini.read_fashion_mini()


def test_what_encode_packs_is_plain_xz() -> None:
    packed = fashion_mini.encode(train_images=b"cc", train_labels=b"a", test_images=b"dd", test_labels=b"b")
    assert lzma.decompress(packed, format=lzma.FORMAT_XZ) == b"abccdd"


@pytest.mark.slow
@pytest.mark.skipif(not idx.DEBIAN_FASHION.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_the_script_rebuilds_the_embedded_file_byte_for_byte(tmp_path: Path) -> None:
    script = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "make_fashion_mini.py"))
    target = tmp_path / fashion_mini.FILE
    script["main"](idx.DEBIAN_FASHION, target)
    assert target.read_bytes() == resources.files("heirmark.data").joinpath("embedded", fashion_mini.FILE).read_bytes()
    full, _, _ = load_images("fashion-mnist", root=tmp_path)
    assert load_images("fashion-mini")[0].digests() <= full.digests()


def test_a_task_can_bring_foreign_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Split(inputs=torch.zeros(3, 3, 8, 8, dtype=torch.uint8), labels=torch.tensor([0, 1, 0]))
    asked = Split(inputs=other.inputs[:1], labels=other.labels[:1])  # by thieves
    foreign = replace(DATASETS["svhn"], read=lambda root: (asked, other))
    plain = load_task("fashion-mini", seed=1)
    with pytest.raises(DataNotFound, match="train_32x32"):
        load_task("fashion-mini", foreign="svhn", root=tmp_path)
    monkeypatch.setitem(DATASETS, "svhn", foreign)
    task = load_task("fashion-mini", seed=1, foreign="svhn")
    assert plain.foreign is None
    assert task.foreign is other
    assert task.digest() == plain.digest()  # they are no part of it
    with pytest.raises(BadData, match="foreign images stand in test: take them from another data set"):
        load_task("fashion-mini", seed=1, foreign="fashion-mini")
