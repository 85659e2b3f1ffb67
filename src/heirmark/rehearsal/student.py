"""The simulated thief: explicit state, one step of theft, and how well the mark came over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.errors import BadConfig, ShapeMismatch
from heirmark.layout import copied
from heirmark.rehearsal.combine import norm
from heirmark.rehearsal.losses import Distillation, DistillationLoss, pull
from heirmark.rehearsal.passes import Manner, Tensors, accumulate, copies, gradients, leaves, run
from heirmark.runtime import Runtime
from heirmark.space import join

TriggerMode: TypeAlias = Literal["eval", "train", "mixed"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Student:
    """State of a simulated thief; every tensor is detached and never written to.

    Attributes:
        parameters: what theft changes, by name.
        frozen: parameters that the thief holds fixed (``requires_grad`` was off), by name.
        buffers: running statistics and the like, by name.
    """

    parameters: Mapping[str, Tensor]
    frozen: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Theft:
    """One simulated step of model extraction.

    Attributes:
        student: the thief after the step.
        logits: ``[N, C]`` answers of the thief before the step, detached.
        loss: L_KD before the step, a scalar.
        gradient_norm: norm of its gradient for the thief's parameters, a scalar.
    """

    student: Student
    logits: Tensor
    loss: Tensor
    gradient_norm: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Transfer:
    """How much of the mark a thief carries.

    Attributes:
        loss: L_wm, mean cross-entropy on the triggers, a scalar.
        gradient: v, its gradient by parameter name.
        hit_rate: share of triggers answered as the mark wants, in [0, 1], a scalar.
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
    skeleton: nn.Module,
    student: Student,
    teacher_logits: Tensor,
    inputs: Tensor,
    *,
    loss: Distillation | None = None,
    lr: float,
    training: bool = True,
    micro_batch: int | None = None,
    seed: int = 0,
    runtime: Runtime | None = None,
) -> Theft:
    """One SGD step of distillation: θ_S' = θ_S - α ∇ L_KD (T2S, arXiv 2606.11698, eq. 2-3).

    Args:
        skeleton: the student's structure; it is not changed.
        student: state before the step; it is not changed.
        teacher_logits: ``[N, C]``.
        inputs: ``[N, ...]``.
        loss: distillation loss; KL(p_T || p_S) by default.
        lr: α > 0.
        training: train mode, where BatchNorm uses and learns batch statistics, or eval mode.
        micro_batch: examples at a time; ``None`` takes all at once.
        seed: of random layers; the same seed draws the same masks.
        runtime: autocast to run under; ``None`` leaves the caller's own.

    Returns:
        The step.

    Raises:
        ShapeMismatch: when inputs, teacher logits and student logits do not fit each other.
    """
    loss = loss or DistillationLoss()
    manner = theft_manner(skeleton, training=training, seed=seed, runtime=runtime)
    if len(teacher_logits) != len(inputs):
        raise ShapeMismatch(f"{len(teacher_logits)} teacher logits for {len(inputs)} inputs: give one row an input")
    buffers = copies(student.buffers)
    wanted = leaves(student.parameters)
    total: Tensors = {}
    value, answers = torch.zeros((), device=inputs.device), []
    pairs = zip(chunks(inputs, micro_batch), chunks(teacher_logits, micro_batch), strict=True)
    for index, (chunk, target) in enumerate(pairs):
        with torch.enable_grad():
            logits = run(skeleton, {**wanted, **student.frozen}, buffers, chunk, manner.part("theft", index))
        if logits.shape != target.shape:
            raise ShapeMismatch(
                f"the teacher answers {target.shape[1]} classes and the student {logits.shape[1]}: "
                "build both for the same classes"
            )
        weight = len(chunk) / len(inputs)
        part, slope = pull(loss, target, logits)
        value = value + weight * part
        answers.append(logits.detach())
        total = accumulate(total, gradients(logits, wanted, weight * slope))
        del logits  # the graph must be gone before the next chunk builds its own
    length = norm(total.values())
    # Gradients are dropped one by one as they are used, so the step costs one tensor of extra memory.
    stepped = {name: torch.add(old, total.pop(name), alpha=-lr) for name, old in student.parameters.items()}
    after = Student(parameters=stepped, frozen=student.frozen, buffers=buffers)
    return Theft(student=after, logits=torch.cat(answers), loss=value, gradient_norm=length)


def transfer_loss(
    skeleton: nn.Module,
    student: Student,
    triggers: Tensor,
    targets: Tensor,
    *,
    mode: TriggerMode = "eval",
    clean: Tensor | None = None,
    micro_batch: int | None = None,
    seed: int = 0,
    runtime: Runtime | None = None,
) -> Transfer:
    """Watermark loss of a student and its gradient (T2S, arXiv 2606.11698, eq. 4).

    Args:
        skeleton: the student's structure; it is not changed.
        student: state; it is not changed, running statistics included.
        triggers: ``[M, ...]``.
        targets: ``[M]`` int64, the answers that the mark wants.
        mode: ``"eval"`` (as a verifier meets a model), ``"train"`` (BatchNorm statistics of the triggers alone), or
            ``"mixed"`` (train mode, statistics of triggers and ``clean`` together).
        clean: ``[N, ...]``, for ``"mixed"`` only.
        micro_batch: examples at a time; ``None`` takes all at once.
        seed: of random layers.
        runtime: autocast to run under; ``None`` leaves the caller's own.

    Returns:
        Loss, gradient and hit rate.

    Raises:
        BadConfig: for an unknown mode, or ``"mixed"`` without clean inputs.
        ShapeMismatch: for no triggers, or a count of targets that differs.
    """
    if mode not in ("eval", "train", "mixed"):
        raise BadConfig(f"unknown trigger mode {mode!r}: choose eval, train or mixed")
    if mode == "mixed" and clean is None:
        raise BadConfig("the trigger mode mixed needs clean inputs: pass clean, or choose eval")
    if len(triggers) == 0 or len(triggers) != len(targets):
        raise ShapeMismatch(
            f"{len(triggers)} triggers with {len(targets)} targets: give at least one, and one target each"
        )
    company = clean if mode == "mixed" else None
    manner = Manner(training=mode != "eval", seed=seed, runtime=runtime)
    wanted, buffers = leaves(student.parameters), copies(student.buffers)
    count = -(-(len(triggers) + (0 if company is None else len(company))) // micro_batch) if micro_batch else 1
    count = min(count, len(triggers))
    others = [None] * count if company is None else list(company.tensor_split(count))
    loss, hits = torch.zeros((), device=triggers.device), torch.zeros((), device=triggers.device)
    total: Tensors = {}
    for index, (batch, wish) in enumerate(zip(triggers.tensor_split(count), targets.tensor_split(count), strict=True)):
        other = others[index]
        inputs = batch if other is None else join([batch, other])
        with torch.enable_grad():
            parameters = {**wanted, **student.frozen}
            logits = run(skeleton, parameters, buffers, inputs, manner.part("transfer", index))[: len(batch)]
            part = F.cross_entropy(logits, wish) * (len(batch) / len(triggers))
        hits += (logits.detach().argmax(dim=1) == wish).sum()
        loss = loss + part.detach()
        total = accumulate(total, gradients(part, wanted, torch.ones_like(part)))
        del logits, part
    return Transfer(loss=loss, gradient=total, hit_rate=hits / len(triggers))


def theft_manner(skeleton: nn.Module, *, training: bool, seed: int, runtime: Runtime | None) -> Manner:
    """How a student runs while it distils; its directional derivative has to run in the same manner."""
    # Fused attention draws its dropout mask in its own way. Forward mode needs the plain implementation, so a student
    # with dropout distils with that one too: otherwise the two passes would see different masks.
    return Manner(training=training, seed=seed, runtime=runtime, math_attention=training and _has_dropout(skeleton))


def _has_dropout(module: nn.Module) -> bool:
    rates = (getattr(part, name, 0.0) for part in module.modules() for name in ("p", "dropout"))
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def chunks(tensor: Tensor, size: int | None) -> tuple[Tensor, ...]:
    """A batch in micro-batches of at most ``size`` examples; whole for ``None``."""
    return torch.split(tensor, size) if size else (tensor,)
