"""Vanilla watermark: joint training on clean and trigger samples (T2S, eq. 1), which extraction sheds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from heirmark.errors import BadConfig
from heirmark.methods.base import Prepared, train_watermarked
from heirmark.methods.watermark import Watermark
from heirmark.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class Vanilla(Watermark):
    """Joint training, no rehearsal: "w/o rehearsal" of T2S, Table VII.

    Attributes:
        triggers: trigger samples that train; 500 in the paper.
        pretraining: how it is trained.
        trigger_batch: trigger samples that join each batch (inferred).
    """

    name: ClassVar[str] = "vanilla"

    trigger_batch: int = 64

    def __post_init__(self) -> None:
        if min(self.triggers, self.key_size, self.trigger_batch) < 1:
            raise BadConfig(f"triggers, key_size and trigger_batch must be positive: {self}")

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
