"""Ask a model about any number of inputs: in eval mode, in batches that fit into memory, in a layout that it takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from heirmark.errors import out_of_memory
from heirmark.float32 import whole_float32
from heirmark.querying.layout import are_probabilities, as_logits, channels_last, in_mode, takes_stored, tell_softmax
from heirmark.runtime import Runtime
from heirmark.tasks.storing import decode

LARGEST_BATCH = 1000
_NUMBERS = LARGEST_BATCH * 3 * 32 * 32
"""Numbers in a batch of inputs: a thousand images of CIFAR's size. What a net keeps of a batch grows with it."""
_usual: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Whether a model that has been asked wants the usual memory layout."""


def batch_for(inputs: Tensor) -> int:
    """How many inputs of this size a model is asked about at once; for :func:`predict` the first try.

    Args:
        inputs: ``[N, ...]``.

    Examples:
        >>> batch_for(torch.empty(5, 1, 28, 28)), batch_for(torch.empty(5, 3, 224, 224))
        (1000, 20)
    """
    return max(1, min(LARGEST_BATCH, _NUMBERS // max(1, math.prod(inputs.shape[1:]))))


def evaluating(model: nn.Module) -> AbstractContextManager[nn.Module]:
    """Put a model in eval mode, and afterwards give every submodule back its own: :func:`heirmark.querying.layout.in_mode`."""
    return in_mode(model, training=False)


def predict(
    model: nn.Module, inputs: Tensor, *, runtime: Runtime | None = None, batch_size: int | None = None
) -> Tensor:
    """Logits of a model in eval mode. The model's modes are as before on return; it stays on the runtime's device.

    Args:
        model: maps ``[B, ...]``, stored or float32 in [0, 1], to logits ``[B, C]``, or to probabilities: then their logarithms
            are taken, with a warning.
        inputs: ``[N, ...]`` uint8 or float.
        runtime: device and precision; the default chooses by itself. Float32 is whole here, see
            :func:`heirmark.float32.whole_float32`.
        batch_size: examples per forward pass, at most; None goes by their size, see :func:`batch_for`.

    Returns:
        ``[N, C]`` float32 logits on the CPU.

    Raises:
        MemoryError: when memory does not suffice for a single input.
        torch.OutOfMemoryError: likewise on an accelerator.
    """
    said = outputs_of(model, inputs, runtime=runtime, batch_size=batch_size)
    if not are_probabilities(said):
        return said
    tell_softmax(model)
    return as_logits(said)


@torch.no_grad()
def outputs_of(
    model: nn.Module, inputs: Tensor, *, runtime: Runtime | None = None, batch_size: int | None = None
) -> Tensor:
    """What a model gives in eval mode, as it is; see :func:`predict`.

    Where memory runs out, batches are halved until one input alone does not fit. Images come channels-last, or, to a model that
    fails on these, in the usual layout.

    Returns:
        ``[N, ...]`` float32 on the CPU.
    """
    runtime = runtime or Runtime()
    device = runtime.torch_device
    model.to(device)
    with evaluating(model), whole_float32(device), runtime.autocast():
        parts = in_batches(lambda batch: _layered(model, batch).float(), inputs, device=device, batch_size=batch_size)
    return torch.cat(parts).cpu()  # one wait for the device, not one a batch


def in_batches(
    ask: Callable[[Tensor], Tensor], inputs: Tensor, *, device: torch.device, batch_size: int | None = None
) -> list[Tensor]:
    """What a function says to inputs, batch by batch, each half as long as the last where memory runs out.

    Args:
        ask: maps inputs ``[B, ...]`` as they are stored, on the device, to ``[B, ...]``; see :func:`floats_for`.
        inputs: ``[N, ...]`` uint8 or float.
        device: to which batches are brought.
        batch_size: examples a batch, at most; None goes by their size.

    Returns:
        One tensor a batch; one for no input at all.

    Raises:
        MemoryError: when memory does not suffice for a single input.
        torch.OutOfMemoryError: likewise on an accelerator.
    """
    size, start = batch_size or batch_for(inputs), 0
    parts: list[Tensor] = []
    while start < len(inputs) or not parts:
        chunk = inputs[start : start + size]
        try:
            parts.append(ask(chunk.to(device, non_blocking=True)))
        except Exception as error:
            if not out_of_memory(error):
                raise
            if len(chunk) <= 1:
                if isinstance(error, MemoryError | torch.OutOfMemoryError):
                    raise
                raise MemoryError(
                    f"memory does not suffice to ask a model about one input of shape {tuple(inputs.shape[1:])}: "
                    "free some, or use a larger machine"
                ) from error
            size = -(-len(chunk) // 2)
        else:
            start += len(chunk)
            continue
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return parts


def floats_for(stored: Tensor) -> Tensor:
    """Inputs ``[B, ...]`` as foreign code takes them, which may write into them, so never the caller's own.

    Numbers are decoded to float32, and ids of tokens are int64.
    """
    given = stored.long() if stored.dtype == torch.int32 else decode(stored)
    return given.clone() if given is stored else given


def _layered(model: nn.Module, batch: Tensor) -> Tensor:
    """What a model says that takes stored inputs, or floats in a layout that is tried once a model."""
    answer: Tensor
    if takes_stored(model):
        answer = model(batch.float() if batch.is_floating_point() else batch)
        return answer
    batch = floats_for(batch)
    if batch.ndim != 4 or model in _usual:
        answer = model(batch if _usual.get(model) else channels_last(batch))
        return answer
    try:
        answer = model(channels_last(batch.clone()))  # it may write into what it is given
        _usual[model] = False
    except Exception as error:
        if out_of_memory(error) or not isinstance(error.__cause__ or error, RuntimeError):
            raise
        answer = model(batch)
        _usual[model] = True
    return answer
