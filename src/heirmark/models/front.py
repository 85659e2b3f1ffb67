"""What a service does to a query before its model sees it: noise, fewer levels, blur, shrinking, mirroring, another rate.

A thief may hope that a trigger does not survive it (MEA-Defender, arXiv 2401.15239, appendix E, adds Gaussian noise). All
here are pure functions of images ``[N, C, H, W]``, float32 in [0, 1], or of waves ``[N, C, T]`` in [-1, 1], and give the same
shape and range.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.errors import BadConfig
from heirmark.querying.layout import enter, through_entry
from heirmark.tasks.space import Continuous, Images, Need, Waves
from heirmark.tasks.storing import clip

Front = tuple[tuple[str, float], ...]
"""Transformations by name with their strengths, in the order in which a query meets them."""
LONGEST = 8
"""More transformations than this are refused."""
_LEVELS = 65535
_KEY = 0x6E6F697365


def add_noise(images: Tensor, sd: float) -> Tensor:
    """Gaussian noise of mean 0, cut off where the space of the inputs ends.

    The draws of an image come from a generator of its own, whose seed is a random linear combination of its pixels (at 16
    bits): different images get independent noise, as from a service that draws afresh, and the same image always gets the
    same. So an answer depends neither on the other queries of a batch nor on what was asked before, every measurement can be
    repeated, and to ask again teaches nothing, which is the thief's best case. Images that differ by less than a 16th bit
    share their noise. No global generator is touched.

    Args:
        images: ``[N, C, H, W]`` float32 in [0, 1], or waves ``[N, C, T]`` in [-1, 1].
        sd: standard deviation, where white, or the loudest sample, is 1.
    """
    pixels = (images.detach() * _LEVELS).round().long().flatten(1).cpu()
    # Odd factors, and sums modulo 2**64: one changed pixel always changes the sum; its upper half, well mixed, is the seed.
    factors = torch.randint(2**62, pixels.shape[1:], generator=torch.Generator().manual_seed(_KEY)) | 1
    seeds = ((pixels * factors).sum(1) >> 32) & 0xFFFFFFFF
    drawn = [torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds.tolist()]
    return clip(images + sd * torch.stack(drawn).to(images)) if drawn else images


def reduce_bits(images: Tensor, bits: float) -> Tensor:
    """Round to ``2**bits`` grey levels; of waves there are as many on either side of zero.

    Examples:
        >>> reduce_bits(torch.tensor([0.1, 0.4, 0.9]), 1)
        tensor([0., 0., 1.])
    """
    steps = 2 ** int(bits) - 1
    levels: Tensor = (images * steps).round() / steps
    return levels


def box_blur(images: Tensor, side: float) -> Tensor:
    """The mean of a square window of ``side`` pixels, an odd number; beyond the edge its pixels go on."""
    return _smooth(images, [1 / side] * int(side))


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """A Gaussian window of ``sigma`` pixels, cut off at three of them; beyond the edge its pixels go on."""
    radius = math.ceil(3 * sigma)
    taps = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-radius, radius + 1)]
    return _smooth(images, [tap / sum(taps) for tap in taps])


def shrink(images: Tensor, factor: float) -> Tensor:
    """Scale both sides by ``factor``, below 1, and back again, bilinearly."""
    height, width = map(int, images.shape[-2:])  # under tracing they are tensors
    small = (max(1, round(height * factor)), max(1, round(width * factor)))
    smaller = F.interpolate(images, size=small, mode="bilinear", align_corners=False)
    return F.interpolate(smaller, size=(height, width), mode="bilinear", align_corners=False)


def resample(waves: Tensor, factor: float) -> Tensor:
    """Bring waves to ``factor``, below 1, times their rate, and back again: what is higher than half the lower rate is lost.

    A mean over windows stands before the lower rate, against aliasing; between samples lines are drawn.
    """
    length = int(waves.shape[-1])  # under tracing it is a tensor
    lower = F.adaptive_avg_pool1d(waves, max(1, round(length * factor)))
    return F.interpolate(lower, size=length, mode="linear", align_corners=False)


def mirror(images: Tensor, strength: float) -> Tensor:
    """Swap left and right."""
    return images.flip(-1)


def _smooth(images: Tensor, taps: list[float]) -> Tensor:
    """Weigh neighbours along both axes; sums of shifted images, which autocast leaves in float32."""
    reach, (height, width) = len(taps) // 2, map(int, images.shape[-2:])
    padded = F.pad(images, (reach, reach, reach, reach), mode="replicate")
    along = sum(tap * padded[..., k : k + width] for k, tap in enumerate(taps))
    assert isinstance(along, Tensor)  # there is at least one tap
    both = sum(tap * along[..., k : k + height, :] for k, tap in enumerate(taps))
    assert isinstance(both, Tensor)
    return both


@dataclass(frozen=True, kw_only=True)
class Transformation:
    """A way to preprocess.

    Attributes:
        apply: maps images and a strength to images.
        low: smallest strength.
        high: largest strength.
        usual: a mild strength.
        whole: step between strengths when they are whole numbers from ``low`` on, else 0.
        needs: what it works on.
    """

    apply: Callable[[Tensor, float], Tensor]
    low: float
    high: float
    usual: float
    whole: int = 0
    needs: Need = Images


FRONTS: dict[str, Transformation] = {
    "noise": Transformation(apply=add_noise, low=1e-4, high=1.0, usual=0.05, needs=Images | Waves),
    "bits": Transformation(apply=reduce_bits, low=1, high=8, usual=4, whole=1, needs=Images | Waves),
    "box-blur": Transformation(apply=box_blur, low=3, high=31, usual=3, whole=2),
    "gaussian-blur": Transformation(apply=gaussian_blur, low=0.1, high=8.0, usual=0.7),
    "downscale": Transformation(apply=shrink, low=0.05, high=0.95, usual=0.5),
    "flip": Transformation(apply=mirror, low=1, high=1, usual=1, whole=1),
    "resample": Transformation(apply=resample, low=0.01, high=0.99, usual=0.5, needs=Waves),
}
"""Transformations by name: standard deviation, bits, pixels, pixels, factor; a flip has strength 1; factor of the rate."""


def check_front(front: Front, input_shape: tuple[int, ...]) -> None:
    """Refuse what no model can stand behind; descriptions may come from strangers.

    Raises:
        BadConfig: for an unknown name, a strength out of range, too many transformations, or inputs that one does not work on.
    """
    if len(front) > LONGEST:
        raise BadConfig(f"a front is a tuple of at most {LONGEST} transformations (name, strength), not {front!r:.200}")
    space = _SPACES.get(len(input_shape), Continuous)(tuple(input_shape))
    for name, strength in front:
        check_strength(name, strength)
        if not isinstance(space, FRONTS[name].needs):
            raise BadConfig(
                f"a front preprocesses images (C, H, W) or waves (C, T), and {name!r} not inputs of shape {input_shape}: "
                "leave it out"
            )


_SPACES: dict[int, type[Continuous]] = {2: Waves, 3: Images}
"""What inputs are that have a front, by the dimensions of their shape; ids of tokens have none."""


def check_strength(name: str, strength: float) -> None:
    """Refuse one transformation.

    Raises:
        BadConfig: for an unknown name or a strength out of range.
    """
    if name not in FRONTS:
        raise BadConfig(f"unknown preprocessing {name!r}: choose one of {', '.join(FRONTS)}")
    kind = FRONTS[name]
    number = type(strength) in (int, float)
    if not number or not kind.low <= strength <= kind.high or (kind.whole and (strength - kind.low) % kind.whole):
        steps = f" in steps of {kind.whole}" if kind.whole else ""
        raise BadConfig(f"the strength of {name!r} lies in [{kind.low}, {kind.high}]{steps}, not {strength!r}")


class Fronted(nn.Module):
    """A model behind preprocessing. Its ``features`` and ``head`` are the model's, its weights are named ``model...``.

    Args:
        model: maps ``[N, ...]`` as floats to logits.
        front: what queries meet before it, first things first.
    """

    takes_stored = True

    def __init__(self, model: nn.Module, front: Front) -> None:
        super().__init__()
        self.front = front
        self.model = model

    def prepare(self, inputs: Tensor) -> Tensor:
        """Preprocess ``[N, ...]`` as they are stored."""
        inputs = enter(inputs)
        for name, strength in self.front:
            inputs = FRONTS[name].apply(inputs, strength)
        return inputs

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[N, ...]`` as they are stored to logits ``[N, classes]``."""
        logits: Tensor = self.model(self.prepare(inputs))
        return logits

    @property
    def features(self) -> Callable[[Tensor], Tensor]:
        """The model's feature extractor, preprocessing included."""
        inner: Any = self.model.features
        extract = through_entry(self.model, inner)
        return lambda inputs: extract(self.prepare(inputs))

    @property
    def head(self) -> nn.Module:
        """The model's last layer."""
        head: Any = self.model.head
        return head  # type: ignore[no-any-return]

    def __setattr__(self, name: str, value: Any) -> None:
        # A new last layer is the model's; a Module would keep it beside the property, unseen.
        if name == "head":
            self.model.head = value
        else:
            super().__setattr__(name, value)


def behind(model: nn.Module, front: Front) -> nn.Module:
    """The model behind preprocessing; without any, the model itself."""
    return Fronted(model, front) if front else model
