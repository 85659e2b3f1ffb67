"""Mark a model and write one folder with all that its owner needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heirmark.attacks import Knockoff
from heirmark.configuration import to_json
from heirmark.errors import BadData
from heirmark.jobs.drafting import Draft
from heirmark.jobs.exporting import check_free, export_folder
from heirmark.jobs.folder import TWIN, Data
from heirmark.jobs.means import Work
from heirmark.jobs.preflight import preflight
from heirmark.jobs.starting import Start, ground_of
from heirmark.jobs.worth import facts_of, worth_of
from heirmark.methods import Method, Unmarked
from heirmark.querying.blackbox import Api
from heirmark.stages.stage import lineage
from heirmark.verification.questions import LEAST_QUERIES
from heirmark.work.calibrating import calibrator_seed, stolen_calibrators
from heirmark.work.embedding import embed_stage, train_stage
from heirmark.work.judging import CALIBRATION, calibrate_stage, read_judged, read_key, verify_stage
from heirmark.work.marked_folder import read_history
from heirmark.work.stealing import Theft


def embed_job(
    method: Method,
    data: Data,
    out: Path,
    work: Work,
    *,
    calibrators: int = 5,
    start: Start | None = None,
    draft: Draft | None = None,
) -> dict[str, Any]:
    """Embed, calibrate, judge the model with its own key, and write one folder with all of it.

    The folder is written though the mark be of no use as it is: what was trained for hours is not thrown away.

    ``out`` gets ``model.*``, ``key/``, ``calibration.json``, ``task.json``, ``twin.json``, ``history.json`` and the pictures. So
    many unmarked models as ``calibrators`` says calibrate the key; a copy of one, stolen label-only, joins them. With ``start``
    the model that it holds is marked, whose architecture the method has; the others are trained by its recipe all the same.

    Returns:
        Facts to show; ``shortcoming`` says why the mark is of no use, if it is of none.

    Raises:
        BadConfig: when ``out`` is not free, the model does not fit the task, the method trains its own in place of that of
            ``start``, or the key could never be judged.
        BadData: when the data give too few triggers for a key.
        BadArtifact: when the key is not the one that the ``draft`` of it registered.
    """
    check_free(out)
    task, seed, runtime = data.task, work.seed, work.runtime
    ground = ground_of(method, task, work, start)
    context, unmarked, clean = ground.context, ground.unmarked, ground.clean
    given = {role: embed_stage(first, context, seed=seed, clean=clean) for role, first in method.builds_on().items()}
    stage = embed_stage(method, context, seed=seed, clean=clean, given=given)
    # They draw no keys: a class that one of them would draw may have no image, and nobody would miss its key.
    others = [train_stage(unmarked, context, seed=calibrator_seed(seed, index)) for index in range(calibrators)]
    theft = Theft(attack=Knockoff(model=method.model, recipe=method.pretraining), api=Api(answers="label"))
    copies = stolen_calibrators(others, (theft,), context, seed=seed) if others else ()
    calibration = calibrate_stage(stage, [*others, *copies], context) if others else None
    judged = {
        name: verify_stage(model, stage, calibration, context)
        for name, model in (("the marked model", stage), ("the clean model", clean))
        if model is not None
    }
    labels = {
        stage.name: "embed",
        **{other.name: f"train unmarked model {index + 1}" for index, other in enumerate(others)},
        **{made.name: "answer a thief's queries" for made in lineage(*copies) if made.kind == "answer"},
        **{copy.name: "steal an unmarked model" for copy in copies},
        **{verdict.name: f"judge {name} with the key" for name, verdict in judged.items()},
    }
    labels |= ground.labels()
    labels |= {first.name: f"embed the {role} model to start from" for role, first in given.items()}
    if calibration is not None:
        labels[calibration.name] = "calibrate the key"
    kept = work.labelled(labels)
    if kept.find(stage) is None:
        runtime.progress("try everything small", 0, 1)
        preflight(method, task, seed=seed, runtime=runtime)
    made = kept.get(stage, context)
    if made.summary["key_size"] < LEAST_QUERIES:
        gave, remedy = (
            "the calibration split gave",
            (
                "give it more images of the source classes, or take a trigger whose hosts are of any class (trigger=patch, "
                "trigger.hosts=any)"
            ),
        )
        if getattr(method, "key_filter", None) is not None:
            gave, remedy = "the key filter left", "raise key_filter.candidates, or set key_filter=none"
        raise BadData(
            f"{gave} only {made.summary['key_size']} different triggers, and no verdict can rest on fewer than "
            f"{LEAST_QUERIES}: {remedy}"
        )
    if draft is not None:
        draft.check(read_key(made.folder))
    extra = {} if calibration is None else {CALIBRATION: kept.get(calibration, context).folder / CALIBRATION}
    found = {name: read_judged(kept.get(verdict, context).folder) for name, verdict in judged.items()}
    worth = worth_of(
        found["the marked model"],
        clean=found.get("the clean model"),
        examples=len(task.test),
        marked=not isinstance(method, Unmarked),
    )
    beside, records = ({}, {}) if draft is None else (draft.files(), draft.records())
    export_folder(made, out, data, extra=extra | beside, records={TWIN: to_json(unmarked), **records})
    return {
        "model": str(out),
        "key": str(out / "key"),
        "commitment": made.summary["commitment"],
        "key_size": made.summary["key_size"],
        "calibration": f"{calibrators} unmarked models and a copy of one" if others else "none",
        **budget_of(read_history(made.folder)),
        **facts_of(worth),
        "seconds": made.record["seconds"],
    }


def budget_of(history: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """What the mark cost on the images that watched, and whether that kept the budget; nothing where none watched."""
    if not history or "lost_seen" not in history[-1]:
        return {}
    last = history[-1]
    lost, error = 100 * last["lost_seen"], 100 * last["lost_error"]
    seen = f"{lost:+.1f} points on the images that watched, with a standard error of {error:.1f}"
    if last["kept"]:
        return {"accuracy_budget": f"kept as far as can be seen: lost {seen}"}
    return {"accuracy_budget": f"NOT kept: lost {seen}; lower rehearsal.rho, or raise rehearsal.accuracy_budget"}
