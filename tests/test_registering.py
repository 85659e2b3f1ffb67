"""A method, a trigger, an attack of each sort, a model and a data set take one file and one line each, and work everywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import heirmark.cli
import own_code
from heirmark.attacks import EXTRACTIONS, INSPECTIONS, REMOVALS, SCREENINGS
from heirmark.configuration import apply_settings, describe_fields, from_json, to_json
from heirmark.data import DATASETS
from heirmark.data.registry import DataSet
from heirmark.grids import Block, Grid, Marking, Workload
from heirmark.grids.bench import run_bench
from heirmark.grids.settings import Contexts
from heirmark.jobs.preflight import preflight
from heirmark.keys.key import Key
from heirmark.methods import METHODS, T2S, Unmarked
from heirmark.models import MODELS
from heirmark.runtime import Runtime
from heirmark.stages.code_version import code_digests
from heirmark.training.fitting import Recipe
from heirmark.triggers import TRIGGERS, Tiles
from heirmark.work.altering import Alteration
from heirmark.work.stealing import Theft
from heirmark.work.trials import Probe, Trial
from own_parts import Brightness, Halves, Inverted, Loud, Shrinking, Suspecting, read_shapes

MY_WORD = ["--accept", "assumed"]
CPU = ["--device", "cpu", "--precision", "float32"]
RECIPE = Recipe(epochs=3, batch_size=32, learning_rate=0.05)


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """One line each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "loud", "own_parts:Loud")
        patch.setitem(TRIGGERS, "inverted", "own_parts:Inverted")
        patch.setitem(EXTRACTIONS, "halves", "own_parts:Halves")
        patch.setitem(REMOVALS, "shrinking", "own_parts:Shrinking")
        patch.setitem(INSPECTIONS, "suspecting", "own_parts:Suspecting")
        patch.setitem(SCREENINGS, "brightness", "own_parts:Brightness")
        patch.setitem(MODELS, "tiny", "own_parts:Tiny")
        names = tuple(f"kind {number}" for number in range(own_code.CLASSES))
        patch.setitem(DATASETS, "shapes", DataSet(classes=names, read=read_shapes))
        yield


def run(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(heirmark.cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout


@pytest.fixture(scope="module")
def marked(registered: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("marked")
    settings = ["trigger=inverted", "key_size=60", "triggers=40", "pretraining.epochs=5", "pretraining.batch_size=32"]
    command = ["embed", "--method", "loud", "--data", "shapes", "--model", "tiny:width=24", "--seed", "0", *CPU]
    for setting in (*settings, "pretraining.learning_rate=0.05"):
        command += ["--set", setting]
    run(*command, "--calibrators", "2", "--out", folder / "out", "--store", folder / "store")
    return folder / "out"


def test_they_work_on_the_command_line(marked: Path, tmp_path: Path) -> None:
    key = Key.load(marked / "key")
    assert (key.method, key.kind) == ("loud", "inverted")
    described = json.loads(run("verify", marked, "--key", marked, *CPU[:2], *MY_WORD, "--json"))
    assert described["outcome"] == "MARKED"
    store = ["--store", tmp_path / "store"]
    run("steal", marked, "--attack", "halves", *CPU, "--out", tmp_path / "stolen", *store)
    run("remove", marked, "--attack", "shrinking", *CPU, "--out", tmp_path / "altered", *store)
    for folder, code in (("stolen", 3), ("altered", 0)):
        judged = json.loads(run("verify", tmp_path / folder, "--key", marked, *CPU[:2], *MY_WORD, "--json", code=code))
        assert judged["key"] == key.commitment
    assert "kind 2" in run("detect", marked, "--attack", "suspecting", *CPU, *store)
    for name in ("loud", "halves", "shrinking", "brightness"):
        run("fields", name)


def test_they_work_in_a_grid(tmp_path: Path) -> None:
    common = {"model": "tiny", "trigger": Inverted(), "key_size": 40, "pretraining": RECIPE}
    unmarked = Unmarked(**common)  # type: ignore[arg-type]
    grid = Grid(
        name="own",
        title="Own parts",
        blocks=(
            Block(
                name="shapes",
                workload=Workload(data="shapes"),
                markings=(Marking(name="loud", method=Loud(**common, triggers=40)),),  # type: ignore[arg-type]
                trials=(
                    Trial(name="halves", group="Extraction", steps=(Theft(attack=Halves()),)),
                    Trial(name="shrunk", group="Removal", steps=(Alteration(attack=Shrinking()),)),
                ),
                probes=(
                    Probe(name="suspecting", attack=Suspecting()),
                    Probe(name="brightness", attack=Brightness()),
                ),
                unmarked=unmarked,
                calibrators=(unmarked, unmarked),
            ),
        ),
        seeds=(0,),
    )
    runtime = Runtime(device="cpu", precision="float32")
    rows = run_bench(grid, tmp_path, contexts=Contexts(runtime), command="own").rows
    assert {row.error for row in rows} == {""}
    assert len(rows) == 10


def test_they_work_in_an_audit(marked: Path, tmp_path: Path) -> None:
    names = ["half a theft, probabilities", "half a theft, labels", "model: shrinking", "suspecting", "brightness"]
    only = [word for name in names for word in ("--only", name)]
    run("audit", marked, *only, *CPU, "--out", tmp_path / "audit")
    told = "".join(path.read_text() for path in (tmp_path / "audit").glob("*.json*"))
    for name in names:
        assert name.removeprefix("model: ") in told
    assert not re.search(r'error": "[^"]', told)


def test_configurations_name_them_and_their_code_counts() -> None:
    method = apply_settings(T2S(), ["watermark=loud", "trigger=inverted", "trigger.source=3", "model=tiny"])
    assert method.trigger == Inverted(source=3)
    assert isinstance(method.watermark, Loud)
    assert from_json({"T2S": T2S}, json.loads(json.dumps(to_json(method)))) == method
    assert "trigger.source" in {row.name for row in describe_fields(Loud)}
    assert "own_parts" in code_digests(preflight, Loud(model="tiny"))
    assert "own_parts" in code_digests(preflight, T2S(model="tiny"))
    assert "own_parts" not in code_digests(preflight, T2S(trigger=Tiles()))


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_name_is_that_of_its_registry(name: str) -> None:
    assert METHODS[name].name == name
