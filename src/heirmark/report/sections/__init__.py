"""Sections of a report, one file a kind: each a function of rows, or of what else it shows, that yields none, one or several.

Those of :data:`OF_ROWS` are made of every grid's rows, in this order; a new one of that kind is a file here and a name there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from heirmark.report.section import Section, Source
from heirmark.report.sections.curves import curves
from heirmark.report.sections.glance import glance
from heirmark.report.sections.maps import maps
from heirmark.report.sections.probes import screens, searches
from heirmark.report.sections.verdicts import verdicts

OF_ROWS: tuple[Callable[[Source], Iterator[Section]], ...] = (glance, verdicts, curves, maps, searches, screens)


def sections_of(source: Source) -> tuple[Section, ...]:
    """All sections that rows give."""
    return tuple(section for make in OF_ROWS for section in make(source))
