"""A registration: what an owner publishes of a key before a model is released, and from which its answers may be drawn.

It commits to the key without showing anything of it, says which of the owner's attempts it is, and is signed. What makes it
worth something is that others saw it in time: published, deposited, or stamped by a time-stamping authority
(:mod:`heirmark.keys.stamping`).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from heirmark.errors import BadArtifact
from heirmark.keys.signing import Signer, is_signed
from heirmark.results.verdict import Document

MOST_ATTEMPTS: Final = 1_000_000
_HEX64 = re.compile(r"[0-9a-f]{64}")
_HEX128 = re.compile(r"[0-9a-f]{128}")


@dataclass(frozen=True, kw_only=True)
class Registration(Document):
    """A commitment to a key, signed by its owner. It shows nothing of the key.

    Attributes:
        commitment: to the key's material, 64 hex digits: of a key that is drawn later to all but its answers, else to those too;
            see :mod:`heirmark.keys.shards`.
        method: that marks the model, such as ``"robust"``.
        family: kind of its triggers, such as ``"mix"``.
        attempt: which of the owner's registrations for this model it is, from 1.
        attempts: how many there are to be at most. A claim is tested at the level divided by it.
        nonce_hash: SHA-256 of the key's nonce, 64 hex digits; see :func:`hash_of`.
        made: when, UTC, ISO 8601 with seconds: the owner's word, which a time stamp or a publication confirms.
        shards: parts into which the key is cut, of which a dispute burns one.
        beacon: from which number the answers are drawn, told before anybody knows it, such as ``"drand quicknet, round 9"``;
            empty where they are in the key already.
        public_key: the owner's, Ed25519, 64 hex digits.
        signature: by it, of :func:`digest`, 128 hex digits.

    Raises:
        BadArtifact: if a field is no such value, or the signature is not the owner's.
    """

    commitment: str
    method: str
    family: str
    attempt: int
    attempts: int
    nonce_hash: str
    made: str
    shards: int = 1
    beacon: str = ""
    public_key: str
    signature: str

    def __post_init__(self) -> None:
        sound = (
            all(_HEX64.fullmatch(each) for each in (self.commitment, self.nonce_hash, self.public_key))
            and _HEX128.fullmatch(self.signature)
            and 1 <= self.attempt <= self.attempts <= MOST_ATTEMPTS
            and 1 <= self.shards <= 1 << 16
            and all(1 <= len(each) <= 100 for each in (self.method, self.family))
            and len(self.beacon) <= 200
            and is_moment(self.made)
        )
        if not sound:
            raise BadArtifact("the registration is not as heirmark makes it: get it again from where it was published")
        if not is_signed(digest(self), self.signature, by=self.public_key):
            raise BadArtifact(
                "the registration is not signed by the owner whom it names: it was changed, or made by somebody else"
            )

    @property
    def tries(self) -> int:
        """Tests that the owner may make in all, by which the level is divided: each shard, and the whole key, of each attempt."""
        return self.attempts * (self.shards + (self.shards > 1))

    @property
    def beginning(self) -> datetime:
        """:attr:`made`, as a moment."""
        return datetime.fromisoformat(self.made)


def register(
    *,
    signer: Signer,
    commitment: str,
    nonce: str,
    method: str,
    family: str,
    attempt: int = 1,
    attempts: int = 1,
    shards: int = 1,
    beacon: str = "",
    made: datetime | None = None,
) -> Registration:
    """Sign a registration.

    Args:
        signer: the owner.
        commitment: see :class:`Registration`, as for all that is not told here.
        nonce: of the key; what is registered is its hash.
        method: that marks the model.
        family: kind of the triggers.
        attempt: which one it is.
        attempts: of so many.
        shards: of the key.
        beacon: what its answers will be drawn from.
        made: when; None is now.

    Raises:
        BadArtifact: if an argument is no such value.

    Examples:
        >>> made = register(signer=Signer(bytes(32)), commitment="0" * 64, nonce="1" * 64, method="t2s", family="tiles")
        >>> made.attempt, Registration.from_json(made.to_json()) == made
        (1, True)
    """
    said = {
        "commitment": commitment,
        "method": method,
        "family": family,
        "attempt": attempt,
        "attempts": attempts,
        "nonce_hash": hash_of(nonce),
        "made": (made or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds"),
        "shards": shards,
        "beacon": beacon,
        "public_key": signer.public_key,
    }
    return Registration(**said, signature=signer.sign(_digest(said)))  # type: ignore[arg-type]


def digest(registration: Registration) -> bytes:
    """SHA-256 over all that a registration says, 32 bytes: what is signed, stamped, and drawn from.

    The signature is left out: an owner can make many of the same words, and could try draw after draw.
    """
    said = registration.to_dict()
    return _digest({name: value for name, value in said.items() if name not in ("format", "signature")})


def hash_of(nonce: str) -> str:
    """The hash by which a registration names a key's nonce, 64 hex digits."""
    return hashlib.sha256(f"heirmark-nonce-hash/1:{nonce}".encode()).hexdigest()


def is_moment(text: str) -> bool:
    """Whether a text is a moment in UTC as heirmark writes it."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return False
    return any(text == moment.isoformat(timespec=unit) for unit in ("seconds", "milliseconds")) and text.endswith(
        "+00:00"
    )


def _digest(said: dict[str, object]) -> bytes:
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(f"{Registration.format()}\n{text}".encode()).digest()
