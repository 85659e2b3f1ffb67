"""How far the weights of each layer moved while a mark was embedded (Feature Sharing, Fig. 3)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from heirmark.report.section import Figure, Panels, Section, Sheet
from heirmark.report.words import percent


@dataclass(frozen=True, kw_only=True)
class Shift:
    """How far the weights of a layer moved: the L1 length of the change over that of the weights before, the mean over seeds."""

    marking: str
    layer: str
    share: float


def shifts(moved: Sequence[Shift], where: str = "b0") -> Iterator[Section]:
    """One section, where there are shifts; ``where`` stands before the drawing's name."""
    from heirmark.report.charts import heat_map

    if not moved:
        return
    found = {(shift.marking, shift.layer): shift.share for shift in moved}
    known = [shift for shift in found.values() if math.isfinite(shift)]
    drawing = heat_map(
        found,
        ("watermark", "layer"),
        f"{where}-shifts",
        "Heat map: how far the weights of each layer moved, in percent of their length.",
        most=max(known, default=1.0) or 1.0,
    )
    markings, layers = (list(dict.fromkeys(pair[side] for pair in found)) for side in (0, 1))
    rows = tuple((name, *(percent(found.get((name, layer))) for layer in layers)) for name in markings)
    yield Section(
        title="Where the mark is",
        aside="How far the weights of each layer moved while the mark was embedded, in percent of their length before "
        "(L1), means over seeds.",
        parts=(Panels(figures=(Figure(drawing=drawing),)),),
        sheets=(Sheet(heading="Weight shift by layer", columns=("watermark", *layers), rows=rows),),
    )
