"""Vanilla watermark: joint training on clean and trigger samples (T2S, eq. 1), which extraction sheds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from heirmark.errors import BadConfig
from heirmark.methods.base import Marked, Prepared, mark, train_watermarked
from heirmark.methods.key_filter import KeyFilter
from heirmark.models import Architecture, architecture
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
        key_filter: DeepTracer's filter of the key; not of this method.
    """

    model: Architecture = architecture("resnet18")
    trigger: AnyTrigger = field(default=Feature())
    triggers: int = 500
    key_size: int = 500
    pretraining: Recipe = field(default=Recipe())
    trigger_batch: int = 64
    key_filter: KeyFilter | None = None

    def __post_init__(self) -> None:
        if min(self.triggers, self.key_size, self.trigger_batch) < 1:
            raise BadConfig(f"triggers, key_size and trigger_batch must be positive: {self}")

    def __call__(
        self, task: Task, *, seed: int | None, runtime: Runtime | None = None, clean: nn.Module | None = None
    ) -> Marked:
        """Embed; see :class:`heirmark.methods.base.Method`."""
        return mark(self, self.embed, "vanilla", task, seed=seed, runtime=runtime, clean=clean)

    def embed(
        self, prepared: Prepared, *, seed: int, runtime: Runtime
    ) -> tuple[nn.Module, tuple[Mapping[str, float], ...]]:
        """Train on everything at once; see :class:`heirmark.methods.base.Embed`."""
        model = train_watermarked(
            prepared.task,
            self.model,
            self.pretraining,
            prepared.training,
            self.trigger_batch,
            seed=seed,
            runtime=runtime,
            data=prepared.data,
        )
        return model, ()
