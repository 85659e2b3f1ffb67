"""Recheck a bundle: derive everything again, offline and without the suspect, and say what rests on whose word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from heirmark.errors import BadArtifact, BadConfig, HeirmarkError, printable
from heirmark.evidence.bundle import CALIBRATION, TRANSCRIPT, VERDICT, Manifest, read_manifest
from heirmark.evidence.case import Asked, Case
from heirmark.evidence.dialogue import Dialogue
from heirmark.evidence.disclosing import MOST, Disclosed
from heirmark.evidence.gathering import Finding, Model, check_apart, judged, put, voice_of
from heirmark.evidence.weighing import (
    CLOCKS,
    Findings,
    Reader,
    check_key,
    short,
    suspect_knows,
    weigh_age,
    weigh_asker,
    weigh_draw,
    weigh_models,
)
from heirmark.files import read_bytes
from heirmark.keys.registration import Registration, digest, is_moment
from heirmark.querying.transcript import Entry, read_transcript
from heirmark.results.grades import GRADES
from heirmark.results.support import support_of
from heirmark.results.verdict import OUTCOMES, Calibration, Document, Outcome, Verdict
from heirmark.verification.calibrating import calibrate
from heirmark.verification.certifying import DrawnVerdict
from heirmark.verification.e_process import e_value, log_e_value
from heirmark.verification.questions import check_level
from heirmark.verification.scrutiny import told_apart
from heirmark.verification.sequential import SequentialVerdict

_SAME: Final = 0.98
"""Share of answers in which a model agrees with itself on another machine, at least: near a tie rounding decides."""


@dataclass(frozen=True, kw_only=True)
class Rechecked(Document):
    """What a bundle shows to a reader. That there is one says that the bundle contradicts itself nowhere.

    Attributes:
        outcome: the verdict's, or NOT_ESTABLISHED where it does not carry so far.
        reasons: why it does not.
        verdict: derived again from the answers.
        checked: what was derived, in words.
        words: what is somebody's word, in words.
        models: unmarked models that the null rests on; none for a drawn key.
        owner: public key of who registered the key.
        asker: public key of who asked.
    """

    outcome: Outcome
    reasons: tuple[str, ...] = ()
    verdict: Finding
    checked: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    models: int = 0
    owner: str
    asker: str

    def __post_init__(self) -> None:
        if (self.outcome == "MARKED") != (self.verdict.outcome == "MARKED" and not self.reasons):
            raise BadArtifact("what was rechecked contradicts itself: recheck again")

    @property
    def ratio(self) -> float:
        """How much more probable the answers are if the suspect learned from the marked model than if it did not, at least.

        The e-value: every hit rate above the null in equal measure, against the null that is best for the suspect.
        """
        said = self.verdict
        if not isinstance(said, Verdict):
            return said.e_value
        if not said.trials or said.null_rate <= 0:
            return 1.0
        hits = log_e_value(said.hits, said.trials - said.hits, said.null_rate)
        return e_value(min(hits, log_e_value(*said.discordant, 0.5)))

    def _support(self) -> str:
        words = f"a likelihood ratio of {self.ratio:.3g} or more, in ENFSI's words {support_of(self.ratio)}"
        if not self.models:
            return words
        alone = self.models + 1
        return f"{words}, if the null holds; {self.models} unmarked models alone carry {alone} ({support_of(alone)})"

    def __str__(self) -> str:
        """In a few lines of plain text."""
        lines = [f"{self.outcome}: {'; '.join(self.reasons) or self.verdict.reason or OUTCOMES[self.outcome]}"]
        lines += [f"  derived   {each}" for each in self.checked]
        lines += [f"  word of   {each}" for each in self.words]
        lines.append(f"  support   {self._support()}")
        said, *rest = str(self.verdict).splitlines()
        lines += [f"  asked     {said}", *(f"          {each}" for each in rest)]
        return "\n".join(map(printable, lines))


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
    check_level(reader.level)
    manifest = read_manifest(folder)
    disclosed = Disclosed.load(folder)
    entries = read_transcript(folder / TRANSCRIPT, max_bytes=MOST)
    found = Findings()
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
        f"{short(said.public_key)} registered, in attempt {said.attempt} of {said.attempts}",
        "the verdict and the calibration follow from the answers, which were asked in the key's own order",
    ]
    if disclosed.drawn:
        weigh_draw(case, disclosed, reader, found)
    else:
        check_key(disclosed.shard)
    weigh_asker(case, disclosed, reader, found)
    weigh_age(disclosed, reader, found)
    if reader.calibrators and not disclosed.drawn:
        verdict = _by_own_models(case, disclosed, entries, verdict, reader, found)
    elif verdict.grade == "calibrated":
        assert calibration is not None
        found.reasons += weigh_models(
            calibration, case.calibrators, knows=suspect_knows(case, disclosed.shard, entries)
        )
        if case.asker == disclosed.registration.public_key:
            found.reasons.append(
                "the unmarked models were chosen and asked by the owner of the key alone (--calibrators)"
            )
    elif verdict.grade != "certified":
        found.reasons.append(f"the null is {verdict.grade}: {GRADES[verdict.grade]} (--calibrators)")
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
        models=0 if disclosed.drawn else len(reader.calibrators) or len(case.calibrators),
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
) -> tuple[Finding, Calibration | None]:
    classes = disclosed.shard.classes
    dialogue = Dialogue(entries[1:])
    try:
        silent = [each.silent(classes) for each in (case.suspect, *case.calibrators)]
        verdict, calibration = judged(case, disclosed, dialogue, silent[0], silent[1:])
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
    kind: type[Finding] = DrawnVerdict if disclosed.drawn else SequentialVerdict if case.sequential else Verdict
    if kind.from_json(read_bytes(folder / VERDICT, max_bytes=1 << 20)) != verdict:
        raise BadArtifact("the verdict is not what the answers give: it was written by hand")
    return verdict, calibration


def _by_own_models(
    case: Case,
    disclosed: Disclosed,
    entries: Sequence[Entry],
    verdict: Finding,
    reader: Reader,
    found: Findings,
) -> Finding:
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
    knows = suspect_knows(case, shard, entries)
    found.reasons += weigh_models(calibration, [each.told for each in own], knows=knows)
    spoken = Dialogue([entry for entry in entries[1:] if entry.said.get("by") == "suspect"])
    suspect = spoken.voice("suspect", case.suspect.silent(shard.classes))
    return put(case, disclosed, suspect, calibration, 2 * verdict.trials if case.sequential else None)


def _check_same(told: Asked, model: Model, disclosed: Disclosed, entries: Sequence[Entry], voice: str) -> None:
    """Make sure that a model says what it said."""
    shard = told_apart(disclosed.shard)
    silent = Dialogue([entry for entry in entries[1:] if entry.said.get("by") == voice]).voice(
        voice, told.silent(shard.classes)
    )
    for inputs in (shard.queries, shard.controls)[: 2 if bool((shard.host_labels >= 0).any()) else 1]:
        then, now = silent.labels(inputs), model.suspect.labels(inputs)
        if float((then == now).double().mean()) < _SAME:
            raise BadArtifact(
                f"{told.name} does not say what the transcript has it say: its answers were written by hand"
            )
