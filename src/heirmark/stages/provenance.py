"""The facts that stand beside every figure."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime

import torch

from heirmark.runtime import Runtime
from heirmark.version import __version__


def made_here(runtime: Runtime) -> dict[str, str]:
    """When, with which versions and on what machine figures are made.

    A CPU's vector instructions are named because sums come out otherwise with others.
    """
    vectors = torch.backends.cpu.get_cpu_capability()
    on_gpu = runtime.torch_device.type == "cuda"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "heirmark": __version__,
        "python": platform.python_version(),
        **runtime.facts(),
        "threads": str(torch.get_num_threads()),
        "processor": f"{os.cpu_count()} x {platform.machine()}, {vectors}",
        **({"gpu": torch.cuda.get_device_name(runtime.torch_device)} if on_gpu else {}),
    }
