"""What rows say, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from heirmark.report.words import OUTCOMES, percent
from heirmark.results.rows import Kind
from heirmark.results.summary import Summary

USABLE = 0.10
"""A model that lost more of its victim's accuracy than this is not counted as one that a thief would use."""


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


def of_kind(attacks: Sequence[Summary], kind: Kind) -> list[Summary]:
    """Verdicts, searches or screens."""
    return [attack for attack in attacks if attack.kind == kind]


def survives(attack: Summary) -> bool:
    """Whether the attack left a model that is called marked."""
    return attack.standing == "all"


def usable(attack: Summary, victim: Summary) -> bool:
    """Whether the attack left a model that a thief would use: at most :data:`USABLE` below its victim's accuracy."""
    return attack.accuracy.mean >= victim.accuracy.mean - USABLE


def tell_audit(victim: Summary, attacks: Sequence[Summary]) -> tuple[str, ...]:
    """What the rows say, in sentences: of the marked model and its twin without any attack, and of what attacks do to both."""
    trials = of_kind(attacks, "verdict")
    done = [trial for trial in trials if not trial.failed]
    of_use = [trial for trial in done if usable(trial, victim)]
    whole = [trial for trial in of_use if trial.curve is None]
    lines = [
        f"The model answers {percent(victim.wsr.mean)} of its key's triggers as marked, at an accuracy of "
        f"{percent(victim.accuracy.mean)}.",
    ]
    if victim.standing in ("none", "invalid"):
        lines.append(
            f"Before any attack its verdict is {OUTCOMES[victim.marked[0].outcome].lower()}, so that no row tells what an "
            "attack does to the mark."
        )
    count = sum(trial.curve is None for trial in done)
    if count:
        lines.append(
            f"Of {count} attacks, {len(whole)} left a model within {100 * USABLE:.0f} points of that accuracy, "
            f"and {sum(map(survives, whole))} of these are still called marked."
        )
    points = [trial for trial in of_use if trial.curve is not None]
    if points:
        lines.append(
            f"So are {sum(map(survives, points))} of the {len(points)} points of the curves at which the model is of use."
        )
    lost = [trial.trial for trial in of_use if not survives(trial)]
    if lost and survives(victim):
        lines.append(f"The mark is lost, and the accuracy is not, to: {', '.join(lost)}.")
    twins = [trial for trial in trials if any(row.outcome for row in trial.control)]
    alarms = [trial.trial for trial in twins if trial.false_alarms]
    if twins:
        lines.append(
            f"The same on the unmarked twin was called marked in {len(alarms)} of {len(twins)} cases{_named(alarms)}."
        )
    searches = of_kind(attacks, "search")
    marked = [search for search in searches if not search.failed]
    if marked:
        found = [
            search.probe + (f" with {search.false_suspects:.0f} others" if search.false_suspects else "")
            for search in marked
            if search.found
        ]
        false = [
            search.probe for search in searches if any(row.search and row.search.suspects for row in search.control)
        ]
        lines.append(
            f"Looking for the mark names its target in {len(found)} of {len(marked)} ways{_named(found)}; "
            f"{len(false)} suspect a class of the unmarked twin as well{_named(false)}."
        )
    served = [screen for screen in of_kind(attacks, "screen") if not screen.failed]
    if served and survives(victim):
        evaded = [screen.probe for screen in served if not survives(screen) and usable(screen, victim)]
        lines.append(f"{len(evaded)} of {len(served)} screens keep a verifier from the mark{_named(evaded)}.")
    failed = len(trials) - len(done)
    if failed:
        lines.append(f"{failed} attacks failed; their rows say why.")
    return tuple(lines)


def _named(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""
