"""A store that machines share without sharing a disk: a folder here, and the same artifacts under a URL (S3, GCS ...).

::

    <url>/<kind>/<identity, 16 digits>/   the files of the artifact; record.json is written last, so half a copy is none

What is fetched is untrusted: sizes are bounded by the record, no file leaves its folder, and the store checks seal and contents
as it checks its own.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from heirmark.errors import BadConfig, told
from heirmark.files import GIB, MIB
from heirmark.stages.records import RECORD, working_folder
from heirmark.stages.store import Event, Store, ignore

MAX_RECORD = 16 * MIB
MAX_ARTIFACT = 64 * GIB
"""No artifact that is larger is fetched."""
PROBE = ".heirmark"
"""An empty file beside the artifacts, by which a place is tried."""


def open_store(place: Path | str | None, cache: Path, *, on_event: Callable[[Event], None] = ignore) -> Store:
    """The store that a user names: a folder; a URL, whose artifacts are kept in ``cache`` too; or None, ``cache`` itself.

    Raises:
        BadConfig: for a URL that fsspec does not know, or without fsspec.
    """
    if isinstance(place, str) and "://" in place:
        return Store(cache, on_event=on_event, mirror=UrlMirror(place))
    return Store(cache if place is None else place, on_event=on_event)


class UrlMirror:
    """A :class:`heirmark.stages.store.Mirror` on whatever fsspec reaches.

    Args:
        url: such as ``"s3://bucket/folder"``; how to log in is the protocol's own affair (environment, its configuration files).

    Raises:
        BadConfig: when the protocol is unknown, its package or fsspec is not installed, or the place cannot be written.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            import fsspec
        except ImportError:
            raise BadConfig('a store under a URL needs fsspec: pip install "heirmark[fsspec]"') from None
        options = {"auto_mkdir": True} if url.startswith(("file:", "local:")) else {}
        try:
            self._files, root = fsspec.core.url_to_fs(url, **options)
        except Exception as error:  # every protocol has errors of its own
            raise BadConfig(
                f"the store {_shown(url)} cannot be reached ({told(error)}): check the address, and install what it needs"
            ) from error
        self._root = root.rstrip("/")
        self._fetched: set[str] = set()
        self._kept: set[str] = set()
        with self._told("written"):  # now, and not after hours of work that rest on it
            self._files.pipe_file(self._at(PROBE), b"")

    def fetch(self, name: str, root: Path) -> bool:
        """Bring an artifact into a store's folder, as far as it is there and fits its record; the store finds what is wrong.

        Returns:
            Whether it was brought. It is once only: what the store has set aside then is not fit to be brought again.

        Raises:
            BadConfig: when the place cannot be read.
        """
        if name in self._fetched:
            return False
        partial = None
        try:
            with self._told("read"):
                record = self._read_record(name)
                if record is None:
                    return False
                partial = working_folder(root, name)
                (partial / RECORD).write_bytes(record)
                for file, size in _files_in(record):
                    (partial / file).parent.mkdir(parents=True, exist_ok=True)
                    with contextlib.suppress(FileNotFoundError):
                        self._copy(f"{name}/{file}", partial / file, size)
            self._fetched.add(name)
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):  # another process of this machine has put one there meanwhile
                partial.replace(root / name)
        finally:
            if partial is not None:
                shutil.rmtree(partial, ignore_errors=True)
        return True

    def keep(self, name: str, folder: Path, *, anew: bool = False) -> None:
        """Copy a finished artifact there unless there is one.

        Of one computed ``anew``, what stands there under its name is worth nothing and is replaced.

        Raises:
            BadConfig: when the place cannot be written. Nothing is lost: the artifact stays where it is and is copied next time.
        """
        known = name in self._kept or name in self._fetched
        unfit = anew and known  # found there, but set aside since
        if known and not unfit:
            return
        with self._told("written"):
            record = self._at(name, RECORD)
            if unfit:
                with contextlib.suppress(FileNotFoundError):
                    self._files.rm_file(record)
            if not self._is_there(record):
                for file in json.loads((folder / RECORD).read_bytes())["files"]:
                    self._files.put_file(str(folder / file), self._at(name, file))
                self._files.put_file(str(folder / RECORD), record)
        self._kept.add(name)

    def _at(self, *parts: str) -> str:
        return "/".join((self._root, *parts))

    def _is_there(self, path: str) -> bool:
        try:
            self._files.info(path)
        except FileNotFoundError:
            return False
        return True

    def _read_record(self, name: str) -> bytes | None:
        try:
            with self._files.open(self._at(name, RECORD), "rb") as file:
                return bytes(file.read(MAX_RECORD))
        except FileNotFoundError:
            return None

    def _copy(self, name: str, path: Path, size: int) -> None:
        """Not more than the record says, and one byte, by which the store sees that it is too long."""
        source: BinaryIO
        with self._files.open(self._at(name), "rb") as source, path.open("wb") as target:
            left = size + 1
            while left and (part := source.read(min(left, 4 * MIB))):
                target.write(part)
                left -= len(part)

    @contextmanager
    def _told(self, done: str) -> Iterator[None]:
        try:
            self._files.invalidate_cache()  # of listings, in which what others wrote meanwhile is missing
            yield
        except Exception as error:
            raise BadConfig(
                f"the store {_shown(self.url)} cannot be {done} ({told(error)}): check its address, your rights and the network"
            ) from error


def _files_in(record: bytes) -> list[tuple[str, int]]:
    """Names and sizes that a record gives; none, when anything in it is not as it should be, which the store will say."""
    try:
        files = [(PurePosixPath(name), file["size"]) for name, file in json.loads(record)["files"].items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    sound = all(
        isinstance(size, int)
        and size >= 0
        and not name.is_absolute()
        and ".." not in name.parts
        and name.name != RECORD
        for name, size in files
    )
    if not sound or sum(size for _, size in files) > MAX_ARTIFACT:
        return []
    return [(str(name), size) for name, size in files]


def _shown(url: str) -> str:
    """A URL without a password."""
    protocol, _, rest = url.partition("://")
    return f"{protocol}://{rest.rpartition('@')[2]}"
