"""Numbers and names in words, as pages, documents and terminals show them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from heirmark.errors import printable
from heirmark.results.rows import Row
from heirmark.results.spreads import Spread
from heirmark.results.summary import Published, Summary

OUTCOMES = {"MARKED": "Marked", "NOT_ESTABLISHED": "Not established", "INVALID": "Invalid"}
"""Every outcome of a verification, and how it is written for people."""
DASH = "–"
ITSELF = "the model itself"
"""What a row is called in which nothing was done to the model."""
CAPTION = "ACC: test accuracy. WSR: held-out triggers answered as the key says."
MANY_HOSTS = 0.2
"""Above this share of matched controls with the expected answer a row says so; the verdict's flag is raised there too."""


def percent(rate: float | None) -> str:
    """A rate 0..1 as a percentage with one decimal, or a dash when there is none.

    Examples:
        >>> percent(0.9124), percent(float("nan"))
        ('91.2%', '–')
    """
    return DASH if rate is None or not math.isfinite(rate) else f"{100 * rate:.1f}%"


def spread_text(rate: Spread) -> str:
    """A rate 0..1 over seeds in percent, with the standard deviation where there is one.

    Examples:
        >>> from heirmark.results.spreads import spread_of
        >>> spread_text(spread_of([0.9, 0.92])), spread_text(spread_of([0.9])), spread_text(spread_of([]))
        ('91.0 ± 1.4%', '90.0%', '–')
    """
    if not math.isfinite(rate.mean):
        return DASH
    if not math.isfinite(rate.spread):
        return percent(rate.mean)
    return f"{100 * rate.mean:.1f} ± {100 * rate.spread:.1f}%"


def points(difference: float) -> str:
    """A difference of two rates in percentage points, signed.

    Examples:
        >>> points(-0.0042), points(0.01), points(0.0001)
        ('−0.4', '+1.0', '±0.0')
    """
    text = f"{abs(100 * difference):.1f}"
    if text == "0.0":
        return "±0.0"
    return ("−" if difference < 0 else "+") + text


def p_text(p_value: float) -> str:
    """A p-value at a precision that is worth reading.

    Examples:
        >>> [p_text(p) for p in (1.0, 0.27, 0.0098, 4e-4, 3.1e-41, 0.0, float("nan"))]
        ['1.00', '0.27', '0.0098', '4e-4', '3e-41', '< 1e-300', '–']
    """
    if not math.isfinite(p_value):
        return DASH
    if p_value < 1e-300:
        return "< 1e-300"
    if p_value < 1e-3:
        mantissa, exponent = f"{p_value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{p_value:.2g}" if p_value < 0.095 else f"{p_value:.2f}"


def number(value: float | None) -> str:
    """A count or an epoch: thousands set apart by a narrow space, no trailing zeros; a dash when there is none.

    Examples:
        >>> number(1234567.0), number(0.5), number(None)
        ('1\u202f234\u202f567', '0.5', '–')
    """
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:,.10g}".replace(",", "\u202f")


def seconds(value: float) -> str:
    """A time to two digits or so; a dash when there is none."""
    if not math.isfinite(value):
        return DASH
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"


def printed(rate: float) -> str:
    """A rate as papers print it: rounding 99.95 % to 100 % would be no quotation.

    Examples:
        >>> printed(0.9995)
        '99.95%'
    """
    return f"{rate:.2%}"


def paper_text(paper: Published) -> str:
    """A paper's figures in a line.

    Examples:
        >>> paper_text(Published(source="T2S, Table I", marking="T2S", accuracy=0.82, wsr=0.976))
        'T2S, Table I: ACC 82.00%, WSR 97.60%'
    """
    told = [
        f"{name} {printed(rate)}" for name, rate in (("ACC", paper.accuracy), ("WSR", paper.wsr)) if rate is not None
    ]
    return f"{paper.source}: {', '.join(told) or 'no figure'}"


def trial_name(trial: str) -> str:
    """What was done to the model, for people."""
    return printable(trial) or ITSELF


def count(many: int, what: str) -> str:
    """How many of something.

    Examples:
        >>> count(1, "seed"), count(3, "seed")
        ('1 seed', '3 seeds')
    """
    return f"{many:,} {what}{'s' * (many != 1)}"


def hits(rows: Sequence[Row]) -> str:
    """In how many runs a search named the key's target, of those in which it ran."""
    known = [row.search for row in rows if row.search is not None]
    return f"{sum(search.found for search in known)} of {len(known)}" if known else DASH


def called(rows: Sequence[Row]) -> str:
    """In how many runs a model was called marked, of those in which it was judged, and how many verdicts are invalid."""
    judged = sum(not row.error for row in rows)
    said, invalid = (sum(row.outcome == outcome for row in rows) for outcome in ("MARKED", "INVALID"))
    return f"{said} of {judged}" + (f", {invalid} invalid" if invalid else "") if judged else DASH


def reasons(row: Summary) -> list[str]:
    """Why seeds failed, or why their verdicts are invalid: each reason once, the seeds before it."""
    told: dict[str, list[int]] = {}
    for seed in row.seeds:
        for each in (*(mine for mine in row.marked if mine.seed == seed), *row.controls_of(seed)):
            whom = "" if each.marked else "the control: "
            if each.error:
                told.setdefault(f"failed: {whom}{each.error}", []).append(seed)
            elif each.outcome == "INVALID":
                told.setdefault(f"invalid: {whom}{each.reason or 'it cannot be judged'}", []).append(seed)
    return [f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))} {why}" for why, seeds in told.items()]


def remarks(row: Summary) -> list[str]:
    """What a reader must know to understand a verdict: what else than the trigger gets the expected answer."""
    told = []
    if row.control_rate > MANY_HOSTS:
        told.append(
            f"Matched queries without the trigger get the expected answer in {percent(row.control_rate)} of cases."
        )
    if math.isfinite(row.wfpr.mean):
        told.append(
            f"WFPR {percent(row.wfpr.mean)}, at most {percent(row.wfpr.highest)} "
            f"({percent(row.control_wfpr)} of the control): the same classes mixed otherwise."
        )
    return told


def markdown_text(text: str) -> str:
    r"""Untrusted text as Markdown shows it.

    Examples:
        >>> print(markdown_text("a|b *c* <i>"))
        a\|b \*c\* \<i\>
    """
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", printable(text))


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown, an empty one after it; what rows hold is untrusted."""
    head, *body = ([markdown_text(text) for text in row] for row in (columns, *rows))
    return markdown_lines([head, ["---"] * len(columns), *body])


def markdown_lines(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown, an empty one after it, of cells that are Markdown already."""
    return [*(f"| {' | '.join(line)} |" for line in cells), ""]
