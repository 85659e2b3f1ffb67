"""What rows say, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from heirmark.results.summary import Summary


def tell(rows: Sequence[Summary]) -> tuple[str, ...]:
    """How many verdicts of a grid say marked, of marked models and of controls; what is invalid, and what failed."""
    verdicts = [row for row in rows if row.kind != "search"]
    judged, freed = (
        sum(bool(seed.outcome) for row in verdicts for seed in getattr(row, arm)) for arm in ("marked", "control")
    )
    lines = []
    if judged:
        marked = sum(row.called_marked for row in verdicts)
        lines.append(f"Of {judged:,} verdicts on marked models and what attacks left of them, {marked:,} say marked.")
    if freed:
        alarms = sum(row.false_alarms for row in verdicts)
        lines.append(
            f"Of {freed:,} on unmarked controls under the same attacks, {alarms:,} {'does' if alarms == 1 else 'do'}."
        )
    invalid = sum(row.invalid + row.control_invalid for row in verdicts)
    if invalid:
        lines.append(f"{invalid:,} {'verdict is' if invalid == 1 else 'verdicts are'} invalid; the rows say why.")
    failed = sum(row.failed + row.control_failed for row in rows)
    if failed:
        lines.append(f"{failed:,} {'run' if failed == 1 else 'runs'} failed; the rows say why.")
    return tuple(lines)
