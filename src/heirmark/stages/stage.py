"""Stages: pieces of work with an identity. What a stage computes is its own affair; this module never looks inside."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from heirmark.configuration import JSON, canonical_json, qualified_name, to_json
from heirmark.errors import BadConfig
from heirmark.stages.code_version import code_digests, module_name

FORMAT = 1
"""Part of every identity; raised when a change here or in the store makes older artifacts unusable."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A finished stage on disk.

    Attributes:
        folder: the files that the stage wrote. Read only: a changed file makes the artifact damaged.
        record: what ``record.json`` says: identity, kind, config, seed, inputs, code, versions, times, summary, files.
    """

    folder: Path
    record: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Kind and shortened identity, as in the store's folder: ``"embed/0123456789abcdef"``."""
        return f"{self.record['kind']}/{self.record['identity'][:16]}"

    @property
    def content(self) -> str:
        """SHA-256 over the files and the summary; two runs of one stage agree in it when the stage is deterministic."""
        return str(self.record["content"])

    @property
    def summary(self) -> dict[str, Any]:
        """What the stage returned."""
        return dict(self.record["summary"])


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a stage's function gets.

    Attributes:
        folder: empty; the stage writes its files here and nowhere else.
        config: of the stage.
        inputs: finished artifacts by the names that the stage gave them.
        seed: of the stage; the only source of randomness.
        context: whatever was handed to :meth:`heirmark.stages.store.Store.get` (device, progress);
            no part of the identity, so it must not change a result.
    """

    folder: Path
    config: Any
    inputs: Mapping[str, Artifact]
    seed: int
    context: Any = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """A piece of work, identified by everything that can change its result.

    Attributes:
        kind: lower-case word such as ``"embed"``, for paths and messages.
        run: function at the top level of a module; writes files into ``job.folder`` and returns a small
            JSON summary, without times, which differ from run to run.
        config: frozen dataclass or JSON; must not be changed afterwards.
        inputs: stages whose artifacts this one reads, by name.
        seed: handed to the function.
        external: digests of what lies outside the store and can change the result (a task's content,
            precision, torch's version).
        identity: SHA-256 over all of the above and the code, as hexadecimal digits; computed.
        code: SHA-256 of each module that counts, see :mod:`heirmark.stages.code_version`; computed.

    Raises:
        BadConfig: for a bad kind, a function that cannot be found by name, or a configuration that JSON cannot hold.
    """

    kind: str
    run: Callable[[Job], Mapping[str, JSON]]
    config: object = field(default=None, repr=False)
    inputs: Mapping[str, Stage] = field(default_factory=dict, repr=False)
    seed: int = 0
    external: Mapping[str, str] = field(default_factory=dict, repr=False)
    identity: str = field(init=False)
    code: Mapping[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.kind):
            raise BadConfig(f"stage kind {self.kind!r} is no lower-case word: use letters, digits and single hyphens")
        if "." in qualified_name(self.run, "run").partition(":")[2]:
            raise BadConfig(
                f"run of stage {self.kind} is {self.run.__qualname__}: give a function at the top level of a module"
            )
        # Inputs exist before their readers, so their identities are there already and no recursion is needed.
        settled: dict[str, Any] = {
            "inputs": dict(self.inputs),
            "external": dict(self.external),
            "code": code_digests(self.run, self.config),
        }
        for name, value in settled.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "identity", hashlib.sha256(canonical_json(self.describe())).hexdigest())

    def __reduce__(self) -> tuple[Any, ...]:
        # Rebuilt, not copied: in another process the identity is that of the code found there.
        names = ("kind", "run", "config", "inputs", "seed", "external")
        return partial(Stage, **{name: getattr(self, name) for name in names}), ()

    @property
    def name(self) -> str:
        """Kind and shortened identity, which is also the folder in the store: ``"embed/0123456789abcdef"``."""
        return f"{self.kind}/{self.identity[:16]}"

    def describe(self) -> dict[str, JSON]:
        """All that the identity is computed from, as JSON."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "run": f"{module_name(self.run)}:{self.run.__qualname__}",
            "config": to_json(self.config),
            "inputs": {name: stage.identity for name, stage in self.inputs.items()},
            "seed": self.seed,
            "external": dict(self.external),
            "code": dict(self.code),
        }


def lineage(*goals: Stage) -> list[Stage]:
    """The goals and all that they read, each identity once, inputs before their readers."""
    order: dict[str, Stage] = {}
    pending = list(reversed(goals))
    while pending:
        stage = pending[-1]
        waiting = [needed for needed in stage.inputs.values() if needed.identity not in order]
        if waiting and stage.identity not in order:
            pending.extend(reversed(waiting))
        else:
            order.setdefault(pending.pop().identity, stage)
    return list(order.values())
