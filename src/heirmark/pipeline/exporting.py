"""Folders of the user's: what a command writes, whole or not at all, and what it reads of them again."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from heirmark.configuration import JSON
from heirmark.errors import BadArtifact, BadConfig, HeirmarkError
from heirmark.files import atomic_write_json, read_bytes, read_json
from heirmark.models import code_of
from heirmark.models.storage import load_spec
from heirmark.pipeline.code_version import code_version
from heirmark.pipeline.stage import Artifact
from heirmark.pipeline.store import Event, Store
from heirmark.task import Task

OnEvent = Callable[[Event, str], None]
"""Told of what a store does, with the name of the stage for people."""

TASK = "task.json"
TWIN = "twin.json"
"""What trains the same model without the mark."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The data behind a model, as ``task.json`` beside it says.

    Attributes:
        data: name of the data set, or ``module:function``.
        split_seed: of who got which example.
        digest: of the task; empty before it is known.
        foreign: data set that brought the task's foreign images, of which the key may be made; None when none did.
    """

    data: str
    split_seed: int = 0
    digest: str = ""
    foreign: str | None = None


def read_origin(folder: Path) -> Origin | None:
    """What ``task.json`` says; None where there is none.

    Raises:
        BadArtifact: when it is foreign.
    """
    path = folder / TASK
    if not path.is_file():
        return None
    record = read_json(path, max_bytes=1 << 20)
    try:
        origin = Origin(
            data=record["data"],
            split_seed=record["split_seed"],
            digest=record["digest"],
            foreign=record.get("foreign"),
        )
        texts = (origin.data, origin.digest, origin.foreign or "")
        if type(origin.split_seed) is not int or not all(isinstance(text, str) for text in texts):
            raise TypeError("a field of the wrong type")
    except (KeyError, TypeError, AttributeError) as error:
        raise BadArtifact(f"{path} is foreign or damaged ({error}): name the data yourself with --data") from error
    return origin


def folder_digest(folder: Path) -> str:
    """SHA-256 over a model's two files and the code of a built-in model, of which what the weights compute depends."""
    digest = hashlib.sha256()
    for name in ("model.json", "model.safetensors"):
        path = folder / name
        if not path.is_file():
            raise BadArtifact(f"{folder} holds no model (no {name}): name a folder that heirmark embed or steal wrote")
        digest.update(hashlib.sha256(read_bytes(path, max_bytes=1 << 33)).digest())
    for code in code_of(load_spec(folder).name):
        digest.update(code_version(code).encode())
    return digest.hexdigest()


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
    *,
    task: Task,
    origin: Origin,
    extra: Mapping[str, Path] | None = None,
    records: Mapping[str, JSON] | None = None,
) -> None:
    """Copy an artifact's files, and ``task.json``, to a new folder that appears whole or not at all.

    Args:
        artifact: whose files are copied.
        out: the folder.
        task: for ``task.json``.
        origin: of the data, likewise.
        extra: further files by name.
        records: further JSON files by name.
    """
    goal = out.resolve()
    try:
        goal.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{goal.name}-", dir=goal.parent))
        try:
            for name, source in {
                **{file: artifact.folder / file for file in artifact.record["files"]},
                **(extra or {}),
            }.items():
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, partial / name)
            facts = {**asdict(origin), "digest": task.digest(), "classes": list(task.classes)}
            for name, record in {TASK: facts, **(records or {})}.items():
                atomic_write_json(partial / name, record)
            partial.chmod(0o755)
            partial.replace(goal)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise HeirmarkError(f"cannot write {out} ({error}): choose another --out; what was computed is kept") from error


def labelled_store(root: Path, labels: Mapping[str, str], on_event: OnEvent | None) -> Store:
    """A store whose events come with what their stages are called for people."""
    tell = on_event or (lambda event, label: None)
    return Store(root, on_event=lambda event: tell(event, labels.get(event.name, "")))
