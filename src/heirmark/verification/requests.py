"""Requests to a foreign function that may fail in passing, as those of a web service do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from time import sleep
from typing import Annotated

import torch
from torch import Tensor

from heirmark.configuration import above, at_least, below, checked, within
from heirmark.querying.asking import floats_for, in_batches
from heirmark.querying.oracle import ModelFault, call_model
from heirmark.verification.answers import labels_from
from heirmark.verification.waiting import Late, answer_within

LONGEST = 60.0
"""Seconds between two requests, at most."""
LONGEST_CALL = 3600.0
"""Seconds that a request takes at most, unless more are allowed."""


@dataclass(kw_only=True, eq=False)
@checked
class Requests:
    """Requests to a foreign function: in batches, repeated where they may pass, and taken up again where they ended.

    Attributes:
        function: see :meth:`heirmark.verification.Suspect.from_callable`, as for the next six.
        shown: how many inputs have been put to it.
    """

    function: Callable[[Tensor], object]
    classes: Annotated[int, at_least(2)]
    batch_size: Annotated[int | None, at_least(1)]
    retries: Annotated[int, within(0, 100)]
    wait: Annotated[float, at_least(0), below(3600)]
    transient: tuple[type[BaseException], ...]
    timeout: Annotated[float | None, above(0)] = None
    shown: int = field(default=0, init=False)
    _unfinished: bytes = field(default=b"", init=False, repr=False)
    _kept: list[Tensor] = field(default_factory=list, init=False, repr=False)

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
            if known < len(inputs):
                in_batches(self._keep, inputs[known:], device=inputs.device, batch_size=self.batch_size)
        except ModelFault as fault:
            known = sum(map(len, self._kept))
            if not known:
                raise
            raise ModelFault(
                f"{fault}; {known} of {len(inputs)} inputs were answered, and are kept while this process lasts: "
                "ask the same Suspect again to go on"
            ) from fault
        answers = torch.cat([torch.empty(0, dtype=torch.int64), *self._kept])
        self._unfinished, self._kept = b"", []
        return answers

    def _keep(self, chunk: Tensor) -> Tensor:
        self._kept.append(self._request(chunk))
        return self._kept[-1]

    def _request(self, chunk: Tensor) -> Tensor:
        for attempt in range(self.retries + 1):
            self.shown += len(chunk)
            try:
                return answer_within(self.timeout, lambda: self._labels(chunk))
            except Late:
                raise ModelFault(
                    f"the model took longer than {self.timeout:g} seconds to answer {len(chunk)} inputs: if it is sound, "
                    "allow more (--timeout, or timeout=...), or ask it less at once (batch_size=...)"
                ) from None
            except ModelFault as fault:
                if attempt == self.retries or not self._may_pass(fault.__cause__):
                    raise
                sleep(min(self.wait * 2.0**attempt, LONGEST))
        raise AssertionError("the last attempt returns or raises")

    def _labels(self, chunk: Tensor) -> Tensor:
        return labels_from(call_model(self.function, floats_for(chunk)), len(chunk), self.classes)

    def _may_pass(self, error: BaseException | None) -> bool:
        code = getattr(error, "code", None)  # of an HTTP answer
        final = isinstance(code, int) and 400 <= code < 500 and code not in (408, 429)
        return isinstance(error, self.transient) and not final


def _fingerprint(inputs: Tensor) -> bytes:
    """What tells one request from another."""
    digest = hashlib.sha256(f"{inputs.dtype} {tuple(inputs.shape)}".encode())
    digest.update(inputs.detach().contiguous().numpy().data)
    return digest.digest()
