"""One stage as an errand to another process, perhaps on another machine: what it is told, does and returns."""

from __future__ import annotations

import contextlib
import os
import pickle
import platform
import site
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from heirmark.errors import BadConfig, told
from heirmark.grids.settings import Contexts, Setting
from heirmark.runtime import Runtime
from heirmark.stages.mirror import open_store
from heirmark.stages.stage import Stage
from heirmark.stages.store import Event, Store
from heirmark.work.answering import pool_digest
from heirmark.work.context import Context

KEPT = 2
"""Settings whose data a worker keeps: where one seed ends, stages of the next come in between."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What every errand of a run is told; hashable, so that a worker process recognises the run.

    Attributes:
        root: of the store.
        url: of the store's mirror; None without any.
        data: folder of data sets.
        folder: to work in, where there is such a folder.
        threads: of torch.
        facts: of the runtime (device type, precision, version of torch, compiler), which must be the same everywhere.
    """

    root: str
    url: str | None
    data: str
    folder: str
    threads: int
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Errand:
    """One stage, which is rebuilt in the worker from the code found there.

    Attributes:
        stage: what to compute.
        setting: its data.
        place: of the run.
        identity: of the stage where it was planned.
        code: digests of its modules where it was planned.
    """

    stage: Stage
    setting: Setting
    place: Place
    identity: str
    code: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What comes back.

    Attributes:
        error: why the stage failed; empty when it did not.
        events: what the store told, names and seconds in it.
    """

    error: str = ""
    events: tuple[Event, ...] = ()


def work_packed(paths: Sequence[str], packed: bytes, *inputs: Outcome) -> Outcome:
    """:func:`work` in a process that does not know the user's own modules yet, of which a stage may be made.

    Args:
        paths: where they lie; searched after Python's own library, so that no file of the user's takes the place of one of it.
        packed: the pickled errand, from the process that planned it.
        inputs: see :func:`work`.
    """
    libraries = [number for number, path in enumerate(sys.path) if path in site.getsitepackages()]
    place = min(libraries, default=len(sys.path))
    sys.path[place:place] = [path for path in paths if path not in sys.path]
    return work(pickle.loads(packed), *inputs)


def work(errand: Errand, *inputs: Outcome) -> Outcome:
    """Compute a stage in a worker process, unless one of its inputs failed: then say so again.

    Args:
        errand: what to do.
        inputs: what the errands returned on which it waited.
    """
    stage, place = errand.stage, errand.place
    error = next((item.error for item in inputs if item.error), "")
    if error:
        return Outcome(error=error)
    events: list[Event] = []
    try:
        _check_code(errand)
        torch.set_num_threads(place.threads)
        with contextlib.suppress(OSError):  # a node need not have it
            os.chdir(place.folder)
        store = _store(place)
        store.on_event = events.append
        context = contexts_of(place, replace(errand.setting, shows_foreign=False))(errand.setting)
        check_node(stage, context, place)
        store.get(stage, context)
    except Exception as caught:  # whatever a strategy runs into is a result
        error = told(caught)
    return Outcome(error=error, events=tuple(events))


@lru_cache(maxsize=1)
def _store(place: Place) -> Store:
    return open_store(place.url or place.root, Path(place.root))


@lru_cache(maxsize=KEPT)
def contexts_of(place: Place, plain: Setting) -> Contexts:
    """The contexts of a run in this process, with the device, precision and compiler that it was planned for."""
    facts = dict(place.facts)
    runtime = Runtime(device=facts["device"], precision=facts["precision"], compile="compile" in facts)
    return Contexts(runtime, Path(place.data))


def _check_code(errand: Errand) -> None:
    stage = errand.stage
    if stage.identity != errand.identity:
        here, there = stage.code, errand.code
        changed = [name for name in sorted({*here, *there}) if here.get(name) != there.get(name)]
        raise BadConfig(
            f"node {platform.node()} has other code than this grid ({', '.join(changed[:5]) or 'in what the stage builds on'}):"
            " install the same heirmark and the same code of your own on every node"
        )


def check_node(stage: Stage, context: Context, place: Place) -> None:
    """A node with another torch or other data would write other numbers under the same identity."""
    planned, found = dict(place.facts), context.runtime.facts()
    for name, value in found.items():
        if value != planned[name]:
            raise BadConfig(
                f"node {platform.node()} has {name} {value} in place of {planned[name]}: install the same on every node"
            )
    external = dict(context.external())
    if "pool" in stage.external:
        external |= pool_digest(_pool_name(stage.config), context)
    for name in ("task", "foreign", "pool"):
        if name in external and stage.external.get(name, external[name]) != external[name]:
            raise BadConfig(
                f"data {context.task.name!r} on node {platform.node()} are not those of this grid: bring the same to every node"
            )


def _pool_name(config: Any) -> str:
    """Of the images that a stage asks about: answers have a mapping, attacks a class of their own."""
    return str(config["pool"] if isinstance(config, Mapping) else config.pool)
