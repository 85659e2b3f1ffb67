"""The black box: all of a model that its clients see, with a query budget that holds.

An attack gets a :class:`BlackBox` and data, never a model. What a box answers (labels, the top k, rounded
probabilities) and how often is the threat model, so both are enforced here. Inputs are counted, not images: a fresh
augmentation is a new query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from heirmark.asking import floats_for, in_batches, out_of_memory, outputs_of
from heirmark.errors import BadConfig, BudgetExhausted, HeirmarkError, ShapeMismatch, told
from heirmark.layout import are_probabilities, takes_stored, tell_softmax, unwrapped
from heirmark.runtime import Runtime
from heirmark.space import fault

AnswerKind = Literal["probabilities", "top-k", "label"]


class ModelFault(HeirmarkError):
    """A model raised, or gave something other than one finite score per class for every input."""


REMEDY = (
    "wrap it in a function that brings size, channels and order of the inputs, and its answers, to what is expected"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What a black box says to N inputs.

    Attributes:
        kind: ``"probabilities"``, ``"top-k"`` or ``"label"``.
        probabilities: ``[N, C]`` float32 on the CPU, as shown to the client; None where only labels are shown.
        labels: ``[N]`` int64 on the CPU, the most likely class of each input before any rounding.
    """

    kind: AnswerKind
    probabilities: Tensor | None
    labels: Tensor


@dataclass(frozen=True, kw_only=True)
class QueryRecord:
    """One call of :meth:`BlackBox.query`: how many inputs it held, and how many had been answered after it."""

    inputs: int
    total: int


class BlackBox:
    """A model behind an interface that answers, counts, and stops at its budget.

    Args:
        model: a module maps float32 ``[B, ...]`` in [0, 1] to logits ``[B, C]``; it answers in eval mode and keeps its own
            mode. One that gives probabilities is recognised and told by a warning. A plain callable maps the same inputs, on
            the CPU, to probabilities ``[B, C]``.
        classes: number of classes C.
        answers: ``"probabilities"``; ``"top-k"``: the k largest, the others zero, not renormalised; or ``"label"``.
        k: how many probabilities ``"top-k"`` shows.
        decimals: round probabilities to so many decimals, after the top k are chosen; None shows them in full.
        levels: round probabilities to multiples of 1/(levels - 1) instead, after the top k are chosen: the quantisation of
            posteriors in Feature Sharing's section 4.3, after Orekondy 2020, whose steps go from 1000 levels to 2. Rounding
            to 2 levels would leave nothing of an answer below a half; as 2 levels are the hard label there, the most likely
            class is then shown as 1 and all others as 0.
        budget: how many inputs are answered in all; None for no limit.
        input_shape: shape of one input, if other shapes are to be refused before the model sees them.
        runtime: where and in what precision a module computes; by default in float32, as a service would. Attacks that take
            differences of answers see only noise in bfloat16.

    Raises:
        BadConfig: for an argument out of range.

    Examples:
        >>> box = BlackBox(torch.nn.Flatten(), classes=4, answers="label", budget=2)
        >>> box.query(torch.eye(4)[:2].view(2, 1, 2, 2) / 2).labels, box.remaining
        (tensor([0, 1]), 0)
    """

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], object],
        *,
        classes: int,
        answers: AnswerKind = "probabilities",
        k: int = 5,
        decimals: int | None = None,
        levels: int | None = None,
        budget: int | None = None,
        input_shape: tuple[int, ...] | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        if answers not in get_args(AnswerKind):
            raise BadConfig(f"unknown answers {answers!r}: choose {', '.join(get_args(AnswerKind))}")
        if classes < 2:
            raise BadConfig(f"classes must be at least 2, not {classes}")
        if answers == "top-k" and not 1 <= k <= classes:
            raise BadConfig(f"k must lie between 1 and the {classes} classes, not {k}")
        if decimals is not None and not 0 <= decimals <= 7:
            raise BadConfig(f"decimals must lie between 0 and 7 (float32 holds no more), not {decimals}")
        if levels is not None and not 2 <= levels <= 10**7:
            raise BadConfig(f"levels must lie between 2 and 10**7 (float32 holds no more), not {levels}")
        if levels is not None and decimals is not None:
            raise BadConfig("decimals and levels both round the same probabilities: give one of them")
        if budget is not None and budget < 0:
            raise BadConfig(f"budget must not be negative, but is {budget}")
        self.classes = classes
        self.answers: AnswerKind = answers
        self.budget = budget
        self.input_shape = input_shape
        self._k = k
        self._decimals = decimals
        self._levels = levels
        self._runtime = runtime or Runtime(precision="float32")
        self._model = GuardedModule(model, classes) if isinstance(model, nn.Module) else model
        self._transcript: list[QueryRecord] = []
        self._used = 0
        self._shown = 0

    def __repr__(self) -> str:
        """Describe the interface, not the model."""
        return f"BlackBox(classes={self.classes}, answers={self.answers!r}, budget={self.budget}, used={self._used})"

    @property
    def queries_used(self) -> int:
        """How many inputs have been answered."""
        return self._used

    @property
    def inputs_shown(self) -> int:
        """How many inputs have been put to the model, those of a call that failed among them, up to where it failed."""
        return self._shown + (self._model.shown if isinstance(self._model, GuardedModule) else 0)

    @property
    def remaining(self) -> int | None:
        """How many more inputs will be answered; None without a budget."""
        return None if self.budget is None else self.budget - self._used

    @property
    def transcript(self) -> tuple[QueryRecord, ...]:
        """Every call so far, oldest first: counts only, no data."""
        return tuple(self._transcript)

    def require(self, count: int) -> None:
        """Make sure that so many more inputs will be answered, for a client who asks in rounds. Nothing is charged.

        Args:
            count: how many queries are still to come.

        Raises:
            BudgetExhausted: if fewer remain.
        """
        if self.remaining is not None and count > self.remaining:
            raise BudgetExhausted(
                f"{count} queries exceed the {self.remaining} left of a budget of {self.budget}: "
                "ask fewer or raise the budget"
            )

    def query(self, inputs: Tensor) -> Answers:
        """Answer N inputs, all or none. Only answered inputs are charged.

        Args:
            inputs: ``[N, ...]`` uint8 (0..255) or floating point in [0, 1], on any device.

        Returns:
            The answers, on the CPU.

        Raises:
            ShapeMismatch: if the inputs have the wrong shape, dtype or range.
            BudgetExhausted: if N exceeds what remains; the model is not asked and nothing is charged.
            ModelFault: if the model raises, or its output is not one finite score per class for every input.
        """
        _check_inputs(inputs, self.input_shape)
        self.require(len(inputs))
        answers = self._answer(inputs)
        self._used += len(inputs)
        self._transcript.append(QueryRecord(inputs=len(inputs), total=self._used))
        return answers

    def _answer(self, inputs: Tensor) -> Answers:
        scores = self._scores(inputs)
        labels = scores.argmax(1)
        if self.answers == "label":
            return Answers(kind="label", probabilities=None, labels=labels)
        shown = scores
        if isinstance(self._model, nn.Module):
            if are_probabilities(scores):
                tell_softmax(self._model)
            else:
                shown = scores.softmax(1)
        if self.answers == "top-k":
            top = shown.topk(self._k, dim=1)
            shown = torch.zeros_like(shown).scatter_(1, top.indices, top.values)
        if self._decimals is not None:
            # In double precision: float32 cannot scale by 10**7 without losing the last digit itself.
            shown = shown.double().round(decimals=self._decimals).float()
        elif self._levels == 2:
            shown = torch.zeros_like(shown).scatter_(1, labels[:, None], 1.0)
        elif self._levels is not None:
            shown = (shown.double() * (self._levels - 1)).round().div(self._levels - 1).float()
        return Answers(kind=self.answers, probabilities=shown, labels=labels)

    def _scores(self, inputs: Tensor) -> Tensor:
        if not len(inputs):
            return torch.zeros(0, self.classes)
        if isinstance(self._model, GuardedModule):
            self._model.begin()
            return outputs_of(self._model, inputs, runtime=self._runtime)
        model = self._model

        def ask(chunk: Tensor) -> Tensor:
            self._shown += len(chunk)
            scores = checked_scores(call_model(model, floats_for(chunk)), len(chunk), self.classes)
            # Rounded or truncated probabilities need not sum to one, but each must still be one.
            if bool((scores < 0).any()) or bool((scores > 1 + 1e-4).any()):
                raise ModelFault("the callable gave values outside [0, 1]: let it return probabilities, not logits")
            return scores.detach().float().cpu()

        return torch.cat(in_batches(ask, inputs.cpu(), device=torch.device("cpu")))


class GuardedModule(nn.Module):
    """A module whose every failing, and nobody else's, comes out as :class:`ModelFault`."""

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model = unwrapped(model)
        self.classes = classes
        self._answered = self._failed = 0

    @property
    def takes_stored(self) -> bool:
        """Whether the module does."""
        return takes_stored(self.model)

    def begin(self) -> None:
        """Count what failed before as shown: another question follows, and no second try."""
        self._answered, self._failed = self._answered + self._failed, 0

    @property
    def shown(self) -> int:
        """How many inputs it was given; a batch that failed counts once, and not at all where a second try went well."""
        return self._answered + self._failed

    def train(self, mode: bool = True) -> Self:
        """Change the mode, which the module may have overridden, or may not have."""
        self.training = mode
        with _blamed("cannot be put in another mode"), suppress(NotImplementedError):  # of torch.export
            self.model.train(mode)
        return self

    def to(self, *args: Any, **options: Any) -> Self:
        """Bring the module to a device."""
        with _blamed("cannot be brought to a device"):
            self.model.to(*args, **options)
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores ``[B, C]`` of the module, checked."""
        self._failed = len(inputs)
        scores = checked_scores(call_model(self.model, inputs), len(inputs), self.classes)
        self._answered, self._failed = self._answered + len(inputs), 0
        return scores


def call_model(model: Callable[[Tensor], object], inputs: Tensor) -> object:
    """Call foreign code, and tell its errors from heirmark's own.

    Args:
        model: the foreign callable.
        inputs: what it is given.

    Returns:
        What it returns, unchecked.

    Raises:
        ModelFault: with the first line of whatever it raised, which is its cause; KeyboardInterrupt alone passes.
        MemoryError: if the machine ran out of memory, for which the model is not to blame.
        torch.OutOfMemoryError: likewise on an accelerator.
    """
    shape = tuple(inputs.shape[1:])
    with _blamed(
        f"fails on inputs of shape {shape}", f"check that it takes float32 inputs of this shape in [0, 1], or {REMEDY}"
    ):
        return model(inputs)


@contextmanager
def _blamed(what: str, remedy: str = REMEDY) -> Iterator[None]:
    """Whatever foreign code raises is its failing; it may raise SystemExit, too, but ends nothing except itself."""
    try:
        yield
    except KeyboardInterrupt:
        raise  # the user's
    except BaseException as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            raise
        if out_of_memory(error):
            raise MemoryError(told(error)) from error
        raise ModelFault(f"the model {what} ({told(error)}): {remedy}") from error


def checked_scores(outputs: object, rows: int, classes: int) -> Tensor:
    """Make sure that a model gave one finite score per class for every input.

    Args:
        outputs: what the model returned.
        rows: number of inputs it was given.
        classes: number of classes.

    Returns:
        The same tensor.

    Raises:
        ModelFault: if it is anything else.
        torch.OutOfMemoryError: if an accelerator ran out of memory, for which the model is not to blame.
    """
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        raise ModelFault(f"the model returned {_kind(outputs)} instead of a tensor of scores: wrap it so that it does")
    if tuple(outputs.shape) != (rows, classes):
        raise ModelFault(
            f"the model returned shape {tuple(outputs.shape)} instead of {(rows, classes)}: check its number of classes, say "
            f"which of them the key knows (--labels), or {REMEDY}"
        )
    try:
        finite = bool(outputs.isfinite().all())
    except torch.OutOfMemoryError:  # a RuntimeError, too
        raise
    except RuntimeError as error:  # of a kind that torch hardly knows, or without values
        raise ModelFault(f"the model's scores cannot be read ({told(error)}): return float32") from error
    if not finite:
        raise ModelFault(
            "the model returned NaN or infinite scores: it is broken, or its inputs are not scaled to [0, 1]"
        )
    return outputs


def _kind(outputs: object) -> str:
    return f"{outputs.dtype} values" if isinstance(outputs, Tensor) else type(outputs).__name__


def _check_inputs(inputs: Tensor, shape: tuple[int, ...] | None) -> None:
    if inputs.ndim < 2 or (shape is not None and tuple(inputs.shape[1:]) != tuple(shape)):
        wanted = "..." if shape is None else ", ".join(str(size) for size in shape)
        raise ShapeMismatch(f"inputs have shape {tuple(inputs.shape)}: pass a batch of shape [N, {wanted}]")
    if wrong := fault(inputs):
        raise ShapeMismatch(f"inputs {wrong}")
