"""Gather evidence: ask a suspect on the record, and seal what was said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from heirmark.errors import BadArtifact, BadConfig
from heirmark.evidence.bundle import CALIBRATION, MANIFEST, TRANSCRIPT, VERDICT, seal
from heirmark.evidence.case import Asked, Case
from heirmark.evidence.dialogue import Dialogue
from heirmark.evidence.disclosing import Disclosed
from heirmark.files import atomic_write_bytes
from heirmark.keys.registration import digest
from heirmark.keys.signing import Signer
from heirmark.querying.transcript import Transcript
from heirmark.records import plain
from heirmark.results.grades import LEAST_GRADE, Grade
from heirmark.results.verdict import Calibration, Verdict
from heirmark.verification.calibrating import calibrate
from heirmark.verification.certifying import DrawnVerdict, verify_drawn
from heirmark.verification.questions import check_level
from heirmark.verification.sequential import SequentialVerdict, verify_sequentially
from heirmark.verification.suspects import Suspect
from heirmark.verification.verify import verify

Finding = Verdict | SequentialVerdict | DrawnVerdict


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A model that can be asked, with what is told of it."""

    told: Asked
    suspect: Suspect


def gather(
    suspect: Model,
    disclosed: Disclosed,
    folder: Path,
    *,
    signer: Signer,
    calibrators: Sequence[Model] = (),
    level: float = 0.01,
    accept: Grade = LEAST_GRADE,
    sequential: bool = False,
    max_queries: int | None = None,
) -> Finding:
    """Ask a suspect a shard on the record, and write the bundle.

    An interrupted call goes on with the transcript that it finds, and asks nothing twice.

    Args:
        suspect: whom to ask.
        disclosed: a shard of a registered key.
        folder: to write; it may hold an unfinished bundle of the same case.
        signer: who asks. A reader who does not know him need not believe the answers.
        calibrators: unmarked models, which are asked first.
        level: chance of a wrong MARKED that is tolerated in all. It is divided by the tests that the owner may make: one for each
            shard of each attempt.
        accept: the least grade by which the claim is made.
        sequential: stop when it is enough.
        max_queries: after so many at most, if sequential.

    Returns:
        The verdict of who asks; see :func:`heirmark.evidence.rechecking.recheck` for what others make of it.

    Raises:
        BadArtifact: when the folder has something else, or a finished bundle.
        BadConfig: for a level out of range, models that are told of twice, or what does not go with a drawn key.
        BadData: when an unmarked model cannot calibrate.
    """
    check_level(level)
    check_apart(suspect.told, [each.told for each in calibrators])
    if disclosed.drawn and (calibrators or sequential):
        raise BadConfig(
            "a drawn key needs no unmarked models, and is asked as a whole: leave --calibrators and --sequential out"
        )
    if (folder / MANIFEST).exists():
        raise BadArtifact(f"{folder} holds a finished bundle: name another folder, and disclose another shard for it")
    case = Case(
        registration=digest(disclosed.registration).hex(),
        shard=disclosed.shard.commitment,
        suspect=suspect.told,
        calibrators=tuple(each.told for each in calibrators),
        level=level / disclosed.tries,
        accept=accept,
        sequential=sequential,
        max_queries=max_queries,
        asker=signer.public_key,
    )
    disclosed.save(folder)
    with Transcript(folder / TRANSCRIPT, head=plain(case)) as transcript:
        dialogue = Dialogue(transcript.found, transcript)
        verdict, calibration = judged(
            case, disclosed, dialogue, suspect.suspect, [each.suspect for each in calibrators]
        )
        last = transcript.last
    dialogue.finish()
    if calibration is not None:
        atomic_write_bytes(folder / CALIBRATION, calibration.to_json().encode())
    atomic_write_bytes(folder / VERDICT, verdict.to_json().encode())
    seal(folder, signer=signer, last=last)
    return verdict


def judged(
    case: Case, disclosed: Disclosed, dialogue: Dialogue, suspect: Suspect, calibrators: Sequence[Suspect]
) -> tuple[Finding, Calibration | None]:
    """What follows from a dialogue, whether it is held now or read: the unmarked models speak first, then the suspect.

    Args:
        case: what is asked, and on which terms.
        disclosed: the shard, with its registration.
        dialogue: the record.
        suspect: who is asked, if it is not on the record.
        calibrators: likewise.

    Returns:
        The verdict and the calibration that it rests on.

    Raises:
        BadArtifact: when the record is not of this case.
        BadData: when an unmarked model cannot calibrate.
    """
    calibration = None
    if calibrators:
        voices = [dialogue.voice(voice_of(number), each) for number, each in enumerate(calibrators)]
        calibration = calibrate(voices, disclosed.shard, note="models that were asked on the record")
    return (
        put(case, disclosed, dialogue.voice("suspect", suspect), calibration, case.max_queries),
        calibration,
    )


def put(
    case: Case, disclosed: Disclosed, suspect: Suspect, calibration: Calibration | None, max_queries: int | None
) -> Finding:
    """Judge a suspect on the terms of a case."""
    shard, registration = disclosed.shard, disclosed.registration
    if disclosed.drawn:
        level = min(0.5, case.level * disclosed.tries)  # by which it is divided there
        return verify_drawn(suspect, shard, registration, disclosed.beacon, proof=disclosed.proof, level=level)
    if case.sequential:
        return verify_sequentially(
            suspect, shard, calibration=calibration, level=case.level, accept=case.accept, max_queries=max_queries
        )
    return verify(suspect, shard, calibration=calibration, level=case.level, accept=case.accept)


def voice_of(number: int) -> str:
    """What the record calls an unmarked model, by its place."""
    return f"calibrator {number + 1}"


def check_apart(suspect: Asked, calibrators: Sequence[Asked]) -> None:
    """Make sure that no model has two parts.

    Raises:
        BadConfig: when it has.
    """
    known = [each.digest for each in calibrators if each.digest]
    names = [(each.name, each.seal) for each in calibrators if not each.digest]
    if len(set(known)) < len(known) or len(set(names)) < len(names):
        raise BadConfig("an unmarked model is named twice, and would count as two: name each once")
    if suspect.digest in known or (not suspect.digest and (suspect.name, suspect.seal) in names):
        raise BadConfig("the suspect is among the unmarked models: leave it out")
