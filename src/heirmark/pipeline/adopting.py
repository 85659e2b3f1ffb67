"""Stages that adopt a folder of the user's, so that stages can build on it as on any other."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heirmark.errors import BadArtifact
from heirmark.files import read_bytes
from heirmark.models import code_of
from heirmark.models.storage import load_spec
from heirmark.pipeline.stage import Job, Stage

LARGEST = 1 << 33
"""Files larger than this, in bytes, are not adopted."""
MODEL = ("model.json", "model.safetensors")
MARKED = (*MODEL, "calibration.json", "key/key.json", "key/key.safetensors")
OPTIONAL = ("training.safetensors",)


def adopt_stage(folder: Path, *, key: bool) -> Stage:
    """A copy of a model's folder in the store; its identity is the content.

    Args:
        folder: that ``heirmark embed``, ``steal`` or ``remove`` wrote.
        key: whether its key and calibration come along; an unmarked model has none.

    Raises:
        BadArtifact: when a file is missing.
    """
    names = [*(MARKED if key else MODEL), *(name for name in OPTIONAL if key and (folder / name).is_file())]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        remedy = "embed the model with --calibrators 5" if missing[0] == "calibration.json" else "name another folder"
        raise BadArtifact(f"{folder} has no {missing[0]}: {remedy}")
    external = {name: hashlib.sha256(read_bytes(folder / name, max_bytes=LARGEST)).hexdigest() for name in names}
    # What the weights compute depends on the code of their model, too.
    code = list(code_of(load_spec(folder).name))
    return Stage(kind="adopt", run=run_adopt, config={"names": sorted(names), "code": code}, external=external)


def run_adopt(job: Job) -> Mapping[str, Any]:
    """Copy the files from the folder that is the stage's context."""
    folder = job.context
    if not isinstance(folder, Path):
        raise BadArtifact("a folder that had been adopted is gone from the store: run the same command again")
    for name in job.config["names"]:
        goal = job.folder / name
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / name, goal)
    return {"files": len(job.config["names"])}
