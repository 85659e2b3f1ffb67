"""The report of a grid: pages and tables of rows made by hand, one tiny grid for what needs artifacts, trackers."""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import bench_rows
from heirmark.attacks import DFME, Knockoff, LocalOutliers, Transfer
from heirmark.commands import benching
from heirmark.commands.executing import Spread, executor
from heirmark.errors import BadConfig
from heirmark.grids import Block, Grid, Marking, Published, Workload, tracking
from heirmark.grids.bench import BenchResult, run_bench
from heirmark.grids.pictures import clouds, histories, shifts
from heirmark.grids.pictures.clouds import Cloud, Projection, project
from heirmark.grids.pictures.histories import Course, mean_history
from heirmark.grids.pictures.shifts import Shift
from heirmark.grids.plan import plan_grid
from heirmark.grids.recipes import load_grid
from heirmark.grids.reporting import part_command, report_of
from heirmark.grids.settings import Contexts
from heirmark.methods import FeatureSharing, Unmarked, Vanilla
from heirmark.report.charts import heat_map, rate_lines
from heirmark.report.page import markdown, render
from heirmark.report.section import Report
from heirmark.report.sections.curves import family
from heirmark.report.sections.glance import glance_markdown
from heirmark.report.terminal import probe_table, verdict_table
from heirmark.results.rows import Brief, Row, write_rows
from heirmark.results.summary import summarise
from heirmark.runtime import Runtime
from heirmark.stages.store import Store
from heirmark.training.fitting import Recipe
from heirmark.triggers import Mix, Patch
from heirmark.work.altering import Alteration
from heirmark.work.stealing import Theft
from heirmark.work.trials import Probe, Trial
from pages import Page, words

COMMAND = "heirmark bench recipes/table.py:table_1 --scale cpu"
NAME = "Fashion-MNIST, NaiveNet"


def report(rows: Sequence[Row] | None = None, grid: Grid | None = None, **more: Any) -> Report:
    rows = bench_rows.rows() if rows is None else rows
    grid = grid or bench_rows.grid()
    return report_of(
        grid,
        summarise(rows, grid.papers),
        made_by=lambda row: part_command(COMMAND, row.marking, row.seed),
        provenance={"command": COMMAND, "date": "2026-01-01"},
        **more,
    )


SHIFTS = [
    Shift(marking="T2S", layer="conv1", share=0.5),
    Shift(marking="T2S", layer="fc", share=1.25),
    Shift(marking="joint", layer="fc", share=0.0),
]


@pytest.fixture(scope="module")
def whole() -> Report:
    draw = np.random.default_rng(0)
    groups = {name: draw.normal(size=(9, 2)) for name in ("other classes", "source shirt", "target boot", "triggers")}
    drawn = tuple(Cloud(model=name, groups=groups, explained=(0.5, 0.2)) for name in ("marked model", "a copy"))
    course = Course(
        marking="T2S", history=tuple({"epoch": float(e), "target_wsr": 1.0, "student_wsr": e / 3} for e in range(4))
    )
    pictures = (
        *histories.show([course]),
        *shifts.show(SHIFTS),
        *clouds.show([Projection(marking="T2S", seed=0, clouds=drawn)]),
    )
    return report(pictures={NAME: pictures}, notes=("A remark.",))


@pytest.fixture(scope="module")
def html(whole: Report) -> str:
    return render(whole)


def test_page_says_everything(html: str) -> None:
    text = words(html)
    for wanted in (
        "Watermarks against theft and removal", "Settings of a study", "Knockoff, labels", "T2S, Mix, λ = 50",
        "T2S, Table II, CIFAR-10: ACC 82.00%, WSR 97.60%", "worst", "1 false alarm", "A remark.", "2026-01-01",
        "seeds 0, 1, 2 failed: a loss became inf in epoch 1", "Neural Cleanse", "local outliers", "1 of 3", "2 of 2",
        "seed 2 invalid: the suspect answers everything alike", "2 of 3, 1 invalid", "1 verdict is invalid",
        "Features in two dimensions", "does not prove", "Where the mark is",
    ):  # fmt: skip
        assert wanted in text, wanted


def test_page_loads_nothing_and_runs_nothing(html: str) -> None:
    page = Page(html)
    assert all(reference.startswith(("data:", "#")) for reference in page.references)
    assert "script" not in page.seen
    assert not re.search(r"@import|url\((?!#|['\"]?data:)", html)


def test_every_row_leads_to_the_command_and_stage_of_every_seed(html: str, whole: Report) -> None:
    text = words(html)
    rows = whole.chapters[-1].rows
    assert len(rows) == 4 * 6 + 4 * 5 + 4 * 2 + 6 * 2 + 4 * 2
    for row in rows:
        for seed in row.marked:
            assert part_command(COMMAND, row.marking, seed.seed) in text
    assert text.count(f"{COMMAND} --only T2S --seed 0") == 6 + 5 + 2
    assert "verify/0123456789abcde0" in text
    assert "screen/0123456789abcde0" in text


def test_drawings_have_titles_and_ids_of_their_own(html: str) -> None:
    drawings = [svg for svg in re.findall(r"<svg[^>]*>", html) if "swatch" not in svg]
    # Two of pruning and two of λ, two maps after each of two trials, one course, one of weights, two clouds.
    assert len(drawings) == 2 + 2 + 4 + 1 + 1 + 2
    assert all('role="img"' in svg and re.search(r'aria-label="[^"]{20,}"', svg) for svg in drawings)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)


def test_same_rows_same_bytes(whole: Report) -> None:
    assert render(whole) == render(whole)
    assert markdown(whole) == markdown(report(pictures={NAME: tuple(shifts.show(SHIFTS))}, notes=whole.notes))
    assert "2026-01-01" not in markdown(whole), "a date would change what documents include"


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "{{ 7*7 }}", "a\u202eb $x^2$ 旗", '"|`*_', " "])
def test_hostile_names_are_shown_and_not_obeyed(name: str) -> None:
    grid = bench_rows.grid()
    block = grid.blocks[0]
    markings = tuple(replace(m, name=name, cell=(name, "b")) if m.cell else m for m in block.markings[:9])
    trials = tuple(replace(trial, name=name) if trial.name == "transfer" else trial for trial in block.trials)
    grid = replace(
        grid, title=name, note=name, blocks=(replace(block, name=name, markings=markings, trials=trials),),
        papers=(Published(source=name, marking="T2S", trial=name, wsr=0.5),),
    )  # fmt: skip
    rows = [
        replace(
            row,
            block=name,
            marking=name if row.square else row.marking,
            trial=name if row.trial == "transfer" else row.trial,
            error=name and row.error and name,
            curve=(name, row.curve[1]) if row.curve else None,
            square=(name, row.square[1]) if row.square else None,
            group=name,
        )
        for row in bench_rows.rows()
        if not row.probe or row.marking != "vanilla"
    ]
    made = report(rows, grid)
    text = render(made)
    assert "script" not in Page(text).seen
    assert "\u202e" not in text
    assert "{{ 49" not in text
    tables = markdown(made)
    assert "\u202e" not in tables
    assert not re.search(r"(?<!\\)<", tables)
    Console(width=80, record=True, file=open_nothing()).print(
        verdict_table(made.chapters[-1].name, made.chapters[-1].rows)
    )


def open_nothing() -> Any:
    import io

    return io.StringIO()


def test_tables_of_markdown_are_rectangular(whole: Report) -> None:
    lines = markdown(whole).splitlines()
    tables: list[list[str]] = [[]]
    for line in lines:
        if line.startswith("|"):
            tables[-1].append(line)
        elif tables[-1]:
            tables.append([])
    tables = [table for table in tables if table]
    assert len(tables) == 7
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert tables[1][0] == (
        "| trial | watermark | ACC | worst | WSR | worst | control’s worst WSR | false alarms | called marked |"
    )
    assert "| transfer | vanilla | failed |  |  |  | – | – | – |" in lines
    assert any(re.search(r"^\| transfer \| MEA-Defender .*\| 2 of 3, 1 invalid \|$", line) for line in lines)
    assert any(re.search(r"^\| transfer \| DeepTracer .*\| 2 of 2 \|$", line) for line in lines)
    assert "|  | … DeepTracer, Table 1 | 91.50% |  | 100.00% |  |  |  |  |" in lines
    assert lines[-5:-2] == ["## Notes", "", "- A remark."]
    assert markdown(whole).endswith(f"Made by `` {COMMAND} ``.\n")


def test_terminal_tables_fit_80_columns(whole: Report) -> None:
    console = Console(width=80, file=open_nothing())
    for table in (verdict_table(NAME, whole.chapters[-1].rows), probe_table(whole.chapters[-1].rows)):
        assert table is not None
        console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text, "a name was cut"
    assert "31.0%!" in text
    assert "failed" in text


def test_trials_stand_in_the_order_of_the_grid_and_points_of_curves_apart(whole: Report) -> None:
    lines = [line.split(" | ") for line in markdown(whole).splitlines() if line.startswith("| ")]
    first = [cells[0].strip("| ") for cells in lines]
    start = first.index("trial")
    assert list(dict.fromkeys(first[start + 2 : first.index("trial", start + 1)])) == [
        "the model itself", "", *(name for name in bench_rows.TRIALS if name),
    ]  # fmt: skip
    assert "Points of curves" in markdown(whole)


def test_one_seed_has_no_spread_and_no_worst() -> None:
    rows = [row for row in bench_rows.rows() if row.seed == 0]
    made = report(rows)
    text = words(render(made))
    assert "±" not in text.replace("mean ± standard deviation", "").replace("±0.0 points", "")
    assert ", seed 0" not in text
    assert "1 seed, one by one" in text
    assert "±" not in markdown(made).replace("±0.0 points", "")


def test_hosts_that_hit_without_the_trigger_are_told_of() -> None:
    def told(rate: float) -> str:
        made = report(
            [
                replace(row, verdict=replace(row.verdict, control_rate=rate)) if isinstance(row.verdict, Brief) else row
                for row in bench_rows.rows()
            ]
        )
        return words(render(made)) + markdown(made)

    assert told(0.9).count("get the expected answer in 90.0%") >= 2
    assert "get the expected answer" not in told(0.1)


def test_look_alikes_that_hit_are_told_of() -> None:
    made = report([replace(row, wfpr=0.125 if row.arm == "marked" else 0.25) for row in bench_rows.rows()])
    for text in (words(render(made)), markdown(made)):
        assert "WFPR 12.5%, at most 12.5% (25.0% of the control): the same classes mixed otherwise." in text
    assert "WFPR" not in words(render(report(bench_rows.rows())))


def test_nothing_but_failures_is_a_report_too() -> None:
    rows = [
        replace(row, error="no such data", accuracy=math.nan, verdict=None, search=None, screen=None)
        for row in bench_rows.rows()
    ]
    made = report(rows)
    assert made.summary == (f"{len(rows)} runs failed; the rows say why.",)
    Page(render(made))
    markdown(made)


def test_figures_of_papers_stand_beside_their_cells_alone() -> None:
    grid = bench_rows.grid()
    papers = (
        Published(source="A", marking="T2S", wsr=0.5, block=NAME),
        Published(source="B", marking="T2S", wsr=0.5, block="elsewhere"),
        Published(source="C", marking="T2S", trial="no such", wsr=0.5),
        Published(source="D", marking="of another grid", wsr=0.5),
    )
    made = report(grid=replace(grid, papers=papers))
    told = [(row.marking, row.trial, paper.source) for row in made.chapters[-1].rows for paper in row.papers]
    assert told == [("T2S", "", "A")]
    assert [note[0] for note in made.notes] == ["B", "C"]


def test_figures_of_papers_are_not_rounded_further() -> None:
    papers = (Published(source="A", marking="T2S", accuracy=0.0015, wsr=0.9995),)
    made = report(grid=replace(bench_rows.grid(), papers=papers))
    assert "A: ACC 0.15%, WSR 99.95%" in words(render(made))
    assert "|  | … A | 0.15% |  | 99.95% |  |  |  |  |" in markdown(made).splitlines()


def test_a_block_says_whose_images_its_thieves_ask_about() -> None:
    def ask(trials: Sequence[Trial], probes: Sequence[Probe] = ()) -> str | None:
        grid = bench_rows.grid()
        block = replace(grid.blocks[0], trials=tuple(trials), probes=tuple(probes))
        made = report([], replace(grid, blocks=(block,)))
        return made.chapters[-1].facts.get("thieves ask")

    def trial(name: str, *steps: Theft | Alteration) -> Trial:
        return Trial(name=name, group="", steps=steps)

    fresh, own, other = (Theft(attack=Knockoff(), pool=pool) for pool in ("adversary", "owner", "cifar10"))
    assert ask([trial("a", Theft(attack=DFME()))]) is None, "he asks about images that he makes"
    assert ask([trial("a", Alteration(attack=Transfer(), pool="cifar10"))]) is None, "he asks nothing"
    assert ask([trial("a", fresh)]) == "fresh images of the same data"
    screen = Probe(name="screen", attack=LocalOutliers(), stolen=(other,))
    assert ask([trial("a", own), trial("b", fresh), trial("c", own)], [screen]) == (
        "the owner's own images, fresh images of the same data, images of cifar10"
    )


def test_the_small_table_marks_what_is_partly_invalid_or_failed() -> None:
    def cell(*outcomes: str) -> str:
        rows = [
            Row(
                block=NAME, marking=name, trial=trial, arm="marked", seed=seed, stage="verify/0",
                error="it broke" if outcome == "failed" else "",
                verdict=None if outcome == "failed" else Brief(outcome=outcome, wsr=0.5 if outcome == "MARKED" else 0.0),
            )
            for name in ("T2S", "vanilla") for trial in ("", "transfer") for seed, outcome in enumerate(outcomes)
        ]  # fmt: skip
        (table,) = re.findall(r'<table class="plain glance">.*?</table>', render(report(rows)), flags=re.DOTALL)
        cells = {words(found) for found in re.findall(r"<td>(.*?)</td>", table, flags=re.DOTALL)}
        assert len(cells) == 1
        return cells.pop()

    assert cell("MARKED", "MARKED") == "● 50.0% [50.0%]"
    assert cell("MARKED", "INVALID") == "◐ 25.0% [0.0%] 1 invalid"
    assert cell("MARKED", "failed") == "◐ 50.0% [50.0%] 1 failed"
    assert cell("MARKED", "INVALID", "failed") == "◐ 25.0% [0.0%] 1 invalid 1 failed"
    assert cell("INVALID", "INVALID") == "invalid"
    assert cell("INVALID", "failed") == "invalid 1 failed"
    assert cell("failed", "failed") == "failed"


def test_the_small_table_for_documents_says_who_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from heirmark.cli import app

    rows = [row for row in bench_rows.rows() if row.marking in bench_rows.STRENGTH]
    write_rows(tmp_path / "rows.jsonl", rows)
    told = CliRunner().invoke(app, ["bench", "--rows", str(tmp_path), "--glance"])
    assert told.exit_code == 0, told.output
    assert told.stdout == glance_markdown(rows)
    lines = told.stdout.splitlines()
    assert lines[0] == "| mean WSR [worst of 3 seeds] | vanilla | MEA-Defender | DeepTracer | T2S |"
    assert len(lines) == 2 + len(bench_rows.TRIALS) + 2
    cells = {line.split(" | ")[0][2:]: line.strip("| ").split(" | ")[1:] for line in lines[2:-2]}
    assert cells["the model itself"][3].startswith("● ")
    assert cells["transfer"][0] == "failed"
    assert cells["transfer"][1].startswith("◐ ")
    assert cells["transfer"][1].endswith("[0], 1 invalid")
    assert lines[-1].endswith("1 says marked.")
    hostile = glance_markdown([replace(row, marking="a|b <i>") for row in rows])
    assert r"| a\|b \<i\> |" in hostile
    assert glance_markdown([]) == ""
    for command in (["bench", "--glance"], ["bench"]):
        assert CliRunner().invoke(app, command).exit_code == 2


def test_part_command() -> None:
    assert part_command("test", "a b", 3) == "test --only 'a b' --seed 3"
    assert (
        part_command("heirmark bench f.py:t --only x --seed 1 --seed 2", "y", 2)
        == "heirmark bench f.py:t --only y --seed 2"
    )


def test_figures_of_nothing_and_of_long_names() -> None:
    assert "<svg" in rate_lines([], "rate", "a", "Nothing at all.")
    drawn = heat_map({("a" * 99, "$b$"): math.nan, ("c", "d"): 0.5}, ("source", "target"), "m", "Heat map.")
    assert "a" * 13 + "…" in drawn
    assert "$b$" in drawn
    assert ">50<" in drawn
    assert family("lonely") == ""


def test_projection_keeps_the_directions_of_most_variance() -> None:
    features = np.zeros((50, 4))
    features[:, 2] = np.linspace(-5, 5, 50)
    features[:, 0] = np.cos(np.arange(50))
    points, explained = project(features)
    assert points.shape == (50, 2)
    assert abs(np.corrcoef(points[:, 0], features[:, 2])[0, 1]) > 0.999
    assert sum(explained) == pytest.approx(1)
    assert explained[0] > explained[1]
    assert project(np.ones((5, 3)))[1] == (0.0, 0.0)
    assert project(np.arange(6.0)[:, None])[0].shape == (6, 2)


def test_mean_history_takes_the_seeds_that_have_a_figure() -> None:
    mean = mean_history(
        [[{"epoch": 0.0, "wsr": 0.2}, {"epoch": 1.0, "wsr": 1.0}], [{"epoch": 0.0, "wsr": 0.4, "acc": 1.0}]]
    )
    assert mean == ({"epoch": 0.0, "wsr": pytest.approx(0.3), "acc": 1.0}, {"epoch": 1.0, "wsr": 1.0})
    assert mean_history([]) == ()


NET = "naivenet:width=4,hidden=16,batch_norm=true"
RECIPE = Recipe(epochs=1, batch_size=32, learning_rate=0.05)
TINY = Grid(
    name="tiny",
    title="A tiny grid",
    blocks=(
        Block(
            name="shapes",
            workload=Workload(data="own_code:make_task"),
            markings=(
                Marking(
                    name="joint", method=Vanilla(model=NET, trigger=Mix(), triggers=40, key_size=40, pretraining=RECIPE)
                ),
            ),
            trials=(
                Trial(name="Knockoff", group="Extraction", steps=(Theft(attack=Knockoff(model=NET, recipe=RECIPE)),)),
            ),
            unmarked=Unmarked(model=NET, pretraining=RECIPE, trigger=Mix(), key_size=40),
            calibrators=(Unmarked(model=NET, pretraining=RECIPE, trigger=Mix(), key_size=40),) * 2,
            pictures=("pca", "history", "view"),
        ),
    ),
    seeds=(0,),
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[BenchResult, Path, list[tracking.Run]]:
    out = tmp_path_factory.mktemp("bench")
    kept: list[tracking.Run] = []

    def keep(experiment: str, runs: Sequence[tracking.Run]) -> None:
        assert experiment == "tiny"
        kept.extend(runs)

    contexts = Contexts(Runtime(device="cpu", precision="float32"))
    return run_bench(TINY, out, contexts=contexts, command="test", trackers=(keep,)), out, kept


def test_a_run_writes_page_and_tables(ran: tuple[BenchResult, Path, list[tracking.Run]]) -> None:
    result, out, _ = ran
    assert result.page == out / "report.html"
    text = words(result.page.read_text(encoding="utf-8"))
    assert "A tiny grid" in text
    assert "test --only joint --seed 0" in text
    assert (out / "tables.md").read_text(encoding="utf-8") == markdown(result.report)


def test_pictures_are_of_the_three_models_and_all_kinds_of_samples(
    ran: tuple[BenchResult, Path, list[tracking.Run]],
) -> None:
    *_, chapter = ran[0].report.chapters
    assert ran[0].report.notes == ()
    assert [section.title for section in chapter.sections][-2:] == [
        "Features in two dimensions",
        "What a thief is shown",
    ]
    assert "The embedding, epoch by epoch" not in [section.title for section in chapter.sections], (
        "joint training keeps no success rate by epoch"
    )
    contexts = Contexts(Runtime(device="cpu", precision="float32"))
    (projection,) = clouds.draw(TINY.blocks[0], plan_grid(TINY, contexts).cells, Store(ran[1] / "stages"), contexts)
    assert [cloud.model for cloud in projection.clouds] == ["marked model", "stolen copy", "unmarked control"]
    names = list(projection.clouds[0].groups)
    assert [name.split(" ")[0] for name in names] == ["other", "source", "source", "target", "triggers"]
    for cloud in projection.clouds:
        assert list(cloud.groups) == names
        assert len(cloud.groups["triggers"]) == 40
        assert all(points.shape[1] == 2 and np.isfinite(points).all() for points in cloud.groups.values())


def test_weight_shifts_have_a_table(whole: Report) -> None:
    text = markdown(whole)
    assert "### Weight shift by layer" in text
    assert "| T2S | 50.0% | 125.0% |" in text
    assert "| joint | – | 0.0% |" in text


def test_weight_shifts_are_a_picture_of_methods_that_keep_them(tmp_path: Path) -> None:
    """Feature Sharing, Fig. 3: what is frozen does not move, and the last layer does."""
    (tiny,) = TINY.blocks
    sharing = FeatureSharing(model=NET, trigger=Patch(), triggers=20, key_size=20, pretraining=RECIPE, tuning=RECIPE)
    markings = (*tiny.markings, *(Marking(name=f"{n} frozen", method=replace(sharing, frozen=n)) for n in (0, 2)))
    grid = replace(TINY, blocks=(replace(tiny, markings=markings, trials=(), pictures=("shift",)),))
    result = run_bench(grid, tmp_path, contexts=Contexts(Runtime(device="cpu", precision="float32")), command="test")
    contexts = Contexts(Runtime(device="cpu", precision="float32"))
    plan = plan_grid(grid, contexts)
    moved = {
        (shift.marking, shift.layer): shift.share
        for marking in markings
        for shift in shifts.draw(
            grid.blocks[0],
            [cell for cell in plan.cells if cell.marking == marking],
            Store(tmp_path / "stages"),
            contexts,
        )
    }
    assert result.report.notes == ()
    assert {name for name, _ in moved} == {"0 frozen", "2 frozen"}, "joint training keeps none"
    told = {name: [shift > 0 for (row, _), shift in moved.items() if row == name] for name, _ in moved}
    assert told == {"0 frozen": [True] * 4, "2 frozen": [False] * 2 + [True] * 2}
    assert "Where the mark is" in words(result.page.read_text(encoding="utf-8"))


def test_a_picture_that_cannot_be_drawn_is_a_remark(
    ran: tuple[BenchResult, Path, list[tracking.Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise BadConfig("no features")

    monkeypatch.setattr(clouds, "features_in", fail)
    contexts = Contexts(Runtime(device="cpu", precision="float32"))
    result = run_bench(TINY, ran[1], contexts=contexts, command="test")
    assert result.report.notes == ("No picture of joint: no features",)
    with pytest.raises(BadConfig, match="unknown picture 'film': choose of history, shift, pca, view"):
        replace(TINY.blocks[0], pictures=("film",))


def test_trackers_are_told_settings_figures_and_histories(ran: tuple[BenchResult, Path, list[tracking.Run]]) -> None:
    (run,) = ran[2]
    judged = {(row.trial or "itself", row.arm) for row in ran[0].rows if math.isfinite(row.wsr)}
    assert run.name == "shapes/joint/seed 0"
    assert run.settings["triggers"] == 40
    assert run.settings["trigger.type"] == "Mix"
    assert set(run.figures) == {
        f"{trial}/{arm}/{figure}"
        for trial in ("itself", "Knockoff")
        for arm in ("marked", "unmarked")
        for figure in ("accuracy", "wsr")
        if figure == "accuracy" or (trial, arm) in judged
    }
    assert set(run.histories) == {"embedding"}


RUN = tracking.Run(
    name="a/b/seed 0",
    settings={"seed": 0, "method": "T2S", "long": "x" * 300},
    figures={"itself/marked/wsr": 0.5},
    histories={"embedding": ({"epoch": 0.0, "wsr": 0.1, "loss": math.nan}, {"epoch": 1.0, "wsr": 0.9})},
)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_scalars_and_hyperparameters(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracking.tensorboard(tmp_path)("grid: 1", [RUN])
    read = EventAccumulator(str(tmp_path / "grid_ 1" / "a" / "b" / "seed 0"))
    read.Reload()
    assert [(event.step, round(event.value, 3)) for event in read.Scalars("embedding/wsr")] == [(0, 0.1), (1, 0.9)]
    assert read.Scalars("itself/marked/wsr")[0].value == 0.5
    assert "embedding/loss" not in read.Tags()["scalars"]


def test_mlflow_gets_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    stub: Any = types.ModuleType("mlflow")

    class Started:
        def __enter__(self) -> None:
            calls.append(("enter",))

        def __exit__(self, *_: object) -> None:
            calls.append(("exit",))

    stub.set_tracking_uri = lambda uri: calls.append(("uri", uri))
    stub.set_experiment = lambda name: calls.append(("experiment", name)) or types.SimpleNamespace(experiment_id="7")
    stub.search_runs = lambda experiments, output_format: [
        types.SimpleNamespace(data=types.SimpleNamespace(tags=tags), info=types.SimpleNamespace(run_id=number))
        for number, tags in (("old", {"heirmark.run": "a/b/seed 0"}), ("another's", {}))
    ]
    stub.delete_run = lambda number: calls.append(("delete", number))
    stub.start_run = lambda run_name, tags: calls.append(("run", run_name, tags)) or Started()
    stub.log_params = lambda params: calls.append(("params", params))
    stub.log_metrics = lambda metrics: calls.append(("metrics", metrics))
    stub.log_metric = lambda name, value, step: calls.append(("metric", name, value, step))
    monkeypatch.setitem(sys.modules, "mlflow", stub)
    tracking.mlflow("file:here")("grid", [RUN])
    assert calls == [
        ("uri", "file:here"),
        ("experiment", "grid"),
        ("run", "a/b/seed 0", {"heirmark.run": "a/b/seed 0"}),
        ("enter",),
        ("params", {"seed": "0", "method": "T2S", "long": "x" * 250}),
        ("metrics", {"itself/marked/wsr": 0.5}),
        ("metric", "embedding/wsr", 0.1, 0),
        ("metric", "embedding/wsr", 0.9, 1),
        ("exit",),
        ("delete", "old"),
    ]


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_mlflow_keeps_one_run_of_a_name(tmp_path: Path) -> None:
    client = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    other = replace(RUN, name="a/b/seed 1")
    later = replace(RUN, settings={"seed": 0}, figures={"itself/marked/wsr": 0.75})
    for runs in ([RUN, other], [later]):
        tracking.mlflow(uri)("grid", runs)
    known = client.search_runs(experiment_names=["grid"], output_format="list")
    assert sorted(run.info.run_name for run in known) == [RUN.name, other.name]
    found = {run.info.run_name: run.data for run in known}
    assert found[RUN.name].params == {"seed": "0"}
    assert found[RUN.name].metrics == {"itself/marked/wsr": 0.75, "embedding/wsr": 0.9}


def test_a_tracker_that_is_not_installed_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(BadConfig, match=r"pip install 'heirmark\[tensorboard\]'"):
        tracking.tensorboard(Path("nowhere"))
    with pytest.raises(BadConfig, match=r"pip install 'heirmark\[mlflow\]'"):
        tracking.mlflow("nowhere")


RECIPES = '''
from test_bench_report import TINY


def table_1(scale):
    """Table 1: the first.

    More of it.
    """
    return TINY


def figure_2(scale):
    return TINY
'''


FAILING = """

def failing(scale):
    from dataclasses import replace

    block = TINY.blocks[0]
    method = block.markings[0].method
    method = replace(method, pretraining=replace(method.pretraining, learning_rate=1e30))
    marking = replace(block.markings[0], method=method)
    unmarked = replace(block.unmarked, pretraining=method.pretraining)
    return replace(TINY, blocks=(replace(block, markings=(marking,), unmarked=unmarked, calibrators=(unmarked,)),))
"""


def test_bench_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ran: Any
) -> None:
    from typer.testing import CliRunner

    from heirmark.cli import app

    monkeypatch.chdir(tmp_path)
    Path("some_recipes.py").write_text(RECIPES)
    runner = CliRunner()
    for listing in (["some_recipes.py"], ["some_recipes.py:table_1", "--list"], ["some_recipes.py", "--list"]):
        result = runner.invoke(app, ["bench", *listing])
        assert result.exit_code == 0, result.output
        assert result.output.splitlines() == [
            "some_recipes.py:table_1   Table 1: the first.",
            "some_recipes.py:figure_2  ",
        ]
    for given in (["--out", "x"], ["--seed", "3"], ["--only", "joint"]):
        result = runner.invoke(app, ["bench", "some_recipes.py", *given])
        assert result.exit_code == 2
        assert "choose one of some_recipes.py:table_1, some_recipes.py:figure_2" in " ".join(result.output.split())
    result = runner.invoke(app, ["bench", "some_recipes.py:table_1", "--ray-cpus", "2"])
    assert result.exit_code == 2
    assert "give --ray local or an address" in " ".join(result.output.split())
    Path("no_recipes.py").write_text("")
    for listing in (["no_recipes.py"], ["no_recipes.py:table"]):
        result = runner.invoke(app, ["bench", *listing])
        assert result.exit_code == 2
        assert "no_recipes.py has no recipe: write a function" in " ".join(result.output.split())
    result = runner.invoke(app, [
        "bench", "some_recipes.py:table_1", "--only", "joint", "--store", str(ran[1] / "stages"), "--device", "cpu",
        "--precision", "float32",
    ])  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "joint" in result.output
    tiny = load_grid("some_recipes.py:table_1", "cpu")
    assert [benching.folder_of(tiny, scale).name for scale in ("cpu", "paper")] == ["bench-tiny", "bench-tiny-paper"]
    part = Path("runs/bench-tiny/parts/only-joint")
    assert str(part / "report.html") in result.output
    assert (part / "report.html").is_file(), "a part does not take the place of the whole's report"
    assert json.loads((part / "bench.json").read_text())["provenance"]["command"] == (
        "heirmark bench some_recipes.py:table_1 --scale cpu --device cpu --precision float32 --only joint"
    ), "what the machine chose is said, too"
    block, trial = tiny.blocks[0].name, tiny.blocks[0].trials[0].name
    result = runner.invoke(app, [
        "bench", "some_recipes.py:table_1", "--block", block.upper(), "--trial", trial, "--store", str(ran[1] / "stages"),
        "--device", "cpu", "--precision", "float32",
    ])  # fmt: skip
    assert result.exit_code == 0, result.output
    out = Path("runs/bench-tiny/parts") / benching.part_name(["--block", block.upper(), "--trial", trial])
    told = json.loads((out / "bench.json").read_text())
    assert shlex.split(told["provenance"]["command"])[-4:] == ["--block", block.upper(), "--trial", trial]
    assert {row["trial"] for row in told["summary"]} == {"", trial}, "the model itself is always judged"


def test_where_a_cluster_is_stays_out_of_the_report() -> None:
    _, facts, shared = executor(Path("recipes"), Spread(ray="10.0.0.1:6379", ray_cpus=2.0, ray_gpus=0.5))
    assert shared == ["--ray", "local", "--ray-cpus", "2", "--ray-gpus", "0.5"]
    assert facts["threads"] == "2"
    assert facts["ray"].endswith("; the processor is that of the machine that started it")
    assert "10.0.0.1" not in str(facts)
    assert executor(Path(), Spread(ray="local", ray_gpus=0.0))[1:] == (
        {"threads": "1", "ray": "1 CPUs, 0 GPUs a stage"},
        ["--ray", "local"],
    )
    assert executor(Path(), Spread())[1:] == ({}, [])


def test_a_grid_that_fails_and_a_tracker_that_is_not_told_end_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran: Any
) -> None:
    from typer.testing import CliRunner

    from heirmark.cli import app

    def lost(folder: Path) -> tracking.Tracker:
        def track(experiment: str, runs: object) -> None:
            raise ConnectionError("nobody there")

        return track

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "tensorboard", lost)
    Path("other_recipes.py").write_text(RECIPES + FAILING)
    runner = CliRunner()
    words = ["--store", str(ran[1] / "stages"), "--device", "cpu", "--precision", "float32"]
    told = runner.invoke(app, ["bench", "other_recipes.py:table_1", *words, "--tensorboard", "there"])
    assert told.exit_code == 1
    assert "A tracker was not told (ConnectionError: nobody there)" in told.stderr
    assert runner.invoke(app, ["bench", "other_recipes.py:failing", *words]).exit_code == 1


def test_parts_have_folders_of_their_own() -> None:
    longer = [word for number in range(40) for word in ("--only", f"watermark {number}")]
    names = {benching.part_name(words) for words in (longer, longer[:-2], ["--seed", "1"], ["--only", "seed 1"])}
    assert len(names) == 4
    assert max(map(len, names)) <= 100
