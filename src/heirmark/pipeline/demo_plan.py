"""The demo's graph of stages: who is trained, marked, robbed and judged, and with what settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from heirmark.attacks.extraction.knockoff import Knockoff
from heirmark.joint import Phase
from heirmark.methods import (
    EWE,
    SSWP,
    SSWS,
    T2S,
    Abstract,
    AnyMethod,
    BadNets,
    Composite,
    Content,
    DeepTracer,
    FeatureSharing,
    KeyFilter,
    Margin,
    MEADefender,
    Noise,
    Unmarked,
    Unrelated,
    Vanilla,
)
from heirmark.pipeline.context import Context
from heirmark.pipeline.embedding import embed_stage
from heirmark.pipeline.judging import Judgement, calibrate_stage, verify_stage
from heirmark.pipeline.stage import Stage, lineage
from heirmark.pipeline.stealing import Theft, steal_stage
from heirmark.runtime import derive_seed
from heirmark.training import Recipe
from heirmark.triggers import AbstractImages, Entangled, Tiles
from heirmark.tuning import Rehearsal

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
        calibrators: unmarked models that calibrate the test.
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
            first=Phase(recipe=replace(self.joint, epochs=first), extras=(2, 0)),
            second=Phase(recipe=replace(self.joint, epochs=second, batch_size=80), extras=(34, 14)),
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
            first=Phase(recipe=replace(self.joint, epochs=first), extras=(1,)),
            second=Phase(recipe=replace(self.joint, epochs=second), extras=(14,)),
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

    def joint_training(self, kind: type[Content | Noise | Unrelated | BadNets]) -> AnyMethod:
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
                recipe=replace(self.joint, epochs=sum(self.joint_epochs), batch_size=58), extras=(12, 58), share=0.5
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
            training=Phase(recipe=replace(self.joint, epochs=self.joint_epochs[1]), extras=(32, 32)),
        )

    def ssw(self, kind: type[SSWP | SSWS]) -> AnyMethod:
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

    def method(self, name: str) -> AnyMethod:
        """The settings of a method by its name.

        Raises:
            KeyError: for an unknown one.
        """
        made: dict[str, Callable[[], AnyMethod]] = {
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
        epochs=8,
        batch_size=128,
        trigger_batch=64,
        learning_rate=0.02,
        update="balanced",
        rho=2.0,
        enough=0.5,
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
    rehearsal=replace(QUICK.rehearsal, epochs=6),
)
"""Full Fashion-MNIST."""


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """One row of the demo: a stage whose model is judged.

    Attributes:
        name: for people.
        method: watermark of the model or of its victim.
        attack: how it was stolen; ``"none"`` when it was not.
        answers: what the thief was given; ``"none"`` when it was not stolen.
        stage: makes the model.
        marked: the stage whose key judges it.
        verification: judges it.
        inherits: whether it descends from a marked model.
    """

    name: str
    method: str
    attack: str = "none"
    answers: str = "none"
    stage: Stage
    marked: Stage
    verification: Stage
    inherits: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The demo's graph of stages.

    Attributes:
        suspects: in the order of the table.
        stages: all of them, in the order in which they tell the story: train, mark, calibrate, steal, verify.
        marked: embeds T2S.
        calibration: of its key.
        labels: what the stages are called for people, by stage name.
    """

    suspects: tuple[Suspect, ...]
    stages: tuple[Stage, ...]
    marked: Stage
    calibration: Stage
    labels: Mapping[str, str] = field(repr=False)


def plan_demo(profile: Profile, context: Context, *, seed: int, methods: tuple[str, ...] = ()) -> Plan:
    """Lay out the stages.

    Args:
        profile: settings.
        context: data and hardware.
        seed: of everything random.
        methods: names of methods beside T2S and vanilla. Each brings its own key, and with it one more judgement of the thefts
            of the clean model.

    The model that chooses the key's classes neither calibrates nor is judged: it would look innocent by construction. The
    unmarked model that is judged, and stolen, is another; and the models that calibrate are reported nowhere. They are of
    several architectures where the profile names some, and the last of them is a theft of the first.
    """
    chooser = embed_stage(profile.unmarked(), context, seed=seed, kind="train")
    vanilla = embed_stage(profile.vanilla(), context, seed=seed, clean=chooser)
    marked = embed_stage(profile.t2s(), context, seed=seed, clean=chooser, watermarked=vanilla)
    clean = embed_stage(profile.unmarked(), context, seed=derive_seed(seed, "clean"), kind="train")
    architectures = profile.calibration_models or (profile.model,)
    calibrators = [
        embed_stage(
            replace(
                profile.unmarked(),
                model=architectures[index % len(architectures)],
                pretraining=profile.calibration_recipe,
            ),
            context,
            seed=derive_seed(seed, "calibrator", index),
            kind="train",
        )
        for index in range(max(1, profile.calibrators - 1))
    ]
    if profile.calibrators > 1:
        by_label = Theft(attack=profile.knockoff(), answers="label")
        calibrators.append(
            steal_stage(by_label, calibrators[0], context, seed=derive_seed(seed, "calibrator", "thief"))
        )
    calibrations = {key.name: calibrate_stage(key, calibrators, context) for key in (marked, vanilla)}
    competitor = replace(profile.unmarked(), data="adversary")
    independent = embed_stage(competitor, context, seed=derive_seed(seed, "independent"), kind="train")
    labels = {
        chooser.name: "train the unmarked model that chooses the key's classes",
        clean.name: "train the clean model",
        vanilla.name: "embed the vanilla watermark",
        marked.name: "embed T2S: rehearse the theft",
        **{
            stage.name: f"{'steal' if stage.kind == 'steal' else 'train'} unmarked model {index + 1} to calibrate"
            for index, stage in enumerate(calibrators)
        },
        calibrations[marked.name].name: "calibrate the T2S key",
        calibrations[vanilla.name].name: "calibrate the vanilla key",
        independent.name: "train an independent model",
    }

    def suspect(
        name: str, stage: Stage, key: Stage, method: str, *, attack: str = "none", answers: str = "none"
    ) -> Suspect:
        verification = verify_stage(stage, key, calibrations[key.name], context, Judgement())
        labels[verification.name] = f"verify: {name}" + ("" if answers == "none" else f" ({answers})")
        return Suspect(
            name=name,
            method=method,
            attack=attack,
            answers=answers,
            stage=stage,
            marked=key,
            verification=verification,
            inherits=method != "unmarked",
        )

    suspects = [
        suspect("T2S model", marked, marked, "t2s"),
        suspect("vanilla model", vanilla, vanilla, "vanilla"),
    ]
    channels: tuple[tuple[Literal["probabilities", "label"], str], ...] = (
        ("probabilities", "soft"),
        ("label", "label"),
    )
    for name, victim, key, method in (
        ("T2S", marked, marked, "t2s"),
        ("vanilla", vanilla, vanilla, "vanilla"),
        ("clean", clean, marked, "unmarked"),
    ):
        for number, (answers, short) in enumerate(channels):
            theft = Theft(attack=profile.knockoff(), answers=answers)
            stage = steal_stage(theft, victim, context, seed=derive_seed(seed, "thief", number))
            labels[stage.name] = f"steal the {name} model ({short})"
            suspects.append(suspect(f"stolen from {name} model", stage, key, method, attack="knockoff", answers=short))
    for name in methods:
        other = embed_stage(profile.method(name), context, seed=seed, clean=chooser)
        calibrations[other.name] = calibrate_stage(other, calibrators, context)
        labels[other.name] = f"embed {name}"
        labels[calibrations[other.name].name] = f"calibrate the {name} key"
        suspects.append(suspect(f"{name} model", other, other, name))
        for victim, owner, method in ((other, name, name), (clean, "clean", "unmarked")):
            for number, (answers, short) in enumerate(channels):
                theft = Theft(attack=profile.knockoff(), answers=answers)
                stage = steal_stage(theft, victim, context, seed=derive_seed(seed, "thief", number))
                labels.setdefault(stage.name, f"steal the {owner} model ({short})")
                told = f"stolen from {owner} model" + (f", {name} key" if method == "unmarked" else "")
                suspects.append(suspect(told, stage, other, method, attack="knockoff", answers=short))
    suspects += [
        suspect("clean model", clean, marked, "unmarked"),
        suspect("independent model", independent, marked, "unmarked"),
    ]
    stages = lineage(
        chooser,
        vanilla,
        marked,
        *calibrations.values(),
        *(found.stage for found in suspects),
        *(found.verification for found in suspects),
    )
    for stage in stages:
        if stage.kind == "answer":
            labels[stage.name] = "answer a thief's queries"
    return Plan(
        suspects=tuple(suspects),
        stages=tuple(stages),
        marked=marked,
        calibration=calibrations[marked.name],
        labels=labels,
    )
