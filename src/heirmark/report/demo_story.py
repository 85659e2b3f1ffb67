"""What a demo's rows are called, and what they say, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from heirmark.report.sections.suspects import Suspect
from heirmark.results.rows import MARKED, Row

SHOWN, VANILLA = "robust", "vanilla"
"""The watermark on show, and joint training to compare with."""
SOFT, LABEL = "soft", "label"
"""Thefts: by probabilities, and by labels alone; a third by labels alone has another architecture's name, of these."""
OTHERS = {"VGG": "a VGG-like net", "mel-CNN": "a net that hears spectrograms", "LSTM": "an LSTM"}
THEFTS = {
    SOFT: "soft-label theft",
    LABEL: "label-only theft",
    **{name: f"label-only theft by {words}" for name, words in OTHERS.items()},
}
"""What they are called in a sentence."""
CONTROL = "unmarked"
"""The arm of the clean model, which thieves steal too."""


def suspect_of(row: Row) -> Suspect:
    """A row's suspect for people, with the key where that is not the key of the watermark on show."""
    owner = row.marking if row.marked else "clean" if row.arm == CONTROL else row.arm
    key = "" if row.marked or row.marking == SHOWN else f", {row.marking} key"
    name = f"{'stolen from ' if row.trial else ''}{owner} model{key}"
    return Suspect(
        name=name, row=row, setting=f"knockoff · {THEFTS[row.trial]}" if row.trial else "", answers=row.trial
    )


def folder_name(row: Row) -> str:
    """Of a suspect's model, whatever key judges it."""
    name = suspect_of(row).name.partition(",")[0]
    return "-".join(f"{name} {row.trial}".lower().split())


def row_at(rows: Sequence[Row], marking: str, arm: str, trial: str = "") -> Row:
    """The first row of a watermark, arm and trial."""
    return next(row for row in rows if (row.marking, row.arm, row.trial) == (marking, arm, trial))


def tell_story(rows: Sequence[Row]) -> tuple[str, ...]:
    """What the rows of one seed say, in sentences."""
    clean, marked = row_at(rows, SHOWN, CONTROL), row_at(rows, SHOWN, MARKED)
    lines = [
        f"Embedding {SHOWN} changed the accuracy from {clean.accuracy:.1%} to {marked.accuracy:.1%}; "
        f"the model answers {marked.wsr:.1%} of the held-out triggers in the owner's way."
    ]
    for name in (SHOWN, VANILLA):
        stolen = dict.fromkeys(row.trial for row in rows if row.trial)
        copies = {THEFTS[trial]: row_at(rows, name, MARKED, trial) for trial in stolen}
        told = ", ".join(f"{row.wsr:.1%} after {words}" for words, row in copies.items())
        caught = sum(row.outcome == "MARKED" for row in copies.values())
        lines.append(
            f"Copies of the {name} model answer as the owner's key says: {told}; {caught} of {len(copies)} are called marked."
        )
    free = [row for row in rows if not row.marked]
    alarms = sum(row.outcome == "MARKED" for row in free)
    lines.append(f"Of {len(free)} judgements of models that never met the watermark, {alarms} said marked.")
    return tuple(lines)
