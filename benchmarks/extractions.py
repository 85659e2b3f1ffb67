"""Every extraction attack on a clean victim, over seeds, beside what papers print: does the thief steal as well as theirs?

    python benchmarks/extractions.py --out results/extractions.json
    python benchmarks/extractions.py --data fashion-mini --seeds 0 --only jbda

Full Fashion-MNIST and the NaiveNet of DeepTracer, whose Table 2 has the accuracies that JBDA, Knockoff and DFME reach on that net
and data with soft and with hard labels, for ten victims with different marks: the range is given. Knockoff asks about fresh
images of the victim's distribution and about CIFAR-10 in grey. JBDA starts from its paper's 150 images (9,600 queries) and from
1,000 (8,000 queries). The copy has the victim's architecture. Agreement is the share of test images on which copy and victim say
the same. Finished stages are kept under --store.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from heirmark.attacks import DFME, JBDA, MAZE, ActiveThief, Distillation, KnockoffAdaptive
from heirmark.console import Bars
from heirmark.data import load_task
from heirmark.files import atomic_write_json
from heirmark.loading import load_pool
from heirmark.models.storage import load_model
from heirmark.profiles import STUDY, Profile
from heirmark.querying.asking import predict
from heirmark.querying.blackbox import Api
from heirmark.runtime import derive_seed
from heirmark.stages.stage import Stage
from heirmark.stages.store import Store
from heirmark.work.answering import ADVERSARY
from heirmark.work.context import Context, exact
from heirmark.work.embedding import embed_stage
from heirmark.work.stealing import Theft, steal_stage
from provenance import provenance

POOL = "cifar10"
PRINTED: dict[tuple[str, str], tuple[float, float]] = {
    ("jbda", "soft"): (80.75, 87.49),
    ("jbda", "label"): (80.69, 84.27),
    (f"knockoff with {POOL}", "soft"): (48.65, 87.16),
    (f"knockoff with {POOL}", "label"): (38.41, 64.57),
    ("jbda of 1,000 seeds", "soft"): (80.75, 87.49),
    ("jbda of 1,000 seeds", "label"): (80.69, 84.27),
    ("dfme", "soft"): (18.31, 70.03),
    ("dfme", "label"): (25.25, 69.92),
}
"""Lowest and highest ACC in percent of DeepTracer's Table 2, Fashion-MNIST; Knockoff's queries and JBDA's seeds are not named."""


def thieves(profile: Profile, model: str) -> dict[str, tuple[Any, str]]:
    """Attacks and what they ask about, with trainings as long as the study's others."""
    recipe = profile.recipe
    return {
        "knockoff": (replace(profile.knockoff(), model=model), ADVERSARY),
        f"knockoff with {POOL}": (replace(profile.knockoff(), model=model, queries=27_000), POOL),
        f"adaptive knockoff with {POOL}": (KnockoffAdaptive(model=model, recipe=recipe, queries=20_000), POOL),
        "adaptive knockoff": (KnockoffAdaptive(model=model, recipe=recipe), ADVERSARY),
        "distillation": (Distillation(model=model, recipe=recipe), ADVERSARY),
        "active-thief": (
            ActiveThief(model=model, recipe=replace(recipe, epochs=12), queries=10_000, rounds=4),
            ADVERSARY,
        ),
        "jbda": (JBDA(model=model), ADVERSARY),
        "jbda of 1,000 seeds": (JBDA(model=model, seeds=1000, rounds=3), ADVERSARY),
        "dfme": (DFME(model=model, queries=2_000_000, learning_rate=0.03, width=32), ADVERSARY),
        "maze": (MAZE(model=model, queries=2_000_000, generator_rate=1e-3, width=32), ADVERSARY),
    }


def main() -> None:
    """Run, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=STUDY.data)
    parser.add_argument("--model", default=STUDY.model)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--store", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    profile = replace(STUDY, data=options.data, model=options.model)
    chosen = {
        name: found
        for name, found in thieves(profile, options.model).items()
        if not options.only or name in options.only
    }
    if not chosen:
        parser.error(f"no such attack: choose of {', '.join(thieves(profile, options.model))}")
    store, rows = Store(options.store), list[dict[str, Any]]()
    with Bars() as bars:
        runtime = bars.runtime("auto", "auto")
        for seed in options.seeds:
            task = load_task(options.data, seed=seed, root=options.data_root)
            asked = {pool for _, pool in chosen.values()} - {ADVERSARY}
            pools = {pool: load_pool(pool, task, root=options.data_root) for pool in asked}
            context = Context(task=task, runtime=runtime, pools=pools)
            victim = embed_stage(profile.unmarked(), context, seed=seed, kind="train")
            for name, (attack, pool) in chosen.items():
                for answers, short in (("probabilities", "soft"), ("label", "label")):
                    theft = Theft(attack=attack, api=Api(answers=answers), pool=pool)  # type: ignore[arg-type]
                    stage = steal_stage(theft, victim, context, seed=derive_seed(seed, "thief"))
                    rows.append(
                        {"attack": name, "answers": short, "seed": seed, **measured(stage, victim, store, context)}
                    )
                    bars.console.print(json.dumps(rows[-1]), highlight=False, markup=False, soft_wrap=True)
    result = {
        **provenance(runtime),
        "data": options.data,
        "model": options.model,
        "printed": {f"{attack}, {answers}": bounds for (attack, answers), bounds in PRINTED.items()},
        "summary": summarise(rows),
        "rows": rows,
    }
    if options.out:
        atomic_write_json(options.out, result)
    print(as_markdown(result["summary"]))


def measured(stage: Stage, victim: Stage, store: Store, context: Context) -> dict[str, Any]:
    """What a theft is worth, and what it cost."""
    artifact = store.get(stage, context)
    test, runtime = context.task.test, exact(context.runtime)
    copy, original = (
        predict(load_model(store.get(made, context).folder).model, test.inputs, runtime=runtime).argmax(1)
        for made in (stage, victim)
    )
    return {
        "queries": artifact.summary["queries"],
        "accuracy": float((copy == test.labels).double().mean()),
        "victim_accuracy": float((original == test.labels).double().mean()),
        "agreement": float((copy == original).double().mean()),
    }


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean, spread and worst over seeds."""
    summary = []
    for attack, answers in dict.fromkeys((row["attack"], row["answers"]) for row in rows):
        members = [row for row in rows if (row["attack"], row["answers"]) == (attack, answers)]
        accuracies = [row["accuracy"] for row in members]
        bounds = PRINTED.get((attack, answers))
        summary.append(
            {
                "attack": attack,
                "answers": answers,
                "seeds": len(members),
                "queries": members[0]["queries"],
                "accuracy_mean": round(statistics.mean(accuracies), 4),
                "accuracy_spread": round(statistics.stdev(accuracies), 4) if len(members) > 1 else None,
                "accuracy_worst": round(min(accuracies), 4),
                "victim_accuracy_mean": round(statistics.mean(row["victim_accuracy"] for row in members), 4),
                "agreement_mean": round(statistics.mean(row["agreement"] for row in members), 4),
                "printed": bounds,
            }
        )
    return summary


def as_markdown(summary: list[dict[str, Any]]) -> str:
    """The table, in percent."""
    lines = ["| attack | answers | queries | ACC [worst] | agreement | printed ACC |", "|---|---|---|---|---|---|"]
    for row in summary:
        printed = "" if row["printed"] is None else "{:.0f} to {:.0f}".format(*row["printed"])
        lines.append(
            f"| {row['attack']} | {row['answers']} | {row['queries']:,} | {100 * row['accuracy_mean']:.1f} "
            f"[{100 * row['accuracy_worst']:.1f}] | {100 * row['agreement_mean']:.1f} | {printed} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
