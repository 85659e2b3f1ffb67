"""What a report is made of: chapters of sections, sections of tables and drawings. Data alone; ``page.html`` shows them all.

Texts are untrusted and escaped where they are shown. Drawings are markup already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from markupsafe import Markup

from heirmark.results.rows import Row
from heirmark.results.summary import Summary


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the sections of a chapter are made of.

    Attributes:
        name: of the chapter, such as a grid's block.
        rows: figures over seeds, in the order of the grid.
        command: that makes a row again, and not much else.
        classes: names of the classes, where inspections are told of; else they have numbers.
        usable: accuracy below which a model is of no use to a thief, so that its rows are grey; NaN for no such bound.
        where: before the names of all drawings, so that those of several chapters fit on a page.
    """

    name: str
    rows: tuple[Summary, ...]
    command: Callable[[Row], str] | None = None
    classes: tuple[str, ...] = ()
    usable: float = float("nan")
    where: str = "b0"

    @property
    def alone(self) -> bool:
        """Whether there is one watermark only, so that lines have the names of attacks."""
        return len({row.marking for row in self.rows}) == 1


@dataclass(frozen=True, kw_only=True)
class Note:
    """Small text in a cell."""

    text: str
    wrong: bool = False


def notes(*texts: str, wrong: bool = False) -> tuple[Note, ...]:
    """Those of the texts that say something, as small text."""
    return tuple(Note(text=text, wrong=wrong) for text in texts if text)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A cell of a table.

    Attributes:
        text: what it says.
        strong: whether it is the figure that counts.
        badge: kind of badge around the text, an outcome or ``"some"``.
        mark: a sign before the text.
        below: small texts.
    """

    text: str = ""
    strong: bool = False
    badge: str = ""
    mark: str = ""
    below: tuple[Note, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Detail:
    """One seed of a row: what it says of every model, the command that makes it again, names of its stages."""

    name: str
    texts: tuple[str, ...]
    command: str = ""
    stages: str = ""


@dataclass(frozen=True, kw_only=True)
class More:
    """What stands below a line.

    Attributes:
        wrong: what failed or is invalid.
        small: remarks and papers' figures.
        title: of the details.
        details: that unfold.
        bare: whether there is room for the title in the line itself.
    """

    wrong: tuple[str, ...] = ()
    small: tuple[str, ...] = ()
    title: str = ""
    details: tuple[Detail, ...] = ()
    bare: bool = False


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a table: a cell a column but the first, small text below the name, what stands below it; grey if ``faint``."""

    name: str
    cells: tuple[Entry, ...]
    setting: str = ""
    more: More | None = None
    faint: bool = False


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: its name, of which a line feed breaks the line; whether it holds numbers; what a narrow page calls it."""

    name: str
    number: bool = True
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table.

    Attributes:
        label: for those who do not see it.
        columns: the first is of the lines' names.
        groups: lines by heading; empty for none.
        style: ``"rows"`` unfold; ``"suspects"`` do not; ``"plain"`` and ``"glance"`` are close numbers that scroll.
        folded: heading below which it is hidden until it is asked for; empty shows it.
    """

    kind: ClassVar[str] = "table"
    label: str
    columns: tuple[Column, ...]
    groups: tuple[tuple[str, tuple[Line, ...]], ...]
    style: Literal["rows", "suspects", "plain", "glance"] = "rows"
    folded: str = ""


Legend: TypeAlias = tuple[tuple[Markup, str], ...]
"""Swatches and what they stand for."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing with a title and a legend."""

    drawing: Markup
    title: str = ""
    legend: Legend = ()


@dataclass(frozen=True, kw_only=True)
class Panels:
    """Drawings side by side, of a width that lets two or, if ``narrow``, three stand in a row; one legend for all, if any."""

    kind: ClassVar[str] = "panels"
    figures: tuple[Figure, ...]
    title: str = ""
    legend: Legend = ()
    narrow: bool = False


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph of small text, with signs and what they stand for after it."""

    kind: ClassVar[str] = "text"
    text: str
    signs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A headline figure: what it is, its value, what to hold it against; or a few labelled pairs instead of a value."""

    name: str
    value: str = ""
    against: str = ""
    pairs: tuple[tuple[str, str, str], ...] = ()
    columns: tuple[str, str] = ("", "")


@dataclass(frozen=True, kw_only=True)
class Look:
    """What an input looks like: an image and a sound as data URIs, or a text; see :mod:`heirmark.report.looks`."""

    image: str = ""
    sound: str = ""
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A trigger, the hosts it was made of with their classes, its matched control if any, and the answer that the key expects."""

    hosts: tuple[tuple[Look, str], ...]
    trigger: Look
    control: Look | None
    target: str


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Triggers beside their hosts."""

    kind: ClassVar[str] = "gallery"
    examples: tuple[Shown, ...]


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Inputs in a row, each as it looks, what it is for those who do not see it, and lines of small text below it."""

    kind: ClassVar[str] = "strip"
    label: str
    pictures: tuple[tuple[Look, str, tuple[str, ...]], ...]


Part: TypeAlias = Table | Panels | Text | Gallery | Strip


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table of a document: a heading, if any, columns, and rows of as many texts."""

    heading: str = ""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of a report: its parts on the page, its sheets in a document; the aside is what a reader must know."""

    title: str
    aside: str = ""
    parts: tuple[Part, ...]
    sheets: tuple[Sheet, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """Sections of one task or model, and the figures that they are made of; without a name the sections stand for themselves."""

    name: str = ""
    aside: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    sections: tuple[Section, ...]
    rows: tuple[Summary, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a page shows.

    Attributes:
        kind: of the report, in a word.
        title: headline.
        note: what a reader should know of the settings.
        summary: what was found, in sentences.
        facts: short name to short value.
        tiles: headline figures.
        chapters: the sections.
        notes: remarks, one a paragraph.
        incidents: those of the notes that tell of one run and not of its rows: a picture that failed, a tracker not told.
        provenance: how to make these numbers again.
    """

    kind: str = "report"
    title: str
    note: str = ""
    summary: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    tiles: tuple[Tile, ...] = ()
    chapters: tuple[Chapter, ...]
    notes: tuple[str, ...] = ()
    incidents: tuple[str, ...] = ()
    provenance: Mapping[str, str]
