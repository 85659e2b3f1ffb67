"""What the command line shows while it works and when it is done."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from heirmark.errors import printable

if TYPE_CHECKING:
    from heirmark.runtime import Runtime
    from heirmark.stages.store import Event


def error_line(message: str) -> None:
    """Print one line on standard error; what is not fit to show (escape codes in a file's name, say) is a mark."""
    print(f"heirmark: {printable(' '.join(message.split()))}", file=sys.stderr)


def show(text: str) -> None:
    """Print plain text on standard output: never taken for markup; a terminal wraps it between words, a pipe never.

    What a terminal wraps goes on below the text that follows a line's first column.
    """
    for line in map(printable, text.split("\n")):
        parts = [line]
        if sys.stdout.isatty():
            column = re.match(r" *\S+ {2,}| +", line)
            hang = " " * (column.end() if column else 0)
            width = max(40, shutil.get_terminal_size().columns)
            parts = textwrap.wrap(line, width, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False)
        print("\n".join(parts))


class Bars:
    """Progress on standard error: a bar for what runs now, a line for each stage computed, one for all that were there.

    Args:
        quiet: show nothing.
        console: where; standard error by default.
    """

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self.quiet = quiet
        self.console = console or Console(stderr=True)
        self.display = Progress(
            TextColumn(
                "{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
            ),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[counts]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            expand=True,
            disable=quiet or not self.console.is_terminal,
        )
        self._task: TaskID | None = None
        self._stage = ""
        self._work = ""
        self._told: set[str] = set()
        self._reused = 0

    def __enter__(self) -> Bars:
        self.display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell_reused()
        self.display.stop()

    def progress(self, description: str, done: int, total: int) -> None:
        """Sink of :class:`heirmark.runtime.Runtime`: one bar, renewed when the work changes; it pulses at 0 and at the end."""
        if self.display.disable:
            return
        counted = 0 < done < total
        if self._task is None or description != self._work or done <= 1 or not counted:
            self._show(description, total if counted else None)
        if counted and self._task is not None:
            self.display.update(self._task, completed=done, counts=f"{done}/{total}")

    def event(self, event: Event, label: str = "") -> None:
        """Sink of :class:`heirmark.stages.store.Store`, which speaks of an artifact each time that it looks it up."""
        if self.quiet or event.what == "swept":
            return
        if event.what == "cached":
            self._reused += event.name not in self._told
            self._told.add(event.name)
        elif event.what == "started":
            self._tell_reused()
            self._told.add(event.name)
            self._stage = label or event.name
            self._show("", None)
        else:
            self._stage = ""
            self._show("", None)
            if event.what != "failed":  # the error's own line says that
                took = "" if event.seconds is None else f" in {event.seconds:.1f} s"
                words = {"finished": "done", "lost": "done elsewhere"}.get(event.what, event.what)
                self._line(f"{label or event.name}  {words}{took}" + (f": {event.detail}" if event.detail else ""))

    def runtime(self, device: str, precision: str, compiled: bool = False) -> Runtime:
        """A runtime that reports here."""
        from heirmark.runtime import Runtime

        return Runtime(device=device, precision=precision, compile=compiled, progress=self.progress)

    def _show(self, work: str, total: int | None) -> None:
        """Put up a bar for the stage and what it is at; without a total it pulses; without both there is none."""
        if self._task is not None:
            self.display.remove_task(self._task)
        self._work = work
        words = " · ".join(filter(None, (self._stage, work)))
        self._task = self.display.add_task(words, total=total, counts="") if words else None

    def _tell_reused(self) -> None:
        if self._reused:
            self._line(f"{self._reused} finished stage{'s' if self._reused > 1 else ''} reused")
        self._reused = 0

    def _line(self, text: str) -> None:
        self.console.print(f"  {printable(text)}", highlight=False, markup=False, soft_wrap=True)
