"""No watermark: the control arm. Its key is drawn as a marked model's is, so every false-positive figure falls out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from heirmark.methods.base import Marked, draw_verification, key_from, settle, spec_for, start_from, train_clean
from heirmark.models import Architecture, architecture
from heirmark.runtime import Runtime, drawn_seed
from heirmark.task import Task
from heirmark.training import Recipe
from heirmark.triggers import AnyTrigger, Feature


@dataclass(frozen=True, kw_only=True)
class Unmarked:
    """Train on clean data only.

    Attributes:
        model: architecture.
        pretraining: how it is trained; T2S' pre-training.
        trigger: of the key that is drawn for it.
        key_size: held-out trigger samples in that key.
        data: whose images it learns from; ``"adversary"`` makes an independent competitor of the owner's model.
    """

    model: Architecture = architecture("resnet18")
    pretraining: Recipe = field(default=Recipe())
    trigger: AnyTrigger = field(default=Feature())
    key_size: int = 500
    data: Literal["owner", "adversary"] = "owner"

    def __call__(
        self, task: Task, *, seed: int | None, runtime: Runtime | None = None, clean: nn.Module | None = None
    ) -> Marked:
        """Train; see :class:`heirmark.methods.base.Method`."""
        seed, runtime = drawn_seed(seed), runtime or Runtime()
        if clean is None:
            data = task.owner if self.data == "owner" else task.adversary
            clean = train_clean(task, self.model, self.pretraining, seed=seed, runtime=runtime, data=data)
        secret = settle(self.trigger, task, clean, seed=seed, runtime=runtime)
        held_out = draw_verification(secret, task, self.key_size, seed=seed)
        return Marked(
            model=start_from(clean, task, self.model).eval(),  # a model that was handed in stays the caller's
            spec=spec_for(task, self.model),
            key=key_from(held_out, secret, task, method="unmarked", seed=seed),
            training_triggers=None,
            verification_triggers=held_out,
        )
