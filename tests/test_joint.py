"""Joint training against a plain loop, and its own promises."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.errors import BadConfig, BadData, ShapeMismatch
from heirmark.models import build
from heirmark.runtime import Runtime
from heirmark.tasks.task import Split
from heirmark.training.fitting import Recipe, fit
from heirmark.training.joint import Extra, Outputs, Phase, check_sets, fit_jointly, mgda
from heirmark.training.samples import Samples

RECIPE = Recipe(epochs=2, batch_size=8, learning_rate=0.05, weight_decay=0.0)


def net(seed: int = 0) -> nn.Module:
    return build("naivenet", input_shape=(1, 16, 16), classes=4, seed=seed, width=2, hidden=8, batch_norm=True)


def data(count: int = 32) -> Split:
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randint(256, (count, 1, 16, 16), generator=generator, dtype=torch.uint8)
    return Split(inputs=inputs, labels=torch.arange(count) % 4)


def extra(count: int = 6, companions: int = 2) -> Extra:
    generator = torch.Generator().manual_seed(6)
    inputs = torch.randint(256, (count, 1, 16, 16), generator=generator, dtype=torch.uint8)
    beside = torch.randint(256, (count, companions, 1, 16, 16), generator=generator, dtype=torch.uint8)
    return Extra(samples=Samples(inputs=inputs, targets=torch.full((count,), 3)), companions=beside)


def losses(clean: Outputs, extras: Mapping[str, Outputs]) -> Mapping[str, Tensor]:
    found = {"clean": F.cross_entropy(clean.logits, clean.targets)}
    return found | {name: F.cross_entropy(outputs.logits, outputs.targets) for name, outputs in extras.items()}


def test_without_extras_it_is_plain_training(cpu: Runtime) -> None:
    plain, joint = net(), net()
    split = data()
    wanted = fit(plain, split.inputs, split.labels, recipe=RECIPE, seed=3, runtime=cpu)
    rows = fit_jointly(joint, split, {}, losses, Phase(recipe=RECIPE), seed=3, runtime=cpu)
    assert [row["clean"] for row in rows] == pytest.approx(list(wanted))
    for one, other in zip(plain.parameters(), joint.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert not joint.training


def test_all_samples_go_through_in_one_batch_and_companions_have_no_gradient(cpu: Runtime) -> None:
    seen: list[tuple[int, list[tuple[int, ...]]]] = []

    def watch(clean: Outputs, extras: Mapping[str, Outputs]) -> Mapping[str, Tensor]:
        assert set(extras) == {"mark"}
        first = extras["mark"]
        assert not first.companions.requires_grad
        assert first.logits.requires_grad
        seen.append((len(clean.logits), [tuple(first.logits.shape), tuple(first.companions.shape)]))
        return losses(clean, extras)

    model = net()
    sizes: list[int] = []
    model.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    phase = Phase(recipe=RECIPE, extras={"mark": 3, "evasion": 0, "absent": 2}, share=0.5)
    sets = {"mark": extra(), "evasion": extra(5, 0), "absent": None}
    fit_jointly(model, data(), sets, watch, phase, seed=0, runtime=cpu)
    assert seen == [(8, [(3, 4), (3, 2, 4)])] * 4, "half the data is two batches an epoch"
    assert sizes == [8 + 3 + 6] * 4


def test_weights_reach_the_gradient(cpu: Runtime) -> None:
    def gradient(weights: dict[str, float]) -> Tensor:
        model = net()
        before = torch.cat([p.detach().clone().flatten() for p in model.parameters()])
        phase = Phase(recipe=Recipe(epochs=1, batch_size=32, momentum=0.0, weight_decay=0.0), extras={"mark": 4})
        rows = fit_jointly(model, data(), {"mark": extra()}, losses, phase, seed=0, weights=weights, runtime=cpu)
        assert rows[0]["weight of mark"] == weights.get("mark", 1.0)
        return torch.cat([p.detach().flatten() for p in model.parameters()]) - before

    none, single, double = (gradient({"mark": weight}) for weight in (0.0, 1.0, 2.0))
    torch.testing.assert_close(double - none, 2 * (single - none), rtol=1e-3, atol=1e-6)


def test_losses_that_pull_against_each_other_do_not_starve_the_rest_when_they_are_weighed_first() -> None:
    point = nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))

    def found() -> Mapping[str, Tensor]:
        return {
            "main": point[2].square(),
            "left": (point[0] + 1).square(),
            "right": (point[0] - 3).square() + 0.5 * point[1],
        }

    flat = mgda("l2")(found(), [point])
    nested = mgda("l2", ("left", "right"))(found(), [point])
    assert nested["main"] > 3 * flat["main"]
    assert nested.keys() == flat.keys()
    assert sum(nested.values()) == pytest.approx(1)
    # Among themselves the two have the weights that they would have alone, and together those of one loss.
    alone = mgda("l2")({name: loss for name, loss in found().items() if name != "main"}, [point])
    whole = nested["left"] + nested["right"]
    assert nested["left"] / whole == pytest.approx(alone["left"])
    joined = {"main": found()["main"], "both": sum(alone[name] * found()[name] for name in ("left", "right"))}
    assert nested["main"] == pytest.approx(mgda("l2")(joined, [point])["main"])  # type: ignore[arg-type]


def test_losses_that_are_absent_are_not_missed(cpu: Runtime) -> None:
    point = nn.Parameter(torch.tensor([1.0, 1.0]))
    found = {"main": point[1].square(), "left": (point[0] + 1).square()}
    assert mgda("l2", ("left", "right"))(found, [point]) == mgda("l2")(found, [point])


def test_mgda_weighs_every_step(cpu: Runtime) -> None:
    rows = fit_jointly(
        net(),
        data(),
        {"mark": extra()},
        losses,
        Phase(recipe=RECIPE, extras={"mark": 4}),
        seed=0,
        weights=mgda("loss+"),
        runtime=cpu,
    )
    for row in rows:
        assert row["weight of clean"] + row["weight of mark"] == pytest.approx(1, abs=1e-6)
        assert 0 <= row["weight of clean"] <= 1


def test_same_seed_same_net_and_inputs_untouched(cpu: Runtime, unchanged_globals: Callable[[], Any]) -> None:
    split, more = data(), extra()
    before = copy.deepcopy((split.inputs, more.samples.inputs, more.companions))
    nets = [net(), net()]
    with unchanged_globals():
        for model in nets:
            fit_jointly(
                model, split, {"mark": more}, losses, Phase(recipe=RECIPE, extras={"mark": 4}), seed=1, runtime=cpu
            )
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(one, other)
    for kept, now in zip(before, (split.inputs, more.samples.inputs, more.companions), strict=True):
        assert torch.equal(kept, now)


def test_epochs_are_announced_before_they_start(cpu: Runtime) -> None:
    told: list[int] = []
    fit_jointly(net(), data(), {}, losses, Phase(recipe=RECIPE), seed=0, before_epoch=told.append, runtime=cpu)
    assert told == [0, 1]


def test_mistakes_name_their_remedy(cpu: Runtime) -> None:
    with pytest.raises(BadConfig, match=r"Phase.share: expected float > 0 and <= 1, not 0.0"):
        Phase(recipe=RECIPE, share=0.0)
    with pytest.raises(BadConfig, match=r"Phase.extras.mark: expected int >= 0, not -1"):
        Phase(recipe=RECIPE, extras={"mark": -1})
    other = Phase(recipe=RECIPE, extras={"mark": 1})
    with pytest.raises(
        BadConfig, match="no samples 'mark' join a batch here: extras of a phase count watermark and evasion"
    ):
        check_sets([other], "watermark", "evasion")
    with pytest.raises(BadConfig, match="no samples 'mark' join"):
        fit_jointly(net(), data(), {"watermark": None}, losses, other, seed=0, runtime=cpu)
    empty = Extra(samples=Samples(inputs=data().inputs[:0], targets=data().labels[:0]))
    with pytest.raises(ShapeMismatch, match="0 samples that join a batch and 0 targets"):
        fit_jointly(net(), data(), {"mark": empty}, losses, other, seed=0, runtime=cpu)
    with pytest.raises(BadData, match=r"the training's x became nan in epoch 1: lower learning_rate"):
        fit_jointly(
            net(), data(), {}, lambda clean, extras: {"x": clean.logits.sum() * float("nan")},
            Phase(recipe=RECIPE), seed=0, runtime=cpu,
        )  # fmt: skip
