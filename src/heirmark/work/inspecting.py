"""Stages that inspect: a thief looks for a mark in a model that he holds. No key comes near them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heirmark.attacks.base import Inspected, Inspection, Reversed
from heirmark.files import atomic_write_json, atomic_write_tensors, read_json, read_tensors
from heirmark.stages.stage import Job, Stage
from heirmark.work.context import Context, context_of
from heirmark.work.victim import attack_stage, load_victim

INSPECTED = "inspected.json"
TRIGGERS = "reversed.safetensors"


def inspect_stage(inspection: Inspection, victim: Stage, context: Context, *, seed: int) -> Stage:
    """An inspection of the model that a stage makes."""
    return attack_stage(run_inspect, inspection, victim, context, seed=seed)


def run_inspect(job: Job) -> Mapping[str, Any]:
    """Inspect a model, and write ``inspected.json`` and the triggers that were reconstructed."""
    context = context_of(job)
    found: Inspected = job.config(load_victim(job), context.task.adversary, seed=job.seed, runtime=context.runtime)
    if found.triggers:
        tensors = {
            f"{name}.{label}": getattr(trigger, name).float()
            for label, trigger in found.triggers.items()
            for name in ("mask", "pattern")
        }
        atomic_write_tensors(job.folder / TRIGGERS, tensors)
    record = {
        "suspects": list(found.suspects),
        # JSON has no infinity, which an anomaly index may be.
        "scores": [score if math.isfinite(score) else None for score in found.scores],
        "threshold": found.threshold,
        "success": {str(label): trigger.success for label, trigger in found.triggers.items()},
        "details": {name: value for name, value in found.details.items() if math.isfinite(value)},
    }
    atomic_write_json(job.folder / INSPECTED, record)
    return {"suspects": list(found.suspects)}


def read_inspected(folder: Path) -> Inspected:
    """What :func:`run_inspect` wrote."""
    record = read_json(folder / INSPECTED)
    labels = [int(label) for label in record["success"]]
    names = {f"{name}.{label}" for label in labels for name in ("mask", "pattern")}
    tensors = read_tensors(folder / TRIGGERS, names=names) if labels else {}
    return Inspected(
        suspects=tuple(record["suspects"]),
        scores=tuple(math.inf if score is None else score for score in record["scores"]),
        threshold=record["threshold"],
        triggers={
            label: Reversed(mask=tensors[f"mask.{label}"], pattern=tensors[f"pattern.{label}"], success=success)
            for label, success in zip(labels, record["success"].values(), strict=True)
        },
        details=record["details"],
    )
