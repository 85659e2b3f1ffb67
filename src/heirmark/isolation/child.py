"""The process that a stranger's model runs in: ``python -m heirmark.isolation.child FILE_DESCRIPTOR``.

It is told what to open and under which limits, opens it, and answers until the other side closes. Imports no torch by itself.
"""

from __future__ import annotations

import importlib
import math
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from heirmark.errors import out_of_memory, told
from heirmark.isolation.frames import SMALL, Frame, Gone, Kind, frame_of, receive, send

Answer: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]
Opened: TypeAlias = tuple[dict[str, Any], Answer]
"""What an opener returns: facts of the model, for the parent, and what answers inputs."""
_GRACE = 10
"""Seconds after its time that a child ends by itself, in case its parent died."""


def main() -> None:
    """Serve the socket that was inherited."""
    with socket.socket(fileno=int(sys.argv[1])) as channel, suppress(Gone):  # the parent has finished
        serve(channel)


def serve(channel: socket.socket) -> None:
    """Open what the first frame names, say what it is, and answer all further ones.

    Raises:
        Gone: when the other side closes.
    """
    told_to = receive(channel, most=SMALL).facts
    seconds = math.ceil(told_to["seconds"]) + _GRACE
    limit(told_to["memory"])
    signal.alarm(seconds)  # ends this process, whatever it is at
    module, _, name = told_to["opener"].partition(":")
    answer: Answer | None = None
    try:
        facts, answer = getattr(importlib.import_module(module), name)(**told_to["options"])
        said = frame_of(Kind.FACTS, facts)
    except BaseException as error:  # it runs whatever a stranger wrote
        said = _fault(error)
    send(channel, said)
    while answer is not None:
        signal.alarm(0)
        asked = receive(channel, most=1 << 62)  # from the parent, who is trusted
        signal.alarm(seconds)
        send(channel, answered(answer, asked))


def answered(answer: Answer, asked: Frame) -> Frame:
    """What a model says to inputs, or what went wrong; never more than was allowed."""
    try:
        values = answer(asked.values)
        said = Frame(kind=Kind.ANSWER, values=values if isinstance(values, np.ndarray) else np.asarray(values))
        if said.values.nbytes > asked.most:
            raise ValueError(f"{said.values.nbytes:,} bytes were answered to {len(asked.values)} inputs")
        if said.values.dtype.hasobject or said.values.dtype.kind not in "fiub":
            raise ValueError(f"{said.values.dtype} values were answered")
        if said.values.dtype.itemsize > 8:  # long doubles, which no other machine has alike
            said = Frame(kind=Kind.ANSWER, values=said.values.astype(np.float64))
    except BaseException as error:  # it runs whatever a stranger wrote, SystemExit among it
        return _fault(error)
    return said


def limit(memory: int) -> None:
    """Bound what this process may allocate, for good, where the system can; it never leaves a core behind."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere this does not count what is mapped, as large arrays are
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def _fault(error: BaseException) -> Frame:
    kind = Kind.MEMORY if out_of_memory(error) else Kind.FAULT
    return frame_of(kind, {"error": type(error).__name__[:100], "words": told(error)})


if __name__ == "__main__":
    main()
