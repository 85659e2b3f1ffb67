"""DeepTracer: Tracing Stolen Model via Deep Coupled Watermarks (AAAI 2026, arXiv 2511.08985)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.configuration import above, at_least, below, checked
from heirmark.methods.base import Embedded, Prepared
from heirmark.methods.key_filter import KeyFilter
from heirmark.methods.nets import new_model
from heirmark.methods.power_filter import PowerFilter
from heirmark.methods.scale import Scale
from heirmark.methods.watermark import Watermark
from heirmark.models import Architecture, architecture
from heirmark.querying.asking import predict
from heirmark.runtime import Runtime, derive_seed
from heirmark.training.fitting import Recipe
from heirmark.training.joint import Extra, Outputs, Phase, check_sets, fit_phases
from heirmark.triggers import AnyTrigger, Tiles

ADAM = Recipe(epochs=100, batch_size=128, optimizer="adam", learning_rate=1e-3, weight_decay=0.0, schedule="step")


def class_centroids(outputs: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Mean output of every class.

    Args:
        outputs: ``[N, D]``.
        labels: ``[N]`` int64.
        classes: C.

    Returns:
        ``[C, D]``; NaN for a class without a sample.

    Examples:
        >>> class_centroids(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1]), 2).tolist()
        [[2.0], [5.0]]
    """
    sums = outputs.new_zeros(classes, outputs.shape[1]).index_add(0, labels, outputs)
    return sums / labels.bincount(minlength=classes).to(outputs.dtype)[:, None]


def intra_loss(outputs: Tensor, labels: Tensor, centroids: Tensor) -> Tensor:
    """L_intra of eq. 5: the mean squared distance of each output from its class's centroid.

    Args:
        outputs: ``[N, D]``.
        labels: ``[N]`` int64.
        centroids: ``[C, D]``, without a gradient; NaN for a class that has none, from which nothing is far.
    """
    own = centroids[labels]
    return (outputs - own.where(~own.isnan(), outputs.detach())).square().sum(1).mean()


def inter_loss(outputs: Tensor, labels: Tensor, centroids: Tensor, margin: float) -> Tensor:
    """L_inter of eq. 5: mean over samples of the sum over other classes of max(0, margin - distance)^2.

    Args:
        outputs: ``[N, D]``.
        labels: ``[N]`` int64.
        centroids: ``[C, D]``, without a gradient; NaN for a class that has none, to which nothing is near.
        margin: distance from other classes' centroids that costs nothing.
    """
    squared = (outputs[:, None] - centroids.nan_to_num()).square().sum(2)
    # A root has no derivative at zero, where an output lies on a centroid.
    near = F.relu(margin - squared.clamp_min(1e-12).sqrt()).square()
    others = (1 - F.one_hot(labels, len(centroids))) * ~centroids.isnan().any(1)
    return (near * others.to(near.dtype)).sum(1).mean()


@dataclass(frozen=True, kw_only=True)
@checked
class DeepTracer(Watermark):
    """Composites of classes that span the primary task, held near the target class's other samples in the output.

    L = L_pri + λ1 L_wm + λ2 (λ3 L_intra + λ4 L_inter) (eq. 6) over two phases. Defaults are the paper's; "(inferred)" marks what
    it does not give, the batch size among it.

    Attributes:
        model: architecture; NaiveNet on Fashion-MNIST, VGG-like on CIFAR-10, ResNet-18 on CIFAR-100.
        trigger: kind of trigger. The paper's is Tiles, which also chooses classes and target; any kind does.
        triggers: watermark samples that train (inferred: a tenth of CIFAR-10's training images).
        key_size: M of eq. 8.
        pretraining: of the clean ("benign") model.
        first: watermark samples are 1 % of a batch.
        second: they are 10 %, from where the first ended.
        weight_watermark: λ1.
        weight_coupling: λ2; 0 is "L_wm only" of Table 4.
        weight_intra: λ3; 0 leaves L_intra out.
        weight_inter: λ4; 0 leaves L_inter out.
        margin: of L_inter (inferred).
        centroids: of the clean samples' logits, taken anew before every ``"epoch"``, or a ``"moving"`` average over batches
            (both inferred).
        decay: of the moving average.
        key_filter: eq. 7-8; None takes the first ``key_size`` held-out triggers.
    """

    name: ClassVar[str] = "deeptracer"

    model: Architecture = architecture("naivenet")
    trigger: AnyTrigger = field(default=Tiles())
    triggers: Annotated[int, at_least(1)] = 5000
    key_size: Annotated[int, at_least(1)] = 2000
    pretraining: Recipe = field(default=ADAM)
    first: Phase = field(default=Phase(recipe=ADAM, extras={"watermark": 1}))
    second: Phase = field(default=Phase(recipe=ADAM, extras={"watermark": 14}))
    weight_watermark: Annotated[float, at_least(0)] = 1.0
    weight_coupling: Annotated[float, at_least(0)] = 1.0
    weight_intra: Annotated[float, at_least(0)] = 0.01
    weight_inter: Annotated[float, at_least(0)] = 3.0
    margin: Annotated[float, above(0)] = 1.0
    centroids: Literal["epoch", "moving"] = "epoch"
    decay: Annotated[float, at_least(0), below(1)] = 0.99
    key_filter: KeyFilter | PowerFilter | None = field(default=KeyFilter())

    def __post_init__(self) -> None:
        check_sets((self.first, self.second), "watermark")

    @classmethod
    def quick(cls, scale: Scale) -> Self:
        """By Adam: at the others' rate the coupling loss costs it a whole class. The surrogate has the victim's architecture."""
        first, second = scale.joint_epochs
        return replace(
            super().quick(scale),
            first=Phase(recipe=replace(scale.joint, epochs=first), extras={"watermark": 1}),
            second=Phase(recipe=replace(scale.joint, epochs=second), extras={"watermark": 14}),
            key_filter=KeyFilter(
                candidates=4 * scale.key_size, surrogate=None, recipe=scale.recipe, queries=scale.surrogate_queries
            ),
        )

    def embed(self, prepared: Prepared, *, seed: int, runtime: Runtime) -> Embedded:
        """Train in two phases; see :meth:`heirmark.methods.watermark.Watermark.embed`."""
        task, data, drawn = prepared.task, prepared.data, prepared.training
        model = new_model(task, self.model, seed=derive_seed(seed, "deeptracer", "init"))
        coupled = self.weight_coupling > 0 and max(self.weight_intra, self.weight_inter) > 0
        centroids = torch.zeros(len(task.classes), len(task.classes), device=runtime.torch_device)

        def take_centroids(epoch: int) -> None:
            if coupled and (self.centroids == "epoch" or epoch == 0):
                outputs = predict(model, data.inputs, runtime=runtime)
                centroids.copy_(class_centroids(outputs, data.labels, len(task.classes)))

        def losses(clean: Outputs, extras: Mapping[str, Outputs]) -> Mapping[str, Tensor]:
            watermark = extras.get("watermark")
            found = {"primary": F.cross_entropy(clean.logits, clean.targets)}
            outputs, labels = clean.logits, clean.targets
            if watermark is not None:
                found["watermark"] = F.cross_entropy(watermark.logits, watermark.targets)
                outputs, labels = torch.cat([outputs, watermark.logits]), torch.cat([labels, watermark.targets])
            if coupled:
                found["intra"] = intra_loss(outputs, labels, centroids)
                found["inter"] = inter_loss(outputs, labels, centroids, self.margin)
                if self.centroids == "moving":
                    fresh = class_centroids(clean.logits.detach(), clean.targets, len(centroids))
                    there = ~fresh.isnan().any(1)
                    centroids[there] = self.decay * centroids[there] + (1 - self.decay) * fresh[there]
            return found

        history = fit_phases(
            model,
            data,
            {"watermark": Extra(samples=drawn)},
            losses,
            (self.first, self.second),
            seeds=[derive_seed(seed, "deeptracer", "phase", number) for number in (0, 1)],
            weights={
                "watermark": self.weight_watermark,
                "intra": self.weight_coupling * self.weight_intra,
                "inter": self.weight_coupling * self.weight_inter,
            },
            recordable=self.centroids == "epoch",  # a moving average looks at which classes a batch has
            before_epoch=take_centroids,
            runtime=runtime,
        )
        return Embedded(model=model, history=history)
