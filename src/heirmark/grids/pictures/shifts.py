"""How far the weights of each layer moved while a mark was embedded (Feature Sharing, Fig. 3)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from heirmark.grids.grid import Block
from heirmark.grids.pictures.histories import history_of
from heirmark.grids.plan import Cell, setting_of
from heirmark.grids.settings import Contexts
from heirmark.models.inner import layers_of
from heirmark.models.storage import load_model
from heirmark.report.section import Figure, Panels, Section, Sheet
from heirmark.report.words import percent
from heirmark.stages.store import Store

SHIFT = "weight shift of "
"""What a history calls the shift of a layer's weights; the layer's name follows."""


@dataclass(frozen=True, kw_only=True)
class Shift:
    """How far the weights of a layer moved: the L1 length of the change over that of the weights before, the mean over seeds."""

    marking: str
    layer: str
    share: float


def draw(block: Block, cells: Sequence[Cell], store: Store, contexts: Contexts) -> Iterator[Shift]:
    """The mean weight shifts over seeds by layer, from the input on; none for a method that keeps none."""
    told = {name: value for row in history_of(cells, store) for name, value in row.items() if name.startswith(SHIFT)}
    if not told:
        return
    stages = (cell.goal.inputs["marked"] for cell in cells)
    artifact = next(found for stage in stages if (found := store.find(stage)) is not None)
    model = load_model(artifact.folder, factories=contexts(setting_of(block, cells[0].seed)).factories).model
    for name, _ in layers_of(model):
        if SHIFT + name in told:
            yield Shift(marking=cells[0].marking.name, layer=name, share=told[SHIFT + name])


def show(moved: Sequence[Shift], where: str = "b0") -> Iterator[Section]:
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
