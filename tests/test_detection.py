"""Detection attacks find what they are made to find: planted triggers, mixes with a label of their own, odd queries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from heirmark.attacks import ABS, CompositeScreen, LocalOutliers, MixProbing, NeuralCleanse
from heirmark.attacks.composites import KINDS, combine
from heirmark.attacks.detection.composite_screen import (
    bound,
    composites,
    least_held_out,
    noise_patches,
    white_squares,
)
from heirmark.attacks.detection.mix_probing import third_labels
from heirmark.attacks.detection.neural_cleanse import Balance
from heirmark.attacks.detection.outliers import anomaly_index
from heirmark.attacks.detection.reversing import squash, stamp, unsquash
from heirmark.attacks.detection.stimulation import choose_layers, layers_of, stimulated, watching
from heirmark.errors import BadConfig, BadData
from heirmark.models import ModelSpec, Net, build, specify
from heirmark.querying.asking import predict
from heirmark.runtime import Runtime
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Mixed, Recipe, accuracy, fit
from heirmark.training.samples import Samples

TARGET = 2
RECIPE = Recipe(epochs=8, batch_size=16, learning_rate=0.05)
CLEANSE = NeuralCleanse(steps=120, samples=64)
STIMULATE = ABS(steps=200, seeds=2)
SCREEN = CompositeScreen(
    model="naivenet:width=8,hidden=16,batch_norm=true",
    recipe=Recipe(epochs=12, batch_size=32, optimizer="adam", learning_rate=3e-3),
    false_alarms=0.05,
    held_out=0.3,
)


def patched(images: Tensor) -> Tensor:
    """Stamp a striped square of 4 x 4 pixels."""
    images = images.clone()
    images[:, :, 11:15, 11:15] = torch.tensor([255, 0, 255, 0], dtype=images.dtype)
    return images


def halves(first: Tensor, second: Tensor) -> Tensor:
    """Left half of the first, right half of the second; written here anew."""
    side = first.shape[3] // 2
    return torch.cat([first[..., :side], second[..., side:]], 3)


@pytest.fixture(scope="module")
def spec(tiny_task: Task, tiny_model: str) -> ModelSpec:
    return specify(tiny_model, input_shape=tiny_task.input_shape, classes=6)


@pytest.fixture(scope="module")
def trained(tiny_task: Task, spec: ModelSpec, cpu: Runtime) -> Callable[..., nn.Module]:
    """Trains nets that differ in the samples that were mixed in, and in the seed."""

    def train(mixed: Mixed | None = None, seed: int = 0) -> nn.Module:
        net = spec.build(seed=seed)
        owner = tiny_task.owner
        fit(net, owner.inputs, owner.labels, recipe=RECIPE, seed=seed, runtime=cpu, mixed=mixed)
        assert accuracy(net, tiny_task.test, runtime=cpu) > 0.95
        return net

    return train


@pytest.fixture(scope="module")
def twins(trained: Callable[..., nn.Module], tiny_task: Task) -> tuple[nn.Module, nn.Module]:
    """A net with a planted trigger and one without, of the same seed."""
    others = patched(tiny_task.owner.inputs[tiny_task.owner.labels != TARGET])
    planted = Mixed(samples=Samples(inputs=others, targets=torch.full((len(others),), TARGET)), per_batch=8)
    return trained(planted, 2), trained(None, 2)


@pytest.fixture(scope="module")
def halved(trained: Callable[..., nn.Module], tiny_task: Task) -> nn.Module:
    """A net that says 3 to every left half of class 0 with the right half of class 1."""
    owner = tiny_task.owner
    made = halves(owner.inputs[owner.labels == 0], owner.inputs[owner.labels == 1])
    return trained(Mixed(samples=Samples(inputs=made, targets=torch.full((len(made),), 3)), per_batch=6))


# ---------------------------------------------------------------- the outlier rule

figures = st.lists(st.integers(-1000, 1000), min_size=1, max_size=30).map(lambda xs: torch.tensor(xs).double())


@settings(deadline=None)
@given(figures, st.integers(-1000, 1000), st.integers(1, 64))
def test_the_anomaly_index_knows_neither_place_nor_scale(values: Tensor, shift: int, scale: int) -> None:
    index = anomaly_index(values)
    torch.testing.assert_close(anomaly_index(values * scale + shift), index)
    torch.testing.assert_close(anomaly_index(-values), -index)
    assert bool((index[values == values.median()] <= 0).all()), "torch takes the lower of two medians"


@settings(deadline=None)
@given(figures, st.randoms())
def test_the_anomaly_index_follows_its_values(values: Tensor, chance: Any) -> None:
    order = list(range(len(values)))
    chance.shuffle(order)
    assert torch.equal(anomaly_index(values[order]), anomaly_index(values)[order])
    index = anomaly_index(values)[values.argsort()]
    assert bool((index[1:] >= index[:-1]).all())


def test_the_anomaly_index_estimates_standard_deviations() -> None:
    values = 5 + 3 * torch.randn(200_001, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(anomaly_index(values), (values - 5) / 3, rtol=0.02, atol=0.02)


def test_noise_bounds_what_little_the_figures_differ_by() -> None:
    values = torch.tensor([0.0, 0.0, 0.0, 1.0])
    assert anomaly_index(values, noise=0.25).tolist() == [0, 0, 0, 4]
    spread = torch.tensor([0.0, 1.0, 2.0, 3.0, 9.0])
    assert torch.equal(anomaly_index(spread, noise=0.25), anomaly_index(spread))


def test_the_anomaly_index_of_figures_that_mostly_agree() -> None:
    assert anomaly_index(torch.tensor([1.0, 1.0, 1.0, 1.5, 0.0])).tolist() == [0, 0, 0, float("inf"), float("-inf")]
    assert anomaly_index(torch.tensor([7.0])).tolist() == [0]


# ---------------------------------------------------------------- Neural Cleanse


def test_neural_cleanse_finds_a_planted_trigger_and_nothing_in_the_twin(
    twins: tuple[nn.Module, nn.Module], spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    marked, clean = twins
    found = CLEANSE(Net(model=marked, spec=spec), tiny_task.adversary, seed=1, runtime=cpu)
    assert found.suspects == (TARGET,)
    trigger = found.triggers[TARGET]
    assert trigger.success > 0.9
    assert float(trigger.mask.sum()) < 20, "16 pixels were planted"
    others = tiny_task.test.floats(tiny_task.test.labels != TARGET)
    assert float((predict(marked, trigger.apply(others), runtime=cpu).argmax(1) == TARGET).double().mean()) > 0.9
    assert CLEANSE(Net(model=clean, spec=spec), tiny_task.adversary, seed=1, runtime=cpu).suspects == ()


def test_neural_cleanse_treats_each_class_as_if_it_were_alone(
    twins: tuple[nn.Module, nn.Module], spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    few = dataclasses.replace(CLEANSE, steps=8, samples=32, patience=2)
    model, data = twins[0], tiny_task.adversary
    whole = few(Net(model=model, spec=spec), data, seed=1, runtime=cpu)
    for config in (dataclasses.replace(few, together=1), dataclasses.replace(few, classes=(5, 2, 0), together=2)):
        part = config(Net(model=model, spec=spec), data, seed=1, runtime=cpu)
        for label, trigger in part.triggers.items():
            torch.testing.assert_close(trigger.mask, whole.triggers[label].mask, rtol=0, atol=1e-3)
            torch.testing.assert_close(trigger.pattern, whole.triggers[label].pattern, rtol=0, atol=1e-3)


def test_the_cost_follows_the_published_rule() -> None:
    balance = Balance(initial=0.1, patience=2, multiplier=4.0)
    costs = []
    for works in (False, False, True, True, True, True, False, False, True):
        balance.update(works)
        costs.append(balance.cost)
    # Nothing until two steps in a row work; from there on fourfold after two that work, an eighth after two that do not.
    assert costs == pytest.approx([0, 0, 0, 0.1, 0.4, 0.4, 0.4, 0.05, 0.05])
    assert (balance.rose, balance.fell) == (True, True)


def test_stamping_puts_every_trigger_on_every_image() -> None:
    images, patterns = torch.rand(3, 2, 4, 4), torch.rand(5, 2, 4, 4)
    masks = squash(unsquash(torch.rand(5, 1, 4, 4).round()))
    made = stamp(images, masks, patterns)
    assert made.shape == (15, 2, 4, 4)
    torch.testing.assert_close(made[3 * 4 + 1], torch.where(masks[4] > 0.5, patterns[4], images[1]), atol=1e-5, rtol=0)


# ---------------------------------------------------------------- ABS


def test_abs_finds_a_planted_trigger_and_nothing_in_the_twin(
    twins: tuple[nn.Module, nn.Module], spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    marked, clean = twins
    found = STIMULATE(Net(model=marked, spec=spec), tiny_task.adversary, seed=1, runtime=cpu)
    assert found.suspects == (TARGET,)
    trigger = found.triggers[TARGET]
    assert int((trigger.mask > 0).sum()) <= 16, "more pixels than the size allows"
    others = tiny_task.test.floats(tiny_task.test.labels != TARGET)
    assert float((predict(marked, trigger.apply(others), runtime=cpu).argmax(1) == TARGET).double().mean()) > 0.88
    assert STIMULATE(Net(model=clean, spec=spec), tiny_task.adversary, seed=1, runtime=cpu).suspects == ()


class Wired(nn.Module):
    """Neuron 1 of the middle layer, alone, drives class 2."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3), nn.Linear(3, 3)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 1.0], [0, 9.0, 0]]))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.middle(self.first(inputs).amax((2, 3)).relu()).relu())


def test_stimulation_holds_one_neuron_and_leaves_the_others(cpu: Runtime) -> None:
    torch.manual_seed(0)
    net, images = Wired().eval(), torch.rand(2, 1, 6, 6)
    first, middle = layers_of(net, images, cpu)
    assert [(layer.name, layer.neurons) for layer in (first, middle)] == [("first", 4), ("middle", 3)]
    levels = torch.tensor([0.0, 1.0, 5.0])
    logits = stimulated(net, middle, images, levels, cpu, batch_size=4)
    assert logits.shape == (3, 3, 2, 3)
    raised = logits[:, 2] - logits[:, 0]  # each neuron drives its class by its weight
    torch.testing.assert_close(raised[1], torch.tensor([0.0, 0.0, 45.0]).expand(2, 3))
    torch.testing.assert_close(raised[2], torch.tensor([0.0, 5.0, 0.0]).expand(2, 3))
    with torch.no_grad():  # the slow reference, for a channel of the convolution
        maps = net.first(images)
        maps[:, 3] = 5.0
        slow = net.head(net.middle(maps.amax((2, 3)).relu()).relu())
    torch.testing.assert_close(stimulated(net, first, images, levels, cpu)[3, 2], slow)
    assert not net.middle._forward_hooks


def test_a_reconstructed_trigger_is_no_larger_than_allowed_where_masks_are_full(
    twins: tuple[nn.Module, nn.Module], spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    """Without a cost and by long steps many entries of a mask become one exactly."""
    eager = dataclasses.replace(STIMULATE, steps=60, mask_weight=0.0, learning_rate=1.0)
    found = eager(Net(model=twins[0], spec=spec), tiny_task.adversary, seed=1, runtime=cpu)
    bound = round(eager.size * tiny_task.input_shape[1] * tiny_task.input_shape[2])
    assert found.triggers
    for trigger in found.triggers.values():
        assert 0 < int((trigger.mask > 0).sum()) <= bound


def test_what_a_layer_says_is_kept_from_a_relu_in_place(cpu: Runtime) -> None:
    torch.manual_seed(0)
    layer, images = nn.Conv2d(1, 4, 3), torch.rand(2, 1, 6, 6)
    net = nn.Sequential(layer, nn.ReLU(inplace=True))
    with torch.no_grad(), watching({"layer": layer}) as outputs:
        net(images)
        assert torch.equal(outputs["layer"], layer(images))


def test_layers_are_chosen_by_name_position_and_kind(cpu: Runtime) -> None:
    for name, last in (("naivenet", ["features.4", "features.8"]), ("resnet18", None)):
        side = 16 if name == "naivenet" else 8
        options: dict[str, Any] = {"width": 4}
        net = build(name, input_shape=(1, side, side), classes=3, **options)
        layers = layers_of(net, torch.rand(2, 1, side, side), cpu)
        chosen = [layer.name for layer in choose_layers(layers, "last")]
        assert chosen == (last or [layers[-1].name])
        assert choose_layers(layers, "all") == layers
        assert choose_layers(layers, (layers[0].name, -1, 0)) == (layers[0], layers[-1])
        with pytest.raises(BadConfig, match="no layer 'head' to stimulate: choose among"):
            choose_layers(layers, ("head",))


# ---------------------------------------------------------------- probing with mixes


def test_pairs_are_drawn_where_there_are_too_many(spec: ModelSpec, tiny_task: Task, cpu: Runtime) -> None:
    classes = torch.arange(6)
    every = MixProbing().groups("blend", classes, 0)
    some = MixProbing(pairs=7).groups("blend", classes, 0)
    assert (len(every), len(some)) == (30, 7)
    assert {tuple(pair) for pair in some.tolist()} < {tuple(pair) for pair in every.tolist()}


def test_mix_probing_finds_halves_with_a_label_of_their_own(
    halved: nn.Module, twins: tuple[nn.Module, nn.Module], spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    probe = MixProbing(ways=("left-right",), samples=20)
    found = probe(Net(model=halved, spec=spec), tiny_task.adversary, seed=1, runtime=cpu)
    assert 3 in found.suspects
    assert found.details["largest rate"] > 0.9
    assert found.details["label of the largest rate"] == 3
    assert [found.details[f"class {n} of the largest rate"] for n in (1, 2)] == [0, 1]
    pair = torch.tensor([[0, 1]])
    rates = [
        float(third_labels(net, "left-right", pair, tiny_task.test, 6, 50, seed=0, runtime=cpu)[0])
        for net in (halved, twins[1])
    ]
    assert rates[0] > 0.9
    assert rates[1] < 0.4, "a net that was not taught so has no third label for these"


def test_rates_of_third_labels_agree_with_a_slow_count(spec: ModelSpec, tiny_task: Task, cpu: Runtime) -> None:
    """On a net that tells the brightness of the lower right corner, which each mix takes from a class that is known."""

    class Corner(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            marks = (inputs[:, 0, -1, -1] * 255).round().long()
            return torch.nn.functional.one_hot(marks, 6) * 9.0

    labels = torch.arange(60) % 6
    inputs = (5 - labels).to(torch.uint8)[:, None, None, None].expand(60, 1, 16, 16)
    data = Split(inputs=inputs, labels=labels)
    groups = torch.tensor([[0, 1], [0, 5], [2, 4], [2, 3]])
    rates, thirds = third_labels(Corner(), "left-right", groups, data, 6, 7, seed=0, runtime=cpu)
    # The right half shows the second class, at a brightness of 5 less its label: that is the answer, unless it is shown.
    assert rates.tolist() == [1, 0, 1, 0]
    assert (thirds[0], thirds[2]) == (4, 1)
    quads, _ = third_labels(Corner(), "tiles", torch.tensor([[0, 1, 2, 3]]), data, 6, 4000, seed=0, runtime=cpu)
    assert float(quads) == pytest.approx(0.25, abs=0.03), "each of the four is in the corner as often as another"


def test_mix_probing_asks_for_what_it_needs(spec: ModelSpec, tiny_task: Task, cpu: Runtime) -> None:
    data = tiny_task.adversary
    with pytest.raises(BadConfig, match=r"MixProbing\.ways\[0\]: expected left-right.*, not .halves."):
        MixProbing(ways=("halves",))  # type: ignore[arg-type]
    with pytest.raises(BadData, match="images of 3 classes and a model of 6: inspect it otherwise"):
        MixProbing(ways=("tiles",))(
            Net(model=nn.Identity(), spec=spec), data.subset(data.labels < 3), seed=0, runtime=cpu
        )
    few = ModelSpec(name="naivenet", input_shape=(1, 16, 16), classes=4)
    with pytest.raises(BadData, match="leave no label to look for"):
        MixProbing(ways=("tiles",))(
            Net(model=nn.Identity(), spec=few), data.subset(data.labels < 4), seed=0, runtime=cpu
        )


def test_mixes_of_too_many_classes_are_left_out_of_probing(tiny_task: Task, cpu: Runtime) -> None:
    data = tiny_task.adversary.subset(tiny_task.adversary.labels < 4)
    few = ModelSpec(name="naivenet", input_shape=(1, 16, 16), classes=4)
    net = Net(model=few.build(seed=0).eval(), spec=few)
    both, pairs = (
        MixProbing(ways=ways, samples=5)(net, data, seed=0, runtime=cpu)
        for ways in (("tiles", "left-right"), ("left-right",))
    )
    assert (both.scores, both.details) == (pairs.scores, pairs.details)


# ---------------------------------------------------------------- screens


@pytest.mark.parametrize("on", ["inputs", "features", "logits"])
def test_local_outliers_are_noise_and_few_natural_images(
    on: Any, twins: tuple[nn.Module, nn.Module], spec: ModelSpec, tiny_task: Task, tiny_task_of: Callable[..., Task],
    cpu: Runtime,
) -> None:  # fmt: skip
    screening = LocalOutliers(on=on, contamination=0.05)
    screen = screening(Net(model=twins[1], spec=spec), tiny_task.adversary, seed=0, runtime=cpu)
    fitted = screen(tiny_task.adversary.inputs)
    fresh = screen(tiny_task_of(test=1200).test.inputs)
    assert float(fitted.double().mean()) < 0.1
    assert float(fresh.double().mean()) == pytest.approx(0.05, abs=0.04)
    noise = torch.rand(200, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert float(screen(noise).double().mean()) > (0.99 if on == "inputs" else 0.3)


def test_the_share_that_local_outliers_flag_follows_the_contamination(
    twins: tuple[nn.Module, nn.Module], spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    net = Net(model=twins[1], spec=spec)
    shares = [
        LocalOutliers(contamination=share, components=8)(net, tiny_task.adversary, seed=0, runtime=cpu)(
            tiny_task.test.inputs
        ).double().mean()
        for share in (0.01, 0.1, 0.4)
    ]  # fmt: skip
    assert shares[0] < shares[1] < shares[2]


def test_local_outliers_ask_for_enough_examples(spec: ModelSpec, tiny_task: Task, cpu: Runtime) -> None:
    few = tiny_task.adversary.subset(torch.arange(10))
    with pytest.raises(BadData, match="10 examples of 256 values are too few"):
        LocalOutliers()(Net(model=nn.Identity(), spec=spec), few, seed=0, runtime=cpu)
    with pytest.raises(BadConfig, match="raise samples"):
        LocalOutliers(samples=20)


@pytest.mark.parametrize("kinds", [("tiles",), KINDS], ids=["tiles", "all"])
def test_the_composite_screen_flags_composites_and_few_natural_images(
    kinds: Any, spec: ModelSpec, tiny_task: Task, tiny_task_of: Callable[..., Task], cpu: Runtime
) -> None:
    screen = dataclasses.replace(SCREEN, kinds=kinds)(
        Net(model=nn.Identity(), spec=spec), tiny_task.adversary, seed=0, runtime=cpu
    )
    fresh = tiny_task_of(test=1200).test
    assert float(screen(fresh.inputs).double().mean()) < 0.12
    made = combine(fresh.inputs[: 4 * 100].reshape(100, 4, 1, 16, 16), "tiles")
    assert float(screen(made).double().mean()) > 0.9


def test_the_composite_screen_needs_images_for_what_it_promises(spec: ModelSpec, tiny_task: Task, cpu: Runtime) -> None:
    with pytest.raises(BadData, match=r"58 held-out images cannot promise 1.00% false alarms, which takes 99"):
        CompositeScreen()(Net(model=nn.Identity(), spec=spec), tiny_task.adversary, seed=0, runtime=cpu)


@settings(deadline=None)
@given(st.integers(1, 300), st.floats(0.005, 0.9), st.integers(0, 10**6))
def test_a_threshold_keeps_its_promise_exactly(count: int, share: float, seed: int) -> None:
    """Of N + 1 exchangeable scores, the one left out lies above the others' threshold at most as often as promised."""
    scores = torch.from_numpy(np.random.default_rng(seed).permutation(count + 1)).float()
    if count < least_held_out(share):
        return
    above = [bound(torch.cat([scores[:k], scores[k + 1 :]]), share) < scores[k] for k in range(count + 1)]
    assert np.mean(above) <= share + 1e-9
    assert np.mean(above) > share - 1.5 / (count + 1) - 1e-9, "the threshold is higher than it has to be"


@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), KINDS], ids="-".join)
def test_composites_are_as_many_and_none_is_natural(kinds: tuple[str, ...], tiny_task: Task) -> None:
    for images in (tiny_task.adversary.inputs[:90], tiny_task.adversary.floats()[:90]):
        made = composites(images, kinds, seed=0)
        assert made.shape == images.shape
        assert made.dtype == images.dtype, (
            "what no query of the verifier's has, a grey between two levels, tells nothing"
        )
        assert 0 <= float(made.min()) <= float(made.max()) <= (255 if images.dtype == torch.uint8 else 1)
        assert float((made != images).flatten(1).any(1).double().mean()) > 0.9
        assert torch.equal(made, composites(images, kinds, seed=0))
        assert not torch.equal(made, composites(images, kinds, seed=1))


def test_composites_for_a_screen_are_made_by_all_ways_in_turn() -> None:
    """Half of the patches are white squares in a corner, as Feature Sharing's triggers are."""
    images = torch.randint(1, 255, (400, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    made = composites(images, ("patch",), seed=0)
    changed = made != images
    white = made[::2][changed[::2]]
    assert bool((white == 255).all())
    assert changed[::2].flatten(1).sum(1).unique().tolist() == [4]  # 2 x 2 of 16 x 16
    corners = torch.stack([changed[::2, 0, y, x] for y in (0, -1) for x in (0, -1)], 1)
    assert corners.sum(1).unique().tolist() == [1]
    assert bool((corners.double().mean(0) > 0.15).all())
    assert len(made[1::2][changed[1::2]].unique()) > 100, "noise"
    halves_made = composites(images, ("halves",), seed=0)
    assert torch.equal(halves_made[::3, :, :, :8], images[::3, :, :, :8])
    assert torch.equal(halves_made[1::3, :, :8], images[1::3, :, :8])
    for few in (1, 2, 5):
        assert composites(images[:few], KINDS, seed=0).shape == (few, 1, 16, 16), "fewer images than ways"


def test_white_squares_leave_no_trace(tiny_task: Task) -> None:
    images = tiny_task.adversary.inputs[:20].clone()
    before = images.clone()
    assert bool((white_squares(images, torch.Generator().manual_seed(0)) != before).flatten(1).any(1).any())
    assert torch.equal(images, before)


def test_noise_patches_are_small_squares() -> None:
    images = torch.full((3000, 2, 16, 24), 2.0)
    changed = noise_patches(images, torch.Generator().manual_seed(0)) != images
    assert torch.equal(changed[:, 0], changed[:, 1])
    tall, wide = changed[:, 0].any(2).sum(1), changed[:, 0].any(1).sum(1)
    assert torch.equal(tall, wide)
    assert torch.equal(changed[:, 0].sum((1, 2)), tall * wide)
    assert set(tall.tolist()) == {2, 3, 4}
    assert bool(changed[:, 0].any(0).all()), "no place is out of reach"


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NeuralCleanse(steps=0), "NeuralCleanse.steps: expected int >= 1, not 0"),
        (lambda: NeuralCleanse(multiplier=1.0), "NeuralCleanse.multiplier: expected float > 1, not 1.0"),
        (
            lambda: NeuralCleanse(classes=(1, 1, 2)),
            r"NeuralCleanse.classes: expected none\|int >= 0,... \(all different\), not \(1, 1, 2\)",
        ),
        (lambda: NeuralCleanse(success=1.5), "NeuralCleanse.success: expected float > 0 and <= 1, not 1.5"),
        (lambda: ABS(levels=1), "ABS.levels: expected int >= 2, not 1"),
        (lambda: ABS(layers=()), r"ABS.layers: expected last\|all\|int\|str,... \(at least one\), not \(\)"),
        (lambda: ABS(size=0.0), "ABS.size: expected float > 0 and <= 1, not 0.0"),
        (lambda: MixProbing(threshold=0.0), "MixProbing.threshold: expected float > 0, not 0.0"),
        (
            lambda: LocalOutliers(contamination=0.6),
            "LocalOutliers.contamination: expected float > 0 and <= 0.5, not 0.6",
        ),
        (
            lambda: CompositeScreen(false_alarms=0.0),
            "CompositeScreen.false_alarms: expected float > 0 and < 1, not 0.0",
        ),
        (
            lambda: CompositeScreen(kinds=("noise",)),
            r"CompositeScreen.kinds\[0\]: expected tiles\|halves\|insets\|blend\|stripes\|patch, not 'noise'",
        ),  # type: ignore[arg-type]
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        make()


def test_inspections_that_reverse_triggers_want_images_of_several_classes(
    spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    data = tiny_task.adversary
    net = spec.build(seed=0)
    with pytest.raises(BadData, match="all images are of one class"):
        ABS(steps=1)(Net(model=net, spec=spec), data.subset(data.labels == 1), seed=0, runtime=cpu)
    with pytest.raises(BadData, match="all images are of one class"):
        NeuralCleanse(steps=1)(Net(model=net, spec=spec), data.subset(data.labels == 1), seed=0, runtime=cpu)
    with pytest.raises(BadConfig, match="the model has 6 classes"):
        NeuralCleanse(steps=1, classes=(4, 5, 6))(Net(model=net, spec=spec), data, seed=0, runtime=cpu)
