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


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A cell over all seeds, the controls beside it. All figures come from its rows.

    Attributes:
        rows: one a seed and arm, those of the marked model at least or of a control.
        papers: what is printed elsewhere.
    """

    rows: tuple[Row, ...]
    papers: tuple[Published, ...] = ()

    @cached_property
    def marked(self) -> tuple[Row, ...]:
        """Rows of the marked model, one a seed."""
        return tuple(row for row in self.rows if row.marked)

    @cached_property
    def control(self) -> tuple[Row, ...]:
        """Rows of the controls."""
        return tuple(row for row in self.rows if not row.marked)

    @property
    def first(self) -> Row:
        """A row of it: all have the same block, marking, trial, group and probe."""
        return self.rows[0]

    @property
    def marking(self) -> str:
        """Whose key judged."""
        return self.first.marking

    @property
    def block(self) -> str:
        """Name of the block."""
        return self.first.block

    @property
    def trial(self) -> str:
        """What was done first; empty for the model itself."""
        return self.first.trial

    @property
    def probe(self) -> str:
        """Name of the search or screen; empty for a verdict."""
        return self.first.probe

    @property
    def question(self) -> str:
        """The trial or the probe."""
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

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """That were run on the marked model."""
        return tuple(row.seed for row in self.marked)

    def controls_of(self, seed: int) -> tuple[Row, ...]:
        """The rows of the controls of a seed."""
        return tuple(row for row in self.control if row.seed == seed)

    @cached_property
    def accuracy(self) -> Spread:
        """Of the marked model."""
        return _spread(self.marked, "accuracy")

    @cached_property
    def wsr(self) -> Spread:
        """Of the marked model; the lowest is its worst."""
        return _spread(self.marked, "wsr")

    @cached_property
    def wfpr(self) -> Spread:
        """Of the marked model, for samples mixed otherwise than the watermark; the highest is its worst."""
        return _spread(self.marked, "wfpr")

    @cached_property
    def control_rate(self) -> float:
        """Share of matched queries without the trigger that get the expected answer, the mean on the marked model."""
        return _spread(self.marked, "control_rate").mean

    @cached_property
    def control_accuracy(self) -> Spread:
        """Of the controls."""
        return _spread(self.control, "accuracy")

    @cached_property
    def control_wsr(self) -> Spread:
        """Of the controls; the highest is their worst."""
        return _spread(self.control, "wsr")

    @cached_property
    def control_wfpr(self) -> float:
        """Of the controls, the mean."""
        return _spread(self.control, "wfpr").mean

    @property
    def called_marked(self) -> int:
        """How many seeds were called marked."""
        return _count(self.marked, "MARKED")

    @property
    def invalid(self) -> int:
        """How many seeds' verdicts are INVALID."""
        return _count(self.marked, "INVALID")

    @property
    def failed(self) -> int:
        """How many seeds failed on the marked model."""
        return sum(bool(row.error) for row in self.marked)

    @property
    def false_alarms(self) -> int:
        """How many controls were called marked."""
        return _count(self.control, "MARKED")

    @property
    def control_invalid(self) -> int:
        """How many verdicts on controls are INVALID."""
        return _count(self.control, "INVALID")

    @property
    def control_failed(self) -> int:
        """How many runs on controls failed."""
        return sum(bool(row.error) for row in self.control)

    @property
    def asked(self) -> float:
        """Queries of the thief, the mean."""
        return _spread([row for row in self.marked if not row.error], "asked").mean

    @property
    def seconds(self) -> float:
        """That the trial or probe took on the marked model, the mean."""
        return _spread(self.marked, "seconds").mean

    @property
    def found(self) -> float:
        """Share of seeds in which a search named the target."""
        return _spread(self.marked, "found").mean

    @property
    def control_found(self) -> float:
        """The same on the controls; any class that is named there is the key's by chance."""
        return _spread(self.control, "found").mean

    @property
    def false_suspects(self) -> float:
        """Of a search, the mean."""
        return _spread(self.marked, "false_suspects").mean

    @property
    def detected(self) -> float:
        """Share of triggers that a screen flags, the mean."""
        return _spread(self.marked, "detected").mean

    @property
    def flagged(self) -> float:
        """Share of test inputs that a screen flags, the mean."""
        return _spread(self.marked, "flagged").mean

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


def _spread(rows: Iterable[Row], name: str) -> Spread:
    return spread_of(float(getattr(row, name)) for row in rows)


def _count(rows: Iterable[Row], outcome: str) -> int:
    return sum(row.outcome == outcome for row in rows)
