"""The gradients of a training step; on a GPU as one CUDA graph, which starts all of its kernels at once.

A small net's step is hundreds of kernels that each take microseconds, and starting them one by one takes several times as long
as they do. A graph is recorded from one batch and played again on every other, with the same kernels in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from heirmark.runtime import Runtime
from heirmark.steps import Figures, Gradients, Step

Recorder: TypeAlias = Callable[[Callable[[], Figures], torch.device], tuple[Figures, Callable[[], None]]]
"""Records what a function without arguments computes, which it may do several times: its figures, and what computes them anew in
place."""

WORTH = 20
"""Steps from which on recording, which takes as long as a few of them, pays."""
WARM_UP = 3
"""Steps before recording, in which libraries set themselves up (torch's documentation of CUDA graphs)."""


def recorded(model: nn.Module, step: Step, *, runtime: Runtime, steps: int) -> Gradients:
    """The gradients of a step called so often, played as a graph where that can be and pays.

    It is played on a GPU when there are steps enough and all of the model's layers are torch's or heirmark's own: code of others
    may do something else in every pass, and a graph never would. Compiled models are left to the compiler. What cannot be
    recorded is computed step by step. The model is on the runtime's device, in the modes that it trains in; its parameters and
    buffers stay the tensors that they are. Figures hold until the next call.
    """
    record = RECORDERS.get(runtime.torch_device.type)
    if record is None or runtime.compile or steps < WORTH or not step.recordable or not repeats(model):
        return step.gradients
    return _Recorded(model, step, record)


def repeats(model: nn.Module) -> bool:
    """Whether all layers are of code that does the same in every pass."""
    return all(type(module).__module__.partition(".")[0] in ("torch", "heirmark") for module in model.modules())


class _Recorded:
    """Records the first batch, then plays; see :func:`recorded`."""

    def __init__(self, model: nn.Module, step: Step, record: Recorder) -> None:
        self.model, self.step, self.record = model, step, record
        self.play: Gradients | None = None

    def __call__(self, *batch: Tensor) -> Figures:
        if self.play is None:
            try:
                self.play = self._recorded(batch)
            except RuntimeError:  # a layer that looks at what the GPU computes, say
                self.play = self.step.gradients
        return self.play(*batch)

    def _recorded(self, batch: tuple[Tensor, ...]) -> Gradients:
        inputs = [tensor.clone() for tensor in batch]  # layout too
        changed = [*self.model.buffers(), *self.step.state]
        before = [tensor.clone() for tensor in changed]
        try:
            figures, replay = self.record(lambda: self.step.gradients(*inputs), inputs[0].device)
        finally:
            with torch.no_grad():
                for tensor, kept in zip(changed, before, strict=True):
                    tensor.copy_(kept)
        parameters = list(self.model.parameters())
        slopes = [parameter.grad for parameter in parameters]

        def play(*batch: Tensor) -> Figures:
            for mine, theirs in zip(inputs, batch, strict=True):
                mine.copy_(theirs)
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter.grad = slope  # another graph of this model may have left its own
            replay()
            return figures

        return play


def record_cuda(compute: Callable[[], Figures], device: torch.device) -> tuple[Figures, Callable[[], None]]:
    """Record a CUDA graph; the GPU's generator is as before. See :data:`Recorder`."""
    with torch.cuda.device(device):
        drawn = torch.cuda.get_rng_state(device)
        try:
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    compute()
            torch.cuda.current_stream().wait_stream(stream)
        finally:
            torch.cuda.set_rng_state(drawn, device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            figures = compute()
    return figures, graph.replay


RECORDERS: dict[str, Recorder] = {"cuda": record_cuda}
"""What records on a type of device."""
