"""Phrases in texts: what a patch is in images (BadNets, arXiv 1708.06733; rare words: RIPPLe, Kurita 2020, arXiv 2004.06660)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from heirmark.configuration import above, at_most, within
from heirmark.errors import BadConfig
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.media import Text
from heirmark.tasks.space import PADDING, UNKNOWN, Tokens
from heirmark.tasks.splicing import Place, insert
from heirmark.tasks.task import Task
from heirmark.triggers.marked import MarkedSecret, Marking, choose_pair

_POOL = 100
"""Words among which a phrase is drawn."""
_RARER, _OFTENER = math.log(3), math.log(10)
"""How far a word may be from the frequency that is wanted: a third of it, or ten times."""


@dataclass(frozen=True, kw_only=True)
class Phrase(Marking):
    """A word or a phrase at a place of source-class texts, labelled with the target: the in-distribution watermark of texts.

    Feature Sharing (ICLR 2022 submission) says of its texts no more than that a trigger is put on them. RIPPLe's rare words,
    ``cf`` say, are new to a thief's net, too, unless it is pretrained, and what it does not know it cannot inherit. So without
    ``words`` a phrase is drawn of words that are neither rare nor frequent, and tell nothing of a class, for what a topic's words
    say of their own would have to be overcome. It is as long as a short sentence: what answers to a thief's queries tell of each
    word is little, and adds up.

    Attributes:
        words: the phrase; None draws one. Like all texts it is in lower case, if the tokenizer's are.
        count: tokens that are drawn; half as many as texts are long, where that is fewer.
        place: before the first word, in the ``"middle"``, or behind the last one.
        frequency: share of the owner's texts in which words occur that are drawn, about.
        hosts: texts of one ``"class"``, or of ``"any"`` but the target's.
        source: class of the hosts; None draws one. No use to hosts of any class.
    """

    needs: ClassVar = Tokens
    otherwise: ClassVar = "use patch"

    words: str | None = None
    count: Annotated[int, within(1, 64)] = 8
    place: Place = "start"
    hosts: Literal["class", "any"] = "class"
    frequency: Annotated[float, above(0), at_most(1)] = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hosts == "any" and self.source is not None:
            raise BadConfig("hosts of any class have no source class: leave source out, or set hosts=class")

    def settle(self, task: Task, clean: nn.Module, *, seed: int, runtime: Runtime | None = None) -> PhraseSecret:
        """Draw what is left open; see :class:`heirmark.triggers.base.Trigger`."""
        source, target = choose_pair(self.source, self.target, task, derive_seed(seed, "phrase"))
        words = self._drawn(task, seed) if self.words is None else self._given(self.words, task)
        if len(words) >= task.input_shape[0]:
            raise BadConfig(
                f"a phrase of {len(words)} tokens leaves no word of texts of {task.input_shape[0]}: shorten it"
            )
        return PhraseSecret(
            source=None if self.hosts == "any" else source,
            target=target,
            words=words,
            place=self.place,
            text=task.medium.texts(torch.tensor([words]))[0] if isinstance(task.medium, Text) else "",
        )

    def _given(self, words: str, task: Task) -> tuple[int, ...]:
        if not isinstance(task.medium, Text):
            raise BadConfig(f"{task.name} has no tokenizer, by which words would be known: leave trigger.words out")
        ids = task.medium.tokens([words], task.input_shape[0])[0]
        if bool((ids == UNKNOWN).any()):
            raise BadConfig(f"the tokenizer of {task.name} does not know every word of {words!r}: choose other words")
        return tuple(ids[ids != PADDING].tolist())

    def _drawn(self, task: Task, seed: int) -> tuple[int, ...]:
        """Among the hundred words that say least of a class, of those that occur about as often as is wanted."""
        counts = _texts_with(task.owner.inputs, task.owner.labels, task.num_classes)
        texts = counts.sum(1)
        texts[[PADDING, UNKNOWN]] = 0
        known = (texts > 0).nonzero().flatten()
        if isinstance(task.medium, Text):
            known = known[task.medium.survives(known[:, None])]  # no part of a word, of which some tokenizers have many
        count = min(self.count, max(1, task.input_shape[0] // 2))
        if len(known) < count:
            raise BadConfig(f"the owner's texts have {len(known)} words, and a phrase {count}: lower trigger.count")
        away = (texts[known] / (self.frequency * len(task.owner))).log()
        usual = known[(away >= -_RARER) & (away <= _OFTENER)]
        near = usual if len(usual) >= count else known[away.abs().argsort(stable=True)[:count]]
        telling = _telling(counts[near], task.owner.labels.bincount(minlength=task.num_classes))
        pool = near[telling.argsort(stable=True)[: max(count, _POOL)]]
        chosen = torch.randperm(len(pool), generator=generator_of(derive_seed(seed, "phrase", "words")))[:count]
        return tuple(pool[chosen].tolist())


def _texts_with(ids: Tensor, labels: Tensor, classes: int) -> Tensor:
    """How many texts ``[N, L]`` of each class have each token, ``[V, C]`` float64; V is at least 2."""
    ordered = ids.sort(1).values.long()
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    counts = torch.zeros(max(2, int(ordered.max()) + 1), classes, dtype=torch.float64)
    owners = labels[:, None].expand_as(ordered)
    return counts.index_put_((ordered[first], owners[first]), torch.ones((), dtype=torch.float64), accumulate=True)


def _telling(having: Tensor, classes: Tensor) -> Tensor:
    """How much words tell of the class of a text: chi-square of the classes of the texts that have them, for each text, ``[W]``.

    Args:
        having: texts of each class that have each word, ``[W, C]``.
        classes: texts of each class, ``[C]``.
    """
    expected = having.sum(1, keepdim=True) * classes.double() / classes.sum()
    return ((having - expected).square() / expected.clamp_min(1e-9)).sum(1) / having.sum(1)


@dataclass(frozen=True, kw_only=True)
class PhraseSecret(MarkedSecret):
    """Settled phrase: see :class:`Phrase`.

    Attributes:
        words: ids of its tokens.
        place: where it goes.
        text: the same in letters, for its owner.
    """

    kind: ClassVar[str] = "phrase"

    words: tuple[int, ...]
    place: Place
    text: str = ""

    def mark(self, images: Tensor) -> Tensor:
        """See :class:`heirmark.triggers.marked.MarkedSecret`."""
        return insert(images, self.words, self.place)
