"""One rehearsal step: simulate a theft, and tell the target model how the theft could have carried the mark better."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.errors import BadConfig, ShapeMismatch
from heirmark.rehearsal.combine import cosine, norm
from heirmark.rehearsal.derivative import Derivative, along, check_derivative, refusal
from heirmark.rehearsal.losses import Distillation, DistillationLoss, feedback
from heirmark.rehearsal.passes import Manner, Tensors, accumulate, copies, gradients, leaves, run
from heirmark.rehearsal.student import (
    Student,
    TriggerMode,
    chunks,
    simulate_theft,
    theft_manner,
    transfer_loss,
)
from heirmark.runtime import Runtime


@dataclass(frozen=True, kw_only=True, eq=False)
class RehearsalStep:
    """What one rehearsal step found out; nothing has been changed yet.

    Scalars are tensors on the device of the inputs, so that reading them is the caller's choice of when to wait.

    Attributes:
        hypergradient: g_h = ∂L_wm(θ_S')/∂θ_T by parameter name; empty with ``weights``.
        utility_gradient: g_c = ∂L_cls/∂θ_T by parameter name; empty with ``weights``.
        direction: the weighted sum of the two by parameter name; empty without ``weights``.
        teacher_buffers: the teacher's buffers after its one pass over the batch, for :func:`assign`.
        student: the thief after its step, for the next call.
        distillation_loss: L_KD before the thief's step.
        watermark_loss: L_wm after it.
        utility_loss: L_cls of the teacher.
        hit_rate: share of the triggers that the thief, after its step, answers as the mark wants.
        derivative: how the directional derivative was taken.
        note: why forward mode was not, where ``derivative="auto"`` fell back; else empty.
        diagnostics: scalars: ``theft_gradient_norm`` (∇L_KD), ``transfer_gradient_norm`` (v); with weights
            ``direction_norm``, without them ``hypergradient_norm``, ``utility_gradient_norm`` and their ``cosine``.
    """

    hypergradient: Tensors
    utility_gradient: Tensors
    direction: Tensors
    teacher_buffers: Tensors
    student: Student
    distillation_loss: Tensor
    watermark_loss: Tensor
    utility_loss: Tensor
    hit_rate: Tensor
    derivative: Derivative
    note: str
    diagnostics: dict[str, Tensor]


def rehearsal_step(
    teacher: nn.Module,
    skeleton: nn.Module,
    student: Student,
    inputs: Tensor,
    labels: Tensor,
    triggers: Tensor,
    targets: Tensor,
    *,
    alpha: float,
    loss: Distillation | None = None,
    utility: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    weights: tuple[float, float] | None = None,
    derivative: Derivative | Literal["auto"] = "auto",
    trigger_mode: TriggerMode = "eval",
    teacher_training: bool = True,
    student_training: bool = True,
    micro_batch: int | None = None,
    one_graph: bool = False,
    seed: int = 0,
    runtime: Runtime | None = None,
) -> RehearsalStep:
    """Simulate one step of theft and differentiate its outcome for the teacher (T2S, arXiv 2606.11698, eq. 2-8).

    The hypergradient is exact and first-order only. With θ_S' = θ_S - α ∇L_KD and v = ∂L_wm/∂θ_S',

        ∂L_wm/∂θ_T = -α ∂/∂θ_T <∇_{θ_S} L_KD, v> = -α ∂/∂θ_T Σ_x <∂ℓ/∂z_S(z_T(x), z_S(x)), u(x)>,   u = J_S v,

    and u, the directional derivative of the student's logits along v, does not depend on θ_T. So the cotangent for the
    teacher's logits comes from a graph over ``[N, C]`` logits, and an ordinary backward through the teacher does the
    rest.

    The teacher, the skeleton, the student's state and torch's global generators are as before on return, also after an
    error. The teacher runs once over the batch in the sense that matters: ``teacher_buffers`` hold one update of its
    running statistics (one a micro-batch), whatever the options.

    Args:
        teacher: the target model, maps ``[N, ...]`` to logits ``[N, C]``.
        skeleton: structure of the simulated thief; may be the teacher itself.
        student: its state.
        inputs: ``[N, ...]`` clean batch; also what the thief distils on.
        labels: ``[N]`` int64.
        triggers: ``[M, ...]``.
        targets: ``[M]`` int64, what the mark wants of them.
        alpha: α > 0, the thief's learning rate.
        loss: distillation loss; KL(p_T || p_S) by default.
        utility: ``utility(teacher_logits, labels)``, a mean over the batch; cross-entropy by default.
        weights: ``(1, λ)`` asks for ``direction`` = 1 g_h + λ g_c of eq. 9 by a single backward pass; ``None`` for both
            gradients apart, which balancing needs.
        derivative: how u is taken (see :data:`Derivative`). ``"auto"`` is forward mode, or else ``"difference"``, and
            says so in the result; :func:`choose_derivative`, called once, spares every step the attempt.
        trigger_mode: how the thief runs on the triggers (see :func:`transfer_loss`).
        teacher_training: whether the teacher runs in train mode.
        student_training: whether the thief distils in train mode.
        micro_batch: examples at a time; the same result, but for layers that couple a batch (BatchNorm).
        one_graph: at most one autograd graph alive at any time, for one more forward pass of the teacher.
        seed: of random layers; pass another every step.
        runtime: autocast to run under; ``None`` leaves the caller's own. The logits' mathematics stays in float32.

    Returns:
        The step.

    Raises:
        BadConfig: for an option out of range.
        ShapeMismatch: when batches, classes or counts do not fit each other.
    """
    loss = loss or DistillationLoss()
    _check(inputs, labels, triggers, targets, alpha=alpha, micro_batch=micro_batch, derivative=derivative)
    wanted = leaves({name: p for name, p in teacher.named_parameters() if p.requires_grad})
    if not wanted:
        raise BadConfig("the teacher has no parameter that requires a gradient: unfreeze what the mark may change")
    parameters = {**{name: p.detach() for name, p in teacher.named_parameters()}, **wanted}
    buffers = copies(dict(teacher.named_buffers()))
    manner = Manner(training=teacher_training, seed=seed, runtime=runtime)
    batches = chunks(inputs, micro_batch)

    def answer(index: int, buffers: Tensors) -> Tensor:
        return run(teacher, parameters, buffers, batches[index], manner.part("teacher", index))

    kept: list[Tensor] = []
    with torch.set_grad_enabled(not one_graph):
        spare = copies(buffers) if one_graph else buffers
        kept = [answer(index, spare) for index in range(len(batches))]
    teacher_logits = torch.cat([logits.detach() for logits in kept])
    for what, answers in (("labels", labels), ("targets", targets)):
        check_classes(what, answers, teacher_logits.shape[1])
    utility_loss, cotangent_c = _utility(utility, teacher_logits, labels)
    theft = simulate_theft(
        skeleton, student, teacher_logits, inputs, loss=loss, lr=alpha,
        training=student_training, micro_batch=micro_batch, seed=seed, runtime=runtime,
    )  # fmt: skip
    transfer = transfer_loss(
        skeleton, theft.student, triggers, targets,
        mode=trigger_mode, clean=inputs if trigger_mode == "mixed" else None,
        micro_batch=micro_batch, seed=seed, runtime=runtime,
    )  # fmt: skip
    same = theft_manner(skeleton, training=student_training, seed=seed, runtime=runtime)
    u, taken, note = _along(skeleton, student, inputs, transfer.gradient, derivative, same, theft.logits, micro_batch)
    diagnostics = {
        "theft_gradient_norm": theft.gradient_norm,
        "transfer_gradient_norm": norm(transfer.gradient.values()),
    }
    transfer.gradient.clear()  # as large as the student, and done with
    cotangent_h = -alpha * feedback(loss, teacher_logits, theft.logits, u)
    cotangents = (
        [cotangent_h, cotangent_c] if weights is None else [weights[0] * cotangent_h + weights[1] * cotangent_c]
    )
    totals: list[Tensors] = [{} for _ in cotangents]
    pieces = [chunks(cotangent, micro_batch) for cotangent in cotangents]
    for index in range(len(batches)):
        with torch.enable_grad():
            logits = answer(index, buffers) if one_graph else kept.pop(0)
        for which, parts in enumerate(pieces):
            more = gradients(logits, wanted, parts[index], keep=which + 1 < len(pieces))
            totals[which] = accumulate(totals[which], more)
        del logits
    hypergradient, utility_gradient = totals if weights is None else ({}, {})
    direction = {} if weights is None else totals[0]
    if weights is None:
        diagnostics["hypergradient_norm"] = norm(hypergradient.values())
        diagnostics["utility_gradient_norm"] = norm(utility_gradient.values())
        diagnostics["cosine"] = cosine(hypergradient, utility_gradient)
    else:
        diagnostics["direction_norm"] = norm(direction.values())
    return RehearsalStep(
        hypergradient=hypergradient,
        utility_gradient=utility_gradient,
        direction=direction,
        teacher_buffers=buffers,
        student=theft.student,
        distillation_loss=theft.loss,
        watermark_loss=transfer.loss,
        utility_loss=utility_loss,
        hit_rate=transfer.hit_rate,
        derivative=taken,
        note=note,
        diagnostics=diagnostics,
    )


def assign(module: nn.Module, *, gradients: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> None:
    """Write gradients into ``.grad`` and buffers in place, so that any ``torch.optim`` optimiser can take its step.

    Args:
        module: the teacher that a step was taken of.
        gradients: by parameter name; parameters without one get ``None``.
        buffers: by name, usually ``step.teacher_buffers``; an empty mapping leaves the statistics as they are.

    Raises:
        ShapeMismatch: for a name that the module does not have.
    """
    own, state = dict(module.named_parameters()), dict(module.named_buffers())
    foreign = [*(gradients.keys() - own.keys()), *(buffers.keys() - state.keys())]
    if foreign:
        raise ShapeMismatch(f"the module has no tensor {min(foreign)!r}: assign to the teacher the step was taken of")
    for name, parameter in own.items():
        parameter.grad = gradients.get(name)
    for name, buffer in buffers.items():
        state[name].copy_(buffer)


def _along(
    skeleton: nn.Module,
    student: Student,
    inputs: Tensor,
    direction: Tensors,
    derivative: Derivative | Literal["auto"],
    manner: Manner,
    logits: Tensor,
    micro_batch: int | None,
) -> tuple[Tensor, Derivative, str]:
    """Directional derivative, how it was taken, and why not by forward mode if that was tried in vain."""

    def by(kind: Derivative) -> Tensor:
        return along(
            skeleton, student, inputs, direction,
            derivative=kind, manner=manner, logits=logits, micro_batch=micro_batch,
        )  # fmt: skip

    if derivative != "auto":
        return by(derivative), derivative, ""
    try:
        return by("forward"), "forward", ""
    except RuntimeError as error:  # NotImplementedError, the usual one, is a RuntimeError
        note = refusal(error)
    return by("difference"), "difference", note


def _utility(utility: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Value of the utility loss and its gradient for the teacher's logits."""
    leaf = logits.detach().requires_grad_()
    with torch.enable_grad(), torch.autocast(leaf.device.type, enabled=False):
        value = utility(leaf, labels)
        (cotangent,) = torch.autograd.grad(value, leaf)
    return value.detach(), cotangent


def check_classes(what: str, answers: Tensor, classes: int) -> None:
    """Refuse labels that are no class. On an accelerator that look would wait for the device, whose own assertion has to do."""
    if answers.dtype == torch.int64 and answers.device.type == "cpu" and not 0 <= int(answers.max()) < classes:
        raise ShapeMismatch(
            f"{what} go up to {int(answers.max())} for {classes} classes: build the models for all of them"
        )


def _check(
    inputs: Tensor,
    labels: Tensor,
    triggers: Tensor,
    targets: Tensor,
    *,
    alpha: float,
    micro_batch: int | None,
    derivative: str,
) -> None:
    check_derivative(derivative)
    if not 0 < alpha < float("inf"):
        raise BadConfig(f"alpha is {alpha}: give the thief a positive learning rate, 0.05 is a usual one")
    if micro_batch is not None and micro_batch < 1:
        raise BadConfig(f"micro_batch is {micro_batch}: give at least 1, or None for the whole batch at once")
    for what, batch, answers in (("inputs", inputs, labels), ("triggers", triggers, targets)):
        if len(batch) == 0 or len(batch) != len(answers):
            raise ShapeMismatch(
                f"{len(batch)} {what} with {len(answers)} answers: give at least one, and one answer each"
            )
