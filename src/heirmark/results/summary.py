"""Rows over seeds, the controls beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from heirmark.records import plain
from heirmark.results.rows import Kind, Row
from heirmark.results.spreads import Spread, spread_of


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a paper prints for a cell, to stand beside it.

    Attributes:
        source: paper and table.
        marking: name of the marking.
        trial: name of the trial; empty for the model itself.
        accuracy: in [0, 1]; None when it is not printed.
        wsr: likewise.
        block: name of the block; empty for every block that has the cell.
    """

    source: str
    marking: str
    trial: str = ""
    accuracy: float | None = None
    wsr: float | None = None
    block: str = ""


def _first(name: str) -> cached_property[str]:
    """A field that all rows of a summary share."""
    return cached_property(lambda summary: getattr(summary.rows[0], name))


def _spread(arm: str, name: str) -> cached_property[Spread]:
    """A figure of an arm over seeds."""
    return cached_property(lambda summary: spread_of(float(getattr(row, name)) for row in getattr(summary, arm)))


def _mean(arm: str, name: str) -> cached_property[float]:
    """The mean of a figure of an arm."""
    return cached_property(lambda summary: spread_of(float(getattr(row, name)) for row in getattr(summary, arm)).mean)


def _called(arm: str, outcome: str) -> cached_property[int]:
    """How many verdicts on an arm have an outcome."""
    return cached_property(lambda summary: sum(row.outcome == outcome for row in getattr(summary, arm)))


def _failed(arm: str) -> cached_property[int]:
    """How many runs on an arm failed."""
    return cached_property(lambda summary: sum(bool(row.error) for row in getattr(summary, arm)))


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A cell over all seeds, the controls beside it. All figures come from its rows; NaN stands where none has one.

    Attributes:
        rows: one a seed and arm, those of the marked model at least or of a control.
        papers: what is printed elsewhere.
        block: name of the block; marking, trial, group and probe likewise are those of all rows.
        accuracy: of the marked model.
        wsr: of the marked model; the lowest is its worst.
        wfpr: of the marked model, for samples mixed otherwise than the watermark; the highest is its worst.
        control_rate: share of matched queries without the trigger that get the expected answer, the mean on the marked model.
        control_accuracy: of the controls.
        control_wsr: of the controls; the highest is their worst.
        control_wfpr: of the controls, the mean.
        called_marked: how many seeds were called marked.
        invalid: how many seeds' verdicts are INVALID.
        failed: how many seeds failed on the marked model.
        false_alarms: how many controls were called marked.
        control_invalid: how many verdicts on controls are INVALID.
        control_failed: how many runs on controls failed.
        seconds: that the trial or probe took on the marked model, the mean.
        found: share of seeds in which a search named the target.
        control_found: the same on the controls; any class that is named there is the key's by chance.
        false_suspects: of a search, the mean.
        detected: share of triggers that a screen flags, the mean.
        flagged: share of test inputs that a screen flags, the mean.
    """

    rows: tuple[Row, ...]
    papers: tuple[Published, ...] = ()

    block, marking, trial, group, probe = map(_first, ("block", "marking", "trial", "group", "probe"))
    accuracy, wsr, wfpr = (_spread("marked", name) for name in ("accuracy", "wsr", "wfpr"))
    control_accuracy, control_wsr = _spread("control", "accuracy"), _spread("control", "wsr")
    control_rate, control_wfpr = _mean("marked", "control_rate"), _mean("control", "wfpr")
    called_marked, invalid, failed = _called("marked", "MARKED"), _called("marked", "INVALID"), _failed("marked")
    false_alarms, control_invalid = _called("control", "MARKED"), _called("control", "INVALID")
    control_failed = _failed("control")
    seconds, found, control_found = _mean("marked", "seconds"), _mean("marked", "found"), _mean("control", "found")
    false_suspects, detected, flagged = (_mean("marked", name) for name in ("false_suspects", "detected", "flagged"))

    @cached_property
    def marked(self) -> tuple[Row, ...]:
        """Rows of the marked model, one a seed."""
        return tuple(row for row in self.rows if row.marked)

    @cached_property
    def control(self) -> tuple[Row, ...]:
        """Rows of the controls."""
        return tuple(row for row in self.rows if not row.marked)

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """That were run on the marked model."""
        return tuple(row.seed for row in self.marked)

    def controls_of(self, seed: int) -> tuple[Row, ...]:
        """The rows of the controls of a seed."""
        return tuple(row for row in self.control if row.seed == seed)

    @property
    def first(self) -> Row:
        """One of its rows."""
        return self.rows[0]

    @property
    def question(self) -> str:
        """The trial or the probe; empty for the model itself."""
        return self.probe or self.trial

    @property
    def kind(self) -> Kind:
        """What the rows tell."""
        return self.first.kind

    @property
    def curve(self) -> tuple[str, float] | None:
        """Axis and place of a point of a curve. A probe is none: it is a row of the probes' tables and no more."""
        return None if self.probe else self.first.curve

    @property
    def square(self) -> tuple[str, str] | None:
        """Row and column of a square of a heat map; a probe is none."""
        return None if self.probe else self.first.square

    @property
    def asked(self) -> float:
        """Queries of the thief, the mean."""
        return spread_of(float(row.asked) for row in self.marked if not row.error).mean

    @property
    def standing(self) -> Literal["all", "some", "none", "failed", "invalid"]:
        """How many seeds were called marked, in a word."""
        judged = len(self.marked) - self.failed
        if judged == 0:
            return "failed"
        if self.invalid == judged:
            return "invalid"
        return "all" if self.called_marked == len(self.marked) else "some" if self.called_marked else "none"


FIGURES = (
    "accuracy", "wsr", "wfpr", "invalid", "control_accuracy", "control_wsr", "control_wfpr", "false_alarms", "asked", "seconds",
    "found", "control_found", "detected", "flagged", "false_suspects", "control_failed", "control_invalid", "failed",
)  # fmt: skip
"""Of a summary, those that are written down by their own names."""


def summary_to_json(summary: Summary) -> dict[str, Any]:
    """Figures over seeds as JSON values; NaN becomes None."""
    first = summary.first
    place = {name: getattr(first, name) for name in ("block", "marking", "trial", "group", "probe", "curve")}
    figures = {name: getattr(summary, name) for name in FIGURES}
    told = {"cell": first.square, "seeds": len(summary.marked), "marked": summary.called_marked}
    return {name: plain(value) for name, value in (place | told | figures).items()}


def summarise(rows: Iterable[Row], papers: Sequence[Published] = ()) -> list[Summary]:
    """Figures over seeds, in the order of the rows.

    Args:
        rows: of a grid.
        papers: each stands beside the verdict that it is of.
    """
    groups: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.block, row.marking, row.trial, row.probe), []).append(row)
    return [
        Summary(
            rows=tuple(members),
            papers=tuple(
                paper
                for paper in papers
                if (paper.marking, paper.trial, "") == (marking, trial, probe) and paper.block in ("", block)
            ),
        )
        for (block, marking, trial, probe), members in groups.items()
    ]
