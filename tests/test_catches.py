"""The figures that count: which copies are usable and caught, which unmarked ones are accused, and how they are shown."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bench_rows
from heirmark.grids import Grid
from heirmark.grids.reporting import report_of
from heirmark.report.page import markdown, render
from heirmark.report.section import Report, Source
from heirmark.report.sections.catches import NONE, by_mark, by_pair, catches_markdown, caught, weakest
from heirmark.results.catches import USABLE, catches, costs, pairs
from heirmark.results.rows import Brief, Row
from heirmark.results.summary import summarise
from heirmark.results.verdict import Verdict
from pages import Page, words

MARKED, FREE, INVALID = (
    Brief(outcome=outcome, wsr=wsr) for outcome, wsr in (("MARKED", 0.9), ("NOT_ESTABLISHED", 0.05), ("INVALID", 0.0))
)
FAILED = "a loss became inf"


def row(
    trial: str = "", accuracy: float = 0.8, verdict: Brief | None = MARKED, *, arm: str = "marked", seed: int = 0,
    block: str = "resnet", marking: str = "robust", asked: int = 9000, error: str = "",
) -> Row:  # fmt: skip
    return Row(
        block=block, marking=marking, trial=trial, arm=arm, seed=seed, accuracy=math.nan if error else accuracy,
        verdict=None if error else verdict, asked=asked if trial and not error else 0, error=error,
    )  # fmt: skip


def control(trial: str = "", accuracy: float = 0.82, verdict: Brief = FREE, **more: int) -> Row:
    return row(trial, accuracy, verdict, arm="unmarked", **more)  # type: ignore[arg-type]


VICTIM = [row(accuracy=0.80), control(accuracy=0.82)]


def test_a_copy_counts_where_it_has_nine_tenths_of_its_own_victims_accuracy() -> None:
    found = catches(
        [
            *VICTIM,
            row(seed=1, accuracy=0.5),
            row("a", 0.72),
            row("b", 0.71),
            row("c", 0.75, FREE),
            row("d", 0.79, INVALID),
            row("a", 0.45, seed=1),
            row("a", 0.9, seed=2),  # of a victim that no row tells of
        ]
    )
    assert [(copy.row.trial, copy.row.seed) for copy in found.usable] == [("a", 0), ("a", 1), ("c", 0), ("d", 0)]
    assert (len(found.copies), found.caught, found.rate) == (6, 2, 0.5)
    assert (found.wsr.lowest, found.wsr.highest) == (0.0, 0.9)


def test_nothing_usable_is_no_rate() -> None:
    found = catches([*VICTIM, row("a", 0.1)])
    assert (len(found.copies), found.usable, found.caught) == (1, (), 0)
    assert math.isnan(found.rate)
    assert math.isnan(found.wsr.mean)
    assert NONE in catches_markdown([*VICTIM, row("a", 0.1)])


def test_what_is_no_theft_counts_as_none() -> None:
    pruned = row("pruned", asked=0)
    searched = replace(row("", verdict=None), probe="search", stage="expose/0")
    screened = replace(row("", 0.8), probe="screen", stage="screen/0")
    assert catches([*VICTIM, pruned, searched, screened]).copies == ()
    assert catches_markdown([*VICTIM, pruned, searched]) == ""
    assert catches_markdown([]) == ""
    assert list(caught(Source(name="a", rows=tuple(summarise([*VICTIM, pruned]))))) == []


def test_what_failed_is_in_no_figure_but_its_own() -> None:
    found = catches([*VICTIM, row("a", error=FAILED), row("a", seed=1, error=FAILED), control("a")])
    assert (found.failed, found.copies, len(found.controls)) == (2, (), 1)
    alone = catches([*VICTIM, row("a", error=FAILED), replace(control("a"), error=FAILED, asked=0, verdict=None)])
    assert (alone.failed, alone.copies, alone.controls, alone.verdicts) == (1, (), (), 0)


def test_alarms_are_of_verdicts_that_say_something() -> None:
    found = catches(
        [*VICTIM, row("a"), control("a"), control("a", verdict=MARKED, seed=1), control("a", verdict=INVALID, seed=2)]
    )
    assert (found.verdicts, found.alarms) == (2, 1)
    assert len(found.copies) == 1
    # One of no use to anybody is accused all the same.
    assert catches([*VICTIM, row("a"), control("a", 0.1, MARKED)]).alarms == 1


def test_queries_are_those_of_copies_that_are_caught() -> None:
    def of(trial: str, needed: int | None, hits: int = 90, accuracy: float = 0.8) -> Row:
        said = Verdict(
            outcome="MARKED" if hits > 50 else "NOT_ESTABLISHED", wsr=hits / 100, hits=hits, trials=100,
            p_value=1e-9 if hits > 50 else 1.0, p_binomial=1e-9 if hits > 50 else 1.0, p_matched=1e-9, level=0.01,
            queries=200, flags=(), key="ab" * 32, needed=needed,
        )  # fmt: skip
        return replace(row(trial, accuracy), verdict=said)

    rows = [*VICTIM, of("a", 40), of("b", 21), of("c", 24), of("d", 900, hits=10), of("e", 5, accuracy=0.1), row("f")]
    assert catches(rows).needed == (21.0, 24.0, 40.0)
    assert "| 24, most 40 |" in catches_markdown(rows)
    assert catches([*VICTIM, row("f")]).needed == ()


def test_a_mark_costs_what_it_takes_of_the_accuracy_before_any_theft() -> None:
    rows = [
        row(accuracy=0.80), control(accuracy=0.82), control("a", 0.99), row("a", 0.1),
        row(accuracy=0.81, seed=1), control(accuracy=0.80, seed=1),
        row(accuracy=0.81, seed=2), row(seed=3, error=FAILED), control(seed=3),
    ]  # fmt: skip
    cost = costs(rows)
    assert (round(cost.change.mean, 6), round(cost.change.lowest, 6)) == (-0.005, -0.02)
    assert cost.worst == rows[0]
    nothing = costs([row(seed=3, error=FAILED)])
    assert math.isnan(nothing.change.mean)
    assert nothing.worst is None


def test_other_controls_than_the_first_say_nothing_of_the_cost() -> None:
    assert (
        costs([row(accuracy=0.8), control(accuracy=0.9), replace(row(accuracy=0.1), arm="other data")]).change.mean < 0
    )


MANY = st.lists(
    st.builds(
        row,
        trial=st.sampled_from(["", "a", "b"]),
        accuracy=st.floats(0, 1),
        verdict=st.sampled_from([MARKED, FREE, INVALID]),
        arm=st.sampled_from(["marked", "unmarked"]),
        seed=st.integers(0, 2),
        block=st.sampled_from(["resnet", "vgg"]),
        marking=st.sampled_from(["robust", "t2s"]),
        asked=st.sampled_from([0, 9000]),
        error=st.sampled_from(["", "", FAILED]),
    ),
    unique_by=lambda made: made.place,
)


@given(rows=MANY)
def test_counts_are_those_of_a_plain_loop(rows: list[Row]) -> None:
    usable = caught_ones = verdicts = alarms = copies = 0
    for one in rows:
        stolen = any(other.asked for other in rows if (other.block, other.trial) == (one.block, one.trial))
        if not one.trial or one.error or not stolen:
            continue
        if one.arm == "marked":
            copies += 1
            victim = [
                other for other in rows
                if not other.trial and (other.block, other.marking, other.arm, other.seed) ==
                (one.block, one.marking, one.arm, one.seed) and not other.error
            ]  # fmt: skip
            if victim and one.accuracy >= USABLE * victim[0].accuracy - 1e-9:
                usable += 1
                caught_ones += one.outcome == "MARKED"
        else:
            verdicts += one.outcome != "INVALID"
            alarms += one.outcome == "MARKED"
    found = catches(rows)
    assert (len(found.copies), len(found.usable), found.caught) == (copies, usable, caught_ones)
    assert (found.verdicts, found.alarms) == (verdicts, alarms)
    assert math.isnan(found.rate) if not usable else found.rate == caught_ones / usable


@given(rows=MANY, order=st.randoms(use_true_random=False))
def test_pairs_are_the_whole_in_parts_and_order_does_not_matter(rows: list[Row], order: object) -> None:
    whole, parts = catches(rows), pairs(rows).values()
    assert sum(len(part.usable) for part in parts) == len(whole.usable)
    assert sum(part.caught for part in parts) == whole.caught
    assert sum(part.failed for part in parts) == whole.failed
    mixed = list(rows)
    order.shuffle(mixed)  # type: ignore[attr-defined]
    again = catches(mixed)
    assert (again.caught, len(again.usable), again.alarms) == (whole.caught, len(whole.usable), whole.alarms)


@given(rows=MANY)
def test_whatever_rows_say_tables_are_rectangular(rows: list[Row]) -> None:
    heads = [line.count("|") for line in catches_markdown(rows).splitlines() if line.startswith("|")]
    mine = by_mark(rows)
    assert bool(heads) == bool(mine)
    for _, (victims, thieves) in by_pair(rows).items():
        assert all(len(line.cells) == len(victims) for line in thieves)
    assert heads.count(8) >= (2 + len(mine) if mine else 0)


def test_the_weakest_are_named_and_so_is_how_many_more_there_are() -> None:
    def of(trial: str, *verdicts: Brief) -> list[Row]:
        return [row(trial, verdict=verdict, seed=seed) for seed, verdict in enumerate(verdicts)]

    victims = [row(seed=seed) for seed in range(3)]
    good = [*victims, *of("good", MARKED, MARKED, MARKED)]
    assert weakest(good) == []
    rows = [*good, *of("fair", MARKED, FREE, MARKED), *of("poor", FREE, FREE, FREE)]
    assert weakest(rows) == ["poor: 0 of 3", "fair: 2 of 3"]
    rows += [*of("third", MARKED, FREE, FREE), *of("fourth", INVALID, MARKED, MARKED)]
    assert weakest(rows)[-1] == "and 1 more"


def report(rows: Sequence[Row], grid: Grid) -> Report:
    return report_of(grid, summarise(rows), made_by=lambda row: "", provenance={"command": "heirmark bench"})


def of_two_blocks() -> tuple[list[Row], Grid]:
    grid, rows = bench_rows.grid(), bench_rows.rows()
    block = grid.blocks[0]
    blocks = tuple(replace(block, name=name) for name in ("NaiveNet", "ViT | small"))
    made = [replace(row, block=block.name) for block in blocks for row in rows if row.marking in bench_rows.STRENGTH]
    return made, replace(grid, blocks=blocks)


def test_the_page_begins_with_who_is_caught() -> None:
    rows, grid = of_two_blocks()
    made = report(rows, grid)
    assert [chapter.name for chapter in made.chapters] == ["Copies caught", "NaiveNet", "ViT | small"]
    page = render(made)
    text = words(page)
    Page(page)
    for wanted in ("By watermark", "Thieves by victims", ", of NaiveNet: 0 of 3", "6 failed", "worst ±0.0: "):
        assert wanted in text, wanted
    lines = markdown(made).splitlines()
    assert lines[lines.index("## Copies caught") + 2].startswith("| Watermark | Caught |")
    alone = report([row for row in rows if row.block == "NaiveNet"], replace(grid, blocks=grid.blocks[:1]))
    assert [chapter.name for chapter in alone.chapters] == ["Copies caught", "NaiveNet"]
    assert len(alone.chapters[0].sections) == 1
    nothing = report([row for row in rows if not row.trial], grid)
    assert [chapter.name for chapter in nothing.chapters] == ["NaiveNet", "ViT | small"]


def test_documents_have_a_line_a_watermark_and_a_matrix_for_each() -> None:
    rows, _ = of_two_blocks()
    lines = catches_markdown(rows).splitlines()
    heads = [line for line in lines if line.startswith("| Watermark")]
    assert heads == ["| Watermark | Caught | False alarms | Accuracy | WSR | Queries | Weakest |"]
    assert r"| T2S | NaiveNet | ViT \| small |" in lines
    assert sum(line.startswith("| transfer |") for line in lines) == len(bench_rows.STRENGTH)
    one = catches_markdown([row for row in rows if row.block == "NaiveNet"])
    assert "●" not in one
    assert ", of NaiveNet" not in one


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a\u202eb $x^2$ 旗", '"|`*_'])
def test_hostile_names_are_shown_and_not_obeyed(name: str) -> None:
    rows, grid = of_two_blocks()
    rows = [
        replace(row, marking=name, trial=row.trial and f"{name}{row.trial}") for row in rows if row.marking == "T2S"
    ]
    text = render(report(rows, grid))
    assert "script" not in Page(text).seen
    assert "\u202e" not in text + catches_markdown(rows)


def test_figures_need_no_torch() -> None:
    code = "import sys, heirmark.results.catches; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
