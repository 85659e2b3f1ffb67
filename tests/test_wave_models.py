"""The built-in nets for sound: shapes, what they hear, and what they are written as."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from heirmark.attacks.removal.int8 import OnnxModel, to_onnx
from heirmark.errors import BadConfig, ShapeMismatch
from heirmark.models import MODELS, HasFeatures, Net, build, features_of, specify
from heirmark.models.storage import load_model, save_model
from heirmark.models.waves import LogMel, mel_filters, sines
from heirmark.runtime import Runtime
from heirmark.tasks.storing import decode
from heirmark.training.fitting import Recipe, fit

NARROW: dict[str, dict[str, Any]] = {"m5": {"width": 4}, "mel-cnn": {"width": 2, "rate": 4000, "mels": 12}}
NAMES = [name for name in MODELS if MODELS[name].dimensions == 2]


def waves(count: int, length: int = 1000, seed: int = 0) -> Tensor:
    noise = torch.rand(count, 1, length, generator=torch.Generator().manual_seed(seed))
    return (noise * 65535 - 32768).round().to(torch.int16)


def narrow(name: str, length: int = 1000, seed: int = 0) -> nn.Module:
    return build(name, input_shape=(1, length), classes=5, seed=seed, **NARROW[name])


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_the_head_of_the_features_and_waves_come_as_they_are_stored(name: str) -> None:
    model = narrow(name).eval()
    stored = waves(3)
    with torch.no_grad():
        logits, features = model(stored), features_of(model)(stored)
        assert logits.shape == (3, 5)
        assert features.ndim == 2
        assert torch.equal(model.head(features), logits)  # type: ignore[operator]
        assert torch.equal(model(decode(stored)), logits)
    assert isinstance(model, HasFeatures)
    assert bool(torch.isfinite(logits).all())
    assert logits.std() > 0


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_takes_part_and_the_seed_decides_the_start(
    name: str, unchanged_globals: Callable[[], Any]
) -> None:
    with unchanged_globals():
        model, same, other = narrow(name, seed=1), narrow(name, seed=1), narrow(name, seed=2)
    model(waves(4)).square().sum().backward()
    assert not [name for name, weight in model.named_parameters() if weight.grad is None]
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), same.parameters(), strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_what_does_not_fit_is_refused(name: str) -> None:
    assert narrow(name, 100).eval()(waves(2, 100)).shape == (2, 5)
    with pytest.raises(ShapeMismatch, match=r"takes waves of shape .* at least 80 samples"):
        narrow(name, 79)
    with pytest.raises(ShapeMismatch, match="takes waves"):
        build(name, input_shape=(3, 32, 32), classes=5)
    wide = {"m5": "m5:kernel=500", "mel-cnn": "mel-cnn"}[name]
    with pytest.raises(BadConfig, match="does not fit waves of 300"):
        specify(wide, input_shape=(1, 300), classes=5).build(seed=0)
    with pytest.raises(BadConfig, match="99 mel filters do not fit a spectrum of 51"):
        specify("mel-cnn:mels=99,rate=4000", input_shape=(1, 300), classes=5).build(seed=0)


def test_m5_has_the_published_layers() -> None:
    """Table 1 of the paper counts 0.5 M weights, all but the head's in convolutions."""
    model = build("m5", input_shape=(1, 32_000), classes=10)
    shapes = [tuple(part.weight.shape) for part in model.modules() if isinstance(part, nn.Conv1d)]
    assert shapes == [(128, 1, 80), (128, 128, 3), (256, 128, 3), (512, 256, 3)]
    total = 128 * 80 + 3 * (128 * 128 + 128 * 256 + 256 * 512) + 2 * (128 + 128 + 256 + 512) + 512 * 10 + 10
    assert sum(weight.numel() for weight in model.parameters()) == total


@pytest.mark.parametrize("name", NAMES)
def test_it_is_written_as_onnx(name: str) -> None:
    pytest.importorskip("onnxruntime")
    model = narrow(name).eval()
    file = OnnxModel(to_onnx(model, decode(waves(2))))
    with torch.no_grad():
        torch.testing.assert_close(file(waves(5)), model(waves(5)), atol=1e-5, rtol=1e-5)


def test_the_spectrum_is_that_of_torch() -> None:
    wave = decode(waves(1))[0, 0]
    window = torch.hann_window(100)
    wanted = torch.stft(wave, 100, 40, 100, window, center=False, return_complex=True).abs() * 2 / window.sum()
    real, imaginary = torch.nn.functional.conv1d(wave[None, None], sines(100), stride=40).chunk(2, 1)
    torch.testing.assert_close((real.square() + imaginary.square()).sqrt()[0], wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("rate", "mels"), [(16_000, 40), (8000, 40), (4000, 40), (1000, 13)])
def test_mel_filters_cover_the_spectrum(rate: int, mels: int) -> None:
    bins = round(0.025 * rate) // 2 + 1
    filters = mel_filters(bins, mels, rate=rate)
    assert filters.shape == (mels, bins)
    assert bool((filters >= 0).all())
    assert float(filters.sum(1).min()) > 0.5, "no filter is empty"
    peaks = filters.argmax(1)
    assert bool((peaks.diff() >= 0).all())


def test_a_tone_stands_in_its_mel_band_whatever_precision_is_asked_for() -> None:
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(8000) / 8000)[None, None]
    log_mel = LogMel(rate=8000, mels=20)
    seen = log_mel(tone)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(log_mel(tone), seen)
    peak = 2595 * torch.log10(torch.tensor(1 + 1000 / 700))
    step = 2595 * torch.log10(torch.tensor(1 + 4000 / 700)) / 21
    assert abs(int(seen[0, 0].mean(1).argmax()) + 1 - float(peak / step)) < 1
    assert float(log_mel(torch.zeros(1, 1, 8000)).max()) == pytest.approx(-1.95, abs=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_to_tell_tones_apart(name: str, cpu: Runtime) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    time = torch.arange(1000) / 4000
    hertz = torch.tensor([300.0, 700.0, 1500.0])[labels] + 40 * torch.rand(120, generator=generator)
    noise = 0.3 * torch.randn(120, 1000, generator=generator)
    heard = 0.3 * torch.sin(2 * torch.pi * hertz[:, None] * time + 6 * torch.rand(120, 1, generator=generator)) + noise
    inputs = heard.clamp(-1, 1)[:, None]
    model = narrow(name)
    recipe = Recipe(epochs=6, batch_size=20, optimizer="adam", learning_rate=1e-2, weight_decay=0.0, augment="shift")
    fit(model, inputs[:90], labels[:90], recipe=recipe, seed=0, runtime=cpu)
    with torch.no_grad():
        said = model.eval()(inputs[90:]).argmax(1)
    assert float((said == labels[90:]).float().mean()) > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_answers_as_before(name: str, tmp_path: Path) -> None:
    """What follows from a net's options, such as its filters, is in no file and there all the same."""
    spec = specify(
        f"{name}:{','.join(f'{key}={value}' for key, value in NARROW[name].items())}", input_shape=(1, 1000), classes=5
    )
    net = Net(model=spec.build(seed=3).eval(), spec=spec)
    save_model(net, tmp_path / "net")
    loaded = load_model(tmp_path / "net")
    with torch.no_grad():
        assert torch.equal(loaded.model(waves(2)), net.model(waves(2)))
    assert loaded.working_copy().to("cpu") is not None
