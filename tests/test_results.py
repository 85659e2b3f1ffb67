"""Rows and summaries: what was written before is read as it stands, and figures come from the verdicts that rows hold."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import bench_rows
from heirmark.errors import BadArtifact
from heirmark.records import plain, read_record, record_of
from heirmark.results.rows import Brief, read_rows, row_from_json, row_to_json, write_rows
from heirmark.results.summary import summarise, summary_to_json

RECORDED = sorted(Path(__file__).parents[1].glob("results/bench/*/rows.jsonl"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.parent.name)
def test_recorded_rows_are_read_as_they_stand(path: Path) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    rows = read_rows(path)
    assert len(rows) == len(lines) > 0
    for row, line in zip(rows, lines, strict=True):
        if isinstance(line.get("verdict"), dict):  # of today: those of before have the verdict's figures themselves
            again = json.loads(json.dumps(row_to_json(row)))
            for name in again["verdict"].keys() - line["verdict"].keys():
                again["verdict"].pop(name)  # of before there were grades
            assert again == line
            continue
        for name, value in line.items():
            assert getattr(row, {"cell": "square", "false_alarms": "flagged"}.get(name, name)) == value
        for name in {"accuracy", "wsr", "p_value", "control_rate", "wfpr", "seconds"} - set(line):
            assert math.isnan(getattr(row, name))


def test_recorded_figures_over_seeds_come_from_the_rows_again() -> None:
    for path in RECORDED:
        recorded = json.loads((path.parent / "bench.json").read_text())["summary"]
        told = [summary_to_json(summary) for summary in summarise(read_rows(path))]
        assert len(told) == len(recorded)
        for mine, theirs in zip(told, recorded, strict=True):
            assert mine == {**theirs, "curve": theirs["curve"] and list(theirs["curve"])}


def test_probes_of_before_are_read(tmp_path: Path) -> None:
    base = {"block": "a", "marking": "b", "arm": "marked", "seed": 0}
    lines = [
        {**base, "probe": "search", "found": 1.0, "false_suspects": 2.0, "stage": "expose/0"},
        {**base, "probe": "screen", "detected": 0.5, "false_alarms": 0.1, "outcome": "MARKED", "wsr": 0.9,
         "stage": "screen/0", "cell": ["x", "y"]},
    ]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    search, screen = read_rows(path)
    assert (search.kind, search.found, search.false_suspects) == ("search", 1.0, 2.0)
    assert (screen.kind, screen.detected, screen.flagged, screen.wsr) == ("screen", 0.5, 0.1, 0.9)
    assert screen.square == ("x", "y")
    write_rows(path, (search, screen))
    assert [str(row) for row in read_rows(path)] == [str(search), str(screen)]


def test_rows_say_nothing_of_what_they_do_not_have() -> None:
    row = bench_rows.rows()[0]
    assert isinstance(row.verdict, Brief)
    assert row.whole is None
    told = row_to_json(row)
    assert {"trial", "probe", "curve", "training_wsr", "search", "error"}.isdisjoint(told)
    with pytest.raises(BadArtifact, match="a row is not as heirmark writes it"):
        row_from_json({**told, "verdict": {"outcome": 1}}, "a row")


@dataclass(frozen=True, kw_only=True)
class Inner:
    share: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    inner: Inner | None = None
    pairs: tuple[tuple[int, float], ...] = ()


def test_records_survive_json_and_name_their_file(tmp_path: Path) -> None:
    whole = Outer(name="a", inner=Inner(share=0.5), pairs=((3, 0.25),))
    assert record_of(Outer, json.loads(json.dumps(plain(whole))), "it") == whole
    path = tmp_path / "outer.json"
    for text in (
        '{"name": 3}',
        "[]",
        '{"name": "a", "inner": []}',
        '{"name": "a", "inner": {"share": 1' + "0" * 400 + "}}",
    ):
        path.write_text(text)
        with pytest.raises(BadArtifact, match=str(path)):
            read_record(path, Outer)


def test_results_need_no_torch() -> None:
    code = "import sys, heirmark.results.summary; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
