"""Preprocessing before a model: the pure functions, the wrapper, its description, and what a stranger may write into that."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from heirmark.errors import BadArtifact, BadConfig
from heirmark.models import CUSTOM, HasFeatures, ModelSpec, Net, features_of
from heirmark.models.front import (
    FRONTS,
    LONGEST,
    Fronted,
    add_noise,
    behind,
    box_blur,
    gaussian_blur,
    mirror,
    reduce_bits,
    resample,
    shrink,
)
from heirmark.models.storage import load_model, load_spec, save_model
from heirmark.querying.asking import predict
from heirmark.querying.blackbox import BlackBox
from heirmark.runtime import Runtime
from heirmark.tasks.space import Images, Waves

OPTIONS = (("hidden", 7), ("width", 3))
ON_IMAGES = [name for name, kind in FRONTS.items() if issubclass(Images, kind.needs)]
ON_WAVES = [name for name, kind in FRONTS.items() if issubclass(Waves, kind.needs)]


def described(front: Any = (), shape: tuple[int, ...] = (1, 16, 18)) -> ModelSpec:
    return ModelSpec(name="naivenet", input_shape=shape, classes=4, options=OPTIONS, front=front)


def images(count: int = 5, shape: tuple[int, ...] = (1, 16, 18), seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- pure functions


@pytest.mark.parametrize("name", ON_IMAGES)
@given(data=st.data(), side=st.integers(8, 21), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_shape_type_and_range_are_kept(name: str, data: st.DataObject, side: int, seed: int) -> None:
    kind = FRONTS[name]
    if kind.whole:
        strength: float = data.draw(st.integers(0, int((kind.high - kind.low) // kind.whole))) * kind.whole + kind.low
    else:
        strength = data.draw(st.floats(kind.low, kind.high))
    given_images = images(3, (2, side, side + 3), seed)
    before = given_images.clone()
    seen = kind.apply(given_images, strength)
    assert seen.shape == before.shape
    assert seen.dtype == torch.float32
    assert float(seen.min()) >= -1e-6
    assert float(seen.max()) <= 1 + 1e-6
    assert torch.equal(given_images, before)


@pytest.mark.parametrize("name", ON_IMAGES)
def test_an_image_is_treated_alone_and_always_alike(name: str, unchanged_globals: Callable[[], Any]) -> None:
    kind, batch = FRONTS[name], images(6, (3, 12, 12))
    with unchanged_globals():
        together = kind.apply(batch, kind.usual)
    torch.rand(3)  # moves the global generator on
    for row in range(6):
        assert torch.equal(kind.apply(batch[row : row + 1], kind.usual)[0], together[row])
    assert torch.equal(kind.apply(batch.flip(0), kind.usual).flip(0), together)
    assert kind.apply(batch[:0], kind.usual).shape == (0, 3, 12, 12)


@pytest.mark.parametrize("name", [name for name in ON_IMAGES if name not in ("noise", "flip")])
@given(level=st.floats(0, 1, width=32))
@settings(max_examples=20, deadline=None)
def test_a_plain_image_stays_plain(name: str, level: float) -> None:
    kind = FRONTS[name]
    seen = kind.apply(torch.full((1, 1, 9, 11), level), kind.usual)
    assert float(seen.max() - seen.min()) <= 1e-6
    if name != "bits":
        assert float(seen.mean()) == pytest.approx(level, abs=1e-6)


def test_noise_is_normal_and_independent() -> None:
    # 400 images that differ in one pixel by one grey level only, and a grey far from both ends.
    grey = torch.full((400, 1, 20, 20), 0.5)
    grey.view(400, -1)[torch.arange(400), torch.arange(400)] += 1 / 255
    noise = (add_noise(grey, 0.1) - grey).flatten(1).double()
    assert float(noise.mean()) == pytest.approx(0, abs=5 * 0.1 / math.sqrt(noise.numel()))
    assert float(noise.std()) == pytest.approx(0.1, rel=0.01)
    assert float((noise.abs() < 0.1).double().mean()) == pytest.approx(0.6827, abs=0.005)
    assert float((noise.abs() < 0.2).double().mean()) == pytest.approx(0.9545, abs=0.003)
    between_images = torch.corrcoef(noise).fill_diagonal_(0)
    between_pixels = torch.corrcoef(noise.T).fill_diagonal_(0)
    for correlations in (between_images, between_pixels):
        assert float(correlations.abs().max()) < 0.3  # 80,000 pairs of 400: six standard errors
        assert float(correlations.square().mean()) == pytest.approx(1 / 400, rel=0.1)


def test_noise_is_cut_off_and_scales() -> None:
    white = add_noise(torch.ones(20, 1, 16, 16), 0.3)
    assert float(white.max()) == 1.0
    assert 0.4 < float((white == 1).double().mean()) < 0.6
    grey = torch.full((1, 1, 16, 16), 0.5)
    assert torch.allclose((add_noise(grey, 0.02) - grey) * 2, add_noise(grey, 0.04) - grey, atol=1e-6)


def test_noise_does_not_depend_on_how_pixels_are_stored() -> None:
    stored = torch.randint(256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    one, other = stored.float().div(255), stored.double().div(255).float()
    last = one.contiguous(memory_format=torch.channels_last)
    assert torch.equal(add_noise(one, 0.1) - one, add_noise(last, 0.1) - last)
    assert torch.allclose(add_noise(one, 0.1), add_noise(other, 0.1), atol=1e-6)


@given(bits=st.integers(1, 8))
@settings(deadline=None)
def test_bits_leave_as_many_levels(bits: int) -> None:
    ramp = torch.linspace(0, 1, 1001)[None, None, None]
    seen = reduce_bits(ramp, bits)
    assert len(seen.unique()) == 2**bits
    assert float((seen - ramp).abs().max()) <= 0.5 / (2**bits - 1) + 1e-6
    assert torch.equal(reduce_bits(seen, bits), seen)


def test_eight_bits_are_what_a_picture_has() -> None:
    stored = torch.arange(256).float().div(255)[None, None, None]
    assert torch.equal(reduce_bits(stored, 8), stored)


@pytest.mark.parametrize(("blur", "strength"), [(box_blur, 5), (gaussian_blur, 0.8)])
def test_a_blur_spreads_a_dot_evenly(blur: Callable[[Tensor, float], Tensor], strength: float) -> None:
    dot = torch.zeros(1, 1, 15, 15)
    dot[0, 0, 7, 7] = 1
    seen = blur(dot, strength)
    assert float(seen.sum()) == pytest.approx(1, abs=1e-5)
    assert torch.allclose(seen, seen.flip(2), atol=1e-7)
    assert torch.allclose(seen, seen.transpose(2, 3), atol=1e-7)
    places = torch.arange(15.0) - 7
    spread = float((seen[0, 0].sum(0) * places**2).sum())
    wanted = (strength**2 - 1) / 12 if blur is box_blur else strength**2
    assert spread == pytest.approx(wanted, rel=0.02)


def test_the_edge_goes_on_beyond_itself() -> None:
    step = torch.zeros(1, 1, 4, 9)
    step[..., 5:] = 1
    seen = box_blur(step, 3)[0, 0]
    assert seen[0].tolist() == pytest.approx([0, 0, 0, 0, 1 / 3, 2 / 3, 1, 1, 1])
    assert torch.equal(seen[0], seen[-1])


def test_shrinking_by_half_takes_means_of_four() -> None:
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    assert torch.allclose(shrink(board.float()[None, None], 0.5), torch.full((1, 1, 8, 8), 0.5))


def test_a_mirrored_mirror_image_is_the_image() -> None:
    batch = images()
    assert torch.equal(mirror(mirror(batch, 1.0), 1.0), batch)
    assert torch.equal(mirror(batch, 1.0)[..., 0], batch[..., -1])


# ---------------------------------------------------------------- the wrapper


def test_a_model_without_front_is_built_and_stored_as_ever(tmp_path: Path) -> None:
    spec = described()
    model = spec.build(seed=0)
    assert not isinstance(model, Fronted)
    assert behind(model, ()) is model
    save_model(Net(model=model, spec=spec), tmp_path)
    record = json.loads((tmp_path / "model.json").read_text())
    assert sorted(record) == ["classes", "format", "input_shape", "name", "options"]
    kept = load_model(tmp_path)
    loaded, again = kept.model, kept.spec
    assert again == spec
    assert type(loaded) is type(model)


def test_a_fronted_model_is_the_model_behind_its_front(tmp_path: Path) -> None:
    front = (("flip", 1.0), ("noise", 0.1), ("bits", 3.0))
    spec, plain = described(front), described().build(seed=4).eval()
    model = spec.build(seed=4).eval()
    assert isinstance(model, Fronted)
    assert isinstance(model, HasFeatures)
    batch = images()
    seen = reduce_bits(add_noise(mirror(batch, 1.0), 0.1), 3.0)
    with torch.no_grad():
        assert torch.equal(model(batch), plain(seen))
        assert torch.equal(features_of(model)(batch), features_of(plain)(seen))
        assert torch.equal(model.head(features_of(model)(batch)), model(batch))
    save_model(Net(model=model, spec=spec), tmp_path)
    assert json.loads((tmp_path / "model.json").read_text())["front"] == [["flip", 1.0], ["noise", 0.1], ["bits", 3.0]]
    kept = load_model(tmp_path)
    loaded, again = kept.model, kept.spec
    assert again == spec
    assert hash(again) == hash(spec)
    assert all(p.requires_grad and not p.is_meta for p in loaded.parameters())
    with torch.no_grad():
        assert torch.equal(loaded(batch), model(batch))


def test_a_front_can_stand_before_a_users_own_model(tmp_path: Path) -> None:
    def factory(spec: ModelSpec) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(spec.input_shape), spec.classes))

    spec = ModelSpec(name=CUSTOM, input_shape=(1, 6, 6), classes=3, front=(("downscale", 0.5),))
    model = spec.build(seed=0, factory=factory).eval()
    assert isinstance(model, Fronted)
    save_model(Net(model=model, spec=spec), tmp_path)
    loaded = load_model(tmp_path, factories=[factory]).model
    batch = images(4, (1, 6, 6))
    with torch.no_grad():
        assert torch.equal(loaded(batch), model.model(shrink(batch, 0.5)))
    assert not hasattr(model, "features")
    assert not hasattr(model, "head")
    with torch.no_grad():
        assert torch.equal(features_of(model)(batch), shrink(batch, 0.5).flatten(1))


def test_a_new_head_is_the_models() -> None:
    model: Any = described((("flip", 1.0),)).build(seed=0)
    model.head = nn.Linear(7, 9)
    assert model.model.head is model.head
    assert model(images()).shape == (5, 9)
    assert [name for name in model.state_dict() if "head" in name] == ["model.head.weight", "model.head.bias"]


def test_gradients_reach_weights_and_pixels_through_noise() -> None:
    model = described((("noise", 0.1), ("gaussian-blur", 0.7), ("downscale", 0.5))).build(seed=0)
    batch = images().requires_grad_(True)
    model(batch).square().sum().backward()
    assert batch.grad is not None
    assert float(batch.grad.abs().sum()) > 0
    assert all(p.grad is not None for p in model.parameters())


def test_a_black_box_of_a_fronted_model_answers_as_it_does(cpu: Runtime) -> None:
    model = described((("noise", 0.2),)).build(seed=1).eval()
    box = BlackBox(model, classes=4, runtime=cpu)
    first, second = box.query(images()).probabilities, box.query(images()[2:]).probabilities
    assert first is not None
    assert second is not None
    assert torch.allclose(first[2:], second)
    assert torch.allclose(first, predict(model, images(), runtime=cpu).softmax(1), atol=1e-6)


# ---------------------------------------------------------------- descriptions


@pytest.mark.parametrize(
    ("front", "message"),
    [
        ((("jpeg", 0.5),), "unknown preprocessing 'jpeg': choose one of noise"),
        ((("noise", 0.0),), "strength of 'noise'"),
        ((("noise", float("nan")),), "expected float, not nan"),
        ((("noise", True),), "expected float, not True"),
        ((("noise", "0.1"),), "expected float, not '0.1'"),
        ((("bits", 2.5),), "steps of 1"),
        ((("box-blur", 33),), r"\[3, 31\] in steps of 2"),
        ((("gaussian-blur", 1e9),), r"\[0.1, 8.0\]"),
        ((("flip", 0),), "strength of 'flip'"),
        ((("noise", 0.1),) * (LONGEST + 1), "at most 8"),
        ((("noise",),), "expected str,float"),
        (("noise",), "expected str,float"),
    ],
)  # fmt: skip
def test_a_front_that_makes_no_sense_is_refused(front: Any, message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        described(front)


def test_only_images_have_a_front() -> None:
    with pytest.raises(BadConfig, match="leave it out"):
        ModelSpec(name=CUSTOM, input_shape=(40,), classes=2, front=(("noise", 0.1),))


@pytest.mark.parametrize(
    "front",
    [
        None,
        "noise",
        {"noise": 0.1},
        ["noise"],
        [["noise"]],
        [["noise", None]],
        [["noise", [0.1]]],
        [[["noise"], 0.1]],
        [["noise", -1]],
        [["noise", 1e308]],
        [["noise", 10**400]],
        [["noise", True]],
        [["__class__", 1]],
        [["bits", 4, 4]],
        [["noise", 0.1]] * 9,
    ],
)  # fmt: skip
def test_a_strangers_front_is_looked_at(front: Any, tmp_path: Path) -> None:
    spec = described((("noise", 0.1),))
    save_model(Net(model=spec.build(seed=0), spec=spec), tmp_path)
    path = tmp_path / "model.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"front": front}))
    with pytest.raises(BadArtifact, match="does not describe a model"):
        load_spec(tmp_path)


def test_weights_of_a_plain_model_do_not_fit_a_fronted_one(tmp_path: Path) -> None:
    spec = described()
    save_model(Net(model=spec.build(seed=0), spec=spec), tmp_path)
    path = tmp_path / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"front": [["flip", 1]]}))
    with pytest.raises(BadArtifact, match="mixes two models"):
        load_model(tmp_path)


# ---------------------------------------------------------------- waves


def waves(count: int = 5, length: int = 200, seed: int = 0) -> Tensor:
    return 2 * torch.rand(count, 1, length, generator=torch.Generator().manual_seed(seed)) - 1


@pytest.mark.parametrize("name", ON_WAVES)
def test_a_wave_keeps_its_shape_and_range_and_is_treated_alone(name: str) -> None:
    kind, batch = FRONTS[name], waves()
    seen = kind.apply(batch, kind.usual)
    assert seen.shape == batch.shape
    assert float(seen.abs().max()) <= 1
    assert float((seen - batch).abs().mean()) > 0.01
    for row in range(len(batch)):
        assert torch.equal(kind.apply(batch[row : row + 1], kind.usual)[0], seen[row])


def test_a_lower_rate_keeps_low_tones_and_loses_high_ones() -> None:
    place = torch.arange(800.0)
    low, high = (torch.sin(2 * math.pi * place * cycles)[None, None] for cycles in (0.01, 0.4))
    assert float((resample(low, 0.5) - low).abs().mean()) < 0.02
    assert float(resample(high, 0.25).square().mean()) < 0.2 * float(high.square().mean())


def test_a_front_says_what_it_works_on() -> None:
    spec = {"name": "m5", "input_shape": (1, 200), "classes": 4, "options": (("width", 2),)}
    for name in ON_WAVES:
        model = ModelSpec(**spec, front=((name, FRONTS[name].usual),)).build(seed=0).eval()
        assert model(waves()).shape == (5, 4)
    with pytest.raises(BadConfig, match=r"'flip' not inputs of shape \(1, 200\): leave it out"):
        ModelSpec(**spec, front=(("flip", 1.0),))
    with pytest.raises(BadConfig, match=r"'resample' not inputs of shape \(1, 16, 18\): leave it out"):
        described((("resample", 0.5),))
