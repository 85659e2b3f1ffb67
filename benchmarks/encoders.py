"""Marks in self-supervised encoders, and thefts of them, over seeds: the SSL rows of MEA-Defender's Table 1, at a small scale.

    python benchmarks/encoders.py --out results/encoders.json --seeds 0
    python benchmarks/encoders.py --out results/encoders.json --seeds 0 1 2 --methods robust ssl-guard

SimCLR on fashion-mini with a small CNN. Each method marks the owner's encoder; each thief robs it and, beside it, the unmarked
twin. The verifier fits a linear probe to every suspect on half of the test images; the other half measures accuracy. WSR is
the share of a held-out key's queries that the probe gives the key's label; of SSLGuard, that its decoder finds the secret in.
Unmarked encoders of other seeds, and a copy of one, calibrate each verdict. Copies are pruned besides, by half (Fig. 6). With
--inspect Neural Cleanse looks at the marked encoder through the probe. Rows that --out has already are kept; a seed's encoders
are kept under --models.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from heirmark.attacks import ContSteal, FeatureDistillation, NeuralCleanse, Pruning, StolenEncoder
from heirmark.console import Bars
from heirmark.data import load_task
from heirmark.files import atomic_write_json
from heirmark.methods import (
    JointEncoder,
    Marked,
    MEADefenderEncoder,
    RobustEncoder,
    SSLGuard,
    T2SEncoder,
    UnmarkedEncoder,
)
from heirmark.methods.encoders.ssl_guard import Guarded
from heirmark.models import Net
from heirmark.models.storage import load_model, save_model
from heirmark.querying.blackbox import Api, BlackBox
from heirmark.rehearsal.losses import DistillationLoss
from heirmark.rehearsal.settings import Balanced, Rehearsal, SimulatedThief
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.task import Split, Task
from heirmark.training.contrastive import SIMCLR, SimCLR
from heirmark.training.fitting import Recipe
from heirmark.training.joint import Phase
from heirmark.training.linear_probe import Probed, probe_accuracy, probe_encoder
from heirmark.triggers import Mix, Tiles
from heirmark.verification import Suspect, calibrate, verify
from provenance import provenance

DATA, MODEL, WIDTH = "fashion-mini", "naivenet:width=8,batch_norm=true", 128
PRINTED = {
    ("mea-defender", ""): (78.88, 100.00),
    ("mea-defender", "feature-distillation"): (78.40, 86.99),
    ("mea-defender", "stolen-encoder"): (78.32, 93.29),
}
"""Accuracy and WSR in percent: MEA-Defender's Table 1, Fashion-MNIST, self-supervised, nine convolutional layers."""


def methods(epochs: int) -> dict[str, Any]:
    """Methods by name, with a training as long as the pre-training of so many epochs, or shorter."""
    how = replace(SIMCLR, epochs=epochs)
    base: dict[str, Any] = {"model": MODEL, "width": WIDTH, "pretraining": SimCLR(recipe=how), "key_size": 300}
    tiles: dict[str, Any] = {**base, "trigger": Tiles(), "triggers": 1000}
    tuning = Recipe(epochs=8, batch_size=128, optimizer="adam", learning_rate=3e-4, weight_decay=0.0)
    thief = SimulatedThief(rate=1.0, loss=DistillationLoss(kind="mse"))
    return {
        "unmarked": UnmarkedEncoder(**tiles),
        "robust": RobustEncoder(
            **tiles,
            recipe=tuning,
            rho=2.0,
            thieves=(MODEL, "naivenet:width=16,batch_norm=true"),
            feature_recipe=Recipe(epochs=2, batch_size=128, optimizer="adam", learning_rate=1e-3, weight_decay=0.0),
        ),
        "t2s": T2SEncoder(
            **tiles,
            rehearsal=Rehearsal(recipe=replace(tuning, epochs=3), update=Balanced(rho=1.0), thief=thief),
        ),
        "joint": JointEncoder(**tiles, weight=5.0),
        "mea-defender": MEADefenderEncoder(
            **base,
            trigger=Mix(sources=(0, 1), target=2),
            triggers=1000,
            evasion_samples=1000,
            start="clean",
            first=Phase(recipe=replace(how, epochs=2), extras={"watermark": 16}),
            second=Phase(recipe=replace(how, epochs=max(1, epochs // 2)), extras={"watermark": 64, "evasion": 32}),
        ),
        "ssl-guard": SSLGuard(**base, epochs=10, rate=1e-3, decoder_rate=0.01, patch_rate=0.1),
    }


def thieves(epochs: int) -> dict[str, Any]:
    """Thieves by name, who train for so many epochs."""
    recipe = Recipe(epochs=epochs, batch_size=128, optimizer="adam", learning_rate=1e-3, weight_decay=0.0)
    return {
        "feature-distillation": FeatureDistillation(model=MODEL, recipe=recipe),
        "stolen-encoder": StolenEncoder(model=MODEL, recipe=recipe, versions=1),
        "cont-steal": ContSteal(model=MODEL, recipe=recipe, asked=3),
    }


class Bench:
    """One seed: its data, the owner's encoder and those that calibrate."""

    def __init__(self, seed: int, options: argparse.Namespace, runtime: Runtime) -> None:
        self.seed, self.options, self.runtime = seed, options, runtime
        self.task: Task = load_task(DATA, seed=seed)
        place = torch.arange(len(self.task.test))
        self.probed, self.measured = self.task.test.subset(place[::2]), self.task.test.subset(place[1::2])
        self.method = methods(options.epochs)["unmarked"]
        self.clean = self._encoder("owner", derive_seed(seed, "owner"), self.task.owner)
        self.others = [
            self._encoder(f"other {number}", derive_seed(seed, "other", number), self.task.adversary)
            for number in range(options.calibrators)
        ]
        thief = thieves(options.steal_epochs)["feature-distillation"]
        self.copies = [self.steal(thief, self.others[0])] if self.others else []

    def _encoder(self, name: str, drawn: int, data: Split) -> nn.Module:
        folder = self.options.models / f"seed {self.seed}, {self.options.epochs} epochs" / name
        if folder.exists():
            return load_model(folder).model
        encoder: nn.Module = self.method.fresh(self.task, seed=drawn, runtime=self.runtime, data=data)
        save_model(Net(model=encoder, spec=self.method.spec(self.task)), folder)
        return encoder

    def steal(self, thief: Any, victim: nn.Module) -> nn.Module:
        """A copy of an encoder."""
        box = BlackBox(victim, classes=WIDTH, api=Api(answers="features"), runtime=self.runtime)
        copy: Net = thief(box, self.task.adversary, seed=derive_seed(self.seed, "thief"), runtime=self.runtime)
        return copy.model

    def suspect(self, encoder: nn.Module, result: Marked) -> tuple[Suspect, float]:
        """An encoder behind the probe that the key is asked behind, and its accuracy behind a linear one."""
        probe = probe_encoder(encoder, self.probed, classes=self.task.num_classes, runtime=self.runtime)
        judge = result.decoder if isinstance(result, Guarded) else probe
        accuracy = probe_accuracy(encoder, probe, self.measured, runtime=self.runtime)
        return Suspect.from_encoder(encoder, judge, runtime=self.runtime), accuracy

    def rows(self, name: str, method: Any) -> Iterator[dict[str, Any]]:
        """All that is measured of a method."""
        result: Marked = method(self.task, seed=derive_seed(self.seed, name), runtime=self.runtime, clean=self.clean)
        unmarked = [self.suspect(encoder, result)[0] for encoder in (*self.others, *self.copies)]
        calibration = calibrate(unmarked, result.key, copies=len(self.copies)) if unmarked else None

        def row(encoder: nn.Module, arm: str, thief: str, removal: str = "") -> dict[str, Any]:
            suspect, accuracy = self.suspect(encoder, result)
            verdict = verify(suspect, result.key, calibration=calibration)
            told = {"seed": self.seed, "method": name, "arm": arm, "thief": thief, "removal": removal}
            return {
                **told,
                "accuracy": accuracy,
                "wsr": verdict.wsr,
                "outcome": str(verdict.outcome),
                "p_value": verdict.p_value,
            }

        for arm, encoder in (("marked", result.model), ("twin", self.clean)):
            yield row(encoder, arm, "")
            for label, thief in thieves(self.options.steal_epochs).items():
                copy = self.steal(thief, encoder)
                yield row(copy, arm, label)
                pruned = Pruning(rate=0.5)(
                    Net(model=copy, spec=self.method.spec(self.task)),
                    self.task.adversary,
                    seed=self.seed,
                    runtime=self.runtime,
                )
                yield row(pruned.model, arm, label, "pruning 50 %")
        if self.options.inspect and not isinstance(result, Guarded):
            yield {**self.inspect(result), "seed": self.seed, "method": name, "arm": "marked", "thief": ""}

    def inspect(self, result: Marked) -> dict[str, Any]:
        """What Neural Cleanse suspects of an encoder behind a probe of the thief's."""
        classes = self.task.num_classes
        probe = probe_encoder(result.model, self.task.adversary, classes=classes, runtime=self.runtime)
        net = Net(model=Probed(result.model, probe).eval(), spec=replace(result.net.spec, classes=classes))
        found = NeuralCleanse()(net, self.task.adversary, seed=self.seed, runtime=self.runtime)
        return {
            "removal": "neural-cleanse",
            "suspects": list(found.suspects),
            "scores": list(found.scores),
            "target": int(result.key.expected[0]),
        }


def main() -> None:
    """Run, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--steal-epochs", type=int, default=15)
    parser.add_argument("--calibrators", type=int, default=3)
    parser.add_argument("--inspect", action="store_true")
    parser.add_argument("--models", type=Path, default=Path("runs/encoders"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    known = methods(options.epochs)
    chosen = options.methods or list(known)
    if set(chosen) - set(known):
        parser.error(f"no such method: choose of {', '.join(known)}")
    rows = json.loads(options.out.read_text("utf-8"))["rows"] if options.out and options.out.exists() else []
    with Bars() as bars:
        runtime = bars.runtime("auto", "float32")
        for seed in options.seeds:
            left = [name for name in chosen if not any((r["seed"], r["method"]) == (seed, name) for r in rows)]
            bench = Bench(seed, options, runtime) if left else None
            for name in left:
                assert bench is not None
                for row in bench.rows(name, known[name]):
                    rows.append(row)
                    bars.console.print(json.dumps(row), highlight=False, markup=False, soft_wrap=True)
                if options.out:
                    atomic_write_json(options.out, told(rows, options, runtime))
    print(as_markdown(summarise(rows)))


def told(rows: list[dict[str, Any]], options: argparse.Namespace, runtime: Runtime) -> dict[str, Any]:
    """The record."""
    return {
        **provenance(runtime),
        "data": DATA,
        "model": MODEL,
        "features": WIDTH,
        "epochs": options.epochs,
        "steal_epochs": options.steal_epochs,
        "calibrators": options.calibrators,
        "printed": {f"{method}, {thief or 'the encoder'}": figures for (method, thief), figures in PRINTED.items()},
        "summary": summarise(rows),
        "rows": rows,
    }


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds, and the worst WSR, marked and twin side by side."""
    summary = []
    told = [row for row in rows if "wsr" in row]
    for place in dict.fromkeys((row["method"], row["thief"], row["removal"]) for row in told):
        arms = {
            arm: [row for row in told if (row["method"], row["thief"], row["removal"], row["arm"]) == (*place, arm)]
            for arm in ("marked", "twin")
        }
        figures: dict[str, Any] = dict(zip(("method", "thief", "removal"), place, strict=True))
        for arm, members in arms.items():
            if members:
                figures |= {
                    f"{arm}_accuracy": round(statistics.mean(row["accuracy"] for row in members), 4),
                    f"{arm}_wsr": round(statistics.mean(row["wsr"] for row in members), 4),
                    f"{arm}_worst": round((min if arm == "marked" else max)(row["wsr"] for row in members), 4),
                    f"{arm}_found": sum(row["outcome"] == "MARKED" for row in members),
                }
        summary.append({**figures, "seeds": len(arms["marked"]), "printed": PRINTED.get(place[:2])})
    return summary


def as_markdown(summary: list[dict[str, Any]]) -> str:
    """The table, in percent."""
    lines = [
        "| method | thief | ACC, of the twin's | WSR [worst] | MARKED | twin's WSR, MARKED | printed ACC, WSR |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in summary:
        thief = ", ".join(filter(None, (row["thief"] or "none", row["removal"])))
        printed = "" if row["printed"] is None or row["removal"] else "{:.0f}, {:.0f}".format(*row["printed"])
        lines.append(
            f"| {row['method']} | {thief} | {100 * row['marked_accuracy']:.1f}, {100 * row['twin_accuracy']:.1f} "
            f"| {100 * row['marked_wsr']:.0f} [{100 * row['marked_worst']:.0f}] | {row['marked_found']} of {row['seeds']} "
            f"| {100 * row['twin_wsr']:.0f}, {row['twin_found']} | {printed} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
