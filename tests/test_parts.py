"""Runs of parts of a grid, put together: the rows and tables are those of one run of all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import bench_rows
from heirmark.attacks import LocalOutliers, NeuralCleanse
from heirmark.cli import app
from heirmark.configuration import to_json
from heirmark.errors import BadArtifact, BadConfig
from heirmark.grids import Grid, select
from heirmark.grids.bench import join_bench
from heirmark.grids.parts import LAYOUT, Part, read_part, unlike
from heirmark.results.rows import Row, row_from_json, row_to_json, write_rows
from heirmark.work.trials import Probe

NAMES = tuple(bench_rows.STRENGTH)


def grid(seeds: Sequence[int] = bench_rows.SEEDS, names: Sequence[str] = NAMES) -> Grid:
    """The grid of rows made by hand, without curves and heat maps of watermarks, or a part of it."""
    whole = bench_rows.grid()
    (block,) = whole.blocks
    probes = (
        Probe(name="Neural Cleanse", attack=NeuralCleanse()),
        Probe(name="local outliers", attack=LocalOutliers()),
    )
    kept = tuple(marking for marking in block.markings if marking.name in names)
    return replace(whole, seeds=tuple(seeds), blocks=(replace(block, markings=kept, probes=probes),))


def made(seeds: Sequence[int], names: Sequence[str]) -> list[Row]:
    """Its rows."""
    return [row for row in bench_rows.rows() if row.seed in seeds and row.marking in names]


def lay(
    folder: Path,
    seeds: Sequence[int],
    names: Sequence[str] = NAMES,
    *,
    of: Grid | None = None,
    change: Callable[[Any], Any] | None = None,
    **facts: str,
) -> Path:
    """A folder as a run of a part leaves it."""
    folder.mkdir()
    write_rows(folder / "rows.jsonl", made(seeds, names))
    provenance = {"command": f"heirmark bench r.py:t --seed {seeds[0]}", "seeds": " ".join(map(str, seeds)), **facts}
    settings = to_json(of or grid(seeds, names))
    described = {"provenance": provenance, "layout": LAYOUT, "grid": settings}
    if change is not None:  # as settings were laid out before
        described = {"provenance": provenance, "grid": change(settings)}
    (folder / "bench.json").write_text(json.dumps(described))
    return folder


def test_parts_make_the_whole(tmp_path: Path) -> None:
    one = lay(tmp_path / "one", bench_rows.SEEDS, date="2026-01-01", torch="2")
    all_at_once = join_bench(grid(), tmp_path / "all", [one], command="c")
    parts = [lay(tmp_path / f"seed-{seed}", [seed], date=f"2026-01-0{seed + 1}", torch="2") for seed in (2, 0, 1)]
    joined = join_bench(grid(), tmp_path / "joined", parts, command="c")
    assert [str(row) for row in joined.rows] == [str(row) for row in all_at_once.rows]
    for name in ("rows.jsonl", "tables.md"):
        assert (tmp_path / "joined" / name).read_bytes() == (tmp_path / "all" / name).read_bytes()
    assert joined.provenance == {
        "command": "c",
        "seeds": "0 1 2",
        "date": "2026-01-03; 2026-01-01; 2026-01-02",
        "torch": "2",
    }
    assert joined.report.notes == all_at_once.report.notes
    row = next(row for row in joined.report.chapters[-1].rows if row.marking == "T2S")
    page = joined.page.read_text(encoding="utf-8")
    assert len(row.marked) == 3
    assert re.findall(r"<code>(heirmark bench r.py:t --only T2S .*?)</code>", page)[:3] == [
        f"heirmark bench r.py:t --only T2S --seed {seed}" for seed in bench_rows.SEEDS
    ], "the command is that of the part that has the row"
    described = json.loads((tmp_path / "joined" / "bench.json").read_text())
    assert [part["date"] for part in described["parts"]] == ["2026-01-03", "2026-01-01", "2026-01-02"]
    with pytest.raises(BadArtifact, match="put together of parts itself: name these instead"):
        read_part(tmp_path / "joined")


def test_settings_of_before_a_field_was_there_are_the_same(tmp_path: Path) -> None:
    part = lay(tmp_path / "part", [0])
    described = json.loads((part / "bench.json").read_text())
    (block,) = described["grid"]["blocks"]
    assert (block.pop("controls"), block["workload"].pop("split_seed")) == ({}, None)
    (part / "bench.json").write_text(json.dumps(described))
    assert join_bench(grid(), tmp_path / "out", [part], command="c").rows


def test_what_no_part_has_is_told(tmp_path: Path) -> None:
    parts = [lay(tmp_path / "a", [0], NAMES[:2]), lay(tmp_path / "b", [1], NAMES[1:3])]
    joined = join_bench(grid(), tmp_path / "out", parts, command="c")
    assert {(row.marking, row.seed) for row in joined.rows} == {
        (NAMES[0], 0), (NAMES[1], 0), (NAMES[1], 1), (NAMES[2], 1),
    }  # fmt: skip
    missing = len(made([0], NAMES[2:3])) + len(made([1], NAMES[:1]))
    assert any(f"{missing} cells of these watermarks and seeds" in note for note in joined.report.notes)
    assert f"Of the recipe, in no part yet: seed 2, {NAMES[3]}." in joined.report.notes


def test_parts_by_block_make_the_whole_and_parts_by_trial_do_not(tmp_path: Path) -> None:
    (block,) = grid().blocks
    two = replace(grid(), blocks=(block, replace(block, name="another")))
    parts = [lay(tmp_path / f"part-{name}", [0], of=select(two, blocks=[name])) for name in (block.name, "another")]
    write_rows(parts[1] / "rows.jsonl", [replace(row, block="another") for row in made([0], NAMES)])
    joined = join_bench(two, tmp_path / "out", parts, command="c")
    assert [row.block for row in joined.rows] == [block.name] * (len(joined.rows) // 2) + ["another"] * (
        len(joined.rows) // 2
    )
    assert not any("cells of these" in note for note in joined.report.notes)
    by_trial = lay(tmp_path / "by-trial", [0], of=select(grid(), trials=[block.trials[0].name]))
    with pytest.raises(BadConfig, match="has other settings now: trials, probes"):
        join_bench(grid(), tmp_path / "refused", [by_trial], command="c")


def test_parts_whose_settings_are_laid_out_as_before_are_held_against_each_other(tmp_path: Path) -> None:
    def before(settings: Any, epochs: int = 9) -> Any:
        for marking in settings["blocks"][0]["markings"]:
            marking["method"] = {"type": "Vanilla", "epochs": epochs}
        settings["blocks"][0].pop("controls")
        return settings

    older = [lay(tmp_path / f"seed-{seed}", [seed], change=before) for seed in (0, 1)]
    older.append(lay(tmp_path / "seed-2", [2], NAMES[:1], change=before))
    joined = join_bench(grid(), tmp_path / "whole", older, command="c")
    assert {row.seed for row in joined.rows} == {0, 1, 2}
    assert "held against each other, not against the recipe" in joined.report.notes[-1]
    other = lay(tmp_path / "other", [2], NAMES[1:], change=lambda settings: before(settings, epochs=8))
    with pytest.raises(BadConfig, match=f"has other settings now: {NAMES[1]}"):
        join_bench(grid(), tmp_path / "refused", [*older, other], command="c")
    of_today = lay(tmp_path / "today", [2], NAMES[1:])
    with pytest.raises(BadConfig, match="put parts of one time together"):
        join_bench(grid(), tmp_path / "refused", [*older, of_today], command="c")


def test_a_control_that_was_trained_twice_is_told(tmp_path: Path) -> None:
    parts = [lay(tmp_path / "a", [0, 1], NAMES[:2]), lay(tmp_path / "b", [0, 1], NAMES[2:])]

    def notes(out: str, *, second: float) -> list[str]:
        for part, names, share in zip(parts, (NAMES[:2], NAMES[2:]), (0.8, second), strict=True):
            rows = [
                replace(row, accuracy=share if row.seed else 0.7) if row.arm == "unmarked" else row
                for row in made([0, 1], names)
            ]
            write_rows(part / "rows.jsonl", rows)
        joined = join_bench(grid(), tmp_path / out, parts, command="c")
        return [note for note in joined.report.notes if "unmarked control is not one model" in note]

    assert notes("even", second=0.8) == []
    (note,) = notes("uneven", second=0.81)
    assert note.endswith(" seed 1.")


def test_parts_of_unlike_runtimes_are_told(tmp_path: Path) -> None:
    def notes(name: str, *parts: tuple[Sequence[int], Sequence[str], dict[str, str]]) -> list[str]:
        (tmp_path / name).mkdir()
        folders = [
            lay(tmp_path / name / str(place), seeds, names, **facts)
            for place, (seeds, names, facts) in enumerate(parts)
        ]
        joined = join_bench(grid(), tmp_path / name / "out", folders, command="c")
        told = [note for note in joined.report.notes if "differ in" in note]
        assert all(note in (tmp_path / name / "out" / "tables.md").read_text() for note in told)
        return told

    single, half = {"precision": "float32", "torch": "2"}, {"precision": "bfloat16", "torch": "2"}
    assert notes("alike", ([0], NAMES, single), ([1, 2], NAMES, single)) == []
    changes = "The parts differ in precision, which changes numbers a little:"
    assert notes("by seed", ([0], NAMES, single), ([1, 2], NAMES, half)) == [
        f"{changes} float32: seed 0; bfloat16: seed 1, seed 2."
    ]
    assert notes("within", ([0], NAMES[:1], single), ([0], NAMES[1:], half), ([1], NAMES[:2], half)) == [
        f"{changes} float32: seed 0 ({NAMES[0]}); bfloat16: seed 0 (all but {NAMES[0]}), seed 1."
    ], "a seed is one's whole only where no other has some of it"
    unlike = notes("two", ([0], NAMES, {**single, "device": "cpu"}), ([1], NAMES, {**half, "device": "cuda"}))
    assert [note.partition(",")[0] for note in unlike] == [
        "The parts differ in device",
        "The parts differ in precision",
    ]


def test_of_unlike_parts_whole_blocks_are_named_and_many_watermarks_counted() -> None:
    def part(precision: str, block: str, names: Sequence[str]) -> Part:
        rows = tuple(Row(block=block, marking=name, arm="marked", seed=0) for name in names)
        return Part(folder=Path(), rows=rows, provenance={"precision": precision}, grid={})

    letters = "abcdefghijkl"
    (note,) = unlike([part("x", "A", letters), part("y", "B", letters)])
    assert note.endswith(" x: seed 0 (A); y: seed 0 (B).")
    (note,) = unlike([part("x", "A", "ab"), part("y", "A", letters[2:]), part("y", "B", letters)])
    assert note.endswith(" x: seed 0 (A: a and A: b); y: seed 0 (all but A: a and A: b).")
    (note,) = unlike([part("x", "A", letters[:5]), part("y", "A", letters[5:])])
    assert note.endswith(" x: seed 0 (5 of 12 watermarks); y: seed 0 (7 of 12 watermarks).")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda block: replace(block, trials=block.trials[:2]), "has other settings now: trials"),
        (
            lambda block: replace(
                block, markings=(replace(block.markings[0], method=replace(bench_rows.VANILLA, triggers=7)), *block.markings[1:])
            ),
            "has other settings now: vanilla",
        ),
        (lambda block: replace(block, name="another"), "is no block of it"),
    ],
)  # fmt: skip
def test_parts_with_other_settings_are_refused(tmp_path: Path, change: Callable[[Any], Any], words: str) -> None:
    other = replace(grid(), blocks=tuple(map(change, grid().blocks)))
    part = lay(tmp_path / "part", [0], of=other)
    with pytest.raises(BadConfig, match=f"not run by this recipe.*{words}.*run it again"):
        join_bench(grid(), tmp_path / "out", [part], command="c")
    assert not (tmp_path / "out").exists()


def test_a_cell_is_in_one_part_only(tmp_path: Path) -> None:
    parts = [lay(tmp_path / "a", [0, 1]), lay(tmp_path / "b", [1])]
    with pytest.raises(BadConfig, match=r"both have .* with seed 1: leave one of them out"):
        join_bench(grid(), tmp_path / "out", parts, command="c")
    with pytest.raises(BadConfig, match="would be overwritten"):
        join_bench(grid(), tmp_path / "a", parts, command="c")


def test_a_row_of_no_cell_is_refused(tmp_path: Path) -> None:
    part = lay(tmp_path / "a", [0])
    with (part / "rows.jsonl").open("a") as file:
        file.write(
            '{"block": "Fashion-MNIST, NaiveNet", "marking": "T2S", "trial": "none", "arm": "marked", "seed": 0}\n'
        )
    with pytest.raises(BadConfig, match=r"none of the grid's \(T2S, none\)"):
        join_bench(grid(), tmp_path / "out", [part], command="c")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "is no object of Row's fields"),
        ('{"block": "a"}', "needs marking, arm, seed"),
        ('{"block": "a", "marking": "b", "arm": "marked", "seed": true}', "seed: expected int, not True"),
        (
            '{"block": "a", "marking": "b", "arm": "marked", "seed": 0, "wsr": "high"}',
            "wsr: expected float, not 'high'",
        ),
        ('{"block": "a", "marking": "b", "arm": "marked", "seed": 0, "curve": [1, 2]}', "curve"),
        ('{"block": "a", "marking": "b", "arm": "marked", "seed": 0, "colour": 1}', "Row has no field 'colour'"),
    ],
)
def test_damaged_rows_are_refused(tmp_path: Path, line: str, words: str) -> None:
    part = lay(tmp_path / "part", [0])
    with (part / "rows.jsonl").open("a") as file:
        file.write(line)
    with pytest.raises(BadArtifact, match=words):
        read_part(part)


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"grid": {"blocks": [1]}, "provenance": {}}', '{"grid": 1, "provenance": {}}']
)
def test_settings_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    part = lay(tmp_path / "part", [0])
    (part / "bench.json").write_text(text)
    with pytest.raises(BadArtifact, match="name a folder that heirmark bench wrote"):
        read_part(part)


def test_rows_survive_a_file() -> None:
    for row in bench_rows.rows():
        again = row_from_json(json.loads(json.dumps(row_to_json(row))), "a row")
        assert str(again) == str(row)


RECIPE = """
from test_parts import grid


def table(scale):
    return grid()
"""


def test_parts_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("parts_recipe.py").write_text(RECIPE)
    words = [word for seed in (0, 1) for word in ("--rows", str(lay(Path(f"seed-{seed}"), [seed])))]
    ran = CliRunner().invoke(app, ["bench", "parts_recipe.py:table", *words])
    assert ran.exit_code == 0, ran.output
    out = Path("runs/bench-by-hand/joined")
    assert str(out / "report.html") in ran.output
    assert {json.loads(line)["seed"] for line in (out / "rows.jsonl").read_text().splitlines()} == {0, 1}
    refused = CliRunner().invoke(app, ["bench", "parts_recipe.py:table", *words, "--ray", "local", "--seed", "0"])
    assert refused.exit_code == 2
    assert "leave out --seed, --ray" in refused.output
    for ignored in (["--device", "cpu"], ["--precision", "float32"], ["--ray-cpus", "2"], ["--block", "a"]):
        refused = CliRunner().invoke(app, ["bench", "parts_recipe.py:table", *words, *ignored])
        assert refused.exit_code == 2
        assert f"leave out {ignored[0]}" in refused.output
