"""Stages that judge: calibrate a key on unmarked models, verify a suspect, measure accuracy. Here alone key and suspect meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from heirmark.errors import BadArtifact
from heirmark.files import atomic_write_bytes, atomic_write_json, read_bytes
from heirmark.keys.key import Key
from heirmark.models.storage import load_model, onnx_in
from heirmark.records import plain, read_record
from heirmark.results.grades import Grade
from heirmark.results.verdict import Calibration, Verdict
from heirmark.stages.stage import Job, Stage
from heirmark.verification.calibrating import calibrate
from heirmark.verification.suspects import Suspect
from heirmark.verification.verify import verify
from heirmark.work.context import Context, context_of, exact
from heirmark.work.marked_folder import read_training_triggers

CALIBRATION = "calibration.json"
JUDGED = "judged.json"
OWN_EYES: Grade = "assumed"
"""Who marks, attacks and judges models of his own convinces nobody else by it, so any grade may carry the word MARKED."""


def calibrate_stage(marked: Stage, unmarked: Sequence[Stage], context: Context) -> Stage:
    """How often unmarked models answer a key as a marked one would. They must be no models that made or filtered the key."""
    inputs = {"marked": marked, **{f"unmarked-{index}": stage for index, stage in enumerate(unmarked)}}
    return context.stage(run_calibrate, inputs=inputs)


def verify_stage(suspect: Stage, marked: Stage, calibration: Stage | None, context: Context) -> Stage:
    """A suspect judged with the key of a marked model, and its accuracy; without a calibration, against chance."""
    return context.stage(run_verify, inputs={"suspect": suspect, "marked": marked, "calibration": calibration})


def run_calibrate(job: Job) -> Mapping[str, Any]:
    """Query unmarked models with a key and write ``calibration.json``."""
    context = context_of(job)
    unmarked = [found for name, found in sorted(job.inputs.items()) if name != "marked"]
    copies = sum(found.record["kind"] == "steal" for found in unmarked)
    note = f"{len(unmarked) - copies} models trained on {context.task.name} without a watermark"
    calibration = calibrate(
        [load_suspect(found.folder, context) for found in unmarked],
        read_key(job.inputs["marked"].folder),
        note=f"{note}, and {copies} copies of these" if copies else note,
        copies=copies,
        examples=(context.task.test.inputs, context.task.test.labels),
    )
    atomic_write_bytes(job.folder / CALIBRATION, calibration.to_json().encode())
    return {"models": len(unmarked)}


def run_verify(job: Job) -> Mapping[str, Any]:
    """Verify a suspect, measure its accuracy on the test split, and write ``judged.json``.

    The WSR on the trigger samples that trained stands beside the verdict, which never rests on them.
    """
    context = context_of(job)
    suspect = load_suspect(job.inputs["suspect"].folder, context)
    test = context.task.test
    answers = suspect.labels(test.inputs)
    measured = share(answers == test.labels)
    # What a model reaches that answers as often what it answers, but knows nothing of its inputs.
    ignorant = sum((share(answers == label) * share(test.labels == label) for label in set(answers.tolist())), 0.0)
    verdict = verify(
        suspect,
        read_key(job.inputs["marked"].folder),
        calibration=calibration_of(job),
        calibrated_by="this run",
        accuracy=measured,
        accept=OWN_EYES,
    )
    if "out-of-memory" in verdict.flags:
        raise MemoryError(verdict.reason)  # of this machine at this time: no result to keep
    trained = read_training_triggers(job.inputs["marked"].folder)
    training_wsr = None if trained is None else share(suspect.labels(trained[0]) == trained[1])
    judged = Judged(accuracy=measured, ignorant_accuracy=ignorant, training_wsr=training_wsr, verdict=verdict)
    atomic_write_json(job.folder / JUDGED, plain(judged))
    return {"accuracy": measured, "outcome": verdict.outcome, "wsr": verdict.wsr}


def load_suspect(folder: Path, context: Context) -> Suspect:
    """The model in a folder as a suspect: heirmark's own, or one that an attack turned into an ONNX file."""
    file = onnx_in(folder)
    if file is not None:
        return Suspect.from_onnx(file, classes=context.task.num_classes)
    return Suspect.from_net(load_model(folder, factories=context.factories), runtime=exact(context.runtime))


def share(hits: Tensor) -> float:
    """Of true among flags ``[N]``, in [0, 1]."""
    return float(hits.double().mean())


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What :func:`run_verify` found.

    Attributes:
        accuracy: on the test split, in [0, 1].
        ignorant_accuracy: what the same answers would reach there in random order.
        training_wsr: share of the trigger samples that trained which the suspect answers as marked; None without any.
        verdict: on the key's held-out samples.
    """

    accuracy: float
    ignorant_accuracy: float
    training_wsr: float | None = None
    verdict: Verdict


def read_judged(folder: Path) -> Judged:
    """What :func:`run_verify` wrote."""
    return read_record(folder / JUDGED, Judged)


def read_calibration(path: Path) -> Calibration:
    """A calibration from its file.

    Raises:
        BadArtifact: when it is missing or foreign.
    """
    text = read_bytes(path, max_bytes=1 << 20)
    try:
        return Calibration.from_json(text)
    except BadArtifact as error:
        raise BadArtifact(f"{path}: {error}") from error


def calibration_of(job: Job) -> Calibration | None:
    """The calibration among a job's inputs, if there is one."""
    found = job.inputs.get("calibration")
    return None if found is None else read_calibration(found.folder / CALIBRATION)


def homes_of(key: Path) -> tuple[Path, ...]:
    """Where what belongs to a key may lie, the nearest first: its folder and, if that is named ``key``, the one above.

    There embed and draw write it. Above any other folder lies what is somebody else's, perhaps.
    """
    place = key.absolute()
    inner = place.name == "key" and (place / "key.json").is_file()
    return (key, place.parent) if inner else (key,)


def read_key(folder: Path) -> Key:
    """The key in ``folder`` or in ``folder/key``, so that a user may name either.

    Raises:
        BadArtifact: when there is none, or it is damaged.
    """
    for place in (folder / "key", folder):
        if (place / "key.json").is_file():
            return Key.load(place)
    raise BadArtifact(f"{folder} holds no key (no key.json): give the folder that heirmark embed wrote, or its key/")
