"""The command line as a hostile newcomer meets it: happy paths, exit codes, one clear line for every mistake, no traces."""

from __future__ import annotations

import json
import math
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import heirmark.cli
import own_code
from heirmark.attacks.removal.int8 import Int8, to_onnx
from heirmark.errors import BadConfig, HeirmarkWarning
from heirmark.files import atomic_write_tensors, read_tensors
from heirmark.jobs.converting import export_job
from heirmark.jobs.folder import ModelFolder
from heirmark.jobs.means import Work
from heirmark.keys.key import Key
from heirmark.methods import METHODS
from heirmark.models import Net
from heirmark.models.storage import load_model
from heirmark.querying.blackbox import BlackBox
from heirmark.runtime import Runtime
from heirmark.tasks.task import Split
from heirmark.verification import Calibration, SequentialVerdict, Together, Verdict
from heirmark.version import __version__


def settings(**values: object) -> list[str]:
    """``--set`` for each of these; ``__`` stands for a dot."""
    return [word for name, value in values.items() for word in ("--set", f"{name.replace('__', '.')}={value}")]


CPU = ["--data", "own_code:make_task", "--device", "cpu", "--precision", "float32"]
TRAINING = settings(
    trigger="mix", key_size=60, pretraining__epochs=5, pretraining__batch_size=32, pretraining__learning_rate=0.05
)
NET = "naivenet:width=4,hidden=16,batch_norm=true"
UNMARKED = ["--method", "unmarked", *CPU, *TRAINING, "--calibrators", "2", "--seed", "0"]
VANILLA = ["--method", "vanilla", *CPU, *TRAINING, "--calibrators", "2", *settings(triggers=40, trigger_batch=8)]
VANILLA += ["--seed", "0"]
MY_WORD = ["--accept", "self-reported"]
RECIPE = settings(recipe__epochs=5, recipe__batch_size=32, recipe__learning_rate=0.05, recipe__momentum=0.9)


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(*arguments: str | Path) -> Ran:
    """A command in this process; what it does not handle itself comes out as it is."""
    result = CliRunner().invoke(heirmark.cli.app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def refused(ran: Ran, code: int, *words: str) -> None:
    """Assert that a command ended with a code and one line on standard error that says these words, and nothing else."""
    assert ran.code == code, (ran.code, ran.err)
    assert ran.out == ""
    lines = [line for line in ran.err.splitlines() if not line.startswith("  ")]
    assert len(lines) == 1, ran.err
    assert lines[0].startswith("heirmark: ")
    assert "Traceback" not in ran.err
    for word in words:
        assert word in lines[0], lines[0]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty folder, and leave Python's search path alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("HEIRMARK_DATA", "HEIRMARK_STORE"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    assert not list(tmp_path.glob(".*")), "something half-written was left"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``marked`` (vanilla, with its key), ``stolen`` (a copy) and ``clean`` (unmarked)."""
    folder = tmp_path_factory.mktemp("stage")
    store = ["--store", folder / "store"]
    assert run("embed", *VANILLA, "--model", NET, "--out", folder / "marked", *store).code == 0
    assert run("steal", folder / "marked", *CPU, *RECIPE, "--out", folder / "stolen", *store).code == 0
    assert run("embed", *UNMARKED, "--model", NET, "--seed", 5, "--out", folder / "clean", *store).code == 0
    return folder


@pytest.fixture
def copy(stage: Path, tmp_path: Path) -> Path:
    """The marked model's folder, to be spoiled."""
    return Path(shutil.copytree(stage / "marked", tmp_path / "copy"))


# What goes well


def test_embed_writes_everything_and_says_so(here: Path) -> None:
    ran = run("embed", *VANILLA, "--model", NET, "--out", "deep/down/marked")
    assert ran.code == 0
    for words in ("model", "key", "commitment", "calibration", "2 unmarked models"):
        assert words in ran.out
    out = here / "deep/down/marked"
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert names == {
        "model.safetensors", "model.json", "key/key.safetensors", "key/key.json", "calibration.json", "task.json", "twin.json",
        "history.json", "pictures.safetensors", "training.safetensors",
    }  # fmt: skip
    key, task = Key.load(out / "key"), own_code.make_task()
    assert key.commitment in ran.out
    assert len(key) == 60
    assert key.disjoint_from(task.owner.inputs)
    assert not (out / "key/key.json").stat().st_mode & 0o077
    assert Calibration.from_json((out / "calibration.json").read_bytes()).key == key.commitment
    assert json.loads((out / "task.json").read_text())["digest"] == task.digest()
    # Standard error tells the story, a line a stage, in the order in which it happened.
    assert [line.split("  ")[1] for line in ran.err.splitlines()] == [
        "train the clean model", "embed", "train unmarked model 1", "train unmarked model 2", "answer a thief's queries",
        "steal an unmarked model", "calibrate the key",
        "judge the marked model with the key", "judge the clean model with the key",
    ]  # fmt: skip
    for words in ("without the mark", "MARKED: ", "of 60 hits", "null rate", "a copy needs", "queries needed"):
        assert words in ran.out


def test_embed_again_reuses_all_and_gives_the_same_bytes(stage: Path, here: Path) -> None:
    ran = run("embed", *VANILLA, "--model", NET, "--out", "again", "--store", stage / "store")
    assert ran.code == 0
    assert ran.err.split()[1:] == ["finished", "stages", "reused"], "one line, however many there are"
    fresh = run("embed", *VANILLA, "--model", NET, "--out", "fresh")
    assert fresh.code == 0
    for name in ("model.safetensors", "model.json", "key/key.safetensors", "key/key.json", "calibration.json"):
        assert (here / "fresh" / name).read_bytes() == (stage / "marked" / name).read_bytes(), name
        assert (here / "again" / name).read_bytes() == (stage / "marked" / name).read_bytes(), name


def test_another_seed_gives_another_key_and_model(stage: Path, here: Path) -> None:
    assert run("embed", *VANILLA, "--model", NET, "--seed", 1, "--out", "other").code == 0
    for name in ("model.safetensors", "key/key.json"):
        assert (here / "other" / name).read_bytes() != (stage / "marked" / name).read_bytes()


def test_without_a_seed_the_key_is_random_and_the_work_can_be_resumed(here: Path) -> None:
    command = ["embed", *VANILLA[:-2], "--model", NET, "--calibrators", 0]
    refused(run(*command, "--set", "triggers=0", "--out", "one"), 2, "triggers")  # and no word of a seed
    one = run(*command, "--out", "one")
    assert run(*command, "--out", "two").code == one.code == 0
    assert Key.load(here / "one/key").commitment != Key.load(here / "two/key").commitment
    seed = one.err.split("--seed ")[1].partition(":")[0]
    assert one.err.count("--seed") == 1
    assert seed not in one.out
    again = run(*command, "--seed", seed, "--out", "again")
    assert again.err == "  3 finished stages reused\n"
    assert Key.load(here / "one/key").commitment == Key.load(here / "again/key").commitment


@pytest.mark.parametrize(
    "method",
    [
        name if name in ("t2s", "vanilla", "unmarked") else pytest.param(name, marks=pytest.mark.slow)
        for name in METHODS
    ],
)
def test_every_method_embeds_without_calibration(method: str) -> None:
    small: dict[str, list[str]] = {
        "t2s": settings(rehearsal__recipe__epochs=1, rehearsal__recipe__batch_size=32, triggers=40),
        "deeptracer": settings(key_filter="none"),  # so short a training does not survive a theft
        "ewe": settings(training__recipe__epochs=1),
        "ssw-p": settings(selected="false"),
        "ssw-s": settings(training__epochs=2, selected="false"),
        "margin": settings(training__epochs=1),
        "composite": settings(training__recipe__epochs=1, mixed=60),
        "abstract": settings(training__epochs=1),
    }
    options = small.get(method, [])
    options += ["--calibrators", "0", "--seed", "0", "--json"]
    ran = run("embed", "--method", method, *CPU, *TRAINING, *options, "--model", NET, "--out", "made")
    # So short a training leaves some marks that are of no use, which is said, and no secret.
    assert ran.code == (4 if ran.json["shortcoming"] else 0), ran.err
    assert ran.err == (f"heirmark: made is written, but {ran.json['shortcoming']}\n" if ran.code else "")
    assert ran.json.keys() == {
        "model", "key", "commitment", "key_size", "calibration", "accuracy", "clean_accuracy", "verdict", "hits", "trials", "wsr",
        "p_value", "null_rate", "least_hits", "queries_needed", "flags", "shortcoming", "seconds",
    }  # fmt: skip
    assert ran.json["calibration"] == "none"
    assert (ran.json["clean_accuracy"] is None) == (not METHODS[method].alters)
    verdict = run("verify", "made", "--key", "made", "--json").json
    assert "uncalibrated" in verdict["flags"]


def test_steal_writes_a_model_and_counts_its_queries(stage: Path, here: Path) -> None:
    ran = run("steal", stage / "marked", *CPU, *RECIPE, "--out", "copy", "--json", "--answers", "top-k", "--k", 2,
              "--decimals", 3, "--set", "queries=150", "--budget", 150)  # fmt: skip
    assert ran.code == 0, ran.err
    assert set(ran.json) == {"model", "queries", "seconds"}
    assert ran.json["queries"] == 150
    names = {path.name for path in (here / "copy").iterdir()}
    assert names == {"model.safetensors", "model.json", "task.json"}, "a thief has no key"
    assert json.loads((here / "copy/model.json").read_text())["options"]["width"] == 4  # the victim's architecture


def test_quick_starts_from_the_demos_settings_and_yields_to_set(here: Path) -> None:
    quick = ["embed", "--method", "vanilla", "--quick", *CPU, *settings(pretraining__epochs=1, trigger_batch=8)]
    assert run(*quick, "--model", NET, "--calibrators", 0, "--out", "marked").code in (0, 4)
    assert run("steal", "marked", "--quick", *CPU, *settings(recipe__epochs=1), "--out", "copy").code == 0
    assert json.loads((here / "copy/model.json").read_text())["options"]["width"] == 4  # still the victim's
    configs = [json.loads(path.read_text())["config"] for path in (here / "runs/store").glob("[es]*/*/record.json")]
    marked = next(config for config in configs if config["type"] == "Vanilla")
    stolen = next(config["attack"] for config in configs if config["type"] == "Theft")
    assert (marked["trigger"]["type"], marked["trigger_batch"], marked["model"]) == ("Tiles", 8, NET)
    for recipe in (marked["pretraining"], stolen["recipe"]):
        assert (recipe["epochs"], recipe["nesterov"], recipe["batch_size"]) == (1, True, 128)


def test_steal_with_the_images_of_another_data_set(stage: Path, here: Path) -> None:
    few = [*RECIPE, "--set", "queries=300", "--set", "recipe.epochs=1"]
    ran = run("steal", stage / "marked", *CPU, *few, "--pool", "fashion-mini", "--out", "copy", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["queries"] == 300


def test_a_thief_is_never_given_images_of_which_the_key_may_be_made(here: Path) -> None:
    """Out-of-distribution triggers are images of another data set; a thief who asks that set must not meet the key in it."""
    triggers = settings(trigger="outofdistribution", trigger__dataset="fashion-mini", triggers=40, trigger_batch=8)
    quick = settings(key_size=60, pretraining__epochs=1, pretraining__batch_size=32)
    how = ["--method", "vanilla", *CPU, "--model", NET, "--seed", "0", "--calibrators", "0"]
    made = run("embed", *how, *triggers, *quick, "--out", "made")
    assert made.code in (0, 4), made.err
    record = json.loads(Path("made/task.json").read_text())
    assert (record["foreign"], record.pop("foreign_part")) == ("fashion-mini", "test")
    few = [*RECIPE, "--set", "queries=300", "--pool", "fashion-mini"]
    assert run("steal", "made", *CPU, *few, "--out", "asked").code == 0, "which asks about training images"
    # Made before that was said, of training images: those that a thief would ask about.
    Path("made/task.json").write_text(json.dumps(record))
    refused(run("steal", "made", *CPU, *RECIPE, "--pool", "fashion-mini", "--out", "copy"), 1, "holds every image")
    transfer = ["--attack", "transfer", "--pool", "fashion-mini"]
    refused(run("remove", "made", *CPU, *transfer, "--out", "copy"), 1, "holds every image")
    shutil.copytree("made", "whole")
    shutil.copy("made/key/key.json", "whole/calibration.json")
    refused(run("audit", "whole", *CPU, "--pool", "fashion-mini"), 1, "holds every image")
    assert run("steal", "made", *CPU, *RECIPE, "--out", "copy").code == 0
    refused(run("steal", "copy", *CPU, *RECIPE, "--pool", "fashion-mini", "--out", "second"), 1, "holds every image")


def test_stolen_models_are_victims_too(stage: Path) -> None:
    ran = run(
        "steal", stage / "stolen", *CPU, *RECIPE, "--model", "naivenet:width=2", "--out", "again", "--answers", "label"
    )
    assert ran.code == 0, ran.err


def test_verify_says_marked_not_established_or_invalid(stage: Path, copy: Path) -> None:
    marked = run("verify", stage / "marked", "--key", stage / "marked", *MY_WORD)
    assert marked.code == 0
    assert marked.out.startswith("MARKED: ")
    assert marked.err == ""
    clean = run("verify", stage / "clean", "--key", stage / "marked/key")
    assert clean.code == 3
    assert clean.out.startswith("NOT_ESTABLISHED: ")
    assert "uncalibrated" not in clean.out, "the calibration above the key folder was not found"
    weights = read_tensors(copy / "model.safetensors")
    atomic_write_tensors(copy / "model.safetensors", {name: torch.zeros_like(value) for name, value in weights.items()})
    dead = run("verify", copy, "--key", stage / "marked")
    assert dead.code in (1, 3)  # a constant answer; invalid when hosts are of several classes
    assert "constant-answers" in dead.out


def test_a_calibration_of_the_claimant_is_not_enough(stage: Path) -> None:
    command = ["verify", stage / "marked", "--key", stage / "marked", "--level", 1e-6]
    for more in ([], ["--sequential"]):
        told = run(*command, *more)
        assert told.code == 3
        assert "--accept self-reported" in told.out
        assert "--calibrators" in told.out
    here = ["--calibrators", stage / "clean"]
    asked = run(*command, *here, "--json")
    assert (asked.code, asked.json["grade"], asked.json["models"]) == (0, "calibrated", 1)
    refused(run(*command, *here, *here), 2, "named twice")
    both = ["--calibrators", stage / "clean", "--calibration", stage / "marked/calibration.json"]
    refused(run(*command, *both), 2, "leave one of them out")
    refused(run(*command, "--calibrators", "nowhere"), 1, "nowhere")
    refused(run(*command, "--accept", "sworn"), 2, "self-reported")


def test_verify_json_is_the_verdict(stage: Path) -> None:
    for suspect, code in (("marked", 0), ("clean", 3)):
        ran = run("verify", stage / suspect, "--key", stage / "marked", "--json", "--level", 1e-6, *MY_WORD)
        assert ran.code == code
        verdict = Verdict.from_json(ran.out)
        assert verdict.level == 1e-6
        assert {"outcome", "wsr", "hits", "trials", "interval", "control_rate", "p_value", "null", "null_rate", "level", "needed",
                "queries", "flags", "key", "reason", "format"} <= set(ran.json)  # fmt: skip


def test_wilcoxon_stands_beside_the_verdict(stage: Path) -> None:
    command = ["verify", stage / "marked", "--key", stage / "marked", "--device", "cpu", *MY_WORD]
    plain, both = run(*command), run(*command, "--wilcoxon", "0.3")
    assert plain.code == both.code == 0
    assert both.out.startswith(plain.out)
    assert "Wilcoxon, margin 0.3 over control: rejects" in both.out
    found = json.loads(run(*command, "--wilcoxon", "0.9", "--json").out)
    assert found["wilcoxon"]["margin"] == 0.9
    assert Verdict.from_json(json.dumps(found["verdict"])).outcome == "MARKED"
    assert run(*command, "--wilcoxon", "1").code == 2


def test_verify_stops_when_it_is_enough(stage: Path) -> None:
    command = ["verify", stage / "marked", "--key", stage / "marked", *MY_WORD, "--sequential", "--level", "0.001"]
    ran = run(*command)
    assert ran.code == 0
    assert ran.out.startswith("MARKED: ")
    assert "valid at any time" in ran.out
    found = SequentialVerdict.from_json(run(*command, "--json").out)
    assert found.queries < Verdict.from_json(run(*command[:6], "--json").out).queries
    clean = run("verify", stage / "clean", "--key", stage / "marked", "--sequential")
    assert clean.code == 3
    assert clean.out.startswith("NOT_ESTABLISHED: ")
    few = run(*command, "--max-queries", "4", "--json")
    assert (few.code, few.json["queries"]) == (3, 4)


def test_several_suspects_and_keys_are_one_claim(stage: Path, copy: Path) -> None:
    suspects = [stage / "marked", stage / "clean"]
    command = ["verify", *suspects, "--key", stage / "marked", *MY_WORD]
    alone = [run("verify", each, *command[3:], "--json").json for each in suspects]
    ran, told = run(*command), run(*command, "--json")
    assert ran.code == told.code == 0
    assert ran.out.startswith("1 of 2 MARKED, corrected together by Holm")
    lines = [line.split() for line in ran.out.splitlines()[1:4]]
    assert lines[0] == ["outcome", "p-value", "corrected", "queries", "suspect", "key"]
    assert [line[0] for line in lines[1:]] == ["MARKED", "NOT_ESTABLISHED"]
    assert [pair["verdict"] for pair in told.json["pairs"]] == alone
    assert [pair["suspect"] for pair in told.json["pairs"]] == list(map(str, suspects))
    found = Together.from_json(json.dumps(told.json["together"]))
    assert found.rule == "holm"
    assert found.values == tuple(each["p_value"] for each in alone)
    assert found.adjusted[0] == pytest.approx(2 * alone[0]["p_value"])
    none = run("verify", stage / "clean", "nowhere", "--key", stage / "marked")
    assert none.code == 3
    assert "INVALID  nowhere with" in none.out
    assert run("verify", "nowhere", "noplace", "--key", stage / "marked").code == 1
    measured = run("verify", *suspects, "--key", stage / "marked", "--calibrators", stage / "stolen", "--json").json
    assert {pair["verdict"]["grade"] for pair in measured["pairs"]} == {"calibrated"}


def test_several_verdicts_that_stop_are_corrected_by_their_e_values(stage: Path) -> None:
    command = ["verify", stage / "marked", stage / "clean", "--key", stage / "marked", *MY_WORD, "--sequential"]
    ran, told = run(*command), run(*command, "--json").json
    assert ran.code == 0
    assert "e-BH" in ran.out.splitlines()[0]
    assert told["together"]["rule"] == "e-bh"
    assert [pair["outcome"] for pair in told["pairs"]] == ["MARKED", "NOT_ESTABLISHED"]
    assert told["pairs"][0]["verdict"]["e_value"] >= 200, "one of two reaches the level alone"


def test_what_makes_no_sense_for_several_is_refused(stage: Path, here: Path) -> None:
    two = ["verify", stage / "marked", stage / "clean", "--key", stage / "marked"]
    for options in (["--evidence", "b", "--signer", "s"], ["--wilcoxon", "0.3"], ["--transcript", "t"]):
        refused(run(*two, *options), 2, options[0], "one suspect and one key")
    refused(run(*two, "--labels", "0,1,2,3,4"), 2, "--labels is of one suspect")
    refused(run(*two, "--key", "other", "--calibration", "c.json"), 2, "--calibration is of one key")
    refused(run(*two, stage / "clean"), 2, "a suspect is named twice")
    refused(run(*two, "--key", stage / "marked/key"), 2, "a key is named twice")
    refused(run(*two, "--calibrators", "nowhere"), 1, "nowhere")
    refused(run(*two, "--key", "nowhere"), 1, "nowhere")


def test_wilcoxon_of_a_clean_model_does_not_reject(stage: Path) -> None:
    ran = run("verify", stage / "clean", "--key", stage / "marked", "--device", "cpu", "--wilcoxon", "0.3")
    assert ran.code == 3
    assert "does not reject" in ran.out


def test_verify_does_not_take_the_calibration_of_a_neighbour(stage: Path, here: Path) -> None:
    shutil.copytree(stage / "marked/key", here / "mine")
    shutil.copy(stage / "clean/calibration.json", here / "calibration.json")
    ran = run("verify", stage / "marked", "--key", "mine", "--json", "--accept", "assumed")
    assert ran.code == 0, ran.err
    assert ran.json["flags"][0] == "uncalibrated"


def test_figures_are_measured_in_float32(stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watch(self: BlackBox, *args: Any, **options: Any) -> None:
        seen.append(options["runtime"].precision)
        original(self, *args, **options)

    original = BlackBox.__init__
    monkeypatch.setattr(BlackBox, "__init__", watch)
    run("verify", stage / "marked", "--key", stage / "marked")
    assert seen == ["float32"]


def test_export_writes_what_still_carries_the_mark(stage: Path, here: Path) -> None:
    pytest.importorskip("onnxruntime")
    data = ["--data", "own_code:make_task", "--device", "cpu"]
    plain = run("export", stage / "marked", "--to", "onnx", "--out", "plain.onnx", *data, "--json")
    assert plain.code == 0, plain.err
    assert plain.json["same_labels"] == 1.0
    assert (plain.json["outcome_before"], plain.json["outcome_after"]) == ("MARKED", "MARKED")
    assert plain.json["accuracy_before"] == plain.json["accuracy_after"] > 0.5
    asked = run("verify", "plain.onnx", "--key", stage / "marked", *MY_WORD, "--json")
    assert (asked.code, asked.json["wsr"]) == (0, plain.json["wsr_after"])
    small = run("export", stage / "marked", "--int8", "--out", "small.onnx", *settings(calibration=32), *data, "--json")
    assert small.code == 0, small.err
    assert small.json["bytes"] == (here / "small.onnx").stat().st_size
    assert [b"QuantizeLinear" in (here / f"{name}.onnx").read_bytes() for name in ("plain", "small")] == [False, True]
    assert small.json["same_labels"] > 0.9
    refused(run("export", stage / "marked", "--out", "plain.onnx", *data), 2, "plain.onnx is there already")
    refused(run("export", stage / "marked", "--out", "plain.bin", *data), 2, "does not end in .onnx")
    refused(run("export", stage / "marked", "--to", "onyx", "--out", "a.onnx", *data), 2, "did you mean 'onnx'?")
    refused(run("export", stage / "marked", "--out", "a.onnx", *data, "--set", "per=channel"), 2, "add --int8")
    refused(run("export", stage / "stolen", "--out", "a.onnx", *data), 2, "name it with --key")


def test_export_keeps_back_what_carries_no_mark(stage: Path, here: Path) -> None:
    pytest.importorskip("onnxruntime")
    asked = ["export", stage / "clean", "--key", stage / "marked", "--data", "own_code:make_task", "--out", "a.onnx"]
    kept = run(*asked)
    assert kept.code == 4
    assert "a.onnx is not written: the key does not find its mark in the model itself" in kept.err
    assert "not written" in kept.out
    assert not (here / "a.onnx").exists()
    forced = run(*asked, "--force")
    assert forced.code == 4
    assert "so the file cannot carry it" in forced.err
    assert (here / "a.onnx").is_file()


def test_export_notices_that_quantisation_takes_the_mark(stage: Path, here: Path) -> None:
    """Whoever quantises so badly that another model comes out."""
    pytest.importorskip("onnxruntime")
    clean = load_model(stage / "clean").model

    @dataclass(frozen=True, kw_only=True)
    class Careless(Int8):
        def alter(self, copy: Net, data: Split, *, other: Split | None, seed: int, runtime: Runtime) -> Net:
            return replace(copy, onnx=to_onnx(clean, data.floats()[:2]))

    folder, cpu = ModelFolder(stage / "marked"), Runtime(device="cpu")
    given = {"seed": 1, "runtime": cpu, "int8": Careless()}
    out = here / "a.onnx"
    found = export_job(folder, folder, folder.data("own_code:make_task"), out, **given)
    assert "the mark is lost in the file" in found.lost
    assert (found.written, out.exists(), found.facts["file"]) == (False, False, "not written")
    assert (found.facts["outcome_before"], found.facts["outcome_after"]) == ("MARKED", "NOT_ESTABLISHED")
    assert found.facts["same_labels"] < 1
    assert export_job(folder, folder, folder.data("own_code:make_task"), out, **given, anyway=True).written
    assert out.is_file()


def test_inspect_tells_what_is_there_but_no_secret(stage: Path) -> None:
    ran = run("inspect", stage / "marked", "--json")
    assert ran.code == 0
    assert ran.json["model"] == "naivenet:batch_norm=true,hidden=16,width=4"
    assert {"folder", "input_shape", "classes", "parameters", "method", "queries", "commitment", "calibration", "data",
            "split_seed"} <= set(ran.json)  # fmt: skip
    assert "trigger" not in ran.json
    trigger = run("inspect", stage / "marked", "--secrets", "--json").json["trigger"]
    assert trigger["kind"] == "mix"
    text = run("inspect", stage / "marked").out
    assert ran.json["commitment"] in text
    assert "sources" not in text
    assert run("inspect", stage / "marked/key", "--json").json["queries"] == 60
    assert run("inspect", stage / "stolen", "--json").json["data"] == "own_code:make_task"


def test_fields_say_every_default_as_it_is() -> None:
    for name in (*METHODS, "knockoff"):
        ran = run("fields", name, "--json")
        assert ran.code == 0
        assert all(set(row) == {"field", "of", "type", "default", "meaning"} for row in ran.json)
    defaults = {row["field"]: row["default"] for row in run("fields", "knockoff", "--json").json}
    assert defaults["recipe.epochs"] == "100"  # Knockoff's own recipe, not the default one
    text = run("fields", "t2s").out
    assert "rehearsal.thief.reset_every=0  int" in text
    assert "trigger.epsilon=" in text
    assert "trigger.combiner=" not in text
    assert "..." not in text.replace(",...", "")
    assert "``" not in text
    assert len(text.splitlines()) < 150
    assert "trigger.combiner.region=right" in run("fields", "t2s", "--set", "trigger=mix").out
    assert "(with trigger=mix)" in run("fields", "vanilla", "--all").out
    assert run("fields", "t2s", "--set", "trigger=hat").code == 2


def test_python_m_heirmark_is_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["heirmark", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("heirmark", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"heirmark {__version__}\n"


def test_version_and_help() -> None:
    assert run("--version").out == f"heirmark {__version__}\n"
    for command in ("demo", "embed", "steal", "verify", "inspect", "fields"):
        assert run(command, "--help").code == 0


# The user's own code


def test_own_model_from_embedding_to_inspection(stage: Path, here: Path) -> None:
    own = ["--model", "own_code:make_net"]
    assert run("embed", *VANILLA, *own, "--out", "mine").code == 0
    refused(run("steal", "mine", *CPU, *RECIPE, "--out", "copy"), 2, "--victim-model")
    victim = ["--victim-model", "own_code:make_net"]
    assert run("steal", "mine", *CPU, *RECIPE, *victim, "--out", "copy").code == 0  # the thief's is the victim's
    assert run("steal", "mine", *CPU, *RECIPE, *victim, "--model", NET, "--out", "built-in").code == 0
    assert (
        run("steal", "mine", *CPU, *RECIPE, *victim, "--set", "model=own_code:make_wide_net", "--out", "wide").code == 0
    )
    refused(run("verify", "mine", "--key", "mine"), 2, "--model package.module:factory")
    assert run("verify", "mine", "--key", "mine", *own, *MY_WORD).code == 0
    assert run("verify", "copy", "--key", "mine", *own).code in (0, 3)
    assert run("verify", "wide", "--key", "mine", "--model", "own_code:make_wide_net").code in (0, 3)
    assert run("verify", "built-in", "--key", "mine").code in (0, 3)
    refused(run("verify", "copy", "--key", "mine", "--model", "own_code:make_wide_net"), 1, "do not fit")
    facts = run("inspect", "mine", *own, "--json").json
    assert (facts["model"], facts["parameters"]) == ("custom", 256 * 32 + 32 + 32 * 5 + 5)
    assert "parameters" not in run("inspect", "mine", "--json").json


def test_own_model_of_a_thief_with_a_built_in_victim(stage: Path) -> None:
    ran = run("steal", stage / "marked", *CPU, *RECIPE, "--model", "own_code:make_net", "--out", "copy")
    assert ran.code == 0, ran.err
    assert run("verify", "copy", "--key", stage / "marked", "--model", "own_code:make_net").code in (0, 3)


def test_set_model_is_another_way_to_write_model(stage: Path, here: Path) -> None:
    store = ["--store", stage / "store"]
    assert run("embed", *VANILLA, "--set", f"model={NET}", "--out", "again", *store).code == 0
    assert (here / "again/model.safetensors").read_bytes() == (stage / "marked/model.safetensors").read_bytes()
    ran = run("embed", *VANILLA, "--set", f"model={NET}", "--model", "own_code:make_net", "--out", "x")
    refused(ran, 2, "--model", "--set model=", "one of them")


def test_module_in_the_current_folder_is_found(here: Path) -> None:
    (here / "just_here.py").write_text("import own_code\nmake = own_code.make_task\nnet = own_code.make_net\n")
    options = ["--data", "just_here:make", "--model", "just_here:net"]
    assert run("embed", *VANILLA, *options, "--calibrators", 0, "--out", "made").code == 0
    sys.modules.pop("just_here")


# Mistakes, each found before any work is done


def test_embed_compiles_when_it_is_told_to(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def job(method: Any, data: Any, out: Path, work: Work, **options: Any) -> None:
        seen.append(work.runtime.compile)
        raise BadConfig("that is enough")

    monkeypatch.setattr("heirmark.jobs.embed.embed_job", job)
    for extra in ([], ["--compile"]):
        refused(run("embed", *VANILLA, "--model", NET, *extra, "--out", "made/it"), 2, "that is enough")
    assert seen == [False, True]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "t2S"], ["unknown method 't2S'", "did you mean 't2s'", "vanilla"]),
        (["--method", "vanila"], ["did you mean 'vanilla'"]),
        (
            ["--data", "fashion-mnst"],
            ["unknown data set 'fashion-mnst'", "did you mean 'fashion-mnist'", "fashion-mini"],
        ),
        (["--data", "no_such_module:task"], ["cannot import 'no_such_module:task'", "No module named"]),
        (["--data", "own_code:no_such"], ["cannot import", "no attribute 'no_such'"]),
        (["--data", "own_code:not_callable"], ["is not callable"]),
        (["--data", "own_code:make_nothing"], ["returned int", "heirmark.Task"]),
        (
            ["--data", "own_code:fail"],
            ["'own_code:fail' failed (ZeroDivisionError: [red]no[/red] second line, own_code.py"],
        ),
        (["--data", "own_code:images"], ["failed (TypeError", "called with the split seed if it takes a seed"]),
        (["--data", ":"], ["cannot import"]),
        (["--data", "..:x"], ["cannot import"]),
        (["--data", ""], ["unknown data set ''"]),
        (["--model", "naivnet"], ["unknown model 'naivnet'", "did you mean 'naivenet'"]),
        (["--model", "naivenet:make_net"], ["model option 'make_net' has no value"]),
        (["--model", "naivenet:width=big"], ["'big'"]),
        (["--model", "naivenet:wdth=4"], ["no option 'wdth'"]),
        (["--model", "naivenet:width=-4"], ["width"]),
        (["--model", "vgg:width=4"], ["cannot import 'vgg:width=4'"]),
        (["--model", "own_code:nothing"], ["cannot import"]),
        (["--model", "own_code:make_no_net"], ["make_no_net returned Tensor", "fresh nn.Module"]),
        (["--model", "own_code:make_one_net"], ["the same module twice"]),
        (["--model", "own_code:make_without_spec"], ["make_without_spec failed (TypeError"]),
        (["--model", "own_code:make_wrong_net"], ["make_wrong_net does not fit the task", "(2, 6)"]),
        (["--set", "pretraining.epoch=3"], ["no field 'epoch'", "did you mean 'epochs'"]),
        (["--set", "pretrainig.epochs=3"], ["no field 'pretrainig'", "did you mean 'pretraining'"]),
        (["--set", "pretraining.epochs=many"], ["expected int", "'many'"]),
        (["--set", "pretraining.epochs=3.5"], ["expected int"]),
        (["--set", "pretraining.learning_rate=nan"], ["expected float"]),
        (["--set", "pretraining.learning_rate=-1"], ["Recipe.learning_rate: expected float > 0, not -1"]),
        (["--set", "pretraining.schedule=cosin"], ["cosine|step|constant"]),
        (["--set", "pretraining"], ["write name=value"]),
        (["--set", "=3"], ["write name=value"]),
        (["--set", "trigger=pitch"], ["feature|mix"]),
        (["--set", "trigger=patch", "--set", "trigger.corner=middle"], ["bottom-right|bottom-left"]),
        (["--set", "key_size=0"], ["key_size"]),
        (["--set", "key_size=19"], ["19 queries", "20 or more"]),
        (["--set", "triggers=-1"], ["Vanilla.triggers: expected int >= 1, not -1"]),
        (["--device", "gpu"], ["unknown device 'gpu'"]),
        (["--device", "cuda:99"], ["cuda"]),
        (["--precision", "float16"], ["unknown precision 'float16'"]),
    ],
    ids=lambda item: " ".join(item) if item and item[0].startswith("--") else "",
)
def test_embed_refuses(here: Path, options: list[str], words: list[str]) -> None:
    if options == ["--device", "cuda:99"] and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    ran = run("embed", *VANILLA, "--model", NET, *options, "--out", "made/it")
    refused(ran, 2, *words)
    assert not (here / "made").exists()
    assert not (here / "runs").exists(), "work was begun"


@pytest.mark.parametrize(
    "options",
    [
        ["--seed", "-1"],
        ["--seed", "one"],
        ["--split-seed", "-1"],
        ["--calibrators", "-1"],
        ["--colour", "red"],
        ["--set"],
        ["surplus"],
    ],
)
def test_embed_refuses_usage(here: Path, options: list[str]) -> None:
    ran = run("embed", *VANILLA, "--out", "made", *options)
    assert ran.code == 2
    assert options[0] in ran.err.replace("│", "")
    assert "Traceback" not in ran.err
    assert not (here / "made").exists()


def test_embed_needs_an_out() -> None:
    assert run("embed", *VANILLA).code == 2


def test_data_set_that_is_not_there(here: Path) -> None:
    ran = run("embed", "--data", "cifar10", "--seed", "0", "--data-root", here / "nowhere", "--out", "made")
    refused(ran, 1, "nowhere", "data root")
    assert not (here / "made").exists()


@pytest.mark.parametrize("command", ["embed", "steal"])
def test_out_must_be_free(stage: Path, here: Path, command: str) -> None:
    start = ["embed", *VANILLA, "--model", NET] if command == "embed" else ["steal", stage / "marked", *CPU]
    (here / "full").mkdir()
    (here / "full/thing").write_text("precious")
    (here / "file").write_text("precious")
    (here / "link").symlink_to(here / "full")
    for out, words in (
        ("full", "not empty"),
        ("link", "not empty"),
        (".", "not empty"),
        ("file", "no folder"),
        ("file/inside", "nothing can be written"),
        ("/dev/null", "no folder"),
        ("/dev/null/inside", "nothing can be written"),
        ("/proc/heirmark", "nothing can be written"),
        ("/", "mount point"),
    ):
        refused(run(*start, "--out", out), 2, words)
    assert (here / "full/thing").read_text() == "precious"
    assert sorted(path.name for path in here.iterdir()) == ["file", "full", "link"]


def test_out_may_be_an_empty_folder_or_a_link_to_one(stage: Path, here: Path) -> None:
    (here / "empty").mkdir()
    (here / "real").mkdir()
    (here / "link").symlink_to(here / "real")
    for out in ("empty", "link"):
        ran = run("embed", *VANILLA, "--model", NET, "--out", out, "--store", stage / "store")
        assert ran.code == 0, ran.err
        assert (here / out / "model.json").is_file()


@pytest.mark.parametrize("store", ["file", "/dev/null", "/proc/heirmark"])
def test_store_that_cannot_be(here: Path, store: str) -> None:
    (here / "file").write_text("precious")
    ran = run("embed", *VANILLA, "--model", NET, "--out", "made", "--store", store)
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 1
    assert not (here / "made").exists()
    assert (here / "file").read_text() == "precious"


def test_key_that_could_never_be_judged_is_said_before_the_calibrators_train(here: Path) -> None:
    ran = run("embed", *VANILLA, "--data", "own_code:make_task_of_few", "--model", NET, "--out", "made")
    refused(ran, 1, "only 4 different triggers", "more images")
    assert "unmarked" not in ran.err
    assert not (here / "made").exists()


def test_training_that_diverges_is_one_line(here: Path) -> None:
    ran = run(
        "embed", *VANILLA, "--model", "naivenet:width=4", "--set", "pretraining.learning_rate=1e30", "--out", "made"
    )
    refused(ran, 1, "loss became", "lower learning_rate")
    assert not (here / "made").exists()
    assert not list((here / "runs/store/.partial").iterdir())


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--attack", "knockof"], 2, ["unknown attack 'knockof'", "did you mean 'knockoff'"]),
        (["--answers", "labels"], 2, ["Api.answers: expected probabilities|top-k|label|features, not 'labels'"]),
        (["--budget", "10"], 1, ["200 queries exceed", "budget of 10"]),
        (["--budget", "0"], 1, ["budget of 0"]),
        (["--set", "queries=201"], 2, ["200 images", "lower queries"]),
        (["--set", "queries=0"], 2, ["Knockoff.queries: expected none|int >= 1, not 0"]),
        (["--set", "budget=3"], 2, ["no field 'budget'"]),
        (["--data", "fashion-mini"], 1, ["(1, 16, 16)", "(1, 28, 28)", "--data"]),
        (["--data", "own_code:make_task_of_seven"], 1, ["5 classes", "7"]),
        (["--data", "own_code:make_other_task"], 0, []),  # other data, knowingly
        (["--model", "own_code:make_wrong_net"], 2, ["make_wrong_net does not fit"]),
        (["--victim-model", "naivenet"], 2, ["'naivenet' is no package.module:factory"]),
        (["--device", "gpu"], 2, ["unknown device"]),
        (["--pool", "fashion"], 2, ["unknown data set 'fashion'", "fashion-mini"]),
        (["--pool", "cifar10"], 1, ["cifar-10"]),
    ],
    ids=lambda item: " ".join(item) if isinstance(item, list) and item and item[0].startswith("--") else "",
)
def test_steal_refuses(stage: Path, here: Path, options: list[str], code: int, words: list[str]) -> None:
    ran = run("steal", stage / "marked", *CPU, *RECIPE, *options, "--out", "copy")
    if code == 0:
        assert ran.code == 0
        return
    refused(ran, code, *words)
    assert not (here / "copy").exists()


@pytest.mark.parametrize("options", [["--seed", "-1"], ["--k", "0"], ["--budget", "-1"], ["--decimals", "8"]])
def test_steal_refuses_usage(stage: Path, here: Path, options: list[str]) -> None:
    assert run("steal", stage / "marked", *CPU, "--out", "copy", *options).code == 2
    assert not (here / "copy").exists()


def test_steal_runs_no_code_that_only_the_folder_names(stage: Path, here: Path, copy: Path) -> None:
    refused(run("steal", stage / "marked", *RECIPE, "--out", "x"), 2, "come from code", "--data own_code:make_task")
    facts = json.loads((copy / "task.json").read_text())
    (here / "evil.py").write_text("from pathlib import Path\nPath('pwned').touch()\n")
    (copy / "task.json").write_text(json.dumps({**facts, "data": "evil:main"}))
    refused(run("steal", copy, *RECIPE, "--out", "x"), 2, "evil:main")
    assert not (here / "pwned").exists()
    (copy / "task.json").write_text(json.dumps({**facts, "data": "./theirs"}))
    refused(run("steal", copy, *RECIPE, "--out", "x"), 2, "come from code or a folder", "say --data ./theirs")


@pytest.mark.parametrize(("file", "word"), [("task.json", "--data"), ("twin.json", "--twin")])
def test_what_a_folder_says_of_data_and_twin_may_be_foreign(here: Path, copy: Path, file: str, word: str) -> None:
    for text in ("[1]", '{"data": 7}', '{"type": "Other"}'):
        (copy / file).write_text(text)
        refused(run("audit", copy, "--data", "own_code:make_task", "--out", "x"), 1, file, "remove it", word)


def test_data_are_taken_from_a_folder_of_arrays(stage: Path, here: Path) -> None:
    import own_code

    task = own_code.make_other_task()
    for part, split in (("train", task.adversary), ("test", task.test)):
        (here / "arrays" / part).mkdir(parents=True)
        np.save(here / "arrays" / part / "inputs.npy", split.inputs.numpy())
        np.save(here / "arrays" / part / "labels.npy", split.labels.numpy())
    (here / "arrays" / "classes.txt").write_text("\n".join(task.classes))
    ran = run("steal", stage / "marked", *CPU, *RECIPE, "--data", "./arrays", "--out", "copy")
    assert ran.code == 0, ran
    assert json.loads((here / "copy" / "task.json").read_text())["data"] == "./arrays"
    refused(run("steal", stage / "marked", *CPU, *RECIPE, "--data", "./nothing", "--out", "x"), 1, "train/inputs.npy")


def test_steal_notices_that_the_data_have_changed(copy: Path, here: Path) -> None:
    facts = json.loads((copy / "task.json").read_text())
    (copy / "task.json").write_text(json.dumps({**facts, "digest": "0" * 64}))
    refused(run("steal", copy, *CPU, *RECIPE, "--out", "x"), 1, "no longer what", "restore the data, or")


def test_a_data_function_that_takes_a_seed_gets_the_split_seed(
    copy: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A default of its own does not count, and a refusal says what does."""
    asked = list[int]()

    def make_seeded(seed: int = 7) -> object:
        asked.append(seed)
        return own_code.make_other_task() if seed == 3 else "no task"

    monkeypatch.setattr(own_code, "make_seeded", make_seeded, raising=False)
    facts = json.loads((copy / "task.json").read_text())
    (copy / "task.json").write_text(json.dumps({**facts, "data": "own_code:make_seeded", "split_seed": 3}))
    data = ["--data", "own_code:make_seeded"]
    words = "let it return the same data when it is called with the split seed (seed=3), or take others"
    refused(run("steal", copy, *CPU, *data, *RECIPE, "--out", "x"), 1, "no longer what", words)
    refused(run("embed", *VANILLA, *data, "--split-seed", 4, "--out", "x"), 2, "returned str")
    assert asked == [3, 4]
    monkeypatch.setenv("COLUMNS", "200")
    assert "if it takes seed, it gets the split seed" in run("embed", "--help").out


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"data": 3, "split_seed": 0, "digest": ""}', "\x00\x01", "null"]
)
def test_steal_refuses_a_foreign_task_file(copy: Path, text: str) -> None:
    (copy / "task.json").write_text(text)
    refused(run("steal", copy, *RECIPE, "--out", "x"), 1, "task.json")


def test_steal_from_what_is_no_model(stage: Path, here: Path) -> None:
    (here / "empty").mkdir()
    (here / "file").write_text("x")
    for victim in ("nowhere", "empty", "file", "/dev/null", stage / "marked/key"):
        refused(run("steal", victim, *CPU, "--out", "copy"), 1, "holds no model")
    assert not (here / "copy").exists()


def test_steal_without_saying_which_data(copy: Path) -> None:
    (copy / "task.json").unlink()
    refused(run("steal", copy, *RECIPE, "--out", "x"), 2, "does not say which data", "--data")


# Files that are not what they claim


def spoil(path: Path, how: str) -> None:
    """Damage a file in one of the ways that happen."""
    data = path.read_bytes()
    path.unlink()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.touch()
    elif how == "garbage":
        path.write_bytes(bytes(range(256)) * 8)
    elif how == "foreign":
        path.write_bytes(b'{"version": 3, "layers": []}')
    elif how == "folder":
        path.mkdir()
    elif how == "pickle":
        path.write_bytes(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins")
    elif how == "pipe":
        os.mkfifo(path)
    assert how == "missing" or path.exists()


DAMAGES = ("truncated", "empty", "garbage", "foreign", "folder", "pickle", "pipe", "missing")


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize(
    "name", ["model.safetensors", "model.json", "key/key.safetensors", "key/key.json", "calibration.json"]
)
def test_spoiled_files_are_told_in_one_line(copy: Path, name: str, how: str) -> None:
    spoil(copy / name, how)
    if how in ("missing", "folder", "pipe") and name == "calibration.json":
        # Not there, so not looked for unless it is named.
        assert "uncalibrated" in run("verify", copy, "--key", copy).out
        if how == "missing":
            refused(run("verify", copy, "--key", copy, "--calibration", copy / name), 1, "calibration.json")
        return
    refused(run("verify", copy, "--key", copy), 1)
    if (name, how) not in {(name, "missing"), (name, "folder"), (name, "pipe")}:
        refused(run("inspect", copy), 1)
    if name.startswith("model"):
        refused(run("steal", copy, *CPU, *RECIPE, "--out", "x"), 1)
        assert not (copy.parent / "x").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(copy: Path, value: float) -> None:
    weights = read_tensors(copy / "model.safetensors")
    name = next(name for name, weight in weights.items() if weight.is_floating_point())
    weights[name] = torch.full_like(weights[name], value)
    atomic_write_tensors(copy / "model.safetensors", weights)
    refused(run("verify", copy, "--key", copy), 1, "not finite")


def test_verify_refuses_what_is_not_there(stage: Path, here: Path) -> None:
    (here / "file").write_text("x")
    (here / "empty").mkdir()
    for place in ("nowhere", "file", "empty", "/dev/null"):
        refused(run("verify", place, "--key", stage / "marked"), 1)
        refused(run("verify", stage / "marked", "--key", place), 1)
        refused(run("verify", stage / "marked", "--key", stage / "marked", "--calibration", place), 1)
        refused(run("inspect", place), 1)
    assert run("verify", stage / "marked").code == 2
    for level in ("0", "1", "-1", "x", "nan"):
        assert run("verify", stage / "marked", "--key", stage / "marked", "--level", level).code == 2


def test_unreadable_folder(stage: Path, copy: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    (copy / "model.safetensors").chmod(0)
    refused(run("verify", copy, "--key", stage / "marked"), 1, "model.safetensors")


def test_calibration_of_another_key(stage: Path, copy: Path) -> None:
    other = stage / "clean/calibration.json"
    refused(run("verify", copy, "--key", copy, "--calibration", other), 1, "another key")
    shutil.copy(other, copy / "calibration.json")
    refused(run("verify", copy, "--key", copy), 1, "another key")
    refused(run("inspect", copy), 1, "another key")


def test_key_and_suspect_that_do_not_fit_are_invalid(stage: Path, here: Path) -> None:
    seven = [*UNMARKED, "--data", "own_code:make_task_of_seven", "--calibrators", "0"]
    assert run("embed", *seven, "--model", NET, "--out", "seven").code == 0
    ran = run("verify", "seven", "--key", stage / "marked")
    assert ran.code == 1
    assert ran.out.startswith("INVALID: the suspect has 7 classes, the key 5")
    assert run("verify", "seven", "--key", stage / "marked", "--json").json["outcome"] == "INVALID"


def test_names_are_never_taken_for_markup(here: Path, copy: Path) -> None:
    odd = copy.rename(here / "[red]copy[bold] \x1b[31m[link=x]")
    ran = run("inspect", odd)
    assert "[red]copy[bold] \ufffd[31m[link=x]" in ran.out
    assert "\x1b" not in ran.out
    ran = run("verify", odd / "no", "--key", odd)
    assert "[red]copy[bold] \ufffd[31m[link=x]/no" in ran.err
    assert "\x1b" not in ran.err
    assert json.loads(run("inspect", odd, "--json").out)["folder"] == str(odd)


# ONNX


def field(number: int, value: int | bytes | str) -> bytes:
    """One field of a protobuf message."""

    def varint(rest: int) -> bytes:
        return bytes([rest]) if rest < 128 else bytes([rest & 127 | 128]) + varint(rest >> 7)

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def onnx_of(weight: Tensor, bias: Tensor) -> bytes:
    """An ONNX file of ``weight @ x.flatten() + bias`` for inputs 1x16x16."""

    def tensor(name: str, values: Tensor) -> bytes:
        data = field(9, values.numpy().astype("<f4").tobytes())
        return b"".join(field(1, size) for size in values.shape) + field(2, 1) + field(8, name) + data

    def end(name: str, shape: list[int]) -> bytes:
        sizes = b"".join(field(1, field(1, size)) for size in shape)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, field(1, field(2, "N")) + sizes)))

    def node(inputs: str, output: str, kind: str) -> bytes:
        return b"".join(field(1, name) for name in inputs.split()) + field(2, output) + field(4, kind)

    nodes = (node("x", "flat", "Flatten"), node("flat weight", "product", "MatMul"), node("product bias", "y", "Add"))
    graph = b"".join(field(1, item) for item in nodes) + field(2, "g")
    graph += field(5, tensor("weight", weight.T.contiguous())) + field(5, tensor("bias", bias))
    graph += field(11, end("x", [1, 16, 16])) + field(12, end("y", [len(bias)]))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 17))


def test_onnx_suspect_is_judged_as_the_model_it_is(here: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert run("embed", *VANILLA, "--model", "own_code:make_wide_net", "--out", "mine").code == 0
    weights = read_tensors(here / "mine/model.safetensors")
    (here / "mine.onnx").write_bytes(onnx_of(weights["1.weight"], weights["1.bias"]))
    module = run("verify", "mine", "--key", "mine", "--model", "own_code:make_wide_net", "--json")
    file = run("verify", "mine.onnx", "--key", "mine", "--json")
    assert (file.code, file.json) == (module.code, module.json)
    (here / "cut.onnx").write_bytes((here / "mine.onnx").read_bytes()[:-100])
    refused(run("verify", "cut.onnx", "--key", "mine"), 1, "cut.onnx")
    asked = run("verify", "mine.onnx", "--key", "mine", "--wilcoxon", "0.3")
    refused(asked, 2, "--wilcoxon needs probabilities", "nothing says whether an ONNX file or a service gives them")


@pytest.mark.parametrize("content", [b"", b"garbage", bytes(range(256)) * 16, b"\x08\x07\x12\x04test"])
def test_onnx_garbage(stage: Path, here: Path, content: bytes) -> None:
    pytest.importorskip("onnxruntime")
    for name in ("suspect.onnx", "SUSPECT.ONNX"):
        (here / name).write_bytes(content)
        refused(run("verify", name, "--key", stage / "marked"), 1, name, "no ONNX model")


def test_onnx_that_is_not_there(stage: Path, here: Path) -> None:
    pytest.importorskip("onnxruntime")
    (here / "folder.onnx").mkdir()
    for name in ("nowhere.onnx", "folder.onnx"):
        refused(run("verify", name, "--key", stage / "marked"), 1, name)


# Interruption


def test_interrupted_command_ends_with_130_and_resumes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    command = ["embed", *VANILLA, "--model", "own_code:make_net", "--out", "made"]
    monkeypatch.setattr(own_code, "pause", interrupt)
    refused(run(*command), 130, "interrupted")
    assert not (here / "made").exists()
    assert not list((here / "runs/store/.partial").iterdir())
    monkeypatch.setattr(own_code, "pause", None)
    ran = run(*command)
    assert ran.code == 0
    assert ran.err.splitlines()[0].strip() == "1 finished stage reused"
    assert "train the clean model" not in ran.err


def test_signal_ends_a_real_process_cleanly(here: Path) -> None:
    source, tests = Path(heirmark.cli.__file__).parents[1], Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{tests}", "OMP_NUM_THREADS": "1"}
    command = ["embed", *VANILLA, "--model", "own_code:make_net", "--out", "made"]
    with subprocess.Popen(
        [sys.executable, "-m", "heirmark.cli", *command],
        env={**environment, "OWN_CODE_READY": str(here / "ready")},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A shell's background job ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 60
        while not (here / "ready").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert out == ""
    assert err.splitlines()[-1].startswith("heirmark: interrupted")
    assert "Traceback" not in err
    assert not (here / "made").exists()
    assert not list((here / "runs/store/.partial").iterdir())
    assert "1 finished stage reused" in run(*command).err


# Suspects of other people's


OWN_SUSPECTS = """
import sys
import torch

class Bands(torch.nn.Module):
    def forward(self, inputs):
        return 10 * inputs[:, 0, :15].unflatten(1, (5, 3)).mean((2, 3))

model = Bands()

def labels(inputs):
    return torch.zeros(len(inputs), dtype=torch.int64)

def more(inputs):
    return torch.arange(len(inputs)) % 6

def logits(inputs):
    return model(inputs)

def leaves(inputs):
    sys.exit(0)
"""


def test_verify_asks_code_of_ones_own(stage: Path, here: Path) -> None:
    (here / "suspects_of_mine.py").write_text(OWN_SUSPECTS)
    key = ["--key", stage / "marked"]
    for name in ("model", "labels", "more --labels 0,1,2,3,4,-", "model --normalise 0.5,0.25 --wilcoxon 0.3"):
        ran = run("verify", *f"suspects_of_mine:{name}".split(), *key, "--json")
        assert ran.code in (1, 3), (name, ran)
        verdict = ran.json.get("verdict", ran.json)
        assert verdict["outcome"] == ("INVALID" if name == "labels" else "NOT_ESTABLISHED"), name
        assert ("relabelled" in verdict["flags"]) == ("--labels" in name)
        assert ("wilcoxon" in ran.json) == ("--wilcoxon" in name)
    mute = run("verify", "suspects_of_mine:more", *key, "--wilcoxon", "0.3", "--json")
    assert mute.json["wilcoxon"] is None
    mute = run("verify", "suspects_of_mine:logits", *key, "--wilcoxon", "0.3")
    assert mute.out.startswith("NOT_ESTABLISHED"), "the verdict, which has cost the key, stands"
    assert mute.code == 3
    assert "let it return probabilities, not logits" in mute.err
    more = run("verify", "suspects_of_mine:more", *key)
    assert more.code == 1
    assert "outside 0 to 4" in more.out
    refused(run("verify", "suspects_of_mine:none", *key), 2, "cannot import 'suspects_of_mine:none'")
    refused(run("verify", "own_code:Net", *key), 2, "is a class")
    refused(
        run("verify", "suspects_of_mine:labels", *key, "--wilcoxon", "0.3", "--labels", "0,1,2,3,4"), 2, "key's order"
    )


def test_a_suspect_that_ends_the_process_ends_nothing(stage: Path, here: Path) -> None:
    (here / "suspects_that_leave.py").write_text(OWN_SUSPECTS)
    ran = run("verify", "suspects_that_leave:leaves", "--key", stage / "marked")
    assert ran.code == 1
    assert ran.out.startswith("INVALID: the model fails on inputs of shape (1, 16, 16) (SystemExit: 0)")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--labels", "0,1,x"], "for each class"),
        (["--labels", "0,1,1,3,4"], "another class"),
        (["--labels", "0,1,2"], "give one for each"),
        (["--normalise", "0.5"], "mean,std"),
        (["--normalise", "0.5,a"], "mean,std"),
        (["--normalise", "0.5,0"], "positive"),
        (["--max-queries", "100"], "goes with --sequential"),
        (["--sequential", "--wilcoxon", "0.3"], "leave one of them out"),
    ],
)
def test_verify_refuses_what_it_cannot_read(stage: Path, options: list[str], words: str) -> None:
    refused(run("verify", stage / "stolen", "--key", stage / "marked", *options), 2, words)


@pytest.mark.parametrize("name", ["sus.pt", "folder", "nowhere", "a:b:c"])
def test_verify_says_what_a_suspect_is(stage: Path, here: Path, name: str) -> None:
    torch.save({}, here / "sus.pt")
    (here / "folder").mkdir()
    words = ("a folder that heirmark wrote", ".onnx", "package.module:name", "weights_only=True", "verify mine:model")
    refused(run("verify", name, "--key", stage / "marked"), 1, name, *words)


# Exit codes


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["verify", "x.onnx", "--key", "y"], 1),
        (["fields", "t2s"], 1),
        (["--version"], 0),
        (["verify", "--help"], 0),
        ([], 0),
    ],
)
def test_the_code_for_marked_is_given_by_a_command_alone(
    arguments: list[str], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some releases of the parser show the version unasked, and end with 0."""

    def shows_the_version() -> None:
        raise SystemExit(0)

    monkeypatch.setattr("heirmark.commands.options.exit_codes", [])
    monkeypatch.setattr("heirmark.cli.app", shows_the_version)
    monkeypatch.setattr("warnings.showwarning", warnings.showwarning)
    monkeypatch.setattr(sys, "argv", ["heirmark", *arguments])
    with pytest.raises(SystemExit) as end:
        heirmark.cli.main()
    assert (end.value.code or 0) == code
    assert ("do not fit each other" in capsys.readouterr().err) == (code == 1)


def test_a_command_that_ends_well_ends_with_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warnings.showwarning", warnings.showwarning)
    for arguments, code in (
        (["fields", "t2s"], 0),
        (["fields", "nothing"], 2),
        (["verify", "x.onnx", "--key", "y"], 1),
    ):
        monkeypatch.setattr(sys, "argv", ["heirmark", *arguments])
        with pytest.raises(SystemExit) as end:
            heirmark.cli.main()
        assert end.value.code == code


@pytest.mark.filterwarnings("default")
def test_what_is_told_beside_is_one_line_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn_twice() -> None:
        for _ in range(2):
            warnings.warn("a thing\x1b[2J to know", HeirmarkWarning, stacklevel=1)
        raise SystemExit(0)

    monkeypatch.setattr("heirmark.cli.app", warn_twice)
    monkeypatch.setattr(sys, "argv", ["heirmark", "--help"])
    monkeypatch.setattr("warnings.showwarning", warnings.showwarning)
    with pytest.raises(SystemExit):
        heirmark.cli.main()
    assert capsys.readouterr().err == "heirmark: note: a thing\ufffd[2J to know\n"


@pytest.mark.parametrize("error", [RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()])
def test_memory_that_runs_out_is_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(*given: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr("heirmark.jobs.embed.embed_job", hungry)
    refused(run("embed", *VANILLA, "--model", NET, "--out", "made"), 1, "out of memory", "smaller model or batch")


# Marks that are of no use


def test_embed_says_when_the_model_has_learned_nothing(here: Path) -> None:
    ran = run("embed", *VANILLA, "--model", NET, *settings(pretraining__epochs=0), "--out", "made")
    assert ran.code == 4
    assert "made is written, but nothing shows that the model has learned" in ran.err
    assert (here / "made/key/key.json").is_file(), "nothing is lost"


def test_embed_says_when_the_key_proves_nothing(here: Path) -> None:
    """Of a task whose fifth class looks like tiles of the four others, unmarked models take every tile for that class."""
    how = ["--method", "vanilla", *CPU, *TRAINING, "--data", "own_code:make_task_of_tiles", "--model", NET, "--seed", 0]
    tiles = settings(trigger="tiles", trigger__sources="0,1,2,3", trigger__target=4)
    ran = run("embed", *how, *tiles, "--calibrators", 2, "--out", "made", "--json")
    assert ran.code == 4, ran
    assert ran.json["verdict"] == "NOT_ESTABLISHED"
    assert ran.json["hits"] > 50
    assert ran.json["least_hits"] is None
    assert "unmarked models hit this key so often" in ran.json["shortcoming"]
    assert "trigger.target=none" in ran.err


# What a thief does with weights


def test_remove_writes_a_model_that_is_verified_and_removed_from_again(stage: Path) -> None:
    ran = run("remove", stage / "marked", "--attack", "pruning", "--set", "rate=0.2", *CPU, "--out", "pruned")
    assert ran.code == 0
    assert {path.name for path in Path("pruned").iterdir()} == {"model.safetensors", "model.json", "task.json"}
    ran = run("remove", "pruned", "--attack", "preprocessing", "--set", "kind=flip", *CPU, "--out", "fronted")
    assert ran.code == 0
    assert "flip 1" in run("inspect", "fronted").out
    for folder in ("pruned", "fronted"):
        assert run("verify", folder, "--key", stage / "marked", "--device", "cpu").code in (0, 3)


def test_remove_and_detect_refuse_what_they_cannot_do(stage: Path) -> None:
    marked = stage / "marked"
    refused(run("remove", marked, "--attack", "prunning", "--out", "x"), 2, "did you mean 'pruning'?")
    refused(
        run("remove", marked, "--attack", "pruning", "--set", "rate=2", *CPU, "--out", "x"),
        2,
        "expected float >= 0 and < 1, not 2.0",
    )
    refused(run("remove", "nowhere", "--attack", "pruning", *CPU, "--out", "x"), 1, "holds no model")
    refused(run("detect", marked, "--attack", "lof"), 2, "with --key")
    refused(run("detect", marked, "--attack", "knockoff"), 2, "unknown detection attack")
    assert not Path("x").exists()


def test_detect_holds_what_it_finds_against_the_key(stage: Path) -> None:
    command = ["--set", "samples=200", *CPU, "--json"]
    ran = run("detect", stage / "stolen", "--attack", "lof", "--key", stage / "marked", *command)
    assert ran.code == 0
    assert {"detected", "flagged", "accuracy", "wsr", "outcome"} <= set(json.loads(ran.out))
    ways = ["--attack", "mix-probing", "--set", "samples=5", "--set", "quadruples=2", *CPU, "--json"]
    alone = json.loads(run("detect", stage / "stolen", *ways).out)
    held = json.loads(run("detect", stage / "stolen", *ways, "--key", stage / "marked").out)
    assert "targets" not in alone
    assert {name: held[name] for name in alone} == alone
    assert held["target_found"] == bool(set(held["suspects"]) & set(held["targets"]))


def test_audit_runs_a_part_and_resumes(stage: Path) -> None:
    command = ["audit", stage / "marked", "--only", "marked model: pruning of 10", *CPU, "--out", "audit"]
    ran = run(*command)
    assert ran.code == 0
    assert "pruning of 10%" in ran.out
    assert "done" in ran.err
    record = json.loads(Path("audit/part.json").read_text())
    assert [(row.get("trial", ""), row["arm"]) for row in record["rows"]] == [
        ("", "marked"), ("", "unmarked"), ("pruning of 10%", "marked"), ("pruning of 10%", "unmarked"),
    ]  # fmt: skip
    again = run(*command)
    assert "done" not in again.err
    assert again.out == ran.out
    refused(run("audit", stage / "marked", "--only", "zzz"), 2, "no attack is called zzz")
    refused(run("audit", stage / "marked", "--profile", "fast"), 2, "unknown profile 'fast'")
    refused(run("audit", stage / "stolen", *CPU), 1, "calibration.json")
    refused(run("audit", stage / "marked", *CPU, "--only", " "), 2, "leave --only out")


def test_audit_asks_about_the_images_of_another_data_set(stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heirmark.grids.programme.QUICK_POOL", 150)
    command = ["audit", stage / "marked", *CPU, "--only", "Knockoff with fashion-mini", "--out", "audit"]
    refused(run(*command), 2, "no attack is called Knockoff with fashion-mini")
    assert run(*command, "--pool", "fashion-mini").code == 0
    record = json.loads(Path("audit/part.json").read_text())
    assert {row.get("trial", ""): row["asked"] for row in record["rows"] if row["arm"] == "marked"} == {
        "": 0,
        "Knockoff with fashion-mini, probabilities": 150,
        "Knockoff with fashion-mini, labels": 150,
        "adaptive Knockoff with fashion-mini, probabilities": 75,
    }
    assert "Of the 20000 images of fashion-mini a thief asks about 150 at most" in Path("audit/part.html").read_text()


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "calibration.json", "key/key.json", "twin.json"])
def test_an_audit_ends_at_once_where_what_it_rests_on_is_spoiled(copy: Path, name: str) -> None:
    """And is no report in which every row is an error."""
    spoil(copy / name, "garbage")
    refused(run("audit", copy, *CPU, "--only", "marked model: pruning of 10", "--out", "audit"), 1, name)
    assert not Path("audit/part.json").exists()


def test_audit_refuses_what_cannot_be_judged(stage: Path, copy: Path, here: Path) -> None:
    command = ["audit", copy, *CPU, "--only", "marked model: pruning of 10", "--out", "audit"]
    seven = ["--method", "unmarked", "--data", "own_code:make_task_of_seven", "--device", "cpu", *TRAINING]
    assert run("embed", *seven, "--model", NET, "--seed", 0, "--calibrators", "0", "--out", "seven").code == 0
    refused(run(*command, "--twin", "seven"), 1, "the model in seven is no twin", "name another")
    refused(run(*command, "--twin", "nowhere"), 1, "nowhere holds no model")
    refused(run("audit", "nowhere", *CPU), 1, "nowhere holds no model")
    refused(run("audit", copy / "key", *CPU), 1, "holds no model")
    refused(run("audit", copy, "--data", "own_code:make_task_of_seven"), 1, "leave --data out")
    shutil.copy(stage / "clean/calibration.json", copy / "calibration.json")
    refused(run(*command), 1, "another key", "embed the model again")
    weights = read_tensors(copy / "model.safetensors")
    name = next(name for name, weight in weights.items() if weight.is_floating_point())
    atomic_write_tensors(copy / "model.safetensors", {**weights, name: torch.full_like(weights[name], math.nan)})
    shutil.copy(stage / "marked/calibration.json", copy / "calibration.json")
    for attack in (["audit"], ["remove", "--attack", "pruning"], ["detect", "--attack", "mix-probing"]):
        out = [] if attack[0] == "detect" else ["--out", "out"]
        refused(run(attack[0], copy, *attack[1:], *CPU, *out), 1, "not finite")


def test_quick_attacks_are_fitted_to_small_tasks_and_say_so(stage: Path) -> None:
    short = settings(recipe__epochs=1)
    thief = ["steal", stage / "marked", *CPU, "--quick", "--attack", "active-thief", *short, "--set", "rounds=1"]
    ran = run(*thief, "--out", "copy", "--json")
    assert (ran.code, ran.json["queries"]) == (0, 100)
    assert ran.json["fitted"] == "queries=100 instead of 4000, as the adversary has 200 images of 5 classes"
    refused(run(*thief, "--set", "queries=201", "--out", "greedy"), 2, "lower queries")
    screen = ["detect", stage / "marked", *CPU, "--attack", "composites", "--key", stage / "marked", *short]
    refused(run(*screen), 1, "or give more images")
    assert "false_alarms=0.02439 instead of 0.01" in run(*screen, "--quick").out
    pruned = run("remove", stage / "marked", *CPU, "--quick", "--attack", "pruning", "--out", "pruned", "--json")
    assert set(pruned.json) == {"model", "seconds"}
