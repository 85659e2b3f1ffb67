"""Patch triggers: a white square on images of one class (Feature Sharing, ICLR 2022 submission, section 4; after BadNets)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import nn

from heirmark.combining import Corner, paste_square, square_side
from heirmark.configuration import at_least, checked
from heirmark.errors import BadConfig
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.space import Images
from heirmark.task import Split, Task
from heirmark.triggers.base import OfTask, Settled, TriggerSet, check_apart, check_label, pick_hosts


@dataclass(frozen=True, kw_only=True)
@checked
class Patch(OfTask):
    """A white square on source-class images, labelled with the target: the paper's in-distribution watermark.

    Attributes:
        hosts: images of one ``"class"``, as in the paper, or of ``"any"`` but the target's, as BadNets are mostly built.
        source: class of the hosts; None draws one. No use to hosts of any class.
        target: the label; None draws one that is not the source.
        size: side of the square in pixels; None takes the paper's (3 on 28x28, 4 on 32x32, 6 on 64x64), a tenth elsewhere.
        corner: where it goes.
    """

    needs: ClassVar = Images

    hosts: Literal["class", "any"] = "class"
    source: int | None = None
    target: int | None = None
    size: Annotated[int, at_least(1)] | None = None
    corner: Corner = "bottom-right"

    def __post_init__(self) -> None:
        check_apart(self.target, self.source)
        if self.hosts == "any" and self.source is not None:
            raise BadConfig("hosts of any class have no source class: leave source out, or set hosts=class")

    def settle(self, task: Task, clean: nn.Module, *, seed: int, runtime: Runtime | None = None) -> PatchSecret:
        """Draw what is left open; see :class:`heirmark.triggers.base.Trigger`."""
        side = min(task.input_shape[1:])
        size = self.size or square_side(*task.input_shape[1:])
        if size >= side:
            raise BadConfig(f"a patch of {size} pixels covers an image of {side}: lower size")
        generator = generator_of(derive_seed(seed, "patch"))
        order = torch.randperm(len(task.classes), generator=generator).tolist()
        source = next(label for label in order if label != self.target) if self.source is None else self.source
        target = next(label for label in order if label != source) if self.target is None else self.target
        return PatchSecret(
            source=None if self.hosts == "any" else check_label(source, task, "source class"),
            target=check_label(target, task, "target"),
            size=size,
            corner=self.corner,
        )


@dataclass(frozen=True, kw_only=True)
class PatchSecret(Settled):
    """Settled patch: see :class:`Patch`."""

    kind: ClassVar[str] = "patch"

    source: int | None
    target: int
    size: int
    corner: str

    def draw(self, hosts: Split, count: int, *, seed: int, held_out: bool = True) -> TriggerSet:
        """Patched source-class images, each host once; the control is the host itself."""
        images, labels = pick_hosts(hosts, self.source, self.target, count, generator_of(seed))
        return TriggerSet.on_hosts(paste_square(images, self.size, self.corner), images, labels, self.target)

    def describe(self) -> Mapping[str, Any]:
        """The secret as JSON."""
        return {
            "kind": self.kind,
            "source": self.source,
            "target": self.target,
            "size": self.size,
            "corner": self.corner,
        }
