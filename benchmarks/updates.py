"""T2S' own update (eq. 9) against the balanced one and no rehearsal, by trigger, over seeds.

    python benchmarks/updates.py --seeds 0 1 2 --out results/updates.json

Every victim is stolen by Knockoff with soft labels and with labels only, on the adversary's split; so is the unmarked model
of the same training, judged with the same key. The figures are those of held-out triggers. Finished stages are kept under
--store, so an interrupted run resumes. The settings are those of the demo. Eq. 9 is run with the paper's weight for CIFAR-10
and with two smaller ones, whose utility step (the product of eta and lambda) is the balanced update's learning rate.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from heirmark.console import Bars
from heirmark.data import load_task
from heirmark.files import atomic_write_json
from heirmark.pipeline.context import Context
from heirmark.pipeline.demo import QUICK
from heirmark.pipeline.embedding import embed_stage
from heirmark.pipeline.judging import Judgement, calibrate_stage, read_judged, verify_stage
from heirmark.pipeline.stealing import Theft, steal_stage
from heirmark.pipeline.store import Store
from heirmark.runtime import Runtime, derive_seed
from heirmark.triggers import Feature, Mix, Tiles
from heirmark.tuning import Rehearsal
from provenance import provenance

TRIGGERS = {"tiles": Tiles(), "mix": Mix(), "feature": Feature()}
BALANCED = QUICK.rehearsal
EQ9 = Rehearsal(epochs=BALANCED.epochs, batch_size=BALANCED.batch_size, trigger_batch=BALANCED.trigger_batch)
UPDATES: dict[str, Rehearsal | None] = {
    "none (vanilla)": None,
    "eq. 9, lambda 50": EQ9,
    "eq. 9, lambda 5, eta 4e-3": replace(EQ9, utility_weight=5.0, learning_rate=4e-3),
    "eq. 9, lambda 2, eta 1e-2": replace(EQ9, utility_weight=2.0, learning_rate=1e-2),
    "balanced": BALANCED,
}


def rows(seed: int, store: Store, runtime: Runtime, triggers: list[str]) -> Iterator[dict[str, Any]]:
    """All rows of one seed."""
    context = Context(task=load_task(QUICK.data, seed=seed), runtime=runtime)
    for name in triggers:
        trigger = TRIGGERS[name]
        unmarked = replace(QUICK.unmarked(), trigger=trigger)
        clean = embed_stage(unmarked, context, seed=seed, kind="train")
        others = [
            embed_stage(
                replace(unmarked, pretraining=QUICK.calibration_recipe),
                context,
                seed=derive_seed(seed, "calibrator", index),
                kind="train",
            )
            for index in range(QUICK.calibrators)
        ]
        vanilla = embed_stage(replace(QUICK.vanilla(), trigger=trigger), context, seed=seed, clean=clean)
        for update, rehearsal in UPDATES.items():
            marked = vanilla
            if rehearsal is not None:
                method = replace(QUICK.t2s(), trigger=trigger, rehearsal=rehearsal)
                marked = embed_stage(method, context, seed=seed, clean=clean, watermarked=vanilla)
            calibration = calibrate_stage(marked, others, context)
            suspects = {"victim": marked, "unmarked": clean}
            for answers in ("probabilities", "label"):
                theft = Theft(attack=QUICK.knockoff(), answers=answers)
                for owner, victim in (("stolen", marked), ("unmarked, stolen", clean)):
                    suspects[f"{owner}, {answers}"] = steal_stage(
                        theft, victim, context, seed=derive_seed(seed, "thief")
                    )
            for suspect, stage in suspects.items():
                judged = read_judged(
                    store.get(verify_stage(stage, marked, calibration, context, Judgement()), context).folder
                )
                yield {
                    "trigger": name,
                    "update": update,
                    "suspect": suspect,
                    "seed": seed,
                    "accuracy": judged.accuracy,
                    "wsr": judged.verdict.wsr,
                    "p_value": judged.verdict.p_value,
                    "outcome": judged.verdict.outcome,
                }


def summarise(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean, standard deviation and worst over seeds, by trigger, update and suspect."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in found:
        groups.setdefault((row["trigger"], row["update"], row["suspect"]), []).append(row)
    summary = []
    for (trigger, update, suspect), members in groups.items():
        accuracy = torch.tensor([row["accuracy"] for row in members], dtype=torch.float64)
        wsr = torch.tensor([row["wsr"] for row in members], dtype=torch.float64)
        innocent = suspect.startswith("unmarked")
        summary.append(
            {
                "trigger": trigger,
                "update": update,
                "suspect": suspect,
                "seeds": len(members),
                "accuracy_mean": round(float(accuracy.mean()), 4),
                "accuracy_worst": round(float(accuracy.min()), 4),
                "wsr_mean": round(float(wsr.mean()), 4),
                "wsr_spread": round(float(wsr.std(correction=1)), 4) if len(members) > 1 else None,
                "wsr_worst": round(float(wsr.max() if innocent else wsr.min()), 4),
                "marked": sum(row["outcome"] == "MARKED" for row in members),
            }
        )
    return summary


def main() -> None:
    """Run, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--triggers", nargs="+", choices=list(TRIGGERS), default=list(TRIGGERS))
    parser.add_argument("--store", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    with Bars() as bars:
        runtime = bars.runtime(options.device, "auto")
        store = Store(options.store)
        for seed in options.seeds:
            for row in rows(seed, store, runtime, options.triggers):
                found.append(row)
                bars.console.print(json.dumps(row), highlight=False, markup=False, soft_wrap=True)
    result = {
        **provenance(runtime),
        "data": QUICK.data,
        "model": QUICK.model,
        "summary": summarise(found),
        "rows": found,
    }
    if options.out:
        atomic_write_json(options.out, result)
    print(json.dumps(result["summary"], indent=2))


if __name__ == "__main__":
    main()
