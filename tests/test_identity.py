"""What identifies a stage is the code that it reaches: of a copy of the package other files may be edited and added at will."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import heirmark

NEW = '"""New."""\n\nfrom heirmark.errors import BadConfig\n\n\nclass Brand:\n    error = BadConfig\n'
ALL = {"train", "embed", "steal", "prune", "calibrate", "verify"}
LATER = {"prune", "verify"}


def edit(path: str, old: str | None, new: str) -> dict[str, Any]:
    """``new`` in place of what the pattern ``old`` matches once, or a new file."""
    return {"path": path, "old": old, "new": new}


UNRELATED = [
    edit("models/vit.py", r"return tokens\[:, 0\]", "return tokens[:, 1]"),
    edit("models/simple.py", r"class AlexNet\(.*\):", r"\g<0>\n    depth = 9\n"),
    edit("models/brand.py", None, NEW),
    edit("models/registry.py", r'"simple:AlexNet",', '"simple:AlexNet", "brand": "brand:Brand",'),
    edit("triggers/patch.py", r"class Patch\b.*:", r"\g<0>\n    novel = 1\n"),
    edit("triggers/brand.py", None, NEW),
    edit("triggers/__init__.py", r"AnyTrigger: ", "from heirmark.triggers.brand import Brand\n\nAnyTrigger: "),
    edit("methods/ewe.py", r"class EWE\(.*\):", r"\g<0>\n    novel = 1\n"),
    edit("methods/brand.py", None, NEW),
    edit("attacks/removal/quantisation.py", r"class Quantisation\b.*:", r"\g<0>\n    novel = 1\n"),
    edit("attacks/extraction/brand.py", None, NEW),
]
USED = {
    "a model": (edit("models/simple.py", r"(hidden: int = )128", r"\g<1>129"), ALL),
    "what trains": (edit("training/fitting.py", r"optimizer\.step\(\)", "optimizer.step(); total *= 1"), ALL),
    "a trigger": (edit("triggers/tiles.py", r"class Tiles\b.*:", r"\g<0>\n    novel = 1\n"), ALL - {"train"}),
    "a method": (edit("methods/t2s.py", r"(\n    rehearse: .*= )True", r"\g<1>(1 == 1)"), ALL - {"train"}),
    "a theft": (
        edit("attacks/extraction/knockoff.py", r"class Knockoff\b.*:", r"\g<0>\n    novel = 1\n"),
        {"steal", *LATER},
    ),
    "a removal": (edit("attacks/removal/pruning.py", r"class Pruning\b.*:", r"\g<0>\n    novel = 1\n"), LATER),
    "a rule": (edit("verification/null.py", r"CONFIDENCE = 0\.95", "CONFIDENCE = 0.96"), {"verify"}),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Identities at first, after the unrelated edits, and after each of those of what is used."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(Path(heirmark.__file__).parent, root / "heirmark", ignore=shutil.ignore_patterns("__pycache__"))
    steps = [UNRELATED, *([change] for change, _ in USED.values())]
    script = Path(__file__).with_name("identities.py")
    ran = subprocess.run(
        [sys.executable, str(script), str(root)], input=json.dumps(steps), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    made: list[dict[str, str]] = json.loads(ran.stdout)
    return made


def test_what_a_stage_does_not_use_may_change(found: list[dict[str, str]]) -> None:
    assert set(found[0]) == ALL
    assert found[1] == found[0]


@pytest.mark.parametrize("what", USED)
def test_what_a_stage_uses_may_not(what: str, found: list[dict[str, str]]) -> None:
    place = 2 + list(USED).index(what)
    changed = {name for name in ALL if found[place][name] != found[place - 1][name]}
    assert changed == USED[what][1]
