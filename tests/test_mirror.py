"""Stores under URLs: what one machine computed another fetches, whole and checked, or computes itself."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from heirmark.errors import BadConfig
from heirmark.stages.mirror import UrlMirror, open_store
from heirmark.stages.stage import Job, Stage
from heirmark.stages.store import Event, Store

fsspec = pytest.importorskip("fsspec")

RAN: list[str] = []


def write_word(job: Job) -> Mapping[str, int]:
    """Write a few files; what it read comes first."""
    before = "".join((item.folder / "deep/word.txt").read_text() for item in job.inputs.values())
    RAN.append(job.config)
    (job.folder / "deep").mkdir()
    (job.folder / "deep/word.txt").write_text(f"{before}{job.config}")
    (job.folder / "other.bin").write_bytes(bytes(1000))
    return {"letters": len(job.config)}


FIRST = Stage(kind="first", run=write_word, config="ab")
SECOND = Stage(kind="second", run=write_word, config="cd", inputs={"first": FIRST})


class Machine:
    """A store of its own under a URL, and what it told."""

    def __init__(self, url: str, cache: Path) -> None:
        self.events: list[Event] = []
        self.store = open_store(url, cache, on_event=self.events.append)

    def said(self, *kinds: str) -> list[tuple[str, str]]:
        return [(event.what, event.name.partition("/")[0]) for event in self.events if event.what in kinds]


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    RAN.clear()
    if request.param == "file":
        yield f"file://{tmp_path}/shared"
        return
    yield "memory://bucket/folder"
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def paths(url: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(url)
    found = sorted(str(path).removeprefix(root).lstrip("/") for path in files.find(root))
    return [path for path in found if path != ".heirmark"]


def rewrite(url: str, stage: Stage, file: str, content: bytes | None) -> None:
    files, root = fsspec.core.url_to_fs(url)
    path = f"{root}/{stage.name}/{file}"
    files.rm_file(path) if content is None else files.pipe_file(path, content)


def read(url: str, stage: Stage, file: str) -> bytes:
    files, root = fsspec.core.url_to_fs(url)
    return bytes(files.cat_file(f"{root}/{stage.name}/{file}"))


def test_what_one_machine_computed_another_fetches(url: str, tmp_path: Path) -> None:
    one, two = Machine(url, tmp_path / "one"), Machine(url, tmp_path / "two")
    made = one.store.get(SECOND)
    assert len(paths(url)) == 6
    again = two.store.get(SECOND)
    assert RAN == ["ab", "cd"]
    assert again.record == made.record
    assert (again.folder / "deep/word.txt").read_text() == "abcd"
    assert two.said("started", "damaged") == []
    assert two.store.root / SECOND.name == again.folder
    assert not (two.store.root / FIRST.name).exists(), "what is not needed is not fetched"
    assert not list((two.store.root / ".partial").iterdir())


def test_a_plain_store_reads_the_shared_folder(tmp_path: Path) -> None:
    Machine(f"file://{tmp_path}/shared", tmp_path / "one").store.get(SECOND)
    assert Store(tmp_path / "shared").find(SECOND) is not None


def test_half_an_upload_is_no_artifact(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, _ = fsspec.core.url_to_fs(url)
    put = type(files).put_file

    def break_off(self: object, path: str, there: str, **options: object) -> None:
        if path.endswith("record.json"):
            raise ConnectionError("the line is dead")
        put(self, path, there, **options)

    one = Machine(url, tmp_path / "one")
    monkeypatch.setattr(type(files), "put_file", break_off)
    with pytest.raises(BadConfig, match=r"cannot be written \(ConnectionError: the line is dead\): check its address"):
        one.store.get(FIRST)
    assert paths(url) == [f"{FIRST.name}/deep/word.txt", f"{FIRST.name}/other.bin"]
    monkeypatch.undo()
    assert Machine(url, tmp_path / "two").store.find(FIRST) is None
    # What was computed is not lost, and is copied when it is next looked at.
    assert Machine(url, tmp_path / "one").store.find(FIRST) is not None
    assert RAN == ["ab"]
    assert Machine(url, tmp_path / "two").store.find(FIRST) is not None


@pytest.mark.parametrize(
    ("file", "content"),
    [("deep/word.txt", b"xy"), ("deep/word.txt", b"longer"), ("other.bin", None), ("record.json", b'{"files": ')],
)
def test_what_is_damaged_there_is_told_computed_and_replaced(
    url: str, tmp_path: Path, file: str, content: bytes | None
) -> None:
    Machine(url, tmp_path / "one").store.get(FIRST)
    rewrite(url, FIRST, file, content)
    two = Machine(url, tmp_path / "two")
    two.store.get(FIRST)
    assert RAN == ["ab", "ab"]
    assert two.said("damaged", "started", "finished") == [
        ("damaged", "first"), ("started", "first"), ("finished", "first")
    ]  # fmt: skip
    three = Machine(url, tmp_path / "three")
    three.store.get(FIRST)
    assert three.said("damaged", "started") == []


@pytest.mark.parametrize("name", ["../../outside", "/outside", "record.json"])
def test_a_record_that_names_files_elsewhere_is_refused(url: str, tmp_path: Path, name: str) -> None:
    Machine(url, tmp_path / "one").store.get(FIRST)
    record = json.loads(read(url, FIRST, "record.json"))
    record["files"][name] = {"size": 3, "sha256": ""}
    rewrite(url, FIRST, "record.json", json.dumps(record).encode())
    two = Machine(url, tmp_path / "cache/two")
    assert two.store.find(FIRST) is None
    assert two.said("damaged") == [("damaged", "first")]
    assert not (tmp_path / "cache/outside").exists()


def test_no_more_is_fetched_than_the_record_says(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(url, tmp_path / "one").store.get(FIRST)
    rewrite(url, FIRST, "other.bin", bytes(10_000_000))
    two = Machine(url, tmp_path / "two")
    assert two.store.find(FIRST) is None
    (aside,) = (two.store.root / ".damaged").iterdir()
    assert (aside / "other.bin").stat().st_size == 1001
    monkeypatch.setattr("heirmark.stages.mirror.MAX_ARTIFACT", 100)
    assert Machine(url, tmp_path / "three").store.find(FIRST) is None


@pytest.mark.parametrize("cached", [False, True])
def test_what_descends_from_an_earlier_copy_is_computed_again_once(url: str, tmp_path: Path, cached: bool) -> None:
    third = Stage(kind="third", run=write_word, config="ef", inputs={"first": FIRST, "second": SECOND})
    one = Machine(url, tmp_path / "one")
    one.store.get(SECOND)
    # As if a graphics card had computed the first stage again, with another result, on a second machine.
    other = Store(tmp_path / "two").get(Stage(kind="first", run=write_word, config="ab"))
    word = other.folder / "deep/word.txt"
    assert word.read_text() == "ab"
    import hashlib

    from heirmark.configuration import canonical_json
    from heirmark.stages.records import seal_of

    word.write_text("zz")
    record = dict(other.record)
    record["files"]["deep/word.txt"]["sha256"] = hashlib.sha256(b"zz").hexdigest()
    told = {"files": record["files"], "summary": record["summary"]}
    record["content"] = hashlib.sha256(canonical_json(told)).hexdigest()
    (other.folder / "record.json").write_text(json.dumps(record | {"seal": seal_of(record)}))
    if cached:
        shutil.copytree(one.store.root / SECOND.name, tmp_path / "two" / SECOND.name)
    RAN.clear()
    two = Machine(url, tmp_path / "two")
    made = two.store.get(third)
    assert (made.folder / "deep/word.txt").read_text() == "zzzzcdef"
    assert RAN == ["cd", "ef"]
    assert two.said("stale") == [("stale", "second")] * (1 + cached)
    assert read(url, SECOND, "deep/word.txt") == b"zzcd"


def test_places_are_folders_or_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_store(None, tmp_path / "a").root == tmp_path / "a"
    plain = open_store(str(tmp_path / "b"), tmp_path / "a")
    assert plain.root == tmp_path / "b"
    assert plain.mirror is None
    with pytest.raises(BadConfig, match="the store nothing://here cannot be reached"):
        UrlMirror("nothing://user:secret@here")
    (tmp_path / "file").touch()
    with pytest.raises(BadConfig, match=r"cannot be written \(NotADirectoryError"):
        UrlMirror(f"file://{tmp_path}/file/below")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(BadConfig, match=r"pip install \"heirmark\[fsspec\]\""):
        UrlMirror("memory://x")
