"""What a demo's rows are called, and what they say, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from heirmark.report.sections.suspects import Suspect
from heirmark.report.words import OUTCOMES
from heirmark.results.rows import MARKED, Row

T2S, VANILLA = "T2S", "vanilla"
"""The watermark on show, and joint training to compare with."""
SOFT, LABEL = "soft", "label"
"""What thieves are shown."""
CONTROL = "unmarked"
"""The arm of the clean model, which thieves steal too."""


def suspect_of(row: Row) -> Suspect:
    """A row's suspect for people, with the key where that is not T2S'."""
    owner = row.marking if row.marked else "clean" if row.arm == CONTROL else row.arm
    key = "" if row.marked or row.marking == T2S else f", {row.marking} key"
    name = f"{'stolen from ' if row.trial else ''}{owner} model{key}"
    return Suspect(name=name, row=row, setting=f"knockoff · {row.trial}" if row.trial else "", answers=row.trial)


def folder_name(row: Row) -> str:
    """Of a suspect's model, whatever key judges it."""
    return "-".join([*suspect_of(row).name.partition(",")[0].lower().split(), *([row.trial] if row.trial else [])])


def row_at(rows: Sequence[Row], marking: str, arm: str, trial: str = "") -> Row:
    """The first row of a watermark, arm and trial."""
    return next(row for row in rows if (row.marking, row.arm, row.trial) == (marking, arm, trial))


def tell_story(rows: Sequence[Row]) -> tuple[str, ...]:
    """What the rows of one seed say, in sentences."""
    clean, marked = row_at(rows, T2S, CONTROL), row_at(rows, T2S, MARKED)
    lines = [
        f"Embedding T2S changed the accuracy from {clean.accuracy:.1%} to {marked.accuracy:.1%}; "
        f"the model answers {marked.wsr:.1%} of the held-out triggers in the owner's way."
    ]
    for name in (T2S, VANILLA):
        soft, label = (row_at(rows, name, MARKED, trial) for trial in (SOFT, LABEL))
        said = " and ".join(OUTCOMES.get(row.outcome, "invalid").lower() for row in (soft, label))
        lines.append(
            f"Stolen from the {name} model, {soft.wsr:.1%} of the triggers survive soft-label theft and {label.wsr:.1%} "
            f"label-only theft: {said}."
        )
    free = [row for row in rows if not row.marked]
    alarms = sum(row.outcome == "MARKED" for row in free)
    lines.append(f"Of {len(free)} judgements of models that never met the watermark, {alarms} said marked.")
    return tuple(lines)
