"""Every attack with the settings of a profile, fitted to how much the adversary has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from heirmark.attacks import (
    ABS,
    DFME,
    EXTRACTIONS,
    INSPECTIONS,
    JBDA,
    MAZE,
    REMOVALS,
    SCREENINGS,
    ActiveThief,
    AdaptiveUnlearning,
    CompositeScreen,
    Distillation,
    DistillTo,
    FinePruning,
    FineTuning,
    Int8,
    Knockoff,
    KnockoffAdaptive,
    LocalOutliers,
    MislabelledMixes,
    MixProbing,
    NeuralCleanse,
    Overwriting,
    Preprocessing,
    Pruning,
    Quantisation,
    Transfer,
)
from heirmark.pipeline.demo_plan import QUICK as DEMO
from heirmark.task import Task
from heirmark.training import Recipe


def quick_attacks(recipe: Recipe = DEMO.recipe) -> dict[str, Any]:
    """Every attack by name with settings for minutes on a CPU and small images; those that ``--quick`` stands for.

    Args:
        recipe: by which the attacked model learned: what nets like it learn well by, with so many epochs that they do.
    """
    tuning = replace(recipe, epochs=3, learning_rate=recipe.learning_rate / 5, warmup=0.0)
    retraining = replace(recipe, epochs=4, optimizer="adam", nesterov=False, learning_rate=1e-3, weight_decay=0.0)
    return {
        "knockoff": Knockoff(recipe=recipe),
        "knockoff-adaptive": KnockoffAdaptive(recipe=recipe),
        "distillation": Distillation(recipe=recipe, temperature=4.0),
        "jbda": JBDA(recipe=recipe, rounds=5),
        "active-thief": ActiveThief(recipe=recipe, rounds=3, validation=0.1, queries=4000),
        "dfme": DFME(queries=100_000, learning_rate=0.05, width=32),
        "maze": MAZE(queries=100_000, learning_rate=0.05, generator_rate=1e-3, width=32),
        "fine-tuning": FineTuning(recipe=tuning),
        "pruning": Pruning(),
        "fine-pruning": FinePruning(recipe=tuning),
        "quantisation": Quantisation(),
        "int8": Int8(),
        "transfer": Transfer(recipe=replace(retraining, epochs=2), head_recipe=tuning),
        "distil-to": DistillTo(model="naivenet:width=16,batch_norm=true", recipe=retraining, temperature=4.0),
        "mislabelled-mixes": MislabelledMixes(recipe=retraining),
        "overwriting": Overwriting(recipe=retraining),
        "adaptive": AdaptiveUnlearning(recipe=retraining, own_recipe=recipe),
        "preprocessing": Preprocessing(),
        "neural-cleanse": NeuralCleanse(steps=100, samples=128, checked=500),
        "abs": ABS(layers="last", steps=300, candidates=5, checked=500),
        "mix-probing": MixProbing(),
        "lof": LocalOutliers(samples=3000),
        "composites": CompositeScreen(recipe=replace(retraining, epochs=3), samples=6000),
    }


PAPER_ATTACKS: dict[str, Any] = {
    name: kind() for name, kind in {**EXTRACTIONS, **REMOVALS, **INSPECTIONS, **SCREENINGS}.items()
}
"""Every attack with its paper's settings."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the adversary has.

    Attributes:
        images: of the adversary's split.
        classes: of the task.
    """

    images: int
    classes: int

    @staticmethod
    def of(task: Task) -> Sizes:
        """The sizes of a task."""
        return Sizes(images=len(task.adversary), classes=len(task.classes))


def fitted(attacks: Mapping[str, Any], sizes: Sizes) -> dict[str, Any]:
    """Attacks that ask no more of the adversary than he has, as far as that is theirs to choose.

    ActiveThief asks about half of his images at most, so that there is something to choose; JBDA starts from no more than all;
    outliers have no more neighbours than there are others; a screen for composites promises no fewer false alarms than its
    held-out images can show; of two classes a pirate makes a mark on one.

    Args:
        attacks: every attack by name.
        sizes: what he has.
    """
    active, jbda, lof, screen = (attacks[name] for name in ("active-thief", "jbda", "lof", "composites"))
    half, others = max(1, sizes.images // 2), max(1, sizes.images - 1)
    fits = {
        "active-thief": replace(active, queries=None if active.queries is None else min(active.queries, half)),
        "jbda": replace(jbda, seeds=min(jbda.seeds, sizes.images)),
        "lof": replace(lof, neighbours=min(lof.neighbours, others)),
        "composites": screen.promising(sizes.images),
    }
    if sizes.classes < 3:
        fits["overwriting"] = replace(attacks["overwriting"], kind="patch")
    return {**attacks, **fits}


def unfit(sizes: Sizes) -> dict[str, str]:
    """Attacks that a task has too few classes for, by name, and why."""
    if sizes.classes >= 3:
        return {}
    return {
        "mislabelled-mixes": "a mix of both classes has no wrong label",
        "neural-cleanse": "no class stands out of two",
        "mix-probing": "a mix of both classes has no third label",
    }
