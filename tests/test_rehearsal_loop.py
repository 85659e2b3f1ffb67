"""The rehearsal loop against one written by hand with double backward, and what it leaves alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from heirmark.attacks import Knockoff
from heirmark.configuration import apply_settings
from heirmark.data import load_task
from heirmark.errors import BadConfig, BadData, ShapeMismatch
from heirmark.methods import T2S, Vanilla
from heirmark.models import build
from heirmark.querying.asking import predict
from heirmark.querying.blackbox import BlackBox
from heirmark.rehearsal import DistillationLoss, combine_balanced
from heirmark.rehearsal.loop import Monitor, rehearse
from heirmark.rehearsal.settings import Balanced, Paper, Rehearsal, SimulatedThief
from heirmark.runtime import Runtime
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Recipe, accuracy
from heirmark.training.samples import Samples
from heirmark.triggers import Tiles

CLASSES, COUNT, TRIGGERS = 3, 12, 5
# All images and all triggers in every batch: then nothing depends on the order in which they are drawn.
WHOLE = Rehearsal(
    recipe=Recipe(epochs=3, batch_size=COUNT, learning_rate=0.02, momentum=0.0, weight_decay=0.0),
    trigger_batch=TRIGGERS,
    thief=SimulatedThief(rate=0.3),
    update=Paper(utility_weight=2.0),
)
PARTS = ("recipe", "thief", "memory")


def adjusted(config: Rehearsal, **options: Any) -> Rehearsal:
    """Fields of the rehearsal or of one of its parts, whichever has them, set to other values."""
    for name, value in options.items():
        part = next((part for part in PARTS if name in vars(getattr(config, part))), None)
        if part is None:
            config = replace(config, **{name: value})
        else:
            config = replace(config, **{part: replace(getattr(config, part), **{name: value})})
    return config


class Doubled(nn.Module):
    """A net in double precision; inputs arrive as float32."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.double()

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.net(inputs.double())
        return logits


def net(seed: int, *, batch_norm: bool = True, double: bool = True, width: int = 3) -> nn.Module:
    model = build(
        "naivenet", input_shape=(1, 16, 16), classes=CLASSES, seed=seed, width=width, hidden=6, batch_norm=batch_norm
    )
    return Doubled(model) if double else model


def batch() -> tuple[Split, Samples]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(256, (COUNT, 1, 16, 16), generator=generator, dtype=torch.uint8)
    triggers = torch.randint(256, (TRIGGERS, 1, 16, 16), generator=generator, dtype=torch.uint8)
    labels = torch.arange(COUNT) % CLASSES
    mark = Samples(inputs=triggers, targets=torch.full((TRIGGERS,), 2))
    return Split(inputs=inputs, labels=labels), mark


def monitor(seed: int = 0, count: int = 8) -> Monitor:
    generator = torch.Generator().manual_seed(100 + seed)
    inputs = torch.randint(256, (2 * count, 1, 16, 16), generator=generator, dtype=torch.uint8)
    labels = torch.randint(CLASSES, (2 * count,), generator=generator)
    return Monitor(
        clean=Split(inputs=inputs[:count], labels=labels[:count]),
        triggers=Samples(inputs=inputs[count:], targets=labels[count:]),
    )


def run(
    target: nn.Module, student: nn.Module, config: Rehearsal, *, seed: int = 0, **options: Any
) -> tuple[nn.Module, tuple[Mapping[str, float], ...]]:
    options = {"monitor": monitor(), "runtime": Runtime(device="cpu", precision="float32")} | options
    return rehearse(target, student, *batch(), config=config, seed=seed, **options)


def state_of(model: nn.Module) -> dict[str, Any]:
    return {
        "tensors": {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()},
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grads": [p.grad for p in model.parameters()],
        "modes": [part.training for part in model.modules()],
    }


def tensors(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


# ---------------------------------------------------------------- by hand


def by_hand(target: nn.Module, student: nn.Module, config: Rehearsal) -> tuple[nn.Module, list[list[float]]]:
    """The same by the plain way: keep the graph of the thief's step, and go back through all of it."""
    target, student = copy.deepcopy(target), copy.deepcopy(student)
    split, mark_samples = batch()
    x, y, shown, targets = split.floats(), split.labels, mark_samples.inputs.float() / 255, mark_samples.targets
    recipe, thieving, update = config.recipe, config.thief, config.update
    first = {name: p.detach().clone() for name, p in student.named_parameters()}
    first_buffers = {name: b.clone() for name, b in student.named_buffers()}
    thief = dict(first)
    buffers = {name: b.clone() for name, b in first_buffers.items()}
    velocity: dict[str, Tensor] = {}
    losses: list[list[float]] = []
    for step in range(recipe.epochs):
        if thieving.reset_every and step % thieving.reset_every == 0:
            thief, buffers = dict(first), {name: b.clone() for name, b in first_buffers.items()}
        ours = dict(target.named_parameters())
        theirs = {name: p.clone().requires_grad_() for name, p in thief.items()}
        z_t = target.train()(x)
        z_s = functional_call(student.train(), (theirs, buffers), (x,))
        theft = F.kl_div(z_s.log_softmax(1), z_t.log_softmax(1), reduction="batchmean", log_target=True)
        slopes = torch.autograd.grad(theft, list(theirs.values()), create_graph=True)
        after = {name: p - thieving.rate * g for (name, p), g in zip(theirs.items(), slopes, strict=True)}
        mode = {"eval": False, "train": True, "mixed": True}[thieving.trigger_mode]
        asked = torch.cat([shown, x]) if thieving.trigger_mode == "mixed" else shown
        spare = {name: b.clone() for name, b in buffers.items()}  # a trigger pass leaves no trace in the statistics
        z_w = functional_call(student.train(mode), (after, spare), (asked,))[: len(shown)]
        mark, utility = F.cross_entropy(z_w, targets), F.cross_entropy(z_t, y)
        hyper, clean = (
            dict(zip(ours, torch.autograd.grad(loss, list(ours.values()), retain_graph=True), strict=True))
            for loss in (mark, utility)
        )
        if isinstance(update, Paper):
            direction = {name: hyper[name] + update.utility_weight * clean[name] for name in ours}
        else:
            ratio = update.rho * (min(1.0, float(mark.detach()) / update.enough) if update.enough else 1.0)
            direction = combine_balanced(hyper, clean, ratio, remove_conflict=update.remove_conflict)
        rate = recipe.learning_rate
        if recipe.schedule == "cosine":
            rate *= (1 + math.cos(math.pi * step / recipe.epochs)) / 2
        with torch.no_grad():
            for name, p in ours.items():
                velocity[name] = recipe.momentum * velocity[name] + direction[name] if step else direction[name]
                p -= rate * velocity[name]
        thief = {name: p.detach() for name, p in after.items()}
        losses.append([float(loss.detach()) for loss in (mark, utility, theft)])
    return target.eval(), losses


VARIANTS: dict[str, dict[str, Any]] = {
    "paper-one-step": {"epochs": 1},
    "paper": {},
    "paper-momentum": {"momentum": 0.9},
    "paper-constant": {"schedule": "constant", "epochs": 2},
    "paper-heavy-utility": {"update": Paper(), "learning_rate": 1e-3},
    "paper-no-utility": {"update": Paper(utility_weight=0.0)},
    "balanced-one-step": {"update": Balanced(), "epochs": 1},
    "balanced": {"update": Balanced(rho=1.5)},
    "balanced-momentum": {"update": Balanced(), "momentum": 0.9},
    "balanced-with-conflict": {"update": Balanced(remove_conflict=False)},
    "balanced-enough": {"update": Balanced(rho=1.5, enough=3.0)},
    "triggers-in-train-mode": {"trigger_mode": "train"},
    "triggers-mixed": {"trigger_mode": "mixed"},
    "reset-every-step": {"reset_every": 1, "epochs": 4},
    "reset-every-second-step": {"reset_every": 2, "epochs": 5},
}


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_double_backward_by_hand(variant: str, batch_norm: bool) -> None:
    config = adjusted(WHOLE, **VARIANTS[variant])
    target, student = net(1, batch_norm=batch_norm), net(2, batch_norm=batch_norm)
    wanted, losses = by_hand(target, student, config)
    tuned, history = run(target, student, config)
    for (name, tensor), (other, reference), start in zip(
        tuned.state_dict().items(), wanted.state_dict().items(), target.state_dict().values(), strict=True
    ):
        assert name == other
        torch.testing.assert_close(
            tensor, reference, rtol=1e-8, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}"
        )
        assert not torch.equal(tensor, start), f"{name} was not tuned"
    found = [[row[f"{kind}_loss"] for kind in ("watermark", "utility", "distillation")] for row in history[1:]]
    assert found == [pytest.approx(row, rel=1e-5) for row in losses]  # means are kept in float32


@pytest.mark.parametrize("update", [Paper(utility_weight=2.0), Balanced()], ids=["paper", "balanced"])
def test_equals_double_backward_by_hand_in_single_precision(update: Any) -> None:
    config = adjusted(WHOLE, update=update, epochs=1)
    target, student = net(1, double=False), net(2, double=False)
    wanted, _ = by_hand(target, student, config)
    tuned, _ = run(target, student, config)
    for p, reference, start in zip(tuned.parameters(), wanted.parameters(), target.parameters(), strict=True):
        moved, reference_moved = (p - start).detach(), (reference - start).detach()
        assert float((moved - reference_moved).norm()) < 1e-3 * float(reference_moved.norm())


@pytest.mark.parametrize("options", [{"one_graph": True}, {"micro_batch": 5}, {"derivative": "forward"}], ids=str)
def test_ways_to_save_memory_change_no_number(options: dict[str, Any]) -> None:
    target, student = net(1, batch_norm=False), net(2, batch_norm=False)
    plain, _ = run(target, student, WHOLE)
    saving, _ = run(target, student, adjusted(WHOLE, **options))
    for one, other in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", ["reverse-kl", "cross-entropy", "label", "mse"])
def test_the_loss_of_the_thief_is_handed_on(kind: Any) -> None:
    target, student = net(1), net(2)
    plain, _ = run(target, student, WHOLE)
    other, _ = run(target, student, adjusted(WHOLE, loss=DistillationLoss(kind=kind)))
    same = all(torch.allclose(a, b, rtol=1e-9) for a, b in zip(plain.parameters(), other.parameters(), strict=True))
    assert same is (kind == "cross-entropy"), "only the entropy of the target tells this loss from KL, and it drops out"


# ---------------------------------------------------------------- other thieves than the paper's


def test_a_pool_of_one_is_that_one() -> None:
    alone, _ = run(net(1), net(2), WHOLE)
    pooled, _ = rehearse(
        net(1),
        [net(2)],
        *batch(),
        config=WHOLE,
        seed=0,
        monitor=monitor(),
        runtime=Runtime(device="cpu", precision="float32"),
    )
    assert tensors(alone) == tensors(pooled)


@pytest.mark.parametrize("options", [{"label_only": 1}, {"label_only": 1, "loss": DistillationLoss(temperature=2.0)}])
def test_thieves_take_turns(options: dict[str, Any]) -> None:
    two = adjusted(WHOLE, epochs=2, schedule="constant", **options)
    one = adjusted(two, epochs=1, label_only=0)
    both, history = run(net(1), net(2), two)
    begun, _ = run(net(1), net(2), one)
    wanted, _ = run(begun, net(2), adjusted(one, loss=replace(one.thief.loss, kind="label")))
    for p, q in zip(both.parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9)
    assert len(history) == 3


@pytest.mark.parametrize("update", [Paper(utility_weight=2.0), Balanced()], ids=["paper", "balanced"])
@pytest.mark.parametrize("early", [0, 2])
def test_other_queries_and_several_steps_by_hand(update: Any, early: int) -> None:
    """With one image to ask about, every batch of queries is known: copies of it."""
    config = adjusted(WHOLE, epochs=1, update=update, momentum=0.0, schedule="constant", steps=1 + early)
    target, student = net(1), net(2)
    split, mark_samples = batch()
    triggers, targets = mark_samples.inputs, mark_samples.targets
    query = torch.randint(256, (1, 1, 16, 16), generator=torch.Generator().manual_seed(9), dtype=torch.uint8)
    tuned, _ = run(target, student, config, queries=query)
    asked, shown = (query.double() / 255).float().expand(COUNT, -1, -1, -1), triggers.float() / 255
    hand = copy.deepcopy(target)
    thief = {name: p.detach().clone() for name, p in student.named_parameters()}
    buffers = {name: b.clone() for name, b in student.named_buffers()}
    skeleton = copy.deepcopy(student)

    def step(answers: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        theirs = {name: p.detach().clone().requires_grad_() for name, p in thief.items()}
        z_s = functional_call(skeleton.train(), (theirs, buffers), (asked,))
        theft = F.kl_div(z_s.log_softmax(1), answers.log_softmax(1), reduction="batchmean", log_target=True)
        slopes = torch.autograd.grad(theft, list(theirs.values()), create_graph=True)
        after = {name: p - config.thief.rate * g for (name, p), g in zip(theirs.items(), slopes, strict=True)}
        return after, theft

    for _ in range(early):
        with torch.no_grad():
            answers = hand.eval()(asked)
        after, _ = step(answers)
        thief = {name: p.detach() for name, p in after.items()}
    ours = dict(hand.named_parameters())
    aside = copy.deepcopy(dict(hand.named_buffers()))
    answers = functional_call(hand.eval(), (ours, aside), (asked,))
    after, _ = step(answers)
    mark = F.cross_entropy(functional_call(skeleton.eval(), (after, buffers), (shown,)), targets)
    hyper = dict(zip(ours, torch.autograd.grad(mark, list(ours.values())), strict=True))
    utility = F.cross_entropy(hand.train()(split.floats()), split.labels)
    clean = dict(zip(ours, torch.autograd.grad(utility, list(ours.values())), strict=True))
    if isinstance(update, Paper):
        direction = {name: hyper[name] + update.utility_weight * clean[name] for name in ours}
    else:
        direction = combine_balanced(hyper, clean, update.rho, remove_conflict=update.remove_conflict)
    for name, p in tuned.named_parameters():
        wanted = ours[name].detach() - config.recipe.learning_rate * direction[name]
        torch.testing.assert_close(p.detach(), wanted, rtol=1e-6, atol=1e-8, msg=name)
    for name, buffer in tuned.named_buffers():
        torch.testing.assert_close(buffer, dict(hand.named_buffers())[name], msg=name)


# ---------------------------------------------------------------- history


def test_the_history_has_a_row_an_epoch_and_one_before_the_first() -> None:
    _, history = run(net(1), net(2), WHOLE)
    figures = {"epoch", "target_accuracy", "target_wsr", "student_accuracy", "student_wsr"}
    losses = {"watermark_loss", "utility_loss", "distillation_loss", "exact"}
    assert [row["epoch"] for row in history] == [0, 1, 2, 3]
    assert set(history[0]) == figures
    assert all(set(row) == figures | losses for row in history[1:])
    assert all(type(value) is float and math.isfinite(value) for row in history for value in row.values())
    assert all(0 <= row[name] <= 1 for row in history for name in figures - {"epoch"})


def test_the_figures_are_measured_on_the_monitor(cpu: Runtime) -> None:
    target, student, watched = net(1), net(2), monitor(count=30)
    tuned, history = run(target, student, WHOLE, monitor=watched)

    def rate(model: nn.Module, inputs: Tensor, wanted: Tensor) -> float:
        return float((predict(model, inputs, runtime=cpu).argmax(1) == wanted).double().mean())

    for row, name, model in (
        (history[0], "target", target), (history[0], "student", student), (history[-1], "target", tuned),
    ):  # fmt: skip
        assert row[f"{name}_accuracy"] == rate(model, watched.clean.inputs, watched.clean.labels)
        assert row[f"{name}_wsr"] == rate(model, watched.triggers.inputs, watched.triggers.targets)


def test_what_is_watched_changes_nothing() -> None:
    target, student = net(1), net(2)
    results = [run(target, student, WHOLE, monitor=monitor(seed, count)) for seed, count in ((0, 8), (1, 8), (2, 33))]
    assert tensors(results[0][0]) == tensors(results[1][0]) == tensors(results[2][0])
    losses = [[row.get("watermark_loss") for row in history] for _, history in results]
    assert losses[0] == losses[1] == losses[2]


def test_no_epochs_give_a_copy_and_one_row() -> None:
    target = net(1).train()
    tuned, history = run(target, net(2), adjusted(WHOLE, epochs=0))
    assert len(history) == 1
    assert tuned is not target
    assert tensors(tuned) == tensors(target)
    assert not any(part.training for part in tuned.modules())


# ---------------------------------------------------------------- randomness and side effects


@pytest.mark.parametrize("training", [True, False])
def test_one_seed_gives_one_result_and_the_models_stay(training: bool, unchanged_globals: Callable[[], Any]) -> None:
    target, student = net(1).train(training), net(2).train(training)
    before = [state_of(model) for model in (target, student)]
    config = adjusted(WHOLE, batch_size=4, trigger_batch=2)
    split, mark = batch()
    results = []
    for seed in (7, 7, 8):
        torch.rand(3)
        with unchanged_globals():
            results.append(run(target, student, config, seed=seed))
    assert [state_of(model) for model in (target, student)] == before
    assert tensors(results[0][0]) == tensors(results[1][0])
    assert results[0][1] == results[1][1]
    assert tensors(results[0][0]) != tensors(results[2][0])
    assert not any(part.training for part in results[0][0].modules())
    assert torch.equal(batch()[0].inputs, split.inputs)
    assert torch.equal(batch()[1].inputs, mark.inputs)
    assert torch.equal(batch()[1].targets, mark.targets)


def test_the_mode_in_which_models_come_does_not_matter() -> None:
    results = [run(net(1).train(mode), net(2).train(not mode), WHOLE)[0] for mode in (True, False)]
    assert tensors(results[0]) == tensors(results[1])


def test_the_student_may_be_the_target_itself_or_another_net() -> None:
    target = net(1)
    same, _ = run(target, target, WHOLE)
    copied, _ = run(target, copy.deepcopy(target), WHOLE)
    assert tensors(same) == tensors(copied)
    other, _ = run(target, net(2, width=5, batch_norm=False), WHOLE)
    assert tensors(other) != tensors(same)


class Witness(nn.Module):
    """A linear net that keeps what it is shown in train mode, also when it is copied."""

    shown: ClassVar[dict[str, list[list[int]]]] = {}

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.layer = name, nn.Linear(2, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            Witness.shown.setdefault(self.name, []).append([round(255 * float(row[0])) for row in inputs])
        logits: Tensor = self.layer(inputs)
        return logits


def test_every_epoch_goes_through_the_data_once_and_the_thief_sees_the_same(cpu: Runtime) -> None:
    Witness.shown = {}
    inputs = torch.stack([torch.arange(23), torch.zeros(23)], 1).to(torch.uint8)
    data = Split(inputs=inputs, labels=torch.zeros(23).long())
    config = adjusted(WHOLE, epochs=2, batch_size=5, trigger_batch=2, learning_rate=1e-6)
    watched = Monitor(clean=data, triggers=Samples(inputs=inputs, targets=data.labels))
    mark = Samples(inputs=inputs[:3] + 100, targets=torch.ones(3).long())
    rehearse(
        Witness("target"), Witness("thief"), data, mark,
        config=config, seed=0, monitor=watched, runtime=cpu,
    )  # fmt: skip
    target = Witness.shown["target"]
    assert [len(step) for step in target] == [5] * 8
    for epoch in (target[:4], target[4:]):
        assert len({number for step in epoch for number in step}) == 20
    assert target[:4] != target[4:], "every epoch must be shuffled anew"
    # Before the first step the thief is tried on a few samples, to see whether forward mode works.
    assert Witness.shown["thief"][-len(target) :] == target


def test_progress_is_told_of_every_step() -> None:
    told: list[tuple[str, int, int]] = []
    runtime = Runtime(device="cpu", precision="float32", progress=lambda *words: told.append(words))
    run(net(1), net(2), adjusted(WHOLE, batch_size=4), runtime=runtime)
    assert told == [("rehearsing", step + 1, 9) for step in range(9)]


def test_single_precision_stays_whatever_the_runtime_says() -> None:
    target, student = net(1, double=False), net(2, double=False)
    coarse = Runtime(device="cpu", precision="bfloat16")
    exact, _ = run(target, student, WHOLE)
    kept, _ = run(target, student, WHOLE, runtime=coarse)
    lowered, history = run(target, student, adjusted(WHOLE, precision="runtime"), runtime=coarse)
    assert tensors(kept) == tensors(exact)
    assert tensors(lowered) != tensors(exact)
    assert all(math.isfinite(value) for row in history for value in row.values())


def test_a_frozen_part_of_the_target_stays() -> None:
    target = net(1)
    frozen = {"net.features.1.weight"}
    for name, p in target.named_parameters():
        p.requires_grad_(name not in frozen)
    tuned, _ = run(target, net(2), WHOLE)
    for (name, p), start in zip(tuned.named_parameters(), target.parameters(), strict=True):
        assert torch.equal(p, start) is (name in frozen)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("update", [Paper(utility_weight=2.0), Balanced()], ids=["paper", "balanced"])
def test_a_loss_that_is_no_number_stops_the_rehearsal(update: Any) -> None:
    config = adjusted(WHOLE, update=update, learning_rate=1e30, epochs=4)
    with pytest.raises(BadData, match=r"loss became .* in epoch \d: lower learning_rate, or raise utility_weight"):
        run(net(1, batch_norm=False, double=False), net(2, batch_norm=False, double=False), config)


def test_models_and_data_have_to_fit() -> None:
    target, student = net(1), net(2)
    data, mark = batch()
    other = Doubled(build("naivenet", input_shape=(1, 16, 16), classes=5, width=2, hidden=3))
    with pytest.raises(ShapeMismatch, match="the teacher answers 3 classes and the student 5"):
        run(target, other, WHOLE)
    for wrong in (mark.first(0), replace(mark, targets=mark.targets[:2])):
        with pytest.raises(ShapeMismatch, match="there must be some, with one target each"):
            rehearse(target, student, data, wrong, config=WHOLE, seed=0, monitor=monitor())
    with pytest.raises(ShapeMismatch, match="targets go up to 3 for 3 classes"):
        rehearse(
            target, student, data, replace(mark, targets=mark.targets + 1), config=WHOLE, seed=0, monitor=monitor()
        )
    for frozen in (target, student):
        frozen.requires_grad_(False)
        with pytest.raises(BadConfig, match="unfreeze"):
            run(target, student, WHOLE)
        frozen.requires_grad_(True)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: adjusted(WHOLE, epochs=-1), "epochs"),
        (lambda: adjusted(WHOLE, trigger_batch=0), "trigger_batch: expected int >= 1"),
        (lambda: adjusted(WHOLE, steps=0), "steps: expected int >= 1"),
        (lambda: adjusted(WHOLE, label_only=-1), "label_only: expected int >= 0"),
        (lambda: adjusted(WHOLE, reset_every=-1), "reset_every: expected int >= 0"),
        (lambda: adjusted(WHOLE, micro_batch=-1), "micro_batch: expected int >= 0"),
        (lambda: adjusted(WHOLE, rate=-0.1), "rate: expected float > 0"),
        (lambda: adjusted(WHOLE, rate=math.nan), "rate: expected float > 0"),
        (lambda: Paper(utility_weight=-1.0), "utility_weight: expected float >= 0"),
        (lambda: Paper(utility_weight=math.inf), "utility_weight: expected float >= 0"),
        (lambda: Balanced(rho=math.nan), "rho: expected float >= 0"),
        (lambda: Balanced(enough=-1.0), "enough: expected float >= 0"),
        (lambda: adjusted(WHOLE, update="mgda"), "update: expected paper[|]balanced, not 'mgda'"),
        (lambda: adjusted(WHOLE, trigger_mode="both"), "trigger_mode: expected eval[|]train[|]mixed, not 'both'"),
        (lambda: adjusted(WHOLE, derivative="reverse"), "derivative: expected"),
        (lambda: adjusted(WHOLE, precision="float16"), "precision: expected float32[|]runtime, not 'float16'"),
    ],
)
def test_wrong_settings_are_named(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        make()


def test_an_update_is_set_by_its_name() -> None:
    changed = apply_settings(
        Rehearsal(), ["update=balanced", "update.rho=2", "recipe.epochs=8", "memory.one_graph=true"]
    )
    assert changed == adjusted(Rehearsal(), update=Balanced(rho=2.0), epochs=8, one_graph=True)
    assert apply_settings(changed, ["update=paper"]).update == Paper(utility_weight=50.0)


# ---------------------------------------------------------------- what it is for


def test_feedback_lowers_the_loss_of_the_thief_on_triggers(tiny_task: Task, tiny_model: str, cpu: Runtime) -> None:
    """Against the same rehearsal without feedback (rho of 0), in which the target only learns its own task on."""
    recipe = Recipe(epochs=3, batch_size=16, learning_rate=0.02, optimizer="adam")
    shares = []
    for seed in range(2):
        losses = []
        for rho in (0.0, 2.0):
            rehearsal = Rehearsal(
                recipe=Recipe(epochs=3, batch_size=32, learning_rate=0.02, weight_decay=0.0),
                trigger_batch=16,
                update=Balanced(rho=rho),
            )
            method = T2S(
                model=tiny_model, trigger=Tiles(samples=60), triggers=60, key_size=40, trigger_batch=8,
                pretraining=recipe, rehearsal=rehearsal,
            )  # fmt: skip
            history = method(tiny_task, seed=seed, runtime=cpu).history
            assert history[-1]["target_accuracy"] > 0.8
            losses.append(history[-1]["watermark_loss"])
        shares.append(losses[1] / losses[0])
    assert max(shares) < 0.98
    assert sum(shares) / 2 < 0.9


@pytest.mark.slow
def test_a_rehearsed_mark_outlives_a_theft_that_a_vanilla_one_does_not(cpu: Runtime) -> None:
    """Half a minute: soft-label Knockoff by a thief with images of its own, on a small part of Fashion-MNIST."""
    whole = load_task("fashion-mini", seed=0)
    sizes = {"owner": 1500, "adversary": 1500, "calibration": 1000, "test": 1000}
    task = replace(whole, **{role: whole.splits[role].subset(torch.arange(size)) for role, size in sizes.items()})
    model = "naivenet:width=8,hidden=64,batch_norm=true"
    recipe = Recipe(epochs=6, batch_size=64, nesterov=True, warmup=0.15)
    common: dict[str, Any] = {
        "model": model, "trigger": Tiles(), "triggers": 500, "key_size": 200, "trigger_batch": 16, "pretraining": recipe,
    }  # fmt: skip
    tuning = Recipe(epochs=8, batch_size=64, learning_rate=0.02, weight_decay=0.0)
    rehearsal = Rehearsal(recipe=tuning, update=Balanced(rho=2.0))
    vanilla = Vanilla(**common)(task, seed=1, runtime=cpu)
    rehearsed = T2S(**common, rehearsal=rehearsal)(task, seed=1, runtime=cpu, watermarked=vanilla.model)
    assert torch.equal(vanilla.key.queries, rehearsed.key.queries)

    def stolen_rate(victim: nn.Module) -> float:
        box = BlackBox(victim, classes=10, runtime=cpu)
        copied = Knockoff(model=model, recipe=recipe)(box, task.adversary, seed=1, runtime=cpu).model
        hits = predict(copied, vanilla.key.queries, runtime=cpu).argmax(1) == vanilla.key.expected
        return float(hits.double().mean())

    before, after = stolen_rate(vanilla.model), stolen_rate(rehearsed.model)
    assert before < 0.1
    assert after > 0.5
    cost = accuracy(vanilla.model, task.test, runtime=cpu) - accuracy(rehearsed.model, task.test, runtime=cpu)
    assert cost < 0.1
