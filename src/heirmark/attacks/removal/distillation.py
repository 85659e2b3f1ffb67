"""Distillation into another architecture (Hinton, Vinyals, Dean 2015, arXiv 1503.02531), as T2S and MEA-Defender attack by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.asking import predict
from heirmark.attacks.base import Removal, brief_retraining
from heirmark.attacks.extraction.distillation import DISTILLATION_RECIPE
from heirmark.augmenting import augment
from heirmark.batches import Batches
from heirmark.configuration import within
from heirmark.layout import entering
from heirmark.models import Architecture, Net, architecture, fresh_net
from heirmark.runtime import Runtime, derive_seed
from heirmark.steps import backward
from heirmark.task import Split
from heirmark.training import Recipe, descend


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
        shapes, teacher, device = copy.spec, copy.model, runtime.torch_device
        start = derive_seed(seed, "student")
        net = fresh_net(self.model, input_shape=shapes.input_shape, classes=shapes.classes, seed=start)
        student = net.model
        batches, labels = Batches(data.inputs, device), data.labels.to(device)
        # Without augmentation the teacher always sees the same images, so it is asked once; this also moves it to the device.
        known = predict(teacher, data.inputs, runtime=runtime).to(device)
        run = runtime.compiled(student)

        def draw(chosen: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
            images = augment(batches[chosen], self.recipe.augment, generator)
            with runtime.autocast():
                soft = known[chosen] if self.recipe.augment == "none" else _answers(teacher, images)
            return images, soft.float(), labels[chosen]

        def loss(images: Tensor, soft: Tensor, wanted: Tensor) -> Mapping[str, Tensor]:
            with runtime.autocast():
                logits = run(images).float()
            weights = {"temperature": self.temperature, "with_labels": self.with_labels}
            return {"loss": distillation_loss(logits, soft, wanted, **weights)}

        descend(
            student,
            len(data),
            draw,
            backward(student, loss),
            batches=batches,
            recipe=self.recipe,
            seed=derive_seed(seed, "distillation"),
            runtime=runtime,
            description="distilling",
        )
        return net


@torch.no_grad()
def _answers(teacher: nn.Module, images: Tensor) -> Tensor:
    with entering(teacher):
        answers: Tensor = teacher(images)
    return answers
