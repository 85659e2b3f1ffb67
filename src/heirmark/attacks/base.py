"""What an attack is and what it returns. An attack gets a black box or weights, and the adversary's data; never a key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, Self

from torch import Tensor

from heirmark.blackbox import AnswerKind, BlackBox
from heirmark.models import Architecture, Net
from heirmark.runtime import Runtime
from heirmark.task import Split, Task
from heirmark.training import Recipe

LEARNS_LATE = "whose copies know nothing yet after the queries of some minutes"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the adversary has.

    Attributes:
        images: of the adversary's split.
        classes: of the task.
        pool: images of another data set that he may ask about too; None without any.
    """

    images: int
    classes: int
    pool: int | None = None

    @staticmethod
    def of(task: Task, pool: Split | None = None) -> Sizes:
        """The sizes of a task and of a pool."""
        return Sizes(images=len(task.adversary), classes=len(task.classes), pool=None if pool is None else len(pool))

    def on_pool(self) -> Sizes:
        """The same for attacks that ask about the pool, where there is one, instead of the adversary's split."""
        return self if self.pool is None else replace(self, images=self.pool)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One way in which an audit tries an attack.

    Attributes:
        name: for people.
        attack: with its settings.
        curve: the axis and place of what is a point of a curve.
    """

    name: str
    attack: Any
    curve: tuple[str, float] | None = None


class Attack(ABC):
    """A frozen dataclass of an attack's parameters, and what it says of itself to audits and ``--quick``."""

    title: ClassVar[str]
    """For people."""
    slow: ClassVar[str] = ""
    """Why it has no place among what runs in minutes; empty where it has."""
    reteaches: ClassVar[bool] = False
    """Whether it trains for so long that a quick audit tries it on the marked model alone, not on copies."""
    informed: ClassVar[str] = ""
    """The title, with a place for how much is known, of an attack with a field ``kinds`` by one who knows the method."""

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes on a CPU and small images.

        Args:
            recipe: by which the attacked model learned: what nets like it learn well by, with so many epochs that they do.
        """
        return cls()

    def fitted(self, sizes: Sizes) -> Self:
        """The same, asking no more of the adversary than he has, as far as that is its to choose."""
        return self

    def unfit(self, sizes: Sizes) -> str:
        """Why it cannot be tried on such a task; empty where it can."""
        return ""

    def attempts(self) -> Iterator[Attempt]:
        """All ways in which an audit tries it."""
        yield Attempt(name=self.title, attack=self)


def brief_tuning(recipe: Recipe) -> Recipe:
    """How a model is tuned further in a minute or so, after a recipe by which it learned."""
    return replace(recipe, epochs=3, learning_rate=recipe.learning_rate / 5, warmup=0.0)


def brief_retraining(recipe: Recipe, *, epochs: int = 4) -> Recipe:
    """How a net with BatchNorm or without learns something else in a minute or so, after a recipe for another."""
    return replace(recipe, epochs=epochs, optimizer="adam", nesterov=False, learning_rate=1e-3, weight_decay=0.0)


class Extraction(Attack):
    """An extraction attack: a frozen dataclass of its parameters, called with a victim.

    It asks for all its queries beforehand (``box.require``), so that a budget that does not suffice ends it before anything is
    charged.

    Attributes:
        model: the architecture of the copy.
        asks_pool: whether it asks about images of its data as they are, whose answers can be remembered from one attack to the
            next.
        shown: what the victim shows it in an audit.
        shown_on_pool: the same where it asks about another data set; empty where an audit does not try that.
    """

    asks_pool: ClassVar[bool] = False
    shown: ClassVar[tuple[AnswerKind, ...]] = ("probabilities", "label")
    shown_on_pool: ClassVar[tuple[AnswerKind, ...]] = ()

    model: Architecture

    @abstractmethod
    def __call__(self, box: BlackBox, data: Split, *, seed: int, runtime: Runtime | None = None) -> Net:
        """Steal the model behind a black box with the adversary's data; the copy is in eval mode."""


class Removal(Attack):
    """A removal attack: a frozen dataclass of its parameters, called with a model that the thief holds.

    The thief has the weights and labelled data of the task, as the papers grant him, and does not know the key. The model
    that is given stays as it is.

    Attributes:
        title_with_other: the title, with a place for the name of another data set, of one that makes use of such.
    """

    title_with_other: ClassVar[str] = ""

    @abstractmethod
    def __call__(
        self,
        net: Net,
        data: Split,
        *,
        other: Split | None = None,
        seed: int,
        runtime: Runtime | None = None,
    ) -> Net:
        """Alter a model so that a watermark in it may be lost.

        Args:
            net: the model.
            data: the adversary's examples, with their true labels.
            other: labelled examples of another task in the same input shape, where the thief has such.
            seed: of everything random.
            runtime: device, precision, progress.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class Reversed:
    """A trigger that an inspection has reconstructed: ``(1 - mask) * x + mask * pattern``.

    Attributes:
        mask: float32 in [0, 1], broadcastable to one input ``[C, H, W]``.
        pattern: float32 in [0, 1], ``[C, H, W]``.
        success: share of the adversary's inputs of other classes that it sends to its class on the inspected model.
    """

    mask: Tensor
    pattern: Tensor
    success: float

    def apply(self, inputs: Tensor) -> Tensor:
        """Stamp float32 ``[N, C, H, W]`` in [0, 1]."""
        mask = self.mask.to(inputs.device)
        return (1 - mask) * inputs + mask * self.pattern.to(inputs.device)


@dataclass(frozen=True, kw_only=True, eq=False)
class Inspected:
    """What an inspection of a model suspects.

    Attributes:
        suspects: classes that it takes for the target of a hidden mark; empty when it finds nothing.
        scores: per class, the figure that it decides by.
        threshold: above which a class is suspect.
        triggers: reconstructed triggers by class, where it reconstructs any.
        details: further figures by name, for the report.
    """

    suspects: tuple[int, ...]
    scores: tuple[float, ...]
    threshold: float
    triggers: Mapping[int, Reversed] = field(default_factory=dict)
    details: Mapping[str, float] = field(default_factory=dict)


class Inspection(Attack):
    """A detection attack on a model: a thief looks whether, and for which class, there is a mark."""

    @abstractmethod
    def __call__(self, net: Net, data: Split, *, seed: int, runtime: Runtime | None = None) -> Inspected:
        """Inspect a model with the adversary's labelled data."""


class Screen(Protocol):
    """Tells queries that look like a verifier's from others, so that a thief's service may refuse them."""

    def __call__(self, inputs: Tensor) -> Tensor:
        """Flag queries.

        Args:
            inputs: ``[N, ...]`` uint8 or float32 in [0, 1].

        Returns:
            ``[N]`` bool on the CPU, True for what is taken for a verifier's query.
        """


class Screening(Attack):
    """A detection attack on queries: fitted to the adversary's own data, it gives a :class:`Screen`."""

    @abstractmethod
    def __call__(self, net: Net, data: Split, *, seed: int, runtime: Runtime | None = None) -> Screen:
        """Fit a screen with the adversary's data."""
