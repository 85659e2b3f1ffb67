"""The demo as a grid: watermark, steal, prove, with every control that an honest claim needs; and what is made of its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from heirmark.configuration import to_json
from heirmark.errors import BadArtifact, HeirmarkError
from heirmark.files import atomic_write_bytes, atomic_write_json
from heirmark.grids.executors.here import run_here
from heirmark.grids.grid import CONTROL_ARM, MARKED_ARM, Block, Grid, Marking, Workload
from heirmark.grids.pictures.histories import Course, course_of
from heirmark.grids.pictures.histories import show as courses
from heirmark.grids.pictures.looking import looks_of
from heirmark.grids.pictures.views import show as views
from heirmark.grids.pictures.views import view_of
from heirmark.grids.reporting import part_command, report_of
from heirmark.grids.run import Executor, Run, run_grid
from heirmark.grids.settings import Contexts
from heirmark.jobs.means import OnEvent
from heirmark.keys.key import Key
from heirmark.loading import check_known
from heirmark.methods import METHODS
from heirmark.profiles import Profile
from heirmark.querying.blackbox import Api
from heirmark.report.demo_story import (
    CONTROL,
    LABEL,
    OTHER,
    SHOWN,
    SOFT,
    VANILLA,
    folder_name,
    row_at,
    suspect_of,
    tell_story,
)
from heirmark.report.page import render
from heirmark.report.section import Chapter, Report, Shown
from heirmark.report.sections.examples import examples
from heirmark.report.sections.suspects import headline, side_by_side, suspects
from heirmark.results.rows import Row, row_to_json
from heirmark.results.summary import summarise, summary_to_json
from heirmark.stages.stage import Artifact, Stage, lineage
from heirmark.tasks.task import Task
from heirmark.work.judging import CALIBRATION, read_key
from heirmark.work.marked_folder import read_history, read_pictures
from heirmark.work.stealing import Theft
from heirmark.work.trials import Trial

KINDS = {"tiles": "2×2 tiles of four secret classes"}
"""Triggers, for people."""
NOTES = (
    "Every thief asks about each image of a split of its own once; no image of it is the owner's. Two thieves have the victim's "
    "architecture, the third has a VGG-like net, a family in whose features a simulated thief of robust finishes too.",
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
        rows: one a suspect, key and seed.
        summary: the story in sentences.
        report: of several seeds; None of one.
    """

    rows: tuple[Row, ...]
    summary: tuple[str, ...]
    report: Report | None = None


def demo_grid(profile: Profile, *, seeds: tuple[int, ...] = (0,), methods: Sequence[str] = ()) -> Grid:
    """The watermark on show, and joint training to compare, each stolen three times, beside a clean model and a competitor's own.

    The model that chooses the key's classes neither calibrates nor is judged: it would look innocent by construction. The
    unmarked model that is judged, and stolen, is another; and the models that calibrate are reported nowhere. They are of
    several architectures where the profile names some.

    Args:
        profile: settings.
        seeds: of everything random, data's splits among it.
        methods: names of methods to show besides. Each brings its own key, and with it one more judgement of the controls.

    Raises:
        BadConfig: for a method that is none, or stands in the demo anyway.
    """
    for name in methods:
        check_known("further method", name, [known for known in METHODS if known not in (SHOWN, VANILLA, "unmarked")])
    unmarked = profile.unmarked()
    made = {name: profile.shown(name) for name in (SHOWN, VANILLA, *methods)}
    same, other = profile.thieves()
    block = Block(
        name=profile.data,
        workload=Workload(data=profile.data),
        markings=tuple(Marking(name=name, method=method) for name, method in made.items()),
        trials=(
            Trial(name=SOFT, group="Stolen", steps=(Theft(attack=same),)),
            Trial(name=LABEL, group="Stolen", steps=(Theft(attack=same, api=Api(answers="label")),)),
            Trial(
                name=OTHER,
                group="Stolen",
                steps=(Theft(attack=other, api=Api(answers="label")),),
            ),
        ),
        unmarked=unmarked,
        controls={"clean": unmarked, "independent": replace(unmarked, data="adversary")},
        calibrators=profile.calibration(),
    )
    return Grid(
        name="demo", title="A watermark that survives theft", note=" ".join(NOTES), blocks=(block,), seeds=seeds
    )


def run_demo(
    grid: Grid,
    out: Path,
    *,
    contexts: Contexts,
    command: str,
    execute: Executor = run_here,
    facts: Mapping[str, str] | None = None,
    on_event: OnEvent | None = None,
) -> DemoResult:
    """Run the demo, or what is left of it.

    Args:
        grid: of :func:`demo_grid`.
        out: gets ``results.json``, ``report.html``, ``run.json``, ``key/``, ``calibration.json``, ``models/`` and ``stages/``, by
            which a second call resumes. With several seeds, the report is of all of them, and each has a folder ``seed-N`` of its
            own with a page, models and key.
        contexts: data and hardware.
        command: that makes these numbers again.
        execute: where stages run.
        facts: of these, for the provenance.
        on_event: told of every stage, with its name for people.

    Raises:
        HeirmarkError: when the watermark on show or joint training fails; a further method that fails takes its own rows along,
            and no others.
    """
    run = run_grid(
        grid, out, contexts=contexts, command=command, execute=execute, facts=facts, on_event=on_event, export=True
    )
    failures = _failures(run)
    rows = tuple(row for row in run.rows if not row.error)
    several = len(grid.seeds) > 1
    for seed in grid.seeds:
        mine = [row for row in rows if row.seed == seed]
        _write_seed(run, seed, mine, out / f"seed-{seed}" if several else out, contexts, failures)
    summary = tuple(summarise(rows))
    report = None
    if several:
        report = report_of(
            grid,
            summary,
            made_by=lambda row: part_command(command, "", row.seed),
            provenance=run.provenance,
            notes=failures,
        )
        atomic_write_bytes(out / "report.html", render(report).encode())
    atomic_write_json(out / "results.json", plain_rows(rows))
    atomic_write_json(
        out / "run.json",
        {
            "provenance": run.provenance,
            "grid": to_json(grid),
            "summary": [summary_to_json(figures) for figures in summary],
            "training_seconds": round(sum(found.record["seconds"] for found in _artifacts(run)), 1),
        },
    )
    return DemoResult(
        rows=rows,
        summary=(*(tell_story(rows) if report is None else report.summary), *failures),
        report=report,
    )


def plain_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as JSON values, with what their suspects are called for people."""
    return [{"suspect": suspect_of(row).name, **row_to_json(row)} for row in rows]


def _artifacts(run: Run) -> Iterator[Artifact]:
    for stage in run.plan.stages:
        found = run.store.find(stage)
        if found is not None:
            yield found


def _failures(run: Run) -> tuple[str, ...]:
    """What failed first of every further method, in words."""
    core = lineage(*(goal for cell in run.plan.cells if cell.marking.name in (SHOWN, VANILLA) for goal in cell.goals))
    told = {}
    for stage in run.plan.stages:
        if stage.name in run.failed and not any(item.name in run.failed for item in stage.inputs.values()):
            told[stage.name] = f"To {run.plan.labels[stage.name]} failed: {run.failed[stage.name]}."
    for stage in core:
        if stage.name in told:
            raise HeirmarkError(told[stage.name])
    return tuple(told.values())


def _write_seed(
    run: Run, seed: int, rows: Sequence[Row], folder: Path, contexts: Contexts, failures: Sequence[str]
) -> None:
    """Models, key and page of one seed."""
    cells = {cell.goal.name: cell for cell in run.plan.cells if cell.seed == seed}
    shown, control = (
        next(cell for cell in cells.values() if cell.marking.name == SHOWN and cell.arm == arm)
        for arm in (MARKED_ARM, CONTROL_ARM)
    )
    context = contexts(run.plan.settings[shown.goal.identity])
    task = context.task
    marked = _found(run, shown.goal.inputs["marked"])
    key = read_key(marked.folder)
    provenance = {**run.provenance, "seeds": str(seed), "task": task.describe(), "task digest": task.digest()}
    found = [suspect_of(row) for row in rows]
    clean = row_at(rows, SHOWN, CONTROL).accuracy
    history = Course(marking=SHOWN, history=course_of(read_history(marked.folder)), clean_accuracy=clean)
    page = render(
        Report(
            kind="demo",
            title=run.plan.grid.title,
            summary=(*tell_story(rows), *failures),
            facts={"commitment": key.commitment, "trigger": KINDS.get(key.kind, key.kind), "queries": str(len(key))},
            tiles=headline(found, shown=SHOWN, baseline=VANILLA, clean_accuracy=clean),
            chapters=(
                Chapter(
                    sections=(
                        *suspects(found),
                        *side_by_side(found, clean),
                        *courses([history]),
                        *examples(examples_of(marked, task)),
                        *views(tuple(view_of(shown, control, run.store, context))),
                    )
                ),
            ),
            notes=NOTES,
            provenance=provenance,
        )
    )
    export_key(key, folder / "key")
    for row in rows:
        source = _found(run, cells[row.stage].goal.inputs["suspect"]).folder
        for file in ("model.safetensors", "model.json"):
            copy_file(source / file, folder / "models" / folder_name(row) / file)
    copy_file(_found(run, shown.goal.inputs["calibration"]).folder / CALIBRATION, folder / CALIBRATION)
    atomic_write_bytes(folder / "report.html", page.encode())


def _found(run: Run, stage: Stage) -> Artifact:
    found = run.store.find(stage)
    if found is None:
        raise BadArtifact(f"{stage.name} is gone from the store: run the demo again")
    return found


def examples_of(marked: Artifact, task: Task) -> tuple[Shown, ...]:
    """A few triggers with their hosts, for the report."""
    pictures, key = read_pictures(marked.folder), read_key(marked.folder)
    count = min(4, len(pictures.inputs))
    triggers, controls = (looks_of(part[:count], task.medium) for part in (pictures.inputs, pictures.controls))
    return tuple(
        Shown(
            hosts=tuple(
                (look, task.classes[label])
                for look, label in zip(
                    looks_of(pictures.hosts[index], task.medium), pictures.host_labels[index].tolist(), strict=True
                )
            ),
            trigger=triggers[index],
            control=controls[index],
            target=task.classes[int(key.expected[index])],
        )
        for index in range(count)
    )


def export_key(key: Key, goal: Path) -> None:
    """Save a key. Another that is there, of another seed say, is moved to a folder beside it."""
    if (goal / "key.json").exists() and not _holds(goal, key):
        goal.rename(goal.with_name(f"key-until-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"))
    key.save(goal)


def _holds(folder: Path, key: Key) -> bool:
    try:
        return Key.load(folder).commitment == key.commitment
    except BadArtifact:
        return False


def copy_file(source: Path, goal: Path) -> None:
    """Copy a file so that the goal is whole or not there."""
    atomic_write_bytes(goal, source.read_bytes())
