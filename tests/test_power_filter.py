"""Keys chosen for power: the score, what the choice may look at, and that the null stays honest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from heirmark.configuration import apply_settings, from_json, to_json
from heirmark.errors import BadConfig
from heirmark.methods import T2S, DeepTracer, KeyFilter, PowerFilter, Vanilla
from heirmark.methods.base import Prepared
from heirmark.methods.nets import new_model
from heirmark.methods.power_filter import separation
from heirmark.runtime import Runtime
from heirmark.tasks.space import Images
from heirmark.tasks.task import Task
from heirmark.training.fitting import Recipe
from heirmark.triggers import Mix, Patch, TriggerSet
from heirmark.verification.statistics import least_hits, null_rate

NET = "naivenet:width=4,hidden=16,batch_norm=true"
OTHER = "naivenet:width=5,hidden=16,batch_norm=true"
ADAM = Recipe(epochs=2, batch_size=16, learning_rate=0.02, optimizer="adam")
SMALL = PowerFilter(candidates=60, thieves=(NET, OTHER), recipe=ADAM, unmarked=1)


def of(*hits: tuple[float, ...]) -> Tensor:
    return torch.tensor(hits)


def test_the_score_is_that_of_its_formula() -> None:
    copies, unmarked = [of((1.0, 0.25), (0.5, 0.0)), of((0.0, 1.0))], of((0.0, 0.5), (0.0, 0.5), (0.25, 0.0))
    told = separation(copies, unmarked)
    for place in (0, 1):
        found = [
            np.log((sum(float(row[place]) for row in family) + 0.5) / (len(family) + 1))
            for family in [*copies, unmarked]
        ]
        assert float(told[place]) == pytest.approx((found[0] + found[1]) / 2 - found[2])


def test_a_candidate_that_every_family_hits_goes_before_one_that_some_hit_more() -> None:
    both, one = separation([of((0.5, 1.0)), of((0.5, 0.0))], of((0.0, 0.0)))
    assert both > one


def test_a_family_that_learned_nothing_decides_nothing() -> None:
    taught, unmarked = of((0.9, 0.2, 0.4)), of((0.0, 0.0, 0.0))
    alone, beside = (separation(copies, unmarked) for copies in ([taught], [taught, of((0.1, 0.1, 0.1))]))
    assert alone.argsort().tolist() == beside.argsort().tolist()


@given(st.lists(st.floats(0, 1), min_size=6, max_size=6), st.floats(0.01, 1))
def test_more_hits_of_copies_help_and_of_unmarked_models_harm(hits: list[float], more: float) -> None:
    copies, unmarked = [of(tuple(hits[:2])), of(tuple(hits[2:4]))], of(tuple(hits[4:]))
    before = separation(copies, unmarked)
    raised = copies[0].clone()
    raised[0, 0] = min(1.0, float(raised[0, 0]) + more)
    assert separation([raised, copies[1]], unmarked)[0] >= before[0]
    worse = unmarked.clone()
    worse[0, 0] = min(1.0, float(worse[0, 0]) + more)
    assert separation(copies, worse)[0] <= before[0]


# ---------------------------------------------------------------- the null


def false_alarms(*, independent: bool, rounds: int = 200, level: float = 0.01) -> float:
    """How often an unmarked model is called marked by the first test, where the mark is none at all.

    The worst case for a choice: "copies" hit as any unmarked model does, so that it looks at nothing but chance. Candidates
    differ in how often unmarked models hit them, and models in how often they hit.

    Args:
        independent: whether models that had no part in the choice calibrate, or the unmarked shadows do.
        rounds: of new candidates, shadows, models that calibrate and one that is judged.
        level: of the test.
    """
    generator = np.random.default_rng(0)
    alarms = 0
    for _ in range(rounds):
        ease = generator.normal(-1.5, 1.5, 1000)

        def models(count: int, ease: Any = ease) -> Tensor:
            chances = 1 / (1 + np.exp(-(ease + generator.normal(0, 0.3, (count, 1)))))
            return torch.tensor((generator.random(chances.shape) < chances).astype(np.float32))

        shadows = models(3)
        chosen = separation([models(2), models(2)], shadows).argsort(descending=True)[:100]
        calibrating = models(5) if independent else shadows
        rate = null_rate([int(row.sum()) for row in calibrating[:, chosen]], len(chosen), 0.1)
        least = least_hits(len(chosen), rate, level)
        alarms += least is not None and int(models(1)[0, chosen].sum()) >= least
    return alarms / rounds


def test_a_chosen_key_accuses_no_more_unmarked_models_than_the_level_says_when_others_calibrate() -> None:
    assert false_alarms(independent=True) <= 0.01


def test_calibrated_by_the_shadows_that_chose_it_a_key_accuses_the_innocent() -> None:
    assert false_alarms(independent=False) > 0.2, "else the test above could not fail"


# ---------------------------------------------------------------- the choice


class Says(nn.Module):
    """Scores of the first pixel's number, those of a table."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table

    def forward(self, inputs: Tensor) -> Tensor:
        return self.table[(inputs[:, 0, 0, 0] * 255).round().long()]


def test_the_best_candidates_are_kept_and_repeated_controls_come_last(
    monkeypatch: pytest.MonkeyPatch, tiny_task: Task, cpu: Runtime
) -> None:
    """Candidates 0 to 4; as many controls, that of 1 being that of 0."""
    inputs = torch.zeros(10, 1, 16, 16, dtype=torch.uint8)
    inputs[:, 0, 0, 0] = torch.arange(10)
    rows = torch.tensor([5, 5, 7, 8, 9])
    drawn = TriggerSet(
        inputs=inputs[:5], targets=torch.ones(5, dtype=torch.long), controls=inputs[rows], hosts=inputs[rows][:, None],
        host_labels=torch.zeros(5, 1, dtype=torch.long),
    )  # fmt: skip

    def says(*probabilities: float) -> nn.Module:
        of_target = torch.tensor(probabilities).clamp(1e-6, 1 - 1e-6)
        return Says(torch.stack([1 - of_target, of_target], 1).log())

    copies = [says(0.9, 0.9, 0.4, 0.9, 0.0, 0, 0, 0, 0.95, 0), says(0.9, 0.8, 0.3, 0.9, 0.0, 0, 0, 0, 0.95, 0)]
    innocent = says(0.0, 0.0, 0.0, 0.0, 0.9, 0, 0, 0, 0, 0)
    monkeypatch.setattr(PowerFilter, "copies", lambda *args, **options: [iter(copies)])
    monkeypatch.setattr(PowerFilter, "innocents", lambda *args, **options: iter([innocent]))
    asked = nn.Module()  # would fail if it were asked
    ready = Prepared(task=tiny_task, clean=asked, secret=Patch().settle(tiny_task, asked, seed=0), training=drawn)

    def kept(count: int) -> list[int]:
        found = PowerFilter()(drawn, asked, ready, keep=count, architecture=NET, seed=0, runtime=cpu)
        return found.inputs[:, 0, 0, 0].tolist()

    # Of 3 the control hits too, 4 is what unmarked models hit, and 1 has a control that stands there already.
    assert kept(9) == [0, 2, 3, 4, 1]
    assert kept(2) == [0, 2]


def test_shadows_are_of_all_families_and_answers_and_their_seeds_differ(
    tiny_task: Task, cpu: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[int, bool]] = []

    def fake(model: nn.Module, inputs: Tensor, targets: Tensor, *, seed: int, **options: Any) -> None:
        assert len(inputs) == len(tiny_task.owner)
        trained.append((seed, targets.is_floating_point()))

    monkeypatch.setattr("heirmark.methods.power_filter.fit", fake)
    monkeypatch.setattr("heirmark.methods.nets.fit", fake)
    secret = Patch().settle(tiny_task, nn.Identity(), seed=0)
    ready = Prepared(task=tiny_task, clean=nn.Module(), secret=secret, training=secret.draw(tiny_task.owner, 1, seed=0))
    victim = nn.Sequential(nn.Flatten(), nn.Linear(256, tiny_task.num_classes))
    chooser = replace(SMALL, unmarked=3)
    families = [list(family) for family in chooser.copies(victim, ready, seed=0, runtime=cpu)]
    assert [len(family) for family in families] == [2, 2]
    assert [soft for _, soft in trained] == [True, False] * 2
    assert len(list(chooser.innocents(ready, seed=0, runtime=cpu))) == 6
    assert len({seed for seed, _ in trained}) == 10


def test_a_mark_that_no_copy_has_gives_a_key_all_the_same(tiny_task: Task, cpu: Runtime) -> None:
    short = replace(ADAM, epochs=1)
    clean = new_model(tiny_task, NET, seed=0).eval()
    method = Vanilla(
        model=NET, trigger=Mix(sources=(1, 3), target=0), triggers=20, trigger_batch=1, key_size=25, pretraining=short,
        key_filter=replace(SMALL, thieves=(NET,), answers=("label",), recipe=short),
    )  # fmt: skip
    chosen = method(tiny_task, seed=0, runtime=cpu, clean=clean).key
    plain = replace(method, key_filter=None, key_size=60)(tiny_task, seed=0, runtime=cpu, clean=clean).key
    assert len(chosen) == 25
    assert set(chosen.digests[0]) < set(plain.digests[0]), "chosen among held-out triggers"
    assert chosen.digests[0] != plain.digests[0][:25]


def test_it_is_set_by_name_and_travels_as_json(tiny_task: Task) -> None:
    method = apply_settings(
        T2S(), ["key_filter=power-filter", "key_filter.unmarked=4", f"key_filter.thieves={NET}"[:30]]
    )
    assert isinstance(method.key_filter, PowerFilter)
    assert method.key_filter.unmarked == 4
    for kept in (method, DeepTracer(key_filter=SMALL), DeepTracer()):
        assert from_json({type(kept).__name__: type(kept)}, to_json(kept)) == kept
    assert isinstance(DeepTracer().key_filter, KeyFilter)
    assert set(replace(method, key_filter=SMALL).architectures(Images((1, 16, 16)))) == {"resnet18", NET, OTHER}
    asking = replace(SMALL, queries="foreign")
    assert Vanilla(key_filter=asking).needs_foreign
    with pytest.raises(BadConfig, match="--foreign NAME"):
        Vanilla(model=NET, key_size=20, key_filter=asking)(replace(tiny_task, foreign=None), seed=0)
    with pytest.raises(BadConfig, match="among 60 candidates"):
        Vanilla(model=NET, key_size=61, key_filter=SMALL)(tiny_task, seed=0)
    with pytest.raises(BadConfig, match=r"PowerFilter.thieves: expected .*at least one"):
        PowerFilter(thieves=())
