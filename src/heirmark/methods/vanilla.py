"""Vanilla watermark: joint training on clean and trigger samples (T2S, eq. 1), which extraction sheds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Self

from heirmark.configuration import at_least
from heirmark.methods.base import Embedded, Prepared
from heirmark.methods.nets import train_from_scratch
from heirmark.methods.scale import Scale
from heirmark.methods.watermark import Watermark
from heirmark.runtime import Runtime
from heirmark.training.fitting import Mixed
from heirmark.triggers import Tiles


@dataclass(frozen=True, kw_only=True)
class Vanilla(Watermark):
    """Joint training, no rehearsal: "w/o rehearsal" of T2S, Table VII.

    Attributes:
        triggers: trigger samples that train; 500 in the paper.
        pretraining: how it is trained.
        trigger_batch: trigger samples that join each batch (inferred).
    """

    name: ClassVar[str] = "vanilla"

    trigger_batch: Annotated[int, at_least(1)] = 64

    @classmethod
    def quick(cls, scale: Scale) -> Self:
        """See :meth:`heirmark.methods.watermark.Method.quick`; joint training alone has T2S' trigger there."""
        made = replace(super().quick(scale), trigger_batch=scale.trigger_batch)
        return replace(made, trigger=Tiles()) if cls is Vanilla else made

    def embed(self, prepared: Prepared, *, seed: int, runtime: Runtime) -> Embedded:
        """Train on everything at once; see :meth:`heirmark.methods.watermark.Watermark.embed`."""
        model = train_from_scratch(
            prepared.task,
            self.model,
            self.pretraining,
            seed=seed,
            runtime=runtime,
            data=prepared.data,
            mixed=Mixed(samples=prepared.training, per_batch=self.trigger_batch),
        )
        return Embedded(model=model)
