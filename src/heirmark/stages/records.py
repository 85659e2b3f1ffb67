"""Records of artifacts, from what, by which versions and when they were made; and the folders in which they are made."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import secrets
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from heirmark.configuration import canonical_json
from heirmark.errors import BadArtifact
from heirmark.stages.stage import Artifact, Stage

RECORD = "record.json"
LIBRARIES = ("torch", "numpy", "scipy", "sklearn", "onnx", "onnxruntime", "timm")
"""Modules whose versions are written down, where they are in use."""


def make_record(
    stage: Stage,
    inputs: Mapping[str, Artifact],
    summary: Mapping[str, Any],
    files: Mapping[str, Mapping[str, Any]],
    started: datetime,
    seconds: float,
) -> dict[str, Any]:
    """What is kept of how an artifact came about: ``files`` as :func:`settle_files` tells them, ``seconds`` of its function."""
    ancestors: dict[str, str] = {}
    for artifact in inputs.values():
        ancestors |= artifact.record["lineage"] | {artifact.name: artifact.content}
    record: dict[str, Any] = {
        "identity": stage.identity,
        **stage.describe(),
        "lineage": dict(sorted(ancestors.items())),
        "versions": _versions(),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "summary": summary,
        "files": files,
        "content": hashlib.sha256(canonical_json({"files": files, "summary": summary})).hexdigest(),
    }
    return record | {"seal": seal_of(record)}


def seal_of(record: Mapping[str, Any]) -> str:
    """SHA-256 of all else in a record, so that no figure in it changes unnoticed."""
    return hashlib.sha256(canonical_json({key: item for key, item in record.items() if key != "seal"})).hexdigest()


def settle_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Flush all files of a folder to the disk; their SHA-256 and size by relative path."""
    files: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() and not path.is_symlink():
            continue
        if path.is_symlink() or not path.is_file() or name == RECORD:
            raise BadArtifact(f"a stage wrote {name!r}: let it write plain files only, and none called {RECORD}")
        files[name] = {"sha256": sha256(path, sync=True), "size": path.stat().st_size}
    return files


def sha256(path: Path, *, sync: bool = False) -> str:
    """SHA-256 of a file's content, which is flushed to the disk where that is wanted."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if sync and os.name == "posix":
            os.fsync(file.fileno())
    return digest


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    with contextlib.suppress(metadata.PackageNotFoundError):
        versions["heirmark"] = metadata.version("heirmark")
    # Of those alone that the process has imported: to import one for its version's sake can take seconds.
    loaded = {name: sys.modules.get(name) for name in LIBRARIES}
    return versions | {
        name: str(getattr(module, "__version__", "unknown")) for name, module in loaded.items() if module is not None
    }


def sync_folders(folder: Path, *, deep: bool = True) -> None:
    """Make names in a folder last through a power cut, where the system allows a folder to be flushed."""
    if os.name != "posix":
        return
    for path in [folder, *(item for item in folder.rglob("*") if item.is_dir())] if deep else [folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Put a record beside the files that it tells of, and have all of it on the disk."""
    with (folder / RECORD).open("x", encoding="utf-8") as file:
        json.dump(record, file, indent=2, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    sync_folders(folder)


def working_folder(root: Path, name: str) -> Path:
    """A new folder for work on an artifact, by whose name the store knows whose it is when it is left behind."""
    kind, identity = name.split("/")
    folder = root / ".partial" / f"{kind}.{identity}.{_machine()}.{os.getpid()}.{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    return folder


def _machine() -> str:
    """Short name of the space in which process numbers mean something: host, boot and container."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/pid").readlink())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def at_work(machine: str, process: int, folder: Path, *, hours: float) -> bool:
    """Whether a process still works on a folder; of another machine's it is believed for some hours."""
    if machine != _machine() or os.name != "posix":
        return time.time() - folder.stat().st_mtime <= hours * 3600
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
