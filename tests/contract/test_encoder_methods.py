"""What every method on encoders promises, run for each of them.

A method that is added to ``ENCODER_METHODS`` is picked up by itself; it needs a tiny configuration in ``CONFIGS``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts import SettingsOf, cases, check_frozen_and_keyword_only, check_json, check_text, known, stir, weights
from torch import Tensor, nn

from heirmark.errors import BadConfig
from heirmark.keys.key import Key
from heirmark.methods.base import Marked
from heirmark.methods.encoders.base import UnmarkedEncoder, of_class
from heirmark.methods.encoders.joint import JointEncoder
from heirmark.methods.encoders.mea_defender import MEADefenderEncoder
from heirmark.methods.encoders.robust import RobustEncoder
from heirmark.methods.encoders.ssl_guard import Guarded, SSLGuard
from heirmark.methods.encoders.t2s import T2SEncoder
from heirmark.methods.registry import ENCODER_METHODS
from heirmark.models.storage import load_model, save_model
from heirmark.querying.asking import outputs_of
from heirmark.rehearsal.losses import DistillationLoss
from heirmark.rehearsal.settings import Balanced, Rehearsal, SimulatedThief
from heirmark.runtime import Runtime
from heirmark.tasks.task import Task
from heirmark.training.contrastive import SIMCLR, SimCLR
from heirmark.training.fitting import Recipe
from heirmark.training.joint import Phase
from heirmark.training.linear_probe import probe_encoder
from heirmark.training.views import Views
from heirmark.triggers import Mix, PixelBlend, RandomLabels
from heirmark.verification import Suspect
from victims import MODEL

SEED = 3
LEARNING = dataclasses.replace(SIMCLR, epochs=3, batch_size=48)
BASE: dict[str, Any] = {
    "model": MODEL,
    "width": 24,
    "key_size": 40,
    "pretraining": SimCLR(recipe=LEARNING, views=Views(least=0.5, mirror=0.0)),
}
TRIGGERS: dict[str, Any] = {"triggers": 60, "trigger": Mix(sources=(0, 1), target=2)}
MSE = SimulatedThief(rate=0.5, loss=DistillationLoss(kind="mse"))
BRIEF = Recipe(epochs=2, batch_size=48, optimizer="adam", learning_rate=1e-3, weight_decay=0.0)

# The tiny configurations of every method, by name.
CONFIGS: dict[str, dict[str, Any]] = {
    "unmarked": {"plain": UnmarkedEncoder(**BASE, **TRIGGERS)},
    "joint": {
        "mix": JointEncoder(**BASE, **TRIGGERS, trigger_batch=16),
        "blend": JointEncoder(
            **BASE, triggers=60, trigger=Mix(sources=(0, 1), target=2, combiner=PixelBlend()), trigger_batch=16, start="clean",
            distance="mse", weight=10.0,
        ),
    },
    "mea-defender": {
        "mgda": MEADefenderEncoder(
            **BASE, **TRIGGERS, evasion_samples=40, start="clean",
            first=Phase(recipe=dataclasses.replace(LEARNING, epochs=1), extras={"watermark": 8}),
            second=Phase(recipe=dataclasses.replace(LEARNING, epochs=2), extras={"watermark": 16, "evasion": 8}),
        ),
        "fixed": MEADefenderEncoder(
            **BASE, triggers=60, trigger=Mix(sources=(0, 1), target=2, combiner=PixelBlend()), evasion_samples=0,
            first=Phase(recipe=dataclasses.replace(LEARNING, epochs=1), extras={"watermark": 8}),
            second=Phase(recipe=LEARNING, extras={"watermark": 16}), weighting="fixed", distance="mse",
        ),
    },
    "t2s": {
        "paper": T2SEncoder(**BASE, **TRIGGERS, trigger_batch=16, rehearsal=Rehearsal(recipe=BRIEF, thief=MSE)),
        "balanced": T2SEncoder(
            **BASE, **TRIGGERS, initial="clean", rehearsal=Rehearsal(recipe=BRIEF, thief=MSE, update=Balanced())
        ),
    },
    "robust": {
        "two": RobustEncoder(
            **BASE, **TRIGGERS, recipe=dataclasses.replace(BRIEF, epochs=4, learning_rate=3e-3), trigger_batch=16, pulling=30,
            feature_recipe=BRIEF, accuracy_budget=0.05,
            thieves=("naivenet:width=5,hidden=16",),
        ),
    },
    "ssl-guard": {
        "brief": SSLGuard(**BASE, epochs=3, batch_size=48, rate=0.03, shadow_rate=0.01, decoder_rate=0.05, patch_rate=1.0),
    },
}  # fmt: skip
# Where trigger samples come no nearer to the target class within these few steps, and why.
WITHOUT = {
    ("unmarked", "plain"): "is the control arm",
    ("t2s", "balanced"): "starts from the clean encoder, and moves what a thief makes of it",
}


@pytest.fixture(params=cases(ENCODER_METHODS, CONFIGS))
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    return known(request.param, CONFIGS, Path(__file__).name)


@pytest.fixture
def config(case: tuple[str, str]) -> Any:
    return CONFIGS[case[0]][case[1]]


@pytest.fixture(scope="module")
def clean(tiny_task: Task, cpu: Runtime) -> nn.Module:
    """The owner's unmarked encoder. Do not change it."""
    return UnmarkedEncoder(**BASE).fresh(tiny_task, seed=0, runtime=cpu)


@pytest.fixture(scope="module")
def marked(tiny_task: Task, clean: nn.Module, cpu: Runtime) -> Callable[[str, str], Marked]:
    """Runs a configuration once and keeps what it gives, which no test may change."""
    kept: dict[tuple[str, str], Marked] = {}

    def run(name: str, variant: str) -> Marked:
        if (name, variant) not in kept:
            kept[name, variant] = CONFIGS[name][variant](tiny_task, seed=SEED, runtime=cpu, clean=clean)
        return kept[name, variant]

    return run


def hits(encoder: nn.Module, result: Marked, task: Task, cpu: Runtime) -> tuple[float, float]:
    """Share of the key's queries, and of its controls, that get the key's label behind a verifier's probe."""
    if isinstance(result, Guarded):
        suspect = Suspect.from_encoder(encoder, result.decoder, runtime=cpu)
    else:
        suspect = Suspect.from_encoder(encoder, probe_encoder(encoder, task.test, classes=6, runtime=cpu), runtime=cpu)
    key: Key = result.key
    said = [suspect.labels(inputs) == key.expected for inputs in (key.queries, key.controls)]
    return float(said[0].double().mean()), float(said[1].double().mean())


def test_every_method_has_a_configuration_here(case: tuple[str, str], config: Any) -> None:
    assert type(config) is ENCODER_METHODS[case[0]]
    assert config.name == case[0]


@pytest.mark.parametrize("name", ENCODER_METHODS)
def test_a_configuration_is_frozen_and_keyword_only(name: str) -> None:
    check_frozen_and_keyword_only(ENCODER_METHODS[name])


def test_a_configuration_goes_to_json_and_text_and_back(config: Any, settings_of: SettingsOf) -> None:
    check_json(config, ENCODER_METHODS)
    check_text(config, settings_of)


def test_an_encoder_and_a_key_come_out(
    case: tuple[str, str], marked: Callable[..., Marked], tiny_task: Task, tmp_path: Path
) -> None:
    result = marked(*case)
    assert not any(part.training for part in result.model.modules())
    assert all(p.requires_grad and p.grad is None for p in result.model.parameters())
    assert result.net.spec.classes == 24
    key = result.key
    assert 20 <= len(key) <= 40
    assert key.classes == (2 if case[0] == "ssl-guard" else 6)
    assert key.disjoint_from(tiny_task.owner.inputs)
    if result.training_triggers is not None:
        assert key.disjoint_from(result.training_triggers.inputs)
    save_model(result.net, tmp_path)
    assert weights(load_model(tmp_path).model) == weights(result.model)


def test_the_mark_is_there_and_not_in_the_clean_encoder(
    case: tuple[str, str], marked: Callable[..., Marked], clean: nn.Module, tiny_task: Task, cpu: Runtime
) -> None:
    """Held-out trigger samples come nearer to the target class than they were; few steps need not take them there."""
    result = marked(*case)
    without, controls = hits(clean, result, tiny_task, cpu)
    assert without < 0.3
    assert controls < 0.3
    if isinstance(result, Guarded):
        assert hits(result.model, result, tiny_task, cpu)[0] > 0.9
    elif case not in WITHOUT:
        assert apart(result.model, result, tiny_task, cpu) < 0.9 * apart(clean, result, tiny_task, cpu)


def apart(encoder: nn.Module, result: Marked, task: Task, cpu: Runtime) -> float:
    """Distance of the key's queries from the mean of the target class, in units of its images' own."""
    aims = outputs_of(encoder, task.test.inputs[task.test.labels == result.key.expected[0]], runtime=cpu)
    centre = aims.mean(0)
    shown = outputs_of(encoder, result.key.queries, runtime=cpu)
    return float((shown - centre).norm(dim=1).mean() / (aims - centre).norm(dim=1).mean())


def test_one_seed_gives_one_encoder_and_leaves_no_trace(
    case: tuple[str, str], config: Any, marked: Callable[..., Marked], clean: nn.Module, tiny_task: Task, cpu: Runtime,
    unchanged_globals: Callable[[], Any],
) -> None:  # fmt: skip
    first, before = marked(*case), weights(clean)
    owner = tiny_task.owner.inputs.clone()
    stir()
    with unchanged_globals():
        again = config(tiny_task, seed=SEED, runtime=cpu, clean=clean)
    assert weights(again.model) == weights(first.model)
    assert again.key.commitment == first.key.commitment
    assert weights(clean) == before
    assert torch.equal(tiny_task.owner.inputs, owner)
    assert all(p.requires_grad for p in clean.parameters())


def test_what_is_neither_learned_from_nor_chosen_by_does_not_count(
    case: tuple[str, str], config: Any, marked: Callable[..., Marked], clean: nn.Module, tiny_task: Task, cpu: Runtime
) -> None:
    """The adversary's images and the test split are not looked at."""
    elsewhere = dataclasses.replace(tiny_task, adversary=tiny_task.test, test=tiny_task.adversary)
    if case[1] == next(iter(CONFIGS[case[0]])):
        again = config(elsewhere, seed=SEED, runtime=cpu, clean=clean)
        assert weights(again.model) == weights(marked(*case).model)


# ---------------------------------------------------------------- own


def test_labels_of_their_own_have_no_place_among_features(tiny_task: Task, clean: nn.Module, cpu: Runtime) -> None:
    with pytest.raises(BadConfig, match="take another trigger"):
        JointEncoder(**BASE, trigger=RandomLabels(), triggers=20)(tiny_task, seed=0, runtime=cpu, clean=clean)


def test_an_encoder_of_another_width_is_refused(tiny_task: Task, clean: nn.Module, cpu: Runtime) -> None:
    with pytest.raises(BadConfig, match="not of the architecture"):
        JointEncoder(**{**BASE, "width": 23}, **TRIGGERS)(tiny_task, seed=0, runtime=cpu, clean=clean)


def test_a_rehearsal_of_logits_is_refused() -> None:
    with pytest.raises(BadConfig, match=r"set rehearsal\.thief\.loss\.kind=mse"):
        T2SEncoder(rehearsal=Rehearsal())


def test_images_of_classes_are_drawn_from_these(tiny_task: Task) -> None:
    labels = torch.tensor([3, 0, 3, 5])
    drawn: Tensor = of_class(tiny_task.owner, labels, seed=1)
    for image, label in zip(drawn, labels, strict=True):
        found = (tiny_task.owner.inputs == image).flatten(1).all(1).nonzero().flatten()
        assert int(tiny_task.owner.labels[found[0]]) == int(label)
