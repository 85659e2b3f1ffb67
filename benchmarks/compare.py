"""Methods against Knockoff, with the unmarked control beside every cell, over seeds.

    python benchmarks/compare.py methods --full --pool cifar10 --seeds 0 1 2 --out results/methods.json
    python benchmarks/compare.py methods --full --pool cifar10 --model vgg-like --out results/methods-vgg.json
    python benchmarks/compare.py thieves --full --foreign cifar10 --other vgg-like:width=16 --out results/thieves.json

Tables (benchmarks/tables.py):

- ``methods``: the four papers' methods and joint training, as in DeepTracer's Tables 1-2.
- ``compositions``: rehearsal with the others' triggers, objectives and key filter.
- ``ablations``: the papers' own, with MEA-Defender's WFPR: how often samples that are mixed otherwise hit.
- ``thieves``: T2S against other simulated thieves than the paper's; stolen by another architecture too.
- ``updates``: T2S' own update (eq. 9) against the balanced one and no rehearsal, by trigger.

Every victim is stolen with soft labels and with labels only, on the adversary's split and, with --pool, on the images of another
data set (``owner`` is the owner's own, as some papers query); and so is an unmarked model of the same net, which is judged with
the same key. The models that calibrate are others, and so is the one that chooses classes and filters keys; of a filtered
key the victim hits every trigger by construction, and copies hit more than of one that is not. Figures are of held-out
triggers. Finished stages are kept under --store, so an interrupted run resumes, and two processes with different --seeds
may share one. The settings are the demo's, or with --full those of a study on full Fashion-MNIST.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from heirmark.asking import predict
from heirmark.bench.grid import asks_foreign
from heirmark.console import Bars
from heirmark.data import load_images, load_task
from heirmark.errors import BadData, HeirmarkError
from heirmark.files import atomic_write_json
from heirmark.methods import T2S, AnyMethod, MEADefender
from heirmark.methods.mea_defender import mix_otherwise
from heirmark.models.storage import load_model
from heirmark.pipeline.answering import ADVERSARY
from heirmark.pipeline.context import Context, exact
from heirmark.pipeline.embedding import embed_stage
from heirmark.pipeline.judging import Judgement, calibrate_stage, read_judged, read_key, verify_stage
from heirmark.pipeline.loading import check_architecture, load_pool, named_architecture
from heirmark.pipeline.profiles import QUICK, Profile
from heirmark.pipeline.stage import Stage
from heirmark.pipeline.stealing import Theft, steal_stage
from heirmark.pipeline.store import Store
from heirmark.runtime import derive_seed
from heirmark.task import Split
from heirmark.triggers import Mix
from provenance import provenance
from summary import figures, grouped
from tables import PAPERS, STUDY, TABLES

QUERIES = 5000
"""Of which :meth:`Bench.says_target` speaks."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One seed of a table.

    Attributes:
        profile: settings.
        context: data, pools and hardware.
        store: where finished stages are kept.
        seed: of everything random.
        other: a second architecture that steals.
        foreign: images of another data set that the owner has, for methods that take such; none of them is in a pool.
    """

    profile: Profile
    context: Context
    store: Store
    seed: int
    other: str | None = None
    foreign: Split | None = None
    chooser: Stage = field(init=False)
    control: Stage = field(init=False)
    calibrators: tuple[Stage, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "chooser", self._unmarked(self.seed))
        object.__setattr__(self, "control", self._unmarked(derive_seed(self.seed, "clean")))
        object.__setattr__(self, "calibrators", tuple(self._calibrators()))

    def rows(self, table: Mapping[str, AnyMethod]) -> Iterator[dict[str, Any]]:
        """All rows; a method that fails is one with its error."""
        for name, method in table.items():
            try:
                for suspect, row in self.judge(method):
                    yield {"method": name, "suspect": suspect, "seed": self.seed, **row}
            except BadData as error:  # a training that diverged, a mark that left no key: a negative result is a result
                yield {"method": name, "seed": self.seed, "error": str(error)}

    def judge(self, method: AnyMethod) -> Iterator[tuple[str, dict[str, Any]]]:
        """Victim, control and all their copies, judged with the method's key."""
        context, owners = self.context, self._owners(method)
        start = None
        if isinstance(method, T2S):
            first = method.first_phase()
            start = embed_stage(first, self._owners(first), seed=self.seed, clean=self.chooser)
        marked = embed_stage(method, owners, seed=self.seed, clean=self.chooser, watermarked=start)
        self.store.get(marked, owners)  # of what it builds on, nothing looks at foreign images
        calibration = calibrate_stage(marked, self.calibrators, context)
        suspects = {"victim": marked, "unmarked": self.control, **self.copies(marked)}
        for suspect, stage in suspects.items():
            judged = read_judged(
                self.store.get(verify_stage(stage, marked, calibration, context, Judgement()), context).folder
            )
            yield (
                suspect,
                {
                    "accuracy": judged.accuracy,
                    "wsr": judged.verdict.wsr,
                    "p_value": judged.verdict.p_value,
                    "queries": judged.verdict.queries,
                    "outcome": judged.verdict.outcome,
                    "wfpr": self.false_positives(method, marked, stage) if isinstance(method, MEADefender) else None,
                    "says_target": self.says_target(marked, stage) if suspect in ("victim", "unmarked") else None,
                },
            )

    def copies(self, marked: Stage) -> dict[str, Stage]:
        """Every theft of the marked model, and the same of the control."""
        return {
            f"{owner}{how}, {short}": self._theft(victim, derive_seed(self.seed, "thief"), answers, model, pool)
            for how, model, pool in self._thieves()
            for answers, short in (("probabilities", "soft"), ("label", "label"))
            for owner, victim in (("stolen", marked), ("unmarked, stolen", self.control))
        }

    def says_target(self, marked: Stage, victim: Stage) -> dict[str, float] | None:
        """How often a victim answers a thief's queries with the key's target, by pool: what there is to learn the mark from."""
        target = read_key(self.store.get(marked, self.context).folder).trigger.get("target")
        if not isinstance(target, int):
            return None
        model, _ = load_model(self.store.get(victim, self.context).folder)
        pools = {ADVERSARY: self.context.task.adversary, **self.context.pools}
        return {
            name: float(
                (predict(model, pool.inputs[:QUERIES], runtime=exact(self.context.runtime)).argmax(1) == target)
                .double()
                .mean()
            )
            for name, pool in pools.items()
        }

    def false_positives(self, method: MEADefender, marked: Stage, suspect: Stage) -> float:
        """WFPR (MEA-Defender, section 5.1): how often fresh samples of the two classes, mixed otherwise, get the target."""
        assert isinstance(method.trigger, Mix)
        trigger, task = read_key(self.store.get(marked, self.context).folder).trigger, self.context.task
        runtime = exact(self.context.runtime)
        sources, combiner = tuple(trigger["sources"]), method.trigger.combiner
        inputs, _ = mix_otherwise(sources, combiner, task.calibration, method.evasion, 1000, seed=0, runtime=runtime)
        model, _ = load_model(self.store.get(suspect, self.context).folder)
        return float((predict(model, inputs, runtime=runtime).argmax(1) == trigger["target"]).double().mean())

    def _owners(self, method: AnyMethod) -> Context:
        """With foreign images for a method that takes such; the identity of others' stages need not depend on them."""
        if not asks_foreign(method):
            return self.context
        return replace(self.context, task=replace(self.context.task, foreign=self.foreign))

    def _unmarked(self, seed: int) -> Stage:
        return embed_stage(self.profile.unmarked(), self.context, seed=seed, kind="train")

    def _calibrators(self) -> Iterator[Stage]:
        """Unmarked models and, since suspects are mostly copies, a copy of an unmarked model by every kind of thief."""
        architectures = self.profile.calibration_models or (self.profile.model,)
        trained = [
            embed_stage(
                replace(
                    self.profile.unmarked(),
                    model=architectures[index % len(architectures)],
                    pretraining=self.profile.calibration_recipe,
                ),
                self.context,
                seed=derive_seed(self.seed, "calibrator", index),
                kind="train",
            )
            for index in range(self.profile.calibrators)
        ]
        yield from trained
        seed = derive_seed(self.seed, "calibrator", "thief")
        for number, (_, model, pool) in enumerate(self._thieves()):
            yield self._theft(trained[number % len(trained)], seed, "label", model, pool)

    def _thieves(self) -> list[tuple[str, str, str]]:
        """What the columns call a thief, its architecture, and whose images it asks."""
        thieves = [("", self.profile.model, ADVERSARY)]
        thieves += [(f" with {pool}", self.profile.model, pool) for pool in self.context.pools]
        return thieves + ([(f" by {self.other}", self.other, ADVERSARY)] if self.other else [])

    def _theft(self, victim: Stage, seed: int, answers: str, model: str, pool: str) -> Stage:
        """As many queries as the adversary's split has, whatever is asked."""
        attack = replace(self.profile.knockoff(), model=model)
        if pool != ADVERSARY:
            attack = replace(attack, queries=min(len(self.context.pools[pool]), len(self.context.task.adversary)))
        theft = Theft(attack=attack, answers=answers, pool=pool)  # type: ignore[arg-type]
        return steal_stage(theft, victim, self.context, seed=seed)


def summarise(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Figures over seeds, by method and suspect; a method that failed for some seeds has a row that says for how many."""
    summary: list[dict[str, Any]] = []
    for method, rows in grouped(found, lambda row: row["method"]).items():
        for suspect, members in grouped(
            (row for row in rows if "error" not in row), lambda row: row["suspect"]
        ).items():
            told = figures(members, inherits=not suspect.startswith("unmarked"))
            wfpr = [row["wfpr"] for row in members if row["wfpr"] is not None]
            told["wfpr_mean"] = round(sum(wfpr) / len(wfpr), 4) if wfpr else None
            shares = [row["says_target"] for row in members if row["says_target"] is not None]
            told["says_target_mean"] = {
                pool: round(sum(share[pool] for share in shares) / len(shares), 4)
                for pool in (shares[0] if shares else ())
            }
            summary.append({"method": method, "suspect": suspect, **told})
        if failed := [row["seed"] for row in rows if "error" in row]:
            summary.append({"method": method, "failed": failed, "seeds": len({row["seed"] for row in rows})})
    return summary


def as_markdown(summary: list[dict[str, Any]]) -> str:
    """A row a method: ACC / WSR in percent, mean and in brackets the worst WSR, the control's worst WSR and the verdicts.

    Below it what the papers print, and how often it failed.
    """
    cells = {(row["method"], row["suspect"]): row for row in summary if "suspect" in row}
    columns = [name for name in dict.fromkeys(suspect for _, suspect in cells) if not name.startswith("unmarked")]
    lines = ["| method | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for method, rows in grouped(summary, lambda row: row["method"]).items():
        lines.append(f"| {method} | " + " | ".join(as_cell(cells, method, column) for column in columns) + " |")
        lines += [
            f"| … {source} | " + " | ".join(as_printed(printed, column) for column in columns) + " |"
            for source, printed in PAPERS.get(method, {}).items()
        ]
        lines += [
            f"| … failed for {len(row['failed'])} of {row['seeds']} seeds |" + " |" * len(columns)
            for row in rows
            if "failed" in row
        ]
    return "\n".join(lines)


def as_cell(cells: Mapping[tuple[str, str], Mapping[str, Any]], method: str, column: str) -> str:
    """One cell, with its control; empty when either is missing."""
    row = cells.get((method, column))
    control = cells.get((method, "unmarked" if column == "victim" else f"unmarked, {column}"))
    if row is None or control is None:
        return ""
    return (
        f"{100 * row['accuracy_mean']:.1f} / {100 * row['wsr_mean']:.1f} [{100 * row['wsr_worst']:.1f}] "
        f"({100 * control['wsr_worst']:.1f}), {row['marked']} of {row['seeds']}"
    )


def as_printed(printed: Mapping[str, tuple[float, float]], column: str) -> str:
    """A paper's figures for a column, if it has them."""
    found = printed.get(re.sub(" with [^,]+", " with other data", column))
    return "" if found is None else f"{found[0]:.1f} / {found[1]:.1f}"


def main() -> None:
    """Run, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("--only", nargs="+", help="rows of the table, by name")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--full", action="store_true", help="full Fashion-MNIST, longer training")
    parser.add_argument("--model", help="architecture in place of the profile's")
    parser.add_argument("--other", help="a second architecture that steals")
    parser.add_argument(
        "--pool", nargs="+", default=[], help="data sets whose images are queries too; owner: the victim's own"
    )
    parser.add_argument("--foreign", help="data set whose test images the owner has: DeepTracer's surrogate asks them")
    parser.add_argument("--data-root", type=Path, help="where data sets lie")
    parser.add_argument("--store", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    profile = STUDY if options.full else QUICK
    if options.model:
        profile = replace(profile, model=options.model)
    if options.foreign:
        profile = replace(profile, surrogate_queries="foreign")
    table = TABLES[options.table](profile)
    if options.only:
        if unknown := set(options.only) - set(table):
            parser.error(f"no row {min(unknown)!r} in the table: choose of {', '.join(table)}")
        table = {name: table[name] for name in options.only}
    found: list[dict[str, Any]] = []
    with Bars() as bars:
        runtime = bars.runtime(options.device, "auto")
        for seed in options.seeds:
            task = load_task(profile.data, seed=seed, root=options.data_root)
            for model in (profile.model, *([options.other] if options.other else [])):
                check_architecture(named_architecture(model), input_shape=task.input_shape, classes=task.num_classes)
            foreign = load_images(options.foreign, root=options.data_root)[1] if options.foreign else None
            if foreign is not None:
                task = replace(task, foreign=foreign)  # so that no pool holds any of them
            pools = {
                name: task.owner if name == "owner" else load_pool(name, task, root=options.data_root)
                for name in options.pool
            }
            bench = Bench(
                profile=profile,
                context=Context(task=replace(task, foreign=None), runtime=runtime, pools=pools),
                store=Store(options.store),
                seed=seed,
                other=options.other,
                foreign=foreign,
            )
            for row in bench.rows(table):
                found.append(row)
                bars.console.print(json.dumps(row), highlight=False, markup=False, soft_wrap=True)
    result = {
        **provenance(runtime),
        "data": profile.data,
        "model": profile.model,
        "papers": {name: PAPERS[name] for name in table if name in PAPERS},
        "summary": summarise(found),
        "rows": found,
    }
    if options.out:
        atomic_write_json(options.out, result)
    print(as_markdown(result["summary"]))


if __name__ == "__main__":
    try:
        main()
    except HeirmarkError as error:
        sys.exit(f"compare.py: {error}")
