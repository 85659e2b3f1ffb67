"""What the attackers' commands do: a model's folder in, a copy, an altered model or a suspicion out; and the audit of it all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from heirmark.attacks import Inspection, Screening
from heirmark.configuration import from_json, qualified_name
from heirmark.errors import BadArtifact, BadConfig, BadData
from heirmark.files import read_json
from heirmark.methods import Unmarked
from heirmark.models import CUSTOM, Architecture, Factory
from heirmark.models.storage import ONNX, load_model, load_spec
from heirmark.pipeline.adopting import adopt_stage
from heirmark.pipeline.altering import Alteration, alter_stage
from heirmark.pipeline.audit import Auditor, AuditResult, run_audit
from heirmark.pipeline.audit_plan import Programme
from heirmark.pipeline.context import Context, exact
from heirmark.pipeline.detecting import expose, put_screen
from heirmark.pipeline.embedding import embed_stage
from heirmark.pipeline.exporting import (
    TASK,
    TWIN,
    OnEvent,
    Origin,
    check_free,
    export_folder,
    folder_digest,
    labelled_store,
    read_origin,
)
from heirmark.pipeline.inspecting import inspect_stage, read_inspected
from heirmark.pipeline.judging import CALIBRATION, read_calibration, read_key
from heirmark.pipeline.named import (
    check_architecture,
    check_given,
    describe_model,
    load_named_task,
    load_pool,
    with_images,
)
from heirmark.pipeline.stage import Stage
from heirmark.pipeline.stealing import Theft, steal_stage
from heirmark.runtime import Runtime, derive_seed
from heirmark.task import Split, Task
from heirmark.triggers import Patch


def steal_job(
    theft: Theft,
    victim: Path,
    task: Task,
    out: Path,
    *,
    seed: int,
    runtime: Runtime,
    store: Path,
    origin: Origin,
    pools: Mapping[str, Split] | None = None,
    factory: Factory | None = None,
    on_event: OnEvent | None = None,
) -> dict[str, Any]:
    """Steal the model in a folder and write the copy to another.

    Args:
        theft: attack and answers.
        victim: folder of the model.
        task: whose adversary split queries, unless the theft names a pool.
        out: gets ``model.*`` and ``task.json``.
        seed: of the attack.
        runtime: device, precision, progress.
        store: where finished stages are kept.
        origin: of the data, for ``task.json``.
        pools: other images by name, for a theft that names one.
        factory: of the victim, when it is a custom model.
        on_event: told of every stage.

    Returns:
        Facts to show.

    Raises:
        BadConfig: when ``out`` is not free, or a model does not fit.
        BudgetExhausted: when the attack asks more than the budget.
    """
    check_free(out)
    model = getattr(theft.attack, "model", None)
    if model is not None:
        check_architecture(model, input_shape=task.input_shape, classes=load_spec(victim).classes)
    context = Context(task=task, runtime=runtime, factory=factory, victim=victim, pools=pools or {})
    stage = steal_stage(theft, folder_digest(victim), context, seed=seed)
    made = labelled_store(store, {stage.name: "steal"}, on_event).get(stage, context)
    export_folder(made, out, task=task, origin=origin)
    return {"model": str(out), "queries": made.summary["queries"], "seconds": made.record["seconds"]}


def remove_job(
    alteration: Alteration,
    held: Path,
    task: Task,
    out: Path,
    *,
    seed: int,
    runtime: Runtime,
    store: Path,
    origin: Origin,
    pools: Mapping[str, Split] | None = None,
    factory: Factory | None = None,
    on_event: OnEvent | None = None,
) -> dict[str, Any]:
    """Work on the model in a folder so that a mark in it may be lost, and write what is left to another.

    Args:
        alteration: attack and further data.
        held: folder of the model.
        task: whose adversary split the thief has, labels and all.
        out: gets ``model.*`` and ``task.json``.
        seed: of the attack.
        runtime: device, precision, progress.
        store: where finished stages are kept.
        origin: of the data, for ``task.json``.
        pools: labelled examples of other tasks by name, for an attack that names one.
        factory: of the model, when it is a custom one.
        on_event: told of every stage.

    Returns:
        Facts to show.

    Raises:
        BadConfig: when ``out`` is not free, or the attack does not fit the model.
    """
    check_free(out)
    spec = load_spec(held)
    model = getattr(alteration.attack, "model", None)
    if model is not None:
        check_architecture(model, input_shape=task.input_shape, classes=spec.classes)
    context = Context(task=task, runtime=runtime, factory=factory, victim=held, pools=pools or {})
    stage = alter_stage(alteration, folder_digest(held), context, seed=seed)
    made = labelled_store(store, {stage.name: "remove"}, on_event).get(stage, context)
    export_folder(made, out, task=task, origin=origin)
    return {"model": str(out / ONNX if made.summary["onnx"] else out), "seconds": made.record["seconds"]}


def inspect_job(
    inspection: Inspection,
    held: Path,
    task: Task,
    *,
    seed: int,
    runtime: Runtime,
    store: Path,
    key: Path | None = None,
    factory: Factory | None = None,
    on_event: OnEvent | None = None,
) -> dict[str, Any]:
    """Look for a mark in the model in a folder, and where a key is given hold what is suspected against it.

    Args:
        inspection: the attack, which never sees the key.
        held: folder of the model.
        task: whose adversary split the thief has.
        seed: of the attack.
        runtime: device, precision, progress.
        store: where finished stages are kept.
        key: folder of the key, or of the marked model.
        factory: of the model, when it is a custom one.
        on_event: told of every stage.

    Returns:
        Facts to show.
    """
    context = Context(task=task, runtime=runtime, factory=factory, victim=held)
    stage = inspect_stage(inspection, folder_digest(held), context, seed=seed)
    made = labelled_store(store, {stage.name: "look for a mark"}, on_event).get(stage, context)
    found = read_inspected(made.folder)
    facts: dict[str, Any] = {
        "suspects": [task.classes[label] for label in found.suspects],
        "scores": {
            task.classes[label]: round(score, 4) if math.isfinite(score) else None
            for label, score in enumerate(found.scores)
        },
        "threshold": found.threshold,
        **{name: round(value, 4) for name, value in found.details.items() if math.isfinite(value)},
        "seconds": made.record["seconds"],
    }
    if key is not None:
        model, _ = load_model(held, factory=factory)
        truth = expose(found, read_key(key), model, task.test, exact(runtime))
        facts |= {
            "targets": [task.classes[label] for label in truth.targets],
            "target_found": truth.found,
            "false_suspects": truth.false_suspects,
            "reversed_success": {
                task.classes[label]: round(share, 4) for label, share in truth.reversed_success.items()
            },
        }
    return facts


def screen_job(
    screening: Screening,
    held: Path,
    task: Task,
    key: Path,
    *,
    seed: int,
    runtime: Runtime,
    factory: Factory | None = None,
) -> dict[str, Any]:
    """Put a screen before the model in a folder and see whether it tells the key's queries from others.

    Args:
        screening: the attack, which never sees the key.
        held: folder of the model.
        task: whose adversary split the thief has.
        key: folder of the marked model, with its calibration.
        seed: of the attack.
        runtime: device, precision, progress.
        factory: of the model, when it is a custom one.

    Returns:
        Facts to show.
    """
    model, spec = load_model(held, factory=factory)
    screen = screening(model, spec, task.adversary, seed=seed, runtime=runtime)
    calibration = read_calibration(key / CALIBRATION) if (key / CALIBRATION).is_file() else None
    truth = put_screen(screen, model, spec, read_key(key), calibration, task.test, seed=seed, runtime=exact(runtime))
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in vars(truth).items()}


def audit_job(
    programme: Programme,
    marked: Path,
    task: Task,
    out: Path,
    *,
    seed: int,
    runtime: Runtime,
    command: str,
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
        out: gets ``audit.json``, ``audit.html`` and ``stages/``, by which a second call resumes.
        seed: of the attacks, and of the twin where one is trained.
        runtime: device, precision, progress.
        command: that makes the same figures again.
        twin: folder of an unmarked model; None trains one as ``twin.json`` beside the model says.
        pools: images of other data sets by name, for attacks that name one.
        factory: of the model, when it is a custom one.
        on_event: told of every stage.

    Raises:
        BadArtifact: when a file is missing or damaged.
        BadConfig: when no twin is given and nothing says how to train one.
        BadData: when the task is not the model's own.
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
    label(adopted, "read the marked model")
    store.get(adopted, marked)
    if twin is None:
        other = embed_stage(read_twin(marked, factory), context, seed=derive_seed(seed, "twin"), kind="train")
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
        facts={"model": describe_model(spec), "key": key.commitment},
    )


def read_twin(folder: Path, factory: Factory | None) -> Unmarked:
    """What trains the model in a folder without its mark. Its own key is never used, and is of the cheapest kind.

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
    return replace(twin, trigger=Patch(), key_size=1)


def trigger_kind(marked: Path) -> str | None:
    """The kind of the triggers of a marked model, which is public with the method; None where there is no key.

    Raises:
        BadArtifact: when the key is damaged.
    """
    if not (marked / "key" / "key.json").is_file():
        return None
    kind = read_key(marked).trigger.get("kind")
    return kind if isinstance(kind, str) else None


def victims_architecture(victim: Path, factory: Factory | None) -> Architecture:
    """The architecture of the model in a folder, which is a thief's when no other is asked for.

    Args:
        victim: folder of the model.
        factory: that builds it, when it is a custom model.

    Raises:
        BadArtifact: when the folder holds no model.
        BadConfig: when it holds a custom model and the factory is missing or fails.
    """
    spec = load_spec(victim)
    check_given(spec, factory, victim, option="--victim-model")
    return factory if factory is not None and spec.name == CUSTOM else describe_model(spec)


def load_victims_task(
    victim: Path, data: str | None, *, split_seed: int | None, root: Path | None
) -> tuple[Task, Origin]:
    """The data that a thief of the model in a folder has: the victim's task, unless another is named.

    Args:
        victim: folder of the model.
        data: name, or ``module:function``; None takes what the folder says.
        split_seed: None takes what the folder says.
        root: where data sets lie.

    Raises:
        BadConfig: when nothing says what the data are; or when only the folder does and it names code, which may be a
            stranger's and is not run.
        BadData: when data of the same name and seed have changed, so that the thief may hold the owner's examples.
    """
    known = read_origin(victim)
    if data is None:
        if known is None:
            raise BadConfig(f"{victim} does not say which data it is for (no {TASK}): name them with --data")
        if ":" in known.data:
            raise BadConfig(
                f"the data of {victim} come from code ({known.data}): if it is yours, say --data {known.data}"
            )
    name = known.data if data is None and known is not None else str(data)
    seed = split_seed if split_seed is not None else 0 if known is None else known.split_seed
    if known is not None and name == known.data and seed != known.split_seed:
        raise BadConfig(
            f"with split seed {seed} the thief would hold images of the owner, who split {name} with {known.split_seed}: "
            "leave --split-seed out, or take other data"
        )
    task = load_named_task(name, seed=seed, root=root)
    if known is not None and (name, seed) == (known.data, known.split_seed) and task.digest() != known.digest:
        raise BadData(
            f"{name} is no longer what {victim} was made with, so the thief could hold the owner's images: "
            "restore the data, or take others with --data"
        )
    return task, Origin(data=name, split_seed=seed, foreign=None if known is None else known.foreign)


def load_victims_pool(victim: Path, name: str, task: Task, *, root: Path | None) -> Split:
    """Images of another data set for a thief of the model in a folder: none that its key may be made of.

    Args:
        victim: folder of the model.
        name: of the data set.
        task: the thief's.
        root: where data sets lie.

    Raises:
        BadConfig: for an unknown name.
        BadData: when no image is left.
    """
    known = read_origin(victim)
    if known is not None and known.foreign is not None:
        task = with_images(task, known.foreign, root=root)
    return load_pool(name, task, root=root)


__all__ = [
    "audit_job",
    "inspect_job",
    "load_victims_pool",
    "load_victims_task",
    "remove_job",
    "screen_job",
    "steal_job",
    "trigger_kind",
    "victims_architecture",
]
