"""The main job as a graph of stages: watermark, steal, prove; with every control that an honest claim needs."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from heirmark.attacks.extraction.knockoff import Knockoff
from heirmark.configuration import to_json
from heirmark.data import load_task
from heirmark.files import atomic_write_bytes, atomic_write_json
from heirmark.methods.t2s import T2S
from heirmark.methods.unmarked import Unmarked
from heirmark.methods.vanilla import Vanilla
from heirmark.pipeline.context import Context
from heirmark.pipeline.embedding import embed_stage
from heirmark.pipeline.folders import read_history, read_pictures
from heirmark.pipeline.judging import Judgement, calibrate_stage, read_judged, read_key, verify_stage
from heirmark.pipeline.stage import Artifact, Stage
from heirmark.pipeline.stealing import Theft, steal_stage
from heirmark.pipeline.store import Event, Store
from heirmark.report import Example, Report, Row, render, rows_to_json
from heirmark.runtime import Progress, Runtime, derive_seed, no_progress
from heirmark.training import Recipe
from heirmark.triggers.tiles import Tiles
from heirmark.tuning import Rehearsal
from heirmark.version import __version__

if TYPE_CHECKING:
    from heirmark.task import Task


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
    """

    data: str
    model: str
    recipe: Recipe
    rehearsal: Rehearsal
    triggers: int = 1000
    key_size: int = 500
    calibrators: int = 5
    calibration_recipe: Recipe

    def t2s(self) -> T2S:
        """T2S on DeepTracer's tiles with the balanced update."""
        return T2S(
            model=self.model,
            trigger=Tiles(),
            triggers=self.triggers,
            key_size=self.key_size,
            pretraining=self.recipe,
            trigger_batch=16,
            rehearsal=self.rehearsal,
        )

    def vanilla(self) -> Vanilla:
        """The same without rehearsal."""
        t2s = self.t2s()
        return Vanilla(
            model=t2s.model,
            trigger=t2s.trigger,
            triggers=t2s.triggers,
            key_size=t2s.key_size,
            pretraining=t2s.pretraining,
            trigger_batch=t2s.trigger_batch,
        )

    def unmarked(self) -> Unmarked:
        """The same without a watermark."""
        return Unmarked(model=self.model, pretraining=self.recipe, trigger=Tiles(), key_size=self.key_size)

    def knockoff(self) -> Knockoff:
        """The thief: the victim's architecture and training, every image of the adversary's split asked once."""
        return Knockoff(model=self.model, recipe=self.recipe)


QUICK_RECIPE = Recipe(epochs=8, batch_size=128, nesterov=True, warmup=0.15)
QUICK = Profile(
    data="fashion-mini",
    model="naivenet:batch_norm=true",
    recipe=QUICK_RECIPE,
    calibration_recipe=replace(QUICK_RECIPE, epochs=4),
    rehearsal=Rehearsal(epochs=8, batch_size=128, trigger_batch=64, learning_rate=0.02, update="balanced", rho=1.5),
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
        inherits: whether it descends from a marked model.
    """

    name: str
    method: str
    attack: str = "none"
    answers: str = "none"
    stage: Stage
    marked: Stage
    inherits: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The demo's graph of stages.

    Attributes:
        suspects: in the order of the table.
        clean: trains the owner's unmarked model.
        marked: embeds T2S.
        calibrations: by identity of the marked stage, calibrates its key.
        labels: what the stages are called for people, by stage name.
    """

    suspects: tuple[Suspect, ...]
    clean: Stage
    marked: Stage
    calibrations: Mapping[str, Stage]
    labels: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo found.

    Attributes:
        rows: one a suspect.
        summary: the story in sentences.
    """

    rows: tuple[Row, ...]
    summary: tuple[str, ...]


def plan_demo(profile: Profile, context: Context, *, seed: int) -> Plan:
    """Lay out the stages.

    The clean model chooses the key's target, so it calibrates nothing. The models that calibrate are reported nowhere.
    """
    clean = embed_stage(profile.unmarked(), context, seed=seed, kind="train")
    vanilla = embed_stage(profile.vanilla(), context, seed=seed, clean=clean)
    marked = embed_stage(profile.t2s(), context, seed=seed, clean=clean, watermarked=vanilla)
    competitor = replace(profile.unmarked(), data="adversary")
    independent = embed_stage(competitor, context, seed=derive_seed(seed, "independent"), kind="train")
    calibrators = [
        embed_stage(
            replace(profile.unmarked(), pretraining=profile.calibration_recipe),
            context,
            seed=derive_seed(seed, "calibrator", index),
            kind="train",
        )
        for index in range(profile.calibrators)
    ]
    calibrations = {key.identity: calibrate_stage(key, calibrators, context) for key in (vanilla, marked)}
    labels = {
        clean.name: "train the clean model",
        vanilla.name: "embed the vanilla watermark",
        marked.name: "embed T2S: rehearse the theft",
        independent.name: "train an independent model",
        **{stage.name: f"train unmarked model {index + 1} for calibration" for index, stage in enumerate(calibrators)},
        **{stage.name: "calibrate a key" for stage in calibrations.values()},
    }
    suspects = [
        Suspect(name="T2S model", method="t2s", stage=marked, marked=marked, inherits=True),
        Suspect(name="vanilla model", method="vanilla", stage=vanilla, marked=vanilla, inherits=True),
    ]
    for name, victim, key in (("T2S", marked, marked), ("vanilla", vanilla, vanilla), ("clean", clean, marked)):
        for number, (answers, words) in enumerate((("probabilities", "soft labels"), ("label", "labels only"))):
            theft = Theft(attack=profile.knockoff(), answers=answers)  # type: ignore[arg-type]
            stage = steal_stage(theft, victim, context, seed=derive_seed(seed, "thief", number))
            labels[stage.name] = f"steal the {name} model by {words}"
            suspects.append(
                Suspect(
                    name=f"stolen from {name} model",
                    method="unmarked" if victim is clean else name.lower(),
                    attack="knockoff",
                    answers="soft" if answers == "probabilities" else "label",
                    stage=stage,
                    marked=key,
                    inherits=victim is not clean,
                )
            )
    suspects += [
        Suspect(name="clean model", method="unmarked", stage=clean, marked=marked, inherits=False),
        Suspect(name="independent model", method="unmarked", stage=independent, marked=marked, inherits=False),
    ]
    return Plan(suspects=tuple(suspects), clean=clean, marked=marked, calibrations=calibrations, labels=labels)


def run_demo(
    out: Path,
    *,
    full: bool = False,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    data_root: Path | None = None,
    progress: Progress = no_progress,
    on_event: Callable[[Event, str], None] | None = None,
    profile: Profile | None = None,
) -> DemoResult:
    """Run the main job, or what is left of it.

    Args:
        out: gets ``results.json``, ``report.html``, ``run.json``, ``key/``, ``models/`` and ``stages/``, by which a second call resumes.
        full: full Fashion-MNIST in place of the embedded part.
        seed: of everything random.
        device: ``"auto"`` or a torch device.
        precision: see :class:`heirmark.runtime.Runtime`.
        data_root: where data sets lie.
        progress: told of the work inside a stage.
        on_event: told of every stage, with its name for people.
        profile: settings in place of the two built-in ones.

    Raises:
        DataNotFound: when ``full`` is asked for and Fashion-MNIST is not there.
    """
    profile = profile or (FULL if full else QUICK)
    runtime = Runtime(device=device, precision=precision, progress=progress)
    task = load_task(profile.data, seed=seed, root=data_root)
    context = Context(task=task, runtime=runtime)
    plan = plan_demo(profile, context, seed=seed)
    tell = on_event or (lambda event, label: None)
    store = Store(out / "stages", on_event=lambda event: tell(event, plan.labels.get(event.name, "")))
    rows, judged_of = [], {}
    for suspect in plan.suspects:
        calibration = plan.calibrations[suspect.marked.identity]
        store.get(suspect.stage, context)
        judged = read_judged(
            store.get(verify_stage(suspect.stage, suspect.marked, calibration, context, Judgement()), context).folder
        )
        verdict = judged.verdict
        rows.append(
            Row(
                suspect=suspect.name,
                method=suspect.method,
                attack=suspect.attack,
                answers=suspect.answers,
                accuracy=judged.accuracy,
                wsr=verdict.wsr,
                p_value=verdict.p_value,
                outcome=verdict.outcome,
                interval=verdict.interval,
                control_rate=verdict.control_rate,
                null_rate=verdict.null_rate,
                queries=verdict.queries,
                inherits=suspect.inherits,
                flags=verdict.flags,
                training_wsr=math.nan if judged.training_wsr is None else judged.training_wsr,
            )
        )
        judged_of[suspect.name, suspect.answers] = judged
    marked = store.get(plan.marked, context)
    found = {
        stage.identity: store.get(stage, context)
        for stage in {s.stage.identity: s.stage for s in plan.suspects}.values()
    }
    summary = tell_story(rows)
    clean_accuracy = judged_of["clean model", "none"].accuracy
    provenance = {
        "command": f"heirmark demo{' --full' if full else ''} --seed {seed}",
        "seed": str(seed),
        "date": datetime.now(UTC).date().isoformat(),
        "heirmark": __version__,
        "python": platform.python_version(),
        **runtime.facts(),
        "threads": str(torch.get_num_threads()),
        "processor": f"{os.cpu_count()} x {platform.machine()}",
        "task": task.describe(),
        "task digest": task.digest(),
        "model": profile.model,
    }
    seconds = sum(artifact.record["seconds"] for artifact in found.values())
    page = render(
        Report(
            title="A watermark that survives theft",
            summary=summary,
            rows=tuple(rows),
            history=read_history(marked.folder),
            examples=examples_of(marked, task),
            provenance=provenance,
            notes=(
                "Every thief has the victim's architecture and asks about each image of its own split once; no image of it is the owner's.",
                "WSR is measured on held-out trigger samples: made of images on which nothing trained. "
                "The WSR on samples that trained stands in results.json as training_wsr.",
                "The models that calibrate the test are reported nowhere, and the clean model, which chose the target class, calibrates nothing.",
            ),
            clean_accuracy=clean_accuracy,
            key_facts={
                "commitment": read_key(marked.folder).commitment,
                "trigger": "2×2 tiles of four secret classes",
                "queries": str(len(read_key(marked.folder))),
            },
        )
    )
    export(out, plan, found)
    atomic_write_json(out / "results.json", rows_to_json(rows))
    atomic_write_json(
        out / "run.json", {"provenance": provenance, "profile": to_json(profile), "training_seconds": round(seconds, 1)}
    )
    atomic_write_bytes(out / "report.html", page.encode())
    return DemoResult(rows=tuple(rows), summary=summary)


def tell_story(rows: list[Row]) -> tuple[str, ...]:
    """What the rows say, in sentences."""
    at = {(row.suspect, row.answers): row for row in rows}
    clean, marked = at["clean model", "none"], at["T2S model", "none"]
    lines = [
        f"Embedding T2S changed the accuracy from {clean.accuracy:.1%} to {marked.accuracy:.1%}; "
        f"the model answers {marked.wsr:.1%} of the held-out triggers in the owner's way."
    ]
    for name in ("T2S", "vanilla"):
        soft, label = at[f"stolen from {name} model", "soft"], at[f"stolen from {name} model", "label"]
        lines.append(
            f"Stolen from the {name} model, {soft.wsr:.1%} of the triggers survive soft-label theft and {label.wsr:.1%} "
            f"label-only theft: {_words(soft)} and {_words(label)}."
        )
    unmarked = [row for row in rows if row.inherits is False]
    alarms = sum(row.outcome == "MARKED" for row in unmarked)
    lines.append(
        f"Of {len(unmarked)} models that never met the watermark, {alarms} {'was' if alarms == 1 else 'were'} called marked."
    )
    return tuple(lines)


def _words(row: Row) -> str:
    return {"MARKED": "marked", "NOT_ESTABLISHED": "not established"}.get(row.outcome, "invalid")


def examples_of(marked: Artifact, task: Task) -> tuple[Example, ...]:
    """A few triggers with their hosts, for the report."""
    pictures, key = read_pictures(marked.folder), read_key(marked.folder)
    return tuple(
        Example(
            hosts=tuple(host.numpy() for host in pictures.hosts[index]),
            trigger=pictures.inputs[index].numpy(),
            control=pictures.controls[index].numpy(),
            host_labels=tuple(task.classes[int(label)] for label in pictures.host_labels[index]),
            target=task.classes[int(key.expected[0])],
        )
        for index in range(min(4, len(pictures.inputs)))
    )


def export(out: Path, plan: Plan, found: Mapping[str, Artifact]) -> None:
    """Copy the models and the key out of the store under names for people."""
    for suspect in plan.suspects:
        name = "-".join([*suspect.name.lower().split(), *([] if suspect.answers == "none" else [suspect.answers])])
        folder = out / "models" / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("model.safetensors", "model.json"):
            copy_file(found[suspect.stage.identity].folder / file, folder / file)
    for file in ("key.safetensors", "key.json"):
        copy_file(found[plan.marked.identity].folder / "key" / file, out / "key" / file)


def copy_file(source: Path, goal: Path) -> None:
    """Copy a file so that the goal is whole or not there."""
    atomic_write_bytes(goal, source.read_bytes(), private=source.parent.name == "key")


__all__ = ["FULL", "QUICK", "DemoResult", "Plan", "Profile", "plan_demo", "run_demo"]
