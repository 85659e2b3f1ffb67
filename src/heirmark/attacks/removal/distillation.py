"""Distillation into another architecture (Hinton, Vinyals, Dean 2015, arXiv 1503.02531), as T2S and MEA-Defender attack by it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.attacks.base import Removal, brief_retraining
from heirmark.attacks.extraction.distillation import DISTILLATION_RECIPE
from heirmark.attacks.extraction.learning import learn
from heirmark.configuration import within
from heirmark.models import Architecture, Net, architecture, fresh_net
from heirmark.querying.asking import predict
from heirmark.querying.layout import entering
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.task import Split
from heirmark.training.fitting import Recipe


def distillation_loss(
    logits: Tensor, soft: Tensor, labels: Tensor, *, temperature: float, with_labels: float
) -> Tensor:
    """Hinton's objective: ``(1 - a) * T**2 * KL(teacher || student) + a * cross-entropy``, both means over the batch.

    Args:
        logits: ``[B, C]``, the student's.
        soft: ``[B, C]``, the teacher's logits.
        labels: ``[B]`` true labels.
        temperature: T, by which both divide their logits in the first term.
        with_labels: a, in [0, 1].

    Examples:
        >>> logits = torch.tensor([[2.0, 0.0]])
        >>> float(distillation_loss(logits, logits, torch.tensor([0]), temperature=4.0, with_labels=0.0))
        0.0
    """
    student, teacher = (logits / temperature).log_softmax(1), (soft / temperature).log_softmax(1)
    divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2
    return (1 - with_labels) * divergence + with_labels * F.cross_entropy(logits, labels)


@dataclass(frozen=True, kw_only=True)
class DistillTo(Removal):
    """Train another model on the answers of the one that the thief holds and on the true labels of his data.

    T2S compresses ResNet-18 to MobileNet-v2 in this way. It does what an extraction does, from inside: the teacher's logits at a
    raised temperature, on every augmented view, and true labels too, which cost watermarks more than answers alone.

    Attributes:
        model: architecture of the student, one of heirmark's or a factory; MobileNet-v2 in T2S.
        temperature: of the soft answers; 7 in MEA-Defender.
        with_labels: weight of the true labels against the soft answers, in [0, 1]; Hinton found that a small one is best (0.1 is
            inferred).
        recipe: see :data:`heirmark.attacks.extraction.distillation.DISTILLATION_RECIPE`.
    """

    title: ClassVar[str] = "distilled, with labels"
    reteaches: ClassVar[bool] = True

    model: Architecture = architecture("mobilenet-v2")
    temperature: Annotated[float, within(0.05, 1000)] = 7.0
    with_labels: Annotated[float, within(0, 1)] = 0.1
    recipe: Recipe = field(default=DISTILLATION_RECIPE)

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes; see :class:`heirmark.attacks.base.Attack`."""
        return cls(model="naivenet:width=16,batch_norm=true", recipe=brief_retraining(recipe), temperature=4.0)

    def alter(self, copy: Net, data: Split, *, other: Split | None, seed: int, runtime: Runtime) -> Net:
        """Distil; see :class:`heirmark.attacks.base.Removal`.

        Raises:
            BadConfig: for an unknown student.
            BadData: when the loss is no longer finite.
        """
        teacher, start = copy.model, derive_seed(seed, "student")
        student = fresh_net(self.model, input_shape=copy.spec.input_shape, classes=copy.spec.classes, seed=start)
        # This also moves the teacher to the device.
        known = predict(teacher, data.inputs, runtime=runtime)

        @torch.no_grad()
        def answers(images: Tensor) -> Tensor:
            with runtime.autocast(), entering(teacher):
                said: Tensor = teacher(images)
            return said.float()

        # Without augmentation the teacher always sees the same images, so it is asked once.
        once = self.recipe.augment == "none"
        learn(
            student.model,
            data.inputs,
            (known.float(), data.labels) if once else (data.labels,),
            partial(distillation_loss, temperature=self.temperature, with_labels=self.with_labels),
            recipe=self.recipe,
            seed=derive_seed(seed, "distillation"),
            runtime=runtime,
            description="distilling",
            teacher=None if once else answers,
        )
        return student
