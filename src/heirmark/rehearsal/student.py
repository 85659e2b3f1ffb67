"""The simulated thief: explicit state, one step of theft, and how well the mark came over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.configuration import above, checked
from heirmark.errors import BadConfig, ShapeMismatch
from heirmark.querying.layout import copied
from heirmark.rehearsal.losses import DistillationLoss, LogitLoss, TargetLoss, student_slope
from heirmark.rehearsal.passes import PassMode, Tensors, accumulate, chunks, copies, draws, gradients, leaves, run
from heirmark.tasks.storing import join
from heirmark.training.samples import Samples, check_answered

Derivative: TypeAlias = Literal["forward", "difference", "central"]
"""``"forward"``: forward-mode differentiation, exact. ``"difference"``: one further forward pass, against the logits of
the distillation pass. ``"central"``: two further forward passes."""
TriggerMode: TypeAlias = Literal["eval", "train", "mixed"]
"""``"eval"``: as a verifier meets a model. ``"train"``: BatchNorm statistics of the triggers alone. ``"mixed"``: train mode,
statistics of triggers and clean samples together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Student:
    """State of a simulated thief; every tensor is detached, and no function here writes to one.

    Attributes:
        parameters: what theft changes, by name.
        frozen: parameters that the thief holds fixed (``requires_grad`` was off), by name.
        buffers: running statistics and the like, by name.
    """

    parameters: Mapping[str, Tensor]
    frozen: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
@checked
class Thief:
    """A simulated thief between two steps of theft.

    Attributes:
        skeleton: structure of its model, from inputs ``[N, ...]`` to logits ``[N, C]``; not changed; may be the teacher itself.
        student: state of its model.
        rate: its learning rate α > 0.
        loss: what it minimises; KL(p_T || p_S) by default.
        training: whether it distils in train mode, where BatchNorm uses and learns batch statistics.
        trigger_mode: how it runs on triggers.
        derivative: how the derivative of its logits is taken. ``"auto"`` is forward mode, or else ``"difference"``;
            :func:`heirmark.rehearsal.choose_derivative`, called once, spares every step the attempt.

    Raises:
        BadConfig: for an option out of range.
    """

    skeleton: nn.Module
    student: Student
    rate: Annotated[float, above(0)]
    loss: LogitLoss = field(default=DistillationLoss())
    training: bool = True
    trigger_mode: TriggerMode = "eval"
    derivative: Derivative | Literal["auto"] = "auto"

    def theft_mode(self, mode: PassMode) -> PassMode:
        """How its model runs while it distils; the directional derivative has to be taken in the same mode."""
        # Fused attention draws its dropout mask in its own way. Forward mode needs the plain implementation, so a student
        # with dropout distils with that one too: otherwise the two passes would see different masks.
        return replace(mode, training=self.training, math_attention=self.training and draws(self.skeleton))


@dataclass(frozen=True, kw_only=True, eq=False)
class SimulatedTheft:
    """One simulated step of model extraction.

    Attributes:
        thief: after the step.
        logits: ``[N, C]`` answers of the thief before the step, detached.
        loss: L_KD before the step, a scalar.
    """

    thief: Thief
    logits: Tensor
    loss: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class TransferLoss:
    """How much of the mark a thief carries.

    Attributes:
        loss: L_wm, mean cross-entropy on the triggers, a scalar.
        gradient: v, its gradient by parameter name.
        hit_rate: share of triggers answered as the mark wants, in [0, 1], a scalar; NaN where the loss is no cross-entropy.
    """

    loss: Tensor
    gradient: Tensors
    hit_rate: Tensor


def student_state(module: nn.Module) -> Student:
    """Copy a module's tensors into a state; the module is then only needed as a skeleton.

    Args:
        module: any module from inputs ``[N, ...]`` to logits ``[N, C]``.

    Returns:
        The state. Parameters with ``requires_grad`` off are ones the thief does not train.

    Raises:
        BadConfig: when no parameter requires a gradient.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not trained:
        raise BadConfig("the student has no parameter that requires a gradient: unfreeze what the thief is to train")
    return Student(
        parameters=copies(trained),
        frozen=copies({name: p for name, p in module.named_parameters() if name not in trained}),
        buffers=copies(dict(module.named_buffers())),
    )


def student_module(skeleton: nn.Module, student: Student) -> nn.Module:
    """A module of its own that holds copies of a student's state, to evaluate or save."""
    module = copied(skeleton)
    tensors = {**student.parameters, **student.frozen, **student.buffers}
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            tensor.copy_(tensors[name])
    return module


def simulate_theft(
    thief: Thief, teacher_logits: Tensor, inputs: Tensor, *, mode: PassMode = PassMode(), micro_batch: int = 0
) -> SimulatedTheft:
    """One SGD step of distillation: θ_S' = θ_S - α ∇ L_KD (T2S, arXiv 2606.11698, eq. 2-3).

    Args:
        thief: before the step; it is not changed.
        teacher_logits: ``[N, C]``.
        inputs: ``[N, ...]``.
        mode: seed of random layers (the same one draws the same masks) and precision; in train or eval mode runs what the thief
            says.
        micro_batch: examples at a time; 0 takes all at once.

    Returns:
        The step.

    Raises:
        ShapeMismatch: when inputs, teacher logits and student logits do not fit each other.
    """
    mode, student = thief.theft_mode(mode), thief.student
    if len(teacher_logits) != len(inputs):
        raise ShapeMismatch(f"{len(teacher_logits)} teacher logits for {len(inputs)} inputs: give one row an input")
    buffers = copies(student.buffers)
    wanted = leaves(student.parameters)
    total: Tensors = {}
    value, answers = torch.zeros((), device=inputs.device), []
    pairs = zip(chunks(inputs, micro_batch), chunks(teacher_logits, micro_batch), strict=True)
    for index, (chunk, target) in enumerate(pairs):
        with torch.enable_grad():
            logits = run(thief.skeleton, {**wanted, **student.frozen}, buffers, chunk, mode.part("theft", index))
        if logits.shape != target.shape:
            raise ShapeMismatch(
                f"the teacher answers {target.shape[1]} classes and the student {logits.shape[1]}: "
                "build both for the same classes"
            )
        weight = len(chunk) / len(inputs)
        part, slope = student_slope(thief.loss, target, logits)
        value = value + weight * part
        answers.append(logits.detach())
        total = accumulate(total, gradients(logits, wanted, weight * slope))
        del logits  # the graph must be gone before the next chunk builds its own
    # Gradients are dropped one by one as they are used, so the step costs one tensor of extra memory.
    stepped = {name: torch.add(old, total.pop(name), alpha=-thief.rate) for name, old in student.parameters.items()}
    after = replace(thief, student=Student(parameters=stepped, frozen=student.frozen, buffers=buffers))
    return SimulatedTheft(thief=after, logits=torch.cat(answers), loss=value)


def transfer_loss(
    thief: Thief,
    mark: Samples,
    *,
    clean: Tensor | None = None,
    mode: PassMode = PassMode(),
    micro_batch: int = 0,
    loss: TargetLoss = F.cross_entropy,
) -> TransferLoss:
    """Watermark loss of a thief and its gradient (T2S, arXiv 2606.11698, eq. 4).

    Args:
        thief: it is not changed, running statistics included; says in which mode it runs on triggers.
        mark: triggers ``[M, ...]``, and what the mark wants of them.
        clean: ``[N, ...]``, for the trigger mode ``"mixed"``.
        mode: seed of random layers, and precision.
        micro_batch: examples at a time; 0 takes all at once.
        loss: between what the thief says to triggers and what the mark wants.

    Returns:
        Loss, gradient and hit rate.

    Raises:
        BadConfig: for ``"mixed"`` without clean inputs.
        ShapeMismatch: for no triggers, or a count of targets that differs.
    """
    if thief.trigger_mode == "mixed" and clean is None:
        raise BadConfig("the trigger mode mixed needs clean inputs: pass clean, or choose eval")
    check_answered("triggers", mark)
    student, company = thief.student, clean if thief.trigger_mode == "mixed" else None
    mode = replace(mode, training=thief.trigger_mode != "eval", math_attention=False)
    wanted, buffers = leaves(student.parameters), copies(student.buffers)
    whole = len(mark) if company is None else len(mark) + len(company)
    count = min(math.ceil(whole / micro_batch), len(mark)) if micro_batch else 1
    others = [None] * count if company is None else company.tensor_split(count)
    value, hits = (torch.zeros((), device=mark.inputs.device) for _ in range(2))
    total: Tensors = {}
    parts = zip(mark.inputs.tensor_split(count), mark.targets.tensor_split(count), others, strict=True)
    for index, (batch, wish, other) in enumerate(parts):
        inputs = batch if other is None else join([batch, other])
        with torch.enable_grad():
            parameters = {**wanted, **student.frozen}
            logits = run(thief.skeleton, parameters, buffers, inputs, mode.part("transfer", index))[: len(batch)]
            part = loss(logits, wish) * (len(batch) / len(mark))
        hits += (logits.detach().argmax(dim=1) == wish).sum() if loss is F.cross_entropy else torch.nan
        value = value + part.detach()
        total = accumulate(total, gradients(part, wanted, torch.ones_like(part)))
        del logits, part
    return TransferLoss(loss=value, gradient=total, hit_rate=hits / len(mark))
