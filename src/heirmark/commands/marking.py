"""What the commands that mark a model share: the model that they start from, and how they end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heirmark.commands.options import MARKED, USELESS, print_facts
from heirmark.console import error_line

if TYPE_CHECKING:
    from heirmark.jobs.starting import Start
    from heirmark.runtime import Runtime
    from heirmark.tasks.task import Task


def started(
    method: Any, path: Path | None, model: str | None, settings: Sequence[str] | None, task: Task, runtime: Runtime
) -> tuple[Any, Start | None]:
    """A method and the owner's own model that it marks, if there is one, whose architecture it then has.

    Args:
        method: as it was set.
        path: what ``--from`` says.
        model: what ``--model`` says.
        settings: what ``--set`` says.
        task: what the model is marked for.
        runtime: device.

    Raises:
        BadConfig: when the method trains its own; and see :func:`heirmark.jobs.starting.open_start`.
    """
    from heirmark.jobs.starting import check_starts, open_start

    if path is None:
        return method, None
    check_starts(method)
    named = model is not None or any(each.partition("=")[0].strip() == "model" for each in settings or ())
    start = open_start(path, method.model if named else None, task, runtime=runtime)
    return replace(method, model=start.architecture), start


def shown(summary: dict[str, Any], out: Path, as_json: bool) -> int:
    """Print what was marked; the exit code says whether the mark is of use."""
    from heirmark.jobs.worth import in_words

    print_facts(summary if as_json else in_words(summary), as_json)
    if not summary["shortcoming"]:
        return MARKED
    error_line(f"{out} is written, but {summary['shortcoming']}")
    return USELESS
