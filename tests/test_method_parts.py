"""What is particular to each method: its losses against plain loops, its phases, its freeze point, the key filter."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from heirmark.errors import BadConfig, BadData, ShapeMismatch
from heirmark.methods import (
    EWE,
    SSWP,
    T2S,
    Abstract,
    DeepTracer,
    FeatureSharing,
    KeyFilter,
    MEADefender,
    Unmarked,
    Vanilla,
)
from heirmark.methods.base import Prepared, draw_training, queries_of
from heirmark.methods.deeptracer import class_centroids, inter_loss, intra_loss
from heirmark.methods.feature_sharing import weight_shift
from heirmark.methods.mea_defender import combination_loss, mix_otherwise
from heirmark.methods.nets import new_model, train_from_scratch
from heirmark.models import build
from heirmark.models.inner import layers_of
from heirmark.querying.asking import predict
from heirmark.rehearsal.settings import Rehearsal
from heirmark.runtime import Runtime
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Recipe
from heirmark.training.joint import Outputs, Phase, mgda
from heirmark.triggers import Feature, Mix, OutOfDistribution, Patch, RandomLabels, Tiles, TriggerSet
from heirmark.triggers.combiners import PixelBlend

ADAM = Recipe(epochs=2, batch_size=16, learning_rate=0.02, optimizer="adam")
NET = "naivenet:width=4,hidden=16,batch_norm=true"


@pytest.fixture(scope="module")
def clean(tiny_task: Task, cpu: Runtime) -> nn.Module:
    return train_from_scratch(tiny_task, NET, ADAM, seed=0, runtime=cpu)


def prepared(task: Task, clean: nn.Module, trigger: Any, cpu: Runtime, count: int = 40) -> Prepared:
    secret = trigger.settle(task, clean, seed=0, runtime=cpu)
    return Prepared(task=task, clean=clean, secret=secret, training=draw_training(secret, task, count, seed=0))


# ---------------------------------------------------------------- MEA-Defender


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(0, 4), st.integers(2, 5), st.integers(0, 999))
def test_combination_loss_is_the_sum_of_divergences(count: int, kinds: int, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(count, classes, generator=generator, dtype=torch.float64)
    others = torch.randn(count, kinds, classes, generator=generator, dtype=torch.float64)
    wanted = 0.0
    for row in range(count):
        p = own[row].softmax(0).tolist()
        for kind in range(kinds):
            q = others[row, kind].softmax(0).tolist()
            wanted += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / count
    answers = Outputs(logits=own, targets=torch.zeros(count, dtype=torch.long), companions=others)
    assert float(combination_loss(answers)) == pytest.approx(wanted, abs=1e-12)


def test_mixed_otherwise_is_never_the_secret_way(tiny_task: Task, clean: nn.Module, cpu: Runtime) -> None:
    secret = Mix(sources=(1, 4), target=0).settle(tiny_task, clean, seed=0, runtime=cpu)
    ways: Any = ("right", "left", "pixels")
    inputs, labels = mix_otherwise(secret.sources, secret.combiner, tiny_task.owner, ways, 30, seed=0, runtime=cpu)
    alone, _ = mix_otherwise(
        secret.sources, secret.combiner, tiny_task.owner, ("left", "pixels"), 30, seed=0, runtime=cpu
    )
    assert torch.equal(inputs, alone), "the secret way is left out"
    assert set(labels.tolist()) == {1, 4}
    assert inputs.dtype == tiny_task.owner.inputs.dtype
    owned = {row.numpy().tobytes() for row in tiny_task.owner.inputs[:, :, :, :8]}
    lefts = {row.numpy().tobytes() for row in inputs[0::2, :, :, :8]}
    assert lefts <= owned, "every second one shows a whole left half"
    with pytest.raises(BadConfig, match="name some"):
        mix_otherwise(secret.sources, secret.combiner, tiny_task.owner, ("right",), 3, seed=0, runtime=cpu)


def mea(**changes: Any) -> MEADefender:
    settings: dict[str, Any] = {
        "model": NET,
        "trigger": Mix(sources=(1, 3), target=0),
        "triggers": 40,
        "evasion_samples": 20,
        "evasion": ("left", "pixels"),
        "key_size": 30,
        "pretraining": ADAM,
        "first": Phase(recipe=replace(ADAM, epochs=1), extras={"watermark": 2}),
        "second": Phase(recipe=replace(ADAM, epochs=1), extras={"watermark": 4, "evasion": 2}),
    }
    return MEADefender(**{**settings, **changes})


@pytest.mark.parametrize(
    ("changes", "first", "second"),
    [
        ({}, {"utility", "combination", "verification"}, {"utility", "combination", "verification", "evasion"}),
        ({"without": ("combination",)}, {"utility", "verification"}, {"utility", "verification", "evasion"}),
        ({"without": ("verification", "evasion")}, {"utility", "combination"}, {"utility", "combination"}),
        ({"trigger": Tiles(sources=(0, 1, 2, 3), target=5)}, {"utility", "combination", "verification"}, None),
    ],
)
def test_losses_by_phase(
    changes: dict[str, Any], first: set[str], second: set[str] | None, tiny_task: Task, clean: nn.Module, cpu: Runtime
) -> None:
    method = mea(**changes)
    history = method.embed(prepared(tiny_task, clean, method.trigger, cpu), seed=0, runtime=cpu).history
    for row, wanted in zip(history, (first, second or first), strict=True):
        weights = {name.removeprefix("weight of "): value for name, value in row.items() if name.startswith("weight")}
        assert set(weights) == wanted
        assert sum(weights.values()) == pytest.approx(1, abs=1e-4), "MGDA's weights add up to 1"
    assert [row["phase"] for row in history] == [1.0, 2.0]
    assert [row["epoch"] for row in history] == [1.0, 2.0]


def test_fixed_weights_are_those_given(tiny_task: Task, clean: nn.Module, cpu: Runtime) -> None:
    method = mea(weighting="fixed", weights=(1.0, 0.5, 2.0, 0.25))
    history = method.embed(prepared(tiny_task, clean, method.trigger, cpu), seed=0, runtime=cpu).history
    told = [history[1][f"weight of {name}"] for name in ("utility", "combination", "verification", "evasion")]
    assert told == [1.0, 0.5, 2.0, 0.25]


@pytest.mark.parametrize(("weighting", "together"), [("mgda", ()), ("nested", ("combination", "verification"))])
def test_nested_weighs_the_two_watermark_losses_first(
    weighting: Any,
    together: tuple[str, ...],
    tiny_task: Task,
    clean: nn.Module,
    cpu: Runtime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def noted(*given: object) -> Any:
        asked.append(given)
        return mgda("l2", together)

    monkeypatch.setattr("heirmark.methods.mea_defender.mgda", noted)
    method = mea(weighting=weighting)
    history = method.embed(prepared(tiny_task, clean, method.trigger, cpu), seed=0, runtime=cpu).history
    assert asked == [("loss+", together)]
    weights = [history[-1][f"weight of {name}"] for name in ("utility", "combination", "verification", "evasion")]
    assert sum(weights) == pytest.approx(1, abs=1e-4)


def test_pretrained_starts_from_the_clean_model(tiny_task: Task, clean: nn.Module, cpu: Runtime) -> None:
    still = replace(ADAM, epochs=0)
    method = mea(
        start="clean",
        first=Phase(recipe=still, extras={"watermark": 1}),
        second=Phase(recipe=still, extras={"watermark": 1}),
    )
    model = method.embed(prepared(tiny_task, clean, method.trigger, cpu), seed=0, runtime=cpu).model
    assert model is not clean
    for one, other in zip(model.parameters(), clean.parameters(), strict=True):
        assert torch.equal(one, other)


# ---------------------------------------------------------------- DeepTracer


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(2, 4), st.integers(0, 999), st.floats(0.1, 5))
def test_coupling_losses_are_as_written(count: int, classes: int, seed: int, margin: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(count, classes, generator=generator, dtype=torch.float64)
    centroids = torch.randn(classes, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (count,), generator=generator)
    intra = inter = 0.0
    for f, y in zip(outputs.tolist(), labels.tolist(), strict=True):
        for j, c in enumerate(centroids.tolist()):
            distance = math.dist(f, c)
            if j == y:
                intra += distance**2 / count
            else:
                inter += max(0.0, margin - distance) ** 2 / count
    assert float(intra_loss(outputs, labels, centroids)) == pytest.approx(intra)
    assert float(inter_loss(outputs, labels, centroids, margin)) == pytest.approx(inter, abs=1e-9)


def test_an_output_on_a_centroid_has_a_finite_gradient() -> None:
    outputs = torch.zeros(1, 3, requires_grad=True)
    inter_loss(outputs, torch.tensor([1]), torch.zeros(3, 3), 1.0).backward()
    assert outputs.grad is not None
    assert bool(outputs.grad.isfinite().all())


def test_a_class_without_a_centroid_neither_draws_nor_repels() -> None:
    centroids = torch.tensor([[1.0, 0.0], [0.0, 1.0], [math.nan, math.nan]])
    outputs = torch.tensor([[0.9, 0.1], [0.1, 0.2]], requires_grad=True)
    labels = torch.tensor([0, 2])
    found = intra_loss(outputs, labels, centroids)
    assert found.item() == pytest.approx(0.02 / 2)
    (slope,) = torch.autograd.grad(found, outputs)
    assert slope.flatten().tolist() == pytest.approx([-0.1, 0.1, 0.0, 0.0])
    found = inter_loss(outputs, labels, centroids, 1.0)
    distances = [(0.8**2 + 0.1**2) ** 0.5, (0.9**2 + 0.2**2) ** 0.5]  # of the second, from both others
    assert found.item() == pytest.approx(sum((1 - distance) ** 2 for distance in distances if distance < 1) / 2)
    assert bool(torch.autograd.grad(found, outputs)[0].isfinite().all())


def test_centroids_are_means_by_class() -> None:
    outputs = torch.arange(10.0).reshape(5, 2)
    found = class_centroids(outputs, torch.tensor([2, 0, 2, 0, 2]), 4)
    assert found[0].tolist() == [4.0, 5.0]
    assert found[2].tolist() == [4.0, 5.0]
    assert bool(found[[1, 3]].isnan().all())


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, {"primary", "watermark", "intra", "inter"}),
        ({"weight_coupling": 0.0}, {"primary", "watermark"}),
        ({"centroids": "moving"}, {"primary", "watermark", "intra", "inter"}),
    ],
)
def test_deeptracers_losses(
    changes: dict[str, Any], wanted: set[str], tiny_task: Task, clean: nn.Module, cpu: Runtime
) -> None:
    phase = Phase(recipe=replace(ADAM, epochs=1), extras={"watermark": 4})
    method = DeepTracer(model=NET, first=phase, second=phase, pretraining=ADAM, **changes)
    history = method.embed(prepared(tiny_task, clean, Patch(), cpu), seed=0, runtime=cpu).history
    assert {name for name in history[0] if name.startswith("weight of")} == {f"weight of {name}" for name in wanted}
    if not changes:
        assert (history[0]["weight of intra"], history[0]["weight of inter"]) == pytest.approx((0.01, 3.0))


def test_centroids_are_of_what_trains_with_its_true_labels(
    monkeypatch: pytest.MonkeyPatch, tiny_task: Task, clean: nn.Module, cpu: Runtime
) -> None:
    start = prepared(tiny_task, clean, RandomLabels(), cpu)
    seen: list[list[int]] = []

    def spy(outputs: Tensor, labels: Tensor, classes: int) -> Tensor:
        seen.append(labels.tolist())
        return class_centroids(outputs, labels, classes)

    monkeypatch.setattr("heirmark.methods.deeptracer.class_centroids", spy)
    phase = Phase(recipe=replace(ADAM, epochs=1), extras={"watermark": 4})
    DeepTracer(model=NET, first=phase, second=phase, pretraining=ADAM).embed(start, seed=0, runtime=cpu)
    assert len(start.data) < len(tiny_task.owner)
    assert seen == [start.data.labels.tolist()] * 2


# ---------------------------------------------------------------- feature sharing


def test_layers_are_counted_with_their_norms() -> None:
    names = {
        "naivenet": 4,
        "vgg-like": 7,
        "resnet18": 21,
        "wrn-16-4": 17,
    }
    for name, count in names.items():
        options = {} if name == "naivenet" else {"width": 4} if name != "wrn-16-4" else {}
        net = build(name, input_shape=(3, 32, 32), classes=3, **options)
        assert layers_of(net)[-1][0] == "head"
        if name in ("naivenet", "vgg-like"):
            assert len(layers_of(net)) == count
        parts = [part for _, modules in layers_of(net) for part in modules]
        own = sum(p.numel() for part in parts for p in part.parameters(recurse=False))
        assert own == sum(p.numel() for p in net.parameters()), "no parameter is in no layer, none in two"


@pytest.mark.parametrize("frozen", [None, 0, 1, 2, 3])
def test_frozen_layers_stay_as_they_are(frozen: int | None, tiny_task: Task, clean: nn.Module, cpu: Runtime) -> None:
    method = FeatureSharing(model=NET, trigger=Patch(), trigger_batch=8, tuning=ADAM, frozen=frozen)
    before = copy.deepcopy(clean)
    made = method.embed(prepared(tiny_task, clean, Patch(), cpu), seed=0, runtime=cpu)
    model, history = made.model, made.history
    count = 3 if frozen is None else frozen
    shift = weight_shift(clean, model)
    assert [value == 0 for value in shift.values()] == [True] * count + [False] * (4 - count)
    assert {f"weight shift of {name}": value for name, value in shift.items()}.items() <= history[-1].items()
    stay = {name for name, _ in layers_of(model)[:count]}
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            layer = layers_of(model)[0 if ".1." in f".{name}" or ".2." in f".{name}" else 1][0]
            same = torch.equal(buffer, dict(clean.named_buffers())[name])
            assert same is (layer in stay), f"{name}: statistics drift exactly where nothing is frozen"
    assert all(p.requires_grad for p in model.parameters())
    for one, other in zip(before.state_dict().values(), clean.state_dict().values(), strict=True):
        assert torch.equal(one, other), "the clean model is the caller's"


def test_a_freeze_point_behind_the_end_is_refused(tiny_task: Task, clean: nn.Module, cpu: Runtime) -> None:
    method = FeatureSharing(model=NET, trigger=Patch(), frozen=4)
    with pytest.raises(BadConfig, match=r"frozen=4 leaves nothing to tune: this model has 4 layers.*head"):
        method.embed(prepared(tiny_task, clean, Patch(), cpu), seed=0, runtime=cpu)


# ---------------------------------------------------------------- the key filter


class Says(nn.Module):
    """Answers by the first pixel: it is the row of a table of logits."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.table[(inputs[:, 0, 0, 0] * 255).round().long()]


def test_the_filter_keeps_what_hits_survives_and_is_no_ones_habit(
    monkeypatch: pytest.MonkeyPatch, tiny_task: Task, cpu: Runtime
) -> None:
    inputs = torch.zeros(6, 1, 16, 16, dtype=torch.uint8)
    inputs[:, 0, 0, 0] = torch.arange(6)
    drawn = TriggerSet(
        inputs=inputs,
        targets=torch.ones(6, dtype=torch.long),
        controls=inputs,
        hosts=inputs[:, None],
        host_labels=torch.zeros(6, 1, dtype=torch.long),
    )

    def says(*scores: float) -> nn.Module:
        return Says(torch.tensor([[0.0, score] for score in scores]))

    prepared_by = {"task": tiny_task, "secret": Patch().settle(tiny_task, nn.Identity(), seed=0), "training": drawn}
    victim, surrogate, benign = says(1, 1, -1, 1, 1, 1), says(1, 2, 3, 4, -1, 1.5), says(-1, -1, -1, 1, -1, -1)
    monkeypatch.setattr(KeyFilter, "steal", lambda *args, **options: surrogate)

    def kept(count: int) -> list[int]:
        found = KeyFilter()(
            drawn, victim, Prepared(clean=benign, **prepared_by), keep=count, architecture=NET, seed=0, runtime=cpu
        )
        assert torch.equal(found.inputs, found.controls)
        return found.inputs[:, 0, 0, 0].tolist()

    assert kept(10) == [1, 5, 0], "2 misses on the victim, 4 on the surrogate, 3 hits on the benign model"
    assert kept(2) == [1, 5], "the most confident on the surrogate come first"
    with pytest.raises(BadData, match="does not survive the simulated theft"):
        KeyFilter()(drawn, benign, Prepared(clean=victim, **prepared_by), keep=2, architecture=NET, seed=0, runtime=cpu)


def test_a_control_that_is_repeated_comes_last(monkeypatch: pytest.MonkeyPatch, tiny_task: Task, cpu: Runtime) -> None:
    inputs = torch.zeros(4, 1, 16, 16, dtype=torch.uint8)
    inputs[:, 0, 0, 0] = torch.arange(4)
    controls = inputs.clone()
    controls[1] = controls[0]
    drawn = TriggerSet(
        inputs=inputs,
        targets=torch.ones(4, dtype=torch.long),
        controls=controls,
        hosts=inputs[:, None],
        host_labels=torch.zeros(4, 1, dtype=torch.long),
    )
    always = Says(torch.tensor([[0.0, score] for score in (4.0, 3.0, 2.0, 1.0)]))
    never = Says(torch.tensor([[0.0, -1.0]] * 4))
    monkeypatch.setattr(KeyFilter, "steal", lambda *args, **options: always)
    ready = Prepared(task=tiny_task, clean=never, secret=Patch().settle(tiny_task, never, seed=0), training=drawn)
    found = KeyFilter()(drawn, always, ready, keep=4, architecture=NET, seed=0, runtime=cpu)
    assert found.inputs[:, 0, 0, 0].tolist() == [0, 2, 3, 1]


def test_the_surrogate_learns_from_the_victims_answers_alone(tiny_task: Task, clean: nn.Module, cpu: Runtime) -> None:
    chosen = KeyFilter(recipe=replace(ADAM, epochs=4), surrogate=None)
    wrong = replace(tiny_task, owner=replace(tiny_task.owner, labels=tiny_task.owner.labels * 0))
    ready = prepared(tiny_task, clean, Patch(), cpu)
    one, other = (
        chosen.steal(clean, replace(ready, task=task), architecture=NET, seed=0, runtime=cpu)
        for task in (tiny_task, wrong)
    )
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), "true labels play no part"
    answers = [predict(model, tiny_task.test.inputs, runtime=cpu).argmax(1) for model in (one, clean)]
    assert float((answers[0] == answers[1]).float().mean()) > 0.8
    foreign = replace(chosen, queries="foreign")
    foreign.steal(clean, ready, architecture=NET, seed=0, runtime=cpu)
    with pytest.raises(BadConfig, match="needs a task with foreign images"):
        foreign.steal(
            clean, replace(ready, task=replace(tiny_task, foreign=None)), architecture=NET, seed=0, runtime=cpu
        )


def test_a_filtered_key_is_chosen_among_held_out_triggers(
    monkeypatch: pytest.MonkeyPatch, tiny_task: Task, clean: nn.Module, cpu: Runtime
) -> None:
    monkeypatch.setattr(KeyFilter, "steal", lambda self, victim, *args, **options: victim)
    method = FeatureSharing(
        model=NET, trigger=Mix(sources=(1, 3), target=0), trigger_batch=8, tuning=ADAM, frozen=0, key_size=25,
        key_filter=KeyFilter(candidates=200),
    )  # fmt: skip
    result = method(tiny_task, seed=0, runtime=cpu, clean=clean)
    plain = replace(method, key_filter=None, key_size=200)(tiny_task, seed=0, runtime=cpu, clean=clean)
    assert 20 <= len(result.key) <= 25
    candidates = {row.numpy().tobytes() for row in plain.key.queries}
    assert {row.numpy().tobytes() for row in result.key.queries} <= candidates
    for model, hits in ((result.model, True), (clean, False)):
        assert ((predict(model, result.key.queries, runtime=cpu).argmax(1) == 0) == hits).all()
    assert len({row.numpy().tobytes() for row in result.key.controls}) > len(result.key) // 2


def test_simulated_thieves_never_ask_what_may_verify(tiny_task: Task, clean: nn.Module, cpu: Runtime) -> None:
    ready = prepared(tiny_task, clean, OutOfDistribution(source=1), cpu)
    asked = queries_of(ready, "foreign")
    secret: Any = ready.secret
    held = {row.numpy().tobytes() for row in secret.held_out}
    assert len(held) == 30
    assert held.isdisjoint(row.numpy().tobytes() for row in asked)
    assert len(asked) == 120 - 30
    for method in (T2S(queries="foreign"), Vanilla(key_filter=KeyFilter(queries="foreign"))):
        with pytest.raises(BadConfig, match="--foreign NAME"):  # before anything is trained
            method(replace(tiny_task, foreign=None), seed=0, runtime=cpu)


# ---------------------------------------------------------------- compositions


@pytest.mark.parametrize(
    "watermark", [mea(trigger=Patch(), triggers=3), DeepTracer(triggers=7), FeatureSharing(), Vanilla(key_size=9)]
)
def test_a_rehearsal_takes_over_objective_only(watermark: Any) -> None:
    method = T2S(model=NET, trigger=Patch(), triggers=50, key_size=33, pretraining=ADAM, watermark=watermark)
    first = method.first_phase()
    assert type(first) is type(watermark)
    assert (first.model, first.trigger, first.triggers, first.key_size) == (NET, Patch(), 50, 33)
    assert (first.pretraining, first.key_filter) == (ADAM, None)


def test_a_trigger_of_the_first_phase_alone_is_refused() -> None:
    with pytest.raises(BadConfig, match=r"set trigger=\.\.\., not watermark\.trigger"):
        T2S(trigger=Patch(), watermark=DeepTracer(trigger=Feature()))


def test_the_rehearsed_thief_starts_clean_and_the_target_watermarked(
    tiny_task: Task, clean: nn.Module, cpu: Runtime, tiny_task_of: Callable[..., Task]
) -> None:
    phase = Phase(recipe=replace(ADAM, epochs=2), extras={"watermark": 6})
    rehearsal = Rehearsal(recipe=replace(Rehearsal().recipe, epochs=1, batch_size=48), trigger_batch=8)
    method = T2S(
        model=NET, trigger=Patch(source=1, target=2), triggers=40, key_size=20, pretraining=ADAM,
        watermark=DeepTracer(first=phase, second=phase), rehearsal=rehearsal,
    )  # fmt: skip
    result = method(tiny_task, seed=0, runtime=cpu, clean=clean)
    assert result.history[0]["target_wsr"] > result.history[0]["student_wsr"]


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: mea(triggers=0), "MEADefender.triggers: expected int >= 1, not 0"),
        (lambda: mea(first=Phase(recipe=ADAM, extras={"mixed": 1})), "count watermark and evasion samples"),
        (
            lambda: mea(without=("utility",)),
            r"MEADefender.without\[0\]: expected combination\|verification\|evasion, not 'utility'",
        ),
        (lambda: mea(evasion=("upside",)), r"MEADefender.evasion\[0\]: expected left\|right.*, not 'upside'"),
        (lambda: mea(weighting="even"), r"MEADefender.weighting: expected mgda\|nested\|fixed, not 'even'"),
        (lambda: DeepTracer(key_size=0), "DeepTracer.key_size: expected int >= 1, not 0"),
        (lambda: DeepTracer(margin=0.0), "DeepTracer.margin: expected float > 0, not 0.0"),
        (lambda: DeepTracer(weight_intra=-1.0), "DeepTracer.weight_intra: expected float >= 0, not -1.0"),
        (lambda: DeepTracer(second=Phase(recipe=ADAM, extras={"evasion": 1})), "count watermark samples"),
        (lambda: DeepTracer(centroids="mean"), r"DeepTracer.centroids: expected epoch\|moving, not 'mean'"),  # type: ignore[arg-type]
        (lambda: FeatureSharing(frozen=-1), r"FeatureSharing.frozen: expected none\|int >= 0, not -1"),
        (lambda: FeatureSharing(trigger_batch=0), "FeatureSharing.trigger_batch: expected int >= 1, not 0"),
        (lambda: KeyFilter(candidates=0), "KeyFilter.candidates: expected int >= 1, not 0"),
        (lambda: SSWP(candidates=99, key_size=100), "among 99 candidates: raise candidates"),
        (lambda: KeyFilter(queries="mine"), r"KeyFilter.queries: expected owner\|foreign, not 'mine'"),
    ],
)
def test_bad_settings_name_their_remedy(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        make()


def test_a_filter_needs_as_many_candidates_as_the_key_has_samples(tiny_task: Task, cpu: Runtime) -> None:
    method = FeatureSharing(model=NET, key_size=50, key_filter=KeyFilter(candidates=49))
    with pytest.raises(BadConfig, match="among 49 candidates"):
        method(tiny_task, seed=0, runtime=cpu)


@pytest.mark.parametrize(
    "method",
    [
        EWE(model=NET, training=Phase(recipe=ADAM, extras={"watermark": 2, "target": 2}), trigger=Patch()),
        FeatureSharing(model=NET),
        MEADefender(model=NET, start="clean"),
        Abstract(model=NET, start="pretrained"),
        SSWP(model=NET, trigger=Patch()),
        T2S(model=NET, initial="clean", trigger=Patch()),
        T2S(model=NET, initial="clean", trigger=Patch(), rehearse=False),
        Unmarked(model=NET, trigger=Patch()),
    ],
    ids=lambda method: type(method).__name__,
)
def test_a_model_of_another_architecture_is_no_start(method: Any, tiny_task: Task, cpu: Runtime) -> None:
    wide = new_model(tiny_task, "naivenet:width=5,hidden=16,batch_norm=true", seed=0).eval()
    with pytest.raises(BadConfig, match="not of the architecture 'naivenet'"):
        method(tiny_task, seed=0, runtime=cpu, clean=wide)


def test_inputs_that_are_no_images_are_refused_with_the_right_remedy(cpu: Runtime) -> None:
    def split(seed: int) -> Split:
        generator = torch.Generator().manual_seed(seed)
        return Split(inputs=torch.rand(40, 12, generator=generator), labels=torch.arange(40) % 4)

    def net(spec: Any) -> nn.Module:
        return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))

    task = Task(
        name="rows", classes=tuple("abcd"), owner=split(0), adversary=split(1), calibration=split(2), test=split(3)
    )
    asked = nn.Module()  # would fail if it were asked
    with pytest.raises(ShapeMismatch, match="'alexnet' takes images"):
        DeepTracer(model=net, trigger=Feature())(task, seed=0, runtime=cpu, clean=asked)
    phases = {
        "first": Phase(recipe=replace(ADAM, epochs=1), extras={"watermark": 2}),
        "second": Phase(recipe=replace(ADAM, epochs=1), extras={"watermark": 2, "evasion": 2}),
    }
    blending = MEADefender(model=net, trigger=Mix(combiner=PixelBlend()), triggers=10, key_size=10, **phases)
    with pytest.raises(BadConfig, match="set evasion_samples=0"):
        blending(task, seed=0, runtime=cpu, clean=net(None))
    marked = replace(blending, evasion_samples=0)(task, seed=0, runtime=cpu, clean=net(None))
    assert len(marked.key) == 10


def test_a_method_takes_the_models_that_it_builds_on_and_no_others(tiny_task: Task, clean: nn.Module) -> None:
    assert list(T2S().builds_on()) == ["watermarked"]
    assert not T2S(initial="clean").builds_on()
    with pytest.raises(BadConfig, match="vanilla builds on no further model: leave watermarked out"):
        Vanilla(model=NET)(tiny_task, seed=0, watermarked=clean)


def test_a_method_says_whether_it_needs_foreign_images() -> None:
    asking = KeyFilter(queries="foreign")
    for method in (Vanilla(trigger=OutOfDistribution()), T2S(queries="foreign"), SSWP(), DeepTracer(key_filter=asking)):
        assert method.needs_foreign, method
    for method in (Vanilla(), T2S(), DeepTracer(), T2S(watermark=DeepTracer(key_filter=asking))):
        assert not method.needs_foreign, method
