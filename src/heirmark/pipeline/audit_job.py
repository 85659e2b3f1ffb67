"""What ``heirmark audit`` does: a marked model's folder in, a report of what its mark survives out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heirmark.configuration import from_json, qualified_name
from heirmark.errors import BadArtifact, BadConfig, BadData, ShapeMismatch
from heirmark.files import read_json
from heirmark.methods import Unmarked
from heirmark.models import Factory
from heirmark.models.storage import load_model, load_spec
from heirmark.pipeline.adopting import adopt_stage
from heirmark.pipeline.audit import Auditor, AuditResult, run_audit
from heirmark.pipeline.audit_plan import Programme
from heirmark.pipeline.context import Context
from heirmark.pipeline.embedding import train_stage
from heirmark.pipeline.exporting import TWIN, OnEvent, labelled_store, read_origin
from heirmark.pipeline.judging import CALIBRATION, read_calibration, read_key
from heirmark.pipeline.loading import check_given, describe_model
from heirmark.pipeline.profiles import QUICK as DEMO
from heirmark.pipeline.stage import Stage
from heirmark.pipeline.victim import check_fit
from heirmark.runtime import Runtime, derive_seed
from heirmark.task import Split, Task
from heirmark.training import Recipe


def audit_job(
    programme: Programme,
    marked: Path,
    task: Task,
    out: Path,
    *,
    seed: int,
    runtime: Runtime,
    command: str,
    name: str = "audit",
    twin: Path | None = None,
    pools: Mapping[str, Split] | None = None,
    factory: Factory | None = None,
    on_event: OnEvent | None = None,
) -> AuditResult:
    """Run a programme of attacks on the marked model in a folder and on its unmarked twin.

    Args:
        programme: the attacks.
        marked: folder that ``heirmark embed`` wrote, with key and calibration.
        task: the model's own.
        out: gets the results and ``stages/``, by which a second call resumes.
        seed: of the attacks, and of the twin where one is trained.
        runtime: device, precision, progress.
        command: that makes the same figures again.
        name: of the files with the results, ``NAME.json`` and ``NAME.html``: a part of a programme need not write over the whole.
        twin: folder of an unmarked model; None trains one as ``twin.json`` beside the model says.
        pools: images of other data sets by name, for attacks that name one.
        factory: of the model, when it is a custom one.
        on_event: told of every stage.

    Raises:
        BadArtifact: when a file is missing or damaged.
        BadConfig: when no twin is given and nothing says how to train one.
        BadData: when the task is not the model's own.
        ShapeMismatch: when a model is not of the task.
    """
    if out.exists() and not out.is_dir():
        raise BadConfig(f"{out} is no folder: choose another --out")
    origin = read_origin(marked)
    if origin is not None and origin.digest != task.digest():
        raise BadData(f"{task.name} is not what {marked} was made with, so its twin would be no twin: leave --data out")
    context = Context(task=task, runtime=runtime, factory=factory, pools=pools or {})
    labels: dict[str, str] = {}
    store = labelled_store(out / "stages", labels, on_event)

    def label(stage: Stage, name: str) -> None:
        labels.setdefault(stage.name, name)

    adopted = adopt_stage(marked, key=True)
    check_whole(marked, twin, task, factory)
    label(adopted, "read the marked model")
    store.get(adopted, marked)
    if twin is None:
        other = train_stage(read_twin(marked, factory), context, seed=derive_seed(seed, "twin"))
        label(other, "train the unmarked twin")
        store.get(other, context)
    else:
        other = adopt_stage(twin, key=False)
        label(other, "read the unmarked twin")
        store.get(other, twin)
    auditor = Auditor(marked=adopted, twin=other, context=context, store=store, seed=seed, label=label)
    key, spec = read_key(marked), load_spec(marked)
    return run_audit(
        auditor,
        programme,
        out,
        title=f"What becomes of the {key.method} mark",
        command=command,
        name=name,
        notes=notes_on(twin),
        facts={"model": describe_model(spec), "key": key.commitment},
    )


def check_whole(marked: Path, twin: Path | None, task: Task, factory: Factory | None) -> None:
    """Read all that every row of an audit rests on, so that what is damaged ends it and not each of its rows.

    Args:
        marked: folder of the marked model, with key and calibration.
        twin: folder of an unmarked model; None when one is to be trained.
        task: of both.
        factory: of the models, when they are custom ones.

    Raises:
        BadArtifact: when a file is missing or damaged, or the calibration is of another key.
        ShapeMismatch: when a model is not of the task.
    """
    if read_calibration(marked / CALIBRATION).key != read_key(marked).commitment:
        raise BadArtifact(
            f"{marked / CALIBRATION} belongs to another key than the one beside it: embed the model again"
        )
    for folder in (marked, *([] if twin is None else [twin])):
        check_given(load_spec(folder), factory, folder)
        _, spec = load_model(folder, factory=factory)
        try:
            check_fit(spec, task)
        except ShapeMismatch as error:
            if folder != twin:
                raise
            raise ShapeMismatch(
                f"the model in {twin} is no twin, since it is not of {task.name}: name another"
            ) from error


def read_twin(folder: Path, factory: Factory | None) -> Unmarked:
    """What trains the model in a folder without its mark.

    Raises:
        BadConfig: when the folder does not say.
        BadArtifact: when what it says is damaged.
    """
    path = folder / TWIN
    if not path.is_file():
        raise BadConfig(f"{folder} does not say how to train its unmarked twin (no {TWIN}): name one with --twin")
    known: dict[str, Any] = {"Unmarked": Unmarked}
    if factory is not None:
        known[qualified_name(factory)] = factory
    try:
        twin = from_json(known, read_json(path, max_bytes=1 << 20))
    except BadConfig as error:
        raise BadArtifact(f"{path} is foreign or damaged ({error}): name an unmarked model with --twin") from error
    if not isinstance(twin, Unmarked):
        raise BadArtifact(f"{path} describes no unmarked model: name one with --twin")
    return twin


def trigger_kind(marked: Path) -> str | None:
    """The kind of the triggers of a marked model, which is public with the method; None where there is no key.

    Raises:
        BadArtifact: when the key is damaged.
    """
    if not (marked / "key" / "key.json").is_file():
        return None
    kind = read_key(marked).trigger.get("kind")
    return kind if isinstance(kind, str) else None


def recipe_of(folder: Path, factory: Factory | None) -> Recipe:
    """By what recipe the model in a folder learned; the demo's where nothing says so.

    Raises:
        BadArtifact: when what says so is damaged.
    """
    return read_twin(folder, factory).pretraining if (folder / TWIN).is_file() else DEMO.recipe


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
