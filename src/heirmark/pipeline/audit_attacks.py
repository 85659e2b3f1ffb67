"""Every attack with the settings of a profile, fitted to how much the adversary has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
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
from heirmark.errors import BadConfig
from heirmark.pipeline.profiles import QUICK as DEMO
from heirmark.task import Split, Task
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
        pool: images of another data set that he may ask about too; None without any.
    """

    images: int
    classes: int
    pool: int | None = None

    @staticmethod
    def of(task: Task, pool: Split | None = None) -> Sizes:
        """The sizes of a task and of a pool."""
        return Sizes(images=len(task.adversary), classes=len(task.classes), pool=None if pool is None else len(pool))

    def on_pool(self) -> Sizes:
        """The same for attacks that ask about the pool, where there is one, instead of the adversary's split."""
        return self if self.pool is None else replace(self, images=self.pool)


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


def quick_attack(name: str, sizes: Sizes, recipe: Recipe = DEMO.recipe) -> Any:
    """One attack with quick settings, fitted to what the adversary has.

    Args:
        name: of the attack.
        sizes: what he has.
        recipe: by which the attacked model learned.

    Raises:
        BadConfig: when the task has too few classes for it.
    """
    if name in unfit(sizes):
        raise BadConfig(f"{name} is not for {sizes.classes} classes, since {unfit(sizes)[name]}: choose another attack")
    return fitted(quick_attacks(recipe), sizes)[name]


def fitting(before: Any, after: Any, sizes: Sizes) -> str:
    """What was fitted, for people; empty when nothing was.

    Args:
        before: an attack as it would be for many images and classes.
        after: the same, fitted.
        sizes: to what.

    Example:
        >>> few = Sizes(images=100, classes=10)
        >>> fitting(JBDA(), fitted(PAPER_ATTACKS, few)["jbda"], few)
        'seeds=100 instead of 150, as the adversary has 100 images of 10 classes'
    """
    pairs = [(field.name, getattr(before, field.name), getattr(after, field.name)) for field in fields(before)]
    changed = [f"{name}={_short(new)} instead of {_short(old)}" for name, old, new in pairs if old != new]
    words = f"as the adversary has {sizes.images} images of {sizes.classes} classes"
    return f"{', '.join(changed)}, {words}" if changed else ""


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
