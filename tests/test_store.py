"""Stages and their store: identity, resumption, damage, races, failures."""

from __future__ import annotations

import dataclasses
import errno
import importlib
import inspect
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from heirmark.errors import BadArtifact, BadConfig
from heirmark.stages import Artifact, Event, Job, Stage, Store, lineage
from heirmark.stages import store as store_module
from heirmark.stages.code_version import code_digests, code_version


@dataclass(frozen=True, kw_only=True)
class Sum:
    add: int = 1
    rate: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Other:
    add: int = 1
    rate: float = 0.5


def total(job: Job) -> Mapping[str, Any]:
    """Adds its inputs, and tells its context that it ran."""
    if callable(job.context):
        job.context(job)
    add = job.config.add if isinstance(job.config, Sum) else 0
    value = add + sum(int((item.folder / "deep" / "total.txt").read_text()) for item in job.inputs.values())
    (job.folder / "deep").mkdir()
    (job.folder / "deep" / "total.txt").write_text(str(value))
    (job.folder / "empty.bin").touch()
    return {"total": value, "seed": job.seed}


def random_bytes(job: Job) -> Mapping[str, Any]:
    """Not deterministic: says which random bytes it, or its input, drew."""
    job.context(job)
    parts = {name: (item.folder / "bytes").read_bytes() for name, item in job.inputs.items()}
    if len(parts) == 2:
        assert parts["near"] == parts["far"], "inputs from two copies of one ancestor"
    (job.folder / "bytes").write_bytes(next(iter(parts.values()), os.urandom(8)))
    return {}


def misbehave(job: Job) -> Mapping[str, Any]:
    """Does what its context says."""
    (job.folder / "half.bin").write_bytes(b"half")
    return job.context(job)  # type: ignore[no-any-return]


def same(job: Job) -> Mapping[str, Any]:
    """Same."""
    return {}


def stage(kind: str = "sum", run: Callable[[Job], Mapping[str, Any]] = total, **changes: Any) -> Stage:
    return Stage(kind=kind, run=run, **({"config": Sum()} | changes))


def diamond() -> dict[str, Stage]:
    base = stage("base", config=Sum(add=3), seed=5)
    left, right = stage("left", inputs={"base": base}), stage("right", inputs={"base": base}, seed=1)
    return {"base": base, "left": left, "right": right, "top": stage("top", inputs={"a": left, "b": right})}


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def store(tmp_path: Path, events: list[Event]) -> Store:
    return Store(tmp_path / "store", on_event=events.append)


def said(events: list[Event]) -> list[str]:
    words = [f"{event.what} {event.name.partition('/')[0]}" for event in events]
    events.clear()
    return words


def leftovers(store: Store) -> list[Path]:
    return list((store.root / ".partial").iterdir())


# Identity


def test_identity_is_stable() -> None:
    one, two = stage(inputs={"x": stage(seed=2)}), stage(inputs={"x": stage(seed=2)})
    assert one.identity == two.identity == pickle.loads(pickle.dumps(one)).identity
    assert re.fullmatch(r"sum/[0-9a-f]{16}", one.name)
    assert stage(config=Sum(rate=1)).identity == stage(config=Sum(rate=1.0)).identity
    assert stage(config={"a": (1, 2), "b": 2}).identity == stage(config={"b": 2, "a": [1, 2]}).identity


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "sums"},
        {"run": same},
        {"config": Sum(add=2)},
        {"config": Other()},
        {"config": None},
        {"seed": 1},
        {"external": {"precision": "bfloat16"}},
        {"inputs": {}},
        {"inputs": {"y": stage(seed=2)}},
        {"inputs": {"x": stage(seed=3)}},
        {"inputs": {"x": stage(seed=2), "y": stage(seed=2)}},
    ],
)
def test_identity_tells_everything_apart(changes: dict[str, Any]) -> None:
    plain = {"inputs": {"x": stage(seed=2)}, "external": {"precision": "float32"}}
    assert stage(**plain).identity != stage(**(plain | changes)).identity


def nested() -> Any:
    return lambda job: {}


class Holder:
    @staticmethod
    def method(job: Job) -> Mapping[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"kind": "Sum"}, "lower-case"),
        ({"kind": "../sum"}, "lower-case"),
        ({"run": nested()}, "defined in a module"),
        ({"run": Holder.method}, "top level"),
        ({"config": Path("x")}, "no place"),
        ({"config": {"x": float("nan")}}, "finite"),
    ],
)
def test_what_has_no_identity_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadConfig, match=complaint):
        stage(**changes)


def test_function_without_a_file_is_refused() -> None:
    namespace: dict[str, Any] = {"__name__": "no_such_module"}
    exec("def run(job): return {}", namespace)
    with pytest.raises(BadConfig, match="no source file"):
        stage(run=namespace["run"])


def test_lineage_has_inputs_first_and_each_once() -> None:
    stages = diamond()
    kinds = [each.kind for each in lineage(stages["top"], stages["left"], diamond()["right"])]
    assert kinds == ["base", "left", "right", "top"]


# Code version


PACKAGE = {
    "__init__.py": "from .methods import first, second\nfrom .deep.numbers import scale\n",
    "stages.py": '''
        """Stages."""
        from __future__ import annotations
        from typing import TYPE_CHECKING
        from dataclasses import dataclass
        from PACKAGE import scale  # passed on by the package
        from .helpers import finish as end
        if TYPE_CHECKING:
            from .typing_only import Thing

        LIMIT = 3

        def run(job):
            """Runs."""
            from PACKAGE.lazy import late
            return end(scale(late(_inner(job))))

        def _inner(job):
            return LIMIT

        def neighbour(job):
            from .unrelated import more
            return _beside(more)

        def _beside(more):
            return more
        ''',
    "helpers.py": "import PACKAGE.tables\n\ndef finish(x):\n    return PACKAGE.tables.T[x]\n",
    "tables.py": "T = {0: 1}\n",
    "lazy.py": "from . import tables\n\ndef late(x):\n    # comment\n    return x\n",
    "typing_only.py": "class Thing:\n    size = 1\n",
    "unrelated.py": "more = 1\n",
    "deep/__init__.py": "",
    "deep/numbers.py": '"""Numbers."""\nFACTOR = 2\n"""Of scale."""\n\ndef scale(x):\n    return FACTOR * x\n',
    "methods/__init__.py": "from .first import First\nfrom .second import Second\nTABLE = {1: First, 2: Second}\n",
    "methods/base.py": "class Base:\n    x = 1\n",
    "methods/first.py": """
        from dataclasses import dataclass
        from .base import Base

        @dataclass(frozen=True)
        class First(Base):
            a: int = 1
        """,
    "methods/second.py": """
        from dataclasses import dataclass

        @dataclass(frozen=True)
        class Second:
            a: int = 1
        """,
}


class Package:
    """A throw-away package that can be edited and imported anew."""

    count = 0

    def __init__(self, root: Path) -> None:
        Package.count += 1
        self.name = f"throwaway{Package.count}"
        self.folder = root / self.name
        for path, text in PACKAGE.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_text(textwrap.dedent(text).replace("PACKAGE", self.name))

    def edit(self, path: str, old: str, new: str) -> None:
        text = (self.folder / path).read_text()
        old, new = (part.replace("PACKAGE", self.name) for part in (old, new))
        assert text.count(old) == 1
        (self.folder / path).write_text(text.replace(old, new))

    def forget(self) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == self.name]:
            del sys.modules[name]
        importlib.invalidate_caches()

    def identity(self, function: str = "run", method: str = "First") -> str:
        self.forget()
        return self.stage(function, method).identity

    def stage(self, function: str = "run", method: str = "First") -> Stage:
        stages = importlib.import_module(f"{self.name}.stages")
        methods = importlib.import_module(f"{self.name}.methods")
        return Stage(kind="test", run=getattr(stages, function), config={"method": getattr(methods, method)()})


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(tmp_path))
    package = Package(tmp_path)
    yield package
    package.forget()


def test_code_that_counts(package: Package) -> None:
    found = package.stage().code
    names = ["deep.numbers", "helpers", "lazy", "methods.base", "methods.first", "stages", "tables"]
    # "import package.tables" also gives the package itself, and with it all that it passes on.
    assert {f"{package.name}.{name}" for name in names} < set(found)
    assert f"{package.name}.unrelated" not in found
    package.edit("helpers.py", "import PACKAGE.tables", "import PACKAGE.tables as tables")
    package.edit("helpers.py", "return PACKAGE.tables", "return tables")
    package.forget()
    assert set(package.stage().code) == {f"{package.name}.{name}" for name in names}


def leaner(package: Package) -> None:
    package.edit("helpers.py", "import PACKAGE.tables", "from PACKAGE import tables")
    package.edit("helpers.py", "return PACKAGE.tables", "return tables")


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("stages.py", "LIMIT = 3", "LIMIT = 4"),
        ("stages.py", "return LIMIT", "return LIMIT + 1"),
        ("stages.py", "return end(", "return 2 * end("),
        ("helpers.py", "[x]", "[x + 1]"),
        ("tables.py", "{0: 1}", "{0: 2}"),
        ("lazy.py", "return x", "return -x"),
        ("deep/numbers.py", "FACTOR = 2", "FACTOR = 3"),
        ("methods/first.py", "a: int = 1", "a: int = 2"),
        ("methods/base.py", "x = 1", "x = 2"),
        ("__init__.py", ".deep.numbers import scale", ".unrelated import more as scale"),
    ],
)
def test_edits_that_change_the_identity(package: Package, path: str, old: str, new: str) -> None:
    leaner(package)
    before = package.identity()
    package.edit(path, old, new)
    assert package.identity() != before


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("stages.py", '"""Runs."""', '"""Walks."""'),
        ("stages.py", '"""Runs."""', ""),
        ("stages.py", "LIMIT = 3", "LIMIT   =  3  # three"),
        ("stages.py", "import Thing", "import Thing, Other"),
        ("stages.py", "return more", "return 2 * more"),
        ("stages.py", "return _beside(more)", "return _beside(more + 1)"),
        ("lazy.py", "# comment", "\n    # another\n"),
        ("typing_only.py", "size = 1", "size = 2"),
        ("unrelated.py", "more = 1", "more = 2"),
        ("deep/numbers.py", '"""Of scale."""', '"""Of the scale."""'),
        ("methods/second.py", "a: int = 1", "a: int = 2"),
        ("methods/__init__.py", "TABLE = {1: First, 2: Second}", "TABLE = {}"),
        ("__init__.py", "first, second", "second, first"),
    ],
)
def test_edits_that_do_not(package: Package, path: str, old: str, new: str) -> None:
    leaner(package)
    before = package.identity()
    package.edit(path, old, new)
    assert package.identity() == before


def test_each_method_has_a_version_of_its_own(package: Package) -> None:
    leaner(package)
    first, second = package.identity(method="First"), package.identity(method="Second")
    package.edit("methods/second.py", "a: int = 1", "a: int = 2")
    assert package.identity(method="First") == first
    assert package.identity(method="Second") != second


def test_functions_in_a_configuration_count(package: Package) -> None:
    def identity() -> str:
        package.forget()
        return Stage(kind="test", run=same, config=importlib.import_module(f"{package.name}.lazy").late).identity

    before = identity()
    package.edit("unrelated.py", "more = 1", "more = 2")
    assert identity() == before
    package.edit("lazy.py", "return x", "return -x")
    assert identity() != before


def test_registering_decorators_and_stars_count(package: Package) -> None:
    before = package.identity()
    package.edit("stages.py", "def neighbour", "@print\ndef neighbour")
    decorated = package.identity()
    assert decorated != before
    package.edit("unrelated.py", "more = 1", "more = 2")
    assert package.identity() != decorated
    package.edit("lazy.py", "from . import tables", "from .typing_only import *")
    star = package.identity()
    package.edit("typing_only.py", "size = 1", "size = 2")
    assert package.identity() != star


def test_running_code_keeps_its_version_until_it_is_imported_again(package: Package) -> None:
    before = package.stage().identity
    package.edit("lazy.py", "return x", "return -x")  # not imported yet, so the new text is what would run
    lazy = package.stage().identity
    assert lazy != before
    package.edit("stages.py", "LIMIT = 3", "LIMIT = 4")  # imported: this process runs the old text
    assert package.stage().identity == lazy
    importlib.reload(sys.modules[f"{package.name}.stages"])
    assert package.stage().identity != lazy


def test_code_version_is_one_digest_and_ignores_the_machinery() -> None:
    assert code_version(total, Sum()) == code_version(total, (Sum(), Sum(add=2)))
    assert re.fullmatch("[0-9a-f]{64}", code_version(total))
    # Of what this module imports, its tables (which always count) name the errors; the pipeline itself never counts.
    assert set(code_digests(test_lineage_has_inputs_first_and_each_once)) == {__name__, "heirmark.errors"}


# The store


def test_get_computes_once_and_records(store: Store, events: list[Event]) -> None:
    stages, ran = diamond(), []
    artifact = store.get(stages["top"], ran.append)
    assert [job.seed for job in ran] == [5, 0, 1, 0]
    assert (artifact.folder / "deep" / "total.txt").read_text() == "9"
    assert artifact.summary == {"total": 9, "seed": 0}
    assert artifact.folder == store.root / stages["top"].name
    assert artifact.record["identity"] == stages["top"].identity
    assert artifact.record == json.loads((artifact.folder / "record.json").read_text())
    assert artifact.record["config"] == {"type": "Sum", "add": 1, "rate": 0.5}
    assert artifact.record["inputs"] == {"a": stages["left"].identity, "b": stages["right"].identity}
    assert set(artifact.record["lineage"]) == {stages[kind].name for kind in ("base", "left", "right")}
    assert set(artifact.record["files"]) == {"deep/total.txt", "empty.bin"}
    assert artifact.record["started"] <= artifact.record["finished"]
    assert artifact.record["started"].endswith("+00:00")
    assert artifact.record["versions"]["python"]
    assert ran[-1].inputs["a"] == store.find(stages["left"])
    assert not leftovers(store)
    words = ["started base", "finished base", "started left", "finished left", "started right", "finished right"]
    assert said(events) == [*words, "started top", "finished top"]
    again = Store(store.root, on_event=events.append).get(diamond()["top"], ran.append)
    assert again == artifact
    assert said(events) == ["cached top"]
    assert len(ran) == 4


def test_reused_inputs_are_told_once(store: Store, events: list[Event]) -> None:
    stages = diamond()
    store.get(stages["left"])
    said(events)
    store.get(stages["top"])
    assert said(events) == [
        "cached left",
        "cached base",
        "started right",
        "finished right",
        "started top",
        "finished top",
    ]
    shutil.rmtree(store.root / "base")
    store.get(stages["top"])
    assert said(events) == ["cached top"]


def test_find_computes_nothing(store: Store) -> None:
    assert store.find(stage()) is None
    assert not store.root.exists()


def test_long_chains_need_no_recursion(store: Store) -> None:
    chain = stage("link")
    for _ in range(50):
        chain = stage("link", inputs={"previous": chain})
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 40)
    try:
        assert store.get(chain).summary["total"] == 51
    finally:
        sys.setrecursionlimit(limit)
    assert len(lineage(chain)) == 51


def write_link(job: Job) -> Mapping[str, Any]:
    (job.folder / "link").symlink_to("/etc/passwd")
    return {}


def fail(error: BaseException) -> Callable[[Job], Mapping[str, Any]]:
    def run(job: Job) -> Mapping[str, Any]:
        raise error

    return run


def write_record(job: Job) -> Mapping[str, Any]:
    (job.folder / "record.json").touch()
    return {}


FAILURES: dict[str, tuple[Callable[[Job], Any], type[BaseException]]] = {
    "error": (fail(ValueError("bad luck")), ValueError),
    "interrupt": (fail(KeyboardInterrupt()), KeyboardInterrupt),
    "exit": (fail(SystemExit(3)), SystemExit),
    "disk full": (fail(OSError(errno.ENOSPC, "No space left on device")), OSError),
    "link": (write_link, BadArtifact),
    "record": (write_record, BadArtifact),
    "nan": (lambda job: {"loss": float("nan")}, BadConfig),
    "nothing": (lambda job: None, BadConfig),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures_leave_nothing_behind(name: str, store: Store, events: list[Event]) -> None:
    action, error = FAILURES[name]
    work = Stage(kind="work", run=misbehave, inputs={"x": Stage(kind="base", run=same)})
    with pytest.raises(error) as caught:
        store.get(work, action)
    assert caught.value.__notes__ == [f"in stage {work.name}"]
    assert said(events) == ["started base", "finished base", "started work", "failed work"]
    assert not leftovers(store)
    assert store.find(work) is None
    assert store.get(work, lambda job: {"fine": True}).summary == {"fine": True}
    assert said(events) == ["cached base", "started work", "finished work"]


def test_disk_full_while_the_store_writes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("os.fsync", "os.replace", "json.dump"):
        with monkeypatch.context() as patch:
            patch.setattr(name, full)
            with pytest.raises(OSError, match="No space"):
                store.get(stage())
        assert not leftovers(store)
        assert store.find(stage()) is None
    assert store.get(stage()).summary["total"] == 1


def truncate(folder: Path) -> None:
    (folder / "deep" / "total.txt").write_text("")


def flip(folder: Path) -> None:
    path = folder / "deep" / "total.txt"
    status = path.stat()
    path.write_text("7")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def edit_summary(folder: Path) -> None:
    path = folder / "record.json"
    path.write_text(path.read_text().replace('"total": 1', '"total": 2'))


def replace_by_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def replace_file_by_folder(folder: Path) -> None:
    (folder / "empty.bin").unlink()
    (folder / "empty.bin").mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": truncate,
    "flipped": flip,
    "missing file": lambda folder: (folder / "empty.bin").unlink(),
    "missing folder": lambda folder: shutil.rmtree(folder / "deep"),
    "no record": lambda folder: (folder / "record.json").unlink(),
    "half a record": lambda folder: os.truncate(folder / "record.json", 100),
    "empty record": lambda folder: (folder / "record.json").write_text("{}"),
    "deep": lambda folder: (folder / "record.json").write_text("[" * 200_000),
    "list": lambda folder: (folder / "record.json").write_text("[]"),
    "not finite": lambda folder: (folder / "record.json").write_text('{"seal": "", "a": NaN}'),
    "binary": lambda folder: (folder / "record.json").write_bytes(b"\xff\x00"),
    "changed figure": edit_summary,
    "file for folder": replace_by_file,
    "folder for file": replace_file_by_folder,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_moved_aside_and_mended(name: str, store: Store, events: list[Event]) -> None:
    good = store.get(stage())
    said(events)
    DAMAGES[name](good.folder)
    fresh = Store(store.root, on_event=events.append)
    assert fresh.find(stage()) is None
    (told,) = events
    assert told.what == "damaged"
    assert told.detail
    assert told.folder.exists()
    assert told.folder.parent == store.root / ".damaged"
    assert not good.folder.exists()
    mended = fresh.get(stage())
    assert mended.content == good.content
    assert said(events) == ["damaged sum", "started sum", "finished sum"]


def test_record_of_another_stage_is_damage(store: Store, events: list[Event]) -> None:
    one, two = store.get(stage(seed=1)), store.get(stage(seed=2))
    shutil.rmtree(one.folder)
    shutil.copytree(two.folder, one.folder)
    assert store.find(stage(seed=1)) is None
    assert "belongs elsewhere" in events[-1].detail


def test_files_are_hashed_again_when_their_time_changes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    real = store_module.sha256
    monkeypatch.setattr(store_module, "sha256", lambda path, **options: hashed.append(path) or real(path, **options))
    folder = store.get(stage()).folder
    hashed.clear()
    assert store.find(stage())
    assert len(hashed) == 2
    assert store.find(stage())
    assert len(hashed) == 2
    (folder / "deep" / "total.txt").write_text("7")
    assert store.find(stage()) is None


def test_unreadable_is_not_damaged(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = store.get(stage()).folder

    def unreadable(path: Path, **options: bool) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(store_module, "sha256", unreadable)
    with pytest.raises(OSError, match="Input/output"):
        Store(store.root).get(stage())
    assert folder.is_dir()


def test_artifacts_that_keep_breaking_are_reported(store: Store) -> None:
    ran: list[Job] = []
    store.on_event = lambda event: shutil.rmtree(event.folder) if event.what == "finished" else None
    with pytest.raises(BadArtifact, match="computed but is gone"):
        store.get(stage("top", inputs={"base": stage("base")}), ran.append)
    assert len(ran) == store_module.ATTEMPTS


def test_descendants_of_a_lost_copy_are_not_mixed_with_a_new_one(store: Store, events: list[Event]) -> None:
    ran: list[str] = []
    far = Stage(kind="far", run=random_bytes)
    middle = Stage(kind="middle", run=random_bytes, inputs={"far": far})
    near = Stage(kind="near", run=random_bytes, inputs={"middle": middle})
    top = Stage(kind="top", run=random_bytes, inputs={"near": near, "far": far})

    def log(job: Job) -> None:
        ran.append(job.folder.name.partition(".")[0])

    old = store.get(near, log)
    shutil.rmtree(store.root / far.name)
    said(events)
    new = store.get(top, log)
    assert ran == ["far", "middle", "near", "far", "middle", "near", "top"]
    assert (old.record["lineage"][far.name], new.record["lineage"][far.name]) == (
        old.record["lineage"][far.name],
        store.get(far).content,
    )
    assert {word for word in said(events) if word.startswith("stale")} == {"stale near", "stale middle"}
    assert len(list((store.root / ".stale").iterdir())) == 2
    shutil.rmtree(store.root / far.name)
    shutil.rmtree(store.root / middle.name)
    assert store.get(top, log).content == new.content  # a finished result stands as it is


def test_a_deterministic_input_may_be_lost_and_found(store: Store, events: list[Event]) -> None:
    stages = diamond()
    store.get(stages["left"])
    shutil.rmtree(store.root / "base")
    said(events)
    assert store.get(stages["top"]).summary["total"] == 9
    assert "stale left" not in said(events)


def test_the_first_of_two_wins(store: Store, events: list[Event]) -> None:
    theirs: list[Artifact] = []

    def overtake(job: Job) -> Mapping[str, Any]:
        theirs.append(Store(store.root).get(work, lambda job: {"who": "they"}))
        return {"who": "we"}

    work = Stage(kind="work", run=misbehave)
    assert store.get(work, overtake) == theirs[0]
    assert theirs[0].summary == {"who": "they"}
    assert said(events) == ["started work", "lost work", "finished work"]
    assert not leftovers(store)


def test_a_damaged_winner_is_replaced(store: Store, events: list[Event]) -> None:
    def overtake(job: Job) -> Mapping[str, Any]:
        (Store(store.root).get(work, lambda job: {"who": "they"}).folder / "half.bin").write_bytes(b"")
        return {"who": "we"}

    work = Stage(kind="work", run=misbehave)
    assert store.get(work, overtake).summary == {"who": "we"}
    assert said(events) == ["started work", "damaged work", "finished work"]


def test_only_abandoned_work_is_swept(store: Store, events: list[Event], tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    at_work: list[str] = []
    Store(tmp_path / "another").get(stage(), lambda job: at_work.append(job.folder.name) or {})
    here, partial = at_work[0].split(".")[2], store.root / ".partial"
    dead, alive = f"base.{'0' * 16}.{here}.{child.pid}.aa", f"base.{'0' * 16}.{here}.{os.getpid()}.aa"
    away, old = f"base.{'0' * 16}.elsewhere.{child.pid}.aa", f"base.{'0' * 16}.elsewhere.{child.pid}.bb"
    for name in (dead, alive, away, old, "foreign"):
        (partial / name / "deep").mkdir(parents=True)
    long_ago = time.time() - (store_module.STALE_HOURS + 1) * 3600
    os.utime(partial / old, (long_ago, long_ago))
    store.get(stage())
    assert {path.name for path in leftovers(store)} == {alive, away, "foreign"}
    assert said(events) == ["swept base", "swept base", "started sum", "finished sum"]


def test_records_hold_no_path_of_this_machine(store: Store, tmp_path: Path) -> None:
    text = (store.get(diamond()["top"]).folder / "record.json").read_text()
    assert str(tmp_path) not in text
    assert str(Path.cwd()) not in text


# Death and company: a driver imports everything once and forks, so that many deaths cost little.

SLOW_STAGES = """
import os, time

def work(job):
    with open(os.environ["LOG"], "a") as log:
        log.write(job.config["kind"] + "\\n")
    parts = [item.folder.joinpath("part4").read_text() for item in job.inputs.values()]
    for index in range(5):
        job.folder.joinpath(f"part{index}").write_text(job.config["kind"] + "".join(parts))
        time.sleep(0.004)
    return {"text": job.config["kind"] + "".join(parts)}
"""

DRIVER = """
import itertools, json, os, pathlib, random, signal, sys, time
import slow_stages
from heirmark.stages import Stage, Store

root, log = pathlib.Path(sys.argv[1]), pathlib.Path(os.environ["LOG"])
random.seed(int(sys.argv[3]))

def graph():
    last = None
    for kind in ("one", "two", "three"):
        inputs = {} if last is None else {"last": last}
        last = Stage(kind=kind, run=slow_stages.work, config={"kind": kind}, inputs=inputs)
    return last

def complain(event):
    assert event.what not in ("damaged", "stale", "failed"), event

def fork(action):
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    return child

def compute():
    Store(root, on_event=complain).get(goal)

def die_at(count):
    calls = itertools.count(1)
    def deadly(real):
        def call(*arguments, **options):
            if next(calls) == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)
        return call
    for name in ("mkdir", "fsync", "replace", "rmdir"):
        setattr(os, name, deadly(getattr(os, name)))
    json.dump = deadly(json.dump)
    compute()

def finished():
    return {path.parent.parent.name: path.stat().st_ino for path in root.glob("[!.]*/*/record.json")}

goal = graph()
if sys.argv[2] == "together":
    children = [fork(compute) for _ in range(4)]
else:
    children, deaths = [], 0
    for attempt in itertools.count(1):
        before, lines = finished(), len(log.read_text())
        if sys.argv[2] == "anywhere":
            child = fork(compute)
            time.sleep(0 if attempt == 1 else random.uniform(0, 0.12))  # one dies for certain
            os.kill(child, signal.SIGKILL)
        else:
            child = fork(lambda: die_at(attempt))
        status = os.waitpid(child, 0)[1]
        after, new = finished(), log.read_text()[lines:].split()
        assert before.items() <= after.items(), "a finished stage was touched"
        assert not set(new) & set(before), "a finished stage was computed again"
        assert list(after) == [] or set(after) in ({"one"}, {"one", "two"}, {"one", "two", "three"})
        deaths += os.WIFSIGNALED(status)
        if len(after) == 3:
            children = [fork(compute)]
            break
    assert deaths > 0
for child in children:
    assert os.waitpid(child, 0)[1] == 0
assert Store(root, on_event=complain).find(goal).summary == {"text": "threetwoone"}
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("how", "seed"), [("anywhere", 0), ("anywhere", 1), ("anywhere", 2), ("at every step", 0), ("together", 0)]
)
def test_death_and_company(how: str, seed: int, tmp_path: Path) -> None:
    (tmp_path / "slow_stages.py").write_text(SLOW_STAGES)
    (tmp_path / "log").touch()
    source = Path(inspect.getfile(Store)).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRIVER, str(tmp_path / "store"), how, str(seed)],
        env=os.environ | {"LOG": str(tmp_path / "log"), "PYTHONPATH": f"{source}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    store = Store(tmp_path / "store")
    assert sorted(path.name for path in store.root.glob("[!.]*")) == ["one", "three", "two"]
    assert len(list(store.root.glob("[!.]*/*"))) == 3
    ran = (tmp_path / "log").read_text().split()
    assert set(ran) == {"one", "two", "three"}
    if how == "together":
        assert not leftovers(store)


def test_stage_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        stage().seed = 3  # type: ignore[misc]
