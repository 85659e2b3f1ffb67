"""A report as one self-contained HTML page, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from heirmark.errors import printable
from heirmark.report.section import Chapter, Report
from heirmark.report.words import markdown_table, markdown_text, reasons, remarks, trial_name


def render(report: Report) -> str:
    """The page of a report: one HTML document that loads nothing, runs nothing and is the same for the same report.

    Args:
        report: what to show. Its texts are escaped; none is trusted as HTML.

    Returns:
        The document. Write it as UTF-8.
    """
    from heirmark.report.svg import PALETTE

    made = Environment(
        loader=FunctionLoader(lambda name: files(__package__).joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_tidy,
    )
    made.filters["broken"] = _broken
    return made.get_template("page.html").render(report=report, palette=PALETTE)


def _tidy(value: Any) -> Any:
    """Tidy every text that the template prints, except drawings, which are markup already."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "\u202f".join(map(printable, value.split("\u202f")))  # which sets thousands apart


def _broken(text: str) -> Markup:
    """A text with its line feeds as breaks of lines."""
    return Markup("<br>").join(escape(printable(part)) for part in text.split("\n"))


def markdown(report: Report) -> str:
    """The tables and notes as Markdown, the same bytes for the same rows: without date, machine and incidents.

    Args:
        report: whose texts are escaped: what would be markup is shown as it is.
    """
    lines = [f"# {markdown_text(report.title)}", ""]
    if report.note:
        lines += [markdown_text(report.note), ""]
    for chapter in report.chapters:
        lines += [f"## {markdown_text(chapter.name)}", "", *_chapter(chapter)]
    notes = [note for note in report.notes if note not in report.incidents]
    if notes:
        lines += ["## Notes", "", *(f"- {markdown_text(note)}" for note in notes), ""]
    if "command" in report.provenance:
        # Two backticks, between which one of the command's own means nothing.
        lines += [f"Made by `` {printable(report.provenance['command'])} ``.", ""]
    return "\n".join(lines)


def _chapter(chapter: Chapter) -> Iterator[str]:
    for sheet in (sheet for section in chapter.sections for sheet in section.sheets):
        if sheet.heading:
            yield from (f"### {sheet.heading}", "")
        yield from markdown_table(sheet.columns, sheet.rows)
    told = [(row, text) for row in chapter.rows for text in (*reasons(row), *remarks(row))]
    if told:
        for row, text in told:
            where = f"{markdown_text(row.marking)}, {markdown_text(trial_name(row.question))}"
            yield f"- {where}: {markdown_text(text)}"
        yield ""
