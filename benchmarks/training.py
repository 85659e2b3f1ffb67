"""How fast a net trains, beside a plain PyTorch loop in the same run, and as a share of what the hardware can do.

    python benchmarks/training.py --out results/training.json
    python benchmarks/training.py --quick
    python benchmarks/training.py --models naivenet:batch_norm=true resnet18 --data-shape 3 32 32 --images 50000 --batch 256

The rival is the loop of PyTorch's tutorials: a TensorDataset behind a DataLoader, float32, the usual memory layout. heirmark's
own keeps images, batches and augmentation on the device, weights and images channels-last, plays a step as one recorded graph
where that is a GPU, and runs

- in its default precision, bfloat16 on GPUs and CPUs that multiply it (AMX, AVX-512 BF16), else float32, and in float32;
- ``compiled`` in the default precision (``Runtime(compile=True)``), on a GPU or with ``--compile``.

Several seeds at once by vmap (rows ``together`` in what was recorded before 2026-11-28, results/training_gpu_seeds.json among it)
train as fast as one by one on a GPU and at a third of the rate on a CPU; recorded graphs then made one by one twice as fast, so
nothing of heirmark's trains seeds together any more.

The limit is the rate of a large matrix product in the precision of the run, measured in the same run; on a GPU float32 means
TF32, in which torch's convolutions run there. A step's work is the multiplications and additions of matrix products and
convolutions, forward and backward, as torch counts them. The order changes from round to round; figures are medians.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from heirmark.errors import BadConfig
from heirmark.files import atomic_write_json
from heirmark.models import specify
from heirmark.runtime import Runtime
from heirmark.training.fitting import Recipe, fit
from provenance import provenance

MODELS = ("naivenet:batch_norm=true", "resnet18:width=16")
QUICK_MODELS = ("naivenet:batch_norm=true,width=8,hidden=32", "resnet18:width=4")
GPU_MODELS = ("naivenet:batch_norm=true", "resnet18")
PLAIN = "plain loop"


def plain(model: nn.Module, inputs: Tensor, labels: Tensor, recipe: Recipe, device: torch.device) -> None:
    """Training as PyTorch's tutorials have it."""
    model.to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), recipe.learning_rate, momentum=recipe.momentum)
    loader = DataLoader(TensorDataset(inputs.float() / 255, labels), recipe.batch_size, shuffle=True, drop_last=True)
    for _ in range(recipe.epochs):
        for images, wanted in loader:
            loss = F.cross_entropy(model(images.to(device)), wanted.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    finish(device)


def finish(device: torch.device) -> None:
    """Wait for what the device still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def limit(device: torch.device, dtype: torch.dtype, rounds: int, side: int | None = None) -> float:
    """Floating-point operations a second of a product of two square matrices.

    Args:
        device: where.
        dtype: of both; float32 is TF32 on a GPU.
        rounds: of which the fastest counts.
        side: of the matrices; the default fills the device.
    """
    on_gpu, before = device.type == "cuda", torch.get_float32_matmul_precision()
    side = side or (8192 if on_gpu else 2048)
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    if on_gpu:
        torch.set_float32_matmul_precision("high")
    try:
        left @ right
        finish(device)
        return 2 * side**3 / min(timed(lambda: (left @ right, finish(device))) for _ in range(rounds + 2))
    finally:
        torch.set_float32_matmul_precision(before)


def work(model: nn.Module, image: Tensor) -> int:
    """Floating-point operations to train on one image ``[1, ...]``; pixels want no gradient."""
    model = copy.deepcopy(model).train()
    with FlopCounterMode(display=False) as counter:
        model(image.expand(2, *image.shape[1:])).sum().backward()  # BatchNorm wants two
    return int(counter.get_total_flops()) // 2


def timed(run: Callable[[], object]) -> float:
    """Seconds."""
    clock = time.perf_counter()
    run()
    return time.perf_counter() - clock


Run = tuple[Callable[[], object], Runtime]
"""What to time, and in which precision it computes."""


def variants(
    name: str, inputs: Tensor, labels: Tensor, recipe: Recipe, *, compiled: bool, device: str
) -> dict[str, Run]:
    """What is compared."""
    default, exact = Runtime(device=device), Runtime(device=device, precision="float32")
    where = default.torch_device

    def fresh() -> nn.Module:
        return specify(name, input_shape=tuple(inputs.shape[1:]), classes=10).build(seed=0)

    def ours(runtime: Runtime) -> Run:
        model = fresh()

        def run() -> None:
            fit(model, inputs, labels, recipe=recipe, seed=0, runtime=runtime)
            finish(where)

        return run, runtime

    net = fresh().to(memory_format=torch.contiguous_format)
    runs: dict[str, Run] = {
        "heirmark": ours(default),
        "heirmark, float32": ours(exact),
        PLAIN: (lambda: plain(net, inputs, labels, recipe, where), exact),
    }
    if compiled:
        runs["heirmark, compiled"] = ours(Runtime(device=device, compile=True))
    return runs


def measure(
    name: str,
    shape: tuple[int, ...],
    images: int,
    batch: int,
    rounds: int,
    *,
    epochs: int = 1,
    compiled: bool = False,
    device: str = "auto",
    side: int | None = None,
) -> list[dict[str, Any]]:
    """Rows of one net; what it cannot do, such as compiling here, is a row with an error."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(256, (images, *shape), generator=generator, dtype=torch.uint8)
    labels = torch.randint(10, (images,), generator=generator)
    recipe = Recipe(epochs=epochs, batch_size=batch, learning_rate=0.01, weight_decay=0.0, schedule="constant")
    runs = variants(name, inputs, labels, recipe, compiled=compiled, device=device)
    firsts: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for variant, (run, _) in list(runs.items()):
        try:
            firsts[variant] = timed(run)
        except BadConfig as error:
            rows.append({"model": name, "variant": variant, "error": str(error)})
            del runs[variant]
    times: dict[str, list[float]] = {variant: [] for variant in runs}
    for number in range(rounds):
        order = list(runs.items())
        start = number % len(order)
        for variant, (run, _) in order[start:] + order[:start]:
            times[variant].append(timed(run))
    kinds = {variant: torch.bfloat16 if of.uses_bfloat16 else torch.float32 for variant, (_, of) in runs.items()}
    where = Runtime(device=device).torch_device
    limits = {dtype: limit(where, dtype, rounds, side) for dtype in set(kinds.values())}
    operations = work(specify(name, input_shape=shape, classes=10).build(seed=0), torch.rand(1, *shape))
    seen = images // batch * batch * epochs
    slowest = seen / statistics.median(times[PLAIN])
    for variant in runs:
        median = statistics.median(times[variant])
        rate = seen / median
        rows.append(
            {
                "model": name,
                "variant": variant,
                "precision": str(kinds[variant]).removeprefix("torch."),
                "images_per_second": round(rate),
                "times_as_fast_as_plain": round(rate / slowest, 2),
                "share_of_limit": round(operations * rate / limits[kinds[variant]], 3),
                "limit_teraflops": round(limits[kinds[variant]] / 1e12, 3),
                "operations_per_image": operations,
                "first_run_seconds_more": round(firsts[variant] - median, 2),
            }
        )
    return rows


def main() -> None:
    """Run, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--data-shape", type=int, nargs=3)
    parser.add_argument("--images", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="default: on a GPU alone")
    parser.add_argument("--quick", action="store_true", help="tiny nets and few images: whether it runs, in seconds")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    runtime = Runtime(device=options.device)
    on_gpu = runtime.torch_device.type == "cuda"
    if options.quick:
        usual: dict[str, Any] = {
            "models": QUICK_MODELS,
            "data_shape": (1, 28, 28),
            "images": 160,
            "batch": 32,
            "rounds": 2,
        }
    elif on_gpu:
        usual = {"models": GPU_MODELS, "data_shape": (3, 32, 32), "images": 50000, "batch": 256, "rounds": 3}
    else:
        usual = {"models": MODELS, "data_shape": (1, 28, 28), "images": 4096, "batch": 128, "rounds": 5}
    usual |= {"epochs": 2 if on_gpu and not options.quick else 1, "compile": on_gpu and not options.quick}
    chosen = {
        name: value if getattr(options, name) is None else getattr(options, name) for name, value in usual.items()
    }
    shape = tuple(chosen["data_shape"])
    rows = []
    for name in chosen["models"]:
        found = measure(
            name,
            shape,
            chosen["images"],
            chosen["batch"],
            chosen["rounds"],
            epochs=chosen["epochs"],
            compiled=chosen["compile"],
            device=options.device,
            side=512 if options.quick else None,
        )
        rows += found
        print(*found, sep="\n", flush=True)
    told = {name: chosen[name] for name in ("images", "batch", "epochs", "rounds")}
    result = {**provenance(runtime), "data_shape": list(shape), **told, "rows": rows}
    if options.out:
        atomic_write_json(options.out, result)


if __name__ == "__main__":
    main()
