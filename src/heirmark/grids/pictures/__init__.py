"""Sections of a report over finished stages, for blocks that ask for them.

Each kind is a file here and a name in :data:`heirmark.grids.grid.PICTURES`: ``draw`` tells of a watermark's cells what is to be
seen, ``show`` makes a section of all that a block has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from heirmark.errors import told
from heirmark.grids.grid import PICTURES
from heirmark.grids.plan import Plan
from heirmark.grids.reporting import where
from heirmark.grids.settings import Contexts
from heirmark.report.section import Section
from heirmark.stages.store import Store


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """What was drawn, by block, and notes on what could not be drawn."""

    sections: Mapping[str, tuple[Section, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def pictures_of(plan: Plan, store: Store, contexts: Contexts) -> Pictures:
    """The pictures that the blocks ask for; a stage that is not in the store is not in them."""
    sections: dict[str, tuple[Section, ...]] = {}
    notes: list[str] = []
    for number, block in enumerate(plan.grid.blocks):
        kinds = [import_module(f"{__name__}.{file}") for name, file in PICTURES.items() if name in block.pictures]
        found: list[list[Any]] = [[] for _ in kinds]
        for marking in block.markings:
            cells = [cell for cell in plan.cells if (cell.block, cell.marking.name) == (block.name, marking.name)]
            try:
                for kind, drawn in zip(kinds, found, strict=True):
                    drawn += kind.draw(block, cells, store, contexts)
            except Exception as error:  # a picture that fails must not take the figures along
                notes.append(f"No picture of {marking.name}: {told(error)}")
        sections[block.name] = tuple(
            section for kind, drawn in zip(kinds, found, strict=True) for section in kind.show(drawn, where(number))
        )
    return Pictures(sections=sections, notes=tuple(notes))
