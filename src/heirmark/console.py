"""What the command line shows while it works and when it is done."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from heirmark.pipeline.store import Event
    from heirmark.runtime import Runtime
    from heirmark.verification import Verdict


def error_line(message: str) -> None:
    """Print one line on standard error."""
    print(f"heirmark: {' '.join(message.split())}", file=sys.stderr)


class Bars:
    """Progress on standard error: a bar for what runs now, and a line for every stage done.

    Args:
        quiet: show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )
        self._task: TaskID | None = None
        self._description = ""

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def progress(self, description: str, done: int, total: int) -> None:
        """Sink of :class:`heirmark.runtime.Runtime`: one bar, renewed when the work changes."""
        if self._task is None or description != self._description or done <= 1:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._task, self._description = self._bars.add_task(description, total=total), description
        self._bars.update(self._task, completed=done, total=total)

    def event(self, event: Event, label: str = "") -> None:
        """Sink of :class:`heirmark.pipeline.store.Store`: a line for what was done or found."""
        if self.quiet or event.what in ("started", "swept"):
            return
        took = "" if event.seconds is None else f" in {event.seconds:.1f} s"
        detail = f": {event.detail}" if event.detail else ""
        words = {"cached": "already there", "finished": "done", "lost": "done elsewhere"}.get(event.what, event.what)
        self.console.print(f"  {label or event.name}  {words}{took}{detail}", highlight=False, markup=False)

    def runtime(self, device: str, precision: str) -> Runtime:
        """A runtime that reports here."""
        from heirmark.runtime import Runtime

        return Runtime(device=device, precision=precision, progress=self.progress)


def verdict_lines(verdict: Verdict) -> list[str]:
    """A verdict in words."""
    low, high = verdict.interval
    lines = [
        f"[bold]{verdict.outcome}[/bold]  p = {verdict.p_value:.3g} (level {verdict.level:g})",
        f"WSR {verdict.wsr:.1%} ({verdict.hits} of {verdict.trials}; 95 % interval {low:.1%} to {high:.1%}), "
        f"matched controls {verdict.control_rate:.1%}",
        f"null: {verdict.null}",
        f"queries: {verdict.queries}   key: {verdict.key[:16]}...",
    ]
    if verdict.flags:
        lines.append(f"flags: {', '.join(verdict.flags)}")
    return lines
