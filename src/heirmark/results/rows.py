"""One result of a grid, a demo or an audit as a row; a line of JSON each."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

from heirmark.errors import BadArtifact
from heirmark.files import MIB, atomic_write_bytes, parse_json, read_bytes
from heirmark.records import plain, record_of
from heirmark.results.probes import Exposed, Screened
from heirmark.results.verdict import Verdict

MARKED = "marked"
"""The arm of the marked model; the others are controls."""
Kind: TypeAlias = Literal["verdict", "search", "screen"]
KINDS: Mapping[str, Kind] = {"verify": "verdict", "screen": "screen", "expose": "search"}
"""What a row tells, by the kind of the stage that told it."""


@dataclass(frozen=True, kw_only=True)
class Brief:
    """What rows of before they held whole verdicts kept of one; see :class:`heirmark.results.verdict.Verdict`."""

    outcome: str
    reason: str = ""
    wsr: float = math.nan
    p_value: float = math.nan
    control_rate: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one model says to one key, or one detection attack of one model. Figures that a row does not have are NaN.

    Attributes:
        block: name of the block.
        marking: whose key judged.
        trial: what was done first; empty for the model itself.
        group: of the trial.
        probe: name of the search or screen; empty for a verdict.
        arm: ``"marked"``, or the name of a control such as ``"unmarked"``.
        seed: of the grid.
        curve: axis and place, of the trial or else of the marking.
        square: row and column of a heat map, of the marking.
        accuracy: on the test split, in [0, 1]; of a screened service for a screen.
        training_wsr: share of the trigger samples that trained which are answered as marked; no verdict rests on it.
        wfpr: share of samples of a mix's two classes, mixed otherwise, that get the target (MEA-Defender, section 5.1).
        verdict: on the model, or on the service behind a screen; None for a search, and where the run failed.
        search: what a search for the mark was worth.
        screen: what a screen of queries flags.
        asked: what the thief asked of the model.
        seconds: that the trial took, thefts and alterations together; the search or screen, for a probe.
        stage: name of the stage that said so.
        error: why it failed; empty when it did not.
    """

    block: str
    marking: str
    trial: str = ""
    group: str = ""
    probe: str = ""
    arm: str
    seed: int
    curve: tuple[str, float] | None = None
    square: tuple[str, str] | None = None
    accuracy: float = math.nan
    training_wsr: float = math.nan
    wfpr: float = math.nan
    verdict: Verdict | Brief | None = None
    search: Exposed | None = None
    screen: Screened | None = None
    asked: int = 0
    seconds: float = math.nan
    stage: str = ""
    error: str = ""

    @property
    def kind(self) -> Kind:
        """What it tells."""
        return KINDS.get(self.stage.partition("/")[0], "verdict")

    @property
    def marked(self) -> bool:
        """Whether it is of the marked model or what an attack left of it, and of no control."""
        return self.arm == MARKED

    @property
    def place(self) -> tuple[str, str, str, str, str, int]:
        """Where it stands in a grid: no two rows of one grid have the same."""
        return (self.block, self.marking, self.trial, self.probe, self.arm, self.seed)

    @property
    def whole(self) -> Verdict | None:
        """The verdict, where all of it was kept."""
        return self.verdict if isinstance(self.verdict, Verdict) else None

    @property
    def outcome(self) -> str:
        """Of the verdict; empty without one."""
        return "" if self.verdict is None else self.verdict.outcome

    @property
    def reason(self) -> str:
        """Why the verdict is INVALID."""
        return "" if self.verdict is None else self.verdict.reason

    @property
    def wsr(self) -> float:
        """Watermark success rate, in [0, 1].

        A model that has collapsed and answers everything alike may hit the whole key, or miss it. Neither says anything of the
        mark, so the verdict is INVALID: on the marked model that counts as no success if answers were counted, on a control as
        nothing.
        """
        if self.verdict is None:
            return math.nan
        if self.verdict.outcome != "INVALID":
            return self.verdict.wsr
        counted = math.isfinite(self.verdict.wsr) if self.whole is None else self.whole.trials > 0
        return 0.0 if self.marked and counted and self.screen is None else math.nan

    @property
    def p_value(self) -> float:
        """Of the verdict; NaN of an INVALID one."""
        return math.nan if self.verdict is None or self.outcome == "INVALID" else self.verdict.p_value

    @property
    def needed(self) -> float:
        """Queries of a key that shows such a mark with a chance of 90 %; NaN where no key does, or nothing tells."""
        whole = self.whole
        return math.nan if whole is None or whole.needed is None else float(whole.needed)

    @property
    def control_rate(self) -> float:
        """Share of the matched controls that the suspect answers as marked, in [0, 1]; NaN for a screen or an INVALID verdict."""
        told = self.verdict if self.screen is None and self.outcome != "INVALID" else None
        return math.nan if told is None else told.control_rate

    @property
    def found(self) -> float:
        """1 where a search names the key's target, else 0."""
        return math.nan if self.search is None else float(self.search.found)

    @property
    def false_suspects(self) -> float:
        """How many classes that are no target a search names."""
        return math.nan if self.search is None else float(self.search.false_suspects)

    @property
    def detected(self) -> float:
        """Share of the key's triggers that a screen flags."""
        return math.nan if self.screen is None else self.screen.detected

    @property
    def flagged(self) -> float:
        """Share of the test inputs that a screen flags."""
        return math.nan if self.screen is None else self.screen.flagged


def row_to_json(row: Row) -> dict[str, Any]:
    """A row as JSON values; what says nothing is left out.

    Examples:
        >>> row_to_json(Row(block="a", marking="b", arm="marked", seed=0, accuracy=0.5))
        {'block': 'a', 'marking': 'b', 'arm': 'marked', 'seed': 0, 'accuracy': 0.5, 'asked': 0}
    """
    return {name: value for name, value in plain(row).items() if value is not None and value != ""}


def row_from_json(values: object, source: str) -> Row:
    """A row from its JSON values, those of before rows held whole verdicts among them.

    Args:
        values: of :func:`row_to_json`, or a line of ``rows.jsonl``.
        source: what to call it in an error.

    Raises:
        BadArtifact: when these are not the fields of a row, or not of their kinds.

    Examples:
        >>> row = Row(block="a", marking="b", arm="marked", seed=0, accuracy=0.5, curve=("rate", 0.9))
        >>> str(row_from_json(row_to_json(row), "a row")) == str(row)
        True
    """
    return record_of(Row, _renewed(values) if isinstance(values, Mapping) else values, source)


def read_rows(path: Path) -> tuple[Row, ...]:
    """The rows in a ``rows.jsonl``.

    Raises:
        BadArtifact: when it is missing or damaged; the message names the line.
    """
    found = []
    for number, line in enumerate(read_bytes(path, max_bytes=256 * MIB, begins=b"{").splitlines(), 1):
        where = f"{path}, line {number},"
        try:
            found.append(row_from_json(parse_json(line, source=where), where))
        except BadArtifact as error:
            raise BadArtifact(f"{error}: run the grid, or the part, again") from None
    return tuple(found)


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows, a line each."""
    atomic_write_bytes(path, "".join(f"{json.dumps(row_to_json(row))}\n" for row in rows).encode())


def _renewed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a row of before it held whole verdicts as those of a row of today."""
    made = dict(values)
    if "cell" in made:
        made["square"] = made.pop("cell")
    brief = {name: made.pop(name) for name in (field.name for field in fields(Brief)) if name in made}
    if brief:
        made["verdict"] = brief
    if "found" in made:
        named, false = made.pop("found"), made.pop("false_suspects", 0)
        made["search"] = {
            "found": bool(named) if named in (0, 1) else named,
            "false_suspects": int(false) if isinstance(false, float) and false.is_integer() else false,
        }
    if "detected" in made:
        made["screen"] = {"detected": made.pop("detected"), "flagged": made.pop("false_alarms", None)}
    return made
