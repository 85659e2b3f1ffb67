"""A training step never looks at what the device computes: on a GPU every look would wait until all work before it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from heirmark.attacks.extraction.learning import learn
from heirmark.models import build
from heirmark.rehearsal.loop import Monitor, rehearse
from heirmark.rehearsal.passes import Memory
from heirmark.rehearsal.settings import Balanced, Rehearsal, SimulatedThief
from heirmark.runtime import Runtime, to_device
from heirmark.tasks.task import Split, Task
from heirmark.training.fitting import Mixed, Recipe, fit
from heirmark.training.joint import Extra, Outputs, Phase, fit_jointly, mgda
from heirmark.training.samples import Samples

LOOKS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "unique",
    "is_nonzero",
    "bincount",
    "repeat_interleave",
}
RECIPE = Recipe(epochs=1, batch_size=16, learning_rate=0.01, augment="crop-flip")


class Looks(TorchDispatchMode):
    """Counts what could not be answered without the numbers themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = args[1] if name in ("index", "index_put", "index_put_") else []
        masked = any(isinstance(mask, Tensor) and mask.dtype in (torch.bool, torch.uint8) for mask in masks)
        self.count += masked or name.strip("_") in {look.strip("_") for look in LOOKS}
        return func(*args, **(kwargs or {}))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Counts looks; also those that torch takes on the CPU without telling."""
    mode = Looks()

    def counted(name: str) -> None:
        original = getattr(Tensor, name)

        def method(tensor: Tensor, *args: Any) -> Any:
            mode.count += 1
            return original(tensor, *args)

        monkeypatch.setattr(Tensor, name, method)

    for name in ("tolist", "numpy"):
        counted(name)
    # On a GPU, labels are left to the device's own assertions, by heirmark and by torch.
    monkeypatch.setattr("heirmark.rehearsal.asking.check_classes", lambda *_: None)
    monkeypatch.setattr(F, "one_hot", lambda labels, classes: (labels[..., None] == torch.arange(classes)).long())
    return mode


def net(seed: int = 0) -> nn.Module:
    return build("naivenet", input_shape=(1, 16, 16), classes=6, seed=seed, width=2, hidden=8, batch_norm=True)


Loop = Callable[[Split, Split, Runtime], object]
"""Trains something on the first split, with triggers from the second."""


def plain(data: Split, extra: Split, runtime: Runtime) -> None:
    mixed = Mixed(samples=Samples(inputs=extra.inputs, targets=extra.labels), per_batch=5)
    fit(net(), data.inputs, data.labels, recipe=RECIPE, seed=0, runtime=runtime, mixed=mixed)


def mixed_soft(data: Split, extra: Split, runtime: Runtime) -> None:
    mixed = Mixed(samples=Samples(inputs=extra.inputs, targets=extra.labels), per_batch=5)
    soft = F.one_hot(data.labels, 6).float()
    fit(net(), data.inputs, soft, recipe=RECIPE, seed=0, runtime=runtime, mixed=mixed)


def soft(data: Split, extra: Split, runtime: Runtime) -> None:
    targets = F.one_hot(data.labels, 6).float()
    learn(net(), data.inputs, (targets,), F.cross_entropy, recipe=RECIPE, seed=0, runtime=runtime)


def losses(clean: Outputs, extras: Mapping[str, Outputs]) -> Mapping[str, Tensor]:
    found = {"clean": F.cross_entropy(clean.logits, clean.targets)}
    return found | {name: F.cross_entropy(outputs.logits, outputs.targets) for name, outputs in extras.items()}


def jointly(data: Split, extra: Split, runtime: Runtime) -> None:
    sets = {"watermark": Extra(samples=Samples(inputs=extra.inputs, targets=extra.labels))}
    fit_jointly(net(), data, sets, losses, Phase(recipe=RECIPE, extras={"watermark": 4}), seed=0, runtime=runtime)


def rehearsed(*, asking: bool = False, **options: Any) -> Loop:
    def run(data: Split, extra: Split, runtime: Runtime) -> None:
        mark = Samples(inputs=extra.inputs, targets=extra.labels)
        config = Rehearsal(recipe=replace(RECIPE, learning_rate=1e-3), trigger_batch=8, **options)
        rehearse(
            net(), net(1), data, mark, config=config, seed=0, monitor=Monitor(clean=extra, triggers=mark),
            queries=extra.inputs if asking else None, runtime=runtime,
        )  # fmt: skip

    return run


LOOPS: dict[str, Loop] = {
    "fit": plain,
    "learn": soft,
    "fit jointly": jointly,
    "rehearse": rehearsed(),
    "rehearse, balanced": rehearsed(
        update=Balanced(enough=0.5), thief=SimulatedThief(trigger_mode="mixed", label_only=1)
    ),
    "rehearse, asking others": rehearsed(asking=True, update=Balanced(), thief=SimulatedThief(steps=2)),
    "fit, soft labels and others": mixed_soft,
    "rehearse, one graph": rehearsed(memory=Memory(micro_batch=8, one_graph=True)),
}


def counted(looks: Looks, run: Loop, data: Split, extra: Split, runtime: Runtime) -> int:
    before = looks.count
    with looks:
        run(data, extra, runtime)
    return looks.count - before


@pytest.mark.parametrize("name", LOOPS)
def test_more_steps_take_no_more_looks(name: str, looks: Looks, tiny_task: Task, cpu: Runtime) -> None:
    extra = tiny_task.calibration.subset(torch.arange(20))
    few, many = (
        counted(looks, LOOPS[name], tiny_task.owner.subset(torch.arange(16 * steps)), extra, cpu) for steps in (2, 5)
    )
    assert few == many
    assert few > 0, "an epoch's loss is looked at"


def test_weighing_by_mgda_takes_one_look_a_step(looks: Looks, tiny_task: Task, cpu: Runtime) -> None:
    def run(data: Split, extra: Split, runtime: Runtime) -> None:
        one = Extra(samples=Samples(inputs=extra.inputs, targets=extra.labels))
        sets = {"watermark": one, "evasion": one}
        phase = Phase(recipe=RECIPE, extras={"watermark": 4, "evasion": 4})
        fit_jointly(net(), data, sets, losses, phase, seed=0, weights=mgda("loss+"), runtime=runtime)

    extra = tiny_task.calibration.subset(torch.arange(20))
    few, many = (counted(looks, run, tiny_task.owner.subset(torch.arange(16 * steps)), extra, cpu) for steps in (2, 5))
    assert many - few == 3


def test_the_counter_counts(looks: Looks) -> None:
    numbers = torch.arange(4.0)
    with looks:
        for look in (
            lambda: float(numbers.sum()),
            lambda: bool(numbers.any()),
            lambda: numbers[numbers > 1],
            lambda: (numbers > 1).nonzero(),
            numbers.tolist,
        ):
            before = looks.count
            look()
            assert looks.count > before
        before = looks.count
        torch.where(numbers > 1, numbers, -numbers)[torch.tensor([1, 0])] *= 2
        assert looks.count == before


def test_what_is_sent_arrives() -> None:
    drawn = torch.randperm(5)
    assert torch.equal(to_device(drawn, torch.device("cpu")), drawn)


@contextmanager
def waiting_refused() -> Iterator[Runtime]:
    """A runtime on the GPU under which torch refuses to wait from the first step's end to the last one's."""

    def gate(description: str, done: int, total: int) -> None:
        torch.cuda.set_sync_debug_mode("default" if done == total else "error")

    try:
        yield Runtime(device="cuda", progress=gate)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("name", LOOPS)
def test_no_step_waits_for_a_gpu(name: str, tiny_task: Task) -> None:
    extra = tiny_task.calibration.subset(torch.arange(20))
    with waiting_refused() as runtime:
        LOOPS[name](tiny_task.owner, extra, runtime)
