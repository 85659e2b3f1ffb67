"""Vanilla watermark: joint training on clean and trigger samples (T2S, eq. 1), which extraction sheds."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from heirmark.errors import BadConfig
from heirmark.methods.base import (
    Marked,
    draw_training,
    draw_verification,
    key_from,
    settle,
    spec_for,
    train_clean,
    train_watermarked,
)
from heirmark.models import Architecture
from heirmark.runtime import Runtime
from heirmark.task import Task
from heirmark.training import Recipe
from heirmark.triggers import AnyTrigger, Feature


@dataclass(frozen=True, kw_only=True)
class Vanilla:
    """Joint training, no rehearsal: "w/o rehearsal" of T2S, Table VII.

    Attributes:
        model: architecture.
        trigger: kind of trigger.
        triggers: trigger samples that train; 500 in the paper.
        key_size: held-out trigger samples in the key.
        pretraining: how it is trained.
        trigger_batch: trigger samples that join each batch (inferred).
    """

    model: Architecture = "resnet18"
    trigger: AnyTrigger = field(default=Feature())
    triggers: int = 500
    key_size: int = 500
    pretraining: Recipe = field(default=Recipe())
    trigger_batch: int = 64

    def __post_init__(self) -> None:
        if min(self.triggers, self.key_size, self.trigger_batch) < 1:
            raise BadConfig(f"triggers, key_size and trigger_batch must be positive: {self}")

    def __call__(
        self, task: Task, *, seed: int, runtime: Runtime | None = None, clean: nn.Module | None = None
    ) -> Marked:
        """Embed; see :class:`heirmark.methods.base.Method`."""
        runtime = runtime or Runtime()
        if clean is None:
            clean = train_clean(task, self.model, self.pretraining, seed=seed, runtime=runtime)
        secret = settle(self.trigger, task, clean, seed=seed, runtime=runtime)
        training = draw_training(secret, task, self.triggers, seed=seed)
        model = train_watermarked(
            task, self.model, self.pretraining, training, self.trigger_batch, seed=seed, runtime=runtime
        )
        held_out = draw_verification(secret, task, self.key_size, seed=seed)
        return Marked(
            model=model,
            spec=spec_for(task, self.model),
            key=key_from(held_out, secret, task, method="vanilla", seed=seed, trained=training),
            training_triggers=training,
            verification_triggers=held_out,
        )
