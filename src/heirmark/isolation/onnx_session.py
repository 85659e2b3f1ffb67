"""Models in ONNX files, run by onnxruntime on the CPU: such a file runs no code of its own and reaches no other file.

It may ask for any amount of time and memory, though, while it is loaded too, so this runs in a process with limits.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from heirmark.errors import BadArtifact, BadConfig, out_of_memory
from heirmark.files import read_bytes

if TYPE_CHECKING:
    from heirmark.isolation.child import Answer, Opened

# The one mark of a tensor kept outside an ONNX file: a map entry whose key is the string "location", as protobuf writes
# it, long forms included. Such a tensor can name any path on this machine, or an address in memory.
_EXTERNAL_DATA = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)location")
_FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
_IDS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
_LARGEST_BATCH = 4096
"""A larger fixed batch is filled up here, and no parent is asked to send as many inputs at once."""


def check_installed() -> None:
    """Make sure that there is onnxruntime.

    Raises:
        BadConfig: where there is none.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise BadConfig('an ONNX suspect needs onnxruntime: pip install "heirmark[onnx]"')


def opened(*, path: str, classes: int | None, max_bytes: int, threads: int) -> Opened:
    """Load an ONNX file, trusting nothing in it.

    Args:
        path: the file.
        classes: number of classes; None reads it off the file.
        max_bytes: refuse a larger file.
        threads: that onnxruntime may use.

    Returns:
        ``classes``, ``input_shape`` and ``batch_size``, of which the last two are None where the file leaves them open; and what
        maps ``[B, ...]`` to what the file's first output says.

    Raises:
        BadArtifact: if the file is too large, damaged, keeps weights elsewhere, or takes no single batch of floats or of ids.
        BadConfig: if onnxruntime is not installed, or the number of classes is neither given nor in the file.
        MemoryError: if the file needs more than there is.
    """
    check_installed()
    import onnxruntime

    data = read_bytes(Path(path), max_bytes=max_bytes)
    if _EXTERNAL_DATA.search(data):
        raise BadArtifact(f"{path} keeps weights in other files, which are not read: save the model as a single file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        session = onnxruntime.InferenceSession(data, sess_options=options, providers=["CPUExecutionProvider"])
        given, said = session.get_inputs(), session.get_outputs()
    except Exception as error:
        if out_of_memory(error):
            raise MemoryError from None
        # onnxruntime raises a dozen types of its own, and this one line runs nothing of heirmark's.
        raise BadArtifact(
            f"{path} is no ONNX model that onnxruntime can load ({type(error).__name__}): export it again"
        ) from None
    types: dict[str, type] = {**_FLOATS, **_IDS}
    if len(given) != 1 or given[0].type not in types or len(given[0].shape) < 2 or not said:
        raise BadArtifact(
            f"{path} does not take one batch of floats, or of ids of tokens: export it with a single input [B, ...]"
        )
    batch, *shape = given[0].shape
    if classes is None:
        claimed = said[0].shape[-1] if len(said[0].shape) == 2 else None
        if not isinstance(claimed, int) or claimed < 2:
            raise BadConfig(f"{path} does not say how many classes it has: pass classes")
        classes = claimed
    facts = {
        "classes": classes,
        "input_shape": shape if all(isinstance(size, int) for size in shape) else None,
        "batch_size": batch if isinstance(batch, int) and 0 < batch <= _LARGEST_BATCH else None,
    }
    return facts, _answering(session, given[0].name, said[0].name, types[given[0].type], batch)


def _answering(session: Any, given: str, said: str, dtype: type, batch: object) -> Answer:
    def answer(inputs: NDArray[Any]) -> NDArray[Any]:
        if np.issubdtype(dtype, np.integer) and not np.issubdtype(inputs.dtype, np.integer):
            raise ValueError("the file takes ids of tokens, and these are numbers")
        values: NDArray[Any] = inputs.astype(dtype)
        rows = len(values)
        if isinstance(batch, int) and rows < batch:  # a fixed batch size: fill up, and drop the filling's answers
            values = np.concatenate([values, np.zeros((batch - rows, *values.shape[1:]), dtype)])
        answers: NDArray[Any] = session.run([said], {given: values})[0][:rows]
        return answers

    return answer
