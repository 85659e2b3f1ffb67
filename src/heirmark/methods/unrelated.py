"""Unrelated watermarks: images of another task (Zhang et al., AsiaCCS 2018, section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from heirmark.methods.base import Marked, Prepared, check_counts, mark, train_watermarked
from heirmark.methods.key_filter import KeyFilter
from heirmark.models import Architecture, architecture
from heirmark.runtime import Runtime
from heirmark.task import Task
from heirmark.training import Recipe
from heirmark.triggers import AnyTrigger, OutOfDistribution


@dataclass(frozen=True, kw_only=True)
class Unrelated:
    """Images of another task, all labelled with one target ("Protecting intellectual property of DNNs with watermarking").

    Joint training on clean and trigger samples.

    Attributes:
        model: architecture.
        trigger: kind of trigger; the paper took MNIST's ones for CIFAR-10. AbstractImages need no other data.
        triggers: trigger samples that train (inferred).
        key_size: held-out trigger samples in the key.
        pretraining: of the clean and of the marked model; T2S', so that the methods compare (inferred).
        trigger_batch: trigger samples that join each batch (inferred).
        key_filter: DeepTracer's filter of the key; not of this method.
    """

    model: Architecture = architecture("resnet18")
    trigger: AnyTrigger = field(default=OutOfDistribution(dataset="mnist"))
    triggers: int = 500
    key_size: int = 500
    pretraining: Recipe = field(default=Recipe())
    trigger_batch: int = 32
    key_filter: KeyFilter | None = None

    def __post_init__(self) -> None:
        check_counts(triggers=self.triggers, key_size=self.key_size, trigger_batch=self.trigger_batch)

    def __call__(
        self, task: Task, *, seed: int | None, runtime: Runtime | None = None, clean: nn.Module | None = None
    ) -> Marked:
        """Embed; see :class:`heirmark.methods.base.Method`."""
        return mark(self, self.embed, "unrelated", task, seed=seed, runtime=runtime, clean=clean)

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
