"""A target that is asked by simulated thieves, and the way back through it: one backward pass for what they want of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.errors import BadConfig, ShapeMismatch
from heirmark.rehearsal.losses import TargetLoss, target_slope
from heirmark.rehearsal.passes import Memory, PassMode, Tensors, accumulate, chunks, copies, gradients, leaves, run
from heirmark.runtime import derive_seed
from heirmark.training.samples import Samples, check_answered

APART = ((1.0, 0.0), (0.0, 1.0))
"""Weights that ask for both gradients, each alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a step of any thief found out for the target; nothing has been changed yet.

    Scalars are tensors on the device of the inputs, so that reading them is the caller's choice of when to wait.

    Attributes:
        gradients: one for each pair (a, b) of weights: a g_h + b g_c by parameter name, with the hypergradient g_h = ∂L_wm/∂θ_T
            through the thief, and the utility gradient g_c = ∂L_cls/∂θ_T.
        teacher_buffers: the teacher's buffers after its one pass over the utility's samples, for
            :func:`heirmark.rehearsal.assign`.
        watermark_loss: L_wm of the thief after its theft.
        utility_loss: L_cls of the teacher.
    """

    gradients: tuple[Tensors, ...]
    teacher_buffers: Tensors
    watermark_loss: Tensor
    utility_loss: Tensor


class Asking:
    """A teacher that is asked once, and differentiated once."""

    def __init__(
        self,
        teacher: nn.Module,
        utility: Samples,
        asked: Tensor | None,
        *,
        mode: PassMode,
        memory: Memory,
        loss: TargetLoss = F.cross_entropy,
    ) -> None:
        """Ask; for arguments and errors see :func:`heirmark.rehearsal.rehearsal_step`, whose ``utility_loss`` is ``loss``."""
        check_answered("inputs", utility)
        self.loss = loss
        self.teacher, self.utility, self.mode, self.memory = teacher, utility, mode, memory
        self.wanted = leaves({name: p for name, p in teacher.named_parameters() if p.requires_grad})
        if not self.wanted:
            raise BadConfig("the teacher has no parameter that requires a gradient: unfreeze what the mark may change")
        self.parameters = {**{name: p.detach() for name, p in teacher.named_parameters()}, **self.wanted}
        self.buffers = copies(dict(teacher.named_buffers()))
        self.own = asked is None
        self.queries = utility.inputs if asked is None else asked
        if asked is None:
            self.answers = self._answers(self.queries, mode, self.buffers)
        else:
            self.answers = self._answers(self.queries, replace(mode, training=False), copies(self.buffers))
        self.logits = self.answers.logits
        self.check("labels", utility.targets)

    def check(self, what: str, targets: Tensor) -> None:
        """Refuse targets ``[N]`` that are no class of the teacher's."""
        check_classes(what, targets, self.logits.shape[1])

    def _answers(self, inputs: Tensor, mode: PassMode, buffers: Tensors) -> _Answers:
        return _Answers(self.teacher, self.parameters, buffers, inputs, mode, self.memory)

    def back(
        self, cotangent: Tensor, weights: Sequence[tuple[float, float]] = APART
    ) -> tuple[tuple[Tensors, ...], Tensor]:
        """The gradients that were asked for, and the utility's loss; only once.

        Args:
            cotangent: ``[Q, C]``, the gradient of L_wm for the logits.
            weights: see :class:`Outcome`.
        """
        utility, mode = self.utility, self.mode
        if self.own:
            loss, slope = target_slope(self.logits, utility.targets, self.loss)
            return tuple(self.answers.back(self.wanted, [a * cotangent + b * slope for a, b in weights])), loss
        (hypergradient,) = self.answers.back(self.wanted, [cotangent])
        other = mode if mode.seed is None else replace(mode, seed=derive_seed(mode.seed, "utility"))
        answers = self._answers(utility.inputs, other, self.buffers)
        loss, slope = target_slope(answers.logits, utility.targets, self.loss)
        (gradient,) = answers.back(self.wanted, [slope])
        found = tuple({name: _sum(g, gradient[name], a, b) for name, g in hypergradient.items()} for a, b in weights)
        return found, loss


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
