"""Margin-based watermarks: task images with random labels, trained against perturbations (Kim et al., ICML 2023)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.configuration import above, at_least, at_most, below, checked
from heirmark.errors import BadConfig
from heirmark.methods.base import Embedded, Prepared
from heirmark.methods.nets import new_model
from heirmark.methods.scale import Scale
from heirmark.methods.watermark import Watermark
from heirmark.querying.asking import evaluating
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.space import Continuous
from heirmark.tasks.storing import clip
from heirmark.training.fitting import Recipe
from heirmark.training.joint import Extra, Outputs, Phase, fit_phases
from heirmark.triggers import AnyTrigger, RandomLabels


def ascend(model: nn.Module, images: Tensor, targets: Tensor, *, steps: int, size: float) -> Tensor:
    """Perturb images by signed steps up the cross-entropy to their targets.

    Args:
        model: asked in eval mode; its weights' gradients are untouched.
        images: ``[m, ...]`` float in [0, 1], on the model's device.
        targets: ``[m]`` int64.
        steps: how many.
        size: of each, of the full range; the images stay in it.

    Returns:
        ``[m, ...]`` in [0, 1], without a gradient.
    """
    with evaluating(model), torch.enable_grad():
        for _ in range(steps):
            asked = images.detach().requires_grad_(True)
            loss = F.cross_entropy(model(asked).float(), targets)
            (slope,) = torch.autograd.grad(loss, asked)
            images = clip(images + size * slope.sign())
    return images.detach()


def drop_at(epochs: int, drops: Sequence[float]) -> list[int]:
    """Epochs that each stretch of a constant rate has.

    Args:
        epochs: in all.
        drops: shares of them after which the rate falls, rising, in (0, 1).

    Examples:
        >>> drop_at(200, (0.5, 0.75))
        [100, 50, 50]
    """
    ends = [0, *(max(1, round(share * epochs)) for share in drops), epochs]  # the first epoch has the full rate
    return [after - before for before, after in itertools.pairwise(ends)]


@dataclass(frozen=True, kw_only=True)
@checked
class Margin(Watermark):
    """Random labels on images of the task, learned with a margin around them.

    In every step some of them are perturbed against their labels before they train, so that the boundary keeps away. They do
    not train with their true labels. The key is the very set that trained, as in the paper: random labels of other images
    cannot be known. It says so, and so does every verdict (``memorised-key``). Defaults are the paper's and its code's: SGD
    at 0.1 without momentum, a tenth after half and after three quarters of 200 epochs. Two departures: samples are perturbed
    on the model in eval mode, and train in one batch with clean ones, so that BatchNorm sees what a verifier's query will
    meet.

    Attributes:
        model: architecture; ResNet-34 in the code.
        triggers: trigger samples that train; 100 in the paper.
        key_size: samples in the key; of random labels at most those that train.
        pretraining: of the clean model; T2S' (inferred).
        training: of the marked model, at a constant rate but for the drops; batch size and augmentation are the code's.
        drops: shares of the epochs after which the rate falls.
        drop_factor: to this part.
        trigger_batch: trigger samples that join each batch; 25 in the code, which draws them with replacement.
        steps: of the perturbation.
        step: of each, of the full range of a pixel.
        weight: of a trigger sample's loss, where a clean one's is 1.
    """

    name: ClassVar[str] = "margin"
    needs: ClassVar = Continuous

    trigger: AnyTrigger = field(default=RandomLabels())
    triggers: Annotated[int, at_least(1)] = 100
    key_size: Annotated[int, at_least(1)] = 100
    training: Recipe = field(
        default=Recipe(
            epochs=200, batch_size=128, momentum=0.0, weight_decay=1e-4, schedule="constant", augment="crop-flip"
        )
    )
    drops: tuple[Annotated[float, above(0), below(1)], ...] = (0.5, 0.75)
    drop_factor: Annotated[float, above(0), at_most(1)] = 0.1
    trigger_batch: Annotated[int, at_least(1)] = 25
    steps: Annotated[int, at_least(0)] = 5
    step: Annotated[float, above(0), at_most(1)] = 1 / 255
    weight: Annotated[float, above(0)] = 0.1

    def __post_init__(self) -> None:
        if list(self.drops) != sorted(self.drops):
            raise BadConfig(f"drops are shares of the epochs that rise, not {self.drops}")

    @classmethod
    def quick(cls, scale: Scale) -> Self:
        """The others' momentum, and the weight of clean samples, since there are few epochs; as many samples as in the paper."""
        training = replace(scale.recipe, epochs=2 * scale.recipe.epochs)
        return cls(model=scale.model, pretraining=scale.recipe, training=training, drops=(), weight=1.0)

    def embed(self, prepared: Prepared, *, seed: int, runtime: Runtime) -> Embedded:
        """Learn the samples by heart, with a margin; see :meth:`heirmark.methods.watermark.Watermark.embed`."""
        drawn, batch = prepared.training, self.trigger_batch
        model = new_model(prepared.task, self.model, seed=derive_seed(seed, "margin", "init"))

        def losses(clean: Outputs, extras: Mapping[str, Outputs]) -> Mapping[str, Tensor]:
            watermark = extras["watermark"]
            whole = len(clean.targets) + len(watermark.targets)
            return {
                "primary": F.cross_entropy(clean.logits, clean.targets, reduction="sum") / whole,
                "watermark": F.cross_entropy(watermark.logits, watermark.targets, reduction="sum") / whole,
            }

        def perturb(images: Tensor, targets: Tensor) -> Tensor:
            return ascend(model, images, targets, steps=self.steps, size=self.step)

        stretches = drop_at(self.training.epochs, self.drops)
        phases = [
            Phase(
                recipe=replace(
                    self.training, epochs=epochs, learning_rate=self.training.learning_rate * self.drop_factor**number
                ),
                extras={"watermark": batch},
            )
            for number, epochs in enumerate(stretches)
            if epochs
        ]
        history = fit_phases(
            model,
            prepared.data,
            {"watermark": Extra(samples=drawn, change=perturb)},
            losses,
            phases,
            seeds=[derive_seed(seed, "margin", "phase", number) for number in range(len(phases))],
            weights={"watermark": self.weight},
            runtime=runtime,
        )
        return Embedded(model=model, history=history)
