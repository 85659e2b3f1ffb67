"""Views: what contrastive learning takes for the same thing, drawn from a generator and made where the inputs lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.configuration import above, at_most, checked, within
from heirmark.errors import BadConfig
from heirmark.runtime import to_device
from heirmark.tasks.space import Images, Waves, space_of
from heirmark.tasks.storing import decode

_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))
"""RGB to brightness and two axes of colour, in which a change of hue is a rotation."""


@dataclass(frozen=True, kw_only=True)
@checked
class Views:
    """How an input is changed into another view of it. The defaults are SimCLR's on CIFAR-10 (arXiv 2002.05709, appendix B.9).

    Of images: a random part of any size and shape, brought back to the whole; a mirror image; another brightness, contrast,
    saturation and hue; grey. The paper blurs those of ImageNet besides, and not these. Of waves, of which the paper has none: a
    shift in time, silence behind, and another loudness.

    Attributes:
        least: least share of an image's area that a view shows; 1 shows all of it.
        mirror: chance of a mirror image.
        colour: strength of the changes of colour: brightness, contrast and saturation by up to 0.8 of it, hue by 0.2 of it; and
            chance 0.8 of any. 0 changes none.
        grey: chance of a colour image to become grey.
        shift: largest shift of a wave, as a share of its length.
    """

    least: Annotated[float, above(0), at_most(1)] = 0.08
    mirror: Annotated[float, within(0, 1)] = 0.5
    colour: Annotated[float, within(0, 1)] = 0.5
    grey: Annotated[float, within(0, 1)] = 0.2
    shift: Annotated[float, within(0, 0.5)] = 0.1

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """A view of each input.

        Args:
            inputs: ``[B, ...]`` as they are stored, on any device.
            generator: on the CPU.

        Returns:
            ``[B, ...]`` float32, in the bounds of the space.

        Raises:
            BadConfig: for inputs of which no views are known.
        """
        space = space_of(inputs)
        if isinstance(space, Images):
            return self._of_images(decode(inputs), generator)
        if isinstance(space, Waves):
            return self._of_waves(decode(inputs), generator)
        raise BadConfig(
            f"no views are known of {space.named}, by which an encoder learns what is alike: give images or waves"
        )

    def _of_images(self, images: Tensor, generator: torch.Generator) -> Tensor:
        shown = crop(images, self.least, self.mirror, generator)
        if self.colour:
            changed = recolour(shown, self.colour, generator)
            kept = _drawn(len(images), generator, images) >= 0.8
            shown = torch.where(kept[:, None, None, None], shown, changed)
        if self.grey and images.shape[1] == 3:
            chosen = _drawn(len(images), generator, images) < self.grey
            shown = torch.where(chosen[:, None, None, None], _luma(shown).expand_as(shown), shown)
        return shown

    def _of_waves(self, waves: Tensor, generator: torch.Generator) -> Tensor:
        count, _, length = waves.shape
        most = int(self.shift * length)
        moved = to_device(torch.randint(-most, most + 1, (count,), generator=generator), waves.device)
        places = torch.arange(length, device=waves.device) + moved[:, None]
        heard = waves.gather(2, places.clamp(0, length - 1)[:, None].expand_as(waves))
        sounds = ((places >= 0) & (places < length))[:, None]
        loudness = 0.5 + 0.5 * _drawn(count, generator, waves)
        return heard * sounds * loudness[:, None, None]


def crop(images: Tensor, least: float, mirror: float, generator: torch.Generator) -> Tensor:
    """Random parts of images ``[B, C, H, W]``, brought to their size; sides of the parts are as 3:4 to 4:3."""
    count = len(images)
    area, shape, across, down, turn = torch.rand(5, count, generator=generator)
    area = least + (1 - least) * area
    ratio = ((2 * shape - 1) * math.log(4 / 3) * (least < 1)).exp()
    width, height = (area * ratio).sqrt().clamp_max(1), (area / ratio).sqrt().clamp_max(1)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = torch.where(turn < mirror, -width, width)
    theta[:, 1, 1] = height
    theta[:, 0, 2], theta[:, 1, 2] = (2 * across - 1) * (1 - width), (2 * down - 1) * (1 - height)
    grid = F.affine_grid(to_device(theta, images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False).clamp(0, 1)


def recolour(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Images ``[B, C, H, W]`` in other brightness and contrast, and those in colour in other saturation and hue."""
    factors = 1 + 0.8 * strength * (2 * torch.rand(3, len(images), generator=generator) - 1)
    brightness, contrast, saturation = to_device(factors, images.device)[:, :, None, None, None]
    turn = 2 * math.pi * 0.2 * strength * (2 * _drawn(len(images), generator, images) - 1)
    shown: Tensor = (images * brightness).clamp(0, 1)
    mean = _luma(shown).mean((2, 3), keepdim=True)
    shown = (mean + (shown - mean) * contrast).clamp(0, 1)
    if images.shape[1] != 3:
        return shown
    grey = _luma(shown)
    shown = (grey + (shown - grey) * saturation).clamp(0, 1)
    axes = torch.tensor(_YIQ, device=images.device)
    y, i, q = torch.einsum("kc,bchw->kbhw", axes, shown)
    cos, sin = turn.cos()[:, None, None], turn.sin()[:, None, None]
    turned = torch.stack([y, cos * i - sin * q, sin * i + cos * q])
    whole: Tensor = torch.einsum("ck,kbhw->bchw", torch.linalg.inv(axes), turned)
    return whole.clamp(0, 1)


def _luma(images: Tensor) -> Tensor:
    """Brightness ``[B, 1, H, W]``."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    return (images * torch.tensor(_YIQ[0], device=images.device)[None, :, None, None]).sum(1, keepdim=True)


def _drawn(count: int, generator: torch.Generator, like: Tensor) -> Tensor:
    return to_device(torch.rand(count, generator=generator), like.device)
