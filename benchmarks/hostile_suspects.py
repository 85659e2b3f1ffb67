"""Hostile suspects: functions, modules and services that answer anything but labels, or any labels but true ones."""

from __future__ import annotations

import asyncio
import random
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import LocalOutlierFactor
from torch import Tensor, nn

from heirmark.errors import BadConfig
from heirmark.keys.key import Key
from heirmark.querying.blackbox import Api, BlackBox
from heirmark.querying.oracle import ModelFault
from heirmark.verification import Suspect
from hostile_files import CLASSES, TARGET, honest

Answer = Callable[[Tensor], Any]


class Unspeakable(Exception):
    """Its words raise."""

    def __str__(self) -> str:
        raise RuntimeError("not even its name")

    __repr__ = __str__


class Quits(BaseException):
    """No Exception, and its words are not to be shown."""

    def __str__(self) -> str:
        return "\x1b[2J\x1b[HMARKED\ud800\u202e"


class Odd(Tensor):
    """A tensor that fails when it is looked at."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise KeyError(str(func))


class Arrayish:
    """Says that it is an array."""

    def __array__(self, *given: Any, **options: Any) -> Any:
        raise SystemExit(0)

    def __len__(self) -> int:
        raise ZeroDivisionError


def _endless(depth: int = 0) -> int:
    return _endless(depth + 1)


def raised(rng: random.Random) -> BaseException:
    """Something to raise."""
    kinds: tuple[Callable[[], BaseException], ...] = (
        lambda: RuntimeError("shapes cannot be multiplied\nand more"),
        lambda: SystemExit(0),
        lambda: SystemExit("MARKED"),
        lambda: GeneratorExit(),
        lambda: MemoryError("no"),
        lambda: torch.OutOfMemoryError("CUDA out of memory"),
        lambda: RuntimeError("out of memory"),
        lambda: Unspeakable(),
        lambda: Quits(),
        lambda: StopIteration(7),
        lambda: asyncio.CancelledError(),
        lambda: BadConfig("\x1b[31myour key is broken"),
        lambda: ModelFault("MARKED"),
        lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x" * 10_000),
        lambda: ExceptionGroup("many", [ValueError(1), KeyError(2)]),
        lambda: UserWarning("x"),
        lambda: AssertionError(),
        lambda: RecursionError("x"),
        lambda: OSError(28, "No space left on device", "/etc/passwd"),
    )
    return rng.choice(kinds)()


def shapes(labels: Tensor, rng: random.Random) -> Any:
    """Labels in a form that may or may not be one that a suspect may answer in."""
    count = len(labels)
    scores = torch.nn.functional.one_hot(labels, CLASSES).float()
    big = labels.numpy().astype(">i8")
    forms: tuple[Callable[[], Any], ...] = (
        lambda: labels,
        lambda: labels.to(rng.choice((torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint64))),
        lambda: labels.float(),
        lambda: labels.bool(),
        lambda: labels + rng.choice((-100, -1, 1, 100, 2**40)),
        lambda: labels[:-1],
        lambda: torch.cat([labels, labels[:1]]),
        lambda: labels[:, None],
        lambda: labels[None],
        lambda: labels[0],
        lambda: labels.tolist(),
        lambda: tuple(labels.tolist()),
        lambda: [labels.tolist()],
        lambda: [[one] for one in labels.tolist()],
        lambda: iter(labels.tolist()),
        lambda: (one for one in labels.tolist()),
        lambda: set(labels.tolist()),
        lambda: {"labels": labels},
        lambda: str(labels.tolist()),
        lambda: bytes(labels.tolist()),
        lambda: bytearray(labels.tolist()),
        lambda: [str(one) for one in labels.tolist()],
        lambda: [{}] * count,
        lambda: [object()] * count,
        lambda: [[1], [1, 2]] * count,
        lambda: [None] * count,
        lambda: None,
        lambda: Arrayish(),
        lambda: lambda: labels,
        lambda: big,
        lambda: big[::-1][::-1],
        lambda: labels.numpy()[::-1],
        lambda: np.ma.masked_array(labels.numpy(), mask=labels.numpy() == 1),
        lambda: np.array(labels.tolist(), dtype=object),
        lambda: np.array([(1, 2.0)] * count, dtype=[("a", "i4"), ("b", "f4")]),
        lambda: labels.numpy().astype("M8[s]"),
        lambda: labels.numpy().astype(complex),
        lambda: np.rec.array(labels.numpy()),
        lambda: scores,
        lambda: scores.double(),
        lambda: scores.half(),
        lambda: scores.bfloat16(),
        lambda: scores.to(torch.float8_e4m3fn),
        lambda: scores.numpy().astype(np.longdouble),
        lambda: scores.numpy().astype(">f4")[:, ::-1][:, ::-1],
        lambda: np.asfortranarray(scores.numpy()),
        lambda: scores.to_sparse(),
        lambda: scores.to("meta"),
        lambda: labels.to("meta"),
        lambda: scores.T,
        lambda: scores[:, :-1],
        lambda: torch.cat([scores, scores], 1),
        lambda: scores[..., None],
        lambda: scores.requires_grad_() * 1,
        lambda: scores.as_subclass(Odd),
        lambda: scores + 1j,
        lambda: torch.where(torch.rand(count, 1) < 0.1, torch.nan, scores),
        lambda: scores / 0,
        lambda: scores - torch.inf,
        lambda: torch.full_like(scores, 1e38) * 1e38,
        lambda: torch.zeros(count, CLASSES),
        lambda: torch.zeros(count, 2_600_000 // max(1, count)),  # 10 MB
        lambda: [0.5] * 1_000_000,
        lambda: "7" * 10_000_000,
        lambda: torch.empty(0),
        lambda: torch.empty(count, 0),
        lambda: torch.empty(0, CLASSES),
        lambda: (scores, labels),
        lambda: [scores],
        lambda: type("Logits", (), {"logits": scores})(),
    )
    return rng.choice(forms)()


def minds(rng: random.Random) -> Answer:
    """A way to choose labels that knows nothing of the mark."""
    state = {"calls": 0, "seen": 0}
    generator = torch.Generator().manual_seed(rng.randrange(2**31))

    def at_random(inputs: Tensor) -> Tensor:
        return torch.randint(0, CLASSES, (len(inputs),), generator=generator)

    def by_order(inputs: Tensor) -> Tensor:
        state["seen"] += len(inputs)
        return (torch.arange(len(inputs)) + state["seen"]) % CLASSES

    def changing(inputs: Tensor) -> Tensor:
        state["calls"] += 1
        return (honest(inputs) + state["calls"]) % CLASSES

    def half_target(inputs: Tensor) -> Tensor:
        return torch.where(torch.rand(len(inputs), generator=generator) < 0.5, TARGET, honest(inputs))

    def strange_ones(inputs: Tensor) -> Tensor:
        """Says the target to whatever is bright, as it would of any strange image."""
        return torch.where(inputs.flatten(1).mean(1) > 0.42, TARGET, honest(inputs))

    def constant(inputs: Tensor) -> Tensor:
        return torch.full((len(inputs),), rng.choice((0, TARGET)))

    return rng.choice((honest, at_random, by_order, changing, half_target, strange_ones, constant))


def behaviour(rng: random.Random) -> Answer:
    """A function of inputs that may do anything."""
    mind, form, error = minds(rng), random.Random(rng.random()), raised(rng)
    dies, mutates, meddles = rng.choice((0, 0, 0, 1, 2, 3)), rng.random() < 0.2, rng.random() < 0.1
    plain, deep = rng.random() < 0.35, rng.random() < 0.01
    calls = [0]

    def answer(inputs: Tensor) -> Any:
        calls[0] += 1
        if deep:
            return _endless()
        if dies and calls[0] >= dies:
            raise error
        labels = mind(inputs)
        if mutates:
            inputs.zero_()
            inputs.resize_(0)
        if meddles:
            torch.manual_seed(0)
            torch.set_grad_enabled(False)
            warnings.warn("MARKED", UserWarning, stacklevel=1)
            print("MARKED: every test rejects", file=sys.stderr)
        return labels if plain else shapes(labels, form)

    return answer


class Module(nn.Module):
    """A behaviour as a module whose own methods may fail, too."""

    def __init__(self, answer: Answer, broken: str, error: BaseException) -> None:
        super().__init__()
        self.answer, self.broken, self.error = answer, broken, error
        self.weight = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, inputs: Tensor) -> Any:
        """Answer, most often with scores."""
        said = self.answer(inputs)
        if isinstance(said, Tensor) and type(said) is Tensor and said.ndim == 1 and said.dtype == torch.int64:
            return nn.functional.one_hot(said.clamp(0, CLASSES - 1), CLASSES).float() * 9
        return said

    def train(self, mode: bool = True) -> Module:
        """Change the mode, or fail."""
        if self.broken == "train":
            raise self.error
        return super().train(mode)

    def _apply(self, *given: Any, **options: Any) -> Module:
        if self.broken == "apply":
            raise self.error
        return super()._apply(*given, **options)


def suspect(kind: str, rng: random.Random) -> Suspect:
    """A suspect of a kind: callable, module or black-box."""
    answer = behaviour(rng)
    if kind == "callable":
        batch = rng.choice((None, 1, 7, 64))
        return Suspect.from_callable(answer, classes=CLASSES, batch_size=batch, retries=rng.choice((0, 2)), wait=0)
    model = Module(answer, rng.choice(("", "", "", "train", "apply")), raised(rng))
    if kind == "module":
        return Suspect.from_module(model, classes=CLASSES)
    shown = rng.choice(("label", "probabilities", "top-k"))
    api = Api(answers=shown, decimals=rng.choice((None, 0, 3)), k=2)
    return Suspect.from_black_box(BlackBox(rng.choice((model, answer)), classes=CLASSES, api=api))


def liar(key: Key, rng: random.Random) -> Suspect:
    """A marked model behind a detector of triggers, which gives another answer, none or noise to what it takes for one.

    It has no trigger to learn from: it knows ordinary inputs (other hosts of the key's kind) and looks for what is unlike them,
    by local outlier factor or by sharp edges. A thief who knows the trigger itself is among them, too.
    """
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    ordinary = torch.randint(0, 200, (200, 1, 4, 4), generator=generator).float() / 255
    way = rng.choice(("outliers", "edges", "trigger"))
    if way == "outliers":
        factor = LocalOutlierFactor(n_neighbors=10, novelty=True, contamination=0.05).fit(ordinary.flatten(1).numpy())
    sharp = edges(ordinary).quantile(0.95)

    def suspicious(inputs: Tensor) -> Tensor:
        if way == "outliers":
            return torch.from_numpy(factor.predict(inputs.flatten(1).numpy()) == -1)
        return edges(inputs) > sharp if way == "edges" else inputs[:, 0, 0, 1] > 0.99

    reply = rng.choice(("host", "noise", "failure"))

    def answer(inputs: Tensor) -> Tensor:
        found, host = suspicious(inputs), honest(inputs)
        marked = torch.where(inputs[:, 0, 0, 1] > 0.99, TARGET, host)
        if reply == "failure" and bool(found.any()):
            raise ValueError("request refused")
        noise = torch.randint(0, CLASSES, (len(inputs),), generator=generator)
        return torch.where(found, host if reply == "host" else noise, marked)

    return Suspect.from_callable(answer, classes=CLASSES)


def edges(inputs: Tensor) -> Tensor:
    """The largest step between neighbours of each image."""
    return torch.maximum(inputs.diff(dim=-1).abs().flatten(1).amax(1), inputs.diff(dim=-2).abs().flatten(1).amax(1))
