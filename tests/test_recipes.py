"""The recipes in the repository: each is a grid at either scale, and says which paper's figures stand where."""

from __future__ import annotations

from pathlib import Path

import pytest

from heirmark.bench import Grid
from heirmark.bench.grid import asks_foreign
from heirmark.bench.recipes import SCALES, load_grid, recipes_in
from heirmark.models import specify
from heirmark.pipeline.stealing import Theft
from heirmark.triggers.foreign import foreign_dataset

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
SHAPES = {"cifar10": (3, 32, 32), "mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28), "fashion-mini": (1, 28, 28)}
NAMED = [
    (path.name, name, scale)
    for path in sorted(RECIPES.glob("*.py"))
    if path.stem != "common"
    for name in recipes_in(path)
    for scale in SCALES
]


def grid_of(file: str, name: str, scale: str) -> Grid:
    return load_grid(f"{RECIPES / file}:{name}", scale)


@pytest.mark.parametrize(("file", "name", "scale"), NAMED)
def test_every_recipe_is_a_grid(file: str, name: str, scale: str) -> None:
    grid = grid_of(file, name, scale)
    assert grid.name == f"{Path(file).stem}-{name}".replace("_", "-")
    assert len(grid.seeds) >= 3
    for block in grid.blocks:
        shape = SHAPES[block.workload.data]
        thieves = [step.attack for trial in block.trials for step in trial.steps if isinstance(step, Theft)]
        for owner in (*(marking.method for marking in block.markings), block.unmarked, *block.calibrators, *thieves):
            specify(owner.model, input_shape=shape, classes=10)
        needed = {foreign_dataset(marking.method.trigger) for marking in block.markings}
        assert needed <= {None, block.workload.foreign}
        if any(asks_foreign(marking.method) for marking in block.markings):
            assert block.workload.foreign is not None
        pools = {step.pool for trial in block.trials for step in trial.steps if isinstance(step, Theft)}
        assert pools <= {"adversary", *block.workload.pools}


@pytest.mark.parametrize(("file", "name"), sorted({(file, name) for file, name, _ in NAMED}))
def test_what_papers_print_has_a_cell(file: str, name: str) -> None:
    grids = [grid_of(file, name, scale) for scale in SCALES]
    cells = {
        (marking.name, trial)
        for grid in grids
        for block in grid.blocks
        for marking in block.markings
        for trial in ("", *(trial.name for trial in block.trials))
    }
    shown = [item for grid in grids for item in grid.papers]
    assert not shown or any((item.marking, item.trial) in cells for item in shown)
    for item in shown:
        assert all(figure is None or 0 <= figure <= 1 for figure in (item.accuracy, item.wsr))


def test_recipes_say_what_they_are() -> None:
    for path in sorted(RECIPES.glob("*.py")):
        for function in recipes_in(path).values():
            assert function.__doc__, f"{path.name} has a recipe without a docstring"
