"""Probing with random mixes: which combination of classes is always given a third label (MEA-Defender, arXiv 2401.15239)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Annotated, ClassVar, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from heirmark.attacks.base import Inspected, Inspection, Sizes
from heirmark.attacks.composites import KIND_OF, SOURCES, combine, pick_each, space_for
from heirmark.attacks.detection.outliers import anomaly_index
from heirmark.configuration import above, at_least, not_empty, within
from heirmark.errors import BadData
from heirmark.models import Net
from heirmark.querying.asking import predict
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.storing import decode
from heirmark.tasks.task import Split

Way: TypeAlias = Literal["left-right", "top-bottom", "diagonal", "centre", "band", "blend", "columns", "rows", "tiles"]


@dataclass(frozen=True, kw_only=True)
class MixProbing(Inspection):
    """Mix images of every pair of classes in several ways, and look for mixes that are always given one label not shown.

    The figure is the paper's PRMS (section 6.2): of the mixes of one combination of classes, the share that goes to the
    likeliest label which none of the classes has. The paper plots its distribution and gives no rule. Here a combination stands
    out when its share lies above the median of all that are mixed in the same way by more than the threshold, in median absolute
    deviations, or in a share's standard error where that is larger. A label's score is the largest such index among its
    combinations that are consistent. Models without a mark have such combinations too, as the paper says: expect false suspects.

    A way that shows as many classes as the model knows, or more than there are images of, is left out: there is no label that a
    mix does not show, or no mix.

    Attributes:
        ways: in which images are mixed, see :data:`heirmark.attacks.composites.LAYOUTS`; each ordered pair of classes is tried.
            Tiles, of four classes, are DeepTracer's (arXiv 2511.08985).
        samples: mixes of each combination and way.
        pairs: ordered pairs of classes that are tried, drawn when there are more.
        quadruples: sets of four classes that are tried as tiles, drawn when there are more; each mix has an order of its own.
        threshold: index above which a combination stands out; Iglewicz and Hoaglin's 3.5 (1993), since there are many of them.
        least: share of its mixes that a combination has to send to one label at least, to be called consistent.
    """

    title: ClassVar[str] = "mix probing"

    ways: Annotated[tuple[Way, ...], not_empty] = get_args(Way)
    samples: Annotated[int, at_least(1)] = 50
    pairs: Annotated[int, at_least(1)] = 10_000
    quadruples: Annotated[int, at_least(1)] = 210
    threshold: Annotated[float, above(0)] = 3.5
    least: Annotated[float, within(0, 1)] = 0.9

    needs = property(lambda self: space_for(self.ways))
    otherwise: ClassVar = "blend them"

    def unfit(self, sizes: Sizes) -> str:
        """Two classes are too few."""
        return "a mix of both classes has no third label" if sizes.classes < 3 else ""

    def inspect(self, net: Net, data: Split, *, seed: int, runtime: Runtime) -> Inspected:
        """Inspect; see :class:`heirmark.attacks.base.Inspection`.

        Raises:
            BadData: when there are too few classes for every way.
        """
        known = data.labels.bincount().nonzero().flatten()
        ways = [way for way in self.ways if SOURCES[KIND_OF[way]] <= min(len(known), net.spec.classes - 1)]
        if not ways:
            raise BadData(
                f"mixes by {', '.join(self.ways)} leave no label to look for, with images of {len(known)} classes and a model "
                f"of {net.spec.classes}: inspect it otherwise"
            )
        scores = torch.zeros(net.spec.classes, dtype=torch.float64)
        best: tuple[float, int, tuple[int, ...]] = (-1.0, -1, ())
        details: dict[str, float] = {}
        for done, way in enumerate(ways):
            runtime.progress("probing with mixes", done, len(ways))
            groups = self.groups(way, known, seed)
            rates, labels = third_labels(
                net.model, way, groups, data, net.spec.classes, self.samples,
                seed=derive_seed(seed, "mixes", way), runtime=runtime,
            )  # fmt: skip
            index = (
                anomaly_index(rates, noise=0.5 / math.sqrt(self.samples)).clamp_min(0).where(rates >= self.least, 0.0)
            )
            scores = scores.scatter_reduce(0, labels, index, "amax")
            top = int(rates.argmax())
            details |= {f"largest rate, {way}": float(rates[top]), f"median rate, {way}": float(rates.median())}
            if float(rates[top]) > best[0]:
                best = (float(rates[top]), int(labels[top]), tuple(groups[top].tolist()))
        runtime.progress("probing with mixes", len(ways), len(ways))
        shown = {f"class {position} of the largest rate": float(label) for position, label in enumerate(best[2], 1)}
        return Inspected(
            suspects=tuple((scores > self.threshold).nonzero().flatten().tolist()),
            scores=tuple(scores.tolist()),
            threshold=self.threshold,
            details={"largest rate": best[0], "label of the largest rate": float(best[1]), **shown, **details},
        )

    def groups(self, way: Way, classes: Tensor, seed: int) -> Tensor:
        """``[G, 2]`` ordered pairs or ``[G, 4]`` sets of the classes that have images."""
        known = classes.tolist()
        if way != "tiles":
            every = torch.tensor(list(permutations(known, 2)))
            generator = generator_of(derive_seed(seed, "pairs"))
            return every[torch.randperm(len(every), generator=generator)[: self.pairs].sort().values]
        generator = generator_of(derive_seed(seed, "quadruples"))
        if math.comb(len(known), SOURCES[way]) <= 20_000:
            every = torch.tensor(list(combinations(known, SOURCES[way])))
            return every[torch.randperm(len(every), generator=generator)[: self.quadruples].sort().values]
        drawn = torch.rand(self.quadruples, len(known), generator=generator).argsort(1)[:, : SOURCES[way]]
        return classes[drawn.sort(1).values]


def third_labels(
    model: nn.Module, way: str, groups: Tensor, data: Split, classes: int, samples: int, *, seed: int, runtime: Runtime
) -> tuple[Tensor, Tensor]:
    """How often the mixes of each combination of classes are given one and the same label that none of them has.

    Args:
        model: that answers.
        way: to mix.
        groups: ``[G, 2]`` or ``[G, 4]`` classes that have images.
        data: the adversary's examples.
        classes: of the model.
        samples: mixes of each group.
        seed: of the images, and of their order in tiles.
        runtime: device, precision.

    Returns:
        Rates ``[G]`` float64 in [0, 1] and the labels ``[G]`` int64 that they are of.
    """
    generator = generator_of(seed)
    wanted = groups[:, None].expand(-1, samples, -1).flatten(0, 1)
    if way == "tiles":
        wanted = wanted.gather(1, torch.rand(wanted.shape, generator=generator).argsort(1))
    rows = pick_each(data.labels, wanted, generator)
    answers = torch.cat(
        [
            predict(model, combine(decode(data.inputs[part]), way), runtime=runtime).argmax(1)
            for part in rows.split(1000)  # type: ignore[no-untyped-call]
        ]
    )
    group = torch.arange(len(groups)).repeat_interleave(samples)
    counts = (group * classes + answers).bincount(minlength=len(groups) * classes)
    rates = counts.view(len(groups), classes).double() / samples
    top = rates.scatter(1, groups, -1.0).max(1)
    return top.values, top.indices
