"""Preprocessing of queries by the thief's service (MEA-Defender, arXiv 2401.15239, appendix E)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeAlias

from heirmark.attacks.base import Attempt, Removal
from heirmark.configuration import checked
from heirmark.models import Net
from heirmark.models.front import FRONTS, Fronted, check_strength
from heirmark.runtime import Runtime
from heirmark.tasks.space import Need
from heirmark.tasks.task import Split

Kind: TypeAlias = Literal["noise", "bits", "box-blur", "gaussian-blur", "downscale", "flip", "resample"]
MILD: tuple[Kind, ...] = ("flip", "bits", "gaussian-blur", "downscale", "resample")
"""Transformations of queries that an audit tries at a mild strength."""
DEVIATIONS = (0.02, 0.05, 0.1, 0.2, 0.3)
"""Of noise on the inputs, whose pixels lie in [0, 1], or whose samples in [-1, 1]."""


@dataclass(frozen=True, kw_only=True)
@checked
class Preprocessing(Removal):
    """Leave the weights, and put a transformation before the model; see :data:`heirmark.models.front.FRONTS`.

    The paper adds Gaussian noise, as much as costs about 3 points of accuracy, and names no figure; the others are ours.

    Attributes:
        kind: ``"noise"`` of a standard deviation, ``"bits"`` per pixel, ``"box-blur"`` with a window of so many pixels,
            ``"gaussian-blur"`` with a deviation in pixels, ``"downscale"`` by a factor and back, or ``"flip"`` left-right. Waves
            get noise, bits, or ``"resample"`` to a part of their rate and back.
        strength: of the transformation; None takes a mild one (0.05, 4, 3, 0.7, 0.5; a flip has strength 1; 0.5).
    """

    title: ClassVar[str] = "transformed queries"

    kind: Kind = "noise"
    strength: float | None = None

    def attempts(self) -> Iterator[Attempt]:
        """Some transformations at a mild strength, and noise of every deviation of :data:`DEVIATIONS`."""
        for kind in MILD:
            yield Attempt(name=f"queries through {kind}", attack=Preprocessing(kind=kind))
        for deviation in DEVIATIONS:
            attack = Preprocessing(kind="noise", strength=deviation)
            yield Attempt(
                name=f"queries with noise {deviation:g}", attack=attack, curve=("noise on queries", deviation)
            )

    @property
    def needs(self) -> Need:
        """What the transformation works on."""
        return FRONTS[self.kind].needs

    def __post_init__(self) -> None:
        check_strength(self.kind, self._strength)

    @property
    def _strength(self) -> float:
        usual = FRONTS[self.kind].usual if self.kind in FRONTS else 1.0
        return usual if self.strength is None else self.strength

    def alter(self, copy: Net, data: Split, *, other: Split | None, seed: int, runtime: Runtime) -> Net:
        """Wrap; neither data nor seed matter. See :class:`heirmark.attacks.base.Removal`."""
        step = ((self.kind, float(self._strength)),)
        described = replace(copy.spec, front=step + copy.spec.front)
        # One wrapper with all, as the description builds it.
        inner = copy.model.model if isinstance(copy.model, Fronted) else copy.model
        return Net(model=Fronted(inner, described.front), spec=described)
