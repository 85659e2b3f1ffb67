"""How large methods are tried where there are minutes: what all of them, and the thief, share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from heirmark.rehearsal.settings import Rehearsal
from heirmark.training.fitting import Recipe

QUICK_ADAM = Recipe(batch_size=128, optimizer="adam", learning_rate=2e-3, weight_decay=0.0)
"""For methods whose losses want their papers' optimiser."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What a method's quick settings are made of.

    Attributes:
        model: architecture of owner, thief and competitor alike.
        recipe: of every training from scratch.
        rehearsal: T2S' second phase: balanced, where the paper's update would cost a small net its accuracy.
        triggers: samples that train.
        key_size: samples that verify.
        trigger_batch: watermark samples that join a batch of joint training.
        joint: recipe of the methods that train several losses at once: their papers' optimiser.
        joint_epochs: of their two phases.
        surrogate_queries: what the surrogate of DeepTracer's key filter asks: ``"owner"`` or ``"foreign"``, as in its paper.
    """

    model: str
    recipe: Recipe
    rehearsal: Rehearsal
    triggers: int = 1000
    key_size: int = 500
    trigger_batch: int = 16
    joint: Recipe = QUICK_ADAM
    joint_epochs: tuple[int, int] = (4, 8)
    surrogate_queries: Literal["owner", "foreign"] = "owner"
