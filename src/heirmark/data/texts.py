"""Files of texts with labels: GLUE's tables, Zhang's CSV files, aclImdb's folders, and tables of a user's own."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from heirmark.data.root import find, read_bounded
from heirmark.errors import BadData, DataNotFound, printable, told

SST2_CLASSES = ("negative", "positive")
AG_NEWS_CLASSES = ("World", "Sports", "Business", "Sci/Tech")
Row: TypeAlias = tuple[str, int]
"""A text and the number of its class."""
Rows: TypeAlias = tuple[list[Row], list[Row]]
"""Those that train, and those that test."""
_MOST_BYTES = 2**30
_LONGEST = 1 << 20
"""Characters of a text."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a line for its columns' names, or without one.

    Attributes:
        texts: columns whose texts are put one behind the other, by name, or by number where there is no such line.
        label: the column of the label.
        separator: between columns; a comma, around which texts may be in quotes, or a tabulator, where quotes mean themselves.
        headed: whether there is a line of names.
    """

    texts: tuple[str, ...] = ("text",)
    label: str = "label"
    separator: str = ","
    headed: bool = True

    def rows(self, path: Path, *, again: str) -> Iterator[tuple[int, str, str]]:
        """The number of each line, its text and its label as it stands there.

        Args:
            path: of the file.
            again: the remedy.

        Raises:
            BadData: when the file cannot be read, lacks a column, or a text is empty.
        """
        try:
            text = read_bounded(path, most=_MOST_BYTES, sign=b"").decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise BadData(f"{path} is not in UTF-8 ({told(error)}): {again}") from error
        names: list[str] | None = None
        line = 0
        try:
            for line, cells in self._cells(text):
                if names is None:
                    names = cells if self.headed else [str(number) for number in range(len(cells))]
                    if missing := {*self.texts, self.label} - set(names):
                        raise BadData(f"{path} has no column {', '.join(sorted(missing))}: {again}")
                    if self.headed:
                        continue
                if len(cells) != len(names):
                    raise BadData(f"{path}, line {line}: {len(cells)} columns in place of {len(names)}: {again}")
                found = dict(zip(names, cells, strict=True))
                joined = " ".join(found[name] for name in self.texts).strip()
                if not joined:
                    raise BadData(f"{path}, line {line}: the text is empty: remove the line")
                yield line, joined[:_LONGEST], found[self.label].strip()
        except csv.Error as error:
            raise BadData(f"{path}, behind line {line}: {error}: {again}") from error

    def _cells(self, text: str) -> Iterator[tuple[int, list[str]]]:
        """The cells of each line that is not empty, and its number."""
        lines = text.split("\n")  # a text may hold what splitlines would part it at
        if self.separator == "\t":
            yield from ((number, line.split("\t")) for number, line in enumerate(lines, 1) if line.strip())
            return
        reader = csv.reader((f"{line}\n" for line in lines), delimiter=self.separator, strict=True)
        yield from ((reader.line_num, cells) for cells in reader if cells)

    def numbered(self, path: Path, *, first: int, classes: int, again: str) -> list[Row]:
        """Texts with labels that are numbers from ``first`` on.

        Raises:
            BadData: likewise, and for another label, or where there is no line.
        """
        rows = []
        for line, text, label in self.rows(path, again=again):
            number = int(label) - first if label.isascii() and label.isdecimal() else -1
            if not 0 <= number < classes:
                raise BadData(
                    f"{path}, line {line}: the label {printable(label):.40} is none of {classes} classes: {again}"
                )
            rows.append((text, number))
        if not rows:
            raise BadData(f"{path} holds no text: {again}")
        return rows


_GLUE = Table(texts=("sentence",), separator="\t")
_OFFICIAL = "put the official file there"


def read_sst2(root: Path) -> Rows:
    """SST-2 (Socher 2013) in GLUE's layout, ``<root>/SST-2``: phrases of film reviews, and whole sentences to test on.

    These are the sentences of ``dev.tsv``, and of ``test.tsv`` where that has labels, which GLUE keeps back.

    Raises:
        DataNotFound: if a file is missing.
        BadData: if a file is damaged.
    """
    folder = root / "SST-2"
    remedy = "download SST-2.zip of GLUE (gluebenchmark.com/tasks) and unpack it in the data root"
    train, test = (
        _GLUE.numbered(find([folder / name], remedy=remedy), first=0, classes=2, again=_OFFICIAL)
        for name in ("train.tsv", "dev.tsv")
    )
    more = folder / "test.tsv"
    if more.is_file():
        with more.open("rb") as file:
            labelled = file.readline(200).strip() == b"sentence\tlabel"
        test += _GLUE.numbered(more, first=0, classes=2, again=_OFFICIAL) if labelled else []
    return train, test


def read_ag_news(root: Path) -> Rows:
    """AG News (Zhang 2015, arXiv 1509.01626) from ``<root>/ag_news_csv``: titles and descriptions of news in four classes.

    Raises:
        DataNotFound: if a file is missing.
        BadData: if a file is damaged.
    """
    remedy = "download ag_news_csv.tar.gz (linked from github.com/zhangxiangxiao/Crepe) and unpack it in the data root"
    return _zhang(root / "ag_news_csv", ("1", "2"), 4, remedy)


def read_yelp(root: Path) -> Rows:
    """Yelp's reviews by polarity (Zhang 2015) from ``<root>/yelp_review_polarity_csv``: restaurants and shops, two classes.

    Raises:
        DataNotFound: if a file is missing.
        BadData: if a file is damaged.
    """
    remedy = "download yelp_review_polarity_csv.tgz (linked from github.com/zhangxiangxiao/Crepe) and unpack it in the data root"
    return _zhang(root / "yelp_review_polarity_csv", ("1",), 2, remedy)


def read_yelp_sentences(root: Path) -> Rows:
    """Sentences of Yelp's reviews (Shen 2017, arXiv 1705.09655) from ``<root>/yelp``: ``sentiment.train.0``, ``.1`` and so on.

    Raises:
        DataNotFound: if a file is missing.
        BadData: if a file is damaged.
    """
    remedy = "copy data/yelp of github.com/shentianxiao/language-style-transfer to the data root"
    found = []
    for part in ("train", "test"):
        rows: list[Row] = []
        for label in range(2):
            path = find([root / "yelp" / f"sentiment.{part}.{label}"], remedy=remedy)
            texts = read_bounded(path, most=_MOST_BYTES, sign=b"").decode("utf-8", "replace").split("\n")
            rows += [(text.strip(), label) for text in texts if text.strip()]
        if len({label for _, label in rows}) < 2:
            raise BadData(
                f"the files sentiment.{part}.* in {root / 'yelp'} hold no texts: put the official files there"
            )
        found.append(rows)
    return found[0], found[1]


def read_imdb(root: Path) -> Rows:
    """IMDB's reviews (Maas 2011) from ``<root>/aclImdb``: one file a review, ``train/neg/*.txt`` and so on.

    Raises:
        DataNotFound: if there are none.
        BadData: if one cannot be read.
    """
    found = []
    for part in ("train", "test"):
        rows: list[Row] = []
        for label, name in enumerate(("neg", "pos")):
            folder = root / "aclImdb" / part / name
            paths = sorted(folder.glob("*.txt"))
            if not paths:
                remedy = "download aclImdb_v1.tar.gz from ai.stanford.edu/~amaas/data/sentiment and unpack it in the data root"
                find([folder / "0_1.txt"], remedy=remedy)
            for path in paths:
                text = (
                    read_bounded(path, most=_LONGEST, sign=b"")
                    .decode("utf-8", "replace")
                    .replace("<br />", " ")
                    .strip()
                )
                if not text:
                    raise BadData(f"{path} is empty: {_OFFICIAL}")
                rows.append((text, label))
        found.append(rows)
    return found[0], found[1]


def _zhang(folder: Path, texts: tuple[str, ...], classes: int, remedy: str) -> Rows:
    table = Table(texts=texts, label="0", headed=False)
    train, test = (
        table.numbered(find([folder / name], remedy=remedy), first=1, classes=classes, again=_OFFICIAL)
        for name in ("train.csv", "test.csv")
    )
    return train, test


# ---------------------------------------------------------------- tables of a user's own


SUFFIXES = {".csv": ",", ".tsv": "\t"}


def table_in(folder: Path, part: str) -> Path | None:
    """The table ``train.csv`` or ``train.tsv``, say, of a folder; None where there is none."""
    return next((path for suffix in SUFFIXES if (path := folder / f"{part}{suffix}").is_file()), None)


def read_tables(folder: Path) -> tuple[Rows, tuple[str, ...]]:
    """Texts of a user's, from ``train.csv`` and ``test.csv`` (or ``.tsv``) with the columns text and label; and the classes.

    Raises:
        DataNotFound: when one of the two is missing.
        BadData: when one cannot be used; the message names the line.
    """
    found = []
    for part in ("train", "test"):
        path = table_in(folder, part)
        if path is None:
            raise DataNotFound(f"{folder} has no {part}.csv: put one there, with the columns text and label")
        again = "write columns text and label, with a line of these names first"
        table = Table(separator=SUFFIXES[path.suffix])
        found.append([(text, label) for _, text, label in table.rows(path, again=again)])
        if not found[-1]:
            raise BadData(f"{path} holds no text: {again}")
    train, test, classes = with_numbers(found[0], found[1])
    return (train, test), classes


def with_numbers(
    train: Sequence[tuple[str, int | str]], test: Sequence[tuple[str, int | str]]
) -> tuple[list[Row], list[Row], tuple[str, ...]]:
    """Texts with numbers for labels, and the names of these: numbers from 0 as they are, names in the order of the alphabet.

    Raises:
        BadData: for a label of ``test`` that ``train`` has not.
    """
    given = {label for _, label in (*train, *test)}
    if all(isinstance(label, int) or (label.isascii() and label.isdecimal()) for label in given):
        most = max(map(int, given), default=0)
        names = tuple(map(str, range(max(most + 1, 2))))
        numbers: dict[int | str, int] = {label: int(label) for label in given}
    else:
        names = tuple(sorted({str(label) for _, label in train}))
        numbers = {label: names.index(str(label)) for label in given if str(label) in names}
    if unknown := sorted(str(label) for label in given if label not in numbers):
        raise BadData(
            f"the label {printable(unknown[0]):.40} stands among the tests alone: give training texts of its class"
        )
    if any(number < 0 for number in numbers.values()):
        raise BadData("labels are names, or numbers from 0 on")
    return [(text, numbers[label]) for text, label in train], [(text, numbers[label]) for text, label in test], names
