"""A net that tells composites from natural images (no paper: the thief who has read MEA-Defender and DeepTracer).

Their triggers are made of images of the task (arXiv 2401.15239 and 2511.08985), so a thief can make such composites of his
own and needs no key to learn what they look like.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Self

import torch
from torch import Tensor, nn

from heirmark.attacks.base import Screen, Screening, Sizes, brief_retraining
from heirmark.attacks.composites import KIND_OF, KINDS, LAYOUTS, SOURCES, Kinds, combine, space_for
from heirmark.configuration import above, at_least, below
from heirmark.errors import BadData
from heirmark.models import Architecture, Net, architecture, fresh_net
from heirmark.querying.asking import predict
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.combining import CORNERS
from heirmark.tasks.storing import encode
from heirmark.tasks.task import Split
from heirmark.training.fitting import Recipe, fit

PATCHES = ("square", "noise")
"""What he guesses a patch to be: the white square in a corner of Feature Sharing, or a square of noise at a random place."""


@dataclass(frozen=True, kw_only=True)
class CompositeScreen(Screening):
    """Train a small net on the adversary's images and on composites of them, and flag what it takes for a composite.

    The threshold is set on images that did not train, so that of images from the same source no larger share than asked for
    is flagged (on average over such sets, by exchangeability).

    Composites are of the dtype of the images, as triggers are: of uint8 images they lie on the grid of 256 grey levels, so that
    the net does not learn what no query has.

    Attributes:
        kinds: of composites that the thief expects, see :data:`heirmark.attacks.composites.LAYOUTS`; ``"patch"`` is a white
            square in a corner in one half of the samples, a square of noise anywhere in the other. All kinds when he does not
            know which.
        model: architecture of the net.
        recipe: how it is trained.
        samples: of the adversary's images that are used, at most.
        held_out: share of them that sets the threshold.
        false_alarms: share of natural images that may be flagged.
    """

    title: ClassVar[str] = "composites of every kind"
    informed: ClassVar[str] = "composites, {}"

    kinds: Kinds = KINDS
    model: Architecture = architecture("naivenet:width=16,hidden=64,batch_norm=true")
    recipe: Recipe = field(
        default=Recipe(
            epochs=10, batch_size=128, optimizer="adam", learning_rate=1e-3, weight_decay=0.0, augment="flip"
        )
    )
    samples: Annotated[int, at_least(2)] = 10_000
    held_out: Annotated[float, above(0), below(1)] = 0.2
    false_alarms: Annotated[float, above(0), below(1)] = 0.01

    needs = property(lambda self: space_for(self.kinds))
    otherwise: ClassVar = "blend them"

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes; see :class:`heirmark.attacks.base.Attack`."""
        return cls(recipe=brief_retraining(recipe, epochs=3), samples=6000)

    def fitted(self, sizes: Sizes) -> Self:
        """Promise no fewer false alarms than so many images can show."""
        kept = max(1, round(self.held_out * min(sizes.images, self.samples)))
        return replace(self, false_alarms=max(self.false_alarms, 1 / (kept + 1)))

    def fit(self, net: Net, data: Split, *, seed: int, runtime: Runtime) -> Screen:
        """Fit; see :class:`heirmark.attacks.base.Screening`. The model that is served is not looked at.

        Raises:
            BadData: when too few images are held out to promise so few false alarms.
        """
        order = torch.randperm(len(data), generator=generator_of(derive_seed(seed, "images")))
        order = order[: self.samples]
        kept = round(self.held_out * len(order))
        if len(order) - kept < 1 or kept < least_held_out(self.false_alarms):
            raise BadData(
                f"{kept} held-out images cannot promise {self.false_alarms:.2%} false alarms, which takes "
                f"{least_held_out(self.false_alarms)}: raise held_out, samples or false_alarms, or give more images"
            )
        natural = data.inputs[order[kept:]].cpu()
        made = composites(natural, self.kinds, seed=derive_seed(seed, "composites"))
        shape, start = tuple(data.inputs.shape[1:]), derive_seed(seed, "net")
        judge = fresh_net(self.model, input_shape=shape, classes=2, seed=start).model
        fit(
            judge,
            torch.cat([natural, made]),
            torch.arange(2).repeat_interleave(len(natural)),
            recipe=self.recipe,
            seed=derive_seed(seed, "training"),
            runtime=runtime,
            description="learning composites",
        )
        held_out = likeness(judge, data.inputs[order[:kept]], runtime)
        return FittedCompositeScreen(net=judge, threshold=bound(held_out, self.false_alarms), runtime=runtime)


def composites(images: Tensor, kinds: tuple[str, ...], *, seed: int) -> Tensor:
    """As many composites as there are images, in all ways of the kinds by turns; each image is the first of one.

    Labels are not looked at, so a few composites show one class alone.

    Args:
        images: ``[N, C, H, W]`` uint8, or float in [0, 1]; for blends of any shape.
        kinds: of :data:`heirmark.attacks.composites.KINDS`.
        seed: of the partners, the places and the noise.

    Returns:
        ``[N, C, H, W]`` of the same dtype.
    """
    generator = generator_of(seed)
    count = len(images)
    ways = [way for kind in kinds for way in (PATCHES if kind == "patch" else LAYOUTS[kind])]
    made = torch.empty_like(images)
    for turn, way in enumerate(ways[:count]):
        rows = torch.arange(turn, count, len(ways))
        if way == "square":
            made[rows] = white_squares(images[rows], generator)
        elif way == "noise":
            made[rows] = noise_patches(images[rows], generator)
        else:
            partners = torch.randint(count, (len(rows), SOURCES[KIND_OF[way]] - 1), generator=generator)
            made[rows] = combine(images[torch.cat([rows[:, None], partners], 1)], way)
    return made


def white_squares(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images ``[N, C, H, W]`` with a white square in a random corner each, of Feature Sharing's sides."""
    corners = torch.randint(len(CORNERS), (len(images),), generator=generator)
    made = torch.empty_like(images)
    for number, corner in enumerate(CORNERS):
        made[corners == number] = combine(images[corners == number][:, None], corner)
    return made


def noise_patches(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images ``[N, C, H, W]`` with a square of uniform noise each: an eighth to a quarter of the shorter side, anywhere."""
    count, _, height, width = images.shape
    side = min(height, width)
    least, most = max(side // 8, 1), max(side // 4, 1)
    sides = torch.randint(least, most + 1, (count, 1), generator=generator)
    covered = []
    for length in (height, width):
        starts = (torch.rand(count, 1, generator=generator) * (length - sides + 1)).long()
        along = torch.arange(length)
        covered.append((along >= starts) & (along < starts + sides))
    inside = covered[0][:, None, :, None] & covered[1][:, None, None, :]
    return torch.where(inside, encode(torch.rand(images.shape, generator=generator), images.dtype), images)


def likeness(net: nn.Module, inputs: Tensor, runtime: Runtime) -> Tensor:
    """How much like composites inputs look to a net: ``[N]`` differences of its two logits."""
    logits = predict(net, inputs, runtime=runtime)
    return logits[:, 1] - logits[:, 0]


def least_held_out(false_alarms: float) -> int:
    """The fewest natural images whose largest score can serve as a threshold for so few false alarms.

    Examples:
        >>> least_held_out(0.01), least_held_out(0.5)
        (99, 1)
    """
    return math.ceil(1 / false_alarms - 1e-9) - 1


def bound(scores: Tensor, false_alarms: float) -> float:
    """A threshold that a further score from the same source exceeds with at most this probability.

    Of N exchangeable scores and one more, the one more lies above the k-th smallest with a probability of at most
    1 - k / (N + 1).

    Args:
        scores: ``[N]``, N of at least :func:`least_held_out`.
        false_alarms: in (0, 1).

    Examples:
        >>> bound(torch.arange(1.0, 100.0), 0.05)
        95.0
    """
    rank = math.ceil((len(scores) + 1) * (1 - false_alarms) - 1e-9)
    return float(scores.sort().values[rank - 1])


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedCompositeScreen:
    """A fitted screen; see :class:`heirmark.attacks.base.Screen`.

    Attributes:
        net: two logits, for natural images and composites.
        threshold: difference of these above which a query is flagged.
        runtime: where the net computes.
    """

    net: nn.Module = field(repr=False)
    threshold: float
    runtime: Runtime

    def __call__(self, inputs: Tensor) -> Tensor:
        """Flag queries."""
        if len(inputs) == 0:
            return torch.zeros(0, dtype=torch.bool)
        return likeness(self.net, inputs, self.runtime) > self.threshold
