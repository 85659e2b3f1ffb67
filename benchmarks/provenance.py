"""What every recorded result says of itself."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from heirmark.runtime import Runtime
from heirmark.version import __version__


def provenance(runtime: Runtime | None = None) -> dict[str, Any]:
    """Command, date, versions and machine of this run."""
    runtime = runtime or Runtime()
    machine = f"{os.cpu_count()} cores {platform.machine()}, {torch.get_num_threads()} threads"
    if runtime.torch_device.type == "cuda":
        machine += f", {torch.cuda.get_device_name()}"
    return {
        "command": f"python benchmarks/{Path(sys.argv[0]).name} {shlex.join(sys.argv[1:])}".strip(),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"heirmark": __version__, "python": platform.python_version(), **runtime.facts()},
        "machine": machine,
    }
