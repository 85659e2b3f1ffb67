"""An audit's report: what every attack does to a marked model, beside what it does to its unmarked twin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from heirmark.errors import printable
from heirmark.report.content import OUTCOMES, p_text, percent
from heirmark.report.render import CAPTION, environment

USABLE = 0.10
"""A model that lost more of its victim's accuracy than this is not counted as one that a thief would use."""

MARKED_MODEL, STOLEN_COPY, UNMARKED_TWIN = "marked model", "stolen copy", "unmarked twin"
"""What a detection attack is tried on."""


@dataclass(frozen=True, kw_only=True)
class AuditRow:
    """One attack on the marked model and on its twin.

    Attributes:
        name: of the attack, for people.
        group: the table it stands in.
        accuracy: of what the attack on the marked model left, 0..1.
        wsr: of the same, 0..1.
        p_value: of its verdict.
        outcome: of its verdict; empty when the attack failed.
        twin_accuracy: of what the attack on the unmarked twin left, 0..1; NaN when it failed there.
        twin_wsr: of the same.
        twin_outcome: of its verdict, which should never be MARKED.
        queries: that the thief asked of the marked model; 0 where he holds the weights.
        seconds: that the attack on the marked model took; NaN when it failed.
        curve: the axis and place of a row that is a point of a curve.
        error: why it failed; empty when it did not.
        twin_error: why it failed on the twin.
    """

    name: str
    group: str
    accuracy: float = math.nan
    wsr: float = math.nan
    p_value: float = math.nan
    outcome: str = ""
    twin_accuracy: float = math.nan
    twin_wsr: float = math.nan
    twin_outcome: str = ""
    queries: int = 0
    seconds: float = math.nan
    curve: tuple[str, float] | None = None
    error: str = ""
    twin_error: str = ""


@dataclass(frozen=True, kw_only=True)
class InspectionRow:
    """A search for a mark in a model, held against the truth.

    Attributes:
        name: of the attack.
        model: which model was searched.
        suspects: names of the classes that it suspects.
        found: whether the key's target is among them.
        false_suspects: how many of them are no target.
        reversed_success: best share of test images that a reconstructed trigger of a suspect sends to it; NaN without any.
        seconds: that it took.
        error: why it failed.
    """

    name: str
    model: str
    suspects: tuple[str, ...] = ()
    found: bool = False
    false_suspects: int = 0
    reversed_success: float = math.nan
    seconds: float = math.nan
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class ScreenRow:
    """A screen before a thief's service, held against the key's queries.

    Attributes:
        name: of the attack.
        model: which model stood behind it.
        detected: share of the key's triggers that it flagged.
        false_alarms: share of the test images that it flagged.
        accuracy: of the service with the screen.
        wsr: of the same.
        p_value: of its verdict.
        outcome: of its verdict; empty when the attack failed.
        seconds: that it took.
        error: why it failed.
    """

    name: str
    model: str
    detected: float = math.nan
    false_alarms: float = math.nan
    accuracy: float = math.nan
    wsr: float = math.nan
    p_value: float = math.nan
    outcome: str = ""
    seconds: float = math.nan
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """Everything that the page of an audit shows.

    Attributes:
        title: headline.
        summary: what was found, in sentences.
        victim: the marked model itself, as a row.
        rows: attacks.
        inspections: searches for the mark.
        screens: screens of queries.
        notes: remarks, one a paragraph.
        provenance: how to make these numbers again.
    """

    title: str
    summary: tuple[str, ...]
    victim: AuditRow
    rows: tuple[AuditRow, ...]
    inspections: tuple[InspectionRow, ...]
    screens: tuple[ScreenRow, ...]
    notes: tuple[str, ...]
    provenance: Mapping[str, str]


def survives(row: AuditRow) -> bool:
    """Whether the attack left a model that is called marked."""
    return row.outcome == "MARKED"


def usable(row: AuditRow, victim: AuditRow) -> bool:
    """Whether the attack left a model that a thief would use: at most :data:`USABLE` below its victim's accuracy."""
    return row.accuracy >= victim.accuracy - USABLE


def tell_audit(
    victim: AuditRow,
    rows: Sequence[AuditRow],
    inspections: Sequence[InspectionRow] = (),
    screens: Sequence[ScreenRow] = (),
) -> tuple[str, ...]:
    """What the rows say, in sentences."""
    done = [row for row in rows if not row.error]
    failed = len(rows) - len(done)
    of_use = [row for row in done if usable(row, victim)]
    whole = [row for row in of_use if row.curve is None]
    lines = [
        f"The model answers {percent(victim.wsr)} of its key's triggers as marked, at an accuracy of {percent(victim.accuracy)}.",
    ]
    if victim.outcome and not survives(victim):
        lines.append(
            f"Before any attack its verdict is {OUTCOMES[victim.outcome].lower()}, so that no row tells what an attack does to "
            "the mark."
        )
    attacks = sum(row.curve is None for row in done)
    if attacks:
        lines.append(
            f"Of {attacks} attacks, {len(whole)} left a model within {100 * USABLE:.0f} points of that accuracy, "
            f"and {sum(map(survives, whole))} of these are still called marked."
        )
    points = [row for row in of_use if row.curve is not None]
    if points:
        lines.append(
            f"So are {sum(map(survives, points))} of the {len(points)} points of the curves at which the model is of use."
        )
    lost = [_full_name(row) for row in of_use if not survives(row)]
    if lost and survives(victim):
        lines.append(f"The mark is lost, and the accuracy is not, to: {', '.join(lost)}.")
    twins = [row for row in rows if row.twin_outcome]
    alarms = [_full_name(row) for row in twins if row.twin_outcome == "MARKED"]
    if twins:
        lines.append(
            f"The same on the unmarked twin was called marked in {len(alarms)} of {len(twins)} cases{_named(alarms)}."
        )
    marked = [row for row in inspections if row.model == MARKED_MODEL and not row.error]
    if marked:
        found = [
            row.name + (f" with {row.false_suspects} others" if row.false_suspects else "")
            for row in marked
            if row.found
        ]
        false = [row.name for row in inspections if row.model == UNMARKED_TWIN and row.suspects]
        lines.append(
            f"Looking for the mark names its target in {len(found)} of {len(marked)} ways{_named(found)}; "
            f"{len(false)} suspect a class of the unmarked twin as well{_named(false)}."
        )
    served = [row for row in screens if row.model == MARKED_MODEL and not row.error]
    if served and survives(victim):
        evaded = [row.name for row in served if row.outcome != "MARKED" and row.accuracy >= victim.accuracy - USABLE]
        lines.append(f"{len(evaded)} of {len(served)} screens keep a verifier from the mark{_named(evaded)}.")
    if failed:
        lines.append(f"{failed} attacks failed; their rows say why.")
    return tuple(lines)


def _full_name(row: AuditRow) -> str:
    """Of an attack; those after a theft have the names of those without."""
    return f"{row.name} ({row.group.lower()})" if row.group.lower().endswith("after theft") else row.name


def _named(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


def render_audit(report: AuditReport) -> str:
    """The page of an audit: one HTML document that loads nothing and runs nothing. Write it as UTF-8."""
    # Here and not above: importing matplotlib takes a second, and the terminal's table needs none of it.
    from heirmark.report import figures

    plain = [row for row in report.rows if row.curve is None]
    groups = {row.group: [other for other in plain if other.group == row.group] for row in plain}
    return (
        environment()
        .get_template("audit.html")
        .render(
            report=report,
            palette=figures.PALETTE,
            outcomes=OUTCOMES,
            groups=groups,
            curves=[
                (f"{group}: {axis}", figures.attack_curve(*_series(points), axis, number), points)
                for number, ((group, axis), points) in enumerate(curves_of(report.rows).items())
            ],
            survives=survives,
            usable=lambda row: usable(row, report.victim),
        )
    )


def curves_of(rows: Sequence[AuditRow]) -> dict[tuple[str, str], list[AuditRow]]:
    """The points of every curve, by group and axis, as they come: from the mildest on."""
    found: dict[tuple[str, str], list[AuditRow]] = {}
    for row in rows:
        if row.curve is not None:
            found.setdefault((row.group, row.curve[0]), []).append(row)
    return found


def _series(points: Sequence[AuditRow]) -> tuple[list[float], dict[str, list[float]]]:
    return [row.curve[1] for row in points if row.curve], {
        "WSR": [row.wsr for row in points],
        "ACC": [row.accuracy for row in points],
        "twin’s WSR": [row.twin_wsr for row in points],
    }


def audit_table(rows: Sequence[AuditRow]) -> Table:
    """The attacks for the terminal, readable at 80 columns."""
    result = Table(
        box=box.SIMPLE_HEAD,
        header_style="bold",
        pad_edge=False,
        caption=f"{CAPTION} twin: the same on an unmarked model.",
        caption_justify="left",
    )
    result.add_column("attack", overflow="fold")
    for name in ("ACC", "WSR", "twin", "p-value"):
        result.add_column(name, justify="right", no_wrap=True)
    result.add_column("verdict", no_wrap=True)
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            result.add_section()
            result.add_row(Text(group, style="italic"))
        verdict = OUTCOMES.get(row.outcome, "failed")
        result.add_row(
            Text("  " + printable(row.name)),
            percent(row.accuracy),
            percent(row.wsr),
            percent(row.twin_wsr) + ("!" if row.twin_outcome == "MARKED" else ""),
            p_text(row.p_value),
            Text(verdict, style="bold" if survives(row) else ""),
        )
    return result


def inspection_table(rows: Sequence[InspectionRow]) -> Table:
    """The searches for the mark, for the terminal."""
    result = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for name in ("inspection", "model", "suspected classes", "target found"):
        result.add_column(name, overflow="fold")
    result.add_column("reversed", justify="right", no_wrap=True)
    for row in rows:
        told = printable(row.error) if row.error else printable(", ".join(row.suspects)) or "none"
        found = "failed" if row.error else "yes" if row.found else "no"
        result.add_row(Text(printable(row.name)), row.model, Text(told), found, percent(row.reversed_success))
    return result


def screen_table(rows: Sequence[ScreenRow]) -> Table:
    """The screens of queries, for the terminal."""
    result = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for name in ("screen", "model"):
        result.add_column(name, overflow="fold")
    for name in ("triggers", "test images", "ACC", "WSR"):
        result.add_column(name, justify="right", no_wrap=True)
    result.add_column("verdict", no_wrap=True)
    for row in rows:
        rates = [percent(rate) for rate in (row.detected, row.false_alarms, row.accuracy, row.wsr)]
        result.add_row(Text(printable(row.name)), row.model, *rates, OUTCOMES.get(row.outcome, "failed"))
    return result


def to_plain(row: AuditRow | InspectionRow | ScreenRow) -> dict[str, Any]:
    """Every field as a JSON value; NaN becomes None."""

    def plain(value: Any) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        return list(value) if isinstance(value, tuple) else value

    return {field.name: plain(asdict(row)[field.name]) for field in fields(row)}


__all__ = [
    "AuditReport",
    "AuditRow",
    "InspectionRow",
    "ScreenRow",
    "audit_table",
    "curves_of",
    "inspection_table",
    "render_audit",
    "screen_table",
    "survives",
    "tell_audit",
    "to_plain",
    "usable",
]
