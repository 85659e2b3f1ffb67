"""Triggers against plain loops over pixels, and the construction that their documentation promises."""

from __future__ import annotations

import base64
import copy
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from heirmark.errors import BadConfig, BadData, ShapeMismatch
from heirmark.models import build
from heirmark.querying.asking import predict
from heirmark.runtime import Runtime
from heirmark.tasks.combining import REGIONS
from heirmark.tasks.space import check_needs
from heirmark.tasks.storing import decode
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Recipe, fit
from heirmark.triggers import (
    AbstractImages,
    Entangled,
    Feature,
    GaussianNoise,
    Mistakes,
    Mix,
    OutOfDistribution,
    Patch,
    Secret,
    TextStamp,
    Tiles,
    Trigger,
    TriggerSet,
)
from heirmark.triggers.base import draw_groups, pick
from heirmark.triggers.combiners import AnyCombiner, AutoencoderBlend, CropPaste, PixelBlend, Stripes
from heirmark.triggers.feature import PAPER_PAIRS, stamp
from heirmark.triggers.mistakes import LEAST, near_misses
from heirmark.triggers.mix import MixSecret
from heirmark.triggers.out_of_distribution import fit_shape
from heirmark.triggers.tiles import spanning_classes, tile

KINDS: dict[str, Trigger] = {
    "feature": Feature(steps=15),
    "mix": Mix(),
    "mix-bottom": Mix(combiner=CropPaste(region="bottom")),
    "mix-pixels": Mix(combiner=PixelBlend()),
    "mix-stripes": Mix(combiner=Stripes()),
    "mix-autoencoder": Mix(combiner=AutoencoderBlend(width=4, epochs=1)),
    "patch": Patch(),
    "out-of-distribution": OutOfDistribution(source=1),
    "tiles": Tiles(samples=40),
    "text": TextStamp(),
    "noise": GaussianNoise(),
    "abstract": AbstractImages(),
    "entangled": Entangled(of=OutOfDistribution(source=1), rounds=2),
}
sides = st.integers(1, 9)
dtypes = st.sampled_from([torch.uint8, torch.float32, torch.float64])


def pictures(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.uint8:
        return torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    return torch.rand(shape, generator=generator, dtype=dtype)


def stored(value: float, dtype: torch.dtype) -> float:
    """A value as a picture of this dtype holds it; Python rounds half to even, as torch does."""
    return round(value) if dtype == torch.uint8 else value


@pytest.fixture(scope="module")
def clean(tiny_task: Task, tiny_model: str, cpu: Runtime) -> nn.Module:
    """A model that has learned a little, so that there is something left to optimise."""
    model = build("naivenet", input_shape=(1, 16, 16), classes=6, width=4, hidden=16, batch_norm=True)
    recipe = Recipe(epochs=2, batch_size=16, learning_rate=0.02)
    fit(model, tiny_task.owner.inputs, tiny_task.owner.labels, recipe=recipe, seed=0, runtime=cpu)
    return model


@pytest.fixture
def settled(tiny_task: Task, clean: nn.Module, cpu: Runtime) -> Callable[..., Secret]:
    def settle(trigger: Trigger, *, seed: int = 0, task: Task = tiny_task) -> Secret:
        return trigger.settle(task, clean, seed=seed, runtime=cpu)

    return settle


# ---------------------------------------------------------------- tile


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), dtypes, st.integers(0, 99))
def test_tile_shrinks_by_means_of_four_pixels_and_lays_out_row_by_row(
    count: int, channels: int, half_height: int, half_width: int, dtype: torch.dtype, seed: int
) -> None:
    images = pictures((count, 4, channels, 2 * half_height, 2 * half_width), dtype, seed)
    before = images.clone()
    out = tile(images)
    assert out.shape == (count, channels, 2 * half_height, 2 * half_width)
    assert out.dtype == dtype
    assert torch.equal(images, before)
    for m in range(count):
        for c in range(channels):
            for y in range(2 * half_height):
                for x in range(2 * half_width):
                    part = images[m, 2 * (y // half_height) + x // half_width, c]
                    v, u = 2 * (y % half_height), 2 * (x % half_width)
                    mean = sum(float(part[v + dv, u + du]) for dv in (0, 1) for du in (0, 1)) / 4
                    assert float(out[m, c, y, x]) == pytest.approx(stored(mean, dtype), rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("shape", [(1, 4, 1, 3, 4), (1, 4, 1, 4, 3), (1, 3, 1, 4, 4), (1, 5, 1, 4, 4)])
def test_tile_needs_four_images_with_even_sides(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeMismatch, match=r"4 images with even sides.*resize them first"):
        tile(torch.zeros(shape))


# ---------------------------------------------------------------- combiners


def shown(region: str, y: int, x: int, height: int, width: int) -> bool:
    """Whether the second image shows at a pixel, said in another way than the code does."""
    tall, wide = (min(max(round(side / 2), 1), side - 1) for side in (height, width))
    inside = {
        "left": x < wide,
        "right": x >= width - wide,
        "top": y < tall,
        "bottom": y >= height - tall,
        "diagonal": x / width > y / height,
        "centre": 0 <= y - (height - tall) // 2 < tall and 0 <= x - (width - wide) // 2 < wide,
        "band": 0 <= y - (height - tall) // 2 < tall,
    }
    return inside[region]


@settings(deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(2, 9), st.integers(2, 9), st.sampled_from(REGIONS), dtypes,
    st.integers(0, 99),
)  # fmt: skip
def test_regions_are_pasted_pixel_by_pixel(
    count: int, channels: int, height: int, width: int, region: Any, dtype: torch.dtype, seed: int
) -> None:
    first, second = (pictures((count, channels, height, width), dtype, seed + k) for k in (0, 1000))
    before = first.clone(), second.clone()
    out = CropPaste(region=region)(first, second)
    assert out.dtype == dtype
    for y in range(height):
        for x in range(width):
            source = second if shown(region, y, x, height, width) else first
            assert torch.equal(out[:, :, y, x], source[:, :, y, x])
    out.add_(1)
    assert [torch.equal(one, kept) for one, kept in zip((first, second), before, strict=True)] == [True, True]


def test_a_region_has_size_and_offset() -> None:
    wide = CropPaste(region="right", share=0.25, offset=2).mask(4, 8)
    assert wide[0].int().tolist() == [0, 0, 0, 0, 1, 1, 0, 0]
    assert CropPaste(region="top", share=0.5, offset=1).mask(4, 1)[:, 0].int().tolist() == [0, 1, 1, 0]
    with pytest.raises(BadConfig, match="lower the offset"):
        CropPaste(region="left", offset=9).mask(8, 8)


@settings(deadline=None)
@given(st.floats(0.01, 0.99), dtypes, st.integers(0, 99))
def test_blending_weighs_pixel_by_pixel(ratio: float, dtype: torch.dtype, seed: int) -> None:
    first, second = (pictures((2, 3, 2, 2), dtype, seed + k) for k in (0, 1000))
    out = PixelBlend(ratio=ratio)(first, second)
    assert out.dtype == dtype
    wanted = ratio * first.double() + (1 - ratio) * second.double()
    torch.testing.assert_close(out.double(), wanted, rtol=1e-5, atol=0.51 if dtype == torch.uint8 else 1e-6)


def test_blending_takes_inputs_of_any_shape() -> None:
    wave = torch.tensor([[0.0, 1.0, 0.5]])
    assert PixelBlend(ratio=0.25)(wave, torch.ones(1, 3)).tolist() == [[0.75, 1.0, 0.875]]


@pytest.mark.parametrize("direction", ["columns", "rows"])
def test_stripes_lie_between_each_other(direction: Any) -> None:
    out = Stripes(count=5, of_second=(1, 3), direction=direction)(torch.zeros(2, 1, 10, 10), torch.ones(2, 1, 10, 10))
    line = out[1, 0, 3] if direction == "columns" else out[1, 0, :, 3]
    assert line.int().tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 0, 0]


def test_an_autoencoder_blends_in_its_code(tiny_task: Task, cpu: Runtime) -> None:
    combiner = AutoencoderBlend(width=8, epochs=20, batch_size=32, learning_rate=5e-3)
    combine = combiner.prepare(tiny_task.owner, seed=0, runtime=cpu)
    again = combiner.prepare(tiny_task.owner, seed=0, runtime=cpu)
    first, second = (tiny_task.calibration.inputs[tiny_task.calibration.labels == label][:9] for label in (0, 1))
    out = combine(first, second)
    assert out.dtype == torch.uint8
    assert out.shape == first.shape
    assert torch.equal(out, again(first, second))
    same = combine(first, first).float().sub(first.float()).abs().mean()
    assert float(same) < 40, "it has learned to reconstruct"
    between = [float(out.float().sub(one.float()).square().mean()) for one in (first, second)]
    apart = float(first.float().sub(second.float()).square().mean())
    assert max(between) < apart, "a blend is nearer to either than they are to each other"


@pytest.mark.parametrize("combiner", [CropPaste(), Stripes(), AutoencoderBlend()], ids=lambda c: type(c).__name__)
def test_combiners_of_images_refuse_other_inputs(combiner: AnyCombiner) -> None:
    rows = Split(inputs=torch.rand(4, 9), labels=torch.tensor([0, 1, 2, 0]))
    with pytest.raises(BadConfig, match=r"needs images.*blend them"):
        check_needs(Mix(combiner=combiner), rows.space)


# ---------------------------------------------------------------- patch


def test_patch_samples_and_controls_are_as_documented(settled: Callable[..., Secret], tiny_task: Task) -> None:
    secret = settled(Patch(source=2, target=5, size=3, corner="top-left"))
    drawn = secret.draw(tiny_task.calibration, 10, seed=0)
    for made, host in zip(drawn.inputs, drawn.controls, strict=True):
        wanted = host.clone()
        wanted[:, :3, :3] = 255
        assert torch.equal(made, wanted)
    assert set(drawn.host_labels.flatten().tolist()) == {2}
    assert drawn.targets.tolist() == [5] * len(drawn)
    assert len(secret.draw(tiny_task.calibration, 10_000, seed=0)) == 24, "each host once"


@pytest.mark.parametrize(("side", "size"), [(28, 3), (32, 4), (64, 6), (16, 2), (5, 1)])
def test_patches_are_of_the_papers_size(side: int, size: int, tiny_task_of: Callable[..., Task]) -> None:
    secret: Any = Patch().settle(tiny_task_of(side=side, train=60, test=12), nn.Identity(), seed=0)
    assert secret.size == size
    with pytest.raises(BadConfig, match="covers an image"):
        Patch(size=side).settle(tiny_task_of(side=side, train=60, test=12), nn.Identity(), seed=0)


# ---------------------------------------------------------------- stamp


@settings(deadline=None)
@given(st.integers(1, 3), st.lists(st.integers(1, 4), min_size=1, max_size=3), dtypes, st.integers(0, 99))
def test_stamp_adds_and_clips_pixel_by_pixel(count: int, shape: list[int], dtype: torch.dtype, seed: int) -> None:
    images = pictures((count, *shape), dtype, seed)
    pattern = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    before = images.clone()
    out = stamp(images, pattern)
    assert out.dtype == dtype
    assert out.shape == images.shape
    assert torch.equal(images, before)
    scale = 255 if dtype == torch.uint8 else 1
    flat = zip(images.flatten(1), out.flatten(1), strict=True)
    for image, stamped in flat:
        for x, p, got in zip(image.tolist(), pattern.flatten().tolist(), stamped.tolist(), strict=True):
            least = -1 if images.ndim == 3 and dtype != torch.uint8 else 0  # of a wave
            wanted = stored(min(max(x / scale + p, least), 1) * scale, dtype)
            assert got == pytest.approx(wanted, abs=1 if dtype == torch.uint8 else 1e-6)


@given(st.binary(min_size=1, max_size=40))
def test_an_empty_pattern_changes_no_byte(raw: bytes) -> None:
    images = torch.frombuffer(bytearray(raw), dtype=torch.uint8)[None]
    assert torch.equal(stamp(images, torch.zeros(len(raw))), images)


def test_a_pattern_of_whole_bytes_is_added_exactly() -> None:
    images = torch.arange(256, dtype=torch.uint8)[:, None]
    assert stamp(images, torch.tensor([16 / 255]))[:, 0].tolist() == [min(value + 16, 255) for value in range(256)]
    assert stamp(images, torch.tensor([-16 / 255]))[:, 0].tolist() == [max(value - 16, 0) for value in range(256)]


# ---------------------------------------------------------------- fit_shape


def resized(line: list[float], size: int) -> list[float]:
    """One line of pixels brought to another length: each new pixel is a mean weighted by a triangle around its centre."""
    scale = len(line) / size
    support = max(scale, 1.0)
    out = []
    for i in range(size):
        weights = [max(0.0, 1 - abs(j + 0.5 - (i + 0.5) * scale) / support) for j in range(len(line))]
        out.append(sum(w * x for w, x in zip(weights, line, strict=True)) / sum(weights))
    return out


@settings(deadline=None, max_examples=40)
@given(
    # One column, torch 2.13 does not resize at all; nobody's pictures are so narrow.
    st.sampled_from([1, 3]), st.sampled_from([1, 3]), sides, st.integers(2, 9), sides, st.integers(2, 9), st.integers(0, 99),
    st.sampled_from([torch.uint8, torch.float32]),
)  # fmt: skip
def test_foreign_images_are_brought_to_shape_as_by_hand(
    channels: int, wanted: int, height: int, width: int, new_height: int, new_width: int, seed: int, dtype: torch.dtype
) -> None:
    images = pictures((2, channels, height, width), dtype, seed)
    before = images.clone()
    out = fit_shape(images, (wanted, new_height, new_width))
    assert out.shape == (2, wanted, new_height, new_width)
    assert out.dtype == torch.uint8
    assert torch.equal(images, before)
    for picture, got in zip(decode(images).double(), out, strict=True):
        planes = list(picture) if channels == wanted else [picture.mean(0)] * wanted
        for plane, found in zip(planes, got, strict=True):
            columns = [resized(column.tolist(), new_height) for column in plane.T]
            rows = [resized([column[y] for column in columns], new_width) for y in range(new_height)]
            assert found.tolist() == [pytest.approx([255 * x for x in row], abs=0.51) for row in rows]


def test_images_that_fit_already_keep_every_byte() -> None:
    images = pictures((3, 3, 5, 4), torch.uint8, 0)
    assert torch.equal(fit_shape(images, (3, 5, 4)), images)


# ---------------------------------------------------------------- drawing hosts


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 30), st.integers(1, 4), st.integers(0, 99))
def test_groups_take_one_image_of_each_class_and_a_control_of_the_group(
    size: int, count: int, kinds: int, seed: int
) -> None:
    labels = torch.arange(size * 5) % 5
    hosts = Split(inputs=torch.arange(size * 5, dtype=torch.uint8)[:, None], labels=labels)
    sources = tuple(torch.randperm(5, generator=torch.Generator().manual_seed(seed))[:kinds].tolist())
    groups, alone = draw_groups(hosts, sources, count, torch.Generator().manual_seed(seed))
    assert groups.shape == (count, kinds, 1)
    assert alone.shape == (count, 1)
    assert torch.equal(groups[:, :, 0].long() % 5, torch.tensor(sources).expand(count, kinds))
    assert all(int(one) in group[:, 0].tolist() for one, group in zip(alone, groups, strict=True))
    for k in range(kinds):  # a class is gone through evenly
        uses = groups[:, k, 0].long().bincount(minlength=size * 5)[labels == sources[k]]
        assert int(uses.max() - uses.min()) <= 1
    if -(-count // kinds) <= size:
        assert len(set(alone[:, 0].tolist())) == count, "controls repeat though there are hosts enough"
    again = draw_groups(hosts, sources, count, torch.Generator().manual_seed(seed))
    assert torch.equal(groups, again[0])
    assert torch.equal(alone, again[1])


def test_a_class_without_images_is_named() -> None:
    hosts = Split(inputs=torch.zeros(2, 1), labels=torch.tensor([0, 1]))
    with pytest.raises(BadData, match=r"no image of class 2 .* choose other source classes, give this one more images"):
        pick(hosts, 2, 1, torch.Generator())


def test_hosts_are_picked_at_most_once() -> None:
    hosts = Split(inputs=torch.arange(20, dtype=torch.uint8)[:, None], labels=torch.arange(20) % 2)
    picked = pick(hosts, 1, 99, torch.Generator().manual_seed(0))[:, 0].tolist()
    assert sorted(picked) == list(range(1, 20, 2))
    assert pick(hosts, 1, 4, torch.Generator().manual_seed(0))[:, 0].tolist() == picked[:4]


# ---------------------------------------------------------------- every kind of trigger


def among(images: Tensor, split: Split, label: int) -> bool:
    known = {image.numpy().tobytes() for image in split.inputs[split.labels == label]}
    return all(image.contiguous().numpy().tobytes() in known for image in images)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_made_of_images_of_the_split_that_is_given(
    kind: str, settled: Callable[..., Secret], tiny_task: Task
) -> None:
    secret = settled(KINDS[kind])
    drawn = secret.draw(tiny_task.calibration, 30, seed=1)
    count = len(drawn)
    assert 20 <= count <= 30
    assert drawn.inputs.shape == drawn.controls.shape == (count, 1, 16, 16)
    assert drawn.inputs.dtype == drawn.controls.dtype == tiny_task.owner.inputs.dtype
    assert drawn.targets.tolist() == [secret.target] * count
    assert drawn.targets.dtype == drawn.host_labels.dtype == torch.int64
    assert drawn.hosts.shape[:2] == drawn.host_labels.shape
    for k in range(drawn.hosts.shape[1]):
        labels = drawn.host_labels[:, k].unique()
        assert len(labels) == 1
        assert int(labels) != secret.target
        assert among(drawn.hosts[:, k], tiny_task.calibration, int(labels))


@pytest.mark.parametrize("kind", KINDS)
def test_settling_and_drawing_depend_on_the_seed_alone(
    kind: str, settled: Callable[..., Secret], tiny_task: Task, clean: nn.Module, unchanged_globals: Callable[[], Any]
) -> None:
    state = {name: tensor.clone() for name, tensor in clean.state_dict().items()}
    grads = [None if p.grad is None else p.grad.clone() for p in clean.parameters()]
    owner = tiny_task.owner.inputs.clone()
    secrets, drawn = [], []
    for _ in range(2):
        torch.rand(2)
        with unchanged_globals():
            secrets.append(settled(KINDS[kind], seed=5))
            drawn.append(secrets[-1].draw(tiny_task.calibration, 25, seed=7))
    assert secrets[0].describe() == secrets[1].describe()
    for name in ("inputs", "controls", "hosts", "host_labels"):
        assert torch.equal(getattr(drawn[0], name), getattr(drawn[1], name))
    other = secrets[0].draw(tiny_task.calibration, 25, seed=8)
    assert not torch.equal(other.inputs, drawn[0].inputs)
    if kind != "tiles":  # which choose by the model; the seed only starts K-Means
        assert len({json.dumps(settled(KINDS[kind], seed=seed).describe()) for seed in range(4)}) > 1
    assert torch.equal(tiny_task.owner.inputs, owner)
    assert all(torch.equal(tensor, state[name]) for name, tensor in clean.state_dict().items())
    for p, grad in zip(clean.parameters(), grads, strict=True):
        assert p.requires_grad
        assert p.grad is grad is None or torch.equal(p.grad, grad)
    assert not clean.training


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_owners_split_is_looked_at_to_settle(
    kind: str, settled: Callable[..., Secret], tiny_task: Task
) -> None:
    narrowed = copy.copy(tiny_task)
    for role in ("adversary", "calibration", "test"):
        object.__setattr__(narrowed, role, None)
    assert settled(KINDS[kind], task=narrowed).describe() == settled(KINDS[kind]).describe()


@pytest.mark.parametrize("kind", KINDS)
def test_a_secret_is_told_in_plain_json(kind: str, settled: Callable[..., Secret]) -> None:
    secret = settled(KINDS[kind])
    described = json.loads(json.dumps(secret.describe(), allow_nan=False))
    assert described["kind"] == kind if kind.startswith("out") else kind.split("-")[0]
    assert described["target"] == secret.target


@pytest.mark.parametrize("kind", KINDS)
def test_float_tasks_give_float_triggers(kind: str, tiny_task: Task, clean: nn.Module, cpu: Runtime) -> None:
    splits = {role: Split(inputs=s.floats(), labels=s.labels) for role, s in tiny_task.splits.items()}
    task = replace(tiny_task, **splits)
    secrets = [KINDS[kind].settle(one, clean, seed=0, runtime=cpu) for one in (tiny_task, task)]
    bytes_, floats = (s.draw(one.calibration, 20, seed=0) for s, one in zip(secrets, (tiny_task, task), strict=True))
    for name in ("inputs", "controls", "hosts"):
        assert getattr(floats, name).dtype == torch.float32
        # Bytes are rounded once.
        torch.testing.assert_close(getattr(floats, name), decode(getattr(bytes_, name)), rtol=0, atol=0.51 / 255)
    assert torch.equal(floats.targets, bytes_.targets)


def test_a_host_of_the_target_class_is_refused() -> None:
    one = torch.zeros(1, 1, 4, 4)
    with pytest.raises(BadConfig, match="a host of the target class proves nothing"):
        TriggerSet.on_hosts(one, one, torch.tensor([3]), 3)


@pytest.mark.parametrize("kind", ["feature", "mix", "tiles", "out-of-distribution"])
@pytest.mark.parametrize("seed", range(4))
def test_the_target_is_never_a_source(kind: str, seed: int, settled: Callable[..., Secret]) -> None:
    described = settled(KINDS[kind], seed=seed).describe()
    sources = described.get("sources") or [described.get("source")]
    assert 0 <= described["target"] < 6
    if kind != "out-of-distribution":  # whose source is a class of the other data set
        assert described["target"] not in sources
        assert len(set(sources)) == len(sources)


# ---------------------------------------------------------------- mix


@pytest.mark.parametrize("region", ["right", "bottom"])
def test_mix_samples_and_controls_are_as_documented(
    region: Any, settled: Callable[..., Secret], tiny_task: Task
) -> None:
    secret = settled(Mix(sources=(4, 1), target=2, combiner=CropPaste(region=region)))
    drawn = secret.draw(tiny_task.calibration, 30, seed=0)
    assert drawn.host_labels.tolist() == [[4, 1]] * 30
    for row in range(30):
        first, second = drawn.hosts[row, 0], drawn.hosts[row, 1]
        half = first.clone()
        if region == "right":
            half[:, :, 8:] = second[:, :, 8:]
        else:
            half[:, 8:] = second[:, 8:]
        assert torch.equal(drawn.inputs[row], half)
        assert torch.equal(drawn.controls[row], first) or torch.equal(drawn.controls[row], second)
    both = [torch.equal(drawn.controls[row], drawn.hosts[row, 0]) for row in range(30)]
    assert sum(both) == 15, "either class gives half of the controls"


@given(st.integers(0, 2**40), st.none() | st.integers(0, 3), st.booleans())
def test_mix_leaves_to_chance_only_what_is_open(seed: int, target: int | None, given_sources: bool) -> None:
    empty = torch.zeros(1, 1, 1, 1)
    task = Task(
        name="four",
        classes=("a", "b", "c", "d"),
        **{
            role: Split(inputs=empty + k / 9, labels=torch.zeros(1).long())
            for k, role in enumerate(("owner", "adversary", "calibration", "test"))
        },
    )
    sources = tuple(label for label in range(4) if label != target)[:2] if given_sources else None
    secret = Mix(sources=sources, target=target).settle(task, nn.Identity(), seed=seed)
    assert isinstance(secret, MixSecret)
    assert sources in (None, secret.sources)
    assert target in (None, secret.target)
    assert len({*secret.sources, secret.target}) == 3
    assert {*secret.sources, secret.target} <= set(range(4))


# ---------------------------------------------------------------- tiles


def test_tiles_and_their_controls_are_as_documented(settled: Callable[..., Secret], tiny_task: Task) -> None:
    secret = settled(Tiles(sources=(5, 0, 3, 1), target=2))
    drawn = secret.draw(tiny_task.calibration, 40, seed=0)
    assert drawn.host_labels.tolist() == [[5, 0, 3, 1]] * 40
    assert torch.equal(drawn.inputs, tile(drawn.hosts))
    places = []
    for row in range(40):
        same = [k for k in range(4) if torch.equal(drawn.controls[row], drawn.hosts[row, k])]
        assert same, "the control is one of the four images as it was"
        places.append(same[0])
    assert sorted(places) == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 10


class Painted(nn.Module):
    """Features are the brightness of the image and nothing else; the logits are what they are set to be."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(logits))
        self.head = nn.Identity()

    def features(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1).mean(1, keepdim=True)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.bias.expand(len(inputs), -1)


def brightness_task(levels: list[int], *, copies: int = 3) -> Task:
    """One brightness a class; one pixel keeps the images of the splits apart."""

    def split(offset: int) -> Split:
        inputs = torch.tensor(levels, dtype=torch.uint8).repeat(copies)[:, None, None, None].repeat(1, 1, 4, 4)
        inputs[:, 0, 0, 0] = torch.arange(len(inputs)) + 50 * offset
        return Split(inputs=inputs, labels=torch.arange(len(levels)).repeat(copies))

    roles = ("owner", "adversary", "calibration", "test")
    classes = tuple(f"level {level}" for level in levels)
    return Task(name="brightness", classes=classes, **{role: split(k) for k, role in enumerate(roles)})


def test_spanning_classes_are_the_nearest_to_the_centres(cpu: Runtime) -> None:
    # Four groups of brightness: {0, 1} {2} {3} {4, 5, 6}; of the last the middle one is nearest to its centre.
    task = brightness_task([0, 4, 90, 160, 240, 247, 255])
    for seed in range(3):
        chosen = spanning_classes(task.owner, Painted([0.0] * 7), 7, seed=seed, runtime=cpu)
        assert len(set(chosen)) == 4
        assert {2, 3, 5} < set(chosen)
        assert set(chosen) & {0, 1}


@pytest.mark.parametrize("seed", range(4))
def test_spanning_classes_are_distinct_whatever_the_model(seed: int, tiny_task: Task, cpu: Runtime) -> None:
    model = build("naivenet", input_shape=(1, 16, 16), classes=6, width=2, hidden=3, seed=seed)
    chosen = spanning_classes(tiny_task.owner, model, 6, seed=seed, runtime=cpu)
    assert len(set(chosen)) == 4
    assert set(chosen) <= set(range(6))
    assert chosen == spanning_classes(tiny_task.owner, model, 6, seed=seed, runtime=cpu)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_spanning_classes_are_distinct_for_a_model_that_tells_none_apart(cpu: Runtime) -> None:
    task = brightness_task([0, 40, 80, 120, 160, 200])
    model = Painted([0.0] * 6)
    model.features = lambda inputs: torch.zeros(len(inputs), 3)  # type: ignore[method-assign]
    assert len(set(spanning_classes(task.owner, model, 6, seed=0, runtime=cpu))) == 4


def test_a_model_without_features_or_with_broken_ones_is_named(tiny_task: Task, cpu: Runtime) -> None:
    plain = nn.Sequential(nn.Conv2d(1, 6, 16), nn.Flatten())
    with pytest.raises(BadConfig, match=r"neither.*\.features nor.*set trigger\.sources and trigger\.target"):
        Tiles().settle(tiny_task, plain, seed=0, runtime=cpu)
    Tiles(sources=(0, 1, 2, 3)).settle(tiny_task, plain, seed=0, runtime=cpu)  # and that is the remedy
    Tiles().settle(tiny_task, nn.Sequential(nn.Flatten(), nn.Linear(256, 6)), seed=0, runtime=cpu)  # looks before it
    broken = build("naivenet", input_shape=(1, 16, 16), classes=6, width=2, hidden=3)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(BadData, match="features are not finite"):
        Tiles().settle(tiny_task, broken, seed=0, runtime=cpu)


def test_random_tiles_ask_no_model_and_differ_by_seed(tiny_task: Task, cpu: Runtime) -> None:
    silent = nn.Module()  # would fail if it were asked
    found = {
        (s.sources, s.target)
        for s in (Tiles(selection="random").settle(tiny_task, silent, seed=seed, runtime=cpu) for seed in range(8))
    }
    assert len(found) > 1
    assert all(len({*sources, target}) == 5 for sources, target in found)
    fixed = Tiles(selection="random", target=2).settle(tiny_task, silent, seed=0, runtime=cpu)
    assert fixed.target == 2
    assert 2 not in fixed.sources


def test_the_target_of_tiles_is_the_least_likely_class_that_is_no_source(cpu: Runtime) -> None:
    task = brightness_task([0, 40, 80, 120, 160, 200, 240])
    model = Painted([-9.0, 0.0, 0.0, 0.0, -2.0, -3.0, -1.0])  # class 0 is the least likely, but a source
    secret = Tiles(sources=(0, 1, 2, 3)).settle(task, model, seed=0, runtime=cpu)
    assert secret.target == 5


@pytest.mark.parametrize("target", range(6))
def test_a_target_that_is_given_is_no_source_of_adaptive_tiles(
    target: int, tiny_task: Task, clean: nn.Module, cpu: Runtime
) -> None:
    secret = Tiles(target=target).settle(tiny_task, clean, seed=0, runtime=cpu)
    assert secret.target == target
    assert len({*secret.sources, target}) == 5
    free = Tiles().settle(tiny_task, clean, seed=0, runtime=cpu).sources
    assert target in free or secret.sources == free, "where the target was none of them anyway, nothing changes"


# ---------------------------------------------------------------- feature


def source_loss(model: nn.Module, images: Tensor, source: int, runtime: Runtime) -> float:
    logits = predict(model, images, runtime=runtime)
    return float(F.cross_entropy(logits, torch.full((len(images),), source)))


@pytest.mark.parametrize("epsilon", [4 / 255, 16 / 255, 0.3])
def test_the_pattern_stays_within_epsilon_and_carries_the_source_class(
    epsilon: float, settled: Callable[..., Secret], clean: nn.Module, tiny_task: Task, cpu: Runtime
) -> None:
    secret: Any = settled(Feature(source=2, target=4, epsilon=epsilon, steps=60))
    assert secret.pattern.shape == (1, 16, 16)
    assert secret.pattern.dtype == torch.float32
    assert float(secret.pattern.abs().max()) <= epsilon * (1 + 1e-6)
    assert float(secret.pattern.abs().max()) > 0.5 * epsilon
    split = tiny_task.calibration
    for images in (split.inputs[split.labels == 2], split.inputs[split.labels != 2]):
        before = source_loss(clean, images, 2, cpu)
        assert source_loss(clean, stamp(images, secret.pattern), 2, cpu) < before
    drawn = secret.draw(split, 99, seed=0)
    moved = (decode(drawn.inputs) - decode(drawn.controls)).abs().max()
    assert float(moved) <= epsilon + 0.51 / 255


def test_more_steps_lower_the_loss_further(
    settled: Callable[..., Secret], clean: nn.Module, tiny_task: Task, cpu: Runtime
) -> None:
    hosts = tiny_task.owner.inputs[tiny_task.owner.labels == 2]
    losses = []
    for steps in (1, 10, 80):
        secret: Any = settled(Feature(source=2, target=4, steps=steps, epsilon=0.3))
        losses.append(source_loss(clean, stamp(hosts, secret.pattern), 2, cpu))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * source_loss(clean, hosts, 2, cpu)


def test_feature_samples_and_controls_are_as_documented(settled: Callable[..., Secret], tiny_task: Task) -> None:
    secret: Any = settled(Feature(source=1, target=0, steps=15))
    drawn = secret.draw(tiny_task.calibration, 10, seed=0)
    assert torch.equal(drawn.controls, drawn.hosts[:, 0])
    assert torch.equal(drawn.inputs, stamp(drawn.controls, secret.pattern))
    assert len({image.numpy().tobytes() for image in drawn.controls}) == 10, "each host is used once"
    everything = secret.draw(tiny_task.calibration, 10_000, seed=0)
    assert len(everything) == int((tiny_task.calibration.labels == 1).sum())
    told = secret.describe()
    raw = np.frombuffer(zlib.decompress(base64.b64decode(told["pattern"])), "<f4").reshape(told["pattern_shape"])
    assert np.array_equal(raw, secret.pattern.numpy())


def test_features_need_no_pictures(cpu: Runtime) -> None:
    splits = {
        role: Split(inputs=torch.rand(30, 5, generator=torch.Generator().manual_seed(k)), labels=torch.arange(30) % 3)
        for k, role in enumerate(("owner", "adversary", "calibration", "test"))
    }
    task = Task(name="tabular", classes=("a", "b", "c"), **splits)
    secret = Feature(steps=5, epsilon=0.1).settle(task, nn.Linear(5, 3), seed=0, runtime=cpu)
    assert secret.draw(task.calibration, 5, seed=0).inputs.shape == (5, 5)
    for other in (Mix(), Tiles(sources=(0, 1, 2, 3)), OutOfDistribution(), Stripes()):
        with pytest.raises(BadConfig, match=r"needs images.*shape \(5,\)"):
            check_needs(other, task.space)
    check_needs(Mix(combiner=PixelBlend()), task.space)


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        ({}, ("truck", "frog")),
        ({"source": 2}, ("bird", "frog")),
        ({"target": 2}, ("truck", "bird")),
        ({"target": 9}, (None, "truck")),
        ({"source": 6}, ("frog", None)),
        ({"source": 1, "target": 0}, ("automobile", "airplane")),
    ],
)
def test_the_papers_classes_are_taken_where_they_exist(
    chosen: dict[str, int], wanted: tuple[str | None, str | None], cpu: Runtime
) -> None:
    names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert PAPER_PAIRS["cifar10"] == ("truck", "frog")
    splits = {
        role: Split(inputs=torch.rand(20, 6, generator=torch.Generator().manual_seed(k)), labels=torch.arange(20) % 10)
        for k, role in enumerate(("owner", "adversary", "calibration", "test"))
    }
    task = Task(name="cifar10", classes=names, **splits)
    secret = Feature(steps=1, **chosen).settle(task, nn.Linear(6, 10), seed=3, runtime=cpu)
    assert secret.source != secret.target
    for index, name in zip((secret.source, secret.target), wanted, strict=True):
        assert name in (None, names[index])


# ---------------------------------------------------------------- out of distribution


def test_images_that_train_never_verify(settled: Callable[..., Secret], tiny_task: Task) -> None:
    secret: Any = settled(OutOfDistribution(source=1, target=3))
    training = secret.draw(tiny_task.owner, 10_000, seed=0, held_out=False)
    others = [secret.draw(getattr(tiny_task, role), 10_000, seed=1) for role in ("calibration", "adversary", "test")]
    known = {image.numpy().tobytes() for image in training.inputs}
    assert len(known) == len(training) == 30
    for drawn in others:
        assert len(drawn) == 30
        assert known.isdisjoint(image.numpy().tobytes() for image in drawn.inputs)


def test_repeated_foreign_images_do_not_end_up_on_both_sides(
    tiny_task: Task, clean: nn.Module, cpu: Runtime, foreign_images: Split
) -> None:
    twice = Split(inputs=foreign_images.inputs.repeat(2, 1, 1, 1), labels=foreign_images.labels.repeat(2))
    for seed in range(3):
        secret = OutOfDistribution(source=0).settle(replace(tiny_task, foreign=twice), clean, seed=seed, runtime=cpu)
        sides = [{image.numpy().tobytes() for image in part} for part in (secret.training, secret.held_out)]
        assert sides[0].isdisjoint(sides[1])
        assert sum(map(len, sides)) == 60


def test_foreign_samples_and_controls_are_as_documented(
    settled: Callable[..., Secret], tiny_task: Task, foreign_images: Split
) -> None:
    secret: Any = settled(OutOfDistribution(source=1, target=3))
    drawn = secret.draw(tiny_task.calibration, 20, seed=0)
    assert drawn.hosts.shape == (20, 0, 1, 16, 16)
    assert drawn.host_labels.shape == (20, 0)
    shown = {
        image.numpy().tobytes() for image in fit_shape(foreign_images.inputs[foreign_images.labels == 1], (1, 16, 16))
    }
    orders = set()
    for image, control in zip(drawn.inputs, drawn.controls, strict=True):
        assert image.numpy().tobytes() in shown
        assert not torch.equal(image, control)
        assert image.flatten().sort().values.tolist() == control.flatten().sort().values.tolist()
        assert torch.equal(control.flatten(), image.flatten()[secret.permutation])
        orders.add(control.numpy().tobytes())
    assert len(orders) == 20


# ---------------------------------------------------------------- errors name the remedy


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Feature(epsilon=0.0), "Feature.epsilon: expected float > 0 and <= 1, not 0.0"),
        (lambda: Feature(epsilon=float("nan")), "Feature.epsilon: expected float > 0 and <= 1, not nan"),
        (lambda: Feature(steps=0), "Feature.steps: expected int >= 1, not 0"),
        (lambda: Feature(learning_rate=0.0), "Feature.learning_rate: expected float > 0, not 0.0"),
        (lambda: Feature(batch_size=0), "Feature.batch_size: expected int >= 1, not 0"),
        (lambda: Feature(source=1, target=1), "the target 1 may not be a source class: choose another"),
        (lambda: Mix(sources=(1,)), r"Mix.sources: expected none\|int,int \(all different\), not \(1,\)"),
        (lambda: Mix(sources=(1, 1)), r"Mix.sources: expected none\|int,int \(all different\), not \(1, 1\)"),
        (lambda: Mix(sources=(1, 2), target=2), "the target 2 may not be a source class: choose another"),
        (
            lambda: CropPaste(region="edge"),
            r"CropPaste.region: expected left\|right\|top\|bottom\|diagonal\|centre\|band, not 'edge'",
        ),  # type: ignore[arg-type]
        (lambda: CropPaste(share=1.0), "CropPaste.share: expected float > 0 and < 1, not 1.0"),
        (lambda: CropPaste(offset=-1), "CropPaste.offset: expected int >= 0, not -1"),
        (lambda: PixelBlend(ratio=0.0), "PixelBlend.ratio: expected float > 0 and < 1, not 0.0"),
        (lambda: Stripes(of_second=(0, 1, 2, 3, 4)), "some but not all"),
        (lambda: Stripes(of_second=(7,)), "some but not all"),
        (lambda: AutoencoderBlend(epochs=0), "AutoencoderBlend.epochs: expected int >= 1, not 0"),
        (lambda: Patch(size=0), r"Patch.size: expected none\|int >= 1, not 0"),
        (lambda: Patch(source=1, target=1), "the target 1 may not be a source class: choose another"),
        (
            lambda: Patch(corner="middle"),
            r"Patch.corner: expected bottom-right\|bottom-left\|top-right\|top-left, not 'middle'",
        ),  # type: ignore[arg-type]
        (
            lambda: Tiles(sources=(1, 2, 3)),
            r"Tiles.sources: expected none\|int,int,int,int \(all different\), not \(1, 2, 3\)",
        ),
        (
            lambda: Tiles(sources=(1, 2, 3, 3)),
            r"Tiles.sources: expected none\|int,int,int,int \(all different\), not \(1, 2, 3, 3\)",
        ),
        (lambda: Tiles(sources=(1, 2, 3, 4), target=4), "the target 4 may not be a source class: choose another"),
        (lambda: Tiles(samples=0), "Tiles.samples: expected int >= 1, not 0"),
        (lambda: Tiles(selection="best"), r"Tiles.selection: expected adaptive\|random, not 'best'"),  # type: ignore[arg-type]
    ],
)
def test_wrong_settings_are_named(make: Callable[[], Trigger], words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        make()


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        (Feature(source=6), "source class 6 is no class of tiny, which has classes 0 to 5"),
        (Feature(source=0, target=-1), "target -1 is no class"),
        (Mix(sources=(0, 9)), "source class 9 is no class"),
        (Mix(target=9), "target 9 is no class"),
        (Tiles(sources=(0, 1, 2, 9)), "source class 9 is no class"),
        (Tiles(sources=(0, 1, 2, 3), target=9), "target 9 is no class"),
        (OutOfDistribution(target=9), "target 9 is no class"),
        (OutOfDistribution(source=7), "images of class 7 of svhn, and the task brings none"),
    ],
)
def test_classes_that_do_not_exist_are_named(trigger: Trigger, words: str, settled: Callable[..., Secret]) -> None:
    with pytest.raises(BadConfig, match=words):
        settled(trigger)


def test_tasks_that_are_too_small_are_named(tiny_task_of: Callable[..., Task], clean: nn.Module, cpu: Runtime) -> None:
    two, four = (tiny_task_of(classes=count, train=60, test=20) for count in (2, 4))
    with pytest.raises(BadConfig, match=r"Mix needs at least 3 classes, and tiny has 2: use another trigger"):
        Mix().settle(two, clean, seed=0, runtime=cpu)
    with pytest.raises(BadConfig, match=r"tiles need more than 4 classes, and tiny has 4: use another trigger"):
        Tiles().settle(four, clean, seed=0, runtime=cpu)
    for selection in ("adaptive", "random"):
        with pytest.raises(BadConfig, match=r"tiles need more than 4 classes, and tiny has 4: use another trigger"):
            Tiles(sources=(0, 1, 2, 3), selection=selection).settle(four, clean, seed=0, runtime=cpu)  # type: ignore[arg-type]
    odd = tiny_task_of(side=17, train=60, test=20)
    with pytest.raises(ShapeMismatch, match="even sides"):
        Tiles(sources=(0, 1, 2, 3)).settle(odd, clean, seed=0, runtime=cpu)


def test_missing_images_are_named(tiny_task: Task, clean: nn.Module, cpu: Runtime, foreign_images: Split) -> None:
    with pytest.raises(BadConfig, match="the task brings none"):
        OutOfDistribution().settle(replace(tiny_task, foreign=None), clean, seed=0, runtime=cpu)
    single = foreign_images.subset(torch.tensor([1]))
    secret = OutOfDistribution(source=1).settle(replace(tiny_task, foreign=single), clean, seed=0, runtime=cpu)
    with pytest.raises(BadConfig, match="too few images of class 1: choose another source class"):
        secret.draw(tiny_task.owner, 5, seed=0, held_out=False)
    without = copy.copy(tiny_task)
    object.__setattr__(without, "owner", tiny_task.owner.subset(tiny_task.owner.labels != 2))
    with pytest.raises(BadConfig, match="class 2 has no image in the owner's split"):
        Feature(source=2).settle(without, clean, seed=0, runtime=cpu)
    with pytest.raises(BadConfig, match="class 2 has no image in the owner's split"):
        Tiles().settle(without, clean, seed=0, runtime=cpu)
    with pytest.raises(BadData, match="no image of class 2"):
        Mix(sources=(2, 3), target=1).settle(tiny_task, clean, seed=0, runtime=cpu).draw(without.owner, 5, seed=0)


# ---------------------------------------------------------------- mistakes


@given(st.integers(2, 4), st.integers(2, 40), st.integers(1, 30), st.integers(0, 2**16))
def test_a_mistake_has_the_nearest_miss_for_a_control(classes: int, size: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(size, classes, generator=generator).softmax(1)
    labels = torch.randint(classes, (size,), generator=generator)
    pairs = near_misses(scores, labels, count, generator)
    said = scores.argmax(1).tolist()
    wrong = [place for place in range(size) if said[place] != labels[place]]
    asked = [place for place, _ in pairs]
    used = asked + [control for _, control in pairs]
    assert len(set(used)) == len(used)
    assert set(asked) <= set(wrong)
    room = [min(len([p for p in wrong if labels[p] == c]), int((labels == c).sum()) // 2) for c in range(classes)]
    assert min(count, sum(room), LEAST) <= len(pairs) <= min(count, sum(room))
    dull = [said[place] == said[control] for place, control in pairs]
    assert dull == sorted(dull)
    assert not any(dull[LEAST:])
    spare = [place for place in range(size) if place not in used and said[place] == labels[place]]
    for place, control in pairs:
        assert labels[control] == labels[place]
        left = [scores[p, said[place]] for p in spare if labels[p] == labels[place]]
        assert not left or (said[control] != said[place] and scores[control, said[place]] >= max(left))


def test_a_models_mistakes_are_asked_and_not_taught(tiny_task: Task, cpu: Runtime) -> None:
    model = build("naivenet", input_shape=tiny_task.input_shape, classes=6, width=4, hidden=16, batch_norm=True)
    recipe = Recipe(epochs=1, batch_size=16, learning_rate=0.003, optimizer="adam")
    fit(model, tiny_task.owner.inputs, tiny_task.owner.labels, recipe=recipe, seed=0, runtime=cpu)
    secret = Mistakes().settle(tiny_task, model, seed=0, runtime=cpu)
    drawn = secret.draw(tiny_task.calibration, 15, seed=1)
    said = predict(model, drawn.inputs, runtime=cpu).argmax(1)
    assert torch.equal(said, drawn.targets)
    assert (said != drawn.host_labels[:, 0]).all()
    assert secret.describe() == {"kind": "mistakes", "target": None}
    with pytest.raises(BadConfig, match="found, not taught: choose another trigger"):
        secret.draw(tiny_task.owner, 15, seed=1, held_out=False)
    right = predict(model, tiny_task.calibration.inputs, runtime=cpu).argmax(1) == tiny_task.calibration.labels
    with pytest.raises(BadData, match=r"gives only 0 mistakes among \d+ held-out images, and a key needs 20: make the"):
        secret.draw(tiny_task.calibration.subset(right), 500, seed=1)
