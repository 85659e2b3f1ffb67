"""How long a stranger's model may take, and how much memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from heirmark.configuration import above, at_least, checked
from heirmark.files import GIB, MIB


@dataclass(frozen=True, kw_only=True)
@checked
class ProcessLimits:
    """ProcessLimits of a process that a model runs in.

    Attributes:
        seconds: to open the model, and for each request, which holds up to a thousand inputs.
        total: seconds for all requests together.
        memory: bytes; an ONNX file may have three times its own size on top.
    """

    seconds: Annotated[float, above(0)] = 300.0
    total: Annotated[float, above(0)] = 3600.0
    memory: Annotated[int, at_least(64 * MIB)] = 4 * GIB
