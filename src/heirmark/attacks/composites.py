"""Composites of images of several classes, made in the ways that watermarks are published to use, without knowing any key.

What a thief guesses who has read MEA-Defender (arXiv 2401.15239), DeepTracer (arXiv 2511.08985) and Feature Sharing (ICLR 2022
submission XHxRBwjpEQ); how two images become one is in :mod:`heirmark.tasks.combining`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from heirmark.configuration import distinct, not_empty
from heirmark.errors import BadData
from heirmark.runtime import derive_seed, generator_of
from heirmark.tasks.combining import CORNERS, blend, mosaic, paste, paste_square, region, square_side, stripes
from heirmark.tasks.space import Continuous, Images
from heirmark.tasks.task import Split
from heirmark.training.samples import ShuffledIndex

Kind: TypeAlias = Literal["tiles", "halves", "insets", "blend", "stripes", "patch"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Kinds: TypeAlias = Annotated[tuple[Kind, ...], not_empty, distinct]
SOURCES: dict[str, int] = {"tiles": 4, "halves": 2, "insets": 2, "blend": 2, "stripes": 2, "patch": 1}
"""How many images one composite of a kind is made of."""
LAYOUTS: dict[str, tuple[str, ...]] = {
    "tiles": ("tiles",),
    "halves": ("left-right", "top-bottom", "diagonal"),
    "insets": ("centre", "band"),
    "blend": ("blend",),
    "stripes": ("columns", "rows"),
    "patch": CORNERS,
}
"""In which ways a kind is made: where regions are cut, the second image shows in the right half, the lower half, above the main
diagonal, in a square or a band in the middle, in two of five columns or rows; the white square lies in one of four corners. The
other halves are those of the same images in the other order."""
KIND_OF: dict[str, str] = {layout: kind for kind, layouts in LAYOUTS.items() for layout in layouts}
SECOND: dict[str, Callable[[int, int], Tensor]] = {
    "left-right": partial(region, "right"),
    "top-bottom": partial(region, "bottom"),
    "diagonal": partial(region, "diagonal"),
    "centre": partial(region, "centre"),
    "band": partial(region, "band"),
    "columns": stripes,
    "rows": partial(stripes, direction="rows"),
}
"""Where the second of two images shows, by height and width: ``[H, W]`` bool."""
CHUNK = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class Composites:
    """Samples made of several classes.

    Attributes:
        inputs: ``[M, ...]`` of the dtype of what they are made of.
        shares: ``[M, C]`` float32, how much of each class a sample shows; rows add up to 1.
    """

    inputs: Tensor
    shares: Tensor


def fitting(kinds: tuple[Kind, ...], classes: int, *, spare: int = 0) -> tuple[Kind, ...]:
    """The kinds that so many classes suffice for.

    Args:
        kinds: of :data:`KINDS`.
        classes: that there are.
        spare: classes that there must be besides those that a composite shows.

    Raises:
        BadData: when no kind is left.

    Examples:
        >>> fitting(("tiles", "halves", "patch"), 3), fitting(("tiles", "halves", "patch"), 2, spare=1)
        (('halves', 'patch'), ('patch',))
    """
    left = tuple(kind for kind in kinds if SOURCES[kind] + spare <= classes)
    if not left:
        needed = min(SOURCES[kind] for kind in kinds) + spare
        raise BadData(f"{', '.join(kinds)} need at least {needed} classes, not {classes}: choose other kinds")
    return left


def compose(
    data: Split,
    kind: str,
    count: int,
    *,
    classes: int,
    seed: int,
    sources: Tensor | None = None,
    layout: str | None = None,
) -> Composites:
    """Make composites of random examples of random classes.

    All ordered choices of distinct classes come up equally often where there are not more of them than samples, and are drawn
    at random elsewhere.

    Args:
        data: labelled examples to make them of.
        kind: of :data:`KINDS`.
        count: how many.
        classes: how many the task has.
        seed: of all choices.
        sources: ``[k]`` classes in their order, where they are given.
        layout: of the kind's :data:`LAYOUTS`; None draws one for each sample.

    Raises:
        BadData: when the examples show too few classes.
    """
    labels, shape = data.labels.cpu(), tuple(data.inputs.shape[1:])
    generator = generator_of(derive_seed(seed, "composites", kind))
    drawn = draw_sources(torch.unique(labels), SOURCES[kind], count, generator) if sources is None else sources
    shown = drawn.expand(count, -1)
    rows = pick_each(labels, shown, generator)
    layouts = LAYOUTS[kind]
    ways = torch.randint(len(layouts), (count,), generator=generator)
    if layout is not None:
        ways = torch.full_like(ways, layouts.index(layout))
    inputs = torch.empty((count, *shape), dtype=data.inputs.dtype)
    shares = torch.zeros(count, classes)
    for way, name in enumerate(layouts):
        weights = torch.tensor(shares_of(name, shape))
        for part in (ways == way).nonzero().flatten().split(CHUNK):  # type: ignore[no-untyped-call]
            if len(part):
                inputs[part] = combine(data.inputs[rows[part]].cpu(), name)
                one = torch.zeros(len(part), classes)
                shares[part] = one.scatter_add_(1, shown[part], weights.expand(len(part), -1))
    return Composites(inputs=inputs, shares=shares)


def compose_all(data: Split, kinds: tuple[str, ...], count: int, *, classes: int, seed: int) -> Composites:
    """Composites of several kinds, as many of each; see :func:`compose`."""
    counts = [count // len(kinds) + (number < count % len(kinds)) for number in range(len(kinds))]
    made = [
        compose(data, kind, each, classes=classes, seed=seed) for kind, each in zip(kinds, counts, strict=True) if each
    ]
    return Composites(inputs=torch.cat([one.inputs for one in made]), shares=torch.cat([one.shares for one in made]))


def space_for(kinds: tuple[str, ...]) -> type[Continuous]:
    """What kinds of composites are made of: images, but for a blend, which any numbers give."""
    return Continuous if set(kinds) == {"blend"} else Images


def combine(images: Tensor, layout: str) -> Tensor:
    """Make one of several images.

    Args:
        images: ``[M, k, ...]`` uint8, or float in [0, 1]; k as :data:`SOURCES` says of the layout's kind.
        layout: of :data:`LAYOUTS`.

    Returns:
        ``[M, ...]`` of the same dtype and range.

    Examples:
        >>> pair = torch.stack([torch.zeros(1, 1, 2, 4), torch.ones(1, 1, 2, 4)], 1)
        >>> combine(pair, "left-right")[0, 0].tolist()
        [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]
        >>> combine(pair, "blend").unique().tolist()
        [0.5]
    """
    if layout == "tiles":
        return mosaic(images)
    if layout == "blend":
        return blend(images[:, 0], images[:, 1])
    height, width = images.shape[-2:]
    if layout in CORNERS:
        return paste_square(images[:, 0], square_side(height, width), layout)
    return paste(images[:, 0], images[:, 1], SECOND[layout](height, width))


def shares_of(layout: str, shape: tuple[int, ...]) -> tuple[float, ...]:
    """How much of a composite shows each of its sources: by area, or by the ratio of a blend.

    Args:
        layout: of :data:`LAYOUTS`.
        shape: of one input.
    """
    sources = SOURCES[KIND_OF[layout]]
    if layout in ("tiles", "blend") or sources == 1:
        return (1 / sources,) * sources
    second = float(SECOND[layout](*shape[-2:]).float().mean())
    return (1 - second, second)


def wrong_labels(shares: Tensor, *, seed: int) -> Tensor:
    """A random class for each sample, of those that it does not show.

    Args:
        shares: ``[M, C]``.
        seed: of the draws.

    Returns:
        ``[M]`` int64.

    Raises:
        BadData: when a sample shows all classes.
    """
    if bool((shares > 0).all(1).any()):
        raise BadData(f"a mix of {shares.shape[1]} classes leaves none that would be wrong: choose other kinds")
    luck = torch.rand(shares.shape, generator=generator_of(seed))
    return luck.masked_fill(shares > 0, -1).argmax(1)


def draw_sources(present: Tensor, sources: int, count: int, generator: torch.Generator) -> Tensor:
    """Ordered choices of distinct classes.

    Args:
        present: ``[P]`` classes to choose from.
        sources: how many a sample shows.
        count: how many samples.
        generator: on the CPU.

    Returns:
        ``[count, sources]`` int64.

    Raises:
        BadData: when there are too few classes.
    """
    many = len(present)
    if many < sources:
        raise BadData(f"composites of {sources} classes need examples of as many, not of {many}: choose other kinds")
    if math.perm(many, sources) <= count:
        table = torch.tensor(list(itertools.permutations(range(many), sources)))
        return present[table[ShuffledIndex(len(table), count).draw(generator)]]
    drawn = torch.randint(many, (count, sources), generator=generator)
    while len(again := (drawn.sort(1).values.diff(dim=1) == 0).any(1).nonzero().flatten()):
        drawn[again] = torch.randint(many, (len(again), sources), generator=generator)
    return present[drawn]


def pick_each(labels: Tensor, wanted: Tensor, generator: torch.Generator) -> Tensor:
    """A random example for each class that is wanted.

    Args:
        labels: ``[N]``.
        wanted: ``[M, k]`` classes that occur among the labels.
        generator: on the CPU.

    Returns:
        ``[M, k]`` positions.
    """
    order, counts = labels.argsort(stable=True), labels.bincount()
    starts = counts.cumsum(0) - counts
    luck = torch.rand(wanted.shape, generator=generator, dtype=torch.float64)
    return order[starts[wanted] + (luck * counts[wanted]).long()]
