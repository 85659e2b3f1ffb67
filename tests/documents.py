"""What README.md and docs/ show: their blocks of code, the commands and files that they name, their links and headings.

A block that cannot be run has an HTML comment right before it, ``<!-- not run: REASON -->``.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^ *(```+)(\w*)[^`\n]*\n(.*?)^ *\1[ \t]*$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!--\s*not run:\s*(\S.*?)\s*-->\s*\Z", re.DOTALL)
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}[A-Z_.:]*\b")
"""What a reader puts a word of their own for: KEY, FILE.py:FUNCTION."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block.

    Attributes:
        page: where it stands, from the root of the repository.
        line: of its fence, from 1.
        language: after the fence; empty for commands.
        code: what is in it.
        reason: why it is not run; empty when it is.
    """

    page: str
    line: int
    language: str
    code: str
    reason: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command line that a reader may copy (``whole``), or one that a sentence speaks of."""

    place: str
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return shlex.join(self.words)


def pages() -> list[str]:
    """All pages that are written by hand."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found]


def text_of(page: str) -> str:
    """A page as it is."""
    return (ROOT / page).read_text(encoding="utf-8")


def prose_of(page: str) -> str:
    """A page without its blocks, in lines of the same numbers."""
    return FENCE.sub(lambda found: "\n" * found[0].count("\n"), text_of(page))


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a page."""
    text = text_of(page)
    found = []
    for match in FENCE.finditer(text):
        reason = NOT_RUN.search(text[: match.start()])
        found.append(
            Block(
                page=page,
                line=text.count("\n", 0, match.start()) + 1,
                language=match[2],
                code=textwrap.dedent(match[3]),
                reason=reason[1] if reason else "",
            )
        )
    return found


def commands_in(block: Block) -> list[Command]:
    """The commands of a block without a language, or of a shell's; comments and prompts left out."""
    if block.language not in ("", "sh", "shell", "bash", "console"):
        return []
    lines = block.code.replace("\\\n", " ").splitlines()
    split = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [Command(place=block.place, words=tuple(words), whole=True) for words in split if words]


def spoken_of(page: str) -> list[str]:
    """What a page's sentences have in backticks."""
    return [" ".join(text.split()) for text in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose_of(page))]


def commands_of(page: str) -> list[Command]:
    """All commands of a page, those in its sentences too."""
    whole = [command for block in blocks_of(page) for command in commands_in(block)]
    named = [text for text in spoken_of(page) if re.match(r"(heirmark|make|pip|python) ", text)]
    return whole + [Command(place=page, words=tuple(shlex.split(text)), whole=False) for text in named]


def links_of(page: str) -> list[str]:
    """Targets of a page's links and pictures."""
    return re.findall(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)", prose_of(page))


def anchors_of(text: str) -> set[str]:
    """The anchors that a page's headings make, as GitHub writes them."""
    seen: Counter[str] = Counter()
    anchors = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    for title in re.findall(r"^#{1,6} +(.+?) *#*$", FENCE.sub("", text), re.MULTILINE):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        anchors.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return anchors
