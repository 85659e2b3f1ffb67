"""What every registered watermarking method promises, run for each of them with each kind of trigger.

A method that is added to ``METHODS`` is picked up by itself; it needs tiny configurations in ``CONFIGS``.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts import (
    BAD_SEEDS,
    SettingsOf,
    check_frozen_and_keyword_only,
    check_json,
    check_seeds,
    check_text,
    stir,
    weights,
)
from torch import Tensor, nn

from heirmark.configuration import apply_settings
from heirmark.errors import BadConfig
from heirmark.keys.key import Key
from heirmark.methods import (
    EWE,
    METHODS,
    SSWP,
    SSWS,
    T2S,
    Abstract,
    BadNets,
    Composite,
    Content,
    DeepTracer,
    FeatureSharing,
    Fingerprint,
    Margin,
    Marked,
    MEADefender,
    Noise,
    Robust,
    Unmarked,
    Unrelated,
    Vanilla,
    Watermark,
)  # fmt: skip
from heirmark.methods.nets import train_from_scratch
from heirmark.models.storage import load_model, save_model
from heirmark.querying.asking import predict
from heirmark.rehearsal.budget_settings import WithinBudget
from heirmark.rehearsal.closed_form import Closing
from heirmark.rehearsal.settings import Balanced, Rehearsal, SimulatedThief
from heirmark.runtime import Runtime
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Mixed, Recipe
from heirmark.training.joint import Phase
from heirmark.triggers import (
    AbstractImages,
    AnyTrigger,
    Entangled,
    Feature,
    GaussianNoise,
    Groups,
    Mix,
    OutOfDistribution,
    Patch,
    RandomLabels,
    TextStamp,
    Tiles,
)
from heirmark.verification import Suspect, calibrate, verify

TRIGGERS: dict[str, AnyTrigger] = {
    "feature": Feature(steps=10),
    "mix": Mix(),
    "tiles": Tiles(samples=60),
    "out-of-distribution": OutOfDistribution(source=1),
    "patch": Patch(),
}
BASELINE_TRIGGERS: dict[str, AnyTrigger] = {
    "text": TextStamp(),
    "noise": GaussianNoise(),
    "abstract": AbstractImages(),
    "entangled": Entangled(of=OutOfDistribution(source=1)),
    "any-host": Patch(hosts="any"),
    "random-labels": RandomLabels(),
    "random-labels-on-text": RandomLabels(of=TextStamp()),
}
COMMON: dict[str, Any] = {
    "model": "naivenet:width=4,hidden=16,batch_norm=true",
    "pretraining": Recipe(epochs=3, batch_size=16, learning_rate=0.02, optimizer="adam"),
    "key_size": 40,
}
MARKING: dict[str, Any] = {**COMMON, "triggers": 60, "trigger_batch": 8}
# Classes that unmarked models of the tiny task never confuse in this way: with six classes drawn at random a good share of
# the keys is hit by chance, and rightly proves nothing.
PROVABLE = Mix(sources=(1, 3), target=0)
PAPER = Rehearsal(recipe=Recipe(epochs=1, batch_size=48, learning_rate=1e-3, weight_decay=0.0), trigger_batch=16)
BALANCED = dataclasses.replace(
    PAPER,
    recipe=dataclasses.replace(PAPER.recipe, learning_rate=0.01),
    update=Balanced(),
    thief=SimulatedThief(reset_every=3),
)

ADAM = COMMON["pretraining"]
MEA: dict[str, Any] = {
    **COMMON,
    "triggers": 60,
    "evasion_samples": 30,
    "evasion": ("left", "pixels", "stripes"),
    "first": Phase(recipe=dataclasses.replace(ADAM, epochs=3), extras={"watermark": 2}),
    "second": Phase(recipe=dataclasses.replace(ADAM, epochs=2), extras={"watermark": 4, "evasion": 2}, share=0.8),
}
TINY = "naivenet:width=4,hidden=16,batch_norm=true"
ROBUST: dict[str, Any] = {
    **COMMON,
    "key_size": 25,
    "triggers": 60,
    "thieves": (TINY,),
    "judges": ("naivenet:width=3,hidden=8",),
    "feature_recipe": COMMON["pretraining"],
    "rehearsal": WithinBudget(
        recipe=dataclasses.replace(WithinBudget().recipe, epochs=4, batch_size=16, learning_rate=0.01),
        rho=1.0,
        accuracy_budget=0.1,
    ),
}
COUPLED: dict[str, Any] = {
    **COMMON,
    "triggers": 60,
    "first": Phase(recipe=dataclasses.replace(ADAM, epochs=1), extras={"watermark": 1}),
    "second": Phase(recipe=dataclasses.replace(ADAM, epochs=3), extras={"watermark": 6}),
    "key_filter": None,
}
SHARED: dict[str, Any] = {**MARKING, "tuning": ADAM}
ENTANGLED: dict[str, Any] = {
    **COMMON,
    "triggers": 60,
    "training": Phase(recipe=ADAM, extras={"watermark": 4, "target": 4}),
}
COMPOSED: dict[str, Any] = {
    **COMMON,
    "triggers": 60,
    "mixed": 60,
    "training": Phase(recipe=dataclasses.replace(ADAM, epochs=4), extras={"watermark": 4, "mixed": 4}),
}

ADAM_LONG = dataclasses.replace(ADAM, epochs=5)
LEARNED: dict[str, Any] = {**MARKING, "triggers": 40, "trigger_batch": 16}
OTHER_TASK = OutOfDistribution(source=1, target=3)  # which unmarked models never call them
SHADOWED: dict[str, Any] = {
    **MARKING,
    "trigger": OTHER_TASK,
    "candidates": 40,
    "training": dataclasses.replace(ADAM, epochs=2, learning_rate=0.01, schedule="constant"),
    "selected": False,
}
BY_HEART: dict[str, Any] = {**LEARNED, "training": dataclasses.replace(ADAM, epochs=8, learning_rate=0.01)}

# The tiny configurations of every method, by name. The first of a method is the one that has to be proved.
CONFIGS: dict[str, dict[str, Any]] = {
    "t2s": {
        "provable": T2S(**MARKING, trigger=PROVABLE, rehearsal=BALANCED),
        **{
            f"balanced-{kind}": T2S(**MARKING, trigger=trigger, rehearsal=BALANCED)
            for kind, trigger in TRIGGERS.items()
        },
        "paper": T2S(**MARKING, trigger=TRIGGERS["tiles"], rehearsal=PAPER),
        "on-mea-defender": T2S(**MARKING, trigger=PROVABLE, rehearsal=BALANCED, watermark=MEADefender(**MEA)),
        "on-deeptracer": T2S(**MARKING, trigger=TRIGGERS["tiles"], rehearsal=BALANCED, watermark=DeepTracer(**COUPLED)),
        "on-feature-sharing": T2S(
            **MARKING, trigger=TRIGGERS["patch"], rehearsal=BALANCED, watermark=FeatureSharing(**SHARED)
        ),
        "on-ewe": T2S(**MARKING, trigger=PROVABLE, rehearsal=BALANCED, watermark=EWE(**ENTANGLED)),
        "on-margin": T2S(**MARKING, trigger=TRIGGERS["patch"], rehearsal=BALANCED, watermark=Margin(**BY_HEART)),
        "on-abstract": T2S(**MARKING, trigger=TRIGGERS["patch"], rehearsal=BALANCED, watermark=Abstract(**BY_HEART)),
        "on-composite": T2S(**MARKING, trigger=PROVABLE, rehearsal=BALANCED, watermark=Composite(**COMPOSED)),
        "random-labels": T2S(**MARKING, trigger=RandomLabels(of=TextStamp()), rehearsal=BALANCED),
        "with-closed-form": T2S(
            **MARKING, trigger=PROVABLE, rehearsal=dataclasses.replace(BALANCED, closed_form=Closing())
        ),
        "from-clean": T2S(**MARKING, trigger=TRIGGERS["mix"], rehearsal=BALANCED, initial="clean"),
        "from-scratch": T2S(**MARKING, trigger=TRIGGERS["mix"], rehearsal=BALANCED, initial="scratch"),
        "without-rehearsal": T2S(**MARKING, trigger=TRIGGERS["mix"], rehearse=False),
        "without-rehearsal-from-clean": T2S(**MARKING, trigger=TRIGGERS["mix"], rehearse=False, initial="clean"),
    },
    "robust": {
        "provable": Robust(**ROBUST, trigger=OTHER_TASK),
        "tiles": Robust(**ROBUST, trigger=TRIGGERS["tiles"]),
        "mix": Robust(**ROBUST, trigger=TRIGGERS["mix"]),
        "random-labels": Robust(**ROBUST, trigger=RandomLabels(of=TextStamp())),
        "groups": Robust(**ROBUST, trigger=Groups(count=4, candidates=3, samples=10)),
    },
    "mea-defender": {
        "provable": MEADefender(**MEA, trigger=PROVABLE, weighting="fixed", weights=(1.0, 0.1, 1.0, 0.5)),
        "mgda": MEADefender(**MEA, trigger=PROVABLE),
        **{
            f"on-{kind}": MEADefender(**MEA, trigger=TRIGGERS[kind])
            for kind in ("tiles", "feature", "out-of-distribution")
        },
        "from-clean": MEADefender(**MEA, trigger=TRIGGERS["mix"], start="clean"),
        "fixed-weights": MEADefender(**MEA, trigger=TRIGGERS["mix"], weighting="fixed", without=("combination",)),
    },
    "deeptracer": {
        "provable": DeepTracer(**COUPLED, trigger=PROVABLE),
        **{f"on-{kind}": DeepTracer(**COUPLED, trigger=TRIGGERS[kind]) for kind in ("tiles", "out-of-distribution")},
        "moving-centroids": DeepTracer(**COUPLED, trigger=PROVABLE, centroids="moving"),
    },
    "feature-sharing": {
        "provable": FeatureSharing(**SHARED, trigger=PROVABLE, frozen=1),
        **{f"on-{kind}": FeatureSharing(**SHARED, trigger=TRIGGERS[kind]) for kind in ("patch", "out-of-distribution")},
        "nothing-frozen": FeatureSharing(**SHARED, trigger=TRIGGERS["patch"], frozen=0),
    },
    "ewe": {
        "provable": EWE(**ENTANGLED, trigger=Entangled(of=OTHER_TASK)),
        "on-patch": EWE(**ENTANGLED, trigger=Entangled(of=Patch(), rounds=2), factors=(1.0,), temperatures=(2.0,)),
    },
    "ssw-p": {"provable": SSWP(**SHADOWED), "on-mix": SSWP(**{**SHADOWED, "trigger": PROVABLE})},
    "ssw-s": {"provable": SSWS(**{**SHADOWED, "steps": 3})},
    "margin": {
        "provable": Margin(
            **{**BY_HEART, "model": "naivenet:width=8,hidden=64,batch_norm=true"}, steps=1, weight=1.0, drops=(0.8,)
        ),
        "on-patch": Margin(**BY_HEART, trigger=Patch()),
    },
    "composite": {
        "provable": Composite(**COMPOSED, trigger=PROVABLE),
        "on-patch": Composite(**{**COMPOSED, "mixed": 0}, trigger=Patch()),
    },
    "badnets": {
        "provable": BadNets(
            **{**MARKING, "pretraining": dataclasses.replace(ADAM, epochs=5)}, trigger=Patch(hosts="any", size=4)
        ),
    },
    "content": {"provable": Content(**MARKING, trigger=TextStamp(source=1, target=0))},
    "noise": {"provable": Noise(**MARKING, trigger=GaussianNoise(source=1, target=0))},
    "unrelated": {"provable": Unrelated(**MARKING, trigger=OTHER_TASK)},
    "abstract": {
        "provable": Abstract(**BY_HEART),
        "from-trained": Abstract(**LEARNED, tuning=BY_HEART["training"], start="pretrained"),
        "one-label": Abstract(**BY_HEART, trigger=AbstractImages()),
    },
    "vanilla": {
        "provable": Vanilla(**MARKING, trigger=PROVABLE),
        **{kind: Vanilla(**MARKING, trigger=trigger) for kind, trigger in (TRIGGERS | BASELINE_TRIGGERS).items()},
    },
    "fingerprint": {
        # A model that errs enough.
        "provable": Fingerprint(**{**COMMON, "pretraining": dataclasses.replace(ADAM, epochs=1, learning_rate=0.003)})
    },
    "unmarked": {
        "provable": Unmarked(**COMMON, trigger=PROVABLE),
        **{kind: Unmarked(**COMMON, trigger=trigger) for kind, trigger in (TRIGGERS | BASELINE_TRIGGERS).items()},
        "competitor": Unmarked(**COMMON, trigger=TRIGGERS["tiles"], data="adversary"),
    },
}
EVERY = [(name, variant) for name in METHODS for variant in CONFIGS.get(name, {"": None})]
NAMES = [f"{name}-{variant}" for name, variant in EVERY]
# One configuration a method and one a trigger are trained, and trained again, here; ``make slow`` does so with the others.
TELLING = {(name, next(iter(variants))) for name, variants in CONFIGS.items()} | {
    ("vanilla", kind) for kind in TRIGGERS | BASELINE_TRIGGERS
}
trained = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=[] if case in TELLING else pytest.mark.slow)
        for case, name in zip(EVERY, NAMES, strict=True)
    ],
    indirect=True,
)
SEED = 3


@pytest.fixture(params=EVERY, ids=NAMES)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    name, variant = request.param
    return name, variant or first_of(name)


def first_of(name: str) -> str:
    if name not in CONFIGS:
        pytest.fail(f"the method {name!r} has no tiny configuration: add one to CONFIGS in {Path(__file__).name}")
    return next(iter(CONFIGS[name]))


@pytest.fixture
def config(case: tuple[str, str]) -> Any:
    return CONFIGS[case[0]][case[1]]


def digest(marked: Marked) -> dict[str, Any]:
    """All of a result, to be compared for equality."""
    sets = {"training": marked.training_triggers, "verification": marked.verification_triggers}
    return {
        "weights": weights(marked.model),
        "key": marked.key.commitment,
        "history": [dict(row) for row in marked.history],
        "spec": marked.net.spec,
        **{
            name: None if drawn is None else [getattr(drawn, part).numpy().tobytes() for part in ("inputs", "controls")]
            for name, drawn in sets.items()
        },
    }


class CleanModels:
    """The clean model of a configuration and seed, trained once, which nobody may change."""

    def __init__(self, task: Task, runtime: Runtime) -> None:
        self.task, self.runtime = task, runtime
        self.kept: dict[tuple[str, Recipe, str, int], nn.Module] = {}

    def __call__(self, config: Any, seed: int = SEED) -> nn.Module:
        role = getattr(config, "data", "owner")
        key = (config.model, config.pretraining, role, seed)
        if key not in self.kept:
            data = self.task.splits[role]
            self.kept[key] = train_from_scratch(self.task, *key[:2], seed=seed, runtime=self.runtime, data=data)
        return self.kept[key]


@pytest.fixture(scope="module")
def clean_for(tiny_task: Task, cpu: Runtime) -> CleanModels:
    return CleanModels(tiny_task, cpu)


@pytest.fixture(scope="module")
def runs(tiny_task: Task, cpu: Runtime, clean_for: CleanModels) -> Callable[..., Marked]:
    """Runs a configuration once and keeps the result, which no test may change.

    It is given its clean model; that this changes nothing is what the tests of randomness show.
    """
    kept: dict[tuple[str, str], Marked] = {}

    def run(name: str, variant: str) -> Marked:
        if (name, variant) not in kept:
            config = CONFIGS[name][variant]
            kept[name, variant] = config(tiny_task, seed=SEED, runtime=cpu, clean=clean_for(config))
        return kept[name, variant]

    return run


@pytest.fixture
def marked(case: tuple[str, str], runs: Callable[..., Marked]) -> Marked:
    return runs(*case)


@pytest.fixture(scope="module")
def unmarked_models(tiny_task: Task, cpu: Runtime) -> list[nn.Module]:
    """Five models that never met a watermark and choose nothing."""
    return [
        train_from_scratch(tiny_task, COMMON["model"], COMMON["pretraining"], seed=1000 + number, runtime=cpu)
        for number in range(5)
    ]


# ---------------------------------------------------------------- the seed


@pytest.mark.parametrize("name", METHODS)
def test_what_is_no_seed_is_refused(name: str, tiny_task: Task, cpu: Runtime) -> None:
    config = CONFIGS[name][first_of(name)]
    check_seeds(lambda seed: config(tiny_task, seed=seed, runtime=cpu), bad=BAD_SEEDS[1:])


def test_without_a_seed_nobody_can_make_the_key_again(tiny_task: Task, cpu: Runtime) -> None:
    clean = train_from_scratch(tiny_task, COMMON["model"], COMMON["pretraining"], seed=0, runtime=cpu)
    for name in ("unmarked", "content", "ssw-p"):
        config = CONFIGS[name][first_of(name)]
        one, two = (config(tiny_task, seed=None, runtime=cpu, clean=clean).key for _ in range(2))
        assert one.nonce != two.nonce
        assert one.commitment != two.commitment


# ---------------------------------------------------------------- the configuration


def test_every_method_has_a_configuration_here(case: tuple[str, str]) -> None:
    name, variant = case
    assert type(CONFIGS[name][variant]) is METHODS[name]


@pytest.mark.parametrize("name", METHODS)
def test_a_configuration_is_frozen_and_keyword_only(name: str) -> None:
    check_frozen_and_keyword_only(METHODS[name])


def test_a_configuration_goes_to_json_and_back(config: Any) -> None:
    check_json(config, METHODS)


def test_every_setting_can_be_given_as_text_and_has_a_help(config: Any, settings_of: SettingsOf) -> None:
    check_text(config, settings_of)


@pytest.mark.parametrize("name", METHODS)
def test_a_mistyped_setting_is_an_error(name: str) -> None:
    for setting in ("epoch=3", "model", "key_size=many", "pretraining.epochs=1.5"):
        with pytest.raises(BadConfig):
            apply_settings(METHODS[name](), [setting])


# ---------------------------------------------------------------- the result


@trained
def test_a_result_is_whole(marked: Marked, tiny_task: Task, cpu: Runtime, tmp_path: Path) -> None:
    assert not any(part.training for part in marked.model.modules())
    assert marked.net.spec.input_shape == tiny_task.input_shape
    assert marked.net.spec.classes == tiny_task.num_classes
    logits = predict(marked.model, tiny_task.test.inputs, runtime=cpu)
    assert logits.shape == (120, 6)
    assert bool(torch.isfinite(logits).all())
    assert marked.model.state_dict().keys() == marked.net.spec.build(seed=0).state_dict().keys()
    save_model(marked.net, tmp_path / "model")
    loaded = load_model(tmp_path / "model").model
    assert torch.equal(predict(loaded, tiny_task.test.inputs, runtime=cpu), logits)
    marked.key.save(tmp_path / "key")
    assert Key.load(tmp_path / "key").commitment == marked.key.commitment
    json.dumps([dict(row) for row in marked.history], allow_nan=False)


@trained
def test_the_key_is_of_this_task_and_method(case: tuple[str, str], marked: Marked, tiny_task: Task) -> None:
    key, drawn = marked.key, marked.verification_triggers
    assert key.method == case[0]
    assert key.classes == tiny_task.num_classes
    assert key.input_shape == tiny_task.input_shape
    assert 20 <= len(key) <= COMMON["key_size"]
    wanted = dict(zip(rows(drawn.inputs), drawn.targets.tolist(), strict=True))
    assert key.expected.tolist() == [wanted[row] for row in rows(key.queries)]
    if key.trigger["target"] is not None:
        assert key.expected.tolist() == [key.trigger["target"]] * len(key)
    shown = dict(zip(rows(drawn.inputs), rows(drawn.controls), strict=True))
    assert [shown[row] for row in rows(key.queries)] == rows(key.controls)


def memorises(config: Any) -> bool:
    """Random labels are the one exception to the rule that what trains never verifies."""
    return isinstance(config.trigger, RandomLabels)


@trained
def test_only_a_key_of_random_labels_is_of_what_trained_and_it_says_so(
    config: Any, marked: Marked, tiny_task: Task, tmp_path: Path
) -> None:
    key, trained = marked.key, marked.training_triggers
    assert key.memorised is memorises(config)
    key.save(tmp_path)
    manifest = json.loads((tmp_path / "key.json").read_text())
    assert manifest["memorised"] is key.memorised
    assert manifest["kind"] == key.kind == key.trigger["kind"]
    constant = Suspect.from_callable(lambda inputs: torch.zeros(len(inputs), dtype=torch.long), classes=key.classes)
    assert ("memorised-key" in verify(constant, key).flags) is key.memorised
    if key.memorised:
        assert key.disjoint_from(tiny_task.adversary.inputs)
        assert key.disjoint_from(tiny_task.calibration.inputs)
        assert set(rows(key.controls)).isdisjoint(rows(key.queries))
        if trained is not None:
            answers = dict(zip(rows(trained.inputs), trained.targets.tolist(), strict=True))
            assert key.expected.tolist() == [answers[row] for row in rows(key.queries)], "the very set that trained"


def rows(inputs: Tensor) -> list[bytes]:
    return [row.contiguous().numpy().tobytes() for row in inputs]


@trained
def test_nothing_that_trained_verifies(config: Any, marked: Marked, tiny_task: Task) -> None:
    key, trained = marked.key, marked.training_triggers
    if memorises(config):
        pytest.skip("random labels verify what trained: see the test before")
    assert key.disjoint_from(tiny_task.owner.inputs)
    assert key.disjoint_from(tiny_task.adversary.inputs)
    owned = set(rows(tiny_task.owner.inputs))
    assert owned.isdisjoint(rows(key.controls))
    hosts = marked.verification_triggers.hosts.flatten(0, 1)
    assert owned.isdisjoint(rows(hosts))
    assert set(rows(hosts)) <= set(rows(tiny_task.calibration.inputs)), "verification hosts come from calibration"
    if trained is not None:
        assert key.disjoint_from(trained.inputs)
        assert set(rows(trained.hosts.flatten(0, 1))) <= owned, "training hosts come from the owner's split"
        assert set(rows(trained.controls)).isdisjoint(rows(key.controls))


# ---------------------------------------------------------------- randomness and side effects


@trained
def test_one_seed_gives_one_result_looks_at_no_other_split_and_leaves_no_trace(
    case: tuple[str, str], config: Any, runs: Callable[..., Marked], tiny_task: Task, cpu: Runtime,
    unchanged_globals: Callable[[], Any],
) -> None:  # fmt: skip
    """Whatever the global generators are in; the adversary's and the test split are hidden, and progress is told."""
    first = digest(runs(*case))
    splits = {role: (s.inputs.clone(), s.labels.clone()) for role, s in tiny_task.splits.items()}
    blind = copy.copy(tiny_task)
    for role in {"test"} if getattr(config, "data", "owner") == "adversary" else {"adversary", "test"}:
        object.__setattr__(blind, role, Untouchable(role))
    told: list[tuple[str, int, int]] = []
    listening = dataclasses.replace(cpu, progress=lambda *words: told.append(words))
    stir()
    with unchanged_globals():
        second = config(blind, seed=SEED, runtime=listening)
    assert digest(second) == first
    for role, (inputs, labels) in splits.items():
        assert torch.equal(tiny_task.splits[role].inputs, inputs)
        assert torch.equal(tiny_task.splits[role].labels, labels)
    assert told, "long work has to report its progress"
    assert all(0 < done <= total for _, done, total in told)


@trained
def test_another_seed_gives_another_key(
    case: tuple[str, str], runs: Callable[..., Marked], config: Any, tiny_task: Task, cpu: Runtime
) -> None:
    first, other = runs(*case), config(tiny_task, seed=SEED + 1, runtime=cpu)
    assert other.key.commitment != first.key.commitment
    assert other.key.nonce != first.key.nonce
    assert not torch.equal(other.key.queries[:20], first.key.queries[:20])
    assert digest(other)["weights"] != digest(first)["weights"]


class Untouchable:
    """Stands where nobody may look."""

    def __init__(self, role: str) -> None:
        object.__setattr__(self, "role", role)

    def __getattribute__(self, name: str) -> Any:
        if name in ("__class__", "__dict__"):
            return object.__getattribute__(self, name)
        raise AssertionError(f"the method looked at {name!r} of the {object.__getattribute__(self, 'role')} split")

    def __len__(self) -> int:
        raise AssertionError(f"the method looked at the length of the {object.__getattribute__(self, 'role')} split")


@trained
def test_the_calibration_split_does_not_train(
    case: tuple[str, str], config: Any, runs: Callable[..., Marked], tiny_task: Task, cpu: Runtime
) -> None:
    """Whatever the images behind the key are, the model is the same; robust chooses by the others of the split."""
    shuffled, calibration = copy.copy(tiny_task), tiny_task.calibration
    hosts = config.hosts(tiny_task, seed=SEED) if isinstance(config, Watermark) else calibration
    behind = torch.tensor([row in hosts.digests() for row in calibration.row_digests])
    flipped = torch.where(behind[:, None, None, None], calibration.inputs.flip(3), calibration.inputs)
    object.__setattr__(shuffled, "calibration", Split(inputs=flipped, labels=calibration.labels))
    result = config(shuffled, seed=SEED, runtime=cpu)
    assert digest(result)["weights"] == digest(runs(*case))["weights"]
    assert result.key.trigger == runs(*case).key.trigger, "the secret is settled without the calibration split"


@trained
def test_models_that_are_handed_in_save_time_and_nothing_else(
    case: tuple[str, str], config: Any, runs: Callable[..., Marked], tiny_task: Task, cpu: Runtime,
    unchanged_globals: Callable[[], Any],
) -> None:  # fmt: skip
    result = runs(*case)
    data = tiny_task.adversary if getattr(config, "data", "owner") == "adversary" else tiny_task.owner
    clean = train_from_scratch(tiny_task, config.model, config.pretraining, seed=SEED, runtime=cpu, data=data)
    handed: dict[str, nn.Module] = {
        "clean": clean,
        **{role: first(tiny_task, seed=SEED, runtime=cpu).model for role, first in config.builds_on().items()},
    }
    if "watermarked" in handed and config.watermark is None:
        assert result.training_triggers is not None
        mixed = Mixed(samples=result.training_triggers, per_batch=config.trigger_batch)
        handed["watermarked"] = train_from_scratch(
            tiny_task, config.model, config.pretraining, mixed=mixed, seed=SEED, runtime=cpu
        )
    for model in handed.values():  # neither train nor eval mode throughout, so that setting either is noticed
        for number, part in enumerate(model.modules()):
            part.training = number % 2 == 0
    before = {name: state_of(model) for name, model in handed.items()}
    with unchanged_globals():
        again = config(tiny_task, seed=SEED, runtime=cpu, **handed)
    assert digest(again) == digest(result)
    assert not any(part.training for part in again.model.modules())
    for name, model in handed.items():
        assert state_of(model) == before[name], f"the {name} model was changed"
        assert again.model is not model, f"the result is the {name} model itself, which belongs to the caller"


def state_of(model: nn.Module) -> dict[str, Any]:
    """All that may be changed by accident."""
    return {
        "tensors": {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "grads": {name: None if p.grad is None else p.grad.numpy().tobytes() for name, p in model.named_parameters()},
        "modes": {name: part.training for name, part in model.named_modules()},
        "hooks": [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()],
    }


ELSEWHERE = """
import dataclasses, json, sys
sys.path[:0] = {folders!r}
import conftest, test_methods
from heirmark.runtime import Runtime
runtime = Runtime(device="cpu", precision="float32")
found = {{}}
task = dataclasses.replace(conftest.make_tiny_task(), foreign=conftest.make_foreign())
clean = test_methods.CleanModels(task, runtime)
for name in test_methods.METHODS:
    variant = test_methods.first_of(name)
    config = test_methods.CONFIGS[name][variant]
    marked = config(task, seed=test_methods.SEED, runtime=runtime, clean=clean(config))
    found[name] = [variant, marked.key.commitment, test_methods.fingerprint(marked.model)]
print(json.dumps(found))
"""


def fingerprint(model: nn.Module) -> list[str]:
    return [tensor.numpy().tobytes().hex() for tensor in model.state_dict().values()]


def test_another_process_gives_the_same_result(runs: Callable[..., Marked]) -> None:
    here = Path(__file__).parent
    folders = [str(here.parent), str(here), *filter(None, sys.path)]
    result = subprocess.run(
        [sys.executable, "-c", ELSEWHERE.format(folders=folders)],
        capture_output=True, text=True, check=True, timeout=120,
        env={**os.environ, "PYTHONHASHSEED": "4711", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    for name, (variant, commitment, printed) in json.loads(result.stdout).items():
        assert runs(name, variant).key.commitment == commitment
        assert fingerprint(runs(name, variant).model) == printed


# ---------------------------------------------------------------- what can be proved


def judged(model: nn.Module, key: Key, unmarked: list[nn.Module], runtime: Runtime) -> Any:
    calibration = calibrate(unmarked, key, runtime=runtime)
    return verify(Suspect.from_module(model, classes=key.classes, runtime=runtime), key, calibration=calibration)


@pytest.mark.parametrize("name", METHODS)
def test_a_marked_model_is_proved_and_unmarked_ones_are_not(
    name: str, runs: Callable[..., Marked], unmarked_models: list[nn.Module], tiny_task: Task, cpu: Runtime
) -> None:
    variant = first_of(name)
    result = runs(name, variant)
    verdict = judged(result.model, result.key, unmarked_models, cpu)
    if name == "unmarked":
        assert verdict.outcome != "MARKED"
        assert verdict.p_value > 0.05
    else:
        assert verdict.outcome == "MARKED"
        assert verdict.wsr > 0.9
        assert verdict.control_rate < 0.5
    competitor = train_from_scratch(
        tiny_task, COMMON["model"], COMMON["pretraining"], seed=77, runtime=cpu, data=tiny_task.adversary
    )
    assert judged(competitor, result.key, unmarked_models, cpu).p_value > 0.05


def test_the_unmarked_arm_has_no_small_p_values(
    unmarked_models: list[nn.Module], tiny_task: Task, cpu: Runtime, clean_for: CleanModels
) -> None:
    """Of keys drawn at random a few may be hit by chance, as models differ by more than the five that calibrate show."""
    verdicts = {
        (kind, seed): judged(marked.model, marked.key, unmarked_models, cpu)
        for kind, trigger in (TRIGGERS | BASELINE_TRIGGERS).items()
        for seed in range(3)
        for config in [Unmarked(**COMMON, trigger=trigger)]
        for marked in [config(tiny_task, seed=seed, runtime=cpu, clean=clean_for(config, seed))]
    }
    small = {case: verdict.p_value for case, verdict in verdicts.items() if verdict.p_value < 0.05}
    assert len(small) <= 2, small
    marked = [case for case, verdict in verdicts.items() if verdict.outcome == "MARKED"]
    assert len(marked) <= 1, marked
