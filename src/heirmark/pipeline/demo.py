"""The main job: watermark, steal, prove; with every control that an honest claim needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from heirmark.configuration import to_json
from heirmark.data import load_task
from heirmark.errors import BadArtifact, HeirmarkError
from heirmark.files import atomic_write_bytes, atomic_write_json
from heirmark.key import Key
from heirmark.methods import METHODS
from heirmark.pipeline.context import Context
from heirmark.pipeline.demo_plan import Plan, Suspect, plan_demo
from heirmark.pipeline.folders import read_history, read_pictures
from heirmark.pipeline.judging import CALIBRATION, Judged, read_judged, read_key
from heirmark.pipeline.loading import check_known
from heirmark.pipeline.profiles import FULL, QUICK, Profile
from heirmark.pipeline.provenance import made_here
from heirmark.pipeline.stage import Artifact, lineage
from heirmark.pipeline.store import Event, Store
from heirmark.report import Example, Report, Row, render, rows_to_json
from heirmark.runtime import Progress, Runtime, no_progress
from heirmark.task import Task

NOTES = (
    "Every thief has the victim's architecture and asks about each image of its own split once; no image of it is the owner's.",
    "WSR is measured on held-out trigger samples: made of images on which nothing trained. "
    "The WSR on samples that trained stands in results.json as training_wsr.",
    "Where a key is filtered, as DeepTracer's and SSW's are, the marked model itself hits every trigger by construction.",
    "A key of random labels is made of what trained, and its verdicts are flagged memorised-key.",
    "The models that calibrate the test are reported nowhere, "
    "and the unmarked model that chose the key's classes neither calibrates nor is judged.",
)


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo found.

    Attributes:
        rows: one a suspect.
        summary: the story in sentences.
    """

    rows: tuple[Row, ...]
    summary: tuple[str, ...]


def run_demo(
    out: Path,
    *,
    full: bool = False,
    methods: tuple[str, ...] = (),
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    data_root: Path | None = None,
    progress: Progress = no_progress,
    on_event: Callable[[Event, str], None] | None = None,
    profile: Profile | None = None,
    task: Task | None = None,
) -> DemoResult:
    """Run the main job, or what is left of it.

    Args:
        out: gets ``results.json``, ``report.html``, ``run.json``, ``key/``, ``calibration.json``, ``models/`` and
            ``stages/``, by which a second call resumes.
        full: full Fashion-MNIST in place of the embedded part.
        methods: names of methods to show beside T2S and vanilla.
        seed: of everything random.
        device: ``"auto"`` or a torch device.
        precision: see :class:`heirmark.runtime.Runtime`.
        data_root: where data sets lie.
        progress: told of the work inside a stage.
        on_event: told of every stage, with its name for people.
        profile: settings in place of the two built-in ones.
        task: data in place of the profile's.

    Raises:
        BadConfig: for a method that is none, or stands in the demo anyway.
        DataNotFound: when ``full`` is asked for and Fashion-MNIST is not there.
    """
    for name in methods:
        check_known("further method", name, [known for known in METHODS if known not in ("t2s", "vanilla", "unmarked")])
    own = profile is not None or task is not None
    profile = profile or (FULL if full else QUICK)
    runtime = Runtime(device=device, precision=precision, progress=progress)
    progress("load the data", 0, 1)
    task = task or load_task(profile.data, seed=seed, root=data_root)
    context = Context(task=task, runtime=runtime)
    plan = plan_demo(profile, context, seed=seed, methods=methods)
    tell = on_event or (lambda event, label: None)
    store = Store(out / "stages", on_event=lambda event: tell(event, plan.labels.get(event.name, "")))
    plan, found, failures = _run(plan, store, context)
    progress("write the report", 0, 1)
    judged = {suspect: read_judged(found[suspect.verification.name].folder) for suspect in plan.suspects}
    rows = [_row(suspect, judged[suspect]) for suspect in plan.suspects]
    summary = (*tell_story(rows), *failures)
    provenance = {
        "command": "heirmark.pipeline.demo.run_demo with its own profile or task"
        if own
        else "heirmark demo"
        + (" --full" if full else "")
        + (f" --methods {','.join(methods)}" if methods else "")
        + f" --seed {seed} {' '.join(runtime.options())}",
        "seed": str(seed),
        **made_here(runtime),
        "task": task.describe(),
        "task digest": task.digest(),
        "model": profile.model,
    }
    marked = found[plan.marked.name]
    key = read_key(marked.folder)
    page = render(
        Report(
            title="A watermark that survives theft",
            summary=summary,
            rows=tuple(rows),
            history=read_history(marked.folder),
            examples=examples_of(marked, task),
            provenance=provenance,
            notes=NOTES,
            clean_accuracy=next(row.accuracy for row in rows if row.suspect == "clean model"),
            key_facts={
                "commitment": key.commitment,
                "trigger": "2×2 tiles of four secret classes",
                "queries": str(len(key)),
            },
        )
    )
    export(out, plan, found)
    atomic_write_json(out / "results.json", rows_to_json(rows))
    seconds = sum(artifact.record["seconds"] for artifact in found.values())
    atomic_write_json(
        out / "run.json", {"provenance": provenance, "profile": to_json(profile), "training_seconds": round(seconds, 1)}
    )
    atomic_write_bytes(out / "report.html", page.encode())
    return DemoResult(rows=tuple(rows), summary=summary)


def _run(plan: Plan, store: Store, context: Context) -> tuple[Plan, dict[str, Artifact], tuple[str, ...]]:
    """All stages in order, and what is left of the plan: a further method that fails takes its own rows with it, no others."""
    core = {suspect.marked.name for suspect in plan.suspects if suspect.method in ("t2s", "vanilla")}
    needed = {
        stage.name
        for suspect in plan.suspects
        if suspect.marked.name in core
        for stage in lineage(suspect.verification)
    }
    found: dict[str, Artifact] = {}
    failed: dict[str, str] = {}
    for stage in plan.stages:
        if any(ancestor.name in failed for ancestor in lineage(stage)):
            continue
        try:
            found[stage.name] = store.get(stage, context)
        except HeirmarkError as error:
            if stage.name in needed:
                raise
            failed[stage.name] = f"To {plan.labels[stage.name]} failed: {error}."
    left = tuple(suspect for suspect in plan.suspects if suspect.verification.name in found)
    return replace(plan, suspects=left), found, tuple(failed.values())


def _row(suspect: Suspect, judged: Judged) -> Row:
    verdict = judged.verdict
    return Row(
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
    lines.append(f"Of {len(unmarked)} judgements of models that never met the watermark, {alarms} said marked.")
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
    """Copy the models, the key and its calibration out of the store under names for people.

    Another key that is there, of another seed say, is moved to a folder beside it.
    """
    key, goal = read_key(found[plan.marked.name].folder), out / "key"
    if (goal / "key.json").exists() and not _holds(goal, key):
        goal.rename(out / f"key-until-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    key.save(goal)
    for suspect in plan.suspects:
        name = "-".join([*suspect.name.lower().split(), *([] if suspect.answers == "none" else [suspect.answers])])
        for file in ("model.safetensors", "model.json"):
            copy_file(found[suspect.stage.name].folder / file, out / "models" / name / file)
    copy_file(found[plan.calibration.name].folder / CALIBRATION, out / CALIBRATION)


def _holds(folder: Path, key: Key) -> bool:
    try:
        return Key.load(folder).commitment == key.commitment
    except BadArtifact:
        return False


def copy_file(source: Path, goal: Path) -> None:
    """Copy a file so that the goal is whole or not there."""
    atomic_write_bytes(goal, source.read_bytes())


__all__ = ["FULL", "QUICK", "DemoResult", "Plan", "Profile", "plan_demo", "run_demo"]
