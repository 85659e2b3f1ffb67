"""The gradients of a training step; on a GPU as one CUDA graph, which starts all of its kernels at once.

A small net's step is hundreds of kernels that each take microseconds, and starting them one by one takes several times as long
as they do. A graph is recorded from one batch and played again on every other, with the same kernels in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from heirmark.runtime import Runtime
from heirmark.training.steps import Figures, Gradients, Step

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
    playing: Gradients | None = None

    def gradients(*batch: Tensor) -> Figures:
        nonlocal playing
        if playing is None:
            try:
                playing = _played(model, step, record, batch)
            except RuntimeError:  # a layer that looks at what the GPU computes, say
                playing = step.gradients
        return playing(*batch)

    return gradients


def repeats(model: nn.Module) -> bool:
    """Whether all layers are of code that does the same in every pass."""
    return all(type(module).__module__.partition(".")[0] in ("torch", "heirmark") for module in model.modules())


def _played(model: nn.Module, step: Step, record: Recorder, batch: Sequence[Tensor]) -> Gradients:
    """What plays the graph that is recorded of a batch."""
    inputs = [tensor.clone() for tensor in batch]  # layout too
    changed = [*model.buffers(), *step.state]
    before = [tensor.clone() for tensor in changed]
    try:
        figures, replay = record(lambda: step.gradients(*inputs), inputs[0].device)
    finally:
        overwrite(changed, before)
    parameters = list(model.parameters())
    slopes = [parameter.grad for parameter in parameters]

    def play(*batch: Tensor) -> Figures:
        overwrite(inputs, batch)
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter.grad = slope  # another graph of this model may have left its own
        replay()
        return figures

    return play


@torch.no_grad()
def overwrite(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Write values into tensors in place, as a graph needs it."""
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


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
