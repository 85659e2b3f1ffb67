"""Adaptive unlearning: a thief who knows how marks are made teaches the model to answer such composites harmlessly.

No paper's attack: it is the strongest that we know of against composite triggers, after MEA-Defender's mislabelled mixes (arXiv
2401.15239, section 5.5) and its remark (section 6.2) that a thief would have to go through all kinds and classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.attacks.base import brief_retraining
from heirmark.attacks.composites import KINDS, Composites, Kinds, compose_all, fitting, space_for
from heirmark.attacks.removal.parts import RETRAINING, Tuning, fresh_like, tune
from heirmark.configuration import at_least
from heirmark.models import Net
from heirmark.querying.asking import predict
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.task import Split
from heirmark.training.fitting import Recipe


@dataclass(frozen=True, kw_only=True)
class AdaptiveUnlearning(Tuning):
    """Fine-tune on composites of all classes in all orders with harmless soft labels, joined by clean data.

    He knows how marks are published to be made, not the key: neither classes nor order nor target. Composites of the owner's
    very classes in their very order are among his. Triggers that are no composites (images of another data set, perturbations
    made with the owner's model) are beyond him. Kinds that show more classes than he has examples of are left out.

    Attributes:
        kinds: of composites that he suspects: DeepTracer's ``"tiles"`` of four classes, ``"halves"``, ``"insets"`` (centre,
            band), ``"blend"`` and ``"stripes"`` of two as in MEA-Defender, Feature Sharing's ``"patch"`` of one; all of them when
            he does not know which.
        answer: the soft label: ``"shared"`` splits the mass among the classes shown, by area; ``"own-model"`` is what a model
            says that he trains himself, from the start, on his data alone.
        composites: how many he makes, as many of each kind; None makes as many as he has clean examples.
        own_recipe: of his own model, for ``"own-model"`` (inferred).
    """

    title: ClassVar[str] = "unlearning of composites of every kind"
    informed: ClassVar[str] = "unlearning {}"
    reteaches: ClassVar[bool] = True

    kinds: Kinds = KINDS
    answer: Literal["shared", "own-model"] = "shared"
    composites: Annotated[int, at_least(1)] | None = None
    own_recipe: Recipe = field(default=RETRAINING)

    needs = property(lambda self: space_for(self.kinds))
    otherwise: ClassVar = "blend them"

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes; see :class:`heirmark.attacks.base.Attack`."""
        return cls(recipe=brief_retraining(recipe), own_recipe=recipe)

    def alter(self, copy: Net, data: Split, *, other: Split | None, seed: int, runtime: Runtime) -> Net:
        """Unlearn; see :class:`heirmark.attacks.base.Removal`.

        Raises:
            BadData: when the data show too few classes for every kind.
            BadConfig: when the inputs are no images, and other kinds than blends are asked for.
        """
        kinds = fitting(self.kinds, len(data.labels.unique()))  # type: ignore[no-untyped-call]
        made = compose_all(
            data, kinds, self.composites or len(data), classes=copy.spec.classes, seed=derive_seed(seed, "composites")
        )
        answers = made.shares if self.answer == "shared" else self._own_answers(copy, data, made, seed, runtime)
        tune(
            copy.model,
            torch.cat([data.inputs, made.inputs.to(data.inputs.device)]),
            torch.cat([F.one_hot(data.labels, copy.spec.classes).float(), answers.to(data.labels.device)]),
            recipe=self.recipe,
            seed=derive_seed(seed, "unlearning"),
            runtime=runtime,
            description="unlearning",
        )
        return copy

    def _own_answers(self, held: Net, data: Split, made: Composites, seed: int, runtime: Runtime) -> Tensor:
        """What a clean model of the thief's says to the composites: ``[M, C]`` probabilities."""
        own = fresh_like(held, seed=derive_seed(seed, "own model")).model
        tune(
            own,
            data.inputs,
            data.labels,
            recipe=self.own_recipe,
            seed=derive_seed(seed, "own training"),
            runtime=runtime,
            description="training a clean model",
        )
        return predict(own, made.inputs, runtime=runtime).softmax(1)
