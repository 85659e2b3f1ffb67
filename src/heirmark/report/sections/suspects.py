"""Suspects one by one, each with its whole verdict; and how often they are right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from heirmark.report.section import Column, Entry, Figure, Line, Panels, Section, Table, Tile, notes
from heirmark.report.words import DASH, OUTCOMES, number, p_text, percent, points
from heirmark.results.rows import Row


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A suspect for people.

    Attributes:
        name: such as ``"stolen from T2S model"``.
        row: what its verification found; whether it should be called marked is the row's arm.
        setting: method, attack and answers in one phrase, without those that do not apply.
        answers: what its thief was given; empty where there was none.
    """

    name: str
    row: Row
    setting: str = ""
    answers: str = ""

    @property
    def label(self) -> str:
        """Its name, with the kind of answers where the name does not tell it."""
        return f"{self.name} ({self.answers})" if self.answers and self.answers not in self.name else self.name

    @property
    def judgement(self) -> str:
        """How the verdict compares with the truth: correct, false alarm, missed; empty when that cannot be said."""
        if self.row.outcome in ("", "INVALID"):
            return ""
        called = self.row.outcome == "MARKED"
        return "correct" if called == self.row.marked else "false alarm" if called else "missed"


COLUMNS = (
    Column(name="Suspect", number=False),
    Column(name="ACC"),
    Column(name="WSR"),
    Column(name="Control\nand null rate", label="Control and null"),
    Column(name="p-value"),
    Column(name="Queries"),
    Column(name="Verdict", number=False),
)


def suspects(found: Sequence[Suspect]) -> Iterator[Section]:
    """One section, where there are suspects."""
    if found:
        yield Section(
            title="The suspects",
            aside="WSR, the watermark success rate, is the share of secret triggers that a model answers as the key "
            "says; under it stands its confidence interval. The control rate is the same share for matched images "
            "without the trigger; the null rate is what unmarked models are granted.",
            parts=(
                Table(
                    label="The suspects", columns=COLUMNS, groups=(("", tuple(map(_line, found))),), style="suspects"
                ),
            ),
        )


def _line(suspect: Suspect) -> Line:
    row, whole, judged = suspect.row, suspect.row.whole, suspect.judgement
    if row.error:
        cells: tuple[Entry, ...] = (Entry(text=f"failed: {row.error}", badge="wrong"),)
    else:
        interval = "" if whole is None else f"{percent(whole.interval[0])[:-1]}–{percent(whole.interval[1])}"
        flags = f"flagged: {', '.join(whole.flags)}" if whole is not None and whole.flags else ""
        null = f"null {percent(None if whole is None else whole.null_rate)}"
        cells = (
            Entry(text=percent(row.accuracy)),
            Entry(text=percent(row.wsr), strong=True, below=notes(interval)),
            Entry(text=percent(row.control_rate), below=notes(null)),
            Entry(text=p_text(row.p_value)),
            Entry(text=DASH if whole is None else number(whole.queries), below=notes(_needed(row))),
            Entry(
                text=OUTCOMES.get(row.outcome, DASH),
                badge=row.outcome,
                below=(*notes(judged, wrong=judged != "correct"), *notes(flags)),
            ),
        )
    return Line(name=suspect.name, setting=suspect.setting, cells=cells)


def _needed(row: Row) -> str:
    """How large a key would do."""
    return f"key of {number(round(row.needed))} would do" if math.isfinite(row.needed) else ""


def side_by_side(found: Sequence[Suspect], clean_accuracy: float = math.nan, where: str = "b0") -> Iterator[Section]:
    """Mark and skill of every suspect as bars, these beside a clean model's; ``where`` stands before the drawings' names."""
    from heirmark.report.bars import NULL_MARK, OPEN_MARK, WHOLE_MARK, Bar, bars

    if not found:
        return

    def mark(suspect: Suspect) -> Bar:
        row, whole = suspect.row, suspect.row.whole
        bar = Bar(name=suspect.label, rate=row.wsr, outcome=row.outcome or "INVALID")
        if whole is None:
            return bar
        return replace(bar, reference=whole.null_rate, interval=None if row.outcome == "INVALID" else whole.interval)

    alt = "Bars: {} of each suspect; the table holds the same numbers."
    drawn = bars(list(map(mark, found)), f"{where}-wsr", alt.format("watermark success rate"))
    figures = [Figure(title="Watermark success rate", drawing=drawn)]
    known = any(math.isfinite(suspect.row.accuracy) for suspect in found)
    if known:
        skills = [Bar(name=suspect.label, rate=suspect.row.accuracy, reference=clean_accuracy) for suspect in found]
        drawn = bars(skills, f"{where}-acc", alt.format("clean accuracy"))
        figures.append(Figure(title="Clean accuracy", drawing=drawn))
    held = "; in the second panel the clean model" if known and math.isfinite(clean_accuracy) else ""
    legend = (
        (WHOLE_MARK, "called marked"),
        (OPEN_MARK, "not established"),
        (NULL_MARK, f"null rate{held}; whiskers are Clopper–Pearson intervals"),
    )
    yield Section(
        title="Mark and skill, side by side" if known else "The mark",
        parts=(Panels(figures=tuple(figures), legend=legend),),
    )


def headline(
    found: Sequence[Suspect], *, shown: str, baseline: str = "", clean_accuracy: float = math.nan
) -> tuple[Tile, ...]:
    """The headline: what the mark costs, what survives a theft, how often an alarm is false. Only what the rows tell.

    The watermark on show, and one to compare with, are the names of their markings.
    """
    heirs = [suspect.row for suspect in found if suspect.row.marked]
    free = [suspect.row for suspect in found if not suspect.row.marked]
    tiles = []
    victim = next((row for row in heirs if row.marking == shown and not row.trial), None)
    if victim is not None:
        against = f"clean model {percent(clean_accuracy)}, so {points(victim.accuracy - clean_accuracy)} points"
        tiles.append(
            Tile(
                name=f"Accuracy with the mark ({shown})",
                value=percent(victim.accuracy),
                against=against if math.isfinite(clean_accuracy) else "",
            )
        )
    thefts = [row for row in heirs if row.marking == shown and row.trial]
    rivals = {row.trial: percent(row.wsr) for row in heirs if row.marking == baseline and row.trial}
    if thefts:
        pairs = ((row.trial, percent(row.wsr), rivals.get(row.trial, DASH) if rivals else "") for row in thefts[:4])
        columns = (shown, baseline if rivals else "")
        tiles.append(Tile(name="WSR of stolen copies", pairs=tuple(pairs), columns=columns))
    if found:
        alarms, missed = sum(row.outcome == "MARKED" for row in free), sum(row.outcome != "MARKED" for row in heirs)
        against = f"models without the mark called marked; {missed} of {len(heirs)} with it, or copied from one, missed"
        tiles.append(Tile(name="False alarms", value=f"{alarms} of {len(free)}", against=against))
    return tuple(tiles)
