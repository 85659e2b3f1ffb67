"""A report as one self-contained HTML page, and its table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from rich import box
from rich.table import Table
from rich.text import Text

from heirmark.errors import printable
from heirmark.report.content import DASH, OUTCOMES, UNSAID, Report, Row, p_text, percent, points

BASELINES = ("vanilla",)
"""Methods that are there to be compared with: a mark with no provision against theft."""

CAPTION = "ACC: test accuracy. WSR: held-out triggers answered as the key says."

UNMARKED = UNSAID | {"unmarked", "clean"}
"""Methods that embed nothing."""


@dataclass(frozen=True, kw_only=True)
class _Tile:
    """A headline figure: what it is, its value, what to hold it against; or a few labelled pairs instead of a value."""

    name: str
    value: str = ""
    against: str = ""
    pairs: tuple[tuple[str, str, str], ...] = ()
    columns: tuple[str, str] = ("", "")


def render(report: Report) -> str:
    """The page of a report: one HTML document that loads nothing, runs nothing and is the same for the same report.

    Args:
        report: what to show. Its texts are escaped; none is trusted as HTML.

    Returns:
        The document. Write it as UTF-8.
    """
    # Here and not above: importing matplotlib takes a second, and the terminal's table needs none of it.
    from heirmark.report import figures

    history = report.history
    return (
        environment()
        .get_template("demo.html")
        .render(
            report=report,
            palette=figures.PALETTE,
            outcomes=OUTCOMES,
            tiles=_tiles(report),
            wsr_bars=figures.wsr_bars(report.rows) if report.rows else None,
            accuracy_bars=figures.accuracy_bars(report.rows, report.clean_accuracy)
            if any(math.isfinite(row.accuracy) for row in report.rows)
            else None,
            curves=[
                (title, panel)
                for title, panel in (
                    ("Watermark success rate", figures.rehearsal_curve(history, "wsr")),
                    ("Clean accuracy", figures.rehearsal_curve(history, "accuracy", report.clean_accuracy)),
                )
                if panel is not None
            ],
            columns=[
                (f"{prefix}_{measure}", f"{name} {short}")
                for measure, short in (("wsr", "WSR"), ("accuracy", "ACC"))
                for prefix, name, *_ in figures.LINES
                if figures.curve(history, f"{prefix}_{measure}")
            ],
            png=figures.png_uri,
        )
    )


def table(rows: Sequence[Row]) -> Table:
    """The suspects for the terminal, readable at 80 columns: model, ACC, WSR on held-out triggers, p-value, verdict."""
    result = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, caption=CAPTION, caption_justify="left")
    result.add_column("model", overflow="fold")
    for name in ("ACC", "WSR", "p-value"):
        result.add_column(name, justify="right", no_wrap=True)
    result.add_column("verdict", no_wrap=True)
    styles = {"MARKED": "bold", "NOT_ESTABLISHED": "", "INVALID": "dim"}
    for row in rows:
        verdict = OUTCOMES[row.outcome] + (", wrongly" if row.judgement == "false alarm" else "")
        result.add_row(
            # Text, not str: a name in square brackets is a name and no markup.
            Text(printable(row.label)),
            percent(row.accuracy),
            percent(row.wsr),
            p_text(row.p_value),
            Text(verdict, style=styles[row.outcome]),
        )
    return result


def environment() -> Environment:
    """Where the pages' templates are found, and how they print values: escaped, tidied, in percent."""
    made = Environment(
        loader=FunctionLoader(lambda name: files(__package__).joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    made.filters |= {"percent": percent, "p_text": p_text, "number": _number, "seconds": _seconds}
    return made


def _finalize(value: Any) -> Any:
    """Tidy every text that the template prints, except the figures, which are markup already."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _number(value: float | None) -> Markup:
    """A count or an epoch: thousands set apart by a narrow space, no trailing zeros; a dash when there is none."""
    if value is None or not math.isfinite(value):
        return Markup(DASH)
    return Markup(f"{value:,.10g}".replace(",", "&#8239;"))


def _seconds(value: float) -> str:
    """A time to two digits or so; a dash when there is none."""
    if not math.isfinite(value):
        return DASH
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"


def _tiles(report: Report) -> list[_Tile]:
    """The headline: what the mark costs, what survives a theft, how often an alarm is false. Only what the rows tell."""
    rows = report.rows
    # Only where the truth is known: a suspect under audit is nobody's stolen copy yet.
    marked = [row for row in rows if row.method not in UNMARKED and row.inherits]
    # The method on show is the first that is no baseline; a report of baselines only shows the first of them.
    shown = next((row.method for row in sorted(marked, key=lambda row: row.method in BASELINES)), None)
    victim = next((row for row in marked if row.method == shown and not row.attacked), None)
    tiles = []
    if victim is not None:
        against = ""
        if report.clean_accuracy is not None:
            change = points(victim.accuracy - report.clean_accuracy)
            against = f"clean model {percent(report.clean_accuracy)}, so {change} points"
        tiles.append(_Tile(name=f"Accuracy with the mark ({shown})", value=percent(victim.accuracy), against=against))
    thefts = [row for row in marked if row.method == shown and row.attacked]
    if thefts:
        tiles.append(_theft_tile(thefts, [row for row in rows if row.method in BASELINES and row.attacked]))
    free = [row for row in rows if row.inherits is False]
    heirs = [row for row in rows if row.inherits]
    if free or heirs:
        alarms = sum(row.outcome == "MARKED" for row in free)
        missed = sum(row.outcome != "MARKED" for row in heirs)
        against = f"models without the mark called marked; {missed} of {len(heirs)} with it, or copied from one, missed"
        tiles.append(_Tile(name="False alarms", value=f"{alarms} of {len(free)}", against=against))
    elif rows:
        found = sum(row.outcome == "MARKED" for row in rows)
        least = min((row.p_value for row in rows if math.isfinite(row.p_value)), default=math.nan)
        tiles.append(
            _Tile(name="Called marked", value=f"{found} of {len(rows)}", against=f"smallest p-value {p_text(least)}")
        )
    return tiles


def _theft_tile(thefts: Sequence[Row], baselines: Sequence[Row]) -> _Tile:
    method = thefts[0].method
    baselines = [row for row in baselines if row.method != method]
    attacks = {row.attack for row in thefts}

    def name(row: Row) -> str:
        parts = [row.attack] if len(attacks) > 1 or row.answers in UNSAID else []
        return " ".join([*parts, *([] if row.answers in UNSAID else [row.answers])])

    def rival(row: Row) -> str:
        same = [other for other in baselines if (other.attack, other.answers) == (row.attack, row.answers)]
        return percent(same[0].wsr) if same else DASH

    return _Tile(
        name="WSR of stolen copies",
        pairs=tuple((name(row), percent(row.wsr), rival(row) if baselines else "") for row in thefts[:4]),
        columns=(method, baselines[0].method if baselines else ""),
    )
