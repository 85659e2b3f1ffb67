"""A shard, disclosed: a folder with all that a stranger needs to ask a suspect, and to know that the key was registered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from heirmark.errors import BadArtifact
from heirmark.files import GIB, atomic_write_bytes, atomic_write_json, read_bytes, read_json
from heirmark.keys.key import Key
from heirmark.keys.registration import Registration, hash_of
from heirmark.keys.shards import Proof, commitment_to, cut, proof_of
from heirmark.records import plain, read_record
from heirmark.tasks.media import FILE as MEDIUM
from heirmark.verification.certifying import check_drawn

REGISTRATION: Final = "registration.json"
STAMP: Final = "registration.tsr"
PROOF: Final = "proof.json"
DRAW: Final = "draw.json"
"""The number that drew the answers of the key beside it."""
FILES: Final = ("key.json", "key.safetensors", MEDIUM, REGISTRATION, PROOF, STAMP, DRAW)
"""Of a disclosed shard; the medium where it is of sound or text, the last two where there is a time stamp, and where the answers
were drawn."""


MOST: Final = 2 * GIB
"""Bytes of a shard at most: what strangers send is not looked at beyond."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Disclosed:
    """A shard of a registered key.

    Attributes:
        shard: the rows that may be asked.
        registration: of the whole key.
        proof: that the shard is one of it.
        stamp: a time stamp of the registration (RFC 3161, DER), if there is one.
        beacon: the number that drew the answers; empty where they were not drawn.

    Raises:
        BadArtifact: if the shard is none of the registered key's, or its answers are not those that were drawn.
    """

    shard: Key
    registration: Registration
    proof: Proof
    stamp: bytes | None = None
    beacon: str = ""

    def __post_init__(self) -> None:
        said = self.registration
        if not self.proof.shows(self.shard, commitment=said.commitment, shards=said.shards, drawn=self.drawn):
            raise BadArtifact(
                "the key is none that was registered: it was changed since, or another registration is beside it"
            )
        if (said.method, said.family) != (self.shard.method, self.shard.kind):
            raise BadArtifact(
                f"the registration is of {said.method} on {said.family}, the key of {self.shard.method} on {self.shard.kind}: "
                "they do not belong together"
            )
        if bool(self.beacon) != self.drawn:
            raise BadArtifact(
                "the registration says that a number draws the answers, and none is beside it: heirmark draw comes first"
                if self.drawn
                else "the registration knows of no draw, and a number is beside it: they do not belong together"
            )
        if self.drawn:
            check_drawn(self.shard, said, self.beacon, self.proof)

    @property
    def drawn(self) -> bool:
        """Whether the answers were drawn after the registration."""
        return bool(self.registration.beacon)

    @property
    def tries(self) -> int:
        """See :attr:`heirmark.keys.registration.Registration.tries`."""
        return self.registration.tries

    def save(self, folder: Path) -> None:
        """Write the folder; what is asked with it is shown, so that it may be read by others.

        Raises:
            BadArtifact: when another key is there.
        """
        self.shard.save(folder)
        atomic_write_json(folder / PROOF, plain(self.proof))
        if self.stamp is not None:
            atomic_write_bytes(folder / STAMP, self.stamp)
        if self.beacon:
            atomic_write_json(folder / DRAW, {"beacon": self.beacon})
        atomic_write_bytes(folder / REGISTRATION, self.registration.to_json().encode())

    @classmethod
    def load(cls, folder: Path) -> Disclosed:
        """Read what :meth:`save` wrote, trusting nothing.

        Raises:
            BadArtifact: when something is missing, damaged, or not registered.
        """
        proof = read_proof(folder)
        if proof is None:
            raise BadArtifact(
                f"{folder} holds no shard of a registered key: register it by heirmark commit, and show one by heirmark disclose"
            )
        return cls(
            shard=Key.load(folder, max_bytes=MOST),
            registration=read_registration(folder),
            proof=proof,
            stamp=read_bytes(folder / STAMP, max_bytes=1 << 20) if (folder / STAMP).exists() else None,
            beacon=read_beacon(folder),
        )


def disclose(
    key: Key, registration: Registration, index: int, *, stamp: bytes | None = None, beacon: str = ""
) -> Disclosed:
    """One shard of a registered key.

    Args:
        key: the whole key.
        registration: of it.
        index: of the shard, from 0.
        stamp: of the registration.
        beacon: that drew the answers.

    Raises:
        BadArtifact: when the registration is of another key, or there is no such shard.
        BadConfig: when the key is too small for as many shards.
    """
    drawn = bool(registration.beacon)
    if registration.nonce_hash != hash_of(key.nonce):
        raise BadArtifact("the registration is of another key: name the one that was made of this")
    shards = cut(key, registration.shards, drawn=drawn)
    if commitment_to(shards, drawn=drawn) != registration.commitment:
        raise BadArtifact("the registration is of this key as it was, and the key was changed since: restore it")
    return Disclosed(
        shard=shards[index] if 0 <= index < len(shards) else shards[0],
        registration=registration,
        proof=proof_of(shards, index, drawn=drawn),
        stamp=stamp,
        beacon=beacon.strip(),
    )


def read_beacon(folder: Path) -> str:
    """The number that drew the answers of the key in a folder; empty where none did.

    Raises:
        BadArtifact: when the file is damaged.
    """
    if not (folder / DRAW).exists():
        return ""
    record = read_json(folder / DRAW, max_bytes=1 << 16)
    if not isinstance(record, dict) or set(record) != {"beacon"} or not isinstance(record["beacon"], str):
        raise BadArtifact(f"{folder / DRAW} is damaged: copy it again from where it was made")
    return str(record["beacon"])


def read_proof(folder: Path) -> Proof | None:
    """What shows that the key in a folder is a shard; None where it is whole.

    Raises:
        BadArtifact: when the file is damaged.
    """
    return read_record(folder / PROOF, Proof) if (folder / PROOF).exists() else None


def read_registration(path: Path) -> Registration:
    """A registration from its file, or from the folder that it was written into.

    Raises:
        BadArtifact: when it is missing, damaged, or not signed.
    """
    if path.is_dir():
        if not (path / REGISTRATION).is_file():
            raise BadArtifact(
                f"the key in {path} is not registered: heirmark commit does that, before its model is released or its answers "
                "are drawn"
            )
        path /= REGISTRATION
    return Registration.from_json(read_bytes(path, max_bytes=1 << 16))
