"""Whom and what a bundle asks to be believed, and how far a reader's own knowledge carries."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import torch

from heirmark.errors import BadArtifact
from heirmark.evidence.case import Asked, Case
from heirmark.evidence.disclosing import Disclosed
from heirmark.evidence.gathering import Model
from heirmark.keys.key import Key
from heirmark.keys.registration import Registration, digest
from heirmark.keys.stamping import stamped_at
from heirmark.querying.transcript import Entry
from heirmark.results.verdict import Calibration
from heirmark.verification.calibrating import share_known
from heirmark.verification.scrutiny import CHOSEN_LABELS, NO_HOSTS, doubts_of, told_apart

CLOCKS: Final = timedelta(minutes=5)
"""By how much two parties' clocks may differ."""
LEAST: Final = 5
"""Unmarked models, at least, that are about as good as the suspect."""
ALIKE: Final = 0.9
"""Of the share of hosts that the suspect knows, what an unmarked model has to know to be as good."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """What somebody who rechecks a bundle knows from elsewhere. Nothing of it can come out of the bundle.

    Attributes:
        trusted: public keys of those whose word is taken for what they asked and were answered.
        registration: as it was published; None where that is not known.
        published: since when it is known to be public. The date that it bears itself is its owner's word.
        before: what the registration must be older than: the suspect's first appearance, or of a drawn key the moment at which
            the beacon was known.
        roots: certificates of time-stamping authorities that are trusted, PEM.
        beacon: the number that drew the answers of a drawn key, as it was published.
        calibrators: unmarked models of the reader's, or those that the bundle names.
        level: chance of a wrong MARKED that is tolerated in all.
    """

    trusted: Collection[str] = ()
    registration: Registration | None = None
    published: datetime | None = None
    before: datetime | None = None
    roots: bytes | None = None
    beacon: str | None = None
    calibrators: Sequence[Model] = ()
    level: float = 0.01


@dataclass(eq=False)
class Findings:
    """What is found while a bundle is rechecked; see :class:`heirmark.evidence.rechecking.Rechecked`."""

    checked: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


def check_key(shard: Key) -> None:
    """Make sure that a shard is of what it says. A verdict counts what is left of one that is not; for a claim it is refused.

    Queries that are one picture again and again are no independent trials. A key that says its labels were drawn at random for
    every query, and so may be held against 1/C, has to have such labels. Hosts that are named by no class are none.

    Raises:
        BadArtifact: when it is not.
    """
    doubts, count = doubts_of(shard), len(shard)
    repeats, nameless = count - len(told_apart(shard)), int((shard.host_labels < 0).all(1).sum())
    why = ""
    if 2 * repeats > count:
        why = (
            f"{repeats / count:.0%} of its queries are another one with a little noise, so that its trials are no independent "
            "ones"
        )
    elif CHOSEN_LABELS in doubts:
        most = torch.bincount(shard.expected, minlength=shard.classes)
        why = (
            f"it says that its labels were drawn at random for each query, and {int(most.max())} of {count} are "
            f"{int(most.argmax())}"
        )
    elif NO_HOSTS in doubts and shard.host_labels.shape[1] and 2 * nameless > count:
        why = f"{nameless / count:.0%} of its queries have hosts of no class, and so show nothing of the task"
    if why:
        raise BadArtifact(f"the key proves nothing: {why}")


def weigh_asker(case: Case, disclosed: Disclosed, reader: Reader, found: Findings) -> None:
    """Note what is the word of who asked, and whether it is taken."""
    who = "the owner" if case.asker == disclosed.registration.public_key else short(case.asker)
    found.words.append(f"{who}: that {case.suspect.name} was asked this and answered so")
    if case.suspect.digest:
        found.words[-1] += f", whose files have the SHA-256 {case.suspect.digest}"
    if order := case.suspect.order:
        meant = ", ".join("-" if label < 0 else str(label) for label in order[:20]) + (
            ", ..." if len(order) > 20 else ""
        )
        found.words.append(f"{who}: that its classes mean {meant}, which was not chosen to fit these answers")
    for each in case.calibrators:
        by = each.trained_by or "somebody who is not named"
        found.words.append(
            f"{who}: that {each.name} ({each.digest[:16] or 'no files'}) was trained by {by}, without a mark"
        )
    if case.asker not in reader.trusted:
        found.reasons.append(f"the answers are the word of {case.asker}, whom you do not name as trusted (--trust)")


def weigh_age(disclosed: Disclosed, reader: Reader, found: Findings) -> None:
    """Note how old the registration is shown to be, and whether that is enough.

    Raises:
        BadArtifact: when it is not the one that was published, or its time stamp does not hold.
    """
    said = disclosed.registration
    if reader.registration is not None and reader.registration != said:
        raise BadArtifact(
            "the registration is not the one that was published: another key, another attempt, or another draw"
        )
    shown: datetime | None = None
    if disclosed.stamp is not None and reader.roots is not None:
        shown = stamped_at(disclosed.stamp, digest(said), roots=reader.roots)
        if said.beginning > shown + CLOCKS:
            raise BadArtifact("the registration is dated after its time stamp: one of the two is not of this key")
        found.checked.append(f"the registration is stamped, and so no later than {shown.isoformat()}")
    elif reader.registration is not None and reader.published is not None:
        shown = reader.published
        if said.beginning > shown + timedelta(days=1):
            raise BadArtifact(
                "the registration is dated after you know it to be published: one of the two dates is wrong"
            )
        found.checked.append(f"the registration is the one that you know to be public since {shown.isoformat()}")
    if shown is None:
        found.words.append(f"the owner: that the key was registered on {said.made}")
        found.reasons.append(
            "nothing shows when the key was registered: give the registration as it was published, and since when "
            "(--registration, --published), or the roots of the authority that stamped it (--stamp-roots)"
        )
    elif reader.before is None:
        found.reasons.append(
            "you do not say what the key must be older than (--before): the suspect, or the beacon that its answers were drawn by"
        )
    elif shown >= reader.before:
        found.reasons.append(
            f"the key was not registered before {reader.before.isoformat()}, but on {shown.isoformat()}: it can have been made "
            "from the suspect's own answers"
        )


def weigh_draw(case: Case, disclosed: Disclosed, reader: Reader, found: Findings) -> None:
    """Note whether the answers were drawn by the number that the registration promised.

    Raises:
        BadArtifact: when it was another one.
    """
    promised = disclosed.registration.beacon
    found.checked.append(f"the answers are those that the registration and {disclosed.beacon} draw")
    if reader.beacon is None:
        found.words.append(f"{short(case.asker)}: that {disclosed.beacon} is what {promised} gave")
        found.reasons.append(f"you do not say which number {promised} gave (--beacon)")
    elif reader.beacon.strip() != disclosed.beacon:
        raise BadArtifact(f"the answers were drawn by another number than {promised} gave: it is a second draw")


def weigh_models(calibration: Calibration, told: Sequence[Asked], *, knows: float | None) -> list[str]:
    """Why a calibration does not carry a claim; empty where nothing speaks against it.

    Args:
        calibration: measured on the models.
        told: what is said of each.
        knows: share of the hosts that the suspect gives their class, in [0, 1]; None where there are no hosts.

    Examples:
        >>> measured = Calibration(hits=(0, 1), trials=100, key="0" * 64, known=(0.9, 0.4))
        >>> weigh_models(measured, (), knows=0.9)
        ['1 of 2 unmarked models know as many of the hosts as the suspect, and 5 have to: those that learned little say nothing']
    """
    good = len(calibration.hits)
    if knows is not None and calibration.known:
        good = sum(share >= ALIKE * knows for share in calibration.known)
    found = []
    if good < LEAST:
        found.append(
            f"{good} of {len(calibration.hits)} unmarked models know as many of the hosts as the suspect, and {LEAST} have to: "
            "those that learned little say nothing"
        )
    if nameless := [each.name for each in told if not each.trained_by]:
        found.append(f"nobody is said to have trained {nameless[0]}")
    return found


def suspect_knows(case: Case, shard: Key, entries: Sequence[Entry]) -> float | None:
    """Share of the hosts that the suspect gives their class, of those that it was asked; None where it was asked none."""
    said: dict[str, int] = {}
    for entry in entries[1:]:
        if entry.said["by"] == "suspect" and entry.said["kind"] == "answers":
            said |= zip(entry.said["inputs"], entry.said["labels"], strict=True)
    names = case.suspect.order or range(shard.classes)
    found = {row: names[said[digest.hex()]] for row, digest in enumerate(shard.digests[1]) if digest.hex() in said}
    answers = torch.full((len(shard),), -1)
    rows = torch.tensor(list(found), dtype=torch.int64)
    answers[rows] = torch.tensor(list(found.values()), dtype=torch.int64)
    return share_known(answers, shard, rows)


def short(public_key: str) -> str:
    """Enough of a public key to tell it from others."""
    return f"{public_key[:16]}..."
