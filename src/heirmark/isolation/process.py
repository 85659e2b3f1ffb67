"""The parent's side: a model in a process of its own, that may end or hang without taking the verifier along."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from numpy.typing import NDArray

from heirmark.errors import BadArtifact, BadConfig, BadData, HeirmarkError, printable
from heirmark.isolation.frames import SMALL, Frame, Gone, Kind, Silence, frame_of, receive, send
from heirmark.isolation.limits import ProcessLimits
from heirmark.querying.oracle import ModelFault

_LONGEST = 1000
"""Characters of a stranger's words that are kept."""
_PATIENCE = 5.0
"""Seconds that a killed process is waited for."""
_KNOWN: Mapping[str, type[HeirmarkError]] = {error.__name__: error for error in (BadArtifact, BadConfig, BadData)}
_HARMLESS = re.compile(
    "PATH|HOME|LANG|LC_[A-Z]+|TZ|TMPDIR|TEMP|TMP|SYSTEMROOT|(DY)?LD_LIBRARY_PATH|HEIRMARK_DATA|PYTHON(DONTWRITEBYTECODE|HASHSEED|UTF8)"
    "|(OMP|MKL|KMP|GOMP|OPENBLAS|NUMEXPR|VECLIB)_[A-Z_]+|CUDA_(VISIBLE_DEVICES|DEVICE_ORDER)|CUBLAS_WORKSPACE_CONFIG"
)
"""Variables that a model in a process of its own is given."""
POSIX = os.name == "posix"
"""Whether there are processes with limits here; elsewhere models run in the verifier's own."""


class Isolated:
    """A model in a process of its own. It starts when it is made, and again when it is asked after it had to be ended.

    Args:
        opener: ``package.module:function`` that opens the model in that process, see :data:`heirmark.isolation.child.Opened`.
        options: its keyword arguments, as JSON.
        limits: of time and memory.
        name: of the model, for errors.
        largest: bytes of a sound answer to one input; many times as much is refused unread.

    Attributes:
        facts: what the opener said of the model.
        limits: as they were given.
        left: seconds that are left of them in all.

    Raises:
        BadArtifact: if the model cannot be opened within the limits; also another error that the opener raised by name.
    """

    def __init__(
        self,
        opener: str,
        options: Mapping[str, Any],
        *,
        limits: ProcessLimits,
        name: str,
        largest: Callable[[Any], int],
    ) -> None:
        self._opener, self._options, self.limits, self._name = opener, dict(options), limits, printable(name)
        self.left = limits.total
        self._channel: socket.socket | None = None
        self._turn = threading.Lock()
        self.facts = self._start()
        try:
            self._largest = largest(self.facts)
        except (KeyError, TypeError, ValueError):
            self.close()
            raise BadArtifact(f"{self._name} does not say what it is: do not trust it") from None

    def __call__(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """What the model says to inputs ``[B, ...]``: an array of numbers, of any shape. Threads ask one after another.

        Raises:
            ModelFault: if it fails, ends, or takes too long; its process is ended then.
            MemoryError: if memory ran out there.
        """
        with self._turn:
            return self._answer(inputs)

    def _answer(self, inputs: NDArray[Any]) -> NDArray[Any]:
        if self.left <= 0:
            raise ModelFault(self._late(self.limits.total, "to answer all that it was asked", "total"))
        if self._channel is None:
            try:
                self._start()
            except HeirmarkError as error:
                raise ModelFault(str(error)) from error
        began = time.monotonic()
        seconds = min(self.limits.seconds, self.left)
        most = SMALL + 16 * self._largest * len(inputs)
        try:
            said = self._exchange(Frame(kind=Kind.ASK, values=inputs, most=most), most, began + seconds)
        except Silence:
            raise ModelFault(self._late(seconds, f"to answer {len(inputs)} inputs", "seconds")) from None
        finally:
            self.left -= time.monotonic() - began
        if said.kind == Kind.MEMORY:
            raise MemoryError(f"{self._name} {self._too_large()}")
        if said.kind != Kind.ANSWER:
            raise ModelFault(f"{self._name} fails: {self._words(said)}")
        return said.values

    def close(self) -> None:
        """End the process."""
        if self._channel is not None:
            self._channel = None
            self._end()

    def _start(self) -> dict[str, Any]:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", "heirmark.isolation.child", str(theirs.fileno())]
        process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**harmless(os.environ), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )
        theirs.close()
        self._end = weakref.finalize(self, _end, process, ours)
        self._channel = ours
        first = {
            "opener": self._opener,
            "options": self._options,
            "seconds": self.limits.seconds,
            "memory": self.limits.memory,
        }
        try:
            said = self._exchange(frame_of(Kind.FACTS, first), SMALL, time.monotonic() + self.limits.seconds)
            if said.kind == Kind.FACTS:
                return said.facts
        except Silence:
            raise BadArtifact(self._late(self.limits.seconds, "to be opened", "seconds")) from None
        except ModelFault as fault:
            raise BadArtifact(str(fault)) from None
        self.close()
        if said.kind == Kind.MEMORY:
            raise BadArtifact(f"{self._name} {self._too_large()}")
        known = _KNOWN.get(str(said.facts.get("error")))
        if known is not None:
            raise known(self._words(said))
        raise BadArtifact(f"{self._name} cannot be opened: {self._words(said)}")

    def _exchange(self, frame: Frame, most: int, until: float) -> Frame:
        """Ask and wait; whoever does not answer as agreed is ended."""
        assert self._channel is not None
        try:
            send(self._channel, frame, until=until)
            return receive(self._channel, most=most, until=until)
        except Gone as gone:
            self.close()
            raise ModelFault(
                f"the process of {self._name} ended or did not keep to what was agreed ({gone}): the model crashes, needs more "
                f"than {self.limits.memory / 2**30:.3g} GiB (--memory), or is not what it says"
            ) from None
        except BaseException:
            self.close()
            raise

    def _late(self, seconds: float, what: str, field: str) -> str:
        return (
            f"{self._name} took longer than {seconds:.3g} seconds {what}: if it is sound and slow, allow more "
            f"(--timeout, or ProcessLimits({field}=...))"
        )

    def _too_large(self) -> str:
        return f"needs more than {self.limits.memory / 2**30:.3g} GiB of memory; allow more if you trust it (--memory)"

    def _words(self, said: Frame) -> str:
        with suppress(HeirmarkError):
            return printable(str(said.facts.get("words", ""))[:_LONGEST]) or "it does not say why"
        return "it does not say why"


def harmless(environment: Mapping[str, str]) -> dict[str, str]:
    """What a stranger's model may see of an environment, in which tokens may be: where things are, and how to compute.

    Examples:
        >>> harmless({"PATH": "/bin", "OMP_NUM_THREADS": "1", "HF_TOKEN": "secret", "HEIRMARK_STORE": "s3://me:word@a/b"})
        {'PATH': '/bin', 'OMP_NUM_THREADS': '1'}
    """
    return {name: value for name, value in environment.items() if _HARMLESS.fullmatch(name)}


def _end(process: subprocess.Popen[bytes], channel: socket.socket) -> None:
    """End a process and those that it began, unless they left its group."""
    channel.close()
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        process.kill()
    with suppress(subprocess.TimeoutExpired):  # one that the system itself cannot end is left to it
        process.wait(_PATIENCE)
