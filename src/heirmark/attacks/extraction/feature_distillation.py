"""Distillation of an encoder: learn its features (Hinton, Vinyals, Dean 2015, arXiv 1503.02531, with features for answers)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.attacks.extraction.distillation import DISTILLATION_RECIPE
from heirmark.attacks.extraction.imitating import OfEncoder
from heirmark.models import Net
from heirmark.querying.blackbox import BlackBox
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.task import Split
from heirmark.training.augmenting import augment
from heirmark.training.fitting import Recipe


@dataclass(frozen=True, kw_only=True)
class FeatureDistillation(OfEncoder):
    """Ask once about each image, and train a copy to give the same features.

    MEA-Defender (arXiv 2401.15239) steals encoders by "Hinton et al." in Table 1 and leaves the loss open. Features have no
    temperature: their squared distance is what softened answers come to where the temperature is high.

    Attributes:
        model: architecture of the copy.
        recipe: how the copy is trained; as :class:`~heirmark.attacks.extraction.distillation.Distillation`.
        queries: how many images are asked about; None asks about all.
        distance: ``"mse"``, the squared distance, or ``"cosine"``, which leaves lengths open.
    """

    title: ClassVar[str] = "feature distillation"

    recipe: Recipe = field(default=DISTILLATION_RECIPE)
    distance: Literal["mse", "cosine"] = "mse"

    def loss(self, own: Tensor, wanted: Tensor) -> Tensor:
        """The distance between features ``[B, D]`` of the copy and of the victim, a mean."""
        if self.distance == "mse":
            return F.mse_loss(own, wanted)
        return 1 - F.cosine_similarity(own, wanted).mean()

    def steal(self, box: BlackBox, data: Split, *, seed: int, runtime: Runtime) -> Net:
        """Ask, then train; see :class:`heirmark.attacks.base.Extraction`."""
        inputs = data.subset(self.draw(data, seed=seed)).inputs
        features = box.features(inputs)[None]
        net = self.fresh_copy(box, data, seed=derive_seed(seed, "copy"))

        def shown(images: Tensor, generator: torch.Generator) -> Tensor:
            return augment(images, self.recipe.augment, generator)

        return self.imitate(net, inputs, features, shown=shown, loss=self.loss, seed=seed, runtime=runtime)
