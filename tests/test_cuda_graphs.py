"""Training steps that are recorded once and played."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark import cuda_graphs as graphs
from heirmark.cuda_graphs import WORTH, gradients_of
from heirmark.models import build
from heirmark.runtime import Runtime
from heirmark.task import Task
from heirmark.training import Mixed, Recipe, accuracy, fit

CHANCES = torch.rand(40, 4, generator=torch.Generator().manual_seed(0))


class Own(nn.Module):
    """A layer of somebody else."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


class Looks(nn.Module):
    """A layer that waits for the GPU, which no graph can."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs if float(inputs.sum()) > -1e9 else -inputs


@pytest.mark.parametrize("steps", [1, WORTH])
def test_gradients_are_those_of_the_batch_alone(steps: int, cpu: Runtime) -> None:
    layer = nn.Linear(4, 3)
    gradients = gradients_of(
        layer, lambda inputs, labels: F.cross_entropy(layer(inputs), labels), runtime=cpu, steps=steps
    )
    labels = torch.tensor([0, 1])
    gradients(CHANCES[:2], labels)
    value = gradients(CHANCES[2:4], labels)
    wanted = F.cross_entropy(layer(CHANCES[2:4]), labels)
    assert torch.equal(value, wanted)
    assert not value.requires_grad
    (slope,) = torch.autograd.grad(wanted, layer.weight)
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, slope)


def test_layers_of_others_are_not_recorded() -> None:
    known = build("resnet18", input_shape=(3, 8, 8), classes=4, seed=0, width=4)
    assert graphs.repeats(known)
    assert not graphs.repeats(nn.Sequential(known, Own()))


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
    mixed = Mixed(inputs=split.inputs[:8], targets=split.labels[:8], per_batch=4)
    recipe = Recipe(epochs=12, batch_size=16, learning_rate=0.05, augment="crop-flip")
    recorded: list[object] = []
    graph = torch.cuda.CUDAGraph
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: recorded.append(made := graph()) or made)

    def trained() -> tuple[tuple[float, ...], dict[str, Tensor]]:
        model = build(name, input_shape=tiny_task.input_shape, classes=len(tiny_task.classes), seed=0, **options)
        losses = fit(model, split.inputs, split.labels, recipe=recipe, seed=1, runtime=runtime, mixed=mixed)
        return losses, model.state_dict()

    torch.backends.cudnn.deterministic, before = True, torch.backends.cudnn.deterministic
    try:
        losses, state = trained()
        assert len(recorded) == 1
        monkeypatch.setattr(graphs, "WORTH", 10**9)
        wanted, expected = trained()
    finally:
        torch.backends.cudnn.deterministic = before
    assert len(recorded) == 1
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
