"""The tables of a report for the terminal, readable at 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from heirmark.errors import printable
from heirmark.report.sections.suspects import Suspect
from heirmark.report.sections.verdicts import tabled
from heirmark.report.words import CAPTION, OUTCOMES, called, hits, p_text, percent, spread_text, trial_name
from heirmark.results.summary import Summary


def _table(names: Sequence[str], numbers: Sequence[str], last: str, **more: Any) -> Table:
    """An empty table: columns of names, which wrap, of numbers, which do not, and of what is said of them."""
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, caption_justify="left", **more)
    for name in names:
        made.add_column(name, overflow="fold")
    for name in numbers:
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column(last, no_wrap=True)
    return made


def verdict_table(name: str, rows: Sequence[Summary]) -> Table:
    """The verdicts of a block: points of curves and pairs of classes are left out."""
    result = _table(
        ["watermark"],
        ["ACC", "WSR", "worst", "control"],
        "marked",
        title=Text(printable(name), style="bold"),
        title_justify="left",
        caption=f"{CAPTION} worst: of the seeds; control: the worst WSR of an unmarked model, ! a false alarm.",
    )
    for _, trials in tabled(rows):
        for trial, found in trials:
            result.add_section()
            result.add_row(Text(trial_name(trial), style="italic"))
            for row in found:
                control = percent(row.control_wsr.highest) + ("!" if row.false_alarms else "")
                figures = [percent(row.accuracy.mean), spread_text(row.wsr), percent(row.wsr.lowest)]
                said = Text(called(row.marked), style="bold" if row.standing == "all" else "")
                if row.standing == "failed":
                    figures, said = ["", "", ""], Text("failed")
                result.add_row(Text("  " + printable(row.marking)), *figures, control, said)
    return result


def attack_table(rows: Sequence[Summary]) -> Table:
    """The verdicts of an audit, a line an attack: what it left of the marked model, and of its twin."""
    caption = f"{CAPTION} twin: the same on an unmarked model, ! a false alarm."
    result = _table(["attack"], ["ACC", "WSR", "twin", "p-value"], "verdict", caption=caption)
    group = ""
    for row in rows:
        if row.kind != "verdict":
            continue
        if row.first.group != group:
            group = row.first.group
            result.add_section()
            result.add_row(Text(printable(group), style="italic"))
        (marked,) = row.marked
        result.add_row(
            Text("  " + trial_name(row.trial)),
            percent(marked.accuracy),
            percent(marked.wsr),
            percent(row.control_wsr.mean) + ("!" if row.false_alarms else ""),
            p_text(marked.p_value),
            Text(OUTCOMES.get(marked.outcome, "failed"), style="bold" if marked.outcome == "MARKED" else ""),
        )
    return result


def probe_table(rows: Sequence[Summary]) -> Table | None:
    """The searches and screens of a block; None without any."""
    found = sorted((row for row in rows if row.kind != "verdict"), key=lambda row: row.kind == "screen")
    if not found:
        return None
    result = _table(["probe", "watermark"], ["found", "of inputs", "control", "WSR"], "marked")
    for row in found:
        if row.kind == "search":
            figures = [hits(row.marked), "", hits(row.control), "", ""]
        else:
            figures = [percent(row.detected), percent(row.flagged), "", percent(row.wsr.mean), called(row.marked)]
        result.add_row(Text(printable(row.probe)), Text(printable(row.marking)), *figures)
    return result


def suspect_table(found: Sequence[Suspect]) -> Table:
    """Suspects one by one: model, ACC, WSR on held-out triggers, p-value, verdict."""
    result = _table(["model"], ["ACC", "WSR", "p-value"], "verdict", caption=CAPTION)
    styles = {"MARKED": "bold", "NOT_ESTABLISHED": "", "INVALID": "dim"}
    for suspect in found:
        row = suspect.row
        verdict = OUTCOMES.get(row.outcome, "failed") + (", wrongly" if suspect.judgement == "false alarm" else "")
        result.add_row(
            # Text, not str: a name in square brackets is a name and no markup.
            Text(printable(suspect.label)),
            percent(row.accuracy),
            percent(row.wsr),
            p_text(row.p_value),
            Text(verdict, style=styles.get(row.outcome, "")),
        )
    return result
