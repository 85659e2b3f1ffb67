"""WRK, the watermark removal attack that comes with Class-Feature Watermarks (Xiao et al. 2025, arXiv 2511.07947)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.attacks.extraction.jbda import jacobian_step
from heirmark.attacks.extraction.learning import learn
from heirmark.attacks.removal.parts import Tuning, drawn, head_of, reinitialise
from heirmark.configuration import above, at_least, at_most
from heirmark.models import Net
from heirmark.querying.layout import entering
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.space import Continuous
from heirmark.tasks.storing import encode, join
from heirmark.tasks.task import Split
from heirmark.training.fitting import Recipe

WRK_RECIPE = Recipe(epochs=10, batch_size=32, learning_rate=0.001, weight_decay=0.0)
"""As in the authors' code: SGD 0.001, momentum 0.9, a cosine over 10 epochs of batches of 32."""

TOGETHER = 32
"""How many images go towards one class, as in the authors' code."""


def away_loss(
    logits: Tensor, labels: Tensor, *, weights: Sequence[Tensor], before: Sequence[Tensor], strength: float
) -> Tensor:
    """Cross-entropy, and ``strength`` times the inner product of a layer's weights with those that it had.

    Args:
        logits: ``[B, C]``.
        labels: ``[B]``.
        weights: of the layer, as they train.
        before: the same in the attacked model.
        strength: of the second term; it drives the new weights away from the old ones.
    """
    product = sum((new * old).sum() for new, old in zip(weights, before, strict=True))
    return F.cross_entropy(logits, labels) + strength * product


@dataclass(frozen=True, kw_only=True)
class WRK(Tuning):
    """Reshape the decision boundaries with perturbed images, and shift the features under a fresh last layer.

    Marks by samples show as boundaries near the task's images. First, some clean images take one signed step that raises the
    held model's logit of a random class, and get a random label other than their own: the boundaries there are drawn anew.
    Then the last layer starts afresh, and all layers train on clean and perturbed images, while a penalty keeps the last layer
    from turning back to the old weights. The thief needs no guess at trigger or target.

    The figures are those of the authors' code for CIFAR-10, since the text that we read names none. There the thief has 5 % of
    the training images, here all of his own; there the step is taken in normalised pixels, and no wrong label is class 0, here it
    is taken in pixels, and any class but the image's own may be the label.

    Attributes:
        share: perturbed images for each clean one; 128 for 2,500 there.
        step: of every pixel, of the full range; two standard deviations of a channel there, which is about this.
        away: weight of the penalty, the inner product of the last layer's weights with the old ones.
        recipe: see :data:`WRK_RECIPE`.
    """

    needs: ClassVar = Continuous
    title: ClassVar[str] = "boundaries reshaped (WRK)"
    reteaches: ClassVar[bool] = True

    share: Annotated[float, above(0), at_most(1)] = 0.05
    step: Annotated[float, above(0), at_most(1)] = 0.4
    away: Annotated[float, at_least(0)] = 0.01
    recipe: Recipe = field(default=WRK_RECIPE)

    def alter(self, copy: Net, data: Split, *, other: Split | None, seed: int, runtime: Runtime) -> Net:
        """Perturb and train; see :class:`heirmark.attacks.base.Removal`.

        Raises:
            BadConfig: when the model has no ``.head``.
            BadData: when the loss is no longer finite.
        """
        model = copy.model.to(runtime.torch_device).requires_grad_(True)
        head = head_of(model)
        perturbed = self.perturbed(copy, data, seed=seed, runtime=runtime)
        weights = [parameter for parameter in head.parameters() if parameter.ndim > 1]
        before = [parameter.detach().clone() for parameter in weights]
        reinitialise(head, seed=derive_seed(seed, "head"))
        learn(
            model,
            join([data.inputs, perturbed.inputs.to(data.inputs.device)]),
            (torch.cat([data.labels, perturbed.labels.to(data.labels.device)]),),
            partial(away_loss, weights=weights, before=before, strength=self.away),
            recipe=self.recipe,
            seed=derive_seed(seed, "tuning"),
            runtime=runtime,
            description="reshaping boundaries",
        )
        return copy

    def perturbed(self, held: Net, data: Split, *, seed: int, runtime: Runtime) -> Split:
        """The images that draw the boundaries anew, with their random labels.

        Args:
            held: the model that gives the steps; it is moved to the runtime's device.
            data: the adversary's.
            seed: that the attack was called with.
            runtime: device.

        Returns:
            As many images as ``share`` says, at least one, of the data's dtype; on the CPU.
        """
        classes, model = held.spec.classes, held.model.to(runtime.torch_device)
        count = max(1, round(self.share * len(data)))
        chosen = data.subset(drawn(len(data), count, seed=derive_seed(seed, "perturbed")))
        generator = generator_of(derive_seed(seed, "classes"))
        towards = torch.randint(classes, (-(-count // TOGETHER),), generator=generator).repeat_interleave(TOGETHER)
        device = runtime.torch_device
        with entering(model):
            moved = jacobian_step(
                model, chosen.floats().to(device), towards[:count].to(device), self.step, targeted=False
            )
        others = torch.randint(1, classes, (count,), generator=generator)
        labels = (chosen.labels.cpu() + others) % classes
        return Split(inputs=encode(moved, data.inputs.dtype).cpu(), labels=labels)
