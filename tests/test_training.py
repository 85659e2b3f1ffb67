"""Training against slow plain references: torch's own schedulers, one image at a time, and what a model is really shown."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from heirmark.attacks import DistillTo
from heirmark.attacks.extraction.learning import learn
from heirmark.errors import BadConfig, BadData, ShapeMismatch
from heirmark.models import Net, build, specify
from heirmark.querying.layout import channels_last
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.storing import decode
from heirmark.tasks.task import Split, Task
from heirmark.training.augmenting import augment
from heirmark.training.fitting import Mixed, Recipe, accuracy, descend, fit
from heirmark.training.samples import Samples, ShuffledIndex
from heirmark.training.steps import backward


def net(task: Task, seed: int = 0, name: str = "naivenet", **options: Any) -> nn.Module:
    options = options or {"width": 4, "hidden": 16, "batch_norm": True}
    return build(name, input_shape=task.input_shape, classes=task.num_classes, seed=seed, **options)


def weights(model: nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


class Recorder(nn.Module):
    """A linear net that keeps the batches it is trained on."""

    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(size, classes)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.batches: list[Tensor] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.batches.append(inputs.detach().clone())
        logits: Tensor = self.layer(inputs.flatten(1))
        return logits


def numbered(count: int, offset: int = 0) -> Tensor:
    """Inputs [count, 2] that tell which one they are."""
    return torch.stack([torch.arange(count) + offset, torch.zeros(count)], 1).float()


def numbers(batches: list[Tensor]) -> list[list[int]]:
    return [[int(value) for value in batch[:, 0]] for batch in batches]


# ---------------------------------------------------------------- fit


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_fit_learns(optimizer: Any, tiny_task: Task, cpu: Runtime) -> None:
    model = net(tiny_task)
    recipe = Recipe(epochs=5, batch_size=16, optimizer=optimizer, learning_rate=0.05 if optimizer == "sgd" else 0.01)
    losses = fit(model, tiny_task.owner.inputs, tiny_task.owner.labels, recipe=recipe, seed=0, runtime=cpu)
    assert len(losses) == 5
    assert losses[-1] < 0.5 * losses[0]
    assert not any(part.training for part in model.modules())
    assert accuracy(model, tiny_task.test, runtime=cpu) > 0.8


@pytest.mark.parametrize(("name", "options"), [("naivenet", {}), ("vgg-like", {"width": 2, "hidden": 8})])
def test_the_seed_alone_decides(
    name: str, options: dict[str, int], tiny_task: Task, cpu: Runtime, unchanged_globals: Callable[[], Any]
) -> None:
    # The VGG-like net draws dropout masks from the global generator, which training must seed and give back.
    inputs, labels = tiny_task.owner.inputs, tiny_task.owner.labels
    given_inputs, given_labels = inputs.clone(), labels.clone()
    recipe = Recipe(epochs=1, batch_size=32, learning_rate=0.01, augment="crop-flip")
    models = []
    for seed in (1, 1, 2):
        torch.rand(3)
        model = net(tiny_task, name=name, **options)
        with unchanged_globals():
            fit(model, inputs, labels, recipe=recipe, seed=seed, runtime=cpu)
        models.append(model)
    assert equal(models[0], models[1])
    assert not equal(models[0], models[2])
    assert torch.equal(inputs, given_inputs)
    assert torch.equal(labels, given_labels)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(epochs=2, batch_size=48, learning_rate=0.05, weight_decay=1e-2),
        Recipe(epochs=2, batch_size=48, learning_rate=0.05, nesterov=True, schedule="constant"),
        Recipe(epochs=2, batch_size=48, learning_rate=0.01, momentum=0.0, schedule="step", step_epochs=1),
        Recipe(epochs=2, batch_size=48, learning_rate=0.01, optimizer="adam", weight_decay=1e-3, warmup=0.4),
    ],
    ids=["cosine", "nesterov", "step", "adam"],
)
def test_fit_equals_a_plain_loop(recipe: Recipe, tiny_task: Task, cpu: Runtime) -> None:
    split = tiny_task.owner
    model = net(tiny_task)
    plain = copy.deepcopy(model)
    losses = fit(model, split.inputs, split.labels, recipe=recipe, seed=3, runtime=cpu)

    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": lambda p: torch.optim.Adam(p, lr=1.0, weight_decay=recipe.weight_decay),
        "sgd": lambda p: torch.optim.SGD(
            p, lr=1.0, momentum=recipe.momentum, nesterov=recipe.nesterov, weight_decay=recipe.weight_decay
        ),
    }
    optimizer = kinds[recipe.optimizer](plain.parameters())
    generator = torch.Generator().manual_seed(3)
    steps = len(split) // 48
    for epoch in range(2):
        total = 0.0
        for k, chosen in enumerate(torch.randperm(len(split), generator=generator).split(48)):
            optimizer.param_groups[0]["lr"] = recipe.rate(epoch * steps + k, 2 * steps, steps)
            optimizer.zero_grad()
            loss = F.cross_entropy(plain.train()(channels_last(decode(split.inputs[chosen]))), split.labels[chosen])
            loss.backward()
            optimizer.step()
            total += float(loss.detach())
        assert losses[epoch] == pytest.approx(total / steps, rel=1e-5)
    assert equal(model, plain)


def test_an_epoch_shows_every_input_once_but_for_an_incomplete_batch() -> None:
    model = Recorder(2, 2)
    fit(model, numbered(23), torch.zeros(23).long(), recipe=Recipe(epochs=3, batch_size=5, learning_rate=1e-9), seed=0)
    shown = numbers(model.batches)
    assert [len(batch) for batch in shown] == [5] * 12
    for epoch in range(3):
        seen = [number for batch in shown[4 * epoch : 4 * epoch + 4] for number in batch]
        assert len(set(seen)) == 20
    assert shown[:4] != shown[4:8], "every epoch must be shuffled anew"


def test_fewer_inputs_than_a_batch_are_one_batch() -> None:
    model = Recorder(2, 2)
    fit(model, numbered(3), torch.zeros(3).long(), recipe=Recipe(epochs=2, batch_size=64, learning_rate=1e-9), seed=0)
    assert [sorted(batch) for batch in numbers(model.batches)] == [[0, 1, 2], [0, 1, 2]]


def test_no_epochs_leave_the_model_as_it_is(tiny_task: Task, cpu: Runtime) -> None:
    model = net(tiny_task)
    before = weights(model)
    assert (
        fit(model, tiny_task.owner.inputs, tiny_task.owner.labels, recipe=Recipe(epochs=0), seed=0, runtime=cpu) == ()
    )
    assert all(torch.equal(a, b) for a, b in zip(weights(model), before, strict=True))
    assert not model.training


def test_frozen_parameters_stay(tiny_task: Task, cpu: Runtime) -> None:
    model = net(tiny_task)
    model.features.requires_grad_(False)  # type: ignore[operator, union-attr]
    before = {name: p.clone() for name, p in model.named_parameters()}
    fit(model, tiny_task.owner.inputs, tiny_task.owner.labels, recipe=Recipe(epochs=1, batch_size=32), seed=0)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) is name.startswith("features")


def test_progress_is_told_of_every_step(tiny_task: Task) -> None:
    told: list[tuple[str, int, int]] = []
    runtime = Runtime(device="cpu", precision="float32", progress=lambda *words: told.append(words))
    split = tiny_task.calibration
    recipe = Recipe(epochs=2, batch_size=64)
    fit(net(tiny_task), split.inputs, split.labels, recipe=recipe, seed=0, runtime=runtime, description="learning")
    assert told == [("learning", step + 1, 4) for step in range(4)]


def test_bfloat16_learns_too(tiny_task: Task) -> None:
    runtime = Runtime(device="cpu", precision="bfloat16")
    model = net(tiny_task)
    recipe = Recipe(epochs=3, batch_size=16, learning_rate=0.05)
    fit(model, tiny_task.owner.inputs, tiny_task.owner.labels, recipe=recipe, seed=0, runtime=runtime)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert accuracy(model, tiny_task.test, runtime=runtime) > 0.6


def test_accuracy_is_the_share_of_right_answers(cpu: Runtime) -> None:
    split = Split(inputs=torch.eye(4), labels=torch.tensor([0, 1, 2, 0]))
    assert accuracy(nn.Identity(), split, runtime=cpu) == 0.75


# ---------------------------------------------------------------- soft labels


@pytest.mark.parametrize("with_triggers", [False, True])
def test_one_hot_soft_labels_equal_hard_labels(with_triggers: bool, tiny_task: Task, cpu: Runtime) -> None:
    split = tiny_task.owner
    extra = tiny_task.calibration.subset(torch.arange(20))
    mixed = Mixed(samples=Samples(inputs=extra.inputs, targets=extra.labels), per_batch=8) if with_triggers else None
    recipe = Recipe(epochs=1, batch_size=32, learning_rate=0.02)
    models, losses = [], []
    for targets in (split.labels, F.one_hot(split.labels, 6).float()):
        model = net(tiny_task)
        losses.append(fit(model, split.inputs, targets, recipe=recipe, seed=0, runtime=cpu, mixed=mixed))
        models.append(model)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for one, other in zip(weights(models[0]), weights(models[1]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_soft_labels_are_learned_as_distributions(cpu: Runtime) -> None:
    model = nn.Linear(2, 3)
    wanted = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
    recipe = Recipe(epochs=800, batch_size=2, learning_rate=0.5, momentum=0.0, weight_decay=0.0, schedule="constant")
    fit(model, torch.eye(2), wanted, recipe=recipe, seed=0, runtime=cpu)
    torch.testing.assert_close(model(torch.eye(2)).softmax(1), wanted, rtol=0, atol=0.01)


def test_soft_labels_may_be_in_double_precision(cpu: Runtime) -> None:
    recipe = Recipe(epochs=1, batch_size=2)
    models = [Recorder(2, 3), Recorder(2, 3)]
    for model, dtype in zip(models, (torch.float32, torch.float64), strict=True):
        soft = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.5, 0.5]], dtype=dtype)
        fit(model, torch.eye(2), soft, recipe=recipe, seed=0, runtime=cpu)
    assert equal(models[0], models[1])


# ---------------------------------------------------------------- mixed-in samples


@pytest.mark.parametrize(("count", "per_batch"), [(12, 3), (10, 4), (3, 5), (1, 2), (7, 7)])
def test_exactly_so_many_samples_join_every_batch_and_none_twice_in_a_round(count: int, per_batch: int) -> None:
    model = Recorder(2, 2)
    mixed = Mixed(
        samples=Samples(inputs=numbered(count, offset=1000), targets=torch.ones(count).long()), per_batch=per_batch
    )
    recipe = Recipe(epochs=4, batch_size=6, learning_rate=1e-9)
    fit(model, numbered(30), torch.zeros(30).long(), recipe=recipe, seed=0, mixed=mixed)
    shown = numbers(model.batches)
    assert len(shown) == 20
    assert all(len(batch) == 6 + per_batch for batch in shown)
    assert all(number < 1000 for batch in shown for number in batch[:6])
    joined = [number - 1000 for batch in shown for number in batch[6:]]
    rounds = [joined[start : start + count] for start in range(0, len(joined), count)]
    assert all(sorted(part) == list(range(count)) for part in rounds[:-1])
    assert len(set(rounds[-1])) == len(rounds[-1])


@pytest.mark.parametrize("soft", [False, True])
def test_mixed_in_samples_keep_their_own_targets(soft: bool) -> None:
    # Clean samples are of class 0 and look one way, the others are of class 1 and look the other way.
    model = Recorder(2, 2)
    targets = F.one_hot(torch.zeros(8).long(), 2).float() if soft else torch.zeros(8).long()
    mixed = Mixed(samples=Samples(inputs=torch.tensor([[0.0, 1.0]]), targets=torch.tensor([1])), per_batch=2)
    recipe = Recipe(epochs=30, batch_size=4, learning_rate=0.1)
    fit(model, torch.tensor([[1.0, 0.0]]).expand(8, 2), targets, recipe=recipe, seed=0, mixed=mixed)
    assert model(torch.eye(2)).argmax(1).tolist() == [0, 1]


def test_mixed_in_samples_are_never_augmented() -> None:
    class Look(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.batches = nn.Linear(64, 2), list[Tensor]()

        def forward(self, inputs: Tensor) -> Tensor:
            self.batches.append(inputs.detach().clone())
            logits: Tensor = self.layer(inputs.flatten(1))
            return logits

    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model = Look()
    mixed = Mixed(samples=Samples(inputs=images[:4], targets=torch.zeros(4).long()), per_batch=2)
    fit(
        model,
        images,
        torch.zeros(20).long(),
        recipe=Recipe(epochs=2, batch_size=5, augment="crop-flip"),
        seed=0,
        mixed=mixed,
    )
    for batch in model.batches:
        assert all(any(torch.equal(row, image) for image in images[:4]) for row in batch[5:])
    moved = [not any(torch.equal(row, image) for image in images) for batch in model.batches for row in batch[:5]]
    assert sum(moved) > 30


@given(st.integers(1, 12), st.lists(st.none(), min_size=1, max_size=9), st.integers(0, 15), st.integers(0, 2**40))
def test_a_shuffled_index_gives_shuffles_one_after_another(
    count: int, draws: list[None], per_batch: int, seed: int
) -> None:
    index, generator = ShuffledIndex(count, per_batch), torch.Generator().manual_seed(seed)
    drawn: list[int] = []
    for _ in draws:
        positions = index.draw(generator)
        assert positions.shape == (per_batch,)
        drawn += positions.tolist()
    uses = Counter(drawn)
    assert max(uses.values(), default=0) - min((uses[number] for number in range(count)), default=0) <= 1
    for start in range(0, len(drawn), count):
        part = drawn[start : start + count]
        assert len(set(part)) == len(part)


def test_shuffled_indices_with_one_seed_agree_and_shuffle_anew() -> None:
    def draw(seed: int) -> list[int]:
        index, generator = ShuffledIndex(20, 20), torch.Generator().manual_seed(seed)
        return [position for _ in range(2) for position in index.draw(generator).tolist()]

    assert draw(1) == draw(1) != draw(2)
    assert draw(1)[:20] != draw(1)[20:]


# ---------------------------------------------------------------- rates


def torch_rates(scheduler: Callable[[torch.optim.Optimizer], Any], rate: float, count: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)
    schedule = scheduler(optimizer)
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@settings(deadline=None, max_examples=40)
@given(st.floats(1e-4, 1.0), st.integers(1, 12), st.integers(1, 9))
def test_the_cosine_is_torchs(rate: float, epochs: int, per_epoch: int) -> None:
    steps = epochs * per_epoch
    recipe = Recipe(epochs=epochs, learning_rate=rate)
    wanted = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=steps), rate, steps)
    assert [recipe.rate(step, steps, per_epoch) for step in range(steps)] == pytest.approx(wanted, rel=1e-6, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.floats(1e-4, 1.0), st.integers(1, 12), st.integers(1, 9), st.integers(1, 5), st.floats(0.1, 1.0))
def test_the_steps_are_torchs(rate: float, epochs: int, per_epoch: int, step_epochs: int, factor: float) -> None:
    recipe = Recipe(epochs=epochs, learning_rate=rate, schedule="step", step_epochs=step_epochs, step_factor=factor)
    wanted = torch_rates(lambda o: torch.optim.lr_scheduler.StepLR(o, step_epochs, factor), rate, epochs)
    rates = [recipe.rate(step, epochs * per_epoch, per_epoch) for step in range(epochs * per_epoch)]
    assert rates == pytest.approx([rate for rate in wanted for _ in range(per_epoch)])


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
@given(st.floats(1e-4, 1.0), st.integers(1, 60), st.floats(0.0, 0.99))
def test_a_warmup_rises_evenly_to_the_rate_and_then_the_schedule_holds(
    schedule: Any, rate: float, steps: int, warmup: float
) -> None:
    recipe = Recipe(learning_rate=rate, schedule=schedule, warmup=warmup)
    without = Recipe(learning_rate=rate, schedule=schedule)
    rates = [recipe.rate(step, steps, 1) for step in range(steps)]
    rising = math.ceil(warmup * steps)
    assert all(0 < r <= rate for r in rates)
    assert rates[rising:] == [without.rate(step, steps, 1) for step in range(rising, steps)]
    # As a straight line from zero, one step before the first, to the full rate at the end of the warmup.
    assert rates[:rising] == pytest.approx([rate * (step + 1) / (warmup * steps + 1) for step in range(rising)])


# ---------------------------------------------------------------- augmentation


def candidates(image: Tensor, kind: str) -> dict[bytes, tuple[bool, int, int]]:
    """Every picture that an image may become, by plain loops over pixels."""
    height, width = image.shape[1:]
    found = {}
    offsets = {"flip": [4], "crop-flip": range(9), "shift": range(2, 7)}[kind]
    for flipped in (False,) if kind == "shift" else (False, True):
        for top in offsets:
            for left in offsets:
                out = torch.zeros_like(image)
                for y in range(height):
                    for x in range(width):
                        from_y, from_x = y + top - 4, x + left - 4
                        if 0 <= from_y < height and 0 <= from_x < width:
                            out[:, y, x] = image[:, from_y, width - 1 - from_x if flipped else from_x]
                found[out.numpy().tobytes()] = (flipped, top, left)
    return found


@pytest.mark.parametrize("kind", ["flip", "crop-flip", "shift"])
def test_each_image_becomes_one_of_its_own_variants(kind: str) -> None:
    images = torch.rand(12, 2, 5, 7, generator=torch.Generator().manual_seed(0))
    out = augment(images.clone(), kind, torch.Generator().manual_seed(1))
    assert out.shape == images.shape
    choices = [
        candidates(image, kind)[row.contiguous().numpy().tobytes()] for image, row in zip(images, out, strict=True)
    ]
    assert len(set(choices)) > 1, "images of one batch must be changed independently"


@pytest.mark.parametrize(("kind", "variants"), [("flip", 2), ("crop-flip", 162), ("shift", 25)])
def test_all_variants_are_equally_likely(kind: str, variants: int) -> None:
    image = torch.rand(1, 5, 6, generator=torch.Generator().manual_seed(0)) + 0.1  # larger than the padding
    known = candidates(image, kind)
    assert len(known) == variants
    draws = 40 * variants
    out = augment(image.expand(draws, -1, -1, -1), kind, torch.Generator().manual_seed(0))
    found = Counter(known[row.contiguous().numpy().tobytes()] for row in out)
    assert len(found) == variants
    # Pearson's statistic has mean variants - 1 and variance twice that; five standard deviations.
    statistic = sum((count - 40) ** 2 / 40 for count in found.values())
    assert statistic < variants - 1 + 5 * math.sqrt(2 * (variants - 1)) + 5


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**40))
def test_augmentation_keeps_shape_and_range_and_its_seed(n: int, c: int, h: int, w: int, seed: int) -> None:
    images = torch.rand(n, c, h, w, generator=torch.Generator().manual_seed(seed))
    before = images.clone()
    for kind in ("none", "flip", "crop-flip", "shift"):
        out = [augment(images, kind, torch.Generator().manual_seed(seed)) for _ in range(2)]
        assert torch.equal(*out)
        assert out[0].shape == images.shape
        assert out[0].dtype == images.dtype
        assert float(out[0].min()) >= 0
        assert float(out[0].max()) <= float(images.max())
    assert torch.equal(images, before)
    assert augment(images, "none", torch.Generator()) is images


@given(st.integers(1, 4), st.integers(1, 2), st.integers(1, 40), st.integers(0, 2**40))
def test_waves_are_moved_by_a_tenth_and_never_turned_round(n: int, c: int, length: int, seed: int) -> None:
    waves = torch.arange(1, 1 + n * c * length, dtype=torch.int16).view(n, c, length)
    assert augment(waves, "flip", torch.Generator()) is waves
    most = max(1, length // 10)
    for kind in ("shift", "crop-flip"):
        out = augment(waves, kind, torch.Generator().manual_seed(seed))
        assert out.dtype == torch.int16
        for wave, row in zip(waves, out, strict=True):
            variants = [
                torch.nn.functional.pad(wave, (most, most))[:, start : start + length] for start in range(2 * most + 1)
            ]
            assert any(torch.equal(row, variant) for variant in variants)


def test_augmentation_is_for_images() -> None:
    assert augment(torch.rand(3, 4), "none", torch.Generator()).shape == (3, 4)
    with pytest.raises(BadConfig, match=r"'flip' is for images.*set augment=none"):
        augment(torch.rand(3, 4), "flip", torch.Generator())


# ---------------------------------------------------------------- the loop under it


def test_a_loss_of_ones_own_sees_every_batch_until_one_says_stop(cpu: Runtime) -> None:
    model, batches, modes = Recorder(2, 2), list[Tensor](), list[bool]()
    inputs, epochs = numbered(7), iter([False, True])

    def draw(chosen: Tensor, generator: torch.Generator) -> tuple[Tensor]:
        batches.append(chosen)
        return (inputs[chosen],)

    def loss(batch: Tensor) -> dict[str, Tensor]:
        modes.append(model.training)
        return {"size": model(batch).square().sum() + len(batch)}

    recipe = Recipe(epochs=9, batch_size=3, learning_rate=1e-9)
    rows = descend(
        model, 7, draw, backward(model, loss), recipe=recipe, seed=0, runtime=cpu, stop=lambda: next(epochs),
        after_epoch=lambda epoch: {"twice": 2.0 * epoch},
    )  # fmt: skip
    assert rows == ({"epoch": 1.0, "twice": 0.0, "size": 3.0}, {"epoch": 2.0, "twice": 2.0, "size": 3.0})
    assert [len(batch) for batch in batches] == [3, 3, 3, 3]
    assert all(len(set(torch.cat(batches[start : start + 2]).tolist())) == 6 for start in (0, 2))
    assert all(modes)
    assert not model.training


def test_all_losses_go_through_one_loop(tiny_task: Task, cpu: Runtime) -> None:
    """Fit, an extraction's training and a distillation on labels alone are the same steps."""
    data = tiny_task.owner
    recipe = Recipe(epochs=2, batch_size=32, learning_rate=0.01, optimizer="adam", augment="crop-flip")
    spec = specify("naivenet:hidden=16,width=4", input_shape=tiny_task.input_shape, classes=6)
    distilled = DistillTo(model="naivenet:hidden=16,width=4", with_labels=1.0, recipe=recipe)
    third = distilled(Net(model=net(tiny_task), spec=spec), data, seed=9, runtime=cpu).model
    first, second = (spec.build(seed=derive_seed(9, "student")) for _ in range(2))
    options: dict[str, Any] = {"recipe": recipe, "seed": derive_seed(9, "distillation"), "runtime": cpu}
    assert fit(first, data.inputs, data.labels, **options) == learn(
        second, data.inputs, (data.labels,), F.cross_entropy, **options
    )
    assert equal(first, second)
    assert equal(first, third)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(("inputs", "targets"), [(0, 0), (3, 2), (2, 3), (0, 1)])
def test_inputs_and_targets_have_to_fit(inputs: int, targets: int) -> None:
    with pytest.raises(ShapeMismatch, match=f"{inputs} inputs and {targets} targets"):
        fit(Recorder(2, 2), numbered(inputs), torch.zeros(targets).long(), recipe=Recipe(), seed=0)


@pytest.mark.parametrize(("inputs", "targets"), [(0, 0), (3, 2)])
def test_mixed_in_inputs_and_targets_have_to_fit(inputs: int, targets: int) -> None:
    with pytest.raises(ShapeMismatch, match=f"{inputs} mixed-in inputs and {targets} targets"):
        Mixed(samples=Samples(inputs=numbered(inputs), targets=torch.zeros(targets).long()), per_batch=1)


def test_a_loss_that_is_no_number_stops_the_training(tiny_task: Task, cpu: Runtime) -> None:
    split = tiny_task.owner
    recipe = Recipe(epochs=5, batch_size=32, learning_rate=1e10)
    with pytest.raises(BadData, match=r"became (nan|inf) in epoch 1: lower learning_rate"):
        fit(net(tiny_task, width=3, hidden=5), split.inputs, split.labels, recipe=recipe, seed=0, runtime=cpu)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": -1}, "epochs: expected int >= 0, not -1"),
        ({"batch_size": 0}, "batch_size: expected int >= 1, not 0"),
        ({"step_epochs": 0}, "step_epochs: expected int >= 1, not 0"),
        ({"learning_rate": 0.0}, "learning_rate: expected float > 0, not 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate: expected float > 0, not nan"),
        ({"learning_rate": float("inf")}, "learning_rate: expected float > 0, not inf"),
        ({"momentum": 1.0}, "momentum"),
        ({"weight_decay": -1e-9}, "weight_decay: expected float >= 0, not -1e-09"),
        ({"weight_decay": float("inf")}, "weight_decay"),
        ({"warmup": 1.0}, "warmup"),
        ({"warmup": -0.1}, "warmup"),
        ({"step_factor": -1.0}, "step_factor"),
        ({"step_factor": 0.0}, "step_factor"),
        ({"optimizer": "lion"}, r"optimizer: expected sgd\|adam, not 'lion'"),
        ({"schedule": "linear"}, r"schedule: expected cosine\|step\|constant, not 'linear'"),
        ({"augment": "mixup"}, r"augment: expected none\|flip\|crop-flip\|shift, not 'mixup'"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov needs a momentum"),
    ],
)
def test_a_recipe_refuses_what_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        Recipe(**options)
