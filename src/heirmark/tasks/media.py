"""How inputs that are no images are shown to people and put to services: sound has a rate, a text a tokenizer."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Self, TypeAlias

import torch
from torch import Tensor

from heirmark.configuration import canonical_json, checked, within
from heirmark.configuration.encoding import from_json
from heirmark.errors import BadArtifact, BadConfig, BadData, HeirmarkError, told
from heirmark.files import MIB, atomic_write_json, parse_json, read_bytes, read_json
from heirmark.tasks.space import PADDING, UNKNOWN

LARGEST: Final = 32 * MIB
"""Bytes of a tokenizer; those of the largest multilingual models have 17 MB."""
VOCABULARY: Final = 8192
"""Tokens of a tokenizer that is trained here, unless more or fewer are asked for."""
_UNKNOWN = "\ufffd"  # the replacement character, which no text has to say anything by
_PADDINGS = ("[PAD]", "<pad>", "<|padding|>")
_UNKNOWNS = ("[UNK]", "<unk>", "<|unknown|>")
_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True)
@checked
class Sound:
    """Waves at a rate.

    Attributes:
        rate: samples a second.
    """

    rate: Annotated[int, within(1000, 384_000)]


@dataclass(frozen=True, kw_only=True)
class Text:
    """Texts as ids of tokens: 0 is padding and 1 what is unknown, whatever numbers a pretrained tokenizer gives these two.

    Attributes:
        tokenizer: as the library ``tokenizers`` writes it, JSON of at most :data:`LARGEST` bytes. It holds no patterns
            (``Regex``) of its own: on some texts a stranger's would run without end.

    Raises:
        BadConfig: when it is no such tokenizer.
    """

    tokenizer: str = field(repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.tokenizer, str) or len(self.tokenizer) > LARGEST:
            raise BadConfig(f"a tokenizer is JSON of at most {LARGEST:,} bytes: give a smaller one")
        parts = self._described
        if not isinstance(parts, Mapping) or not isinstance(parts.get("model"), Mapping):
            raise BadConfig("this is no tokenizer as the library tokenizers writes it: give its tokenizer.json")
        others = [value for name, value in parts.items() if name not in ("model", "added_tokens")]
        if any(item == "Regex" for item in _names(others)):
            raise BadConfig("the tokenizer holds patterns (Regex) of its own, which may run without end: give another")

    @cached_property
    def _described(self) -> Any:
        try:
            return parse_json(self.tokenizer, source="the tokenizer")
        except HeirmarkError as error:
            raise BadConfig(f"{error}: give a tokenizer.json") from error

    @cached_property
    def _library(self) -> Any:
        """The tokenizer at work.

        Raises:
            BadConfig: when the library is missing, or cannot read it.
        """
        kind = library().Tokenizer
        try:
            made = kind.from_str(self.tokenizer)
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:  # the library panics by an exception of its own
            raise BadConfig(f"the tokenizer cannot be read ({told(error)}): give another tokenizer.json") from error
        made.no_truncation()
        made.no_padding()
        return made

    @cached_property
    def _own(self) -> Tensor:
        """Our id for each of the tokenizer's, ``[V]`` int64: padding and unknown change places with what has 0 and 1."""
        own = torch.arange(max(2, 1 + max(self._library.get_vocab().values(), default=0)))
        for wanted, theirs in ((PADDING, self.special(_PADDINGS)), (UNKNOWN, self._unknown)):
            if theirs is not None:
                other = int((own == wanted).nonzero())
                own[other], own[theirs] = int(own[theirs]), wanted
        return own

    @property
    def _unknown(self) -> int | None:
        model = self._described["model"]
        named = model.get("unk_token")
        if isinstance(model.get("unk_id"), int):
            return int(model["unk_id"])
        return self.special((*([named] if isinstance(named, str) else []), *_UNKNOWNS))

    def special(self, names: Sequence[str]) -> int | None:
        """The id that the tokenizer itself gives to the first of the tokens that it knows; None where it knows none."""
        found = (self._library.token_to_id(name) for name in names)
        return next((int(number) for number in found if number is not None), None)

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return len(self._own)

    @cached_property
    def theirs(self) -> Tensor:
        """The tokenizer's id for each of ours, ``[V]`` int64: what nets know that were trained with it elsewhere."""
        return self._own.argsort()

    @cached_property
    def around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the tokenizer itself puts before and behind a text that its net is to read, by its own ids; see :attr:`theirs`."""
        bare = self._library.encode("a", add_special_tokens=False).ids
        whole = self._library.encode("a", add_special_tokens=True).ids
        start = next((at for at in range(len(whole) - len(bare) + 1) if whole[at : at + len(bare)] == bare), 0)
        return tuple(whole[:start]), tuple(whole[start + len(bare) :])

    def tokens(self, texts: Sequence[str], length: int) -> Tensor:
        """Ids of tokens: of each text the first so many, filled up with padding behind; no token is put before or after.

        Args:
            texts: N of them.
            length: L, at least 1.

        Returns:
            ``[N, L]`` int32.

        Raises:
            BadData: for a text in which there is no token.
            BadConfig: when the tokenizer cannot be used.
        """
        parts = [torch.zeros(0, length, dtype=torch.int32)]
        padding = int(self.theirs[PADDING])
        for start in range(0, len(texts), _AT_ONCE):
            found = self._library.encode_batch_fast(list(texts[start : start + _AT_ONCE]), add_special_tokens=False)
            rows = [each.ids[:length] for each in found]
            if not all(rows):
                empty = start + rows.index([])
                raise BadData(f"text {empty} holds no token ({texts[empty]!r:.40}): leave it out")
            filled = torch.tensor([ids + [padding] * (length - len(ids)) for ids in rows])
            parts.append(self._own[filled].to(torch.int32))
        return torch.cat(parts)

    def texts(self, ids: Tensor) -> list[str]:
        """Texts of ids ``[N, L]``, without the padding; an unknown token is a replacement character, or what its tokenizer has.

        Raises:
            BadData: for an id that is no token's.
        """
        ids = ids.long().cpu()
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self.size:
            raise BadData(f"ids of tokens are 0 to {self.size - 1}, not {int(ids.min())} to {int(ids.max())}")
        rows = [self.theirs[row[row != PADDING]].tolist() for row in ids]
        told: list[str] = self._library.decode_batch(rows, skip_special_tokens=False)
        return told

    def survives(self, ids: Tensor) -> Tensor:
        """Whether each of ids ``[N, L]`` comes back from its text as it was, ``[N]`` bool: services are put texts."""
        kept = torch.zeros(len(ids), dtype=torch.bool)
        for row, text in enumerate(self.texts(ids)):
            if text.strip():
                found = self._library.encode(text, add_special_tokens=False).ids
                again = self._own[torch.tensor(found, dtype=torch.long)]
                own = ids[row].long().cpu()
                filled = torch.cat([again, again.new_zeros(max(0, len(own) - len(again)))])
                kept[row] = torch.equal(filled, own)
        return kept

    @classmethod
    def trained(cls, texts: Iterable[str], *, vocabulary: int = VOCABULARY) -> Self:
        """A tokenizer of words and runs of punctuation in lower case (NFKC): the most frequent of some texts, in that order.

        Words and no parts of words: so a text may be cut anywhere and put together with another, and what comes of it says the
        same in letters. The rest are unknown.

        Args:
            texts: that it learns from. The same ones give the same tokenizer.
            vocabulary: tokens at most, padding and unknown among them.

        Raises:
            BadConfig: when ``tokenizers`` is not installed, or the vocabulary is too small.

        Examples:
            >>> Text.trained(["A fine film", "a FINE day"]).tokens(["Fine, a FILM!"], 6).tolist()
            [[3, 1, 2, 5, 1, 0]]
        """
        if not 3 <= vocabulary <= 1 << 18:
            raise BadConfig(f"a vocabulary has 3 to {1 << 18} tokens, not {vocabulary}")
        found = library()
        normal = found.normalizers.Sequence([found.normalizers.NFKC(), found.normalizers.Lowercase()])
        words = found.pre_tokenizers.Whitespace()
        counts = Counter(
            word for text in texts for word, _ in words.pre_tokenize_str(normal.normalize_str(text)) if word != _UNKNOWN
        )
        ranked = sorted(counts, key=lambda word: (-counts[word], word))[: vocabulary - 2]
        known = {name: number for number, name in enumerate((_PADDINGS[0], _UNKNOWN, *ranked))}
        made = found.Tokenizer(found.models.WordLevel(known, unk_token=_UNKNOWN))
        made.normalizer, made.pre_tokenizer = normal, words
        return cls(tokenizer=made.to_str())

    @classmethod
    def read(cls, path: Path) -> Self:
        """A pretrained tokenizer: ``tokenizer.json``, or a folder that has one.

        Raises:
            BadConfig: when there is none, or it cannot be used.
        """
        path = path / "tokenizer.json" if path.is_dir() else path
        try:
            return cls(tokenizer=read_bytes(path, max_bytes=LARGEST).decode("utf-8"))
        except (UnicodeDecodeError, BadArtifact) as error:
            raise BadConfig(
                f"{path} is no tokenizer ({told(error)}): name a tokenizer.json, or a folder with one"
            ) from error


Medium: TypeAlias = Sound | Text
_KINDS = {kind.__name__: kind for kind in (Sound, Text)}
FILE: Final = "medium.json"
"""The file of a medium, beside what it belongs to."""


def library() -> Any:
    """The library ``tokenizers``.

    Raises:
        BadConfig: when it is not installed.
    """
    try:
        import tokenizers
        import tokenizers.models
        import tokenizers.normalizers
        import tokenizers.pre_tokenizers
    except ImportError:
        raise BadConfig('texts need the library tokenizers: pip install "heirmark[text]"') from None
    return tokenizers


def digest_of(medium: Medium) -> str:
    """SHA-256 (hex) of a medium."""
    return hashlib.sha256(canonical_json(medium)).hexdigest()


def save_medium(medium: Medium, folder: Path) -> None:
    """Write :data:`FILE`, readable by you only."""
    atomic_write_json(folder / FILE, parse_json(canonical_json(medium), source=FILE), private=True)


def load_medium(folder: Path) -> Medium:
    """Read :data:`FILE`, trusting nothing in it.

    Raises:
        BadArtifact: when it is missing, too large or foreign.
    """
    path = folder / FILE
    try:
        found = from_json(_KINDS, read_json(path, max_bytes=2 * LARGEST))
    except BadConfig as error:
        raise BadArtifact(f"{path} is foreign or damaged ({error}): copy it again from where it was made") from error
    if not isinstance(found, Sound | Text):
        raise BadArtifact(f"{path} is no medium of a key's: copy it again from where it was made")
    return found


def _names(value: Any) -> Iterator[str]:
    """All keys of objects in JSON."""
    if isinstance(value, Mapping):
        yield from map(str, value)
        for each in value.values():
            yield from _names(each)
    elif isinstance(value, list):
        for each in value:
            yield from _names(each)
