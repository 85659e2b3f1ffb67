"""What holds the stages together: identities, precision, users' own code and folders, and what is shown meanwhile."""

from __future__ import annotations

import io
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import heirmark.jobs.exporting
import heirmark.jobs.opening
import own_code
from heirmark.attacks import Distillation, Knockoff
from heirmark.console import Bars, error_line, show
from heirmark.data import load_task
from heirmark.errors import BadArtifact, BadConfig, BadData, HeirmarkError, ShapeMismatch
from heirmark.jobs.attack import steal_job
from heirmark.jobs.embed import embed_job
from heirmark.jobs.exporting import check_free, export_folder
from heirmark.jobs.folder import Data, ModelFolder, Origin
from heirmark.jobs.inspect import inspect_folder
from heirmark.jobs.means import Work
from heirmark.jobs.opening import OPENERS, Named, open_suspect
from heirmark.jobs.verify import Terms, verify_job
from heirmark.loading import (
    check_architecture,
    check_factory,
    check_known,
    load_named_task,
    load_pool,
    named_architecture,
    user_factory,
)
from heirmark.methods import Unmarked, Vanilla
from heirmark.models import ModelSpec, Net
from heirmark.models.storage import load_spec, save_model
from heirmark.runtime import Runtime
from heirmark.stages import Event, Store
from heirmark.stages.provenance import made_here
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Recipe
from heirmark.triggers import Mix
from heirmark.verification import Suspect
from heirmark.work.context import Context, exact
from heirmark.work.embedding import embed_stage
from heirmark.work.judging import calibrate_stage, read_judged, verify_stage
from heirmark.work.marked_folder import read_history, read_pictures, read_training_triggers
from heirmark.work.stealing import Theft, steal_stage

NET = "naivenet:width=4,hidden=16,batch_norm=true"
RECIPE = Recipe(epochs=4, batch_size=32, learning_rate=0.05)
VANILLA = Vanilla(model=NET, trigger=Mix(), triggers=40, key_size=60, trigger_batch=8, pretraining=RECIPE)
UNMARKED = Unmarked(model=NET, trigger=Mix(), key_size=60, pretraining=RECIPE)
THEFT = Theft(attack=Knockoff(model=NET, recipe=RECIPE))
ORIGIN = Origin(data="own_code:make_task")
CPU = Runtime(device="cpu", precision="float32")


@pytest.fixture(scope="module")
def task() -> Task:
    return own_code.make_task()


@pytest.fixture
def search_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    loaded = set(sys.modules)
    yield
    for name in set(sys.modules) - loaded:
        if getattr(sys.modules[name], "__file__", None) and "pytest-of" in str(sys.modules[name].__file__):
            del sys.modules[name]


# Identity


def stage_name(context: Context) -> str:
    return embed_stage(VANILLA, context, seed=0).name


def test_identity_covers_data_name_precision_and_the_users_code_but_no_progress(task: Task) -> None:
    base = Context(task=task, runtime=CPU)
    same = [
        Context(task=own_code.make_task(), runtime=CPU),
        Context(task=task, runtime=replace(CPU, progress=print)),
        Context(task=task, runtime=CPU, factories=(own_code.make_net,)),  # a model's own is in the method
    ]
    others = [
        Context(task=own_code.make_other_task(), runtime=CPU),
        # A method looks up the paper's own classes by the name of the data.
        Context(task=replace(task, name="cifar10"), runtime=CPU),
        Context(task=replace(task, classes=tuple("abcde")), runtime=CPU),
        *(
            Context(task=replace(task, foreign=Split(inputs=255 - part.inputs, labels=part.labels)), runtime=CPU)
            for part in (task.owner, task.test)
        ),
        Context(task=task, runtime=replace(CPU, precision="bfloat16")),
    ]
    assert {stage_name(context) for context in same} == {stage_name(base)}
    assert len({stage_name(context) for context in [base, *others]}) == 1 + len(others)
    own = [replace(VANILLA, model=factory) for factory in (own_code.make_net, own_code.make_wide_net)]
    assert len({embed_stage(method, base, seed=0).name for method in (VANILLA, *own)}) == 3


def test_one_pixel_makes_another_stage(task: Task) -> None:
    inputs = task.adversary.inputs.clone()
    inputs[0, 0, 0, 0] ^= 1
    changed = replace(task, adversary=replace(task.adversary, inputs=inputs))
    assert stage_name(Context(task=changed, runtime=CPU)) != stage_name(Context(task=task, runtime=CPU))


def model_in(folder: Path, spec: ModelSpec, net: nn.Module | None = None) -> Path:
    save_model(Net(model=spec.build(seed=0) if net is None else net, spec=spec), folder)
    return folder


def test_changed_code_of_a_victims_factory_makes_another_theft(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search_path: None
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    spec = ModelSpec(name="custom", input_shape=(1, 16, 16), classes=5)
    folder = model_in(tmp_path / "victim", spec, own_code.make_net(spec))
    names = []
    for width in (3, 4):
        (tmp_path / "victims_net.py").write_text(
            f"import own_code\n\nWIDTH = {width}\n\n\ndef make(spec):\n    return own_code.make_net(spec), WIDTH\n"
        )
        sys.modules.pop("victims_net", None)
        victim = ModelFolder(folder, user_factory("victims_net:make")).model_stage
        names.append(steal_stage(THEFT, victim, Context(task=task, runtime=CPU), seed=0).name)
    assert names[0] != names[1]


def test_theft_depends_on_the_victims_bytes_and_sees_the_model_alone(
    task: Task, tmp_path: Path, embedded: Path
) -> None:
    context = Context(task=task, runtime=CPU, folders=(embedded,))
    copy = Path(shutil.copytree(embedded, tmp_path / "copy"))
    one, same = (ModelFolder(folder).model_stage for folder in (embedded, copy))
    other = ModelFolder(model_in(tmp_path / "other", load_spec(embedded))).model_stage
    names = [steal_stage(THEFT, victim, context, seed=0).name for victim in (one, same, other)]
    assert names[0] == names[1] != names[2]
    with pytest.raises(BadArtifact, match=r"no model.json"):
        _ = ModelFolder(tmp_path).model_stage
    store = Store(tmp_path / "store")
    assert set(store.get(one, context).record["files"]) == {"model.json", "model.safetensors"}
    key = store.get(ModelFolder(embedded).key_stage, context)
    assert set(key.record["files"]) == {
        "calibration.json", "key/key.json", "key/key.safetensors", "training.safetensors",
    }  # fmt: skip
    assert ModelFolder(key.folder).key.commitment == ModelFolder(embedded).key.commitment
    with pytest.raises(BadArtifact, match="run the same command again"):
        store.get(other, context)


# Precision


def test_a_pool_is_asked_and_belongs_to_the_thefts_identity(task: Task, tmp_path: Path) -> None:
    def noise(seed: int) -> Split:
        inputs = torch.randint(256, (50, 1, 16, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
        return Split(inputs=inputs, labels=torch.zeros(50, dtype=torch.long))

    plain = Context(task=task, runtime=CPU)
    one, other = (replace(plain, pools={"noise": noise(seed)}) for seed in (0, 1))
    victim = embed_stage(UNMARKED, plain, seed=0)
    asks = replace(THEFT, pool="noise")
    names = {steal_stage(asks, victim, context, seed=0).name for context in (one, other)}
    assert len(names | {steal_stage(THEFT, victim, plain, seed=0).name}) == 3
    assert steal_stage(THEFT, victim, one, seed=0).name == steal_stage(THEFT, victim, plain, seed=0).name
    assert Store(tmp_path).get(steal_stage(asks, victim, one, seed=0), one).summary["queries"] == 50
    with pytest.raises(BadConfig, match="no images called 'noise': choose of adversary"):
        steal_stage(asks, victim, plain, seed=0)


def test_labels_of_a_pool_are_not_the_tasks() -> None:
    assert Theft(attack=Distillation(label_weight=0.3)).pool == "adversary"
    assert Theft(attack=Distillation(), pool="noise")
    with pytest.raises(BadConfig, match=r"labels of noise are those of another task.*set label_weight=0"):
        Theft(attack=Distillation(label_weight=0.3), pool="noise")


def flat_task() -> Task:
    """A task of vectors."""
    inputs = torch.rand(40, 16, generator=torch.Generator().manual_seed(0))
    parts = [Split(inputs=inputs[start : start + 10], labels=torch.arange(10) % 2) for start in range(0, 40, 10)]
    names = ("owner", "adversary", "calibration", "test")
    return Task(name="flat", classes=("a", "b"), **dict(zip(names, parts, strict=True)))  # type: ignore[arg-type]


def test_a_pool_has_the_tasks_shape_and_none_of_its_images() -> None:
    task = own_code.make_task()
    pool = load_pool("fashion-mini", task, root=None)
    assert pool.inputs.shape == (20_000, 1, 16, 16)
    taken = replace(task, foreign=pool.subset(torch.arange(200)))
    left = load_pool("fashion-mini", taken, root=None)
    assert not left.digests() & taken.foreign.digests()  # type: ignore[union-attr]
    assert 19_000 < len(left) <= 19_800
    halves = replace(taken.foreign, inputs=taken.foreign.floats())  # type: ignore[union-attr, type-var]
    assert len(load_pool("fashion-mini", replace(task, foreign=halves), root=None)) == len(left)
    with pytest.raises(BadConfig, match="leave it out"):
        load_pool("fashion-mini", flat_task(), root=None)
    with pytest.raises(BadData, match="name another data set"):
        load_pool("fashion-mini", load_task("fashion-mini"), root=None)


def test_figures_are_measured_in_float32_whatever_the_runtime(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context(task=task, runtime=Runtime(device="cpu", precision="bfloat16"))
    marked = embed_stage(UNMARKED, context, seed=0)
    calibration = calibrate_stage(marked, [embed_stage(UNMARKED, context, seed=1, kind="train")], context)
    verification = verify_stage(marked, marked, calibration, context)
    store = Store(tmp_path)
    for stage in calibration.inputs.values():
        store.get(stage, context)
    seen: list[str] = []
    original = Runtime.autocast
    monkeypatch.setattr(Runtime, "autocast", lambda self: seen.append(self.precision) or original(self))  # type: ignore[func-returns-value]
    judged = read_judged(store.get(verification, context).folder)
    assert seen
    assert set(seen) == {"float32"}
    assert judged.training_wsr is None
    assert not math.isnan(judged.accuracy)
    assert exact(context.runtime).precision == "float32"
    assert exact(context.runtime).device == "cpu"


# Jobs, as a library calls them


def embed(task: Task, out: Path, **changes: Any) -> dict[str, Any]:
    work = Work(seed=0, runtime=CPU, store=out.parent / "store", on_event=changes.pop("on_event", None))
    data = Data(task=task, origin=ORIGIN)
    return embed_job(changes.pop("method", VANILLA), data, out, work, **{"calibrators": 1} | changes)


@pytest.fixture(scope="module")
def embedded(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("embedded") / "marked"
    embed(task, out)
    return out


def test_same_seed_same_bytes_without_a_shared_store(task: Task, tmp_path: Path, embedded: Path) -> None:
    embed(task, tmp_path / "again")
    files = sorted(path.relative_to(embedded) for path in embedded.rglob("*") if path.is_file())
    assert Path("key/key.safetensors") in files
    for file in files:
        assert (tmp_path / "again" / file).read_bytes() == (embedded / file).read_bytes(), file


def test_global_generators_are_left_alone(
    task: Task, tmp_path: Path, embedded: Path, unchanged_globals: Callable[[], Any]
) -> None:
    with unchanged_globals():
        embed(task, tmp_path / "again", calibrators=0)
        check_architecture(own_code.make_net, input_shape=task.input_shape, classes=5)
        suspect = open_suspect(str(embedded), classes=5)
        verify_job(suspect, ModelFolder(embedded), Terms())


def started(task: Task, out: Path, **changes: Any) -> list[str]:
    """Labels of the stages that an embedding computed."""
    labels: list[str] = []

    def note(event: Event, label: str) -> None:
        if event.what == "started":
            labels.append(label)

    embed(task, out, on_event=note, **changes)
    return labels


def test_a_changed_task_is_not_taken_for_the_old_one(task: Task, tmp_path: Path) -> None:
    work = [
        "train the clean model",
        "embed",
        "judge the marked model with the key",
        "judge the clean model with the key",
    ]
    assert started(task, tmp_path / "one", calibrators=0) == work
    assert started(own_code.make_other_task(), tmp_path / "two", calibrators=0) == work
    assert started(task, tmp_path / "three", calibrators=0) == []
    assert (tmp_path / "one/model.safetensors").read_bytes() != (tmp_path / "two/model.safetensors").read_bytes()


def test_unmarked_method_is_its_own_clean_model(task: Task, tmp_path: Path) -> None:
    assert started(task, tmp_path / "out", method=UNMARKED) == [
        "embed",
        "train unmarked model 1",
        "answer a thief's queries",
        "steal an unmarked model",
        "calibrate the key",
        "judge the marked model with the key",
    ]


def test_steal_job_leaves_the_victim_as_it_was(task: Task, tmp_path: Path, embedded: Path) -> None:
    before = {path: path.read_bytes() for path in embedded.rglob("*") if path.is_file()}
    work = Work(seed=1, runtime=CPU, store=tmp_path / "store")
    facts = steal_job(THEFT, ModelFolder(embedded), Data(task=task, origin=ORIGIN), tmp_path / "copy", work)
    assert facts["queries"] == len(task.adversary)
    assert {path: path.read_bytes() for path in embedded.rglob("*") if path.is_file()} == before
    assert ModelFolder(tmp_path / "copy").origin == replace(ORIGIN, digest=task.digest())


def test_keys_that_no_verdict_can_rest_on(task: Task, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="set key_size to 20"):
        embed(task, tmp_path / "out", method=replace(VANILLA, key_size=19))
    with pytest.raises(BadData, match="only 4 different triggers"):
        embed(own_code.make_task_of_few(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_model_that_cannot_take_the_data_is_refused_before_training(task: Task, tmp_path: Path) -> None:
    small = replace(task, **{
        name: replace(split, inputs=split.inputs[:, :, :11, :11]) for name, split in task.splits.items()
    })  # fmt: skip
    with pytest.raises(ShapeMismatch, match="sides of at least 16"):
        embed(small, tmp_path / "out")
    assert not (tmp_path / "store").exists()


def test_victims_task(embedded: Path, task: Task, tmp_path: Path) -> None:
    victim = ModelFolder(embedded)
    same = victim.data("own_code:make_task")
    assert (same.task.digest(), same.origin) == (task.digest(), ORIGIN)
    other = victim.data("own_code:make_other_task", split_seed=3)
    assert other.task.digest() != task.digest()
    assert other.origin == Origin(data="own_code:make_other_task", split_seed=3)
    with pytest.raises(BadConfig, match="come from code"):
        victim.data()
    with pytest.raises(BadConfig, match="does not say which data"):
        ModelFolder(tmp_path).data()


def test_inspection_reads_through_the_checks(embedded: Path, tmp_path: Path) -> None:
    assert inspect_folder(embedded)["calibration"].startswith("1 unmarked models and 1 copies of them")
    assert set(inspect_folder(embedded / "key")) == {"folder", "method", "queries", "key_classes", "commitment"}
    copy = Path(shutil.copytree(embedded, tmp_path / "copy"))
    record = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps({**record, "classes": 6}))
    with pytest.raises(BadArtifact, match="do not fit"):
        inspect_folder(copy)


def test_folders_of_methods_are_read_with_care(embedded: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(embedded, tmp_path / "copy"))
    triggers = read_training_triggers(copy)
    assert triggers is not None
    assert triggers[0].shape == (40, 1, 16, 16)
    assert len(read_pictures(copy).inputs) == 12
    assert read_history(copy) == ()
    (copy / "history.json").write_text('{"epoch": 3}')
    (copy / "pictures.safetensors").write_bytes((copy / "training.safetensors").read_bytes())
    for read in (read_history, read_pictures):
        with pytest.raises(BadArtifact):
            read(copy)
    assert read_training_triggers(tmp_path) is None


def test_a_new_kind_of_suspect_is_one_opener(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_address(named: Named, classes: int, runtime: Runtime) -> Suspect | None:
        return Suspect.from_callable(torch.zeros_like, classes=classes) if named.name.startswith("ipfs:") else None

    service = Named(name="ipfs://example.org/model", order=(1, 0))
    with pytest.raises(BadArtifact, match="is missing: a suspect is a folder"):
        open_suspect(service, classes=5, runtime=CPU)
    monkeypatch.setattr(heirmark.jobs.opening, "OPENERS", (*OPENERS, open_address))
    found = open_suspect(service, classes=5, runtime=CPU)
    assert (found.kind, found.classes, found.order) == ("callable", 5, (1, 0))


# Folders of the user's


def test_checking_a_folder_leaves_no_trace(tmp_path: Path) -> None:
    check_free(tmp_path / "new")
    check_free(tmp_path / "new/and/deep")
    check_free(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_export_is_whole_or_not_there(
    embedded: Path, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context(task=task, runtime=CPU)
    artifact = Store(embedded.parent / "store").get(embed_stage(UNMARKED, context, seed=0, kind="train"), context)
    calls = []

    def full_disk(source: Path, goal: Path) -> None:
        calls.append(goal)
        if len(calls) == 3:
            raise OSError(28, "No space left on device", str(goal))
        shutil.copyfile(source, goal)

    monkeypatch.setattr(heirmark.jobs.exporting.shutil, "copy2", full_disk)
    with pytest.raises(HeirmarkError, match="No space left"):
        export_folder(artifact, tmp_path / "out", Data(task=task, origin=ORIGIN))
    assert list(tmp_path.iterdir()) == []
    export_folder(artifact, tmp_path / "out", Data(task=task, origin=ORIGIN))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# The user's own code


def test_built_in_names_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search_path: None) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "naivenet.py").write_text("raise SystemExit('imported')\n")
    (tmp_path / "mine.py").write_text(
        "from own_code import make_net\n\n\nclass Nets:\n    make = staticmethod(make_net)\n"
    )
    assert named_architecture("naivenet:width=4") == "naivenet:width=4"
    assert named_architecture("naivenet:make") == "naivenet:make"  # refused later, as an option without a value
    assert named_architecture("resnet18") == "resnet18"
    assert named_architecture("mine:make_net") is own_code.make_net
    assert named_architecture("mine:Nets.make") is own_code.make_net
    with pytest.raises(BadConfig, match="did you mean 'resnet18'"):
        named_architecture("resnet1")
    with pytest.raises(BadConfig, match="only a model of your own"):
        user_factory("naivenet:width=4")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("raise SystemExit(0)\n", "SystemExit"),
        ("1 / 0\n", "ZeroDivisionError: division by zero, broken_code.py line 1"),
        ("import no_such_thing\n", "no_such_thing"),
        ("", "has no attribute 'make'"),
    ],
)
def test_broken_code_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search_path: None, source: str, words: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_code.py").write_text(source)
    for load in (lambda path: load_named_task(path, split_seed=0, root=None), named_architecture):
        with pytest.raises(BadConfig, match=words):
            load("broken_code:make")
        sys.modules.pop("broken_code", None)


def test_a_model_of_the_papers_protocol_has_thieves_with_the_owners_images(tmp_path: Path) -> None:
    task = load_named_task("fashion-mini", split_seed=2, root=None, protocol="paper")
    origin = Origin(data="fashion-mini", split_seed=2, digest=task.digest(), protocol="paper")
    (tmp_path / "task.json").write_text(json.dumps(asdict(origin)))
    own = ModelFolder(tmp_path).data()
    assert own.task.digest() == task.digest()
    assert (own.task.protocol, own.origin.protocol) == ("paper", "paper")
    assert ModelFolder(tmp_path).data("own_code:make_task").origin.protocol == "disjoint"


def test_who_splits_himself_is_asked_for_no_protocol() -> None:
    with pytest.raises(BadConfig, match="splits its data itself"):
        load_named_task("own_code:make_task", split_seed=0, root=None, protocol="paper")
    with pytest.raises(BadConfig, match="unknown protocol 'papers': did you mean 'paper'"):
        load_named_task("fashion-mini", split_seed=0, root=None, protocol="papers")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (own_code.make_no_net, "returned Tensor"),
        (own_code.make_one_net, "same module twice"),
        (own_code.make_without_spec, "TypeError"),
        (own_code.make_wrong_net, "does not fit the task"),
        (own_code.fail, "TypeError"),
    ],
)
def test_factories_are_tried_before_they_are_trusted(factory: Any, words: str) -> None:
    spec = ModelSpec(name="custom", input_shape=(1, 16, 16), classes=5)
    with pytest.raises(BadConfig, match=words):
        check_factory(factory, spec)
    check_factory(own_code.make_net, spec)


def test_known_names() -> None:
    check_known("method", "t2s", ["t2s"])
    with pytest.raises(BadConfig, match=r"unknown method 'x': choose one of t2s, vanilla$"):
        check_known("method", "x", ["t2s", "vanilla"])


# What is shown


def on_screen(*, terminal: bool = True, width: int = 80) -> tuple[Bars, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=width, color_system=None, legacy_windows=False)
    return Bars(console=console), text


def event(what: Any, name: str, **details: Any) -> Event:
    return Event(what=what, name=name, folder=Path("somewhere"), **details)


def test_reused_stages_are_one_line_and_computed_ones_a_line_each() -> None:
    bars, text = on_screen(terminal=False)
    with bars:
        for _ in range(3):
            for number in range(5):
                bars.event(event("cached", f"train/{number}"), "train")
        bars.event(event("started", "embed/1"), "embed [red]T2S[/red]")
        bars.event(event("finished", "embed/1", seconds=1.25), "embed [red]T2S[/red]")
        for _ in range(3):
            bars.event(event("cached", "embed/1"))
            bars.event(event("cached", "train/0"))
        bars.event(event("failed", "embed/2", detail="ValueError: no", seconds=1.0))
        bars.event(event("damaged", "embed/3", detail="model.safetensors is missing"))
    assert text.getvalue().splitlines() == [
        "  5 finished stages reused",
        "  embed [red]T2S[/red]  done in 1.2 s",
        "  embed/3  damaged: model.safetensors is missing",
    ]


def test_one_reused_stage_at_the_end() -> None:
    bars, text = on_screen(terminal=False)
    with bars:
        bars.event(event("cached", "embed/1"), "embed")
    assert text.getvalue() == "  1 finished stage reused\n"


def test_terminal_has_a_labelled_bar_for_all_long_work() -> None:
    bars, text = on_screen()

    def shown() -> str:
        text.seek(0)
        text.truncate()
        bars.display.refresh()
        return text.getvalue()

    with bars:
        bars.progress("load the data", 0, 1)
        assert "load the data" in shown()
        bars.event(event("started", "embed/1"), "embed [b]T2S")
        assert "embed [b]T2S" in shown()  # before it reports anything, and never as markup
        bars.progress("rehearsing", 1, 40)
        bars.progress("rehearsing", 7, 40)
        screen = shown()
        assert "embed [b]T2S · rehearsing" in screen
        assert "7/40" in screen
        assert max(map(len, screen.replace("\x1b[2K", "").splitlines())) <= 100
        bars.progress("rehearsing", 40, 40)
        assert "40/40" not in shown()  # it pulses again: nobody knows what is left
        bars.event(event("finished", "embed/1", seconds=1.0), "embed [b]T2S")
        assert "rehearsing" not in shown()
    for width in (20, 40):
        narrow, text = on_screen(width=width)
        with narrow:
            narrow.event(event("started", "embed/1"), "a label that is much longer than the terminal is wide")
            narrow.progress("training", 3, 1000)


def test_quiet_is_quiet() -> None:
    bars, text = on_screen(terminal=True)
    quiet = Bars(quiet=True, console=bars.console)
    with quiet:
        quiet.progress("training", 3, 9)
        quiet.event(event("cached", "embed/1"))
        quiet.event(event("started", "embed/1"))
        quiet.event(event("finished", "embed/1", seconds=1.0))
    assert text.getvalue() == ""


def test_runtime_of_bars_reports_and_equals_any_other() -> None:
    bars, _ = on_screen()
    assert bars.runtime("cpu", "float32") == CPU


def test_text_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 60
    show(f"[red]{long}[/red]\n\x1b[31mred\udcff")
    error_line("one\ntwo\t\x1b[31m three\u202e")
    out, err = capsys.readouterr()
    assert out == f"[red]{long}[/red]\n\ufffd[31mred\ufffd\n"
    assert err == "heirmark: one two \ufffd[31m three\ufffd\n"


def test_terminal_wraps_below_the_second_column(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "40")
    show("  flag      " + "word " * 12 + "\n" + "x" * 60 + "\n\nend")
    lines = sys.stdout.getvalue().split("\n")  # type: ignore[attr-defined]
    assert lines[0].startswith("  flag      word")
    assert lines[1].startswith(" " * 12 + "word")
    assert max(map(len, lines[:3])) <= 40
    assert "x" * 60 in lines  # a path stays in one piece
    assert lines[-3:] == ["", "end", ""]


def test_provenance_names_the_gpu_that_figures_were_made_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "gpu" not in made_here(Runtime(device="cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device.index}")
    assert made_here(Runtime(device="cuda:1", precision="float32"))["gpu"] == "card 1"
