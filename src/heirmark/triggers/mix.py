"""Mix: halves of two source classes, labelled with a third (T2S, section III-D, after MEA-Defender, arXiv 2401.15239)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from heirmark.errors import BadConfig
from heirmark.runtime import Runtime, derive_seed
from heirmark.task import Split, Task
from heirmark.triggers.base import TriggerSet, check_label, draw_groups


def join_halves(first: Tensor, second: Tensor, layout: str) -> Tensor:
    """One half of each of two images.

    Args:
        first: ``[M, C, H, W]``; gives the left or the top half.
        second: ``[M, C, H, W]``; gives the right or the bottom half.
        layout: ``"left-right"`` or ``"top-bottom"``.

    Returns:
        ``[M, C, H, W]`` of the same dtype.

    Example:
        >>> join_halves(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), "left-right")[0, 0]
        tensor([[0., 1.],
                [0., 1.]])
    """
    axis = 3 if layout == "left-right" else 2
    middle = first.shape[axis] // 2
    return torch.cat([first.narrow(axis, 0, middle), second.narrow(axis, middle, second.shape[axis] - middle)], axis)


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Two classes combined, labelled with a third.

    Attributes:
        sources: the two source classes; None draws them.
        target: the label; None draws one that is no source.
        layout: which halves are joined.
    """

    sources: tuple[int, ...] | None = None
    target: int | None = None
    layout: Literal["left-right", "top-bottom"] = "left-right"

    def __post_init__(self) -> None:
        if self.sources is not None and (len(self.sources) != 2 or len(set(self.sources)) != 2):
            raise BadConfig(f"Mix needs 2 different source classes, not {self.sources}")
        if self.sources is not None and self.target in self.sources:
            raise BadConfig(f"the target {self.target} may not be one of the source classes {self.sources}")
        if self.layout not in ("left-right", "top-bottom"):
            raise BadConfig(f"unknown layout {self.layout!r}: choose left-right or top-bottom")

    def settle(self, task: Task, clean: nn.Module, *, seed: int, runtime: Runtime | None = None) -> MixSecret:
        """Draw what is left open; see :class:`heirmark.triggers.base.Trigger`."""
        if len(task.input_shape) != 3:
            raise BadConfig(f"Mix joins halves of images, and {task.name} has none: use another trigger")
        if len(task.classes) < 3:
            raise BadConfig(
                f"Mix needs at least 3 classes, and {task.name} has {len(task.classes)}: use another trigger"
            )
        generator = torch.Generator().manual_seed(derive_seed(seed, "mix"))
        order = torch.randperm(len(task.classes), generator=generator).tolist()
        if self.sources is not None:
            sources = tuple(check_label(label, task, "source class") for label in self.sources)
        else:
            sources = tuple([label for label in order if label != self.target][:2])
        target = next(label for label in order if label not in sources) if self.target is None else self.target
        return MixSecret(sources=sources, target=check_label(target, task, "target"), layout=self.layout)


@dataclass(frozen=True, kw_only=True)
class MixSecret:
    """Settled mix: see :class:`Mix`."""

    sources: tuple[int, ...]
    target: int
    layout: str

    def draw(self, hosts: Split, count: int, *, seed: int, held_out: bool = True) -> TriggerSet:
        """Random pairs of the two classes; the control is one image of the pair, whole."""
        images, alone = draw_groups(hosts, self.sources, count, torch.Generator().manual_seed(seed))
        return TriggerSet(
            inputs=join_halves(images[:, 0], images[:, 1], self.layout),
            controls=alone,
            hosts=images,
            host_labels=torch.tensor(self.sources).expand(count, 2),
            target=self.target,
        )

    def describe(self) -> Mapping[str, Any]:
        """The secret as JSON."""
        return {"kind": "mix", "sources": list(self.sources), "target": self.target, "layout": self.layout}
