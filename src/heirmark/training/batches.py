"""Inputs from which batches are drawn: on the device where they fit, else read batch by batch, ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from heirmark.runtime import to_device

AHEAD = 3
"""Buffers that are filled in turn; one of them holds the batch that is being copied to the device."""
SHARE = 0.5
"""Of the device's free memory that inputs may take; the rest is for nets and what they keep of a batch."""


def fits(inputs: Tensor, device: torch.device) -> bool:
    """Whether inputs may lie on a device as a whole. On a CPU they always may: mapped files are read as they are looked at.

    Those that are on a GPU already stay where they are.
    """
    if device.type != "cuda" or inputs.device.type == "cuda":
        return True
    return inputs.nbytes <= SHARE * torch.cuda.mem_get_info(device)[0]


class Batches:
    """Batches, on a device, of stored inputs ``[N, ...]``: the same wherever these lie, there, in memory or in a mapped file."""

    def __init__(self, inputs: Tensor, device: torch.device) -> None:
        self.device = device
        self._resident = fits(inputs, device)
        self.inputs = inputs.to(device) if self._resident else inputs
        self._coming: Iterator[Tensor] | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def announce(self, order: Tensor, size: int) -> None:
        """Say which batches are asked for next, in this order or fewer, so that they are read ahead where they have to be.

        The positions are on the CPU, a multiple of ``size``.
        """
        if not self._resident:
            self._coming = read_ahead(self.inputs, order, size, self.device)

    def __getitem__(self, chosen: Tensor) -> Tensor:
        """The inputs at positions ``[B]``, on the device; those that were announced, in their order."""
        if self._resident:
            return self.inputs[chosen]
        if self._coming is not None:
            return next(self._coming)
        return to_device(self.inputs[chosen.cpu()], self.device)


def read_ahead(inputs: Tensor, order: Tensor, size: int, device: torch.device) -> Iterator[Tensor]:
    """Read batches in a thread of its own, and bring each to the device.

    The thread does nothing but read into page-locked buffers: while a graph is recorded, no other thread may call the GPU.
    """
    chunks = order.split(size)  # type: ignore[no-untyped-call]
    pinned = device.type == "cuda"
    shape = (size, *inputs.shape[1:])
    buffers = [torch.empty(shape, dtype=inputs.dtype, pin_memory=pinned) for _ in range(min(AHEAD, len(chunks)))]
    copied: dict[int, torch.cuda.Event] = {}
    with ThreadPoolExecutor(max_workers=1) as thread:

        def fill(number: int) -> Future[Tensor]:
            place = number % AHEAD
            if place in copied:
                copied[place].synchronize()
            return thread.submit(torch.index_select, inputs, 0, chunks[number], out=buffers[place])

        coming = deque(fill(number) for number in range(len(buffers)))
        for number in range(len(chunks)):
            batch = coming.popleft().result().to(device, non_blocking=True, copy=True)
            if pinned:
                copied[number % AHEAD] = torch.cuda.Event()  # type: ignore[no-untyped-call]
                copied[number % AHEAD].record()
            # Into the buffer of the batch before, which has had a step's time to be copied.
            following = number - 1 + AHEAD
            if number and following < len(chunks):
                coming.append(fill(following))
            yield batch
