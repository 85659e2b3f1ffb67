"""The parts of the extraction attacks against slow references and closed forms, and what each asks its victim."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from heirmark.attacks import DFME, JBDA, MAZE, ActiveThief, Distillation, Knockoff, KnockoffAdaptive
from heirmark.attacks.extraction.active_thief import farthest, most_uncertain
from heirmark.attacks.extraction.dfme import recovered_logits
from heirmark.attacks.extraction.distillation import soften
from heirmark.attacks.extraction.generating import Generator, forward_difference, pixels
from heirmark.attacks.extraction.jbda import jacobian_step
from heirmark.attacks.extraction.knockoff_adaptive import (
    advantage,
    certainty,
    clusters_of,
    diversity,
    policy,
    updated,
)
from heirmark.attacks.extraction.maze import ReplayMemory, divergence
from heirmark.errors import BadConfig, BadData
from heirmark.models import ModelSpec, build
from heirmark.querying.asking import predict
from heirmark.querying.blackbox import Answers, Api, BlackBox
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Recipe
from victims import MODEL, RECIPE, Listener, agreement

UNTRAINED = dataclasses.replace(RECIPE, epochs=0)


def linear(classes: int = 6, size: int = 256, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """A victim of one linear layer."""
    weights = torch.randn(size, classes, generator=torch.Generator().manual_seed(seed)) / math.sqrt(size)
    return lambda inputs: (8 * (inputs.flatten(1) - 0.5) @ weights).softmax(1)


def listening(**options: object) -> tuple[Listener, BlackBox]:
    listener = Listener(linear())
    return listener, BlackBox(listener, classes=6, api=Api(**options))  # type: ignore[arg-type]


def rows(images: list[Tensor]) -> list[bytes]:
    return [row.numpy().tobytes() for batch in images for row in batch]


def calls(box: BlackBox) -> list[int]:
    return [call.inputs for call in box.transcript]


# ---------------------------------------------------------------- Distillation


@settings(deadline=None)
@given(temperature=st.floats(0.5, 20), scale=st.floats(0.1, 10), seed=st.integers(0, 999))
def test_softened_probabilities_are_softened_logits(temperature: float, scale: float, seed: int) -> None:
    logits = scale * torch.randn(5, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    torch.testing.assert_close(soften(logits.softmax(1), temperature), (logits / temperature).softmax(1))


def test_what_is_hidden_stays_hidden_when_softened() -> None:
    assert soften(torch.tensor([[0.81, 0.0, 0.09]]), 2.0).tolist() == [pytest.approx([0.75, 0.0, 0.25])]


def test_the_loss_of_distillation_is_the_papers() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 2, 1, 1])
    attack = Distillation(temperature=5.0, label_weight=0.25)
    wanted = soften(teacher.softmax(1), 5.0)
    # Rows and classes one at a time.
    soft = hard = 0.0
    for z, v, label in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        p = [math.exp(a / 5) / sum(math.exp(b / 5) for b in z) for a in z]
        q = [math.exp(a / 5) / sum(math.exp(b / 5) for b in v) for a in v]
        soft += -sum(b * math.log(a) for a, b in zip(p, q, strict=True)) / 4
        hard += -math.log(math.exp(z[label]) / sum(map(math.exp, z))) / 4
    assert float(attack.loss(student, wanted)) == pytest.approx(25 * soft)
    assert float(attack.loss(student, wanted, labels)) == pytest.approx(0.75 * 25 * soft + 0.25 * hard)
    assert float(attack.loss(student, labels)) == pytest.approx(float(F.cross_entropy(student, labels)))


def test_distilling_labels_is_knockoff(tiny_task: Task, victim: nn.Module, cpu: Runtime) -> None:
    """A label has no temperature; and training with a loss of one's own is the library's training."""
    copies = [
        attack(
            BlackBox(victim, classes=6, api=Api(answers="label"), runtime=cpu), tiny_task.adversary, seed=0, runtime=cpu
        ).model
        for attack in (Distillation(model=MODEL, recipe=RECIPE), Knockoff(model=MODEL, recipe=RECIPE))
    ]
    one, other = (model.state_dict() for model in copies)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_labels_of_another_task_are_refused(tiny_task: Task, cpu: Runtime) -> None:
    foreign = Split(inputs=tiny_task.adversary.inputs, labels=tiny_task.adversary.labels + 1)
    _, box = listening()
    with pytest.raises(BadConfig, match="labels up to 6, the victim has 6 classes: set label_weight=0"):
        Distillation(model=MODEL, recipe=RECIPE, label_weight=0.5)(box, foreign, seed=0, runtime=cpu)
    assert box.queries_used == 0


# ---------------------------------------------------------------- KnockoffAdaptive


def test_the_bandit_climbs_the_gradient_of_its_policy() -> None:
    preferences = torch.tensor([0.3, -1.0, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    left = torch.tensor([5, 1, 0, 2])
    probabilities = policy(preferences, left)
    assert float(probabilities[2].detach()) == 0
    for chosen in (0, 1, 3):
        (gradient,) = torch.autograd.grad(probabilities[chosen].log(), preferences, retain_graph=True)
        moved = updated(preferences.detach(), probabilities.detach(), chosen, 0.7)
        torch.testing.assert_close(moved, preferences.detach() + 0.7 * gradient)


def test_rewards_are_the_papers() -> None:
    answers = torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.4, 0.2]])
    assert certainty(answers).tolist() == pytest.approx([0.5, 0.0])
    past = torch.tensor([[0.2, 0.6, 0.2], [0.6, 0.2, 0.2]])
    assert float(diversity(answers[0], past)) == pytest.approx(0.3)
    assert float(diversity(answers[0], past[:0])) == pytest.approx(1.0)
    # Both kinds count alike whatever their range; the newest is best of the first and middling of the second.
    window = torch.tensor([[0.0, 100.0], [0.5, 300.0], [1.0, 200.0]])
    assert advantage(window) == pytest.approx((1 - 0.5) + (0.5 - 0.5))
    assert advantage(window[:1]) == 0.0


def test_a_group_that_is_always_rewarded_more_is_drawn_more_and_more(cpu: Runtime) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(900) % 3
    inputs = 0.2 * torch.rand(900, 1, 16, 16, generator=generator) + 0.3 * labels[:, None, None, None]

    def answer(images: Tensor) -> Tensor:  # sure of the darkest images, of no others
        sure = (images.mean((1, 2, 3)) < 0.25).float()[:, None]
        return sure * torch.tensor([[0.9, 0.05, 0.05]]) + (1 - sure) / 3

    shares = []
    for reward in ("certainty", "loss"):
        listener = Listener(answer)
        attack = KnockoffAdaptive(model=MODEL, recipe=UNTRAINED, queries=300, batch=20, reward=reward)  # type: ignore[arg-type]
        attack(BlackBox(listener, classes=3), Split(inputs=inputs, labels=labels), seed=1, runtime=cpu)
        dark = (torch.cat(listener.asked).mean((1, 2, 3)) < 0.25).double()
        shares.append([float(part.mean()) for part in dark.split(100)])
    rising, _ = shares
    assert rising[0] > 1 / 3
    assert rising[0] < rising[1] < rising[2]
    assert rising[2] > 0.7


def test_a_group_that_is_used_up_is_drawn_no_more(tiny_task: Task, cpu: Runtime) -> None:
    data = Split(inputs=tiny_task.adversary.inputs, labels=(torch.arange(288) >= 3).long() * 4)
    listener, box = listening()
    KnockoffAdaptive(model=MODEL, recipe=UNTRAINED, queries=288, batch=100)(box, data, seed=0, runtime=cpu)
    assert calls(box) == [100, 100, 88]
    assert sorted(rows(listener.asked)) == sorted(rows([data.floats()]))


def test_no_last_batch_of_one_is_left_to_batch_norm(tiny_task_of: Callable[..., Task], cpu: Runtime) -> None:
    """This net shrinks images of 8 pixels to one, so that of one image there is no variance."""
    data = tiny_task_of(side=8, train=60, test=12).adversary
    for batch, queries, sizes in ((4, 9, [4, 5]), (4, 10, [4, 4, 2]), (1, 4, [1, 1, 1, 1])):
        box = BlackBox(lambda inputs: inputs.flatten(1)[:, :6].softmax(1), classes=6)
        KnockoffAdaptive(model="resnet18:width=2", recipe=UNTRAINED, queries=queries, batch=batch)(
            box, data, seed=0, runtime=cpu
        )
        assert calls(box) == sizes


def test_one_answer_is_too_little_for_batch_norm(tiny_task_of: Callable[..., Task], cpu: Runtime) -> None:
    data = tiny_task_of(side=8, train=60, test=12).adversary
    for kind in (Knockoff, KnockoffAdaptive):
        box = BlackBox(lambda inputs: inputs.flatten(1)[:, :6].softmax(1), classes=6)
        with pytest.raises(BadData, match="raise batch_size, or give it more examples"):
            kind(model="resnet18:width=2", recipe=RECIPE, queries=1)(box, data, seed=0, runtime=cpu)


def test_labels_alone_have_no_certainty(tiny_task: Task, cpu: Runtime) -> None:
    _, box = listening(answers="label")
    assert KnockoffAdaptive().rewards(box) == ("diversity", "loss")
    with pytest.raises(BadConfig, match="set reward to diversity, loss or all"):
        KnockoffAdaptive(model=MODEL, reward="certainty")(box, tiny_task.adversary, seed=0, runtime=cpu)
    assert KnockoffAdaptive().rewards(listening()[1]) == ("certainty", "diversity", "loss")
    assert box.queries_used == 0


def test_clusters_find_what_lies_together() -> None:
    generator = torch.Generator().manual_seed(3)
    truth = torch.arange(60) % 2
    images = (truth[:, None, None, None] * 150 + torch.randint(60, (60, 1, 16, 16), generator=generator)).to(
        torch.uint8
    )
    found = clusters_of(images, 2, generator)
    assert len(found.unique()) == 2
    assert bool((found == truth).all()) or bool((found == 1 - truth).all())


# ---------------------------------------------------------------- JBDA


def test_a_step_follows_the_sign_of_the_logits_gradient() -> None:
    weights = torch.randn(256, 3, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 3))
    with torch.no_grad():
        model[1].weight.copy_(weights.T)
    images = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    classes = torch.tensor([0, 1, 2, 0, 1])
    moved = jacobian_step(model, images, classes, 0.1, targeted=False)
    expected = (images + 0.1 * weights.T[classes].sign().view_as(images)).clamp(0, 1)
    torch.testing.assert_close(moved, expected)
    assert model[1].weight.grad is None
    gain = [
        predict(model, x, runtime=Runtime(device="cpu")).log_softmax(1).gather(1, classes[:, None])
        for x in (images, jacobian_step(model, images, classes, 0.02, targeted=True))
    ]
    assert bool((gain[1] > gain[0]).all())


@pytest.mark.parametrize("target", ["own", "random"])
def test_jbda_steps_by_lambda_within_the_range_of_pixels(target: str, tiny_task: Task, cpu: Runtime) -> None:
    listener, box = listening(answers="label")
    attack = JBDA(model=MODEL, recipe=RECIPE, seeds=20, rounds=3, step=0.15, target=target)  # type: ignore[arg-type]
    attack(box, tiny_task.adversary, seed=0, runtime=cpu)
    assert calls(box) == [20, 20, 40, 80]
    assert box.queries_used == attack.queries == 160
    points = torch.cat(listener.asked)
    assert len(set(rows([points]))) == 160
    assert set(rows(listener.asked[:1])) <= set(rows([tiny_task.adversary.floats()]))
    for known in (20, 40, 80):
        parents, children = points[:known], points[known : 2 * known]
        clipped = (children == 0) | (children == 1)
        moves = (children - parents).abs()
        assert 0 < float(clipped.double().mean()) < 0.9
        # A pixel that no gradient reaches, at the border of an odd pooling, stays.
        free = moves[~clipped]
        assert bool(((free - 0.15).abs() < 1e-6).logical_or(free == 0).all())
        assert float((free > 0).double().mean()) > 0.5
        assert float(moves.max()) < 0.15 + 1e-6
        assert float(children.min()) >= 0
        assert float(children.max()) <= 1


def flat(spec: ModelSpec) -> nn.Module:
    """A net that nothing can be learned with: its gradient to the image is zero."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(spec.input_shape), spec.classes))
    nn.init.zeros_(net[1].weight)
    return net


def test_jbda_never_asks_twice_even_where_no_gradient_leads_on(tiny_task: Task, cpu: Runtime) -> None:
    listener, box = listening()
    JBDA(model=flat, recipe=UNTRAINED, seeds=10, rounds=3)(box, tiny_task.adversary, seed=0, runtime=cpu)
    asked = rows(listener.asked)
    assert len(asked) == len(set(asked)) == 80


def test_the_reduced_form_of_jbda_adds_no_more_than_its_reservoir(tiny_task: Task, cpu: Runtime) -> None:
    attack = JBDA(model=MODEL, recipe=UNTRAINED, seeds=10, rounds=5, doubling=2, reservoir=25)
    _, box = listening()
    attack(box, tiny_task.adversary, seed=0, runtime=cpu)
    assert calls(box) == [10, 10, 20, 25, 25, 25]
    assert box.queries_used == attack.queries == 115


def test_the_periodic_step_changes_its_sign_and_never_leads_back(cpu: Runtime) -> None:
    """The copy is never trained and no pixel clipped, so that a step repeated or undone would be a known point."""

    def fixed(spec: ModelSpec) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(spec.input_shape), spec.classes))

    greys = torch.randint(80, 175, (10, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    data = Split(inputs=greys, labels=torch.zeros(10, dtype=torch.long))
    turned = {}
    for period in (None, 1):
        listener = Listener(lambda inputs: torch.eye(6)[0].expand(len(inputs), 6))
        attack = JBDA(model=fixed, recipe=UNTRAINED, seeds=10, rounds=2, period=period)
        attack(BlackBox(listener, classes=6), data, seed=0, runtime=cpu)
        seeds, once, again, twice = torch.cat(listener.asked).split(10)
        first = (once - seeds).sign()
        assert bool(first.all())
        turned[period] = [float((move.sign() != first).double().mean()) for move in (again - seeds, twice - once)]
    assert turned[None] == [pytest.approx(0.5, abs=0.1), 0.0]
    assert turned[1] == [1.0, pytest.approx(0.5, abs=0.1)]


# ---------------------------------------------------------------- ActiveThief


@settings(deadline=None)
@given(
    queries=st.integers(10, 5000),
    rounds=st.integers(1, 12),
    initial=st.floats(0.01, 0.5),
    validation=st.floats(0, 0.5),
)
def test_the_shares_of_active_thief_make_up_its_queries(
    queries: int, rounds: int, initial: float, validation: float
) -> None:
    held, first, rest = ActiveThief(rounds=rounds, initial=initial, validation=validation).shares(queries)
    assert held + first + sum(rest) == queries
    assert first >= 1
    assert len(rest) == rounds
    assert max(rest) - min(rest) <= 1
    assert held == round(validation * queries)


def test_selection_against_slow_references() -> None:
    generator = torch.Generator().manual_seed(0)
    answers = torch.randn(40, 5, generator=generator).softmax(1)
    entropies = [-sum(p * math.log(p) for p in row) for row in answers.tolist()]
    assert most_uncertain(answers, 7).tolist() == sorted(range(40), key=lambda k: -entropies[k])[:7]
    centres, chosen = list(answers[30:]), list[int]()
    for _ in range(6):
        distances = [min(float((row - centre).norm()) for centre in centres) for row in answers[:30]]
        chosen.append(max(range(30), key=distances.__getitem__))
        centres.append(answers[chosen[-1]])
    assert farthest(answers[:30], answers[30:], 6).tolist() == chosen
    same = torch.ones(5, 2)
    assert sorted(farthest(same, same, 5).tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("strategy", ["uncertainty", "k-center", "random"])
def test_active_thief_asks_about_no_image_twice(strategy: str, tiny_task: Task, cpu: Runtime) -> None:
    listener, box = listening()
    recipe = dataclasses.replace(RECIPE, epochs=1)
    attack = ActiveThief(model=MODEL, recipe=recipe, queries=288, rounds=3, strategy=strategy)  # type: ignore[arg-type]
    attack(box, tiny_task.adversary, seed=0, runtime=cpu)
    assert calls(box) == [58 + 29, 67, 67, 67]
    assert box.queries_used == 288
    assert sorted(rows(listener.asked)) == sorted(rows([tiny_task.adversary.floats()]))


def test_active_thief_ends_a_training_that_no_longer_helps(tiny_task: Task) -> None:
    """The victim answers at random, so that nothing helps for long; the epochs are counted by their progress."""
    seen: dict[str, int] = {}
    runtime = Runtime(
        device="cpu", precision="float32", progress=lambda words, done, total: seen.update({words: done / total})
    )
    noise = torch.Generator().manual_seed(0)
    box = BlackBox(lambda inputs: torch.rand(len(inputs), 6, generator=noise).softmax(1), classes=6)
    attack = ActiveThief(model=MODEL, recipe=dataclasses.replace(RECIPE, epochs=60), queries=120, rounds=1, patience=2)
    attack(box, tiny_task.adversary, seed=0, runtime=runtime)
    assert set(seen) == {"stealing, round 0/1", "stealing, round 1/1"}
    assert max(seen.values()) < 0.5


# ---------------------------------------------------------------- DFME


def test_forward_differences_estimate_the_gradient_through_a_black_box() -> None:
    """Against autograd through the same victim, over so many directions that the estimate is nearly exact."""
    truth, student = linear(4, 12, seed=0), linear(4, 12, seed=1)
    box = BlackBox(truth, classes=4)
    points = torch.rand(3, 1, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def centred(probabilities: Tensor) -> Tensor:
        return probabilities.log() - probabilities.log().mean(1, keepdim=True)

    leaf = points.float().requires_grad_()
    gap = (centred(student(leaf)) - centred(truth(leaf))).abs().mean(1)
    (exact,) = torch.autograd.grad(gap.sum(), leaf)

    def objective(images: Tensor) -> Tensor:
        images = images.float()
        return (centred(student(images)) - recovered_logits(box.query(images))).abs().mean(1).double()

    directions = torch.randn(4000, *points.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    directions /= directions.flatten(2).norm(dim=2)[..., None, None, None]
    estimate = forward_difference(objective, points * 0.98 + 0.01, directions, 5e-3)
    assert calls(box) == [4001 * 3]
    for one, other in zip(estimate.flatten(1), exact.double().flatten(1), strict=True):
        assert float(F.cosine_similarity(one, other, dim=0)) > 0.98
        assert float(one.norm() / other.norm()) == pytest.approx(1, abs=0.1)


def test_no_hidden_class_is_recovered_above_one_that_is_shown() -> None:
    box = BlackBox(
        lambda inputs: torch.tensor([[25.0, 4, 3, 2, 1, 0, -1, -2]]).softmax(1),
        classes=8,
        api=Api(answers="top-k", k=4),
    )
    (found,) = recovered_logits(box.query(torch.zeros(1, 1, 2, 2)))
    assert found.argsort(descending=True)[:4].tolist() == [0, 1, 2, 3]
    assert float(found[4:].max()) <= float(found[3])


def test_a_copy_that_diverges_while_it_asks_is_told_of(tiny_task: Task, cpu: Runtime) -> None:
    online = Recipe(epochs=1, batch_size=16, learning_rate=1e30, schedule="constant")
    _, box = listening()
    with pytest.raises(BadData, match=r"the copy's loss became .*: lower online\.learning_rate, or"):
        KnockoffAdaptive(model=MODEL, online=online, queries=48, batch=16)(
            box, tiny_task.adversary, seed=0, runtime=cpu
        )


@pytest.mark.parametrize("attack", [DFME, MAZE])
def test_a_copy_that_diverges_is_not_blamed_on_the_images(attack: Any, tiny_task: Task, cpu: Runtime) -> None:
    _, box = listening()
    settings = {"model": MODEL, "queries": 400, "batch_size": 8, "width": 4, "latent": 8, "student_steps": 1}
    found = "the generator's gradient" if attack is DFME else "the copy's loss"  # whichever comes first
    with pytest.raises(BadData, match=f"{found} became .*: lower learning_rate, or"):
        attack(**settings, learning_rate=1e30)(box, tiny_task.adversary, seed=0, runtime=cpu)


@pytest.mark.parametrize("attack", [DFME, MAZE])
@pytest.mark.parametrize("answers", ["probabilities", "label"])
def test_a_generator_that_diverges_is_not_taken_for_the_copy(
    attack: Any, answers: str, tiny_task: Task, cpu: Runtime
) -> None:
    _, box = listening(answers=answers)
    settings = {"model": MODEL, "queries": 400, "batch_size": 8, "width": 4, "latent": 8, "generator_steps": 2}
    with pytest.raises(BadData, match="images that are no longer finite: lower generator_rate"):
        attack(**settings, generator_rate=1e38)(box, tiny_task.adversary, seed=0, runtime=cpu)


def test_labels_cost_less_than_differences(tiny_task: Task, cpu: Runtime) -> None:
    attack = MAZE(model=MODEL, queries=60, batch_size=8, width=4, latent=8)
    assert attack.cost(labels=True) <= 60 < attack.cost(labels=False)
    _, box = listening(answers="label")
    attack(box, tiny_task.adversary, seed=0, runtime=cpu)
    assert box.queries_used == attack.cost(labels=True)
    _, box = listening()
    with pytest.raises(BadConfig, match="must pay for an iteration, which costs 120, not 60"):
        attack(box, tiny_task.adversary, seed=0, runtime=cpu)
    assert box.queries_used == 0


def test_logits_are_recovered_up_to_their_mean() -> None:
    logits = 5 * torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    full = Answers(kind="probabilities", probabilities=logits.softmax(1), labels=logits.argmax(1))
    torch.testing.assert_close(recovered_logits(full), logits - logits.mean(1, keepdim=True), atol=1e-4, rtol=1e-4)
    top = Answers(kind="top-k", probabilities=torch.tensor([[0.6, 0.0, 0.3, 0.0]]), labels=torch.tensor([0]))
    expected = torch.tensor([[0.6, 0.05, 0.3, 0.05]]).log()
    torch.testing.assert_close(recovered_logits(top), expected - expected.mean())
    sure = Answers(kind="probabilities", probabilities=torch.tensor([[1.0, 0.0]]), labels=torch.tensor([0]))
    assert bool(recovered_logits(sure).isfinite().all())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 16, 16), (3, 17, 30), (4, 5, 64)])
def test_the_generator_makes_images_of_any_shape(shape: tuple[int, int, int]) -> None:
    raw = Generator(shape, latent=8, width=4)(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)))
    assert raw.shape == (3, *shape)
    images = pixels(50 * raw.detach())
    assert float(images.min()) == 0
    assert float(images.max()) == 1


@pytest.mark.parametrize(
    ("answers", "steps", "cost"), [("probabilities", [40, 40, 30], 110), ("label", [10, 10, 30], 50)]
)
def test_dfme_asks_in_one_call_what_can_be_asked_together(
    answers: str, steps: list[int], cost: int, tiny_task: Task, cpu: Runtime
) -> None:
    attack = DFME(
        model=MODEL, queries=250, batch_size=10, latent=4, width=2, generator_steps=2, student_steps=3, directions=3
    )
    assert attack.cost(labels=answers == "label") == cost == sum(steps)
    _, box = listening(answers=answers)
    attack(box, tiny_task.adversary, seed=0, runtime=cpu)
    assert calls(box) == steps * (250 // cost)
    assert box.queries_used == 250 // cost * cost


def test_the_papers_bill() -> None:
    assert DFME().cost(labels=False) == 256 * 7
    assert 20_000_000 // DFME().cost(labels=False) == 11_160
    assert MAZE().cost(labels=False) == 128 * (11 + 4)
    assert 5_000_000 // MAZE().cost(labels=False) == 2604


@pytest.mark.parametrize(
    ("answers", "attack"),
    [
        ("probabilities", DFME(student_steps=1, generator_rate=0.01, directions=4, diversity=0.0, drops=())),
        ("label", DFME(student_steps=1, generator_rate=0.01, directions=4, diversity=0.0, drops=())),
        ("probabilities", MAZE(student_steps=2, generator_rate=0.05, directions=4, weight_decay=0.0, replay_steps=0)),
    ],
    ids=["dfme", "dfme-label", "maze"],
)
def test_the_generator_seeks_what_copy_and_victim_disagree_on(
    answers: str, attack: Any, tiny_task: Task, cpu: Runtime
) -> None:
    """The copy hardly learns here, so that what it is shown must become ever worse for it."""
    listener, box = listening(answers=answers)
    attack = dataclasses.replace(
        attack, model="naivenet:width=4,hidden=16", queries=32 * 30 * 6, batch_size=32, latent=16, width=8,
        learning_rate=1e-12,
    )  # fmt: skip
    stolen = attack(box, tiny_task.adversary, seed=0, runtime=cpu)
    start = build("naivenet", input_shape=(1, 16, 16), classes=6, seed=derive_seed(0, "copy"), width=4, hidden=16)
    for name, value in start.state_dict().items():
        torch.testing.assert_close(stolen.model.state_dict()[name], value, atol=1e-6, rtol=1e-6)

    def gap(images: Tensor) -> float:
        logits, truth = predict(start, images, runtime=cpu), linear()(images)
        if answers == "label":
            return float(F.cross_entropy(logits, truth.argmax(1)))
        if isinstance(attack, MAZE):
            return float(divergence(logits, truth).mean())
        return float((logits - (truth.log() - truth.log().mean(1, keepdim=True))).abs().mean())

    shown = listener.asked[1::2]
    assert gap(torch.cat(shown[-5:])) > 1.2 * gap(torch.cat(shown[:5]))


@pytest.mark.slow
@pytest.mark.parametrize("answers", ["probabilities", "label"])
def test_dfme_steals_without_data(answers: str, victim: nn.Module, tiny_task: Task, cpu: Runtime) -> None:
    nothing = Split(inputs=torch.zeros(1, 1, 16, 16, dtype=torch.uint8), labels=torch.zeros(1, dtype=torch.long))
    box = BlackBox(victim, classes=6, api=Api(answers=answers), runtime=cpu)  # type: ignore[arg-type]
    # Half as many queries are enough for most seeds only, and which ones depends on the CPU's rounding.
    attack = DFME(
        model=MODEL, queries=200 * 7 * 24, batch_size=24, latent=16, width=4, learning_rate=0.1, generator_rate=3e-3
    )
    copy = attack(box, nothing, seed=1, runtime=cpu).model
    assert agreement(copy, victim, tiny_task.test.inputs, cpu) > 0.8


@pytest.mark.parametrize("attack", [DFME(), MAZE()], ids=["dfme", "maze"])
def test_generators_make_images_only(attack: DFME | MAZE, cpu: Runtime) -> None:
    _, box = listening()
    rows_of_numbers = Split(inputs=torch.rand(4, 9), labels=torch.zeros(4, dtype=torch.long))
    with pytest.raises(BadConfig, match=r"needs images.*shape \(9,\).*use another one"):
        attack(box, rows_of_numbers, seed=0, runtime=cpu)


# ---------------------------------------------------------------- MAZE


def test_divergence_is_torchs() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    truth = torch.tensor([[0.7, 0.1, 0.1, 0.1], [1, 0, 0, 0], [0.5, 0, 0.5, 0], [0.25] * 4, [0.1, 0.2, 0.3, 0.4]])
    expected = F.kl_div(logits.log_softmax(1), truth, reduction="none").sum(1)
    torch.testing.assert_close(divergence(logits, truth), expected)
    torch.testing.assert_close(divergence(truth.clamp_min(1e-30).log(), truth), torch.zeros(5), atol=1e-6, rtol=0)


def test_a_full_memory_forgets_the_oldest() -> None:
    memory, rows_seen = ReplayMemory(5), torch.arange(8.0)
    for part in rows_seen.split(2):  # type: ignore[no-untyped-call]
        memory.add(part[:, None], -part[:, None])
    assert len(memory) == 5
    images, targets = memory.recall(torch.arange(5), torch.device("cpu"))
    assert set(images.flatten().tolist()) == {3, 4, 5, 6, 7}
    assert torch.equal(images, -targets)


@pytest.mark.parametrize(
    ("answers", "steps", "cost"), [("probabilities", [40, 40, 20], 100), ("label", [10, 10, 20], 40)]
)
def test_maze_learns_the_generators_images_and_new_ones_and_repeats_them_for_nothing(
    answers: str, steps: list[int], cost: int, tiny_task: Task, cpu: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = MAZE(
        model=MODEL, queries=250, batch_size=10, latent=4, width=2, generator_steps=2, student_steps=3, replay_steps=4,
        directions=3,
    )  # fmt: skip
    assert attack.cost(labels=answers == "label") == cost == sum(steps)
    learned = list[Tensor]()

    def listen(model: nn.Module, optimizer: object, images: Tensor, *rest: object, **options: object) -> Tensor:
        learned.append(images.clone())
        return torch.zeros(())

    monkeypatch.setattr("heirmark.attacks.extraction.maze.train_step", listen)
    listener, box = listening(answers=answers)
    attack(box, tiny_task.adversary, seed=0, runtime=cpu)
    iterations = 250 // cost
    assert calls(box) == steps * iterations
    assert box.queries_used == iterations * cost
    remembered: list[bytes] = []
    for iteration in range(iterations):
        asked, taught = listener.asked[3 * iteration : 3 * iteration + 3], learned[7 * iteration : 7 * iteration + 7]
        assert torch.equal(taught[0], asked[1][:10])
        assert torch.equal(torch.cat(taught[1:3]), asked[2])
        remembered += rows([taught[2]])
        assert set(rows(taught[3:])) <= set(remembered)


@pytest.mark.parametrize("answers", ["probabilities", pytest.param("label", marks=pytest.mark.slow)])
def test_maze_steals_without_data(answers: str, victim: nn.Module, tiny_task: Task, cpu: Runtime) -> None:
    nothing = Split(inputs=torch.zeros(1, 1, 16, 16, dtype=torch.uint8), labels=torch.zeros(1, dtype=torch.long))
    box = BlackBox(victim, classes=6, api=Api(answers=answers), runtime=cpu)  # type: ignore[arg-type]
    # Half as many leave some seeds short, as for DFME.
    attack = MAZE(
        model=MODEL, queries=40 * 15 * 24, batch_size=24, latent=16, width=4, generator_rate=0.01, replay_steps=5
    )
    copy = attack(box, nothing, seed=1, runtime=cpu).model
    assert agreement(copy, victim, tiny_task.test.inputs, cpu) > 0.8


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Distillation(temperature=0), "Distillation.temperature: expected float from 0.05 to 1000, not 0"),
        (
            lambda: Distillation(temperature=1e200),
            r"Distillation.temperature: expected float from 0.05 to 1000, not 1e\+200",
        ),
        (lambda: KnockoffAdaptive(rate=math.inf), r"KnockoffAdaptive.rate: expected none\|float > 0, not inf"),
        (lambda: Distillation(label_weight=1.0), "Distillation.label_weight: expected float >= 0 and < 1, not 1.0"),
        (lambda: Distillation(queries=0), r"Distillation.queries: expected none\|int >= 1, not 0"),
        (lambda: KnockoffAdaptive(queries=0), r"KnockoffAdaptive.queries: expected none\|int >= 1, not 0"),
        (
            lambda: KnockoffAdaptive(reward="luck"),
            r"KnockoffAdaptive.reward: expected certainty\|diversity\|loss\|all, not 'luck'",
        ),  # type: ignore[arg-type]
        (lambda: KnockoffAdaptive(groups="truth"), r"KnockoffAdaptive.groups: expected labels\|clusters, not 'truth'"),  # type: ignore[arg-type]
        (lambda: KnockoffAdaptive(window=1), "KnockoffAdaptive.window: expected int >= 2, not 1"),
        (lambda: KnockoffAdaptive(rate=0.0), r"KnockoffAdaptive.rate: expected none\|float > 0, not 0.0"),
        (lambda: JBDA(seeds=0), "JBDA.seeds: expected int >= 1, not 0"),
        (lambda: JBDA(step=0.0), "JBDA.step: expected float > 0 and <= 1, not 0.0"),
        (lambda: JBDA(period=0), r"JBDA.period: expected none\|int >= 1, not 0"),
        (lambda: JBDA(reservoir=0), r"JBDA.reservoir: expected none\|int >= 1, not 0"),
        (lambda: JBDA(target="other"), r"JBDA.target: expected own\|random, not 'other'"),  # type: ignore[arg-type]
        (lambda: JBDA(rounds=40), "set reservoir, or lower rounds"),
        (lambda: ActiveThief(queries=0), r"ActiveThief.queries: expected none\|int >= 1, not 0"),
        (
            lambda: ActiveThief(strategy="guess"),
            r"ActiveThief.strategy: expected uncertainty\|k-center\|random, not 'guess'",
        ),  # type: ignore[arg-type]
        (lambda: ActiveThief(rounds=0), "ActiveThief.rounds: expected int >= 1, not 0"),
        (lambda: ActiveThief(initial=0.0), "ActiveThief.initial: expected float > 0 and <= 1, not 0.0"),
        (lambda: ActiveThief(initial=0.6, validation=0.5), "shares of the queries"),
        (lambda: DFME(batch_size=1), "DFME.batch_size: expected int >= 2, not 1"),
        (lambda: DFME(epsilon=0.0), "DFME.epsilon: expected float > 0, not 0.0"),
        (lambda: DFME(momentum=1.0), "DFME.momentum: expected float >= 0 and < 1, not 1.0"),
        (lambda: DFME(drops=(2.0,)), r"DFME.drops\[0\]: expected float from 0 to 1, not 2.0"),
        (lambda: DFME(queries=100), "raise queries or lower batch_size"),
        (lambda: MAZE(batch_size=1), "MAZE.batch_size: expected int >= 2, not 1"),
        (lambda: MAZE(replay_steps=-1), "MAZE.replay_steps: expected int >= 0, not -1"),
        (lambda: MAZE(epsilon=math.nan), "MAZE.epsilon: expected float > 0, not nan"),
        (lambda: MAZE(momentum=1.0), "MAZE.momentum: expected float >= 0 and < 1, not 1.0"),
        (lambda: MAZE(memory=100), "raise it, or say none"),
        (lambda: MAZE(queries=100), "raise queries or lower batch_size"),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        make()


def test_more_queries_than_images_are_refused(tiny_task: Task, cpu: Runtime) -> None:
    for attack in (
        Distillation(model=MODEL, queries=289),
        KnockoffAdaptive(model=MODEL, queries=289),
        ActiveThief(model=MODEL, queries=289),
        JBDA(model=MODEL, seeds=289, rounds=0),
    ):
        _, box = listening()
        with pytest.raises(BadConfig, match=r"289 .* the adversary has 288 images: lower"):
            attack(box, tiny_task.adversary, seed=0, runtime=cpu)
        assert box.queries_used == 0
