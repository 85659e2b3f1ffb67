"""Signatures by Ed25519 (RFC 8032): who registered a key, who asked a suspect."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from heirmark.errors import BadArtifact
from heirmark.files import atomic_write_bytes, read_bytes


@dataclass(frozen=True, eq=False, repr=False)
class Signer:
    """Who signs: a private key, of which only signatures and the public key ever leave.

    Examples:
        >>> signer = Signer(bytes(32))  # in earnest: Signer.drawn(), or Signer.of a file
        >>> signature = signer.sign(b"mine")
        >>> is_signed(b"mine", signature, by=signer.public_key), is_signed(b"yours", signature, by=signer.public_key)
        (True, False)
    """

    secret: bytes

    @classmethod
    def drawn(cls) -> Signer:
        """A new one, from the operating system's randomness."""
        return cls(os.urandom(32))

    @classmethod
    def of(cls, file: Path) -> Signer:
        """The one whose private key is in a file (PEM, PKCS #8, no password), drawn and kept there first if it is missing.

        Raises:
            BadArtifact: when the file is something else.
        """
        if not file.exists():
            cls.drawn().save(file)
        try:
            key = load_pem_private_key(read_bytes(file, max_bytes=1 << 16), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise BadArtifact(
                f"{file} is no Ed25519 private key without a password (PEM): name another file, or a new one"
            )
        return cls(key.private_bytes_raw())

    def save(self, file: Path) -> None:
        """Write the private key, readable by you only."""
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        atomic_write_bytes(file, pem, private=True)

    @property
    def public_key(self) -> str:
        """64 hex digits, by which others know the signer."""
        return self._key.public_key().public_bytes_raw().hex()

    def sign(self, message: bytes) -> str:
        """The signature of a message, 128 hex digits; the same each time."""
        return self._key.sign(message).hex()

    @property
    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.secret)


def is_signed(message: bytes, signature: str, *, by: str) -> bool:
    """Whether a signature is of a message and by the holder of a public key.

    Args:
        message: any bytes.
        signature: hex digits.
        by: the public key, hex digits.
    """
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(by)).verify(bytes.fromhex(signature), message)
    except (ValueError, InvalidSignature):
        return False
    return True
