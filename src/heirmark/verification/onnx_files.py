"""Models in ONNX files: asked in a process of their own, with limits of time and memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heirmark.errors import BadArtifact
from heirmark.isolation.limits import ProcessLimits
from heirmark.isolation.onnx_session import check_installed, opened
from heirmark.isolation.process import POSIX, Isolated

_TIMES = 3
"""How often a file's size may be taken on top of the limit: as bytes, parsed, and as onnxruntime lays its weights out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OnnxFile:
    """An ONNX file that can be asked.

    Attributes:
        run: maps float32 ``[B, ...]`` on the CPU to what the file's first output says.
        classes: number of classes, given or read off the file.
        input_shape: of one input, where the file fixes it.
        batch_size: inputs a call, at most; None where the file takes any number.
    """

    run: Callable[[Tensor], object]
    classes: int
    input_shape: tuple[int, ...] | None
    batch_size: int | None


def open_onnx(path: Path, *, classes: int | None, max_bytes: int, limits: ProcessLimits) -> OnnxFile:
    """Load an ONNX file, trusting nothing in it. Where there are no POSIX processes it runs in this one, without limits.

    Args:
        path: the file.
        classes: number of classes; None reads it off the file.
        max_bytes: refuse a larger file.
        limits: of time and memory.

    Raises:
        BadArtifact: if the file is too large, damaged, keeps weights elsewhere, takes no single batch of floats, or cannot be
            loaded within the limits.
        BadConfig: if onnxruntime is not installed, or the number of classes is neither given nor in the file.
    """
    check_installed()
    options: dict[str, Any] = {
        "path": str(path.absolute()),
        "classes": classes,
        "max_bytes": max_bytes,
        "threads": torch.get_num_threads(),
    }
    run: Callable[[Any], object]
    if POSIX:
        size = path.stat().st_size if path.is_file() else 0
        bounded = replace(limits, memory=limits.memory + _TIMES * min(size, max_bytes))
        run = child = Isolated(
            f"{opened.__module__}:{opened.__name__}",
            options,
            limits=bounded,
            name=str(path),
            largest=lambda facts: 8 * facts["classes"],
        )
        facts = child.facts
    else:
        facts, run = opened(**options)
    try:
        shape, batch = facts["input_shape"], facts["batch_size"]
        return OnnxFile(
            run=lambda inputs: run(inputs.numpy()),
            classes=int(facts["classes"]),
            input_shape=None if shape is None else tuple(map(int, shape)),
            batch_size=None if batch is None else int(batch),
        )
    except (KeyError, TypeError, ValueError):
        raise BadArtifact(f"{path} does not say what it is: do not trust it") from None
