"""Abstract images and sounds as triggers (Adi et al., arXiv 1802.04633, section 4), made here from a seed: no file is needed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.space import Images, Waves
from heirmark.tasks.storing import encode
from heirmark.tasks.task import Split, Task
from heirmark.triggers.base import Secret, Trigger, TriggerSet, check_label


def paint(shape: tuple[int, int, int], seed: int) -> Tensor:
    """One abstract image: a ground of slow waves, and over it ellipses, half-planes and stripes, half transparent.

    Args:
        shape: ``(C, H, W)``.
        seed: of all of it.

    Returns:
        ``[C, H, W]`` float32 in [0, 1].
    """
    generator = generator_of(seed)
    channels, height, width = shape

    def draw(*size: int) -> Tensor:
        return torch.rand(size, generator=generator)

    rows = torch.linspace(-1, 1, height)[:, None]
    columns = torch.linspace(-1, 1, width)[None]
    ground = torch.zeros(channels, height, width)
    for _ in range(3):
        across, down, phase = (2 * math.pi * (draw(3) - 0.5)).tolist()
        ground += (draw(channels)[:, None, None] - 0.5) * torch.sin(across * columns + down * rows + phase)
    image = 0.5 + 0.4 * ground
    for _ in range(int(torch.randint(4, 9, (), generator=generator))):
        kind = int(torch.randint(3, (), generator=generator))
        x, y, turn, tall, wide = (
            draw(5) * torch.tensor([2, 2, math.pi, 0.6, 0.6]) - torch.tensor([1, 1, 0, -0.1, -0.1])
        ).tolist()
        along = (columns - x) * math.cos(turn) + (rows - y) * math.sin(turn)
        aside = (rows - y) * math.cos(turn) - (columns - x) * math.sin(turn)
        if kind == 0:
            inside = (along / wide).square() + (aside / tall).square() < 1
        elif kind == 1:
            inside = (along > 0) & (aside.abs() < 2 * tall)
        else:
            inside = (torch.sin(along * 3 / wide) > 0) & (aside.abs() < tall)
        colour, cover = draw(channels)[:, None, None], 0.5 + 0.5 * float(draw(1))
        image = torch.where(inside, cover * colour + (1 - cover) * image, image)
    return image.clamp(0, 1)


def compose(shape: tuple[int, int], seed: int) -> Tensor:
    """One abstract sound: a few notes that glide and fade, buzzes and bursts of noise among them, each at its place.

    Args:
        shape: ``(C, T)``.
        seed: of all of it.

    Returns:
        ``[C, T]`` float32 in [-1, 1], whose loudest sample is between 0.3 and 0.9.
    """
    generator = generator_of(seed)
    channels, samples = shape
    place = torch.arange(samples) / samples
    sound = torch.zeros(channels, samples)
    for _ in range(int(torch.randint(4, 9, (), generator=generator))):
        kind = int(torch.randint(3, (), generator=generator))
        start, length, pitch, glide, fade = torch.rand(5, generator=generator).tolist()
        low = 0.01 * 20**pitch  # of the rate: from a hundredth to a fifth
        cycles = low * samples * (place + (glide - 0.5) * place.square())
        if kind == 2:
            voice = torch.randn(samples, generator=generator)
        else:
            voice = torch.sin(2 * math.pi * cycles)
            voice = voice if kind == 0 else voice.sign() * 0.5
        since = (place - 0.8 * start) / (0.1 + 0.6 * length)
        voice = torch.where((since > 0) & (since < 1), voice * (1 - since).clamp(0, 1) ** (2 * fade), 0)
        sound += torch.rand(channels, 1, generator=generator) * voice
    loudest = 0.3 + 0.6 * torch.rand((), generator=generator)
    return sound / sound.abs().max().clamp_min(1e-3) * loudest


@dataclass(frozen=True, kw_only=True)
class AbstractImages(Trigger):
    """Abstract images, or sounds, all given one label; under :class:`heirmark.triggers.RandomLabels` each its own.

    So the paper has it, whose hundred images come from the web; these are painted, or composed, from the owner's seed, so that
    there are as many as one likes.

    Attributes:
        target: the label; None draws one.
    """

    needs: ClassVar = Images | Waves

    target: int | None = None

    def settle(self, task: Task, clean: nn.Module, *, seed: int, runtime: Runtime | None = None) -> AbstractSecret:
        """Draw the target; see :class:`heirmark.triggers.base.Trigger`."""
        generator = generator_of(derive_seed(seed, "abstract"))
        target = int(torch.randint(len(task.classes), (), generator=generator)) if self.target is None else self.target
        return AbstractSecret(
            target=check_label(target, task, "target"),
            seed=derive_seed(seed, "abstract", "images"),
            permutation=torch.randperm(task.space.places, generator=generator),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class AbstractSecret(Secret):
    """Settled abstract images: see :class:`AbstractImages`.

    Attributes:
        target: the label.
        seed: of the images.
        permutation: of the pixels, makes the controls.
    """

    kind: ClassVar[str] = "abstract"

    target: int
    seed: int
    permutation: Tensor = field(repr=False)

    def draw(self, hosts: Split, count: int, *, seed: int, held_out: bool = True) -> TriggerSet:
        """Fresh images of the hosts' shape and type; the control is the same one with its pixels or samples in another order."""
        shape = hosts.inputs.shape[1:]
        pool = "held out" if held_out else "training"
        seeds = [derive_seed(self.seed, pool, seed, number) for number in range(count)]
        if len(shape) == 2:
            images = [compose((shape[0], shape[1]), one) for one in seeds]
        else:
            images = [paint((shape[0], shape[1], shape[2]), one) for one in seeds]
        inputs = encode(torch.stack(images), hosts.inputs.dtype)
        return TriggerSet.without_hosts(inputs, self.permutation, self.target)
