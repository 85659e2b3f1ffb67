"""The store: computes each stage once and keeps its artifact, whole or not at all.

::

    <root>/<kind>/<identity, 16 digits>/   record.json and the files that the stage wrote; complete, by a single rename
    <root>/.partial/                       stages at work; what a killed process leaves behind is removed later
    <root>/.damaged/  <root>/.stale/       artifacts found wrong or superseded, moved out of the way; delete at will

Several processes and machines may share a folder. Two that compute the same stage both finish; the first to rename wins
and the other takes the winner's artifact.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from heirmark.configuration import to_json
from heirmark.errors import BadArtifact, BadConfig
from heirmark.stages.records import (
    RECORD,
    at_work,
    make_record,
    seal_of,
    settle_files,
    sha256,
    sync_folders,
    working_folder,
    write_record,
)
from heirmark.stages.stage import Artifact, Job, Stage

STALE_HOURS = 7 * 24
"""Age at which work in progress of another machine is taken for abandoned."""
ATTEMPTS = 3
"""How often one call computes a stage whose artifact will not stay whole."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something the store did.

    Attributes:
        what: ``started``, ``finished``, ``failed`` or ``cached`` stage; ``lost`` a race to the same result, which is
            used; ``damaged`` or ``stale`` artifact moved to ``folder``; ``swept`` what a killed process had left.
        name: kind and shortened identity of the stage.
        folder: where it happened.
        detail: why, in words; empty where there is nothing to say.
        seconds: that the stage's function took, once it has finished or failed.
    """

    what: Literal["started", "finished", "failed", "cached", "lost", "damaged", "stale", "swept"]
    name: str
    folder: Path
    detail: str = ""
    seconds: float | None = None


def ignore(event: Event) -> None:
    """Take no notice: the default sink of events."""


class Mirror(Protocol):
    """A place that stores on several machines share; see :mod:`heirmark.stages.mirror`. It is told names and folders only."""

    @property
    def url(self) -> str:
        """Where it is, from which another process can make it again."""

    def fetch(self, name: str, root: Path) -> bool:
        """Bring an artifact into a store's folder, unchecked; False when there is none, or it was brought before."""

    def keep(self, name: str, folder: Path, *, anew: bool = False) -> None:
        """Copy an artifact there unless there is one. One computed ``anew`` takes the place of one that proved unfit."""


class Store:
    """A folder of artifacts.

    Args:
        root: made when the first stage is computed.
        on_event: told of all that happens; an artifact is never replaced without a word.
        mirror: where artifacts are looked for that are not here, and copied to. What comes from there is checked as if it had
            been here.
    """

    def __init__(
        self, root: Path | str, *, on_event: Callable[[Event], None] = ignore, mirror: Mirror | None = None
    ) -> None:
        self.root = Path(root).absolute()
        self.on_event = on_event
        self.mirror = mirror
        self._hashed: dict[Path, tuple[int, int, int]] = {}  # size, time and inode at which a file's content was right

    def get(self, stage: Stage, context: object = None) -> Artifact:
        """The artifact of a stage; computed, with whatever it needs, unless it is there.

        Args:
            stage: what to compute. When its own artifact is there, its inputs need not be.
            context: handed to every stage that is computed.

        Raises:
            BadArtifact: when a stage writes anything but plain files, or artifacts keep going bad.
            BaseException: whatever a stage's function raises; its files are removed and nothing is kept of it.
        """
        pending, computed, told = [stage], Counter[str](), set[str]()
        while True:
            current = pending[-1]
            artifact = self._find_and_tell(current, told)
            if artifact is None:
                found = {name: self._find_and_tell(needed, told) for name, needed in current.inputs.items()}
                inputs = {name: item for name, item in found.items() if item is not None}
                unfit = self._set_stale_aside(inputs)
                waiting = [needed for name, needed in current.inputs.items() if name not in inputs or name in unfit]
                if waiting:
                    pending.extend(reversed(waiting))
                    continue
                if computed[current.name] == ATTEMPTS:
                    raise BadArtifact(
                        f"{current.name} was computed but is gone or damaged again: check the disk of {self.root}"
                    )
                artifact = self._compute(current, inputs, context)
                computed[current.name] += 1
                told.add(current.name)
            pending.pop()
            if not pending:
                return artifact

    def find(self, stage: Stage) -> Artifact | None:
        """The finished artifact of a stage, or None. A damaged one is moved aside and reported.

        Sizes are checked each time; contents by SHA-256 on first use and whenever a file's time has changed.
        """
        artifact = self._find_here(stage)
        if self.mirror is not None:
            if artifact is None and self.mirror.fetch(stage.name, self.root):
                artifact = self._find_here(stage)
            elif artifact is not None:
                # It may be older than the mirror, or its process was killed before it was copied.
                self.mirror.keep(stage.name, artifact.folder)
        return artifact

    def _find_here(self, stage: Stage) -> Artifact | None:
        folder = self.root / stage.name
        try:
            inode = folder.stat().st_ino
            return Artifact(folder=folder, record=self._read(folder, stage.identity))
        except FileNotFoundError:
            return None
        except BadArtifact as error:
            self._set_aside(stage.name, inode, "damaged", str(error))
            return None

    def _find_and_tell(self, stage: Stage, told: set[str]) -> Artifact | None:
        artifact = self.find(stage)
        if artifact is not None and stage.name not in told:
            told.add(stage.name)
            self.on_event(Event(what="cached", name=stage.name, folder=artifact.folder))
        return artifact

    def _read(self, folder: Path, identity: str) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads((folder / RECORD).read_bytes())
            if record["seal"] != seal_of(record) or record["identity"] != identity:
                raise BadArtifact(f"{RECORD} was changed or belongs elsewhere")
            for name, file in record["files"].items():
                if Path(name).is_absolute() or ".." in Path(name).parts:
                    raise BadArtifact(f"{RECORD} names {name!r}, which lies elsewhere")
                path = folder / name
                status = path.stat()
                if status.st_size != file["size"]:
                    raise BadArtifact(f"{name} has {status.st_size} bytes instead of {file['size']}")
                stamp = (status.st_size, status.st_mtime_ns, status.st_ino)
                if self._hashed.get(path) != stamp:
                    if sha256(path) != file["sha256"]:
                        raise BadArtifact(f"the content of {name} has changed")
                    self._hashed[path] = stamp
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise BadArtifact(f"{Path(error.filename).name} is missing or no plain file") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, BadConfig) as error:
            raise BadArtifact(f"{RECORD} is truncated or foreign") from error
        return record

    def _set_aside(self, name: str, inode: int, what: Literal["damaged", "stale"], why: str) -> None:
        folder, aside = self.root / name, self.root / f".{what}" / f"{name.replace('/', '-')}-{secrets.token_hex(4)}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if folder.stat().st_ino == inode:  # else another process has put a new one there meanwhile
                folder.rename(aside)
                self.on_event(Event(what=what, name=name, folder=aside, detail=why))

    def _set_stale_aside(self, inputs: Mapping[str, Artifact]) -> set[str]:
        """Move aside those inputs that descend from another copy of an artifact than the one now in use, and name them.

        A recomputed artifact may differ from the lost one (graphics cards are not deterministic). A stage that read the
        new key and a copy stolen from the old model would judge what never belonged together.
        """
        contents = {artifact.name: artifact.content for artifact in inputs.values()}
        heard: dict[str, str] = {}  # ancestors that are not here, and the input whose word was taken
        unfit: dict[str, str] = {}
        for name, artifact in inputs.items():
            for ancestor, content in artifact.record["lineage"].items():
                if ancestor not in contents:
                    here = self._content(ancestor)
                    contents[ancestor] = content if here is None else here
                    if here is None:
                        heard[ancestor] = name
                if contents[ancestor] != content:
                    unfit.setdefault(name, ancestor)
                    if ancestor in heard:  # nobody knows which of the two is stale
                        unfit.setdefault(heard[ancestor], ancestor)
        for name, ancestor in unfit.items():
            why = f"it descends from another copy of {ancestor}"
            with contextlib.suppress(FileNotFoundError):
                self._set_aside(inputs[name].name, inputs[name].folder.stat().st_ino, "stale", why)
        return set(unfit)

    def _content(self, name: str) -> str | None:
        """The digest of an artifact that is here, or None."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            return str(json.loads((self.root / name / RECORD).read_bytes())["content"])
        return None

    def _compute(self, stage: Stage, inputs: Mapping[str, Artifact], context: object) -> Artifact:
        self._sweep()
        partial = working_folder(self.root, stage.name)
        started, clock = datetime.now(UTC), time.perf_counter()
        try:
            self.on_event(Event(what="started", name=stage.name, folder=partial))
            job = Job(folder=partial, config=stage.config, inputs=inputs, seed=stage.seed, context=context)
            summary = to_json(stage.run(job), "summary")
            if not isinstance(summary, Mapping):
                raise BadConfig(f"stage {stage.kind} returned {summary!r}: return a mapping")
            seconds = time.perf_counter() - clock
            record = make_record(stage, inputs, summary, settle_files(partial), started, seconds)
            write_record(partial, record)
            artifact = self._publish(stage, Artifact(folder=partial, record=record))
            if self.mirror is not None:
                self.mirror.keep(stage.name, artifact.folder, anew=artifact.record is record)
            self.on_event(Event(what="finished", name=stage.name, folder=artifact.folder, seconds=seconds))
        except BaseException as error:
            error.add_note(f"in stage {stage.name}")
            seconds, why = time.perf_counter() - clock, f"{type(error).__name__}: {error}"
            self.on_event(Event(what="failed", name=stage.name, folder=partial, detail=why, seconds=seconds))
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # not there any more when all went well
        return artifact

    def _publish(self, stage: Stage, artifact: Artifact) -> Artifact:
        folder = self.root / stage.name
        folder.parent.mkdir(parents=True, exist_ok=True)
        for last in (False, True):
            try:
                artifact.folder.replace(folder)
            except OSError:  # most likely because there is one already
                winner = self.find(stage)
                if winner is not None:
                    self.on_event(
                        Event(what="lost", name=stage.name, folder=folder, detail="another process was first")
                    )
                    return winner
                if last:
                    raise
            else:
                break
        sync_folders(folder.parent, deep=False)
        return Artifact(folder=folder, record=artifact.record)

    def _sweep(self) -> None:
        """Remove what killed processes have left; on another machine only when it is old."""
        for folder in (self.root / ".partial").glob("*"):
            with contextlib.suppress(FileNotFoundError, ValueError):
                kind, identity, machine, process, _ = folder.name.split(".")
                if not at_work(machine, int(process), folder, hours=STALE_HOURS):
                    shutil.rmtree(folder, ignore_errors=True)
                    self.on_event(Event(what="swept", name=f"{kind}/{identity}", folder=folder))
