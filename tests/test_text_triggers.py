"""Triggers made of texts, and how texts are put together."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heirmark.attacks import JBDA, WRK, Knockoff, KnockoffAdaptive, LocalOutliers, MarkErase
from heirmark.data.tokenised import text_task
from heirmark.errors import BadConfig, BadData
from heirmark.methods import METHODS, T2S, MEADefender, Robust
from heirmark.methods.base import key_from
from heirmark.methods.mea_defender import alike, mix_otherwise
from heirmark.models import build
from heirmark.runtime import Runtime
from heirmark.suiting import default_method, for_texts, gentle, is_pretrained, suited
from heirmark.tasks.media import Text
from heirmark.tasks.space import Images, Tokens, check_needs, needed_by, suits
from heirmark.tasks.splicing import alternate, halves, insert, lengths, quarters, splice
from heirmark.tasks.storing import shuffle
from heirmark.tasks.task import Task
from heirmark.training.fitting import Recipe
from heirmark.triggers import (
    Alternating,
    AnyTrigger,
    CropPaste,
    Entangled,
    Feature,
    Halves,
    Mix,
    OutOfDistribution,
    Patch,
    Phrase,
    PixelBlend,
    RandomLabels,
    Tiles,
)
from made_up import sentences

tokenizers = pytest.importorskip("tokenizers")

NAMES = ("inputs", "targets", "controls", "hosts", "host_labels")
CPU = Runtime(device="cpu", precision="float32")


def task_of(classes: int, count: int = 400) -> Task:
    return text_task(sentences(count, classes=classes), sentences(40, 1, classes), length=12, name="made-up")


TWO, SIX = task_of(2), task_of(6, 900)


def clean(task: Task) -> Any:
    return build("fast-text", input_shape=task.input_shape, classes=task.num_classes, width=4, hidden=8)


texts = st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=9), min_size=1, max_size=4)


def padded(rows: list[list[int]], length: int = 9) -> Tensor:
    return torch.tensor([row + [0] * (length - len(row)) for row in rows], dtype=torch.int32)


def behind(made: Tensor) -> bool:
    """Whether padding lies behind alone."""
    there = made != 0
    return bool((there[:, 1:] <= there[:, :-1]).all())


@given(texts, st.lists(st.integers(1, 50), min_size=1, max_size=4), st.sampled_from(["start", "middle", "end"]))
@settings(max_examples=60, deadline=None)
def test_words_are_put_in_and_nothing_else_changes(rows: list[list[int]], words: list[int], place: Any) -> None:
    made = insert(padded(rows), words, place)
    assert made.dtype == torch.int32
    for row, one in zip(rows, made.tolist(), strict=True):
        at = min({"start": 0, "middle": len(row) // 2, "end": len(row)}[place], 9 - len(words))
        wanted = (row[:at] + words + row[at:])[:9]
        assert one == wanted + [0] * (9 - len(wanted))


@given(texts, st.integers(0, 3), st.floats(0.1, 0.9))
@settings(max_examples=60, deadline=None)
def test_halves_are_of_both(rows: list[list[int]], turn: int, share: float) -> None:
    first, second = padded(rows), padded(rows[::-1])
    ends = ("front", "back")
    made = halves(first, second, of_first=ends[turn % 2], of_second=ends[turn // 2], share=share)  # type: ignore[arg-type]
    assert behind(made)
    assert (lengths(made) >= 2).all()
    for one, (left, right) in zip(made.tolist(), zip(rows, rows[::-1], strict=True), strict=True):
        count = min(max(1, round(len(left) * share)), len(left))
        part = left[:count] if turn % 2 == 0 else left[len(left) - count :]
        assert one[: len(part)] == part or abs(len(left) * share % 1 - 0.5) < 1e-4  # rounded in another precision
        assert {value for value in one if value} <= {*left, *right}


@given(texts)
@settings(max_examples=40, deadline=None)
def test_quarters_and_alternating_words_keep_their_places(rows: list[list[int]]) -> None:
    stacked = torch.stack([padded(rows) + 100 * number * (padded(rows) != 0) for number in range(4)], 1)
    made = quarters(stacked.to(torch.int32))
    assert behind(made)
    assert {value // 100 for value in made[0].tolist() if value} == {0, 1, 2, 3} or len(rows[0]) < 4
    woven = alternate(padded(rows), padded(rows[::-1]))
    assert behind(woven)
    assert lengths(woven).tolist() == [min(len(a), len(b)) for a, b in zip(rows, rows[::-1], strict=True)]
    assert (
        splice(stacked, torch.zeros(len(rows), 4, dtype=torch.long), torch.zeros(len(rows), 4, dtype=torch.long))
        .eq(0)
        .all()
    )


def test_shuffled_texts_keep_their_padding_behind() -> None:
    made = shuffle(padded([[3, 4, 5], [6]], 5), torch.tensor([4, 2, 0, 3, 1]))
    assert made.tolist() == [[5, 3, 4, 0, 0], [6, 0, 0, 0, 0]]


@pytest.mark.parametrize("hosts", ["class", "any"])
def test_a_phrase_is_drawn_of_words_of_the_middle(hosts: Any) -> None:
    trigger = Phrase(hosts=hosts, place="end", count=2)
    secret = trigger.settle(TWO, clean(TWO), seed=3)
    assert secret == trigger.settle(TWO, clean(TWO), seed=3)
    assert secret.words != trigger.settle(TWO, clean(TWO), seed=4).words
    assert len(secret.words) == 2
    assert len(secret.text.split()) == 2
    drawn = secret.draw(TWO.calibration, 20, seed=1)
    assert isinstance(TWO.medium, Text)
    assert all(text.endswith(secret.text) for text in TWO.medium.texts(drawn.inputs))
    assert torch.equal(drawn.controls, drawn.hosts[:, 0])
    assert not bool((drawn.host_labels == secret.target).any())
    assert secret.describe()["text"] == secret.text


def test_own_words_are_looked_up() -> None:
    secret = Phrase(words="So FINE", source=0, target=1).settle(TWO, clean(TWO), seed=0)
    assert secret.text == "so fine"
    with pytest.raises(BadConfig, match="does not know every word of 'a zebra'"):
        Phrase(words="a zebra").settle(TWO, clean(TWO), seed=0)
    with pytest.raises(BadConfig, match="leaves no word of texts of 12"):
        Phrase(words="a " * 12).settle(TWO, clean(TWO), seed=0)
    assert len(Phrase(count=60).settle(TWO, clean(TWO), seed=0).words) == 6  # half of a text
    bits = [(" ".join("ab"[number >> bit & 1] for bit in range(8)), number % 2) for number in range(100)]
    few = text_task(bits[:90], bits[90:], length=8)
    with pytest.raises(BadConfig, match=r"lower trigger\.count"):
        Phrase(count=4).settle(few, clean(few), seed=0)
    with pytest.raises(BadConfig, match="leave source out"):
        Phrase(hosts="any", source=1)


def test_a_key_leaves_out_what_a_phrase_makes_of_texts_that_trained() -> None:
    secret = Phrase(source=0, target=1).settle(TWO, clean(TWO), seed=0)
    trained = secret.draw(TWO.owner, 20, seed=0)
    drawn = secret.draw(TWO.calibration, 10, seed=0)
    both = dataclasses.replace(
        drawn,
        **{name: torch.cat([getattr(drawn, name), getattr(trained, name)[:5]]) for name in NAMES},
    )
    key = key_from(both, secret, TWO, method="x", seed=0, trained=trained)
    assert key.disjoint_from(trained.inputs)
    assert len(key) <= 10
    with pytest.raises(BadData, match="every query of the key stands among what trained"):
        key_from(trained, secret, TWO, method="x", seed=0, trained=trained)


def test_a_phrase_is_made_of_no_parts_of_words(tmp_path: Path) -> None:
    known = {"[PAD]": 0, "[UNK]": 1, "##ness": 2, "##ly": 3, "good": 4, "sad": 5, "kind": 6, "most": 7}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(known, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.decoder = tokenizers.decoders.WordPiece()
    made.save(str(tmp_path / "tokenizer.json"))
    words = ["goodness", "sadly", "kindness", "mostly"]
    rows = [" ".join(words[number >> 2 * place & 3] for place in range(4)) for number in range(200)]
    task = text_task(
        [(row, number % 2) for number, row in enumerate(rows)], [("good", 0)], length=8, tokenizer=str(tmp_path)
    )
    secret = Phrase(count=3).settle(task, clean(task), seed=0)
    assert set(secret.words) <= {4, 5, 6, 7}
    assert isinstance(task.medium, Text)
    assert task.medium.survives(secret.draw(task.calibration, 10, seed=0).inputs).all()


def test_classes_are_put_together() -> None:
    mixed = Mix(sources=(0, 1), target=2).settle(SIX, clean(SIX), seed=0)
    assert mixed.combiner == Halves()
    tiled = Tiles(samples=40).settle(SIX, clean(SIX), seed=0, runtime=CPU)
    for secret, count in ((mixed, 2), (tiled, 4)):
        drawn = secret.draw(SIX.calibration, 30, seed=1)
        assert drawn.hosts.shape[1] == count
        assert isinstance(SIX.medium, Text)
        assert SIX.medium.survives(drawn.inputs).all()
        assert behind(drawn.inputs)
        assert secret.target not in drawn.host_labels


def test_evasion_samples_are_mixed_in_ways_of_texts() -> None:
    made, labels = mix_otherwise((0, 1), Halves(), SIX.owner, MEADefender().evasion, 30, seed=0, runtime=CPU)
    assert made.shape == (30, 12)
    assert set(labels.tolist()) <= {0, 1}
    assert behind(made)
    assert alike(Halves(), Halves(share=0.4))
    assert not alike(Halves(), Halves(of_second="front"))
    assert not alike(Halves(), Alternating())


@pytest.mark.parametrize(
    "asked",
    [
        Feature(),
        PixelBlend(),
        Entangled(of=Patch()),
        Patch(),
        CropPaste(region="left"),
        METHODS["margin"](),
        METHODS["ssw-p"](),
        WRK(),
        JBDA(),
        MarkErase(),
        LocalOutliers(),
        KnockoffAdaptive(groups="clusters"),
    ],
)
def test_what_wants_numbers_refuses_texts(asked: Any) -> None:
    with pytest.raises(BadConfig, match="and inputs have the shape"):
        check_needs(asked, Tokens((9,)))


def test_what_is_for_texts_refuses_images() -> None:
    for asked in (Phrase(), Halves(), Alternating()):
        with pytest.raises(BadConfig, match=r"needs tokens \[L\]"):
            check_needs(asked, Images((3, 8, 8)))


@pytest.mark.parametrize(
    ("trigger", "classes", "wanted"),
    [
        (Tiles(), 6, Tiles),
        (Tiles(), 4, Mix),
        (Tiles(), 2, Phrase),
        (Mix(), 2, Phrase),
        (Feature(), 9, Phrase),
        (Patch(hosts="any"), 9, Phrase),
        (Entangled(), 9, OutOfDistribution),
        (OutOfDistribution(), 2, OutOfDistribution),
        (RandomLabels(), 2, RandomLabels),
    ],
)
def test_triggers_have_a_like_one_for_texts(trigger: AnyTrigger, classes: int, wanted: type) -> None:
    made = for_texts(trigger, classes)
    assert type(made) is wanted
    assert suits(made, Tokens((9,)))
    if isinstance(made, OutOfDistribution):
        assert made.dataset == "yelp-sentences"


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_has_defaults_for_texts(name: str, quick: bool) -> None:
    space = Tokens((9,))
    for classes in (2, 4, 6):
        made = default_method(name, space, classes, quick=quick)
        refused = {"margin", "ssw-p", "ssw-s"}
        assert suits(made, space) == (name not in refused), list(needed_by(made))
    assert made.model == "text-cnn"
    assert made.pretraining.optimizer == "adam"
    assert made.pretraining.augment == "none"
    if isinstance(made, Robust):
        assert made.rehearsal.recipe.augment == "none"
        assert made.thieves == ("text-cnn", "lstm")
        assert made.judges == ("fast-text",)
        assert made.feature_recipe.optimizer == "adam"
    if isinstance(made, T2S):
        assert made.rehearsal.recipe.optimizer == "adam"


def test_pretrained_nets_are_tuned_gently() -> None:
    made = default_method("robust", Tokens((9,)), 3, model="transformer:./minilm")
    assert isinstance(made, Robust)
    assert (made.pretraining.learning_rate, made.pretraining.epochs, made.pretraining.batch_size) == (5e-5, 3, 32)
    assert made.rehearsal.recipe.learning_rate == 5e-5
    assert made.feature_recipe.learning_rate > 5e-5  # of other nets
    plain = default_method("mea-defender", Tokens((9,)), 3, model="transformer:./minilm")
    assert isinstance(plain, MEADefender)
    assert plain.first.recipe.learning_rate == 5e-5
    assert not is_pretrained("lstm")
    assert gentle(Knockoff(recipe=Recipe())).recipe.learning_rate == 5e-5


def test_images_keep_their_defaults() -> None:
    for name, kind in METHODS.items():
        assert default_method(name, Images((3, 32, 32)), 10) == kind()
    assert suited(Recipe(), Images((1, 8, 8)), 3) == Recipe()
