"""Sound on the command line, end to end: a folder of words is marked, stolen, altered and verified."""

from __future__ import annotations

import json
import math
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import heirmark.cli

NOTES = {"do": 60, "mi": 110, "so": 180, "ti": 290}
NET = "m5:width=8,stride=4"
TRAINING = (
    "pretraining.epochs=5",
    "pretraining.batch_size=16",
    "pretraining.learning_rate=0.02",
    "pretraining.optimizer=adam",
)


def run(*arguments: Any) -> tuple[int, Any]:
    result = CliRunner().invoke(heirmark.cli.app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout + result.stderr


def settings(*values: str) -> list[str]:
    return [word for value in values for word in ("--set", value)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four notes by 20 singers, five times each, a second at 1 kHz, in Speech Commands' layout."""
    root, rng = tmp_path_factory.mktemp("notes"), np.random.default_rng(0)
    time = np.arange(1000) / 1000
    for note, hertz in NOTES.items():
        (root / note).mkdir()
        for singer in range(20):
            pitch = hertz * (1 + 0.05 * (singer - 10) / 10)
            for take in range(5):
                heard = np.sin(2 * math.pi * (pitch * time + rng.random())) + 0.5 * rng.standard_normal(1000)
                with wave.open(str(root / note / f"{singer:02}_nohash_{take}.wav"), "wb") as file:
                    file.setparams((1, 2, 1000, 0, "NONE", ""))
                    file.writeframes((heard / np.abs(heard).max() * 20000).astype("<i2").tobytes())
    return root


def test_words_are_marked_stolen_and_found_again(folder: Path, tmp_path: Path) -> None:
    data = ["--data", folder, "--device", "cpu", "--precision", "float32"]
    method = ["--method", "vanilla", "--model", NET, "--calibrators", 2, "--seed", 1]
    marking = settings("trigger=mix", "triggers=40", "trigger_batch=8", "key_size=40", *TRAINING)
    code, said = run("embed", *data, *method, *marking, "--out", tmp_path / "marked")
    assert code == 0, said
    thief = settings("recipe.epochs=5", "recipe.batch_size=16", "recipe.learning_rate=0.02", "recipe.optimizer=adam")
    code, said = run("steal", tmp_path / "marked", *data, *thief, "--seed", 2, "--out", tmp_path / "stolen")
    assert code == 0, said
    code, said = run("remove", tmp_path / "stolen", "--attack", "preprocessing", "--set", "kind=resample",
                     *data, "--out", tmp_path / "altered")  # fmt: skip
    assert code == 0, said
    key = ["--key", tmp_path / "marked" / "key", "--accept", "self-reported", "--json"]
    found = {}
    for name in ("marked", "stolen", "altered"):
        code, said = run("verify", tmp_path / name, *key)
        assert code in (0, 3), said
        found[name] = json.loads(said)
    assert found["marked"]["outcome"] == "MARKED"
    assert found["marked"]["wsr"] > 0.8
    code, said = run("inspect", tmp_path / "marked")
    assert code == 0, said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--method", "vanilla", "--model", "naivenet"], "takes images of shape"),
        (["--method", "badnets", "--model", NET, "--set", "trigger=patch"], "needs images [C, H, W]"),
        (
            ["--method", "vanilla", "--model", NET, "--set", "trigger=tone", "--set", "trigger.hertz=900"],
            "cannot be heard",
        ),
        (
            ["--method", "unrelated", "--model", NET, "--set", "trigger.dataset=fashion-mini"],
            "name one of the task's kind, as speech-commands-other",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(folder: Path, tmp_path: Path, options: list[str], words: str) -> None:
    code, said = run("embed", "--data", folder, *options, "--out", tmp_path / "out")
    assert code in (1, 2), said
    assert words in " ".join(said.split())
    assert "Traceback" not in said
