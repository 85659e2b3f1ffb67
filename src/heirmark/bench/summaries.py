"""Results of a grid over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from heirmark.bench.rows import CellRow
from heirmark.report.spreads import Spread, spread_of


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A cell over all seeds, the control beside it.

    Attributes:
        block: name of the block.
        marking: whose key judged.
        trial: what was done first.
        group: of the trial.
        probe: name of the search or screen.
        curve: axis and place.
        cell: row and column of a heat map.
        seeds: that were run.
        failed: those of them that failed.
        accuracy: of the marked arm.
        wsr: of the marked arm; the lowest is its worst.
        wfpr: of the marked arm; the highest is its worst.
        marked: how many seeds were called marked.
        invalid: how many seeds' verdicts are INVALID.
        control_accuracy: of the unmarked arm.
        control_wsr: of the unmarked arm; the highest is its worst.
        control_wfpr: of the unmarked arm, the mean.
        false_alarms: how many seeds' controls were called marked.
        asked: queries of the thief, the mean.
        seconds: the mean.
        found: share of seeds in which a search named the target; on the control, in ``control_found``, any class that it names
            is the key's by chance.
        control_found: the same on the control.
        detected: share of triggers that a screen flags.
        flagged: share of test inputs that a screen flags.
        false_suspects: of a search, the mean.
        control_failed: seeds that failed on the control.
        control_invalid: seeds whose verdict on the control is INVALID.
    """

    block: str
    marking: str
    trial: str
    group: str
    probe: str
    curve: tuple[str, float] | None
    cell: tuple[str, str] | None
    seeds: int
    failed: int
    accuracy: Spread
    wsr: Spread
    wfpr: Spread
    marked: int
    invalid: int
    control_accuracy: Spread
    control_wsr: Spread
    control_wfpr: float
    false_alarms: int
    asked: float
    seconds: float
    found: float
    control_found: float
    detected: float
    flagged: float
    false_suspects: float
    control_failed: int
    control_invalid: int


def summarise(rows: Sequence[CellRow]) -> list[Summary]:
    """Figures over seeds, in the order of the rows."""
    groups: dict[tuple[str, str, str, str], list[CellRow]] = {}
    for row in rows:
        groups.setdefault((row.block, row.marking, row.trial, row.probe), []).append(row)
    return [_summary(members) for members in groups.values()]


def _summary(members: Sequence[CellRow]) -> Summary:
    marked = [row for row in members if row.arm == "marked"]
    control = [row for row in members if row.arm == "unmarked"]
    first = members[0]

    def mean(rows: Sequence[CellRow], name: str) -> float:
        return spread_of(float(getattr(row, name)) for row in rows).mean

    return Summary(
        block=first.block,
        marking=first.marking,
        trial=first.trial,
        group=first.group,
        probe=first.probe,
        curve=first.curve,
        cell=first.cell,
        seeds=len(marked),
        failed=sum(bool(row.error) for row in marked),
        accuracy=spread_of(row.accuracy for row in marked),
        wsr=spread_of(row.wsr for row in marked),
        wfpr=spread_of(row.wfpr for row in marked),
        marked=sum(row.outcome == "MARKED" for row in marked),
        invalid=sum(row.outcome == "INVALID" for row in marked),
        control_accuracy=spread_of(row.accuracy for row in control),
        control_wsr=spread_of(row.wsr for row in control),
        control_wfpr=mean(control, "wfpr"),
        false_alarms=sum(row.outcome == "MARKED" for row in control),
        asked=mean([row for row in marked if not row.error], "asked"),
        seconds=mean(marked, "seconds"),
        found=mean(marked, "found"),
        control_found=mean(control, "found"),
        detected=mean(marked, "detected"),
        flagged=mean(marked, "false_alarms"),
        false_suspects=mean(marked, "false_suspects"),
        control_failed=sum(bool(row.error) for row in control),
        control_invalid=sum(row.outcome == "INVALID" for row in control),
    )
