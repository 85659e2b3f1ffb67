"""Models in ONNX files, run by onnxruntime on the CPU: such a file runs no code of its own and reaches no other file."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heirmark.errors import BadArtifact, BadConfig
from heirmark.files import read_bytes

# The one mark of a tensor kept outside an ONNX file: a map entry whose key is the string "location", as protobuf writes
# it, long forms included. Such a tensor can name any path on this machine, or an address in memory.
_EXTERNAL_DATA = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)location")
_ONNX_FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


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


def open_onnx(path: Path, *, classes: int | None, max_bytes: int) -> OnnxFile:
    """Load an ONNX file, trusting nothing in it.

    Args:
        path: the file.
        classes: number of classes; None reads it off the file.
        max_bytes: refuse a larger file.

    Raises:
        BadArtifact: if the file is too large, damaged, keeps weights elsewhere, or takes no single batch of floats.
        BadConfig: if onnxruntime is not installed, or the number of classes is neither given nor in the file.
    """
    try:
        import onnxruntime
    except ImportError:
        raise BadConfig('an ONNX suspect needs onnxruntime: pip install "heirmark[onnx]"') from None
    data = read_bytes(path, max_bytes=max_bytes)
    if _EXTERNAL_DATA.search(data):
        raise BadArtifact(f"{path} keeps weights in other files, which are not read: save the model as a single file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        session = onnxruntime.InferenceSession(data, sess_options=options, providers=["CPUExecutionProvider"])
        given, said = session.get_inputs(), session.get_outputs()
    except Exception as error:
        # onnxruntime raises a dozen types of its own, and this one line runs nothing of heirmark's.
        raise BadArtifact(
            f"{path} is no ONNX model that onnxruntime can load ({type(error).__name__}): export it again"
        ) from None
    if len(given) != 1 or given[0].type not in _ONNX_FLOATS or len(given[0].shape) < 2 or not said:
        raise BadArtifact(f"{path} does not take one batch of floats: export it with a single float input [B, ...]")
    batch, *shape = given[0].shape
    if classes is None:
        claimed = said[0].shape[-1] if len(said[0].shape) == 2 else None
        if not isinstance(claimed, int) or claimed < 2:
            raise BadConfig(f"{path} does not say how many classes it has: pass classes")
        classes = claimed
    return OnnxFile(
        run=_runner(session, given[0].name, said[0].name, _ONNX_FLOATS[given[0].type], batch),
        classes=classes,
        input_shape=tuple(shape) if all(isinstance(size, int) for size in shape) else None,
        batch_size=batch if isinstance(batch, int) and batch > 0 else None,
    )


def _runner(session: Any, given: str, said: str, dtype: type, batch: object) -> Callable[[Tensor], object]:
    def run(inputs: Tensor) -> object:
        values: np.ndarray[Any, Any] = inputs.numpy().astype(dtype)
        rows = len(values)
        if isinstance(batch, int) and rows < batch:  # a fixed batch size: fill up, and drop the filling's answers
            values = np.concatenate([values, np.zeros((batch - rows, *values.shape[1:]), dtype)])
        return session.run([said], {given: values})[0][:rows]

    return run
