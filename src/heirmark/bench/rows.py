"""Results of a grid: one row a cell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from heirmark.bench.plan import Cell, Plan
from heirmark.errors import BadArtifact, HeirmarkError, told
from heirmark.pipeline.detecting import read_exposed, read_screened
from heirmark.pipeline.judging import read_judged
from heirmark.pipeline.mixing import read_mixed
from heirmark.pipeline.store import Store
from heirmark.verification import Verdict

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, kw_only=True)
class CellRow:
    """What a cell says. Figures that its kind does not have are NaN, and so are those of a cell that failed.

    Attributes:
        block: name of the block.
        marking: whose key judged.
        trial: what was done first; empty for the model itself.
        group: of the trial.
        probe: name of the search or screen; empty for a verdict.
        arm: ``"marked"``, ``"unmarked"`` for the first control, or the name of another.
        seed: of the grid.
        curve: axis and place, of the trial or else of the marking.
        cell: row and column of a heat map, of the marking.
        accuracy: on the test split, in [0, 1]; of a screened service for a screen.
        wsr: of the same.
        p_value: of the verdict.
        outcome: of the verdict; empty for a search, and where the cell failed. Of an INVALID one, the other figures mean nothing
            and are NaN, but for the WSR of a marked arm whose answers were counted: it is 0.
        reason: why a verdict is INVALID.
        control_rate: share of the matched controls that the suspect answers as marked.
        wfpr: share of samples of a mix's two classes, mixed otherwise, that get the target (MEA-Defender, section 5.1).
        asked: what the thief asked of the model.
        seconds: that the trial took, thefts and alterations together; the search or screen, for a probe.
        found: 1 where a search names the key's target, else 0.
        false_suspects: of a search.
        detected: share of the key's triggers that a screen flags.
        false_alarms: share of the test inputs that a screen flags.
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
    cell: tuple[str, str] | None = None
    accuracy: float = math.nan
    wsr: float = math.nan
    p_value: float = math.nan
    outcome: str = ""
    reason: str = ""
    control_rate: float = math.nan
    wfpr: float = math.nan
    asked: int = 0
    seconds: float = math.nan
    found: float = math.nan
    false_suspects: float = math.nan
    detected: float = math.nan
    false_alarms: float = math.nan
    stage: str = ""
    error: str = ""


def rows_of(plan: Plan, store: Store, failed: Mapping[str, str]) -> list[CellRow]:
    """A row for every cell.

    Args:
        plan: the cells.
        store: in which their stages are.
        failed: why stages failed, by name.
    """
    return [
        _row(cell, store, next((failed[goal.name] for goal in cell.goals if goal.name in failed), None))
        for cell in plan.cells
    ]


def _row(cell: Cell, store: Store, why: str | None) -> CellRow:
    figures: dict[str, Any] = {}
    if why is None:
        try:
            figures = _figures(cell, store)
        except (
            HeirmarkError,
            OSError,
        ) as error:  # a disk or a mirror that does not answer, say, after all was computed
            why = told(error)
    return CellRow(
        block=cell.block,
        marking=cell.marking.name,
        trial=cell.trial.name,
        group=cell.trial.group,
        probe=cell.probe,
        arm=cell.arm,
        seed=cell.seed,
        curve=cell.trial.curve or cell.marking.curve,
        cell=cell.marking.cell,
        stage=cell.goal.name,
        error=why or "",
        **figures,
    )


def _figures(cell: Cell, store: Store) -> dict[str, Any]:
    """What a finished cell says.

    Raises:
        BadArtifact: when it is not in the store.
        BadConfig: when the store's mirror cannot be read.
    """
    artifact = store.find(cell.goal)
    if artifact is None:
        raise BadArtifact("its stage is gone from the store: run the grid again")
    if cell.goal.kind == "verify":
        judged = read_judged(artifact.folder)
        made = [found for found in map(store.find, cell.steps) if found is not None]
        mixed = None if cell.mixed is None else store.find(cell.mixed)
        return {
            "accuracy": judged.accuracy,
            **_verdict(judged.verdict, None if mixed is None else read_mixed(mixed.folder), cell.arm),
            # What a second extraction asks, it asks of the thief's own copy.
            "asked": made[0].summary.get("queries", 0) if made else 0,
            "seconds": sum(found.record["seconds"] for found in made) if made else math.nan,
        }
    if cell.goal.kind == "screen":
        screened = read_screened(artifact.folder)
        return {
            "accuracy": screened.accuracy,
            "outcome": screened.outcome,
            **({} if screened.outcome == "INVALID" else {"wsr": screened.wsr, "p_value": screened.p_value}),
            "detected": screened.detected,
            "false_alarms": screened.false_alarms,
            "seconds": artifact.record["seconds"],
        }
    exposed = read_exposed(artifact.folder)
    searched = store.find(cell.goal.inputs["inspection"])
    return {
        "found": float(exposed.found),
        "false_suspects": float(exposed.false_suspects),
        "seconds": math.nan if searched is None else searched.record["seconds"],
    }


def _verdict(verdict: Verdict, wfpr: float | None, arm: str) -> dict[str, Any]:
    """What a verdict says of a model.

    One that has collapsed and answers everything alike may hit the whole key, or miss it. Neither says anything of the mark: on
    the marked arm that counts as no success, on the control as nothing.
    """
    if verdict.outcome == "INVALID":
        counted = arm == "marked" and verdict.trials > 0
        return {"outcome": verdict.outcome, "reason": verdict.reason, **({"wsr": 0.0} if counted else {})}
    figures = {
        "outcome": verdict.outcome,
        "wsr": verdict.wsr,
        "p_value": verdict.p_value,
        "control_rate": verdict.control_rate,
    }
    return figures if wfpr is None else {**figures, "wfpr": wfpr}


def from_plain(values: Mapping[str, Any]) -> CellRow:
    """A row from its JSON values; what was left out says nothing.

    Args:
        values: of :func:`to_plain`, or a line of ``rows.jsonl``.

    Raises:
        ValueError: when these are not the fields of a row, or not of their kinds.

    Example:
        >>> row = CellRow(block="a", marking="b", arm="marked", seed=0, wsr=0.5, curve=("rate", 0.9))
        >>> str(from_plain(to_plain(row))) == str(row)
        True
    """
    known = {field.name: field for field in fields(CellRow)}
    if not set(values) <= set(known):
        raise ValueError(f"{min(set(values) - set(known))!r} is no field of a row")
    made: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    for name, value in made.items():
        kind = str(known[name].type)
        if kind == "float":
            fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        elif kind == "int":
            fits = isinstance(value, int) and not isinstance(value, bool)
        elif kind.startswith("tuple"):
            fits = isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
            fits = fits and isinstance(value[1], str if name == "cell" else (int, float))
        else:
            fits = isinstance(value, str)
        if not fits:
            raise ValueError(f"{name} is {value!r}")
    for name in ("curve", "cell"):
        if name in made:
            made[name] = tuple(made[name])
    try:
        return CellRow(**made)
    except TypeError:
        raise ValueError("it lacks a field that every row has") from None


def to_plain(row: DataclassInstance) -> dict[str, Any]:
    """Every field of a row, or of figures over seeds, as a JSON value; NaN becomes None, and what says nothing is left out."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        return list(value) if isinstance(value, tuple) else value

    told = asdict(row)
    return {field.name: plain(told[field.name]) for field in fields(row)}
