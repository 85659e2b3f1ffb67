"""The zoo in the package: whole, small, and as it says of itself; verification tried on it."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import heirmark as hm
from documents import ROOT, blocks_of
from heirmark.cli import app
from heirmark.data.zoo import CALIBRATORS, COPIES, FORGED, INNOCENTS, MARKED, MEMBERS, ZOO, located, zoo_folder
from heirmark.errors import BadConfig
from heirmark.jobs.folder import ModelFolder
from heirmark.jobs.zoo import Zoo

SUSPECTS = [name for name in INNOCENTS if name not in CALIBRATORS]


@pytest.fixture(scope="module")
def zoo() -> Zoo:
    return hm.load_zoo()


@pytest.fixture(scope="module")
def verdicts(zoo: Zoo) -> dict[str, dict[str, hm.Verdict]]:
    """Of the key on all that are no calibrators, and of the forged key on innocents."""
    asked = {"key": {MARKED: zoo.marked, **zoo.copies}, "forged key": {}}
    found: dict[str, dict[str, hm.Verdict]] = {}
    for name, key in (("key", zoo.key), ("forged key", zoo.dishonest)):
        calibration = hm.calibrate(zoo.calibrators, key)
        nets = asked[name] | {each: zoo.innocents[each] for each in SUSPECTS}
        found[name] = {each: hm.verify(suspect(net), key, calibration=calibration) for each, net in nets.items()}
    return found


def suspect(net: hm.Net) -> hm.Suspect:
    return hm.Suspect.from_module(net.model, classes=10)


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, output, errors."""
    ran = CliRunner().invoke(app, list(arguments))
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran.exit_code, ran.stdout, ran.stderr


def test_the_zoo_is_small_and_as_it_was_made(zoo: Zoo) -> None:
    folder = zoo_folder()
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert sum(map(len, files.values())) <= 8 * 10**6
    del files[ZOO]
    assert {name: hashlib.sha256(content).hexdigest() for name, content in files.items()} == zoo.made["files"]
    assert {name.partition("/")[0] for name in files} == set(MEMBERS)
    assert {Path(name).suffix for name in files} == {".json", ".safetensors"}


def test_the_package_takes_the_zoo_along() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["heirmark"]
    shipped = {path for pattern in settings for path in zoo_folder().parents[2].glob(pattern)}
    assert {path for path in zoo_folder().rglob("*") if path.is_file()} <= shipped


def test_every_member_is_there(zoo: Zoo) -> None:
    assert (list(zoo.copies), list(zoo.innocents)) == (list(COPIES), list(INNOCENTS))
    nets = {MARKED: zoo.marked, **zoo.copies, **zoo.innocents, "drawn": zoo.drawn, "drawn-copy": zoo.drawn_copy}
    families = {name: net.spec.name for name, net in nets.items()}
    for part in (CALIBRATORS, SUSPECTS):
        assert {families[name] for name in part} == {"naivenet", "vgg-like", "resnet18"}
    assert {families[name] for name in COPIES} == {"naivenet", "resnet18"}
    assert all(zoo.made["models"][name]["accuracy"] > 0.8 for name in nets)
    assert zoo.key.commitment != zoo.dishonest.commitment == zoo.dishonest_calibration.key


def test_what_was_recorded_comes_out_again(zoo: Zoo, verdicts: dict[str, dict[str, hm.Verdict]]) -> None:
    for key, found in verdicts.items():
        record = zoo.made[f"verdicts of the {key}"]
        for name, verdict in found.items():
            assert verdict.outcome == record[name]["outcome"], name
            assert verdict.wsr == pytest.approx(record[name]["wsr"], abs=0.02), (
                name
            )  # each processor rounds in its own way


def test_copies_are_caught_and_no_innocent_is_accused(verdicts: dict[str, dict[str, hm.Verdict]]) -> None:
    for found in verdicts.values():
        for name, verdict in found.items():
            assert verdict.outcome == ("NOT_ESTABLISHED" if name in INNOCENTS else "MARKED"), name
    assert all(verdict.null_rate > 0.9 for verdict in verdicts["forged key"].values())


def test_the_forged_key_convicts_who_takes_its_owners_word(zoo: Zoo) -> None:
    """And that is why nobody should."""
    by_hand = zoo.dishonest_calibration
    for name in SUSPECTS[:2]:
        accused = suspect(zoo.innocents[name])
        believed = hm.verify(accused, zoo.dishonest, calibration=by_hand, accept="self-reported")
        refused = hm.verify(accused, zoo.dishonest, calibration=by_hand)
        assert believed.outcome == "MARKED"
        assert (refused.outcome, refused.grade) == ("NOT_ESTABLISHED", "self-reported")


def test_verify_knows_the_zoo() -> None:
    code, out, _ = run("verify", "zoo:innocent-1", "--json")  # who is judged does not calibrate
    told = json.loads(out)
    assert (code, told["outcome"], told["grade"], told["models"]) == (3, "NOT_ESTABLISHED", "calibrated", 5)
    forged = ["verify", "zoo:innocent-7", "--key", "zoo:dishonest", "--calibration", "zoo:dishonest"]
    assert run(*forged)[0] == 3
    assert run(*forged, "--accept", "self-reported")[0] == 0


def test_the_drawn_key_is_certified_for_whoever_knows_the_draw(zoo: Zoo) -> None:
    record = zoo.made["verdicts of the drawn key"]
    for name, net in {"drawn": zoo.drawn, "drawn-copy": zoo.drawn_copy, MARKED: zoo.marked, **zoo.innocents}.items():
        verdict = hm.verify_drawn(suspect(net), zoo.drawn_key, zoo.registration, zoo.beacon)
        assert abs(verdict.right - record[name]["right"]) <= 2, name
        if name not in ("drawn", "drawn-copy"):
            assert verdict.outcome == "NOT_ESTABLISHED", name
            assert verdict.p_value > 0.02, name
    verdict = hm.verify_drawn(suspect(zoo.drawn), zoo.drawn_key, zoo.registration, zoo.beacon)
    assert (verdict.outcome, verdict.grade) == ("MARKED", "certified")
    assert verdict.p_value < 1e-12
    copied = hm.verify_drawn(suspect(zoo.drawn_copy), zoo.drawn_key, zoo.registration, zoo.beacon)
    assert copied.p_value < 0.05  # at the level it was made with, and each processor rounds in its own way


def test_verify_certifies_by_the_zoos_draw() -> None:
    code, out, _ = run("verify", "zoo:drawn", "--registration", "zoo:drawn", "--beacon", "21", "--json")
    assert (code, json.loads(out)["grade"]) == (0, "certified")
    code, out, _ = run("verify", "zoo:drawn")
    assert (code, "have drawn until a draw fitted" in out) == (3, True)
    assert run("verify", "zoo:drawn", "--registration", "zoo:drawn", "--beacon", "22")[0] == 1
    assert (
        run("verify", "zoo:innocent-7", "--key", "zoo:drawn", "--registration", "zoo:drawn", "--beacon", "21")[0] == 3
    )


def test_names_of_the_zoo_are_names_of_folders() -> None:
    assert located("zoo:marked") == zoo_folder() / "marked"
    assert json.loads(run("inspect", "zoo:marked", "--json")[1])["queries"] == 200
    folder = ModelFolder(Path("zoo:marked"))
    assert folder.net.spec.input_shape == folder.data().task.input_shape
    assert not ModelFolder(Path(f"zoo:{FORGED}")).path.joinpath("model.json").exists()


def test_what_is_not_in_the_zoo() -> None:
    with pytest.raises(BadConfig, match=r"did you mean 'copy-label'\? it holds marked, copy-prob"):
        located("zoo:copy-lable")
    for arguments, words in (
        (["verify", "zoo:inocent-7"], "did you mean 'innocent-7'?"),
        (["verify", "zoo:elephant"], "there is no 'elephant' in the zoo"),
        (["verify", "zoo:../marked"], "there is no '../marked' in the zoo"),
        (["verify", "runs/mine"], "name its folder with --key"),
        (["verify", "zoo:copy-label", "--key", "zoo:keys"], "there is no 'keys' in the zoo"),
    ):
        code, out, errors = run(*arguments)
        assert (code, out) == (2, ""), arguments
        assert words in errors


def test_the_readme_shows_what_the_first_command_says() -> None:
    shown = next(block for block in blocks_of("README.md") if block.language == "text" and "MARKED" in block.code)
    code, told, _ = run("verify", "zoo:copy-label")
    assert code == 0

    def words(text: str) -> str:
        return re.sub(r"\d[\d.e-]*", "#", " ".join(text.split()))

    assert words(told) == words(shown.code)
