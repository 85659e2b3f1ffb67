"""The declared floors: each dependency has one, and, where minutes do not count, the installed command works at them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "check_floors.py"
PROJECT = """
[project]
dependencies = [{dependencies}]
[project.optional-dependencies]
more = ["other-name >= 3"]
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_floors", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tmp_path / "pyproject.toml"


def test_every_dependency_has_a_floor_and_every_extra_a_check(script: ModuleType) -> None:
    floors = script.read_floors(ROOT / "pyproject.toml")
    assert {"numpy", "torch", "typer"} <= set(floors[script.RUNTIME])
    assert all(floors.values())
    assert set(floors) == {script.RUNTIME, *script.TOGETHER, *script.APART}


def test_what_is_pinned_for_development_is_not_below_the_floors(script: ModuleType) -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pinned = dict(line.split("==") for line in lines)
    for extra, floors in script.read_floors(ROOT / "pyproject.toml").items():
        for name, version in floors.items():
            if name in pinned:
                wanted, there = ([int(part) for part in text.split(".")] for text in (version, pinned[name]))
                assert there >= wanted, (extra, name)


def test_what_is_tested_and_copied_exists(script: ModuleType) -> None:
    files = [f"test_{name}.py" for name in script.TESTS] + [f"contract/test_{name}.py" for name in script.CONTRACTS]
    files += [words.removeprefix("tests/") for apart in script.APART.values() for words in apart.tests[:1]]
    assert all((ROOT / "tests" / name).is_file() for name in files)
    assert all((ROOT / name).exists() for name in script.TREE)


def test_floors_are_read_by_extra(script: ModuleType, project: Path) -> None:
    project.write_text(PROJECT.format(dependencies='"one[more]>=1.26", "Two_b>=0.4.3"'))
    floors = script.read_floors(project)
    assert floors == {script.RUNTIME: {"one": "1.26", "Two_b": "0.4.3"}, "more": {"other-name": "3"}}
    assert script.pins(floors[script.RUNTIME]) == ["one==1.26", "Two_b==0.4.3"]


@pytest.mark.parametrize("requirement", ["one", "one==1.2", "one>1.2", "one>=1,<2", "one>=", "one>=1; x"])
def test_a_requirement_without_a_plain_floor_is_refused(script: ModuleType, requirement: str, project: Path) -> None:
    with pytest.raises(ValueError, match=r"declares no floor: write name>=version"):
        script.floor(requirement)
    project.write_text(PROJECT.format(dependencies=f'"fine>=1", "{requirement}"'))
    with pytest.raises(ValueError, match="declares no floor"):
        script.read_floors(project)


def test_a_name_stands_once(script: ModuleType, project: Path) -> None:
    project.write_text(PROJECT.format(dependencies='"one>=1", "one>=2"'))
    with pytest.raises(ValueError, match="stands twice in the list of dependencies"):
        script.read_floors(project)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1.26", "1.26.0", True),
        ("2.13.0", "2.13.0+cpu", True),
        ("6.100", "6.100.0", True),
        ("1.26", "1.26.1", False),
        ("6.10", "6.100", False),
        ("1.4", "1.4.1.post1", False),
        ("1", "none", False),
    ],
)
def test_releases_are_compared(script: ModuleType, one: str, other: str, same: bool) -> None:
    assert script.same_release(one, other) is same
    assert script.same_release(other, one) is same


def test_a_command_that_ends_wrongly_fails(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checker = script.Checker(tmp_path, {})
    python = [sys.executable, "-c"]
    assert checker.judge("good", script.run([*python, "print('well')"], tmp_path))
    assert checker.judge("refused", script.run([*python, "raise SystemExit(2)"], tmp_path), codes=(2,))
    assert not checker.judge("zero", script.run([*python, ""], tmp_path), codes=(1,))
    assert not checker.judge("traceback", script.run([*python, "1 / 0"], tmp_path), codes=(1,))
    assert not checker.judge("silent", script.run([*python, ""], tmp_path), problem="it says nothing")
    assert not checker.judge("slow", script.run([*python, "import time; time.sleep(60)"], tmp_path, limit=0.5))
    assert [(result.outcome, result.words) for result in checker.results] == [
        ("ok", ""),
        ("ok", ""),
        ("FAILED", "exit code 0 instead of 1"),
        ("FAILED", "a traceback"),
        ("FAILED", "it says nothing"),
        ("FAILED", "exit code None instead of 0"),
    ]
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_columns_stand_below_each_other(script: ModuleType) -> None:
    assert script.table([("a", "bb"), ("ccc", "d"), ("e", "")]) == "a    bb\nccc  d\ne"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_installed_command_works_at_the_floors() -> None:
    """But for torch, which is the release that is here: its floor is gigabytes, and ``make floors`` has it."""
    release = torch.__version__.partition("+")[0]
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), "--torch", release], capture_output=True, text=True, timeout=3500, check=False
    )
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr
