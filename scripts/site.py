"""Hooks of the documentation site: what lies outside docs/ and is linked from there becomes part of it, and the reference.

The same Markdown is read in the repository and on the site, so links are written for the repository and mended here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import heirmark

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s]+)(?=\))")
SECTIONS = {
    "Data": ("tasks", "training.samples", "data"),
    "Methods": ("methods", "keys"),
    "Triggers": ("triggers",),
    "Models and training": ("models", "training", "runtime", "querying.asking"),
    "Rehearsal": ("rehearsal",),
    "Attacks": ("querying", "attacks"),
    "Verification": ("verification", "results"),
}
"""Rooms of the package, or modules of them, by title."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and results that docs/ links to, and the reference."""
    found = [ROOT / name for name in PAGES]
    found += sorted(ROOT.glob("results/*.json"))
    found += [path for path in sorted(ROOT.glob("results/bench/*/*")) if path.is_file()]
    for path in found:
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    files.append(File.generated(config, "api.md", content=reference()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to where the site has what the repository has elsewhere."""
    inside = page.file.src_uri not in PAGES and not page.file.src_uri.startswith("results/")
    return LINK.sub(lambda link: mend(link[1], inside=inside), markdown)


def mend(link: str, *, inside: bool) -> str:
    """A link of the repository as one of the site, whose root holds docs/ and the rest side by side."""
    return link.removeprefix("../") if inside else link.removeprefix("docs/")


def reference() -> str:
    """A page of all public functions and classes, by what they are for."""
    rooms: dict[str, list[str]] = defaultdict(list)
    titles = {room: title for title, names in SECTIONS.items() for room in names}
    for name in sorted(heirmark.__all__, key=str.lower):
        value = getattr(heirmark, name)
        home = getattr(value, "__module__", "")
        if callable(value) and home.startswith("heirmark."):
            room, _, inside = home.removeprefix("heirmark.").partition(".")
            title = titles.get(f"{room}.{inside}") or titles.get(room, "More")
            rooms[title].append(f"{home}.{value.__qualname__}")
    lines = [
        "# Python interface",
        "",
        "Every name below is an attribute of `heirmark`, which loads each on its first use.",
        "",
    ]
    for title in (*SECTIONS, "More"):
        if rooms[title]:
            lines += [f"## {title}", ""]
            lines += [f"::: {path}\n    options: {{ heading_level: 3 }}\n" for path in rooms[title]]
    return "\n".join(lines)
