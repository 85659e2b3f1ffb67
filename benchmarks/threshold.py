"""How often models without the mark answer mixed samples as if they had it: the threshold study of MEA-Defender (app. B).

    python benchmarks/threshold.py --unmarked 40 --marked 6 --out results/threshold.json

The paper takes samples mixed of any two classes for false watermarks, asks of 200 clean and 200 marked models how often each
kind is given one label other than the two, finds that always below 30 %, and takes 30 % for the threshold. Here: embedded
Fashion-MNIST, NaiveNets (of four widths where they are unmarked), every pair of classes, every way to mix but the
autoencoder's, and 200 samples each. The marked models are MEA-Defender's with fixed weights; the pair that they were marked
with is told apart from the others, and so is the WSR of the true watermark.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from heirmark.console import Bars
from heirmark.data import load_task
from heirmark.files import atomic_write_json
from heirmark.methods import MEADefender
from heirmark.methods.mea_defender import WAYS, Way, alike
from heirmark.models.storage import load_model
from heirmark.profiles import QUICK
from heirmark.querying.asking import predict
from heirmark.runtime import Runtime, derive_seed
from heirmark.stages.store import Store
from heirmark.tasks.task import Task
from heirmark.triggers import Mix
from heirmark.triggers.base import draw_groups
from heirmark.work.context import Context, exact
from heirmark.work.embedding import embed_stage
from heirmark.work.judging import read_key
from provenance import provenance

WIDTHS = (32, 16, 48, 24)
MIXED: tuple[Way, ...] = tuple(way for way in WAYS if way != "autoencoder")
SAMPLES = 200
THRESHOLD = 0.3


def false_watermarks(model: nn.Module, task: Task, pair: tuple[int, int], runtime: Runtime) -> dict[Way, float]:
    """For every way to mix two classes, in this order: the rate of the commonest label that is neither of them."""
    images, _ = draw_groups(task.calibration, pair, SAMPLES, torch.Generator().manual_seed(0))
    rates = {}
    for way in MIXED:
        mixed = WAYS[way].prepare(task.owner, seed=0, runtime=runtime)(images[:, 0], images[:, 1])
        counts = predict(model, mixed, runtime=runtime).argmax(1).bincount(minlength=len(task.classes)).double()
        counts[list(pair)] = 0
        rates[way] = float(counts.max()) / SAMPLES
    return rates


def of_pairs(model: nn.Module, task: Task, runtime: Runtime, *, but: set[int] | None = None) -> list[float]:
    """The rates of all pairs of classes but one."""
    pairs = (pair for pair in itertools.combinations(range(len(task.classes)), 2) if set(pair) != but)
    return [rate for pair in pairs for rate in false_watermarks(model, task, pair, runtime).values()]


def told(rates: list[float]) -> dict[str, float | int]:
    """Quantiles of false success rates, and how many lie above the paper's threshold."""
    found = np.array(rates)
    return {
        "false watermarks": len(found),
        **{f"quantile {share}": round(float(np.quantile(found, share)), 4) for share in (0.5, 0.9, 0.99)},
        "largest": round(float(found.max()), 4),
        "share above the threshold": round(float((found >= THRESHOLD).mean()), 4),
    }


def main() -> None:
    """Run, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unmarked", type=int, default=40)
    parser.add_argument("--marked", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    pooled: dict[str, list[float]] = {"unmarked": [], "marked": [], "marked, its own pair": []}
    with Bars() as bars:
        runtime = bars.runtime("auto", "auto")
        measured = exact(runtime)
        task = load_task(QUICK.data, seed=options.seed)
        context, store = Context(task=task, runtime=runtime), Store(options.store)
        chooser = embed_stage(QUICK.unmarked(), context, seed=options.seed, kind="train")
        for index in range(options.unmarked):
            model = f"naivenet:batch_norm=true,width={WIDTHS[index % len(WIDTHS)]}"
            settings = replace(QUICK.unmarked(), model=model, pretraining=QUICK.calibration_recipe)
            stage = embed_stage(settings, context, seed=derive_seed(options.seed, "threshold", index), kind="train")
            net = load_model(store.get(stage, context).folder).model
            rates = of_pairs(net, task, measured)
            pooled["unmarked"] += rates
            rows.append({"model": "unmarked", "net": model, **told(rates)})
        method = MEADefender.quick(QUICK)
        trigger = method.trigger
        assert isinstance(trigger, Mix)
        for index in range(options.marked):
            stage = embed_stage(method, context, seed=derive_seed(options.seed, "marked", index), clean=chooser)
            folder = store.get(stage, context).folder
            net = load_model(folder).model
            key = read_key(folder)
            first, second = key.host_labels[0].tolist()
            own = false_watermarks(net, task, (first, second), measured)
            pooled["marked, its own pair"] += [
                rate for way, rate in own.items() if not alike(WAYS[way], trigger.combiner)
            ]
            rates = of_pairs(net, task, measured, but={first, second})
            pooled["marked"] += rates
            hits = predict(net, key.queries, runtime=measured).argmax(1) == key.expected
            rows.append({"model": "marked", "net": QUICK.model, "wsr": float(hits.double().mean()), **told(rates)})
    result = {
        **provenance(runtime),
        "data": QUICK.data,
        "threshold": THRESHOLD,
        "summary": {name: told(rates) for name, rates in pooled.items() if rates},
        "rows": rows,
    }
    if options.out:
        atomic_write_json(options.out, result)
    for name, summary in result["summary"].items():
        print(name, summary)


if __name__ == "__main__":
    main()
