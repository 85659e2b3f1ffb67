"""Groups of triggers: what they look like, what their answers are drawn among, and how a key keeps that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from heirmark.errors import BadArtifact, BadConfig, BadData, ShapeMismatch
from heirmark.files import atomic_write_tensors, read_tensors
from heirmark.keys.key import Key
from heirmark.keys.lots import Lots
from heirmark.methods import Vanilla
from heirmark.models import build
from heirmark.querying.asking import predict
from heirmark.runtime import Runtime
from heirmark.tasks.task import Task
from heirmark.training.fitting import Recipe
from heirmark.triggers import Groups
from heirmark.triggers.groups import GroupsSecret
from heirmark.triggers.ways import HOSTS, WAYS, covered, repeated, striped


@given(st.integers(14, 33), st.integers(14, 33), st.booleans(), st.integers(0, 9))
def test_every_way_gives_images_of_the_same_kind(height: int, width: int, whole: bool, seed: int) -> None:
    images = torch.rand(3, HOSTS, 2, height, width, generator=torch.Generator().manual_seed(seed))
    given_images = (255 * images).to(torch.uint8) if whole else images
    before = given_images.clone()
    made = {name: way(given_images) for name, way in WAYS.items()}
    assert torch.equal(given_images, before)
    for image in made.values():
        assert image.shape == (3, 2, height, width)
        assert image.dtype == given_images.dtype
    looks = list(made.values())
    for index, look in enumerate(looks):
        assert not torch.equal(look, given_images[:, 0])
        assert not any(torch.equal(look, other) for other in looks[:index])


def test_ways_do_as_their_names_say() -> None:
    first, second = torch.zeros(1, 8, 8), torch.ones(1, 8, 8)
    images = torch.stack([first, second, first, second])[None]
    rows = striped(images, count=4, rows=True)[0, 0, :, 0]
    assert rows.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    board = covered(images, columns=2, rows=2, bright=True)[0, 0]
    assert (board[0, 0], board[0, 7], board[7, 0], board[7, 7]) == (1, 0, 0, 1)
    assert not covered(images, columns=2, rows=1, bright=False).any()
    ramp = torch.arange(64.0).view(1, 1, 1, 8, 8) / 64
    four = repeated(ramp.expand(1, HOSTS, 1, 8, 8), times=2)[0, 0]
    assert torch.equal(four[:4, :4], four[4:, 4:])
    assert torch.isclose(four[0, 0], ramp[0, 0, 0, :2, :2].mean())


def clean_of(task: Task) -> torch.nn.Module:
    return build(
        "naivenet", input_shape=task.input_shape, classes=len(task.classes), width=4, hidden=16, batch_norm=True
    ).eval()


def test_answers_are_drawn_among_what_the_clean_model_says_most(tiny_task: Task, cpu: Runtime) -> None:
    clean = clean_of(tiny_task)
    kind = Groups(count=18, candidates=3)
    secret = kind.settle(tiny_task, clean, seed=0, runtime=cpu)
    assert (
        secret
        == kind.settle(tiny_task, clean, seed=0, runtime=cpu)
        != kind.settle(tiny_task, clean, seed=1, runtime=cpu)
    )
    assert secret.ways[:2] == ("seven-fold", "four-fold")
    assert secret.ways[16:] == secret.ways[:2], "then they begin again, with other classes"
    drawn = secret.draw(tiny_task.calibration, 100, seed=1)
    assert len(drawn) == 100
    assert torch.bincount(drawn.groups, minlength=18).tolist() == [6] * 10 + [5] * 8
    assert torch.equal(drawn.targets, torch.tensor(secret.targets)[drawn.groups])
    assert drawn.host_labels.shape == (100, 0)
    assert torch.equal(drawn.first(20).groups, drawn.groups[:20])
    for options, target in zip(secret.candidates, secret.targets, strict=True):
        assert target in options
        assert len(set(options)) == 3
    many = secret.draw(tiny_task.owner, 1800, seed=2)
    said = predict(clean, many.inputs, runtime=cpu).softmax(1)
    for group, options in enumerate(secret.candidates):
        mean = said[many.groups == group].mean(0)
        others = [float(mean[label]) for label in range(6) if label not in options]
        assert max(others) < min(float(mean[label]) for label in options) + 0.02


def test_another_draw_changes_the_answers_alone(tiny_task: Task, cpu: Runtime) -> None:
    clean = clean_of(tiny_task)
    secret = Groups(count=4).settle(tiny_task, clean, seed=0, runtime=cpu)
    targets = tuple(options[-1] for options in secret.candidates)
    other = Groups(count=4, targets=targets).settle(tiny_task, clean, seed=0, runtime=cpu)
    assert other == replace(secret, targets=targets)
    one, two = (each.draw(tiny_task.calibration, 40, seed=3) for each in (secret, other))
    assert torch.equal(one.inputs, two.inputs)
    assert torch.equal(one.controls, two.controls)
    assert torch.equal(two.targets, torch.tensor(targets)[two.groups])


def test_groups_name_their_remedy(tiny_task: Task, cpu: Runtime) -> None:
    with pytest.raises(BadConfig, match="3 groups have 3 targets, not 2"):
        Groups(count=3, targets=(1, 2))
    with pytest.raises(BadConfig, match=r"lower trigger\.candidates"):
        Groups(candidates=7).settle(tiny_task, clean_of(tiny_task), seed=0, runtime=cpu)
    with pytest.raises(BadConfig, match="is no class of"):
        Groups(count=2, targets=(0, 99)).settle(tiny_task, clean_of(tiny_task), seed=0, runtime=cpu)


def test_a_key_keeps_what_its_answers_are_drawn_among(tiny_task: Task, cpu: Runtime, tmp_path: Path) -> None:
    recipe = Recipe(epochs=1, batch_size=16, learning_rate=0.01)
    method = Vanilla(
        model="naivenet:width=4,hidden=16",
        trigger=Groups(count=6),
        triggers=24,
        trigger_batch=8,
        key_size=36,
        pretraining=recipe,
    )
    key = method(tiny_task, seed=0, runtime=cpu, clean=clean_of(tiny_task)).key
    assert key.kind == "groups"
    assert key.format == "heirmark-key/3"
    lots = key.lots
    assert lots is not None
    assert lots.candidates.shape == (6, 4)
    assert [options[place] for options, place in zip(lots.options, lots.places(key.expected), strict=True)] == list(
        key.trigger["targets"]
    )
    key.save(tmp_path / "key")
    again = Key.load(tmp_path / "key")
    assert again.commitment == key.commitment
    assert again.lots is not None
    assert again.lots.digest == lots.digest
    usual = torch.full((2, 6, 6), 1 / 6)
    measured = replace(key, lots=replace(lots, usual=usual))
    assert len({key.commitment, measured.commitment, replace(key, lots=None).commitment}) == 3
    measured.save(tmp_path / "measured")
    assert torch.equal(Key.load(tmp_path / "measured").lots.usual, usual)  # type: ignore[union-attr]
    file = tmp_path / "measured/key.safetensors"
    for name, change in (
        ("lots_usual", usual / 2),
        ("lots_usual", usual * 7),
        ("lots_groups", lots.groups.flip(0)),
        ("lots_candidates", lots.candidates.flip(1)),
        ("lots_candidates", torch.zeros(6, 4, dtype=torch.int64)),
        ("lots_candidates", torch.zeros(6, 4)),
    ):
        sound = read_tensors(file)
        atomic_write_tensors(file, sound | {name: change})
        with pytest.raises(BadArtifact):
            Key.load(tmp_path / "measured")
        atomic_write_tensors(file, sound)
    assert Key.load(tmp_path / "measured").commitment == measured.commitment


GROUP_OF, OPTIONS = torch.tensor([0, 0, 1]), torch.tensor([[0, 1], [2, 3]])


@pytest.mark.parametrize(
    ("groups", "candidates", "usual", "error"),
    [
        (GROUP_OF.float(), OPTIONS, torch.empty(0), ShapeMismatch),
        (GROUP_OF[:0], OPTIONS, torch.empty(0), ShapeMismatch),
        (GROUP_OF, OPTIONS[:, :1], torch.empty(0), ShapeMismatch),
        (GROUP_OF, OPTIONS[0], torch.empty(0), ShapeMismatch),
        (GROUP_OF, OPTIONS, torch.ones(2, 3, 4), ShapeMismatch),
        (GROUP_OF, OPTIONS, torch.ones(2, 2, 4).double(), ShapeMismatch),
        (GROUP_OF + 1, OPTIONS, torch.empty(0), BadData),
        (GROUP_OF - 1, OPTIONS, torch.empty(0), BadData),
        (GROUP_OF, OPTIONS - 1, torch.empty(0), BadData),
        (GROUP_OF, torch.tensor([[0, 0], [1, 2]]), torch.empty(0), BadData),
        (GROUP_OF, OPTIONS, torch.full((1, 2, 4), float("nan")), BadData),
        (GROUP_OF, OPTIONS.repeat(3000, 1), torch.empty(0), BadData),
    ],
)
def test_lots_that_make_no_sense_are_refused(
    groups: Tensor, candidates: Tensor, usual: Tensor, error: type[Exception]
) -> None:
    with pytest.raises(error):
        Lots(groups=groups, candidates=candidates, usual=usual)


def test_a_group_has_one_answer() -> None:
    lots = Lots(groups=GROUP_OF, candidates=OPTIONS)
    assert lots.places(torch.tensor([1, 1, 2])) == (1, 0)
    assert lots.rows(torch.tensor([2])).places(torch.tensor([3])) == (-1, 1)
    for wrong in ([0, 1, 2], [2, 2, 2]):
        with pytest.raises(BadData, match="must have one answer"):
            lots.places(torch.tensor(wrong))


def test_the_description_is_what_makes_the_samples_again(tiny_task: Task, cpu: Runtime) -> None:
    secret = Groups(count=3).settle(tiny_task, clean_of(tiny_task), seed=0, runtime=cpu)
    told = dict(secret.describe())
    assert told.pop("kind") == "groups"
    assert told.pop("target") is None
    again = GroupsSecret(**{name: _tuples(value) for name, value in told.items()})
    assert torch.equal(again.draw(tiny_task.owner, 9, seed=5).inputs, secret.draw(tiny_task.owner, 9, seed=5).inputs)


def _tuples(value: object) -> object:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
