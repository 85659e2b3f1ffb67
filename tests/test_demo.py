"""The demo on a little of the embedded data: what it writes, that it resumes, and that it computes nothing twice."""

from __future__ import annotations

import json
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
import own_code
from heirmark import profiles
from heirmark.data import chirps, load_task
from heirmark.errors import BadConfig, BadData, DataNotFound, HeirmarkError
from heirmark.files import read_tensors
from heirmark.grids.demo import DemoResult, demo_grid, run_demo
from heirmark.grids.plan import plan_grid
from heirmark.grids.settings import Contexts
from heirmark.keys.key import Key
from heirmark.methods import DeepTracer, Robust
from heirmark.models.storage import load_model
from heirmark.profiles import FULL, QUICK, Profile
from heirmark.report.demo_story import folder_name, suspect_of
from heirmark.results.verdict import Calibration
from heirmark.runtime import Runtime
from heirmark.stages.store import Event
from heirmark.triggers import Mix, Tiles
from heirmark.work.judging import read_calibration

START = [
    "train the owner's clean model",
    "embed robust",
]
LABEL = "robust, soft, on the control"
CALIBRATE = "calibrate the key of robust"
# Besides: 2 calibrating thefts, their two models and answers; 2 calibrations, 3 answers, 9 thefts, 2 controls, 18 verdicts.
THIEVES = ("soft", "label", "VGG")
CPU = Runtime(device="cpu", precision="float32")
STAGES = 3 + 6 + 2 + 3 + 9 + 2 + 18


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

    return Ran(out, run(out, on_event=note), events)


def run(out: Path, *methods: str, seeds: tuple[int, ...] = (0,), **options: Any) -> DemoResult:
    grid = demo_grid(own_code.demo_profile(), seeds=seeds, methods=methods)
    return run_demo(grid, out, contexts=Contexts(CPU), command="test", **options)


def results_in(out: Path) -> list[dict[str, Any]]:
    """But for the time that they took."""
    rows = json.loads((out / "results.json").read_text())
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return demo_in(tmp_path_factory.mktemp("demo") / "out")


def test_results_are_a_list_of_rows(ran: Ran) -> None:
    rows = json.loads((ran.out / "results.json").read_text())
    assert isinstance(rows, list)
    for row in rows:
        assert {"suspect", "marking", "arm", "accuracy", "verdict"} <= set(row)
        assert row["verdict"]["outcome"] in ("MARKED", "NOT_ESTABLISHED", "INVALID")
        assert 0 <= row["accuracy"] <= 1
    named = {(row["suspect"], row.get("trial", "")): row for row in rows}
    assert len(named) == len(rows) == len(ran.result.rows) == 18
    for name in ("robust", "vanilla", "clean"):
        for trial in THIEVES:
            assert (f"stolen from {name} model", trial) in named
        assert (f"{name} model", "") in named
    assert {row["suspect"] for row in rows if row["arm"] == "independent"} == {
        "independent model", "independent model, vanilla key",
    }  # fmt: skip
    # The marks were learned; what they survive, and what the null of two half-trained models allows, are matters of longer runs.
    for name in ("robust model", "vanilla model"):
        assert named[name, ""]["training_wsr"] > 0.9
        assert named[name, ""]["verdict"]["wsr"] > 0.9
        assert named[name, ""]["verdict"]["p_matched"] < 1e-6
    assert named["clean model", ""]["training_wsr"] is not None


def test_report_stands_alone(ran: Ran) -> None:
    page = (ran.out / "report.html").read_text(encoding="utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert "stolen from robust model" in page
    assert "What a thief is shown" in page
    assert page.count("An ordinary input of class") == 6
    for reference in re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", page):
        assert reference.startswith(("data:", "#")), reference
    assert not re.search(r"<script|<link|@import|url\((?!#|['\"]?data:)", page)


def test_run_file_says_how_to_do_it_again(ran: Ran) -> None:
    run = json.loads((ran.out / "run.json").read_text())
    assert run["training_seconds"] > 0
    (block,) = run["grid"]["blocks"]
    assert block["unmarked"]["pretraining"]["epochs"] == 3
    assert run["provenance"]["command"] == "test"
    assert {figures["marking"] for figures in run["summary"]} == {"robust", "vanilla"}
    assert own_code.demo_task().digest() in (ran.out / "report.html").read_text(encoding="utf-8")


def test_models_key_and_calibration_are_exported_whole(ran: Ran) -> None:
    folders = sorted(path.name for path in (ran.out / "models").iterdir())
    assert folders == sorted(
        ["clean-model", "independent-model", "robust-model", "vanilla-model"]
        + [
            f"stolen-from-{name}-model-{answers}"
            for name in ("clean", "robust", "vanilla")
            for answers in ("soft", "label", "vgg")
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
        if row.marking == "vanilla":
            continue  # that key is not exported
        name = folder_name(row)
        command = ["verify", str(ran.out / "models" / name), "--key", str(ran.out / "key"), "--json"]
        verdict = json.loads(CliRunner().invoke(heirmark.cli.app, [*command, "--device", "cpu"]).stdout)
        assert (verdict["outcome"], verdict["wsr"], verdict["p_value"]) == (row.outcome, row.wsr, row.p_value)


def test_stages_tell_the_story_in_order(ran: Ran) -> None:
    told = ran.labels("finished")
    assert len(told) == STAGES
    verdicts = [label for label in told if label.startswith("verify: ")]
    assert len(verdicts) == len(ran.result.rows)
    order = [*START, CALIBRATE, "verify: robust, itself", "robust, soft", "verify: robust, soft"]
    assert [label for label in dict.fromkeys(told) if label in order] == order
    assert all(label for what, label, _ in ran.events), "a stage without a name for people"


def test_second_run_computes_nothing(ran: Ran) -> None:
    before = {path: path.read_bytes() for path in ran.out.rglob("*") if path.is_file() and path.name != "run.json"}
    again = demo_in(ran.out)
    assert {what for what, _, _ in again.events} == {"cached"}
    assert repr(again.result) == repr(ran.result)  # NaN is not equal to itself
    assert {path: path.read_bytes() for path in before} == before


def test_command_line_prints_a_table_that_fits(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "QUICK", own_code.demo_profile())
    monkeypatch.setenv("COLUMNS", "80")
    command = ["demo", "--out", str(ran.out), "--device", "cpu", "--precision", "float32"]
    shown = CliRunner().invoke(heirmark.cli.app, command)
    assert shown.exit_code == 0, shown.stderr
    assert shown.stderr.split()[1:] == ["finished", "stages", "reused"]
    table, _, rest = shown.stdout.partition("Embedding robust")
    lines = table.splitlines()
    assert max(map(len, lines)) <= 80
    assert next(line.split() for line in lines if "model" in line) == ["model", "ACC", "WSR", "p-value", "verdict"]
    for row in map(suspect_of, ran.result.rows):
        if "key" not in row.label:  # longer ones are folded
            assert sum(line.strip().startswith(f"{row.label} ") for line in lines) == 1
    assert "report.html" in rest
    told = CliRunner().invoke(heirmark.cli.app, [*command, "--json"])
    assert told.stderr == ""
    assert json.loads(told.stdout) == json.loads((ran.out / "results.json").read_text())


def test_damaged_stage_is_told_and_computed_again(ran: Ran, tmp_path: Path) -> None:
    out = Path(shutil.copytree(ran.out, tmp_path / "out"))
    stolen = next(name for _, label, name in ran.events if label == LABEL and name.startswith("steal"))
    weights = out / "stages" / stolen / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    again = demo_in(out)
    assert again.labels("damaged") == [LABEL]
    assert again.labels("started") == [LABEL]  # the same bytes, so what rests on it stands
    assert results_in(out) == results_in(ran.out)


KILLED = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
import own_code
from heirmark.grids.demo import demo_grid, run_demo
from heirmark.grids.settings import Contexts
from heirmark.runtime import Runtime

def note(event, label):
    if event.what == "started" and label == "calibrate the key of robust":
        Path(sys.argv[1]).with_name("ready").touch()
        time.sleep(60)

contexts = Contexts(Runtime(device="cpu", precision="float32"))
run_demo(demo_grid(own_code.demo_profile()), Path(sys.argv[1]), contexts=contexts, command="test", on_event=note)
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
    before = ran.labels("started")
    assert resumed.labels("started") == before[before.index(CALIBRATE) :]
    assert not list((out / "stages/.partial").iterdir())
    # Half of it in another process, and all the same to the last bit.
    assert results_in(out) == results_in(ran.out)
    for name in ("models/robust-model/model.safetensors", "key/key.json", "key/key.safetensors"):
        assert (out / name).read_bytes() == (ran.out / name).read_bytes(), name


def test_further_methods_bring_rows_and_one_that_fails_takes_only_its_own(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: DeepTracer, *args: Any, **options: Any) -> None:
        raise BadData("the mark does not survive: embed it more strongly")

    monkeypatch.setattr(DeepTracer, "__call__", fails)
    shutil.copytree(ran.out, tmp_path / "out")
    events: list[tuple[str, str]] = []
    result = run(
        tmp_path / "out", "deeptracer", "feature-sharing", "mea-defender",
        on_event=lambda event, label: events.append((event.what, label)),
    )  # fmt: skip
    assert ("started", "embed robust") not in events
    told = {(suspect_of(row).name, row.trial) for row in result.rows}
    assert told - {(suspect_of(row).name, row.trial) for row in ran.result.rows} == {
        ("mea-defender model", ""), ("clean model, mea-defender key", ""), ("independent model, mea-defender key", ""),
        *(("stolen from mea-defender model", trial) for trial in THIEVES),
        *(("stolen from clean model, mea-defender key", trial) for trial in THIEVES),
    }  # fmt: skip
    lost = result.summary[-2:]
    assert lost[0] == "To embed deeptracer failed: the mark does not survive: embed it more strongly."
    assert lost[1].startswith("To calibrate the key of feature-sharing failed"), "so few images give too few patches"
    assert lost[0] in (tmp_path / "out/report.html").read_text(encoding="utf-8")
    for name in ("robust", "nonsense"):
        with pytest.raises(BadConfig, match="unknown further method"):
            demo_grid(own_code.demo_profile(), methods=(name,))


def test_a_watermark_on_show_that_fails_ends_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Robust, *args: Any, **options: Any) -> None:
        raise BadData("the data are gone: bring them back")

    monkeypatch.setattr(Robust, "__call__", fails)
    with pytest.raises(HeirmarkError, match="To embed robust failed: the data are gone"):
        run(tmp_path / "out")
    assert not (tmp_path / "out" / "results.json").exists()


def test_several_seeds_have_a_report_of_all_and_a_folder_each(ran: Ran, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    shutil.copytree(ran.out / "stages", out / "stages")
    result = run(out, seeds=(0, 1))
    assert {row.seed for row in result.rows} == {0, 1}
    assert [str(row) for row in result.rows if row.seed == 0] == [str(row) for row in ran.result.rows]
    assert result.report is not None
    *_, chapter = result.report.chapters
    assert {row.seeds for row in chapter.rows} == {(0, 1)}
    assert "test --seed 1" in (out / "report.html").read_text(encoding="utf-8")
    for seed in (0, 1):
        assert Key.load(out / f"seed-{seed}" / "key").commitment
        assert (out / f"seed-{seed}" / "report.html").is_file()
    assert Key.load(out / "seed-0/key").commitment == Key.load(ran.out / "key").commitment
    assert (out / "report.html").is_file()


def test_missing_data_are_missed_before_anything_is_written(tmp_path: Path) -> None:
    profile = replace(own_code.demo_profile(), data="cifar10")
    with pytest.raises(DataNotFound, match="nowhere"):
        run_demo(demo_grid(profile), tmp_path / "out", contexts=Contexts(CPU, tmp_path / "nowhere"), command="test")
    assert not list((tmp_path / "out").glob("*"))


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
    assert len(calibrators) == own_code.demo_profile().calibrators + 2
    assert len(judged) == 13
    assert not calibrators & judged
    assert len(choosers) == 1
    assert not choosers & (calibrators | judged)  # it would look innocent by construction
    task, queries = own_code.demo_task(), read_tensors(ran.out / "key/key.safetensors")["queries"]
    assert queries.shape[1:] == task.input_shape


@pytest.mark.parametrize("profile", [QUICK, FULL])
def test_the_demos_test_is_calibrated_on_enough_independent_models(profile: Profile) -> None:
    grid = demo_grid(replace(profile, data="own_code:demo_task"))
    calibration = plan_grid(grid, Contexts(CPU)).cells[0].goal.inputs["calibration"]
    kinds = [stage.kind for name, stage in calibration.inputs.items() if name != "marked"]
    assert kinds == ["train"] * 5 + ["steal"] * 2
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
    grid = demo_grid(QUICK)
    result = run_demo(grid, tmp_path / "out", contexts=Contexts(Runtime()), command="test")
    rows = {(suspect_of(row).name, row.trial): row for row in result.rows}
    assert {row.outcome for row in result.rows if not row.marked} == {"NOT_ESTABLISHED"}
    for trial in ("soft", "label"):  # the label-only copy by another net may go free
        assert rows["stolen from robust model", trial].outcome == "MARKED"
        assert rows["stolen from robust model", trial].wsr > rows["stolen from vanilla model", trial].wsr
    assert rows["robust model", ""].accuracy > rows["clean model", ""].accuracy - 0.05


@pytest.mark.parametrize(
    ("profile", "other", "trigger"), [(profiles.CHIRPS, "mel-CNN", Tiles), (profiles.SENTENCES, "LSTM", Mix)]
)
def test_demos_of_sound_and_text_suit_their_inputs(
    profile: Profile, other: str, trigger: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = demo_grid(profile).blocks
    assert [trial.name for trial in block.trials] == ["soft", "label", other]
    (robust,) = [marking.method for marking in block.markings if isinstance(marking.method, Robust)]
    assert isinstance(robust.trigger, trigger)
    monkeypatch.setattr(chirps, "TRAIN", 400)
    monkeypatch.setattr(chirps, "TEST", 100)
    chirps.read_chirps.cache_clear()
    task = load_task(profile.data)
    chirps.read_chirps.cache_clear()
    for marking in block.markings:
        marking.method.check(task)


def test_the_large_demo_is_of_images(tmp_path: Path) -> None:
    ran = CliRunner().invoke(heirmark.cli.app, ["demo", "--full", "--space", "text", "--out", str(tmp_path / "out")])
    assert ran.exit_code == 2
    assert "leave one of them out" in ran.output.replace("\n", " ")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("space", ["sound", "text"])
def test_sound_and_text_are_marked_and_stolen(space: str, tmp_path: Path) -> None:
    """On all of the made-up data, as a newcomer sees it: model and soft copy are caught, others may go, nobody else is."""
    out = tmp_path / "out"
    ran = CliRunner().invoke(heirmark.cli.app, ["demo", "--space", space, "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    rows = json.loads((out / "results.json").read_text())
    own = [row for row in rows if row["marking"] == "robust"]
    caught = {row.get("trial", "") for row in own if row["arm"] == "marked" and row["verdict"]["outcome"] == "MARKED"}
    assert {"", "soft"} <= caught
    assert not any(row["verdict"]["outcome"] == "MARKED" for row in rows if row["arm"] != "marked")
    page = (out / "report.html").read_text()
    assert ("<audio" if space == "sound" else "<blockquote") in page
