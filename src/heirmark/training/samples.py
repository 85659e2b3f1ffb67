"""Sets of samples: inputs, and what a model is to answer to them; and the order in which they are drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Generic, Literal, Self, TypeAlias, TypeVar

import torch
from torch import Tensor

from heirmark.errors import ShapeMismatch
from heirmark.runtime import to_device

AnySamples = TypeVar("AnySamples", bound="Samples")
Reference: TypeAlias = Literal["control", "chance"]
"""What a test of probabilities compares the answer to a trigger sample with."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Samples with their answers. All fields, those of subclasses too, are tensors with a row a sample.

    Attributes:
        inputs: ``[M, ...]`` uint8, or float in [0, 1].
        targets: ``[M]`` int64 what a model is to answer to each.
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def subset(self, index: Tensor) -> Self:
        """The samples at ``[m]`` positions."""
        return self._each(lambda tensor: tensor[index])

    def to(self, device: torch.device) -> Self:
        """The samples on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        return replace(self, **{field.name: change(getattr(self, field.name)) for field in fields(self)})

    def first(self, count: int) -> Self:
        """The first ``count`` samples, or all where there are no more."""
        return self if count >= len(self) else self.subset(torch.arange(count))


def check_answered(what: str, samples: Samples) -> None:
    """Make sure that there are samples, with one target each.

    Raises:
        ShapeMismatch: when there are not; says what they are.
    """
    if len(samples) == 0 or len(samples) != len(samples.targets):
        raise ShapeMismatch(
            f"{len(samples)} {what} and {len(samples.targets)} targets: there must be some, with one target each"
        )


class ShuffledIndex:
    """Draws positions below ``count`` without replacement until all are used up, then shuffles anew."""

    def __init__(self, count: int, per_batch: int, device: torch.device | None = None) -> None:
        self.count, self.per_batch, self.device = count, per_batch, device
        self.queue = torch.empty(0, dtype=torch.long)

    def draw(self, generator: torch.Generator) -> Tensor:
        """The next ``[per_batch]`` positions, on the device; the generator is on the CPU."""
        while len(self.queue) < self.per_batch:
            self.queue = torch.cat([self.queue, torch.randperm(self.count, generator=generator)])
        chosen, self.queue = self.queue[: self.per_batch], self.queue[self.per_batch :]
        return chosen if self.device is None else to_device(chosen, self.device)


class Joining(Generic[AnySamples]):
    """Samples on a device, of which some join every batch, drawn in a running shuffle."""

    def __init__(self, samples: AnySamples, per_batch: int, device: torch.device) -> None:
        self._samples = samples.to(device)
        self._index = ShuffledIndex(len(samples), per_batch, device)

    def draw(self, generator: torch.Generator) -> AnySamples:
        """Those that join the next batch; the generator is on the CPU."""
        return self._samples.subset(self._index.draw(generator))
