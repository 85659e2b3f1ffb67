"""Folders that hold what a method or an attack returned, read as a stranger's: safetensors and JSON, bounded, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heirmark.errors import BadArtifact
from heirmark.files import atomic_write_json, atomic_write_tensors, read_json, read_tensors
from heirmark.methods.base import Marked
from heirmark.models.storage import save_model

EXAMPLES = 12
"""Trigger samples kept with their hosts, for the report's pictures."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """A few held-out trigger samples with their hosts; see :class:`heirmark.triggers.TriggerSet` for the shapes."""

    inputs: Tensor
    controls: Tensor
    hosts: Tensor
    host_labels: Tensor


PICTURES = tuple(field.name for field in fields(Pictures))


def save_marked(marked: Marked, folder: Path) -> None:
    """Write a marked model: ``model.*``, ``key/``, ``pictures.safetensors``, ``training.safetensors`` and ``history.json``."""
    save_model(marked.net, folder)
    marked.key.save(folder / "key")
    shown = marked.verification_triggers
    pictures = {name: getattr(shown, name)[:EXAMPLES] for name in PICTURES}
    atomic_write_tensors(folder / "pictures.safetensors", pictures, private=True)
    if (trained := marked.training_triggers) is not None:
        tensors = {"inputs": trained.inputs, "targets": trained.targets}
        atomic_write_tensors(folder / "training.safetensors", tensors, private=True)
    atomic_write_json(folder / "history.json", [dict(row) for row in marked.history])


def read_history(folder: Path) -> tuple[Mapping[str, float], ...]:
    """The rows of ``history.json``."""
    rows: Any = read_json(folder / "history.json", max_bytes=1 << 24)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadArtifact(f"{folder / 'history.json'} is not a list of rows: run the stage that wrote it again")
    return tuple(rows)


def read_pictures(folder: Path) -> Pictures:
    """The few trigger samples kept for the report."""
    return Pictures(**read_tensors(folder / "pictures.safetensors", names=PICTURES))


def read_training_triggers(folder: Path) -> tuple[Tensor, Tensor] | None:
    """Trigger samples that trained, and their labels; None for an unmarked model."""
    path = folder / "training.safetensors"
    if not path.is_file():
        return None
    tensors = read_tensors(path, names={"inputs", "targets"})
    return tensors["inputs"], tensors["targets"].to(torch.int64)
