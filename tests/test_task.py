"""Splits and tasks: what they accept, and that nothing leaks from one split to another."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from heirmark.errors import BadConfig, BadData
from heirmark.tasks.splitting import make_task
from heirmark.tasks.task import Split, Task

CLASSES = ("a", "b", "c")


def distinct(count: int, *, start: int = 0, classes: int = 3) -> Split:
    """Images 1x2x2 that differ from each other and from every other range of numbers."""
    numbers = torch.arange(start, start + count)
    inputs = torch.stack([(numbers >> shift) & 255 for shift in (0, 8, 16, 24)], 1).to(torch.uint8).view(-1, 1, 2, 2)
    return Split(inputs=inputs, labels=numbers % classes)


def four(**changed: Any) -> Task:
    roles = {role: distinct(6, start=100 * i) for i, role in enumerate(("owner", "adversary", "calibration", "test"))}
    return Task(**{"name": "toy", "classes": CLASSES, **roles, **changed})


# Split


def test_split_brings_types_to_the_two_it_stores() -> None:
    split = Split(inputs=torch.rand(4, 3, dtype=torch.float64), labels=torch.tensor([0, 1, 1, 2], dtype=torch.int32))
    assert split.inputs.dtype == torch.float32
    assert split.labels.dtype == torch.int64
    assert len(split) == 4


def test_what_rounds_to_float32_within_the_range_is_taken() -> None:
    edges = torch.tensor([[-1e-60, 1 + 1e-9]], dtype=torch.float64)
    assert Split(inputs=edges, labels=torch.tensor([0])).inputs.tolist() == [[0.0, 1.0]]


def test_floats_divides_bytes_by_255() -> None:
    split = Split(inputs=torch.tensor([[0, 255], [51, 102]], dtype=torch.uint8), labels=torch.tensor([0, 1]))
    assert split.floats().dtype == torch.float32
    torch.testing.assert_close(split.floats(), torch.tensor([[0.0, 1.0], [0.2, 0.4]]))
    torch.testing.assert_close(split.floats(torch.tensor([1])), torch.tensor([[0.2, 0.4]]))


@pytest.mark.parametrize(
    ("inputs", "labels", "words"),
    [
        (torch.zeros(2, 3), torch.tensor([0]), "2 inputs but 1 labels"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), "at least 1"),
        (torch.zeros(3), torch.tensor([0, 1, 2]), r"tensor \[N, ...\]"),
        (np.zeros((2, 3)), torch.tensor([0, 1]), "not ndarray"),
        (torch.zeros(2, 3, dtype=torch.int64), torch.tensor([0, 1]), "convert them to uint8"),
        (torch.tensor([[0.5], [float("nan")]]), torch.tensor([0, 1]), "first number 1 .*NaN"),
        (torch.tensor([[0.5], [float("inf")]]), torch.tensor([0, 1]), "first number 1"),
        (torch.tensor([[0.5], [0.1], [-0.1]]), torch.tensor([0, 1, 1]), "first number 2 .*divide"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), "convert them to int64"),
        (torch.zeros(2, 3), torch.tensor([True, False]), "convert them to int64"),
        (torch.zeros(2, 3), torch.tensor([[0], [1]]), r"tensor \[N\]"),
        (torch.zeros(2, 3), [0, 1], "not list"),
        (torch.zeros(2, 3), torch.tensor([0, -1]), "start at 0"),
    ],
)
def test_unusable_splits_are_refused_with_the_reason(inputs: Any, labels: Any, words: str) -> None:
    with pytest.raises(BadData, match=words):
        Split(inputs=inputs, labels=labels)


def test_subset_takes_positions_masks_and_keeps_known_hashes() -> None:
    split = distinct(10)
    all_digests = split.row_digests
    index = torch.tensor([7, 2, 2], dtype=torch.int32)
    chosen = split.subset(index)
    assert chosen.labels.tolist() == [1, 2, 2]
    assert "row_digests" in chosen.__dict__
    assert chosen.row_digests == (all_digests[7], all_digests[2], all_digests[2])
    assert chosen.row_digests == Split(inputs=chosen.inputs, labels=chosen.labels).row_digests
    assert len(chosen.digests()) == 2
    assert split.subset(split.labels == 0).labels.tolist() == [0, 0, 0, 0]
    with pytest.raises(BadData):
        split.subset(split.labels == 5)


def test_digests_are_of_content_not_of_layout_or_label() -> None:
    plain = distinct(5)
    strided = Split(inputs=plain.inputs.transpose(2, 3).contiguous().transpose(2, 3), labels=4 - plain.labels)
    assert plain.row_digests == strided.row_digests
    assert len(plain.digests()) == 5


# Split.from_dataset


class Listed(Dataset[Any]):
    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def test_a_tensor_dataset_and_its_plain_twin_agree() -> None:
    split = distinct(12)
    tensors = TensorDataset(split.inputs, split.labels)
    for dataset in (tensors, Listed(*(tensors[i] for i in range(12))), Subset(tensors, range(12))):
        read = Split.from_dataset(dataset)
        assert torch.equal(read.inputs, split.inputs)
        assert torch.equal(read.labels, split.labels)


def test_limit_spreads_over_a_set_sorted_by_class() -> None:
    labels = torch.arange(30) // 10
    sorted_by_class = TensorDataset(distinct(30).inputs, labels)
    assert Split.from_dataset(sorted_by_class, limit=6).labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(Split.from_dataset(sorted_by_class, limit=99)) == 30
    with pytest.raises(BadConfig):
        Split.from_dataset(sorted_by_class, limit=0)


def test_arrays_become_channels_first() -> None:
    pixels = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    pixels.flags.writeable = False
    read = Split.from_dataset(Listed((pixels, np.int64(1)), (pixels[::-1], 0)))
    assert read.inputs.shape == (2, 3, 2, 4)
    assert read.inputs[0, 2, 1, 3] == pixels[1, 3, 2]
    assert Split.from_dataset(Listed((np.zeros((5, 6), np.uint8), 1))).inputs.shape == (1, 1, 5, 6)
    assert Split.from_dataset(Listed((np.zeros((3, 5, 6), np.float64), 1))).inputs.shape == (1, 3, 5, 6)
    assert Split.from_dataset(Listed((np.zeros(7, np.float32), 1))).inputs.shape == (1, 7)


def test_pil_images_become_bytes() -> None:
    image = pytest.importorskip("PIL.Image")
    red = image.new("RGB", (4, 2), (255, 0, 7))
    read = Split.from_dataset(Listed((red, 0), (red.convert("RGBA"), 1)))
    assert read.inputs.shape == (2, 3, 2, 4)
    assert read.inputs[1, :, 0, 0].tolist() == [255, 0, 7]
    grey = Split.from_dataset(Listed((image.new("L", (4, 2), 9), 0), (image.new("1", (4, 2), 1), 0)))
    assert grey.inputs.shape == (2, 1, 2, 4)
    assert grey.inputs[:, 0, 0, 0].tolist() == [9, 255]


def test_pil_images_of_more_than_eight_bits_keep_their_greys() -> None:
    image = pytest.importorskip("PIL.Image")
    greys = np.array([[0, 255, 256], [32768, 65279, 65535]], dtype=np.uint16)
    wanted = torch.from_numpy(greys.astype(np.float32) / 65535)
    for stored in (greys, greys.astype(">u2")):
        one = image.fromarray(stored)
        assert one.mode.startswith("I;16")
        assert torch.equal(Split.from_dataset(Listed((one, 0))).inputs[0, 0], wanted)
    assert torch.equal(Split.from_dataset(Listed((image.fromarray(wanted.numpy()), 0))).inputs[0, 0], wanted)  # mode F
    with pytest.raises(BadData, match=r"item 0 leave.* 0 to 256: rescale"):
        Split.from_dataset(Listed((image.fromarray(greys[:1].astype(np.float32)), 0)))
    with pytest.raises(BadData, match=r"mode I.*no known range.*/ 65535"):
        Split.from_dataset(Listed((image.fromarray(greys.astype(np.int32)), 0)))


@pytest.mark.parametrize("label", [2, np.uint8(2), torch.tensor(2), torch.tensor([2]), np.array(2)])
def test_integer_labels_of_every_kind(label: Any) -> None:
    assert Split.from_dataset(Listed((torch.zeros(3), label))).labels.tolist() == [2]


OK = (torch.zeros(1, 2, 2), 0)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ((OK, OK, (torch.full((1, 2, 2), 1.5), 0)), "item 2 leave.*1.5.*rescale"),
        ((OK, (torch.full((1, 2, 2), float("nan")), 0)), "item 1 leave.*nan"),
        ((OK, (torch.zeros(1, 3, 2), 0)), "item 1 is .*resize"),
        ((OK, (torch.zeros(1, 2, 2, dtype=torch.uint8), 0)), "item 1 is torch.uint8"),
        ((OK, (torch.zeros(1, 2, 2, dtype=torch.int64), 0)), "item 1 are torch.int64.*convert"),
        ((OK, (np.array([["a"]]), 0)), "item 1 is an array of <U1"),
        ((OK, (OK[0], 0.5)), "item 1 has the label 0.5"),
        ((OK, (OK[0], torch.tensor(1.0))), "item 1 has the label"),
        ((OK, (OK[0], torch.tensor([1, 2]))), "item 1 has the label"),
        ((OK, (OK[0], "cat")), "item 1 has the label 'cat'"),
        ((OK, (OK[0], -1)), "start at 0"),
        ((OK, (OK[0], 10**30)), "item 1 has the label 1000"),
        ((OK, OK[0]), "item 1 is not a readable pair"),
        ((OK, (1, 2, 3)), "item 1 is not a readable pair"),
        ((OK, ("text", 0)), "item 1 is a str"),
        ((OK, (torch.tensor(0.5), 0)), "item 1 is a tensor of shape"),
        ((), "empty"),
    ],
)
def test_the_bad_item_is_named(items: tuple[Any, ...], words: str) -> None:
    with pytest.raises(BadData, match=words):
        Split.from_dataset(Listed(*items))


def test_a_stream_is_refused_with_a_remedy() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            yield OK

    with pytest.raises(BadData, match="map-style"):
        Split.from_dataset(Stream())


# Task


def test_a_task_of_own_splits() -> None:
    task = four(classes=list(CLASSES))
    assert (task.num_classes, task.input_shape, task.classes) == (3, (1, 2, 2), CLASSES)
    assert task.describe() == "toy: 3 classes, image 1x2x2 uint8; owner 6, adversary 6, calibration 6, test 6"


@pytest.mark.parametrize("role", ["adversary", "calibration", "test"])
def test_a_shared_input_is_found_whatever_its_label(role: str) -> None:
    leak = distinct(6, start=5)  # its first input is the owner's last
    with pytest.raises(BadData, match=f"owner and {role} share 1 inputs"):
        four(**{role: Split(inputs=leak.inputs, labels=2 - leak.labels)})


def test_by_the_papers_protocol_the_thief_has_owners_examples_and_nobody_else_has() -> None:
    whole = four(adversary=four().owner, protocol="paper")
    assert whole.describe().endswith("test 6; the adversary's are the owner's")
    four(adversary=four().owner.subset(torch.arange(3)), protocol="paper")
    with pytest.raises(BadData, match="6 of the adversary's inputs are none of the owner's"):
        four(protocol="paper")
    with pytest.raises(BadData, match="owner and adversary share 6 inputs"):
        four(adversary=four().owner)
    for role in ("calibration", "test"):
        with pytest.raises(BadData, match=f"owner and {role} share 1 inputs"):
            four(adversary=four().owner, protocol="paper", **{role: distinct(6, start=5)})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"classes": ("a",)}, "two classes"),
        ({"classes": ("a", "b", "b")}, "distinct"),
        ({"classes": ("a", "b")}, "label 2 but there are 2 classes"),
        ({"test": Split(inputs=torch.zeros(1, 1, 3, 3, dtype=torch.uint8), labels=torch.tensor([0]))}, "test inputs"),
        ({"test": Split(inputs=torch.zeros(1, 1, 2, 2), labels=torch.tensor([0]))}, "float32 but owner"),
    ],
)
def test_splits_that_do_not_fit_are_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(BadData, match=words):
        four(**changed)


def test_the_digest_sees_content_labels_roles_and_classes_but_not_the_name() -> None:
    task = four()
    assert len(task.digest()) == 64
    assert task.digest() == four(name="other").digest()
    relabelled = Split(inputs=task.test.inputs, labels=task.test.labels.flip(0))
    others = [
        four(test=relabelled),
        four(owner=task.adversary, adversary=task.owner),
        four(classes=("a", "b", "d")),
    ]
    assert len({task.digest(), *(other.digest() for other in others)}) == 4


def test_digests_are_those_that_were_recorded_before() -> None:
    def split(number: int) -> Split:
        inputs = torch.arange(60).reshape(4, 1, 3, 5).add(number * 7).remainder(251).to(torch.uint8)
        return Split(inputs=inputs, labels=torch.arange(4) % 2)

    task = Task(name="t", classes=("a", "b"), owner=split(1), adversary=split(2), calibration=split(3), test=split(4))
    assert task.digest() == "f99f9ae9016d4fec1c14b702a3024c4f118519e8bc7f17af443d33d8218db4fa"
    assert task.owner.digest() == "76e2122303a2a1bc6007bf65bc4ce15c4d7f7d32fd5a30a6ae6be6693017e3ab"


# make_task


@st.composite
def problems(draw: st.DrawFn) -> tuple[Split, Split, int]:
    """A training set with copies in it, and a test set that shares some of it."""
    values = st.integers(0, 400)
    train = draw(st.lists(values, min_size=60, max_size=300))
    test = draw(st.lists(st.integers(300, 500), min_size=1, max_size=30))
    label = draw(st.sampled_from([lambda v: v % 3, lambda v: min(v // 30, 2), lambda v: int(v == 0)]))

    def split(numbers: list[int]) -> Split:
        inputs = torch.tensor([[v & 255, v >> 8] for v in numbers], dtype=torch.uint8)
        return Split(inputs=inputs, labels=torch.tensor([label(v) for v in numbers]))

    return split(train), split(test), draw(st.integers(0, 2**40))


@given(problems())
@settings(max_examples=60, deadline=None)
def test_make_task_is_disjoint_stratified_deterministic_and_loses_only_copies(
    problem: tuple[Split, Split, int],
) -> None:
    train, test, seed = problem
    usable = train.digests() - test.digests()
    if len(usable) < 40:
        return
    task = make_task("toy", CLASSES, train, test, seed=seed)
    parts = (task.owner, task.adversary, task.calibration)

    assert sum(len(part) for part in parts) == len(usable)
    assert set().union(*(part.digests() for part in parts)) == usable
    assert torch.equal(task.test.inputs, test.inputs)

    label_of = dict(zip(train.row_digests, train.labels.tolist(), strict=True))
    totals = Counter(label_of[digest] for digest in usable)
    for part, proportion in zip(parts, (0.45, 0.45, 0.10), strict=True):
        assert [label_of[digest] for digest in part.row_digests] == part.labels.tolist()
        counts = Counter(part.labels.tolist())
        few = {label for label, total in totals.items() if 8 <= total < 16}
        assert all(abs(counts[label] - proportion * total) <= 1 + (label in few) for label, total in totals.items())
    kept = Counter(task.calibration.labels.tolist())
    assert all(kept[label] >= 2 for label, total in totals.items() if total >= 8)

    assert make_task("toy", CLASSES, train, test, seed=seed).digest() == task.digest()


def test_the_seed_matters_and_the_global_generator_does_not() -> None:
    train, test = distinct(300), distinct(30, start=1000)
    before = torch.get_rng_state()
    one = make_task("toy", CLASSES, train, test, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(5)
    again = make_task("toy", CLASSES, train, test, seed=1)
    torch.set_rng_state(before)
    other = make_task("toy", CLASSES, train, test, seed=2)
    assert one.digest() == again.digest() != other.digest()
    assert one.owner.digests() != other.owner.digests()


def test_proportions_may_leave_a_rest_and_parts_are_not_sorted_by_class() -> None:
    train, test = distinct(300), distinct(30, start=1000)
    task = make_task("toy", CLASSES, train, test, seed=0, owner=0.2, adversary=0.3, calibration=0.1)
    assert (len(task.owner), len(task.adversary), len(task.calibration)) == (60, 90, 30)
    assert task.owner.labels.tolist() != sorted(task.owner.labels.tolist())


def test_the_papers_owner_has_all_but_what_keys_are_made_of() -> None:
    train, test = distinct(300), distinct(30, start=1000)
    task = make_task("toy", CLASSES, train, test, seed=0, protocol="paper")
    assert (len(task.owner), len(task.adversary), len(task.calibration)) == (285, 285, 15)
    assert task.adversary is task.owner
    assert task.calibration.labels.bincount().tolist() == [5, 5, 5]
    assert task.digest() == make_task("toy", CLASSES, train, test, seed=0, protocol="paper").digest()
    fewer = make_task("toy", CLASSES, train, test, seed=0, protocol="paper", owner=0.2, calibration=0.1)
    assert (len(fewer.owner), len(fewer.calibration)) == (60, 30)


def test_float_inputs_are_split_like_bytes() -> None:
    train, test = distinct(100), distinct(10, start=1000)
    of_bytes = make_task("toy", CLASSES, train, test, seed=3)
    train, test = (Split(inputs=s.floats(), labels=s.labels) for s in (train, test))
    of_floats = make_task("toy", CLASSES, train, test, seed=3)
    assert torch.equal(of_floats.owner.inputs, of_bytes.owner.floats())
    assert of_floats.digest() != of_bytes.digest()


@pytest.mark.parametrize(
    "options",
    [
        {"owner": 0.0},
        {"adversary": -0.1},
        {"owner": 0.6},
        {"calibration": float("nan")},
        {"owner": float("inf")},
        {"owner": 0.96, "protocol": "paper"},
        {"adversary": 0.1, "protocol": "paper"},
        {"protocol": "papers"},
        {"seed": -1},
        {"seed": 2**63},
    ],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(BadConfig):
        make_task("toy", CLASSES, distinct(50), distinct(5, start=1000), **{"seed": 0, **options})


def test_make_task_says_what_is_missing() -> None:
    with pytest.raises(BadData, match="no example is left for calibration"):
        make_task("toy", CLASSES, distinct(6), distinct(5, start=1000), seed=0)
    with pytest.raises(BadData, match="also stands in the test split"):
        make_task("toy", CLASSES, distinct(6), distinct(9), seed=0)
    wild = Split(inputs=distinct(2).inputs, labels=torch.tensor([0, 2 * 10**12]))
    with pytest.raises(BadData, match="label 2000000000000 "):
        make_task("toy", CLASSES, wild, distinct(5, start=1000), seed=0)


# groups


def spoken(counts: list[int], *, seed: int = 0, start: int = 0) -> Split:
    """Examples of so many speakers with so many each, in a mixed order."""
    groups = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    plain = distinct(len(groups), start=start)
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))
    return Split(inputs=plain.inputs, labels=plain.labels, groups=groups[order] + start)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=12, max_size=40), st.integers(0, 2**20))
def test_all_of_a_group_go_to_one_part_and_parts_keep_about_their_proportions(counts: list[int], seed: int) -> None:
    train = spoken(counts, seed=seed)
    task = make_task(
        "toy", CLASSES, train, distinct(9, start=10**6), seed=seed, owner=0.4, adversary=0.4, calibration=0.2
    )
    roles = {"owner": 0.4, "adversary": 0.4, "calibration": 0.2}
    heard = [set(task.splits[role].groups.tolist()) for role in roles]  # type: ignore[union-attr]
    assert sum(map(len, heard)) == len(set.union(*heard)) == len(counts)
    assert sum(len(task.splits[role]) for role in roles) == len(train)
    for role, share in roles.items():
        assert abs(len(task.splits[role]) - share * len(train)) <= max(counts) + len(CLASSES)
    again = make_task(
        "toy", CLASSES, train, distinct(9, start=10**6), seed=seed, owner=0.4, adversary=0.4, calibration=0.2
    )
    assert again.digest() == task.digest()


def test_what_proportions_leave_is_left_in_whole_groups() -> None:
    task = make_task(
        "toy", CLASSES, spoken([3] * 20), distinct(9, start=10**6), seed=0, owner=0.25, adversary=0.25, calibration=0.25
    )
    assert [len(task.splits[role]) for role in ("owner", "adversary", "calibration")] == [15, 15, 15]


def test_a_task_refuses_a_group_in_two_parts_and_groups_that_are_none() -> None:
    with pytest.raises(BadData, match="owner and calibration share 2 groups"):
        four(
            owner=spoken([3, 3]),
            calibration=Split(**{**vars(distinct(6, start=500)), "groups": torch.tensor([0, 0, 1, 1, 1, 1])}),
        )
    with pytest.raises(BadData, match=r"groups are torch.float32 \[6\]: give a tensor \[6\]"):
        Split(inputs=distinct(6).inputs, labels=distinct(6).labels, groups=torch.rand(6))
    with pytest.raises(BadData, match="no example is left for calibration"):
        make_task("toy", CLASSES, spoken([9, 9]), distinct(9, start=10**6), seed=0)
