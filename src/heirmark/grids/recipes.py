"""Recipes: functions of a user's own Python file that return a grid."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from heirmark.errors import BadConfig, HeirmarkError, told
from heirmark.grids.grid import Grid

Scale: TypeAlias = Literal["cpu", "paper"]
SCALES: tuple[Scale, ...] = ("cpu", "paper")
"""``cpu``: small data and nets, hours at most on two cores; ``paper``: the paper's nets, data and epochs."""
OURS = "__heirmark_recipes__"
"""Marks the modules that were loaded as files of recipes; the next file of their name takes their place."""
Recipe: TypeAlias = Callable[[Scale], Grid]


def recipes_in(path: Path) -> dict[str, Recipe]:
    """The recipes of a Python file, which is run: its public functions that take a scale.

    Args:
        path: ``.py``; modules beside it can be imported.

    Raises:
        BadConfig: when there is no such file, or it fails.
    """
    if path.suffix != ".py" or not path.is_file():
        raise BadConfig(f"{path} is no Python file: name one with recipes, such as recipes/deeptracer.py")
    folder, name = str(path.resolve().parent), path.stem
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise BadConfig(f"{path} cannot be imported: name a Python file with recipes")
    module = importlib.util.module_from_spec(spec)
    known = sys.modules.get(name)
    if known is not None and not hasattr(known, OURS) and getattr(known, "__file__", None) != spec.origin:
        raise BadConfig(f"{path} has the name of a module that Python has loaded already: rename the file")
    # Registered, and its folder on the path, as for a module that is imported: dataclasses and stages look it up by name.
    setattr(module, OURS, True)
    sys.modules[name] = module
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except HeirmarkError:
        raise
    except (Exception, SystemExit) as error:
        raise BadConfig(f"{path} fails when it is run ({told(error)}): mend it") from error
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
        and list(inspect.signature(value).parameters)[:1] == ["scale"]
    }


def described(named: str) -> dict[str, str]:
    """What ``--list`` shows: every recipe of a file as it is called, with the first line of its docstring.

    Args:
        named: ``FILE.py`` or ``FILE.py:FUNCTION``, of which the file counts.

    Raises:
        BadConfig: when there is no such file, it fails, or it has no recipe.
    """
    path, _ = _split(named)
    found = _some(path)
    return {f"{path}:{name}": (inspect.getdoc(recipe) or "").partition("\n")[0] for name, recipe in found.items()}


def _some(path: str) -> dict[str, Recipe]:
    found = recipes_in(Path(path))
    if not found:
        raise BadConfig(f"{path} has no recipe: write a function that takes a scale and returns a heirmark.grids.Grid")
    return found


def names_file_only(named: str) -> bool:
    """Whether a recipe's name leaves the function open, though the file has several."""
    path, function = _split(named)
    return not function and len(recipes_in(Path(path))) > 1


def _split(named: str) -> tuple[str, str]:
    """Path and function; the function may be empty."""
    if named.endswith(".py") or ":" not in named:
        return named, ""
    path, _, function = named.rpartition(":")
    return path, function


def load_grid(named: str, scale: str) -> Grid:
    """The grid of a recipe.

    Args:
        named: ``FILE.py:FUNCTION``; the function may be left out where the file has one only.
        scale: of :data:`SCALES`.

    Raises:
        BadConfig: for an unknown file, function or scale, or a function that fails.
    """
    if scale not in SCALES:
        raise BadConfig(f"unknown scale {scale!r}: choose {' or '.join(SCALES)}")
    path, function = _split(named)
    found = _some(path)
    if not function and len(found) == 1:
        function = next(iter(found))
    if function not in found:
        raise BadConfig(f"{named} names no recipe: choose one of {', '.join(f'{path}:{name}' for name in found)}")
    try:
        grid = found[function](scale)
    except HeirmarkError:
        raise
    except (Exception, SystemExit) as error:
        raise BadConfig(f"{named} fails ({told(error)}): mend it") from error
    if not isinstance(grid, Grid):
        raise BadConfig(f"{named} returned {type(grid).__name__}: return a heirmark.grids.Grid")
    return grid
