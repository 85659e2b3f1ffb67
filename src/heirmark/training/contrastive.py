"""SimCLR: an encoder learns without labels that two views of one input are alike (Chen et al. 2020, arXiv 2002.05709).

An encoder is a model whose outputs are features ``[N, D]`` in place of logits: any architecture, built for D "classes".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.configuration import above, at_least, checked
from heirmark.querying.layout import takes_stored
from heirmark.runtime import Runtime, derive_seed, seeded
from heirmark.training.batches import Batches
from heirmark.training.fitting import Recipe, descend
from heirmark.training.steps import backward
from heirmark.training.views import Views

__all__ = ["SIMCLR", "Projected", "SimCLR", "nt_xent", "pretrain"]

SIMCLR = Recipe(epochs=100, batch_size=256, optimizer="adam", learning_rate=1e-3, weight_decay=1e-6)
"""Adam in place of the paper's LARS, which is for batches of thousands; weight decay and epochs are its."""


@dataclass(frozen=True, kw_only=True)
@checked
class SimCLR:
    """How an encoder learns without labels.

    Attributes:
        recipe: optimiser and schedule; ``augment`` takes no part, since views are drawn.
        temperature: τ of NT-Xent; 0.5 is the paper's on CIFAR-10.
        projection: outputs of the projection head, which is used in training alone; 128 in the paper.
        views: how they are drawn.
    """

    recipe: Recipe = field(default=SIMCLR)
    temperature: Annotated[float, above(0)] = 0.5
    projection: Annotated[int, at_least(2)] = 128
    views: Views = field(default=Views())

    def pair(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Two views of each of ``[B, ...]`` inputs, first all the first ones: ``[2B, ...]``."""
        return torch.cat([self.views(inputs, generator), self.views(inputs, generator)])

    def loss(self, projected: Tensor) -> Tensor:
        """NT-Xent of what the head makes of :meth:`pair`, ``[2B, P]``."""
        return nt_xent(*projected.chunk(2), temperature=self.temperature)


def nt_xent(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """The normalised temperature-scaled cross-entropy of pairs (arXiv 2002.05709, eq. 1).

    Row i of either side shall be more like row i of the other than like any of the 2B - 2 rows that are left, by cosine.

    Args:
        first: ``[B, P]``, at least two rows.
        second: ``[B, P]``.
        temperature: τ.

    Returns:
        The mean over all 2B rows, a scalar.

    Examples:
        >>> same = torch.eye(2)
        >>> round(nt_xent(same, same, temperature=1.0).item(), 4)  # log(1 + 2/e)
        0.5514
    """
    count = len(first)
    rows = F.normalize(torch.cat([first, second]).float(), dim=1)
    alike = (rows @ rows.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(2 * count, device=rows.device).roll(count)
    return F.cross_entropy(alike, partner)


class Projected(nn.Module):
    """An encoder with a projection head beside it: it gives features, and :attr:`projection` is for the loss alone."""

    def __init__(self, encoder: nn.Module, width: int, projection: int) -> None:
        """Put a head on features ``[N, width]``: a hidden layer of as many, as in the paper."""
        super().__init__()
        self.encoder = encoder
        self.projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, projection))

    @property
    def takes_stored(self) -> bool:
        """Whether the encoder does."""
        return takes_stored(self.encoder)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs ``[B, ...]`` to features ``[B, D]``."""
        features: Tensor = self.encoder(inputs)
        return features


def with_head(encoder: nn.Module, width: int, settings: SimCLR, *, seed: int) -> Projected:
    """An encoder, itself and no copy, with a fresh projection head."""
    with seeded(derive_seed(seed, "projection")):
        return Projected(encoder, width, settings.projection)


def pretrain(
    encoder: nn.Module, inputs: Tensor, *, width: int, settings: SimCLR, seed: int, runtime: Runtime
) -> tuple[Mapping[str, float], ...]:
    """Train an encoder in place, without labels; the global generators are untouched.

    Args:
        encoder: maps ``[B, ...]`` to features ``[B, width]``; left in eval mode.
        inputs: ``[N, ...]`` as they are stored, at least two; images or waves.
        width: D.
        settings: of the training.
        seed: of the head, the order of batches, the views and dropout.
        runtime: device, precision, progress.

    Returns:
        One row an epoch: its number and the mean ``loss``.

    Raises:
        BadConfig: for inputs of which no views are known.
        BadData: when the loss is no longer finite.
    """
    model = with_head(encoder, width, settings, seed=seed)
    batches, run = Batches(inputs, runtime.torch_device), runtime.compiled(model)

    def draw(chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (settings.pair(batches[chosen], generator),)

    def loss(views: Tensor) -> Mapping[str, Tensor]:
        with runtime.autocast():
            projected = model.projection(run(views))
        return {"loss": settings.loss(projected.float())}

    rows = descend(
        model,
        len(inputs),
        draw,
        backward(model, loss),
        batches=batches,
        recipe=settings.recipe,
        seed=derive_seed(seed, "simclr"),
        runtime=runtime,
        remedy="lower learning_rate, or raise temperature",
        description="pre-training",
    )
    encoder.zero_grad(set_to_none=True)
    encoder.eval()
    return rows
