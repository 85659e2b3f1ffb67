"""What every recorded result says of itself."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from heirmark.runtime import Runtime
from heirmark.stages.provenance import made_here


def provenance(runtime: Runtime | None = None) -> dict[str, Any]:
    """Command, date, versions and machine of this run."""
    facts = made_here(runtime or Runtime())
    date = facts.pop("date")
    machine = (facts.pop("processor"), f"{facts.pop('threads')} threads", facts.pop("gpu", ""))
    return {
        "command": f"python benchmarks/{Path(sys.argv[0]).name} {shlex.join(sys.argv[1:])}".strip(),
        "date": date,
        "versions": facts,
        "machine": ", ".join(filter(None, machine)),
    }
