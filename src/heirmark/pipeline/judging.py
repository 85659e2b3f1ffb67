"""Stages that judge: calibrate a key on unmarked models, verify a suspect, measure accuracy. Here alone key and suspect meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heirmark.files import atomic_write_json, read_json
from heirmark.key import Key
from heirmark.models.storage import load_model
from heirmark.pipeline.context import Context, context_of
from heirmark.pipeline.stage import Job, Stage
from heirmark.runtime import Runtime
from heirmark.training import accuracy
from heirmark.verification.suspects import Suspect
from heirmark.verification.verify import Calibration, Verdict, calibrate, verify

CALIBRATION = "calibration.json"
VERDICT = "verdict.json"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How a suspect is judged.

    Attributes:
        level: of significance.
    """

    level: float = 0.01


def calibrate_stage(marked: Stage, unmarked: Sequence[Stage], context: Context) -> Stage:
    """How often unmarked models answer a key as a marked one would. They must be no models that made or filtered the key."""
    inputs = {"marked": marked, **{f"unmarked-{index}": stage for index, stage in enumerate(unmarked)}}
    return Stage(kind="calibrate", run=run_calibrate, inputs=inputs, external=context.external())


def verify_stage(suspect: Stage, marked: Stage, calibration: Stage, context: Context, judgement: Judgement) -> Stage:
    """A suspect judged with the key of a marked model, and its accuracy."""
    inputs = {"suspect": suspect, "marked": marked, "calibration": calibration}
    return Stage(kind="verify", run=run_verify, config=judgement, inputs=inputs, external=context.external())


def run_calibrate(job: Job) -> Mapping[str, Any]:
    """Query unmarked models with a key and write ``calibration.json``."""
    context = context_of(job)
    key = read_key(job.inputs["marked"].folder)
    suspects = []
    for name, found in sorted(job.inputs.items()):
        if name != "marked":
            model, spec = load_model(found.folder, factory=context.factory)
            suspects.append(Suspect.from_module(model, classes=spec.classes, runtime=context.runtime))
    calibration = calibrate(suspects, key)
    atomic_write_json(job.folder / CALIBRATION, calibration.to_json())
    return {"models": len(suspects)}


def run_verify(job: Job) -> Mapping[str, Any]:
    """Verify a suspect, measure its accuracy on the test split, and write ``verdict.json``."""
    context, judgement = context_of(job), job.config
    model, spec = load_model(job.inputs["suspect"].folder, factory=context.factory)
    measured = accuracy(model, context.task.test, runtime=context.runtime)
    verdict = verify(
        Suspect.from_module(model, classes=spec.classes, runtime=context.runtime),
        read_key(job.inputs["marked"].folder),
        calibration=read_calibration(job.inputs["calibration"].folder / CALIBRATION),
        level=judgement.level,
    )
    atomic_write_json(job.folder / VERDICT, {"accuracy": measured, "verdict": verdict.to_json()})
    return {"accuracy": measured, "outcome": verdict.outcome, "wsr": verdict.wsr}


def read_verdict(folder: Path) -> tuple[float, Verdict]:
    """Accuracy and verdict that :func:`run_verify` wrote."""
    record = read_json(folder / VERDICT)
    return float(record["accuracy"]), Verdict.from_json(record["verdict"])


def read_calibration(path: Path) -> Calibration:
    """A calibration from its file."""
    return Calibration.from_json(read_json(path))


def read_key(folder: Path) -> Key:
    """The key in ``folder`` or in ``folder/key``, so that a user may name either."""
    inner = folder / "key"
    return Key.load(inner if (inner / "key.json").is_file() else folder)


def judge(folder: Path, key: Key, calibration: Calibration | None, *, level: float, runtime: Runtime, **options: Any) -> Verdict:
    """Verify the model in a folder; ``options`` go to :func:`heirmark.models.storage.load_model`."""
    model, spec = load_model(folder, **options)
    suspect = Suspect.from_module(model, classes=spec.classes, runtime=runtime)
    return verify(suspect, key, calibration=calibration, level=level)
