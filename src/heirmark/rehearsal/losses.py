"""Distillation losses between two sets of logits, and the derivatives of them that a rehearsal needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.configuration import above, checked
from heirmark.errors import ShapeMismatch

LogitLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""``loss(teacher_logits, student_logits)``, both ``[N, C]``: the mean over the batch; twice differentiable."""
TargetLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""``loss(outputs, targets)`` of outputs ``[N, C]``, a mean: cross-entropy for classifiers, and of features what suits them."""


@dataclass(frozen=True, kw_only=True)
@checked
class DistillationLoss:
    """What a simulated thief minimises, as a mean over the batch.

    Kinds, with p = softmax(z / temperature):

    - ``"kl"``: KL(p_T || p_S), the default; with temperature 1 it is the L_KD of T2S (arXiv 2606.11698, eq. 2).
    - ``"reverse-kl"``: KL(p_S || p_T).
    - ``"cross-entropy"``: -<p_T, log p_S>. For the student the same gradient as ``"kl"``, hence the same hypergradient.
    - ``"label"``: cross-entropy of the student (at temperature 1) on the teacher's argmax. A label has no gradient, so
      the teacher's side is a straight-through estimate: the loss is the hard-label one in value and for the student,
      and for the teacher it is differentiated as if the one-hot label were softmax(z_T / temperature).
    - ``"mse"``: squared distance of the logits, mean over classes; the temperature takes no part.

    No factor T^2 is applied: Hinton's factor keeps the size of the gradient when T changes, and here the step size
    ``rate`` of the thief does that openly. Multiply it by T^2 to have it.

    Attributes:
        kind: as listed above; "kl" is the paper's.
        temperature: that both sides' logits are divided by; "mse" takes none, and "label" on the teacher's side alone.

    Raises:
        BadConfig: for an unknown kind or a temperature that is not positive.

    >>> DistillationLoss()(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 1.0]])).item()
    0.0
    """

    kind: Literal["kl", "reverse-kl", "cross-entropy", "label", "mse"] = "kl"
    temperature: Annotated[float, above(0)] = 1.0

    def __call__(self, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        """Loss of ``[N, C]`` student logits against ``[N, C]`` teacher logits: a scalar."""
        if self.kind == "mse":
            return (student_logits - teacher_logits).square().mean()
        log_teacher = F.log_softmax(teacher_logits / self.temperature, dim=1)
        if self.kind == "label":
            soft = log_teacher.exp()
            hard = F.one_hot(teacher_logits.argmax(dim=1), teacher_logits.shape[1]).to(soft.dtype)
            straight_through = hard + (soft - soft.detach())
            return -(straight_through * F.log_softmax(student_logits, dim=1)).sum(dim=1).mean()
        log_student = F.log_softmax(student_logits / self.temperature, dim=1)
        if self.kind == "kl":
            return (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1).mean()
        if self.kind == "reverse-kl":
            return (log_student.exp() * (log_student - log_teacher)).sum(dim=1).mean()
        return -(log_teacher.exp() * log_student).sum(dim=1).mean()


def student_slope(loss: LogitLoss, teacher_logits: Tensor, student_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Value of a distillation loss, a scalar, and its gradient ∂loss/∂z_S ``[N, C]``, both without a graph."""
    value, slope, _ = _logit_graph(loss, teacher_logits, student_logits)
    return value.detach(), slope.detach()


def teacher_cotangent(loss: LogitLoss, teacher_logits: Tensor, student_logits: Tensor, direction: Tensor) -> Tensor:
    """How the pull on the student along a direction changes with the teacher's logits: ∂/∂z_T <∂loss/∂z_S, u>.

    The one place where a derivative is differentiated again, and it lives on ``[N, C]`` logits only; u is held fixed. Zero where
    the loss does not mix the two sides.
    """
    _, slope, teacher = _logit_graph(loss, teacher_logits, student_logits)
    if not slope.requires_grad:
        return torch.zeros_like(teacher)
    (result,) = torch.autograd.grad(slope, teacher, direction, allow_unused=True)
    return torch.zeros_like(teacher) if result is None else result


def target_slope(logits: Tensor, targets: Tensor, loss: TargetLoss = F.cross_entropy) -> tuple[Tensor, Tensor]:
    """A loss, a scalar, and its gradient for the logits, or features, ``[N, C]``, both without a graph."""
    leaf = logits.detach().requires_grad_()
    with torch.enable_grad(), torch.autocast(leaf.device.type, enabled=False):
        value = loss(leaf, targets)
        (slope,) = torch.autograd.grad(value, leaf)
    return value.detach(), slope


def _logit_graph(loss: LogitLoss, teacher_logits: Tensor, student_logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scalar loss, its gradient for the student's logits with a graph back to the teacher's, and the latter's leaf."""
    teacher = teacher_logits.detach().requires_grad_()
    student = student_logits.detach().requires_grad_()
    # Logits are tiny: full precision costs nothing here, and a softmax in bfloat16 would cost the result.
    with torch.enable_grad(), torch.autocast(teacher.device.type, enabled=False):
        value = loss(teacher, student)
        if value.ndim != 0:
            raise ShapeMismatch(
                f"the distillation loss returned shape {tuple(value.shape)}: return the mean over the batch, a scalar"
            )
        (slope,) = torch.autograd.grad(value, student, create_graph=True)
    return value, slope, teacher
