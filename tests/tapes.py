"""A CUDA graph's stand-in on the CPU: records the operations of a step and plays them again on the same tensors.

Like a graph it plays what was computed, not the Python that computed it: whatever changed since then, but in place, is not seen.
Like a graph it cannot record a look at a number, or a change of generators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from heirmark.training.steps import Figures

LOOKS = ("_local_scalar_dense", "nonzero", "masked_select", "randperm", "equal")


class Tape(TorchDispatchMode):
    """Notes operations with their tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[tuple[Callable[..., Any], Any, Any, list[Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in LOOKS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        found = func(*args, **(kwargs or {}))
        self.notes.append((func, args, kwargs or {}, tree_flatten(found)[0]))
        return found

    @torch.no_grad()
    def play(self) -> None:
        for func, args, kwargs, results in self.notes:
            for mine, anew in zip(results, tree_flatten(func(*args, **kwargs))[0], strict=True):
                if isinstance(mine, Tensor) and mine.data_ptr() != anew.data_ptr():
                    mine.copy_(anew)


def record(compute: Callable[[], Figures], device: torch.device) -> tuple[Figures, Callable[[], None]]:
    """See :data:`heirmark.training.cuda_graphs.Recorder`."""
    for _ in range(3):
        compute()
    tape, fork = Tape(), torch.random.fork_rng

    def refuse(*args: Any, **options: Any) -> Any:
        raise RuntimeError("a generator's state cannot be read while a stream is capturing")

    torch.random.fork_rng = refuse  # type: ignore[assignment]
    try:
        with tape:
            figures = compute()
    finally:
        torch.random.fork_rng = fork
    return figures, tape.play
