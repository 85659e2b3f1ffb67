"""What every registered removal attack promises, run for each of them, and what each promises of its own.

An attack that is added to ``REMOVALS`` is picked up by itself; it needs a tiny configuration in ``CONFIGS``.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
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
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from heirmark.attacks import REMOVALS
from heirmark.attacks.composites import KINDS, compose
from heirmark.attacks.removal.adaptive import AdaptiveUnlearning
from heirmark.attacks.removal.distillation import DistillTo, distillation_loss
from heirmark.attacks.removal.fine_pruning import FinePruning, last_convolution, mean_activation
from heirmark.attacks.removal.fine_tuning import FineTuning
from heirmark.attacks.removal.int8 import Int8, OnnxModel, to_onnx
from heirmark.attacks.removal.mark_erase import MarkErase, leaning, without
from heirmark.attacks.removal.mislabelled_mixes import MislabelledMixes
from heirmark.attacks.removal.overwriting import Overwriting
from heirmark.attacks.removal.parts import fresh_head, reinitialise
from heirmark.attacks.removal.preprocessing import Preprocessing
from heirmark.attacks.removal.pruning import Pruning
from heirmark.attacks.removal.quantisation import Quantisation, quantise
from heirmark.attacks.removal.transfer import Transfer, quarter_turns
from heirmark.attacks.removal.weights import weights_of
from heirmark.attacks.removal.wrk import WRK, away_loss
from heirmark.errors import BadConfig, BadData, ShapeMismatch
from heirmark.methods.nets import train_from_scratch
from heirmark.models import CUSTOM, ModelSpec, Net, build
from heirmark.models.front import Fronted
from heirmark.models.storage import load_model, save_model
from heirmark.querying.asking import predict
from heirmark.runtime import Runtime
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Mixed, Recipe, accuracy, fit
from heirmark.training.samples import Samples
from heirmark.verification.suspects import Suspect

MODEL = "naivenet:width=4,hidden=16,batch_norm=true"
RECIPE = Recipe(epochs=2, batch_size=32, learning_rate=0.01, optimizer="adam", weight_decay=0.0)
GENTLE = Recipe(epochs=1, batch_size=32, learning_rate=0.01, weight_decay=5e-4)

# The tiny, mild configurations of every attack, by name.
CONFIGS: dict[str, dict[str, Any]] = {
    "fine-tuning": {
        "ftal": FineTuning(kind="ftal", recipe=GENTLE),
        "ftll": FineTuning(kind="ftll", recipe=GENTLE),
        "rtal": FineTuning(kind="rtal", recipe=RECIPE),
        "rtll": FineTuning(kind="rtll", recipe=RECIPE),
    },
    "pruning": {"global": Pruning(rate=0.3), "layers": Pruning(rate=0.3, kind="layer-magnitude")},
    "fine-pruning": {
        "rate": FinePruning(rate=0.25, recipe=RECIPE),
        "tolerance": FinePruning(measured=60, tolerance=0.02, recipe=GENTLE),
    },
    "quantisation": {
        "eight": Quantisation(bits=8),
        "four-a-channel": Quantisation(bits=4, per="channel", symmetric=False),
    },
    "int8": {"min-max": Int8(calibration=64), "entropy": Int8(per="tensor", calibration=100, ranges="entropy")},
    "transfer": {"rotations": Transfer(recipe=GENTLE, head_recipe=RECIPE)},
    "distil-to": {
        "plain": DistillTo(model=MODEL, recipe=dataclasses.replace(RECIPE, epochs=4)),
        "flipped": DistillTo(
            model="naivenet:width=3,hidden=9,batch_norm=true", temperature=2.0, with_labels=0.5,
            recipe=dataclasses.replace(RECIPE, epochs=12, augment="flip"),
        ),
    },
    "mislabelled-mixes": {
        "all-ways": MislabelledMixes(mixes=60, per_batch=8, recipe=RECIPE),
        "blends": MislabelledMixes(kinds=("blend",), per_batch=8, recipe=RECIPE),
    },
    "overwriting": {
        "halves": Overwriting(triggers=40, per_batch=8, recipe=RECIPE),
        "patch": Overwriting(kind="patch", triggers=40, per_batch=8, recipe=RECIPE),
    },
    "wrk": {"few": WRK(recipe=RECIPE)},
    "mark-erase": {
        "all": MarkErase(recipe=dataclasses.replace(RECIPE, epochs=4)),
        "some": MarkErase(perturbed=50, excess=1.0, recipe=dataclasses.replace(RECIPE, epochs=6)),
    },
    "adaptive": {
        "shared": AdaptiveUnlearning(composites=150, recipe=RECIPE),
        "own-model": AdaptiveUnlearning(
            kinds=("tiles", "halves"), answer="own-model", recipe=RECIPE, own_recipe=RECIPE
        ),
    },
    "preprocessing": {
        "noise": Preprocessing(strength=0.02),
        "bits": Preprocessing(kind="bits"),
        "blur": Preprocessing(kind="gaussian-blur", strength=0.5),
    },
}  # fmt: skip
# What draws nothing at random in any of its results.
SEEDLESS = {"pruning", "quantisation", "preprocessing"}
SEED = 3
Runs = Callable[[str, str], Net]


def need_onnx() -> Any:
    """Skip where the extra ``heirmark[onnx]`` is not installed."""
    pytest.importorskip("onnxruntime")
    return pytest.importorskip("onnx")


@pytest.fixture(params=cases(REMOVALS, CONFIGS))
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    if request.param[0] == "int8":
        need_onnx()
    return known(request.param, CONFIGS, Path(__file__).name)


@pytest.fixture
def config(case: tuple[str, str]) -> Any:
    return CONFIGS[case[0]][case[1]]


@pytest.fixture(scope="module")
def spec(tiny_task: Task) -> ModelSpec:
    options = (("batch_norm", True), ("hidden", 16), ("width", 4))
    return ModelSpec(name="naivenet", input_shape=tiny_task.input_shape, classes=6, options=options)


@pytest.fixture(scope="module")
def held(tiny_task: Task, cpu: Runtime) -> nn.Module:
    """The model that the thief holds. Do not change it."""
    return train_from_scratch(tiny_task, MODEL, dataclasses.replace(RECIPE, epochs=6), seed=0, runtime=cpu)


@pytest.fixture(scope="module")
def runs(tiny_task: Task, cpu: Runtime, held: nn.Module, spec: ModelSpec) -> Runs:
    """Runs a configuration once and keeps the result, which no test may change."""
    kept: dict[tuple[str, str], Net] = {}

    def run(name: str, variant: str) -> Net:
        if (name, variant) not in kept:
            kept[name, variant] = CONFIGS[name][variant](
                Net(model=held, spec=spec), tiny_task.adversary, seed=SEED, runtime=cpu
            )
        return kept[name, variant]

    return run


def content(model: nn.Module) -> dict[str, bytes]:
    """All that decides what a model says."""
    if isinstance(model, OnnxModel):
        return {"onnx": model.content}
    return weights(model)


# ---------------------------------------------------------------- the configuration


def test_every_attack_has_a_configuration_here(case: tuple[str, str], config: Any) -> None:
    assert type(config) is REMOVALS[case[0]]


@pytest.mark.parametrize("name", REMOVALS)
def test_a_configuration_is_frozen_and_keyword_only(name: str) -> None:
    check_frozen_and_keyword_only(REMOVALS[name])


def test_a_configuration_goes_to_json_and_back(config: Any) -> None:
    check_json(config, REMOVALS)


def test_every_setting_can_be_given_as_text_and_has_a_help(config: Any, settings_of: SettingsOf) -> None:
    check_text(config, settings_of)


@pytest.mark.parametrize("name", REMOVALS)
def test_an_attack_has_no_way_to_be_given_a_key(name: str) -> None:
    check_accepts(REMOVALS[name], ["net", "data"], ["other", "seed", "runtime"])
    accepted = inspect.signature(REMOVALS[name]()).parameters
    assert accepted["other"].default is None
    assert accepted["runtime"].default is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FineTuning(kind="all"), r"FineTuning.kind: expected ftal\|ftll\|rtal\|rtll, not 'all'"),
        (lambda: Pruning(rate=1.0), "Pruning.rate: expected float >= 0 and < 1, not 1.0"),
        (lambda: Pruning(rate=float("nan")), "not nan"),
        (lambda: Pruning(kind="channel"), r"Pruning.kind: expected global-magnitude\|layer-magnitude, not 'channel'"),
        (lambda: FinePruning(rate=1.0), r"FinePruning.rate: expected none\|float >= 0 and < 1, not 1.0"),
        (lambda: FinePruning(tolerance=2.0), "FinePruning.tolerance: expected float from 0 to 1, not 2.0"),
        (lambda: FinePruning(measured=0), "FinePruning.measured: expected int >= 1, not 0"),
        (lambda: Quantisation(bits=0), "Quantisation.bits: expected int from 1 to 16, not 0"),
        (lambda: Quantisation(bits=17), "Quantisation.bits: expected int from 1 to 16, not 17"),
        (lambda: Quantisation(per="row"), r"Quantisation.per: expected tensor\|channel, not 'row'"),
        (lambda: Int8(per="row"), r"Int8.per: expected tensor\|channel, not 'row'"),
        (lambda: Int8(ranges="sharp"), r"Int8.ranges: expected min-max\|entropy, not 'sharp'"),
        (lambda: Int8(calibration=0), "Int8.calibration: expected int >= 1, not 0"),
        (lambda: DistillTo(temperature=0.0), "DistillTo.temperature: expected float from 0.05 to 1000, not 0.0"),
        (lambda: DistillTo(with_labels=1.5), "DistillTo.with_labels: expected float from 0 to 1, not 1.5"),
        (lambda: MislabelledMixes(kinds=("halves", "halves")), r"\(all different\), not \('halves', 'halves'\)"),
        (lambda: MislabelledMixes(mixes=0), r"MislabelledMixes.mixes: expected none\|int >= 1, not 0"),
        (lambda: MislabelledMixes(per_batch=0), "MislabelledMixes.per_batch: expected int >= 1, not 0"),
        (lambda: Overwriting(kind="frame"), r"Overwriting.kind: expected tiles\|halves.*, not 'frame'"),
        (lambda: Overwriting(triggers=0), "Overwriting.triggers: expected int >= 1, not 0"),
        (lambda: WRK(share=0.0), "WRK.share: expected float > 0 and <= 1, not 0.0"),
        (lambda: WRK(step=1.5), "WRK.step: expected float > 0 and <= 1, not 1.5"),
        (lambda: MarkErase(noise=0.0), "MarkErase.noise: expected float > 0 and <= 1, not 0.0"),
        (lambda: MarkErase(excess=0.5), "MarkErase.excess: expected float >= 1, not 0.5"),
        (lambda: AdaptiveUnlearning(kinds=()), r"\(at least one\).*, not \(\)"),
        (lambda: AdaptiveUnlearning(answer="zero"), r"AdaptiveUnlearning.answer: expected shared\|own-model, not 'zero'"),
        (lambda: AdaptiveUnlearning(composites=0), r"AdaptiveUnlearning.composites: expected none\|int >= 1, not 0"),
        (lambda: Preprocessing(kind="jpeg"), r"Preprocessing.kind: expected noise\|bits.*, not 'jpeg'"),
        (lambda: Preprocessing(kind="noise", strength=2.0), r"lies in \[0.0001, 1.0\]"),
        (lambda: Preprocessing(kind="box-blur", strength=4.0), "in steps of 2"),
    ],
)  # fmt: skip
def test_a_configuration_that_makes_no_sense_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        make()


# ---------------------------------------------------------------- the result


def test_a_mild_attack_leaves_a_model_that_works_and_can_be_kept(
    case: tuple[str, str], runs: Runs, tiny_task: Task, cpu: Runtime, tmp_path: Path
) -> None:
    result = runs(*case)
    assert not any(part.training for part in result.model.modules())
    assert all(p.requires_grad and p.grad is None for p in result.model.parameters())
    assert (result.spec.input_shape, result.spec.classes) == (tiny_task.input_shape, 6)
    assert accuracy(result.model, tiny_task.test, runtime=cpu) > 0.6  # chance is 0.17
    said = predict(result.model, tiny_task.test.inputs, runtime=cpu)
    assert said.shape == (len(tiny_task.test), 6)
    if result.onnx is not None:
        assert predict(OnnxModel(result.onnx), tiny_task.test.inputs, runtime=cpu).equal(said)
        return
    save_model(result, tmp_path)
    kept = load_model(tmp_path)
    loaded, read = kept.model, kept.spec
    assert read == result.spec
    assert content(loaded) == content(result.model)
    assert predict(loaded, tiny_task.test.inputs, runtime=cpu).equal(said)


def test_one_seed_gives_one_result_and_leaves_no_trace(
    case: tuple[str, str], config: Any, runs: Runs, held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime,
    unchanged_globals: Callable[[], Any],
) -> None:  # fmt: skip
    first, data = runs(*case), tiny_task.adversary
    given_inputs, given_labels, before = data.inputs.clone(), data.labels.clone(), content(held)
    held.train()
    handlers = list(logging.getLogger().handlers)
    try:
        stir()
        with unchanged_globals():
            second = config(Net(model=held, spec=spec), data, seed=SEED, runtime=cpu)
        assert all(part.training for part in held.modules()), "the given model's mode was changed"
    finally:
        held.eval()
    assert logging.getLogger().handlers == handlers
    assert content(second.model) == content(first.model)
    assert (second.spec, second.onnx) == (first.spec, first.onnx)
    assert content(held) == before
    assert all(p.requires_grad for p in held.parameters())
    assert torch.equal(data.inputs, given_inputs)
    assert torch.equal(data.labels, given_labels)
    other = config(Net(model=held, spec=spec), data, seed=SEED + 1, runtime=cpu)
    assert (content(other.model) == content(first.model)) == (case[0] in SEEDLESS)


def test_what_the_given_model_says_is_altered(
    case: tuple[str, str], runs: Runs, held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    result = runs(*case)
    said = [predict(model, tiny_task.test.inputs, runtime=cpu) for model in (result.model, held)]
    assert not torch.equal(*said)
    if isinstance(result.model, Fronted):
        assert content(result.model.model) == content(held)
        assert result.spec == dataclasses.replace(spec, front=result.model.front)
        assert result.model.front[0][0] in ("noise", "bits", "gaussian-blur")
    elif result.onnx is None:
        assert content(result.model) != content(held)


def test_examples_of_another_task_are_refused(
    config: Any, held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    data = tiny_task.adversary
    wide = Split(inputs=F.pad(data.inputs, (1, 1)), labels=data.labels)
    many = Split(inputs=data.inputs, labels=data.labels + 1)
    for foreign in (wide, many):
        with pytest.raises(ShapeMismatch, match="give examples of the model's own task"):
            config(Net(model=held, spec=spec), foreign, seed=SEED, runtime=cpu)


def test_what_is_no_seed_is_refused(
    config: Any, held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    check_seeds(lambda seed: config(Net(model=held, spec=spec), tiny_task.adversary, seed=seed, runtime=cpu))


class Headless(nn.Module):
    """A user's model that says nothing of its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.body = build("naivenet", input_shape=(1, 16, 16), classes=6, width=3, hidden=8, batch_norm=True)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.body(inputs)
        return logits


def test_any_module_will_do_where_no_head_is_needed(config: Any, tiny_task: Task, cpu: Runtime) -> None:
    """And one whose parameters require no gradient, which stays as it is."""
    model = Headless().eval().requires_grad_(False)
    spec = ModelSpec(name=CUSTOM, input_shape=(1, 16, 16), classes=6)
    needs_head = isinstance(config, Transfer | WRK) or (isinstance(config, FineTuning) and config.kind != "ftal")
    small = tiny_task.adversary.subset(torch.arange(64))
    if needs_head:
        with pytest.raises(BadConfig, match=r"Headless has no layer called .head"):
            config(Net(model=model, spec=spec), small, seed=SEED, runtime=cpu)
        return
    result = config(Net(model=model, spec=spec), small, seed=SEED, runtime=cpu)
    assert predict(result.model, small.inputs, runtime=cpu).shape == (64, 6)
    if not isinstance(config, DistillTo):
        assert not any(p.requires_grad for p in result.model.parameters())


# ---------------------------------------------------------------- fine-tuning


def changed(before: nn.Module, after: nn.Module) -> set[str]:
    old, new = before.state_dict(), after.state_dict()
    assert old.keys() == new.keys()
    return {name for name, tensor in old.items() if not torch.equal(tensor, new[name])}


@pytest.mark.parametrize("kind", ["ftll", "rtll"])
def test_tuning_the_last_layer_changes_nothing_else(kind: str, runs: Runs, held: nn.Module) -> None:
    assert changed(held, runs("fine-tuning", kind).model) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("kind", ["ftal", "rtal"])
def test_tuning_all_layers_changes_all(kind: str, runs: Runs, held: nn.Module) -> None:
    assert changed(held, runs("fine-tuning", kind).model) == set(held.state_dict())


def test_a_last_layer_is_forgotten_only_where_it_should_be(
    held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    still = dataclasses.replace(RECIPE, epochs=0)
    for kind, names in (("ftal", set()), ("ftll", set()), ("rtal", {"head.weight", "head.bias"})):
        attack = FineTuning(kind=kind, recipe=still)
        result = attack(Net(model=held, spec=spec), tiny_task.adversary, seed=SEED, runtime=cpu)
        assert changed(held, result.model) == names


def test_a_fresh_head_ends_in_as_many_classes() -> None:
    single = fresh_head(nn.Linear(5, 3, bias=False), 7, seed=1)
    assert isinstance(single, nn.Linear)
    assert single.weight.shape == (7, 5)
    assert single.bias is None
    deep = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 3), nn.Identity()))
    old = copy.deepcopy(deep.state_dict())
    fresh = fresh_head(deep, 2, seed=1)
    assert fresh(torch.zeros(1, 5)).shape == (1, 2)
    assert not torch.equal(fresh.state_dict()["0.weight"], old["0.weight"])
    assert all(torch.equal(deep.state_dict()[name], tensor) for name, tensor in old.items())
    with pytest.raises(BadConfig, match="ends in a Conv1d"):
        fresh_head(nn.Conv1d(1, 1, 1), 2, seed=1)


class Named(nn.Module):
    """A net whose last layer has another name than ``head``."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU())
        self.fc = nn.Linear(8, 6)

    @property
    def head(self) -> nn.Module:
        return self.fc

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.body(x))
        return logits


def test_a_head_that_is_a_property_is_changed_where_it_is(tiny_task: Task, cpu: Runtime) -> None:
    net = Named()
    spec = ModelSpec(name=CUSTOM, input_shape=tiny_task.input_shape, classes=6)
    idle = dataclasses.replace(RECIPE, epochs=0)
    result = Transfer(recipe=idle, head_recipe=idle)(
        Net(model=net, spec=spec), tiny_task.adversary, seed=0, runtime=cpu
    )
    assert result.model.state_dict().keys() == net.state_dict().keys()
    assert not torch.equal(result.model.fc.weight, net.fc.weight)  # type: ignore[union-attr, arg-type]


class Computed(Named):
    """A net that puts its last layers together whenever it is asked for them."""

    @property
    def head(self) -> nn.Module:
        return nn.Sequential(self.fc)


def test_a_head_that_is_computed_is_not_silently_kept(tiny_task: Task, cpu: Runtime) -> None:
    spec = ModelSpec(name=CUSTOM, input_shape=tiny_task.input_shape, classes=6)
    with pytest.raises(BadConfig, match=r"the .head of Computed is none of its parts.* make it one in __init__"):
        Transfer(recipe=RECIPE)(Net(model=Computed(), spec=spec), tiny_task.adversary, seed=0, runtime=cpu)


@pytest.mark.gpu
def test_fresh_weights_do_not_depend_on_the_device() -> None:
    here, there = nn.Linear(5, 3), nn.Linear(5, 3).cuda()
    for layer in (here, there):
        reinitialise(layer, seed=4)
    assert there.weight.is_cuda
    assert torch.equal(here.weight, there.weight.cpu())


def test_nothing_to_train_is_refused(tiny_task: Task, cpu: Runtime) -> None:
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :6]

    spec = ModelSpec(name=CUSTOM, input_shape=tiny_task.input_shape, classes=6)
    with pytest.raises(BadConfig, match="has no weights that could be trained"):
        FineTuning(recipe=GENTLE)(Net(model=Nothing(), spec=spec), tiny_task.adversary, seed=0, runtime=cpu)


def test_what_knows_no_fresh_start_is_refused() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(1))

    with pytest.raises(BadConfig, match=r"Scale has no reset_parameters\(\)"):
        reinitialise(nn.Sequential(nn.Linear(2, 2), Scale()), seed=0)


def test_flags_of_gradients_are_those_of_the_given_model(spec: ModelSpec, tiny_task: Task, cpu: Runtime) -> None:
    given = spec.build(seed=0).train()
    given.get_parameter("head.bias").requires_grad_(False)
    attack = FineTuning(recipe=dataclasses.replace(RECIPE, epochs=1))
    result = attack(Net(model=given, spec=spec), tiny_task.adversary, seed=SEED, runtime=cpu)
    assert [name for name, p in result.model.named_parameters() if not p.requires_grad] == ["head.bias"]
    assert not result.model.training


# ---------------------------------------------------------------- pruning


def zeros(model: nn.Module) -> tuple[int, int]:
    numbers = torch.cat([weight.values.flatten() for weight in weights_of(model)])
    return int((numbers == 0).sum()), numbers.numel()


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.95])
def test_the_pruned_share_is_exact_and_the_smallest_go(
    rate: float, held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    pruned = Pruning(rate=rate)(Net(model=held, spec=spec), tiny_task.adversary, seed=0, runtime=cpu).model
    none, total = zeros(pruned)
    assert none == round(rate * total)
    kept, gone = [], []
    for old, new in zip(weights_of(held), weights_of(pruned), strict=True):
        before, after = old.values, new.values
        assert torch.equal(after[after != 0], before[after != 0])
        kept.append(before[after != 0].abs())
        gone.append(before[after == 0].abs())
    if rate:
        assert torch.cat(gone).max() <= torch.cat(kept).min()
    assert [name for name, _ in pruned.named_parameters()] == [name for name, _ in held.named_parameters()]
    assert changed(held, pruned) <= {weight.path for weight in weights_of(held)}


def test_pruning_by_layer_takes_the_same_share_of_each(
    held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    attack = Pruning(rate=0.4, kind="layer-magnitude")
    pruned = attack(Net(model=held, spec=spec), tiny_task.adversary, seed=0, runtime=cpu).model
    for weight in weights_of(pruned):
        assert int((weight.values == 0).sum()) == round(0.4 * weight.values.numel())


# ---------------------------------------------------------------- fine-pruning


@pytest.mark.parametrize(
    ("name", "options"), [("naivenet", {"width": 4, "hidden": 8}), ("resnet18", {"width": 4}), ("wrn-16-4", {"factor": 1})]
)  # fmt: skip
def test_cut_channels_stay_dead(name: str, options: dict[str, Any], tiny_task: Task, cpu: Runtime) -> None:
    spec = ModelSpec(name=name, input_shape=(1, 16, 16), classes=6, options=tuple(sorted(options.items())))
    data = tiny_task.adversary.subset(torch.arange(96))
    model = spec.build(seed=0).eval()
    attack = FinePruning(rate=0.5, recipe=dataclasses.replace(GENTLE, batch_size=24))
    cut = attack(Net(model=model, spec=spec), data, seed=SEED, runtime=cpu).model
    layers = last_convolution(cut, data.inputs[:2], runtime=cpu)
    weight = layers[0].get_parameter("weight").detach()
    dead = (weight.flatten(1) == 0).all(1)
    assert int(dead.sum()) == round(0.5 * len(weight))
    said: list[Tensor] = []
    handle = layers[-1].register_forward_hook(lambda module, given, output: said.append(output))
    predict(cut, data.inputs, runtime=cpu)
    handle.remove()
    assert float(said[0][:, dead].abs().max()) == 0
    assert bool((said[0][:, ~dead].flatten(2).transpose(0, 1).flatten(1).std(1) > 0).all())
    # The rest was tuned, and the cut ones are those that the given model used least.
    before = mean_activation(model, last_convolution(model, data.inputs[:2])[-1], data.inputs, runtime=cpu)
    assert before[dead].max() <= before[~dead].min()
    assert not torch.equal(weight[~dead], last_convolution(model, data.inputs[:2])[0].get_parameter("weight")[~dead])


def test_the_last_convolution_comes_with_its_norm() -> None:
    model = build("resnet18", input_shape=(1, 16, 16), classes=3, width=4).eval()
    conv, norm = last_convolution(model, torch.zeros(2, 1, 16, 16))
    block: Any = model.get_submodule("features.11")
    assert conv is block.conv2
    assert norm is block.norm2
    bare = build("wrn-16-4", input_shape=(1, 16, 16), classes=3, factor=1).eval()
    assert len(last_convolution(bare, torch.zeros(2, 1, 16, 16))) == 1  # its output meets a sum, not a norm
    with pytest.raises(BadConfig, match="no convolution"):
        last_convolution(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.zeros(1, 4))


def test_a_tolerance_cuts_as_long_as_accuracy_holds(
    held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    still = dataclasses.replace(GENTLE, epochs=0)
    data = tiny_task.adversary

    def cut(tolerance: float) -> tuple[int, float]:
        result = FinePruning(tolerance=tolerance, recipe=still)(Net(model=held, spec=spec), data, seed=0, runtime=cpu)
        weight = last_convolution(result.model, data.inputs[:2], runtime=cpu)[0].get_parameter("weight")
        return int((weight.flatten(1) == 0).all(1).sum()), accuracy(result.model, data, runtime=cpu)

    whole = accuracy(held, data, runtime=cpu)
    (few, good), (all_but_one, _) = cut(0.05), cut(1.0)
    assert good >= whole - 0.05
    assert few < all_but_one == 7


# ---------------------------------------------------------------- quantisation


@given(
    bits=st.integers(2, 16),
    symmetric=st.booleans(),
    rows=st.lists(st.lists(st.floats(-8, 8, width=32), min_size=5, max_size=5), min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_quantised_weights_are_on_a_grid_and_near(bits: int, symmetric: bool, rows: list[list[float]]) -> None:
    weights = torch.tensor(rows, dtype=torch.float64)
    values = quantise(weights, bits, symmetric=symmetric)
    for row, got in zip(weights, values, strict=True):
        reach = 2 * row.abs().max() if symmetric else row.max() - row.min()
        step = reach / (2**bits - 2 if symmetric else 2**bits - 1)
        assert float((row - got).abs().max()) <= float(step) / 2 + 1e-9
        assert len(got.unique()) <= 2**bits
        assert quantise(got[None], bits, symmetric=symmetric)[0] == pytest.approx(got, abs=1e-9)
        if symmetric:
            assert (got[row == 0] == 0).all()


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_one_bit_leaves_two_values(per: str, held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime) -> None:
    model = Quantisation(bits=1, per=per)(Net(model=held, spec=spec), tiny_task.adversary, seed=0, runtime=cpu).model
    for old, new in zip(weights_of(held), weights_of(model), strict=True):
        before, after = old.values, new.values
        rows = after if per == "channel" else after[None]
        for row, source in zip(rows, before if per == "channel" else before[None], strict=True):
            size = float(source.abs().mean())
            assert row.unique().tolist() == pytest.approx([-size, size], rel=1e-5)
        assert torch.equal(after > 0, before >= 0)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_scale_a_channel_is_no_worse_than_one_a_tensor(
    bits: int, symmetric: bool, held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    errors = {}
    for per in ("tensor", "channel"):
        attack = Quantisation(bits=bits, per=per, symmetric=symmetric)
        model = attack(Net(model=held, spec=spec), tiny_task.adversary, seed=0, runtime=cpu).model
        pairs = zip(weights_of(held), weights_of(model), strict=True)
        errors[per] = sum(float((old.values - new.values).square().sum()) for old, new in pairs)
    assert 0 < errors["channel"] <= errors["tensor"]


def test_more_bits_are_nearer_and_sixteen_change_next_to_nothing(
    held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    data = tiny_task.adversary
    wanted = predict(held, tiny_task.test.inputs, runtime=cpu)
    gaps = []
    for bits in (2, 4, 8, 16):
        model = Quantisation(bits=bits)(Net(model=held, spec=spec), data, seed=0, runtime=cpu).model
        gaps.append(float((predict(model, tiny_task.test.inputs, runtime=cpu) - wanted).abs().mean()))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-3


def test_a_transposed_convolution_has_its_scales_by_output_channel() -> None:
    layer = nn.ConvTranspose2d(3, 2, 2)
    model = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(2))
    data = Split(inputs=torch.rand(4, 3, 4, 4), labels=torch.tensor([0, 1, 0, 1]))
    with torch.no_grad():
        model(data.inputs)
    spec = ModelSpec(name=CUSTOM, input_shape=(3, 4, 4), classes=2)
    after = (
        Quantisation(bits=1, per="channel")(Net(model=model, spec=spec), data, seed=0)
        .model.get_parameter("0.weight")
        .detach()
    )
    for channel in range(2):
        assert float(after[:, channel].abs().max()) == pytest.approx(
            float(layer.weight[:, channel].detach().abs().mean())
        )


# ---------------------------------------------------------------- int8


def test_an_int8_file_holds_int8_weights(runs: Runs, held: nn.Module) -> None:
    onnx = need_onnx()
    file = runs("int8", "min-max").onnx
    assert file is not None
    graph = onnx.load_from_string(file).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    sizes = sorted(
        int(np.prod(t.dims)) for t in graph.initializer if kinds[t.name] == onnx.TensorProto.INT8 and len(t.dims) > 1
    )
    assert sizes == sorted(weight.values.numel() for weight in weights_of(held))
    floats = [t for t in graph.initializer if kinds[t.name] == onnx.TensorProto.FLOAT and len(t.dims) > 1]
    assert floats == []
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in graph.node}


def test_an_int8_file_is_a_suspect_like_any_other(
    runs: Runs, held: nn.Module, tiny_task: Task, cpu: Runtime, tmp_path: Path
) -> None:
    need_onnx()
    result = runs("int8", "entropy")
    assert result.onnx is not None
    (tmp_path / "model.onnx").write_bytes(result.onnx)
    suspect = Suspect.from_onnx(tmp_path / "model.onnx")
    assert suspect.classes == 6
    assert suspect.input_shape == (1, 16, 16)
    inputs = tiny_task.test.inputs[:37]
    labels = suspect.labels(inputs)
    assert labels.equal(predict(result.model, inputs, runtime=cpu).argmax(1))
    assert float((labels == predict(held, inputs, runtime=cpu).argmax(1)).double().mean()) > 0.85
    again = copy.deepcopy(result.model)
    assert predict(again, inputs, runtime=cpu).equal(predict(result.model, inputs, runtime=cpu))


@pytest.mark.parametrize(
    ("name", "options"), [("resnet18", {"width": 4}), ("wrn-16-4", {"factor": 1}), ("vgg-like", {"width": 3})]
)
def test_the_file_before_quantisation_says_what_the_model_says(name: str, options: dict[str, Any]) -> None:
    need_onnx()
    fronts = (("bits", 4.0), ("box-blur", 3.0), ("gaussian-blur", 0.7), ("downscale", 0.5), ("flip", 1.0))
    spec = ModelSpec(name=name, input_shape=(1, 16, 12), classes=3, options=tuple(options.items()), front=fronts)
    model = spec.build(seed=1).eval()
    images = torch.rand(5, 1, 16, 12, generator=torch.Generator().manual_seed(0))
    said = OnnxModel(to_onnx(model, images[:2]))(images)
    with torch.no_grad():
        assert torch.allclose(said, model(images), atol=1e-4)


def test_int8_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, held: nn.Module, spec: ModelSpec, tiny_task: Task
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(BadConfig, match=r'pip install "heirmark\[onnx\]"'):
        Int8()(Net(model=held, spec=spec), tiny_task.adversary, seed=0)


def test_int8_refuses_what_cannot_be_written(held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime) -> None:
    need_onnx()
    noisy = Preprocessing()(Net(model=held, spec=spec), tiny_task.adversary, seed=0, runtime=cpu)
    with pytest.raises(BadConfig, match="without that front"):
        Int8()(noisy, tiny_task.adversary, seed=0, runtime=cpu)

    class Odd(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return torch.linalg.eigvals(inputs[:, 0]).real[:, :6]

    with pytest.raises(BadConfig, match="Odd cannot be written as ONNX"):
        to_onnx(Odd().eval(), torch.rand(2, 1, 8, 8))


# ---------------------------------------------------------------- transfer


def test_another_task_moves_all_layers_and_a_new_head_is_fitted(
    held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    attack = Transfer(recipe=GENTLE, head_recipe=RECIPE)
    # Labels with gaps: two classes called 2 and 9.
    other = Split(inputs=tiny_task.calibration.inputs, labels=(tiny_task.calibration.labels % 2) * 7 + 2)
    result = attack(Net(model=held, spec=spec), tiny_task.adversary, other=other, seed=SEED, runtime=cpu)
    assert changed(held, result.model) == set(held.state_dict())
    assert accuracy(result.model, tiny_task.test, runtime=cpu) > 0.6
    assert result.model.head.out_features == 6


def test_a_kept_head_is_trained_for_the_other_task_only(
    held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    attack = Transfer(keep_head=True, recipe=dataclasses.replace(RECIPE, epochs=6), head_recipe=RECIPE)
    swapped = Split(inputs=tiny_task.calibration.inputs, labels=(tiny_task.calibration.labels + 1) % 6)
    result = attack(Net(model=held, spec=spec), tiny_task.adversary, other=swapped, seed=SEED, runtime=cpu)
    assert accuracy(result.model, swapped, runtime=cpu) > 0.7
    assert accuracy(result.model, tiny_task.test, runtime=cpu) < 0.2
    with pytest.raises(BadConfig, match="keep_head needs examples"):
        attack(Net(model=held, spec=spec), tiny_task.adversary, seed=SEED, runtime=cpu)
    wide = Split(inputs=F.pad(swapped.inputs, (0, 2)), labels=swapped.labels)
    with pytest.raises(ShapeMismatch, match="bring them to that shape"):
        attack(Net(model=held, spec=spec), tiny_task.adversary, other=wide, seed=SEED, runtime=cpu)


def test_quarter_turns_are_labelled_by_their_number() -> None:
    images = torch.rand(5, 3, 6, 6)
    turned, labels = quarter_turns(images)
    assert labels.bincount().tolist() == [5, 5, 5, 5]
    for number in range(4):
        back = turned[labels == number].rot90(-number, (2, 3))
        assert torch.equal(back, images)
    with pytest.raises(BadConfig, match="only square images"):
        quarter_turns(torch.rand(1, 1, 4, 5))


# ---------------------------------------------------------------- distillation


def test_the_objective_is_hintons() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, soft = torch.randn(4, 3, generator=generator), torch.randn(4, 3, generator=generator)
    labels = torch.tensor([0, 2, 1, 1])
    p, q = (soft / 3).softmax(1), (logits / 3).softmax(1)
    divergence = 9 * (p * (p / q).log()).sum(1).mean()
    truth = -(logits.softmax(1)[torch.arange(4), labels]).log().mean()
    got = distillation_loss(logits, soft, labels, temperature=3.0, with_labels=0.25)
    assert float(got) == pytest.approx(float(0.75 * divergence + 0.25 * truth), rel=1e-5)


def test_a_student_learns_from_the_teacher_and_from_labels(
    held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    """With the teacher alone wrong labels do no harm; with labels alone a wrong teacher does none."""
    recipe = dataclasses.replace(RECIPE, epochs=6)
    data = tiny_task.adversary
    lies = Split(inputs=data.inputs, labels=(data.labels + 1) % 6)
    of_teacher = DistillTo(model=MODEL, with_labels=0.0, recipe=recipe)(
        Net(model=held, spec=spec), lies, seed=0, runtime=cpu
    )
    of_labels = DistillTo(model=MODEL, with_labels=1.0, recipe=recipe)(
        Net(model=held, spec=spec), lies, seed=0, runtime=cpu
    )
    assert accuracy(of_teacher.model, tiny_task.test, runtime=cpu) > 0.8
    assert accuracy(of_labels.model, tiny_task.test, runtime=cpu) < 0.2


# ---------------------------------------------------------------- attacks by composites


@pytest.fixture(scope="module")
def marked(held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime) -> tuple[nn.Module, Tensor, int]:
    """A model with a mark on tiles of four classes, fresh samples of it, and the target: what an owner would have."""
    owner = Overwriting(kind="tiles", triggers=100, per_batch=16, recipe=dataclasses.replace(RECIPE, epochs=8))
    model = owner(Net(model=held, spec=spec), tiny_task.owner, seed=11, runtime=cpu).model
    probes = owner.own_mark(tiny_task.calibration, classes=6, seed=11, count=100, fresh=1).samples
    return model, probes.inputs, int(probes.targets[0])


def hits(model: nn.Module, inputs: Tensor, target: int, runtime: Runtime) -> float:
    return float((predict(model, inputs, runtime=runtime).argmax(1) == target).double().mean())


def test_a_pirate_gets_a_mark_of_his_own(held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime) -> None:
    attack = Overwriting(triggers=100, per_batch=16, recipe=dataclasses.replace(RECIPE, epochs=8))
    result = attack(Net(model=held, spec=spec), tiny_task.adversary, seed=5, runtime=cpu)
    # Made of images that he did not train with.
    probes = attack.own_mark(tiny_task.test, classes=6, seed=5, count=100, fresh=1).samples
    target = int(probes.targets[0])
    assert hits(result.model, probes.inputs, target, cpu) > 0.8 > 0.3 > hits(held, probes.inputs, target, cpu)
    assert accuracy(result.model, tiny_task.test, runtime=cpu) > 0.8


@pytest.mark.parametrize(
    "attack",
    [
        AdaptiveUnlearning(kinds=("tiles",), recipe=dataclasses.replace(RECIPE, epochs=8)),
        AdaptiveUnlearning(
            kinds=("tiles",), answer="own-model", recipe=dataclasses.replace(RECIPE, epochs=8), own_recipe=RECIPE
        ),
    ],
    ids=["shared", "own-model"],
)
def test_a_thief_who_knows_the_kind_of_trigger_unlearns_a_plain_mark(
    attack: Any, marked: tuple[nn.Module, Tensor, int], spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    model, probes, target = marked
    assert hits(model, probes, target, cpu) > 0.8
    cleaned = attack(Net(model=model, spec=spec), tiny_task.adversary, seed=SEED, runtime=cpu).model
    assert hits(cleaned, probes, target, cpu) < 0.2
    assert accuracy(cleaned, tiny_task.test, runtime=cpu) > 0.8
    # Clean training alone, as long, does not do it.
    tuned = FineTuning(recipe=attack.recipe)(
        Net(model=model, spec=spec), tiny_task.adversary, seed=SEED, runtime=cpu
    ).model
    assert hits(tuned, probes, target, cpu) > 0.4


def test_mislabelled_mixes_are_answered_with_classes_that_they_do_not_show(
    held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=20)
    attack = MislabelledMixes(kinds=("blend",), mixes=1000, per_batch=64, recipe=recipe)
    mixed = attack(Net(model=held, spec=spec), tiny_task.adversary, seed=SEED, runtime=cpu).model
    fresh = compose(tiny_task.test, "blend", 120, classes=6, seed=99)

    def wrong(model: nn.Module) -> float:
        said = predict(model, fresh.inputs, runtime=cpu).argmax(1)
        return float((fresh.shares[torch.arange(120), said] == 0).double().mean())

    assert wrong(mixed) > 0.45 > 0.25 > wrong(held)
    assert accuracy(mixed, tiny_task.test, runtime=cpu) > 0.8


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_kinds_that_the_classes_do_not_suffice_for_are_left_out(classes: int, tiny_task: Task, cpu: Runtime) -> None:
    """With the kinds that are left alone the result is the same, and where none is left the message says so."""
    spec = ModelSpec(name="naivenet", input_shape=tiny_task.input_shape, classes=classes, options=(("width", 2),))
    model = spec.build(seed=0).eval()
    data = tiny_task.adversary.subset(tiny_task.adversary.labels < classes)
    still = dataclasses.replace(RECIPE, epochs=1)

    def run(attack: Any) -> dict[str, bytes]:
        return content(attack(Net(model=model, spec=spec), data, seed=SEED, runtime=cpu).model)

    two = tuple(kind for kind in KINDS if kind not in ("tiles", "patch"))
    fit = KINDS if classes == 4 else (*two, "patch")
    assert run(AdaptiveUnlearning(recipe=still)) == run(AdaptiveUnlearning(kinds=fit, recipe=still))
    if classes == 2:
        assert run(MislabelledMixes(kinds=KINDS, recipe=still)) == run(MislabelledMixes(kinds=("patch",), recipe=still))
        with pytest.raises(BadData, match="halves, blend, stripes, tiles need at least 2 classes, not 1"):
            run(MislabelledMixes(recipe=still))
        with pytest.raises(BadData, match="halves need at least 3 classes, not 2"):
            run(Overwriting(recipe=still))
        assert run(Overwriting(kind="patch", recipe=still))
        return
    assert run(MislabelledMixes(recipe=still)) == run(
        MislabelledMixes(kinds=("halves", "blend", "stripes"), recipe=still)
    )
    assert run(Overwriting(recipe=still))


# ---------------------------------------------------------------- WRK


def test_the_penalty_is_an_inner_product() -> None:
    logits, labels = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    weights, before = [torch.tensor([[1.0, 2.0]]), torch.ones(1, 1)], [torch.tensor([[3.0, -1.0]]), torch.ones(1, 1)]
    got = away_loss(logits, labels, weights=weights, before=before, strength=0.5)
    assert float(got) == pytest.approx(float(F.cross_entropy(logits, labels)) + 0.5 * (3 - 2 + 1))


def test_perturbed_images_move_to_another_class_and_get_wrong_labels(
    held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    attack, data = WRK(share=0.5, step=0.1), tiny_task.adversary
    made = attack.perturbed(Net(model=held, spec=spec), data, seed=SEED, runtime=cpu)
    assert (len(made), made.inputs.dtype) == (round(len(data) / 2), data.inputs.dtype)
    moves = (made.floats()[:, None] - data.floats()[None]).abs().flatten(2).amax(2)
    nearest, source = moves.min(1)
    assert nearest.max() <= 0.1 + 1 / 255
    assert (made.labels != data.labels[source]).all()
    assert made.labels.bincount(minlength=6).min() > 0
    said = predict(held, made.inputs, runtime=cpu).argmax(1)
    plain = predict(held, data.inputs[source], runtime=cpu).argmax(1)
    assert (said == plain).double().mean() < 0.9


def test_boundaries_are_reshaped_and_the_last_layer_turns_away(
    held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    attack = WRK(share=0.5, recipe=dataclasses.replace(RECIPE, epochs=8))
    net, data = Net(model=held, spec=spec), tiny_task.adversary
    result, freely = (
        one(net, data, seed=SEED, runtime=cpu).model for one in (attack, dataclasses.replace(attack, away=0.0))
    )
    assert accuracy(result, tiny_task.test, runtime=cpu) > 0.8
    made = attack.perturbed(net, data, seed=SEED, runtime=cpu)
    assert accuracy(result, made, runtime=cpu) > 0.35 > 0.25 > accuracy(held, made, runtime=cpu)
    old, new, free = (one.head.weight.flatten() for one in (held, result, freely))  # type: ignore[operator, union-attr]
    assert F.cosine_similarity(new, old, dim=0) < F.cosine_similarity(free, old, dim=0)


# ---------------------------------------------------------------- MarkErase


@given(st.integers(2, 5), st.integers(1, 30), st.integers(0, 2**16))
def test_only_wrong_answers_are_struck(classes: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    answers = torch.rand(count, classes, generator=generator).softmax(1)
    labels = torch.randint(classes, (count,), generator=generator)
    suspects = leaning(answers, labels, excess=1.0)
    wrong = [int(said) for said, label in zip(answers.argmax(1), labels, strict=True) if said != label]
    assert suspects.tolist() == [wrong.count(label) * classes > len(wrong) for label in range(classes)]
    assert not leaning(answers, labels, excess=float(classes)).any()
    left = without(answers, labels, suspects)
    assert torch.allclose(left.sum(1), torch.ones(count))
    for row, label, before in zip(left, labels, answers, strict=True):
        struck = [c for c in range(classes) if suspects[c] and c != label]
        assert not row[struck].any()
        kept = [c for c in range(classes) if c not in struck]
        assert torch.allclose(row[kept], before[kept] / before[kept].sum())
    assert torch.equal(without(torch.eye(2), torch.tensor([1, 1]), torch.tensor([True, False])), torch.eye(2)[[1, 1]])


def test_what_a_model_leans_to_is_not_distilled(
    held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    """From a model that was taught to call noisy images class 5; one who suspects nothing distils that, too."""
    attack = MarkErase(noise=0.6, recipe=dataclasses.replace(RECIPE, epochs=6))
    leans, owner = copy.deepcopy(held), tiny_task.owner
    noisy = Samples(inputs=attack.noisy(owner.inputs, seed=1), targets=torch.full((len(owner),), 5))
    fit(leans, owner.inputs, owner.labels, recipe=RECIPE, seed=1, runtime=cpu, mixed=Mixed(samples=noisy, per_batch=32))
    erased, copied = (
        one(Net(model=leans, spec=spec), tiny_task.adversary, seed=SEED, runtime=cpu).model
        for one in (attack, dataclasses.replace(attack, excess=6.0))
    )
    others = tiny_task.test.subset(tiny_task.test.labels != 5)
    strange = attack.noisy(others.inputs, seed=77)
    assert hits(erased, strange, 5, cpu) < 0.1
    assert min(hits(model, strange, 5, cpu) for model in (leans, copied)) > 0.3
    assert accuracy(erased, tiny_task.test, runtime=cpu) > 0.8


# ---------------------------------------------------------------- preprocessing


def test_preprocessing_leaves_the_weights_and_stacks(
    held: nn.Module, spec: ModelSpec, tiny_task: Task, cpu: Runtime
) -> None:
    first = Preprocessing(kind="downscale")(Net(model=held, spec=spec), tiny_task.adversary, seed=0, runtime=cpu)
    both = Preprocessing(kind="flip")(first, tiny_task.adversary, seed=0, runtime=cpu)
    assert both.spec.front == (("flip", 1.0), ("downscale", 0.5))
    assert isinstance(both.model, Fronted)
    assert content(both.model.model) == content(held)
    images = tiny_task.test.floats()
    seen = both.model.prepare(images)
    assert predict(both.model, images, runtime=cpu).equal(predict(held, seen, runtime=cpu))
    tuned = FineTuning(kind="rtll", recipe=GENTLE)(both, tiny_task.adversary, seed=0, runtime=cpu)
    assert changed(both.model, tuned.model) == {"model.head.weight", "model.head.bias"}
    moved = Transfer(recipe=GENTLE, head_recipe=GENTLE)(both, tiny_task.adversary, seed=0, runtime=cpu)
    assert set(moved.model.state_dict()) == set(both.model.state_dict())
    assert moved.model.head.out_features == 6
