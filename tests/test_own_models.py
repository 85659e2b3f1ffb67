"""Models as users bring them: what plain PyTorch takes is taken, or refused with a remedy before anything long begins."""

from __future__ import annotations

import dataclasses
import math
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from heirmark.attacks import ABS, NeuralCleanse, Pruning
from heirmark.errors import BadConfig, BadData, HeirmarkError, HeirmarkWarning, out_of_memory
from heirmark.files import read_bytes
from heirmark.jobs.preflight import SMALL, preflight, small, small_task
from heirmark.keys.key import Key
from heirmark.keys.making import make_key
from heirmark.methods import METHODS, T2S, Content, FeatureSharing, Unmarked, Vanilla
from heirmark.methods.base import settle
from heirmark.models import CUSTOM, ModelSpec, Net
from heirmark.models.front import Fronted
from heirmark.models.storage import load_model, save_model
from heirmark.profiles import QUICK
from heirmark.querying.asking import batch_for, outputs_of, predict
from heirmark.querying.blackbox import Api, BlackBox
from heirmark.querying.layout import are_probabilities, copied_with_entry, entry_of
from heirmark.querying.oracle import ModelFault
from heirmark.rehearsal.passes import Memory
from heirmark.rehearsal.settings import Balanced, Rehearsal
from heirmark.runtime import Runtime
from heirmark.stages import Store
from heirmark.tasks.storing import decode
from heirmark.tasks.task import Task
from heirmark.training.fitting import Recipe, accuracy, fit
from heirmark.triggers import Patch, TextStamp, Tiles
from heirmark.verification import Suspect, calibrate, verify
from heirmark.work.context import Context
from heirmark.work.embedding import train_stage

SHAPE, CLASSES = (1, 16, 16), 6
RECIPE = Recipe(epochs=2, batch_size=32, learning_rate=0.05)
PATCH = Patch(source=1, target=0, size=4)
SHORT = Recipe(epochs=1, batch_size=48, learning_rate=1e-3, weight_decay=0.0)
REHEARSAL = Rehearsal(recipe=SHORT, trigger_batch=8, update=Balanced())


class Viewing(nn.Module):
    """A convolution whose output is viewed as rows, as torch's own tutorials do: no other layout than the usual one will do."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.pool, self.linear = nn.MaxPool2d(2), nn.Linear(4 * 64, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        rows = self.pool(self.norm(self.conv(inputs)).relu())
        logits: Tensor = self.linear(rows.view(rows.size(0), -1))
        return logits


class Changed(nn.Module):
    """A model and what is done to its inputs and outputs."""

    def __init__(
        self,
        before: Callable[[Tensor], Tensor] | None = None,
        after: Callable[[nn.Module, Tensor], Any] | None = None,
    ) -> None:
        super().__init__()
        self.net, self.before, self.after = Viewing(), before, after

    def forward(self, inputs: Tensor) -> Any:
        logits = self.net(inputs if self.before is None else self.before(inputs))
        return logits if self.after is None else self.after(self, logits)


def viewing(spec: ModelSpec) -> nn.Module:
    return Viewing(spec.classes)


def in_place(spec: ModelSpec) -> nn.Module:
    return Changed(before=lambda inputs: inputs.sub_(0.5).div_(0.25))


def softmaxed(spec: ModelSpec) -> nn.Module:
    return Changed(after=lambda model, logits: logits.softmax(1))


def lazy(spec: ModelSpec) -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(spec.classes))


def parallel(spec: ModelSpec) -> nn.Module:
    return nn.DataParallel(Viewing(spec.classes))


def compiled(spec: ModelSpec) -> nn.Module:
    model: nn.Module = torch.compile(Viewing(spec.classes))  # type: ignore[assignment]
    return model


def two_outputs(spec: ModelSpec) -> nn.Module:
    return Changed(after=lambda model, logits: (logits, logits) if model.training else logits)


def detached(spec: ModelSpec) -> nn.Module:
    return Changed(after=lambda model, logits: logits.detach())


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Sequential(nn.Flatten(), nn.Linear(256, 16), nn.ReLU()), nn.Linear(16, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.last(checkpoint(self.first, inputs, use_reentrant=False))
        return logits


def checkpointed(spec: ModelSpec) -> nn.Module:
    return Checkpointed()


class CheckpointedFunction(Checkpointed):
    """What is computed anew calls no module."""

    def forward(self, inputs: Tensor) -> Tensor:
        def first(rows: Tensor) -> Tensor:
            linear = self.first[1]
            return F.linear(rows.flatten(1), linear.weight, linear.bias).relu().square()

        logits: Tensor = self.last(checkpoint(first, inputs, use_reentrant=False))
        return logits


def function_checkpointed(spec: ModelSpec) -> nn.Module:
    return CheckpointedFunction()


def softmaxed_in_eval(spec: ModelSpec) -> nn.Module:
    return Changed(after=lambda model, logits: logits if model.training else logits.softmax(1))


def dropping_in_place(spec: ModelSpec) -> nn.Module:
    return nn.Sequential(nn.Dropout(0.1, inplace=True), Viewing(spec.classes))


def one_normed(spec: ModelSpec) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.BatchNorm1d(8), nn.Linear(8, spec.classes))


def featureless(spec: ModelSpec) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, spec.classes, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


SPEC = ModelSpec(name=CUSTOM, input_shape=SHAPE, classes=CLASSES)


def images(count: int = 5) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(count))


def key_of(shape: tuple[int, ...] = SHAPE, *, count: int = 30, classes: int = CLASSES) -> Key:
    generator = torch.Generator().manual_seed(4)
    queries = torch.randint(256, (count, *shape), dtype=torch.uint8, generator=generator)
    return make_key(
        queries=queries, expected=0, controls=queries.flip(-1), classes=classes, method="test", trigger={}, host_labels=1
    )  # fmt: skip


# ---------------------------------------------------------------- memory layout


def test_a_model_that_views_its_rows_is_asked_trained_and_judged(tiny_task: Task, cpu: Runtime) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(
            0
        )  # a few weights in a hundred give one answer to nearly everything, of which nothing can be judged
        model = Viewing().eval()
    with torch.no_grad():
        plain = model(images())
    assert torch.equal(predict(model, images(), runtime=cpu), plain)
    assert torch.equal(BlackBox(model, classes=CLASSES, runtime=cpu).query(images()).labels, plain.argmax(1))
    assert verify(Suspect.from_module(model, classes=CLASSES, runtime=cpu), key_of()).outcome != "INVALID"
    assert calibrate([model], key_of(), runtime=cpu).trials == 30
    assert 0 <= accuracy(model, tiny_task.test, runtime=cpu) <= 1
    built = SPEC.build(seed=0, factory=viewing)
    fit(built, tiny_task.owner.inputs, tiny_task.owner.labels, recipe=RECIPE, seed=0, runtime=cpu)
    assert accuracy(built, tiny_task.test, runtime=cpu) > 0.5


def test_such_a_model_is_marked_stored_altered_and_inspected(tiny_task: Task, cpu: Runtime, tmp_path: Path) -> None:
    method = T2S(
        model=viewing, trigger=PATCH, triggers=20, key_size=20, pretraining=RECIPE, trigger_batch=8, rehearsal=REHEARSAL
    )
    marked = method(tiny_task, seed=0, runtime=cpu, clean=Viewing())
    save_model(marked.net, tmp_path)
    kept = load_model(tmp_path, factories=[viewing])
    loaded, spec = kept.model, kept.spec
    assert torch.equal(predict(loaded, images(), runtime=cpu), predict(marked.model, images(), runtime=cpu))
    raw = Viewing().eval()
    raw.load_state_dict(loaded.state_dict())
    assert Pruning(rate=0.5)(Net(model=raw, spec=spec), tiny_task.adversary, seed=0, runtime=cpu).spec == spec
    few = {"classes": (0, 1, 2), "steps": 2, "samples": 12}
    for inspection in (NeuralCleanse(**few), ABS(seeds=1, candidates=1, steps=2)):  # type: ignore[arg-type]
        assert len(inspection(Net(model=raw, spec=spec), tiny_task.adversary, seed=0, runtime=cpu).scores) == CLASSES
    assert entry_of(raw) is None, "what is the caller's stays as it is"


def test_a_model_that_takes_floats_is_given_them_decoded(tiny_task: Task, cpu: Runtime) -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(256, CLASSES)

        def forward(self, inputs: Tensor) -> Tensor:
            assert inputs.dtype == torch.float32
            assert 0 <= float(inputs.min()) <= float(inputs.max()) <= 1
            return self.last(inputs.flatten(1))  # type: ignore[no-any-return]

    stored = tiny_task.owner.inputs
    assert stored.dtype == torch.uint8
    raw = Picky()
    fit(raw, stored, tiny_task.owner.labels, recipe=RECIPE, seed=0, runtime=cpu)
    with torch.no_grad():
        wanted = raw(decode(stored))
    assert entry_of(raw) is None
    built = SPEC.build(seed=0, factory=lambda spec: raw)
    with torch.no_grad():
        assert torch.equal(built(stored), wanted), "a factory's model takes stored inputs"
    for model in (raw, built, Fronted(raw, ())):
        assert torch.equal(predict(model, stored, runtime=cpu), wanted)
        assert torch.equal(BlackBox(model, classes=CLASSES, runtime=cpu).query(stored).labels, wanted.argmax(1))
        assert torch.equal(Suspect.from_module(model, classes=CLASSES, runtime=cpu).labels(stored), wanted.argmax(1))


def test_the_layout_is_tried_once_a_model(cpu: Runtime) -> None:
    tried: list[bool] = []

    class Watched(Viewing):
        def forward(self, inputs: Tensor) -> Tensor:
            tried.append(inputs.is_contiguous())
            return super().forward(inputs)

    model = Watched()
    model.conv = nn.Conv2d(2, 4, 3, padding=1)  # of one channel both layouts are the same
    for _ in range(2):
        predict(model, torch.rand(3, 2, 16, 16), runtime=cpu, batch_size=2)
    assert tried == [False, True, True, True, True]


# ---------------------------------------------------------------- what writes into its inputs, is lazy, or wrapped


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, as it is loaded
@pytest.mark.parametrize("factory", [viewing, in_place, lazy, parallel, compiled, dropping_in_place])
def test_factories_of_all_kinds_give_models_that_can_be_marked(
    factory: Callable[[ModelSpec], nn.Module], tiny_task: Task, cpu: Runtime, tmp_path: Path
) -> None:
    method = T2S(
        model=factory, trigger=PATCH, triggers=20, key_size=20, pretraining=RECIPE, trigger_batch=8, rehearsal=REHEARSAL
    )
    preflight(method, tiny_task, seed=0, runtime=cpu)
    model = SPEC.build(seed=0, factory=factory)
    assert not isinstance(model, nn.DataParallel)
    assert not any(name.startswith(("module.", "_orig_mod.")) for name in model.state_dict())
    save_model(Net(model=model, spec=SPEC), tmp_path)
    loaded = load_model(tmp_path, factories=[factory]).model
    batch = images()
    before = batch.clone()
    with torch.no_grad():
        assert torch.equal(loaded(batch), model.eval()(batch))
    assert torch.equal(batch, before), "the model writes into what it is given"


def test_the_first_weights_of_lazy_layers_come_from_the_seed(unchanged_globals: Any) -> None:
    with unchanged_globals():
        one, same, other = (SPEC.build(seed=seed, factory=lazy).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_no_model_writes_into_its_callers_inputs_though_nobody_looked_whether_it_does(cpu: Runtime) -> None:
    class Centred(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs.sub_(0.5))

    inputs = torch.rand(5, 9)
    before = inputs.clone()
    predict(copied_with_entry(Centred(9, 3)), inputs, runtime=cpu)
    assert torch.equal(inputs, before)


# ---------------------------------------------------------------- probabilities in place of logits


def test_probabilities_are_recognised_and_told_and_not_softmaxed_again(cpu: Runtime) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, CLASSES), nn.Softmax(1)).eval()
    with torch.no_grad():
        own = model(images())
    with pytest.warns(HeirmarkWarning, match=r"Sequential gives rows .* taken for probabilities"):
        shown = BlackBox(model, classes=CLASSES, runtime=cpu).query(images()).probabilities
    assert shown is not None
    torch.testing.assert_close(shown, own)
    assert torch.equal(
        BlackBox(model, classes=CLASSES, api=Api(answers="label"), runtime=cpu).query(images()).labels, own.argmax(1)
    )
    with pytest.warns(HeirmarkWarning):
        logits = predict(model, images(), runtime=cpu)
    torch.testing.assert_close(logits.softmax(1), own)
    assert torch.equal(outputs_of(model, images(), runtime=cpu), own)


@pytest.mark.parametrize("factory", [softmaxed, softmaxed_in_eval])
def test_a_factory_that_ends_in_a_softmax_learns_what_its_logits_would(
    factory: Callable[[ModelSpec], nn.Module], tiny_task: Task, cpu: Runtime
) -> None:
    with pytest.warns(HeirmarkWarning, match="leave its softmax out"):
        model = SPEC.build(seed=0, factory=factory)
    bare = SPEC.build(seed=0, factory=lambda spec: Changed())
    bare.load_state_dict(model.state_dict())
    for one in (model, bare):
        fit(one, tiny_task.owner.inputs, tiny_task.owner.labels, recipe=RECIPE, seed=0, runtime=cpu)
    assert accuracy(model, tiny_task.test, runtime=cpu) > 0.5
    first, second = (predict(one, images(), runtime=cpu).softmax(1) for one in (model, bare))
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("scores", "are"),
    [
        ([[0.5, 0.5], [1.0, 0.0]], True),
        ([[0.5, 0.4999]], True),  # rounded
        ([[0.5, 0.51]], False),
        ([[1.5, -0.5]], False),
        ([[1.0], [1.0]], False),  # one number a row says nothing
        ([[math.nan, 1.0]], False),
    ],
)
def test_what_counts_as_probabilities(scores: list[list[float]], are: bool) -> None:
    assert are_probabilities(torch.tensor(scores)) is are


# ---------------------------------------------------------------- memory


def test_batches_go_by_the_size_of_an_input() -> None:
    sizes = {
        shape: batch_for(torch.empty(0, *shape)) for shape in ((1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 224, 224))
    }
    assert sizes == {(1, 28, 28): 1000, (3, 32, 32): 1000, (3, 64, 64): 250, (3, 224, 224): 20}
    assert batch_for(torch.empty(2, 10**9, device="meta")) == 1


class Hungry(nn.Module):
    """Fails on more than so many inputs as torch does on a CPU whose memory is used up."""

    def __init__(
        self, most: int, words: str = "DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    ) -> None:
        super().__init__()
        self.most, self.words, self.seen = most, words, []  # type: ignore[var-annotated]

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append(len(inputs))
        if len(inputs) > self.most:
            raise RuntimeError(self.words)
        return inputs.flatten(1)[:, :CLASSES]


def test_where_memory_runs_out_batches_are_halved(cpu: Runtime) -> None:
    model = Hungry(3)
    assert torch.equal(predict(model, images(10), runtime=cpu), images(10).flatten(1)[:, :CLASSES])
    assert model.seen == [10, 5, 3, 3, 3, 1]
    suspect = Suspect.from_module(Hungry(7), classes=CLASSES, runtime=cpu)
    assert verify(suspect, key_of()).outcome != "INVALID"


def test_memory_is_to_blame_and_not_the_suspect(cpu: Runtime) -> None:
    with pytest.raises(MemoryError, match="one input of shape"):
        predict(Hungry(0), images(), runtime=cpu)
    for suspect in (
        Suspect.from_module(Hungry(0), classes=CLASSES, runtime=cpu),
        Suspect.from_callable(Hungry(0), classes=CLASSES),
    ):
        with pytest.raises(MemoryError):
            suspect.labels(images())
        assert verify(suspect, key_of()).flags == ("out-of-memory",)
    assert verify(Suspect.from_callable(Hungry(7), classes=CLASSES), key_of()).outcome != "INVALID"
    # What is no shortage of memory is the suspect's failing.
    with pytest.raises(ModelFault, match="size mismatch"):
        BlackBox(Hungry(0, "size mismatch"), classes=CLASSES, runtime=cpu).query(images())
    assert not out_of_memory(ValueError("out of memory"))


def test_a_file_is_read_with_no_more_memory_than_it_takes(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"abc")
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, before[1]))
    try:
        assert read_bytes(tmp_path / "small", max_bytes=2**33) == b"abc"
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


# ---------------------------------------------------------------- modules without modes


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_frozen_and_exported_modules_are_judged(cpu: Runtime) -> None:
    net = Viewing().eval()
    wanted = predict(net, images(), runtime=cpu).argmax(1)
    batch = torch.export.Dim("batch", min=1, max=4096)
    made = {
        "traced": torch.jit.trace(net, images()),
        "frozen": torch.jit.freeze(torch.jit.trace(net, images())),
        "exported": torch.export.export(net, (images(),), dynamic_shapes=({0: batch},)).module(),
    }
    for name, module in made.items():
        suspect = Suspect.from_module(module, classes=CLASSES, runtime=cpu)
        assert torch.equal(suspect.labels(images()), wanted), name
        assert verify(suspect, key_of()).outcome != "INVALID", name
        assert torch.equal(predict(module, images(), runtime=cpu).argmax(1), wanted), name
    fixed = torch.export.export(net, (images(2),)).module()
    verdict = verify(Suspect.from_module(fixed, classes=CLASSES, runtime=cpu), key_of())
    assert verdict.outcome == "INVALID"
    assert "wrap it in a function" in verdict.reason


# ---------------------------------------------------------------- before hours are spent


def vanilla(**options: Any) -> Vanilla:
    values: dict[str, Any] = {"model": viewing, "trigger": PATCH, "pretraining": RECIPE, "triggers": 20, "key_size": 20}
    return Vanilla(**values | options)


def no_class(task: Task, label: int, *roles: str) -> Task:
    """A task without images of one class in some splits."""
    splits: dict[str, Any] = {role: task.splits[role].subset(task.splits[role].labels != label) for role in roles}
    return dataclasses.replace(task, **splits)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (vanilla(model=two_outputs), r"two_outputs fails in train mode: .*tuple instead of a tensor"),
        (vanilla(model=detached), r"detached gives no gradient"),
        (
            T2S(model=checkpointed, trigger=PATCH, pretraining=RECIPE),
            r"checkpointed cannot be differentiated.*build it without",
        ),
        (
            T2S(model=one_normed, trigger=PATCH, pretraining=RECIPE, rehearsal=Rehearsal(memory=Memory(micro_batch=1))),
            r"T2S cannot work with this model.*more than 1 value per channel",
        ),
        (vanilla(model=featureless, trigger=Tiles()), r"set trigger\.sources and trigger\.target"),
        (vanilla(key_size=2 * 10**9), r"would take .* GiB.*lower key_size"),
        (vanilla(key_size=19), "20 or more"),
        (FeatureSharing(model=viewing, frozen=9, pretraining=RECIPE), "leaves nothing to tune"),
    ],
)
def test_models_that_would_fail_later_are_refused_at_once(
    method: Any, words: str, tiny_task: Task, cpu: Runtime, unchanged_globals: Any
) -> None:
    with unchanged_globals(), pytest.raises(BadConfig, match=words):
        preflight(method, tiny_task, seed=0, runtime=cpu)


def test_data_that_would_fail_later_are_refused_at_once(
    tiny_task: Task, tiny_task_of: Callable[..., Task], cpu: Runtime
) -> None:
    def refused(method: Any, task: Task, words: str, kind: type[HeirmarkError] = BadData, seed: int = 0) -> None:
        with pytest.raises(kind, match=words):
            preflight(method, task, seed=seed, runtime=cpu)

    tiles = vanilla(trigger=Tiles(samples=8))
    refused(tiles, tiny_task_of(classes=2, train=200, test=40), "more than 4 classes", BadConfig)
    refused(
        vanilla(model="naivenet:width=2,hidden=4", trigger=tiles.trigger),
        tiny_task_of(side=17),
        "even sides",
        HeirmarkError,
    )
    refused(tiles, no_class(tiny_task, 3, "owner"), "class 3 has no image in the owner's split", BadConfig)
    with pytest.warns(HeirmarkWarning, match="calibration split has no image of class 3"):  # it may be no source
        preflight(vanilla(trigger=Tiles(samples=8)), no_class(tiny_task, 3, "calibration"), seed=0, runtime=cpu)
    preflight(vanilla(trigger=Tiles(samples=8, target=3)), no_class(tiny_task, 3, "calibration"), seed=0, runtime=cpu)
    refused(vanilla(trigger=Patch(source=2, target=0)), no_class(tiny_task, 2, "calibration"), "no image of class 2")
    few = dataclasses.replace(tiny_task, calibration=tiny_task.calibration.subset(torch.arange(60)))
    refused(vanilla(), few, "gives only 12 triggers.*more images of the source classes")


def test_checkpointing_is_no_obstacle_to_methods_that_only_train(tiny_task: Task, cpu: Runtime) -> None:
    preflight(vanilla(model=checkpointed), tiny_task, seed=0, runtime=cpu)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_tried_small(name: str, tiny_task: Task) -> None:
    for method in (METHODS[name](), QUICK.method(name)):
        tried = small(method)
        assert type(tried) is METHODS[name]
        assert (tried.key_size, tried.pretraining.epochs) == (SMALL["key_size"], 1)
    for watermark in (None, METHODS["ewe"](), METHODS["deeptracer"](), METHODS["mea-defender"]()):
        for trigger in (PATCH, Tiles()):
            assert small(T2S(trigger=trigger, watermark=watermark)).trigger == small(trigger)
    task = small_task(tiny_task)
    assert task.classes == tiny_task.classes
    assert task.owner.labels.bincount().tolist() == [10] * 6


def test_what_only_few_examples_cause_is_no_obstacle(
    tiny_task: Task, cpu: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Vanilla, *given: Any, **options: Any) -> Any:
        raise BadData("too few")

    monkeypatch.setattr(Vanilla, "embed", fails)
    preflight(vanilla(), tiny_task, seed=0, runtime=cpu)


def test_a_class_that_a_calibrator_would_draw_may_be_empty(tiny_task: Task, cpu: Runtime, tmp_path: Path) -> None:
    """As of a key that nobody asks for; a method that draws it for its own key is told at once."""
    stamp = TextStamp()
    drawn = [settle(stamp, tiny_task, nn.Flatten(), seed=seed, runtime=cpu).describe()["source"] for seed in range(40)]
    seed = drawn.index(3)
    task = no_class(tiny_task, 3, "owner", "calibration")
    with pytest.raises(BadData, match="no image of class 3"):
        Unmarked(model=viewing, pretraining=RECIPE, trigger=stamp, key_size=20)(task, seed=seed, runtime=cpu)
    with pytest.raises(BadData, match="no image of class 3"):
        preflight(Content(model=viewing, pretraining=RECIPE, trigger=stamp), task, seed=seed, runtime=cpu)
    context = Context(task=task, runtime=cpu, factories=(viewing,))
    stage = train_stage(Unmarked(model=viewing, pretraining=RECIPE, trigger=stamp), context, seed=seed)
    assert stage.identity == train_stage(Unmarked(model=viewing, pretraining=RECIPE), context, seed=seed).identity
    assert (Store(tmp_path).get(stage, context).folder / "model.safetensors").is_file()
