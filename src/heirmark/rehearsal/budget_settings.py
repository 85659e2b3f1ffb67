"""How a target is tuned within an accuracy budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from heirmark.configuration import above, at_least, at_most, below, checked
from heirmark.errors import BadConfig
from heirmark.rehearsal.closed_form import Closing
from heirmark.training.fitting import Recipe


@dataclass(frozen=True, kw_only=True)
@checked
class WithinBudget:
    """How the target is tuned.

    Adam's steps do not depend on the length of a gradient, so that no net needs a learning rate of its own. What is watched and
    returned lies on the line from the start to the running average of the weights, most of the way to it. The average is as
    accurate in the middle of a training at a constant rate as another at the end of a schedule, so that it can be judged at any
    time; and to stop short of it costs less of the mark than it wins in accuracy, as weights between two fine-tuned models
    often are more accurate than either (Wortsman 2022, arXiv 2109.01903).

    Attributes:
        recipe: of the target; the weight decay of what it was trained with is not known, and none is needed for so few steps.
            Images are augmented, for a target that knows its images by heart answers others in another way, and a thief asks
            others; what it answers counts for the image itself.
        accuracy_budget: accuracy that the mark may cost, in [0, 1), on the images that watch.
        rho: length of the mark's gradient over that of the utility's, at the start; steered by the budget from there.
        fading: share of ρ that stays after an epoch in which just the budget was lost. What is imprinted at first lasts while the
            accuracy recovers.
        enough: trigger loss of the thieves below which ρ shrinks in proportion to it; 0 never shrinks it.
        trigger_batch: trigger samples that the target itself learns with each batch.
        pulling: trigger samples that thieves are asked in a step.
        measured: steps after which the two gradients are measured against each other again. A step that measures makes two
            backward passes, the others one.
        averaging: share of the running average that stays in a step.
        way: how far from the start to that average, in (0, 1].
        closing: how thieves finish.
        attempts: trainings at most; each after a collapse, which is rolled back, has half the step and half of ρ.
    """

    recipe: Recipe = field(
        default=Recipe(
            epochs=6,
            batch_size=128,
            optimizer="adam",
            learning_rate=1e-3,
            weight_decay=0.0,
            schedule="constant",
            augment="shift",
        )
    )
    accuracy_budget: Annotated[float, at_least(0), below(1)] = 0.005
    rho: Annotated[float, at_least(0)] = 0.6
    fading: Annotated[float, above(0), at_most(1)] = 0.8
    enough: Annotated[float, at_least(0)] = 0.5
    trigger_batch: Annotated[int, at_least(1)] = 16
    pulling: Annotated[int, at_least(1)] = 256
    measured: Annotated[int, at_least(1)] = 8
    averaging: Annotated[float, at_least(0), below(1)] = 0.98
    way: Annotated[float, above(0), at_most(1)] = 0.9
    closing: Closing = field(default=Closing())
    attempts: Annotated[int, at_least(1), at_most(10)] = 3

    def __post_init__(self) -> None:
        if self.recipe.epochs < 1:
            raise BadConfig("a rehearsal within a budget judges its target after each epoch: give one epoch at least")
