"""How a theft is rehearsed: T2S' settings (arXiv 2606.11698), and what can be set otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from torch import Tensor

from heirmark.configuration import above, at_least, checked
from heirmark.rehearsal.asking import APART, Outcome
from heirmark.rehearsal.closed_form import Closing
from heirmark.rehearsal.combine import combine_balanced, norm
from heirmark.rehearsal.losses import DistillationLoss
from heirmark.rehearsal.passes import Memory
from heirmark.rehearsal.student import Derivative, TriggerMode
from heirmark.training.fitting import Recipe


@dataclass(frozen=True, kw_only=True)
@checked
class Paper:
    """The target's update of the paper: hypergradient and utility gradient, the latter with a weight (eq. 9).

    Attributes:
        utility_weight: λ of eq. 9; 50 on CIFAR-10 and 15 on CIFAR-100.
    """

    utility_weight: Annotated[float, at_least(0)] = 50.0

    @property
    def weights(self) -> tuple[tuple[float, float], ...]:
        """What is asked of :func:`heirmark.rehearsal.rehearsal_step`."""
        return ((1.0, self.utility_weight),)

    def direction(self, step: Outcome) -> dict[str, Tensor]:
        """What the target descends along, by parameter name."""
        return step.gradients[0]


@dataclass(frozen=True, kw_only=True)
@checked
class Balanced:
    """An update that puts utility first: the hypergradient gets a set share of its gradient's length, and never works against it.

    The raw hypergradient can be a thousand times the longer one and points against it, so that λ decides everything and small
    nets collapse.

    Attributes:
        rho: length of the hypergradient over that of the utility gradient.
        enough: trigger loss of the simulated thief below which ρ shrinks in proportion to it; 0 never shrinks it. Scaled to ρ,
            the hypergradient is as long when the thief has the mark already as when it has none, and costs as much accuracy.
        remove_conflict: take out what conflicts with the utility gradient.
    """

    rho: Annotated[float, at_least(0)] = 1.0
    enough: Annotated[float, at_least(0)] = 0.0
    remove_conflict: bool = True

    @property
    def weights(self) -> tuple[tuple[float, float], ...]:
        """What is asked of :func:`heirmark.rehearsal.rehearsal_step`."""
        return APART

    def direction(self, step: Outcome) -> dict[str, Tensor]:
        """What the target descends along, by parameter name."""
        hypergradient, utility_gradient = step.gradients
        length = norm(utility_gradient.values())
        if self.enough:
            length = length * (step.watermark_loss / self.enough).clamp_max(1)
        return combine_balanced(
            hypergradient, utility_gradient, self.rho, remove_conflict=self.remove_conflict, reference=length
        )


@dataclass(frozen=True, kw_only=True)
@checked
class SimulatedThief:
    """The thief that is rehearsed with, or each of them.

    Attributes:
        rate: its learning rate, α (inferred).
        steps: of theft for each of the target's, every one on a batch of its own; only the last is differentiated. One in the
            paper.
        loss: what it minimises; KL(p_T || p_S) at temperature 1 (inferred).
        label_only: further thieves that see labels only (loss ``"label"``). Thieves take turns, step by step.
        reset_every: steps after which a thief starts again from its first state; 0 keeps it, as the paper does.
        trigger_mode: how it runs on triggers: ``"eval"``, as a verifier meets it, ``"train"``, or ``"mixed"`` with the clean
            batch.
        derivative: ``"auto"`` (forward mode where every layer has a rule), ``"forward"``, ``"difference"`` or ``"central"``.
    """

    rate: Annotated[float, above(0)] = 0.05
    steps: Annotated[int, at_least(1)] = 1
    loss: DistillationLoss = field(default=DistillationLoss())
    label_only: Annotated[int, at_least(0)] = 0
    reset_every: Annotated[int, at_least(0)] = 0
    trigger_mode: TriggerMode = "eval"
    derivative: Derivative | Literal["auto"] = "auto"


@dataclass(frozen=True, kw_only=True)
@checked
class Rehearsal:
    """How the theft is rehearsed. The defaults are T2S' own; "(inferred)" marks values its text lost.

    Attributes:
        recipe: of the target: 3 epochs over the owner's data in the paper, all else inferred. Its batches and augmentation serve
            the utility and the theft alike: a target answers images it has learned by heart more surely than those that a real
            thief will show it.
        trigger_batch: trigger samples a step (inferred).
        update: ``paper`` (eq. 9) or ``balanced``.
        thief: that is simulated.
        closed_form: with it, thieves in closed form (:mod:`heirmark.rehearsal.closed_form`) join the pool, one in the features of
            every thief's clean net, and take their turns together; None, as in the paper, leaves them out.
        precision: ``"float32"``, or ``"runtime"`` for the runtime's own.
        memory: how to need less, for big models.
    """

    recipe: Recipe = field(default=Recipe(epochs=3, learning_rate=1e-3, weight_decay=0.0))
    trigger_batch: Annotated[int, at_least(1)] = 64
    update: Paper | Balanced = field(default=Paper())
    thief: SimulatedThief = field(default=SimulatedThief())
    closed_form: Closing | None = None
    precision: Literal["float32", "runtime"] = "float32"
    memory: Memory = field(default=Memory())
