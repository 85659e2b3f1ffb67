"""The benchmarks' own machinery: who judges whom, and how figures over seeds are put together."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import own_code
from heirmark.attacks import EXTRACTIONS
from heirmark.errors import BadConfig
from heirmark.methods import T2S, AnyMethod, DeepTracer, KeyFilter
from heirmark.pipeline.context import Context
from heirmark.pipeline.profiles import QUICK
from heirmark.pipeline.stage import lineage
from heirmark.pipeline.store import Event, Store
from heirmark.runtime import Runtime
from heirmark.task import Split
from heirmark.training import Recipe
from heirmark.triggers import Feature, Mix
from heirmark.tuning import Rehearsal

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import attacks
import compare
import extractions
import foreign_null
import summary
import t2s_time
import tables
import training

NET = "naivenet:width=4,hidden=16,batch_norm=true"
RECIPE = Recipe(epochs=3, batch_size=32, learning_rate=0.05)
PROFILE = replace(
    QUICK, model=NET, recipe=RECIPE, calibration_recipe=RECIPE, calibrators=3, triggers=40, key_size=60, trigger_batch=8
)


def bench(store: Path, events: list[Event] | None = None) -> compare.Bench:
    generator = torch.Generator().manual_seed(3)
    noise = torch.randint(256, (80, 1, 16, 16), generator=generator, dtype=torch.uint8)
    pools = {"noise": Split(inputs=noise, labels=torch.zeros(80, dtype=torch.long))}
    runtime = Runtime(device="cpu", precision="float32")
    return compare.Bench(
        profile=PROFILE,
        context=Context(task=own_code.make_task(), runtime=runtime, pools=pools),
        store=Store(store, on_event=(events if events is not None else []).append),
        seed=0,
        other="naivenet:width=3,hidden=8,batch_norm=true",
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A store, and the rows of a method and of one that fails."""
    store = tmp_path_factory.mktemp("benchmark")
    return store, list(bench(store).rows(methods()))


def methods() -> Mapping[str, AnyMethod]:
    failing = DeepTracer(
        model=NET, trigger=Mix(), triggers=40, key_size=60, pretraining=RECIPE,
        first=replace(DeepTracer().first, recipe=replace(RECIPE, epochs=0)),
        second=replace(DeepTracer().second, recipe=replace(RECIPE, epochs=0)),
        key_filter=KeyFilter(candidates=100, surrogate=None, recipe=replace(RECIPE, epochs=0)),
    )  # fmt: skip
    return {"vanilla": replace(PROFILE.vanilla(), trigger=Mix()), "failing": failing}


def test_every_cell_has_its_control(found: tuple[Path, list[dict[str, Any]]]) -> None:
    rows = [row for row in found[1] if row["method"] == "vanilla"]
    suspects = {row["suspect"] for row in rows}
    other = " by naivenet:width=3,hidden=8,batch_norm=true"
    kinds = [f"{how}, {answers}" for how in ("", " with noise", other) for answers in ("soft", "label")]
    assert suspects == {"victim", "unmarked", *(f"{who}stolen{kind}" for who in ("", "unmarked, ") for kind in kinds)}
    assert len(rows) == len(suspects)
    victim = next(row for row in rows if row["suspect"] == "victim")
    assert victim["wsr"] > 0.9
    assert set(victim["says_target"]) == {"adversary", "noise"}
    assert all(0 <= share <= 1 for share in victim["says_target"].values())


def test_a_method_that_fails_is_a_row(found: tuple[Path, list[dict[str, Any]]]) -> None:
    (row,) = [row for row in found[1] if row["method"] == "failing"]
    assert "does not survive" in row["error"]


def test_failures_stay_in_the_summary(found: tuple[Path, list[dict[str, Any]]]) -> None:
    told = compare.summarise(found[1])
    assert told[-1] == {"method": "failing", "failed": [0], "seeds": 1}
    assert "failed for 1 of 1 seeds" in compare.as_markdown(told).splitlines()[-1]


def test_a_cell_that_is_missing_is_empty(found: tuple[Path, list[dict[str, Any]]]) -> None:
    rows = [row for row in found[1] if row.get("suspect") != "stolen, label"]
    assert "|  |" in compare.as_markdown(compare.summarise([*rows, {**found[1][4], "method": "other"}]))


def test_what_the_papers_print_has_a_column(tmp_path: Path) -> None:
    columns = {"victim", *bench(tmp_path).copies(bench(tmp_path).control)}
    known = {name.replace("with noise", "with other data") for name in columns}
    assert known.issuperset(name for sources in tables.PAPERS.values() for cells in sources.values() for name in cells)
    assert (
        compare.as_printed({"stolen with other data, soft": (87.16, 100.0)}, "stolen with noise, soft")
        == "87.2 / 100.0"
    )
    assert compare.as_printed({"victim": (1.0, 2.0)}, "stolen, soft") == ""


def test_foreign_images_go_to_methods_that_take_them_and_into_no_pool(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(4)
    images = torch.randint(256, (60, 3, 8, 8), generator=generator, dtype=torch.uint8)
    foreign = Split(inputs=images, labels=torch.zeros(60, dtype=torch.long))
    of = replace(bench(tmp_path), foreign=foreign)
    method = methods()["failing"]
    assert isinstance(method, DeepTracer)
    assert method.key_filter is not None
    filtered = replace(method, key_filter=replace(method.key_filter, queries="foreign"))
    (row,) = of.rows({"filtered": filtered})
    assert "does not survive" in row["error"]
    assert [compare.asks_foreign(one) for one in (method, filtered)] == [False, True]


def test_again_nothing_is_computed(found: tuple[Path, list[dict[str, Any]]]) -> None:
    events: list[Event] = []
    table = {"vanilla": methods()["vanilla"]}
    assert list(bench(found[0], events).rows(table)) == found[1][:-1]
    assert not [event for event in events if event.what == "started"]


def test_models_that_calibrate_or_choose_are_reported_nowhere(tmp_path: Path) -> None:
    of = bench(tmp_path)
    suspects = {stage.name for stage in of.copies(of.control).values()} | {of.control.name}
    kinds = [stage.kind for stage in of.calibrators]
    assert kinds == ["train"] * PROFILE.calibrators + ["steal"] * 3
    assert len({stage.name for stage in of.calibrators}) == len(kinds)
    assert not suspects & {stage.name for stage in lineage(*of.calibrators)}
    assert of.chooser.name not in {stage.name for stage in lineage(of.control, *of.calibrators)} | suspects


def test_tables_name_what_they_hold() -> None:
    for name, table in tables.TABLES.items():
        for profile in (QUICK, tables.STUDY):
            assert table(profile), name
    assert set(tables.PAPERS) <= set(tables.methods(tables.STUDY))


def test_the_worst_is_the_lowest_of_what_should_carry_the_mark_and_the_highest_of_what_should_not() -> None:
    rows = [
        {"accuracy": acc, "wsr": wsr, "p_value": p, "outcome": outcome}
        for acc, wsr, p, outcome in ((0.9, 0.5, 1e-9, "MARKED"), (0.8, 0.1, 0.2, "NOT_ESTABLISHED"))
    ]
    marked, unmarked = (summary.figures(rows, inherits=inherits) for inherits in (True, False))
    assert (marked["wsr_worst"], unmarked["wsr_worst"]) == (0.1, 0.5)
    assert marked["accuracy_worst"] == unmarked["accuracy_worst"] == 0.8
    assert marked["wsr_mean"] == 0.3
    assert marked["wsr_spread"] == pytest.approx(0.2828)
    assert (marked["marked"], marked["p_value_largest"]) == (1, 0.2)
    assert summary.figures(rows[:1], inherits=True)["wsr_spread"] is None


def test_markdown_sets_the_control_beside_every_cell(found: tuple[Path, list[dict[str, Any]]]) -> None:
    told = compare.summarise(found[1])
    lines = compare.as_markdown(told).splitlines()
    assert len(lines) == 5
    assert lines[0].count("|") == lines[2].count("|") == 9
    assert "unmarked" not in lines[0]
    victim = next(row for row in told if row["suspect"] == "victim")
    assert f"{100 * victim['accuracy_mean']:.1f} / {100 * victim['wsr_mean']:.1f}" in lines[2]
    assert f"{victim['marked']} of 1" in lines[2]


def test_extractions_are_summed_up_over_seeds_beside_what_is_printed() -> None:
    rows = [
        {"attack": "jbda", "answers": "soft", "seed": seed, "queries": 9600, "accuracy": accuracy,
         "victim_accuracy": 0.9, "agreement": 0.85, "seconds": 3.0}
        for seed, accuracy in ((0, 0.8), (1, 0.6))
    ]  # fmt: skip
    (told,) = extractions.summarise(rows)
    assert (told["accuracy_mean"], told["accuracy_worst"], told["accuracy_spread"]) == (0.7, 0.6, 0.1414)
    assert told["printed"] == extractions.PRINTED["jbda", "soft"]
    assert "| jbda | soft | 9,600 | 70.0 [60.0] | 85.0 | 81 to 87 |" in extractions.as_markdown([told])
    (alone,) = extractions.summarise(rows[:1])
    assert alone["accuracy_spread"] is None


def test_every_registered_extraction_is_proved_on_a_clean_victim() -> None:
    known = {type(attack) for attack, _ in extractions.thieves(tables.STUDY, NET).values()}
    assert known == set(EXTRACTIONS.values())


def test_false_alarms_of_keys_without_hosts() -> None:
    """Nineteen models that never hit, and one that hits two keys of three: it is judged whenever it does not calibrate."""
    hits = np.zeros((20, 3), dtype=np.int64)
    hits[7] = (200, 300, 0)
    told = {
        least: foreign_null.false_alarms(hits, least, 5, draws=400, seed=0)["worst_key"] for least in (0.1, 0.5, 0.7)
    }
    assert told == pytest.approx({0.1: 1 / 20, 0.5: 1 / 20, 0.7: 0}, abs=0.01)
    found = foreign_null.false_alarms(hits, 0.5, 5, draws=400, seed=0)
    assert found["false_alarms"] == pytest.approx(1 / 60, abs=0.004), "of the three keys one"
    assert found["keys_above_the_level"] == pytest.approx(1 / 3, abs=1e-3)
    assert foreign_null.needed((0, 0, 0, 0, 0), 0.5) == 277


def test_the_rivals_time_is_told_in_ratios_of_medians() -> None:
    rows = [
        {"thief": thief, "epochs": epochs, "seconds": factor * epochs * noise, "accuracy": 0.8, "round": number}
        for thief, factor in (("heirmark", 1.0), ("rival", 4.0))
        for epochs in attacks.EPOCHS
        for number, noise in enumerate((0.9, 1.0, 3.0))
    ]
    told = attacks.summarise(rows)
    assert {row["rival_takes"] for row in told if row["thief"] == "heirmark"} == {4.0}
    assert {row["rival_takes"] for row in told if row["thief"] == "rival"} == {1.0}


def test_training_speed_is_told_beside_a_plain_loop() -> None:
    rows = training.measure(NET, (1, 16, 16), images=64, batch=32, rounds=1, device="cpu", side=64)
    assert [row["variant"] for row in rows] == ["heirmark", "heirmark, float32", "plain loop"]
    assert rows[2]["times_as_fast_as_plain"] == 1.0
    assert all(row["images_per_second"] > 0 and row["share_of_limit"] >= 0 for row in rows)


def test_what_cannot_be_run_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(model: Any, *given: Any, **options: Any) -> None:
        raise BadConfig("not here: elsewhere")

    monkeypatch.setattr(training, "fit", refused)
    monkeypatch.setattr(training, "finish", lambda where: None)
    rows = training.measure(NET, (1, 16, 16), images=16, batch=8, rounds=1, device="cpu", side=64)
    assert [(row["variant"], row["error"]) for row in rows if "error" in row] == [
        (variant, "not here: elsewhere") for variant in ("heirmark", "heirmark, float32")
    ]


def test_work_of_linear_layers_is_counted_by_hand() -> None:
    flat, first, second = torch.nn.Flatten(), torch.nn.Linear(12, 5), torch.nn.Linear(5, 7)
    image = torch.rand(1, 3, 2, 2)
    assert training.work(torch.nn.Sequential(flat, first), image) == 2 * 2 * 12 * 5
    assert training.work(torch.nn.Sequential(flat, first, second), image) == 2 * 2 * 12 * 5 + 3 * 2 * 5 * 7


@pytest.fixture(scope="module")
def short_t2s() -> T2S:
    long = T2S(
        model=NET, trigger=Feature(steps=2), triggers=10, key_size=10, trigger_batch=4,
        pretraining=replace(RECIPE, epochs=40), rehearsal=Rehearsal(batch_size=32, trigger_batch=8),
    )  # fmt: skip
    short = t2s_time.shortened(long, 0.05)
    assert (short.pretraining.epochs, short.rehearsal.epochs) == (2, 1)
    assert t2s_time.shortened(long, 1.0) == long
    return short


def test_the_time_of_t2s_is_told_by_phase(short_t2s: T2S, cpu: Runtime) -> None:
    task = t2s_time.synthetic(400, owner=0.45, shape=(1, 16, 16), classes=4)
    assert [len(split) for split in (task.owner, task.calibration, task.test)] == [180, 40, 80]
    found = t2s_time.end_to_end(short_t2s, task, cpu)
    phases = ["training unmarked", "feature trigger", "training watermarked", "rehearsing", "rest"]
    assert list(found["seconds_by_phase"]) == phases
    assert found["steps_by_phase"] == dict(zip(phases, (10, 2, 10, 5), strict=False))
    assert found["seconds"] == pytest.approx(sum(found["seconds_by_phase"].values()), abs=0.05)


def test_the_time_of_a_rehearsal_step_is_told_by_parts(short_t2s: T2S, cpu: Runtime) -> None:
    task = t2s_time.synthetic(400, owner=0.45, shape=(1, 16, 16), classes=4)
    found = t2s_time.by_parts(short_t2s, task, cpu, rounds=1)
    assert (found["derivative"], found["precision"], found["batch"]) == ("forward", "float32", [32, 8])
    assert found["images_per_second"] > 0
    assert {"theft", "transfer", "derivative", "whole step", "plain step", "backward"} <= set(found["milliseconds"])


def test_phases_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 2.0, 5.0, 9.0])
    monkeypatch.setattr(t2s_time.time, "perf_counter", lambda: next(clock))
    phases = t2s_time.Phases()
    for description, done in (("first", 1), ("first", 2), ("second", 1)):
        phases(description, done, 2)
    assert list(phases.seconds().items()) == [("first", 2.0), ("second", 3.0), ("rest", 4.0)]
