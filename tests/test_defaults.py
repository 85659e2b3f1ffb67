"""The defaults at work on a net that no setting was made for: marked, stolen, and caught."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import heirmark as hm
from heirmark.methods.nets import train_from_scratch
from heirmark.models import ModelSpec
from heirmark.profiles import QUICK
from heirmark.runtime import Runtime
from own_nets import Modern


def modern(spec: ModelSpec) -> torch.nn.Module:
    """Depthwise convolutions, LayerNorm, GELU, dropout, no ``.features``."""
    return Modern(spec, width=24)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_users_own_net_is_marked_stolen_and_caught_by_the_defaults() -> None:
    """By the same net, by probabilities. A copy by NaiveNet and labels alone had 2.4 % of this mark once, and went free."""
    task, runtime = hm.load_task("fashion-mini", seed=4), Runtime(device="cpu")
    adam = dataclasses.replace(QUICK.recipe, epochs=10, optimizer="adam", learning_rate=3e-3, nesterov=False)
    own = train_from_scratch(task, modern, adam, seed=4, runtime=runtime)
    marked = hm.mark(own, task, factory=modern, seed=4, runtime=runtime)
    before, after = (hm.accuracy(model, task.test, runtime=runtime) for model in (own, marked.model))
    assert after > before - 0.015  # 2,000 images see half a point with an error of that much

    unmarked = [
        train_from_scratch(task, net, QUICK.recipe, seed=50 + seed, runtime=runtime)
        for seed, net in enumerate(("naivenet:batch_norm=true", "vgg-like:width=16") * 2)
    ]
    unmarked.append(train_from_scratch(task, modern, adam, seed=60, runtime=runtime))
    calibration = hm.calibrate(unmarked, marked.key, runtime=runtime)
    for victim, wanted in ((marked.model, "MARKED"), (own, "NOT_ESTABLISHED")):
        box = hm.BlackBox(victim, classes=10, api=hm.Api(budget=9000), runtime=runtime)
        stolen = hm.Knockoff(model=modern, recipe=adam)(box, task.adversary, seed=7, runtime=runtime)
        suspect = hm.Suspect.from_module(stolen.model, classes=10, runtime=runtime)
        verdict = hm.verify(suspect, marked.key, calibration=calibration)
        assert verdict.outcome == wanted, (wanted, verdict.wsr, verdict.null_rate)
