"""Real int8: an ONNX file, quantised statically, that ONNX Runtime runs (Jacob et al. 2018, arXiv 1712.05877)."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from heirmark.attacks.base import Removal
from heirmark.attacks.removal.parts import drawn
from heirmark.configuration import at_least
from heirmark.errors import BadConfig
from heirmark.models import Net
from heirmark.querying.asking import floats_for
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.task import Split

INPUTS, LOGITS = "inputs", "logits"
OPSET = 17
BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Int8(Removal):
    """Convert weights and activations to 8-bit integers, with ranges measured on the adversary's inputs.

    What comes out is an ONNX file for the CPU; it takes float ``[B, ...]`` in [0, 1], or ids of tokens int64 ``[B, L]``, and
    gives logits. Norms are folded into the convolutions before them. Quantised operators are written as float operators between
    quantise and dequantise steps, which ONNX Runtime fuses. It needs ``pip install "heirmark[onnx]"``.

    Attributes:
        per: scales of the weights, ``"tensor"`` or one for every output ``"channel"``.
        calibration: how many inputs the ranges of activations are measured on, at most.
        ranges: ``"min-max"``, or ``"entropy"``, which cuts outliers off where that loses the least information.
        reduce_range: keep weights to 7 bits, so that sums do not overflow on processors without 8-bit dot products (x86
            before VNNI).
    """

    title: ClassVar[str] = "int8 by ONNX Runtime"
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime")

    per: Literal["tensor", "channel"] = "channel"
    calibration: Annotated[int, at_least(1)] = 512
    ranges: Literal["min-max", "entropy"] = "min-max"
    reduce_range: bool = False

    def alter(self, copy: Net, data: Split, *, other: Split | None, seed: int, runtime: Runtime) -> Net:
        """Quantise; see :class:`heirmark.attacks.base.Removal`.

        Raises:
            BadConfig: when ONNX is not installed, or the model cannot be written in it.
        """
        check_writable(copy)
        chosen = drawn(len(data), self.calibration, seed=derive_seed(seed, "calibration"))
        sample = floats_for(data.inputs[chosen]).cpu()
        content = self._quantise(to_onnx(copy.model.cpu(), sample[:2]), sample)
        return replace(copy, model=OnnxModel(content), onnx=content)

    def _quantise(self, content: bytes, sample: Tensor) -> bytes:
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process

        # Of equal size, or the search for the least loss of information cannot stack them.
        size = max(size for size in range(1, BATCH + 1) if len(sample) % size == 0)
        batches = iter([{INPUTS: batch.numpy()} for batch in sample.split(size)])  # type: ignore[no-untyped-call]

        class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
            def get_next(self) -> Any:
                return next(batches, None)

        methods = quantization.CalibrationMethod
        with tempfile.TemporaryDirectory(prefix="heirmark-int8-") as folder, _quiet():
            plain, ready, small = (Path(folder) / f"{name}.onnx" for name in ("plain", "ready", "small"))
            plain.write_bytes(content)
            quant_pre_process(plain, ready, skip_symbolic_shape=True)
            quantization.quantize_static(
                ready,
                small,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=self.per == "channel",
                reduce_range=self.reduce_range,
                calibrate_method=methods.MinMax if self.ranges == "min-max" else methods.Entropy,
            )
            return small.read_bytes()


class OnnxModel(nn.Module):
    """An ONNX file as a module: no parameters, no gradients, always on the CPU. The file itself takes floats in [0, 1].

    Args:
        content: the file, of the thief's own making.

    Raises:
        BadConfig: when onnxruntime is not installed.
    """

    takes_stored = True

    def __init__(self, content: bytes) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.load_model_format", "ONNX")
        self.content = content
        self.session = onnxruntime.InferenceSession(content, sess_options=options, providers=["CPUExecutionProvider"])
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[N, ...]`` uint8, or float in [0, 1], to logits ``[N, classes]``, on the inputs' device."""
        said = self.session.run([LOGITS], {INPUTS: floats_for(inputs.detach()).contiguous().cpu().numpy()})[0]
        return torch.from_numpy(said).to(inputs.device)

    def __reduce__(self) -> tuple[type[OnnxModel], tuple[bytes]]:
        # A session cannot be copied; the file can.
        return OnnxModel, (self.content,)


def to_onnx(model: nn.Module, example: Tensor) -> bytes:
    """Write a model as an ONNX file that takes batches of any size.

    Args:
        model: on the CPU, in eval mode.
        example: ``[N, ...]`` float32, or ids of tokens int64, of which shape and type count: the file takes such.

    Raises:
        BadConfig: when the model does something that ONNX has no word for.
    """
    with tempfile.TemporaryDirectory(prefix="heirmark-onnx-") as folder, _quiet():
        path = Path(folder) / "model.onnx"
        try:
            # The exporter by tracing: it is there in every PyTorch that heirmark supports, and needs no further package.
            torch.onnx.export(
                model,
                (example,),
                path,
                input_names=[INPUTS],
                output_names=[LOGITS],
                dynamic_axes={INPUTS: {0: "batch"}, LOGITS: {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
        except Exception as error:
            # Whatever a foreign model's code and the exporter raise about it; nothing of heirmark's runs here.
            raise BadConfig(
                f"{type(model).__name__} cannot be written as ONNX ({type(error).__name__}: {error}): "
                "use quantisation, which simulates"
            ) from error
        return path.read_bytes()


def check_writable(net: Net) -> None:
    """Make sure that models can be written as ONNX here, and this one as far as can be told beforehand.

    Raises:
        BadConfig: when a package is missing, or noise stands before the model.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime.quantization  # noqa: F401
    except ImportError:
        raise BadConfig('to write ONNX needs onnx and onnxruntime: pip install "heirmark[onnx]"') from None
    if any(name == "noise" for name, _ in net.spec.front):
        raise BadConfig("noise of the image's own cannot be written as ONNX: take a model without that front")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's and the quantiser's remarks off the user's screen, and the root logger as it is."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)  # without one, their first remark would set up a handler for good
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.removeHandler(handler)
