"""What every attack on encoders promises, run for each of them.

An attack that is added to ``ENCODER_EXTRACTIONS`` is picked up by itself; it needs a tiny configuration in ``CONFIGS``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from contracts import (
    SettingsOf,
    cases,
    check_accepts,
    check_frozen_and_keyword_only,
    check_json,
    check_seeds,
    check_text,
    known,
    stir,
    weights,
)
from torch import nn

from heirmark.attacks import ENCODER_EXTRACTIONS, EXTRACTIONS, ContSteal, FeatureDistillation, Knockoff, StolenEncoder
from heirmark.errors import BadConfig, BudgetExhausted
from heirmark.models import Net, fresh_net
from heirmark.models.storage import load_model, save_model
from heirmark.querying.asking import outputs_of
from heirmark.querying.blackbox import Api, BlackBox
from heirmark.runtime import Runtime
from heirmark.tasks.task import Split, Task
from heirmark.training.contrastive import SIMCLR, SimCLR, pretrain
from heirmark.training.linear_probe import probe_encoder
from heirmark.training.views import Views
from victims import MODEL, RECIPE, Listener

LESS = Views(least=0.5, mirror=0.0)

# The tiny configurations of every attack, by name.
CONFIGS: dict[str, dict[str, Any]] = {
    "feature-distillation": {
        "mse": FeatureDistillation(model=MODEL, recipe=RECIPE),
        "cosine": FeatureDistillation(model=MODEL, recipe=RECIPE, distance="cosine", queries=200),
    },
    "stolen-encoder": {
        "two": StolenEncoder(model=MODEL, recipe=dataclasses.replace(RECIPE, epochs=4), versions=2, weight=2.0),
    },
    "cont-steal": {
        "one": ContSteal(model=MODEL, recipe=RECIPE, asked=1, views=LESS, queries=250),
        "two": ContSteal(model=MODEL, recipe=dataclasses.replace(RECIPE, epochs=4), asked=2, views=LESS),
    },
}  # fmt: skip
ASKED = {"one": 250, "two": 2 * 288, "mse": 288, "cosine": 200}
WIDTH, SEED = 24, 3


@pytest.fixture(scope="module")
def encoder(tiny_task: Task, cpu: Runtime) -> nn.Module:
    net = fresh_net(MODEL, input_shape=tiny_task.input_shape, classes=WIDTH, seed=0).model
    how = SimCLR(recipe=dataclasses.replace(SIMCLR, epochs=3, batch_size=48), views=LESS)
    pretrain(net, tiny_task.owner.inputs, width=WIDTH, settings=how, seed=0, runtime=cpu)
    return net


@pytest.fixture(scope="module")
def box(encoder: nn.Module, cpu: Runtime) -> Callable[..., BlackBox]:
    """Makes a fresh box around the encoder."""
    return lambda **options: BlackBox(encoder, classes=WIDTH, runtime=cpu, api=Api(answers="features", **options))


@pytest.fixture(params=cases(ENCODER_EXTRACTIONS, CONFIGS))
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    return known(request.param, CONFIGS, Path(__file__).name)


@pytest.fixture
def config(case: tuple[str, str]) -> Any:
    return CONFIGS[case[0]][case[1]]


@pytest.fixture(scope="module")
def stolen(tiny_task: Task, cpu: Runtime, box: Callable[..., BlackBox]) -> Callable[[str, str], tuple[Net, int]]:
    """Runs a configuration once and keeps the copy, which no test may change, and how many queries were asked."""
    kept: dict[tuple[str, str], tuple[Net, int]] = {}

    def run(name: str, variant: str) -> tuple[Net, int]:
        if (name, variant) not in kept:
            victim = box()
            net = CONFIGS[name][variant](victim, tiny_task.adversary, seed=SEED, runtime=cpu)
            kept[name, variant] = net, victim.queries_used
        return kept[name, variant]

    return run


def test_every_attack_has_a_configuration_here(case: tuple[str, str], config: Any) -> None:
    assert type(config) is ENCODER_EXTRACTIONS[case[0]]
    assert case[0] not in EXTRACTIONS


@pytest.mark.parametrize("name", ENCODER_EXTRACTIONS)
def test_a_configuration_is_frozen_and_there_is_no_way_to_be_given_a_key(name: str) -> None:
    check_frozen_and_keyword_only(ENCODER_EXTRACTIONS[name])
    check_accepts(ENCODER_EXTRACTIONS[name], ["box", "data"], ["seed", "runtime"])


def test_a_configuration_goes_to_json_and_text_and_back(config: Any, settings_of: SettingsOf) -> None:
    check_json(config, ENCODER_EXTRACTIONS)
    check_text(config, settings_of)


def test_a_copy_sees_what_its_victim_sees(
    case: tuple[str, str], stolen: Callable[..., tuple[Net, int]], encoder: nn.Module, tiny_task: Task, cpu: Runtime,
    tmp_path: Path,
) -> None:  # fmt: skip
    """A probe of either, fitted to the same examples, mostly agrees, and one that has learned nothing is far behind."""
    net, _ = stolen(*case)
    assert not any(part.training for part in net.model.modules())
    assert net.spec.classes == WIDTH

    def said(model: nn.Module) -> torch.Tensor:
        probe = probe_encoder(model, tiny_task.calibration, classes=6, runtime=cpu)
        return probe(outputs_of(model, tiny_task.test.inputs, runtime=cpu)).argmax(1)

    assert float((said(net.model) == said(encoder)).double().mean()) > 0.75
    save_model(net, tmp_path)
    assert weights(load_model(tmp_path).model) == weights(net.model)


def test_one_seed_gives_one_copy_and_leaves_no_trace(
    case: tuple[str, str], config: Any, stolen: Callable[..., tuple[Net, int]], box: Callable[..., BlackBox],
    encoder: nn.Module, tiny_task: Task, cpu: Runtime, unchanged_globals: Callable[[], Any],
) -> None:  # fmt: skip
    data, before = tiny_task.adversary, weights(encoder)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    blind = Split(inputs=data.inputs.clone(), labels=data.labels[order])
    stir()
    with unchanged_globals():
        again = config(box(), blind, seed=SEED, runtime=cpu)
    assert weights(again.model) == weights(stolen(*case)[0].model), "true labels are not looked at"
    assert weights(encoder) == before
    assert torch.equal(blind.inputs, data.inputs)
    other = config(box(), data, seed=SEED + 1, runtime=cpu)
    assert weights(other.model) != weights(again.model)


def test_queries_are_counted_and_no_budget_is_overdrawn(
    case: tuple[str, str], config: Any, stolen: Callable[..., tuple[Net, int]], box: Callable[..., BlackBox],
    tiny_task: Task, cpu: Runtime,
) -> None:  # fmt: skip
    needed = stolen(*case)[1]
    assert needed == (288 if case[0] == "stolen-encoder" else ASKED[case[1]])
    poor = box(budget=needed - 1)
    with pytest.raises(BudgetExhausted):
        config(poor, tiny_task.adversary, seed=SEED, runtime=cpu)
    assert poor.queries_used == 0


def test_bad_seeds_and_boxes_of_another_kind_are_refused(
    config: Any, box: Callable[..., BlackBox], victim: nn.Module, tiny_task: Task, cpu: Runtime
) -> None:
    check_seeds(lambda seed: config(box(), tiny_task.adversary, seed=seed, runtime=cpu))
    with pytest.raises(BadConfig, match="learns features, and the box shows probabilities: take an attack on class"):
        config(BlackBox(victim, classes=6, runtime=cpu), tiny_task.adversary, seed=0, runtime=cpu)
    with pytest.raises(BadConfig, match="Knockoff learns answers, and the box shows features: take one on encoders"):
        Knockoff(model=MODEL, recipe=RECIPE)(box(), tiny_task.adversary, seed=0, runtime=cpu)


def test_a_function_is_as_good_a_victim_as_a_module(
    case: tuple[str, str], config: Any, stolen: Callable[..., tuple[Net, int]], encoder: nn.Module, tiny_task: Task,
    cpu: Runtime,
) -> None:  # fmt: skip
    far = Listener(lambda inputs: outputs_of(encoder, inputs, runtime=cpu))
    net = config(BlackBox(far, classes=WIDTH, api=Api(answers="features")), tiny_task.adversary, seed=SEED, runtime=cpu)
    assert weights(net.model) == weights(stolen(*case)[0].model)


# ---------------------------------------------------------------- losses


def test_stolen_encoder_weighs_images_and_their_versions() -> None:
    generator = torch.Generator().manual_seed(0)
    wanted, own, first, second = torch.randn(4, 5, 3, generator=generator)
    attack = StolenEncoder(versions=2, weight=4.0)

    def distance(features: torch.Tensor) -> float:
        pairs = zip(features, wanted, strict=True)
        return sum(float((a / a.norm() - b / b.norm()).norm()) for a, b in pairs) / len(wanted)

    expected = distance(own) + 4.0 * (distance(first) + distance(second)) / 2
    assert attack.loss(torch.cat([own, first, second]), wanted).item() == pytest.approx(expected, rel=1e-5)


def test_distances_of_features() -> None:
    wanted, own = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    assert FeatureDistillation().loss(own, wanted).item() == pytest.approx(float((own - wanted).square().mean()))
    cosine = FeatureDistillation(distance="cosine")
    assert cosine.loss(3 * wanted, wanted).item() == pytest.approx(0, abs=1e-6)
    assert cosine.loss(own, wanted).item() == pytest.approx(1 - float(F.cosine_similarity(own, wanted).mean()))
