"""What every registered inspection and screening promises.

A detection attack that is added to ``INSPECTIONS`` or ``SCREENINGS`` is picked up by itself; it needs a tiny configuration in
``CONFIGS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts import (
    SettingsOf,
    cases,
    check_accepts,
    check_frozen_and_keyword_only,
    check_json,
    check_seeds,
    check_text,
    known,
    stir,
    weights,
)
from torch import Tensor, nn

from heirmark.attacks import (
    ABS,
    INSPECTIONS,
    SCREENINGS,
    CompositeScreen,
    Inspected,
    LocalOutliers,
    MixProbing,
    NeuralCleanse,
)
from heirmark.attacks.composites import KINDS
from heirmark.errors import BadConfig, BadData
from heirmark.models import ModelSpec, Net, specify
from heirmark.querying.asking import predict
from heirmark.runtime import Runtime
from heirmark.tasks.storing import decode
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Recipe, fit

RECIPE = Recipe(epochs=1, batch_size=32, optimizer="adam", learning_rate=0.01)
SCREEN_MODEL = "naivenet:width=2,hidden=8,batch_norm=true"

# The tiny configurations of every attack, by name.
CONFIGS: dict[str, dict[str, Any]] = {
    "neural-cleanse": {
        "everything": NeuralCleanse(steps=6, samples=64, patience=2),
        "some": NeuralCleanse(
            steps=4, samples=32, patience=1, success=0.2, stop_patience=1, sources="other", classes=(0, 2, 5), together=2,
            checked=50,
        ),
    },
    "abs": {
        "last": ABS(steps=4),
        "all": ABS(steps=3, layers="all", seeds=2, agreement=0.5, candidates=3),
        "named": ABS(steps=3, layers=("features.1", -1), levels=2, agreement=0.5),
    },
    "mix-probing": {
        "everything": MixProbing(samples=4, least=0.3),
        "some": MixProbing(ways=("blend", "tiles"), samples=3, quadruples=4),
    },
    "lof": {
        "inputs": LocalOutliers(samples=200),
        "components": LocalOutliers(components=5, contamination=0.1, neighbours=5),
        "features": LocalOutliers(on="features", samples=150),
        "logits": LocalOutliers(on="logits"),
    },
    "composites": {
        "-".join(kinds): CompositeScreen(kinds=kinds, model=SCREEN_MODEL, recipe=RECIPE, false_alarms=0.1)
        for kinds in (KINDS, ("tiles",), ("patch", "blend"))
    },
}  # fmt: skip
EVERYTHING = {**INSPECTIONS, **SCREENINGS}
SEED = 3


@pytest.fixture(params=cases(EVERYTHING, CONFIGS))
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    return known(request.param, CONFIGS, Path(__file__).name)


@pytest.fixture
def config(case: tuple[str, str]) -> Any:
    return CONFIGS[case[0]][case[1]]


@pytest.fixture(scope="module")
def spec(tiny_task: Task, tiny_model: str) -> ModelSpec:
    return specify(tiny_model, input_shape=tiny_task.input_shape, classes=6)


@pytest.fixture(scope="module")
def model(tiny_task: Task, spec: ModelSpec, tiny_recipe: Recipe, cpu: Runtime) -> nn.Module:
    """What is inspected and served."""
    net = spec.build(seed=0)
    fit(net, tiny_task.owner.inputs, tiny_task.owner.labels, recipe=tiny_recipe, seed=0, runtime=cpu)
    return net


@pytest.fixture(scope="module")
def results(tiny_task: Task, model: nn.Module, spec: ModelSpec, cpu: Runtime) -> Callable[..., Any]:
    """Runs a configuration once and keeps the result, which no test may change."""
    kept: dict[tuple[str, str], Any] = {}

    def run(name: str, variant: str) -> Any:
        if (name, variant) not in kept:
            kept[name, variant] = CONFIGS[name][variant](
                Net(model=model, spec=spec), tiny_task.adversary, seed=SEED, runtime=cpu
            )
        return kept[name, variant]

    return run


def told(result: Any, queries: Tensor) -> Any:
    """All that an attack gives, to compare by."""
    if not isinstance(result, Inspected):
        return result(queries).tolist()
    triggers = {
        label: (trigger.mask.numpy().tobytes(), trigger.pattern.numpy().tobytes(), trigger.success)
        for label, trigger in result.triggers.items()
    }
    return result.suspects, result.scores, result.threshold, triggers, dict(result.details)


def state(model: nn.Module) -> dict[str, Any]:
    return {
        "weights": weights(model),
        "modes": [part.training for part in model.modules()],
        "gradients": [(p.requires_grad, p.grad is None) for p in model.parameters()],
        "hooks": [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()],
    }


# ---------------------------------------------------------------- the configuration


def test_no_name_is_both() -> None:
    assert not set(INSPECTIONS) & set(SCREENINGS)


def test_every_attack_has_a_configuration_here(case: tuple[str, str], config: Any) -> None:
    assert type(config) is EVERYTHING[case[0]]


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_configuration_is_frozen_and_keyword_only(name: str) -> None:
    check_frozen_and_keyword_only(EVERYTHING[name])


def test_a_configuration_goes_to_json_and_back(config: Any) -> None:
    check_json(config, EVERYTHING)


def test_every_setting_can_be_given_as_text_and_has_a_help(config: Any, settings_of: SettingsOf) -> None:
    check_text(config, settings_of)


@pytest.mark.parametrize("name", EVERYTHING)
def test_an_attack_has_no_way_to_be_given_a_key(name: str) -> None:
    check_accepts(EVERYTHING[name], ["net", "data"], ["seed", "runtime"])


# ---------------------------------------------------------------- the result


def test_what_is_suspected_is_what_the_scores_say(
    case: tuple[str, str], results: Callable[..., Any], tiny_task: Task, model: nn.Module, cpu: Runtime
) -> None:
    found = results(*case)
    if not isinstance(found, Inspected):
        pytest.skip("a screening")
    assert len(found.scores) == 6
    assert not any(math.isnan(score) or score < 0 for score in found.scores)
    assert found.suspects == tuple(label for label, score in enumerate(found.scores) if score > found.threshold)
    assert all(isinstance(value, float) and not math.isnan(value) for value in found.details.values())
    for label, trigger in found.triggers.items():
        others = tiny_task.adversary.floats(tiny_task.adversary.labels != label)
        assert torch.broadcast_shapes(trigger.mask.shape, others.shape[1:]) == others.shape[1:] == trigger.pattern.shape
        for part in (trigger.mask, trigger.pattern):
            assert part.dtype == torch.float32
            assert not part.requires_grad
            assert 0 <= float(part.min()) <= float(part.max()) <= 1
        stamped = trigger.apply(others)
        assert 0 <= float(stamped.min()) <= float(stamped.max()) <= 1
        hit = (predict(model, stamped, runtime=cpu).argmax(1) == label).double().mean()
        assert trigger.success == pytest.approx(
            float(hit), abs=0.2 if getattr(config_of(case), "checked", 0) < 240 else 0
        )


def config_of(case: tuple[str, str]) -> Any:
    return CONFIGS[case[0]][case[1]]


def test_a_screen_flags_each_query_by_itself(
    case: tuple[str, str], results: Callable[..., Any], tiny_task: Task
) -> None:
    screen = results(*case)
    if isinstance(screen, Inspected):
        pytest.skip("an inspection")
    queries = tiny_task.test.inputs
    given = queries.clone()
    flags = screen(queries)
    assert flags.shape == (len(queries),)
    assert flags.dtype == torch.bool
    assert flags.device.type == "cpu"
    assert torch.equal(screen(decode(queries)), flags), "uint8 and float queries are told apart"
    assert torch.equal(torch.cat([screen(queries[:7]), screen(queries[7:])]), flags)
    assert screen(queries[:0]).shape == (0,)
    assert torch.equal(queries, given)


# ---------------------------------------------------------------- randomness and side effects


def test_one_seed_gives_one_result_and_leaves_no_trace(
    case: tuple[str, str], config: Any, results: Callable[..., Any], model: nn.Module, spec: ModelSpec, tiny_task: Task,
    cpu: Runtime, unchanged_globals: Callable[[], Any],
) -> None:  # fmt: skip
    data, first = tiny_task.adversary, results(*case)
    queries = torch.cat([tiny_task.test.inputs, 255 - tiny_task.test.inputs])
    given_inputs, given_labels = data.inputs.clone(), data.labels.clone()
    model.train()
    for parameter in list(model.parameters())[::2]:
        parameter.requires_grad_(False)
    before = state(model)
    try:
        stir()
        with unchanged_globals():
            second = config(Net(model=model, spec=spec), data, seed=SEED, runtime=cpu)
            answer = told(second, queries)
        assert state(model) == before
    finally:
        model.eval()
        model.requires_grad_(True)
    assert answer == told(first, queries)
    assert torch.equal(data.inputs, given_inputs)
    assert torch.equal(data.labels, given_labels)


def test_what_is_no_seed_is_refused(
    config: Any, model: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    check_seeds(lambda seed: config(Net(model=model, spec=spec), tiny_task.adversary, seed=seed, runtime=cpu))


def test_another_seed_gives_another_result(
    case: tuple[str, str], config: Any, results: Callable[..., Any], model: nn.Module, spec: ModelSpec, tiny_task: Task,
    cpu: Runtime,
) -> None:  # fmt: skip
    if getattr(config, "samples", 0) >= len(tiny_task.adversary) and case[0] == "lof":
        pytest.skip("fitted to all examples, whatever the seed")
    noise = torch.rand(300, *tiny_task.input_shape, generator=torch.Generator().manual_seed(0))
    queries = torch.cat([tiny_task.test.floats() * (1 - mix) + mix * noise[:120] for mix in (0.0, 0.1, 0.2, 0.3, 0.5)])
    other = [config(Net(model=model, spec=spec), tiny_task.adversary, seed=SEED + n, runtime=cpu) for n in (1, 2)]
    assert any(told(one, queries) != told(results(*case), queries) for one in other)


@pytest.mark.parametrize("name", SCREENINGS)
def test_a_screening_does_not_look_at_labels(
    name: str, results: Callable[..., Any], model: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    data, (variant, config) = tiny_task.adversary, next(iter(CONFIGS[name].items()))
    blind = Split(inputs=data.inputs, labels=torch.zeros_like(data.labels))
    screen = config(Net(model=model, spec=spec), blind, seed=SEED, runtime=cpu)
    assert told(screen, tiny_task.test.inputs) == told(results(name, variant), tiny_task.test.inputs)


@pytest.mark.parametrize("name", INSPECTIONS)
def test_an_inspection_takes_float_images_as_well(
    name: str, results: Callable[..., Any], model: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    data, (variant, config) = tiny_task.adversary, next(iter(CONFIGS[name].items()))
    floats = Split(inputs=data.floats(), labels=data.labels)
    found = config(Net(model=model, spec=spec), floats, seed=SEED, runtime=cpu)
    assert told(found, data.inputs) == told(results(name, variant), data.inputs)


@pytest.mark.parametrize("name", EVERYTHING)
def test_rows_of_numbers_are_refused_or_served(name: str, cpu: Runtime) -> None:
    """Inputs that are no images end in a message that says what to do, or in a result."""
    net = nn.Linear(4, 6)
    spec = ModelSpec(name="custom", input_shape=(4,), classes=6)
    rows = Split(inputs=torch.rand(60, 4, generator=torch.Generator().manual_seed(0)), labels=torch.arange(60) % 6)
    config = next(iter(CONFIGS[name].values()))
    refusal: Exception | None = None
    try:
        config(Net(model=net, spec=spec), rows, seed=0, runtime=cpu)
    except (BadConfig, BadData) as error:
        refusal = error
    assert refusal is None or ":" in str(refusal), "the message names no remedy"
