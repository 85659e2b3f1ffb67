"""StolenEncoder: Stealing Pre-trained Encoders in Self-supervised Learning (Liu et al., CCS 2022, arXiv 2201.05889)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.attacks.extraction.imitating import OfEncoder
from heirmark.configuration import at_least
from heirmark.models import Net
from heirmark.querying.blackbox import BlackBox
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.storing import decode
from heirmark.tasks.task import Split
from heirmark.training.fitting import Recipe
from heirmark.training.views import Views

STOLEN_ENCODER = Recipe(
    epochs=100, batch_size=256, learning_rate=0.256, momentum=0.9, weight_decay=2e-6, schedule="constant"
)
"""SGD, batch and momentum of the authors' public code, which adds distances up over a batch of 256 where this takes the mean:
so its rate of 1e-3 is 256 times as high here, and its weight decay of 5e-4 as much lower. Its epochs go to 1,000."""


@dataclass(frozen=True, kw_only=True)
class StolenEncoder(OfEncoder):
    """Ask once about each image, and take the answer for that of its augmented versions too, since encoders hardly see these.

    The loss is L1 + λ L2: the Euclidean distance of normalised features for the image, and its mean over augmented versions.

    Attributes:
        model: architecture of the copy.
        recipe: how the copy is trained; see :data:`STOLEN_ENCODER`.
        queries: how many images are asked about; None asks about all.
        weight: λ; 9 in the authors' code.
        versions: augmented versions of each image a step; 9 in the authors' code, each of which takes as long as the image.
        views: how they are made; as the authors' code, by mirror images, colour and grey, and without crops.
    """

    title: ClassVar[str] = "StolenEncoder"

    recipe: Recipe = field(default=STOLEN_ENCODER)
    weight: Annotated[float, at_least(0)] = 9.0
    versions: Annotated[int, at_least(1)] = 9
    views: Views = field(default=Views(least=1.0))

    def loss(self, own: Tensor, wanted: Tensor) -> Tensor:
        """L1 + λ L2 of features ``[(1 + versions) B, D]``, first those of the images, and of the victim's ``[B, D]``."""
        sets = F.normalize(own, dim=1).reshape(1 + self.versions, *wanted.shape)
        distances: Tensor = torch.linalg.vector_norm(sets - F.normalize(wanted, dim=1), dim=2).mean(1)
        return distances[0] + self.weight * distances[1:].mean()

    def steal(self, box: BlackBox, data: Split, *, seed: int, runtime: Runtime) -> Net:
        """Ask, then train; see :class:`heirmark.attacks.base.Extraction`."""
        inputs = data.subset(self.draw(data, seed=seed)).inputs
        self.views(inputs[:1], torch.Generator())  # refuses inputs that have no views before anything is asked
        features = box.features(inputs)[None]
        net = self.fresh_copy(box, data, seed=derive_seed(seed, "copy"))

        def shown(images: Tensor, generator: torch.Generator) -> Tensor:
            return torch.cat([decode(images), *(self.views(images, generator) for _ in range(self.versions))])

        return self.imitate(net, inputs, features, shown=shown, loss=self.loss, seed=seed, runtime=runtime)
