"""Requests to a foreign function that may fail in passing, as those of a web service do."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import torch
from torch import Tensor

from heirmark.asking import batch_for
from heirmark.blackbox import ModelFault, call_model
from heirmark.runtime import as_floats
from heirmark.verification.answers import labels_from


class Requests:
    """Requests to a foreign function: in batches, repeated where they may pass, and taken up again where they ended."""

    def __init__(
        self,
        function: Callable[[Tensor], object],
        *,
        classes: int,
        batch_size: int | None,
        retries: int,
        wait: float,
        transient: tuple[type[BaseException], ...],
    ) -> None:
        self.function, self.classes, self.batch_size = function, classes, batch_size
        self.retries, self.wait, self.transient = retries, wait, transient
        self.shown = 0
        self._unfinished = b""
        self._kept: list[Tensor] = []

    def __call__(self, inputs: Tensor) -> Tensor:
        """Labels ``[N]`` of inputs ``[N, ...]``; what a failed call got of them is not asked again.

        Raises:
            ModelFault: when a request failed for good; the message says how many inputs were answered.
        """
        inputs = inputs.cpu()
        asked = _fingerprint(inputs)
        if asked != self._unfinished:
            self._unfinished, self._kept = asked, []
        known = sum(map(len, self._kept))
        try:
            for chunk in inputs[known:].split(self.batch_size or batch_for(inputs)):  # type: ignore[no-untyped-call]
                if len(chunk):
                    self._kept.append(self._request(chunk))
        except ModelFault as fault:
            known = sum(map(len, self._kept))
            if not known:
                raise
            raise ModelFault(
                f"{fault}; {known} of {len(inputs)} inputs were answered, and are kept: ask the same Suspect again to go on"
            ) from fault
        answers = torch.cat([torch.empty(0, dtype=torch.int64), *self._kept])
        self._unfinished, self._kept = b"", []
        return answers

    def _request(self, chunk: Tensor) -> Tensor:
        for attempt in range(self.retries + 1):
            self.shown += len(chunk)
            try:
                # A copy: a function that scales in place must not change what the next one is asked.
                return labels_from(call_model(self.function, as_floats(chunk).clone()), len(chunk), self.classes)
            except ModelFault as fault:
                if attempt == self.retries or not isinstance(fault.__cause__, self.transient):
                    raise
                time.sleep(self.wait * 2**attempt)
        raise AssertionError("the last attempt returns or raises")


def _fingerprint(inputs: Tensor) -> bytes:
    """What tells one request from another."""
    digest = hashlib.sha256(f"{inputs.dtype} {tuple(inputs.shape)}".encode())
    digest.update(inputs.detach().contiguous().numpy().data)
    return digest.digest()
