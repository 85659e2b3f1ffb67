"""Methods against Knockoff, with the unmarked control beside every cell, over seeds.

    python benchmarks/compare.py methods --seeds 0 1 2 --out results/methods.json
    python benchmarks/compare.py thieves --seeds 0 1 2 --other vgg-like:width=16 --out results/thieves.json
    python benchmarks/compare.py updates --seeds 0 1 2 --out results/updates.json
    python benchmarks/compare.py methods --full --model vgg-like --seeds 0 1 2 --out results/methods-vgg.json

Tables:

- ``methods``: the four papers' methods, their compositions, and joint training, as in DeepTracer's Tables 1-2.
- ``ablations``: the papers' own, with MEA-Defender's WFPR: how often samples that are mixed otherwise hit.
- ``thieves``: T2S against other simulated thieves than the paper's; stolen by another architecture too.
- ``updates``: T2S' own update (eq. 9) against the balanced one and no rehearsal, by trigger.

Every victim is stolen with soft labels and with labels only, on the adversary's split, and so is an unmarked model of
the same training, which is judged with the same key. The models that calibrate are others, and so is the one that
chooses classes and filters keys; of a filtered key the victim hits every trigger by construction. Figures are of
held-out triggers. Finished stages are kept under --store, so an interrupted run resumes. The settings are the demo's,
or with --full those of its full profile, on full Fashion-MNIST.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from heirmark.console import Bars
from heirmark.data import load_task
from heirmark.errors import HeirmarkError
from heirmark.files import atomic_write_json
from heirmark.methods import T2S, AnyMethod, KeyFilter, MEADefender
from heirmark.methods.mea_defender import mix_otherwise
from heirmark.models.storage import load_model
from heirmark.pipeline.context import Context
from heirmark.pipeline.demo_plan import FULL, QUICK, Profile
from heirmark.pipeline.embedding import embed_stage
from heirmark.pipeline.judging import Judgement, calibrate_stage, read_judged, read_key, verify_stage
from heirmark.pipeline.stage import Stage
from heirmark.pipeline.stealing import Theft, steal_stage
from heirmark.pipeline.store import Store
from heirmark.rehearsal import DistillationLoss
from heirmark.runtime import Runtime, derive_seed, predict
from heirmark.triggers import Feature, Mix, Tiles
from heirmark.triggers.mix import MixSecret
from heirmark.tuning import Rehearsal
from provenance import provenance

PAPERS = {
    "mea-defender": "DeepTracer Table 1-2 (Fashion-MNIST): victim 88.86 / 95.01, soft 64.49 / 91.22, label 59.86 / 26.35; "
    "its own Table 1: victim 89.77 / 100, soft 89.57 / 85.50",
    "deeptracer": "Table 1-2 (Fashion-MNIST): victim 91.49 / 100, soft 87.16 / 100, label 64.57 / 100",
    "feature-sharing": "Table 2 (MNIST, patch): victim 98.71 / 99.95, soft 98.25 / 99.72",
}
"""ACC / WSR in the papers, where they have the data set or its like."""


def methods(profile: Profile) -> dict[str, AnyMethod]:
    """The table of methods."""
    t2s, filtered = profile.t2s(), KeyFilter(candidates=4 * profile.key_size, surrogate=None, recipe=profile.recipe)
    return {
        "vanilla": profile.vanilla(),
        "mea-defender": profile.mea_defender(),
        "deeptracer": profile.deeptracer(),
        "deeptracer, no key filter": replace(profile.deeptracer(), key_filter=None),
        "feature-sharing": profile.feature_sharing(),
        "t2s on tiles": t2s,
        "t2s on tiles, key filter": replace(t2s, key_filter=filtered),
        "t2s on mix": replace(t2s, trigger=Mix()),
        "t2s after mea-defender": replace(t2s, trigger=Mix(), watermark=profile.mea_defender()),
        "t2s after deeptracer": replace(t2s, watermark=profile.deeptracer()),
    }


def updates(profile: Profile) -> dict[str, AnyMethod]:
    """The table of updates. Eq. 9 also has smaller weights, with the balanced update's utility step (eta times lambda)."""
    balanced = profile.rehearsal
    paper = Rehearsal(
        epochs=balanced.epochs,
        batch_size=balanced.batch_size,
        trigger_batch=balanced.trigger_batch,
        precision=balanced.precision,
    )
    rehearsals = {
        "eq. 9, lambda 50": paper,
        "eq. 9, lambda 5, eta 4e-3": replace(paper, utility_weight=5.0, learning_rate=4e-3),
        "balanced, rho never shrinks": replace(balanced, enough=0.0),
        "balanced": balanced,
    }
    table: dict[str, AnyMethod] = {}
    for name, trigger in (("tiles", Tiles()), ("mix", Mix()), ("feature", Feature())):
        t2s = replace(profile.t2s(), trigger=trigger)
        table[f"{name}: no rehearsal"] = t2s.vanilla()
        table |= {f"{name}: {update}": replace(t2s, rehearsal=found) for update, found in rehearsals.items()}
    return table


def thieves(profile: Profile) -> dict[str, AnyMethod]:
    """The table of simulated thieves: what rehearsing other thefts than the paper's buys."""
    t2s = profile.t2s()
    one = t2s.rehearsal
    others = tuple(f"naivenet:batch_norm=true,width={width}" for width in (16, 48))
    return {
        "one thief, soft labels (paper)": t2s,
        "label only": replace(t2s, rehearsal=replace(one, loss=DistillationLoss(kind="label"))),
        "soft and label-only in turn": replace(t2s, rehearsal=replace(one, label_thieves=1)),
        "temperature 0.5": replace(t2s, rehearsal=replace(one, loss=DistillationLoss(temperature=0.5))),
        "pool of architectures": replace(t2s, thieves=others),
        "pool, and a label-only thief": replace(t2s, thieves=others, rehearsal=replace(one, label_thieves=1)),
        "three student steps": replace(t2s, rehearsal=replace(one, student_steps=3)),
        "thief from a fresh start every 100 steps": replace(t2s, rehearsal=replace(one, reset_student_every=100)),
    }


def ablations(profile: Profile) -> dict[str, AnyMethod]:
    """The papers' ablations: MEA-Defender's Table 5 and Fig. 2, DeepTracer's Table 4 and Fig. 6, Feature Sharing's Fig. 4."""
    mea, tracer = profile.mea_defender(), replace(profile.deeptracer(), key_filter=None)
    sharing = profile.feature_sharing()
    return {
        "mea-defender": mea,
        "mea-defender, L_com only": replace(mea, without=("verification",)),
        "mea-defender, L_ver only": replace(mea, without=("combination",)),
        "mea-defender, no L_eva": replace(mea, without=("evasion",)),
        "mea-defender, fixed weights": replace(mea, weighting="fixed"),
        "deeptracer, key filter": profile.deeptracer(),
        "deeptracer, no key filter": tracer,
        "deeptracer, L_wm only": replace(tracer, weight_coupling=0.0),
        "deeptracer, L_wm and L_intra": replace(tracer, weight_inter=0.0),
        "deeptracer, L_wm and L_inter": replace(tracer, weight_intra=0.0),
        "feature-sharing, all but the last frozen": sharing,
        **{f"feature-sharing, {count} frozen": replace(sharing, frozen=count) for count in range(3)},
    }


TABLES = {"methods": methods, "updates": updates, "thieves": thieves, "ablations": ablations}
"""Every table, by name."""


def rows(
    table: Mapping[str, AnyMethod],
    profile: Profile,
    seed: int,
    store: Store,
    runtime: Runtime,
    *,
    other: str | None = None,
) -> Iterator[dict[str, Any]]:
    """All rows of one seed; ``other`` is a second architecture that steals."""
    context = Context(task=load_task(profile.data, seed=seed), runtime=runtime)
    unmarked = profile.unmarked()
    chooser = embed_stage(unmarked, context, seed=seed, kind="train")
    control = embed_stage(unmarked, context, seed=derive_seed(seed, "clean"), kind="train")
    others = [
        embed_stage(
            replace(unmarked, pretraining=profile.calibration_recipe),
            context,
            seed=derive_seed(seed, "calibrator", index),
            kind="train",
        )
        for index in range(profile.calibrators)
    ]
    for name, method in table.items():
        try:
            yield from cells(name, method, profile, seed, store, context, chooser, control, others, other)
        except HeirmarkError as error:  # a negative result is a result
            yield {"method": name, "seed": seed, "error": str(error)}


def cells(
    name: str,
    method: AnyMethod,
    profile: Profile,
    seed: int,
    store: Store,
    context: Context,
    chooser: Stage,
    control: Stage,
    others: list[Stage],
    other: str | None,
) -> Iterator[dict[str, Any]]:
    """The rows of one method and seed."""
    start = None
    if isinstance(method, T2S):
        start = embed_stage(method.first_phase(), context, seed=seed, clean=chooser)
    marked = embed_stage(method, context, seed=seed, clean=chooser, watermarked=start)
    calibration = calibrate_stage(marked, others, context)
    suspects = {"victim": marked, "unmarked": control}
    models = {"": profile.model} | ({" by another architecture": other} if other else {})
    for answers, short in (("probabilities", "soft"), ("label", "label")):
        for what, model in models.items():
            theft = Theft(attack=replace(profile.knockoff(), model=model), answers=answers)  # type: ignore[arg-type]
            for owner, victim in (("stolen", marked), ("unmarked, stolen", control)):
                stage = steal_stage(theft, victim, context, seed=derive_seed(seed, "thief"))
                suspects[f"{owner}{what}, {short}"] = stage
    for suspect, stage in suspects.items():
        done = store.get(verify_stage(stage, marked, calibration, context, Judgement()), context)
        judged = read_judged(done.folder)
        yield {
            "method": name,
            "suspect": suspect,
            "seed": seed,
            "accuracy": judged.accuracy,
            "wsr": judged.verdict.wsr,
            "p_value": judged.verdict.p_value,
            "queries": judged.verdict.queries,
            "outcome": judged.verdict.outcome,
            "wfpr": false_positives(store, method, marked, stage, context) if isinstance(method, MEADefender) else None,
        }


def false_positives(store: Store, method: MEADefender, marked: Stage, suspect: Stage, context: Context) -> float:
    """WFPR (MEA-Defender, section 5.1): how often fresh samples of the two classes, mixed otherwise, get the target."""
    assert isinstance(method.trigger, Mix)
    trigger, task = read_key(store.get(marked, context).folder).trigger, context.task
    ready = method.trigger.combiner.prepare(task.owner, seed=0, runtime=context.runtime)
    secret = MixSecret(
        sources=tuple(trigger["sources"]), target=trigger["target"], combiner=method.trigger.combiner, combine=ready
    )
    inputs, _ = mix_otherwise(secret, task.calibration, method.evasion, 1000, seed=0, runtime=context.runtime)
    model, _ = load_model(store.get(suspect, context).folder)
    return float((predict(model, inputs, runtime=context.runtime).argmax(1) == secret.target).double().mean())


def summarise(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean, standard deviation and worst over seeds, by method and suspect."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in (row for row in found if "error" not in row):
        groups.setdefault((row["method"], row["suspect"]), []).append(row)
    summary = []
    for (method, suspect), members in groups.items():
        accuracy, wsr = [row["accuracy"] for row in members], [row["wsr"] for row in members]
        summary.append(
            {
                "method": method,
                "suspect": suspect,
                "seeds": len(members),
                "accuracy_mean": round(statistics.mean(accuracy), 4),
                "accuracy_worst": round(min(accuracy), 4),
                "wsr_mean": round(statistics.mean(wsr), 4),
                "wsr_spread": round(statistics.stdev(wsr), 4) if len(wsr) > 1 else None,
                "wsr_worst": round(max(wsr) if suspect.startswith("unmarked") else min(wsr), 4),
                "marked": sum(row["outcome"] == "MARKED" for row in members),
                "wfpr_mean": None
                if members[0]["wfpr"] is None
                else round(statistics.mean(r["wfpr"] for r in members), 4),
            }
        )
    return summary


def as_markdown(summary: list[dict[str, Any]]) -> str:
    """A row a method: ACC / WSR in percent, mean and in brackets the worst WSR, with the unmarked control's worst WSR."""
    columns = [name for name in dict.fromkeys(row["suspect"] for row in summary) if not name.startswith("unmarked")]
    cells = {(row["method"], row["suspect"]): row for row in summary}
    lines = ["| method | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for method in dict.fromkeys(row["method"] for row in summary):
        told = []
        for column in columns:
            row = cells[method, column]
            control = cells[method, column.replace("stolen", "unmarked, stolen") if "stolen" in column else "unmarked"]
            told.append(
                f"{100 * row['accuracy_mean']:.1f} / {100 * row['wsr_mean']:.1f} [{100 * row['wsr_worst']:.1f}], "
                f"control {100 * control['wsr_worst']:.1f}"
            )
        lines.append(f"| {method} | " + " | ".join(told) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("--only", nargs="+", help="rows of the table, by name")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--full", action="store_true", help="full Fashion-MNIST, longer training")
    parser.add_argument("--model", help="architecture in place of the profile's")
    parser.add_argument("--other", help="a second architecture that steals")
    parser.add_argument("--store", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    profile = FULL if options.full else QUICK
    if options.model:
        profile = replace(profile, model=options.model)
    table = TABLES[options.table](profile)
    if options.only:
        if unknown := set(options.only) - set(table):
            parser.error(f"no row {min(unknown)!r} in the table: choose of {', '.join(table)}")
        table = {name: table[name] for name in options.only}
    found: list[dict[str, Any]] = []
    with Bars() as bars:
        runtime = bars.runtime(options.device, "auto")
        store = Store(options.store)
        for seed in options.seeds:
            for row in rows(table, profile, seed, store, runtime, other=options.other):
                found.append(row)
                bars.console.print(json.dumps(row), highlight=False, markup=False, soft_wrap=True)
    result = {
        **provenance(runtime),
        "data": profile.data,
        "model": profile.model,
        "papers": PAPERS if options.table == "methods" else {},
        "summary": summarise(found),
        "rows": found,
    }
    if options.out:
        atomic_write_json(options.out, result)
    print(as_markdown(result["summary"]))


if __name__ == "__main__":
    main()
