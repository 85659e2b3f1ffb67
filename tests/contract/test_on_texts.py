"""What every registered method and attack promises on texts: it works on them, or refuses them by what it needs.

Configurations are those of ``--quick`` for texts, made tiny; who is added to a registry is picked up by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts import stir, weights
from torch import nn

pytest.importorskip("tokenizers")

from heirmark.attacks import EXTRACTIONS, INSPECTIONS, REMOVALS, SCREENINGS
from heirmark.attacks.base import Sizes
from heirmark.attacks.removal.int8 import to_onnx
from heirmark.data.tokenised import text_task
from heirmark.errors import BadConfig
from heirmark.grids.fitting import quick_attacks
from heirmark.jobs.preflight import small
from heirmark.keys.key import Key
from heirmark.methods import METHODS, Marked, Robust
from heirmark.methods.nets import net_of, train_from_scratch
from heirmark.models import Net, fresh_net
from heirmark.models.storage import load_model, save_model
from heirmark.profiles import TEXT_RECIPE
from heirmark.querying.asking import predict
from heirmark.querying.blackbox import Api, BlackBox
from heirmark.querying.oracle import ModelFault
from heirmark.runtime import Runtime
from heirmark.suiting import default_method, suited
from heirmark.tasks.media import Text
from heirmark.tasks.space import suits
from heirmark.tasks.task import Task
from heirmark.training.fitting import Recipe
from heirmark.triggers import Groups
from heirmark.verification import Suspect
from made_up import sentences

NET = "fast-text:width=8,hidden=8,vocabulary=64"
CNN = "text-cnn:width=8,maps=4,vocabulary=64"
RECIPE = dataclasses.replace(TEXT_RECIPE, epochs=4, batch_size=32, learning_rate=0.02)
REFUSING = {"margin", "ssw-p", "ssw-s"}
REFUSING_ATTACKS = {
    "jbda", "dfme", "maze", "wrk", "mark-erase", "mislabelled-mixes", "overwriting", "adaptive", "preprocessing",
    "neural-cleanse", "abs", "mix-probing", "composites",
}  # fmt: skip


@pytest.fixture(scope="module")
def task() -> Task:
    """Six classes of texts of 12 tokens, and texts of another kind beside."""
    made = text_task(sentences(720, classes=6), sentences(120, 1, 6), length=12, name="made-up")
    assert isinstance(made.medium, Text)
    others = [
        f"plot {one} film {two}" for one in ("good", "bad", "fine", "dull") for two in ("day", "so", "is", "the", "was")
    ]
    foreign = dataclasses.replace(
        made.test, inputs=made.medium.tokens(others, 12), labels=torch.ones(len(others), dtype=torch.long)
    )
    return dataclasses.replace(made, foreign=foreign)


@pytest.fixture(scope="module")
def clean(task: Task, cpu: Runtime) -> Net:
    return net_of(train_from_scratch(task, NET, RECIPE, seed=0, runtime=cpu), task, NET)


def tiny(name: str, task: Task) -> Any:
    """The quick configuration of a method, made tiny."""
    made: Any = small(default_method(name, task.space, task.num_classes, quick=True))
    made = dataclasses.replace(made, model=NET, pretraining=RECIPE)
    if name == "deeptracer":
        made = dataclasses.replace(made, key_filter=None)  # it may leave nothing of so few
    if isinstance(made, Robust):
        made = dataclasses.replace(made, thieves=(CNN,), judges=("lstm:width=4,hidden=4,vocabulary=64",), early=0)
    return made


@pytest.fixture(scope="module")
def run(task: Task, clean: Net, cpu: Runtime) -> Callable[..., Marked]:
    def again(name: str, seed: int = 3) -> Marked:
        return tiny(name, task)(task, seed=seed, runtime=cpu, clean=clean.model)  # type: ignore[no-any-return]

    return again


WORKING = [name for name in METHODS if name not in REFUSING]


@pytest.mark.parametrize("name", WORKING)
def test_a_method_marks_texts(name: str, run: Callable[..., Marked], task: Task, cpu: Runtime, tmp_path: Path) -> None:
    if name == "fingerprint":
        pytest.skip("of a net that errs seldom on so few texts there is no key")
    before = {role: split.inputs.clone() for role, split in task.splits.items()}
    marked = run(name)
    assert all(torch.equal(task.splits[role].inputs, inputs) for role, inputs in before.items())
    key = marked.key
    assert key.medium == task.medium
    assert isinstance(key.medium, Text)
    assert torch.equal(key.medium.tokens(key.medium.texts(key.queries), 12), key.queries)
    assert key.queries.dtype == torch.int32
    key.save(tmp_path / "key")
    assert Key.load(tmp_path / "key").commitment == key.commitment
    save_model(marked.net, tmp_path / "model")
    loaded = load_model(tmp_path / "model").model
    logits = predict(marked.model, task.test.inputs, runtime=cpu)
    assert torch.equal(predict(loaded, task.test.inputs, runtime=cpu), logits)
    assert logits.shape == (120, 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in WORKING if name != "fingerprint"])
def test_a_methods_seed_decides_all(
    name: str, run: Callable[..., Marked], unchanged_globals: Callable[[], Any]
) -> None:
    one = run(name)
    stir()
    with unchanged_globals():
        other = run(name)
    assert weights(one.model) == weights(other.model)
    assert one.key.commitment == other.key.commitment
    assert one.key.commitment != run(name, seed=4).key.commitment


@pytest.mark.parametrize("name", sorted(REFUSING))
def test_a_method_that_moves_inputs_refuses_texts(name: str, run: Callable[..., Marked]) -> None:
    with pytest.raises(BadConfig, match=f"{name} needs .* give such, or"):
        run(name)


def test_groups_refuse_texts(task: Task, cpu: Runtime) -> None:
    made = dataclasses.replace(tiny("vanilla", task), trigger=Groups())
    with pytest.raises(BadConfig, match="Groups needs images"):
        made(task, seed=0, runtime=cpu)


# ---------------------------------------------------------------- attacks


def attack(name: str, task: Task) -> Any:
    made: Any = suited(quick_attacks(RECIPE)[name].fitted(Sizes.of(task)), task.space, task.num_classes)
    if name in REFUSING_ATTACKS or name == "lof":
        return made
    made = small(made)
    names = {part.name for part in dataclasses.fields(made)}
    changes: dict[str, Any] = {"model": CNN if name == "fine-pruning" else NET} if "model" in names else {}
    if isinstance(getattr(made, "recipe", None), Recipe):
        changes["recipe"] = dataclasses.replace(RECIPE, epochs=2)
    if getattr(made, "queries", None) is not None:
        changes["queries"] = 120
    return dataclasses.replace(made, **changes)


def works(name: str, task: Task) -> bool:
    made = attack(name, task)
    assert suits(made, task.space) == (name not in REFUSING_ATTACKS), name
    return name not in REFUSING_ATTACKS


@pytest.mark.parametrize("name", EXTRACTIONS)
def test_a_thief_steals_a_model_of_texts(name: str, task: Task, clean: Net, cpu: Runtime) -> None:
    for answers in ("probabilities", "label") if works(name, task) else ():
        if name == "knockoff-adaptive" and answers == "label":
            continue
        box = BlackBox(clean.model, classes=6, api=Api(answers=answers), runtime=cpu)  # type: ignore[arg-type]
        copy = attack(name, task)(box, task.adversary, seed=1, runtime=cpu)
        assert predict(copy.model, task.test.inputs, runtime=cpu).shape == (120, 6)
        assert copy.spec.name == "fast-text"
    if name in REFUSING_ATTACKS:
        box = BlackBox(clean.model, classes=6, runtime=cpu)
        with pytest.raises(BadConfig, match="needs"):
            attack(name, task)(box, task.adversary, seed=1, runtime=cpu)


@pytest.mark.parametrize("name", REMOVALS)
def test_a_removal_works_on_a_model_of_texts(name: str, task: Task, clean: Net, cpu: Runtime) -> None:
    if name == "int8":
        pytest.importorskip("onnxruntime")
    if name == "fine-pruning":  # what has no convolution has no channel to cut
        with pytest.raises(BadConfig, match="FastText has no convolution to prune"):
            attack(name, task)(clean, task.adversary, other=None, seed=1, runtime=cpu)
        clean = net_of(train_from_scratch(task, CNN, RECIPE, seed=0, runtime=cpu), task, CNN)
    other = task.adversary if name == "transfer" else None
    if not works(name, task):
        with pytest.raises(BadConfig, match=r"needs|preprocesses"):
            attack(name, task)(clean, task.adversary, other=other, seed=1, runtime=cpu)
        return
    before = weights(clean.model)
    altered = attack(name, task)(clean, task.adversary, other=other, seed=1, runtime=cpu)
    assert weights(clean.model) == before
    logits = predict(altered.model, task.test.inputs, runtime=cpu)
    assert logits.shape == (120, 6)
    assert bool(torch.isfinite(logits).all())


@pytest.mark.parametrize("name", [*INSPECTIONS, *SCREENINGS])
def test_a_detection_looks_at_texts_or_refuses_them(name: str, task: Task, clean: Net, cpu: Runtime) -> None:
    made = attack(name, task)
    if not works(name, task):
        with pytest.raises(BadConfig, match="needs"):
            made(clean, task.adversary, seed=1, runtime=cpu)
        return
    if name in SCREENINGS:
        screen = made(clean, task.adversary, seed=1, runtime=cpu)
        flagged = screen(task.test.inputs)
        assert flagged.shape == (120,)
        assert float(flagged.double().mean()) < 0.5


def test_a_stolen_copy_can_be_stolen_again(task: Task, clean: Net, cpu: Runtime) -> None:
    thief = attack("knockoff", task)
    copy = thief(BlackBox(clean.model, classes=6, runtime=cpu), task.adversary, seed=1, runtime=cpu)
    second = thief(BlackBox(copy.model, classes=6, runtime=cpu), task.calibration, seed=2, runtime=cpu)
    assert isinstance(second.model, nn.Module)


@pytest.mark.parametrize("net", ["text-cnn:width=8,maps=4", "lstm:width=4,hidden=4", NET])
def test_a_net_is_written_as_onnx_and_judged(net: str, task: Task, cpu: Runtime, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = fresh_net(net, input_shape=task.input_shape, classes=6, seed=0).model.eval()
    (tmp_path / "net.onnx").write_bytes(to_onnx(model, task.test.inputs[:2].long()))
    suspect = Suspect.from_onnx(tmp_path / "net.onnx")
    assert suspect.classes == 6
    with torch.no_grad():
        assert torch.equal(suspect.labels(task.test.inputs), model(task.test.inputs).argmax(1))
    with pytest.raises(ModelFault, match="takes ids of tokens"):
        suspect.labels(torch.rand(3, 12))
