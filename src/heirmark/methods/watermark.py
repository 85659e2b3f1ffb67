"""What all marking methods have, and what they do around their embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from heirmark.methods.base import Marked, Prepared, check_counts, mark
from heirmark.methods.key_filter import KeyFilter
from heirmark.models import Architecture, architecture
from heirmark.runtime import Runtime
from heirmark.task import Task
from heirmark.training import Recipe
from heirmark.triggers import AnyTrigger, Feature


@dataclass(frozen=True, kw_only=True)
class Watermark:
    """A marking method. One writes ``embed``, a name, and those fields whose defaults are its paper's own.

    Attributes:
        model: architecture.
        trigger: kind of trigger.
        triggers: trigger samples that train.
        key_size: held-out trigger samples in the key.
        pretraining: of the clean model.
        key_filter: DeepTracer's filter of the key; of other methods it is no part.
    """

    name: ClassVar[str]

    model: Architecture = architecture("resnet18")
    trigger: AnyTrigger = field(default=Feature())
    triggers: int = 500
    key_size: int = 500
    pretraining: Recipe = field(default=Recipe())
    key_filter: KeyFilter | None = None

    def __post_init__(self) -> None:
        check_counts(triggers=self.triggers, key_size=self.key_size)

    def __call__(
        self, task: Task, *, seed: int | None, runtime: Runtime | None = None, clean: nn.Module | None = None
    ) -> Marked:
        """Embed; see :class:`heirmark.methods.base.Method`."""
        return mark(self, self.embed, self.name, task, seed=seed, runtime=runtime, clean=clean)

    def embed(
        self, prepared: Prepared, *, seed: int, runtime: Runtime
    ) -> tuple[nn.Module, tuple[Mapping[str, float], ...]]:
        """The heart of the method; see :class:`heirmark.methods.base.Embed`."""
        raise NotImplementedError(f"{type(self).__name__} has no embed()")
