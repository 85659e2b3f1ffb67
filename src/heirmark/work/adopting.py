"""Stages that adopt a folder of the user's, so that stages can build on it as on any other.

A model and its key are adopted apart: an attack on the model is given a folder in which there is no key.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from heirmark.errors import BadArtifact
from heirmark.models import CUSTOM, Factory, ModelSpec, code_of
from heirmark.models.storage import load_spec, load_weights, save_model
from heirmark.stages.records import sha256
from heirmark.stages.stage import Job, Stage
from heirmark.tasks.media import FILE as MEDIUM
from heirmark.work.context import context_of

LARGEST = 1 << 33
"""Files larger than this, in bytes, are not adopted."""
MODEL = ("model.json", "model.safetensors")
KEY = ("key.json", "key.safetensors")
BESIDE_KEY = ("calibration.json", "training.safetensors")
"""What comes along with a key, where it is there."""


def adopt_stage(folder: Path, part: Literal["model", "key"], *, factory: Factory | None = None) -> Stage:
    """A copy in the store of a model, or of a key and what belongs to it; its identity is the content.

    The context that the stage is computed with names the folder among its ``folders``.

    ``heirmark embed``, ``steal`` or ``remove`` wrote the folder; for a key the folder of the key itself will do.

    Raises:
        BadArtifact: when a file is missing or too large.
    """
    names: tuple[str, ...] = MODEL
    code: list[Any] = []
    if part == "model":
        # What the weights compute depends on the code of their model, too.
        code = list(code_of(load_spec(folder).name)) or ([] if factory is None else [factory])
    else:
        inner = "" if (folder / KEY[0]).is_file() else "key/"
        medium = (f"{inner}{MEDIUM}",) if (folder / inner / MEDIUM).is_file() else ()
        names = (
            *(f"{inner}{name}" for name in KEY),
            *medium,
            *(name for name in BESIDE_KEY if (folder / name).is_file()),
        )
    for name in names:
        path = folder / name
        if not path.is_file():
            raise BadArtifact(f"{folder} has no {name}: name another folder")
        if path.stat().st_size > LARGEST:
            raise BadArtifact(f"{path} has more than {LARGEST} bytes: name another folder")
    files = {name: sha256(folder / name) for name in sorted(names)}
    return Stage(kind="adopt", run=run_adopt, config={"files": files, "code": code})


def weights_stage(path: Path, spec: ModelSpec, *, factory: Factory | None = None) -> Stage:
    """A model in the store of a file of weights alone; its identity is their content, and what the weights are of.

    The context that the stage is computed with names the file among its ``folders``.
    """
    code: list[Any] = list(code_of(spec.name)) or ([] if factory is None else [factory])
    return Stage(kind="take", run=run_take, config={"weights": sha256(path), "spec": spec, "code": code})


def run_take(job: Job) -> Mapping[str, Any]:
    """Read the weights from that file of the context's that is what it was, and write a model."""
    context, spec = context_of(job), job.config["spec"]
    for path in context.folders:
        if path.is_file() and sha256(path) == job.config["weights"]:
            factory = next(iter(context.factories), None) if spec.name == CUSTOM else None
            save_model(load_weights(path, spec, factory=factory), job.folder)
            return {}
    raise BadArtifact("a file of weights is gone, or was changed: run the same command again")


def run_adopt(job: Job) -> Mapping[str, Any]:
    """Copy the files from that folder of the context's in which they are what they were."""
    files: Mapping[str, str] = job.config["files"]
    for folder in context_of(job).folders:
        if all((folder / name).is_file() for name in files):
            for name in files:
                (job.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, job.folder / name)
            if all(sha256(job.folder / name) == digest for name, digest in files.items()):
                return {"files": len(files)}
    raise BadArtifact(
        "a folder that had been adopted is gone from the store, or was changed: run the same command again"
    )
