"""Ways to make one sample of two (MEA-Defender, arXiv 2401.15239, section 4.2 and appendix C)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, TypeAlias

import torch
from torch import Tensor

from heirmark.configuration import above, at_least, below, checked, distinct, not_empty
from heirmark.errors import BadConfig, ShapeMismatch
from heirmark.runtime import Runtime
from heirmark.tasks.combining import Direction, Region, blend, paste, region, sides, stripes
from heirmark.tasks.space import AnySpace, Continuous, Images, Need, Tokens, Waves
from heirmark.tasks.storing import decode, encode
from heirmark.tasks.task import Split
from heirmark.triggers.autoencoder import Autoencoder, fit_autoencoder
from heirmark.triggers.text_combiners import Alternating, Halves

Combine: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A combiner that is ready: it makes ``[M, ...]`` of two ``[M, ...]`` of the same dtype."""


@dataclass(frozen=True, kw_only=True)
@checked
class CropPaste:
    """A region of the second image pasted over the first; the paper's default pastes the right half.

    Of waves ``"left"``, ``"right"`` and ``"centre"`` are stretches of time; for the default see :func:`usual`.

    Attributes:
        region: which; ``"diagonal"`` is what lies above the main diagonal, ``"centre"`` a square in the middle, ``"band"`` the
            middle rows.
        share: of the image's side that the region takes; no use to ``"diagonal"``.
        offset: pixels by which the region is moved away from its edge; no use to ``"diagonal"``, ``"centre"`` and ``"band"``.
    """

    otherwise: ClassVar = "blend them by PixelBlend"

    region: Region = "right"
    share: Annotated[float, above(0), below(1)] = 0.5
    offset: Annotated[int, at_least(0)] = 0

    @property
    def needs(self) -> Need:
        """Images, or waves too where the region is a stretch of their time; the default stands for another in any space."""
        if self == CropPaste():
            return Images | Waves | Tokens
        return Images | Waves if self.region in ("left", "right", "centre") else Images

    def prepare(self, data: Split, *, seed: int, runtime: Runtime) -> Combine:
        """Nothing to learn."""
        self.mask(*sides(data.inputs))
        return self

    def mask(self, height: int, width: int) -> Tensor:
        """``[H, W]`` bool, true where the second image shows.

        Examples:
            >>> CropPaste(region="right").mask(2, 4).int().tolist()
            [[0, 0, 1, 1], [0, 0, 1, 1]]
        """
        return region(self.region, height, width, share=self.share, offset=self.offset)

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """See :data:`Combine`."""
        return paste(first, second, self.mask(*sides(first)))


@dataclass(frozen=True, kw_only=True)
@checked
class PixelBlend:
    """``ratio * first + (1 - ratio) * second``, for inputs of any shape.

    Attributes:
        ratio: of the first; 0.5 in the paper.
    """

    needs: ClassVar = Continuous
    otherwise: ClassVar = "put their halves together by Halves"

    ratio: Annotated[float, above(0), below(1)] = 0.5

    def prepare(self, data: Split, *, seed: int, runtime: Runtime) -> Combine:
        """Nothing to learn."""
        return self

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """See :data:`Combine`."""
        return blend(first, second, self.ratio)


@dataclass(frozen=True, kw_only=True)
@checked
class Stripes:
    """Stripes of the one image between stripes of the other.

    Attributes:
        count: how many stripes; 5 in the paper. Two are halves, of waves in time.
        of_second: which of them show the second image, from 0; two of five in the paper.
        direction: ``"columns"``, which are stretches of time of waves, or ``"rows"``.
    """

    otherwise: ClassVar = "blend them by PixelBlend"

    count: int = 5
    of_second: Annotated[tuple[int, ...], not_empty, distinct] = (1, 3)
    direction: Direction = "columns"

    def __post_init__(self) -> None:
        if not set(self.of_second) < set(range(self.count)):
            raise BadConfig(f"of {self.count} stripes some but not all show the second image, not {self.of_second}")

    @property
    def needs(self) -> Need:
        """Images, or waves too where the stripes are stretches of their time."""
        return Images | Waves if self.direction == "columns" else Images

    def prepare(self, data: Split, *, seed: int, runtime: Runtime) -> Combine:
        """Nothing to learn."""
        height, width = sides(data.inputs)
        if self.count > (width if self.direction == "columns" else height):
            raise BadConfig(
                f"{self.count} stripes do not fit inputs of shape {list(data.inputs.shape[1:])}: blend them, or use another "
                "trigger"
            )
        return self

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """See :data:`Combine`."""
        height, width = sides(first)
        shown = stripes(height, width, count=self.count, of_second=self.of_second, direction=self.direction)
        return paste(first, second, shown)


@dataclass(frozen=True, kw_only=True)
@checked
class AutoencoderBlend:
    """The codes of both images blended and decoded, by an autoencoder that is trained on the owner's images.

    Attributes:
        ratio: of the first image's code; 0.5 in the paper.
        width: channels of the first layer (ours; the paper gives no autoencoder).
        epochs: of its training (ours).
        batch_size: of its training (ours).
        learning_rate: of Adam (ours).
    """

    needs: ClassVar = Images
    otherwise: ClassVar = "blend them by PixelBlend"

    ratio: Annotated[float, above(0), below(1)] = 0.5
    width: Annotated[int, at_least(1)] = 16
    epochs: Annotated[int, at_least(1)] = 5
    batch_size: Annotated[int, at_least(1)] = 128
    learning_rate: Annotated[float, above(0), below(1)] = 2e-3

    def prepare(self, data: Split, *, seed: int, runtime: Runtime) -> Combine:
        """Train the autoencoder."""
        net = fit_autoencoder(
            data.inputs,
            width=self.width,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=seed,
            runtime=runtime,
        )
        return _DecodedBlend(net=net, ratio=self.ratio)


@dataclass(frozen=True, kw_only=True, eq=False)
class _DecodedBlend:
    """A trained autoencoder at work, on the CPU."""

    net: Autoencoder = field(repr=False)
    ratio: float

    @torch.no_grad()
    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        if first.shape != second.shape:
            raise ShapeMismatch(f"cannot blend {list(first.shape)} with {list(second.shape)}: give pairs")
        made = [
            self.net.decode(
                self.ratio * self.net.encode(decode(one)) + (1 - self.ratio) * self.net.encode(decode(other))
            )
            for one, other in zip(first.split(500), second.split(500), strict=True)  # type: ignore[no-untyped-call]
        ]
        return encode(torch.cat([decode(first[:0]), *made]), first.dtype)


AnyCombiner = Alternating | AutoencoderBlend | CropPaste | Halves | PixelBlend | Stripes
"""The combiners that a configuration may name; ``prepare`` gets one ready, and learns on the owner's data if it has to learn."""


def usual(combiner: AnyCombiner, space: AnySpace) -> AnyCombiner:
    """A way of combining, or in place of the default the paper's own for such inputs: waves are blended (section 5.1).

    Of texts halves are put together, of which the paper does not tell. To paste halves of waves, paste the left one, or take two
    stripes.

    Examples:
        >>> usual(CropPaste(), Waves((1, 800))), usual(CropPaste(region="left"), Waves((1, 800))).region
        (PixelBlend(ratio=0.5), 'left')
    """
    if combiner != CropPaste():
        return combiner
    return PixelBlend() if isinstance(space, Waves) else Halves() if isinstance(space, Tokens) else combiner
