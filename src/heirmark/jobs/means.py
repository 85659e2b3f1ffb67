"""What every job is given besides what it is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from heirmark.runtime import Runtime
from heirmark.stages.store import Event, Store

OnEvent = Callable[[Event, str], None]
"""Told of what a store does, with the name of the stage for people."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """How a job is done.

    Attributes:
        seed: of all that is random in it.
        runtime: device, precision, progress.
        store: where finished stages are kept.
        on_event: told of every stage.
    """

    seed: int
    runtime: Runtime
    store: Path
    on_event: OnEvent | None = None

    def labelled(self, labels: Mapping[str, str]) -> Store:
        """The store, whose events come with what their stages are called for people."""
        tell = self.on_event or (lambda event, label: None)
        return Store(self.store, on_event=lambda event: tell(event, labels.get(event.name, "")))
