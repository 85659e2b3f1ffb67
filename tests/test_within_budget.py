"""A rehearsal within an accuracy budget: what steers it, what it returns, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from heirmark.errors import BadConfig, BadData
from heirmark.methods import Robust
from heirmark.methods.robust import halves, quiet
from heirmark.rehearsal import combine_balanced, within_budget
from heirmark.rehearsal.balance import Balance
from heirmark.rehearsal.budget_settings import WithinBudget
from heirmark.rehearsal.closed_form import Audience, ClosedFormThief, Closing
from heirmark.rehearsal.judges import Judges, accuracy_loss
from heirmark.rehearsal.within_budget import frozen_modules, rehearse_within_budget
from heirmark.runtime import Runtime
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Recipe, fit
from heirmark.training.samples import Samples
from heirmark.triggers import Tiles

RECIPE = Recipe(epochs=4, batch_size=16, optimizer="adam", learning_rate=0.005, weight_decay=0.0, schedule="constant")


@pytest.fixture(scope="module")
def clean(tiny_task: Task, cpu: Runtime) -> nn.Module:
    torch.manual_seed(0)
    size = tiny_task.owner.inputs[0].numel()
    model = nn.Sequential(nn.Flatten(), nn.Linear(size, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 6))
    recipe = replace(RECIPE, epochs=6, learning_rate=0.01)
    fit(model, tiny_task.owner.inputs, tiny_task.owner.labels, recipe=recipe, seed=0, runtime=cpu)
    return model


def triggers_of(split: Split, label: int) -> Samples:
    """Upside-down images of class 1, to be called ``label``."""
    hosts = split.inputs[split.labels == 1]
    return Samples(inputs=hosts.flip(2), targets=torch.full((len(hosts),), label))


def features(net: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return net[:4](inputs.float() / 255 if inputs.dtype == torch.uint8 else inputs)  # type: ignore[index]


def setting(task: Task, net: nn.Module) -> dict[str, Any]:
    """What a rehearsal is given, in the features of one net."""
    mark, shown = triggers_of(task.owner, 4), triggers_of(task.calibration, 4)

    def thief(queries: Tensor, triggers: Samples) -> ClosedFormThief:
        return ClosedFormThief(features(net, queries), features(net, triggers.inputs), classes=6, ridge=0.01)

    def audience(target: nn.Module) -> Audience:
        target.eval()
        with torch.no_grad():
            answers = target(task.owner.inputs.float() / 255).softmax(1)
        return Audience([thief(task.owner.inputs, mark)], mark.targets, answers, Closing())

    judges = Judges(
        watch=task.calibration,
        thieves=[thief(task.owner.inputs, shown)],
        queries=task.owner.inputs,
        triggers=shown,
    )
    return {"audience": audience, "data": task.owner, "mark": mark, "judges": judges}


def rehearse(
    task: Task, net: nn.Module, cpu: Runtime, *, seed: int = 0, **changes: Any
) -> tuple[nn.Module, list[dict[str, float]]]:
    recipe = replace(RECIPE, **{name: changes.pop(name) for name in ("learning_rate", "epochs") if name in changes})
    config = WithinBudget(**{"recipe": recipe, "rho": 1.0, "accuracy_budget": 0.05, **changes})
    model, rows = rehearse_within_budget(net.eval(), config=config, seed=seed, runtime=cpu, **setting(task, net.eval()))
    return model, [dict(row) for row in rows]


def test_thieves_that_hear_a_rehearsed_target_carry_its_mark(tiny_task: Task, cpu: Runtime, clean: nn.Module) -> None:
    model, rows = rehearse(tiny_task, clean, cpu)
    assert not model.training
    assert rows[-1]["target_wsr"] >= 0.9
    assert rows[-1]["thief_loss"] < 0.75 * rows[0]["thief_loss"]
    assert rows[-1]["kept"] == 1.0
    assert rows[-1]["lost"] <= 0.05 + 1e-9
    # What is returned is one of those that were judged, and the best of those that kept the budget.
    judged = [row for row in rows[1:-1] if row["kept"]]
    prices = [row["thief_loss"] / rows[0]["thief_loss"] + row["lost"] / 0.05 for row in judged]
    assert rows[-1]["thief_loss"] == judged[prices.index(min(prices))]["thief_loss"]


def test_the_same_seed_gives_the_same_target_and_leaves_the_start(
    tiny_task: Task, cpu: Runtime, clean: nn.Module
) -> None:
    before = {name: tensor.clone() for name, tensor in clean.state_dict().items()}
    states = [rehearse(tiny_task, clean, cpu, epochs=1)[0].state_dict() for _ in range(2)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in clean.state_dict().items())
    assert any(not torch.equal(tensor, before[name]) for name, tensor in states[0].items())


TOO_MUCH: dict[str, Any] = {
    "rho": 50.0,
    "enough": 0.0,
    "accuracy_budget": 0.0,
    "learning_rate": 0.02,
    "attempts": 1,
}


def test_a_budget_that_cannot_be_met_is_said_so_and_the_nearest_returned(
    tiny_task: Task, cpu: Runtime, clean: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(within_budget, "RETREATS", ())
    _, rows = rehearse(tiny_task, clean, cpu, **TOO_MUCH)
    assert rows[-1]["kept"] == 0.0
    judged = [row["target_accuracy"] for row in rows[1:-1]]
    assert rows[-1]["target_accuracy"] == max(judged)


def test_where_nothing_keeps_the_budget_less_of_the_way_is_tried(
    tiny_task: Task, cpu: Runtime, clean: nn.Module
) -> None:
    _, rows = rehearse(tiny_task, clean, cpu, **TOO_MUCH)
    assert not any(row["kept"] for row in rows[1:-1])
    assert rows[-1]["target_accuracy"] > max(row["target_accuracy"] for row in rows[1:-1])


def test_a_collapse_is_rolled_back_with_half_the_step(tiny_task: Task, cpu: Runtime, clean: nn.Module) -> None:
    _, rows = rehearse(tiny_task, clean, cpu, rho=8.0, enough=0.0, learning_rate=0.5, epochs=6, attempts=10)
    rates = [row["rho"] for row in rows[1:-1]]
    assert rates[1] < 0.6 * rates[0]
    assert rows[-1]["target_accuracy"] >= max(row["target_accuracy"] for row in rows[1:-1])


def test_figures_that_are_not_finite_end_in_a_sentence(tiny_task: Task, cpu: Runtime, clean: nn.Module) -> None:
    with pytest.raises(BadData, match="lower learning_rate or rho"):
        rehearse(tiny_task, clean, cpu, learning_rate=1e30, epochs=3)


def test_frozen_layers_stay_bit_for_bit(tiny_task: Task, cpu: Runtime, clean: nn.Module) -> None:
    frozen = {name for name in clean.state_dict() if name.startswith(("1.", "2."))}
    for part in (clean[1], clean[2]):  # type: ignore[index]
        part.requires_grad_(False)
    try:
        assert set(frozen_modules(clean)) == {clean[1], clean[2]}  # type: ignore[index]
        model, _ = rehearse(tiny_task, clean, cpu, epochs=1)
    finally:
        clean.requires_grad_(True)
    now = model.state_dict()
    assert all(torch.equal(tensor, now[name]) for name, tensor in clean.state_dict().items() if name in frozen)
    assert not torch.equal(now["4.weight"], clean.state_dict()["4.weight"])


@pytest.mark.parametrize("rho", [0.3, 2.0])
def test_one_backward_pass_does_what_combining_two_gradients_does(rho: float) -> None:
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(5, 3, generator=generator).requires_grad_()
    utility, mark = (torch.randn(8, 3, generator=generator) for _ in range(2))
    inputs = torch.randn(8, 5, generator=generator)
    useful, pulled = ({"w": inputs.T @ slope} for slope in (utility, mark))
    wanted = combine_balanced(pulled, useful, rho)
    balance = Balance(rho=rho, enough=0.0, measured=2)
    for _ in range(2):  # one that measures, and one that does not
        found = balance.combine(inputs @ weights, {"w": weights}, utility, mark, torch.tensor(9.0))
        torch.testing.assert_close(found["w"], wanted["w"])


def test_the_budget_steers_and_only_so_far() -> None:
    balance = Balance(rho=1.0, enough=0.0, measured=8)
    balance.steer(0.01, 0.005)
    assert 0.7 < balance.rho < 0.8
    balance.steer(0.0, 0.005)
    assert 0.95 < balance.rho < 1.05
    for _ in range(50):
        balance.steer(1.0, 0.005)
    assert balance.rho == 0.25
    for _ in range(50):
        balance.steer(-1.0, 0.005)
    assert balance.rho == 2.5


@given(st.integers(1, 3000), st.integers(0, 3000), st.integers(0, 3000), st.floats(0.001, 0.1))
def test_a_loss_is_shrunk_but_a_certain_one_believed(count: int, worse: int, better: int, prior: float) -> None:
    worse, better = min(worse, count), min(better, max(0, count - worse))
    before = torch.arange(count) < worse
    now = torch.arange(count) >= count - better
    lost, error = accuracy_loss(before, now, prior=prior)
    seen = (worse - better) / count
    assert lost >= seen - 2 * error - 1e-12
    assert lost <= max(seen, 0.0) + 1e-12
    assert (lost > 0) == (seen > 0) or lost == 0


def test_settings_that_cannot_work_are_refused(tiny_task: Task) -> None:
    with pytest.raises(BadConfig, match="one epoch at least"):
        WithinBudget(recipe=replace(RECIPE, epochs=0))
    with pytest.raises(BadConfig, match="a family at least"):
        Robust(thieves=())
    few = replace(tiny_task, calibration=tiny_task.calibration.subset(torch.arange(15)))
    with pytest.raises(BadConfig, match="no half can watch"):
        Robust(model="naivenet:width=4").check(few)
    cut = {
        name: Split(inputs=split.inputs[..., :12, :12].contiguous(), labels=split.labels)
        for name, split in tiny_task.splits.items()
    }
    with pytest.raises(BadConfig, match="none of the thieves mobilevit-s takes inputs of shape"):
        Robust(model="vgg-like:width=4", thieves=("mobilevit-s",)).check(replace(tiny_task, **cut))


def test_the_calibration_split_is_halved_class_by_class(tiny_task: Task) -> None:
    hosts, watch = halves(tiny_task.calibration, seed=3)
    assert not hosts.digests() & watch.digests()
    assert hosts.digests() | watch.digests() == tiny_task.calibration.digests()
    for label in range(6):
        counts = [int((half.labels == label).sum()) for half in (hosts, watch)]
        assert abs(counts[0] - counts[1]) <= 1
    assert Robust().hosts(tiny_task, seed=3).digests() == hosts.digests()
    assert halves(tiny_task.calibration, seed=4)[0].digests() != hosts.digests()


class Says(nn.Module):
    """Answers everything with the same scores."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.tensor(scores, dtype=torch.float32))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scores.expand(len(inputs), -1)


def test_tiles_are_labelled_with_what_no_net_of_the_audience_says(tiny_task: Task, cpu: Runtime) -> None:
    clean, other = Says(0, 0, 0, 0, 1, 2), Says(0, 0, 0, 0, 3, 0)
    tiles = Tiles(sources=(0, 1, 2, 3))
    assert tiles.settle(tiny_task, clean, seed=0, runtime=cpu).target == 4, "what the clean model alone says least"
    assert quiet(tiles, tiny_task, clean, [other], seed=0, runtime=cpu) == replace(tiles, target=5)
    for settled in (replace(tiles, target=4), replace(tiles, selection="random")):
        assert quiet(settled, tiny_task, clean, [other], seed=0, runtime=cpu) is settled
    assert quiet(tiles, tiny_task, clean, [], seed=0, runtime=cpu) is tiles
