"""Stages that hold a detection attack against the truth. Here alone a key and what a thief suspects meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from heirmark.attacks.base import Inspected, Screen, Screening
from heirmark.files import atomic_write_json
from heirmark.keys.key import Key
from heirmark.querying.asking import predict
from heirmark.records import plain, read_record
from heirmark.results.probes import Exposed, Screened
from heirmark.results.verdict import Verdict
from heirmark.runtime import Runtime, generator_of
from heirmark.stages.stage import Job, Stage
from heirmark.tasks.storing import decode
from heirmark.tasks.task import Split
from heirmark.verification.suspects import Suspect
from heirmark.verification.verify import verify
from heirmark.work.context import Context, context_of, exact
from heirmark.work.inspecting import read_inspected
from heirmark.work.judging import OWN_EYES, calibration_of, read_key, share
from heirmark.work.victim import VICTIM, attack_stage, load_victim

TRUTH = "truth.json"


@dataclass(frozen=True, kw_only=True)
class Served:
    """A thief's service with a screen before it, which answers what the screen flags with a random label.

    Attributes:
        accuracy: on the test split, screen and all.
        verdict: on the service.
        screened: what the screen flags.
    """

    accuracy: float
    verdict: Verdict
    screened: Screened


def expose_stage(inspection: Stage, victim: Stage, marked: Stage, context: Context) -> Stage:
    """An inspection of ``victim`` against the key of ``marked``."""
    return context.stage(run_expose, inputs={"inspection": inspection, VICTIM: victim, "marked": marked})


def run_expose(job: Job) -> Mapping[str, Any]:
    """Hold what an inspection suspects against the key, and write ``truth.json``."""
    context = context_of(job)
    exposed = expose(
        read_inspected(job.inputs["inspection"].folder),
        read_key(job.inputs["marked"].folder),
        load_victim(job).model,
        context.task.test,
        exact(context.runtime),
    )
    atomic_write_json(job.folder / TRUTH, plain(exposed))
    return {"suspects": list(exposed.suspects), "found": exposed.found}


def expose(found: Inspected, key: Key, model: nn.Module, test: Split, runtime: Runtime) -> Exposed:
    """Hold what an inspection of a model suspects against a key; reconstructed triggers are tried on the test inputs."""
    targets = tuple(sorted(set(key.expected.tolist())))
    success: list[tuple[int, float]] = []
    for label, trigger in sorted(found.triggers.items()):
        if label in found.suspects:
            stamped = trigger.apply(decode(test.inputs[test.labels != label]))
            success.append((label, share(predict(model, stamped, runtime=runtime).argmax(1) == label)))
    return Exposed(
        suspects=found.suspects,
        targets=targets,
        found=bool(set(targets) & set(found.suspects)),
        false_suspects=len(set(found.suspects) - set(targets)),
        reversed_success=tuple(success),
        details=found.details,
    )


def read_exposed(folder: Path) -> Exposed:
    """What :func:`run_expose` wrote."""
    return read_record(folder / TRUTH, Exposed)


def screen_stage(
    screening: Screening, victim: Stage, marked: Stage, calibration: Stage | None, context: Context, *, seed: int
) -> Stage:
    """A screen before the queries of ``victim``, asked with the key of ``marked``.

    The screen is fitted and asked in one stage: it is an object of another library, and none is ever read from a file.
    """
    further = {"marked": marked, "calibration": calibration}
    return attack_stage(run_screen, screening, victim, context, seed=seed, further=further)


def run_screen(job: Job) -> Mapping[str, Any]:
    """Fit a screen on the adversary's data, put it before the model, verify what is left, and write ``truth.json``."""
    context, net = context_of(job), load_victim(job)
    key, test = read_key(job.inputs["marked"].folder), context.task.test
    screen: Screen = job.config(net, context.task.adversary, seed=job.seed, runtime=context.runtime)
    generator = generator_of(job.seed)

    def serve(inputs: Tensor) -> Tensor:
        answers = predict(net.model, inputs, runtime=exact(context.runtime)).argmax(1)
        random = torch.randint(net.spec.classes, (len(inputs),), generator=generator)
        return torch.where(screen(inputs), random, answers)

    accuracy = share(serve(test.inputs) == test.labels)
    verdict = verify(
        Suspect.from_callable(serve, classes=net.spec.classes, input_shape=net.spec.input_shape),
        key,
        calibration=calibration_of(job),
        calibrated_by="this run",
        accuracy=accuracy,
        accept=OWN_EYES,
    )
    screened = Screened(
        detected=share(screen(key.queries)),
        controls_detected=share(screen(key.controls)),
        flagged=share(screen(test.inputs)),
    )
    atomic_write_json(job.folder / TRUTH, plain(Served(accuracy=accuracy, verdict=verdict, screened=screened)))
    return {"detected": screened.detected, "outcome": verdict.outcome}


def read_served(folder: Path) -> Served:
    """What :func:`run_screen` wrote."""
    return read_record(folder / TRUTH, Served)
