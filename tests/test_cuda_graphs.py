"""Training steps that are recorded once and played."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tapes
from heirmark.methods import EWE, Composite, DeepTracer, Margin, MEADefender, Watermark
from heirmark.methods.base import Prepared, draw_training, settle
from heirmark.methods.nets import new_model
from heirmark.models import build
from heirmark.querying.layout import copied
from heirmark.rehearsal.loop import Monitor, rehearse
from heirmark.rehearsal.passes import Memory
from heirmark.rehearsal.settings import Balanced, Rehearsal, SimulatedThief
from heirmark.runtime import Runtime
from heirmark.tasks.task import Task
from heirmark.training import cuda_graphs as graphs
from heirmark.training.cuda_graphs import WORTH, recorded
from heirmark.training.fitting import Mixed, Recipe, accuracy, fit
from heirmark.training.joint import Extra, Outputs, Phase, fit_jointly
from heirmark.training.samples import Samples
from heirmark.training.steps import Figures, Step, backward
from heirmark.triggers import Mix, Patch

NET = "naivenet:width=3,hidden=12,batch_norm=true"
CHANCES = torch.rand(40, 4, generator=torch.Generator().manual_seed(0))


class Own(nn.Module):
    """A layer of somebody else."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


class Looks(nn.Module):
    """A layer that waits for the GPU, which no graph can."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs if float(inputs.sum()) > -1e9 else -inputs


def layer_step(layer: nn.Linear) -> Step:
    return backward(layer, lambda inputs, labels: {"loss": F.cross_entropy(layer(inputs), labels)})


@pytest.fixture
def taped(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The CPU records, by a stand-in; what happened to each attempt."""
    fates: list[str] = []

    def record(compute: Callable[[], Figures], device: torch.device) -> Any:
        fates.append("refused")
        made = tapes.record(compute, device)
        fates[-1] = "recorded"
        return made

    monkeypatch.setitem(graphs.RECORDERS, "cpu", record)
    monkeypatch.setattr(graphs, "WORTH", 2)
    # On a GPU, labels are left to the device's own assertions.
    monkeypatch.setattr(F, "one_hot", lambda labels, classes: (labels[..., None] == torch.arange(classes)).long())
    monkeypatch.setattr("heirmark.rehearsal.asking.check_classes", lambda *_: None)
    return fates


@pytest.mark.parametrize("steps", [1, WORTH])
@pytest.mark.parametrize("on_tape", [False, True])
def test_gradients_are_those_of_the_batch_alone(
    steps: int, on_tape: bool, cpu: Runtime, request: pytest.FixtureRequest
) -> None:
    fates = request.getfixturevalue("taped") if on_tape else []
    layer = nn.Linear(4, 3)
    gradients = recorded(layer, layer_step(layer), runtime=cpu, steps=steps)
    labels = torch.tensor([0, 1])
    gradients(CHANCES[:2], labels)
    value = gradients(CHANCES[2:4], labels)["loss"]
    wanted = F.cross_entropy(layer(CHANCES[2:4]), labels)
    assert isinstance(value, Tensor)
    assert torch.equal(value, wanted)
    assert not value.requires_grad
    (slope,) = torch.autograd.grad(wanted, layer.weight)
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, slope)
    assert fates == ["recorded"] * (on_tape and steps == WORTH)


def test_two_graphs_of_one_model_leave_their_own_gradients(taped: list[str], cpu: Runtime) -> None:
    layer, labels = nn.Linear(4, 3), torch.tensor([0, 1])
    first, second = (recorded(layer, layer_step(layer), runtime=cpu, steps=WORTH) for _ in range(2))
    for batch, gradients in ((CHANCES[:2], first), (CHANCES[2:4], second), (CHANCES[4:6], first)):
        gradients(batch, labels)
    (slope,) = torch.autograd.grad(F.cross_entropy(layer(CHANCES[4:6]), labels), layer.weight)
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, slope)
    assert taped == ["recorded"] * 2


def test_recording_leaves_no_trace_in_what_a_step_changes(taped: list[str], cpu: Runtime) -> None:
    layer, count = nn.BatchNorm1d(4), torch.zeros(())

    def losses(inputs: Tensor) -> dict[str, Tensor]:
        count.add_(1)
        return {"loss": layer(inputs).square().sum() * count}

    gradients = recorded(layer, backward(layer, losses, state=[count]), runtime=cpu, steps=WORTH)
    for number in (1, 2, 3):
        gradients(CHANCES[:8])
        assert (float(count), int(layer.num_batches_tracked)) == (number, number)
    assert taped == ["recorded"]


def test_layers_of_others_and_steps_that_say_so_are_not_recorded(taped: list[str], cpu: Runtime) -> None:
    known = build("resnet18", input_shape=(3, 8, 8), classes=4, seed=0, width=4)
    assert graphs.repeats(known)
    assert not graphs.repeats(nn.Sequential(known, Own()))
    layer = nn.Linear(4, 3)
    step = layer_step(layer)
    weighed = backward(layer, step.gradients, lambda losses, parameters: {"loss": 1.0})
    foreign = nn.Sequential(layer, Own())
    assert recorded(foreign, step, runtime=cpu, steps=WORTH) is step.gradients
    assert recorded(layer, weighed, runtime=cpu, steps=WORTH) is weighed.gradients
    assert not taped


def extra(task: Task, seed: int, companions: int = 0) -> Extra:
    chosen = torch.randperm(len(task.calibration), generator=torch.Generator().manual_seed(seed))[:20]
    split = task.calibration.subset(chosen)
    beside = split.inputs[:, None].repeat(1, companions, *[1] * (split.inputs.ndim - 1))
    return Extra(samples=Samples(inputs=split.inputs, targets=split.labels), companions=beside)


def in_phases(task: Task, cpu: Runtime, model: nn.Module) -> Any:
    """Joint training with companions, augmentation, weights, and a number that every epoch changes in place."""
    scale = torch.ones(())

    def losses(clean: Outputs, extras: Mapping[str, Outputs]) -> Mapping[str, Tensor]:
        mark = extras["mark"]
        return {
            "clean": F.cross_entropy(clean.logits, clean.targets) * scale,
            "mark": F.cross_entropy(mark.logits, mark.targets),
            "near": (mark.logits[:, None] - mark.companions).square().mean(),
        }

    phase = Phase(
        recipe=Recipe(epochs=2, batch_size=8, learning_rate=0.01, augment="crop-flip"), extras={"mark": 3}, share=0.8
    )
    return fit_jointly(
        model, task.owner, {"mark": extra(task, 0, 2)}, losses, phase, seed=1, runtime=cpu, weights={"near": 0.1},
        before_epoch=lambda epoch: scale.fill_(1 / (1 + epoch)),
    )  # fmt: skip


def alone(task: Task, cpu: Runtime, model: nn.Module) -> Any:
    recipe = Recipe(epochs=2, batch_size=8, learning_rate=0.01, augment="flip")
    mixed = Mixed(samples=extra(task, 0).samples, per_batch=4)
    return fit(model, task.owner.inputs, task.owner.labels, recipe=recipe, seed=1, runtime=cpu, mixed=mixed)


def embedding(method: Watermark) -> Callable[[Task, Runtime, nn.Module], Any]:
    """The heart of a method; among them are losses that change with every epoch or step."""

    def train(task: Task, cpu: Runtime, model: nn.Module) -> Any:
        secret = settle(method.trigger, task, model, seed=0, runtime=cpu)
        drawn = draw_training(secret, task, 20, seed=0)
        start = Prepared(task=task, clean=copied(model), secret=secret, training=drawn)
        made = method.embed(start, seed=0, runtime=cpu)
        model.load_state_dict(made.model.state_dict())
        return made.history

    return train


def rehearsed(thieves: int = 1, *, asking: bool = False, **options: Any) -> Callable[[Task, Runtime, nn.Module], Any]:
    def train(task: Task, cpu: Runtime, model: nn.Module) -> Any:
        mark = extra(task, 0).samples
        config = Rehearsal(
            recipe=Recipe(epochs=2, batch_size=8, learning_rate=1e-3, weight_decay=0.0, augment="flip"),
            trigger_batch=5,
            **options,
        )
        made, history = rehearse(
            model, [new_model(task, NET, seed=number + 1) for number in range(thieves)], task.owner, mark,
            config=config, seed=0, monitor=Monitor(clean=task.calibration, triggers=mark),
            queries=task.adversary.inputs if asking else None, runtime=cpu,
        )  # fmt: skip
        model.load_state_dict(made.state_dict())
        return history

    return train


def phase(**extras: int) -> Phase:
    return Phase(recipe=ADAM, extras=extras)


ADAM = Recipe(epochs=2, batch_size=8, optimizer="adam", learning_rate=1e-3)
FEW: dict[str, Any] = {"model": NET, "trigger": Patch(), "triggers": 20, "key_size": 20}
TRAININGS: dict[str, tuple[int, Callable[[Task, Runtime, nn.Module], Any]]] = {
    "fit": (1, alone),
    "fit jointly": (1, in_phases),
    "ewe": (1, embedding(EWE(**FEW, training=phase(watermark=4, target=4)))),
    "deeptracer": (2, embedding(DeepTracer(**FEW, first=phase(watermark=4), second=phase(watermark=8)))),
    "mea-defender": (
        2,
        embedding(
            MEADefender(
                **FEW | {"trigger": Mix()},
                evasion_samples=20,
                weighting="fixed",
                first=phase(watermark=4),
                second=phase(watermark=4, evasion=4),
            )
        ),
    ),
    "composite without pairs": (1, embedding(Composite(**FEW, similarity=0.0, training=phase(watermark=4, mixed=4)))),
    "margin": (3, embedding(Margin(**FEW, training=replace(ADAM, epochs=4), trigger_batch=4, steps=1))),
    "rehearsal": (1, rehearsed()),
    "balanced rehearsal": (1, rehearsed(update=Balanced(enough=0.5), memory=Memory(micro_batch=4, one_graph=True))),
    "rehearsal with a pool": (3, rehearsed(2, thief=SimulatedThief(label_only=1, reset_every=3, trigger_mode="mixed"))),
    "rehearsal with queries": (1, rehearsed(asking=True, update=Balanced(), thief=SimulatedThief(steps=2))),
}
"""How many graphs they take, and what they are."""


@pytest.mark.parametrize("name", TRAININGS)
def test_a_recorded_training_is_the_same_training(
    name: str, tiny_task: Task, cpu: Runtime, request: pytest.FixtureRequest
) -> None:
    graphs_taken, train = TRAININGS[name]
    task = replace(tiny_task, owner=tiny_task.owner.subset(torch.arange(40)))

    def trained() -> tuple[Any, dict[str, Tensor]]:
        model = new_model(task, NET, seed=0)
        return train(task, cpu, model), model.state_dict()

    wanted, expected = trained()
    fates = request.getfixturevalue("taped")
    found, state = trained()
    assert fates == ["recorded"] * graphs_taken
    assert found == wanted
    assert all(torch.equal(state[key], value) for key, value in expected.items())


def test_a_rehearsal_by_the_papers_update_is_recorded_in_bfloat16(taped: list[str], tiny_task: Task) -> None:
    task = replace(tiny_task, owner=tiny_task.owner.subset(torch.arange(24)))
    model, student = (new_model(task, "resnet18:width=2", seed=seed) for seed in range(2))
    mark = extra(task, 0).samples
    config = Rehearsal(recipe=Recipe(epochs=1, batch_size=8, learning_rate=1e-3), trigger_batch=5, precision="runtime")
    _, history = rehearse(
        model, student, task.owner, mark, config=config, seed=0, monitor=Monitor(clean=task.calibration, triggers=mark),
        runtime=Runtime(device="cpu", precision="bfloat16"),
    )  # fmt: skip
    assert taped == ["recorded"]
    assert history[-1]["exact"] == 1.0


def test_a_trained_model_keeps_no_gradients(tiny_task: Task, cpu: Runtime) -> None:
    model = build(
        "naivenet", input_shape=tiny_task.input_shape, classes=len(tiny_task.classes), seed=0, width=4, hidden=16
    )
    fit(model, tiny_task.owner.inputs, tiny_task.owner.labels, recipe=Recipe(epochs=1), seed=0, runtime=cpu)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("naivenet", {"width": 4, "hidden": 16, "batch_norm": True}), ("vgg-like", {"width": 4, "dropout": 0.2})],
)
def test_played_steps_give_what_single_ones_do(
    precision: str, name: str, options: dict[str, Any], tiny_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, runtime = tiny_task.owner, Runtime(device="cuda", precision=precision)
    mixed = Mixed(samples=Samples(inputs=split.inputs[:8], targets=split.labels[:8]), per_batch=4)
    recipe = Recipe(epochs=12, batch_size=16, learning_rate=0.05, augment="crop-flip")
    graphed: list[object] = []
    graph = torch.cuda.CUDAGraph
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graphed.append(made := graph()) or made)

    def trained() -> tuple[tuple[float, ...], dict[str, Tensor]]:
        model = build(name, input_shape=tiny_task.input_shape, classes=len(tiny_task.classes), seed=0, **options)
        losses = fit(model, split.inputs, split.labels, recipe=recipe, seed=1, runtime=runtime, mixed=mixed)
        return losses, model.state_dict()

    torch.backends.cudnn.deterministic, before = True, torch.backends.cudnn.deterministic
    try:
        losses, state = trained()
        assert len(graphed) == 1
        monkeypatch.setattr(graphs, "WORTH", 10**9)
        wanted, expected = trained()
    finally:
        torch.backends.cudnn.deterministic = before
    assert len(graphed) == 1
    assert losses == pytest.approx(wanted, rel=0.02)
    assert losses[0] == pytest.approx(wanted[0], rel=1e-3)
    counted = [name for name in state if name.endswith("num_batches_tracked")]
    assert all(torch.equal(state[name], expected[name]) for name in counted)


@pytest.mark.gpu
def test_what_cannot_be_recorded_is_computed_step_by_step(tiny_task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "repeats", lambda model: True)
    split, runtime = tiny_task.owner, Runtime(device="cuda")
    shape, classes = tiny_task.input_shape, len(tiny_task.classes)
    net = build("naivenet", input_shape=shape, classes=classes, seed=0, width=8, hidden=32, batch_norm=True)
    recipe = Recipe(epochs=10, batch_size=16, learning_rate=0.05)
    losses = fit(nn.Sequential(Looks(), net), split.inputs, split.labels, recipe=recipe, seed=0, runtime=runtime)
    assert losses[-1] < losses[0]
    assert accuracy(net, split, runtime=runtime) > 0.6


def test_a_rehearsal_with_dropout_is_not_recorded(taped: list[str], tiny_task: Task, cpu: Runtime) -> None:
    """Its masks are drawn anew at every step, from seeds."""
    model = new_model(tiny_task, "vgg-like:width=2,hidden=8,dropout=0.2", seed=0)
    split = tiny_task.owner.subset(torch.arange(24))
    mark = extra(tiny_task, 0).samples
    config = Rehearsal(recipe=Recipe(epochs=7, batch_size=8, learning_rate=1e-3), trigger_batch=4)
    rehearse(model, model, split, mark, config=config, seed=0, monitor=Monitor(clean=split, triggers=mark), runtime=cpu)
    assert not taped
