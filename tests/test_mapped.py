"""Data larger than memory: mapped files, folders that are named, batches that are read ahead."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import heirmark.tasks.mapped
import heirmark.training.batches
from heirmark.attacks import Knockoff
from heirmark.data import load_task
from heirmark.data.folders import read_folder
from heirmark.errors import BadConfig, BadData, DataNotFound, HeirmarkWarning
from heirmark.models import ModelSpec, build
from heirmark.querying.blackbox import BlackBox
from heirmark.runtime import Runtime
from heirmark.tasks.mapped import PARTS, open_array
from heirmark.tasks.splitting import make_task
from heirmark.tasks.task import Split, Task
from heirmark.training.batches import Batches, read_ahead
from heirmark.training.fitting import Recipe, fit

RECIPE = Recipe(epochs=2, batch_size=16, learning_rate=0.05, augment="crop-flip")


@pytest.fixture
def folder(tiny_task: Task, tmp_path: Path) -> Path:
    """The tiny task's images as arrays."""
    train = [tiny_task.owner, tiny_task.adversary, tiny_task.calibration]
    save(tmp_path / "tiny" / "train", torch.cat([s.inputs for s in train]), torch.cat([s.labels for s in train]))
    save(tmp_path / "tiny" / "test", tiny_task.test.inputs, tiny_task.test.labels)
    (tmp_path / "tiny" / "classes.txt").write_text("\n".join(tiny_task.classes))
    return tmp_path / "tiny"


def save(folder: Path, inputs: Tensor, labels: Tensor) -> None:
    folder.mkdir(parents=True)
    np.save(folder / "inputs.npy", inputs.numpy())
    np.save(folder / "labels.npy", labels.numpy())


def in_memory(task: Task) -> Task:
    splits = {role: Split(inputs=each.inputs.clone(), labels=each.labels) for role, each in task.splits.items()}
    return Task(name=task.name, classes=task.classes, **splits)


def trained(data: Split, cpu: Runtime) -> nn.Module:
    net = build("naivenet", input_shape=(1, 16, 16), classes=6, width=4, hidden=8)
    fit(net, data.inputs, data.labels, recipe=RECIPE, seed=0, runtime=cpu)
    return net


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(left, right) for left, right in pairs)


# ---------------------------------------------------------------- mapped splits


def test_mapped_data_give_what_the_same_data_in_memory_give(
    folder: Path, cpu: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heirmark.tasks.mapped, "COPIED", 1000)
    task = load_task(f"{folder}/", seed=3)
    train, test, classes = read_folder(folder)
    wanted = make_task("tiny", classes, in_memory_split(train), in_memory_split(test), seed=3)
    assert task.name == "tiny"
    assert task.digest() == wanted.digest()
    assert task.owner.source is not None
    assert task.owner.source.parent == folder / "train" / PARTS
    victim = trained(task.owner, cpu)
    assert same(victim, trained(wanted.owner, cpu))
    stolen = [
        Knockoff(model=build_tiny, recipe=RECIPE)(
            BlackBox(victim, classes=6, runtime=cpu), each.adversary, seed=0, runtime=cpu
        )
        for each in (task, wanted)
    ]
    assert same(stolen[0].model, stolen[1].model)


def in_memory_split(split: Split) -> Split:
    return Split(inputs=split.inputs.clone(), labels=split.labels)


def build_tiny(spec: ModelSpec) -> nn.Module:
    return build("naivenet", input_shape=(1, 16, 16), classes=spec.classes, width=4, hidden=8)


def test_a_large_part_is_written_once_and_a_small_one_is_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = read_folder(folder)[0]
    index = torch.arange(len(split)).flip(0)
    assert split.subset(index).source is None
    monkeypatch.setattr(heirmark.tasks.mapped, "COPIED", 1000)
    part = split.subset(index)
    assert torch.equal(part.inputs, split.inputs.flip(0))
    assert torch.equal(part.labels, split.labels.flip(0))
    (written,) = (folder / "train" / PARTS).iterdir()
    before = written.stat().st_mtime_ns
    split.subset(index)
    assert written.stat().st_mtime_ns == before
    part.subset(index[:100])
    assert {path.parent for path in folder.rglob("*.npy")} == {
        folder / "train",
        folder / "test",
        folder / "train" / PARTS,
    }
    (folder / "train" / "inputs.npy").touch()
    again = read_folder(folder)[0].subset(index)
    assert again.source != part.source, "a file that has changed has parts of its own"
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heirmark.tasks.mapped, "COPIED", 1000)
    split = read_folder(folder)[0]
    (folder / "train").chmod(0o500)
    with pytest.raises(BadData, match="cannot be written"):
        split.subset(torch.arange(len(split)))
    (folder / "train").chmod(0o700)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 2), np.float64), r"array of float64 \[4, 2\]: save inputs"),
        (np.zeros(4, np.uint8), r"uint8 \[4\]: save"),
        (np.asfortranarray(np.zeros((4, 3), np.uint8)), "in C order"),
        (np.array([{}], dtype=object), "cannot be mapped"),
        (np.full((2, 3), 1.5, np.float32), r"leave \[0, 1\]"),
    ],
)
def test_files_that_hold_something_else_are_refused(array: np.ndarray, words: str, tmp_path: Path) -> None:
    path = tmp_path / "inputs.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(BadData, match=words):
        Split.from_file(path, torch.zeros(len(array), dtype=torch.long))


@pytest.mark.parametrize("header", [b"(5, 3)", b"(9**9*", b"(((((("])
def test_a_damaged_header_is_told(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "inputs.npy"
    np.save(path, np.zeros((5, 3), np.uint8))
    path.write_bytes(path.read_bytes().replace(b"(5, 3)", header)[:-1])
    with pytest.raises(BadData, match="cannot be mapped"):
        open_array(path)


def test_an_archive_of_arrays_is_no_array(tmp_path: Path) -> None:
    path = tmp_path / "inputs.npz"
    np.savez(path, np.zeros((5, 3), np.uint8))
    for content in (path.read_bytes(), path.read_bytes()[:60]):
        path.write_bytes(content)
        with pytest.raises(BadData, match="cannot be mapped"):
            open_array(path)


@given(content=st.binary(max_size=300) | st.binary(max_size=200).map(b"\x93NUMPY\x01\x00".__add__))
def test_no_bytes_end_in_anything_but_an_error_of_ours(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "inputs.npy"
    path.write_bytes(content)
    with pytest.raises(BadData, match=r"cannot be mapped|save inputs"):
        open_array(path)


# ---------------------------------------------------------------- folders of images


def test_images_are_packed_once(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5, 6, 3), np.uint8)
    folder = tmp_path / "photos"
    for part, parts in zip(("train", "test"), pixels, strict=True):
        for name, images in zip(("cat", "ant", "bee"), parts, strict=True):
            (folder / part / name).mkdir(parents=True)
            for number, one in enumerate(images):
                image.fromarray(one).save(folder / part / name / f"{number}.png")
    train, test, classes = read_folder(folder)
    assert classes == ("ant", "bee", "cat")
    assert torch.equal(train.inputs, torch.from_numpy(pixels[0][[1, 2, 0]].reshape(-1, 5, 6, 3)).permute(0, 3, 1, 2))
    assert train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert len(test) == 12
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*.npy")}
    read_folder(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.npy")} == written
    image.fromarray(255 - pixels[0, 0, 0]).save(folder / "train" / "cat" / "0.png")
    assert torch.equal(read_folder(folder)[0].inputs[8], 255 - train.inputs[8]), "what has changed is packed again"
    (folder / "train" / "cat" / "1.png").write_bytes(b"no image")
    with pytest.raises(BadData, match=r"1\.png is no image"):
        read_folder(folder)


def paint(folder: Path, name: str, sizes: list[tuple[int, int]], *, grey: bool = True, start: int = 0) -> None:
    """Images that differ, of heights and widths, as a class of a folder."""
    image = pytest.importorskip("PIL.Image")
    drawn = np.random.default_rng(start)
    (folder / name).mkdir(parents=True)
    for number, size in enumerate(sizes):
        pixels = drawn.integers(0, 256, size if grey else (*size, 3), np.uint8)
        image.fromarray(pixels).save(folder / name / f"{number:02}.png")


def test_images_of_any_size_are_brought_to_the_usual_one(tmp_path: Path) -> None:
    paint(tmp_path / "train", "a", [(6, 4), (6, 4), (6, 4), (12, 20), (5, 4)])
    paint(tmp_path / "train", "b", [(6, 4)], grey=False, start=1)
    paint(tmp_path / "test", "a", [(9, 9)], start=2)
    with pytest.warns(
        HeirmarkWarning, match=r"of 4 sizes are resized and cropped to 6x4, which 4 of 7 have: write size"
    ):
        train, test, _ = read_folder(tmp_path)
    assert train.inputs.shape == (6, 3, 6, 4)
    assert test.inputs.shape == (1, 3, 6, 4)
    first = np.random.default_rng(0).integers(0, 256, (6, 4), np.uint8)
    assert torch.equal(train.inputs[0, 1], torch.from_numpy(first)), "what has the size stays as it is"
    (tmp_path / "heirmark.toml").write_text("size = 8")
    assert read_folder(tmp_path)[0].inputs.shape == (6, 3, 8, 8), "what was chosen is no news"


def test_the_centre_of_an_image_is_kept(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    stripes = np.zeros((10, 30), np.uint8)
    stripes[:, 10:20] = 255
    for part in ("train", "test"):
        (tmp_path / part / "a").mkdir(parents=True)
        image.fromarray(stripes).save(tmp_path / part / "a" / "0.png")
    (tmp_path / "heirmark.toml").write_text("size = [5, 5]")
    assert int(read_folder(tmp_path)[0].inputs[:, :, :, 1:-1].min()) > 250


def test_many_classes_with_few_images_are_shared_out_by_themselves(tmp_path: Path) -> None:
    for number in range(12):
        paint(tmp_path, f"person {number}", [(4, 4)] * 10, start=number)
    task = load_task(f"{tmp_path}/", seed=3)
    counts = {role: set(split.labels.bincount(minlength=12).tolist()) for role, split in task.splits.items()}
    assert counts == {"owner": {3}, "adversary": {3}, "calibration": {2}, "test": {2}}
    assert load_task(f"{tmp_path}/", seed=4).test.digest() == task.test.digest(), (
        "the test split is a fact of the folder"
    )
    (tmp_path / "heirmark.toml").write_text("test = 0.4")
    assert len(load_task(f"{tmp_path}/").test) == 48
    paint(tmp_path, "stranger", [(4, 4)] * 3, start=99)
    with pytest.raises(BadData, match=r"class 'stranger' has 3 images.*give it 8 at least, or take its folder away"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("size = [0, 4]", r"size = \[0, 4\]: write \[HEIGHT, WIDTH\]"),
        ("size = true", "says size = True"),
        ("size = [4]", r"\[HEIGHT, WIDTH\]"),
        ("test = 1.5", "above 0 and below 1"),
        ("sise = 4", "no option of a folder of images: choose from size and test"),
        ("size =", "cannot be read"),
    ],
)
def test_options_that_make_no_sense_are_refused(text: str, words: str, tmp_path: Path) -> None:
    paint(tmp_path, "a", [(4, 4)] * 8)
    (tmp_path / "heirmark.toml").write_text(text)
    with pytest.raises(BadConfig, match=words):
        read_folder(tmp_path)


def test_a_folder_without_data_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"train/inputs\.npy.*train/CLASS"):
        load_task(str(tmp_path))
    with pytest.raises(BadConfig, match=r"name a folder with a slash, as \./photos"):
        load_task("photos")


# ---------------------------------------------------------------- batches


def test_batches_read_ahead_are_those_that_were_asked_for() -> None:
    inputs = torch.arange(60, dtype=torch.uint8).view(20, 3)
    for size, count in ((1, 1), (4, 2), (4, 5), (3, 6)):
        order = torch.randperm(20)[: size * count]
        got = list(read_ahead(inputs, order, size, torch.device("cpu")))
        assert [batch.tolist() for batch in got] == [inputs[chunk].tolist() for chunk in order.split(size)]


def test_what_goes_wrong_while_reading_ahead_is_told() -> None:
    with pytest.raises(IndexError):
        list(read_ahead(torch.zeros(3, 2), torch.tensor([0, 1, 7, 8]), 2, torch.device("cpu")))


def test_training_is_the_same_when_data_do_not_fit_the_device(
    tiny_task: Task, cpu: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = trained(tiny_task.owner, cpu)
    monkeypatch.setattr(heirmark.training.batches, "fits", lambda inputs, device: False)
    assert same(trained(tiny_task.owner, cpu), wanted)
    batches = Batches(tiny_task.owner.inputs, torch.device("cpu"))
    chosen = torch.tensor([3, 1])
    assert torch.equal(batches[chosen], tiny_task.owner.inputs[chosen]), "also when nothing was announced"


# ---------------------------------------------------------------- memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_data_larger_than_the_memory_allowed_train_and_are_stolen_from(tmp_path: Path) -> None:
    """In a process of its own, whose memory (without what is mapped) may grow by less than half of what the data take."""
    code = textwrap.dedent(
        """
        import sys, threading, time
        from pathlib import Path
        import numpy as np, torch
        from torch import nn
        from heirmark.querying.asking import predict
        from heirmark.attacks import Knockoff
        from heirmark.querying.blackbox import BlackBox
        from heirmark.data import load_task
        from heirmark.runtime import Runtime
        from heirmark.training.fitting import Recipe, fit

        def anonymous():
            line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("RssAnon"))
            return int(line.split()[1]) * 1024

        def make(spec):
            return nn.Sequential(nn.AvgPool2d(32), nn.Flatten(), nn.Linear(64, spec.classes))

        class Spec:
            classes = 2

        cpu, recipe = Runtime(device="cpu", precision="float32"), Recipe(epochs=1, batch_size=16, learning_rate=0.01)
        fit(make(Spec), torch.rand(32, 1, 256, 256), torch.arange(32) % 2, recipe=recipe, seed=0, runtime=cpu)
        start, peak, ended = anonymous(), [0], threading.Event()

        def watch():
            while not ended.wait(0.002):
                peak[0] = max(peak[0], anonymous())

        watcher = threading.Thread(target=watch)
        watcher.start()
        task = load_task(sys.argv[1] + "/")
        task.digest()
        victim = make(Spec)
        fit(victim, task.owner.inputs, task.owner.labels, recipe=recipe, seed=0, runtime=cpu)
        predict(victim, task.adversary.inputs, runtime=cpu)
        box = BlackBox(victim, classes=2, runtime=cpu)
        stolen = Knockoff(model=make, recipe=recipe)(box, task.adversary, seed=0, runtime=cpu)
        ended.set()
        watcher.join()
        print(box.queries_used, max(peak[0], anonymous()) - start)
        """
    )
    folder, count = tmp_path / "large", 2000
    for part, rows in (("train", count), ("test", 50)):
        (folder / part).mkdir(parents=True)
        array = np.lib.format.open_memmap(
            folder / part / "inputs.npy", mode="w+", dtype=np.uint8, shape=(rows, 1, 256, 256)
        )
        draw = np.random.default_rng(rows)
        for start in range(0, rows, 50):
            array[start : start + 50] = draw.integers(0, 256, (50, 1, 256, 256), np.uint8)
        array.flush()
        del array
        np.save(folder / part / "labels.npy", np.arange(rows) % 2)
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        # What is freed goes back to the system at once, so that only what is held counts.
        env=os.environ | dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), "131072"),
    )
    assert done.returncode == 0, done.stderr
    queries, grown = map(int, done.stdout.split())
    assert queries == round(0.45 * count)
    assert grown < count * 256 * 256 / 2
