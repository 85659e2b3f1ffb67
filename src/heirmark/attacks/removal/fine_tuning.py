"""Fine-tuning in its four forms: FTLL, FTAL, RTLL, RTAL (Adi, Baum, Cisse, Pinkas, Keshet 2018, USENIX Security)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self, TypeAlias

from heirmark.attacks.base import Attempt, brief_tuning
from heirmark.attacks.removal.parts import TUNING, Tuning, head_of, reinitialise
from heirmark.models import Net
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.task import Split
from heirmark.training.fitting import Recipe

Kind: TypeAlias = Literal["ftal", "ftll", "rtal", "rtll"]
NAMES: dict[Kind, str] = {
    "ftal": "fine-tuning, all layers",
    "ftll": "fine-tuning, last layer",
    "rtal": "fresh last layer, all layers tuned",
    "rtll": "fresh last layer",
}
"""What an audit calls the kinds."""


@dataclass(frozen=True, kw_only=True)
class FineTuning(Tuning):
    """Train the model on with the adversary's labelled examples.

    DeepTracer and MEA-Defender use FTAL, the latter for 100 epochs. Where Adi et al. re-initialise the last layer they put the
    owner's old one back before they ask the key; a verifier with nothing but queries cannot, so here the new one answers.

    Attributes:
        kind: ``"ftal"`` tunes all layers, ``"ftll"`` the last layer (``.head``) alone; ``"rtal"`` and ``"rtll"`` first give the
            last layer fresh weights, then tune all layers or this one.
        recipe: how it is tuned; see :data:`heirmark.attacks.removal.parts.TUNING`.
    """

    title: ClassVar[str] = "fine-tuning"

    kind: Kind = "ftal"
    recipe: Recipe = field(default=TUNING)

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes; see :class:`heirmark.attacks.base.Attack`."""
        return cls(recipe=brief_tuning(recipe))

    def attempts(self) -> Iterator[Attempt]:
        """Every kind."""
        for kind, name in NAMES.items():
            yield Attempt(name=name, attack=replace(self, kind=kind))

    def alter(self, copy: Net, data: Split, *, other: Split | None, seed: int, runtime: Runtime) -> Net:
        """Tune; see :class:`heirmark.attacks.base.Removal`.

        Raises:
            BadConfig: when the last layer is meant and the model has no ``.head``.
        """
        head = None if self.kind == "ftal" else head_of(copy.model)
        if head is not None and self.kind.startswith("rt"):
            reinitialise(head, seed=derive_seed(seed, "head"))
        part = head if self.kind.endswith("ll") else None
        return self.tuned(copy, data, "fine-tuning", seed=seed, runtime=runtime, part=part)
