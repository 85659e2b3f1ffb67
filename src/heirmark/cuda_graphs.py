"""The gradients of a training step; on a GPU as one CUDA graph, which starts all of its kernels at once.

A small net's step is hundreds of kernels that each take microseconds, and starting them one by one takes several times as long
as they do. A graph is recorded from one batch and played again on every other, with the same kernels in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from heirmark.runtime import Runtime

Loss = Callable[..., Tensor]
"""Maps the tensors of a batch to a scalar."""

WORTH = 20
"""Steps from which on recording, which takes as long as a few of them, pays."""
WARM_UP = 3
"""Steps before recording, in which libraries set themselves up (torch's documentation of CUDA graphs)."""


def gradients_of(model: nn.Module, loss: Loss, *, runtime: Runtime, steps: int) -> Loss:
    """A function like ``loss`` that leaves the gradients of its batch in the model's parameters, whatever was there before.

    It is played as a graph on a GPU when there are steps enough and all of the model's layers are torch's or heirmark's own: code
    of others may do something else in every pass, and a graph never would. Compiled models are left to the compiler. What cannot
    be recorded is computed step by step.

    Args:
        model: on the runtime's device, in the modes that it trains in; its parameters and buffers stay the tensors they are.
        loss: of a batch; batches all have the same shapes. It runs the model, and must not wait for the GPU.
        runtime: device and compiler.
        steps: how often it will be called.

    Returns:
        Maps a batch to its loss, which holds until the next call.
    """
    plain = _one_by_one(model, loss)
    if runtime.torch_device.type != "cuda" or runtime.compile or steps < WORTH or not repeats(model):
        return plain
    return _Recorded(model, loss, plain)


def _one_by_one(model: nn.Module, loss: Loss) -> Loss:
    def gradients(*batch: Tensor) -> Tensor:
        model.zero_grad(set_to_none=True)
        value = loss(*batch)
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()

    return gradients


def repeats(model: nn.Module) -> bool:
    """Whether all layers are of code that does the same in every pass."""
    return all(type(module).__module__.partition(".")[0] in ("torch", "heirmark") for module in model.modules())


class _Recorded:
    """Records the first batch, then plays; see :func:`gradients_of`."""

    def __init__(self, model: nn.Module, loss: Loss, plain: Loss) -> None:
        self.model, self.loss, self.plain = model, loss, plain
        self.play: Loss | None = None

    def __call__(self, *batch: Tensor) -> Tensor:
        if self.play is None:
            try:
                self.play = self._record(batch)
            except RuntimeError:  # a layer that looks at what the GPU computes, say
                self.play = self.plain
        return self.play(*batch)

    def _record(self, batch: tuple[Tensor, ...]) -> Loss:
        inputs = [tensor.clone() for tensor in batch]  # layout too

        def gradients() -> Tensor:
            value = self.loss(*inputs)
            value.backward()  # type: ignore[no-untyped-call]
            return value.detach()

        device = inputs[0].device
        with torch.cuda.device(device):
            with _restored(self.model, device):
                stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    for _ in range(WARM_UP):
                        gradients()
                torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                value = gradients()

        def play(*batch: Tensor) -> Tensor:
            for mine, theirs in zip(inputs, batch, strict=True):
                mine.copy_(theirs)
            graph.replay()
            return value

        return play


@contextmanager
def _restored(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Afterwards buffers and the GPU's generator are as before, and the model has no gradients."""
    buffers, drawn = [(buffer, buffer.clone()) for buffer in model.buffers()], torch.cuda.get_rng_state(device)
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        torch.cuda.set_rng_state(drawn, device)
        model.zero_grad(set_to_none=True)
