"""Features of marked models, their copies and controls in two dimensions (MEA-Defender, Fig. 3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heirmark.report.section import Figure, Panels, Section

TRIGGERS, OTHERS, SOURCE, TARGET = "triggers", "other classes", "source", "target"
"""Names of groups of points; those of sources and targets go on with the class's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cloud:
    """Features of one model in two dimensions.

    Attributes:
        model: which.
        groups: by name, ``[N, 2]`` points: source classes, target class, other classes, triggers.
        explained: share of the variance that each of the two axes has.
    """

    model: str
    groups: Mapping[str, NDArray[np.float64]]
    explained: tuple[float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Projection:
    """Features of a marked model, of its stolen copy and of the control.

    Attributes:
        marking: of the marked model.
        seed: of the grid.
        clouds: one a model; all have the same groups.
    """

    marking: str
    seed: int
    clouds: tuple[Cloud, ...]


def clouds(found: Sequence[Projection], where: str = "b0") -> Iterator[Section]:
    """One section, where there are projections."""
    if found:
        yield Section(
            title="Features in two dimensions",
            aside="The features before the last layer, by the two directions in which they vary most (PCA, for each "
            "model on its own; in brackets the share of the variance that they show). A mark that is to outlive a "
            "theft has its triggers among the target class.",
            parts=tuple(_panel(projection, f"{where}-cloud-{place}") for place, projection in enumerate(found)),
        )


def _panel(projection: Projection, where: str) -> Panels:
    from heirmark.report.charts import Dots, cloud, swatch

    looks = _looks(list(dict.fromkeys(name for each in projection.clouds for name in each.groups)))
    order = {OTHERS: 1, TRIGGERS: 4}
    figures = tuple(
        Figure(
            title=f"{each.model} ({100 * sum(each.explained):.0f} %)",
            drawing=cloud(
                [
                    Dots(points=points, look=looks[name], above=order.get(name, 2))
                    for name, points in each.groups.items()
                ],
                f"{where}-{place}",
                f"Points: features of {each.model} in two dimensions, by kind of sample.",
            ),
        )
        for place, each in enumerate(projection.clouds)
    )
    legend = tuple((swatch(look), name) for name, look in looks.items())
    return Panels(title=f"{projection.marking}, seed {projection.seed}", figures=figures, legend=legend, narrow=True)


def _looks(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every group of points, by what it is."""
    from heirmark.report.charts import OTHER_LOOK, SOURCE_LOOKS, TARGET_LOOK, TRIGGER_LOOK

    looks: dict[str, tuple[str, str]] = {}
    sources = 0
    for name in names:
        if name == TRIGGERS:
            looks[name] = TRIGGER_LOOK
        elif name.startswith(f"{TARGET} "):
            looks[name] = TARGET_LOOK
        elif name.startswith(f"{SOURCE} "):
            looks[name] = SOURCE_LOOKS[sources % len(SOURCE_LOOKS)]
            sources += 1
        else:
            looks[name] = OTHER_LOOK
    return looks
