"""A suspect: whatever can be asked for labels. A module, a black box, an ONNX file, a function (of a web service, say).

A suspect belongs to somebody else, so all it says is checked: whatever goes wrong on its side comes out as
:class:`heirmark.blackbox.ModelFault`, which :func:`heirmark.verification.verify` turns into an INVALID verdict.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heirmark.blackbox import BlackBox, ModelFault, call_model, checked_scores
from heirmark.errors import BadArtifact, BadConfig, BudgetExhausted, HeirmarkError, told
from heirmark.files import GIB, read_bytes
from heirmark.runtime import Runtime, as_floats

# The one mark of a tensor kept outside an ONNX file: a map entry whose key is the string "location", as protobuf writes
# it, long forms included. Such a tensor can name any path on this machine, or an address in memory.
_EXTERNAL_DATA = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)location")
_ONNX_FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


@dataclass(frozen=True, kw_only=True, eq=False)
class Suspect:
    """A model under suspicion, reduced to the one thing a verdict needs: labels. Made by the ``from_...`` methods.

    Attributes:
        ask: maps ``[N, ...]`` uint8 or float inputs to labels ``[N]`` int64 on the CPU; raises ``ModelFault`` for every
            failing of the suspect's.
        kind: ``"module"``, ``"callable"``, ``"black-box"`` or ``"onnx"``.
        classes: number of classes it claims.
        input_shape: shape of one input, where it is known and fixed.
    """

    ask: Callable[[Tensor], Tensor]
    kind: str
    classes: int
    input_shape: tuple[int, ...] | None = None

    def labels(self, inputs: Tensor) -> Tensor:
        """Most likely class of each input.

        Args:
            inputs: ``[N, ...]`` uint8 (0..255) or floating point in [0, 1].

        Returns:
            ``[N]`` int64 on the CPU.

        Raises:
            ModelFault: if the suspect fails or answers nonsense.
            BudgetExhausted: if a black box has too few queries left; none is asked then.
            MemoryError: if the machine ran out of memory, for which the suspect is not to blame.
            torch.OutOfMemoryError: likewise on an accelerator.
        """
        return _labels(self.ask(inputs), len(inputs), self.classes)

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        *,
        classes: int,
        input_shape: tuple[int, ...] | None = None,
        runtime: Runtime | None = None,
    ) -> Suspect:
        """A torch module that maps float32 ``[B, ...]`` in [0, 1] to scores ``[B, C]``; asked in eval mode.

        Args:
            module: the model. It runs in this process: load only code you trust.
            classes: number of classes C.
            input_shape: shape of one input, if it is known.
            runtime: where it computes.
        """
        box = BlackBox(module, classes=classes, answers="label", runtime=runtime)
        return cls(ask=lambda inputs: box.query(inputs).labels, kind="module", classes=classes, input_shape=input_shape)

    @classmethod
    def from_callable(
        cls,
        function: Callable[[Tensor], object],
        *,
        classes: int,
        input_shape: tuple[int, ...] | None = None,
        batch_size: int = 1000,
    ) -> Suspect:
        """Any function of a batch, such as a client of a web service.

        Args:
            function: maps float32 ``[B, ...]`` in [0, 1] to a tensor or array, either of scores ``[B, C]`` (logits and
                probabilities serve alike) or of integer labels ``[B]``.
            classes: number of classes C.
            input_shape: shape of one input, if it is known.
            batch_size: inputs a call, at most.
        """
        if batch_size < 1 or classes < 2:
            raise BadConfig(f"batch_size must be positive and classes at least 2, not {batch_size} and {classes}")

        def ask(inputs: Tensor) -> Tensor:
            chunks = (inputs[start : start + batch_size] for start in range(0, len(inputs), batch_size))
            # A copy each: a function that scales in place must not change what the next one is asked.
            answers = [
                _labels(call_model(function, as_floats(chunk.cpu()).clone()), len(chunk), classes) for chunk in chunks
            ]
            return torch.cat([torch.empty(0, dtype=torch.int64), *answers])

        return cls(ask=ask, kind="callable", classes=classes, input_shape=input_shape)

    @classmethod
    def from_black_box(cls, box: BlackBox) -> Suspect:
        """A black box; it is charged for the queries.

        Args:
            box: any kind of answers will do.
        """

        def ask(inputs: Tensor) -> Tensor:
            try:
                return box.query(inputs).labels
            except BudgetExhausted:
                raise  # the verifier's own purse, no failing of the suspect's
            except HeirmarkError as error:
                raise error if isinstance(error, ModelFault) else ModelFault(str(error)) from error

        return cls(ask=ask, kind="black-box", classes=box.classes, input_shape=box.input_shape)

    @classmethod
    def from_onnx(cls, path: Path, *, classes: int | None = None, max_bytes: int = 2 * GIB) -> Suspect:
        """An ONNX file, run by onnxruntime on the CPU; it cannot run code of its own nor reach other files.

        Its only input is float ``[B, ...]`` in [0, 1] (B fixed or free), its first output scores ``[B, C]`` or integer
        labels ``[B]``.

        Args:
            path: the file. Weights kept in a second file ("external data") are refused.
            classes: number of classes C; None reads it off the file.
            max_bytes: refuse a larger file.

        Raises:
            BadArtifact: if the file is too large, damaged, or unlike what is described above.
            BadConfig: if onnxruntime is not installed, or C is neither given nor in the file.
        """
        return _from_onnx(Path(path), classes, max_bytes)


def _labels(outputs: object, rows: int, classes: int) -> Tensor:
    """Labels ``[rows]`` from a foreign answer: scores, or labels already."""
    try:
        return _read_labels(outputs, rows, classes)
    except torch.OutOfMemoryError:  # a RuntimeError, too, but no failing of the suspect's
        raise
    except (
        TypeError,
        ValueError,
        RuntimeError,
    ) as error:  # of a tensor without values, or of a kind that torch hardly knows
        raise ModelFault(f"the model's answer cannot be read ({told(error)}): return floats or int64 labels") from error


def _read_labels(outputs: object, rows: int, classes: int) -> Tensor:
    if isinstance(outputs, np.ndarray | np.generic | list | tuple):
        try:
            outputs = torch.as_tensor(np.asarray(outputs))
        except torch.OutOfMemoryError:  # where torch's default device is an accelerator
            raise
        except (TypeError, ValueError, RuntimeError):
            raise ModelFault(
                "the model returned something that is no array of numbers: wrap it so that it does"
            ) from None
    if not isinstance(outputs, Tensor) or outputs.ndim != 1:
        return checked_scores(outputs, rows, classes).detach().argmax(1).cpu()
    if outputs.is_floating_point() or outputs.is_complex() or outputs.dtype == torch.bool or len(outputs) != rows:
        raise ModelFault(
            f"the model returned {len(outputs)} {outputs.dtype} values for {rows} inputs: return integer labels"
        )
    labels = outputs.detach().long().cpu()  # torch cannot compare every kind of unsigned integers
    if bool(((labels < 0) | (labels >= classes)).any()):
        raise ModelFault(f"the model returned labels outside 0 to {classes - 1}: check its number of classes")
    return labels


def _from_onnx(path: Path, classes: int | None, max_bytes: int) -> Suspect:
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
    run = _onnx_runner(session, given[0].name, said[0].name, _ONNX_FLOATS[given[0].type], batch)
    fixed = tuple(shape) if all(isinstance(size, int) for size in shape) else None
    suspect = Suspect.from_callable(
        run, classes=classes, batch_size=batch if isinstance(batch, int) and batch > 0 else 256
    )
    return Suspect(ask=suspect.ask, kind="onnx", classes=classes, input_shape=fixed)


def _onnx_runner(session: Any, given: str, said: str, dtype: type, batch: object) -> Callable[[Tensor], object]:
    def run(inputs: Tensor) -> object:
        values: np.ndarray[Any, Any] = inputs.numpy().astype(dtype)
        rows = len(values)
        if isinstance(batch, int) and rows < batch:  # a fixed batch size: fill up, and drop the filling's answers
            values = np.concatenate([values, np.zeros((batch - rows, *values.shape[1:]), dtype)])
        return session.run([said], {given: values})[0][:rows]

    return run
