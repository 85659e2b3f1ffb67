"""What every method and attack promises on sounds: it works, or says in one sentence that it needs something else.

Whoever adds one gives it a tiny configuration here, or a place in ``IMAGES_ALONE``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from contracts import weights
from torch import nn

from heirmark.attacks import (
    EXTRACTIONS,
    INSPECTIONS,
    JBDA,
    REMOVALS,
    SCREENINGS,
    WRK,
    ActiveThief,
    Distillation,
    DistillTo,
    FinePruning,
    FineTuning,
    Int8,
    Knockoff,
    KnockoffAdaptive,
    LocalOutliers,
    MarkErase,
    MislabelledMixes,
    Overwriting,
    Preprocessing,
    Pruning,
    Quantisation,
)
from heirmark.errors import BadConfig
from heirmark.methods import (
    EWE,
    METHODS,
    T2S,
    Abstract,
    BadNets,
    Composite,
    DeepTracer,
    FeatureSharing,
    Fingerprint,
    Margin,
    MEADefender,
    Noise,
    Robust,
    Unmarked,
    Unrelated,
    Vanilla,
)
from heirmark.methods.nets import net_of, train_from_scratch
from heirmark.models import Net
from heirmark.querying.asking import predict
from heirmark.querying.blackbox import Api, BlackBox
from heirmark.rehearsal.budget_settings import WithinBudget
from heirmark.rehearsal.settings import Balanced, Rehearsal
from heirmark.runtime import Runtime
from heirmark.tasks.task import Task
from heirmark.training.fitting import Recipe
from heirmark.training.joint import Phase
from heirmark.triggers import AbstractImages, Entangled, Feature, OutOfDistribution, RandomLabels, Tone

MODEL = "m5:width=6,stride=2"
ADAM = Recipe(epochs=2, batch_size=16, learning_rate=0.01, optimizer="adam", augment="shift")
COMMON: dict[str, Any] = {"model": MODEL, "pretraining": dataclasses.replace(ADAM, epochs=4), "key_size": 24}
MARKING: dict[str, Any] = {**COMMON, "triggers": 48}
JOINED: dict[str, Any] = {**MARKING, "trigger_batch": 8}
LATE = Phase(recipe=ADAM, extras={"watermark": 6})
WORDS = OutOfDistribution(dataset="speech-commands-other")

ON_WAVES: Mapping[str, Any] = {
    "robust": Robust(
        **MARKING,
        thieves=(MODEL, "mel-cnn:width=2,mels=8,rate=4000"),
        judges=("m5:width=4,kernel=100,stride=3",),
        feature_recipe=ADAM,
        rehearsal=WithinBudget(
            recipe=dataclasses.replace(WithinBudget().recipe, epochs=2, batch_size=16, learning_rate=0.01)
        ),
    ),
    "t2s": T2S(
        **JOINED,
        trigger=Feature(steps=5),
        rehearsal=Rehearsal(
            recipe=Recipe(epochs=1, batch_size=48, learning_rate=0.01, weight_decay=0.0), trigger_batch=16, update=Balanced()
        ),
    ),
    "mea-defender": MEADefender(
        **MARKING,
        evasion_samples=20,
        first=LATE,
        second=Phase(recipe=ADAM, extras={"watermark": 4, "evasion": 2}),
    ),
    "deeptracer": DeepTracer(**MARKING, first=LATE, second=LATE, key_filter=None),
    "feature-sharing": FeatureSharing(**JOINED, trigger=Tone(), tuning=ADAM),
    "ewe": EWE(
        **MARKING,
        trigger=Entangled(of=AbstractImages(), rounds=1),
        training=Phase(recipe=ADAM, extras={"watermark": 4, "target": 4}),
    ),
    "margin": Margin(**JOINED, training=ADAM, steps=1),
    "composite": Composite(**MARKING, mixed=20, training=Phase(recipe=ADAM, extras={"watermark": 4, "mixed": 4})),
    "badnets": BadNets(**JOINED, trigger=Tone(hosts="any")),
    "noise": Noise(**JOINED),
    "unrelated": Unrelated(**JOINED, trigger=WORDS),
    "abstract": Abstract(**JOINED, training=ADAM),
    "vanilla": Vanilla(**JOINED, trigger=RandomLabels(of=Tone())),
    "fingerprint": Fingerprint(model=MODEL, pretraining=dataclasses.replace(ADAM, epochs=1), key_size=20),
    "unmarked": Unmarked(**COMMON),
}  # fmt: skip
THIEF: dict[str, Any] = {"model": MODEL, "recipe": dataclasses.replace(ADAM, epochs=5)}
ATTACKS: Mapping[str, Any] = {
    "knockoff": Knockoff(**THIEF),
    "knockoff-adaptive": KnockoffAdaptive(**THIEF, queries=240, batch=80),
    "distillation": Distillation(**THIEF),
    "jbda": JBDA(**THIEF, seeds=100, rounds=1),
    "active-thief": ActiveThief(**THIEF, queries=280, rounds=1, initial=0.6),
    "fine-tuning": FineTuning(recipe=ADAM),
    "pruning": Pruning(rate=0.3),
    "fine-pruning": FinePruning(rate=0.2, recipe=ADAM),
    "quantisation": Quantisation(bits=8),
    "int8": Int8(calibration=32),
    "distil-to": DistillTo(**THIEF),
    "wrk": WRK(recipe=ADAM),
    "mark-erase": MarkErase(recipe=ADAM),
    "mislabelled-mixes": MislabelledMixes(kinds=("blend",), mixes=30, per_batch=8, recipe=ADAM),
    "overwriting": Overwriting(kind="blend", triggers=30, per_batch=8, recipe=ADAM),
    "preprocessing": Preprocessing(kind="resample"),
    "lof": LocalOutliers(),
}
IMAGES_ALONE = {
    "methods": {"ssw-p", "ssw-s", "content"},
    "attacks": {"dfme", "maze", "transfer", "adaptive", "neural-cleanse", "abs", "mix-probing", "composites"},
}


@pytest.fixture(scope="module")
def held(tiny_sounds: Task, cpu: Runtime) -> nn.Module:
    """What the owner has and thieves ask. Do not change it."""
    return train_from_scratch(tiny_sounds, MODEL, COMMON["pretraining"], seed=0, runtime=cpu)


@pytest.fixture(scope="module")
def net(tiny_sounds: Task, held: nn.Module) -> Net:
    return net_of(held, tiny_sounds, MODEL)


def right(model: nn.Module, task: Task, cpu: Runtime) -> float:
    said = predict(model, task.test.inputs, runtime=cpu).argmax(1)
    return float((said == task.test.labels).float().mean())


@pytest.mark.parametrize("name", [name for name in METHODS if name not in IMAGES_ALONE["methods"]])
def test_a_method_marks_a_model_that_hears(name: str, tiny_sounds: Task, held: nn.Module, cpu: Runtime) -> None:
    assert name in ON_WAVES, f"give {name!r} a tiny configuration in ON_WAVES, or a place in IMAGES_ALONE"
    before = weights(held)
    clean = None if name == "fingerprint" else held  # of which mistakes are wanted
    marked = ON_WAVES[name](tiny_sounds, seed=1, runtime=cpu, clean=clean)
    assert weights(held) == before
    assert marked.key.queries.shape[1:] == marked.key.controls.shape[1:] == (1, 400)
    assert marked.key.queries.dtype == torch.int16
    assert len(marked.key) > 10
    assert marked.net.spec.name == "m5"
    assert bool(predict(marked.model, tiny_sounds.test.inputs, runtime=cpu).isfinite().all())


@pytest.mark.parametrize("name", sorted(IMAGES_ALONE["methods"]))
def test_a_method_for_images_says_so(name: str, tiny_sounds: Task, held: nn.Module, cpu: Runtime) -> None:
    with pytest.raises(BadConfig, match="needs images"):
        METHODS[name](model=MODEL)(tiny_sounds, seed=0, runtime=cpu, clean=held)


@pytest.mark.parametrize("name", [name for name in EXTRACTIONS if name not in IMAGES_ALONE["attacks"]])
def test_a_thief_steals_what_hears(name: str, tiny_sounds: Task, held: nn.Module, cpu: Runtime) -> None:
    assert name in ATTACKS, f"give {name!r} a tiny configuration in ATTACKS, or a place in IMAGES_ALONE"
    for answers in ("probabilities", "label") if name == "knockoff" else ("probabilities",):
        box = BlackBox(held, classes=6, runtime=cpu, api=Api(answers=answers))
        copy = ATTACKS[name](box, tiny_sounds.adversary, seed=0, runtime=cpu)
        assert copy.spec.input_shape == (1, 400)
        assert box.queries_used > 0
        assert right(copy.model, tiny_sounds, cpu) > 0.3, "chance is a sixth"


@pytest.mark.parametrize("name", [name for name in REMOVALS if name not in IMAGES_ALONE["attacks"]])
def test_a_removal_alters_what_hears(name: str, tiny_sounds: Task, net: Net, cpu: Runtime) -> None:
    if name == "int8":
        pytest.importorskip("onnxruntime")
    assert name in ATTACKS, f"give {name!r} a tiny configuration in ATTACKS, or a place in IMAGES_ALONE"
    before = weights(net.model)
    altered = ATTACKS[name](net, tiny_sounds.adversary, seed=0, runtime=cpu)
    assert weights(net.model) == before
    assert right(altered.model, tiny_sounds, cpu) > 0.3


@pytest.mark.parametrize("name", [name for name in SCREENINGS if name not in IMAGES_ALONE["attacks"]])
def test_a_screen_flags_noise_and_lets_words_pass(name: str, tiny_sounds: Task, net: Net, cpu: Runtime) -> None:
    assert name in ATTACKS, f"give {name!r} a tiny configuration in ATTACKS, or a place in IMAGES_ALONE"
    screen = ATTACKS[name](net, tiny_sounds.adversary, seed=0, runtime=cpu)
    assert screen(tiny_sounds.test.inputs).shape == (120,)
    assert float(screen(tiny_sounds.test.inputs).float().mean()) < 0.5


@pytest.mark.parametrize("name", sorted(IMAGES_ALONE["attacks"]))
def test_an_attack_for_images_says_so(name: str, tiny_sounds: Task, net: Net, cpu: Runtime) -> None:
    box = BlackBox(net.model, classes=6, runtime=cpu)
    kinds: Mapping[str, Any] = {**EXTRACTIONS, **REMOVALS, **INSPECTIONS, **SCREENINGS}
    with pytest.raises(BadConfig, match="image"):
        kinds[name]()(box if name in EXTRACTIONS else net, tiny_sounds.adversary, seed=0, runtime=cpu)
