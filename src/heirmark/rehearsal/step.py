"""One rehearsal step: simulate a theft, and tell the target model how the theft could have carried the mark better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from heirmark.errors import BadConfig, ShapeMismatch
from heirmark.rehearsal.derivative import choose_derivative, directional_derivative
from heirmark.rehearsal.losses import classification_slope, teacher_cotangent
from heirmark.rehearsal.passes import Memory, PassMode, Tensors, accumulate, chunks, copies, gradients, leaves, run
from heirmark.rehearsal.student import Derivative, Thief, simulate_theft, transfer_loss
from heirmark.runtime import derive_seed
from heirmark.training.samples import Samples, check_answered

APART = ((1.0, 0.0), (0.0, 1.0))
"""Weights that ask for both gradients, each alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RehearsalStep:
    """What one rehearsal step found out; nothing has been changed yet.

    Scalars are tensors on the device of the inputs, so that reading them is the caller's choice of when to wait.

    Attributes:
        gradients: one for each pair (a, b) of weights: a g_h + b g_c by parameter name, with the hypergradient
            g_h = ∂L_wm(θ_S')/∂θ_T and the utility gradient g_c = ∂L_cls/∂θ_T.
        teacher_buffers: the teacher's buffers after its one pass over the utility's samples, for :func:`assign`.
        thief: after its step, for the next call.
        distillation_loss: L_KD before the thief's step.
        watermark_loss: L_wm after it.
        utility_loss: L_cls of the teacher.
        hit_rate: share of the triggers that the thief, after its step, answers as the mark wants.
        derivative: how the directional derivative was taken.
        note: why forward mode was not, where the thief's ``"auto"`` fell back; else empty.
    """

    gradients: tuple[Tensors, ...]
    teacher_buffers: Tensors
    thief: Thief
    distillation_loss: Tensor
    watermark_loss: Tensor
    utility_loss: Tensor
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

    Returns:
        The step.

    Raises:
        BadConfig: when the teacher has nothing to train.
        ShapeMismatch: when batches, classes or counts do not fit each other.
    """
    check_answered("inputs", utility)
    check_answered("triggers", mark)
    wanted = leaves({name: p for name, p in teacher.named_parameters() if p.requires_grad})
    if not wanted:
        raise BadConfig("the teacher has no parameter that requires a gradient: unfreeze what the mark may change")
    parameters = {**{name: p.detach() for name, p in teacher.named_parameters()}, **wanted}
    buffers = copies(dict(teacher.named_buffers()))

    def answers_to(inputs: Tensor, mode: PassMode, buffers: Tensors) -> _Answers:
        return _Answers(teacher, parameters, buffers, inputs, mode, memory)

    if asked is None:
        queries = utility.inputs
        answers = answers_to(queries, mode, buffers)
    else:
        queries = asked
        answers = answers_to(queries, replace(mode, training=False), copies(buffers))
    for what, labels in (("labels", utility.targets), ("targets", mark.targets)):
        check_classes(what, labels, answers.logits.shape[1])
    size = memory.micro_batch
    theft = simulate_theft(thief, answers.logits, queries, mode=mode, micro_batch=size)
    transfer = transfer_loss(theft.thief, mark, clean=queries, mode=mode, micro_batch=size)
    kind, note = choose_derivative(thief, queries, mode=mode) if thief.derivative == "auto" else (thief.derivative, "")
    u = directional_derivative(
        thief, queries, transfer.gradient, kind=kind, mode=mode, logits=theft.logits, micro_batch=size
    )
    transfer.gradient.clear()  # as large as the student, and done with
    cotangent = -thief.rate * teacher_cotangent(thief.loss, answers.logits, theft.logits, u)
    if asked is None:
        loss, slope = classification_slope(answers.logits, utility.targets)
        found = answers.back(wanted, [a * cotangent + b * slope for a, b in weights])
    else:
        (hypergradient,) = answers.back(wanted, [cotangent])
        other = mode if mode.seed is None else replace(mode, seed=derive_seed(mode.seed, "utility"))
        answers = answers_to(utility.inputs, other, buffers)
        loss, slope = classification_slope(answers.logits, utility.targets)
        (gradient,) = answers.back(wanted, [slope])
        found = [{name: _sum(g, gradient[name], a, b) for name, g in hypergradient.items()} for a, b in weights]
    return RehearsalStep(
        gradients=tuple(found),
        teacher_buffers=buffers,
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


class _Answers:
    """A teacher's logits for a batch, and the way back through them, by graphs that were kept or are built anew."""

    def __init__(
        self, teacher: nn.Module, parameters: Tensors, buffers: Tensors, inputs: Tensor, mode: PassMode, memory: Memory
    ) -> None:
        self.teacher, self.parameters, self.buffers, self.mode = teacher, parameters, buffers, mode
        self.memory, self.batches = memory, chunks(inputs, memory.micro_batch)
        with torch.set_grad_enabled(not memory.one_graph):
            spare = copies(buffers) if memory.one_graph else buffers
            self.kept = [self._answer(index, spare) for index in range(len(self.batches))]
        self.logits = torch.cat([logits.detach() for logits in self.kept])

    def _answer(self, index: int, buffers: Tensors) -> Tensor:
        return run(self.teacher, self.parameters, buffers, self.batches[index], self.mode.part("teacher", index))

    def back(self, wanted: Tensors, cotangents: Sequence[Tensor]) -> list[Tensors]:
        """Backward of ``[N, C]`` cotangents, one after another; only once."""
        totals: list[Tensors] = [{} for _ in cotangents]
        pieces = [chunks(cotangent, self.memory.micro_batch) for cotangent in cotangents]
        for index in range(len(self.batches)):
            with torch.enable_grad():
                logits = self._answer(index, self.buffers) if self.memory.one_graph else self.kept.pop(0)
            for which, parts in enumerate(pieces):
                more = gradients(logits, wanted, parts[index], keep=which + 1 < len(pieces))
                totals[which] = accumulate(totals[which], more)
            del logits
        return totals


def _sum(one: Tensor, other: Tensor, a: float, b: float) -> Tensor:
    """``a * one + b * other``, without copies of tensors as large as the teacher's where none is needed."""
    if not a:
        return other if b == 1 else b * other
    first = one if a == 1 else a * one
    return torch.add(first, other, alpha=b) if b else first


def check_classes(what: str, answers: Tensor, classes: int) -> None:
    """Refuse labels that are no class. On an accelerator that look would wait for the device, whose own assertion has to do."""
    if answers.dtype == torch.int64 and answers.device.type == "cpu" and not 0 <= int(answers.max()) < classes:
        raise ShapeMismatch(
            f"{what} go up to {int(answers.max())} for {classes} classes: build the models for all of them"
        )
