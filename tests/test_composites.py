"""A thief's composites: made as the triggers that they are guesses at, of all classes in all orders, as many as can be."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heirmark.attacks.composites import (
    KIND_OF,
    KINDS,
    LAYOUTS,
    SOURCES,
    combine,
    compose,
    compose_all,
    draw_sources,
    fitting,
    pick_each,
    shares_of,
    wrong_labels,
)
from heirmark.attacks.removal.overwriting import Overwriting
from heirmark.errors import BadConfig, BadData, ShapeMismatch
from heirmark.runtime import Runtime
from heirmark.tasks import combining
from heirmark.tasks.combining import REGIONS
from heirmark.tasks.space import check_needs
from heirmark.tasks.task import Split, Task
from heirmark.triggers.combiners import Combine, CropPaste, PixelBlend, Stripes
from heirmark.triggers.patch import Patch
from heirmark.triggers.tiles import tile

# How each layout of two images is called among the owner's triggers.
TRIGGERS: dict[str, Combine] = {
    "left-right": CropPaste(region="right"),
    "top-bottom": CropPaste(region="bottom"),
    "diagonal": CropPaste(region="diagonal"),
    "centre": CropPaste(region="centre"),
    "band": CropPaste(region="band"),
    "blend": PixelBlend(),
    "columns": Stripes(),
    "rows": Stripes(direction="rows"),
}


def stored_images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


# ---------------------------------------------------------------- one image of several


@pytest.mark.parametrize("layout", TRIGGERS)
@pytest.mark.parametrize("side", [16, 17])
def test_a_thiefs_mix_is_the_owners(layout: str, side: int) -> None:
    pairs = stored_images(5, 2, 3, side, side)
    for images in (pairs, pairs.float() / 255):
        wanted = TRIGGERS[layout](images[:, 0], images[:, 1])
        made = combine(images, layout)
        assert made.dtype == images.dtype
        assert torch.equal(made, wanted)


def test_every_way_to_mix_two_is_among_the_thiefs() -> None:
    """The left half pasted over is the right half of the same two in the other order."""
    assert {layout for layout in LAYOUTS if SOURCES[layout] == 2} == {"halves", "insets", "blend", "stripes"}
    assert set(TRIGGERS) == {layout for layout, kind in KIND_OF.items() if SOURCES[kind] == 2}
    pairs = stored_images(4, 2, 1, 8, 8)
    swapped = pairs.flip(1)
    for name, layout in (("left", "left-right"), ("top", "top-bottom")):
        assert torch.equal(CropPaste(region=name)(pairs[:, 0], pairs[:, 1]), combine(swapped, layout))  # type: ignore[arg-type]
    assert set(REGIONS) == {"left", "right", "top", "bottom", "diagonal", "centre", "band"}


def test_a_thiefs_tiles_and_squares_are_the_owners(tiny_task: Task, cpu: Runtime) -> None:
    images = stored_images(6, 4, 3, 12, 10)
    for each in (images, images.float() / 255):
        assert torch.equal(combine(each, "tiles"), tile(each))
    for corner in LAYOUTS["patch"]:
        secret = Patch(corner=corner).settle(tiny_task, torch.nn.Identity(), seed=0)  # type: ignore[arg-type]
        drawn = secret.draw(tiny_task.calibration, 9, seed=0)
        assert torch.equal(combine(drawn.controls[:, None], corner), drawn.inputs)


@pytest.mark.parametrize("layout", KIND_OF)
def test_a_composite_shows_its_sources_by_their_share(layout: str) -> None:
    """Of plain grey images the mean of a composite tells how much of each it shows."""
    greys = torch.tensor([0.1, 0.9, 0.4, 0.6])[: SOURCES[KIND_OF[layout]]]
    images = greys[None, :, None, None, None].expand(2, -1, 3, 20, 20)
    made = combine(images, layout)
    assert made.shape == (2, 3, 20, 20)
    if KIND_OF[layout] == "patch":
        assert int((made[0, 0] == 1).sum()) == 4
        assert shares_of(layout, (3, 20, 20)) == (1.0,)
        return
    weights = torch.tensor(shares_of(layout, (3, 20, 20)))
    assert float(weights.sum()) == pytest.approx(1)
    assert float(made.mean()) == pytest.approx(float((weights * greys).sum()), abs=1e-5)


def test_shares_are_areas() -> None:
    second = {layout: shares_of(layout, (1, 20, 20))[1] for layout in TRIGGERS}
    assert second == pytest.approx(
        {"left-right": 0.5, "top-bottom": 0.5, "diagonal": 0.475, "centre": 0.25, "band": 0.5, "blend": 0.5}
        | {"columns": 0.4, "rows": 0.4}
    )


@pytest.mark.parametrize("layout", KIND_OF)
@given(side=st.integers(10, 33), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_composites_keep_type_and_range(layout: str, side: int, seed: int) -> None:
    images = stored_images(3, SOURCES[KIND_OF[layout]], 2, side, side + 1, seed=seed)
    before = images.clone()
    stored, floats = combine(images, layout), combine(images.float() / 255, layout)
    assert stored.dtype == torch.uint8
    assert stored.shape == floats.shape == (3, 2, side, side + 1)
    assert float((stored.float() / 255 - floats).abs().max()) <= 0.5 / 255 + 1e-6
    assert 0 <= float(floats.min()) <= float(floats.max()) <= 1
    assert torch.equal(images, before)


def test_tiles_lie_row_by_row_also_of_odd_sides() -> None:
    images = torch.arange(4.0)[None, :, None, None, None].expand(1, 4, 1, 5, 4)
    assert combining.mosaic(images)[0, 0].tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 3
    exact = torch.rand(1, 4, 1, 7, 5, generator=torch.Generator().manual_seed(0))
    made = combining.mosaic(exact)
    assert made.shape == (1, 1, 7, 5)
    assert float(made[0, 0, 0, 0]) == pytest.approx(float(exact[0, 0, 0, :3, :3].mean()), rel=1e-5)
    with pytest.raises(ShapeMismatch, match="of 4 images, not of 3"):
        combining.mosaic(exact[:, :3])


# ---------------------------------------------------------------- of which classes


def test_all_ordered_choices_come_up_equally_often(tiny_task: Task) -> None:
    generator = torch.Generator().manual_seed(0)
    present = torch.tensor([1, 4, 5, 9])
    pairs = draw_sources(present, 2, 36, generator)
    seen, times = pairs.unique(dim=0, return_counts=True)
    assert len(seen) == 12
    assert times.tolist() == [3] * 12
    few = draw_sources(present, 4, 7, generator)
    assert all(sorted(row) == [1, 4, 5, 9] for row in few.tolist())
    with pytest.raises(BadData, match="not of 4"):
        draw_sources(present, 5, 1, generator)
    labels = tiny_task.adversary.labels
    wanted = draw_sources(labels.unique(), 3, 50, generator)
    assert torch.equal(labels[pick_each(labels, wanted, generator)], wanted)


def test_composites_carry_the_shares_of_their_classes(tiny_task: Task) -> None:
    made = compose_all(tiny_task.adversary, KINDS, 121, classes=6, seed=1)
    assert made.inputs.shape == (121, 1, 16, 16)
    assert made.inputs.dtype == torch.uint8
    assert torch.allclose(made.shares.sum(1), torch.ones(121))
    counts = (made.shares > 0).sum(1).bincount().tolist()
    assert counts == [0, 20, 80, 0, 21]  # patches; halves, insets, blends and stripes; tiles
    wrong = wrong_labels(made.shares, seed=1)
    assert bool((made.shares[torch.arange(121), wrong] == 0).all())
    assert len(wrong.unique()) == 6
    with pytest.raises(BadData, match="leaves none that would be wrong"):
        wrong_labels(torch.full((2, 2), 0.5), seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_composite_of_known_classes_shows_just_these(kind: str, tiny_task: Task) -> None:
    sources = torch.tensor([5, 0, 3, 2])[: SOURCES[kind]]
    for layout in (None, LAYOUTS[kind][-1]):
        made = compose(tiny_task.adversary, kind, 30, classes=6, seed=0, sources=sources, layout=layout)
        assert {tuple(row.nonzero().flatten().tolist()) for row in made.shares} == {tuple(sorted(sources.tolist()))}
        if layout is not None:
            assert len(made.shares.unique(dim=0)) == 1


def test_composites_other_than_blends_need_images() -> None:
    flat = Split(inputs=torch.rand(12, 7), labels=torch.arange(12) % 3)
    assert compose(flat, "blend", 6, classes=3, seed=0).inputs.shape == (6, 7)
    check_needs(Overwriting(kind="blend"), flat.space)
    with pytest.raises(BadConfig, match=r"Overwriting needs images.*shape \(7,\): give such, or blend them"):
        check_needs(Overwriting(kind="halves"), flat.space)


@given(classes=st.integers(1, 8), spare=st.integers(0, 2))
def test_kinds_that_need_more_classes_than_there_are_drop_out(classes: int, spare: int) -> None:
    if classes < 1 + spare:
        with pytest.raises(BadData, match=f"at least {1 + spare} classes, not {classes}: choose other kinds"):
            fitting(KINDS, classes, spare=spare)
        return
    left = fitting(KINDS, classes, spare=spare)
    assert left == tuple(kind for kind in KINDS if SOURCES[kind] + spare <= classes)
    assert "patch" in left
    with pytest.raises(BadData, match="tiles need at least 4"):
        fitting(("tiles",), 3)
