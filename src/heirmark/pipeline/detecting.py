"""Stages that hold a detection attack against the truth. Here alone a key and what a thief suspects meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from heirmark.asking import predict
from heirmark.attacks.base import Inspected, Screen, Screening
from heirmark.files import atomic_write_json
from heirmark.key import Key
from heirmark.models import Net
from heirmark.models.storage import load_model
from heirmark.pipeline.context import Context, context_of, exact
from heirmark.pipeline.inspecting import read_inspected
from heirmark.pipeline.judging import CALIBRATION, read_calibration, read_key
from heirmark.pipeline.stage import Job, Stage
from heirmark.pipeline.victim import VICTIM, versions_behind
from heirmark.records import plain, read_record
from heirmark.results.probes import Exposed, Screened
from heirmark.results.verdict import Calibration, Verdict
from heirmark.runtime import Runtime, generator_of
from heirmark.space import check_needs, decode
from heirmark.task import Split
from heirmark.verification.suspects import Suspect
from heirmark.verification.verify import verify

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
    inputs = {"inspection": inspection, VICTIM: victim, "marked": marked}
    return Stage(kind="expose", run=run_expose, inputs=inputs, external=context.external())


def run_expose(job: Job) -> Mapping[str, Any]:
    """Hold what an inspection suspects against the key, and write ``truth.json``."""
    context = context_of(job)
    net = load_model(job.inputs[VICTIM].folder, factories=context.factories)
    exposed = expose(
        read_inspected(job.inputs["inspection"].folder),
        read_key(job.inputs["marked"].folder),
        net.model,
        context.task.test,
        exact(context.runtime),
    )
    atomic_write_json(job.folder / TRUTH, plain(exposed))
    return {"suspects": list(exposed.suspects), "found": exposed.found}


def expose(found: Inspected, key: Key, model: nn.Module, test: Split, runtime: Runtime) -> Exposed:
    """Hold what an inspection suspects against a key.

    Args:
        found: what it suspects.
        key: the truth.
        model: that was inspected.
        test: on whose inputs reconstructed triggers are tried.
        runtime: where the model computes.
    """
    targets = tuple(sorted(set(key.expected.tolist())))
    success: list[tuple[int, float]] = []
    for label, trigger in sorted(found.triggers.items()):
        if label in found.suspects:
            stamped = trigger.apply(decode(test.inputs[test.labels != label]))
            success.append((label, _share(predict(model, stamped, runtime=runtime).argmax(1) == label)))
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
    check_needs(screening, context.task.space)
    inputs = {VICTIM: victim, "marked": marked, **({} if calibration is None else {"calibration": calibration})}
    external = {**context.external(), **versions_behind(screening)}
    return Stage(kind="screen", run=run_screen, config=screening, inputs=inputs, seed=seed, external=external)


def run_screen(job: Job) -> Mapping[str, Any]:
    """Fit a screen on the adversary's data, put it before the model, verify what is left, and write ``truth.json``."""
    context, calibration = context_of(job), job.inputs.get("calibration")
    net = load_model(job.inputs[VICTIM].folder, factories=context.factories)
    served = put_screen(
        job.config(net, context.task.adversary, seed=job.seed, runtime=context.runtime),
        net,
        read_key(job.inputs["marked"].folder),
        None if calibration is None else read_calibration(calibration.folder / CALIBRATION),
        context.task.test,
        seed=job.seed,
        runtime=exact(context.runtime),
    )
    atomic_write_json(job.folder / TRUTH, plain(served))
    return {"detected": served.screened.detected, "outcome": served.verdict.outcome}


def put_screen(
    screen: Screen,
    net: Net,
    key: Key,
    calibration: Calibration | None,
    test: Split,
    *,
    seed: int,
    runtime: Runtime,
) -> Served:
    """Put a screen before a model's service, and ask the service a key's queries.

    Args:
        screen: fitted already, without the key.
        net: the model behind it.
        key: whose queries are asked.
        calibration: of the key.
        test: whose inputs should pass.
        seed: of the random answers.
        runtime: where the model computes.
    """
    generator = generator_of(seed)

    def serve(inputs: Tensor) -> Tensor:
        answers = predict(net.model, inputs, runtime=runtime).argmax(1)
        random = torch.randint(net.spec.classes, (len(inputs),), generator=generator)
        return torch.where(screen(inputs), random, answers)

    accuracy = _share(serve(test.inputs) == test.labels)
    verdict = verify(
        Suspect.from_callable(serve, classes=net.spec.classes, input_shape=net.spec.input_shape),
        key,
        calibration=calibration,
        accuracy=accuracy,
    )
    return Served(
        accuracy=accuracy,
        verdict=verdict,
        screened=Screened(
            detected=_share(screen(key.queries)),
            controls_detected=_share(screen(key.controls)),
            flagged=_share(screen(test.inputs)),
        ),
    )


def read_served(folder: Path) -> Served:
    """What :func:`run_screen` wrote."""
    return read_record(folder / TRUTH, Served)


def _share(flags: Tensor) -> float:
    return float(flags.double().mean())
