"""T2S: A Rehearsal-Based Approach for Extraction-Resistant Model Watermarking (arXiv 2606.11698)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from heirmark.configuration import OneOf, at_least, checked
from heirmark.errors import BadConfig
from heirmark.methods.audience import audience_of, thief_in
from heirmark.methods.base import Embedded, Prepared, check_queries, queries_of
from heirmark.methods.nets import new_model, start_from, train_from_scratch, unfrozen
from heirmark.methods.registry import METHODS
from heirmark.methods.scale import Scale
from heirmark.methods.vanilla import Vanilla
from heirmark.methods.watermark import Watermark
from heirmark.models import Architecture, architecture
from heirmark.rehearsal.loop import Monitor, rehearse
from heirmark.rehearsal.settings import Rehearsal
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.space import AnySpace
from heirmark.tasks.task import Task
from heirmark.triggers import Tiles

FirstPhase: TypeAlias = Annotated[Watermark, OneOf(METHODS, lambda kind: kind.rehearsable)]
"""What may watermark the target before a rehearsal."""


@dataclass(frozen=True, kw_only=True)
@checked
class T2S(Watermark):
    """Pre-train a watermarked target, then rehearse its theft and feed the simulated thief's trigger loss back into it.

    The defaults are the paper's (sections III-D and IV-A); where its text lost a value, the field says so.

    Attributes:
        model: architecture of the target and of the simulated thief.
        trigger: kind of trigger; any kind does, feature-based is the paper's default.
        triggers: trigger samples that train; 500 in the paper.
        key_size: held-out trigger samples in the key. The paper verifies on what it trained with; heirmark never does.
        pretraining: of the clean and of the vanilla watermarked model (eq. 1).
        trigger_batch: trigger samples that join each batch of pre-training (inferred).
        initial: the target starts as a vanilla ``"watermarked"`` model (default), as the ``"clean"`` one (a little weaker,
            section III-D), or with the thief from ``"scratch"`` (the paper found that this does not converge).
        watermark: how the target is watermarked before the rehearsal; None is joint training, as in the paper. Its objective is
            taken; architecture, trigger, samples and clean model are this method's.
        rehearse: False leaves out the rehearsal: "w/o rehearsal" of Table VII.
        thieves: architectures of further simulated thieves, each from a clean model of its own; they take turns with the first,
            which has the target's. None in the paper.
        queries: what simulated thieves ask: the ``"owner"``'s images, as in the paper, or the task's ``"foreign"`` ones.
        rehearsal: of the theft (eq. 2-9).
    """

    name: ClassVar[str] = "t2s"
    rehearsable: ClassVar[bool] = False
    from_clean: ClassVar[bool | tuple[str, str]] = ("initial", "clean")

    trigger_batch: Annotated[int, at_least(1)] = 64
    initial: Literal["watermarked", "clean", "scratch"] = "watermarked"
    watermark: FirstPhase | None = None
    rehearse: bool = True
    thieves: tuple[Architecture, ...] = architecture(())
    queries: Literal["owner", "foreign"] = "owner"
    rehearsal: Rehearsal = field(default=Rehearsal())

    def __post_init__(self) -> None:
        if self.watermark is not None and self.initial != "watermarked":
            raise BadConfig(f"with initial={self.initial} nothing is watermarked first: leave watermark or initial out")
        if self.watermark is not None and self.watermark.trigger not in (type(self.watermark)().trigger, self.trigger):
            raise BadConfig(
                "the trigger is T2S' own, whatever watermarks first: set trigger=..., not watermark.trigger=..."
            )

    @classmethod
    def quick(cls, scale: Scale) -> Self:
        """T2S on DeepTracer's tiles with the balanced update."""
        return replace(
            super().quick(scale), trigger=Tiles(), trigger_batch=scale.trigger_batch, rehearsal=scale.rehearsal
        )

    @property
    def _shared(self) -> dict[str, Any]:
        """Fields that the first phase shares."""
        names = ("model", "trigger", "triggers", "key_size", "pretraining")
        return {name: getattr(self, name) for name in names}

    def vanilla(self) -> Vanilla:
        """The method without rehearsal: joint training, as in the paper's first phase."""
        return Vanilla(**self._shared, trigger_batch=self.trigger_batch)

    def first_phase(self) -> FirstPhase:
        """The method whose model the rehearsal starts from; for a seed, it gives the same secret and samples."""
        return self.vanilla() if self.watermark is None else replace(self.watermark, **self._shared, key_filter=None)

    def builds_on(self) -> Mapping[str, Watermark]:
        """The first phase: the model that it gives, for the same trigger, clean model and seed, may be handed in."""
        return {"watermarked": self.first_phase()} if self.initial == "watermarked" else {}

    @property
    def needs_foreign(self) -> bool:
        """Whether the trigger, the key filter or a simulated thief takes images of another data set."""
        return super().needs_foreign or self.queries == "foreign"

    @property
    def differentiates(self) -> bool:
        """Whether there is a rehearsal."""
        return self.rehearse

    def architectures(self, space: AnySpace) -> Iterator[Architecture]:
        """The target and the surrogate, and further simulated thieves."""
        yield from super().architectures(space)
        yield from self.thieves

    def check(self, task: Task) -> None:
        """Refuse foreign queries where there are none."""
        check_queries(task, self.queries)
        super().check(task)

    def embed(self, prepared: Prepared, *, seed: int, runtime: Runtime) -> Embedded:
        """Watermark, then rehearse; see :meth:`heirmark.methods.watermark.Watermark.embed`."""
        task, clean = prepared.task, prepared.clean
        if self.initial == "watermarked":
            watermarked = prepared.given.get("watermarked")
            if watermarked is None:
                watermarked = self.first_phase().embed(prepared, seed=seed, runtime=runtime).model
            start = start_from(watermarked, task, self.model)
        elif self.initial == "clean":
            start = start_from(clean, task, self.model)
        else:
            start = new_model(task, self.model, seed=derive_seed(seed, "target"))
        if not self.rehearse:
            return Embedded(model=start.eval())
        queries = None if self.queries == "owner" else queries_of(prepared, self.queries)
        student = unfrozen(clean)
        if self.initial == "scratch":
            student = new_model(task, self.model, seed=derive_seed(seed, "student"))
        others = [
            train_from_scratch(task, thief, self.pretraining, seed=derive_seed(seed, "thief", number), runtime=runtime)
            for number, thief in enumerate(self.thieves)
        ]
        audience = None
        if self.rehearsal.closed_form is not None:
            closing, asked = self.rehearsal.closed_form, prepared.data.inputs if queries is None else queries
            finishing = partial(thief_in, classes=task.num_classes, ridge=closing.ridge, runtime=runtime)
            thieves = [finishing(net, asked, prepared.training.inputs) for net in (student, *others)]
            audience = audience_of(start, thieves, asked, prepared.training, closing=closing, runtime=runtime)
        seen = prepared.watched(self.key_size, seed=seed)
        model, history = rehearse(
            start,
            [student, *others],
            prepared.data,
            prepared.training,
            config=self.rehearsal,
            seed=derive_seed(seed, "rehearsal"),
            runtime=runtime,
            monitor=Monitor(clean=task.calibration, triggers=seen),
            queries=queries,
            audience=audience,
        )
        return Embedded(model=model, history=history)
