"""From texts to a verdict on the command line, small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("tokenizers")

import heirmark.cli
from heirmark.keys.key import Key
from heirmark.tasks.media import FILE, Text, load_medium
from made_up import sentences

CPU = ["--device", "cpu", "--precision", "float32"]


def run(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(heirmark.cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reviews")
    for part, count in (("train", 600), ("test", 60)):
        rows = [f"{text},{'abc'[label]}" for text, label in sentences(count, len(part), classes=3)]
        (folder / f"{part}.csv").write_text("\n".join(["text,label", *rows]))
    return folder


@pytest.fixture(scope="module")
def marked(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("marked")
    settings = [
        "key_size=60",
        "triggers=60",
        "pretraining.epochs=8",
        "trigger_batch=8",
        "trigger.hosts=any",
        "trigger.count=2",
        "trigger.target=0",
    ]
    command = [
        "embed",
        "--method",
        "vanilla",
        "--data",
        data,
        "--model",
        "text-cnn:width=16,maps=8,vocabulary=64",
        "--seed",
        "0",
        *CPU,
    ]
    for setting in (*settings, "pretraining.learning_rate=0.01", "pretraining.batch_size=32"):
        command += ["--set", setting]
    run(*command, "--calibrators", "1", "--out", folder / "out", "--store", folder / "store")
    return folder / "out"


def test_texts_are_marked_stolen_and_judged(marked: Path, data: Path, tmp_path: Path) -> None:
    key = Key.load(marked / "key")
    assert (key.kind, key.method) == ("phrase", "vanilla")
    assert isinstance(key.medium, Text)
    assert load_medium(marked) == key.medium
    told = json.loads(run("verify", marked, "--key", marked, *CPU[:2], "--accept", "assumed", "--json"))
    assert told["outcome"] == "MARKED"
    store = ["--store", tmp_path / "store"]
    steal = ["steal", marked, "--data", data, "--set", "recipe.epochs=8", "--set", "recipe.learning_rate=0.01", *CPU]
    run(*steal, "--set", "recipe.batch_size=32", "--out", tmp_path / "stolen", *store)
    judge = ["verify", tmp_path / "stolen", "--key", marked, *CPU[:2], "--accept", "assumed", "--json"]
    judged = CliRunner().invoke(heirmark.cli.app, [str(argument) for argument in judge])
    stolen = json.loads(judged.stdout)
    assert stolen["key"] == key.commitment
    assert (tmp_path / "stolen" / FILE).is_file()
    # Whether so small a copy inherits depends on the words that were drawn; that its verdict and exit code agree does not.
    assert {"MARKED": 0, "NOT_ESTABLISHED": 3}[stolen["outcome"]] == judged.exit_code
    refused = CliRunner().invoke(
        heirmark.cli.app,
        ["steal", str(marked), "--data", str(data), "--attack", "jbda", *CPU, "--out", str(tmp_path / "x")],
    )
    assert refused.exit_code == 2
    assert "jbda needs" in refused.output.lower()


def test_what_does_not_go_with_texts_is_said_before_hours_of_work(data: Path, tmp_path: Path) -> None:
    for settings, words in (
        (["--method", "robust", "--model", "naivenet"], "takes images"),
        (["--method", "margin"], "margin needs numbers"),
        (["--method", "t2s", "--set", "trigger=patch"], "patch needs images"),
        (["--method", "t2s", "--set", "trigger.words=zebra"], "does not know every word of 'zebra'"),
    ):
        command = [
            "embed",
            "--data",
            str(data),
            *settings,
            *CPU,
            "--out",
            str(tmp_path / "out"),
            "--store",
            str(tmp_path / "store"),
        ]
        result = CliRunner().invoke(heirmark.cli.app, command)
        assert result.exit_code in (1, 2), (result.output, result.exception)
        assert words in " ".join(result.output.lower().split())
