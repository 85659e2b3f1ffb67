"""What a bundle is about: who was asked, by whom, on which terms. It is the head of the transcript."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from heirmark.data.zoo import located
from heirmark.errors import BadArtifact
from heirmark.records import record_of
from heirmark.results.grades import Grade
from heirmark.stages.records import sha256
from heirmark.verification.normalising import Normalisation
from heirmark.verification.suspects import Suspect
from heirmark.version import __version__
from heirmark.wire.addresses import seal_of, shown_name


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A model that was asked, as far as it can be told.

    Attributes:
        name: as who asked named it; of an address without its query, which may hold a secret.
        kind: see :class:`heirmark.verification.Suspect`, as for the next two.
        classes: of its own.
        input_shape: of one input, where it is known.
        order: the class of the key that each of its own means; empty where they are the same.
        mean: that was taken from its inputs; empty where they were given as they are.
        std: by which they were divided.
        digest: see :func:`digest_of`; empty where there are no files.
        trained_by: who trained it, of a model that calibrates; who asked says so.
        seal: SHA-256 of the whole name where the query is left out of it, else empty.
        family: of nets that it is of, where that is known.
    """

    name: str
    kind: str
    classes: int
    input_shape: tuple[int, ...] | None = None
    order: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    digest: str = ""
    trained_by: str = ""
    seal: str = ""
    family: str = ""

    @classmethod
    def of(cls, suspect: Suspect, name: str, *, trained_by: str = "") -> Self:
        """What is told of a suspect that goes by a name, most often that of its files."""
        mean, std = suspect.normalise or ((), ())
        return cls(
            name=shown_name(name),
            kind=suspect.kind,
            classes=suspect.classes if suspect.order is None else len(suspect.order),
            input_shape=suspect.input_shape,
            order=suspect.order or (),
            mean=tuple(mean),
            std=tuple(std),
            digest=digest_of(located(name)),
            trained_by=trained_by,
            seal=seal_of(name),
            family=suspect.family,
        )

    def silent(self, classes: int) -> Suspect:
        """A suspect of its kind that cannot be asked, for a key of so many classes.

        Raises:
            BadConfig: when its order of classes makes no sense.
        """
        normalise: Normalisation | None = (self.mean, self.std) if self.mean else None
        suspect = Suspect(
            ask=_nobody,
            kind=self.kind,
            classes=self.classes,
            input_shape=self.input_shape,
            normalise=normalise,
            family=self.family,
        )
        return suspect.relabelled(self.order, classes=classes) if self.order else suspect


@dataclass(frozen=True, kw_only=True)
class Case:
    """Head of a transcript.

    Attributes:
        registration: digest of the key's registration, 64 hex digits.
        shard: commitment of the shard that was asked.
        suspect: who was asked.
        calibrators: unmarked models that were asked before.
        level: of significance, of this shard of this attempt.
        accept: the least grade by which who asked makes the claim.
        sequential: whether the asking stopped when it was enough.
        max_queries: after how many at most; None is the whole shard.
        asker: public key of who asked.
        heirmark: version that asked.
        torch: likewise.
        python: likewise.
    """

    registration: str
    shard: str
    suspect: Asked
    calibrators: tuple[Asked, ...] = ()
    level: float
    accept: Grade
    sequential: bool = False
    max_queries: int | None = None
    asker: str
    heirmark: str = __version__
    torch: str = str(torch.__version__)
    python: str = platform.python_version()

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Self:
        """From the head of a transcript.

        Raises:
            BadArtifact: when it is anything else.
        """
        source = "the head of the transcript"
        values = {name: value for name, value in said.items() if name not in ("kind", "format", "calibrators")}
        listed = said.get("calibrators")
        if not isinstance(listed, list):
            raise BadArtifact(f"{source} does not say which unmarked models were asked: it is of another kind")
        calibrators = tuple(record_of(Asked, each, source) for each in listed)
        return replace(record_of(cls, values, source), calibrators=calibrators)


def digest_of(path: Path) -> str:
    """SHA-256 of a model's files, 64 hex digits: of the file, or of names and digests of ``model.*`` in a folder.

    Returns:
        The digest; empty where there is no file.
    """
    if path.is_file():
        return sha256(path)
    files = sorted(each for each in path.glob("model.*") if each.is_file()) if path.is_dir() else []
    if not files:
        return ""
    listed = "".join(f"{sha256(each)}  {each.name}\n" for each in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def _nobody(inputs: Tensor) -> Tensor:
    raise BadArtifact("the model is not here: only what it said is on the record")
