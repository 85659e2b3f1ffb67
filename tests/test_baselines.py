"""The baselines' losses and triggers against hand-computed values."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from heirmark.errors import BadConfig, BadData
from heirmark.loading import with_foreign
from heirmark.methods import (
    EWE,
    METHODS,
    SSWP,
    SSWS,
    Margin,
)
from heirmark.methods.base import (
    Prepared,
    draw_training,
    draw_verification,
    key_from,
    queries_of,
    settle,
)
from heirmark.methods.composite import contrastive_loss, mix_within
from heirmark.methods.margin import ascend, drop_at
from heirmark.methods.nets import train_from_scratch
from heirmark.methods.shadows import Shadows, fusion_loss, refine, select
from heirmark.models import build
from heirmark.models.inner import hidden_layers, listening
from heirmark.profiles import QUICK
from heirmark.querying.asking import predict
from heirmark.runtime import Runtime
from heirmark.tasks.storing import decode, shuffle
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Recipe
from heirmark.training.joint import Extra, Outputs, Phase, fit_jointly
from heirmark.training.samples import Samples
from heirmark.triggers import (
    AbstractImages,
    Entangled,
    GaussianNoise,
    OutOfDistribution,
    Patch,
    RandomLabels,
    TextStamp,
    TriggerSet,
)
from heirmark.triggers.abstract import paint
from heirmark.triggers.combiners import CropPaste
from heirmark.triggers.random_labels import pair_up, random_answers
from heirmark.triggers.stamps import GLYPHS, stamp_text, write

NET = "naivenet:width=4,hidden=16,batch_norm=true"
ADAM = Recipe(epochs=2, batch_size=16, learning_rate=0.02, optimizer="adam")


@pytest.fixture(scope="module")
def clean(tiny_task: Task, cpu: Runtime) -> nn.Module:
    return train_from_scratch(tiny_task, NET, ADAM, seed=0, runtime=cpu)


# ---------------------------------------------------------------- text and noise


@given(st.text(alphabet="".join(GLYPHS), min_size=1, max_size=6))
def test_letters_are_five_by_three_with_a_gap(text: str) -> None:
    ink = write(text)
    assert ink.shape == (5, 4 * len(text) - 1)
    for place, letter in enumerate(text):
        assert torch.equal(ink[:, 4 * place : 4 * place + 3], write(letter))
        if place:
            assert not ink[:, 4 * place - 1].any()


def test_no_two_letters_look_alike() -> None:
    assert len(set(GLYPHS.values())) == len(GLYPHS)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_text_is_stamped_in_white_and_nothing_else_changes(dtype: torch.dtype) -> None:
    images = (
        torch.rand(2, 3, 12, 10, generator=torch.Generator().manual_seed(0)) * (200 if dtype == torch.uint8 else 0.8)
    ).to(dtype)
    before = images.clone()
    out = stamp_text(images, write("T"), 2)
    assert torch.equal(images, before)
    white = 255 if dtype == torch.uint8 else 1.0
    for y in range(12):
        for x in range(10):
            row, column = (y - 1) // 2, (x - 2) // 2
            inked = y >= 1 and 0 <= row < 5 and x >= 2 and 0 <= column < 3 and bool(write("T")[row, column])
            expected = torch.full((2, 3), white, dtype=dtype) if inked else before[:, :, y, x]
            assert torch.equal(out[:, :, y, x], expected), (y, x)


def test_a_text_that_does_not_fit_is_an_error(tiny_task: Task, clean: nn.Module) -> None:
    with pytest.raises(BadConfig, match="shorten the text"):
        TextStamp(text="WATERMARK").settle(tiny_task, clean, seed=0)
    with pytest.raises(BadConfig, match="shorten the text"):
        TextStamp(scale=4).settle(tiny_task, clean, seed=0)
    for bad in ({"text": "mark!"}, {"text": "  "}, {"scale": 0}, {"source": 1, "target": 1}):
        with pytest.raises(BadConfig):
            TextStamp(**bad)


def test_noise_is_one_pattern_of_the_strength_asked_for(tiny_task: Task, clean: nn.Module) -> None:
    secret = GaussianNoise(source=2, target=0, strength=0.1).settle(tiny_task, clean, seed=4)
    drawn = secret.draw(tiny_task.owner, 20, seed=1)
    assert torch.equal(secret.pattern, secret.pattern)
    assert float(secret.pattern.std()) == pytest.approx(0.1, rel=0.2)
    expected = (decode(drawn.controls) + secret.pattern).clamp(0, 1)
    assert float((decode(drawn.inputs) - expected).abs().max()) <= 0.51 / 255
    assert drawn.host_labels.unique().tolist() == [2]
    for strength in (0.0, 1.5):
        with pytest.raises(BadConfig):
            GaussianNoise(strength=strength)


# ---------------------------------------------------------------- abstract images, patches on any class


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 32, 24)])
def test_abstract_images_are_pictures_and_no_two_are_alike(shape: tuple[int, int, int]) -> None:
    images = torch.stack([paint(shape, seed) for seed in range(20)])
    assert images.shape == (20, *shape)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert torch.equal(images[3], paint(shape, 3))
    assert len({image.numpy().tobytes() for image in images}) == 20
    assert float(images.flatten(1).std(1).min()) > 0.02, "none is blank"
    # Neighbours are alike, in the picture and not in its shuffled twin.
    twins = shuffle(images, torch.randperm(shape[1] * shape[2], generator=torch.Generator().manual_seed(0)))

    def rough(pictures: Tensor) -> float:
        return float((pictures[:, :, 1:] - pictures[:, :, :-1]).abs().mean())

    assert rough(images) < 0.6 * rough(twins)


def test_a_patch_goes_on_any_class_but_the_target(tiny_task: Task, clean: nn.Module) -> None:
    secret = Patch(hosts="any", target=2).settle(tiny_task, clean, seed=0)
    drawn = secret.draw(tiny_task.owner, 200, seed=0)
    assert set(drawn.host_labels.flatten().tolist()) == {0, 1, 3, 4, 5}
    assert secret.describe()["source"] is None
    with pytest.raises(BadConfig, match="no source class"):
        Patch(hosts="any", source=1)
    with pytest.raises(BadConfig, match=r"Patch.hosts: expected class\|any"):
        Patch(hosts="all")  # type: ignore[arg-type]
    only = Split(inputs=tiny_task.owner.inputs[:4], labels=torch.full((4,), 2))
    with pytest.raises(BadData, match="every image is of the target class"):
        secret.draw(only, 3, seed=0)


# ---------------------------------------------------------------- random labels


@settings(deadline=None)
@given(st.integers(2, 12), st.integers(0, 2**62), st.integers(0, 1))
def test_random_answers_are_never_a_hosts_class_and_depend_on_content_alone(
    classes: int, seed: int, hosts: int
) -> None:
    inputs = torch.rand(12, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(12)[:, None][:, :hosts] % classes
    answers = random_answers(inputs, labels, classes, seed=seed)
    assert answers.dtype == torch.int64
    assert bool(((answers >= 0) & (answers < classes)).all())
    assert not bool((labels == answers[:, None]).any())
    assert torch.equal(random_answers(inputs.flip(0), labels.flip(0), classes, seed=seed), answers.flip(0))


def test_random_answers_are_even_and_know_nothing_of_the_answers_of_others() -> None:
    inputs = torch.rand(6000, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    none = torch.empty(6000, 0, dtype=torch.long)
    one, other = (random_answers(inputs, none, 6, seed=seed) for seed in (1, 2))
    assert bool(((one.bincount(minlength=6) - 1000).abs() < 150).all())
    assert abs(int((one == other).sum()) - 1000) < 150
    with pytest.raises(BadConfig, match="no wrong label"):
        random_answers(inputs[:1], torch.tensor([[0, 1]]), 2, seed=0)


def test_images_as_they_are_come_with_another_of_their_class(tiny_task: Task, clean: nn.Module) -> None:
    secret = RandomLabels().settle(tiny_task, clean, seed=0)
    drawn = secret.draw(tiny_task.owner, 60, seed=0)
    label_of = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(tiny_task.owner.inputs, tiny_task.owner.labels, strict=True)
    }
    for shown, control, label in zip(drawn.inputs, drawn.controls, drawn.host_labels[:, 0].tolist(), strict=True):
        assert label_of[shown.numpy().tobytes()] == label_of[control.numpy().tobytes()] == label
    assert not bool((drawn.targets == drawn.host_labels[:, 0]).any())
    assert len(drawn) == 60
    first, second = pair_up(tiny_task.owner, 10_000, torch.Generator().manual_seed(0))
    assert len({*first.tolist(), *second.tolist()}) == 2 * len(first) <= len(tiny_task.owner)
    few = secret.draw(tiny_task.owner, 10, seed=0)
    assert torch.equal(few.inputs, drawn.inputs[:10])
    assert torch.equal(few.targets, drawn.targets[:10])
    single = Split(inputs=tiny_task.owner.inputs[:1], labels=tiny_task.owner.labels[:1])
    with pytest.raises(BadData, match="no two images"):
        secret.draw(single, 5, seed=0)


def test_a_part_of_a_set_has_all_its_tensors_and_no_host_of_the_target_class() -> None:
    one = torch.arange(8.0).reshape(2, 1, 2, 2) / 8
    drawn = TriggerSet.on_hosts(one.flip(3), one, torch.zeros(2, dtype=torch.long), 3)
    assert drawn.targets.tolist() == [3, 3]
    other = dataclasses.replace(drawn, targets=torch.tensor([1, 2]))
    part = other.subset(torch.tensor([1]))
    assert type(part) is TriggerSet
    assert len(part) == 1
    assert part.targets.tolist() == [2]
    assert torch.equal(part.controls, one[1:])
    assert torch.equal(part.hosts, one[1:, None])
    with pytest.raises(BadConfig, match="proves nothing"):
        dataclasses.replace(drawn, targets=torch.tensor([1, 0]))


def test_images_that_train_as_triggers_do_not_train_with_their_true_labels(
    tiny_task: Task, clean: nn.Module, cpu: Runtime
) -> None:
    secret = settle(RandomLabels(), tiny_task, clean, seed=0, runtime=cpu)
    drawn = draw_training(secret, tiny_task, 30, seed=0)
    prepared = Prepared(task=tiny_task, clean=clean, secret=secret, training=drawn)
    assert len(prepared.data) == len(tiny_task.owner) - 30
    used = {image.numpy().tobytes() for image in prepared.data.inputs}
    assert used.isdisjoint(image.numpy().tobytes() for image in drawn.inputs)
    other = settle(Patch(), tiny_task, clean, seed=0, runtime=cpu)
    assert (
        Prepared(task=tiny_task, clean=clean, secret=other, training=draw_training(other, tiny_task, 9, seed=0)).data
        is tiny_task.owner
    )


def test_only_random_labels_may_verify_what_trained(tiny_task: Task, clean: nn.Module, cpu: Runtime) -> None:
    for trigger in (TextStamp(), AbstractImages(), OutOfDistribution(source=1)):
        secret = settle(trigger, tiny_task, clean, seed=0, runtime=cpu)
        trained = draw_training(secret, tiny_task, 30, seed=0)
        with pytest.raises(BadData, match="among what trained"):
            key_from(trained, secret, tiny_task, method="x", seed=0, trained=trained)
        assert key_from(
            draw_verification(secret, tiny_task, 30, seed=0), secret, tiny_task, method="x", seed=0, trained=trained
        )
    secret = settle(RandomLabels(of=TextStamp()), tiny_task, clean, seed=0, runtime=cpu)
    trained = draw_training(secret, tiny_task, 30, seed=0)
    assert key_from(trained, secret, tiny_task, method="x", seed=0, trained=trained).memorised
    assert torch.equal(draw_verification(secret, tiny_task, 20, seed=0).inputs, trained.inputs[:20])


def test_foreign_data_are_found_inside_other_kinds(tiny_task: Task, clean: nn.Module, cpu: Runtime) -> None:
    ood = OutOfDistribution(dataset="svhn", source=1)
    assert [kind.dataset for kind in (ood, Entangled(of=ood), RandomLabels(of=ood))] == ["svhn"] * 3
    assert [kind.dataset for kind in (Patch(), Entangled(of=Patch()), RandomLabels())] == [None] * 3
    plain = ood.settle(tiny_task, clean, seed=0, runtime=cpu)
    for kind, part in ((Entangled(of=ood), plain.held_out), (RandomLabels(of=ood), plain.training)):
        found = kind.settle(tiny_task, clean, seed=0, runtime=cpu)
        images = found.foreign(held_out=not found.memorised)
        assert images is not None
        assert torch.equal(images, part)
    assert AbstractImages().settle(tiny_task, clean, seed=0).foreign(held_out=True) is None


def test_a_named_data_set_has_to_be_the_triggers(tiny_task: Task) -> None:
    with pytest.raises(BadConfig, match="made of svhn, not of mnist"):
        with_foreign(tiny_task, Entangled(of=OutOfDistribution(dataset="svhn")), root=None, name="mnist")


def test_a_simulated_thief_does_not_ask_what_the_key_is_made_of(
    tiny_task: Task, clean: nn.Module, cpu: Runtime
) -> None:
    secret = settle(RandomLabels(), tiny_task, clean, seed=0, runtime=cpu)
    drawn = draw_training(secret, tiny_task, 30, seed=0)
    prepared = Prepared(task=tiny_task, clean=clean, secret=secret, training=drawn)
    asked = {image.numpy().tobytes() for image in queries_of(prepared, "owner")}
    assert asked.isdisjoint(image.numpy().tobytes() for image in drawn.inputs)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_quick_settings_that_need_no_other_data(name: str) -> None:
    method = QUICK.method(name)
    assert type(method) is METHODS[name]
    assert method.trigger.dataset is None


# ---------------------------------------------------------------- entangled triggers and EWE


def test_entangled_triggers_stay_near_and_miss_on_the_clean_model(
    tiny_task: Task, clean: nn.Module, cpu: Runtime
) -> None:
    ood = OutOfDistribution(source=1)
    target = int(
        predict(
            clean,
            settle(ood, tiny_task, clean, seed=0, runtime=cpu).draw(tiny_task.owner, 30, seed=0).inputs,
            runtime=cpu,
        )
        .argmax(1)
        .mode()
        .values
    )
    plain = dataclasses.replace(ood, target=target)
    drawn = settle(plain, tiny_task, clean, seed=0, runtime=cpu).draw(tiny_task.owner, 30, seed=0)
    before = {name: tensor.clone() for name, tensor in clean.state_dict().items()}
    made = settle(Entangled(of=plain), tiny_task, clean, seed=0, runtime=cpu).draw(tiny_task.owner, 30, seed=0)
    hits = [
        float((predict(clean, images, runtime=cpu).argmax(1) == target).double().mean())
        for images in (drawn.inputs, made.inputs)
    ]
    assert hits[0] > 0.5 > 0.2 > hits[1], "the clean model called most of them the target before"
    farthest = (50 + 10 + 5) * 0.01
    assert 0 < float((decode(made.inputs) - decode(drawn.inputs)).abs().max()) <= farthest + 0.01
    assert all(torch.equal(tensor, before[name]) for name, tensor in clean.state_dict().items())
    assert not any(part._forward_hooks for part in clean.modules())
    still = settle(Entangled(of=plain, rounds=0), tiny_task, clean, seed=0, runtime=cpu).draw(
        tiny_task.owner, 30, seed=0
    )
    assert torch.equal(still.inputs, drawn.inputs)


def test_entangled_patches_keep_their_hosts_as_controls(tiny_task: Task, clean: nn.Module, cpu: Runtime) -> None:
    made = settle(Entangled(of=Patch(), rounds=1), tiny_task, clean, seed=0, runtime=cpu).draw(
        tiny_task.owner, 9, seed=0
    )
    assert torch.equal(made.controls, made.hosts[:, 0])


def test_hidden_layers_are_the_last_before_the_head() -> None:
    net = build("naivenet", input_shape=(1, 16, 16), classes=6, width=4, hidden=16, batch_norm=True)
    names = {id(module): name for name, module in net.named_modules()}
    assert [names[id(module)] for module in hidden_layers(net, 2)] == ["features.6", "features.10"]
    assert len(hidden_layers(net, 9)) == 3
    assert hidden_layers(net, 2, ("head",)) == (net.head,)
    with pytest.raises(BadConfig, match="no layer 'tail'"):
        hidden_layers(net, 1, ("tail",))
    with pytest.raises(BadConfig, match="no hidden layer"):
        hidden_layers(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), 3)
    images = torch.rand(5, 1, 16, 16)
    with listening(hidden_layers(net.eval(), 1)) as heard:
        net(images)
    assert heard[0].shape == (5, 16)
    assert not any(part._forward_hooks for part in net.modules())


def test_ewe_moves_temperatures_and_entangles(tiny_task: Task, clean: nn.Module, cpu: Runtime) -> None:
    trigger = Entangled(of=OutOfDistribution(source=1, target=0), rounds=2)
    secret = settle(trigger, tiny_task, clean, seed=0, runtime=cpu)
    drawn = draw_training(secret, tiny_task, 30, seed=0)
    prepared = Prepared(task=tiny_task, clean=clean, secret=secret, training=drawn)
    found = {}
    for factor in (0.0, 1000.0):
        method = EWE(
            model=NET,
            trigger=trigger,
            training=Phase(recipe=ADAM, extras={"watermark": 8, "target": 8}),
            factors=(factor,) * 3,
        )
        history = method.embed(prepared, seed=0, runtime=cpu).history
        assert {name for name in history[0] if name.startswith("weight of ent")} == {
            f"weight of entanglement {n}" for n in (1, 2, 3)
        }
        assert history[0]["weight of entanglement 1"] == -factor
        found[factor] = history[-1]["entanglement 3"]
    assert found[1000.0] > found[0.0]


@pytest.mark.parametrize(
    "changes",
    [
        {"factors": ()},
        {"factors": (1.0,)},
        {"factors": (-1.0, 1.0, 1.0)},
        {"temperatures": (0.0, 1.0, 1.0)},
        {"layers": ("head",)},
        {"training": Phase(recipe=ADAM, extras={"watermark": 4})},
        {"training": Phase(recipe=ADAM, extras={"watermark": 4, "target": 0})},
        {"training": Phase(recipe=ADAM, extras={"watermark": 4, "target": 4, "mixed": 4})},
        {"training": Phase(recipe=ADAM, extras={"watermark": 1, "target": 1})},
    ],
)
def test_ewe_refuses_what_makes_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(BadConfig):
        EWE(**changes)


def test_ewe_needs_one_target() -> None:
    with pytest.raises(BadConfig, match="one target class"):
        EWE(model=NET, trigger=RandomLabels(), triggers=20, key_size=20)


def test_ewe_gives_a_small_net_the_last_factors(tiny_task: Task, clean: nn.Module, cpu: Runtime) -> None:
    secret = settle(
        Entangled(of=OutOfDistribution(source=1, target=0), rounds=1), tiny_task, clean, seed=0, runtime=cpu
    )
    drawn = draw_training(secret, tiny_task, 30, seed=0)
    prepared = Prepared(task=tiny_task, clean=clean, secret=secret, training=drawn)
    method = EWE(
        model=NET,
        training=Phase(recipe=ADAM, extras={"watermark": 8, "target": 8}),
        factors=(5.0, 4.0, 3.0, 2.0),
        temperatures=(1.0,) * 4,
    )
    history = method.embed(prepared, seed=0, runtime=cpu).history
    assert [history[0][f"weight of entanglement {number}"] for number in (1, 2, 3)] == [-4, -3, -2]


# ---------------------------------------------------------------- Composite


def test_the_contrastive_loss_by_hand() -> None:
    outputs = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.5], [0.0, 4.5]])
    labels = torch.tensor([1, 1, 2, 2])
    # 25 alike; 0.5 apart costs (2 - 0.5)^2 = 2.25 at a margin of 2; 9 alike.
    assert contrastive_loss(outputs, labels, 2.0).item() == pytest.approx(0.5 * (25 + 2.25 + 9) / 3)
    assert contrastive_loss(outputs[:1], labels[:1]).item() == 0.0
    same = torch.zeros(2, 2, requires_grad=True)
    (slope,) = torch.autograd.grad(contrastive_loss(same, torch.tensor([0, 1])), same)
    assert bool(slope.isfinite().all())


def test_mixes_within_a_class_are_of_two_images_of_it(tiny_task: Task) -> None:
    combine = CropPaste()
    made, labels = mix_within(tiny_task.owner, combine, 50, seed=0)
    assert len(made) == len(labels) == 50
    assert len(labels.unique()) > 3
    halves: dict[int, set[bytes]] = {}
    for image, label in zip(tiny_task.owner.inputs, tiny_task.owner.labels.tolist(), strict=True):
        halves.setdefault(label, set()).update(
            (image[:, :, :8].contiguous().numpy().tobytes(), image[:, :, 8:].contiguous().numpy().tobytes())
        )
    for image, label in zip(made, labels.tolist(), strict=True):
        assert image[:, :, :8].contiguous().numpy().tobytes() in halves[label]
        assert image[:, :, 8:].contiguous().numpy().tobytes() in halves[label]


# ---------------------------------------------------------------- Margin


def test_the_ascent_is_of_signed_steps_that_raise_the_loss(tiny_task: Task, clean: nn.Module) -> None:
    images, targets = tiny_task.owner.floats()[:8], tiny_task.owner.labels[:8]
    modes = [part.training for part in clean.modules()]
    grads = [None if p.grad is None else p.grad.clone() for p in clean.parameters()]
    moved = ascend(clean, images, targets, steps=5, size=1 / 255)
    assert float((moved - images).abs().max()) <= 5 / 255 + 1e-6
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
    with torch.no_grad():
        assert F.cross_entropy(clean(moved), targets) > F.cross_entropy(clean(images), targets)
    assert [part.training for part in clean.modules()] == modes
    for p, grad in zip(clean.parameters(), grads, strict=True):
        assert p.grad is grad is None or torch.equal(p.grad, grad)
    assert torch.equal(ascend(clean, images, targets, steps=0, size=0.1), images)


def test_one_step_by_hand() -> None:
    net = nn.Linear(2, 2, bias=False)
    net.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # The loss to class 0 grows with the second input and falls with the first.
    moved = ascend(net, torch.tensor([[0.5, 0.95]]), torch.tensor([0]), steps=1, size=0.1)
    assert moved[0].tolist() == pytest.approx([0.4, 1.0])


def test_the_rate_drops_after_half_and_three_quarters() -> None:
    assert drop_at(200, (0.5, 0.75)) == [100, 50, 50]
    assert drop_at(3, ()) == [3]
    assert drop_at(1, (0.5, 0.75)) == [1, 0, 0]
    assert sum(drop_at(7, (0.3, 0.6))) == 7


@pytest.mark.parametrize(
    "changes",
    [{"drops": (0.8, 0.5)}, {"drops": (1.0,)}, {"steps": -1}, {"step": 0.0}, {"weight": 0.0}, {"trigger_batch": 0}],
)
def test_margin_refuses_what_makes_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(BadConfig):
        Margin(**changes)


def test_extras_can_be_changed_before_the_model_is_asked(tiny_task: Task, cpu: Runtime) -> None:
    seen: list[tuple[torch.dtype, int]] = []
    asked: list[Tensor] = []

    def change(images: Tensor, targets: Tensor) -> Tensor:
        seen.append((images.dtype, len(targets)))
        return images * 0 + 0.25

    model = build("naivenet", input_shape=(1, 16, 16), classes=6, width=4, hidden=16)
    model.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[0].detach()))
    samples = Samples(inputs=tiny_task.owner.inputs[:8], targets=tiny_task.owner.labels[:8])
    extra = Extra(samples=samples, change=change)

    def losses(clean: Outputs, extras: Any) -> dict[str, Tensor]:
        return {"primary": F.cross_entropy(clean.logits, clean.targets)}

    phase = Phase(recipe=Recipe(epochs=1, batch_size=32, learning_rate=1e-3), extras={"watermark": 3}, share=0.3)
    fit_jointly(model, tiny_task.owner, {"watermark": extra}, losses, phase, seed=0, runtime=cpu)
    assert set(seen) == {(torch.float32, 3)}
    assert all(bool((batch[-3:] == 0.25).all()) for batch in asked)


# ---------------------------------------------------------------- SSW


def test_the_fusion_loss_by_hand() -> None:
    zero = torch.zeros(1, 2)
    # (1/2 * 1/2 * 1/2) for both classes.
    assert fusion_loss(zero, zero, zero, torch.tensor([0])).item() == pytest.approx(math.log(2))
    host, negative = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[0.0, math.log(3.0)]])
    # 3/4 * 3/4 * 3/4 and 1/4 * 1/4 * 1/4.
    fused = [27 / 64, 1 / 64]
    expected = math.log(sum(math.exp(value) for value in fused)) - fused[0]
    assert fusion_loss(host, host, negative, torch.tensor([0])).item() == pytest.approx(expected)


def pixel_net(weights: list[list[float]]) -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    net[1].weight.data = torch.tensor(weights)
    return net.eval()


def test_pixels_move_to_where_host_and_thief_hit_and_a_clean_model_misses(cpu: Runtime) -> None:
    shadows = Shadows(
        host=pixel_net([[9.0, 0.0], [0.0, 0.0]]),
        positive=pixel_net([[9.0, 0.0], [0.0, 0.0]]),
        negative=pixel_net([[0.0, 9.0], [0.0, 0.0]]),
    )
    start = torch.full((130, 1, 1, 2), 0.5)
    moved = refine(start, torch.zeros(130, dtype=torch.long), shadows, steps=20, learning_rate=0.01, runtime=cpu)
    assert moved.shape == start.shape
    assert bool((moved[:, 0, 0, 0] > 0.55).all())
    assert bool((moved[:, 0, 0, 1] < 0.45).all())
    assert all(p.grad is None for net in (shadows.host, shadows.positive, shadows.negative) for p in net.parameters())
    fewer = refine(start, torch.zeros(130, dtype=torch.long), shadows, steps=1, learning_rate=0.01, runtime=cpu)
    assert float((fewer - start).abs().max()) < float((moved - start).abs().max())
    bytes_ = refine(
        (start * 255).to(torch.uint8),
        torch.zeros(130, dtype=torch.long),
        shadows,
        steps=5,
        learning_rate=0.01,
        runtime=cpu,
    )
    assert bytes_.dtype == torch.uint8


class Placed(nn.Module):
    """Refuses to be asked before it was moved."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.moved = net, False

    def to(self, *args: Any, **kwargs: Any) -> Placed:
        self.moved = True
        return super().to(*args, **kwargs)

    def forward(self, inputs: Tensor) -> Tensor:
        assert self.moved
        answer: Tensor = self.net(inputs)
        return answer


def test_the_three_models_are_moved_to_the_device_before_they_are_asked(cpu: Runtime) -> None:
    host, positive, negative = (Placed(pixel_net([[9.0, 0.0], [0.0, 0.0]])) for _ in range(3))
    refine(
        torch.rand(3, 1, 1, 2),
        torch.zeros(3, dtype=torch.long),
        Shadows(host=host, positive=positive, negative=negative),
        steps=1,
        learning_rate=0.01,
        runtime=cpu,
    )
    assert host.moved
    assert positive.moved
    assert negative.moved


def test_a_selected_sample_hits_on_host_and_thief_and_misses_on_the_clean_model(cpu: Runtime) -> None:
    first, second = [[9.0, 0.0], [0.0, 0.0]], [[0.0, 9.0], [0.0, 0.0]]
    bias = torch.tensor([-4.0, 0.0])
    nets = [pixel_net(first), pixel_net(first), pixel_net(second)]
    for net in nets:
        net[1].bias = nn.Parameter(bias.clone())  # type: ignore[index]
    images = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.9, 0.1]]).reshape(4, 1, 1, 2)
    drawn = TriggerSet(
        inputs=images,
        controls=images.flip(3),
        hosts=images[:, None][:, :0],
        host_labels=torch.empty(4, 0, dtype=torch.long),
        targets=torch.zeros(4, dtype=torch.long),
    )
    shadows = Shadows(host=nets[0], positive=nets[1], negative=nets[2])
    assert select(drawn, shadows, runtime=cpu).inputs.tolist() == images[[0, 3]].tolist()
    with pytest.raises(BadData, match="selected=false"):
        select(drawn.subset(torch.tensor([1, 2])), shadows, runtime=cpu)


def test_a_key_of_random_labels_is_no_longer_than_was_asked(tiny_task: Task, clean: nn.Module, cpu: Runtime) -> None:
    method = SSWP(
        model=NET,
        trigger=RandomLabels(of=AbstractImages()),
        triggers=20,
        key_size=10,
        training=dataclasses.replace(ADAM, epochs=1, schedule="constant"),
        steps=1,
        selected=False,
    )
    marked = method(tiny_task, seed=0, runtime=cpu, clean=clean)
    assert marked.training_triggers is not None
    assert len(marked.training_triggers) == 20
    assert len(marked.key) == len(marked.verification_triggers) == 10


@pytest.mark.parametrize("method", [SSWP(), SSWS()])
def test_host_and_shadow_train_on_augmented_images_as_in_the_authors_code(method: SSWP | SSWS) -> None:
    assert method.training.augment == method.pretraining.augment == "crop-flip"


@pytest.mark.parametrize(
    "changes", [{"refinements": 2}, {"refinements": -1}, {"pixel_rate": 0.0}, {"candidates": 0}, {"steps": 0}]
)
def test_ssw_refuses_what_makes_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(BadConfig):
        SSWP(**changes)


# ---------------------------------------------------------------- inputs that are no images


@pytest.mark.parametrize(
    "name", ["ewe", "ssw-p", "ssw-s", "composite", "badnets", "content", "noise", "unrelated", "abstract"]
)
def test_inputs_that_are_no_images_are_refused_in_words(name: str, cpu: Runtime) -> None:
    def split(seed: int) -> Split:
        generator = torch.Generator().manual_seed(seed)
        return Split(inputs=torch.rand(40, 12, generator=generator), labels=torch.arange(40) % 4)

    task = Task(
        name="rows", classes=tuple("abcd"), owner=split(0), adversary=split(1), calibration=split(2), test=split(3)
    )
    net = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    with pytest.raises(BadConfig, match=r"image|use another"):
        METHODS[name](model=make_net)(task, seed=0, runtime=cpu, clean=net)


def make_net(spec: Any) -> nn.Module:
    return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
