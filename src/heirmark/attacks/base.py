"""What an attack is and what it returns. An attack gets a black box or weights, and the adversary's data; never a key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from torch import Tensor

from heirmark.blackbox import BlackBox
from heirmark.models import Architecture, Net
from heirmark.runtime import Runtime
from heirmark.task import Split


class Extraction(Protocol):
    """An extraction attack: a frozen dataclass of its parameters, called with a victim.

    It asks for all its queries beforehand (``box.require``), so that a budget that does not suffice ends it before anything is
    charged.

    Attributes:
        asks_pool: whether it asks about images of its data as they are, whose answers can be remembered from one attack to the
            next.
    """

    asks_pool: ClassVar[bool]

    @property
    def model(self) -> Architecture:
        """The architecture of the copy."""

    def __call__(self, box: BlackBox, data: Split, *, seed: int, runtime: Runtime | None = None) -> Net:
        """Steal the model behind a black box with the adversary's data; the copy is in eval mode."""


class Removal(Protocol):
    """A removal attack: a frozen dataclass of its parameters, called with a model that the thief holds.

    The thief has the weights and labelled data of the task, as the papers grant him, and does not know the key. The model
    that is given stays as it is.
    """

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


class Inspection(Protocol):
    """A detection attack on a model: a thief looks whether, and for which class, there is a mark."""

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


class Screening(Protocol):
    """A detection attack on queries: fitted to the adversary's own data, it gives a :class:`Screen`."""

    def __call__(self, net: Net, data: Split, *, seed: int, runtime: Runtime | None = None) -> Screen:
        """Fit a screen with the adversary's data."""
