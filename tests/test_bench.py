"""Grids: every cell a row, controls beside them, what fails takes nothing else along, and a second run costs no work."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import own_code
from heirmark import loading
from heirmark.attacks import FineTuning, Knockoff, LocalOutliers, MixProbing, Pruning
from heirmark.data.registry import Loaded
from heirmark.errors import BadConfig
from heirmark.grids import Block, Grid, Marking, Published, Workload, select
from heirmark.grids.bench import BenchResult, run_bench
from heirmark.grids.executors.here import needed
from heirmark.grids.plan import plan_grid, setting_of
from heirmark.grids.recipes import load_grid, recipes_in
from heirmark.grids.settings import Contexts, Setting
from heirmark.loading import splits_by_seed
from heirmark.methods import T2S, MEADefender, Unmarked, Vanilla
from heirmark.methods.mea_defender import mix_otherwise
from heirmark.models.storage import load_model
from heirmark.querying.asking import predict
from heirmark.results.rows import Row, row_to_json
from heirmark.results.spreads import spread_of
from heirmark.results.summary import summarise
from heirmark.results.verdict import Verdict
from heirmark.runtime import Runtime, derive_seed
from heirmark.stages.stage import Artifact, Stage
from heirmark.stages.store import Store
from heirmark.tasks.combining import REGIONS
from heirmark.tasks.task import Task
from heirmark.training.fitting import Recipe
from heirmark.triggers import CropPaste, Mix, Stripes, Tiles
from heirmark.work.altering import Alteration
from heirmark.work.judging import read_judged, read_key
from heirmark.work.look_alikes import look_alikes, read_mixed
from heirmark.work.stealing import Theft
from heirmark.work.trials import Probe, Trial
from own_code import images, make_net, make_task, make_wide_net

NET = "naivenet:width=4,hidden=16,batch_norm=true"
RECIPE = Recipe(epochs=2, batch_size=32, learning_rate=0.05)
TOO_FAST = replace(RECIPE, learning_rate=1e30)
VANILLA = Vanilla(model=NET, trigger=Mix(), triggers=40, key_size=40, trigger_batch=8, pretraining=RECIPE)
UNMARKED = Unmarked(model=NET, pretraining=RECIPE, trigger=Mix(), key_size=40)
THEFT = Theft(attack=Knockoff(model=NET, recipe=RECIPE))
CPU = Runtime(device="cpu", precision="float32")
GRID = Grid(
    name="tiny",
    title="A tiny grid",
    blocks=(
        Block(
            name="shapes",
            workload=Workload(data="own_code:make_task"),
            markings=(
                Marking(name="joint", method=VANILLA),
                Marking(name="hopeless", method=replace(VANILLA, pretraining=TOO_FAST)),
            ),
            trials=(
                Trial(name="Knockoff", group="Extraction", steps=(THEFT,)),
                Trial(name="Knockoff, pruned", group="Chain", steps=(THEFT, Alteration(attack=Pruning(rate=0.5)))),
                Trial(
                    name="fails",
                    group="Removal",
                    steps=(Alteration(attack=FineTuning(recipe=replace(RECIPE, learning_rate=1e30))),),
                ),
            ),
            probes=(
                Probe(name="probing", attack=MixProbing()),
                Probe(name="outliers", attack=LocalOutliers(samples=60, neighbours=5)),
                Probe(name="probing a copy", attack=MixProbing(), stolen=(THEFT,)),
            ),
            unmarked=UNMARKED,
            calibrators=(UNMARKED, UNMARKED),
        ),
    ),
    seeds=(0, 1),
    papers=(Published(source="nobody's Table 1", marking="joint", trial="Knockoff", wsr=0.5),),
)


def run(out: Path, grid: Grid = GRID, **options: Any) -> BenchResult:
    return run_bench(grid, out, contexts=Contexts(CPU), command="test", **options)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[BenchResult, Path]:
    out = tmp_path_factory.mktemp("bench")
    return run(out), out


def test_every_cell_is_a_row_with_its_control(ran: tuple[BenchResult, Path]) -> None:
    result, _ = ran
    joint = [row for row in result.rows if row.marking == "joint" and not row.probe]
    assert [(row.seed, row.trial, row.arm) for row in joint] == [
        (seed, trial, arm)
        for seed in (0, 1)
        for trial in ("", "Knockoff", "Knockoff, pruned", "fails")
        for arm in ("marked", "unmarked")
    ]
    for row in joint:
        if row.trial != "fails":
            assert not row.error
            known = row.outcome != "INVALID" or row.arm == "marked"
            assert math.isnan(row.wsr) != known
            assert not math.isnan(row.accuracy)
    asked = {row.trial: row.asked for row in joint}
    assert asked["Knockoff"] == asked["Knockoff, pruned"] > 0 == asked[""]


def test_what_fails_is_a_row_and_takes_nothing_else_along(ran: tuple[BenchResult, Path]) -> None:
    result, _ = ran
    failed = {(row.marking, row.trial) for row in result.rows if row.error}
    assert ("joint", "fails") in failed
    assert {trial for marking, trial in failed if marking == "joint"} == {"fails"}
    hopeless = [row for row in result.rows if row.marking == "hopeless"]
    assert len(hopeless) == 2 * 2 * 7, "seeds, arms, and of each four trials with the model itself and three probes"
    assert all("learning_rate" in row.error for row in hopeless), "what builds on a stage that failed says why that did"


def test_probes_have_rows(ran: tuple[BenchResult, Path]) -> None:
    result, _ = ran
    probes = [row for row in result.rows if row.probe and row.marking == "joint"]
    assert [(row.probe, row.arm) for row in probes if row.seed == 0] == [
        (probe, arm) for probe in ("probing", "outliers", "probing a copy") for arm in ("marked", "unmarked")
    ]
    assert len(probes) == 12
    screens = [row for row in probes if row.probe == "outliers"]
    assert not any(math.isnan(row.detected) for row in screens)
    assert all(row.outcome for row in screens)
    assert all(row.found in (0.0, 1.0) for row in probes if row.probe.startswith("probing"))


def test_a_probe_of_a_copy_looks_into_the_copy_that_is_judged() -> None:
    cells = [cell for cell in plan_grid(GRID, Contexts(CPU)).cells if cell.marking.name == "joint"]
    for arm in ("marked", "unmarked"):
        copies = {cell.steps[0].name for cell in cells if cell.trial.name == "Knockoff" and cell.arm == arm}
        probed = [cell.goal for cell in cells if cell.probe == "probing a copy" and cell.arm == arm]
        assert {goal.inputs["victim"].name for goal in probed} == copies
        assert {goal.inputs["inspection"].inputs["victim"].name for goal in probed} == copies


def test_probes_of_one_name_are_refused() -> None:
    block = GRID.blocks[0]
    with pytest.raises(BadConfig, match="two rows of one name"):
        replace(block, probes=(*block.probes, block.probes[0]))


def test_mixes_have_a_rate_of_look_alikes(ran: tuple[BenchResult, Path]) -> None:
    """WFPR: of samples of the two classes that are made anew here, asked of the same model."""
    result, out = ran
    row = next(row for row in result.rows if row.marking == "joint" and row.arm == "marked" and not row.trial)
    cell = next(cell for cell in plan_grid(GRID, Contexts(CPU)).cells if cell.goal.name == row.stage)
    store, task = Store(out / "stages"), make_task()
    key = read_key(store.find(cell.goal.inputs["marked"]).folder)  # type: ignore[union-attr]
    model = load_model(store.find(cell.goal.inputs["suspect"]).folder).model  # type: ignore[union-attr]
    sources, ways = tuple(key.trigger["sources"]), [way for way in REGIONS if way != CropPaste().region]
    samples, _ = mix_otherwise(sources, CropPaste(), task.test, ways, 1000, seed=0, runtime=CPU)
    hits = predict(model, samples, runtime=CPU).argmax(1) == key.trigger["target"]
    mixed = read_mixed(store.find(cell.mixed).folder)  # type: ignore[arg-type,union-attr]
    assert mixed == pytest.approx(float(hits.double().mean()))
    assert math.isnan(row.wfpr) if row.outcome == "INVALID" else row.wfpr == mixed
    summary = next(found for found in result.summary if (found.marking, found.trial) == ("joint", ""))
    rates = [row.wfpr for row in result.rows if (row.marking, row.trial, row.arm) == ("joint", "", "marked")]
    assert str(summary.wfpr) == str(spread_of(rates))
    assert summary.control_wfpr >= 0
    assert all(math.isnan(row.wfpr) for row in result.rows if row.probe)


def test_look_alikes_are_those_of_the_method() -> None:
    assert look_alikes(replace(VANILLA, trigger=Tiles())) is None
    mea = MEADefender(trigger=Mix(combiner=Stripes()), evasion=("left", "pixels"))
    found = look_alikes(T2S(trigger=mea.trigger, watermark=mea))
    assert found == look_alikes(mea)
    assert found is not None
    assert (found.combiner, found.ways) == (Stripes(), ("left", "pixels"))


def test_figures_over_seeds(ran: tuple[BenchResult, Path]) -> None:
    result, out = ran
    figures = {(item.marking, item.trial, item.probe): item for item in result.summary}
    found = figures["joint", "Knockoff", ""]
    rows = [row for row in result.rows if (row.marking, row.trial) == ("joint", "Knockoff")]
    marked = [row.wsr for row in rows if row.arm == "marked"]
    assert found.seeds == (0, 1)
    assert found.wsr.mean == pytest.approx(sum(marked) / len(marked))
    assert (found.wsr.lowest, found.wsr.highest) == (min(marked), max(marked))
    control = [row for row in rows if row.arm == "unmarked"]
    assert found.control_wsr.highest == max(row.wsr for row in control if row.outcome != "INVALID")
    assert found.control_invalid == sum(row.outcome == "INVALID" for row in control)
    assert figures["hopeless", "", ""].failed == 2
    assert math.isnan(figures["hopeless", "", ""].wsr.mean)
    lines = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert len(lines) == len(result.rows)
    told = json.loads((out / "bench.json").read_text())
    assert told["provenance"]["command"] == "test"
    assert told["grid"]["name"] == "tiny"
    assert len(told["summary"]) == len(result.summary)


@pytest.mark.parametrize("hits", [0.0, 1.0])
def test_an_invalid_verdict_is_no_success_of_the_mark_and_no_alarm(ran: tuple[BenchResult, Path], hits: float) -> None:
    result, out = ran
    row = next(row for row in result.rows if row.outcome in ("MARKED", "NOT_ESTABLISHED"))
    sound = read_judged(out / "stages" / row.stage).verdict
    count = round(hits * sound.trials)
    broken = replace(
        sound, outcome="INVALID", reason="it answers everything alike", wsr=hits, hits=count, control_rate=hits
    )

    def figures(verdict: Verdict, arm: str) -> list[float | str]:
        told = Row(block="a", marking="b", arm=arm, seed=0, verdict=verdict)
        return [told.outcome, told.reason, str(told.wsr), str(told.p_value), str(told.control_rate)]

    for arm in ("marked", "unmarked"):
        assert figures(sound, arm) == [
            sound.outcome, "", *(str(rate) for rate in (sound.wsr, sound.p_value, sound.control_rate))
        ]  # fmt: skip
    told = ["INVALID", "it answers everything alike"]
    assert figures(broken, "marked") == [*told, "0.0", "nan", "nan"], "other figures of a broken model mean nothing"
    assert figures(broken, "unmarked") == [*told, "nan", "nan", "nan"]
    unasked = replace(broken, trials=0, hits=0, wsr=0.0, discordant=(0, 0))
    assert figures(unasked, "marked") == [*told, "nan", "nan", "nan"], "nothing was counted"


def test_a_second_run_computes_nothing(ran: tuple[BenchResult, Path]) -> None:
    result, out = ran
    events: list[str] = []
    good = select(GRID, ["joint"])
    good = replace(good, blocks=(replace(good.blocks[0], trials=good.blocks[0].trials[:2]),))
    again = run(out, good, on_event=lambda event, label: events.append(event.what))
    assert set(events) == {"cached"}
    known = {(row.stage): row_to_json(row) for row in result.rows}
    assert all(row_to_json(row) == known[row.stage] for row in again.rows)


def test_what_is_lost_is_computed_again_and_nothing_else(ran: tuple[BenchResult, Path]) -> None:
    import shutil

    _, out = ran
    contexts, store = Contexts(CPU), Store(out / "stages")
    plan = plan_grid(replace(select(GRID, ["joint"]), seeds=(0,)), contexts)
    before = {stage.name for stage in needed(plan, store)}
    goal = next(cell for cell in plan.cells if cell.trial.name == "Knockoff")
    shutil.rmtree(out / "stages" / goal.goal.name)
    assert {stage.name for stage in needed(plan, store)} == before | {goal.goal.name}
    shutil.rmtree(out / "stages" / goal.steps[0].name)
    assert {stage.name for stage in needed(plan, store)} == before | {goal.goal.name, goal.steps[0].name}


def test_stages_are_shared_between_cells() -> None:
    plan = plan_grid(replace(GRID, seeds=(0,)), Contexts(CPU))
    names = [stage.name for stage in plan.stages]
    assert len(set(names)) == len(names)
    assert set(plan.labels) >= set(names)
    assert all(stage.identity in plan.settings for stage in plan.stages)
    kinds = [stage.kind for stage in plan.stages]
    # Owner's clean model, control, two calibrators; the control is stolen once for all watermarks.
    assert kinds.count("train") == 4
    assert kinds.count("steal") == 2 + 1 + 1


def test_contexts_are_loaded_once() -> None:
    contexts = Contexts(CPU)
    setting = Setting(data="own_code:make_task", split_seed=0)
    assert contexts(setting) is contexts(setting)


def test_a_block_may_be_by_the_papers_protocol() -> None:
    block = GRID.blocks[0]
    asked = replace(block, workload=Workload(data="fashion-mini", protocol="paper"))
    task = Contexts(CPU)(setting_of(asked, 0)).task
    assert (task.protocol, len(task.owner), len(task.calibration)) == ("paper", 19000, 1000)
    assert setting_of(block, 0).protocol == "disjoint"


def test_select() -> None:
    assert [m.name for m in select(GRID, ["JOINT"]).blocks[0].markings] == ["joint"]
    assert select(GRID, [], [7]).seeds == (7,)
    for words in (["t2s"], ["joint", "t2s"], [" "]):
        with pytest.raises(BadConfig, match=r"no marking is called '(t2s)?': choose a part of one of joint; hopeless"):
            select(GRID, words)


def test_select_blocks_and_trials() -> None:
    first = GRID.blocks[0]
    grid = replace(GRID, blocks=(first, replace(first, name="other")))
    assert [block.name for block in select(grid, blocks=["OTH"]).blocks] == ["other"]
    papers = [
        Published(source=block, marking="joint", wsr=0.5, block=block)
        for block in ("", first.name, "other", "mistaken")
    ]
    kept = select(replace(grid, papers=tuple(papers)), blocks=["other"]).papers
    assert [paper.block for paper in kept] == ["", "other", "mistaken"]
    trial = first.trials[0].name
    (block,) = select(GRID, trials=[trial.upper()]).blocks
    assert trial in [kept.name for kept in block.trials]
    assert len(block.trials) < len(first.trials)
    assert block.probes == ()
    with pytest.raises(BadConfig, match=r"no block is called 'third': choose a part of one of .*; other"):
        select(grid, blocks=["third"])
    with pytest.raises(BadConfig, match=f"no trial is called 'nothing': choose a part of one of {trial}"):
        select(GRID, trials=["nothing"])


def test_the_first_control_takes_every_trial_and_the_others_are_judged_as_they_are() -> None:
    competitor = replace(UNMARKED, data="adversary")
    block = replace(GRID.blocks[0], controls={"clean": UNMARKED, "competitor": competitor})
    plan = plan_grid(replace(GRID, blocks=(block,), seeds=(0,)), Contexts(CPU))
    asked: dict[str, list[str]] = {}
    for cell in plan.cells:
        if cell.marking.name == "joint":
            asked.setdefault(cell.arm, []).append(cell.probe or cell.trial.name)
    assert list(asked) == ["marked", "unmarked", "competitor"]
    assert asked["marked"] == asked["unmarked"]
    assert asked["competitor"] == [""]
    (other,) = {cell.goal.inputs["suspect"] for cell in plan.cells if cell.arm == "competitor"}
    assert (other.config, other.seed) == (competitor, derive_seed(0, "competitor"))
    alone = plan_grid(replace(GRID, seeds=(0,)), Contexts(CPU))
    kept = [cell.goal.identity for cell in plan.cells if cell.arm != "competitor"]
    assert kept == [cell.goal.identity for cell in alone.cells], "one control without a word"


def test_grids_that_make_no_sense_are_refused() -> None:
    block = GRID.blocks[0]
    with pytest.raises(BadConfig, match="has no unmarked model beside the marked ones: say how it is trained"):
        replace(block, unmarked=None)
    with pytest.raises(BadConfig, match="is called marked or unmarked: name it otherwise"):
        replace(block, controls={"marked": UNMARKED})
    with pytest.raises(BadConfig, match="two rows of one name"):
        replace(block, markings=(block.markings[0], block.markings[0]))
    with pytest.raises(BadConfig, match="a calibrator at least"):
        replace(block, calibrators=())
    with pytest.raises(BadConfig, match=r"Grid.seeds: expected .*\(all different\), not \(1, 1\)"):
        replace(GRID, seeds=(1, 1))
    with pytest.raises(BadConfig, match="two blocks of one name"):
        replace(GRID, blocks=(block, block))
    with pytest.raises(BadConfig, match="a row without a name"):
        replace(block, trials=(Trial(name="", group="", steps=()),))


def test_what_cannot_be_written_down_or_kept_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    def execute(*arguments: object) -> dict[str, str]:
        raise AssertionError("computed")

    endless = replace(GRID.blocks[0], trials=(Trial(name="a", group="", steps=(), curve=("bits", math.inf)),))
    with pytest.raises(BadConfig, match="which JSON cannot hold"):
        run(tmp_path, replace(GRID, blocks=(endless,)), execute=execute)
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BadConfig, match=r"cannot be written .*name another folder for the results"):
            run(out, execute=execute)
    with pytest.raises(BadConfig, match=r"cannot be written .*name another folder for the store"):
        run(tmp_path, execute=execute, store=tmp_path / "file")


def test_a_key_that_no_verdict_can_rest_on_is_refused() -> None:
    with pytest.raises(BadConfig, match="no verdict can rest on fewer than 20: raise key_size"):
        Marking(name="small", method=replace(VANILLA, key_size=19))


def test_models_of_the_users_own_can_be_marked_stolen_and_judged(tmp_path: Path) -> None:
    own = {"model": make_net, "trigger": Mix()}
    theft = replace(THEFT, attack=Knockoff(model=make_net, recipe=RECIPE))
    block = Block(
        name="own models",
        workload=GRID.blocks[0].workload,
        markings=(Marking(name="joint", method=replace(VANILLA, **own)),),
        trials=(Trial(name="Knockoff", group="Extraction", steps=(theft,)),),
        unmarked=replace(UNMARKED, **own),
        calibrators=(replace(UNMARKED, **own),),
        pictures=("pca",),
    )
    result = run(tmp_path, Grid(name="own", title="Own", blocks=(block,), seeds=(0,)))
    assert [row.error for row in result.rows] == [""] * 4
    assert "Features in two dimensions" in [section.title for section in result.report.chapters[-1].sections]
    thief = replace(THEFT, attack=Knockoff(model=make_wide_net, recipe=RECIPE))
    wide = replace(block, trials=(Trial(name="Knockoff", group="Extraction", steps=(thief,)),), pictures=())
    assert wide.factories == (make_net, make_wide_net)
    result = run(tmp_path, Grid(name="wide", title="Wide", blocks=(wide,), seeds=(0,)))
    assert [row.error for row in result.rows] == [""] * 4


def test_data_of_the_users_own_are_split_by_seed_where_they_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def make(seed: int = 5) -> Task:
        seen.append(seed)
        return make_task()

    monkeypatch.setattr(own_code, "make_seeded", make, raising=False)
    contexts = Contexts(CPU)
    for seed in (0, 3):
        contexts(Setting(data="own_code:make_seeded", split_seed=seed))
        contexts(Setting(data="own_code:make_task", split_seed=seed))
    assert seen == [0, 3]
    assert splits_by_seed("own_code:make_seeded")
    assert splits_by_seed("mnist")
    assert not splits_by_seed("own_code:make_task")


def test_foreign_images_that_a_task_brings_itself_stay_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    task = replace(make_task(), foreign=images(10, seed=9))
    monkeypatch.setattr(own_code, "make_rich", lambda: task, raising=False)
    setting = Setting(data="own_code:make_rich", split_seed=0)
    contexts = Contexts(CPU)
    assert contexts(setting).task.foreign is None
    assert contexts(replace(setting, shows_foreign=True)).task.foreign is task.foreign


@pytest.mark.parametrize(("part", "count"), [("test", 3), ("train", 5)])
def test_foreign_images_are_of_the_part_that_the_model_had(
    part: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Loaded(train=images(5, seed=9), test=images(3, seed=8), classes=("a", "b"))
    monkeypatch.setattr(loading, "load_data", lambda *_, **__: made)
    load = Workload(data="own_code:make_task", foreign="mnist", foreign_part=part)  # type: ignore[arg-type]
    setting = Setting(data=load.data, split_seed=0, foreign=load.foreign, foreign_part=load.foreign_part)
    shown = Contexts(CPU)(replace(setting, shows_foreign=True)).task.foreign
    assert shown is not None
    assert len(shown) == count


@pytest.mark.parametrize("error", [BadConfig("the store cannot be read"), OSError(5, "the store cannot be read")])
def test_a_store_that_does_not_answer_costs_rows_and_not_the_report(
    tmp_path: Path, ran: tuple[BenchResult, Path], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    _, out = ran
    goals = {row.stage for row in ran[0].rows if (row.marking, row.trial) == ("joint", "Knockoff")}
    find = Store.find

    def fails(self: Store, stage: Stage) -> Artifact | None:
        if stage.name in goals:
            raise error
        return find(self, stage)

    monkeypatch.setattr(Store, "find", fails)
    result = run(tmp_path, store=out / "stages")
    lost = [row for row in result.rows if "the store cannot be read" in row.error]
    assert {row.stage for row in lost} == goals
    assert (tmp_path / "report.html").is_file()


def test_a_tracker_that_fails_is_a_note(tmp_path: Path, ran: tuple[BenchResult, Path]) -> None:
    def track(experiment: str, runs: object) -> None:
        raise ConnectionError("nobody there")

    result = run(tmp_path, store=ran[1] / "stages", trackers=[track])
    (why,) = result.untold
    assert "A tracker was not told (ConnectionError: nobody there)" in why
    assert why in result.report.notes
    assert "nobody there" in result.page.read_text()
    assert "nobody there" not in (tmp_path / "tables.md").read_text(), "what is included elsewhere tells of rows alone"


def test_who_does_not_wait_for_a_tracker_has_the_report(tmp_path: Path, ran: tuple[BenchResult, Path]) -> None:
    def track(experiment: str, runs: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, store=ran[1] / "stages", trackers=[track])
    for name in ("rows.jsonl", "bench.json", "report.html", "tables.md"):
        assert (tmp_path / name).is_file()


def test_recipes_are_functions_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "tiny_recipes.py"
    path.write_text(
        "from test_bench import GRID\nfrom heirmark.grids import Grid\n\n\n"
        "def table_1(scale) -> Grid:\n    return GRID\n\n\ndef table_2(scale):\n    return 1 / 0\n\n\n"
        "def table_3(scale):\n    return 3\n\n\ndef _helper(scale):\n    return GRID\n\n\ndef other(x):\n    return x\n"
    )
    assert list(recipes_in(path)) == ["table_1", "table_2", "table_3"]
    assert load_grid(f"{path}:table_1", "cpu") == GRID
    with pytest.raises(BadConfig, match=r"table_2 fails \(ZeroDivisionError"):
        load_grid(f"{path}:table_2", "cpu")
    with pytest.raises(BadConfig, match="returned int"):
        load_grid(f"{path}:table_3", "cpu")
    for named in (f"{path}:nothing", str(path)):
        with pytest.raises(BadConfig, match="names no recipe: choose one of"):
            load_grid(named, "cpu")
    with pytest.raises(BadConfig, match="unknown scale"):
        load_grid(f"{path}:table_1", "huge")
    with pytest.raises(BadConfig, match="is no Python file"):
        load_grid("nowhere.py:table_1", "cpu")
    with pytest.raises(BadConfig, match="rename the file"):
        recipes_in(path.rename(path.with_name("json.py")))
    for text in ("import nothing_of_the_kind\n", "import sys\nsys.exit(3)\n"):
        path.write_text(text)
        with pytest.raises(BadConfig, match="fails when it is run"):
            recipes_in(path)


def test_spread_and_summary_of_nothing() -> None:
    assert math.isnan(spread_of([]).mean)
    assert math.isnan(spread_of([0.5]).spread)
    assert summarise([]) == []
