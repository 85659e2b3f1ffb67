"""Sections that show suspects one by one, triggers and rehearsals, and the page around them."""

from __future__ import annotations

import base64
import io
import math
import re
import wave
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import matplotlib
import matplotlib.image
import numpy as np
import pytest
import torch
from rich.console import Console

from heirmark.errors import ShapeMismatch
from heirmark.grids.pictures.histories import Course
from heirmark.grids.pictures.histories import show as courses
from heirmark.grids.pictures.looking import looks_of
from heirmark.report import sections
from heirmark.report.looks import _spectrogram as spectrogram
from heirmark.report.looks import picture, sound
from heirmark.report.looks import words as words_look
from heirmark.report.page import markdown, render
from heirmark.report.section import (
    Chapter,
    Column,
    Entry,
    Line,
    Note,
    Report,
    Section,
    Sheet,
    Shown,
    Source,
    Table,
    Text,
)
from heirmark.report.sections import sections_of
from heirmark.report.sections.examples import examples
from heirmark.report.sections.suspects import Suspect, headline, side_by_side, suspects
from heirmark.report.sections.verdicts import arm_text
from heirmark.report.svg import png_uri
from heirmark.report.terminal import suspect_table
from heirmark.report.words import percent
from heirmark.results.probes import Exposed
from heirmark.results.rows import Row
from heirmark.results.summary import summarise
from heirmark.results.verdict import Verdict
from heirmark.tasks import media
from heirmark.tasks.media import Sound
from heirmark.tasks.storing import encode
from pages import Page, words


def verdict(hits: int, p_value: float, outcome: str, **more: Any) -> Verdict:
    values: dict[str, Any] = {
        "outcome": outcome, "wsr": hits / 100, "hits": hits, "trials": 100, "interval": (0.89, 0.94), "control_rate": 0.01,
        "discordant": (0, 0), "p_value": p_value, "p_binomial": p_value, "p_matched": p_value, "null_rate": 0.1,
        "null": "at most 10 %", "level": 0.01, "queries": 1000, "flags": (), "key": "ab" * 32,
    }  # fmt: skip
    return Verdict(**(values | more))


MARKED = verdict(92, 3e-41, "MARKED")
FREE = verdict(0, 1.0, "NOT_ESTABLISHED", interval=(0.0, 0.01))
BROKEN = verdict(0, 1.0, "INVALID", flags=("suspect-failed",), reason="it raised an error")
BASE = Row(block="demo", marking="T2S", arm="marked", seed=0, accuracy=0.871, verdict=MARKED, stage="verify/0")
VICTIM = Suspect(name="T2S model", row=BASE)
STOLEN = Suspect(
    name="stolen from T2S model", row=replace(BASE, trial="label"), setting="t2s · knockoff · label", answers="label"
)
RIVAL = Suspect(
    name="stolen from vanilla model", row=replace(BASE, marking="vanilla", trial="label", verdict=FREE), answers="label"
)
CLEAN = Suspect(name="clean model", row=replace(BASE, arm="unmarked", verdict=FREE))
INVALID = Suspect(name="broken", row=replace(BASE, trial="soft", verdict=BROKEN, accuracy=math.nan))
FOUND = (VICTIM, STOLEN, RIVAL, CLEAN, INVALID)
IMAGE = np.arange(16 * 16, dtype=np.uint8).reshape(1, 16, 16)
LOOK = picture(IMAGE)
EXAMPLE = Shown(hosts=((LOOK, "Shirt"), (LOOK, "Bag")), trigger=LOOK, control=LOOK, target="Sneaker")
HISTORY = (
    {"epoch": 0.0, "target_wsr": 1.0, "student_wsr": 0.0, "target_accuracy": 0.88, "student_accuracy": 0.88},
    {"epoch": 0.5, "target_wsr": 1.0, "student_wsr": 0.7, "target_accuracy": 0.87, "student_accuracy": 0.86},
)


def report(
    found: tuple[Suspect, ...] = FOUND,
    history: tuple[dict[str, float], ...] = HISTORY,
    shown: tuple[Shown, ...] = (EXAMPLE,),
    clean: float = 0.885,
    **more: Any,
) -> Report:
    made: tuple[Section, ...] = (
        *suspects(found), *side_by_side(found, clean), *courses([Course(history=history, clean_accuracy=clean)]),
        *examples(shown),
    )  # fmt: skip
    values: dict[str, Any] = {
        "title": "A watermark that survives theft", "summary": ("It held.",), "chapters": (Chapter(sections=made),),
        "provenance": {"seed": "0"}, "notes": ("One seed.",), "facts": {"commitment": "ab" * 32},
        "tiles": headline(found, shown="T2S", baseline="vanilla", clean_accuracy=clean),
    }  # fmt: skip
    return Report(**(values | more))


def test_page_is_well_formed_and_says_everything() -> None:
    page = Page(render(report()))
    text = words(render(report()))
    for wanted in (
        "A watermark that survives theft", "It held.", "stolen from T2S model", "clean model", "broken", "92.0%", "89.0–94.0%",
        "null 10.0%", "3e-41", "1 000", "correct", "missed", "suspect-failed", "Shirt", "Bag", "Sneaker", "One seed.", "seed",
        "does not prove", "The numbers behind the lines", "t2s · knockoff · label", "0 of 1",
    ):  # fmt: skip
        assert wanted in text, wanted
    drawings = [svg for svg in re.findall(r"<svg[^>]*>", render(report())) if "swatch" not in svg]
    assert len(drawings) == 4
    assert all(re.search(r'aria-label="[^"]{20,}"', svg) for svg in drawings)
    assert page.seen.count("img") == 4


def test_page_loads_nothing_and_runs_nothing() -> None:
    text = render(report())
    page = Page(text)
    assert all(reference.startswith(("data:", "#")) for reference in page.references)
    assert "script" not in page.seen
    assert not re.search(r"@import|url\((?!#|['\"]?data:)", text)
    assert render(report()) == text


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "{{ 7*7 }}", '"><img src=x onerror=y>', "a\u202eb", "$x^2$"]
)
def test_hostile_names_are_shown_and_not_obeyed(name: str) -> None:
    hostile = (replace(STOLEN, name=name, setting=name), replace(VICTIM, row=replace(BASE, error=name, verdict=None)))
    shown = (replace(EXAMPLE, hosts=((LOOK, name), (words_look(name), name)), target=name),)
    text = render(report(hostile, shown=shown, title=name, summary=(name,), notes=(name,), facts={name: name}))
    page = Page(text)
    assert "script" not in page.seen
    assert "\u202e" not in text
    assert "49" not in re.findall(r"<h1[^>]*>(.*?)</h1>", text)


@pytest.mark.parametrize(
    "change",
    [
        {"found": ()},
        {"history": ()},
        {"shown": ()},
        {"notes": (), "summary": (), "facts": {}},
        {"clean": math.nan},
        {"found": (INVALID,)},
        {"history": ({"epoch": 0.0, "target_wsr": math.nan},)},
        {"history": ({"target_wsr": 1.0}, {"epoch": 0.5, "target_wsr": 1.0})},
        {"history": ({"epoch": 0.0, "student_accuracy": 0.0},), "clean": math.nan},
        {"shown": (replace(EXAMPLE, control=None, hosts=()),)},
        {"shown": (replace(EXAMPLE, trigger=picture(np.zeros((3, 32, 32), np.uint8))),)},
    ],
)
def test_parts_may_be_missing(change: dict[str, Any]) -> None:
    Page(render(report(**change)))


def test_matplotlib_settings_neither_matter_nor_change() -> None:
    before = render(report())
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        settings = dict(matplotlib.rcParams)
        assert render(report()) == before
        assert dict(matplotlib.rcParams) == settings


def test_figures_take_the_colours_of_the_page() -> None:
    text = render(report())
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        assert "var(--" in svg
        assert not re.findall(r"#[0-9a-f]{6}\b", svg)
    names = re.findall(r'\bid="([^"]*)"', text)
    assert len(names) == len(set(names))
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(names)


def test_suspects_tell_how_large_a_key_would_do() -> None:
    faint = replace(STOLEN, row=replace(STOLEN.row, verdict=replace(MARKED, needed=1234)))
    text = words(render(report((faint, CLEAN))))
    assert text.count("key of 1 234 would do") == 1
    assert (faint.row.needed, STOLEN.row.needed) == (1234, pytest.approx(math.nan, nan_ok=True))
    assert "1\u202f234 queries would do" in arm_text(faint.row, Source(name="demo", rows=()))
    assert "would do" not in arm_text(STOLEN.row, Source(name="demo", rows=()))


def test_tiles_tell_only_what_is_known() -> None:
    accuracy, thefts, alarms = headline(FOUND, shown="T2S", baseline="vanilla", clean_accuracy=0.885)
    assert (accuracy.value, accuracy.against) == ("87.1%", "clean model 88.5%, so −1.4 points")
    assert (thefts.columns, thefts.pairs[0]) == (("T2S", "vanilla"), ("label", "92.0%", "0.0%"))
    assert alarms.value == "0 of 1"
    assert "2 of 4" in alarms.against
    (alone,) = headline((replace(CLEAN, row=replace(CLEAN.row, verdict=MARKED)),), shown="T2S")
    assert alone.value == "1 of 1"
    assert headline((), shown="T2S") == ()


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (5, "RGB")])
def test_pictures_survive_the_way_to_png(channels: int, mode: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (channels, 5, 7)).astype(np.uint8)
    kind, data = png_uri(image).split(",")
    assert kind == "data:image/png;base64"
    read = matplotlib.image.imread(io.BytesIO(base64.b64decode(data)), format="png")
    expected = image[0] if mode == "L" else image[:3].transpose(1, 2, 0)
    np.testing.assert_array_equal(np.rint(read * 255), expected)


def test_terminal_table_fits_80_columns() -> None:
    wrong = replace(CLEAN, row=replace(CLEAN.row, verdict=MARKED))
    console = Console(width=80, record=True)
    console.print(suspect_table((*FOUND, wrong, replace(STOLEN, name="[red]x[/red]"))))
    text = console.export_text()
    assert all(len(line) <= 80 for line in text.splitlines())
    for wanted in (
        "stolen from T2S model (label)", "stolen from vanilla model (label)", "87.1%", "92.0%", "3e-41", "Marked, wrongly",
        "Not established", "[red]x[/red]",
    ):  # fmt: skip
        assert wanted in text


@pytest.mark.parametrize("image", [IMAGE.astype(np.float32), IMAGE[0], IMAGE[:, :0]])
def test_no_picture_is_made_of_nonsense(image: Any) -> None:
    with pytest.raises(ShapeMismatch):
        picture(image)


@pytest.mark.parametrize("samples", [np.zeros(8), np.zeros((1, 0)), np.full((1, 8), np.nan)])
def test_no_sound_is_made_of_nonsense(samples: Any) -> None:
    with pytest.raises(ShapeMismatch):
        sound(samples, 8000)


def test_a_sound_can_be_played_and_its_spectrogram_shows_its_pitch() -> None:
    time = np.arange(8000) / 8000
    tone = 0.5 * np.sin(2 * np.pi * 1000 * time)[None]
    look = sound(tone, 8000)
    with wave.open(io.BytesIO(base64.b64decode(look.sound.partition(",")[2]))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth(), file.getnframes()) == (8000, 1, 2, 8000)
        played = np.frombuffer(file.readframes(8000), "<i2")
    assert np.abs(played / 32768 - tone[0]).max() < 1 / 32768
    seen = spectrogram(tone[0], 8000)[0]
    assert abs(int(seen.mean(1).argmax()) - 0.75 * len(seen)) < 2  # 1 kHz of 4, counted from below
    page = Page(render(report(shown=(replace(EXAMPLE, trigger=look, control=words_look("a film <b>to</b> forget")),))))
    assert page.seen.count("audio") == 1
    assert "a film <b>to</b> forget" in " ".join(page.words)


@pytest.mark.parametrize("samples", [np.zeros((2, 5)), np.zeros((1, 40_000)), np.ones((1, 1))])
def test_sounds_of_any_length_are_shown(samples: Any) -> None:
    assert sound(samples, 16_000).image.startswith("data:image/png")


def test_inputs_look_as_their_space_has_it() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 8, 8, generator=generator)
    assert all(look.image and not look.sound for look in looks_of(images, None))
    assert looks_of(encode(images, torch.uint8), None) == looks_of(images, None)
    waves = torch.randint(-99, 99, (2, 1, 400), generator=generator, dtype=torch.int16)
    assert all(look.image and look.sound for look in looks_of(waves, Sound(rate=8000)))
    assert looks_of(waves, Sound(rate=8000)) != looks_of(waves, None)
    assert looks_of(torch.tensor([[4, 2]], dtype=torch.int32), None)[0].words == "4 2"
    pytest.importorskip("tokenizers")
    medium = media.Text.trained(["a film to forget", "a film to see again"])
    assert looks_of(medium.tokens(["a film to see"], 6), medium)[0].words == "a film to see"
    assert looks_of(torch.rand(1, 7), None)[0].image


def test_a_long_text_is_cut() -> None:
    assert len(words_look("word " * 1000).words) == 600


def test_one_seed_of_one_mark_shows_all_of_a_verdict_and_what_is_of_no_use() -> None:
    ruined = replace(BASE, trial="pruned", group="Removal", accuracy=0.3)
    search = replace(
        BASE, probe="mixes", verdict=None, stage="expose/0",
        search=Exposed(suspects=(1, 2), targets=(1,), found=True, false_suspects=1, reversed_success=((1, 0.75),)),
    )  # fmt: skip
    control = replace(search, arm="unmarked", search=Exposed(found=False, false_suspects=0))
    rows = summarise([BASE, CLEAN.row, ruined, replace(ruined, arm="unmarked"), search, control])
    source = Source(name="audit", rows=tuple(rows), classes=("boot", "shirt", "bag"), usable=0.771)
    made = Report(
        kind="audit", title="t", chapters=(Chapter(name="audit", sections=sections_of(source)),), provenance={}
    )
    text = words(render(made))
    for wanted in (
        "p = 3e-41", "WSR 92.0% (89.0%–94.0%), without the trigger 1.0%, null rate 10.0%, p-value 3e-41: Marked",
        "target named, 1 false suspect: shirt, bag; a reconstructed trigger sends 75.0% there", "ACC 87.1%",
        "Control: target not named, 0 false suspects", "Attack",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert render(made).count('class="row spent"') == 1
    assert "| mixes | T2S | 1 of 1 | 1.0 | 0 of 1 |" in markdown(made).splitlines()


def test_a_section_is_one_function_and_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page and the documents show what they have never heard of."""

    def mine(source: Source) -> Iterator[Section]:
        cells = tuple(
            Entry(text=percent(row.wsr.mean), strong=True, below=(Note(text="a note"),)) for row in source.rows
        )
        lines = (Line(name="a line", cells=cells),)
        columns = (Column(name="first", number=False), *(Column(name=row.marking) for row in source.rows))
        yield Section(
            title="Something new",
            parts=(Table(label="new", columns=columns, groups=(("", lines),), style="plain"), Text(text="In words.")),
            sheets=(Sheet(heading="Something new", columns=("a", "b"), rows=(("c", "d"),)),),
        )

    monkeypatch.setattr(sections, "OF_ROWS", (*sections.OF_ROWS, mine))
    source = Source(name="audit", rows=tuple(summarise([BASE, CLEAN.row])))
    made = Report(title="t", chapters=(Chapter(name="audit", sections=sections_of(source)),), provenance={})
    for wanted in ("Something new", "a line", "92.0%", "a note", "In words."):
        assert wanted in words(render(made))
    assert markdown(made).count("### Something new\n\n| a | b |\n| --- | --- |\n| c | d |\n") == 1
