"""What every recorded result says of itself."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from heirmark.pipeline.provenance import made_here
from heirmark.runtime import Runtime


def provenance(runtime: Runtime | None = None) -> dict[str, Any]:
    """Command, date, versions and machine of this run."""
    runtime = runtime or Runtime()
    facts = made_here(runtime)
    date, machine = facts.pop("date"), f"{facts.pop('processor')}, {facts.pop('threads')} threads"
    if runtime.torch_device.type == "cuda":
        machine += f", {torch.cuda.get_device_name()}"
    return {
        "command": f"python benchmarks/{Path(sys.argv[0]).name} {shlex.join(sys.argv[1:])}".strip(),
        "date": date,
        "versions": facts,
        "machine": machine,
    }
