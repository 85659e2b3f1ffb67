"""Grids that are killed, and grids on Ray: the rows are those of a run in one go in one process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner

import heirmark.cli
import own_code  # before any process is told to wait for another, see there
from heirmark.attacks import Knockoff, Pruning
from heirmark.errors import BadConfig
from heirmark.grids.audit import run_audit
from heirmark.grids.bench import BenchResult, run_bench
from heirmark.grids.demo import demo_grid, run_demo
from heirmark.grids.executors import errands, on_ray
from heirmark.grids.executors.errands import Errand, Outcome, Place, work
from heirmark.grids.executors.on_ray import run_on_ray
from heirmark.grids.grid import Grid
from heirmark.grids.plan import Plan, plan_grid
from heirmark.grids.recipes import load_grid
from heirmark.grids.settings import Contexts
from heirmark.jobs.embed import embed_job
from heirmark.jobs.folder import ModelFolder
from heirmark.results.rows import Row, row_to_json
from heirmark.runtime import Runtime
from heirmark.stages.mirror import open_store
from heirmark.stages.store import Store
from heirmark.work.altering import Alteration, alter_stage
from heirmark.work.answering import answer_stage
from heirmark.work.stealing import Theft, steal_stage

CPU = Runtime(device="cpu", precision="float32")
FILE = '''
"""A tiny recipe with an attack of its own, in whose middle a process can be killed."""

from dataclasses import dataclass, replace

import own_code
from heirmark.attacks import Pruning
from heirmark.work.altering import Alteration
from heirmark.work.trials import Trial
from test_bench import GRID


@dataclass(frozen=True, kw_only=True)
class Lingering:
    def __call__(self, *held, **options):
        if own_code.pause is not None:
            own_code.pause()
        return Pruning(rate=0.25)(*held, **options)


def tiny(scale):
    block = GRID.blocks[0]
    lingers = Trial(name="lingers", group="Removal", steps=(Alteration(attack=Lingering()),))
    trials = (*(trial for trial in block.trials if trial.group != "Chain"), lingers)
    return replace(GRID, seeds=(0,), blocks=(replace(block, trials=trials, probes=block.probes[1:]),))
'''


@dataclass
class Ran:
    """A run and what it told."""

    out: Path
    events: list[tuple[str, str]] = field(default_factory=list)
    result: BenchResult = field(init=False)

    def run(self, grid: Grid, **options: Any) -> Ran:
        def note(event: Any, label: str) -> None:
            self.events.append((event.what, event.name))

        options.setdefault("contexts", Contexts(CPU))
        self.result = run_bench(grid, self.out, command="test", on_event=note, **options)
        return self

    def names(self, *kinds: str) -> list[str]:
        return [name for what, name in self.events if what in kinds]

    def contents(self) -> dict[str, str]:
        return contents(self.out / "stages")


def contents(root: Path) -> dict[str, str]:
    """What every finished stage holds."""
    return {
        path.parent.relative_to(root).as_posix(): json.loads(path.read_bytes())["content"]
        for path in root.glob("[a-z]*/*/record.json")
    }


def plain(rows: tuple[Row, ...]) -> list[dict[str, Any]]:
    """Rows without times."""
    return [{name: value for name, value in row_to_json(row).items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("recipes") / "lingering_recipe.py"
    path.write_text(FILE)
    path.with_name("json.py").write_text("raise ImportError('a file of the user is no part of Python')")
    before = list(sys.path)
    yield path
    sys.path[:] = before
    sys.modules.pop(path.stem, None)


@pytest.fixture(scope="module")
def grid(recipe: Path) -> Grid:
    return load_grid(str(recipe), "cpu")


@pytest.fixture(scope="module")
def whole(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """One process, in one go."""
    return Ran(tmp_path_factory.mktemp("whole")).run(grid)


def wait_for(path: Path, *, seconds: float = 120, process: subprocess.Popen[Any] | None = None) -> str:
    """What is in a file, once something is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        with suppress(FileNotFoundError):
            if text := path.read_text():
                return text
        time.sleep(0.05)
    raise AssertionError(f"{path.name} has not come")


@pytest.mark.slow
def test_killed_bench_goes_on_where_it_was(whole: Ran, grid: Grid, recipe: Path, tmp_path: Path) -> None:
    source, tests = Path(heirmark.cli.__file__).parents[1], Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{tests}", "OMP_NUM_THREADS": "1"}
    ran = Ran(tmp_path / "out")
    command = ["bench", str(recipe), "--out", str(ran.out), "--device", "cpu", "--precision", "float32"]
    with subprocess.Popen(
        [sys.executable, "-m", "heirmark.cli", *command],
        env={**environment, "OWN_CODE_READY": str(tmp_path / "ready")},
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            assert wait_for(tmp_path / "ready", process=process) == str(process.pid)
        finally:
            process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (ran.out / "rows.jsonl").exists()
    assert list((ran.out / "stages/.partial").iterdir()), "it was not killed at work"
    done = ran.contents()
    ran.run(grid)
    assert done
    assert set(ran.names("finished")) == set(whole.contents()) - set(done), "what was finished is not computed again"
    assert ran.contents() == whole.contents()
    assert plain(ran.result.rows) == plain(whole.result.rows)
    assert not list((ran.out / "stages/.partial").iterdir())


# On Ray


@dataclass(frozen=True)
class Session:
    """A Ray of two workers; the first stage that lingers in any of them writes its process into ``ready``."""

    ray: Any
    ready: Path


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    pytest.importorskip("ray")
    folder = Path(tempfile.mkdtemp(prefix="hm-", dir="/tmp"))  # Ray's sockets have names of limited length
    ready = tmp_path_factory.mktemp("ray") / "ready"
    os.environ["OWN_CODE_READY"] = str(ready)
    try:
        with on_ray.session("local", None, num_cpus=2, _temp_dir=str(folder)) as ray:
            del os.environ["OWN_CODE_READY"]
            yield Session(ray=ray, ready=ready)
    finally:
        os.environ.pop("OWN_CODE_READY", None)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def spread(session: Session, grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Two processes, one of which is killed at work."""

    def kill() -> None:
        os.kill(int(wait_for(session.ready)), signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    ran = Ran(tmp_path_factory.mktemp("spread")).run(grid, execute=run_on_ray)
    killer.join()
    return ran


def test_ray_gives_the_same_rows_though_a_worker_was_killed(spread: Ran, whole: Ran) -> None:
    assert plain(spread.result.rows) == plain(whole.result.rows)
    assert spread.contents() == whole.contents()
    assert any(row.trial == "lingers" and not row.error for row in spread.result.rows)


def test_what_fails_on_ray_fails_as_it_does_here(spread: Ran, whole: Ran) -> None:
    failed = {row.stage: row.error for row in whole.result.rows if row.error}
    assert {row.stage: row.error for row in spread.result.rows if row.error} == failed
    assert failed
    assert sorted(spread.names("failed")) == sorted(whole.names("failed")), "and is tried once"


def test_the_driver_tells_what_happens(spread: Ran, whole: Ran) -> None:
    assert sorted(spread.names("finished")) == sorted(whole.names("finished"))
    assert set(spread.names("started")) == set(whole.names("started"))
    for name in spread.names("finished"):
        assert spread.events.index(("started", name)) < spread.events.index(("finished", name))


def test_a_second_run_on_ray_computes_nothing(session: Session, recipe: Path, spread: Ran) -> None:
    command = ["bench", str(recipe), "--out", str(spread.out), "--only", "joint", "--device", "cpu", "--json"]
    stages = spread.out / "stages"
    before = {path: path.stat().st_mtime_ns for path in stages.rglob("*") if path.is_file()}
    ran = CliRunner().invoke(
        heirmark.cli.app, [*command, "--precision", "float32", "--ray", "local", "--ray-cpus", "0.5"]
    )
    assert ran.exit_code == 0, ran.stderr
    assert {path: path.stat().st_mtime_ns for path in stages.rglob("*") if path.is_file()} == before
    assert all(row["marking"] == "joint" for row in json.loads(ran.stdout))
    told = json.loads((spread.out / "bench.json").read_text())["provenance"]
    assert told["threads"] == "1"
    assert told["ray"] == "0.5 CPUs, 0 GPUs a stage"
    assert "--precision float32 --ray local --ray-cpus 0.5 --only joint" in told["command"]
    assert session.ray.is_initialized(), "who started it may still need it"


@pytest.mark.slow
def test_demo_and_audit_on_ray_give_the_same_rows(session: Session, tmp_path: Path) -> None:
    from test_audit import PROGRAMME, VANILLA, data_of, work_in

    grid = demo_grid(own_code.demo_profile())
    demos = [
        run_demo(grid, tmp_path / name, contexts=Contexts(CPU), command="test", **options)
        for name, options in (("here", {}), ("there", {"execute": run_on_ray}))
    ]
    assert plain(demos[0].rows) == plain(demos[1].rows)
    data = data_of(own_code.make_task())
    embed_job(VANILLA, data, tmp_path / "marked", work_in(tmp_path / "store"), calibrators=2)
    programme = replace(PROGRAMME, trials=PROGRAMME.trials[:1], probes=PROGRAMME.probes[:1])
    audits = [
        run_audit(
            programme, ModelFolder(tmp_path / "marked"), data, tmp_path / f"audit-{name}", seed=0, contexts=Contexts(CPU),
            command="test", **options,
        )
        for name, options in (("here", {}), ("there", {"execute": run_on_ray}))
    ]  # fmt: skip
    assert plain(audits[0].rows) == plain(audits[1].rows)


def test_workers_fetch_from_a_mirror(session: Session, grid: Grid, whole: Ran, tmp_path: Path) -> None:
    """A node without a disk in common with the others; only what is missing is computed."""
    url, few = (
        f"file://{tmp_path}/shared",
        replace(grid, blocks=(replace(grid.blocks[0], trials=grid.blocks[0].trials[:1], probes=()),)),
    )
    shutil.copytree(whole.out / "stages", tmp_path / "shared")
    before = contents(tmp_path / "shared")
    plan = plan_grid(few, Contexts(CPU))
    goal = next(cell.goal for cell in plan.cells if cell.arm == "marked" and cell.marking.name == "joint")
    shutil.rmtree(tmp_path / "shared" / goal.name)
    ran = Ran(tmp_path / "out").run(few, execute=run_on_ray, store=url)
    assert ran.names("finished") == [goal.name]
    assert contents(tmp_path / "shared") == before
    known = {row["stage"]: row for row in plain(whole.result.rows)}
    assert all(row == known[row["stage"]] for row in plain(ran.result.rows))


def test_what_no_node_can_hold_is_refused(session: Session, grid: Grid, tmp_path: Path) -> None:
    contexts = Contexts(CPU)
    plan = plan_grid(grid, contexts)
    with pytest.raises(
        BadConfig, match=r"no node has 64 CPUs and 0 GPUs for a stage \(2 CPUs, 0 GPUs\): lower --ray-cpus"
    ):
        run_on_ray(plan, Store(tmp_path), contexts, cpus=64)
    with pytest.raises(BadConfig, match=r"no node has 1 CPUs and 0\.5 GPUs"):
        run_on_ray(plan, Store(tmp_path), contexts, gpus=0.5)


def test_what_comes_back_without_an_outcome_says_what_to_do(session: Session) -> None:
    known = session.ray.exceptions
    assert "was killed 4 times (WorkerCrashedError): is there memory enough?" in on_ray.why_lost(
        session.ray, known.WorkerCrashedError()
    )
    error = known.RaySystemError("long\nModuleNotFoundError: No module named 'mine'", "")
    assert on_ray.why_lost(session.ray, error) == (
        "the stage cannot be rebuilt on its node (ModuleNotFoundError: No module named 'mine'):"
        " install there what is installed here, own code too"
    )


# Without Ray


@pytest.fixture(scope="module")
def plan(grid: Grid) -> Plan:
    return plan_grid(grid, Contexts(CPU))


def errand(plan: Plan, root: Path, **changes: Any) -> Errand:
    stage = plan.stages[0]
    place = Place(
        root=str(root), url=None, data=str(root), folder=str(Path.cwd()), threads=1, facts=tuple(CPU.facts().items())
    )
    return replace(
        Errand(
            stage=stage, setting=plan.settings[stage.identity], place=place, identity=stage.identity, code=stage.code
        ),
        **changes,
    )


def test_a_node_that_differs_is_told_apart(plan: Plan, tmp_path: Path) -> None:
    stage = plan.stages[0]
    for code, named in (({**stage.code, "own_code": "0"}, "own_code"), (stage.code, "in what the stage builds on")):
        said = work(errand(plan, tmp_path, identity="0" * 64, code=code)).error
        assert f"has other code than this grid ({named}): install the same heirmark" in said
    place = replace(errand(plan, tmp_path).place, facts=tuple({**CPU.facts(), "torch": "1.0"}.items()))
    assert "in place of 1.0: install the same on every node" in work(errand(plan, tmp_path, place=place)).error
    setting = replace(plan.settings[stage.identity], data="own_code:make_task_of_seven")
    assert "bring the same to every node" in work(errand(plan, tmp_path, setting=setting)).error
    assert not list(tmp_path.iterdir())


def test_a_node_with_other_images_to_ask_about_is_told_apart(plan: Plan, tmp_path: Path) -> None:
    setting = replace(plan.settings[plan.stages[0].identity], pools=("owner",))
    context, place = Contexts(CPU)(setting), errand(plan, tmp_path).place
    other = replace(context, pools={"owner": context.task.test})
    theft = Theft(attack=Knockoff(), pool="owner")
    alteration = Alteration(attack=Pruning(rate=0.5), pool="owner")
    for stage in (
        steal_stage(theft, plan.stages[0], context, seed=0),
        alter_stage(alteration, plan.stages[0], context, seed=0),
        answer_stage("owner", plan.stages[0], context),
    ):
        errands.check_node(stage, context, place)
        with pytest.raises(BadConfig, match="bring the same to every node"):
            errands.check_node(stage, other, place)


def test_an_errand_whose_input_failed_says_why(plan: Plan, tmp_path: Path) -> None:
    said = work(errand(plan, tmp_path), Outcome(), Outcome(error="the first"), Outcome(error="the second"))
    assert said == Outcome(error="the first")
    done = work(errand(plan, tmp_path), Outcome())
    assert not done.error
    assert [event.what for event in done.events] == ["started", "finished"]
    assert [event.what for event in work(errand(plan, tmp_path)).events] == ["cached"]


def test_what_other_nodes_keep_to_themselves_is_told(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_ray, "PATIENCE", 0)
    (stage, other) = plan.stages[:2]
    (tmp_path / other.name).mkdir(parents=True)
    failed = on_ray.unseen([stage, other], Store(tmp_path))
    assert list(failed) == [stage.name]
    assert "give --store a folder that all nodes see, or a URL" in failed[stage.name]


def test_workers_search_own_code_and_nothing_of_the_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = str(Path(__file__).parent)
    monkeypatch.setattr(sys, "path", [tests, "", "/nowhere", str(Path(json.__file__).parents[1]), tests])
    assert on_ray.own_paths() == [str(Path.cwd()), tests]


class OnCuda(Contexts):
    """Of a machine with a GPU, wherever this runs."""

    def __init__(self) -> None:
        super().__init__(cast(Runtime, SimpleNamespace(facts=lambda: {"device": "cuda"})))


def test_ray_is_refused_where_it_cannot_work(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts, store = Contexts(CPU), Store(tmp_path)
    for cpus, gpus in ((0, 0), (-1, 0), (1, -1)):
        with pytest.raises(BadConfig, match="give some CPUs"):
            run_on_ray(plan, store, contexts, cpus=cpus, gpus=gpus)
    with pytest.raises(BadConfig, match="give --ray-gpus 1"):
        run_on_ray(plan, store, OnCuda())
    with pytest.raises(BadConfig, match="lives in one process only"):
        run_on_ray(plan, open_store("memory://x", tmp_path), contexts)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadConfig, match=r"pip install \"heirmark\[ray\]\""):
        run_on_ray(plan, store, contexts)


def test_a_worker_compiles_where_the_plan_does(plan: Plan, tmp_path: Path) -> None:
    given = errand(plan, tmp_path)
    for runtime in (CPU, replace(CPU, compile=True)):
        place = replace(given.place, facts=tuple(runtime.facts().items()))
        assert errands.contexts_of(place, given.setting).runtime == runtime
