"""Sets of samples: inputs, and what a model is to answer to them; and the order in which they are drawn."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, Self, TypeAlias

import torch
from torch import Tensor

from heirmark.errors import ShapeMismatch
from heirmark.runtime import to_device

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
        return replace(self, **{field.name: getattr(self, field.name)[index] for field in fields(self)})

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
