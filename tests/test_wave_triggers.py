"""Triggers on sounds: what samples and controls are, and what is refused in one sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from heirmark.attacks import Knockoff
from heirmark.attacks.base import Sizes
from heirmark.errors import BadConfig, ShapeMismatch
from heirmark.grids.programme import PROFILES
from heirmark.methods import METHODS, DeepTracer, MEADefender, Robust
from heirmark.methods.mea_defender import WAYS, alike, mix_otherwise, other_ways
from heirmark.models import build, specify
from heirmark.runtime import Runtime
from heirmark.suiting import default_method, for_sounds, suited
from heirmark.tasks.combining import paste, quarters, region
from heirmark.tasks.media import Sound
from heirmark.tasks.space import Images, Waves, check_needs, suits
from heirmark.tasks.storing import decode
from heirmark.tasks.task import Task
from heirmark.triggers import (
    AbstractImages,
    AutoencoderBlend,
    CropPaste,
    Entangled,
    Feature,
    GaussianNoise,
    Groups,
    Mix,
    OutOfDistribution,
    Patch,
    PixelBlend,
    RandomLabels,
    Secret,
    Stripes,
    TextStamp,
    Tiles,
    Tone,
    Trigger,
)
from heirmark.triggers.abstract import compose
from heirmark.triggers.out_of_distribution import fit_shape
from heirmark.work.stealing import Theft

KINDS: dict[str, Trigger] = {
    "feature": Feature(steps=8),
    "blend": Mix(),
    "left half": Mix(combiner=CropPaste(region="left")),
    "middle": Mix(combiner=CropPaste(region="centre")),
    "two halves": Mix(combiner=Stripes(count=2, of_second=(1,))),
    "quarters": Tiles(samples=20),
    "tone": Tone(),
    "noise": GaussianNoise(),
    "abstract": AbstractImages(),
    "other words": OutOfDistribution(dataset="speech-commands-other"),
    "entangled": Entangled(of=AbstractImages(), rounds=1),
    "random labels": RandomLabels(of=Tone()),
    "as they are": RandomLabels(),
}


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return build("m5", input_shape=(1, 400), classes=6, width=4).eval()


@pytest.fixture(scope="module")
def task(tiny_sounds: Task) -> Task:
    return tiny_sounds


@pytest.fixture
def settled(task: Task, net: nn.Module, cpu: Runtime) -> Callable[..., Secret]:
    def settle(trigger: Trigger) -> Secret:
        check_needs(trigger, task.space)
        return trigger.settle(task, net, seed=0, runtime=cpu)

    return settle


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_waves_like_the_tasks_and_differ_from_their_controls(
    kind: str, settled: Callable[..., Secret], task: Task
) -> None:
    secret = settled(KINDS[kind])
    drawn, again = (secret.draw(task.calibration, 12, seed=3) for _ in range(2))
    assert len(drawn) == 12
    assert drawn.inputs.shape == drawn.controls.shape == (12, 1, 400)
    assert drawn.inputs.dtype == drawn.controls.dtype == torch.int16
    assert torch.equal(drawn.inputs, again.inputs)
    assert not bool((drawn.inputs == drawn.controls).flatten(1).all(1).any())
    assert not bool((drawn.host_labels == drawn.targets[:, None]).any())
    other = secret.draw(task.calibration, 12, seed=4)
    assert not torch.equal(other.inputs, drawn.inputs)
    secret.describe()


def test_on_waves_the_papers_way_to_mix_is_a_blend(settled: Callable[..., Secret], task: Task) -> None:
    drawn = settled(Mix()).draw(task.calibration, 6, seed=0)
    mean = decode(drawn.hosts.flatten(0, 1)).reshape(6, 2, 1, 400).mean(1)
    torch.testing.assert_close(decode(drawn.inputs), mean, atol=1 / 32768, rtol=0)
    assert any("ratio" in str(part) for part in settled(Mix()).describe().values())


def test_halves_in_time_are_of_both(settled: Callable[..., Secret], task: Task) -> None:
    for combiner in (CropPaste(region="left"), Stripes(count=2, of_second=(0,))):
        drawn = settled(Mix(combiner=combiner)).draw(task.calibration, 6, seed=0)
        assert torch.equal(drawn.inputs[..., :200], drawn.hosts[:, 1, :, :200])
        assert torch.equal(drawn.inputs[..., 200:], drawn.hosts[:, 0, :, 200:])
    shown = region("centre", 1, 400)
    pasted = paste(torch.zeros(1, 1, 400), torch.ones(1, 1, 400), shown)
    assert pasted[0, 0].nonzero().flatten().tolist() == list(range(100, 300))


@settings(deadline=None, max_examples=30)
@given(st.integers(4, 30), st.integers(1, 2), st.integers(0, 2**30))
def test_quarters_are_the_loudest_stretches_by_plain_loops(length: int, channels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    waves = torch.randint(-32768, 32768, (2, 4, channels, length), generator=generator, dtype=torch.int16)
    out = quarters(waves)
    assert out.shape == (2, channels, length)
    ends = [0, length // 4, 2 * (length // 4), 3 * (length // 4), length]
    for row in range(2):
        for part in range(4):
            size = ends[part + 1] - ends[part]
            found = out[row, :, ends[part] : ends[part + 1]]
            stretches = [waves[row, part, :, start : start + size] for start in range(length - size + 1)]
            assert any(torch.equal(found, stretch) for stretch in stretches)
            loudest = max(float(stretch.double().square().sum()) for stretch in stretches)
            assert float(found.double().square().sum()) == pytest.approx(loudest)


def test_quarters_need_four_waves() -> None:
    for shape in ((1, 3, 1, 8), (1, 4, 1, 3)):
        with pytest.raises(ShapeMismatch, match="quarters are made of 4 waves"):
            quarters(torch.zeros(shape))


def test_a_tone_stands_where_it_is_said(settled: Callable[..., Secret], task: Task) -> None:
    drawn = settled(Tone(hertz=100, length=0.25, loudness=0.5, place="middle")).draw(task.calibration, 4, seed=0)
    added = decode(drawn.inputs) - decode(drawn.controls)
    assert float(added[..., :150].abs().max()) == float(added[..., 250:].abs().max()) == 0
    wanted = 0.5 * torch.sin(2 * torch.pi * 100 / 1000 * torch.arange(100))
    inside = (decode(drawn.inputs).abs() < 1)[..., 150:250]
    torch.testing.assert_close(added[..., 150:250][inside], wanted.expand(4, 1, 100)[inside], atol=1e-4, rtol=0)
    assert settled(Tone(hosts="any")).draw(task.calibration, 30, seed=0).host_labels.unique().numel() > 2


@pytest.mark.parametrize(
    ("tone", "words"),
    [
        (Tone(hertz=500), "cannot be heard at 1,000 samples a second: take less than half of that"),
        (Tone(target=9), "is no class of"),
    ],
)
def test_tones_that_cannot_be(tone: Tone, words: str, settled: Callable[..., Secret]) -> None:
    with pytest.raises(BadConfig, match=words):
        settled(tone)


def test_hertz_need_a_rate(task: Task, net: nn.Module, cpu: Runtime) -> None:
    unknown = dataclasses.replace(task, medium=None)
    assert Tone().settle(unknown, net, seed=0, runtime=cpu)
    with pytest.raises(BadConfig, match="nobody knows at what rate"):
        Tone(hertz=100).settle(unknown, net, seed=0, runtime=cpu)
    assert task.medium == Sound(rate=1000)
    with pytest.raises(BadConfig, match="hosts of any class have no source class"):
        Tone(hosts="any", source=1)


def test_abstract_sounds_have_a_shape_a_range_and_a_seed() -> None:
    sounds = torch.stack([compose((2, 500), seed) for seed in range(20)])
    assert sounds.shape == (20, 2, 500)
    loudest = sounds.abs().amax((1, 2))
    assert float(loudest.max()) <= 0.9 + 1e-6
    assert float(loudest.min()) >= 0.3 - 1e-6
    assert torch.equal(compose((2, 500), 7), sounds[7])
    assert len({row.numpy().tobytes() for row in sounds}) == 20


def test_foreign_sounds_are_brought_to_length() -> None:
    waves = torch.arange(24, dtype=torch.int16).view(2, 2, 6)
    assert fit_shape(waves, (1, 8))[0, 0].tolist() == [3, 4, 5, 6, 7, 8, 0, 0]
    assert fit_shape(waves, (2, 4))[0].tolist() == [[1, 2, 3, 4], [7, 8, 9, 10]]
    assert fit_shape(decode(waves), (2, 6)).dtype == torch.int16
    for inputs, shape in ((waves, (1, 8, 8)), (torch.zeros(1, 3, 8, 8), (1, 400))):
        with pytest.raises(BadConfig, match="name one of the task's kind, as speech-commands-other"):
            fit_shape(inputs, shape)


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        (Patch(), r"needs images .* give such, or set trigger=tone"),
        (TextStamp(), "needs images"),
        (Groups(), "needs images"),
        (Mix(combiner=CropPaste(region="top")), "needs images .* blend them"),
        (Mix(combiner=Stripes(direction="rows")), "needs images .* blend them"),
        (Mix(combiner=AutoencoderBlend()), "needs images .* blend them"),
    ],
)
def test_what_is_for_images_alone_says_so(trigger: Trigger, words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        check_needs(trigger, Waves((1, 400)))


def test_a_tone_is_for_waves_alone() -> None:
    with pytest.raises(BadConfig, match=r"Tone needs waves .* set trigger=patch"):
        check_needs(Tone(), Images((1, 8, 8)))


def test_evasion_samples_are_mixed_in_ways_that_waves_allow(task: Task, cpu: Runtime) -> None:
    ways = tuple(WAYS)
    found = other_ways(PixelBlend(), ways, task.space)
    assert all(suits(way, task.space) for way in found)
    assert not [way for way in found if alike(way, PixelBlend())]
    assert len(found) == 4  # left, right, centre, stripes
    made, labels = mix_otherwise((0, 1), PixelBlend(), task.owner, ways, 9, seed=0, runtime=cpu)
    assert made.shape == (9, 1, 400)
    assert set(labels.tolist()) <= {0, 1}
    MEADefender(model="m5:width=4").check(task)
    with pytest.raises(BadConfig, match="name some that work on the inputs, or set evasion_samples=0"):
        MEADefender(model="m5:width=4", evasion=("top", "pixels")).check(task)


def test_a_key_filters_alexnet_gives_way_to_the_victims_net(task: Task) -> None:
    assert list(DeepTracer(model="m5:width=4").architectures(task.space)) == ["m5:width=4"]
    assert list(DeepTracer().architectures(Images((1, 28, 28)))) == ["naivenet", "alexnet"]


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_has_defaults_for_sounds(name: str, quick: bool, task: Task) -> None:
    made = default_method(name, task.space, 6, quick=quick)
    if name in ("ssw-p", "ssw-s"):
        assert not suits(made, task.space)
        return
    check_needs(made, task.space)
    assert made.model == "m5:width=32,stride=16"
    for net in made.architectures(task.space):
        specify(net, input_shape=(1, 16_000), classes=6)
    if made.trigger.dataset is not None:
        assert made.trigger.dataset == "speech-commands-other"
    if isinstance(made, Robust):
        assert made.thieves == ("m5:width=32,stride=16", "mel-cnn")
        assert made.judges == ("m5:width=24,kernel=160,stride=8",)
        assert made.rehearsal.recipe.epochs == (30 if quick else 6)


def test_triggers_have_a_like_one_for_sounds() -> None:
    assert for_sounds(Patch(hosts="any")) == Tone(hosts="any")
    assert for_sounds(RandomLabels(of=TextStamp())) == RandomLabels(of=Tone())
    assert for_sounds(Entangled(of=Patch())) == Entangled(of=AbstractImages())
    assert for_sounds(Tiles()) == Tiles()
    assert suited(Knockoff(), Waves((1, 400)), 6).model == "m5:width=32,stride=16"


@pytest.mark.parametrize("profile", PROFILES)
def test_an_audit_tries_what_works_on_sounds_and_tells_the_rest(profile: str, task: Task) -> None:
    sizes = Sizes(images=700, classes=10, space=Waves((1, 16_000)))
    programme = PROFILES[profile]("m5:width=32,stride=16", trigger="tiles", sizes=sizes)
    for trial in programme.trials:
        for step in trial.steps:
            check_needs(step.attack, task.space)
            if isinstance(step, Theft):
                specify(step.attack.model, input_shape=(1, 16_000), classes=10)
    names = [trial.name for trial in programme.trials]
    assert "queries through resample" in names
    assert "Knockoff by mel-cnn, labels" in names
    assert not [name for name in names if "flip" in name or "transfer" in name]
    assert any("Neural Cleanse" in told for told in programme.left_out)
    images = PROFILES[profile]("naivenet", trigger="tiles")
    assert "queries through flip" in [trial.name for trial in images.trials]
    assert "queries through resample" not in [trial.name for trial in images.trials]
