"""How often unmarked models answer images of one foreign class as if they were marked: does the level of a verdict hold?

    python benchmarks/foreign_null.py --unmarked 24 --copies 12 --out results/foreign-null.json

Embedded Fashion-MNIST; NaiveNets of four widths without a mark, and label-only copies of some of them. Each is asked 500 images
of every digit of MNIST. Every digit and every label is one false key; for each, some models calibrate and every other one is
judged, many times over. Told is how often the first test of a verdict (docs/verdicts.md) calls such a model marked at level 1 %,
by the least rate that is granted to unmarked models: chance, 1/C, which serves keys of hosts, and a half.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from heirmark.console import Bars
from heirmark.data import load_images, load_task
from heirmark.files import atomic_write_json
from heirmark.models.storage import load_model
from heirmark.profiles import QUICK
from heirmark.querying.asking import predict
from heirmark.querying.blackbox import Api
from heirmark.runtime import derive_seed
from heirmark.stages.stage import Stage
from heirmark.stages.store import Store
from heirmark.triggers.out_of_distribution import fit_shape
from heirmark.verification.statistics import least_hits, null_rate
from heirmark.work.context import Context, exact
from heirmark.work.embedding import embed_stage
from heirmark.work.stealing import Theft, steal_stage
from provenance import provenance

WIDTHS = (32, 16, 48, 24)
QUERIES = 500
LEVEL = 0.01
CALIBRATORS = (5, 10)


def false_alarms(hits: NDArray[np.int64], least: float, calibrators: int, *, draws: int, seed: int) -> dict[str, Any]:
    """How often an unmarked model is called marked.

    Args:
        hits: ``[models, keys]`` of :data:`QUERIES` queries.
        least: rate that is granted to unmarked models at least.
        calibrators: how many models calibrate, drawn anew each time; all others are judged.
        draws: how many times.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    called, judged, worst = 0, 0, np.zeros(hits.shape[1])
    for _ in range(draws):
        order = generator.permutation(len(hits))
        known, others = hits[order[:calibrators]], hits[order[calibrators:]]
        for key in range(hits.shape[1]):
            wrong = int((others[:, key] >= needed(tuple(sorted(known[:, key].tolist())), least)).sum())
            called, judged = called + wrong, judged + len(others)
            worst[key] += wrong / len(others) / draws
    return {
        "least_rate": round(least, 4),
        "calibrators": calibrators,
        "false_alarms": round(called / judged, 5),
        "worst_key": round(float(worst.max()), 4),
        "keys_above_the_level": round(float((worst > LEVEL).mean()), 4),
    }


@cache
def needed(known: tuple[int, ...], least: float) -> int:
    """The fewest hits that the test rejects after a calibration; more than there are queries where none would do."""
    return least_hits(QUERIES, null_rate(known, QUERIES, least), LEVEL) or QUERIES + 1


def main() -> None:
    """Run, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unmarked", type=int, default=24)
    parser.add_argument("--copies", type=int, default=12, help="how many of them are stolen too")
    parser.add_argument("--foreign", default="mnist")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--store", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if not 0 <= options.copies <= options.unmarked or options.unmarked + options.copies <= max(CALIBRATORS):
        parser.error(f"more than {max(CALIBRATORS)} models are needed, and no more copies than unmarked models")
    with Bars() as bars:
        runtime = bars.runtime("auto", "auto")
        task = load_task(QUICK.data, seed=options.seed)
        context, store = Context(task=task, runtime=runtime), Store(options.store)
        _, foreign, _ = load_images(options.foreign, root=options.data_root)
        keys = {
            label: fit_shape(foreign.inputs[foreign.labels == label][:QUERIES], task.input_shape)
            for label in sorted(set(foreign.labels.tolist()))
        }
        models = list[tuple[str, Stage]]()
        for index in range(options.unmarked):
            net = f"naivenet:batch_norm=true,width={WIDTHS[index % len(WIDTHS)]}"
            settings = replace(QUICK.unmarked(), model=net, pretraining=QUICK.calibration_recipe)
            seed = derive_seed(options.seed, "foreign-null", index)
            models.append((net, embed_stage(settings, context, seed=seed, kind="train")))
        theft = Theft(attack=QUICK.knockoff(), api=Api(answers="label"))
        models += [
            (
                f"copy of {net}",
                steal_stage(theft, stage, context, seed=derive_seed(options.seed, "foreign-null", "thief")),
            )
            for net, stage in models[: options.copies]
        ]
        rows = []
        for net, stage in models:
            model = load_model(store.get(stage, context).folder).model
            rows.append(
                {
                    "model": net,
                    "answers": {
                        str(label): share(predict(model, images, runtime=exact(runtime)).argmax(1), task.num_classes)
                        for label, images in keys.items()
                    },
                }
            )
    hits = np.array([[count for counts in row["answers"].values() for count in counts] for row in rows])
    summary = [
        false_alarms(hits, least, calibrators, draws=options.draws, seed=options.seed)
        for least in (1 / task.num_classes, 0.5)
        for calibrators in CALIBRATORS
    ]
    commonest = hits.reshape(len(rows), len(keys), -1).max(2) / QUERIES
    result = {
        **provenance(runtime),
        "data": QUICK.data,
        "foreign": options.foreign,
        "queries": QUERIES,
        "commonest_answer": {f"quantile {q}": round(float(np.quantile(commonest, q)), 4) for q in (0.1, 0.5, 0.9)},
        "summary": summary,
        "rows": rows,
    }
    if options.out:
        atomic_write_json(options.out, result)
    for line in summary:
        print(line)


def share(answers: Tensor, classes: int) -> list[int]:
    """How often each label is answered, scaled to :data:`QUERIES` where a class has fewer images."""
    counts = answers.bincount(minlength=classes).double()
    return [int(count) for count in (counts * QUERIES / len(answers)).round()]


if __name__ == "__main__":
    main()
