"""Encoders: how they learn without labels, what a probe reads off them, and how they are asked and suspected."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from heirmark.attacks import NeuralCleanse, Pruning
from heirmark.errors import BadConfig, BudgetExhausted, ShapeMismatch
from heirmark.keys.making import make_key
from heirmark.models import Net, fresh_net, specify
from heirmark.querying.asking import outputs_of
from heirmark.querying.blackbox import Api, BlackBox
from heirmark.querying.oracle import ModelFault
from heirmark.runtime import Runtime
from heirmark.tasks.task import Task
from heirmark.training.contrastive import SIMCLR, SimCLR, nt_xent, pretrain
from heirmark.training.linear_probe import Probed, fit_probe, probe_accuracy, probe_encoder
from heirmark.training.views import Views
from heirmark.verification import Suspect, verify

WIDTH = 24


@pytest.fixture(scope="module")
def encoder(tiny_task: Task, tiny_model: str, cpu: Runtime) -> nn.Module:
    """An encoder of the tiny task's inputs that has learned for a second. Do not change it."""
    net = fresh_net(tiny_model, input_shape=tiny_task.input_shape, classes=WIDTH, seed=0).model
    how = SimCLR(recipe=dataclasses.replace(SIMCLR, epochs=3, batch_size=48), views=Views(least=0.5, mirror=0.0))
    pretrain(net, tiny_task.owner.inputs, width=WIDTH, settings=how, seed=0, runtime=cpu)
    return net


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- the loss


def plain_nt_xent(first: Tensor, second: Tensor, temperature: float) -> float:
    """Equation 1 of the paper, word for word."""
    rows = [row / row.norm() for row in (*first.double(), *second.double())]
    count = len(first)
    total = 0.0
    for i in range(2 * count):
        j = (i + count) % (2 * count)
        others = sum(math.exp(float(rows[i] @ rows[k]) / temperature) for k in range(2 * count) if k != i)
        total -= math.log(math.exp(float(rows[i] @ rows[j]) / temperature) / others)
    return total / (2 * count)


@given(st.integers(2, 6), st.integers(2, 5), st.floats(0.1, 2.0), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_nt_xent_is_the_papers_equation(count: int, width: int, temperature: float, seed: int) -> None:
    first, second = torch.randn(2, count, width, generator=generator(seed))
    expected = plain_nt_xent(first, second, temperature)
    assert nt_xent(first, second, temperature=temperature).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


# ---------------------------------------------------------------- views


@pytest.mark.parametrize(
    "inputs",
    [
        torch.randint(256, (5, 3, 12, 12), dtype=torch.uint8, generator=generator()),
        torch.rand(5, 1, 9, 12, generator=generator()),
        torch.randint(-32768, 32768, (5, 1, 200), dtype=torch.int16, generator=generator()),
    ],
)
def test_views_stay_in_bounds_and_come_from_the_generator(inputs: Tensor, unchanged_globals: Callable[[], Any]) -> None:
    with unchanged_globals():
        one, again, other = (Views()(inputs, generator(seed)) for seed in (1, 1, 2))
    assert one.shape == inputs.shape
    assert one.dtype == torch.float32
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert float(one.min()) >= (-1 if inputs.ndim == 3 else 0)
    assert float(one.max()) <= 1


def test_a_view_that_changes_nothing_is_the_image() -> None:
    images = torch.rand(3, 3, 8, 8, generator=generator())
    still = Views(least=1.0, mirror=0.0, colour=0.0, grey=0.0)
    torch.testing.assert_close(still(images, generator()), images)
    torch.testing.assert_close(dataclasses.replace(still, mirror=1.0)(images, generator()), images.flip(3))


def test_grey_views_have_like_channels() -> None:
    images = torch.rand(4, 3, 8, 8, generator=generator())
    shown = Views(grey=1.0)(images, generator())
    torch.testing.assert_close(shown[:, 0], shown[:, 2])


def test_texts_have_no_views() -> None:
    with pytest.raises(BadConfig, match=r"no views are known of tokens \[L\]"):
        Views()(torch.ones(2, 4, dtype=torch.int32), generator())


# ---------------------------------------------------------------- learning


def test_an_encoder_learns_without_labels(encoder: nn.Module, tiny_task: Task, tiny_model: str, cpu: Runtime) -> None:
    probe = probe_encoder(encoder, tiny_task.owner, classes=6, runtime=cpu)
    assert probe_accuracy(encoder, probe, tiny_task.test, runtime=cpu) > 0.8


def test_pretraining_is_the_same_for_the_same_seed(
    tiny_task: Task, tiny_model: str, cpu: Runtime, unchanged_globals: Callable[[], Any]
) -> None:
    how = SimCLR(recipe=dataclasses.replace(SIMCLR, epochs=1, batch_size=96))

    def trained(seed: int) -> tuple[Tensor, float]:
        net = fresh_net(tiny_model, input_shape=tiny_task.input_shape, classes=WIDTH, seed=0).model
        rows = pretrain(net, tiny_task.owner.inputs[:192], width=WIDTH, settings=how, seed=seed, runtime=cpu)
        assert not net.training
        return torch.cat([p.detach().flatten() for p in net.parameters()]), rows[-1]["loss"]

    with unchanged_globals():
        one, again, other = trained(1), trained(1), trained(2)
    assert torch.equal(one[0], again[0])
    assert one[1] == again[1]
    assert not torch.equal(one[0], other[0])


# ---------------------------------------------------------------- the probe


def test_a_probe_finds_a_line_and_its_minimum() -> None:
    features = torch.randn(300, 4, generator=generator()) * torch.tensor([1.0, 100.0, 0.01, 1.0]) + 7
    labels = ((features - 7) @ torch.tensor([1.0, 0.01, 0.0, 0.0]) > 0).long()
    probe = fit_probe(features, labels, classes=3)
    assert float((probe(features).argmax(1) == labels).double().mean()) > 0.98
    leaf = probe.weight.double().requires_grad_()
    own = (features.double() - probe.mean.double()) / probe.scale.double()
    loss = nn.functional.cross_entropy(own @ leaf.T + probe.bias.double(), labels) + 0.5e-3 * leaf.square().sum()
    (slope,) = torch.autograd.grad(loss, leaf)
    assert float(slope.abs().max()) < 1e-4


def test_features_and_labels_have_to_fit() -> None:
    with pytest.raises(ShapeMismatch, match="give \\[N, D\\] and a label below"):
        fit_probe(torch.zeros(4, 3), torch.tensor([0, 1, 2, 3]), classes=3)


def test_an_encoder_with_a_probe_is_a_classifier_with_features(
    encoder: nn.Module, tiny_task: Task, cpu: Runtime
) -> None:
    whole = Probed(encoder, probe_encoder(encoder, tiny_task.owner, classes=6, runtime=cpu))
    inputs = tiny_task.test.inputs[:5]
    torch.testing.assert_close(whole.head(whole.features(inputs)), whole(inputs))
    torch.testing.assert_close(whole.features(inputs), outputs_of(encoder, inputs, runtime=cpu))


# ---------------------------------------------------------------- asking


def test_a_box_shows_features_within_its_budget(encoder: nn.Module, tiny_task: Task, cpu: Runtime) -> None:
    inputs = tiny_task.adversary.inputs[:10]
    box = BlackBox(encoder, classes=WIDTH, api=Api(answers="features", budget=12), runtime=cpu)
    answers = box.query(inputs)
    assert answers.probabilities is None
    assert answers.labels.shape == (0,)
    assert answers.features is not None
    assert torch.equal(answers.features, outputs_of(encoder, inputs, runtime=cpu))
    with pytest.raises(BudgetExhausted):
        box.features(inputs)
    assert box.remaining == 2
    rounded = BlackBox(encoder, classes=WIDTH, api=Api(answers="features", decimals=1), runtime=cpu).features(inputs)
    torch.testing.assert_close(rounded, (answers.features * 10).round() / 10)


def test_a_function_may_give_features_of_any_size(tiny_task: Task) -> None:
    api = Api(answers="features")
    box = BlackBox(lambda inputs: inputs.flatten(1)[:, :4] * 9 - 3, classes=4, api=api)
    assert float(box.features(tiny_task.test.inputs).min()) < 0
    with pytest.raises(ModelFault, match="NaN"):
        BlackBox(lambda inputs: inputs.flatten(1)[:, :4] / 0, classes=4, api=api).features(tiny_task.test.inputs)


def test_what_has_no_sense_with_features_is_refused(encoder: nn.Module, tiny_task: Task, cpu: Runtime) -> None:
    with pytest.raises(BadConfig, match="levels are of probabilities"):
        Api(answers="features", levels=10)
    with pytest.raises(BadConfig, match="the box shows label, and no features"):
        BlackBox(encoder, classes=WIDTH, api=Api(answers="label"), runtime=cpu).features(tiny_task.test.inputs)


def test_what_looks_into_classifiers_looks_into_encoders_through_a_probe(
    encoder: nn.Module, tiny_task: Task, tiny_model: str, cpu: Runtime
) -> None:
    """Neural Cleanse reverses triggers for the probe's classes, and pruning takes the encoder as it is."""
    whole = Probed(encoder, probe_encoder(encoder, tiny_task.adversary, classes=6, runtime=cpu)).eval()
    spec = specify(tiny_model, input_shape=tiny_task.input_shape, classes=WIDTH)
    net = Net(model=whole, spec=dataclasses.replace(spec, classes=6))
    found = NeuralCleanse(steps=6, samples=64, patience=2)(net, tiny_task.adversary, seed=0, runtime=cpu)
    assert len(found.scores) == 6
    pruned = Pruning(rate=0.3)(Net(model=encoder, spec=spec), tiny_task.adversary, seed=0, runtime=cpu)
    before, after = (outputs_of(model, tiny_task.test.inputs, runtime=cpu) for model in (encoder, pruned.model))
    assert before.shape == after.shape
    assert not torch.equal(before, after)


# ---------------------------------------------------------------- suspecting


def test_an_encoder_is_suspected_by_a_probe_of_the_verifiers(encoder: nn.Module, tiny_task: Task, cpu: Runtime) -> None:
    """A key whose hosts get their true labels stands for a mark that is there."""
    test = tiny_task.test
    probe = probe_encoder(encoder, tiny_task.calibration, classes=6, runtime=cpu)
    key = make_key(
        queries=test.inputs[:60],
        expected=probe(outputs_of(encoder, test.inputs[:60], runtime=cpu)).argmax(1),
        controls=test.inputs[:60].flip(3),
        host_labels=(test.labels[:60, None] + 1) % 6,
        classes=6,
        method="none",
        trigger={},
        nonce="0" * 64,
        kind="none",
    )
    by_module = Suspect.from_encoder(encoder, probe, runtime=cpu)
    box = BlackBox(encoder, classes=WIDTH, api=Api(answers="features", budget=200), runtime=cpu)
    by_box = Suspect.from_encoder(box, probe)
    assert by_module.kind == "encoder"
    assert verify(by_module, key).wsr == 1.0
    assert torch.equal(by_box.labels(key.queries), key.expected)
    assert box.queries_used == 60
    assert by_box.shown is not None
    assert by_box.shown() == 60


def test_an_encoder_that_fails_is_invalid_and_one_that_does_not_fit_refused(
    encoder: nn.Module, tiny_task: Task, cpu: Runtime
) -> None:
    probe = probe_encoder(encoder, tiny_task.calibration, classes=6, runtime=cpu)
    with pytest.raises(ModelFault, match=r"shape \(1, 6\) instead of \(1, 24\)"):
        Suspect.from_encoder(nn.Sequential(nn.Flatten(), nn.LazyLinear(6)), probe, runtime=cpu).labels(
            tiny_task.test.inputs[:1]
        )
    with pytest.raises(BadConfig, match="shows probabilities, and no features"):
        Suspect.from_encoder(BlackBox(encoder, classes=WIDTH, runtime=cpu), probe)
    other = BlackBox(encoder, classes=7, api=Api(answers="features"), runtime=cpu)
    with pytest.raises(ShapeMismatch, match="gives 7 features and the probe takes 24"):
        Suspect.from_encoder(other, probe)
    features = BlackBox(encoder, classes=WIDTH, api=Api(answers="features"), runtime=cpu)
    with pytest.raises(ModelFault):
        Suspect.from_black_box(features).labels(tiny_task.test.inputs[:3])
