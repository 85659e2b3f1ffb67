"""Texts as data sets: a tokenizer learned from the training texts alone, or one that is given, and texts of one length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from heirmark.configuration import checked
from heirmark.data.texts import Row, Rows, with_numbers
from heirmark.errors import BadConfig, BadData
from heirmark.tasks.media import VOCABULARY, Text
from heirmark.tasks.splitting import make_task
from heirmark.tasks.task import Split, Task

OPTIONS = ("length", "vocabulary", "tokenizer")
LONGEST: Final = 4096
_USUAL = 256
"""Tokens that texts of a user's are cut to where nothing is said."""


@dataclass(frozen=True, kw_only=True)
@checked
class Tokenising:
    """How texts become ids of tokens.

    Attributes:
        length: tokens of a text; longer ones are cut, shorter ones filled up. None goes by the training texts: as many as 95 % of
            them have, in steps of 16, but no more than 256.
        vocabulary: tokens at most of the tokenizer that is learned.
        tokenizer: a pretrained one in place of it: a ``tokenizer.json``, or a folder that has one.
    """

    length: int | None = None
    vocabulary: int = VOCABULARY
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        if self.length is not None and not 1 <= self.length <= LONGEST:
            raise BadConfig(f"texts are of 1 to {LONGEST} tokens, not {self.length}: give another length")

    def told(self, options: Mapping[str, str]) -> Tokenising:
        """The same with what a user says by ``length=64``, ``vocabulary=20000`` or ``tokenizer=./minilm``.

        Raises:
            BadConfig: for an option that there is not, or a number that is none.
        """
        changes: dict[str, int | str | None] = {name: getattr(self, name) for name in OPTIONS}
        for name, value in options.items():
            if name not in OPTIONS:
                raise BadConfig(f"texts have no option {name!r}: choose from {', '.join(OPTIONS)}")
            if name != "tokenizer" and not (value.isascii() and value.isdecimal()):
                raise BadConfig(f"{name}={value} is no number")
            changes[name] = value if name == "tokenizer" else int(value)
        return Tokenising(**changes)  # type: ignore[arg-type]

    def medium(self, texts: Sequence[str]) -> Text:
        """The tokenizer: the one that is named, or one that these training texts teach."""
        if self.tokenizer is not None:
            return Text.read(Path(self.tokenizer).expanduser())
        return Text.trained(texts, vocabulary=self.vocabulary)

    def splits(self, rows: Rows) -> tuple[Split, Split, Text]:
        """Training and test split ``[N, L]``, and the tokenizer.

        Raises:
            BadData: for a text without a token.
        """
        texts = [text for text, _ in rows[0]]
        medium = self.medium(texts)
        length = self.length or usual_length(medium, texts)
        return split_of(rows[0], medium, length), split_of(rows[1], medium, length), medium


def split_of(rows: Sequence[Row], medium: Text, length: int) -> Split:
    """Texts with labels as a split ``[N, L]`` int32.

    Raises:
        BadData: for a text without a token.
    """
    return Split(
        inputs=medium.tokens([text for text, _ in rows], length), labels=torch.tensor([label for _, label in rows])
    )


def usual_length(medium: Text, texts: Sequence[str]) -> int:
    """A length that hardly any of the texts exceeds; see :class:`Tokenising`."""
    lengths = (medium.tokens(texts, _USUAL) != 0).sum(1).double()
    return min(_USUAL, 16 * -(-int(lengths.quantile(0.95)) // 16))


def text_task(
    train: Sequence[tuple[str, int | str]],
    test: Sequence[tuple[str, int | str]],
    *,
    name: str = "texts",
    length: int | None = None,
    vocabulary: int = VOCABULARY,
    tokenizer: str | None = None,
    seed: int = 0,
) -> Task:
    """A task of texts with labels.

    Args:
        train: texts with labels, which are names, or numbers from 0 on; the tokenizer learns from these texts alone.
        test: the same, that only measure.
        name: for reports.
        length: tokens of a text; see :class:`Tokenising`, as for the next two.
        vocabulary: tokens of the tokenizer at most.
        tokenizer: a pretrained one.
        seed: of who gets which text.

    Raises:
        BadData: for an empty text, a label that stands in ``test`` alone, or too few texts.
        BadConfig: for an option out of range, or where ``tokenizers`` is not installed.
    """
    if not train or not test:
        raise BadData("texts that train and texts that test are needed: give both")
    *rows, classes = with_numbers(train, test)
    how = Tokenising(length=length, vocabulary=vocabulary, tokenizer=tokenizer)
    own, held_out, medium = how.splits((rows[0], rows[1]))
    return make_task(name, classes, own, held_out, seed=seed, medium=medium)
