"""Recheck a bundle: derive everything again, offline and without the suspect, and say what rests on whose word."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from heirmark.errors import BadArtifact, BadConfig, HeirmarkError, printable
from heirmark.evidence.bundle import CALIBRATION, TRANSCRIPT, VERDICT, Manifest, read_manifest
from heirmark.evidence.case import Asked, Case
from heirmark.evidence.dialogue import Dialogue
from heirmark.evidence.disclosing import Disclosed
from heirmark.evidence.gathering import Model, check_apart, judged, put, voice_of
from heirmark.evidence.weighing import weigh_models
from heirmark.files import read_bytes
from heirmark.keys.key import Key
from heirmark.keys.registration import Registration, digest, is_moment
from heirmark.keys.stamping import stamped_at
from heirmark.querying.transcript import Entry, read_transcript
from heirmark.results.verdict import OUTCOMES, Calibration, Document, Outcome, Verdict
from heirmark.verification.scrutiny import faults_of
from heirmark.verification.sequential import SequentialVerdict
from heirmark.verification.verify import calibrate

CLOCKS: Final = timedelta(minutes=5)
"""By how much two parties' clocks may differ."""
_SAME: Final = 0.98
"""Share of answers in which a model agrees with itself on another machine, at least: near a tie rounding decides."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """What somebody who rechecks a bundle knows from elsewhere. Nothing of it can come out of the bundle.

    Attributes:
        trusted: public keys of those whose word is taken for what they asked and were answered.
        registration: as it was published; None where that is not known.
        before: what the registration must be older than: the suspect's first appearance, or of a drawn key the moment at which
            the beacon was known.
        roots: certificates of time-stamping authorities that are trusted, PEM.
        calibrators: unmarked models of the reader's, or those that the bundle names.
        level: chance of a wrong MARKED that is tolerated in all.
    """

    trusted: Collection[str] = ()
    registration: Registration | None = None
    before: datetime | None = None
    roots: bytes | None = None
    calibrators: Sequence[Model] = ()
    level: float = 0.01


@dataclass(frozen=True, kw_only=True)
class Rechecked(Document):
    """What a bundle shows to a reader. That there is one says that the bundle contradicts itself nowhere.

    Attributes:
        outcome: the verdict's, or NOT_ESTABLISHED where it does not carry so far.
        reasons: why it does not.
        verdict: derived again from the answers.
        checked: what was derived, in words.
        words: what is somebody's word, in words.
        owner: public key of who registered the key.
        asker: public key of who asked.
    """

    outcome: Outcome
    reasons: tuple[str, ...] = ()
    verdict: Verdict | SequentialVerdict
    checked: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    owner: str
    asker: str

    def __post_init__(self) -> None:
        if (self.outcome == "MARKED") != (self.verdict.outcome == "MARKED" and not self.reasons):
            raise BadArtifact("what was rechecked contradicts itself: recheck again")

    def __str__(self) -> str:
        """In a few lines of plain text."""
        lines = [f"{self.outcome}: {'; '.join(self.reasons) or self.verdict.reason or OUTCOMES[self.outcome]}"]
        lines += [f"  derived   {each}" for each in self.checked]
        lines += [f"  word of   {each}" for each in self.words]
        said, *rest = str(self.verdict).splitlines()
        lines += [f"  asked     {said}", *(f"          {each}" for each in rest)]
        return "\n".join(map(printable, lines))


@dataclass(eq=False)
class _Findings:
    checked: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


def recheck(folder: Path, reader: Reader | None = None) -> Rechecked:
    """Derive a bundle again and say what it shows.

    Args:
        folder: the bundle.
        reader: what is known from elsewhere; without, a bundle can only be found to contradict itself or not.

    Returns:
        What it shows. MARKED is said only where the reader trusts who asked, the null is warranted by somebody else than the
        owner, and the registration is shown to be old enough.

    Raises:
        BadArtifact: when the bundle was changed, or contradicts itself; the message says where.
        BadConfig: when what the reader names makes no sense.
        BadData: when a model of the reader's cannot calibrate.
    """
    reader = reader or Reader()
    if not 0 < reader.level <= 0.5:
        raise BadConfig(f"level must lie above 0 and at most at 0.5, not {reader.level}")
    manifest = read_manifest(folder)
    disclosed = Disclosed.load(folder)
    entries = read_transcript(folder / TRANSCRIPT)
    found = _Findings()
    if not entries or manifest.last != entries[-1].hash:
        raise BadArtifact("the transcript does not end where the manifest says: it was cut off or written anew")
    case = Case.read(entries[0].said)
    _check_case(case, manifest, disclosed)
    _check_dates(entries, manifest, disclosed.registration)
    verdict, calibration = _judged_again(folder, case, disclosed, entries)
    said = disclosed.registration
    found.checked += [
        f"{len(manifest.files)} files are as sealed on {manifest.made}; the transcript is a chain of {len(entries)} lines",
        f"the shard of {len(disclosed.shard)} queries is number {disclosed.proof.index + 1} of {said.shards} that "
        f"{_short(said.public_key)} registered, in attempt {said.attempt} of {said.attempts}",
        "the verdict and the calibration follow from the answers, which were asked in the key's own order",
    ]
    for fault in faults_of(disclosed.shard):
        raise BadArtifact(f"the key proves nothing: {fault}")
    _weigh_asker(case, disclosed, reader, found)
    _weigh_age(disclosed, entries, reader, found)
    if reader.calibrators:
        verdict = _by_own_models(case, disclosed, entries, verdict, reader, found)
    elif verdict.grade == "calibrated":
        assert calibration is not None
        found.reasons += weigh_models(
            calibration, case.calibrators, suspect_knows=_knows(case, disclosed.shard, entries)
        )
        if case.asker == disclosed.registration.public_key:
            found.reasons.append(
                "the unmarked models were chosen and asked by the owner of the key alone (--calibrators)"
            )
    if case.level * disclosed.tries > reader.level * (1 + 1e-9):
        found.reasons.append(
            f"the level of {case.level:.2g} for one of {disclosed.tries} shards and attempts makes "
            f"{case.level * disclosed.tries:.2g} in all, above {reader.level:g}"
        )
    reasons = tuple(found.reasons) if verdict.outcome == "MARKED" else ()
    return Rechecked(
        outcome="NOT_ESTABLISHED" if reasons else verdict.outcome,
        reasons=reasons,
        verdict=verdict,
        checked=tuple(found.checked),
        words=tuple(found.words),
        owner=disclosed.registration.public_key,
        asker=case.asker,
    )


def _check_case(case: Case, manifest: Manifest, disclosed: Disclosed) -> None:
    if case.asker != manifest.asker:
        raise BadArtifact("the bundle is sealed by another than the transcript says asked: it was taken over")
    if case.registration != digest(disclosed.registration).hex():
        raise BadArtifact("the transcript is of another registration than the one beside it")
    if case.shard != disclosed.shard.commitment:
        raise BadArtifact("the transcript is of another key than the shard beside it")
    try:
        check_apart(case.suspect, case.calibrators)
    except BadConfig as error:
        raise BadArtifact(f"the transcript is of no honest test: {error}") from None


def _check_dates(entries: Sequence[Entry], manifest: Manifest, registration: Registration) -> None:
    moments = [registration.made, *(entry.at for entry in entries), manifest.made]
    if not all(map(is_moment, moments)):
        raise BadArtifact("the transcript has a date that is none: it was not written by heirmark")
    times = [datetime.fromisoformat(each) for each in moments]
    if times != sorted(times):
        raise BadArtifact(
            "the dates contradict each other: a key is registered, then asked line by line, and then the bundle is sealed"
        )
    if times[-1] > datetime.now(UTC) + CLOCKS:
        raise BadArtifact(f"the bundle is dated {manifest.made}, which is yet to come: check this machine's clock")


def _judged_again(
    folder: Path, case: Case, disclosed: Disclosed, entries: Sequence[Entry]
) -> tuple[Verdict | SequentialVerdict, Calibration | None]:
    classes = disclosed.shard.classes
    dialogue = Dialogue(entries[1:])
    try:
        silent = [each.silent(classes) for each in (case.suspect, *case.calibrators)]
        verdict, calibration = judged(case, disclosed.shard, dialogue, silent[0], silent[1:])
        dialogue.finish()
    except BadArtifact:
        raise
    except HeirmarkError as error:
        raise BadArtifact(f"the transcript gives no verdict: {error}") from None
    written = read_bytes(folder / CALIBRATION, max_bytes=1 << 22) if (folder / CALIBRATION).exists() else None
    if (calibration is None) != (written is None) or (
        calibration is not None and written is not None and Calibration.from_json(written) != calibration
    ):
        raise BadArtifact("the calibration is not what the unmarked models' answers give: it was written by hand")
    kind = SequentialVerdict if case.sequential else Verdict
    if kind.from_json(read_bytes(folder / VERDICT, max_bytes=1 << 20)) != verdict:
        raise BadArtifact("the verdict is not what the answers give: it was written by hand")
    return verdict, calibration


def _weigh_asker(case: Case, disclosed: Disclosed, reader: Reader, found: _Findings) -> None:
    who = "the owner" if case.asker == disclosed.registration.public_key else _short(case.asker)
    found.words.append(f"{who}: that {case.suspect.name} was asked this and answered so")
    if case.suspect.digest:
        found.words[-1] += f", whose files have the SHA-256 {case.suspect.digest}"
    for each in case.calibrators:
        by = each.trained_by or "somebody who is not named"
        found.words.append(
            f"{who}: that {each.name} ({each.digest[:16] or 'no files'}) was trained by {by}, without a mark"
        )
    if case.asker not in reader.trusted:
        found.reasons.append(f"the answers are the word of {case.asker}, whom you do not name as trusted (--trust)")


def _weigh_age(disclosed: Disclosed, entries: Sequence[Entry], reader: Reader, found: _Findings) -> None:
    """Whether the registration is known to be old enough."""
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
    elif reader.registration is not None:
        shown = said.beginning
        found.checked.append("the registration is the one that you know to be published")
    if shown is None:
        found.words.append(f"the owner: that the key was registered on {said.made}")
        found.reasons.append(
            "nothing shows when the key was registered: give the registration as it was published (--registration), or the "
            "roots of the authority that stamped it (--stamp-roots)"
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


def _by_own_models(
    case: Case,
    disclosed: Disclosed,
    entries: Sequence[Entry],
    verdict: Verdict | SequentialVerdict,
    reader: Reader,
    found: _Findings,
) -> Verdict | SequentialVerdict:
    """The verdict by a calibration that is measured here; models that the bundle names have to say what they said."""
    shard = disclosed.shard
    own = list(reader.calibrators)
    check_apart(case.suspect, [each.told for each in own])
    known = {each.digest: number for number, each in enumerate(case.calibrators) if each.digest}
    for each in own:
        if each.told.digest in known:
            number = known[each.told.digest]
            _check_same(case.calibrators[number], each, disclosed, entries, voice_of(number))
            found.checked.append(f"{each.told.name} answers as it did")
    calibration = calibrate([each.suspect for each in own], shard, note="models of who rechecked")
    found.checked.append(f"the null was measured here, on {len(own)} models that you named")
    knows = _knows(case, shard, entries)
    found.reasons += weigh_models(calibration, [each.told for each in own], suspect_knows=knows)
    spoken = Dialogue([entry for entry in entries[1:] if entry.said.get("by") == "suspect"])
    suspect = spoken.voice("suspect", case.suspect.silent(shard.classes))
    return put(case, shard, suspect, calibration, 2 * verdict.trials if case.sequential else None)


def _check_same(told: Asked, model: Model, disclosed: Disclosed, entries: Sequence[Entry], voice: str) -> None:
    """Make sure that a model says what it said."""
    shard = disclosed.shard
    silent = Dialogue([entry for entry in entries[1:] if entry.said.get("by") == voice]).voice(
        voice, told.silent(shard.classes)
    )
    for inputs in (shard.queries, shard.controls)[: 2 if bool((shard.host_labels >= 0).any()) else 1]:
        then, now = silent.labels(inputs), model.suspect.labels(inputs)
        if float((then == now).double().mean()) < _SAME:
            raise BadArtifact(
                f"{told.name} does not say what the transcript has it say: its answers were written by hand"
            )


def _knows(case: Case, shard: Key, entries: Sequence[Entry]) -> float | None:
    """Share of the hosts that the suspect gives their class, of those that it was asked; None where it was asked none."""
    said: dict[str, int] = {}
    for entry in entries[1:]:
        if entry.said["by"] == "suspect" and entry.said["kind"] == "answers":
            said |= zip(entry.said["inputs"], entry.said["labels"], strict=True)
    names = case.suspect.order or range(shard.classes)
    hosts = [set(row) - {-1} for row in shard.host_labels.tolist()]
    answers = [said.get(digest.hex()) for digest in shard.digests[1]]
    known = [names[label] in host for label, host in zip(answers, hosts, strict=True) if label is not None and host]
    return sum(known) / len(known) if known else None


def _short(public_key: str) -> str:
    return f"{public_key[:16]}..."
