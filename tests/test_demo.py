"""The demo on a little of the embedded data: what it writes, that it resumes, and that it computes nothing twice."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import heirmark.cli
import heirmark.pipeline.demo
import own_code
from heirmark.errors import BadConfig, BadData, DataNotFound
from heirmark.files import read_tensors
from heirmark.key import Key
from heirmark.methods import DeepTracer
from heirmark.models.storage import load_model
from heirmark.pipeline.context import Context
from heirmark.pipeline.demo import DemoResult, run_demo
from heirmark.pipeline.demo_plan import plan_demo
from heirmark.pipeline.judging import read_calibration
from heirmark.pipeline.profiles import FULL, QUICK, Profile
from heirmark.pipeline.store import Event
from heirmark.results.verdict import Calibration
from heirmark.runtime import Runtime

ANSWER = "answer a thief's queries"
START = [
    "train the unmarked model that chooses the key's classes",
    "embed the vanilla watermark",
    "embed T2S: rehearse the theft",
    "train unmarked model 1 to calibrate",
    "train unmarked model 2 to calibrate",
    ANSWER,
    "steal unmarked model 3 to calibrate",
]
# And then 2 calibrations, 3 victims' answers, 6 thefts, a clean model, a competitor, 10 verdicts.
STAGES = 30


@dataclass(frozen=True)
class Ran:
    out: Path
    result: DemoResult
    events: list[tuple[str, str, str]]
    """What, label, name."""

    def labels(self, what: str) -> list[str]:
        return [label for kind, label, _ in self.events if kind == what]


def demo_in(out: Path) -> Ran:
    events: list[tuple[str, str, str]] = []

    def note(event: Event, label: str) -> None:
        events.append((event.what, label, event.name))

    result = run_demo(
        out,
        profile=own_code.demo_profile(),
        task=own_code.demo_task(),
        device="cpu",
        precision="float32",
        on_event=note,
    )
    return Ran(out, result, events)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return demo_in(tmp_path_factory.mktemp("demo") / "out")


def test_results_are_a_list_of_rows(ran: Ran) -> None:
    rows = json.loads((ran.out / "results.json").read_text())
    assert isinstance(rows, list)
    for row in rows:
        assert {"suspect", "method", "attack", "answers", "accuracy", "wsr", "p_value", "outcome"} <= set(row)
        assert row["outcome"] in ("MARKED", "NOT_ESTABLISHED", "INVALID")
        assert not math.isnan(row["wsr"])
        assert not math.isnan(row["accuracy"])
        assert (row["attack"] == "none") == (row["answers"] == "none")
    named = {(row["suspect"], row["answers"]): row for row in rows}
    assert len(named) == len(rows) == len(ran.result.rows) == 10
    for name in ("T2S", "vanilla", "clean"):
        assert (f"{name} model", "none") in named
        for answers in ("soft", "label"):
            assert named[f"stolen from {name} model", answers]["attack"] == "knockoff"
    assert {row["inherits"] for row in rows if row["method"] == "unmarked"} == {False}
    assert {row["inherits"] for row in rows if row["method"] != "unmarked"} == {True}
    # The marks were learned; what they survive is a matter of longer runs.
    assert named["T2S model", "none"]["outcome"] == named["vanilla model", "none"]["outcome"] == "MARKED"
    assert named["T2S model", "none"]["training_wsr"] > 0.9
    assert named["clean model", "none"]["training_wsr"] is not None


def test_report_stands_alone(ran: Ran) -> None:
    page = (ran.out / "report.html").read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert "stolen from T2S model" in page
    for reference in re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", page):
        assert reference.startswith(("data:", "#")), reference
    assert not re.search(r"<script|<link|@import|url\((?!#|['\"]?data:)", page)


def test_run_file_says_how_to_do_it_again(ran: Ran) -> None:
    run = json.loads((ran.out / "run.json").read_text())
    assert run["training_seconds"] > 0
    assert run["profile"]["recipe"]["epochs"] == 3
    assert run["provenance"]["task digest"] == own_code.demo_task().digest()
    assert "profile" in run["provenance"]["command"]


def test_models_key_and_calibration_are_exported_whole(ran: Ran) -> None:
    folders = sorted(path.name for path in (ran.out / "models").iterdir())
    assert folders == sorted(
        ["clean-model", "independent-model", "t2s-model", "vanilla-model"]
        + [
            f"stolen-from-{name}-model-{answers}"
            for name in ("clean", "t2s", "vanilla")
            for answers in ("soft", "label")
        ]
    )
    for name in folders:
        spec = load_model(ran.out / "models" / name).spec
        assert (spec.name, spec.classes) == ("naivenet", 10)
    key = Key.load(ran.out / "key")
    assert read_calibration(ran.out / "calibration.json").key == key.commitment
    assert not (ran.out / "key" / "key.json").stat().st_mode & 0o077
    assert key.disjoint_from(own_code.demo_task().owner.inputs)


def test_exported_models_can_be_verified_with_the_exported_key(ran: Ran) -> None:
    for row in ran.result.rows:
        if row.method == "vanilla":
            continue  # that key is not exported
        name = "-".join([*row.suspect.lower().split(), *([] if row.answers == "none" else [row.answers])])
        command = ["verify", str(ran.out / "models" / name), "--key", str(ran.out / "key"), "--json"]
        verdict = json.loads(CliRunner().invoke(heirmark.cli.app, [*command, "--device", "cpu"]).stdout)
        assert (verdict["outcome"], verdict["wsr"], verdict["p_value"]) == (row.outcome, row.wsr, row.p_value)


def test_stages_tell_the_story_in_order(ran: Ran) -> None:
    thefts = [
        f"steal the {name} model ({answers})" for name in ("T2S", "vanilla", "clean") for answers in ("soft", "label")
    ]
    assert ran.labels("finished") == [
        *START,
        "calibrate the T2S key",
        "calibrate the vanilla key",
        ANSWER,
        *thefts[:2],
        ANSWER,
        *thefts[2:4],
        "train the clean model",
        ANSWER,
        *thefts[4:],
        "train an independent model",
        *(f"verify: {row.label}" for row in ran.result.rows),
    ]
    assert len(ran.labels("finished")) == STAGES
    assert all(label for what, label, _ in ran.events), "a stage without a name for people"


def test_second_run_computes_nothing(ran: Ran) -> None:
    before = {path: path.read_bytes() for path in ran.out.rglob("*") if path.is_file() and path.name != "run.json"}
    again = demo_in(ran.out)
    assert {what for what, _, _ in again.events} == {"cached"}
    assert repr(again.result) == repr(ran.result)  # NaN is not equal to itself
    assert {path: path.read_bytes() for path in before} == before


def test_command_line_prints_a_table_that_fits(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heirmark.pipeline.demo, "load_task", lambda name, **options: own_code.demo_task())
    monkeypatch.setattr(heirmark.pipeline.demo, "QUICK", own_code.demo_profile())
    monkeypatch.setenv("COLUMNS", "80")
    command = ["demo", "--out", str(ran.out), "--device", "cpu", "--precision", "float32"]
    shown = CliRunner().invoke(heirmark.cli.app, command)
    assert shown.exit_code == 0, shown.stderr
    assert shown.stderr.split() == [str(STAGES), "finished", "stages", "reused"]
    table, _, rest = shown.stdout.partition("Embedding T2S")
    lines = table.splitlines()
    assert max(map(len, lines)) <= 80
    assert next(line.split() for line in lines if "model" in line) == ["model", "ACC", "WSR", "p-value", "verdict"]
    for row in ran.result.rows:
        assert sum(line.strip().startswith(f"{row.label} ") for line in lines) == 1
    assert "report.html" in rest
    told = CliRunner().invoke(heirmark.cli.app, [*command, "--json"])
    assert told.stderr == ""
    assert json.loads(told.stdout) == json.loads((ran.out / "results.json").read_text())


def test_damaged_stage_is_told_and_computed_again(ran: Ran, tmp_path: Path) -> None:
    out = Path(shutil.copytree(ran.out, tmp_path / "out"))
    stolen = next(name for what, label, name in ran.events if label == "steal the clean model (soft)")
    weights = out / "stages" / stolen / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    again = demo_in(out)
    assert again.labels("damaged") == ["steal the clean model (soft)"]
    assert again.labels("started") == ["steal the clean model (soft)"]  # the same bytes, so what rests on it stands
    assert (out / "results.json").read_bytes() == (ran.out / "results.json").read_bytes()


KILLED = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
import own_code
from heirmark.pipeline.demo import run_demo

def note(event, label):
    if event.what == "started" and label == "calibrate the T2S key":
        Path(sys.argv[1]).with_name("ready").touch()
        time.sleep(60)

run_demo(
    Path(sys.argv[1]), profile=own_code.demo_profile(), task=own_code.demo_task(), device="cpu", precision="float32",
    on_event=note,
)
"""


@pytest.mark.slow
def test_killed_process_loses_only_the_stage_it_was_at(ran: Ran, tmp_path: Path) -> None:
    source, tests = Path(heirmark.cli.__file__).parents[1], Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{tests}", "OMP_NUM_THREADS": "1"}
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(out)], env=environment) as process:
        deadline = time.monotonic() + 90
        while not (tmp_path / "ready").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (out / "results.json").exists()
    assert list((out / "stages/.partial").iterdir()), "it was not killed at work"
    resumed = demo_in(out)
    assert len(resumed.labels("swept")) == 1
    assert resumed.labels("started") == ran.labels("started")[len(START) :]
    assert not list((out / "stages/.partial").iterdir())
    # Half of it in another process, and all the same to the last bit.
    for name in ("results.json", "models/t2s-model/model.safetensors", "key/key.json", "key/key.safetensors"):
        assert (out / name).read_bytes() == (ran.out / name).read_bytes(), name


def test_further_methods_bring_rows_and_one_that_fails_takes_only_its_own(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: DeepTracer, *args: Any, **options: Any) -> None:
        raise BadData("the mark does not survive: embed it more strongly")

    monkeypatch.setattr(DeepTracer, "__call__", fails)
    shutil.copytree(ran.out, tmp_path / "out")
    events: list[tuple[str, str]] = []
    result = run_demo(
        tmp_path / "out", profile=own_code.demo_profile(), task=own_code.demo_task(), device="cpu", precision="float32",
        methods=("deeptracer", "feature-sharing", "mea-defender"),
        on_event=lambda event, label: events.append((event.what, label)),
    )  # fmt: skip
    assert ("started", "embed T2S: rehearse the theft") not in events
    told = [(row.suspect, row.answers) for row in result.rows]
    assert set(told) - {(row.suspect, row.answers) for row in ran.result.rows} == {
        ("mea-defender model", "none"),
        *(("stolen from mea-defender model", answers) for answers in ("soft", "label")),
        *(("stolen from clean model, mea-defender key", answers) for answers in ("soft", "label")),
    }
    lost = result.summary[-2:]
    assert lost[0] == "To embed deeptracer failed: the mark does not survive: embed it more strongly."
    assert lost[1].startswith("To calibrate the feature-sharing key failed"), "so few images give too few patches"
    assert lost[0] in (tmp_path / "out/report.html").read_text(encoding="utf-8")
    for name in ("t2s", "nonsense"):
        with pytest.raises(BadConfig, match="unknown further method"):
            run_demo(tmp_path / "other", methods=(name,))
    assert not (tmp_path / "other").exists()


def test_missing_data_are_missed_before_anything_is_written(tmp_path: Path) -> None:
    profile = replace(own_code.demo_profile(), data="cifar10")
    with pytest.raises(DataNotFound, match="nowhere"):
        run_demo(tmp_path / "out", profile=profile, data_root=tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()


def test_verdicts_of_the_demo_rest_on_no_stage_that_they_should_not(ran: Ran) -> None:
    """The key's images are no thief's, no model that calibrates is judged, and no thief reads a key."""
    records = {
        path.parent.relative_to(ran.out / "stages").as_posix(): json.loads(path.read_text())
        for path in (ran.out / "stages").glob("*/*/record.json")
    }
    calibrators: set[str] = set()
    judged: set[str] = set()
    choosers: set[str] = set()
    for record in records.values():
        inputs: dict[str, Any] = record["inputs"]
        if record["kind"] == "calibrate":
            calibrators |= {identity for name, identity in inputs.items() if name.startswith("unmarked")}
        if record["kind"] == "verify":
            judged.add(inputs["suspect"])
        if record["kind"] == "embed":
            choosers.add(inputs["clean"])
        if record["kind"] == "steal":
            assert set(inputs) == {"victim", "answers"}
            assert set(record["files"]) == {"model.json", "model.safetensors"}
    assert len(calibrators) == own_code.demo_profile().calibrators + 1
    assert len(judged) == 10
    assert not calibrators & judged
    assert len(choosers) == 1
    assert not choosers & (calibrators | judged)  # it would look innocent by construction
    task, queries = own_code.demo_task(), read_tensors(ran.out / "key/key.safetensors")["queries"]
    assert queries.shape[1:] == task.input_shape


@pytest.mark.parametrize("profile", [QUICK, FULL])
def test_the_demos_test_is_calibrated_on_enough_independent_models(profile: Profile) -> None:
    context = Context(task=own_code.demo_task(), runtime=Runtime(device="cpu", precision="float32"))
    calibration = plan_demo(profile, context, seed=0).calibration
    kinds = [stage.kind for name, stage in calibration.inputs.items() if name != "marked"]
    assert kinds == ["train"] * 5 + ["steal"]
    hits = Calibration(hits=(0,) * len(kinds), trials=profile.key_size, key="0" * 64, copies=kinds.count("steal"))
    assert hits.independent == 5, "else every verdict says few-calibration-models"


def test_another_key_in_the_folder_is_kept(ran: Ran, tmp_path: Path) -> None:
    out = Path(shutil.copytree(ran.out, tmp_path / "out"))
    old = Key.load(out / "key")
    other = replace(old, nonce="f" * 64)
    shutil.rmtree(out / "key")
    other.save(out / "key")
    demo_in(out)
    assert Key.load(out / "key").commitment == old.commitment
    (kept,) = out.glob("key-until-*")
    assert Key.load(kept).commitment == other.commitment
    (out / "key/key.json").write_text("{")
    demo_in(out)
    assert Key.load(out / "key").commitment == old.commitment


@pytest.mark.slow
@pytest.mark.timeout(1800)  # the tests run with one thread
def test_the_demo_as_it_is_shipped(tmp_path: Path) -> None:
    result = run_demo(tmp_path / "out")
    rows = {(row.suspect, row.answers): row for row in result.rows}
    assert not [row for row in result.rows if row.inherits is False and row.outcome != "NOT_ESTABLISHED"]
    for answers in ("soft", "label"):
        assert rows["stolen from T2S model", answers].outcome == "MARKED"
        assert rows["stolen from T2S model", answers].wsr > rows["stolen from vanilla model", answers].wsr
    assert rows["T2S model", "none"].accuracy > rows["clean model", "none"].accuracy - 0.05
