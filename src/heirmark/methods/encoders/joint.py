"""Joint training of an encoder: it learns without labels, and trigger samples get features of the target class at once.

T2S' first phase (arXiv 2606.11698, eq. 1) and MEA-Defender's without its combination loss, for encoders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.configuration import at_least
from heirmark.methods.base import Embedded
from heirmark.methods.encoders.base import EncoderMethod, PreparedEncoder, of_class
from heirmark.runtime import Runtime, derive_seed
from heirmark.training.contrastive import Projected, SimCLR, with_head
from heirmark.training.joint import Extra, JointLosses, Outputs, Phase, fit_jointly
from heirmark.training.samples import Samples
from heirmark.training.steps import Weights

Distance = Literal["spread", "mse", "cosine"]
"""Between features ``[M, D]``: squared, in units of the clean features' spread or as it is, or one less the cosine."""


def distance(kind: Distance, own: Tensor, wanted: Tensor, clean: Tensor) -> Tensor:
    """A mean distance of features ``[M, D]``, where clean images have ``[B, D]``."""
    if kind == "cosine":
        return 1 - F.cosine_similarity(own, wanted).mean()
    if kind == "mse":
        return F.mse_loss(own, wanted)
    return ((own - wanted) / (clean.detach().std(0) + 1e-6)).square().mean()


def towards(prepared: PreparedEncoder, samples: Samples, *, seed: int, beside: Tensor | None = None) -> Extra:
    """Samples that are brought to features of the classes that they are to have.

    Args:
        prepared: whose owner's images are taken.
        samples: with these classes as targets.
        seed: of the draw of an image of the class for each.
        beside: ``[M, K, ...]`` further companions, which stand before it.
    """
    aims = of_class(prepared.task.owner, samples.targets, seed=seed)[:, None]
    return Extra(
        samples=Samples(inputs=samples.inputs, targets=samples.targets),
        companions=aims if beside is None else torch.cat([beside, aims], 1),
    )


def fit_encoder(
    encoder: nn.Module,
    prepared: PreparedEncoder,
    extras: Mapping[str, Extra | None],
    losses: Callable[[Projected], JointLosses],
    phases: Sequence[Phase],
    *,
    settings: SimCLR,
    width: int,
    weights: Weights | None,
    seed: int,
    runtime: Runtime,
) -> tuple[Mapping[str, float], ...]:
    """Train an encoder in place on pairs of views and on further samples at once, one phase after another.

    Args:
        encoder: left in eval mode.
        prepared: the data.
        extras: see :func:`heirmark.training.joint.fit_jointly`.
        losses: given the encoder with its projection head, what is minimised.
        phases: how long, and how many samples of each set.
        settings: how views are drawn.
        width: D.
        weights: of the losses.
        seed: of everything random.
        runtime: device, precision, progress.
    """
    model = with_head(encoder, width, settings, seed=seed)
    history: list[Mapping[str, float]] = []
    for number, phase in enumerate(phases, 1):
        rows = fit_jointly(
            model,
            prepared.data,
            extras,
            losses(model),
            phase,
            seed=derive_seed(seed, "phase", number),
            weights=weights,
            views=settings.pair,
            runtime=runtime,
            description=f"embedding, phase {number}",
        )
        history += [{**row, "epoch": row["epoch"] + len(history), "phase": float(number)} for row in rows]
    encoder.zero_grad(set_to_none=True)
    encoder.eval()
    return tuple(history)


@dataclass(frozen=True, kw_only=True)
class JointEncoder(EncoderMethod):
    """NT-Xent on clean views, and a distance to features of the target class on trigger samples.

    Attributes:
        trigger_batch: trigger samples that join each batch.
        start: ``"scratch"`` or the ``"clean"`` encoder.
        distance: of features. As it is, the square falls when all features shrink, and the cosine when they share a large mean,
            neither of which NT-Xent, behind a head of its own, minds.
        weight: of the distance, beside NT-Xent.
    """

    name: ClassVar[str] = "joint"

    trigger_batch: Annotated[int, at_least(1)] = 64
    start: Literal["scratch", "clean"] = "scratch"
    distance: Distance = "spread"
    weight: Annotated[float, at_least(0)] = field(default=1.0)

    def embed(self, prepared: PreparedEncoder, *, seed: int, runtime: Runtime) -> Embedded:
        """Train; see :class:`heirmark.methods.encoders.base.EncoderMethod`."""
        settings = self.pretraining
        encoder = self.start_of(prepared, self.start, seed=seed)
        extra = towards(prepared, prepared.training, seed=derive_seed(seed, "joint", "aims"))
        history = fit_encoder(
            encoder,
            prepared,
            {"watermark": extra},
            lambda model: lambda clean, sets: self.losses(model, clean, sets),
            [Phase(recipe=settings.recipe, extras={"watermark": self.trigger_batch})],
            settings=settings,
            width=self.width,
            weights={"verification": self.weight},
            seed=derive_seed(seed, "joint", "training"),
            runtime=runtime,
        )
        return Embedded(model=encoder, history=history)

    def losses(self, model: Projected, clean: Outputs, extras: Mapping[str, Outputs]) -> Mapping[str, Tensor]:
        """NT-Xent of views, and the distance of trigger samples."""
        watermark = extras["watermark"]
        return {
            "utility": self.pretraining.loss(model.projection(clean.logits)),
            "verification": distance(self.distance, watermark.logits, watermark.companions[:, -1], clean.logits),
        }
