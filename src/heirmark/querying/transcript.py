"""A transcript: JSON lines, each bound by a hash to all before it, so that no line can be changed, left out or moved unseen.

A line is ``{"at": TIME, "entry": {...}, "hash": HEX}``. Its hash is SHA-256 over the hash of the line before (of the first, 64
zeros) and the canonical JSON of ``[at, entry]``. The first entry is the head, which says what the transcript is of. A chain says
that nothing was changed *within*; that the whole was not written anew is for whoever keeps the last hash, or has it time-stamped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from heirmark.errors import BadArtifact, BadConfig
from heirmark.files import GIB, parse_json, read_bytes

FORMAT: Final = "heirmark-transcript/1"
BEGINNING: Final = "0" * 64
"""What stands in place of a hash before the first line."""
_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line.

    Attributes:
        at: when it was written, UTC, ISO 8601; said by the writer, and proved by nothing.
        said: what it says.
        hash: 64 hex digits, over this line and all before it.
    """

    at: str
    said: Mapping[str, Any]
    hash: str


def chained(before: str, at: str, said: Mapping[str, Any]) -> str:
    """The hash of a line that follows on one with the hash ``before``.

    Examples:
        >>> chained(BEGINNING, "2026-01-01T00:00:00+00:00", {"kind": "answer"})[:8]
        '27c83254'
    """
    return hashlib.sha256(f"{before}{_canonical([at, said])}".encode()).hexdigest()


def read_transcript(path: Path, *, max_bytes: int = 4 * GIB) -> tuple[Entry, ...]:
    """All lines of a transcript, the head first, every hash checked.

    Args:
        path: the file.
        max_bytes: refuse a larger one.

    Raises:
        BadArtifact: when it is missing, too large, cut off, or not as it was written.
    """
    data = read_bytes(path, max_bytes=max_bytes, begins=b"{")
    entries, whole = _read(data, path)
    if whole < len(data):
        raise BadArtifact(
            f"{path} ends within a line: whoever wrote it was interrupted; resume it, or take an older copy"
        )
    return entries


class Transcript:
    """A transcript that is being written. Each line is on the disk when :meth:`append` returns.

    Args:
        path: the file. One that is there is gone on with: a last line that was not finished is dropped.
        head: what it is of; of a file that is there the same, or it is not gone on with.
        max_bytes: refuse to go on with a larger one.

    Raises:
        BadArtifact: when what is there is no transcript, or not as it was written.
        BadConfig: when it is of something else, or being written by another process.

    Examples:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "asked.jsonl"
        >>> with Transcript(file, head={"address": "https://a.example"}) as transcript:
        ...     transcript.append({"kind": "answer", "label": 3})
        >>> [entry.said.get("label") for entry in read_transcript(file)]
        [None, 3]
    """

    def __init__(self, path: Path, *, head: Mapping[str, Any], max_bytes: int = 4 * GIB) -> None:
        self.path = path
        head = {"kind": "head", "format": FORMAT, **head}
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # a question may be a secret
        self._file = descriptor
        self.close = weakref.finalize(self, os.close, descriptor)
        """Let go of the file; done by itself when nobody has the transcript any more."""
        try:
            _lock(descriptor, path)
            entries, whole = _read(read_bytes(path, max_bytes=max_bytes, begins=b"{"), path)
            if entries and json.loads(_canonical(head)) != entries[0].said:
                raise BadConfig(
                    f"{path} is the transcript of something else ({_difference(entries[0].said, head)}): name another file"
                )
            os.lseek(descriptor, whole, os.SEEK_SET)
            os.ftruncate(descriptor, whole)
            self.last = entries[-1].hash if entries else BEGINNING
            self.found: tuple[Entry, ...] = entries[1:]
            if not entries:
                self.append(head)
        except BaseException:
            self.close()
            raise

    def append(self, said: Mapping[str, Any]) -> None:
        """Add a line.

        Args:
            said: JSON; floats come back as they were.

        Raises:
            ValueError: for NaN or infinity.
            TypeError: for what is no JSON.
        """
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        digest = chained(self.last, at, said)
        line = memoryview(_canonical({"at": at, "entry": said, "hash": digest}).encode() + b"\n")
        while line:
            line = line[os.write(self._file, line) :]
        os.fsync(self._file)
        self.last = digest

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the file."""
        self.close()


def _read(data: bytes, path: Path) -> tuple[tuple[Entry, ...], int]:
    """The lines of a file, and how many bytes of it are whole lines."""
    whole = data.rfind(b"\n") + 1
    entries: list[Entry] = []
    before = BEGINNING
    for number, line in enumerate(data[:whole].split(b"\n")[:-1], start=1):
        source = f"{path} line {number}"
        read = parse_json(line, source=source)
        if not isinstance(read, dict) or set(read) != {"at", "entry", "hash"} or not isinstance(read["entry"], dict):
            raise BadArtifact(f"{source} is no line of a transcript: name another file")
        at, said, digest = read["at"], read["entry"], read["hash"]
        if not (isinstance(at, str) and isinstance(digest, str) and _HASH.fullmatch(digest)):
            raise BadArtifact(f"{source} is no line of a transcript: name another file")
        if chained(before, at, said) != digest:
            raise BadArtifact(
                f"{source} is not as it was written, or a line before it is missing: the transcript proves nothing from there on"
            )
        entries.append(Entry(at=at, said=said, hash=digest))
        before = digest
    if entries and entries[0].said.get("format") != FORMAT:
        raise BadArtifact(f"{path} is no transcript of the format {FORMAT}: name another file, or another heirmark")
    return tuple(entries), whole


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """In which facts two heads differ."""
    names: Sequence[str] = sorted({*there, *here})
    return ", ".join(name for name in names if there.get(name) != here.get(name))[:200]


def _lock(descriptor: int, path: Path) -> None:
    """Keep other processes from writing to the same file, where the system can."""
    with contextlib.suppress(ImportError):
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadConfig(f"another process is writing to {path}: wait for it, or name another file") from None
