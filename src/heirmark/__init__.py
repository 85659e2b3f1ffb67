"""heirmark: black-box watermarks that copies made by model extraction inherit, and a sound proof that they did.

The whole in a few lines::

    import heirmark as hm

    task = hm.load_task("fashion-mini", seed=0)  # disjoint owner / adversary / calibration / test splits
    marked = hm.T2S(model="naivenet", trigger=hm.Tiles())(task, seed=0)  # model, key, history
    box = hm.BlackBox(marked.model, classes=10, api=hm.Api(answers="label", budget=50_000))  # all that a thief sees
    stolen = hm.Knockoff(model="naivenet")(box, task.adversary, seed=1)  # never sees the key
    print(hm.verify(hm.Suspect.from_module(stolen.model, classes=10), marked.key))

README.md has settings with which this takes minutes, and the calibration without which a verdict does not say MARKED.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

_STUB = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
_HOMES = {name.name: str(each.module) for each in _STUB.body if isinstance(each, ast.ImportFrom) for name in each.names}
"""Where each public name lives, as the stub says it to type checkers."""

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    # Names are fetched when they are used, so that `heirmark --help` does not wait for torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'heirmark' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
