"""The recipes in the repository: each is a grid at either scale, and says which paper's figures stand where."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from heirmark import loading
from heirmark.data import DATASETS, registry
from heirmark.data.naming import parts_of
from heirmark.data.registry import Loaded
from heirmark.grids import Grid
from heirmark.grids.plan import plan_grid
from heirmark.grids.recipes import SCALES, load_grid, recipes_in
from heirmark.grids.settings import Contexts
from heirmark.methods import METHODS, T2S
from heirmark.models import specify
from heirmark.rehearsal.settings import Paper
from heirmark.results.rows import read_rows
from heirmark.runtime import Runtime
from heirmark.tasks.media import Text
from heirmark.tasks.task import Split, Task
from heirmark.work.stealing import Theft

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
GREY, COLOUR = (1, 28, 28), (3, 32, 32)
SHAPES = {
    "cifar10": COLOUR, "cifar100": COLOUR, "svhn": COLOUR, "mnist": GREY, "fashion-mnist": GREY, "fashion-mini": GREY,
    "speech-commands": (1, 16_000), "speech-commands-35": (1, 16_000),
    "sst2": (32,), "imdb": (128,), "ag-news": (64,), "yelp-sentences": (32,),
}  # fmt: skip
NAMED = [
    (path.name, name, scale)
    for path in sorted(RECIPES.glob("*.py"))
    if path.stem != "common"
    for name in recipes_in(path)
    for scale in SCALES
]


@pytest.fixture(autouse=True)
def bert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in the data root that names itself BERT, for grids that start from it."""
    pytest.importorskip("tokenizers")
    folder = tmp_path / "data" / "bert-base-uncased"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(b"none")
    (folder / "tokenizer.json").write_text(Text.trained(["a text"]).tokenizer)
    monkeypatch.setenv("HEIRMARK_DATA", str(tmp_path / "data"))


def grid_of(file: str, name: str, scale: str) -> Grid:
    return load_grid(f"{RECIPES / file}:{name}", scale)


@pytest.mark.parametrize(("file", "name", "scale"), NAMED)
def test_every_recipe_is_a_grid(file: str, name: str, scale: str) -> None:
    grid = grid_of(file, name, scale)
    assert grid.name == f"{Path(file).stem}-{name}".replace("_", "-")
    assert len(grid.seeds) >= (2 if name == "larger" else 3)
    for block in grid.blocks:
        own = parts_of(block.workload.data)[0]
        shape, classes = SHAPES[own], len(DATASETS[own].classes)
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


def stand_in(name: str, like: Task | None = None) -> Loaded:
    """A few images or texts of noise with the shape and the classes of a data set."""
    classes, shape = DATASETS[name].classes, SHAPES[name] if like is None else like.input_shape
    highest, dtype = {1: (9, torch.int32), 2: (9999, torch.int16), 3: (256, torch.uint8)}[len(shape)]
    generator = torch.Generator().manual_seed(len(name))

    def some(count: int) -> Split:
        inputs = torch.randint(1, highest, (count, *shape), dtype=dtype, generator=generator)
        return Split(inputs=inputs, labels=torch.arange(count) % len(classes))

    return Loaded(train=some(400), test=some(100), classes=classes)


@pytest.mark.parametrize(("file", "name"), sorted({(file, name) for file, name, _ in NAMED}))
def test_every_recipe_can_be_planned(file: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(name: str, root: Path | None = None, like: Task | None = None) -> Loaded:
        own = parts_of(name)[0]
        return stand_in(own, like if like is not None and len(SHAPES[own]) == 1 else None)

    for module in (registry, loading):
        monkeypatch.setattr(module, "load_data", made)
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


@pytest.mark.parametrize("scale", SCALES)
def test_t2s_where_its_paper_has_it(scale: str) -> None:
    (block,) = grid_of("t2s.py", "tables_1_2", scale).blocks
    method = {marking.name: marking.method for marking in block.markings}["t2s"]
    assert isinstance(method, T2S)
    assert (block.workload.protocol, block.workload.pools) == ("paper", ()), "the adversary's images are the owner's"
    assert (method.rehearsal.recipe.batch_size, method.rehearsal.update) == (64, Paper(utility_weight=50.0))
    thieves = [step.attack.recipe for trial in block.trials for step in trial.steps if isinstance(step, Theft)]
    assert {recipe.augment for recipe in (method.pretraining, method.rehearsal.recipe, *thieves)} == {"flip"}
    named = {marking.name for marking in block.markings}
    assert named == {"joint training", "t2s", *({"robust"} & set(METHODS))}


TINY = """
from heirmark.grids import Block, Grid, Marking, Workload
from heirmark.methods import T2S, Unmarked
from heirmark.rehearsal.settings import Rehearsal
from heirmark.training.fitting import Recipe
from heirmark.triggers import Tiles

FEW = {"model": "naivenet:width=4,hidden=16", "trigger": Tiles(), "key_size": 20}
FEW["pretraining"] = Recipe(epochs=1, batch_size=64, learning_rate=0.01)


def tiny(scale):
    rehearsal = Rehearsal(recipe=Recipe(epochs=1, batch_size=64, learning_rate=1e-4), trigger_batch=8)
    method = T2S(**FEW, triggers=20, rehearsal=rehearsal)
    block = Block(
        name="tiny",
        workload=Workload(data="own_code:make_task"),
        markings=(Marking(name="t2s", method=method),),
        unmarked=Unmarked(**FEW),
        calibrators=(Unmarked(**FEW),),
    )
    return Grid(name="tiny", title="Tiny", blocks=(block,))
"""


@pytest.mark.slow
def test_the_script_for_a_gpu_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TINY)
    environment = {
        **os.environ,
        "RECIPE": f"{tmp_path / 'tiny.py'}:tiny",
        "STEP": "--images 400 --model resnet18:width=2 --rounds 1 --loop 1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(Path(__file__).parent)]),
    }
    command = ["scripts/t2s_gpu.sh", str(tmp_path / "out"), "3", "--device", "cpu", "--precision", "float32"]
    made: list[set[Path]] = []
    for _ in range(2):
        subprocess.run(command, check=True, cwd=RECIPES.parent, env=environment, capture_output=True, text=True)
        made.append(set((tmp_path / "out" / "stages").glob("*/*/record.json")))
    rows = read_rows(tmp_path / "out" / "seed-3-t2s" / "rows.jsonl")
    assert {(row.marking, row.seed, row.error) for row in rows} == {("t2s", 3, "")}
    assert len(made[0]) > 4
    assert made[0] == made[1], "nothing was computed twice"
    step = json.loads((tmp_path / "out" / "step.json").read_text())
    assert step["loop"]["batch"] == [64, 64]


def test_recipes_say_what_they_are() -> None:
    for path in sorted(RECIPES.glob("*.py")):
        for function in recipes_in(path).values():
            assert function.__doc__, f"{path.name} has a recipe without a docstring"
