"""Seeds, modes and precision: what the runtime promises to leave as it was."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from heirmark.errors import BadConfig
from heirmark.float32 import whole_float32
from heirmark.models import build
from heirmark.querying.asking import evaluating, predict
from heirmark.runtime import Runtime, derive_seed, no_progress, seeded
from heirmark.tasks.storing import decode
from heirmark.tasks.task import Task
from heirmark.training.fitting import Recipe, fit


def net(**options: Any) -> nn.Module:
    return build("naivenet", input_shape=(1, 16, 16), classes=3, width=3, hidden=6, batch_norm=True, **options)


def images(count: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    pixels = torch.randint(256, (count, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return pixels if dtype == torch.uint8 else decode(pixels).to(dtype)


# ---------------------------------------------------------------- Runtime


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "float16"}, "unknown precision 'float16': choose auto, float32 or bfloat16"),
        ({"device": "tpu3000"}, "unknown device 'tpu3000': choose auto, cpu"),
        ({"device": ""}, "unknown device"),
    ],
)
def test_a_runtime_refuses_what_it_does_not_know(options: dict[str, str], words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        Runtime(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_is_refused_where_there_is_none() -> None:
    with pytest.raises(BadConfig, match="no CUDA here: choose cpu or auto"):
        Runtime(device="cuda")
    assert Runtime().torch_device == torch.device("cpu")


UNITS = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")


@pytest.mark.parametrize("there", [set(), {UNITS[0]}, {UNITS[1]}])
def test_auto_is_bfloat16_where_a_cpu_multiplies_it(monkeypatch: pytest.MonkeyPatch, there: set[str]) -> None:
    for unit in UNITS:
        monkeypatch.setattr(torch.cpu, unit, lambda unit=unit: unit in there, raising=False)
    assert Runtime(device="cpu").uses_bfloat16 is bool(there)
    assert Runtime(device="cpu", precision="bfloat16").uses_bfloat16
    assert not Runtime(device="cpu", precision="float32").uses_bfloat16
    for unit in UNITS:
        monkeypatch.delattr(torch.cpu, unit)  # as in releases that cannot tell
    assert not Runtime(device="cpu").uses_bfloat16


def test_progress_takes_no_part_in_equality() -> None:
    assert Runtime(progress=lambda *_: None) == Runtime()
    assert hash(Runtime(progress=lambda *_: None)) == hash(Runtime())
    assert Runtime(precision="float32") != Runtime(precision="bfloat16")
    no_progress("nothing", 1, 2)


@pytest.mark.parametrize(("precision", "lowered"), [("float32", False), ("bfloat16", True)])
def test_precision_decides_about_autocast(precision: str, lowered: bool) -> None:
    runtime = Runtime(device="cpu", precision=precision)
    with runtime.autocast():
        assert torch.is_autocast_enabled("cpu") is lowered
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if lowered else torch.float32)
    assert not torch.is_autocast_enabled("cpu")
    assert runtime.facts() == {"device": "cpu", "precision": precision, "torch": torch.__version__}


def test_a_float32_runtime_does_not_switch_off_the_callers_autocast_elsewhere() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        with Runtime(device="cpu", precision="float32").autocast():
            pass
        assert torch.is_autocast_enabled("cpu")


# ---------------------------------------------------------------- seeds


purposes = st.lists(st.text(max_size=8) | st.integers(0, 99), max_size=4).map(tuple)


@settings(max_examples=50)
@given(st.integers(0, 2**63 - 2), purposes, purposes)
def test_derived_seeds_are_usable_and_depend_on_every_part(seed: int, one: Any, other: Any) -> None:
    derived = derive_seed(seed, *one)
    assert 0 <= derived < 2**63
    torch.Generator().manual_seed(derived)
    assert derived == derive_seed(seed, *one)
    assert derived != derive_seed(seed + 1, *one)
    if [str(part) for part in one] != [str(part) for part in other]:
        assert derived != derive_seed(seed, *other)


def test_parts_of_a_purpose_do_not_run_together() -> None:
    assert len({derive_seed(1, "ab"), derive_seed(1, "a", "b"), derive_seed(1, "b", "a"), derive_seed(11, "b")}) == 4


def test_seeded_draws_afresh_and_puts_the_generator_back(unchanged_globals: Callable[[], Any]) -> None:
    with unchanged_globals():
        with seeded(5):
            first = torch.rand(3)
        with seeded(5):
            assert torch.equal(torch.rand(3), first)
        with contextlib.suppress(ZeroDivisionError), seeded(5):
            raise ZeroDivisionError


# ---------------------------------------------------------------- inputs


def test_bytes_become_shares_of_255_and_the_stored_tensor_stays() -> None:
    stored = torch.arange(256, dtype=torch.uint8)
    before = stored.clone()
    floats = decode(stored)
    assert floats.dtype == torch.float32
    assert torch.equal(floats, torch.tensor([value / 255 for value in range(256)]))
    assert torch.equal(stored, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_floats_keep_their_values(dtype: torch.dtype) -> None:
    stored = torch.tensor([0.0, 0.25, 1.0], dtype=dtype)
    assert decode(stored).dtype == torch.float32
    assert decode(stored).tolist() == [0.0, 0.25, 1.0]


@given(st.binary(min_size=1, max_size=50))
def test_bytes_survive_the_way_to_floats_and_back(raw: bytes) -> None:
    stored = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
    assert torch.equal(decode(stored).mul(255).round().to(torch.uint8), stored)


# ---------------------------------------------------------------- modes and predictions


def modes(model: nn.Module) -> list[bool]:
    return [part.training for part in model.modules()]


def test_evaluating_gives_every_part_its_own_mode_back() -> None:
    model = net().train()
    next(part for part in model.modules() if isinstance(part, nn.BatchNorm2d)).eval()  # frozen statistics, say
    before = modes(model)
    with contextlib.suppress(ZeroDivisionError), evaluating(model) as same:
        assert same is model
        assert not any(modes(model))
        raise ZeroDivisionError
    assert modes(model) == before


def test_predicting_changes_nothing(cpu: Runtime, unchanged_globals: Callable[[], Any]) -> None:
    model, batch = net().train(), images(20)
    state, given_batch, before = (
        {n: t.clone() for n, t in model.state_dict().items()},
        batch.clone(),
        modes(model),
    )
    with unchanged_globals():
        logits = predict(model, batch, runtime=cpu)
    assert logits.shape == (20, 3)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad
    assert modes(model) == before
    assert torch.equal(batch, given_batch)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("size", [1, 7, 20, 1000])
def test_the_batch_size_of_predictions_does_not_matter(size: int, cpu: Runtime) -> None:
    model = net()
    with torch.no_grad():
        wanted = torch.cat([model.eval()(decode(image[None])) for image in images(20)])
    torch.testing.assert_close(predict(model, images(20), runtime=cpu, batch_size=size), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bytes_and_floats_of_one_image_get_one_answer(dtype: torch.dtype, cpu: Runtime) -> None:
    model = net()
    torch.testing.assert_close(
        predict(model, images(5), runtime=cpu), predict(model, images(5, dtype), runtime=cpu), rtol=1e-6, atol=1e-6
    )


def test_predictions_take_inputs_that_are_no_images(cpu: Runtime) -> None:
    assert predict(nn.Linear(4, 2), torch.rand(3, 4), runtime=cpu).shape == (3, 2)


def test_bfloat16_predictions_come_out_as_float32_and_near() -> None:
    model = net()
    exact, coarse = (
        predict(model, images(20), runtime=Runtime(device="cpu", precision=p)) for p in ("float32", "bfloat16")
    )
    assert coarse.dtype == torch.float32
    assert not torch.equal(exact, coarse)
    torch.testing.assert_close(exact, coarse, rtol=0.1, atol=0.1)


# ---------------------------------------------------------------- the compiler


def test_a_compiler_is_a_fact_only_where_there_is_one(cpu: Runtime) -> None:
    model = net()
    assert cpu.compiled(model) is model
    assert "compile" not in cpu.facts()
    compiled = Runtime(device="cpu", precision="float32", compile=True)
    assert compiled != cpu
    assert compiled.facts() == {**cpu.facts(), "compile": "inductor"}


def test_a_compiled_model_trains_as_it_would_without(tiny_task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    # The same path, with a backend that takes graphs as they are: no C++ compiler, and no minute of waiting.
    seen: list[Any] = []

    def backend(model: nn.Module, **options: Any) -> Any:
        seen.append(options)
        return _compile(model, backend="eager", dynamic=False)

    _compile = torch.compile
    monkeypatch.setattr(torch, "compile", backend)
    split, recipe = tiny_task.owner, Recipe(epochs=1, batch_size=32, learning_rate=0.01)
    models = [build("vgg-like", input_shape=(1, 16, 16), classes=6, width=2, hidden=8) for _ in range(2)]
    losses = [
        fit(model, split.inputs, split.labels, recipe=recipe, seed=0, runtime=runtime)
        for model, runtime in zip(
            models, (Runtime(device="cpu", precision="float32", compile=on) for on in (True, False)), strict=True
        )
    ]
    assert len(seen) == 1
    assert seen[0]["options"] == {"fallback_random": True}, "dropout must draw the same masks"
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for one, other in zip(models[0].state_dict().values(), models[1].state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)
    assert type(models[0]) is type(models[1])


def test_a_compiler_that_does_not_work_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(device="cpu", compile=True)
    words = r"torch\.compile does not work for Sequential here \(no tools\): leave compile out"
    original = torch.compile

    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no tools\nand a long tale")

    monkeypatch.setattr(torch, "compile", lambda model, **options: original(model, backend=broken))
    run = runtime.compiled(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(BadConfig, match=words):
        run(torch.rand(1, 2))

    def refuses(model: nn.Module, **options: Any) -> Any:
        raise RuntimeError("no tools")

    monkeypatch.setattr(torch, "compile", refuses)
    with pytest.raises(BadConfig, match=words):
        runtime.compiled(nn.Sequential(nn.Linear(2, 2)))


def test_an_error_of_the_model_stays_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **options: original(model, backend="eager"))
    run = Runtime(device="cpu", compile=True).compiled(nn.Linear(2, 2))
    with pytest.raises(RuntimeError, match=r"same reduction dim|cannot be multiplied"):
        run(torch.rand(1, 3))


def assert_compiled_alike(task: Task, device: str, tolerance: float) -> None:
    recipe = Recipe(epochs=1, batch_size=32, learning_rate=0.01)
    models = [build("vgg-like", input_shape=(1, 16, 16), classes=6, width=2, hidden=8) for _ in range(2)]
    for model, on in zip(models, (True, False), strict=True):
        runtime = Runtime(device=device, precision="float32", compile=on)
        fit(model, task.owner.inputs, task.owner.labels, recipe=recipe, seed=0, runtime=runtime)
    for one, other in zip(models[0].state_dict().values(), models[1].state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_real_compiler_changes_rounding_alone(tiny_task: Task) -> None:
    assert_compiled_alike(tiny_task, "cpu", 1e-4)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_real_compiler_changes_rounding_alone_on_a_gpu(tiny_task: Task) -> None:
    assert_compiled_alike(tiny_task, "cuda", 1e-2)  # TF32


CHOICES_OF_PRECISION = (
    "",
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "torch.backends.fp32_precision = 'tf32'",
    "torch.backends.fp32_precision = 'ieee'",
    "torch.backends.cudnn.fp32_precision = 'tf32'",
    "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
    "torch.set_float32_matmul_precision('medium')",
    "torch.set_float32_matmul_precision('high')",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.backends.cudnn.allow_tf32 = False",
)
IN_EVERY_CHOICE = """
import json, os, sys
import torch
from heirmark.float32 import whole_float32

b = torch.backends
NEW = {
    "all": lambda: b.fp32_precision,
    "cuda": lambda: b.cudnn.fp32_precision,
    "matmul": lambda: b.cuda.matmul.fp32_precision,
    "conv": lambda: b.cudnn.conv.fp32_precision,
    "rnn": lambda: b.cudnn.rnn.fp32_precision,
    "cpu": lambda: b.mkldnn.matmul.fp32_precision,
}
OLD = {
    "products": torch.get_float32_matmul_precision,
    "flag of products": lambda: b.cuda.matmul.allow_tf32,
    "flag of layers": lambda: b.cudnn.allow_tf32,
}

def told(read):
    try:
        return read()
    except RuntimeError:
        return "refused"

def seen():
    return {name: told(read) for name, read in {**NEW, **OLD}.items()}

def states(choice, device):
    exec(choice)
    yield seen()
    if device is not None:
        with whole_float32(torch.device(device)):
            yield seen()
        yield seen()
    b.fp32_precision = "ieee"  # a later choice, for all that has none of its own
    yield b.cuda.matmul.fp32_precision

for choice in json.loads(sys.argv[1]):
    for device in (None, "cpu", "cuda"):
        if os.fork() == 0:  # each starts from what torch starts from, which no setting brings back
            print(json.dumps([choice, *states(choice, device)]), flush=True)
            os._exit(0)
        assert os.wait()[1] == 0, choice
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="older torch has flags alone")
def test_float32_is_whole_on_cuda_and_the_users_choice_comes_back_however_it_was_made() -> None:
    command = [sys.executable, "-W", "ignore", "-c", IN_EVERY_CHOICE, json.dumps(CHOICES_OF_PRECISION)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [choice for choice, *_ in lines[::3]] == list(CHOICES_OF_PRECISION)
    for (choice, before, later), on_cpu, (_, _, inside, *after) in zip(*(lines[k::3] for k in range(3)), strict=True):
        assert on_cpu == [choice, before, before, before, later]
        assert [inside[part] for part in ("matmul", "conv", "rnn")] == ["ieee"] * 3, choice
        for flag in ("products", "flag of products", "flag of layers"):  # models ask, and torch's compiler
            assert before[flag] == "refused" or inside[flag] in ("highest", False), (choice, flag)
        assert after == [before, later], choice


def test_float32_is_whole_where_torch_has_the_old_flags_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As before torch had ``fp32_precision``: the flag of matrix products is another name of their precision."""

    class Products:
        precision = "medium"
        allow_tf32 = property(
            lambda self: self.precision != "highest",
            lambda self, allowed: setattr(self, "precision", "high" if allowed else "highest"),
        )

    products, cudnn, mkldnn = Products(), SimpleNamespace(allow_tf32=True), SimpleNamespace()
    monkeypatch.setattr(torch.backends.cuda, "matmul", products)
    monkeypatch.setattr(torch.backends, "cudnn", cudnn)
    monkeypatch.setattr(torch.backends, "mkldnn", mkldnn)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: products.precision)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda chosen: setattr(products, "precision", chosen))
    with whole_float32(torch.device("cuda")):
        assert (products.precision, cudnn.allow_tf32) == ("highest", False)
    assert (products.precision, cudnn.allow_tf32) == ("medium", True)
    assert not vars(mkldnn)


@pytest.mark.gpu
def test_grey_levels_are_the_same_floats_everywhere() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(decode(levels.cuda()).cpu(), decode(levels))
