from __future__ import annotations

import base64
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

from heirmark.errors import BadConfig, ShapeMismatch
from heirmark.report import Example, Report, Row, render, rows_to_json, table
from heirmark.report.figures import png_uri

ROW = Row(
    suspect="stolen from T2S model",
    method="t2s",
    attack="knockoff",
    answers="label",
    accuracy=0.871,
    wsr=0.92,
    p_value=3e-41,
    outcome="MARKED",
    interval=(0.89, 0.94),
    control_rate=0.01,
    null_rate=0.1,
    queries=1000,
    inherits=True,
)
INNOCENT = replace(
    ROW, suspect="clean model", method="unmarked", attack="none", answers="none", wsr=0.0, p_value=1.0,
    outcome="NOT_ESTABLISHED", interval=(0.0, 0.01), inherits=False,
)  # fmt: skip
INVALID = replace(
    ROW, suspect="broken", outcome="INVALID", wsr=math.nan, p_value=math.nan, interval=(math.nan, math.nan),
    control_rate=math.nan, inherits=None, flags=("suspect-failed",),
)  # fmt: skip
IMAGE = np.arange(16 * 16, dtype=np.uint8).reshape(1, 16, 16)
EXAMPLE = Example(hosts=(IMAGE, IMAGE), trigger=IMAGE, control=IMAGE, host_labels=("Shirt", "Bag"), target="Sneaker")
REPORT = Report(
    title="A watermark that survives theft",
    summary=("It held.",),
    rows=(ROW, INNOCENT, INVALID),
    history=(
        {"epoch": 0.0, "target_wsr": 1.0, "student_wsr": 0.0, "target_accuracy": 0.88, "student_accuracy": 0.88},
        {"epoch": 1.0, "target_wsr": 1.0, "student_wsr": 0.7, "target_accuracy": 0.87, "student_accuracy": 0.86},
    ),
    examples=(EXAMPLE,),
    provenance={"seed": "0"},
    notes=("One seed.",),
    clean_accuracy=0.885,
    key_facts={"commitment": "ab" * 32},
)
VOID = {"meta", "link", "br", "img", "hr", "input", "col"}


class Page(HTMLParser):
    """Collects text and references, and fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag == "img":
            assert dict(attrs).get("alt"), "a picture without a description"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_page_is_well_formed_and_says_everything() -> None:
    page = Page(render(REPORT))
    text = " ".join(" ".join(page.words).split())
    for wanted in (
        "A watermark that survives theft", "It held.", "stolen from T2S model", "clean model", "broken", "92.0%", "3e-41",
        "Shirt", "Bag", "Sneaker", "One seed.", "seed", "suspect-failed", "does not prove",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert page.seen.count("svg") == 4
    assert page.seen.count("img") >= 4


def test_page_loads_nothing_and_runs_nothing() -> None:
    text = render(REPORT)
    page = Page(text)
    assert all(reference.startswith(("data:", "#")) for reference in page.references)
    assert "script" not in page.seen
    assert not re.search(r"@import|url\((?!#|['\"]?data:)", text)


def test_same_report_same_bytes() -> None:
    assert render(REPORT) == render(REPORT)


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "{{ 7*7 }}", '"><img src=x onerror=y>', "a\u202eb", "$x^2$"]
)
def test_hostile_names_are_shown_and_not_obeyed(name: str) -> None:
    report = replace(REPORT, rows=(replace(ROW, suspect=name),), title=name, summary=(name,), notes=(name,))
    text = render(report)
    page = Page(text)
    assert "script" not in page.seen
    assert "onerror" not in re.sub(r"&\w+;|&#\d+;", "", "".join(re.findall(r"<img[^>]*>", text)))
    assert "\u202e" not in text
    assert "49" not in re.findall(r"<h1[^>]*>(.*?)</h1>", text)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": ()},
        {"history": ()},
        {"examples": ()},
        {"notes": (), "summary": ()},
        {"clean_accuracy": None},
        {"rows": (INVALID,)},
        {"history": ({"epoch": 0.0, "target_wsr": math.nan},)},
        {"history": ({"target_wsr": 1.0}, {"epoch": 0.5, "target_wsr": 1.0})},
        {"history": ({"epoch": 0.0, "student_accuracy": 0.0},), "clean_accuracy": None},
        {"examples": (replace(EXAMPLE, control=None, hosts=(), host_labels=()),)},
        {"examples": (replace(EXAMPLE, trigger=np.zeros((3, 32, 32), np.uint8)),)},
    ],
)
def test_parts_may_be_missing(change: dict[str, object]) -> None:
    Page(render(replace(REPORT, **change)))


def test_matplotlib_settings_neither_matter_nor_change() -> None:
    before = render(REPORT)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        settings = dict(matplotlib.rcParams)
        assert render(REPORT) == before
        assert dict(matplotlib.rcParams) == settings


def test_figures_take_the_colours_of_the_page() -> None:
    text = render(REPORT)
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert "var(--" in svg
        assert not re.findall(r"#[0-9a-f]{6}\b", svg)
    names = re.findall(r'\bid="([^"]*)"', text)
    assert len(names) == len(set(names))
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(names)


def test_tiles_tell_only_what_is_known() -> None:
    assert "0 of 1" in render(REPORT)
    false_alarm = replace(INNOCENT, outcome="MARKED")
    text = render(replace(REPORT, rows=(false_alarm, replace(ROW, outcome="NOT_ESTABLISHED"))))
    assert "1 of 1" in text
    assert "false alarm" in text
    assert "missed" in text
    audit = render(replace(REPORT, rows=(replace(ROW, inherits=None),)))
    assert "Called marked" in audit
    assert "stolen copies" not in audit
    assert "alse alarm" not in audit


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (5, "RGB")])
def test_pictures_survive_the_way_to_png(channels: int, mode: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (channels, 5, 7)).astype(np.uint8)
    kind, data = png_uri(image).split(",")
    assert kind == "data:image/png;base64"
    read = matplotlib.image.imread(io.BytesIO(base64.b64decode(data)), format="png")
    expected = image[0] if mode == "L" else image[:3].transpose(1, 2, 0)
    np.testing.assert_array_equal(np.rint(read * 255), expected)


def test_rows_as_json() -> None:
    rows = json.loads(json.dumps(rows_to_json((ROW, INVALID)), allow_nan=False))
    assert {"suspect", "method", "attack", "answers", "accuracy", "wsr", "p_value", "outcome"} <= rows[0].keys()
    assert rows[0]["wsr"] == 0.92
    assert rows[1]["wsr"] is None
    assert rows[0]["training_wsr"] is None


def test_terminal_table_fits_80_columns() -> None:
    missed = replace(ROW, suspect="stolen from vanilla model", outcome="NOT_ESTABLISHED", p_value=1.0)
    console = Console(width=80, record=True)
    console.print(table((ROW, INNOCENT, INVALID, missed, replace(ROW, suspect="[red]x[/red]"))))
    text = console.export_text()
    assert all(len(line) <= 80 for line in text.splitlines())
    for wanted in (
        "stolen from T2S model (label)",
        "stolen from vanilla model (label)",
        "87.1%",
        "92.0%",
        "3e-41",
        "Marked",
        "Not established",
        "[red]x[/red]",
    ):
        assert wanted in text


@pytest.mark.parametrize("change", [{"outcome": "GUILTY"}, {"wsr": 92.0}, {"accuracy": -0.1}])
def test_row_refuses_nonsense(change: dict[str, object]) -> None:
    with pytest.raises(BadConfig):
        replace(ROW, **change)


@pytest.mark.parametrize(
    "change", [{"trigger": IMAGE.astype(np.float32)}, {"trigger": IMAGE[0]}, {"host_labels": ("one",)}]
)
def test_example_refuses_nonsense(change: dict[str, object]) -> None:
    with pytest.raises(ShapeMismatch):
        replace(EXAMPLE, **change)
