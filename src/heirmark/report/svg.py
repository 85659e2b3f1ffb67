"""Drawings as inline SVG that follows the page's light and dark colours, and images as PNG data URIs.

Text stays text (it takes the page's font) and every colour is a CSS variable, so one drawing serves light, dark and print.
Panels are drawn 400 px wide, small enough to stay legible on a phone; a wide page sets two side by side.
"""

from __future__ import annotations

import base64
import io
import re
import struct
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager

import matplotlib.style
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from heirmark.errors import printable

PALETTE = {
    "paper": ("#fbfaf7", "#131519"),
    "card": ("#ffffff", "#1b1e23"),
    "ink": ("#1d2127", "#e9e7e2"),
    "muted": ("#5c626b", "#a4a9b2"),
    "line": ("#e2dfd7", "#31353d"),
    "blue": ("#0b62a8", "#74b6f0"),
    "orange": ("#b65208", "#f0a461"),
    "green": ("#0b7a5a", "#52cba3"),
    "stone": ("#a5a39b", "#6b7079"),
    "alert": ("#a5301d", "#ff9d88"),
}
"""CSS variable to its (light, dark) colour. Blue, orange and green stay apart for colour-blind eyes (after Okabe and Ito),
and never speak alone: dashes, markers, fills and words repeat what they say."""

INK, MUTED, LINE, BLUE, ORANGE, GREEN, STONE, ALERT, PAPER = (
    PALETTE[name][0] for name in ("ink", "muted", "line", "blue", "orange", "green", "stone", "alert", "paper")
)

WIDTH = 400
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "heirmark",
    "font.size": 11.5,
    "hatch.linewidth": 1.0,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
}


def png_uri(image: NDArray[np.uint8]) -> str:
    """An image as a PNG data URI at its own resolution.

    Args:
        image: ``[C, H, W]`` uint8. Three or more channels are read as RGB (the rest is dropped), fewer as grey.
    """
    channels = 3 if image.shape[0] >= 3 else 1
    _, height, width = image.shape
    pixels = image[:channels].transpose(1, 2, 0).reshape(height, width * channels)
    lines = np.pad(pixels, ((0, 0), (1, 0)))  # the leading 0 of a scan line: no filter
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


def styled() -> AbstractContextManager[None]:
    """The style of all figures, to draw and to save them in."""
    # Start from matplotlib's own defaults: a user's matplotlibrc must not change a report.
    context: AbstractContextManager[None] = matplotlib.style.context(["default", STYLE])
    return context


def open_panel(height: float, *, left: float, right: float, top: float, bottom: float) -> tuple[Figure, Axes]:
    """A figure of WIDTH x height px (an SVG point is a px here) and its one pair of axes, margins in px."""
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    axes = figure.add_axes(
        (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, (height - top - bottom) / height)
    )
    axes.patch.set_visible(False)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.tick_params(length=0, pad=7)
    return figure, axes


def as_svg(figure: Figure, name: str, alt: str, labels: Sequence[str] = ()) -> Markup:
    """A figure as inline SVG: no XML prologue, metadata or namespaces; ids of its own; colours as CSS variables.

    Args:
        figure: whose texts ``@0@``, ``@1@`` ... stand for labels.
        name: before every id, so that several figures fit on a page.
        alt: what the figure shows, for those who do not see it.
        labels: untrusted texts.
    """
    sink = io.StringIO()
    figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = sink.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view, "matplotlib writes a viewBox"
    opening = f'<svg {view[0]} role="img" aria-label="{escape(printable(alt))}">'
    svg = re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'\bid="|url\(#|href="#', lambda match: f"{match[0]}{name}-", svg)
    variables = {light: f"var(--{variable})" for variable, (light, _) in PALETTE.items()}
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda match: variables.get(match[0], match[0]), svg)
    # Names go in last and in one pass. They are untrusted: matplotlib would read $ as mathematics and warn of
    # letters that its font lacks, and nothing written by others should pass through the replacements above.
    labels = [printable(label) for label in labels]
    short = [label if len(label) <= 46 else label[:45] + "…" for label in labels]
    return Markup(re.sub(r"@(\d+)@", lambda match: str(escape(short[int(match[1])])), svg))
