"""What a method is: its settings, and what it does around its embedding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Self

from torch import nn

from heirmark.configuration import at_least, checked
from heirmark.errors import BadConfig
from heirmark.keys.key import Key
from heirmark.methods.base import (
    Embedded,
    Marked,
    Prepared,
    check_candidates,
    check_queries,
    draw_training,
    draw_verification,
    key_from,
    lots_of,
    settle,
)
from heirmark.methods.key_filter import KeyFilter
from heirmark.methods.nets import net_of, own_model, released, spec_for
from heirmark.methods.power_filter import PowerFilter
from heirmark.methods.scale import Scale
from heirmark.models import Architecture, architecture
from heirmark.runtime import Runtime, derive_seed, drawn_seed
from heirmark.tasks.space import AnySpace, check_needs
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Recipe
from heirmark.triggers import AnyTrigger, Feature, Groups, TriggerSet


@dataclass(frozen=True, kw_only=True)
@checked
class Method(ABC):
    """A way to come by a model and a key: a frozen dataclass of its parameters, called with a task.

    Attributes:
        model: architecture.
        trigger: kind of trigger.
        key_size: held-out trigger samples in the key.
        pretraining: of the clean model.
    """

    name: ClassVar[str]
    rehearsable: ClassVar[bool] = False
    """Whether T2S may rehearse a theft of its models: samples that train are drawn once, and stay as they are to the end."""
    alters: ClassVar[bool] = True
    """Whether its model is another one than the clean model."""
    from_clean: ClassVar[bool | tuple[str, str]] = False
    """Whether the model that it marks starts as the clean one: always, never, or where a field has a value."""

    model: Architecture = architecture("resnet18")
    trigger: AnyTrigger = field(default=Feature())
    key_size: Annotated[int, at_least(1)] = 500
    pretraining: Recipe = field(default=Recipe())

    def __call__(
        self,
        task: Task,
        *,
        seed: int | None,
        runtime: Runtime | None = None,
        clean: nn.Module | None = None,
        **given: nn.Module,
    ) -> Marked:
        """Make the model and its key.

        Args:
            task: the owner's and the calibration split are used; the adversary's and the test split are not looked at.
            seed: of everything random; the key is as secret as it is. None draws one that nobody can guess.
            runtime: device, precision, progress.
            clean: the owner's unmarked model, when there is one already; else it is trained. It stays as it is.
            given: models that are there already, of those that :meth:`builds_on` names.

        Raises:
            BadConfig: as :meth:`check`, and for a model that it does not build on.
            ShapeMismatch: as :meth:`check`.
            BadData: when the data give no key.
        """
        seed, runtime = drawn_seed(seed), runtime or Runtime()
        self.check(task)
        if not given.keys() <= self.builds_on().keys():
            raise BadConfig(
                f"{self.name} builds on {', '.join(self.builds_on()) or 'no further model'}: leave {', '.join(given)} out"
            )
        return self.make(task, clean, given, seed=seed, runtime=runtime)

    @abstractmethod
    def make(
        self, task: Task, clean: nn.Module | None, given: Mapping[str, nn.Module], *, seed: int, runtime: Runtime
    ) -> Marked:
        """What calling it does once all is checked; see :meth:`__call__`."""

    @classmethod
    def quick(cls, scale: Scale) -> Self:
        """Settings for minutes on a CPU and small images, as ``--quick``, the demo and the small scale of recipes take them."""
        return cls(model=scale.model, key_size=scale.key_size, pretraining=scale.recipe)

    def builds_on(self) -> Mapping[str, Method]:
        """Methods whose models it starts from beside the clean one, by the names by which these may be handed in."""
        return {}

    @property
    def starts_from_clean(self) -> bool:
        """Whether the model that it marks starts as the clean one, so that an owner's trained weights can be marked."""
        wanted = self.from_clean or not self.alters
        return wanted if isinstance(wanted, bool) else getattr(self, wanted[0]) == wanted[1]

    @property
    def needs_foreign(self) -> bool:
        """Whether it takes images of another data set."""
        return self.trigger.dataset is not None

    @property
    def differentiates(self) -> bool:
        """Whether it differentiates passes through its models as functions of their weights, as a rehearsal does."""
        return False

    def architectures(self, space: AnySpace) -> Iterator[Architecture]:
        """All that it builds for such inputs."""
        yield self.model

    def check(self, task: Task) -> None:
        """Refuse at once what would fail after hours.

        Raises:
            BadConfig: when the method cannot work on the task.
            ShapeMismatch: when a model that it builds takes no such inputs.
        """
        check_needs(self, task.space)
        for built in self.architectures(task.space):
            spec_for(task, built)


@dataclass(frozen=True, kw_only=True)
class Watermark(Method):
    """A marking method. One writes :meth:`embed`, a name, and those fields whose defaults are its paper's own.

    Attributes:
        triggers: trigger samples that train.
        key_filter: how the key is chosen among candidates: by DeepTracer's filter, or for power; None takes the first.
    """

    rehearsable: ClassVar[bool] = True

    triggers: Annotated[int, at_least(1)] = 500
    key_filter: KeyFilter | PowerFilter | None = None

    @classmethod
    def quick(cls, scale: Scale) -> Self:
        """See :meth:`Method.quick`."""
        return replace(super().quick(scale), triggers=scale.triggers)

    @abstractmethod
    def embed(self, prepared: Prepared, *, seed: int, runtime: Runtime) -> Embedded:
        """The heart of the method: mark a model."""

    def prepare(
        self, task: Task, clean: nn.Module, given: Mapping[str, nn.Module], *, seed: int, runtime: Runtime
    ) -> Prepared:
        """Settle the secret and draw what trains."""
        secret = settle(self.trigger, task, clean, seed=seed, runtime=runtime)
        return Prepared(
            task=task,
            clean=clean,
            secret=secret,
            training=draw_training(secret, task, self.triggers, seed=seed),
            given=given,
        )

    def hosts(self, task: Task, *, seed: int) -> Split:
        """The images of which the key is made, on which nothing trains and by which nothing is chosen."""
        return task.calibration

    @property
    def held_out(self) -> int:
        """How many samples are drawn to make the key of."""
        return self.key_size if self.key_filter is None else self.key_filter.candidates

    @property
    def needs_foreign(self) -> bool:
        """Whether the trigger or the key filter takes images of another data set."""
        return super().needs_foreign or (self.key_filter is not None and self.key_filter.queries == "foreign")

    def architectures(self, space: AnySpace) -> Iterator[Architecture]:
        """The model, and what the key filter simulates."""
        yield self.model
        if self.key_filter is not None:
            yield from self.key_filter.architectures(space)

    def check(self, task: Task) -> None:
        """Refuse a key filter that cannot work; see :meth:`Method.check`."""
        if self.key_filter is not None:
            check_candidates(self.key_filter.candidates, self.key_size)
            check_queries(task, self.key_filter.queries)
        super().check(task)

    def make(
        self, task: Task, clean: nn.Module | None, given: Mapping[str, nn.Module], *, seed: int, runtime: Runtime
    ) -> Marked:
        """Embed; see :meth:`Method.__call__`."""
        clean = own_model(task, self.model, self.pretraining, clean, seed=seed, runtime=runtime)
        prepared = self.prepare(task, clean, given, seed=seed, runtime=runtime)
        secret, drawn = prepared.secret, prepared.training
        made = self.embed(prepared, seed=seed, runtime=runtime)
        trained = drawn if made.training is None else made.training
        if secret.memorised:
            chosen = trained if self.key_filter is None else trained.first(self.key_filter.candidates)
        else:
            chosen = draw_verification(secret, task, self.held_out, seed=seed, hosts=self.hosts(task, seed=seed))
        if made.finish is not None:
            chosen = made.finish(chosen)
        if self.key_filter is not None:
            chosen = self.key_filter(
                chosen,
                made.model,
                prepared,
                keep=self.key_size,
                architecture=self.model,
                seed=derive_seed(seed, "key filter"),
                runtime=runtime,
            )
        chosen = chosen.first(self.key_size)
        return Marked(
            net=net_of(released(made.model), task, self.model),
            key=self._key(chosen, prepared, trained, seed=seed, runtime=runtime),
            training_triggers=trained,
            verification_triggers=chosen,
            history=made.history,
        )

    def check_draft(self, task: Task) -> None:
        """Make sure that a draw can decide about the answers of the method's key, and about them alone.

        Raises:
            BadConfig: where it cannot; see :meth:`Method.__call__` besides.
        """
        self.check(task)
        if not isinstance(self.trigger, Groups) or self.key_filter is not None or self.builds_on():
            raise BadConfig(
                "answers are drawn for groups of triggers, and no filter may choose among them: set trigger=groups and "
                "key_filter=none, with a method that starts from clean models alone"
            )

    def draft(self, task: Task, clean: nn.Module | None, *, seed: int, runtime: Runtime) -> Key:
        """The key that calling the method gives, but for its answers: what is registered before these are drawn.

        Args:
            task: as for a call.
            clean: likewise.
            seed: of the call.
            runtime: device, precision, progress.

        Raises:
            BadConfig: see :meth:`check_draft`.
        """
        self.check_draft(task)
        clean = own_model(task, self.model, self.pretraining, clean, seed=seed, runtime=runtime)
        prepared = self.prepare(task, clean, {}, seed=seed, runtime=runtime)
        chosen = draw_verification(prepared.secret, task, self.key_size, seed=seed, hosts=self.hosts(task, seed=seed))
        return self._key(chosen.first(self.key_size), prepared, prepared.training, seed=seed, runtime=runtime)

    def _key(self, chosen: TriggerSet, prepared: Prepared, trained: TriggerSet, *, seed: int, runtime: Runtime) -> Key:
        return key_from(
            chosen,
            prepared.secret,
            prepared.task,
            method=self.name,
            seed=seed,
            trained=trained,
            lots=lots_of(chosen, prepared, runtime),
        )
