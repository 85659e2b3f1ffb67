"""Can't Steal? Cont-Steal! Contrastive Stealing Attacks Against Image Encoders (Sha et al., CVPR 2023, arXiv 2201.07513)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from heirmark.attacks.extraction.imitating import OfEncoder
from heirmark.configuration import above, at_least
from heirmark.models import Net
from heirmark.querying.blackbox import BlackBox
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.task import Split
from heirmark.training.contrastive import nt_xent
from heirmark.training.fitting import Recipe
from heirmark.training.views import Views

CONT_STEAL = Recipe(
    epochs=100, batch_size=32, optimizer="adam", learning_rate=3e-4, weight_decay=0.0, schedule="constant"
)
"""Optimiser and batch of the authors' public code; epochs are inferred."""


@dataclass(frozen=True, kw_only=True)
class ContSteal(OfEncoder):
    """Draw the copy's features of an image to the victim's of another view of it, and away from those of other images.

    The loss is NT-Xent between the two, as the authors' code has it: features of other images, the victim's and the copy's own,
    are what each is kept from.

    Attributes:
        model: architecture of the copy.
        recipe: how the copy is trained; see :data:`CONT_STEAL`.
        queries: how many images are asked about; None asks about all.
        asked: views of each image that the victim is asked about, each of which is a query. The authors ask about a fresh one
            every epoch: as many as ``recipe.epochs`` do that.
        temperature: τ of NT-Xent; 0.5 in the authors' code.
        views: how they are made.
    """

    title: ClassVar[str] = "Cont-Steal"

    recipe: Recipe = field(default=CONT_STEAL)
    asked: Annotated[int, at_least(1)] = 100
    temperature: Annotated[float, above(0)] = 0.5
    views: Views = field(default=Views())

    def loss(self, own: Tensor, wanted: Tensor) -> Tensor:
        """NT-Xent between features ``[B, D]`` of the copy and of the victim."""
        return nt_xent(own, wanted, temperature=self.temperature)

    def steal(self, box: BlackBox, data: Split, *, seed: int, runtime: Runtime) -> Net:
        """Ask, then train; see :class:`heirmark.attacks.base.Extraction`."""
        inputs = data.subset(self.draw(data, seed=seed)).inputs
        box.require(self.asked * len(inputs))
        generator = generator_of(derive_seed(seed, "views"))
        features = torch.stack([box.features(self.views(inputs, generator)) for _ in range(self.asked)])
        net = self.fresh_copy(box, data, seed=derive_seed(seed, "copy"))
        return self.imitate(net, inputs, features, shown=self.views, loss=self.loss, seed=seed, runtime=runtime)
