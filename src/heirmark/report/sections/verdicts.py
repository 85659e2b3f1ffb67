"""Verdicts in tables: trial by trial the watermarks beneath each other, every row unfolding to its seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from heirmark.report.section import Column, Detail, Entry, Line, More, Section, Sheet, Source, Table, notes
from heirmark.report.words import (
    DASH,
    OUTCOMES,
    called,
    count,
    number,
    p_text,
    paper_text,
    percent,
    printed,
    reasons,
    remarks,
    seconds,
    spread_text,
    trial_name,
)
from heirmark.results.rows import Row
from heirmark.results.summary import Summary

ASIDE = (
    "Every trial is run on the marked model and, with the same settings and seed, on an unmarked control; both are "
    "judged with the key of the marked model. WSR, the watermark success rate, is the share of its held-out triggers "
    "that a model answers as the key says. Figures are mean ± standard deviation over the seeds; below stands the "
    "worst seed. An invalid verdict counts as a WSR of 0. A control that is called marked is a false alarm."
)
COLUMNS = (
    Column(name="ACC"),
    Column(name="WSR"),
    Column(name="Control’s\nworst WSR", label="Control"),
    Column(name="Queries\nand time", label="Queries, time"),
    Column(name="Called marked", number=False),
)
SHEET = (
    "trial", "watermark", "ACC", "worst", "WSR", "worst", "control’s worst WSR", "false alarms", "called marked",
)  # fmt: skip
BADGES = {"all": "MARKED", "some": "some", "none": "NOT_ESTABLISHED"}


def verdicts(source: Source) -> Iterator[Section]:
    """A section a group of trials, and one table of a document for all."""
    groups = tabled(source.rows)
    sheet = sheet_of(row for _, trials in groups for _, rows in trials for row in rows)
    for place, (group, trials) in enumerate(groups):
        lines = tuple((trial, tuple(line_of(row, row.marking, source) for row in rows)) for trial, rows in trials)
        if source.alone:
            lines = (("", tuple(line_of(row, trial_name(trial), source) for trial, rows in trials for row in rows)),)
        table = Table(
            label=f"{source.name}, {group or 'the models themselves'}",
            columns=(first_column(source), *COLUMNS),
            groups=lines,
        )
        yield Section(title=group or "The models themselves", parts=(table,), sheets=() if place else (sheet,))


def first_column(source: Source) -> Column:
    """Of the lines' names."""
    return Column(name="Attack" if source.alone else "Watermark", number=False)


def tabled(rows: Sequence[Summary]) -> list[tuple[str, list[tuple[str, list[Summary]]]]]:
    """The verdicts that stand in tables, by group and then by trial: no points of curves and no squares of heat maps."""
    groups: dict[str, dict[str, list[Summary]]] = {}
    for row in rows:
        if row.kind == "verdict" and row.curve is None and row.square is None:
            groups.setdefault(row.first.group, {}).setdefault(row.trial, []).append(row)
    return [(group, list(trials.items())) for group, trials in groups.items()]


def line_of(row: Summary, name: str, source: Source) -> Line:
    """A verdict over seeds as a line under :data:`COLUMNS`."""
    worst, told = _worst(row, "wsr"), more_of(row, source)
    alone = row.marked[0] if len(row.marked) == 1 else None
    low = f"p = {p_text(alone.p_value)}" if alone is not None and math.isfinite(alone.p_value) else worst
    skill = f"ACC {percent(row.control_accuracy.mean)}" if alone is not None and len(row.control) == 1 else ""
    invalid = f"{row.control_invalid} invalid" if row.control_invalid else ""
    alarms = count(row.false_alarms, "false alarm") if row.false_alarms else ""
    return Line(
        name=name,
        cells=(
            Entry(text=spread_text(row.accuracy), below=notes(_worst(row, "accuracy"))),
            Entry(text=spread_text(row.wsr), strong=True, below=notes(low)),
            Entry(text=percent(row.control_wsr.highest), below=(*notes(skill), *notes(invalid, alarms, wrong=True))),
            Entry(
                text=number(round(row.asked)) if row.asked > 0 else DASH,
                below=notes(seconds(row.seconds) if math.isfinite(row.seconds) else ""),
            ),
            standing(row),
        ),
        # Beside the worst seeds, where it is sure that nothing stands there.
        more=replace(told, bare=not told.wrong and not told.small and worst != "" and len(name) < 25),
        faint=row.accuracy.mean < source.usable,
    )


def _worst(row: Summary, name: Literal["accuracy", "wsr"]) -> str:
    """The lowest figure on the marked model, and its seed; empty when there is no choice."""
    known = [seed for seed in row.marked if math.isfinite(getattr(seed, name))]
    if len(known) < 2:
        return ""
    lowest = min(known, key=lambda seed: float(getattr(seed, name)))
    return f"worst {percent(getattr(lowest, name))}, seed {lowest.seed}"


def standing(row: Summary) -> Entry:
    """How many seeds were called marked, in a badge."""
    said = "failed" if row.standing == "failed" else called(row.marked)
    return Entry(text=said, badge=BADGES.get(row.standing, "INVALID"))


def more_of(row: Summary, source: Source) -> More:
    """What failed, remarks, papers' figures, and all seeds one by one."""
    return More(
        wrong=tuple(reasons(row)),
        small=(*remarks(row), *map(paper_text, row.papers)),
        title=f"{count(len(row.marked), 'seed')}, one by one",
        details=tuple(_detail(seed, row.controls_of(seed.seed), source) for seed in row.marked),
    )


def _detail(row: Row, controls: Sequence[Row], source: Source) -> Detail:
    named = len(controls) > 1
    texts = [
        arm_text(row, source),
        *(f"Control{f' {each.arm}' if named else ''}: {arm_text(each, source)}" for each in controls),
        *([f"{number(row.asked)} queries"] if row.asked else []),
        *([seconds(row.seconds)] if math.isfinite(row.seconds) else []),
    ]
    stages = ", ".join(each.stage for each in (row, *controls) if each.stage)
    return Detail(
        name=f"Seed {row.seed}",
        texts=tuple(texts),
        command="" if source.command is None else source.command(row),
        stages=stages if row.stage else "",
    )


def arm_text(row: Row, source: Source) -> str:
    """Every figure of one run on one model."""
    if row.error:
        return "failed"
    if row.kind == "search":
        return _search_text(row, source)
    told = []
    if row.kind == "screen":
        told.append(f"flagged {percent(row.detected)} of triggers and {percent(row.flagged)} of test inputs")
    whole = row.whole if row.outcome != "INVALID" else None
    interval = "" if whole is None else " ({}–{})".format(*map(percent, whole.interval))
    told += [f"ACC {percent(row.accuracy)}", f"WSR {percent(row.wsr)}{interval}"]
    if math.isfinite(row.control_rate):
        told.append(f"without the trigger {percent(row.control_rate)}")
    if math.isfinite(row.training_wsr):
        told.append(f"on triggers that trained {percent(row.training_wsr)}")
    if whole is not None:
        told.append(f"null rate {percent(whole.null_rate)}")
        told += [f"{number(whole.needed)} queries would do"] if whole.needed is not None else []
    said = f": {OUTCOMES[row.outcome]}" if row.outcome else ""
    flags = f"; flags: {', '.join(row.whole.flags)}" if row.whole is not None and row.whole.flags else ""
    return f"{', '.join(told)}, p-value {p_text(row.p_value)}{said}{flags}"


def _search_text(row: Row, source: Source) -> str:
    if row.search is None:
        return f"target {DASH}, {DASH} false suspects"
    names = [source.classes[label] if source.classes else str(label) for label in row.search.suspects]
    told = f"target {'named' if row.search.found else 'not named'}, {count(row.search.false_suspects, 'false suspect')}"
    told += f": {', '.join(names)}" if names else ""
    best = max((share for _, share in row.search.reversed_success), default=math.nan)
    return told + (f"; a reconstructed trigger sends {percent(best)} there" if math.isfinite(best) else "")


def sheet_of(rows: Iterable[Summary], heading: str = "") -> Sheet:
    """Verdicts over seeds as a table of a document."""
    return Sheet(heading=heading, columns=SHEET, rows=tuple(line for row in rows for line in _sheet_lines(row)))


def _sheet_lines(row: Summary) -> Iterator[tuple[str, ...]]:
    """A verdict over seeds as rows under :data:`SHEET`, papers' figures after it."""
    figures = ["failed", "", "", ""]
    if row.failed < len(row.marked):
        figures = [text for rate in (row.accuracy, row.wsr) for text in (spread_text(rate), percent(rate.lowest))]
    # The control is told of in any case: where the marked arm failed it may have been judged.
    control = (percent(row.control_wsr.highest), called(row.control))
    yield (trial_name(row.trial), row.marking, *figures, *control, called(row.marked))
    for paper in row.papers:
        rates = [DASH if rate is None else printed(rate) for rate in (paper.accuracy, paper.wsr)]
        yield ("", f"… {paper.source}", rates[0], "", rates[1], "", "", "", "")
