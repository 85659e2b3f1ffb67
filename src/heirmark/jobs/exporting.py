"""Folders of the user's that a command writes, whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from heirmark.configuration import JSON
from heirmark.errors import BadConfig, HeirmarkError
from heirmark.files import atomic_write_json
from heirmark.jobs.folder import TASK, Data
from heirmark.stages.stage import Artifact
from heirmark.tasks.media import save_medium


def check_free(out: Path) -> None:
    """Refuse to write where something is or nothing can be, before hours of work.

    Raises:
        BadConfig: when ``out`` is no new or empty folder in a folder that can be written to.
    """
    goal = out.resolve()
    if goal.is_mount():
        raise BadConfig(f"{out} is a mount point: choose a new folder inside it for --out")
    if goal.exists() and not goal.is_dir():
        raise BadConfig(f"{out} is no folder: choose another --out")
    if goal.exists() and any(goal.iterdir()):
        raise BadConfig(f"{out} is not empty: choose another --out, or remove it yourself")
    above = next(folder for folder in goal.parents if os.path.lexists(folder))
    try:
        with tempfile.TemporaryDirectory(prefix=f".{goal.name}-", dir=above):
            pass
    except OSError as error:
        raise BadConfig(f"nothing can be written in {above} ({error.strerror}): choose another --out") from error


def export_folder(
    artifact: Artifact,
    out: Path,
    data: Data,
    *,
    extra: Mapping[str, Path] | None = None,
    records: Mapping[str, JSON] | None = None,
) -> None:
    """Copy an artifact's files, and the rest as :func:`export_files` does, to a new folder."""
    files = {file: artifact.folder / file for file in artifact.record["files"]}
    export_files(files | dict(extra or {}), out, data, records=records)


def export_files(
    files: Mapping[str, Path], out: Path, data: Data, *, records: Mapping[str, JSON] | None = None
) -> None:
    """Copy files and JSON ``records`` by name, ``task.json`` of the data, and their medium where they have one, to a new folder.

    The folder appears whole or not at all.
    """
    goal = out.resolve()
    try:
        goal.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{goal.name}-", dir=goal.parent))
        try:
            for name, source in files.items():
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, partial / name)
            facts = {**asdict(data.origin), "digest": data.task.digest(), "classes": list(data.task.classes)}
            if data.task.medium is not None:
                save_medium(data.task.medium, partial)
            for name, record in {TASK: facts, **(records or {})}.items():
                atomic_write_json(partial / name, record)
            partial.chmod(0o755)
            partial.replace(goal)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise HeirmarkError(f"cannot write {out} ({error}): choose another --out; what was computed is kept") from error
