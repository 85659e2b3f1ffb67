"""The audit as a grid: a marked model that is there already and its unmarked twin, under every attack of a programme."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from heirmark.configuration import to_json
from heirmark.errors import BadArtifact, BadConfig, BadData, ShapeMismatch
from heirmark.files import atomic_write_bytes, atomic_write_json
from heirmark.grids.executors.here import run_here
from heirmark.grids.grid import Adopted, Block, Grid, Marking, Workload
from heirmark.grids.plan import setting_of
from heirmark.grids.programme import Programme
from heirmark.grids.run import Executor, run_grid
from heirmark.grids.settings import Contexts
from heirmark.jobs.folder import Data, ModelFolder
from heirmark.jobs.means import OnEvent
from heirmark.loading import describe_model
from heirmark.report.page import render
from heirmark.report.section import Chapter, Report, Source
from heirmark.report.sections import sections_of
from heirmark.report.story import USABLE, tell_audit
from heirmark.results.rows import Row, row_to_json
from heirmark.results.summary import summarise
from heirmark.tasks.task import Task
from heirmark.work.judging import CALIBRATION

TWIN = "twin"
ASIDE = (
    "Every attack is run on the marked model and, with the same settings, on an unmarked twin, the control; both are judged with "
    "the key of the marked model. WSR is the share of its held-out triggers that a model answers as the key says. A row in grey "
    "costs more than ten points of accuracy."
)


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """What an audit found.

    Attributes:
        rows: of the marked model and its twin: without any attack first, then one an attack and model.
        report: the same for people, an attack beside what it does to the twin.
        path: of the page; the numbers lie beside it as JSON.
    """

    rows: tuple[Row, ...]
    report: Report
    path: Path


def audit_grid(
    programme: Programme, marked: ModelFolder, data: Data, *, seed: int, twin: ModelFolder | None = None
) -> Grid:
    """One watermark that is there already, and the programme's attacks.

    Args:
        programme: the attacks.
        marked: that ``heirmark embed`` wrote, with key and calibration.
        data: the model's own.
        seed: of the attacks, and of the twin where one is trained.
        twin: an unmarked model; None trains one as ``twin.json`` beside the model says.

    Raises:
        BadConfig: when no twin is given and nothing says how to train one.
    """
    block = Block(
        name=marked.path.name,
        workload=Workload(
            data=data.origin.data,
            split_seed=data.origin.split_seed,
            pools=tuple(data.pools),
            foreign=data.origin.foreign,
            foreign_part=data.origin.foreign_part,
            protocol=data.origin.protocol,
        ),
        markings=(Marking(name=marked.key.method, method=_adopted(marked)),),
        trials=programme.trials,
        probes=programme.probes,
        controls={TWIN: marked.twin if twin is None else _adopted(twin)},
    )
    return Grid(
        name="audit",
        title=f"What becomes of the {marked.key.method} mark",
        note=" ".join((*notes_on(data.task, None if twin is None else twin.path), *programme.left_out)),
        blocks=(block,),
        seeds=(seed,),
    )


def _adopted(folder: ModelFolder) -> Adopted:
    return Adopted(folder=str(folder.path), factory=folder.factory)


def run_audit(
    programme: Programme,
    marked: ModelFolder,
    data: Data,
    out: Path,
    *,
    seed: int,
    contexts: Contexts,
    command: str,
    name: str = "audit",
    twin: ModelFolder | None = None,
    execute: Executor = run_here,
    facts: Mapping[str, str] | None = None,
    on_event: OnEvent | None = None,
) -> AuditResult:
    """Run a programme, or what is left of it, and write ``NAME.json`` and ``NAME.html``.

    Args:
        programme: the attacks.
        marked: that ``heirmark embed`` wrote, with key and calibration.
        data: the model's own; ``contexts`` need not load them again.
        out: gets the results and ``stages/``, by which a second call resumes.
        seed: of the attacks, and of the twin where one is trained.
        contexts: hardware, and data where stages run elsewhere.
        command: that makes the same figures again.
        name: of the files with the results: a part of a programme need not write over the whole.
        twin: an unmarked model; None trains one as ``twin.json`` beside the model says.
        execute: where stages run.
        facts: of these, for the provenance.
        on_event: told of every stage.

    Raises:
        BadArtifact: when a file is missing or damaged.
        BadConfig: when no twin is given and nothing says how to train one.
        BadData: when the task is not the model's own.
        ShapeMismatch: when a model is not of the task.
    """
    task = data.task
    if out.exists() and not out.is_dir():
        raise BadConfig(f"{out} is no folder: choose another --out")
    if marked.origin is not None and marked.origin.digest != task.digest():
        raise BadData(
            f"{task.name} is not what {marked.path} was made with, so its twin would be no twin: leave --data out"
        )
    check_whole(marked, twin, task)
    grid = audit_grid(programme, marked, data, seed=seed, twin=twin)
    contexts.give(setting_of(grid.blocks[0], seed), task, data.pools)
    run = run_grid(grid, out, contexts=contexts, command=command, execute=execute, facts=facts, on_event=on_event)
    rows = tuple(summarise(run.rows))
    victim, *attacks = rows
    source = Source(
        name="the attacks",
        rows=rows,
        classes=task.classes,
        usable=victim.accuracy.mean - USABLE,
    )
    told = {"task": task.describe(), "model": describe_model(marked.spec), "key": marked.key.commitment}
    report = Report(
        kind="audit",
        title=grid.title,
        summary=tell_audit(victim, attacks),
        chapters=(Chapter(aside=ASIDE, sections=sections_of(source), rows=rows),),
        notes=(*notes_on(task, None if twin is None else twin.path), *programme.left_out),
        provenance={**run.provenance, **told},
    )
    page = out / f"{name}.html"
    atomic_write_json(
        page.with_suffix(".json"),
        {
            "provenance": report.provenance,
            "grid": to_json(grid),
            "left_out": list(programme.left_out),
            "summary": list(report.summary),
            "rows": [row_to_json(row) for row in run.rows],
        },
    )
    atomic_write_bytes(page, render(report).encode())
    return AuditResult(rows=run.rows, report=report, path=page)


def check_whole(marked: ModelFolder, twin: ModelFolder | None, task: Task) -> None:
    """Read all that every row of an audit rests on, so that what is damaged ends it and not each of its rows.

    Args:
        marked: the marked model, with key and calibration.
        twin: an unmarked model; None when one is to be trained.
        task: of both.

    Raises:
        BadArtifact: when a file is missing or damaged, or the calibration is of another key.
        ShapeMismatch: when a model is not of the task.
    """
    if marked.calibration is None:
        raise BadArtifact(f"{marked.path} has no {CALIBRATION}: embed the model with --calibrators 5")
    marked.check_key(task)
    marked.check_fit(task)
    if twin is not None:
        try:
            twin.check_fit(task)
        except ShapeMismatch as error:
            raise ShapeMismatch(
                f"the model in {twin.path} is no twin, since it is not of {task.name}: name another"
            ) from error


def notes_on(task: Task, twin: Path | None) -> tuple[str, ...]:
    """What a reader of the report should know.

    Args:
        task: that thieves have their part of.
        twin: folder of an unmarked model that was brought; None where one was trained.
    """
    has = "the adversary's split of the data, of which the owner trained on nothing"
    if task.protocol == "paper":
        has = "the very images that the owner trained on, as by the papers' protocol"
    which = (
        "The twin is the same net trained on the same data without a mark, with another seed than the models that chose the "
        "key's classes, filtered it or calibrate its test."
        if twin is None
        else f"The twin is the unmarked model in {twin}; how like the marked one it was made, nothing here says."
    )
    return (
        f"The thief has {has}, and for removal and detection its true labels too. No attack is given the "
        "key, and what it does to the marked model and to the twin has the same seed.",
        f"WSR is measured on held-out triggers, or for a key of random labels on those that trained. {which}",
        "A mark that survives these attacks may fall to others, or to the same ones with more work.",
    )
