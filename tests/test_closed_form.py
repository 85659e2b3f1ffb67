"""Thieves in closed form, against plain linear algebra and against a student who is really trained to the end."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from heirmark.errors import BadData, ShapeMismatch
from heirmark.rehearsal.closed_form import Audience, ClosedFormThief, Closing, sharpness_for, weights
from heirmark.rehearsal.closed_form_step import closed_form_step
from heirmark.training.samples import Samples


def plain_units(features: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets in the first one's units, in double precision."""
    mean, spread = features.double().mean(0), features.double().std(0) + 1e-3

    def made(rows: Tensor) -> Tensor:
        scaled = (rows.double() - mean) / spread / features.shape[1] ** 0.5
        return torch.cat([scaled, torch.ones(len(rows), 1)], 1)

    return made(features), made(others)


def plain_functional(features: Tensor, triggers: Tensor, ridge: float) -> Tensor:
    """The M × N matrix that heirmark never makes: what each query's answer counts for each trigger."""
    phi, shown = plain_units(features, triggers)
    gram = phi.T @ phi
    damped = gram + ridge * gram.diagonal().mean() * torch.eye(len(gram))
    return shown @ torch.linalg.solve(damped, phi.T)


def drawn(seed: int, queries: int = 40, triggers: int = 6, size: int = 5, classes: int = 3) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    features = 3 * torch.randn(queries, size, generator=generator) + 10
    shown = 3 * torch.randn(triggers, size, generator=generator) + 10
    logits = torch.randn(queries, classes, generator=generator)
    targets = torch.randint(classes, (triggers,), generator=generator)
    return features, shown, logits, targets


@given(seed=st.integers(0, 10**6), ridge=st.sampled_from([1e-4, 1e-2, 1.0]))
@settings(max_examples=25, deadline=None)
def test_it_answers_as_ridge_regression_does(seed: int, ridge: float) -> None:
    features, shown, logits, _ = drawn(seed)
    wanted = plain_functional(features, shown, ridge) @ logits.softmax(1).double()
    thief = ClosedFormThief(features.clone(), shown, classes=3, ridge=ridge)
    thief.start(logits.softmax(1))
    torch.testing.assert_close(thief.answer().double(), wanted, rtol=1e-4, atol=1e-4)


def test_it_is_the_student_who_has_finished() -> None:
    """Gradient descent on a last layer with weight decay comes to the same answers."""
    features, shown, logits, _ = drawn(3)
    answers, ridge = logits.softmax(1).double(), 0.05
    phi, seen = plain_units(features, shown)
    decay = ridge * (phi.T @ phi).diagonal().mean()
    weights = torch.zeros(phi.shape[1], 3, dtype=torch.float64, requires_grad=True)
    student = torch.optim.LBFGS([weights], max_iter=500, tolerance_grad=1e-10, tolerance_change=1e-14)

    def loss() -> Tensor:
        student.zero_grad()
        value = (phi @ weights - answers).square().sum() + decay * weights.square().sum()
        value.backward()
        return value

    student.step(loss)
    thief = ClosedFormThief(features.clone(), shown, classes=3, ridge=ridge)
    thief.start(logits.softmax(1))
    torch.testing.assert_close(thief.answer().double(), (seen @ weights).detach(), rtol=1e-4, atol=1e-4)


def test_its_gradient_is_exact() -> None:
    """The slope is that of the whole trigger loss for the batch's logits, by autograd through the M × N matrix."""
    features, shown, logits, targets = drawn(5)
    other_features, other_shown, _, _ = drawn(6, size=7)
    chosen, rows = torch.tensor([1, 5, 30]), torch.tensor([0, 2, 3, 5])
    nets = ((features, shown), (other_features, other_shown))
    thieves = [ClosedFormThief(a.clone(), b, classes=3, ridge=0.01) for a, b in nets]
    audience = Audience(thieves, targets, logits.softmax(1), Closing())
    now = torch.randn(3, 3, generator=torch.Generator().manual_seed(7))
    pull = audience.pull(now, chosen, rows)

    leaf = now.double().requires_grad_()
    answers = logits.double().softmax(1).index_copy(0, chosen, leaf.softmax(1))
    kappa = sharpness_for(3, 8.0)
    losses = [F.cross_entropy(kappa * (plain_functional(a, b, 0.01) @ answers)[rows], targets[rows]) for a, b in nets]
    loss = torch.stack(losses).mean()
    (slope,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(pull.loss.double(), loss.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pull.slope.double(), slope, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("asks", ["the utility's images", "others"])
def test_a_step_gives_the_gradients_of_both_losses(asks: str) -> None:
    features, shown, logits, targets = drawn(8)
    generator = torch.Generator().manual_seed(2)
    teacher = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    images, labels = torch.randn(5, 4, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    asked = None if asks == "the utility's images" else torch.randn(5, 4, generator=generator, dtype=torch.float64)
    chosen, rows = torch.tensor([3, 9, 12, 20, 33]), torch.tensor([0, 1, 4])
    thief = ClosedFormThief(features.clone(), shown, classes=3, ridge=0.01)
    audience = Audience([thief], targets, logits.softmax(1), Closing())
    step = closed_form_step(
        teacher, audience, utility=Samples(inputs=images, targets=labels), chosen=chosen, rows=rows, asked=asked,
        weights=[(1.0, 0.0), (0.0, 1.0), (2.0, 3.0)],
    )  # fmt: skip

    answers = logits.double().softmax(1).index_copy(0, chosen, teacher(images if asked is None else asked).softmax(1))
    said = sharpness_for(3, 8.0) * (plain_functional(features, shown, 0.01) @ answers)[rows]
    names, parameters = zip(*teacher.named_parameters(), strict=True)
    wanted = [
        dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))
        for loss in (F.cross_entropy(said, targets[rows]), F.cross_entropy(teacher(images), labels))
    ]
    for name in names:
        found = [gradients[name] for gradients in step.gradients]
        torch.testing.assert_close(found[0], wanted[0][name], rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(found[1], wanted[1][name])
        torch.testing.assert_close(found[2], 2 * found[0] + 3 * found[1])
    torch.testing.assert_close(audience.answers[chosen].double(), answers[chosen].detach(), rtol=1e-5, atol=1e-6)


def test_weights_are_the_plain_functional() -> None:
    features, shown, logits, _ = drawn(5)
    thief, rows = ClosedFormThief(features.clone(), shown, classes=3, ridge=0.01), torch.tensor([4, 1])
    found = weights(thief, rows)
    torch.testing.assert_close(found.double(), plain_functional(features, shown, 0.01)[rows], rtol=1e-3, atol=1e-5)
    thief.start(logits.softmax(1))
    torch.testing.assert_close(found @ logits.softmax(1), thief.answer(rows), rtol=1e-4, atol=1e-5)


def test_running_sums_follow_the_answers() -> None:
    features, shown, logits, targets = drawn(9)
    thief = ClosedFormThief(features.clone(), shown, classes=3, ridge=0.01)
    audience = Audience([thief], targets, logits.softmax(1), Closing())
    generator = torch.Generator().manual_seed(1)
    for _ in range(300):
        chosen = torch.randperm(len(features), generator=generator)[:8]
        audience.hear(torch.randn(8, 3, generator=generator), chosen)
    kept = thief.moments.clone()
    audience.refresh()
    torch.testing.assert_close(kept, thief.moments, rtol=1e-4, atol=1e-4)
    wanted = plain_functional(features, shown, 0.01) @ audience.answers.double()
    torch.testing.assert_close(thief.answer().double(), wanted, rtol=1e-4, atol=1e-4)


def test_descending_the_slope_brings_the_mark_over() -> None:
    """A target whose logits are free ends with thieves that answer triggers as the mark wants."""
    features, shown, logits, targets = drawn(11, queries=60, size=20)
    thief = ClosedFormThief(features, shown, classes=3, ridge=0.01)
    free = logits.clone()
    audience = Audience([thief], targets, free.softmax(1), Closing())
    everything, rows = torch.arange(len(free)), torch.arange(len(targets))
    before = audience.losses()[0]
    for _ in range(200):
        free -= 20 * audience.pull(free, everything, rows).slope
        audience.hear(free, everything)
    assert audience.losses()[0] < 0.3 * before
    assert next(audience.hits()) == 1.0


def test_a_feature_that_hardly_varies_does_no_harm() -> None:
    features, shown, logits, targets = drawn(13)
    features[:, 0] = 1e4
    shown[:, 0] = 1e4
    thief = ClosedFormThief(features, shown, classes=3, ridge=0.01)
    audience = Audience([thief], targets, logits.softmax(1), Closing())
    assert torch.isfinite(thief.answer()).all()
    assert torch.isfinite(torch.tensor(audience.losses())).all()


def test_what_does_not_fit_is_refused() -> None:
    features, shown, logits, targets = drawn(0)
    with pytest.raises(ShapeMismatch, match="from one net"):
        ClosedFormThief(features, shown[:, :3], classes=3, ridge=0.01)
    with pytest.raises(BadData, match="not finite"):
        ClosedFormThief(features.clone().fill_(float("nan")), shown, classes=3, ridge=0.01)
    thief = ClosedFormThief(features, shown, classes=3, ridge=0.01)
    with pytest.raises(ShapeMismatch, match="one for each"):
        Audience([thief], targets, logits[:-1].softmax(1), Closing())
    with pytest.raises(ShapeMismatch, match="at least"):
        Audience([], targets, logits.softmax(1), Closing())


def test_it_needs_no_matrix_of_queries_by_queries() -> None:
    """A hundred thousand queries of 33 features fit where N × N or M × N numbers would not."""
    queries, triggers = 100_000, 2_000
    generator = torch.Generator().manual_seed(0)
    features = nn.functional.relu(torch.randn(queries, 33, generator=generator))
    thief = ClosedFormThief(features, torch.rand(triggers, 33, generator=generator), classes=2, ridge=0.01)
    held = sum(tensor.numel() for tensor in (thief.features, thief.readout, thief.moments))
    assert held == 34 * (queries + triggers + 2)
