"""What every registered extraction attack promises, run for each of them with each kind of answer.

An attack that is added to ``EXTRACTIONS`` is picked up by itself; it needs a tiny configuration in ``CONFIGS``.
"""

from __future__ import annotations

import dataclasses
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
    DFME,
    EXTRACTIONS,
    JBDA,
    MAZE,
    ActiveThief,
    Distillation,
    Knockoff,
    KnockoffAdaptive,
)
from heirmark.errors import BadConfig, BudgetExhausted
from heirmark.models import Net
from heirmark.models.storage import load_model, save_model
from heirmark.querying.asking import predict
from heirmark.querying.blackbox import Answers, Api, BlackBox
from heirmark.runtime import Runtime
from heirmark.tasks.task import Split, Task
from victims import MODEL, RECIPE, Listener, agreement

ROUND = dataclasses.replace(RECIPE, epochs=2)

# The tiny configurations of every attack, by name.
CONFIGS: dict[str, dict[str, Any]] = {
    "knockoff": {
        "everything": Knockoff(model=MODEL, recipe=RECIPE),
        "some": Knockoff(model=MODEL, recipe=RECIPE, queries=200),
        "another-net": Knockoff(model="vgg-like:width=4,hidden=32,dropout=0.1", recipe=RECIPE),
    },
    "knockoff-adaptive": {
        "labels": KnockoffAdaptive(model=MODEL, recipe=RECIPE, queries=200, batch=40, online=ROUND),
        "clusters": KnockoffAdaptive(
            model=MODEL, recipe=RECIPE, queries=200, batch=50, groups="clusters", clusters=5, reward="loss", rate=0.5
        ),
    },
    "distillation": {
        "no-labels": Distillation(model=MODEL, recipe=RECIPE),
        "labels": Distillation(model=MODEL, recipe=RECIPE, temperature=4.0, label_weight=0.3, queries=200),
    },
    "jbda": {
        "doubling": JBDA(model=MODEL, recipe=ROUND, seeds=60, rounds=2),
        "reduced": JBDA(
            model=MODEL, recipe=ROUND, seeds=90, rounds=2, step=0.05, period=1, reservoir=50, doubling=1, target="random",
            restart=True,
        ),
    },
    "active-thief": {
        "uncertainty": ActiveThief(
            model=MODEL, recipe=dataclasses.replace(RECIPE, epochs=5), queries=180, rounds=2, initial=0.3, patience=2
        ),
        "k-center": ActiveThief(
            model=MODEL, recipe=RECIPE, queries=180, rounds=1, initial=0.4, strategy="k-center", validation=0.0
        ),
    },
    "dfme": {
        "game": DFME(model=MODEL, queries=350, batch_size=16, latent=8, width=4, student_steps=3, drops=(0.5,)),
        "longer-steps": DFME(
            model=MODEL, queries=300, batch_size=12, latent=8, width=4, generator_steps=2, student_steps=2, directions=2,
            epsilon=0.01, diversity=0.5,
        ),
    },
    "maze": {
        "replay": MAZE(model=MODEL, queries=320, batch_size=16, latent=8, width=4, student_steps=3, directions=2),
        "one-of-each": MAZE(
            model=MODEL, queries=300, batch_size=12, latent=8, width=4, generator_steps=2, student_steps=1,
            replay_steps=1, memory=20, directions=1, generator_rate=0.01, diversity=0.0,
        ),
    },
}  # fmt: skip

# What an attack, or one configuration of it, does not promise, and why.
NO_AGREEMENT = {
    "dfme": "starts from noise and needs millions of queries; test_extraction.py shows that it learns",
    "maze": "likewise",
}
LOOKS_AT_LABELS = {
    ("knockoff-adaptive", "labels"): "its bandit chooses among the adversary's own annotation of his images",
    ("distillation", "labels"): "label_weight gives true labels a share of the loss",
}
ANSWERS: dict[str, dict[str, Any]] = {
    "probabilities": {"answers": "probabilities"},
    "rounded": {"answers": "probabilities", "decimals": 1},
    "top-2": {"answers": "top-k", "k": 2},
    "label": {"answers": "label"},
}
SEED = 3


def of_answers(*kinds: str) -> pytest.MarkDecorator:
    """Each configuration with each kind of answers; but with other than probabilities all but an attack's first are slow."""
    return pytest.mark.parametrize(
        ("case", "answers"),
        [
            pytest.param(
                (name, variant), kind, id=f"{name}-{variant}-{kind}",
                marks=pytest.mark.slow if place and kind != "probabilities" else [],
            )
            for name in EXTRACTIONS
            for place, variant in enumerate(CONFIGS.get(name, {"": None}))
            for kind in kinds
        ],
        indirect=["case"],
    )  # fmt: skip


@pytest.fixture(params=cases(EXTRACTIONS, CONFIGS))
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    return known(request.param, CONFIGS, Path(__file__).name)


@pytest.fixture
def config(case: tuple[str, str]) -> Any:
    return CONFIGS[case[0]][case[1]]


@pytest.fixture(scope="module")
def box(victim: nn.Module, cpu: Runtime) -> Callable[..., BlackBox]:
    """Makes a fresh box around the victim."""

    def make(answers: str = "probabilities", **options: Any) -> BlackBox:
        return BlackBox(victim, classes=6, runtime=cpu, api=Api(**ANSWERS[answers], **options))

    return make


@pytest.fixture(scope="module")
def asked(tiny_task: Task, cpu: Runtime, box: Callable[..., BlackBox]) -> Callable[..., tuple[Net, int]]:
    """Runs a configuration once and keeps the copy, which no test may change, and how many queries were asked."""
    kept: dict[tuple[str, str, str], tuple[Net, int]] = {}

    def run(name: str, variant: str, answers: str = "probabilities") -> tuple[Net, int]:
        if (name, variant, answers) not in kept:
            victim = box(answers)
            net = CONFIGS[name][variant](victim, tiny_task.adversary, seed=SEED, runtime=cpu)
            kept[name, variant, answers] = net, victim.queries_used
        return kept[name, variant, answers]

    return run


@pytest.fixture(scope="module")
def runs(asked: Callable[..., tuple[Net, int]]) -> Callable[..., Net]:
    return lambda *case: asked(*case)[0]


# ---------------------------------------------------------------- the configuration


def test_every_attack_has_a_configuration_here(case: tuple[str, str], config: Any) -> None:
    assert type(config) is EXTRACTIONS[case[0]]


@pytest.mark.parametrize("name", EXTRACTIONS)
def test_a_configuration_is_frozen_and_keyword_only(name: str) -> None:
    check_frozen_and_keyword_only(EXTRACTIONS[name])


def test_a_configuration_goes_to_json_and_back(config: Any) -> None:
    check_json(config, EXTRACTIONS)


def test_every_setting_can_be_given_as_text_and_has_a_help(config: Any, settings_of: SettingsOf) -> None:
    check_text(config, settings_of)


@pytest.mark.parametrize("name", EXTRACTIONS)
def test_an_attack_has_no_way_to_be_given_a_key(name: str) -> None:
    check_accepts(EXTRACTIONS[name], ["box", "data"], ["seed", "runtime"])


# ---------------------------------------------------------------- the result


@of_answers(*ANSWERS)
def test_a_copy_agrees_with_its_victim(
    answers: str, case: tuple[str, str], runs: Callable[..., Net], victim: nn.Module, tiny_task: Task, cpu: Runtime,
    tmp_path: Path,
) -> None:  # fmt: skip
    stolen = runs(*case, answers)
    assert not any(part.training for part in stolen.model.modules())
    assert stolen.spec.input_shape == tiny_task.input_shape
    assert stolen.spec.classes == 6
    if case[0] not in NO_AGREEMENT:
        assert agreement(stolen.model, victim, tiny_task.test.inputs, cpu) > 0.6
    save_model(stolen, tmp_path)
    kept = load_model(tmp_path)
    loaded, spec = kept.model, kept.spec
    assert spec == stolen.spec
    assert weights(loaded) == weights(stolen.model)


# ---------------------------------------------------------------- randomness and side effects


@of_answers("probabilities", "label")
def test_one_seed_gives_one_copy_and_leaves_no_trace(
    answers: str, case: tuple[str, str], config: Any, runs: Callable[..., Net], box: Callable[..., BlackBox],
    victim: nn.Module, tiny_task: Task, cpu: Runtime, unchanged_globals: Callable[[], Any],
) -> None:  # fmt: skip
    first, data = runs(*case, answers), tiny_task.adversary
    given_inputs, given_labels, before = data.inputs.clone(), data.labels.clone(), weights(victim)
    victim.train()
    try:
        stir()
        with unchanged_globals():
            second = config(box(answers), data, seed=SEED, runtime=cpu)
        assert all(part.training for part in victim.modules()), "the victim's mode was changed"
    finally:
        victim.eval()
    assert weights(second.model) == weights(first.model)
    assert second.spec == first.spec
    assert weights(victim) == before
    assert all(p.requires_grad for p in victim.parameters())
    assert torch.equal(data.inputs, given_inputs)
    assert torch.equal(data.labels, given_labels)
    other = config(box(answers), data, seed=SEED + 1, runtime=cpu)
    assert weights(other.model) != weights(first.model)


@of_answers("probabilities", "label")
def test_true_labels_are_looked_at_only_where_that_is_said(
    answers: str, case: tuple[str, str], config: Any, runs: Callable[..., Net], box: Callable[..., BlackBox],
    tiny_task: Task, cpu: Runtime,
) -> None:  # fmt: skip
    data = tiny_task.adversary
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    blind = Split(inputs=data.inputs, labels=data.labels[order])
    same = weights(config(box(answers), blind, seed=SEED, runtime=cpu).model) == weights(runs(*case, answers).model)
    assert same != (case in LOOKS_AT_LABELS)


class Window:
    """The part of a black box that its clients may see, and nothing else."""

    def __init__(self, box: BlackBox) -> None:
        self._ask = box.query
        self._box = lambda name: getattr(box, name)

    def query(self, inputs: Tensor) -> Answers:
        return self._ask(inputs)

    def __getattr__(self, name: str) -> Any:
        assert not name.startswith("_"), f"the attack reached into the box for {name!r}"
        return self._box(name)


def test_what_is_no_seed_is_refused(config: Any, tiny_task: Task, cpu: Runtime, box: Callable[..., BlackBox]) -> None:
    check_seeds(lambda seed: config(box(), tiny_task.adversary, seed=seed, runtime=cpu))


def test_only_the_front_of_the_box_is_used(
    case: tuple[str, str], config: Any, runs: Callable[..., Net], box: Callable[..., BlackBox], tiny_task: Task,
    cpu: Runtime,
) -> None:  # fmt: skip
    stolen = config(Window(box()), tiny_task.adversary, seed=SEED, runtime=cpu)
    assert weights(stolen.model) == weights(runs(*case).model)


def test_a_function_is_as_good_a_victim_as_a_module(
    case: tuple[str, str], config: Any, runs: Callable[..., Net], victim: nn.Module, tiny_task: Task, cpu: Runtime
) -> None:
    far = BlackBox(lambda inputs: predict(victim, inputs, runtime=cpu).softmax(1), classes=6, runtime=cpu)
    stolen = config(far, tiny_task.adversary, seed=SEED, runtime=cpu)
    assert weights(stolen.model) == weights(runs(*case).model)


# ---------------------------------------------------------------- the budget


def test_queries_are_counted_and_a_budget_that_suffices_changes_nothing(
    case: tuple[str, str], config: Any, asked: Callable[..., tuple[Net, int]], box: Callable[..., BlackBox],
    tiny_task: Task, cpu: Runtime,
) -> None:  # fmt: skip
    first, needed = asked(*case)
    assert needed > 0
    exact = box(budget=needed)
    stolen = config(exact, tiny_task.adversary, seed=SEED, runtime=cpu)
    assert exact.queries_used == needed
    assert exact.remaining == 0
    assert sum(call.inputs for call in exact.transcript) == exact.transcript[-1].total == needed
    assert weights(stolen.model) == weights(first.model)


@pytest.mark.parametrize("short", [1, 50, 10_000])
def test_a_budget_that_does_not_suffice_ends_the_attack_and_charges_nothing(
    short: int, case: tuple[str, str], config: Any, asked: Callable[..., tuple[Net, int]], box: Callable[..., BlackBox],
    tiny_task: Task, cpu: Runtime,
) -> None:  # fmt: skip
    budget = max(0, asked(*case)[1] - short)
    poor = box(budget=budget)
    with pytest.raises(BudgetExhausted, match="ask fewer or raise the budget"):
        config(poor, tiny_task.adversary, seed=SEED, runtime=cpu)
    assert poor.queries_used == 0
    assert poor.remaining == budget
    assert poor.transcript == ()


# ---------------------------------------------------------------- Knockoff's own


def test_knockoff_asks_about_each_image_once(tiny_task: Task, cpu: Runtime) -> None:
    data = tiny_task.adversary
    for queries in (None, 1, 60, len(data)):
        listener = Listener(lambda inputs: torch.full((len(inputs), 6), 1 / 6))
        attack = Knockoff(model=MODEL, recipe=dataclasses.replace(RECIPE, epochs=0), queries=queries)
        box = BlackBox(listener, classes=6)
        attack(box, data, seed=0, runtime=cpu)
        asked = [row.numpy().tobytes() for batch in listener.asked for row in batch]
        known = {row.numpy().tobytes() for row in data.floats()}
        assert len(asked) == len(set(asked)) == box.queries_used == (queries or len(data))
        assert set(asked) <= known


def test_knockoff_learns_nothing_from_rows_of_zeros(tiny_task: Task, cpu: Runtime) -> None:
    """Rounding may leave nothing of an answer; then all classes are alike, and the loss stays a number."""
    silent = BlackBox(Listener(lambda inputs: torch.zeros(len(inputs), 6)), classes=6)
    stolen = Knockoff(model=MODEL, recipe=RECIPE)(silent, tiny_task.adversary, seed=0, runtime=cpu)
    probabilities = predict(stolen.model, tiny_task.test.inputs, runtime=cpu).softmax(1)
    assert bool(probabilities.isfinite().all())
    assert float(probabilities.max()) < 0.5


def test_knockoff_scales_top_k_answers_to_a_sum_of_one(tiny_task: Task, cpu: Runtime) -> None:
    """Two classes at 0.2 and 0.1, the others hidden, are learned as 2/3 and 1/3."""
    shown = torch.tensor([0.2, 0.1, 0.0, 0.0, 0.0, 0.0])
    box = BlackBox(Listener(lambda inputs: shown.expand(len(inputs), 6)), classes=6, api=Api(answers="top-k", k=2))
    stolen = Knockoff(model=MODEL, recipe=dataclasses.replace(RECIPE, epochs=6))(
        box, tiny_task.adversary, seed=0, runtime=cpu
    )
    mean = predict(stolen.model, tiny_task.test.inputs, runtime=cpu).softmax(1).mean(0)
    assert mean.tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0, 0, 0], abs=0.05)


def test_knockoff_refuses_more_queries_than_images(tiny_task: Task, cpu: Runtime, box: Callable[..., BlackBox]) -> None:
    with pytest.raises(BadConfig, match=r"Knockoff\.queries: expected none\|int >= 1, not 0"):
        Knockoff(queries=0)
    poor = box()
    with pytest.raises(BadConfig, match=r"289 queries .* the adversary has 288 images: lower queries"):
        Knockoff(model=MODEL, queries=289)(poor, tiny_task.adversary, seed=0, runtime=cpu)
    assert poor.queries_used == 0
