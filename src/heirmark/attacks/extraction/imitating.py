"""What thieves of encoders share: questions about features, and training with a loss between the victim's and the copy's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from heirmark.attacks.extraction.learning import OfPool
from heirmark.models import Net
from heirmark.querying.blackbox import AnswerKind
from heirmark.runtime import Runtime, derive_seed
from heirmark.training.batches import Batches
from heirmark.training.fitting import descend
from heirmark.training.steps import backward

Shown = Callable[[Tensor, torch.Generator], Tensor]
"""What a copy is shown of a batch ``[B, ...]``: as many inputs, or several for each, one set after another."""


@dataclass(frozen=True, kw_only=True)
class OfEncoder(OfPool):
    """An attack on an encoder: the box shows features ``[N, D]``, and the copy gives as many."""

    of_encoders: ClassVar[bool] = True
    shown: ClassVar[tuple[AnswerKind, ...]] = ("features",)

    def imitate(
        self,
        net: Net,
        inputs: Tensor,
        features: Tensor,
        *,
        shown: Shown,
        loss: Callable[[Tensor, Tensor], Tensor],
        seed: int,
        runtime: Runtime,
    ) -> Net:
        """Train a copy, which is left in eval mode.

        Args:
            net: the copy as it starts.
            inputs: ``[N, ...]`` as they are stored.
            features: ``[V, N, D]`` what the victim gave of V views of each input; one of them is drawn every step.
            shown: what the copy is shown.
            loss: called with what the copy gives of it and ``[B, D]`` of the victim's; gives a scalar.
            seed: of the order of batches, of what is shown and of dropout.
            runtime: device, precision, progress.

        Raises:
            BadData: when the loss is no longer finite.
        """
        device = runtime.torch_device
        batches, told, run = Batches(inputs, device), features.to(device), runtime.compiled(net.model)

        def draw(chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
            images = shown(batches[chosen], generator)
            return images, told[int(torch.randint(len(told), (1,), generator=generator)), chosen]

        def batch_loss(images: Tensor, wanted: Tensor) -> Mapping[str, Tensor]:
            with runtime.autocast():
                own = run(images)
            return {"loss": loss(own.float(), wanted)}

        descend(
            net.model,
            len(inputs),
            draw,
            backward(net.model, batch_loss),
            batches=batches,
            recipe=self.recipe,
            seed=derive_seed(seed, "training"),
            runtime=runtime,
            description="stealing",
        )
        return net
