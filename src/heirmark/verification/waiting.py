"""Waiting for foreign code that may never return."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import torch

Answer = TypeVar("Answer")


class Late(Exception):
    """An answer did not come in time."""


def answer_within(seconds: float | None, ask: Callable[[], Answer]) -> Answer:
    """What a function returns, or raises, if it does so in time.

    Another thread runs it. One that is late is left behind, for nothing can end a thread; it ends with this process.

    Args:
        seconds: to wait; None waits without end, in this thread.
        ask: the function.

    Raises:
        Late: if it takes longer.

    Examples:
        >>> answer_within(60.0, lambda: 7)
        7
    """
    if seconds is None:
        return ask()
    gradients = torch.is_grad_enabled()  # each thread has its own
    answers: list[Answer] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with torch.set_grad_enabled(gradients):
                answers.append(ask())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="heirmark-suspect", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise Late
    return answers[0]
