"""Settings for small machines: every method, and the thief, as the demo and the small scale of recipes train them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from heirmark.attacks.extraction.knockoff import Knockoff
from heirmark.joint import Phase
from heirmark.methods import (
    EWE,
    SSWP,
    SSWS,
    T2S,
    Abstract,
    BadNets,
    Composite,
    Content,
    DeepTracer,
    FeatureSharing,
    KeyFilter,
    Margin,
    MEADefender,
    Method,
    Noise,
    Unmarked,
    Unrelated,
    Vanilla,
)
from heirmark.rehearsal.settings import Balanced, Rehearsal
from heirmark.training import Recipe
from heirmark.triggers import AbstractImages, Entangled, Tiles

QUICK_ADAM = Recipe(batch_size=128, optimizer="adam", learning_rate=2e-3, weight_decay=0.0)
"""For methods whose losses want their papers' optimiser."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The settings of a demo.

    Attributes:
        data: name of the data set.
        model: architecture of owner, thief and competitor alike.
        recipe: of every training from scratch.
        rehearsal: T2S' second phase: balanced, where the paper's update would cost a small net its accuracy.
        triggers: samples that train.
        key_size: samples that verify.
        calibrators: unmarked models that are trained to calibrate the test, at least one; copies of them come on top.
        calibration_recipe: how those are trained.
        calibration_models: their architectures in turn; none takes ``model``.
        trigger_batch: watermark samples that join a batch of joint training.
        joint: recipe of the methods that train several losses at once: their papers' optimiser.
        joint_epochs: of their two phases.
        surrogate_queries: what the surrogate of DeepTracer's key filter asks: ``"owner"`` or ``"foreign"``, as in its paper.
    """

    data: str
    model: str
    recipe: Recipe
    rehearsal: Rehearsal
    triggers: int = 1000
    key_size: int = 500
    calibrators: int = 5
    calibration_recipe: Recipe
    calibration_models: tuple[str, ...] = ()
    trigger_batch: int = 16
    joint: Recipe = QUICK_ADAM
    joint_epochs: tuple[int, int] = (4, 8)
    surrogate_queries: Literal["owner", "foreign"] = "owner"

    def t2s(self) -> T2S:
        """T2S on DeepTracer's tiles with the balanced update."""
        return T2S(
            model=self.model,
            trigger=Tiles(),
            triggers=self.triggers,
            key_size=self.key_size,
            pretraining=self.recipe,
            trigger_batch=self.trigger_batch,
            rehearsal=self.rehearsal,
        )

    def vanilla(self) -> Vanilla:
        """The same without rehearsal."""
        return self.t2s().vanilla()

    def unmarked(self) -> Unmarked:
        """The same without a watermark."""
        return Unmarked(model=self.model, pretraining=self.recipe, trigger=Tiles(), key_size=self.key_size)

    def mea_defender(self) -> MEADefender:
        """MEA-Defender by Adam with fixed weights: MGDA leaves the main task too little to be learned in few epochs."""
        first, second = self.joint_epochs
        return MEADefender(
            model=self.model,
            triggers=self.triggers,
            evasion_samples=self.triggers,
            key_size=self.key_size,
            pretraining=self.recipe,
            first=Phase(recipe=replace(self.joint, epochs=first), extras={"watermark": 2}),
            second=Phase(
                recipe=replace(self.joint, epochs=second, batch_size=80), extras={"watermark": 34, "evasion": 14}
            ),
            weighting="fixed",
            weights=(1.0, 0.1, 1.0, 1.0),
        )

    def deeptracer(self) -> DeepTracer:
        """DeepTracer by Adam: at the others' rate the coupling loss costs it a whole class."""
        first, second = self.joint_epochs
        return DeepTracer(
            model=self.model,
            triggers=self.triggers,
            key_size=self.key_size,
            pretraining=self.recipe,
            first=Phase(recipe=replace(self.joint, epochs=first), extras={"watermark": 1}),
            second=Phase(recipe=replace(self.joint, epochs=second), extras={"watermark": 14}),
            key_filter=self.key_filter(),
        )

    def key_filter(self) -> KeyFilter:
        """DeepTracer's filter with a surrogate of the victim's architecture."""
        return KeyFilter(
            candidates=4 * self.key_size, surrogate=None, recipe=self.recipe, queries=self.surrogate_queries
        )

    def feature_sharing(self) -> FeatureSharing:
        """Feature sharing on the clean model of the others."""
        return FeatureSharing(
            model=self.model,
            triggers=self.triggers,
            key_size=self.key_size,
            pretraining=self.recipe,
            tuning=replace(self.recipe, epochs=self.recipe.epochs, learning_rate=self.recipe.learning_rate / 2),
            trigger_batch=32,
        )

    def joint_training(self, kind: type[Content | Noise | Unrelated | BadNets]) -> Method:
        """A baseline that is joint training with a trigger of its own; abstract images where another data set would be needed."""
        method = kind(
            model=self.model,
            triggers=self.triggers,
            key_size=self.key_size,
            pretraining=self.recipe,
            trigger_batch=self.trigger_batch,
        )
        return replace(method, trigger=AbstractImages()) if kind is Unrelated else method

    def abstract(self) -> Abstract:
        """Abstract images with random labels, more of them in a batch, since there are few epochs."""
        return Abstract(
            model=self.model, pretraining=self.recipe, training=self.recipe, trigger_batch=self.trigger_batch
        )

    def margin(self) -> Margin:
        """Margin-based watermarks with the others' momentum and the weight of clean samples, since there are few epochs."""
        return Margin(
            model=self.model,
            pretraining=self.recipe,
            training=replace(self.recipe, epochs=2 * self.recipe.epochs),
            drops=(),
            weight=1.0,
        )

    def composite(self) -> Composite:
        """Composite by Adam."""
        return Composite(
            model=self.model,
            triggers=self.triggers,
            mixed=4 * self.triggers,
            key_size=self.key_size,
            pretraining=self.recipe,
            training=Phase(
                recipe=replace(self.joint, epochs=sum(self.joint_epochs), batch_size=58),
                extras={"watermark": 12, "mixed": 58},
                share=0.5,
            ),
        )

    def ewe(self) -> EWE:
        """EWE by Adam on abstract images, where another data set would be needed."""
        return EWE(
            model=self.model,
            trigger=Entangled(of=AbstractImages()),
            triggers=self.triggers,
            key_size=self.key_size,
            pretraining=self.recipe,
            training=Phase(
                recipe=replace(self.joint, epochs=self.joint_epochs[1]), extras={"watermark": 32, "target": 32}
            ),
        )

    def ssw(self, kind: type[SSWP | SSWS]) -> Method:
        """SSW by Adam on abstract images, where another data set would be needed; pixels go further, since shadows learn less."""
        epochs = self.joint_epochs[0] if kind is SSWP else sum(self.joint_epochs)
        return kind(
            model=self.model,
            trigger=AbstractImages(),
            triggers=self.triggers,
            key_size=self.key_size,
            candidates=2 * self.key_size,
            pretraining=self.recipe,
            training=replace(self.joint, epochs=epochs),
            steps=20,
            pixel_rate=3e-3,
        )

    def method(self, name: str) -> Method:
        """The settings of a method by its name.

        Raises:
            KeyError: for an unknown one.
        """
        made: dict[str, Callable[[], Method]] = {
            "t2s": self.t2s,
            "mea-defender": self.mea_defender,
            "deeptracer": self.deeptracer,
            "feature-sharing": self.feature_sharing,
            "ewe": self.ewe,
            "ssw-p": lambda: self.ssw(SSWP),
            "ssw-s": lambda: self.ssw(SSWS),
            "margin": self.margin,
            "composite": self.composite,
            "badnets": lambda: self.joint_training(BadNets),
            "content": lambda: self.joint_training(Content),
            "noise": lambda: self.joint_training(Noise),
            "unrelated": lambda: self.joint_training(Unrelated),
            "abstract": self.abstract,
            "vanilla": self.vanilla,
            "unmarked": self.unmarked,
        }
        return made[name]()

    def knockoff(self) -> Knockoff:
        """The thief: the victim's architecture and training, every image of the adversary's split asked once."""
        return Knockoff(model=self.model, recipe=self.recipe)


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
)
"""Minutes on two CPU cores."""

FULL_RECIPE = replace(QUICK_RECIPE, epochs=15)
FULL = replace(
    QUICK,
    data="fashion-mnist",
    recipe=FULL_RECIPE,
    calibration_recipe=FULL_RECIPE,
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
