"""The benchmarks' own machinery: who judges whom, and how figures over seeds are put together."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heirmark.attacks import ENCODER_EXTRACTIONS, EXTRACTIONS
from heirmark.errors import BadConfig
from heirmark.methods import ENCODER_METHODS, T2S, PowerFilter
from heirmark.methods.base import key_from
from heirmark.methods.nets import new_model
from heirmark.profiles import STUDY
from heirmark.rehearsal.settings import Rehearsal
from heirmark.runtime import Runtime
from heirmark.stages.store import Store
from heirmark.tasks.task import Task
from heirmark.training.fitting import Recipe
from heirmark.triggers import Feature
from heirmark.triggers.tiles import TilesSecret
from heirmark.work.context import Context

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import attacks
import encoders
import extractions
import foreign_null
import key_power
import t2s_map
import t2s_time
import training

NET = "naivenet:width=4,hidden=16,batch_norm=true"
RECIPE = Recipe(epochs=3, batch_size=32, learning_rate=0.05)


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


def test_marks_in_encoders_are_summed_up_beside_their_twins() -> None:
    rows = [
        {"seed": seed, "method": "mea-defender", "arm": arm, "thief": "stolen-encoder", "removal": "",
         "accuracy": 0.8, "wsr": wsr, "outcome": outcome}
        for seed, arm, wsr, outcome in (
            (0, "marked", 0.9, "MARKED"), (1, "marked", 0.5, "NOT_ESTABLISHED"),
            (0, "twin", 0.0, "NOT_ESTABLISHED"), (1, "twin", 0.1, "NOT_ESTABLISHED"),
        )
    ]  # fmt: skip
    searched = {"seed": 0, "method": "mea-defender", "removal": "neural-cleanse", "suspects": []}
    (told,) = encoders.summarise([*rows, searched])
    assert (told["marked_wsr"], told["marked_worst"], told["marked_found"], told["seeds"]) == (0.7, 0.5, 1, 2)
    assert (told["twin_worst"], told["twin_found"]) == (0.1, 0)
    line = "| mea-defender | stolen-encoder | 80.0, 80.0 | 70 [50] | 1 of 2 | 5, 0 | 78, 93 |"
    assert line in encoders.as_markdown([told])


def test_every_method_and_thief_of_encoders_is_measured() -> None:
    assert {type(method) for method in encoders.methods(2).values()} == set(ENCODER_METHODS.values())
    assert {type(thief) for thief in encoders.thieves(2).values()} == set(ENCODER_EXTRACTIONS.values())


def test_every_registered_extraction_is_proved_on_a_clean_victim() -> None:
    known = {type(attack) for attack, _ in extractions.thieves(STUDY, NET).values()}
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


def test_a_key_is_chosen_of_the_secret_of_a_plain_one(tiny_task: Task, cpu: Runtime) -> None:
    short = replace(RECIPE, epochs=1)
    secret = TilesSecret(sources=(0, 1, 2, 3), target=5)
    plain = key_from(secret.draw(tiny_task.calibration, 30, seed=0), secret, tiny_task, method="t2s", seed=0)
    chooser = PowerFilter(candidates=90, thieves=(NET,), answers=("label",), unmarked=1, recipe=short)
    marked = new_model(tiny_task, NET, seed=0).eval()
    chosen = key_power.chosen_key(plain, marked, tiny_task, chooser, seed=1, runtime=cpu)
    assert len(chosen) == len(plain)
    assert (chosen.kind, chosen.trigger, chosen.method) == (plain.kind, plain.trigger, "t2s")
    assert chosen.disjoint_from(plain.queries)
    assert chosen.expected.unique().tolist() == [5]


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
        pretraining=replace(RECIPE, epochs=40), rehearsal=Rehearsal(recipe=Recipe(batch_size=32, epochs=3), trigger_batch=8),
    )  # fmt: skip
    short = t2s_time.shortened(long, 0.05)
    assert (short.pretraining.epochs, short.rehearsal.recipe.epochs) == (2, 1)
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


def test_a_rehearsal_is_timed_as_the_loop_takes_it(short_t2s: T2S, cpu: Runtime) -> None:
    task = t2s_time.synthetic(400, owner=0.45, shape=(1, 16, 16), classes=4, protocol="paper")
    assert task.adversary is task.owner
    found = t2s_time.in_the_loop(short_t2s, task, cpu, steps=2)
    assert (found["precision"], found["batch"], found["steps"]) == ("float32", [32, 8], 2)
    assert set(found["milliseconds"]) == {"rehearsal", "training"}


def test_the_best_point_keeps_accuracy_and_has_most_of_the_mark() -> None:
    def row(name: str, accuracy: float, wsr: float, loss: float) -> dict[str, Any]:
        after = {"target_accuracy": accuracy, "student_wsr": wsr, "watermark_loss": loss}
        return {"name": name, "before": {"target_accuracy": 0.6}, "after": after}

    rows = [row("collapsed", 0.2, 0.9, 1.0), row("none", 0.6, 0.0, 9.0), row("nearer", 0.55, 0.0, 4.0)]
    assert t2s_map.best_of(rows)["name"] == "nearer"
    assert t2s_map.best_of([*rows, row("some", 0.51, 0.1, 7.0)])["name"] == "some"
    assert t2s_map.best_of(rows[:1])["name"] == "collapsed"


def test_a_point_of_the_map_changes_what_it_says() -> None:
    scale = t2s_map.Scale(model=NET, recipe=replace(RECIPE, augment="flip"), rehearsal=2, theft=1)
    (first, *_) = t2s_map.rates()
    method = scale.method(first)
    assert (method.rehearsal.thief.rate, method.rehearsal.recipe.learning_rate) == t2s_map.RATES[0]
    changed = [scale.method(point) for point in t2s_map.variants(first)]
    assert [each.rehearsal.recipe.epochs for each in changed] == [2, 2, 6, 2]
    assert [each.rehearsal.recipe.batch_size for each in changed] == [64, 256, 64, 64]
    assert [each.rehearsal.thief.loss.kind for each in changed].count("reverse-kl") == 1
    assert [each.vanilla() == method.vanilla() for each in changed] == [True] * 3 + [False], "from one marked model"


@pytest.mark.slow
def test_a_map_is_explored_to_its_end(tmp_path: Path, cpu: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(t2s_map, "RATES", ((0.05, 1e-3),))
    task = t2s_time.synthetic(400, owner=0.95, shape=(1, 16, 16), classes=4, protocol="paper")
    scale = t2s_map.Scale(model=NET, recipe=RECIPE, rehearsal=1, theft=1, triggers=5)
    world = t2s_map.Map(Context(task=task, runtime=cpu), Store(tmp_path), scale, 0)
    written: list[dict[str, Any]] = []
    t2s_map.explore(world, lambda found: written.append(copy.deepcopy(dict(found))))
    found = written[-1]
    assert len(found["rows"]) == 6
    assert found["slopes"]["ratio"] > 0
    assert len({"before the rehearsal", t2s_map.OURS.name} & set(found["thefts"])) == 2
    assert len(found["thefts"]) == 3
    assert all(set(copies) == {"probabilities", "label"} for copies in found["thefts"].values())
    assert len(written) > 10, "whatever is known is written at once"


def test_phases_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 2.0, 5.0, 9.0])
    monkeypatch.setattr(t2s_time.time, "perf_counter", lambda: next(clock))
    phases = t2s_time.Phases()
    for description, done in (("first", 1), ("first", 2), ("second", 1)):
        phases(description, done, 2)
    assert list(phases.seconds().items()) == [("first", 2.0), ("second", 3.0), ("rest", 4.0)]
