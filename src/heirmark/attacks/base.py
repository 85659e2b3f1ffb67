"""What an attack is and what it returns. An attack gets a black box or weights, and the adversary's data; never a key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, Self

from torch import Tensor

from heirmark.attacks.sizes import Sizes as Sizes
from heirmark.configuration import checked
from heirmark.errors import BadConfig, ShapeMismatch
from heirmark.models import Architecture, Net, architecture, fresh_net
from heirmark.querying.blackbox import AnswerKind, BlackBox
from heirmark.runtime import Runtime, check_seed
from heirmark.tasks.space import check_needs
from heirmark.tasks.task import Split
from heirmark.training.fitting import Recipe

LEARNS_LATE = "whose copies know nothing yet after the queries of some minutes"


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


@dataclass(frozen=True, kw_only=True)
@checked
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


@dataclass(frozen=True, kw_only=True)
class Extraction(Attack):
    """An extraction attack, called with a victim.

    It asks for all its queries beforehand (``box.require``), so that a budget that does not suffice ends it before anything is
    charged.

    Attributes:
        model: architecture of the copy.
    """

    asks_pool: ClassVar[bool] = False
    """Whether it asks about images of its data as they are, whose answers can be remembered from one attack to the next."""
    shown: ClassVar[tuple[AnswerKind, ...]] = ("probabilities", "label")
    """What the victim shows it in an audit."""
    shown_on_pool: ClassVar[tuple[AnswerKind, ...]] = ()
    """The same where it asks about another data set; empty where an audit does not try that."""
    of_encoders: ClassVar[bool] = False
    """Whether it learns features, which an encoder gives, and not answers about classes."""

    model: Architecture = architecture("resnet18")

    @abstractmethod
    def steal(self, box: BlackBox, data: Split, *, seed: int, runtime: Runtime) -> Net:
        """The heart of the attack: ask the box, and train a copy, which is left in eval mode."""

    def __call__(self, box: BlackBox, data: Split, *, seed: int, runtime: Runtime | None = None) -> Net:
        """Steal the model behind a black box.

        Args:
            box: the victim; its budget is spent by the number of queries.
            data: the adversary's images; their labels are looked at only where the attack says so.
            seed: of what is drawn, the copies' start and their training.
            runtime: device, precision, progress.

        Returns:
            The copy, in eval mode.

        Raises:
            BudgetExhausted: when the box's budget is smaller than the number of queries; then none is asked.
            BadConfig: for settings, inputs or a seed that do not go with such a victim and such data.
            BadData: when a loss is no longer finite.
        """
        check_seed(seed)
        check_needs(self, data.space)
        if self.of_encoders != (box.api.answers == "features"):
            what, others = (
                ("features", "an attack on classifiers") if self.of_encoders else ("answers", "one on encoders")
            )
            raise BadConfig(f"{self.title} learns {what}, and the box shows {box.api.answers}: take {others}")
        return self.steal(box, data, seed=seed, runtime=runtime or Runtime())

    def fresh_copy(self, box: BlackBox, data: Split, *, seed: int) -> Net:
        """A copy that has learned nothing yet, of inputs like these."""
        return fresh_net(self.model, input_shape=tuple(data.inputs.shape[1:]), classes=box.classes, seed=seed)


class Removal(Attack):
    """A removal attack, called with a model that the thief holds, which stays as it is.

    The thief has the weights and labelled data of the task, as the papers grant him, and does not know the key.
    """

    title_with_other: ClassVar[str] = ""
    """The title, with a place for the name of another data set, of one that makes use of such."""

    @abstractmethod
    def alter(self, copy: Net, data: Split, *, other: Split | None, seed: int, runtime: Runtime) -> Net:
        """The heart of the attack: alter a copy, which is in eval mode, in place, and return it, or return another model."""

    def __call__(
        self, net: Net, data: Split, *, other: Split | None = None, seed: int, runtime: Runtime | None = None
    ) -> Net:
        """Alter a model so that a watermark in it may be lost.

        Args:
            net: the model.
            data: the adversary's examples, with their true labels.
            other: labelled examples of another task in the same input shape, where the thief has such.
            seed: of everything random.
            runtime: device, precision, progress.

        Returns:
            A model in eval mode, without gradients; those parameters require one that do so in the model that was given.

        Raises:
            ShapeMismatch: when the examples do not fit the model.
            BadConfig: for inputs, a model or a seed that the attack cannot work with.
            BadData: when the examples do not suffice.
        """
        check_seed(seed)
        check_needs(self, data.space)
        spec, shape, highest = net.spec, tuple(data.inputs.shape[1:]), int(data.labels.max())
        if shape != spec.input_shape or highest >= spec.classes:
            raise ShapeMismatch(
                f"the model takes inputs of shape {spec.input_shape} and knows {spec.classes} classes, but the adversary's "
                f"have shape {shape} and labels up to {highest}: give examples of the model's own task"
            )
        copy = replace(net, model=net.working_copy().eval())
        altered = self.alter(copy, data, other=other, seed=seed, runtime=runtime or Runtime())
        copy.model.zero_grad(set_to_none=True)
        flags = {name: parameter.requires_grad for name, parameter in net.model.named_parameters()}
        for name, parameter in copy.model.named_parameters():
            parameter.requires_grad_(flags.get(name, True))
        altered.model.eval()
        return altered


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
    def inspect(self, net: Net, data: Split, *, seed: int, runtime: Runtime) -> Inspected:
        """The heart of the attack."""

    def __call__(self, net: Net, data: Split, *, seed: int, runtime: Runtime | None = None) -> Inspected:
        """Inspect a model with the adversary's labelled data.

        Raises:
            BadConfig: for inputs, a model or a seed that the attack cannot work with.
            BadData: when the data show too few classes.
        """
        check_seed(seed)
        check_needs(self, data.space)
        return self.inspect(net, data, seed=seed, runtime=runtime or Runtime())


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
    def fit(self, net: Net, data: Split, *, seed: int, runtime: Runtime) -> Screen:
        """The heart of the attack."""

    def __call__(self, net: Net, data: Split, *, seed: int, runtime: Runtime | None = None) -> Screen:
        """Fit a screen with the adversary's data.

        Raises:
            BadConfig: for inputs, a model or a seed that the attack cannot work with.
            BadData: when there are too few of the data.
        """
        check_seed(seed)
        check_needs(self, data.space)
        return self.fit(net, data, seed=seed, runtime=runtime or Runtime())
