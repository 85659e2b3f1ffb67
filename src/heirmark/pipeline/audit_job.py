"""What ``heirmark audit`` does: a marked model's folder in, a report of what its mark survives out."""

from __future__ import annotations

from pathlib import Path

from heirmark.errors import BadArtifact, BadConfig, BadData, ShapeMismatch
from heirmark.pipeline.audit import Auditor, AuditResult, run_audit
from heirmark.pipeline.audit_plan import Programme
from heirmark.pipeline.context import Context
from heirmark.pipeline.embedding import train_stage
from heirmark.pipeline.folder import Data, ModelFolder
from heirmark.pipeline.judging import CALIBRATION
from heirmark.pipeline.loading import describe_model
from heirmark.pipeline.stage import Stage
from heirmark.pipeline.work import Work
from heirmark.runtime import derive_seed
from heirmark.task import Task


def audit_job(
    programme: Programme,
    marked: ModelFolder,
    data: Data,
    out: Path,
    work: Work,
    *,
    command: str,
    name: str = "audit",
    twin: ModelFolder | None = None,
) -> AuditResult:
    """Run a programme of attacks on the marked model in a folder and on its unmarked twin.

    Args:
        programme: the attacks.
        marked: that ``heirmark embed`` wrote, with key and calibration.
        data: the model's own.
        out: gets the results.
        work: seed of the attacks, and of the twin where one is trained; hardware; the store, by which a second call resumes.
        command: that makes the same figures again.
        name: of the files with the results, ``NAME.json`` and ``NAME.html``: a part of a programme need not write over the whole.
        twin: an unmarked model; None trains one as ``twin.json`` beside the model says.

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
    context = Context(
        task=task,
        runtime=work.runtime,
        factories=marked.factories,
        folders=(marked.path, *([] if twin is None else [twin.path])),
        pools=data.pools,
    )
    labels: dict[str, str] = {}
    store = work.labelled(labels)

    def label(stage: Stage, name: str) -> None:
        labels.setdefault(stage.name, name)

    model, key = marked.model_stage, marked.key_stage
    label(model, "read the marked model")
    label(key, "read its key")
    if twin is None:
        other = train_stage(marked.twin, context, seed=derive_seed(work.seed, "twin"))
        label(other, "train the unmarked twin")
    else:
        other = twin.model_stage
        label(other, "read the unmarked twin")
    for stage in (model, key, other):
        store.get(stage, context)
    auditor = Auditor(marked=model, key=key, twin=other, context=context, store=store, seed=work.seed, label=label)
    return run_audit(
        auditor,
        programme,
        out,
        title=f"What becomes of the {marked.key.method} mark",
        command=command,
        name=name,
        notes=notes_on(None if twin is None else twin.path),
        facts={"model": describe_model(marked.spec), "key": marked.key.commitment},
    )


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


def notes_on(twin: Path | None) -> tuple[str, ...]:
    """What a reader of the report should know.

    Args:
        twin: folder of an unmarked model that was brought; None where one was trained.
    """
    which = (
        "The twin is the same net trained on the same data without a mark, with another seed than the models that chose the "
        "key's classes, filtered it or calibrate its test."
        if twin is None
        else f"The twin is the unmarked model in {twin}; how like the marked one it was made, nothing here says."
    )
    return (
        "The thief has the adversary's split of the data, of which the owner trained on nothing, and for removal and "
        "detection its true labels too. No attack is given the key, and what it does to the marked model and to the twin "
        "has the same seed.",
        f"WSR is measured on held-out triggers, or for a key of random labels on those that trained. {which}",
        "A mark that survives these attacks may fall to others, or to the same ones with more work.",
    )
