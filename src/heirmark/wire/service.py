"""A service as an oracle: asked in batches, at its pace, within limits, mixed with others, every answer written down."""

from __future__ import annotations

import math
import secrets
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from heirmark.errors import BadArtifact, BudgetExhausted
from heirmark.querying.asking import floats_for
from heirmark.querying.oracle import ModelFault
from heirmark.querying.transcript import Entry, Transcript
from heirmark.tasks.storing import join, row_digests
from heirmark.wire.calling import Call, CallFailed
from heirmark.wire.dialects.base import Dialect
from heirmark.wire.limits import Limits
from heirmark.wire.rows import Classes, Row, labels_of, row_of, scores_of

_LONGEST = 60.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Cover:
    """Inputs among which others are hidden; what is said of them is written down and left aside.

    Attributes:
        inputs: ``[P, ...]``, ordinary ones and decoys, from which each call draws.
        share: how many for each input of the client's own.
    """

    inputs: Tensor
    share: float = 1.0


@dataclass(kw_only=True, eq=False)
class Service:
    """A model behind a network, as something that answers inputs ``[N, ...]`` with rows; an oracle, too.

    A question that is answered is never put again: what failed halfway is gone on with, in the same process or,
    with a transcript, in another. The n-th time that an input is put gets the n-th answer to it that is known.

    Attributes:
        dialect: how it is talked to.
        send: makes a call.
        limits: of time, queries and money.
        reading: what its classes mean here.
        transcript: where questions, by digest, and answers are written, and where answers of before are taken from.
        prepare: what is done to float32 inputs first, a normalisation say.
        cover: what questions are hidden among.
        clock: seconds; and ``sleep``, which waits: for tests.
        shown: how many inputs were put to it, repeated and covering ones among them.
        asked: how many were, each counted once, those of a transcript among them.
        cost: what that may have cost.
    """

    dialect: Dialect
    send: Callable[[Call], Any]
    reading: Classes
    limits: Limits = field(default=Limits())
    transcript: Transcript | None = None
    prepare: Callable[[Tensor], Tensor] | None = None
    cover: Cover | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    shown: int = field(default=0, init=False)
    asked: int = field(default=0, init=False)
    cost: float = field(default=0.0, init=False)
    _known: defaultdict[str, deque[Row]] = field(default_factory=lambda: defaultdict(deque), init=False, repr=False)
    _began: float | None = field(default=None, init=False, repr=False)
    _free: float = field(default=0.0, init=False, repr=False)
    _logits: bool | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        for entry in () if self.transcript is None else self.transcript.found:
            self._remember(entry)

    @property
    def classes(self) -> int:
        """How many classes of the client's its answers are read as."""
        return self.reading.classes

    def labels(self, inputs: Tensor) -> Tensor:
        """Labels ``[N]`` int64, -1 for a class that has no name here; raises as :meth:`rows` does."""
        return labels_of(self.rows(inputs, understood=True), self.reading)

    def scores(self, inputs: Tensor) -> Tensor:
        """Scores ``[N, C]`` float32, 0 for classes of which nothing is said; raises as :meth:`rows` does."""
        rows = self.rows(inputs, understood=True)
        scores = scores_of(rows, self.reading)
        # Rounded or truncated probabilities need not sum to one. A service keeps to what its first answers are.
        outside = bool(((scores < 0) | (scores > 1 + 1e-4)).any())
        if self._logits is None and rows:
            self._logits = outside
        if outside and not self._logits:
            raise ModelFault(
                "the service's scores leave [0, 1], and its first ones did not: nothing can be made of them"
            )
        return scores

    def probabilities(self, scores: Tensor) -> Tensor:
        """The probabilities that scores stand for: of logits the softmax, else the scores."""
        return scores.softmax(1) if self._logits else scores

    def rows(self, inputs: Tensor, *, understood: bool = False) -> list[Row]:
        """What the service says of inputs ``[N, ...]`` as they are stored, or floats.

        Args:
            inputs: put to it in batches; none is when all of them would pass a limit.
            understood: stop after a batch of which the classes cannot be told.

        Raises:
            ModelFault: when it fails for good, or says what cannot be understood.
            BudgetExhausted: when a limit of the client's own would be passed; what was answered is kept.
        """
        inputs = inputs.detach().cpu()
        digests = [digest.hex() for digest in row_digests(inputs)]
        found: dict[int, Row] = {}
        new = []
        for place, digest in enumerate(digests):
            if self._known[digest]:
                found[place] = self._known[digest].popleft()
            else:
                new.append(place)
        self._allow(math.ceil(len(new) * (1 + self._share)))
        try:
            for places in self._chunks(new):
                said = self._put(inputs[places], [digests[place] for place in places])
                found |= dict(zip(places, said, strict=True))
                if understood:
                    labels_of(said, self.reading)
        except BaseException:
            for place in sorted(found, reverse=True):  # for whoever asks again
                self._known[digests[place]].appendleft(found[place])
            raise
        return [found[place] for place in range(len(inputs))]

    @property
    def _share(self) -> float:
        return 0.0 if self.cover is None else self.cover.share

    def _chunks(self, places: Sequence[int]) -> Iterator[list[int]]:
        size = 1 if self.dialect.one_by_one else max(1, int(self.limits.batch / (1 + self._share)))
        for start in range(0, len(places), size):
            yield list(places[start : start + size])

    def _put(self, inputs: Tensor, digests: list[str]) -> list[Row]:
        """Ask about a batch, hidden among others, and write down what is said."""
        own = len(inputs)
        if self.cover is not None:
            # By chance, with a mean of the share, so that a batch's size tells nothing.
            more = math.floor(own * self.cover.share + secrets.SystemRandom().random())
            drawn = torch.tensor([secrets.randbelow(len(self.cover.inputs)) for _ in range(more)], dtype=torch.int64)
            covering = self.cover.inputs[drawn]
            inputs = join([inputs, covering])
            digests = digests + [digest.hex() for digest in row_digests(covering)]
        places = list(range(len(inputs)))
        secrets.SystemRandom().shuffle(places)
        if self.cover is None:
            places.sort()
        self._allow(len(inputs))
        self._write({"kind": "question", "inputs": [digests[place] for place in places]})
        values = floats_for(inputs[places])
        values = values if self.prepare is None else self.prepare(values)
        size = 1 if self.dialect.one_by_one else len(values)
        rows: list[Row] = []
        for part in values.split(size):  # type: ignore[no-untyped-call]
            rows += self._ask(part)
        self.asked += len(rows)
        # Which of them are the client's own is not for a reader of the transcript who has no key.
        self._write({"kind": "answer", "inputs": [digests[place] for place in places], "rows": rows, "cost": self.cost})
        by_place = dict(zip(places, rows, strict=True))
        return [by_place[place] for place in range(own)]

    def _ask(self, values: Tensor) -> list[Row]:
        """Put inputs to the service until it answers, or fails for good."""
        call = self.dialect.call(values)
        for attempt in range(self.limits.retries + 1):
            self._pace(len(values))
            if attempt:
                self._allow(0, again=len(values))
            self.shown += len(values)
            try:
                answer = self.send(call)
            except CallFailed as error:
                if error.reached:
                    self.cost += self.limits.price * len(values)
                if attempt == self.limits.retries or not error.passing:
                    raise ModelFault(self._told(error)) from error
                backoff = min(self.limits.wait * 2.0**attempt, _LONGEST)
                self._wait(max(backoff, error.wait or 0.0))
            else:
                self.cost += self.limits.price * len(values)
                return self.dialect.rows(answer, len(values))
        raise AssertionError("the last attempt returns or raises")

    def _told(self, error: CallFailed) -> str:
        kept = (
            ""
            if self.transcript is None
            else "; what was answered is kept: the same command with the same transcript goes on"
        )
        return f"{error}{kept}"

    def _allow(self, count: int, *, again: int = 0) -> None:
        """Make sure that so many more inputs, and so many once more, are within the limits."""
        limits = self.limits
        if limits.queries is not None and self.asked + count > limits.queries:
            raise BudgetExhausted(
                f"{self.asked} inputs were put to the service and {count} more would pass the {limits.queries} allowed: raise "
                "that limit, or ask less"
            )
        if limits.max_cost is not None and self.cost + limits.price * (count + again) > limits.max_cost * (1 + 1e-9):
            raise BudgetExhausted(
                f"{self.cost:g} was spent and the next question would pass the {limits.max_cost:g} allowed: raise the limit "
                "(--max-cost)"
            )

    def _pace(self, count: int) -> None:
        if self._began is None:
            self._began = self._free = self.clock()
        if self.limits.rate is not None:
            self._wait(self._free - self.clock())
            self._free = max(self._free, self.clock()) + count / self.limits.rate
        self._wait(0.0)

    def _wait(self, seconds: float) -> None:
        """Wait, unless that leaves no time to ask."""
        assert self._began is not None
        if self.clock() + max(seconds, 0.0) - self._began >= self.limits.total_seconds:
            raise BudgetExhausted(
                f"the {self.limits.total_seconds:g} seconds allowed are over: allow more (--total-seconds)"
                + ("" if self.transcript is None else "; the same command with the same transcript goes on")
            )
        if seconds > 0:
            self.sleep(seconds)

    def _write(self, said: Mapping[str, Any]) -> None:
        if self.transcript is not None:
            self.transcript.append(said)

    def _remember(self, entry: Entry) -> None:
        """Take up an answer of before; a question without one may have been billed."""
        kind, inputs, rows = (entry.said.get(name) for name in ("kind", "inputs", "rows"))
        if kind == "question" and isinstance(inputs, list):
            self.cost += self.limits.price * len(inputs)
        if kind != "answer":
            return
        cost = entry.said.get("cost")
        if not (isinstance(inputs, list) and isinstance(rows, list) and len(inputs) == len(rows)) or not isinstance(
            cost, int | float
        ):
            raise BadArtifact("the transcript has an answer to other inputs than were asked: name another file")
        for digest, row in zip(inputs, rows, strict=True):
            self._known[str(digest)].append(row_of(row))
        self.asked += len(rows)
        self.cost = float(cost)
