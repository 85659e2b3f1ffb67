"""The model that an owner has: marked from its own weights in Python and by the command line, and refused in a sentence."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import heirmark as hm
import own_code
from heirmark.errors import BadConfig, BadData
from heirmark.methods import METHODS
from heirmark.methods.nets import Held, frozen_parts, released, start_from
from heirmark.models import CUSTOM, Factory, ModelSpec, fresh_net
from heirmark.models.anew import Anew
from heirmark.models.storage import rounded
from heirmark.querying.oracle import ModelFault
from heirmark.rehearsal.settings import Balanced, Rehearsal
from heirmark.runtime import Runtime, derive_seed, seeded
from heirmark.tasks.splitting import own_task
from heirmark.tasks.task import Split
from heirmark.training.fitting import Recipe, accuracy, fit
from own_nets import Ended, group_norms, layer_norms, tuned
from test_cli import CPU, here, refused, run, settings

__all__ = ["here"]

CPU_ONLY = Runtime(device="cpu", precision="float32")
SPEC = ModelSpec(name=CUSTOM, input_shape=(1, 16, 16), classes=own_code.CLASSES)
ADAM = Recipe(epochs=6, batch_size=40, learning_rate=4e-3, optimizer="adam")
TINY = hm.T2S(
    trigger=hm.Mix(),
    triggers=40,
    key_size=40,
    pretraining=ADAM,
    trigger_batch=8,
    initial="clean",
    rehearsal=Rehearsal(recipe=Recipe(epochs=1, batch_size=40, learning_rate=0.02), trigger_batch=8, update=Balanced()),
)
TASK = own_code.make_task()


def trained(make: Factory) -> nn.Module:
    """A net of a user's that knows its task; layers that it freezes are as they came."""
    with seeded(3):
        model = make(SPEC)
    fit(model, TASK.owner.inputs, TASK.owner.labels, recipe=ADAM, seed=1, runtime=CPU_ONLY)
    assert accuracy(model, TASK.test, runtime=CPU_ONLY) > 0.7
    return model


@pytest.fixture(scope="module")
def modern() -> nn.Module:
    """A trained net without ``.features``; do not change it."""
    return trained(layer_norms)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Names of the weights that are the same to the last bit."""
    assert one.keys() == other.keys()
    return [name for name in one if torch.equal(one[name], other[name])]


# In Python


@pytest.mark.parametrize("make", [layer_norms, group_norms])
def test_a_users_own_net_is_marked_in_a_few_lines(make: Factory) -> None:
    model = trained(make).train()
    before = state(model)
    marked = hm.mark(model, TASK, method=TINY, seed=5, runtime=CPU_ONLY)
    assert len(same(before, state(model))) == len(before)
    assert model.training
    assert type(marked.model) is type(model)
    assert not marked.model.training
    assert not same(dict(marked.model.named_parameters()), dict(model.named_parameters()))
    assert accuracy(marked.model, TASK.test, runtime=CPU_ONLY) > 0.6
    verdict = hm.verify(hm.Suspect.from_module(marked.model, classes=5), marked.key)
    assert verdict.trials == 40


def test_frozen_layers_stay_to_the_last_bit() -> None:
    model = trained(tuned)
    frozen = {name for name in model.state_dict() if name.startswith("trunk.")}
    marked = hm.mark(model, TASK, method=TINY, seed=5, runtime=CPU_ONLY)
    kept = same(state(model), state(marked.model))
    assert frozen == set(kept)  # BatchNorm's running statistics among them; those of the mixer have moved
    assert [weight.requires_grad for weight in marked.model.parameters()] == [
        w.requires_grad for w in model.parameters()
    ]
    assert not any(isinstance(hook, Held) for hook in marked.model._forward_pre_hooks.values())


def test_frozen_parts_are_held_while_the_rest_learns() -> None:
    model = tuned(SPEC)
    assert frozen_parts(model) == ("trunk",)
    assert frozen_parts(layer_norms(SPEC)) == ()
    assert frozen_parts(model.requires_grad_(False)) == ("",)
    begun = start_from(tuned(SPEC), TASK, tuned).train()
    begun(TASK.owner.floats(torch.arange(9)))
    assert [begun.trunk[1].training, begun.mixer[1].training] == [False, True]
    assert int(begun.trunk[1].num_batches_tracked) == 0
    released(begun).train()(TASK.owner.floats(torch.arange(9)))
    assert int(begun.trunk[1].num_batches_tracked) == 1


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_comes_back_as_it_came(kind: torch.dtype, modern: nn.Module, tmp_path: Path) -> None:
    model = copy.deepcopy(modern).to(kind)
    marked = hm.mark(model, TASK, method=TINY, seed=5, runtime=CPU_ONLY)
    assert {weight.dtype for weight in model.parameters()} == {kind}
    for weight in marked.model.parameters():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, weight.to(kind).float())
    hm.save_model(marked.net, tmp_path)
    assert {weight.dtype for weight in load_file(tmp_path / "model.safetensors").values()} == {kind}
    loaded = hm.load_model(tmp_path, factories=[layer_norms])
    assert len(same(state(loaded.model), state(marked.model))) == len(state(model))
    assert set(loaded.stored.values()) == {kind}


def test_what_half_precision_cannot_hold_is_told() -> None:
    net = hm.Net(model=nn.Linear(2, 2), spec=SPEC)
    with torch.no_grad():
        net.model.weight.fill_(1e6)
    with pytest.raises(BadData, match="too large for float16: start from bfloat16"):
        rounded(net, {"weight": torch.float16})


def test_images_and_labels_will_do(modern: nn.Module) -> None:
    data, fresh = own_code.images(300, seed=1), own_code.images(200, seed=2)
    learned, held_out = (data.inputs, data.labels), (fresh.inputs, fresh.labels)
    marked = hm.mark(modern, learned, held_out=held_out, method=TINY, seed=5, runtime=CPU_ONLY)
    again = hm.mark(
        modern, own_task(data, held_out=fresh, seed=derive_seed(5, "splits")), method=TINY, seed=5, runtime=CPU_ONLY
    )
    assert again.key.commitment == marked.key.commitment
    assert len(same(state(marked.model), state(again.model))) == len(state(modern))
    hosts = marked.verification_triggers.hosts.flatten(0, 1)
    assert Split(inputs=hosts, labels=torch.zeros(len(hosts), dtype=torch.long)).digests() <= fresh.digests()


def test_the_default_is_named_and_starts_from_the_model(modern: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[hm.Watermark] = []
    monkeypatch.setattr("heirmark.jobs.marking.preflight", lambda method, *rest, **named: seen.append(method) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        hm.mark(modern, TASK, seed=5, runtime=CPU_ONLY)
    assert seen[0].starts_from_clean
    assert seen[0].key_size >= 200


def reordered() -> hm.Task:
    splits = {role: Split(inputs=each.inputs, labels=(each.labels + 1) % 5) for role, each in TASK.splits.items()}
    return hm.Task(name="own", classes=TASK.classes, **splits)


def broken(spec: ModelSpec) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(7, spec.classes))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda model: {"model": model.requires_grad_(False)}, BadConfig, "unfreeze some"),
        (lambda model: {"data": reordered()}, BadData, "answers in random order.*order of classes.*normalisation"),
        (lambda model: {"model": broken(SPEC)}, ModelFault, "fails on inputs of shape"),
        (
            lambda model: {"method": hm.Vanilla()},
            BadConfig,
            "from scratch.*ewe, .*t2s with --set initial=clean|t2s with",
        ),
        (lambda model: {"method": hm.T2S()}, BadConfig, "t2s with these settings.*initial=clean"),
        (lambda model: {"held_out": TASK.test}, BadConfig, "leave held_out out"),
        (lambda model: {"data": own_code.images(8, seed=1)}, BadData, "too few|give more|no better|random order"),
        (lambda model: {"data": own_code.make_task_of_seven()}, (BadConfig, BadData, ModelFault), r"7|classes"),
    ],
    ids=["frozen", "other order", "fails", "from scratch", "watermarked first", "held out twice", "few", "classes"],
)
def test_what_cannot_be_marked_is_told(
    change: Callable[[nn.Module], dict[str, Any]], error: type[Exception], words: str, modern: nn.Module
) -> None:
    with seeded(0):
        given = {"model": modern, "data": TASK, "method": TINY, **change(copy.deepcopy(modern))}
    with pytest.raises(error, match=words):
        hm.mark(**given, seed=5, runtime=CPU_ONLY)


# Their parts


def test_every_method_says_whether_it_starts_from_a_model() -> None:
    able = {name for name, kind in METHODS.items() if kind().starts_from_clean}
    assert able >= {"ewe", "feature-sharing", "ssw-p", "unmarked"}
    assert not able & {"t2s", "vanilla", "deeptracer", "ssw-s", "margin", "composite", "abstract", "mea-defender"}
    assert TINY.starts_from_clean
    assert hm.Abstract(start="pretrained").starts_from_clean


def test_an_own_task_shares_out_every_image_once() -> None:
    data, held_out = own_code.images(300, seed=1), own_code.images(60, seed=2)
    task = own_task(data, seed=4)
    assert [len(split) for split in task.splits.values()] == [210, 30, 30, 30]
    assert task.num_classes == 5
    assert task.digest() == own_task(data, seed=4).digest() != own_task(data, seed=5).digest()
    task = own_task(data, held_out=held_out, classes=("a", "b", "c", "d", "e"), seed=4)
    assert len(task.owner) + len(task.adversary) == 300
    assert task.calibration.digests() | task.test.digests() == held_out.digests()
    with pytest.raises(BadData, match="share out"):
        own_task(own_code.images(1, seed=1))
    mixed = Split(inputs=torch.cat([data.inputs, held_out.inputs]), labels=torch.cat([data.labels, held_out.labels]))
    task = own_task(mixed, held_out=held_out)
    assert len(task.owner) + len(task.adversary) == 300  # what is held out is not learned from


def test_a_net_is_drawn_anew() -> None:
    model = Ended(SPEC, "function")  # a bare parameter, which nothing draws
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.5 * torch.rand_like(weight))
    before = state(model)
    net = fresh_net(Anew(model), input_shape=SPEC.input_shape, classes=5, seed=1)
    other = fresh_net(Anew(model), input_shape=SPEC.input_shape, classes=5, seed=2)
    assert not same(state(net.model), before)
    assert "weights" not in same(state(net.model), state(other.model))
    assert torch.equal(net.model.state_dict()["weights"].flatten().sort()[0], before["weights"].flatten().sort()[0])
    assert len(same(state(model), before)) == len(before)
    assert net.spec.factory == "own_nets:Ended"


def test_layers_frozen_at_random_weights_learn_in_what_learns_from_nothing() -> None:
    def brought(spec: ModelSpec) -> nn.Module:
        model = tuned(spec)
        for weight in model.trunk.parameters():
            nn.init.constant_(weight, 0.1)
        return model

    for make, frozen in ((tuned, False), (brought, True)):
        net = fresh_net(make, input_shape=SPEC.input_shape, classes=5, seed=0)
        assert all(weight.requires_grad is not frozen for weight in net.model.trunk.parameters())


# By the command line

EMBED = [
    "embed", *CPU, "--seed", "0", "--calibrators", "1",
    *settings(
        trigger="mix", key_size=40, triggers=40, pretraining__epochs=4, pretraining__batch_size=25,
        pretraining__learning_rate=0.004, pretraining__optimizer="adam", rehearsal__recipe__epochs=2,
        rehearsal__recipe__batch_size=25, rehearsal__recipe__learning_rate=0.005, rehearsal__trigger_batch=8,
        feature_recipe__epochs=1, feature_recipe__batch_size=25, thieves="naivenet:width=4", judges="naivenet:width=3",
    ),
]  # fmt: skip
OWN = ["--model", "own_nets:layer_norms"]


def test_the_command_line_marks_what_there_is(modern: nn.Module, here: Path) -> None:
    given = {name: weight.to(torch.bfloat16) for name, weight in modern.state_dict().items()}
    save_file({f"module.{name}": weight for name, weight in given.items()}, "mine.safetensors")
    ran = run(*EMBED, "--from", "mine.safetensors", *OWN, "--out", "marked", "--json")
    assert ran.code in (0, 4), ran.err
    clean = layer_norms(SPEC)
    clean.load_state_dict({name: weight.float() for name, weight in given.items()})
    assert ran.json["clean_accuracy"] == accuracy(clean, TASK.test, runtime=CPU_ONLY)
    written = load_file("marked/model.safetensors")
    assert {weight.dtype for weight in written.values()} == {torch.bfloat16}
    assert len(same(written, given)) < len(given) // 2
    # What is judged is what is written.
    loaded = hm.load_model(here / "marked", factories=[layer_norms])
    assert accuracy(loaded.model, TASK.test, runtime=CPU_ONLY) == ran.json["accuracy"]
    verdict = hm.verify(hm.Suspect.from_module(loaded.model, classes=5), hm.Key.load(here / "marked/key"))
    assert verdict.hits == ran.json["hits"]
    assert run("verify", "marked", "--key", "marked", *OWN).code in (0, 3)
    thief = ["--victim-model", OWN[1], *settings(recipe__epochs=4, recipe__batch_size=25, recipe__optimizer="adam")]
    thief += settings(recipe__learning_rate=0.004)
    assert run("steal", "marked", *CPU, *thief, "--out", "stolen").code == 0
    assert run("verify", "stolen", "--key", "marked", *OWN).code in (0, 3)
    # A folder says itself what it is, and is adopted as it is.
    ran = run(*EMBED, "--from", "marked", *OWN, "--out", "twice", "--calibrators", "0", "--json")
    assert ran.code in (0, 4), ran.err
    assert ran.json["clean_accuracy"] == accuracy(loaded.model, TASK.test, runtime=CPU_ONLY)


def test_a_built_in_folder_needs_no_model(here: Path) -> None:
    unmarked = [
        "embed",
        "--method",
        "unmarked",
        *CPU,
        *settings(trigger="mix", key_size=40),
        "--calibrators",
        "0",
        "--seed",
        "0",
    ]
    recipe = settings(pretraining__epochs=5, pretraining__batch_size=32, pretraining__learning_rate=0.05)
    net = ["--model", "naivenet:width=4,hidden=16,batch_norm=true"]
    assert run(*unmarked, *recipe, *net, "--out", "mine").code == 0
    assert run(*EMBED, "--from", "mine", "--calibrators", "0", "--out", "marked").code in (0, 4)
    record = (here / "marked/model.json").read_text()
    assert record == (here / "mine/model.json").read_text()
    ran = run(*EMBED, "--from", "mine", "--model", "naivenet", "--out", "x")
    refused(ran, 2, "mine holds naivenet:batch_norm=true,hidden=16,width=4, not naivenet", "leave --model out")
    refused(run(*EMBED, "--from", "mine", *OWN, "--out", "x"), 2, "leave --model out")
    other = ["--data", "own_code:make_task_of_seven"]
    refused(run(*EMBED, "--from", "mine", *other, "--out", "x"), 1, "5 classes, but seven has", "--data")
    refused(run("embed", *CPU, "--from", "mine", "--method", "t2s", "--out", "x"), 2, "--set initial=clean")
    refused(run(*EMBED, "--from", "mine", "--method", "deeptracer", "--out", "x"), 2)
    (here / "mine/model.json").unlink()
    refused(run(*EMBED, "--from", "mine", "--out", "x"), 1, "no model.json", "--model")
    shutil.rmtree(here / "mine")
    refused(run(*EMBED, "--from", "mine", "--out", "x"), 1, "does not exist")
    assert not (here / "x").exists()


def test_bare_weights_that_do_not_fit_are_told(modern: nn.Module, here: Path) -> None:
    weights = state(modern)

    def of(changed: dict[str, Tensor], *options: str) -> Any:
        save_file(changed, "w.safetensors")
        return run(*EMBED, "--from", "w.safetensors", *options, "--out", "x")

    refused(of(weights), 2, "name it with --model")
    refused(of(weights, "--model", "own_nets:group_norms"), 1, "do not fit the architecture at", "--model")
    refused(of(weights, "--model", "naivenet"), 1, "do not fit the architecture at", "--model")
    nan = {**weights, "classifier.bias": torch.full((5,), torch.nan)}
    refused(of(nan, *OWN), 1, "not finite at 'classifier.bias'", "take an earlier one")
    untrained = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    refused(of(untrained, *OWN), 1, "answers in random order")
    (here / "w.pt").write_bytes(b"PK")
    refused(run(*EMBED, "--from", "w.pt", *OWN, "--out", "x"), 1, "no pickle is ever loaded", "save_file")
