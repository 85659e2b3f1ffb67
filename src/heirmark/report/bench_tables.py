"""The tables of a grid as Markdown, for documents, and for the terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from heirmark.errors import printable
from heirmark.report.bench import (
    BenchBlock,
    BenchReport,
    called,
    hits,
    printed,
    probed,
    reasons,
    remarks,
    tabled,
    trial_name,
)
from heirmark.report.content import DASH, percent, spread_text
from heirmark.report.render import CAPTION
from heirmark.results.rows import Kind
from heirmark.results.summary import Summary

VERDICT_COLUMNS = (
    "watermark", "ACC", "worst", "WSR", "worst", "control’s worst WSR", "false alarms", "called marked",
)  # fmt: skip
SEARCH_COLUMNS = ("watermark", "target named", "false suspects, mean", "target named on the control")
SCREEN_COLUMNS = ("watermark", "triggers flagged", "test inputs flagged", "ACC", "WSR", "called marked")


def markdown(report: BenchReport) -> str:
    """The tables and notes as Markdown, the same bytes for the same rows: without date, machine and incidents.

    Args:
        report: whose texts are escaped: what would be markup is shown as it is.
    """
    lines = [f"# {_plain(report.title)}", ""]
    if report.note:
        lines += [_plain(report.note), ""]
    for block in report.blocks:
        lines += [f"## {_plain(block.name)}", "", *_block(block)]
    notes = [note for note in report.notes if note not in report.incidents]
    if notes:
        lines += ["## Notes", "", *(f"- {_plain(note)}" for note in notes), ""]
    if "command" in report.provenance:
        # Two backticks, between which one of the command's own means nothing.
        lines += [f"Made by `` {printable(report.provenance['command'])} ``.", ""]
    return "\n".join(lines)


def _block(block: BenchBlock) -> Iterator[str]:
    told = [row for _, trials in tabled(block) for _, rows in trials for row in rows]
    if told:
        yield from _table(("trial", *VERDICT_COLUMNS), [line for row in told for line in _verdict(row)])
    verdicts = [row for row in block.rows if row.kind == "verdict"]
    for heading, points in (
        ("Points of curves", [row for row in verdicts if row.curve is not None and row.square is None]),
        ("Pairs of classes", [row for row in verdicts if row.square is not None]),
    ):
        if points:
            yield from (f"### {heading}", "")
            yield from _table(("trial", *VERDICT_COLUMNS), [line for row in points for line in _verdict(row)])
    probes: tuple[tuple[Kind, Sequence[str], str], ...] = (
        ("search", SEARCH_COLUMNS, "Searches for the mark"),
        ("screen", SCREEN_COLUMNS, "Screens of queries"),
    )
    for kind, columns, heading in probes:
        rows = [row for found in probed(block, kind).values() for row in found]
        if rows:
            yield from (f"### {heading}", "")
            yield from _table((kind, *columns), [_probe(row) for row in rows])
    if block.shifts:
        yield from ("### Weight shift by layer", "")
        yield from _shifts(block)
    told_besides = [(row, text) for row in block.rows for text in (*reasons(row), *remarks(row))]
    if told_besides:
        yield from (
            f"- {_plain(row.marking)}, {_plain(trial_name(row.question))}: {_plain(text)}" for row, text in told_besides
        )
        yield ""


def _shifts(block: BenchBlock) -> list[str]:
    markings, layers = (list(dict.fromkeys(pair[side] for pair in block.shifts)) for side in (0, 1))
    rows = [(name, *(percent(block.shifts.get((name, layer))) for layer in layers)) for name in markings]
    return _table(("watermark", *layers), rows)


def _verdict(row: Summary) -> Iterator[Sequence[str]]:
    figures = ["failed", *[""] * 3]
    if row.failed < len(row.marked):
        figures = [
            spread_text(row.accuracy),
            percent(row.accuracy.lowest),
            spread_text(row.wsr),
            percent(row.wsr.lowest),
        ]
    # The control is told of in any case: where the marked arm failed it may have been judged.
    control = (percent(row.control_wsr.highest), called(row, "control"))
    yield (trial_name(row.question), row.marking, *figures, *control, called(row, "marked"))
    for paper in row.papers:
        rates = [DASH if rate is None else printed(rate) for rate in (paper.accuracy, paper.wsr)]
        yield ("", f"… {paper.source}", rates[0], "", rates[1], "", "", "", "")


def _probe(row: Summary) -> Sequence[str]:
    if row.kind == "search":
        false = f"{row.false_suspects:.1f}" if math.isfinite(row.false_suspects) else DASH
        return (row.question, row.marking, hits(row, "marked"), false, hits(row, "control"))
    figures = [percent(row.detected), percent(row.flagged), spread_text(row.accuracy), spread_text(row.wsr)]
    return (row.question, row.marking, *figures, called(row, "marked"))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *([_plain(text) for text in row] for row in rows)]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def _plain(text: str) -> str:
    r"""Untrusted text as Markdown shows it.

    Example:
        >>> print(_plain("a|b *c* <i>"))
        a\|b \*c\* \<i\>
    """
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", printable(text))


def bench_table(block: BenchBlock) -> Table:
    """The verdicts of a block for the terminal, readable at 80 columns: points of curves and pairs of classes are left out."""
    result = Table(
        box=box.SIMPLE_HEAD,
        header_style="bold",
        pad_edge=False,
        title=Text(printable(block.name), style="bold"),
        title_justify="left",
        caption=f"{CAPTION} worst: of the seeds; control: the worst WSR of an unmarked model, ! a false alarm.",
        caption_justify="left",
    )
    result.add_column("watermark", overflow="fold")
    for name in ("ACC", "WSR", "worst", "control"):
        result.add_column(name, justify="right", no_wrap=True)
    result.add_column("marked", no_wrap=True)
    for _, trials in tabled(block):
        for trial, rows in trials:
            result.add_section()
            result.add_row(Text(trial_name(trial), style="italic"))
            for row in rows:
                result.add_row(Text("  " + printable(row.marking)), *_cells(row))
    return result


def _cells(row: Summary) -> list[str | Text]:
    control = percent(row.control_wsr.highest) + ("!" if row.false_alarms else "")
    if row.failed == len(row.marked):
        return ["", "", "", control, "failed"]
    return [
        percent(row.accuracy.mean),
        spread_text(row.wsr),
        percent(row.wsr.lowest),
        control,
        Text(called(row, "marked"), style="bold" if row.called_marked == len(row.marked) else ""),
    ]


def probe_table(block: BenchBlock) -> Table | None:
    """The searches and screens of a block for the terminal; None without any."""
    rows = [row for row in block.rows if row.kind != "verdict"]
    rows.sort(key=lambda row: (row.kind == "screen",))
    if not rows:
        return None
    result = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for name in ("probe", "watermark"):
        result.add_column(name, overflow="fold")
    for name in ("found", "of inputs", "control", "WSR"):
        result.add_column(name, justify="right", no_wrap=True)
    result.add_column("marked", no_wrap=True)
    for row in rows:
        if row.kind == "search":
            figures = [hits(row, "marked"), "", hits(row, "control"), "", ""]
        else:
            figures = [
                percent(row.detected),
                percent(row.flagged),
                "",
                percent(row.wsr.mean),
                called(row, "marked"),
            ]
        result.add_row(Text(printable(row.question)), Text(printable(row.marking)), *figures)
    return result
