"""Who is caught: of all copies by theft that a thief would use, and for every pair of victim and thief."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from heirmark.report.section import Column, Entry, Line, Note, Section, Sheet, Source, Table, Text, notes
from heirmark.report.sections.glance import SIGNS
from heirmark.report.words import DASH, markdown_table, number, percent, points
from heirmark.results.catches import USABLE, Catches, Cost, by, catches, costs, pairs
from heirmark.results.rows import Row

TITLE = "Copies caught"
COLUMNS = ("Watermark", "Caught", "False alarms", "Accuracy", "WSR", "Queries", "Weakest")
NONE = "none usable"
FEW = 3
"""So many pairs are named."""
WORDS = (
    f"Caught: the share of the usable copies, those with {USABLE:.0%} of their victim’s accuracy, that is called marked. "
    "False alarms: copies of unmarked models, by the same thefts, that are called marked. Accuracy: of the marked models, less "
    "that of unmarked ones. WSR: of the usable copies. Queries: that a key needs to catch such a copy nine times in ten, the "
    "median of the copies that are caught."
)
SIGNED = (
    (SIGNS["all"], "every usable copy is caught"),
    (SIGNS["some"], "some are"),
    (SIGNS["none"], "none is"),
)


def caught(source: Source) -> Iterator[Section]:
    """A table of all watermarks, where something was stolen, and with several victims a small one for each watermark."""
    rows = [row for summary in source.rows for row in summary.rows]
    lines = by_mark(rows)
    if not lines:
        return
    last = len(COLUMNS) - 1
    columns = tuple(Column(name=name, number=0 < place < last) for place, name in enumerate(COLUMNS))
    table = Table(label=TITLE, columns=columns, groups=(("", lines),), style="suspects")
    sheet = Sheet(columns=COLUMNS, rows=tuple(map(_texts, lines)))
    yield Section(title="By watermark", parts=(table,), sheets=(sheet,))
    for mark, (victims, thieves) in by_pair(rows).items():
        columns = (Column(name="", number=False), *(Column(name=victim) for victim in victims))
        table = Table(label=f"{TITLE}, {mark}", columns=columns, groups=(("", thieves),), style="glance")
        text = Text(text="Thieves by victims: usable copies that are caught, and their mean WSR.", signs=SIGNED)
        yield Section(title=mark, parts=(text, table))


def catches_markdown(rows: Sequence[Row]) -> str:
    """The same for documents: a line a watermark and, with several victims, thieves by victims for each; empty without thefts."""
    if not (lines := by_mark(rows)):
        return ""
    told = [*markdown_table(COLUMNS, [_texts(line) for line in lines]), WORDS]
    for mark, (victims, thieves) in by_pair(rows).items():
        told += ["", *markdown_table((mark, *victims), [_texts(line) for line in thieves])]
        told.append(f"{', '.join(' '.join(pair) for pair in SIGNED)}; their mean WSR.")
    return "\n".join([*told, ""])


def by_mark(rows: Sequence[Row]) -> tuple[Line, ...]:
    """A line under :data:`COLUMNS` for every watermark of which copies were made."""
    return tuple(
        _line(mark, found, mine)
        for mark, mine in by(lambda row: row.marking, rows).items()
        if (found := catches(mine)).copies or found.failed
    )


def by_pair(rows: Sequence[Row]) -> dict[str, tuple[list[str], tuple[Line, ...]]]:
    """By watermark, its victims, and for every thief a line with a cell a victim; empty where there is one victim only."""
    made = {}
    if several(rows):
        for mark, mine in by(lambda row: row.marking, rows).items():
            found = pairs(mine)
            victims, thieves = (list(dict.fromkeys(place[side] for place in found)) for side in (0, 1))
            made[mark] = (
                victims,
                tuple(
                    Line(name=thief, cells=tuple(_cell(found.get((victim, thief))) for victim in victims))
                    for thief in thieves
                ),
            )
    return {mark: (victims, thieves) for mark, (victims, thieves) in made.items() if thieves}


def weakest(rows: Sequence[Row]) -> list[str]:
    """The thefts of victims of which the smallest share is caught, in words; none where every usable copy is."""
    missed = [(place, pair) for place, pair in pairs(rows).items() if pair.caught < len(pair.usable)]
    worst = sorted(missed, key=lambda item: (item[1].rate, item[1].wsr.mean))
    named = several(rows)
    told = [
        f"{trial}{f', of {block}' if named else ''}: {pair.caught} of {len(pair.usable)}"
        for (block, trial), pair in worst[:FEW]
    ]
    return [*told, f"and {len(worst) - FEW} more"] if len(worst) > FEW else told


def several(rows: Sequence[Row]) -> bool:
    """Whether there is more than one victim, so that they are named."""
    return len({row.block for row in rows}) > 1


def _line(mark: str, found: Catches, rows: Sequence[Row]) -> Line:
    cost, weak = costs(rows), weakest(rows)
    lowest = f"worst {percent(found.wsr.lowest)}" if found.usable else ""
    return Line(
        name=mark,
        cells=(
            Entry(text=percent(found.rate) if found.usable else NONE, strong=True, below=notes(*_counts(found))),
            Entry(text=f"{found.alarms} of {found.verdicts}", below=_accused(found)),
            Entry(
                text=f"{points(cost.change.mean)} points" if cost.worst else DASH,
                below=notes(_loss(cost, several(rows))),
            ),
            Entry(text=percent(found.wsr.mean), below=notes(lowest)),
            _queries(found.needed),
            Entry(below=notes(*weak)) if weak else Entry(text=DASH),
        ),
    )


def _counts(found: Catches) -> tuple[str, ...]:
    """How many copies the rate is of, and how many it is not of."""
    useless = len(found.copies) - len(found.usable)
    return (
        f"{found.caught} of {len(found.usable)} usable" if found.usable else "",
        f"{useless} not usable" if useless else "",
        f"{found.failed} failed" if found.failed else "",
    )


def _accused(found: Catches) -> tuple[Note, ...]:
    """Which copies of unmarked models are called marked."""
    alarms = [copy.row for copy in found.controls if copy.caught]
    return notes(*dict.fromkeys(f"{row.trial}, of {row.block}" for row in alarms), wrong=True)


def _loss(cost: Cost, named: bool) -> str:
    """What the victim and seed lost that lost most; empty when there is no choice."""
    if cost.worst is None or math.isnan(cost.change.spread):
        return ""
    whose = f"{cost.worst.block}, " if named else ""
    return f"worst {points(cost.change.lowest)}: {whose}seed {cost.worst.seed}"


def _queries(needed: Sequence[float]) -> Entry:
    """The median, and the most."""
    if not needed:
        return Entry(text=DASH)
    most = notes(f"most {number(needed[-1])}" if len(needed) > 1 else "")
    return Entry(text=number(math.ceil(statistics.median(needed))), below=most)


def _cell(pair: Catches | None) -> Entry:
    if pair is None:
        return Entry(text=DASH)
    failed = notes(f"{pair.failed} failed" if pair.failed else "", wrong=True)
    if not pair.copies:
        return Entry(text="failed", badge="wrong")
    if not pair.usable:
        return Entry(text=NONE, badge="small", below=failed)
    sign = "all" if pair.caught == len(pair.usable) else "some" if pair.caught else "none"
    useless = len(pair.copies) - len(pair.usable)
    below = notes(percent(pair.wsr.mean), f"{useless} not usable" if useless else "")
    return Entry(text=f"{pair.caught} of {len(pair.usable)}", mark=SIGNS[sign], below=(*below, *failed))


def _texts(line: Line) -> tuple[str, ...]:
    """A line for a document: what a cell says, its small texts after it."""
    return (line.name, *map(_text, line.cells))


def _text(cell: Entry) -> str:
    told = ", ".join(filter(None, [cell.text, *(note.text for note in cell.below)]))
    return f"{cell.mark} {told}" if cell.mark else told
