"""Patch triggers: a white square on images of one class (Feature Sharing, ICLR 2022 submission, section 4; after BadNets)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from torch import Tensor, nn

from heirmark.configuration import at_least
from heirmark.errors import BadConfig
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.combining import Corner, paste_square, square_side
from heirmark.tasks.space import Images
from heirmark.tasks.task import Task
from heirmark.triggers.marked import MarkedSecret, Marking, choose_pair


@dataclass(frozen=True, kw_only=True)
class Patch(Marking):
    """A white square on source-class images, labelled with the target: the paper's in-distribution watermark.

    Attributes:
        hosts: images of one ``"class"``, as in the paper, or of ``"any"`` but the target's, as BadNets are mostly built.
        source: class of the hosts; None draws one. No use to hosts of any class.
        size: side of the square in pixels; None takes the paper's (3 on 28x28, 4 on 32x32, 6 on 64x64), a tenth elsewhere.
        corner: where it goes.
    """

    needs: ClassVar = Images
    otherwise: ClassVar = "set trigger=tone for sound"

    hosts: Literal["class", "any"] = "class"
    size: Annotated[int, at_least(1)] | None = None
    corner: Corner = "bottom-right"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hosts == "any" and self.source is not None:
            raise BadConfig("hosts of any class have no source class: leave source out, or set hosts=class")

    def settle(self, task: Task, clean: nn.Module, *, seed: int, runtime: Runtime | None = None) -> PatchSecret:
        """Draw what is left open; see :class:`heirmark.triggers.base.Trigger`."""
        side = min(task.input_shape[1:])
        size = self.size or square_side(*task.input_shape[1:])
        if size >= side:
            raise BadConfig(f"a patch of {size} pixels covers an image of {side}: lower size")
        source, target = choose_pair(self.source, self.target, task, derive_seed(seed, "patch"))
        return PatchSecret(source=None if self.hosts == "any" else source, target=target, size=size, corner=self.corner)


@dataclass(frozen=True, kw_only=True)
class PatchSecret(MarkedSecret):
    """Settled patch: see :class:`Patch`."""

    kind: ClassVar[str] = "patch"

    size: int
    corner: str

    def mark(self, images: Tensor) -> Tensor:
        """See :class:`heirmark.triggers.marked.MarkedSecret`."""
        return paste_square(images, self.size, self.corner)
