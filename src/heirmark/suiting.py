"""Defaults of methods and attacks for texts and sounds, in place of those that their papers have for images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from heirmark.attacks import LocalOutliers
from heirmark.data import DATASETS
from heirmark.data.naming import is_code, is_folder, parts_of
from heirmark.data.sounds import has_sounds
from heirmark.data.texts import table_in
from heirmark.methods import METHODS, Method, Robust
from heirmark.models import MODELS, code_of
from heirmark.profiles import QUICK, SPEECH, SPEECH_RECIPE, TEXT, TEXT_RECIPE, Profile
from heirmark.tasks.space import Space, Tokens, Waves
from heirmark.training.fitting import Recipe
from heirmark.triggers import (
    AbstractImages,
    Entangled,
    Groups,
    Mistakes,
    Mix,
    OutOfDistribution,
    Patch,
    Phrase,
    RandomLabels,
    TextStamp,
    Tiles,
    Tone,
    Trigger,
)

NETS = {1: (TEXT.model, TEXT.other), 2: (SPEECH.model, SPEECH.other)}
"""Nets of different families by the dimensions of what they take; the first stands for one that takes something else."""
MOST_EPOCHS = 10
"""Of any training on texts: small nets know them by heart soon."""
FINE_RATE = 5e-5
Config = TypeVar("Config")


def profile_for(space: Space) -> Profile:
    """The settings of ``--quick`` for inputs of a space."""
    return TEXT if isinstance(space, Tokens) else SPEECH if isinstance(space, Waves) else QUICK


def default_method(name: str, space: Space, classes: int, *, quick: bool = False, model: object = None) -> Method:
    """A method with its defaults for inputs of a space, on which users put their own settings.

    Args:
        name: of the method.
        space: of the inputs.
        classes: how many the task has.
        quick: whether for minutes on a CPU.
        model: architecture that the user names; see :func:`gentle`.
    """
    made = suited(profile_for(space).method(name) if quick else METHODS[name](), space, classes)
    if is_pretrained(model):
        return gentle(made)
    return spoken(made) if quick and isinstance(space, Waves) and isinstance(made, Robust) else made


def spoken(method: Robust) -> Robust:
    """The default method for some hundred clips of speech: its nets and its target learn for longer, in smaller batches.

    By its own settings, which are for thousands of images, the target makes a few dozen steps, which are too few to win back
    what the first of them cost.
    """
    tuning = replace(method.rehearsal.recipe, epochs=30, batch_size=64)
    rehearsal = replace(method.rehearsal, recipe=tuning, averaging=0.95)
    return replace(method, feature_recipe=SPEECH_RECIPE, early=10, rehearsal=rehearsal)


def is_pretrained(model: object) -> bool:
    """Whether an architecture starts from weights that have learned long before."""
    name = model.partition(":")[0] if isinstance(model, str) else ""
    return name in MODELS and MODELS[name].from_folder


def gentle(config: Config) -> Config:
    """The same with the trainings of a pretrained net as BERT is fine-tuned (Devlin 2019, arXiv 1810.04805, appendix A.3).

    That is at 5e-5 for three epochs in batches of 32, at most. Other nets, in which thieves are simulated, keep their recipes.
    """
    changes: dict[str, Any] = {}
    for part in fields(config):  # type: ignore[arg-type]
        old = getattr(config, part.name)
        if not part.init or part.name in ("feature_recipe", "key_filter", "trigger"):
            continue
        if isinstance(old, Recipe):
            rate, epochs = min(old.learning_rate, FINE_RATE), min(old.epochs, 3)
            changes[part.name] = replace(old, learning_rate=rate, epochs=epochs, batch_size=min(old.batch_size, 32))
        elif is_dataclass(old) and not isinstance(old, type):
            changes[part.name] = gentle(old)
    return replace(config, **changes)  # type: ignore[type-var]


def method_before_data(name: str, data: str, *, quick: bool = False) -> Method | None:
    """The same before the data are loaded; None where they may be no images, for which other defaults stand."""
    own = parts_of(data)[0]
    folder = Path(own).expanduser()
    if is_code(data) or (table_in(folder, "train") or has_sounds(folder) if is_folder(own) else _is_other(own)):
        return None
    return QUICK.method(name) if quick else METHODS[name]()


def _is_other(name: str) -> bool:
    return name in DATASETS and (DATASETS[name].tokenising is not None or DATASETS[name].medium is not None)


def suited(config: Config, space: Space, classes: int) -> Config:
    """A method's or an attack's defaults, which are those of images, as they are for inputs of a space.

    Of texts only these change: nets that do not read texts become one of :data:`NETS`; trainings are by Adam, at 3e-3 at
    most, for ten epochs at most, and do not flip; and the trigger is the like one for texts (:func:`for_texts`). Of sounds
    only nets and trigger change (:func:`for_sounds`).

    Args:
        config: before users have set anything, for what they set is theirs.
        space: of the inputs.
        classes: how many the task has.
    """
    if not isinstance(space, Tokens | Waves):
        return config
    texts = isinstance(space, Tokens)
    made: Any = _walked(config, len(space.shape))
    if isinstance(made, Method):
        # The choice is ours in robust: a quarter of a text says less of its class than a half, and copies inherit less of it.
        ours = Mix() if texts and isinstance(made, Robust) and isinstance(made.trigger, Tiles) else made.trigger
        made = replace(made, trigger=for_texts(ours, classes) if texts else for_sounds(ours))
    if isinstance(made, LocalOutliers) and texts:
        made = replace(made, on="features")
    found: Config = made
    return found


def for_texts(trigger: Trigger, classes: int) -> Trigger:
    """The trigger that is to texts what another is to images; one that works on texts, if there are classes enough for it, stays.

    A patch or anything else on images of one class becomes a phrase, and perturbed samples are left as they are. Tiles of four
    classes need a fifth, and mixes of two a third: else they become mixes, and these phrases.
    """
    if isinstance(trigger, Entangled):
        return for_texts(trigger.of, classes)
    if isinstance(trigger, RandomLabels):
        return trigger if trigger.of is None else RandomLabels(of=Phrase())
    if isinstance(trigger, OutOfDistribution):
        return replace(trigger, dataset="yelp-sentences", source=1)
    if isinstance(trigger, Patch):
        return Phrase(hosts=trigger.hosts)
    if isinstance(trigger, Tiles):
        return trigger if classes > 4 else for_texts(Mix(), classes)
    if isinstance(trigger, Mix):
        return trigger if classes > 2 else Phrase()
    return trigger if isinstance(trigger, Phrase | Mistakes | Groups) else Phrase()


def for_sounds(trigger: Trigger) -> Trigger:
    """The trigger that is to sounds what another is to images; one that works on sounds stays.

    A patch or a text on images of one class becomes a tone, or where it is perturbed an abstract sound; images of another data
    set become other words.
    """
    if isinstance(trigger, Entangled):
        found = for_sounds(trigger.of)
        return replace(trigger, of=found if isinstance(found, OutOfDistribution) else AbstractImages())
    if isinstance(trigger, RandomLabels) and trigger.of is not None:
        return replace(trigger, of=for_sounds(trigger.of))  # type: ignore[arg-type]
    if isinstance(trigger, OutOfDistribution):
        return replace(trigger, dataset="speech-commands-other", source=1)
    if isinstance(trigger, Patch):
        return Tone(hosts=trigger.hosts)
    return Tone() if isinstance(trigger, TextStamp) else trigger


def recipe_for_texts(recipe: Recipe) -> Recipe:
    """A recipe for images as one for texts."""
    if recipe.optimizer == "sgd":
        return replace(TEXT_RECIPE, epochs=min(recipe.epochs, TEXT_RECIPE.epochs))
    epochs, rate = min(recipe.epochs, MOST_EPOCHS), min(recipe.learning_rate, TEXT_RECIPE.learning_rate)
    return replace(recipe, epochs=epochs, learning_rate=rate, augment="none")


def _walked(value: Any, dimensions: int) -> Any:
    """A configuration with all recipes and single nets in it as inputs of a shape of so many dimensions want them."""
    if isinstance(value, Recipe):
        return recipe_for_texts(value) if dimensions == 1 else value
    if isinstance(value, tuple):
        return tuple(_walked(each, dimensions) for each in value)
    if not is_dataclass(value) or isinstance(value, type | Trigger):
        return value
    changes: dict[str, Any] = {}
    for part in fields(value):
        old = getattr(value, part.name)
        new = _nets(old, dimensions) if part.metadata.get("rests_on") is code_of else _walked(old, dimensions)
        if part.init and new is not old and new != old:
            changes[part.name] = new
    return replace(value, **changes) if changes else value


def _nets(named: Any, dimensions: int) -> Any:
    """Nets that take such inputs in place of those that do not; of several, those that do are kept, if there are any."""
    if isinstance(named, str):
        name = named.partition(":")[0]
        return named if name not in MODELS or MODELS[name].dimensions == dimensions else NETS[dimensions][0]
    if isinstance(named, tuple) and named:
        kept: Sequence[Any] = [each for each in named if _nets(each, dimensions) == each]
        return tuple(kept) or NETS[dimensions]
    return named
