"""MarkErase's selective distillation (Fei et al. 2025, PAKDD)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.attacks.extraction.distillation import DISTILLATION_RECIPE
from heirmark.attacks.removal.parts import Tuning, drawn, fresh_like, tune
from heirmark.configuration import above, at_least, at_most
from heirmark.models import Net
from heirmark.querying.asking import predict
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.space import Continuous
from heirmark.tasks.storing import decode, encode, join
from heirmark.tasks.task import Split
from heirmark.training.fitting import Recipe


def leaning(answers: Tensor, labels: Tensor, *, excess: float) -> Tensor:
    """Classes to which a model's wrong answers lean.

    Args:
        answers: ``[N, C]`` scores.
        labels: ``[N]`` true classes.
        excess: how many times its even share 1/C of the wrong answers a class must draw to be suspected.

    Returns:
        ``[C]`` bool.

    Examples:
        >>> answers = torch.eye(4)[torch.tensor([0, 3, 3, 3, 1])]
        >>> leaning(answers, torch.tensor([0, 1, 2, 0, 2]), excess=2.0).tolist()
        [False, False, False, True]
    """
    said, classes = answers.argmax(1), answers.shape[1]
    counts = said[said != labels].bincount(minlength=classes)
    return counts * classes > excess * counts.sum()


def without(answers: Tensor, labels: Tensor, suspects: Tensor) -> Tensor:
    """Answers from which the suspected classes are struck where they are wrong, scaled to a sum of one.

    Args:
        answers: ``[N, C]`` probabilities.
        labels: ``[N]`` true classes, which are never struck; where nothing else is left, they are the answer.
        suspects: ``[C]`` bool.
    """
    true = F.one_hot(labels, answers.shape[1]).to(answers)
    kept = answers * (~suspects | true.bool())
    sums = kept.sum(1, keepdim=True)
    return torch.where(sums > 1e-6, kept / sums.clamp_min(1e-6), true)


@dataclass(frozen=True, kw_only=True)
class MarkErase(Tuning):
    """Distil the held model into a fresh one of its kind, and keep the answers that lean to a mark's class out of it.

    Models with entangled marks tend to call perturbed images the mark's target. So the thief adds noise to his images, takes the
    classes that draw the wrong answers for targets, and distils what is left: on every image, perturbed or not, the suspected
    classes are struck from the answer, unless they are true; and a perturbed image that is taken for a suspect is taught the
    answer to the image as it was. Of two classes none can be suspected, and plain distillation on both kinds of images is left.

    Only the abstract could be read. It says that a tendency of its answers gives a marked model away, that perturbed inputs go to
    the target class, and that selective distillation with few clean samples removes the mark. How inputs are perturbed,
    when a class is suspected, how answers are selected, from what the student starts, and all figures are inferred.

    Attributes:
        noise: largest standard deviation, of the full range; each image gets Gaussian noise of one drawn evenly up to it.
        perturbed: how many images are perturbed, at most; None perturbs all.
        excess: how many times its even share of the wrong answers a class must draw to be suspected.
        recipe: see :data:`heirmark.attacks.extraction.distillation.DISTILLATION_RECIPE`.
    """

    needs: ClassVar = Continuous
    title: ClassVar[str] = "selective distillation (MarkErase)"
    reteaches: ClassVar[bool] = True

    noise: Annotated[float, above(0), at_most(1)] = 0.5
    perturbed: Annotated[int, at_least(1)] | None = None
    excess: Annotated[float, at_least(1)] = 2.0
    recipe: Recipe = field(default=DISTILLATION_RECIPE)

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes: the student learns from the start, by the recipe by which nets like it learn well."""
        return cls(recipe=recipe)

    def alter(self, copy: Net, data: Split, *, other: Split | None, seed: int, runtime: Runtime) -> Net:
        """Distil; see :class:`heirmark.attacks.base.Removal`.

        Raises:
            BadConfig: for a model that cannot be started afresh.
            BadData: when the loss is no longer finite.
        """
        chosen = drawn(len(data), self.perturbed, seed=derive_seed(seed, "perturbed"))
        labels = data.labels.cpu()
        noisy = self.noisy(data.inputs[chosen].cpu(), seed=seed)
        plain, strange = (predict(copy.model, inputs, runtime=runtime).softmax(1) for inputs in (data.inputs, noisy))
        suspects = leaning(strange, labels[chosen], excess=self.excess)
        plain = without(plain, labels, suspects)
        caught = suspects[strange.argmax(1)]
        strange = torch.where(caught[:, None], plain[chosen], without(strange, labels[chosen], suspects))
        # All answers are known by now, so the student takes the place of what was held.
        copy.model.load_state_dict(fresh_like(copy, seed=derive_seed(seed, "student")).model.state_dict())
        tune(
            copy.model,
            join([data.inputs, noisy.to(data.inputs.device)]),
            torch.cat([plain, strange]),
            recipe=self.recipe,
            seed=derive_seed(seed, "distillation"),
            runtime=runtime,
            description="distilling selectively",
        )
        return copy

    def noisy(self, inputs: Tensor, *, seed: int) -> Tensor:
        """Inputs ``[M, ...]``, on the CPU, with noise, as they are stored."""
        generator = generator_of(derive_seed(seed, "noise"))
        deviations = self.noise * torch.rand(len(inputs), generator=generator)
        parts = []
        for some, deviation in zip(inputs.split(4096), deviations.split(4096), strict=True):  # type: ignore[no-untyped-call]
            noise = torch.randn(some.shape, generator=generator) * deviation.reshape(-1, *[1] * (some.ndim - 1))
            parts.append(encode(decode(some) + noise, inputs.dtype))
        return torch.cat(parts)
