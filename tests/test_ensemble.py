"""Training together against training one by one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.ensemble import fit_together
from heirmark.errors import BadConfig, BadData, ShapeMismatch
from heirmark.models import build
from heirmark.runtime import Runtime, whole_float32
from heirmark.task import Task
from heirmark.training import Mixed, Recipe, accuracy, fit

SEEDS = (7, 0, 3)
RECIPE = Recipe(epochs=2, batch_size=48, learning_rate=0.02)


def nets(task: Task, name: str = "naivenet", count: int = 3, **options: Any) -> list[nn.Module]:
    options = options or {"width": 3, "hidden": 8, "batch_norm": True}
    shape, classes = task.input_shape, task.num_classes
    return [build(name, input_shape=shape, classes=classes, seed=seed, **options) for seed in range(count)]


class Double(nn.Module):
    """A net in double precision: in float32 the rounding of a deep one grows from step to step, however right they are."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.double()

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.net(inputs.double())
        return logits


def assert_as_one_by_one(models: list[nn.Module], inputs: Tensor, targets: Tensor, **options: Any) -> None:
    """Weights, running statistics and losses are those of ``fit``, and models differ among themselves."""
    models = [Double(model) for model in models]
    alone = copy.deepcopy(models)
    found = fit_together(models, inputs, targets, seeds=SEEDS, **options)
    wanted = [fit(model, inputs, targets, seed=seed, **options) for model, seed in zip(alone, SEEDS, strict=True)]
    for losses, others in zip(found, wanted, strict=True):
        assert losses == pytest.approx(others, rel=1e-5)
    for model, other in zip(models, alone, strict=True):
        assert not any(part.training for part in model.modules())
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(tensor, other.state_dict()[name], rtol=1e-5, atol=1e-5)
    first, second = (torch.cat([p.detach().flatten() for p in model.parameters()]) for model in models[:2])
    assert float((first - second).abs().max()) > 0.05


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("naivenet", {"width": 3, "hidden": 8, "batch_norm": True}),
        ("naivenet", {"width": 3, "hidden": 8}),
        ("resnet18", {"width": 2}),
    ],
    ids=["batch-norm", "plain", "residual"],
)
def test_every_model_is_trained_as_if_alone(name: str, options: dict[str, Any], tiny_task: Task, cpu: Runtime) -> None:
    split = tiny_task.owner
    recipe = Recipe(epochs=2, batch_size=96, learning_rate=0.01)
    assert_as_one_by_one(nets(tiny_task, name, **options), split.inputs, split.labels, recipe=recipe, runtime=cpu)


@pytest.mark.parametrize("augment", ["flip", "crop-flip"])
@pytest.mark.parametrize("soft", [False, True])
def test_augmentation_and_samples_that_join_are_each_models_own(
    augment: Any, soft: bool, tiny_task: Task, cpu: Runtime
) -> None:
    split, extra = tiny_task.owner, tiny_task.calibration.subset(torch.arange(20))
    targets = F.one_hot(split.labels, 6).float() * 0.9 + 0.1 / 6 if soft else split.labels
    mixed = Mixed(inputs=extra.inputs, targets=extra.labels, per_batch=7)
    recipe = Recipe(epochs=2, batch_size=48, learning_rate=0.01, augment=augment, nesterov=True)
    assert_as_one_by_one(nets(tiny_task), split.inputs, targets, recipe=recipe, runtime=cpu, mixed=mixed)


def test_adam_and_a_schedule_of_steps(tiny_task: Task, cpu: Runtime) -> None:
    split = tiny_task.owner
    recipe = Recipe(
        epochs=2, batch_size=96, learning_rate=1e-3, optimizer="adam", schedule="step", step_epochs=1, warmup=0.3
    )
    assert_as_one_by_one(nets(tiny_task, width=3, hidden=8), split.inputs, split.labels, recipe=recipe, runtime=cpu)


def test_frozen_parameters_stay(tiny_task: Task, cpu: Runtime) -> None:
    models = nets(tiny_task)
    for model in models:
        model.features.requires_grad_(False)  # type: ignore[operator, union-attr]
    before = [{name: p.clone() for name, p in model.named_parameters()} for model in models]
    split = tiny_task.owner
    fit_together(models, split.inputs, split.labels, recipe=RECIPE, seeds=SEEDS, runtime=cpu)
    for model, old in zip(models, before, strict=True):
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, old[name]) == (not name.startswith("head")), name
            assert parameter.grad is None
            assert parameter.requires_grad == name.startswith("head")


def test_together_they_learn_and_leave_the_rest_alone(
    tiny_task: Task, cpu: Runtime, unchanged_globals: Callable[[], Any]
) -> None:
    split = tiny_task.owner
    inputs, labels = split.inputs.clone(), split.labels.clone()
    models = nets(tiny_task, width=4, hidden=16, batch_norm=True)
    steps: list[tuple[str, int, int]] = []
    runtime = Runtime(device="cpu", precision="float32", progress=lambda *told: steps.append(told))
    recipe = Recipe(epochs=5, batch_size=16, learning_rate=0.05)
    with unchanged_globals():
        fit_together(models, inputs, labels, recipe=recipe, seeds=SEEDS, runtime=runtime)
    assert all(accuracy(model, tiny_task.test, runtime=cpu) > 0.8 for model in models)
    assert torch.equal(inputs, split.inputs)
    assert torch.equal(labels, split.labels)
    assert steps[-1] == ("training together", 90, 90)
    assert len(steps) == 90


def test_bfloat16_trains_together(tiny_task: Task, cpu: Runtime) -> None:
    split, models = tiny_task.owner, nets(tiny_task, width=4, hidden=16, batch_norm=True)
    runtime = Runtime(device="cpu", precision="bfloat16")
    recipe = Recipe(epochs=4, batch_size=16, learning_rate=0.05)
    fit_together(models, split.inputs, split.labels, recipe=recipe, seeds=SEEDS, runtime=runtime)
    assert all(p.dtype == torch.float32 for model in models for p in model.parameters())
    assert all(accuracy(model, tiny_task.test, runtime=cpu) > 0.6 for model in models)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "options"), [("naivenet", {"width": 4, "hidden": 16, "batch_norm": True}), ("resnet18", {"width": 4})]
)
def test_models_train_together_on_a_gpu(precision: str, name: str, options: dict[str, Any], tiny_task: Task) -> None:
    split, models = tiny_task.owner, nets(tiny_task, name, **options)
    runtime = Runtime(device="cuda", precision=precision)
    recipe = Recipe(epochs=8, batch_size=16, learning_rate=0.05, augment="crop-flip")
    alone = copy.deepcopy(models[0])
    with whole_float32(runtime.torch_device):  # with TF32 two small nets drift apart by more
        losses = fit_together(models, split.inputs, split.labels, recipe=recipe, seeds=SEEDS, runtime=runtime)
        wanted = fit(alone, split.inputs, split.labels, recipe=recipe, seed=SEEDS[0], runtime=runtime)
    assert losses[0][0] == pytest.approx(wanted[0], rel=0.05)
    assert all(each[-1] < each[0] for each in losses)


def test_no_epochs_and_one_model(tiny_task: Task, cpu: Runtime) -> None:
    (model,) = nets(tiny_task, count=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    split = tiny_task.owner
    none = Recipe(epochs=0)
    assert fit_together([model], split.inputs, split.labels, recipe=none, seeds=[1], runtime=cpu) == ((),)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not model.training


def test_mistakes_name_their_remedy(tiny_task: Task, cpu: Runtime) -> None:
    split, models = tiny_task.owner, nets(tiny_task)

    def together(models: list[nn.Module], seeds: tuple[int, ...] = SEEDS, **options: Any) -> None:
        options = {"recipe": RECIPE, "runtime": cpu, **options}
        fit_together(models, split.inputs, split.labels, seeds=seeds, **options)

    with pytest.raises(ShapeMismatch, match="3 models with 2 seeds"):
        together(models, (1, 2))
    with pytest.raises(ShapeMismatch, match="0 models"):
        together([], ())
    with pytest.raises(BadConfig, match="different ones of one architecture"):
        together([models[0], models[0]], (1, 2))
    with pytest.raises(BadConfig, match="different ones of one architecture"):
        together([models[0], *nets(tiny_task, width=4, hidden=8, batch_norm=True)], (1, 2, 3, 4))
    with pytest.raises(BadConfig, match=r"VGGLike cannot be trained together \(vmap: .*random.*\): fit one by one"):
        together(nets(tiny_task, "vgg-like", width=2, hidden=8))
    with pytest.raises(ShapeMismatch, match="mixed-in"):
        together(models, mixed=Mixed(inputs=split.inputs[:0], targets=split.labels[:0], per_batch=1))
    plain = nets(tiny_task, width=3, hidden=5)
    before = [copy.deepcopy(model.state_dict()) for model in plain]
    with pytest.raises(BadData, match=r"became (nan|inf) in epoch 1: lower learning_rate"):
        together(plain, recipe=Recipe(epochs=3, batch_size=32, learning_rate=1e10))
    for model, state in zip(plain, before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
