"""How fast a net trains, beside a plain PyTorch loop in the same run, and as a share of what the hardware can do.

    python benchmarks/training.py --out results/training.json
    python benchmarks/training.py --models resnet18 --data-shape 3 32 32 --images 50000 --batch 256 --rounds 3

The rival is the loop of PyTorch's tutorials: a TensorDataset behind a DataLoader, float32, the usual memory layout. heirmark's
own runs in its default precision and in float32. The limit is the rate of a large matrix product in the precision of the run,
measured in the same run; of a step, the multiplications and additions of forward and backward pass are counted (three times
those of the forward pass, less nothing for the first layer). The order changes from round to round; figures are medians.
"""

from __future__ import annotations

import argparse
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

from heirmark.files import atomic_write_json
from heirmark.models import in_channels_last, specify
from heirmark.runtime import Runtime
from heirmark.training import Recipe, fit
from provenance import provenance

MODELS = ("naivenet:batch_norm=true", "vgg-like:width=16", "resnet18:width=16")
SIDE = 2048
"""Of the square matrices whose product tells the limit."""


def plain(model: nn.Module, inputs: Tensor, labels: Tensor, recipe: Recipe, device: torch.device) -> None:
    """One epoch as PyTorch's tutorials have it."""
    model.to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), recipe.learning_rate, momentum=recipe.momentum)
    loader = DataLoader(TensorDataset(inputs.float() / 255, labels), recipe.batch_size, shuffle=True, drop_last=True)
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


def limit(device: torch.device, dtype: torch.dtype, rounds: int) -> float:
    """Floating-point operations a second of a large matrix product."""
    left, right = (torch.randn(SIDE, SIDE, device=device).to(dtype) for _ in range(2))
    left @ right
    times = []
    for _ in range(rounds):
        finish(device)
        clock = time.perf_counter()
        left @ right
        finish(device)
        times.append(time.perf_counter() - clock)
    return 2 * SIDE**3 / min(times)


def work(model: nn.Module, image: Tensor) -> int:
    """Floating-point operations to train on one image."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(image)
    return 3 * int(counter.get_total_flops())


def timed(run: Callable[[], object]) -> float:
    """Seconds."""
    clock = time.perf_counter()
    run()
    return time.perf_counter() - clock


def measure(name: str, shape: tuple[int, ...], images: int, batch: int, rounds: int) -> list[dict[str, Any]]:
    """Rows of one net."""
    default, exact = Runtime(), Runtime(precision="float32")
    device = default.torch_device
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(256, (images, *shape), generator=generator, dtype=torch.uint8)
    labels = torch.randint(10, (images,), generator=generator)
    recipe = Recipe(epochs=1, batch_size=batch, learning_rate=0.01, weight_decay=0.0, schedule="constant")

    def fresh() -> nn.Module:
        return specify(name, input_shape=shape, classes=10).build(seed=0)

    def ours(runtime: Runtime) -> Callable[[], object]:
        model = in_channels_last(fresh())

        def run() -> None:
            fit(model, inputs, labels, recipe=recipe, seed=0, runtime=runtime)
            finish(device)

        return run

    net = fresh()
    runs: dict[str, tuple[Callable[[], object], torch.dtype]] = {
        "heirmark": (ours(default), torch.bfloat16 if default.uses_bfloat16 else torch.float32),
        "heirmark, float32": (ours(exact), torch.float32),
        "plain loop": (lambda: plain(net, inputs, labels, recipe, device), torch.float32),
    }
    for run, _ in runs.values():
        run()
    times: dict[str, list[float]] = {variant: [] for variant in runs}
    for number in range(rounds):
        order = list(runs.items())
        for variant, (run, _) in order[number % len(order) :] + order[: number % len(order)]:
            times[variant].append(timed(run))
    limits = {dtype: limit(device, dtype, rounds) for dtype in {dtype for _, dtype in runs.values()}}
    operations = work(fresh(), torch.rand(1, *shape))
    slowest = statistics.median(times["plain loop"])
    steps = images // batch * batch
    return [
        {
            "model": name,
            "variant": variant,
            "images_per_second": round(steps / statistics.median(times[variant])),
            "times_as_fast_as_plain": round(slowest / statistics.median(times[variant]), 2),
            "share_of_limit": round(operations * steps / statistics.median(times[variant]) / limits[dtype], 3),
        }
        for variant, (_, dtype) in runs.items()
    ]


def main() -> None:
    """Run, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--data-shape", type=int, nargs=3, default=(1, 28, 28))
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for name in options.models:
        found = measure(name, tuple(options.data_shape), options.images, options.batch, options.rounds)
        rows += found
        print(*found, sep="\n", flush=True)
    result = {**provenance(), "data_shape": list(options.data_shape), "batch": options.batch, "rows": rows}
    if options.out:
        atomic_write_json(options.out, result)


if __name__ == "__main__":
    main()
