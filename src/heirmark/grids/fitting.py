"""Every attack with the settings of a profile, fitted to how much the adversary has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from heirmark.attacks import EXTRACTIONS, INSPECTIONS, REMOVALS, SCREENINGS, Preprocessing
from heirmark.attacks.base import Attack, Sizes
from heirmark.errors import BadConfig
from heirmark.profiles import QUICK as DEMO
from heirmark.suiting import suited
from heirmark.tasks.space import Images, suits
from heirmark.training.fitting import Recipe
from heirmark.work.trials import Probe, Trial


def every_attack() -> Iterator[tuple[str, type[Attack]]]:
    """All attacks, by name."""
    for table in (EXTRACTIONS, REMOVALS, INSPECTIONS, SCREENINGS):
        yield from table.items()


def quick_attacks(recipe: Recipe = DEMO.recipe) -> dict[str, Any]:
    """Every attack by name with settings for minutes on a CPU and small images; those that ``--quick`` stands for.

    Args:
        recipe: by which the attacked model learned: what nets like it learn well by, with so many epochs that they do.
    """
    return {name: kind.quick(recipe) for name, kind in every_attack()}


def paper_attacks() -> dict[str, Any]:
    """Every attack by name with its paper's settings."""
    return {name: kind() for name, kind in every_attack()}


def fitted(attacks: Mapping[str, Any], sizes: Sizes) -> dict[str, Any]:
    """Attacks that ask no more of the adversary than he has, as far as that is theirs to choose.

    Args:
        attacks: by name.
        sizes: what he has.
    """
    return {name: attack.fitted(sizes) for name, attack in attacks.items()}


def unfit(attacks: Mapping[str, Any], sizes: Sizes) -> dict[str, str]:
    """Those of some attacks that cannot be tried on such a task, by name, and why."""
    return {name: why for name, attack in attacks.items() if (why := attack.unfit(sizes))}


def quick_attack(name: str, sizes: Sizes, recipe: Recipe = DEMO.recipe) -> Any:
    """One attack with quick settings, fitted to what the adversary has.

    Args:
        name: of the attack.
        sizes: what he has.
        recipe: by which the attacked model learned.

    Raises:
        BadConfig: when the task has too few classes for it.
    """
    attack = quick_attacks(recipe)[name]
    if why := attack.unfit(sizes):
        raise BadConfig(f"{name} is not for {sizes.classes} classes, since {why}: choose another attack")
    return attack.fitted(sizes)


def on_inputs(
    trials: tuple[Trial, ...], probes: tuple[Probe, ...], sizes: Sizes | None
) -> tuple[tuple[Trial, ...], tuple[Probe, ...], list[str]]:
    """Trials and probes as they are for the adversary's inputs, and the names of those that cannot work on them.

    On sounds and texts attacks have the defaults for these. Transformations of queries are for one kind of inputs or another, and
    need not be told of.

    Args:
        trials: as for images.
        probes: likewise.
        sizes: with the space of the inputs; without one they are images.
    """
    space = Images((1, 8, 8)) if sizes is None or sizes.space is None else sizes.space
    classes = 2 if sizes is None else sizes.classes

    def stepped(trial: Trial) -> Trial:
        steps: list[Any] = [replace(step, attack=suited(step.attack, space, classes)) for step in trial.steps]  # type: ignore[arg-type]
        return replace(trial, steps=tuple(steps))

    def stolen(probe: Probe) -> Probe:
        before = (replace(theft, attack=suited(theft.attack, space, classes)) for theft in probe.stolen)
        return replace(probe, attack=suited(probe.attack, space, classes), stolen=tuple(before))

    kept, looked = [stepped(trial) for trial in trials], [stolen(probe) for probe in probes]
    unfit = [trial for trial in kept if not suits(tuple(step.attack for step in trial.steps), space)]
    told = [trial.name for trial in unfit if not isinstance(trial.steps[-1].attack, Preprocessing)]
    told += [probe.name for probe in looked if not suits(probe.attack, space)]
    return (
        tuple(trial for trial in kept if trial not in unfit),
        tuple(probe for probe in looked if suits(probe.attack, space)),
        told,
    )


def fitting(before: Any, after: Any, sizes: Sizes) -> str:
    """What was fitted, for people; empty when nothing was.

    Args:
        before: an attack as it would be for many images and classes.
        after: the same, fitted.
        sizes: to what.

    Examples:
        >>> few, jbda = Sizes(images=100, classes=10), EXTRACTIONS["jbda"]()
        >>> fitting(jbda, jbda.fitted(few), few)
        'seeds=100 instead of 150, as the adversary has 100 images of 10 classes'
    """
    pairs = [(field.name, getattr(before, field.name), getattr(after, field.name)) for field in fields(before)]
    changed = [f"{name}={_short(new)} instead of {_short(old)}" for name, old, new in pairs if old != new]
    words = f"as the adversary has {sizes.images} images of {sizes.classes} classes"
    return f"{', '.join(changed)}, {words}" if changed else ""


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
