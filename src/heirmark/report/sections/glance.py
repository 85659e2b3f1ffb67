"""A whole block in one small table: which watermark is found after which trial."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from heirmark.report.section import Column, Entry, Line, Section, Source, Table, Text, notes
from heirmark.report.sections.verdicts import tabled
from heirmark.report.words import DASH, markdown_lines, markdown_text, percent, trial_name
from heirmark.results.rows import Row
from heirmark.results.summary import Summary, summarise

SIGNS = {"all": "●", "some": "◐", "none": "○"}


def glance(source: Source) -> Iterator[Section]:
    """One section, where there are several watermarks and trials."""
    columns, lines = matrix(source.rows)
    if len(columns) < 2 or len(lines) < 2:
        return
    several = max(len(row.marked) for row in source.rows) > 1
    text = Text(
        text=f"WSR{', mean and [worst seed]' if several else ''}.",
        signs=(("●", "every seed is called marked"), ("◐", "some are"), ("○", "none is")),
    )
    table = Table(
        label=f"{source.name}, at a glance",
        columns=(Column(name="", number=False), *(Column(name=name) for name in columns)),
        groups=(("", tuple(Line(name=name, cells=tuple(map(_cell, rows))) for name, rows in lines)),),
        style="glance",
    )
    yield Section(title="At a glance", parts=(text, table))


def matrix(rows: Sequence[Summary]) -> tuple[list[str], list[tuple[str, list[Summary | None]]]]:
    """Columns and lines: lines are the watermarks, or the trials where there are more of these."""
    trials = {trial: {row.marking: row for row in found} for _, group in tabled(rows) for trial, found in group}
    markings = list(dict.fromkeys(marking for found in trials.values() for marking in found))
    if len(markings) >= len(trials):
        lines = [(marking, [found.get(marking) for found in trials.values()]) for marking in markings]
        return [trial_name(trial) for trial in trials], lines
    return markings, [(trial_name(trial), [found.get(name) for name in markings]) for trial, found in trials.items()]


def _cell(row: Summary | None) -> Entry:
    if row is None:
        return Entry(text=DASH)
    if row.standing == "failed":
        return Entry(text="failed", badge="wrong")
    failed = notes(f"{row.failed} failed" if row.failed else "", wrong=True)
    if row.standing == "invalid":
        return Entry(text="invalid", badge="small", below=failed)
    worst = f"[{percent(row.wsr.lowest)}]" if len(row.marked) > 1 else ""
    below = (*notes(worst, f"{row.invalid} invalid" if row.invalid else ""), *failed)
    return Entry(text=percent(row.wsr.mean), mark=SIGNS[row.standing], below=below)


def glance_markdown(rows: Sequence[Row]) -> str:
    """A grid's verdicts as matrices for documents, one a block; curves, heat maps and probes are left out."""
    lines: list[str] = []
    blocks = dict.fromkeys(row.block for row in rows)
    for block in blocks:
        mine = summarise(row for row in rows if row.block == block)
        columns, found = matrix(mine)
        shown = [row for _, cells in found for row in cells if row is not None]
        if not shown:
            continue
        seeds = len({seed for row in shown for seed in row.seeds})
        corner = f"mean WSR [worst of {seeds} seeds]" if seeds > 1 else "WSR"
        title = f"{markdown_text(block)}: {corner}" if len(blocks) > 1 else corner
        head = [title, *map(markdown_text, columns)]
        body = [[markdown_text(name), *map(_short, cells)] for name, cells in found]
        lines += ["", *markdown_lines([head, ["---"] * len(head), *body]), _told(shown)]
    return "\n".join([*lines[1:], ""])


def _short(row: Summary | None) -> str:
    if row is None:
        return DASH
    if row.standing in ("failed", "invalid"):
        return row.standing
    worst = f" [{100 * row.wsr.lowest:.0f}]" if len(row.marked) > 1 else ""
    told = f"{SIGNS[row.standing]} {100 * row.wsr.mean:.0f}{worst}"
    rest = [f"{many} {what}" for many, what in ((row.invalid, "invalid"), (row.failed, "failed")) if many]
    return f"{told}, {', '.join(rest)}" if rest else told


def _told(rows: Sequence[Summary]) -> str:
    """What the signs mean, and how many controls were called marked."""
    several = any(len(row.marked) > 1 for row in rows)
    signs = "● every seed is called marked, ◐ some are, ○ none is" if several else "● called marked, ○ not"
    judged = sum(bool(row.outcome) for found in rows for row in found.control)
    alarms = sum(row.false_alarms for row in rows)
    return f"{signs}. Of {judged} verdicts on unmarked controls, {alarms or 'none'} {'say' if alarms > 1 else 'says'} marked."
