"""The recipes in the repository: each is a grid at either scale, and says which paper's figures stand where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from heirmark import loading
from heirmark.data import DATASETS, registry
from heirmark.grids import Grid
from heirmark.grids.plan import plan_grid
from heirmark.grids.recipes import SCALES, load_grid, recipes_in
from heirmark.grids.settings import Contexts
from heirmark.models import specify
from heirmark.runtime import Runtime
from heirmark.tasks.task import Split
from heirmark.work.stealing import Theft

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
GREY, COLOUR = (1, 28, 28), (3, 32, 32)
SHAPES = {
    "cifar10": COLOUR, "cifar100": COLOUR, "svhn": COLOUR, "mnist": GREY, "fashion-mnist": GREY, "fashion-mini": GREY,
}  # fmt: skip
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
        shape, classes = SHAPES[block.workload.data], len(DATASETS[block.workload.data].classes)
        steps = [step for trial in block.trials for step in trial.steps]
        thefts = [step for step in steps if isinstance(step, Theft)]
        thefts += [theft for probe in block.probes for theft in probe.stolen]
        thieves = [theft.attack for theft in thefts]
        for owner in (*(marking.method for marking in block.markings), block.unmarked, *block.calibrators, *thieves):
            specify(owner.model, input_shape=shape, classes=classes)
        needed = {marking.method.trigger.dataset for marking in block.markings}
        assert needed <= {None, block.workload.foreign}
        if any(marking.method.needs_foreign for marking in block.markings):
            assert block.workload.foreign is not None
        pools = {step.pool for step in (*steps, *thefts)}
        assert pools <= {None, "adversary", *block.workload.pools}


def stand_in(name: str) -> tuple[Split, Split, tuple[str, ...]]:
    """A few images of noise with the shape and the classes of a data set."""
    classes = DATASETS[name].classes
    generator = torch.Generator().manual_seed(len(name))

    def some(count: int) -> Split:
        inputs = torch.randint(256, (count, *SHAPES[name]), dtype=torch.uint8, generator=generator)
        return Split(inputs=inputs, labels=torch.arange(count) % len(classes))

    return some(400), some(100), classes


@pytest.mark.parametrize(("file", "name"), sorted({(file, name) for file, name, _ in NAMED}))
def test_every_recipe_can_be_planned(file: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def images(name: str, root: Path | None = None) -> tuple[Split, Split, tuple[str, ...]]:
        return stand_in(name)

    for module in (registry, loading):
        monkeypatch.setattr(module, "load_images", images)
    contexts = Contexts(Runtime(device="cpu", precision="float32"))
    grid = replace(grid_of(file, name, "cpu"), seeds=(0,))
    plan = plan_grid(grid, contexts)
    arms = ("marked", "unmarked")
    assert len(plan.cells) == sum(
        len(arms) * len(block.markings) * (1 + len(block.trials) + len(block.probes)) for block in grid.blocks
    )
    assert {stage.identity for stage in plan.stages} <= set(plan.settings)


@pytest.mark.parametrize(("file", "name"), sorted({(file, name) for file, name, _ in NAMED}))
def test_what_papers_print_has_a_cell(file: str, name: str) -> None:
    grids = [grid_of(file, name, scale) for scale in SCALES]
    cells = {
        (name, marking.name, trial)
        for grid in grids
        for block in grid.blocks
        for name in ("", block.name)
        for marking in block.markings
        for trial in ("", *(trial.name for trial in block.trials))
    }
    shown = [item for grid in grids for item in grid.papers]
    assert [item for item in shown if (item.block, item.marking, item.trial) not in cells] == []
    for item in shown:
        assert all(figure is None or 0 <= figure <= 1 for figure in (item.accuracy, item.wsr))


def test_recipes_say_what_they_are() -> None:
    for path in sorted(RECIPES.glob("*.py")):
        for function in recipes_in(path).values():
            assert function.__doc__, f"{path.name} has a recipe without a docstring"
