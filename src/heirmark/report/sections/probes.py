"""Searches of a model for the mark, and screens of queries, in tables of their own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from heirmark.report.section import Column, Entry, Line, More, Section, Sheet, Source, Table
from heirmark.report.sections.verdicts import arm_text, more_of, standing
from heirmark.report.words import DASH, called, hits, number, percent, seconds, spread_text
from heirmark.results.rows import Kind
from heirmark.results.summary import Summary

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
    found = probed(source.rows, "search")
    if not found:
        return
    table = Table(label=f"{source.name}, searches", columns=(_first(source), *SEARCHES), groups=_groups(found, source))
    columns = ("search", "watermark", "target named", "false suspects, mean", "target named on the control")
    yield Section(
        title="Looking for the mark",
        aside="Searches of a model for a hidden target class. One works when it names the key’s target on the marked "
        "model, nothing else, and nothing on the control.",
        parts=(table,),
        sheets=(Sheet(heading="Searches for the mark", columns=columns, rows=tuple(map(_search, _all(found)))),),
    )


def screens(source: Source) -> Iterator[Section]:
    """One section, where there are screens."""
    found = probed(source.rows, "screen")
    if not found:
        return
    table = Table(label=f"{source.name}, screens", columns=(_first(source), *SCREENS), groups=_groups(found, source))
    columns = ("screen", "watermark", "triggers flagged", "test inputs flagged", "ACC", "WSR", "called marked")
    yield Section(
        title="Refusing the verifier",
        aside="Screens before a thief’s service, which answer what they take for a verifier’s query with a random "
        "label. One works when it flags the key’s triggers and little else.",
        parts=(table,),
        sheets=(Sheet(heading="Screens of queries", columns=columns, rows=tuple(map(_screen, _all(found)))),),
    )


def probed(rows: Sequence[Summary], kind: Kind) -> dict[str, list[Summary]]:
    """The searches or screens by name."""
    found: dict[str, list[Summary]] = {}
    for row in rows:
        if row.kind == kind:
            found.setdefault(row.probe, []).append(row)
    return found


def _all(found: dict[str, list[Summary]]) -> list[Summary]:
    return [row for rows in found.values() for row in rows]


def _groups(found: dict[str, list[Summary]], source: Source) -> tuple[tuple[str, tuple[Line, ...]], ...]:
    def line(row: Summary, name: str) -> Line:
        return Line(name=name, cells=_cells(row), more=_more(row, source))

    if source.alone:
        return (("", tuple(line(row, row.probe) for row in _all(found))),)
    return tuple((probe, tuple(line(row, row.marking) for row in rows)) for probe, rows in found.items())


def _first(source: Source) -> Column:
    return Column(name="Attack" if source.alone else "Watermark", number=False)


def _more(row: Summary, source: Source) -> More:
    """What a search of a single seed suspects stands in the open."""
    more = more_of(row, source)
    if row.kind == "screen" or len(row.marked) > 1:
        return more
    told = [f"{'Marked model' if each.marked else 'Control'}: {arm_text(each, source)}." for each in row.rows]
    details = tuple(replace(detail, texts=detail.texts[len(told) :]) for detail in more.details)
    return replace(more, small=(*told, *more.small), details=details)


def _cells(row: Summary) -> tuple[Entry, ...]:
    if row.kind == "search":
        figures = (hits(row.marked), number(round(row.false_suspects, 1)), hits(row.control), seconds(row.seconds))
        return tuple(Entry(text=text, strong=place == 0) for place, text in enumerate(figures))
    figures = (percent(row.detected), percent(row.flagged), spread_text(row.accuracy), spread_text(row.wsr))
    return (*(Entry(text=text, strong=place == 0) for place, text in enumerate(figures)), standing(row))


def _search(row: Summary) -> tuple[str, ...]:
    false = f"{row.false_suspects:.1f}" if math.isfinite(row.false_suspects) else DASH
    return (row.probe, row.marking, hits(row.marked), false, hits(row.control))


def _screen(row: Summary) -> tuple[str, ...]:
    figures = (percent(row.detected), percent(row.flagged), spread_text(row.accuracy), spread_text(row.wsr))
    return (row.probe, row.marking, *figures, called(row.marked))
