"""The rehearsal step against double backward in float64, finite differences of everything, and its own promises."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from heirmark.errors import BadConfig, ShapeMismatch
from heirmark.rehearsal import (
    DistillationLoss,
    Memory,
    PassMode,
    RehearsalStep,
    Thief,
    assign,
    choose_derivative,
    combine_balanced,
    cosine,
    norm,
    rehearsal_step,
    simulate_theft,
    student_module,
    student_state,
    transfer_loss,
)
from heirmark.rehearsal.derivative import load_forward_rules
from heirmark.rehearsal.rules import FastRules
from heirmark.runtime import Runtime
from heirmark.training.samples import Samples

CLASSES, ALPHA = 4, 0.1
KINDS = ("kl", "reverse-kl", "cross-entropy", "label", "mse")
Batch = tuple[Tensor, Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---------------------------------------------------------------- small nets: every layer kind that matters


class Residual(nn.Module):
    def __init__(self, norm: Callable[[int], nn.Module], act: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), norm(6), act, nn.Conv2d(6, 6, 3, padding=1), norm(6))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class SelfAttention(nn.Module):
    def __init__(self, *, packed: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.packed, self.dropout = packed, dropout
        self.mix = nn.MultiheadAttention(8, 2, batch_first=True, dropout=dropout) if packed else nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        if self.packed:
            return x + self.mix(x, x, x, need_weights=False)[0]
        q, k, v = self.mix(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        rate = self.dropout if self.training else 0.0
        return x + F.scaled_dot_product_attention(q, k, v, dropout_p=rate).transpose(1, 2).flatten(2)


class Tokens(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


class MeanToken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def conv_net(norm: Callable[[int], nn.Module], act: nn.Module, pool: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), norm(6), act, pool, Residual(norm, act), act,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES),
    )  # fmt: skip


def attention_net(*, packed: bool, dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 4, 4), Tokens(), nn.LayerNorm(8), SelfAttention(packed=packed, dropout=dropout),
        nn.Linear(8, 8), nn.GELU(), nn.Dropout(dropout), MeanToken(), nn.LayerNorm(8), nn.Linear(8, CLASSES),
    )  # fmt: skip


def no_norm(width: int) -> nn.Module:
    return nn.Identity()


NETS: dict[str, Callable[[], nn.Module]] = {
    "conv-bn-relu-maxpool": lambda: conv_net(nn.BatchNorm2d, nn.ReLU(), nn.MaxPool2d(2)),
    "conv-bn-gelu-avgpool": lambda: conv_net(nn.BatchNorm2d, nn.GELU(), nn.AvgPool2d(2)),
    "conv-groupnorm-inplace": lambda: conv_net(
        lambda w: nn.GroupNorm(2, w), nn.LeakyReLU(inplace=True), nn.MaxPool2d(2)
    ),
    "conv-plain-tanh": lambda: conv_net(no_norm, nn.Tanh(), nn.AvgPool2d(2)),
    "mlp-layernorm": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(128, 10), nn.LayerNorm(10), nn.SiLU(), nn.Linear(10, CLASSES)
    ),
    "mlp-bn1d-no-affine": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(128, 10), nn.BatchNorm1d(10, affine=False), nn.ReLU(), nn.Linear(10, CLASSES)
    ),
    "multihead-attention": lambda: attention_net(packed=True),
    "sdp-attention": lambda: attention_net(packed=False),
}
SMOOTH = "conv-bn-gelu-avgpool"


def net(name: str, seed: int, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A net whose running statistics and batches look like those of a net in training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = NETS[name]().to(dtype)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.1)
                part.running_var.uniform_(0.5, 1.5)
                if part.affine:
                    nn.init.uniform_(part.weight, 0.5, 1.5)
                    nn.init.normal_(part.bias)
    return module


def make_batch(dtype: torch.dtype = torch.float64, n: int = 6, m: int = 3) -> Batch:
    g = torch.Generator().manual_seed(9)
    images = torch.rand(n + m, 2, 8, 8, generator=g, dtype=torch.float64).to(dtype)
    labels = torch.randint(0, CLASSES, (n + m,), generator=g)
    return images[:n], labels[:n], images[n:], labels[n:]


# ---------------------------------------------------------------- the slow plain reference: reverse over reverse


def reference(
    teacher: nn.Module,
    student: nn.Module,
    batch: Batch,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = DistillationLoss(),  # noqa: B008
    teacher_training: bool = True,
    student_training: bool = True,
    trigger_mode: str = "eval",
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Hypergradient, utility gradient and the student's new parameters, by create_graph=True."""
    x, y, triggers, targets = batch
    teacher, student = copy.deepcopy(teacher).train(teacher_training), copy.deepcopy(student)
    theta = {name: p.detach().requires_grad_() for name, p in student.named_parameters()}
    buffers = {name: b.clone() for name, b in student.named_buffers()}
    with sdpa_kernel(SDPBackend.MATH):
        answers = teacher(x)
        student.train(student_training)
        theft = loss(answers, functional_call(student, (theta, buffers), (x,)))
        slopes = torch.autograd.grad(theft, list(theta.values()), create_graph=True, materialize_grads=True)
        after = {name: p - ALPHA * slope for (name, p), slope in zip(theta.items(), slopes, strict=True)}
        student.train(trigger_mode != "eval")
        buffers = {name: b.clone() for name, b in buffers.items()}  # the graph above still needs the old ones
        inputs = torch.cat([triggers, x]) if trigger_mode == "mixed" else triggers
        mark = F.cross_entropy(functional_call(student, (after, buffers), (inputs,))[: len(triggers)], targets)
    names, parameters = zip(*teacher.named_parameters(), strict=True)

    def backward(value: Tensor) -> dict[str, Tensor]:
        found = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)
        return dict(zip(names, found, strict=True))

    return backward(mark), backward(F.cross_entropy(answers, y)), {name: p.detach() for name, p in after.items()}


def distance(found: dict[str, Tensor], truth: dict[str, Tensor]) -> float:
    assert found.keys() == truth.keys()
    return float(norm(found[k].double() - truth[k].double() for k in truth) / norm(t.double() for t in truth.values()))


def thief_of(student: nn.Module, **options: Any) -> Thief:
    return Thief(skeleton=student, student=student_state(student), **{"rate": ALPHA, **options})


def step_of(
    teacher: nn.Module,
    student: nn.Module | Thief,
    batch: Batch,
    *,
    seed: int | None = 0,
    runtime: Runtime | None = None,
    training: bool = True,
    micro_batch: int = 0,
    one_graph: bool = False,
    thief: dict[str, Any] | None = None,
    **options: Any,
) -> RehearsalStep:
    x, y, triggers, targets = batch
    return rehearsal_step(
        teacher,
        student if isinstance(student, Thief) else thief_of(student, **(thief or {})),
        utility=Samples(inputs=x, targets=y),
        mark=Samples(inputs=triggers, targets=targets),
        mode=PassMode(training=training, seed=seed, runtime=runtime),
        memory=Memory(micro_batch=micro_batch, one_graph=one_graph),
        **options,
    )


@pytest.mark.parametrize("name", list(NETS))
def test_equals_double_backward_for_every_kind_of_layer(name: str) -> None:
    teacher, student, batch = net(name, 1), net(name, 2), make_batch()
    step = step_of(teacher, student, batch)
    hyper, utility, after = reference(teacher, student, batch)
    assert (step.derivative, step.note) == ("forward", "")
    assert distance(step.gradients[0], hyper) <= 1e-9
    assert distance(step.gradients[1], utility) <= 1e-9
    assert distance(dict(step.thief.student.parameters), after) <= 1e-9
    assert float(norm(hyper.values())) > 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_equals_double_backward_for_every_loss(kind: Any, temperature: float) -> None:
    teacher, student, batch = net("conv-bn-relu-maxpool", 1), net("mlp-layernorm", 2), make_batch()
    loss = DistillationLoss(kind=kind, temperature=temperature)
    hyper, _, _ = reference(teacher, student, batch, loss=loss)
    assert distance(step_of(teacher, student, batch, thief={"loss": loss}).gradients[0], hyper) <= 1e-9


def test_takes_any_differentiable_loss() -> None:
    def loss(teacher: Tensor, student: Tensor) -> Tensor:
        p, q = teacher.softmax(1), student.softmax(1)
        middle = ((p + q) / 2).log()
        return (p * (p.log() - middle) + q * (q.log() - middle)).sum(1).mean() / 2  # Jensen-Shannon

    teacher, student, batch = net(SMOOTH, 1), net(SMOOTH, 2), make_batch()
    hyper, _, _ = reference(teacher, student, batch, loss=loss)
    assert distance(step_of(teacher, student, batch, thief={"loss": loss}).gradients[0], hyper) <= 1e-9


def test_a_loss_that_ignores_the_teacher_has_no_hypergradient() -> None:
    step = step_of(
        net(SMOOTH, 1), net(SMOOTH, 2), make_batch(), thief={"loss": lambda teacher, student: student.square().mean()}
    )
    assert float(norm(step.gradients[0].values())) == 0.0
    assert float(cosine(*step.gradients)) == 0.0


@pytest.mark.parametrize("trigger_mode", ["eval", "train", "mixed"])
@pytest.mark.parametrize(("teacher_training", "student_training"), [(True, False), (False, True), (False, False)])
def test_equals_double_backward_in_every_mode(
    trigger_mode: Any, teacher_training: bool, student_training: bool
) -> None:
    name, batch = "conv-bn-relu-maxpool", make_batch()
    teacher, student = net(name, 1), net(name, 2)
    modes: dict[str, Any] = {
        "trigger_mode": trigger_mode,
        "teacher_training": teacher_training,
        "student_training": student_training,
    }
    hyper, _, _ = reference(teacher, student, batch, **modes)
    step = step_of(
        teacher,
        student,
        batch,
        training=teacher_training,
        thief={"trigger_mode": trigger_mode, "training": student_training},
    )
    assert distance(step.gradients[0], hyper) <= 1e-9


def test_equals_finite_differences_of_the_whole_step() -> None:
    batch = make_batch()
    teacher, student = net(SMOOTH, 1), net("sdp-attention", 2)
    step = step_of(teacher, student, batch)
    generator = torch.Generator().manual_seed(3)
    way = {k: torch.randn(p.shape, generator=generator, dtype=p.dtype) for k, p in teacher.named_parameters()}

    def marked(shift: float) -> float:
        moved = copy.deepcopy(teacher)
        with torch.no_grad():
            for name, p in moved.named_parameters():
                p.add_(way[name], alpha=shift)
        theft = simulate_theft(thief_of(student), moved(batch[0]).detach(), batch[0])
        return float(transfer_loss(theft.thief, Samples(inputs=batch[2], targets=batch[3])).loss)

    slope = (marked(1e-5) - marked(-1e-5)) / 2e-5
    assert slope == pytest.approx(float(sum((step.gradients[0][k] * way[k]).sum() for k in way)), rel=1e-5)
    assert float(step.watermark_loss) == pytest.approx(marked(0.0), rel=1e-12)


def test_float32_is_as_close_as_double_backward_is() -> None:
    teacher, student = net(SMOOTH, 1), net(SMOOTH, 2)
    truth, _, _ = reference(teacher, student, make_batch())
    step = step_of(teacher.float(), student.float(), make_batch(torch.float32))
    assert distance(step.gradients[0], truth) < 1e-4


# ---------------------------------------------------------------- weights, micro-batches, one graph


def test_weights_give_the_same_as_combining() -> None:
    teacher, student, batch = net(SMOOTH, 1), net("multihead-attention", 2), make_batch()
    apart = step_of(teacher, student, batch)
    hypergradient, utility_gradient = apart.gradients
    wanted = {name: g + 50.0 * utility_gradient[name] for name, g in hypergradient.items()}
    (together,) = step_of(teacher, student, batch, weights=[(1.0, 50.0)]).gradients
    assert distance(together, wanted) <= 1e-12
    hyper, again = step_of(teacher, student, batch, weights=[(1.0, 0.0), (1.0, 50.0)]).gradients
    assert distance(hyper, apart.gradients[0]) <= 1e-12
    assert distance(again, wanted) <= 1e-12


@pytest.mark.parametrize("one_graph", [False, True])
@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("weights", [((1.0, 0.0), (0.0, 1.0)), ((1.0, 2.0),)])
def test_micro_batches_change_nothing_without_batchnorm(one_graph: bool, size: int, weights: Any) -> None:
    teacher, student, batch = net("mlp-layernorm", 1), net("multihead-attention", 2), make_batch()
    whole = step_of(teacher, student, batch, weights=weights)
    parts = step_of(teacher, student, batch, weights=weights, micro_batch=size, one_graph=one_graph)
    assert len(parts.gradients) == len(weights)
    for one, other in zip(parts.gradients, whole.gradients, strict=True):
        assert distance(one, other) <= 1e-9
    assert distance(dict(parts.thief.student.parameters), dict(whole.thief.student.parameters)) <= 1e-9
    for name in ("distillation_loss", "watermark_loss", "utility_loss", "hit_rate"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


def test_micro_batches_in_mixed_mode_without_batchnorm() -> None:
    teacher, student, batch = net("mlp-layernorm", 1), net("mlp-layernorm", 2), make_batch()
    whole = step_of(teacher, student, batch, thief={"trigger_mode": "mixed"})
    parts = step_of(teacher, student, batch, thief={"trigger_mode": "mixed"}, micro_batch=2)
    assert distance(parts.gradients[0], whole.gradients[0]) <= 1e-9


@pytest.mark.parametrize("derivative", ["forward", "difference", "central"])
def test_one_graph_changes_nothing_with_batchnorm_and_dropout(derivative: Any) -> None:
    teacher, student = net("conv-bn-relu-maxpool", 1), attention_net(packed=True, dropout=0.3).double()
    teacher = nn.Sequential(nn.Dropout(0.2), teacher)
    two = step_of(teacher, student, make_batch(), thief={"derivative": derivative}, seed=5)
    one = step_of(teacher, student, make_batch(), thief={"derivative": derivative}, seed=5, one_graph=True)
    assert distance(one.gradients[0], two.gradients[0]) <= 1e-12
    for name, buffer in two.teacher_buffers.items():
        torch.testing.assert_close(one.teacher_buffers[name], buffer)


@pytest.mark.parametrize("one_graph", [False, True])
@pytest.mark.parametrize(("size", "passes"), [(0, 1), (3, 2)])
def test_the_teachers_statistics_learn_once(one_graph: bool, size: int | None, passes: int) -> None:
    teacher, batch = net("conv-bn-relu-maxpool", 1), make_batch()
    step = step_of(teacher, net(SMOOTH, 2), batch, one_graph=one_graph, micro_batch=size)
    plain = copy.deepcopy(teacher).train()
    for chunk in batch[0].split(size or 6):
        plain(chunk)
    assert int(step.teacher_buffers["1.num_batches_tracked"]) == passes
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(step.teacher_buffers[name], buffer)


def test_only_one_graph_is_alive() -> None:
    """Counts numbers that autograd keeps, through hooks on saved tensors; logits and labels are let through."""
    alive, peak = 0, 0

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            nonlocal alive, peak
            self.tensor, self.size = tensor, tensor.numel()
            alive += self.size
            peak = max(peak, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= self.size

    def peak_of(work: Callable[[], object]) -> int:
        nonlocal alive, peak
        alive = peak = 0
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: Kept(tensor) if tensor.numel() > 64 else tensor,
            lambda kept: kept.tensor if isinstance(kept, Kept) else kept,
        ):
            work()
        assert alive == 0
        return peak

    name, batch = "conv-bn-relu-maxpool", make_batch(n=16, m=4)
    teacher, student = net(name, 1), net(name, 2)
    plain = peak_of(lambda: F.cross_entropy(teacher.train()(batch[0]), batch[1]).backward())
    teacher.zero_grad()
    assert peak_of(lambda: step_of(teacher, student, batch, one_graph=True)) <= 1.05 * plain
    assert peak_of(lambda: step_of(teacher, student, batch)) <= 2.05 * plain
    assert peak_of(lambda: step_of(teacher, student, batch, one_graph=True, micro_batch=4)) <= 0.4 * plain


# ---------------------------------------------------------------- queries of the thief's own


@pytest.mark.parametrize("weights", [((1.0, 0.0), (0.0, 1.0)), ((1.0, 5.0),)])
def test_what_is_asked_need_not_be_what_utility_is_taken_on(weights: Any) -> None:
    name, (x, y, triggers, targets) = "conv-bn-relu-maxpool", make_batch()
    teacher, student, queries = net(name, 1), net(name, 2), make_batch(n=9)[0].flip(3)
    step = step_of(teacher, student, (x, y, triggers, targets), asked=queries, weights=weights)
    # In eval mode the hypergradient is that of a step on the queries alone, and the utility gradient a plain one.
    dummy = (queries, torch.zeros(9).long(), triggers, targets)
    hyper, _, after = reference(teacher, student, dummy, teacher_training=False)
    plain = copy.deepcopy(teacher).train()
    F.cross_entropy(plain(x), y).backward()
    clean = {key: p.grad for key, p in plain.named_parameters() if p.grad is not None}
    for found, (a, b) in zip(step.gradients, weights, strict=True):
        assert distance(found, {key: a * hyper[key] + b * clean[key] for key in hyper}) <= 1e-9
    assert distance(dict(step.thief.student.parameters), after) <= 1e-9
    torch.testing.assert_close(step.teacher_buffers, dict(plain.named_buffers()))


@pytest.mark.parametrize("one_graph", [False, True])
def test_queries_of_its_own_go_in_micro_batches_too(one_graph: bool) -> None:
    teacher, student, queries = net("mlp-layernorm", 1), net("multihead-attention", 2), make_batch(n=9)[0].flip(3)
    whole = step_of(teacher, student, make_batch(), asked=queries)
    parts = step_of(teacher, student, make_batch(), asked=queries, micro_batch=4, one_graph=one_graph)
    for one, other in zip(parts.gradients, whole.gradients, strict=True):
        assert distance(one, other) <= 1e-9


def test_without_a_seed_generators_are_left_alone() -> None:
    teacher, student = net(SMOOTH, 1), net(SMOOTH, 2)
    wanted = step_of(teacher, student, make_batch())
    found = step_of(teacher, student, make_batch(), seed=None)
    assert distance(found.gradients[0], wanted.gradients[0]) == 0.0


# ---------------------------------------------------------------- derivatives other than forward mode


class Cubic(torch.autograd.Function):
    """A layer with a backward that can be differentiated again, and no forward-mode rule."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x + x**3 / 3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * (1 + x**2)


class WrongRule(torch.autograd.Function):
    """A layer whose forward-mode rule is wrong."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * grad

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return 3 * tangent


class Apply(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function.apply(x)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.float32, 2e-2)])
def test_a_layer_without_a_rule_falls_back_by_itself(dtype: torch.dtype, tolerance: float) -> None:
    teacher, student = net(SMOOTH, 1), nn.Sequential(net(SMOOTH, 2), Apply(Cubic))
    truth, _, _ = reference(teacher, student, make_batch())
    teacher, student = teacher.to(dtype), student.to(dtype)
    step = step_of(teacher, student, make_batch(dtype))
    assert step.derivative == "difference"
    assert "jvp" in step.note
    assert distance(step.gradients[0], truth) < tolerance
    kind, why = choose_derivative(thief_of(student), make_batch(dtype)[0])
    assert kind == "difference"
    assert "jvp" in why
    chosen = step_of(teacher, student, make_batch(dtype), thief={"derivative": kind})
    assert distance(chosen.gradients[0], step.gradients[0]) == 0.0


@pytest.mark.parametrize("name", list(NETS))
def test_forward_mode_is_chosen_where_it_can_be(name: str) -> None:
    for training in (True, False):
        module = net(name, 2, torch.float32)
        chosen = choose_derivative(thief_of(module, training=training), make_batch(torch.float32)[0])
        assert chosen == ("forward", "")


def test_a_wrong_rule_is_found_out() -> None:
    module = nn.Sequential(net(SMOOTH, 2), Apply(WrongRule))
    kind, why = choose_derivative(thief_of(module), make_batch()[0])
    assert kind == "difference"
    assert "disagree" in why


@pytest.mark.parametrize(("derivative", "tolerance"), [("difference", 3e-2), ("central", 3e-2)])
@pytest.mark.parametrize("name", ["conv-bn-relu-maxpool", "conv-bn-gelu-avgpool", "sdp-attention"])
def test_differences_are_near_the_truth_in_float32(name: str, derivative: Any, tolerance: float) -> None:
    teacher, student = net(name, 1), net(name, 2)
    truth, _, _ = reference(teacher, student, make_batch())
    step = step_of(teacher.float(), student.float(), make_batch(torch.float32), thief={"derivative": derivative})
    assert step.derivative == derivative
    assert distance(step.gradients[0], truth) < tolerance


@pytest.mark.parametrize("packed", [True, False])
def test_every_pass_of_the_student_draws_the_same_masks(packed: bool) -> None:
    # With another mask in the shifted pass, a difference would be off by orders of magnitude.
    teacher, student = net(SMOOTH, 1), attention_net(packed=packed, dropout=0.4).double()
    exact = step_of(teacher, student, make_batch(), thief={"derivative": "forward"}, seed=7)
    assert distance(step_of(teacher, student, make_batch(), seed=7).gradients[0], exact.gradients[0]) == 0.0
    for derivative in ("difference", "central"):
        near = step_of(teacher, student, make_batch(), thief={"derivative": derivative}, seed=7)
        assert distance(near.gradients[0], exact.gradients[0]) < 1e-3
    assert distance(step_of(teacher, student, make_batch(), seed=8).gradients[0], exact.gradients[0]) > 1e-2


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 4), (6, 5, 4, 3)])
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"momentum": None}, {"track_running_stats": False}])
def test_the_batchnorm_rule_is_the_built_in_one(
    shape: tuple[int, ...], layout: torch.memory_format, options: dict[str, Any]
) -> None:
    import torch.autograd.forward_ad as forward_ad

    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    layer = kind(5, **options).double()
    generator = torch.Generator().manual_seed(0)

    def draw(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    load_forward_rules()
    x = draw(torch.empty(shape))
    if len(shape) == 4:
        x = x.to(memory_format=layout)
    parameters = {name: draw(p) for name, p in layer.named_parameters()}
    for varied in ([], ["weight"], ["bias"], ["weight", "bias"]):
        varied = [name for name in varied if name in parameters]
        tangents = {name: draw(p) for name, p in parameters.items() if name in varied}
        x_tangent = draw(x)
        results = []
        for mode in (False, True):
            buffers = {name: b.clone() for name, b in layer.named_buffers()}
            with torch.no_grad(), forward_ad.dual_level():
                duals = {k: forward_ad.make_dual(p, tangents[k]) if k in tangents else p for k, p in parameters.items()}
                arguments = (layer, (duals, buffers), (forward_ad.make_dual(x, x_tangent),))
                if mode:
                    with FastRules():
                        y = functional_call(*arguments)
                else:
                    y = functional_call(*arguments)
                results.append((*forward_ad.unpack_dual(y), buffers))
        torch.testing.assert_close(results[1], results[0])


# ---------------------------------------------------------------- nothing is touched


def snapshot(module: nn.Module) -> dict[str, Any]:
    return {
        "tensors": {k: v.clone() for k, v in module.state_dict().items()},
        "where": {k: v.data_ptr() for k, v in module.state_dict().items()},
        "requires": {k: p.requires_grad for k, p in module.named_parameters()},
        "grads": {k: p.grad for k, p in module.named_parameters()},
        "modes": {k: part.training for k, part in module.named_modules()},
    }


def world(*modules: nn.Module) -> list[Any]:
    flags = [torch.get_rng_state(), torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled()]
    return [snapshot(module) for module in modules] + flags


@pytest.mark.parametrize("derivative", ["auto", "difference"])
@pytest.mark.parametrize("one_graph", [False, True])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("foreign", [False, True])
def test_everything_is_as_before(derivative: Any, one_graph: bool, fails: bool, foreign: bool) -> None:
    teacher = net("conv-bn-relu-maxpool", 1)
    student = nn.Sequential(net(SMOOTH, 2), nn.Dropout(0.5))
    teacher[1].eval()  # modes are mixed on purpose
    student[0][4].eval()
    teacher[0].weight.requires_grad_(False)
    state, batch = student_state(student), make_batch()
    kept = copy.deepcopy(state)
    before = world(teacher, student)

    def broken(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        raise ZeroDivisionError

    options: dict[str, Any] = {"loss": broken} if fails else {}
    thief = Thief(skeleton=student, student=state, rate=ALPHA, derivative=derivative, **options)
    asked = batch[2] if foreign else None
    if fails:
        with pytest.raises(ZeroDivisionError):
            step_of(teacher, thief, batch, one_graph=one_graph, asked=asked)
    else:
        step = step_of(teacher, thief, batch, one_graph=one_graph, asked=asked)
        assert "0.weight" not in step.gradients[0]
        parameters = step.thief.student.parameters
        assert not any(t.requires_grad for t in (*step.gradients[0].values(), *parameters.values()))
    torch.testing.assert_close(world(teacher, student), before, rtol=0, atol=0)
    for kind in ("parameters", "frozen", "buffers"):
        torch.testing.assert_close(getattr(state, kind), getattr(kept, kind), rtol=0, atol=0)


def test_a_failure_deep_in_the_student_leaves_no_trace() -> None:
    class Breaks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch.rand(3)
            raise KeyError("on purpose")

    teacher, student = net(SMOOTH, 1), nn.Sequential(net(SMOOTH, 2), Breaks())
    student[0].eval()
    before = world(teacher, student)
    with pytest.raises(KeyError):
        step_of(teacher, student, make_batch())
    torch.testing.assert_close(world(teacher, student), before, rtol=0, atol=0)


def test_the_skeleton_may_be_the_teacher_itself() -> None:
    teacher, batch = net("conv-bn-relu-maxpool", 1), make_batch()
    hyper, _, _ = reference(teacher, teacher, batch)
    assert distance(step_of(teacher, teacher, batch).gradients[0], hyper) <= 1e-9


def test_works_inside_no_grad() -> None:
    teacher, student, batch = net(SMOOTH, 1), net(SMOOTH, 2), make_batch()
    hyper, _, _ = reference(teacher, student, batch)
    with torch.no_grad():
        assert distance(step_of(teacher, student, batch).gradients[0], hyper) <= 1e-9


def test_a_frozen_part_of_the_student_stays() -> None:
    student = net(SMOOTH, 2)
    student[0].weight.requires_grad_(False)
    step = step_of(net(SMOOTH, 1), student, make_batch())
    assert "0.weight" not in step.thief.student.parameters
    torch.testing.assert_close(step.thief.student.frozen["0.weight"], student[0].weight.detach(), rtol=0, atol=0)


def test_tied_weights_count_once() -> None:
    def tied(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        shared = nn.Linear(128, 128, dtype=torch.float64)
        return nn.Sequential(nn.Flatten(), shared, nn.Tanh(), shared, nn.Linear(128, CLASSES, dtype=torch.float64))

    with torch.random.fork_rng(devices=[]):
        teacher, student = tied(1), tied(2)
    hyper, _, _ = reference(teacher, student, make_batch())
    assert distance(step_of(teacher, student, make_batch()).gradients[0], hyper) <= 1e-9


# ---------------------------------------------------------------- state, runtime, layout


def test_a_student_goes_out_and_in() -> None:
    module, batch = net("conv-bn-relu-maxpool", 2), make_batch()
    step = step_of(net(SMOOTH, 1), module, batch)
    copied = student_module(module, step.thief.student)
    assert int(copied.get_buffer("1.num_batches_tracked")) == 1
    again = student_state(copied)
    torch.testing.assert_close(dict(again.parameters), dict(step.thief.student.parameters), rtol=0, atol=0)
    torch.testing.assert_close(dict(again.buffers), dict(step.thief.student.buffers), rtol=0, atol=0)
    transfer = transfer_loss(step.thief, Samples(inputs=batch[2], targets=batch[3]))
    hits = (copied.eval()(batch[2]).argmax(1) == batch[3]).double().mean()
    assert float(transfer.hit_rate) == pytest.approx(float(hits)) == pytest.approx(float(step.hit_rate))


def test_assign_readies_the_teacher_for_an_optimiser() -> None:
    teacher = net("conv-bn-relu-maxpool", 1)
    step = step_of(teacher, net(SMOOTH, 2), make_batch(), weights=[(1.0, 1.0)])
    (direction,) = step.gradients
    before = {name: p.detach().clone() for name, p in teacher.named_parameters()}
    assign(teacher, gradients=direction, buffers=step.teacher_buffers)
    torch.optim.SGD(teacher.parameters(), 0.5).step()
    for name, p in teacher.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] - 0.5 * direction[name])
    torch.testing.assert_close(dict(teacher.named_buffers()), step.teacher_buffers)
    with pytest.raises(ShapeMismatch, match="assign to the teacher"):
        assign(teacher, gradients={"nobody": torch.zeros(1)}, buffers={})


@pytest.mark.parametrize("derivative", ["forward", "difference"])
def test_bfloat16_autocast_gives_about_the_same_in_float32(derivative: Any) -> None:
    teacher, student, batch = (
        net("conv-bn-relu-maxpool", 1, torch.float32),
        net("sdp-attention", 2, torch.float32),
        make_batch(torch.float32),
    )
    exact = step_of(teacher, student, batch)
    low = Runtime(device="cpu", precision="bfloat16")
    inside = step_of(teacher, student, batch, thief={"derivative": derivative}, runtime=low)
    with torch.autocast("cpu", torch.bfloat16):
        around = step_of(teacher, student, batch, thief={"derivative": derivative})
    for step in (inside, around):
        assert step.derivative == derivative
        assert all(g.dtype == torch.float32 for g in step.gradients[0].values())
        assert float(cosine(step.gradients[0], exact.gradients[0])) > 0.98


def test_channels_last_is_kept() -> None:
    last = torch.channels_last
    teacher, student = (net("conv-bn-relu-maxpool", s, torch.float32).to(memory_format=last) for s in (1, 2))
    x, y, triggers, targets = make_batch(torch.float32)
    step = step_of(teacher, student, (x.to(memory_format=last), y, triggers.to(memory_format=last), targets))
    assert step.thief.student.parameters["4.body.0.weight"].is_contiguous(memory_format=last)


# ---------------------------------------------------------------- losses and rules of combination


def test_losses_are_the_textbook_ones() -> None:
    teacher, student = torch.randn(2, 5, CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_t, log_s = (teacher / 2).log_softmax(1), (student / 2).log_softmax(1)
    expected = {
        "kl": F.kl_div(log_s, log_t, reduction="batchmean", log_target=True),
        "reverse-kl": F.kl_div(log_t, log_s, reduction="batchmean", log_target=True),
        "cross-entropy": F.cross_entropy(student / 2, (teacher / 2).softmax(1)),
        "label": F.cross_entropy(student, teacher.argmax(1)),
        "mse": F.mse_loss(student, teacher),
    }
    for kind, value in expected.items():
        found = DistillationLoss(kind=kind, temperature=2.0)(teacher, student)  # type: ignore[arg-type]
        torch.testing.assert_close(found, value)


finite = st.floats(-1e3, 1e3, allow_nan=False, width=32)
vectors = st.lists(st.tuples(finite, finite), min_size=2, max_size=6)


def as_gradients(rows: list[tuple[float, float]], column: int) -> dict[str, Tensor]:
    values = torch.tensor([row[column] for row in rows], dtype=torch.float64)
    return {"a": values[:1], "b": values[1:].reshape(1, -1)}


@settings(max_examples=60, deadline=None)
@given(vectors, st.floats(0.01, 10))
def test_balanced_never_conflicts_and_keeps_the_ratio(rows: list[tuple[float, float]], ratio: float) -> None:
    hyper, utility = as_gradients(rows, 0), as_gradients(rows, 1)
    length = float(norm(utility.values()))
    scaled = combine_balanced(hyper, utility, ratio, remove_conflict=False)
    safe = combine_balanced(hyper, utility, ratio)
    added, kept = ({k: d[k] - utility[k] for k in d} for d in (scaled, safe))
    if float(norm(hyper.values())) > 0:
        assert float(norm(added.values())) == pytest.approx(ratio * length, rel=1e-9, abs=1e-12)
    else:
        assert float(norm(added.values())) == 0.0
    inner = float(sum((safe[k] * utility[k]).sum() for k in safe))
    assert inner >= length**2 * (1 - 1e-9) - 1e-12  # what is added to g_c has no part against it
    assert float(norm(kept.values())) <= ratio * length * (1 + 1e-9) + 1e-12
    if float(cosine(hyper, utility)) >= 0:
        torch.testing.assert_close(safe, scaled)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vanishing_and_extreme_gradients_stay_finite(dtype: torch.dtype) -> None:
    zero, one = {"a": torch.zeros(3, dtype=dtype)}, {"a": torch.ones(3, dtype=dtype)}
    torch.testing.assert_close(combine_balanced(zero, one), one)
    torch.testing.assert_close(combine_balanced(one, zero), zero)
    torch.testing.assert_close(combine_balanced(zero, zero), zero)
    huge, small = {"a": -1e15 * one["a"]}, {"a": 1e-15 * one["a"]}
    torch.testing.assert_close(combine_balanced(huge, small), small)
    fixed = torch.tensor(2.0)
    kept = combine_balanced(one, zero, 0.5, reference=fixed)  # then a vanishing utility gradient leaves the other
    torch.testing.assert_close(norm(kept.values()), torch.tensor(1.0, dtype=dtype))
    torch.testing.assert_close(combine_balanced(huge, zero, 0.0, reference=fixed), zero)


@settings(max_examples=30, deadline=None)
@given(vectors, st.floats(0.01, 10), st.floats(0.01, 1e3))
def test_another_length_is_another_ratio(rows: list[tuple[float, float]], ratio: float, length: float) -> None:
    hyper, utility = as_gradients(rows, 0), as_gradients(rows, 1)
    own = float(norm(utility.values()))
    if own < 1e-3:
        return
    for remove in (True, False):
        found = combine_balanced(
            hyper, utility, ratio, remove_conflict=remove, reference=torch.tensor(length, dtype=torch.float64)
        )
        wanted = combine_balanced(hyper, utility, ratio * length / own, remove_conflict=remove)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------- mistakes of the caller


def test_mistakes_name_their_remedy() -> None:
    teacher, student, (x, y, t, u) = net(SMOOTH, 1), net(SMOOTH, 2), make_batch()
    thief, mark = thief_of(student), Samples(inputs=t, targets=u)

    def attempt(*batch: Tensor, model: nn.Module = teacher, **options: Any) -> None:
        step_of(model, thief_of(student, **options), batch or (x, y, t, u))  # type: ignore[arg-type]

    wider = nn.Sequential(nn.Flatten(), nn.Linear(128, CLASSES + 1, dtype=torch.float64))
    frozen = net(SMOOTH, 1).requires_grad_(False)
    for error, match, act in (
        (ShapeMismatch, "same classes", lambda: attempt(model=wider)),
        (ShapeMismatch, "one target each", lambda: attempt(x, y, t[:0], u[:0])),
        (ShapeMismatch, "one target each", lambda: attempt(x, y[:2], t, u)),
        (ShapeMismatch, "logits", lambda: attempt(model=nn.Sequential(nn.Conv2d(2, 4, 3, dtype=torch.float64)))),
        (ShapeMismatch, "for all of them", lambda: attempt(x, y, t, u + CLASSES)),
        (ShapeMismatch, "a scalar", lambda: attempt(loss=lambda a, b: (a - b).square())),
        (BadConfig, "rate: expected float > 0, not 0.0", lambda: attempt(rate=0.0)),
        (BadConfig, "micro_batch", lambda: Memory(micro_batch=-1)),
        (BadConfig, r"derivative: expected .*auto", lambda: attempt(derivative="backward")),
        (BadConfig, r"trigger_mode: expected eval\|", lambda: attempt(trigger_mode="verify")),
        (BadConfig, "unfreeze", lambda: attempt(model=frozen)),
        (BadConfig, "unfreeze", lambda: student_state(frozen)),
        (BadConfig, r"kind: expected kl\|.*mse, not 'soft'", lambda: DistillationLoss(kind="soft")),  # type: ignore[arg-type]
        (BadConfig, "temperature: expected float > 0, not 0.0", lambda: DistillationLoss(temperature=0.0)),
        (BadConfig, "mixed", lambda: transfer_loss(thief_of(student, trigger_mode="mixed"), mark)),
        (ShapeMismatch, "one target each", lambda: transfer_loss(thief, mark.first(0))),
        (ShapeMismatch, "one row an input", lambda: simulate_theft(thief, torch.zeros(2, 4), x)),
        (ShapeMismatch, "without weights", lambda: combine_balanced({}, {})),
        (BadConfig, "ratio", lambda: combine_balanced({"a": x}, {"a": x}, -1.0)),
    ):
        with pytest.raises(error, match=match):
            act()
