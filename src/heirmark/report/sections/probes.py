"""Searches of a model for the mark, and screens of queries, in tables of their own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from heirmark.report.section import Column, Entry, Line, More, Section, Sheet, Source, Table
from heirmark.report.sections.verdicts import arm_text, first_column, more_of, standing
from heirmark.report.words import DASH, called, hits, number, percent, seconds, spread_text
from heirmark.results.rows import Kind
from heirmark.results.summary import Summary

NAMED = ("target named", "false suspects, mean", "target named on the control")
FLAGGED = ("triggers flagged", "test inputs flagged", "ACC", "WSR", "called marked")
SEARCHES = (
    Column(name="Target named"),
    Column(name="False suspects,\nmean", label="False suspects"),
    Column(name="Target named\non the control", label="On the control"),
    Column(name="Time"),
)
SCREENS = (
    Column(name="Triggers\nflagged", label="Triggers flagged"),
    Column(name="Test inputs\nflagged", label="Test inputs flagged"),
    Column(name="ACC"),
    Column(name="WSR"),
    Column(name="Called marked", number=False),
)


def searches(source: Source) -> Iterator[Section]:
    """One section, where there are searches."""
    if found := probed(source.rows, "search"):
        yield Section(
            title="Looking for the mark",
            aside="Searches of a model for a hidden target class. One works when it names the key’s target on the marked "
            "model, nothing else, and nothing on the control.",
            parts=(_table(found, SEARCHES, "searches", source),),
            sheets=(_sheet(found, "Searches for the mark", ("search", "watermark", *NAMED)),),
        )


def screens(source: Source) -> Iterator[Section]:
    """One section, where there are screens."""
    if found := probed(source.rows, "screen"):
        yield Section(
            title="Refusing the verifier",
            aside="Screens before a thief’s service, which answer what they take for a verifier’s query with a random "
            "label. One works when it flags the key’s triggers and little else.",
            parts=(_table(found, SCREENS, "screens", source),),
            sheets=(_sheet(found, "Screens of queries", ("screen", "watermark", *FLAGGED)),),
        )


def probed(rows: Sequence[Summary], kind: Kind) -> dict[str, list[Summary]]:
    """The searches or screens by name."""
    found: dict[str, list[Summary]] = {}
    for row in rows:
        if row.kind == kind:
            found.setdefault(row.probe, []).append(row)
    return found


def _table(found: Mapping[str, Sequence[Summary]], columns: Sequence[Column], what: str, source: Source) -> Table:
    lines = {
        probe: tuple(
            Line(name=probe if source.alone else row.marking, cells=_cells(row), more=_more(row, source))
            for row in rows
        )
        for probe, rows in found.items()
    }
    return Table(
        label=f"{source.name}, {what}",
        columns=(first_column(source), *columns),
        groups=(("", tuple(chain(*lines.values()))),) if source.alone else tuple(lines.items()),
    )


def _sheet(found: Mapping[str, Sequence[Summary]], heading: str, columns: tuple[str, ...]) -> Sheet:
    rows = tuple((row.probe, row.marking, *_told(row)) for row in chain(*found.values()))
    return Sheet(heading=heading, columns=columns, rows=rows)


def _more(row: Summary, source: Source) -> More:
    """What a search of a single seed suspects stands in the open."""
    more = more_of(row, source)
    if row.kind == "screen" or len(row.marked) > 1:
        return more
    told = [f"{'Marked model' if each.marked else 'Control'}: {arm_text(each, source)}." for each in row.rows]
    details = tuple(replace(detail, texts=detail.texts[len(told) :]) for detail in more.details)
    return replace(more, small=(*told, *more.small), details=details)


def _cells(row: Summary) -> tuple[Entry, ...]:
    """Under :data:`SEARCHES` or :data:`SCREENS`."""
    if row.kind == "search":
        first, *rest = hits(row.marked), number(round(row.false_suspects, 1)), hits(row.control), seconds(row.seconds)
        return (Entry(text=first, strong=True), *(Entry(text=text) for text in rest))
    first, *rest, _ = _told(row)
    return (Entry(text=first, strong=True), *(Entry(text=text) for text in rest), standing(row))


def _told(row: Summary) -> tuple[str, ...]:
    """Under :data:`NAMED` or :data:`FLAGGED`."""
    if row.kind == "search":
        false = f"{row.false_suspects:.1f}" if math.isfinite(row.false_suspects) else DASH
        return (hits(row.marked), false, hits(row.control))
    figures = (percent(row.detected), percent(row.flagged), spread_text(row.accuracy), spread_text(row.wsr))
    return (*figures, called(row.marked))
