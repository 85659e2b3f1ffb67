"""A bundle of evidence: a folder of files, sealed by who asked. No byte of it can be changed unseen."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from heirmark.errors import BadArtifact
from heirmark.evidence.disclosing import FILES, MOST, PROOF, REGISTRATION
from heirmark.files import MIB, atomic_write_bytes, parse_json, read_bytes
from heirmark.keys.registration import is_moment
from heirmark.keys.signing import Signer, is_signed
from heirmark.records import plain, record_of
from heirmark.stages.records import sha256

FORMAT: Final = "heirmark-evidence/1"
MANIFEST: Final = "manifest.json"
TRANSCRIPT: Final = "transcript.jsonl"
CALIBRATION: Final = "calibration.json"
VERDICT: Final = "verdict.json"
NEEDED: Final = frozenset({TRANSCRIPT, VERDICT, REGISTRATION, PROOF, "key.json", "key.safetensors"})
KNOWN: Final = frozenset({*FILES, TRANSCRIPT, CALIBRATION, VERDICT})
_LARGE: Final = frozenset({TRANSCRIPT, "key.safetensors"})
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a bundle consists of.

    Attributes:
        files: name and SHA-256 of each.
        last: hash of the transcript's last line.
        made: when it was sealed, UTC; the word of who asked.
        asker: public key of who asked and sealed it.
        signature: by it, over all else.
        format: of the bundle.
    """

    files: Mapping[str, str]
    last: str
    made: str
    asker: str
    signature: str = ""
    format: str = FORMAT

    @property
    def message(self) -> bytes:
        """What is signed."""
        said = {name: value for name, value in plain(self).items() if name != "signature"}
        return hashlib.sha256(f"{FORMAT}\n{json.dumps(said, sort_keys=True)}".encode()).digest()

    def encoded(self) -> bytes:
        """As it is written; there is no other way to write it."""
        return json.dumps(plain(self), indent=2, sort_keys=True).encode() + b"\n"


def seal(folder: Path, *, signer: Signer, last: str) -> Manifest:
    """Write the manifest, and so finish a bundle.

    Args:
        folder: with all other files.
        signer: who asked.
        last: hash of the transcript's last line.
    """
    manifest = Manifest(
        files={name: sha256(folder / name) for name in sorted(KNOWN) if (folder / name).is_file()},
        last=last,
        made=datetime.now(UTC).isoformat(timespec="milliseconds"),
        asker=signer.public_key,
    )
    said = plain(manifest) | {"signature": signer.sign(manifest.message)}
    manifest = record_of(Manifest, said, "the manifest")
    atomic_write_bytes(folder / MANIFEST, manifest.encoded())
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle, every file of which was compared with it.

    Raises:
        BadArtifact: when a file is missing, too many, or not as it was sealed.
    """
    data = read_bytes(folder / MANIFEST, max_bytes=1 << 16)
    manifest = record_of(Manifest, parse_json(data, source=str(folder / MANIFEST)), "the manifest")
    names = set(manifest.files)
    hexes = (manifest.last, manifest.asker, manifest.signature[:64], manifest.signature[64:], *manifest.files.values())
    sound = manifest.format == FORMAT and is_moment(manifest.made) and all(map(_HEX.fullmatch, hexes))
    if not sound or manifest.encoded() != data:
        raise BadArtifact(f"{folder / MANIFEST} is not as heirmark writes it: it was changed, or is of another version")
    if not is_signed(manifest.message, manifest.signature, by=manifest.asker):
        raise BadArtifact(
            f"{folder / MANIFEST} is not signed by who is said to have asked: it was changed, or made by another"
        )
    if not NEEDED <= names <= KNOWN:
        raise BadArtifact(
            f"a bundle has the files {', '.join(sorted(NEEDED))}, and this one {', '.join(sorted(names))}: it is of another kind"
        )
    there = {each.name for each in folder.iterdir()} - {MANIFEST}
    if there != names:
        raise BadArtifact(
            f"{folder} has other files than were sealed ({', '.join(sorted(there ^ names))[:200]}): get the whole bundle again"
        )
    for name, digest in manifest.files.items():
        file = folder / name
        if file.is_symlink() or not file.is_file():
            raise BadArtifact(f"{file} is no file of its own, as it was sealed: get the whole bundle again")
        if file.stat().st_size > (MOST if name in _LARGE else MIB * 16):
            raise BadArtifact(
                f"{file} is larger than any that heirmark writes into a bundle: nothing in it is looked at"
            )
        if sha256(file) != digest:
            raise BadArtifact(f"{file} is not as it was sealed: it was changed or damaged")
    return manifest
