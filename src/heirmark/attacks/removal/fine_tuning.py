"""Fine-tuning in its four forms: FTLL, FTAL, RTLL, RTAL (Adi, Baum, Cisse, Pinkas, Keshet 2018, USENIX Security)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from heirmark.attacks.removal.parts import TUNING, finish, head_of, reinitialise, tune, working_copy
from heirmark.configuration import checked
from heirmark.models import Net
from heirmark.runtime import Runtime, derive_seed
from heirmark.task import Split
from heirmark.training import Recipe

Kind: TypeAlias = Literal["ftal", "ftll", "rtal", "rtll"]


@dataclass(frozen=True, kw_only=True)
@checked
class FineTuning:
    """Train the model on with the adversary's labelled examples.

    DeepTracer and MEA-Defender use FTAL, the latter for 100 epochs. Where Adi et al. re-initialise the last layer they put the
    owner's old one back before they ask the key; a verifier with nothing but queries cannot, so here the new one answers.

    Attributes:
        kind: ``"ftal"`` tunes all layers, ``"ftll"`` the last layer (``.head``) alone; ``"rtal"`` and ``"rtll"`` first give the
            last layer fresh weights, then tune all layers or this one.
        recipe: how it is tuned; see :data:`heirmark.attacks.removal.parts.TUNING`.
    """

    kind: Kind = "ftal"
    recipe: Recipe = field(default=TUNING)

    def __call__(
        self,
        net: Net,
        data: Split,
        *,
        other: Split | None = None,
        seed: int,
        runtime: Runtime | None = None,
    ) -> Net:
        """Tune; see :class:`heirmark.attacks.base.Removal`.

        Raises:
            BadConfig: when the last layer is meant and the model has no ``.head``.
        """
        copy = working_copy(net, data)
        head = None if self.kind == "ftal" else head_of(copy)
        if head is not None and self.kind.startswith("rt"):
            reinitialise(head, seed=derive_seed(seed, "head"))
        tune(
            copy,
            data.inputs,
            data.labels,
            recipe=self.recipe,
            seed=derive_seed(seed, "tuning"),
            runtime=runtime,
            part=head if self.kind.endswith("ll") else None,
            description="fine-tuning",
        )
        return finish(copy, net)
