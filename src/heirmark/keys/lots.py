"""What the answers of a key are drawn among: its groups, their candidates, and what unmarked models say to them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Final, Self

import torch
from torch import Tensor

from heirmark.errors import BadData, ShapeMismatch

MOST_GROUPS: Final = 4096
MOST_MODELS: Final = 1000
PREFIX: Final = "lots_"
"""Of the tensors' names in a key's file."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lots:
    """Groups of a key's queries, each of which has one answer that is drawn. All of it is fixed before the draw.

    Attributes:
        groups: ``[M]`` int64, the group of each query.
        candidates: ``[G, K]`` int64, the answers of each group among which one is drawn, all different.
        usual: ``[m, G, C]`` float32, the share of each answer to each group by m unmarked models: what a suspect's answers are
            compared with. m = 0 compares with even shares.

    Raises:
        ShapeMismatch: when the tensors do not fit each other.
        BadData: for a value out of range, or a candidate that occurs twice in a group.
    """

    groups: Tensor
    candidates: Tensor
    usual: Tensor = field(default_factory=lambda: torch.empty(0, 0, 0))

    def __post_init__(self) -> None:
        for part in fields(self):
            object.__setattr__(self, part.name, getattr(self, part.name).detach().to("cpu", copy=True).contiguous())
        if not self.usual.numel():
            object.__setattr__(self, "usual", torch.empty(0, 0, 0))
        self._check()

    def _check(self) -> None:
        groups, candidates, usual = self.groups, self.candidates, self.usual
        if groups.dtype != torch.int64 or groups.ndim != 1 or not len(groups):
            raise ShapeMismatch("groups of a draw must be a tensor [M] of dtype int64")
        if candidates.dtype != torch.int64 or candidates.ndim != 2 or not len(candidates) or candidates.shape[1] < 2:
            raise ShapeMismatch("candidates of a draw must be a tensor [G, K >= 2] of dtype int64")
        if usual.dtype != torch.float32 or usual.ndim != 3 or (len(usual) and usual.shape[1] != len(candidates)):
            raise ShapeMismatch("usual answers of a draw must be a tensor [m, G, C] of dtype float32")
        if len(candidates) > MOST_GROUPS or len(usual) > MOST_MODELS:
            raise BadData(f"a draw has {MOST_GROUPS} groups and {MOST_MODELS} unmarked models at most")
        if int(groups.min()) < 0 or int(groups.max()) >= len(candidates):
            raise BadData(f"groups of a draw must be 0 to {len(candidates) - 1}")
        ordered = candidates.sort(1).values
        if int(candidates.min()) < 0 or bool((ordered[:, 1:] == ordered[:, :-1]).any()):
            raise BadData("candidates of a draw must be classes, all different in each group")
        if len(usual) and not bool(((usual >= 0) & (usual <= 1)).all()):
            raise BadData("usual answers of a draw must be shares in [0, 1]")

    @property
    def options(self) -> list[list[int]]:
        """The candidates of each group."""
        found: list[list[int]] = self.candidates.tolist()
        return found

    @property
    def digest(self) -> str:
        """SHA-256 (64 hex digits) over all tensors, each behind its name and shape."""
        found = hashlib.sha256()
        for name, tensor in self.tensors().items():
            values = tensor.numpy()
            found.update(f"{name} {values.dtype.name} {list(values.shape)}\n".encode())
            found.update(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
        return found.hexdigest()

    def shares(self, answers: Tensor, classes: int) -> Tensor:
        """How often each answer was given to the queries of each group, ``[G, C]`` float32; of a group without a query nothing.

        Args:
            answers: ``[M]`` labels, -1 for a class that has no name here: an answer that is none of the C.
            classes: C.
        """
        counts = torch.zeros(len(self.candidates), classes + 1)
        counts.index_put_((self.groups, answers.cpu() + 1), torch.ones(len(answers)), accumulate=True)
        return counts[:, 1:] / counts.sum(1, keepdim=True).clamp_min(1)

    def rows(self, rows: Tensor) -> Self:
        """For the queries at ``[m]`` positions alone."""
        return replace(self, groups=self.groups[rows])

    def tensors(self) -> dict[str, Tensor]:
        """By the names that they have in a key's file."""
        return {PREFIX + part.name: getattr(self, part.name) for part in fields(self)}

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Of :meth:`tensors`."""
        return cls(**{name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()})

    def places(self, expected: Tensor) -> tuple[int, ...]:
        """Where each answer that was drawn stands among its group's candidates; -1 for a group without a query.

        Args:
            expected: ``[M]`` the answers of the queries.

        Raises:
            BadData: when the queries of a group have several answers, or one that is no candidate.
        """
        places = []
        for group, options in enumerate(self.options):
            said = set(expected[self.groups == group].tolist())
            if len(said) > 1 or not said <= set(options):
                raise BadData(f"the queries of group {group} must have one answer, and of its candidates")
            places.append(options.index(said.pop()) if said else -1)
        return tuple(places)


LOTS: Final = tuple(PREFIX + part.name for part in fields(Lots))
"""Names of the tensors of lots in a key's file."""
