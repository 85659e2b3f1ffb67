"""What a demo leaves behind of a seed: its page, the models of all suspects, the key and its calibration."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from heirmark.errors import BadArtifact
from heirmark.files import atomic_write_bytes
from heirmark.grids.grid import CONTROL_ARM, MARKED_ARM
from heirmark.grids.pictures.histories import Course, course_of
from heirmark.grids.pictures.histories import show as courses
from heirmark.grids.pictures.looking import looks_of
from heirmark.grids.pictures.views import show as views
from heirmark.grids.pictures.views import view_of
from heirmark.grids.run import Run
from heirmark.grids.settings import Contexts
from heirmark.keys.key import Key
from heirmark.report.demo_story import CONTROL, OTHERS, SHOWN, VANILLA, folder_name, row_at, suspect_of, tell_story
from heirmark.report.page import render
from heirmark.report.section import Chapter, Report, Shown
from heirmark.report.sections.examples import examples
from heirmark.report.sections.suspects import headline, side_by_side, suspects
from heirmark.results.rows import Row
from heirmark.stages.stage import Artifact, Stage
from heirmark.tasks.task import Task
from heirmark.work.judging import CALIBRATION, read_key
from heirmark.work.marked_folder import read_history, read_pictures

KINDS = {
    ("image", "tiles"): "2×2 tiles of four secret classes",
    ("wave", "tiles"): "the loudest quarters of four secret classes, one after the other",
    ("text", "mix"): "texts of two secret classes put together",
}
"""Triggers by what inputs are, for people."""
NOTES = (
    "WSR is measured on held-out trigger samples: made of inputs on which nothing trained. "
    "The WSR on samples that trained stands in results.json as training_wsr.",
    "Where a key is filtered, as DeepTracer's and SSW's are, the marked model itself hits every trigger by construction.",
    "A key of random labels is made of what trained, and its verdicts are flagged memorised-key.",
    "The models that calibrate the test are reported nowhere, "
    "and the unmarked model that chose the key's classes neither calibrates nor is judged.",
)


def thieves_of(other: str) -> str:
    """Who the thieves are, in sentences; the third has another net, of :data:`heirmark.report.demo_story.OTHERS`."""
    return (
        "Every thief asks about each input of a split of its own once; no input of it is the owner's. Two thieves have the "
        f"victim's architecture, the third has {OTHERS[other]}, of a family in whose features a simulated thief of "
        "robust finishes too."
    )


def write_seed(
    run: Run, seed: int, rows: Sequence[Row], folder: Path, contexts: Contexts, failures: Sequence[str]
) -> None:
    """Write models, key and page of one seed.

    Args:
        run: of the demo's grid.
        seed: of it.
        rows: that were found with it.
        folder: gets them.
        contexts: data and hardware.
        failures: what is told besides.
    """
    cells = {cell.goal.name: cell for cell in run.plan.cells if cell.seed == seed}
    shown, control = (
        next(cell for cell in cells.values() if cell.marking.name == SHOWN and cell.arm == arm)
        for arm in (MARKED_ARM, CONTROL_ARM)
    )
    context = contexts(run.plan.settings[shown.goal.identity])
    task = context.task
    marked = found_in(run, shown.goal.inputs["marked"])
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
            facts={
                "commitment": key.commitment,
                "trigger": KINDS.get((task.space.kind, key.kind), key.kind),
                "queries": str(len(key)),
            },
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
            notes=(*map(thieves_of, dict.fromkeys(row.trial for row in rows if row.trial in OTHERS)), *NOTES),
            provenance=provenance,
        )
    )
    export_key(key, folder / "key")
    for row in rows:
        source = found_in(run, cells[row.stage].goal.inputs["suspect"]).folder
        for file in ("model.safetensors", "model.json"):
            copy_file(source / file, folder / "models" / folder_name(row) / file)
    copy_file(found_in(run, shown.goal.inputs["calibration"]).folder / CALIBRATION, folder / CALIBRATION)
    atomic_write_bytes(folder / "report.html", page.encode())


def found_in(run: Run, stage: Stage) -> Artifact:
    """A stage's artifact.

    Raises:
        BadArtifact: when it is gone.
    """
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
