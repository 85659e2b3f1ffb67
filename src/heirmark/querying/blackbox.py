"""The black box: all of a model that its clients see, with a query budget that holds.

An attack gets a :class:`BlackBox` and data, never a model. What a box answers (labels, the top k, rounded
probabilities) and how often is the threat model, so both are enforced here. Inputs are counted, not images: a fresh
augmentation is a new query.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from heirmark.configuration import at_least, checked, within
from heirmark.errors import BadConfig, BudgetExhausted, ShapeMismatch
from heirmark.querying.oracle import Oracle, oracle_of
from heirmark.runtime import Runtime
from heirmark.tasks.storing import fault

AnswerKind = Literal["probabilities", "top-k", "label", "features"]


@dataclass(frozen=True, kw_only=True)
@checked
class Api:
    """What a service shows of its model's answers, and how often.

    Attributes:
        answers: ``"probabilities"``; ``"top-k"``: the k largest, the others zero, not renormalised; ``"label"``; or
            ``"features"``, what an encoder gives, as it is.
        k: how many probabilities ``"top-k"`` shows.
        decimals: round probabilities, or features, to so many decimals, after the top k are chosen; None shows them in full.
            Float32 holds no more than 7.
        levels: round probabilities to multiples of 1/(levels - 1) instead, after the top k are chosen: the quantisation of
            posteriors in Feature Sharing's section 4.3, after Orekondy 2020, whose steps go from 1000 levels to 2. Rounding
            to 2 levels would leave nothing of an answer below a half; as 2 levels are the hard label there, the most likely
            class is then shown as 1 and all others as 0.
        budget: how many inputs are answered in all; None for no limit.
    """

    answers: AnswerKind = "probabilities"
    k: Annotated[int, at_least(1)] = 5
    decimals: Annotated[int | None, within(0, 7)] = None
    levels: Annotated[int | None, within(2, 10**7)] = None
    budget: Annotated[int | None, at_least(0)] = None

    def __post_init__(self) -> None:
        if self.levels is not None and self.decimals is not None:
            raise BadConfig("decimals and levels both round the same probabilities: give one of them")
        if self.levels is not None and self.answers == "features":
            raise BadConfig(
                "levels are of probabilities, and features have no bounds: set decimals, or leave levels out"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What a black box says to N inputs.

    Attributes:
        kind: ``"probabilities"``, ``"top-k"``, ``"label"`` or ``"features"``.
        probabilities: ``[N, C]`` float32 on the CPU, as shown to the client; None where only labels or features are shown.
        labels: ``[N]`` int64 on the CPU, the most likely class of each input before any rounding; none of them, ``[0]``, where
            features are shown.
        features: ``[N, D]`` float32 on the CPU, where these are shown.
    """

    kind: AnswerKind
    probabilities: Tensor | None
    labels: Tensor
    features: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class QueryRecord:
    """One call of :meth:`BlackBox.query`: how many inputs it held, and how many had been answered after it."""

    inputs: int
    total: int


class BlackBox:
    """A model behind an interface that answers, counts, and stops at its budget.

    Args:
        model: an oracle, or a module, which maps float32 ``[B, ...]`` in [0, 1] to logits ``[B, C]``; it answers in eval mode and
            keeps its own mode. One that gives probabilities is recognised and told by a warning. A plain callable maps the same
            inputs, on the CPU, to probabilities ``[B, C]``. Where features are shown, either maps them to features ``[B, D]``.
        classes: number of classes C; of an encoder, how many features D an input has.
        api: what it shows, and how often.
        input_shape: shape of one input, if other shapes are to be refused before the model sees them.
        runtime: where and in what precision a module computes; by default in float32, as a service would. Attacks that take
            differences of answers see only noise in bfloat16.

    Raises:
        BadConfig: for an argument out of range.

    Examples:
        >>> box = BlackBox(torch.nn.Flatten(), classes=4, api=Api(answers="label", budget=2))
        >>> box.query(torch.eye(4)[:2].view(2, 1, 2, 2) / 2).labels, box.remaining
        (tensor([0, 1]), 0)
    """

    def __init__(
        self,
        model: nn.Module | Callable[[Tensor], object] | Oracle,
        *,
        classes: int,
        api: Api | None = None,
        input_shape: tuple[int, ...] | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self.api = api or Api()
        self.classes = classes
        self.input_shape = input_shape
        self._oracle = oracle_of(model, classes, runtime, features=self.api.answers == "features")
        if self.api.answers == "top-k" and self.api.k > classes:
            raise BadConfig(f"k must lie between 1 and the {classes} classes, not {self.api.k}")
        self._transcript: list[QueryRecord] = []
        self._used = 0

    def __repr__(self) -> str:
        """Describe the interface, not the model."""
        shown = f"answers={self.api.answers!r}, budget={self.api.budget}"
        return f"BlackBox(classes={self.classes}, {shown}, used={self._used})"

    @property
    def queries_used(self) -> int:
        """How many inputs have been answered."""
        return self._used

    @property
    def inputs_shown(self) -> int:
        """How many inputs have been put to the model, those of a call that failed among them, up to where it failed."""
        return self._oracle.shown

    @property
    def remaining(self) -> int | None:
        """How many more inputs will be answered; None without a budget."""
        return None if self.api.budget is None else self.api.budget - self._used

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
                f"{count} queries exceed the {self.remaining} left of a budget of {self.api.budget}: "
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

    def features(self, inputs: Tensor) -> Tensor:
        """The features ``[N, D]`` of N inputs; see :meth:`query`.

        Raises:
            BadConfig: when the box shows something else.
        """
        if self.api.answers != "features":
            raise BadConfig(f'the box shows {self.api.answers}, and no features: give one of Api(answers="features")')
        features = self.query(inputs).features
        assert features is not None
        return features

    def _answer(self, inputs: Tensor) -> Answers:
        api, scores = self.api, self._oracle.scores(inputs)
        if api.answers == "features":
            shown = scores if api.decimals is None else scores.double().round(decimals=api.decimals).float()
            none = torch.empty(0, dtype=torch.int64)
            return Answers(kind="features", probabilities=None, labels=none, features=shown)
        labels = scores.argmax(1)
        if api.answers == "label":
            return Answers(kind="label", probabilities=None, labels=labels)
        shown = self._oracle.probabilities(scores)
        if api.answers == "top-k":
            top = shown.topk(api.k, dim=1)
            shown = torch.zeros_like(shown).scatter_(1, top.indices, top.values)
        if api.decimals is not None:
            # In double precision: float32 cannot scale by 10**7 without losing the last digit itself.
            shown = shown.double().round(decimals=api.decimals).float()
        elif api.levels == 2:
            shown = torch.zeros_like(shown).scatter_(1, labels[:, None], 1.0)
        elif api.levels is not None:
            shown = (shown.double() * (api.levels - 1)).round().div(api.levels - 1).float()
        return Answers(kind=api.answers, probabilities=shown, labels=labels)


def _check_inputs(inputs: Tensor, shape: tuple[int, ...] | None) -> None:
    if inputs.ndim < 2 or (shape is not None and tuple(inputs.shape[1:]) != tuple(shape)):
        wanted = "..." if shape is None else ", ".join(str(size) for size in shape)
        raise ShapeMismatch(f"inputs have shape {tuple(inputs.shape)}: pass a batch of shape [N, {wanted}]")
    if wrong := fault(inputs):
        raise ShapeMismatch(f"inputs {wrong}")
