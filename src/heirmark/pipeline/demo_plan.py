"""The demo's graph of stages: who is trained, marked, robbed and judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from heirmark.blackbox import Api
from heirmark.pipeline.calibrating import calibrator_seed, stolen_calibrators
from heirmark.pipeline.context import Context
from heirmark.pipeline.embedding import embed_stage, train_stage
from heirmark.pipeline.judging import Judgement, calibrate_stage, verify_stage
from heirmark.pipeline.profiles import Profile
from heirmark.pipeline.stage import Stage, lineage
from heirmark.pipeline.stealing import Theft, steal_stage
from heirmark.runtime import derive_seed


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
    several architectures where the profile names some. On top of them comes a theft of the first, since suspects are mostly
    copies; it counts as no independent model.
    """
    chooser = embed_stage(profile.unmarked(), context, seed=seed, kind="train")
    vanilla = embed_stage(profile.vanilla(), context, seed=seed, clean=chooser)
    marked = embed_stage(profile.t2s(), context, seed=seed, clean=chooser, given={"watermarked": vanilla})
    clean = embed_stage(profile.unmarked(), context, seed=derive_seed(seed, "clean"), kind="train")
    architectures = profile.calibration_models or (profile.model,)
    calibrators = [
        train_stage(
            replace(
                profile.unmarked(),
                model=architectures[index % len(architectures)],
                pretraining=profile.calibration_recipe,
            ),
            context,
            seed=calibrator_seed(seed, index),
        )
        for index in range(profile.calibrators)
    ]
    by_label = Theft(attack=profile.knockoff(), api=Api(answers="label"))
    calibrators.extend(stolen_calibrators(calibrators, (by_label,), context, seed=seed))
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
            theft = Theft(attack=profile.knockoff(), api=Api(answers=answers))
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
                theft = Theft(attack=profile.knockoff(), api=Api(answers=answers))
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
