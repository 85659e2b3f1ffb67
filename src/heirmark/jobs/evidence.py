"""What an owner publishes and shows of a key, what is asked on the record, and what others make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from heirmark.errors import BadArtifact, BadConfig
from heirmark.evidence.case import Asked
from heirmark.evidence.disclosing import REGISTRATION, STAMP, Disclosed, disclose, read_beacon, read_registration
from heirmark.evidence.gathering import Finding, Model, gather
from heirmark.evidence.rechecking import Rechecked, recheck
from heirmark.evidence.weighing import Reader
from heirmark.files import atomic_write_bytes, atomic_write_json, read_bytes, read_json
from heirmark.keys.registration import digest, register
from heirmark.keys.shards import commitment_to, cut
from heirmark.keys.signing import Signer
from heirmark.keys.stamping import fetch_stamp
from heirmark.results.grades import Grade
from heirmark.verification import Suspect
from heirmark.work.judging import homes_of, read_key

SHOWN: Final = "shown.json"
"""Beside a key: which of its shards were shown, and when."""
OWN_MODELS = "who rechecks"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What is said of a key when it is registered; see :class:`heirmark.keys.registration.Registration`."""

    attempt: int = 1
    attempts: int = 1
    shards: int = 4
    beacon: str = ""


def commit_job(key: Path, said: Attempt, *, signer: Path, stamp_from: str | None = None) -> dict[str, Any]:
    """Register a key: write ``registration.json`` beside it, to be published, and its time stamp.

    A key that is registered stays so; the same call may add a time stamp that is missing.

    Args:
        key: folder of a key, or of a model with one.
        said: what is registered.
        signer: file of the owner's private key, made if it is missing.
        stamp_from: address of a time-stamping authority; None asks none.

    Returns:
        What was registered.

    Raises:
        BadArtifact: when there is no key, or it is registered otherwise; or the authority does not stamp.
        BadConfig: when the key is too small for so many shards.
    """
    folder, made = homes_of(key)[-1], read_key(key)
    drawn = made.lots is not None
    if drawn != bool(said.beacon):
        raise BadConfig(
            "the answers of this key are drawn: say by which number that nobody knows yet (--beacon)"
            if drawn
            else "the answers of this key are in it already, and no beacon draws them: leave --beacon out"
        )
    commitment = commitment_to(cut(made, said.shards, drawn=drawn), drawn=drawn)
    owner = Signer.of(signer)
    file = folder / REGISTRATION
    if file.exists():
        registration = read_registration(file)
        wanted = (commitment, owner.public_key, said.attempt, said.attempts, said.shards, said.beacon)
        there = registration.commitment, registration.public_key, registration.attempt, registration.attempts
        if (*there, registration.shards, registration.beacon) != wanted:
            raise BadArtifact(f"{file} registers the key otherwise, and others may have seen it: it is not made again")
    else:
        registration = register(
            signer=owner,
            commitment=commitment,
            nonce=made.nonce,
            method=made.method,
            family=made.kind,
            attempt=said.attempt,
            attempts=said.attempts,
            shards=said.shards,
            beacon=said.beacon,
        )
        atomic_write_bytes(file, registration.to_json().encode())
    if stamp_from is not None and not (folder / STAMP).exists():
        atomic_write_bytes(folder / STAMP, fetch_stamp(digest(registration), stamp_from))
    return {
        "registration": str(file),
        "digest": digest(registration).hex(),
        "owner": registration.public_key,
        "made": registration.made,
        "attempt": f"{registration.attempt} of {registration.attempts}",
        "shards": registration.shards,
        "stamped": (folder / STAMP).exists(),
    }


def disclose_job(key: Path, out: Path, *, number: int | None = None) -> dict[str, Any]:
    """Show one shard of a registered key: write a folder that whoever asks the suspect is given.

    Args:
        key: folder of a key, or of a model with one.
        out: to write.
        number: of the shard, from 1; None takes the first that was never shown.

    Returns:
        What was shown.

    Raises:
        BadArtifact: when the key is not registered, the shard was shown before, or none is left.
    """
    folder, made = homes_of(key)[-1], read_key(key)
    registration = read_registration(folder)
    shown = _shown(folder / SHOWN)
    left = [each for each in range(1, registration.shards + 1) if str(each) not in shown]
    if number is None and not left:
        raise BadArtifact(f"all {registration.shards} shards of the key in {folder} were shown: it is spent")
    number = left[0] if number is None else number
    if str(number) in shown:
        raise BadArtifact(
            f"shard {number} was shown on {shown[str(number)]}, and its queries may be known: name another"
        )
    stamp = read_bytes(folder / STAMP, max_bytes=1 << 20) if (folder / STAMP).exists() else None
    disclosed = disclose(made, registration, number - 1, stamp=stamp, beacon=read_beacon(folder))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadArtifact(f"{out} is no folder, or is not empty: name a new one")
    # Noted first: a shard that may have been seen counts as seen.
    atomic_write_json(
        folder / SHOWN, {**shown, str(number): datetime.now(UTC).isoformat(timespec="seconds")}, private=True
    )
    disclosed.save(out)
    return {
        "shard": f"{number} of {registration.shards}",
        "queries": len(disclosed.shard),
        "folder": str(out),
        "left": len(left) - 1,
    }


def evidence_job(
    suspect: Suspect,
    name: str,
    disclosed: Disclosed,
    folder: Path,
    *,
    signer: Path,
    calibrators: Sequence[tuple[str, Suspect]] = (),
    trained_by: str = "",
    level: float,
    accept: Grade,
    sequential: bool = False,
    max_queries: int | None = None,
) -> Finding:
    """Judge a suspect on the record, and write a bundle; see :func:`heirmark.evidence.gathering.gather`."""
    return gather(
        Model(told=Asked.of(suspect, name), suspect=suspect),
        disclosed,
        folder,
        signer=Signer.of(signer),
        calibrators=[Model(told=Asked.of(each, own, trained_by=trained_by), suspect=each) for own, each in calibrators],
        level=level,
        accept=accept,
        sequential=sequential,
        max_queries=max_queries,
    )


def recheck_job(
    folder: Path,
    *,
    trusted: Sequence[str] = (),
    registration: Path | None = None,
    published: str | None = None,
    before: str | None = None,
    roots: Path | None = None,
    beacon: str | None = None,
    calibrators: Sequence[tuple[str, Suspect]] = (),
    level: float = 0.01,
) -> Rechecked:
    """Recheck a bundle; see :func:`heirmark.evidence.rechecking.recheck`.

    Raises:
        BadArtifact: when the bundle is refused.
        BadConfig: when a key or a date is none.
    """
    for each in trusted:
        if len(each) != 64 or set(each) - set("0123456789abcdef"):
            raise BadConfig(
                f"--trust {each}: give the public key of who asked, 64 hex digits, as verify --evidence shows it"
            )
    return recheck(
        folder,
        Reader(
            trusted=tuple(trusted),
            registration=None if registration is None else read_registration(registration),
            published=None if published is None else parse_moment(published),
            before=None if before is None else parse_moment(before),
            beacon=beacon,
            roots=None if roots is None else read_bytes(roots, max_bytes=1 << 20),
            calibrators=[
                Model(told=Asked.of(each, name, trained_by=OWN_MODELS), suspect=each) for name, each in calibrators
            ],
            level=level,
        ),
    )


def parse_moment(text: str) -> datetime:
    """A date, or a moment, in UTC unless it says otherwise.

    Raises:
        BadConfig: for anything else.

    Examples:
        >>> parse_moment("2026-01-31").isoformat(), parse_moment("2026-01-31T12:00+02:00").isoformat()
        ('2026-01-31T00:00:00+00:00', '2026-01-31T10:00:00+00:00')
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadConfig(f"{text} is no date: write it as 2026-01-31, or as 2026-01-31T12:00+00:00") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _shown(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    said = read_json(path, max_bytes=1 << 24)
    if not isinstance(said, dict) or not all(isinstance(each, str) for each in said.values()):
        raise BadArtifact(f"{path} does not say which shards were shown: restore it")
    return said
