"""Float32 with all its bits, where torch would round it on its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

T = TypeVar("T")


@contextmanager
def whole_float32(device: torch.device) -> Iterator[None]:
    """Compute in float32 with all its bits: by default cuDNN rounds what convolutions take to TF32, which has 10 bits of 23.

    Afterwards the caller's choice is back, whether it was made by ``allow_tf32``, ``torch.set_float32_matmul_precision`` or
    ``fp32_precision``. What could be read of it before can be read inside, too: models and torch's own compiler ask.

    Args:
        device: where; elsewhere than on CUDA nothing is changed, since torch rounds nothing there unless it is told to.
    """
    if device.type != "cuda":
        yield
        return
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    settings = _precisions()
    before = [setting.fp32_precision for setting in settings]
    products = _if_readable(torch.get_float32_matmul_precision) or "highest"
    layers = _if_readable(lambda: cudnn.allow_tf32)
    try:
        # The old flags first: whoever sets them sets the new ones, too.
        if products != "highest":
            matmul.allow_tf32 = False
        if layers:
            cudnn.allow_tf32 = False
        for setting in settings:
            setting.fp32_precision = "ieee"
        yield
    finally:
        if products != "highest":
            torch.set_float32_matmul_precision(products)
        if layers:
            cudnn.allow_tf32 = True
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = "none"  # what it inherits; it goes on following that if that is what it was
            if setting.fp32_precision != precision:
                setting.fp32_precision = precision


def _precisions() -> list[Any]:
    """What has a ``fp32_precision`` that CUDA heeds or ``torch.set_float32_matmul_precision`` sets; older torch has none."""
    cudnn, mkldnn = torch.backends.cudnn, torch.backends.mkldnn
    named = [(torch.backends.cuda, "matmul"), (cudnn, "conv"), (cudnn, "rnn"), (mkldnn, "matmul")]
    found = [getattr(backend, name, None) for backend, name in named]
    return [setting for setting in found if hasattr(setting, "fp32_precision")]


def _if_readable(read: Callable[[], T]) -> T | None:
    """One of torch's old settings, or None where it refuses to tell: it was set by the new ones, or by both."""
    try:
        return read()
    except RuntimeError:
        return None
