"""Ways to make one text of two; see :mod:`heirmark.triggers.combiners`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from heirmark.configuration import above, below, checked
from heirmark.runtime import Runtime
from heirmark.tasks.space import Tokens
from heirmark.tasks.splicing import End, alternate, halves
from heirmark.tasks.task import Split


@dataclass(frozen=True, kw_only=True)
@checked
class Halves:
    """Half of the one text and half of the other, one behind the other: what cropping and pasting is to images.

    Attributes:
        of_first: from which end of the first text its half is.
        of_second: from which end of the second its own.
        share: of its words that the first text gives; the second gives what is left to one.
    """

    needs: ClassVar = Tokens
    otherwise: ClassVar = "use CropPaste or PixelBlend"

    of_first: End = "front"
    of_second: End = "back"
    share: Annotated[float, above(0), below(1)] = 0.5

    def prepare(self, data: Split, *, seed: int, runtime: Runtime) -> Callable[[Tensor, Tensor], Tensor]:
        """Nothing to learn."""
        return self

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """See :data:`heirmark.triggers.combiners.Combine`."""
        return halves(first, second, of_first=self.of_first, of_second=self.of_second, share=self.share)


@dataclass(frozen=True, kw_only=True)
@checked
class Alternating:
    """Words of the one text between words of the other: what stripes are to images."""

    needs: ClassVar = Tokens
    otherwise: ClassVar = "use Stripes or PixelBlend"

    def prepare(self, data: Split, *, seed: int, runtime: Runtime) -> Callable[[Tensor, Tensor], Tensor]:
        """Nothing to learn."""
        return self

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """See :data:`heirmark.triggers.combiners.Combine`."""
        return alternate(first, second)
