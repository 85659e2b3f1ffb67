"""One rehearsal step: simulate a theft, and tell the target model how the theft could have carried the mark better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.errors import ShapeMismatch
from heirmark.rehearsal.asking import APART, Asking, Outcome
from heirmark.rehearsal.derivative import choose_derivative, directional_derivative
from heirmark.rehearsal.losses import TargetLoss, teacher_cotangent
from heirmark.rehearsal.passes import Memory, PassMode
from heirmark.rehearsal.student import Derivative, Thief, simulate_theft, transfer_loss
from heirmark.training.samples import Samples, check_answered


@dataclass(frozen=True, kw_only=True, eq=False)
class RehearsalStep(Outcome):
    """What one rehearsal step found out; nothing has been changed yet.

    Attributes:
        thief: after its step, for the next call.
        distillation_loss: L_KD before the thief's step.
        hit_rate: share of the triggers that the thief, after its step, answers as the mark wants.
        derivative: how the directional derivative was taken.
        note: why forward mode was not, where the thief's ``"auto"`` fell back; else empty.
    """

    thief: Thief
    distillation_loss: Tensor
    hit_rate: Tensor
    derivative: Derivative
    note: str


def rehearsal_step(
    teacher: nn.Module,
    thief: Thief,
    *,
    utility: Samples,
    mark: Samples,
    asked: Tensor | None = None,
    weights: Sequence[tuple[float, float]] = APART,
    mode: PassMode = PassMode(),
    memory: Memory = Memory(),
    utility_loss: TargetLoss = F.cross_entropy,
    mark_loss: TargetLoss = F.cross_entropy,
) -> RehearsalStep:
    """Simulate one step of theft and differentiate its outcome for the teacher (T2S, arXiv 2606.11698, eq. 2-8).

    The hypergradient is exact and first-order only. With θ_S' = θ_S - α ∇L_KD and v = ∂L_wm/∂θ_S',

        ∂L_wm/∂θ_T = -α ∂/∂θ_T <∇_{θ_S} L_KD, v> = -α ∂/∂θ_T Σ_x <∂ℓ/∂z_S(z_T(x), z_S(x)), u(x)>,   u = J_S v,

    and u, the directional derivative of the student's logits along v, does not depend on θ_T. So the cotangent for the
    teacher's logits comes from a graph over ``[N, C]`` logits, and an ordinary backward through the teacher does the
    rest.

    The teacher, the thief and torch's global generators are as before on return, also after an error. The teacher runs once
    over the utility's samples in the sense that matters: ``teacher_buffers`` hold one update of its running statistics (one
    a micro-batch), whatever the options.

    Args:
        teacher: the target model, maps ``[N, ...]`` to logits ``[N, C]``.
        thief: what steals it.
        utility: clean ``[N, ...]`` samples with their labels; cross-entropy on them is the utility's loss.
        mark: triggers ``[M, ...]``, and what the mark wants of them.
        asked: ``[Q, ...]`` what the thief distils on; None is the utility's own inputs. Others are answered in eval mode, as
            the target answers a real thief: foreign images have other statistics than the owner's.
        weights: pairs (a, b), each of which asks for a g_h + b g_c. ``[(1, λ)]`` is eq. 9, by a single backward pass; the
            default gives both gradients apart, which balancing needs.
        mode: whether the teacher runs in train mode, the seed of random layers (pass another every step), and the precision;
            the logits' mathematics stays in float32.
        memory: how to save it.
        utility_loss: between what the teacher says and the utility's targets. An encoder says features, and its targets may be
            some.
        mark_loss: between what the thief says to triggers and what the mark wants.

    Returns:
        The step.

    Raises:
        BadConfig: when the teacher has nothing to train.
        ShapeMismatch: when batches, classes or counts do not fit each other.
    """
    check_answered("triggers", mark)
    asking = Asking(teacher, utility, asked, mode=mode, memory=memory, loss=utility_loss)
    queries, answers = asking.queries, asking.logits
    asking.check("targets", mark.targets)
    size = memory.micro_batch
    theft = simulate_theft(thief, answers, queries, mode=mode, micro_batch=size)
    transfer = transfer_loss(theft.thief, mark, clean=queries, mode=mode, micro_batch=size, loss=mark_loss)
    kind, note = choose_derivative(thief, queries, mode=mode) if thief.derivative == "auto" else (thief.derivative, "")
    u = directional_derivative(
        thief, queries, transfer.gradient, kind=kind, mode=mode, logits=theft.logits, micro_batch=size
    )
    transfer.gradient.clear()  # as large as the student, and done with
    cotangent = -thief.rate * teacher_cotangent(thief.loss, answers, theft.logits, u)
    found, loss = asking.back(cotangent, weights)
    return RehearsalStep(
        gradients=found,
        teacher_buffers=asking.buffers,
        thief=theft.thief,
        distillation_loss=theft.loss,
        watermark_loss=transfer.loss,
        utility_loss=loss,
        hit_rate=transfer.hit_rate,
        derivative=kind,
        note=note,
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
