"""Settings for small machines: the demo's, which ``--quick`` and the small scale of recipes take too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from heirmark.attacks.base import brief_retraining
from heirmark.attacks.extraction.knockoff import Knockoff
from heirmark.methods import METHODS, T2S, Method, Robust, Unmarked, Vanilla
from heirmark.methods.scale import Scale
from heirmark.rehearsal.settings import Balanced, Rehearsal
from heirmark.training.fitting import Recipe


@dataclass(frozen=True, kw_only=True)
class Profile(Scale):
    """The settings of a demo.

    Attributes:
        data: name of the data set.
        calibrators: unmarked models that are trained to calibrate the test, at least one; copies of them come on top.
        calibration_recipe: how those are trained.
        calibration_models: their architectures in turn; none takes ``model``.
        other: architecture of the thief who has another one than the victim; he trains with Adam, which such nets without
            BatchNorm learn by at once, as the other net of an audit does.
        other_name: of that net, in the demo.
        thief_epochs: of the demo's thieves; None trains them as long as the victim.
        audience: families of nets in whose features the thieves of ``robust`` finish in the demo; none takes its default.
    """

    data: str
    calibrators: int = 5
    calibration_recipe: Recipe
    calibration_models: tuple[str, ...] = ()
    other: str = "vgg-like:width=16,dropout=0.1"
    other_name: Literal["VGG", "mel-CNN", "LSTM"] = "VGG"
    thief_epochs: int | None = None
    audience: tuple[str, ...] = ()

    def t2s(self) -> T2S:
        """T2S."""
        return T2S.quick(self)

    def vanilla(self) -> Vanilla:
        """The same without rehearsal."""
        return Vanilla.quick(self)

    def unmarked(self) -> Unmarked:
        """The same without a watermark."""
        return Unmarked.quick(self)

    def method(self, name: str) -> Method:
        """The settings of a method by its name.

        Raises:
            KeyError: for an unknown one.
        """
        return METHODS[name].quick(self)

    def calibration(self) -> tuple[Unmarked, ...]:
        """How the unmarked models are trained that calibrate the test."""
        models = self.calibration_models or (self.model,)
        return tuple(
            replace(self.unmarked(), model=models[index % len(models)], pretraining=self.calibration_recipe)
            for index in range(self.calibrators)
        )

    def shown(self, name: str) -> Method:
        """The settings of a method in the demo."""
        made = self.method(name)
        return replace(made, thieves=self.audience) if self.audience and isinstance(made, Robust) else made

    def knockoff(self) -> Knockoff:
        """The thief: the victim's architecture and training, every image of the adversary's split asked once."""
        return Knockoff(model=self.model, recipe=self.recipe)

    def thieves(self) -> tuple[Knockoff, Knockoff]:
        """The demo's thieves: with the victim's architecture, and with another."""
        same = self.knockoff()
        recipe = replace(same.recipe, epochs=self.thief_epochs or same.recipe.epochs)
        other = Knockoff(model=self.other, recipe=brief_retraining(recipe, epochs=recipe.epochs))
        return replace(same, recipe=recipe), other


QUICK_RECIPE = Recipe(epochs=8, batch_size=128, nesterov=True, warmup=0.15)
QUICK = Profile(
    data="fashion-mini",
    model="naivenet:batch_norm=true",
    recipe=QUICK_RECIPE,
    calibration_recipe=replace(QUICK_RECIPE, epochs=5),
    calibration_models=tuple(f"naivenet:batch_norm=true,width={width}" for width in (32, 16, 48, 24)),
    rehearsal=Rehearsal(
        recipe=Recipe(epochs=8, batch_size=128, learning_rate=0.02, weight_decay=0.0),
        update=Balanced(rho=2.0, enough=0.5),
        precision="runtime",
    ),
    thief_epochs=6,
    audience=("naivenet:batch_norm=true", "vgg-like:width=16"),
)
"""Minutes on two CPU cores. For their sake the demo's thieves train for six epochs, and its audience has no ResNet."""

TEXT_RECIPE = Recipe(epochs=5, batch_size=64, optimizer="adam", learning_rate=3e-3, weight_decay=0.0)
TEXT = replace(
    QUICK,
    data="sst2",
    model="text-cnn",
    recipe=TEXT_RECIPE,
    calibration_recipe=replace(TEXT_RECIPE, epochs=4),
    calibration_models=("text-cnn", "lstm", "fast-text", "text-cnn:maps=60", "lstm:hidden=96"),
    other="lstm",
    other_name="LSTM",
    joint=TEXT_RECIPE,
    joint_epochs=(2, 4),
    rehearsal=replace(QUICK.rehearsal, recipe=replace(TEXT_RECIPE, epochs=3)),
    thief_epochs=None,
    audience=(),
)
"""Texts: small nets have read them after a few epochs, and know them by heart after more. A batch moves the vectors of few words,
so the rate is large: on SST-2 a text CNN and an LSTM were 8 points better on the calibration split than at 1e-3."""

SENTENCES = replace(TEXT, data="sentences")
"""Made-up texts, of which everybody has the data."""

SOUND_RECIPE = replace(QUICK_RECIPE, batch_size=64, augment="shift")
CHIRPS = replace(
    QUICK,
    data="chirps",
    model="m5:width=32,kernel=40,stride=8",
    recipe=SOUND_RECIPE,
    calibration_recipe=replace(SOUND_RECIPE, epochs=6),
    calibration_models=(
        "m5:width=32,kernel=40,stride=8",
        "mel-cnn:rate=4000,mels=32,width=12",
        "m5:width=24,kernel=64,stride=8",
        "mel-cnn:rate=4000,mels=24,width=16",
    ),
    other="mel-cnn:rate=4000,mels=32",
    other_name="mel-CNN",
    thief_epochs=None,
    audience=("m5:width=32,kernel=40,stride=8", "mel-cnn:rate=4000,mels=32"),
)
"""Made-up sounds, of which everybody has the data."""

SPEECH_RECIPE = Recipe(
    epochs=30, batch_size=64, optimizer="adam", learning_rate=3e-3, weight_decay=1e-4, augment="shift"
)
SPEECH = replace(
    QUICK,
    data="speech-commands",
    model="m5:width=32,stride=16",
    recipe=SPEECH_RECIPE,
    calibration_recipe=replace(SPEECH_RECIPE, epochs=25),
    calibration_models=("m5:width=32,stride=16", "mel-cnn", "m5:width=24,kernel=160,stride=8", "mel-cnn:width=12"),
    other="mel-cnn",
    other_name="mel-CNN",
    joint=replace(SPEECH_RECIPE, batch_size=40),
    joint_epochs=(10, 20),
    rehearsal=replace(QUICK.rehearsal, recipe=replace(SPEECH_RECIPE, epochs=10, learning_rate=1e-3, weight_decay=0.0)),
    triggers=500,
    key_size=200,
    thief_epochs=None,
    audience=(),
)
"""Spoken words: of few of them small nets learn more when they are moved in time, and need more epochs than of images."""

FULL_RECIPE = replace(QUICK_RECIPE, epochs=15)
FULL = replace(
    QUICK,
    data="fashion-mnist",
    recipe=FULL_RECIPE,
    calibration_recipe=FULL_RECIPE,
    thief_epochs=None,
    audience=(),
    rehearsal=replace(QUICK.rehearsal, recipe=replace(QUICK.rehearsal.recipe, epochs=6)),
)
"""Full Fashion-MNIST."""

STUDY_RECIPE = Recipe(epochs=6, batch_size=128, optimizer="adam", learning_rate=1e-3, weight_decay=0.0)
STUDY = replace(
    FULL,
    model="naivenet",
    recipe=STUDY_RECIPE,
    calibration_recipe=STUDY_RECIPE,
    calibration_models=(),
    triggers=2700,
    trigger_batch=14,
    joint=STUDY_RECIPE,
    joint_epochs=(6, 6),
    rehearsal=replace(FULL.rehearsal, recipe=replace(FULL.rehearsal.recipe, epochs=4)),
)
"""Full Fashion-MNIST with DeepTracer's net, by the recipes and benchmarks that compare; see recipes/comparison.py."""
