"""Which class is which: found by name, by number or by ordinary inputs, and refused where they do not agree."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heirmark.errors import BadConfig
from heirmark.wire.matching import agreement, best_order, by_name, match

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Bag"]
TRUTH = [label for label in range(4) for _ in range(30)]


def said(names, *, right=1.0, seed=0):
    """What a service says of the inputs that is right so often and else says anything."""
    draw = random.Random(seed)
    return [names[label] if draw.random() < right else draw.choice(names) for label in TRUTH]


@given(st.permutations(range(4)), st.floats(0.9, 1.0), st.integers(0, 50))
def test_orders_are_found_from_ordinary_inputs_whatever_the_service_calls_its_classes(order, right, seed):
    names = ["w", "x", "y", "z"]
    rows = said([names[place] for place in order], right=right, seed=seed)
    found = match(rows, TRUTH, CLASSES)
    assert found.meaning == {names[place]: label for label, place in enumerate(order)}
    assert found.how == "agreement"
    assert found.agreement == sum(found.meaning[row] == label for row, label in zip(rows, TRUTH, strict=True)) / 120


@given(st.permutations(range(4)), st.integers(0, 50))
def test_numbers_are_taken_as_they_are_or_refused_with_the_order_that_fits(order, seed):
    rows = said(list(order), right=0.9, seed=seed)
    if list(order) == [0, 1, 2, 3]:
        assert match(rows, TRUTH, CLASSES).reading(4).plain
        return
    fitting = ",".join(str(order.index(place)) for place in range(4))
    with pytest.raises(BadConfig, match=f"--labels {fitting}"):
        match(rows, TRUTH, CLASSES)
    asked = match(rows, TRUTH, CLASSES, inferred=True)
    assert asked.reading(4).order == tuple(order.index(place) for place in range(4))
    assert match(rows, TRUTH, CLASSES, given=list(asked.meaning.values())).meaning == asked.meaning


def test_names_that_are_ones_own_are_taken_and_shown():
    rows = [{name: 0.9, "bag ": 0.1} for name in said(["t-shirt / TOP", "trouser", "PullOver", "bag "], right=0.8)]
    found = match(rows, TRUTH, CLASSES)
    assert found.how == "name"
    assert found.meaning == {"t-shirt / TOP": 0, "trouser": 1, "PullOver": 2, "bag ": 3}
    assert "PullOver = Pullover" in found.words(CLASSES)
    assert "of 120 ordinary inputs agree" in found.words(CLASSES)
    assert found.reading(4).label({"new": 0.9, "trouser": 0.1}) == -1


def test_names_that_lie_are_refused():
    rows = said(["Trouser", "T-shirt/top", "Pullover", "Bag"])
    with pytest.raises(BadConfig, match="classes by name agree with 50%"):
        match(rows, TRUTH, CLASSES)


def test_what_is_given_is_held_against_the_inputs_too():
    rows = said(["a", "b", "c", "d"], right=0.9)
    right = {"a": 0, "b": 1, "c": 2, "d": 3, "never seen": -1}
    assert match(rows, TRUTH, CLASSES, given=right).meaning == right
    with pytest.raises(BadConfig, match=r"what was given agree .* --labels 'a=0,b=1,c=2,d=3'"):
        match(rows, TRUTH, CLASSES, given={"a": 1, "b": 0, "c": 2, "d": 3})
    with pytest.raises(BadConfig, match="by name"):
        match(rows, TRUTH, CLASSES, given=[0, 1, 2, 3])


def test_what_cannot_be_told_is_refused():
    with pytest.raises(BadConfig, match="not Pullover, Bag: say what they mean"):  # two classes in one
        match(said(["a", "b", "c", "c"]), TRUTH, CLASSES)
    with pytest.raises(BadConfig, match="agree with"):  # no more than chance
        match(said([0, 1, 2, 3], right=0.0), TRUTH, CLASSES)
    with pytest.raises(BadConfig, match="cannot be told"):  # three inputs a class decide nothing
        match(["a", "b", "c", "d"] * 2, [0, 1, 2, 3] * 2, CLASSES)
    with pytest.raises(BadConfig, match="now by name"):
        match(["a", 1], [0, 1], CLASSES)
    with pytest.raises(BadConfig, match="no classes"):
        match([10**9], [0], CLASSES)


def test_more_classes_than_ones_own_are_none():
    found = match([[0.0] * label + [1.0] + [0.0] * (6 - label) for label in TRUTH], TRUTH, CLASSES)
    assert list(found.meaning.values()) == [0, 1, 2, 3, -1, -1, -1]
    assert found.reading(4).order == (0, 1, 2, 3, -1, -1, -1)


@given(
    st.lists(st.one_of(st.text(max_size=6), st.integers(-5, 9)), max_size=6),
    st.lists(st.text(max_size=6), min_size=2, max_size=5),
)
def test_no_class_has_two_names(known, classes):
    meaning = [label for label in by_name(known, classes) if label >= 0]
    assert len(set(meaning)) == len(meaning)


@given(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=3, max_size=3))
def test_the_best_order_is_the_best_of_all(votes):
    import itertools

    import numpy as np

    counted = np.array(votes)
    assert agreement(counted, best_order(counted)) == max(
        agreement(counted, order) for order in itertools.permutations(range(3))
    )


def test_names_without_end_are_no_classes():
    rows = [{f"{row} {place}": 1.0 for place in range(700)} for row in range(100)]
    with pytest.raises(BadConfig, match="70,000 names"):
        match(rows, [row % 3 for row in range(100)], ["a", "b", "c"])
