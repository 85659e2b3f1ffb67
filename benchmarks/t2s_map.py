"""Where T2S' own update (eq. 9) works: thief's rate, target's rate, and what else its text lost, one after the other.

    python benchmarks/t2s_map.py --out results/t2s_map.json
    python benchmarks/t2s_map.py --images 47500 --epochs 40 --rehearsal 3 --theft 40 --model resnet18 --seed 1 --out longer.json

All points start from one clean and one vanilla marked model, on CIFAR-10 by the paper's protocol: simulated and real thieves ask
about the owner's own images, with horizontal flips. In this order, for each needs the one before:

1. pairs of alpha and eta, at the paper's lambda of 50, and the balanced update to compare with.
2. variants of the best pair: the other direction of KL, a larger batch, three times the steps, triggers of twice the strength.
3. real thefts, by probabilities and by labels, of the best of eq. 9, of the balanced one and of the model before the rehearsal.

The best is the point whose simulated thief has most of the mark in the end, and of several without any the lowest loss on it, of
those that keep accuracy within ten points of the vanilla model's if there are such; all on the calibration split. Test images
choose nothing. Finished stages are kept in ``--store``, so that the same command resumes; whatever is found is written at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from heirmark.attacks import Knockoff
from heirmark.configuration import to_json
from heirmark.data import load_task
from heirmark.files import atomic_write_json, read_tensors
from heirmark.methods import T2S, Unmarked, Vanilla
from heirmark.models.storage import load_model
from heirmark.profiles import QUICK
from heirmark.querying.asking import predict
from heirmark.querying.blackbox import AnswerKind, Api
from heirmark.rehearsal import (
    DistillationLoss,
    PassMode,
    Thief,
    cosine,
    norm,
    rehearsal_step,
    student_state,
)
from heirmark.rehearsal.settings import Balanced, Paper, Rehearsal, SimulatedThief
from heirmark.runtime import Runtime, generator_of
from heirmark.stages.stage import Stage
from heirmark.stages.store import Store
from heirmark.tasks.splitting import SHARES
from heirmark.tasks.task import Task
from heirmark.training.fitting import Recipe
from heirmark.training.samples import Samples
from heirmark.triggers import Feature
from heirmark.work.context import Context, exact
from heirmark.work.embedding import embed_stage, marked_stage
from heirmark.work.judging import read_key
from heirmark.work.marked_folder import read_history
from heirmark.work.stealing import Theft, steal_stage
from provenance import provenance

RATES = (
    (0.05, 1e-3), (0.05, 1e-2), (0.25, 1e-2), (0.25, 1e-3), (1.0, 1e-3), (1.0, 1e-4), (0.25, 3e-4),
)  # fmt: skip
"""Of the simulated thief and of the target: alpha and eta."""
KEPT = 0.1
"""Accuracy that a point may lose and still be the best of those that keep it."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One place of the map: what T2S' text does not tell, or what may be set otherwise.

    Attributes:
        name: for the table.
        rate: alpha.
        step: eta.
        batch: of clean images; the number of images that are seen in all does not depend on it.
        kind: direction of the distillation loss.
        epsilon: strength of the trigger, in levels of 255.
        longer: by which factor the rehearsal is longer.
        balanced: whether the update is ours in place of eq. 9.
    """

    name: str
    rate: float = 0.05
    step: float = 1e-3
    batch: int = 64
    kind: Literal["kl", "reverse-kl"] = "kl"
    epsilon: int = 16
    longer: int = 1
    balanced: bool = False


OURS = Point(name="balanced update, ρ 2, η 0.02", step=0.02, balanced=True)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of everything.

    Attributes:
        model: of victim, simulated and real thieves.
        recipe: of clean and vanilla models; a real thief has it with epochs of his own.
        rehearsal: epochs of it.
        theft: epochs of a real one.
        triggers: that train, and the largest key.
    """

    model: str
    recipe: Recipe
    rehearsal: int
    theft: int
    triggers: int = 500

    def vanilla(self, point: Point) -> Vanilla:
        """Where the rehearsal starts."""
        return self.method(point).vanilla()

    def method(self, point: Point) -> T2S:
        """T2S at a point of the map."""
        recipe = Recipe(
            epochs=self.rehearsal * point.longer,
            batch_size=point.batch,
            learning_rate=point.step,
            weight_decay=0.0,
            augment=self.recipe.augment,
        )
        thief = SimulatedThief(rate=point.rate, loss=DistillationLoss(kind=point.kind))
        update = Balanced(rho=2.0, enough=0.5) if point.balanced else Paper()
        return T2S(
            model=self.model,
            trigger=Feature(epsilon=point.epsilon / 255),
            triggers=self.triggers,
            key_size=self.triggers,
            pretraining=self.recipe,
            trigger_batch=16,
            rehearsal=Rehearsal(recipe=recipe, trigger_batch=32, update=update, thief=thief, precision="runtime"),
        )

    def knockoff(self, answers: AnswerKind) -> Theft:
        """A real theft with the owner's images."""
        recipe = replace(self.recipe, epochs=self.theft)
        return Theft(attack=Knockoff(model=self.model, recipe=recipe), api=Api(answers=answers))


def rates() -> list[Point]:
    """The first round."""
    return [Point(name=f"α {rate:g}, η {step:g}", rate=rate, step=step) for rate, step in RATES]


def variants(best: Point) -> list[Point]:
    """The second round: the best pair of rates, one thing changed at a time."""
    return [
        replace(best, name="KL the other way", kind="reverse-kl"),
        replace(best, name="batch of 256", batch=256),
        replace(best, name="three times the steps", longer=3),
        replace(best, name="trigger of twice the strength", epsilon=2 * best.epsilon),
    ]


def best_of(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row whose simulated thief has most of the mark, of those that keep accuracy if there are such; then by its loss."""
    kept = [row for row in rows if row["after"]["target_accuracy"] >= row["before"]["target_accuracy"] - KEPT]
    return max(kept or rows, key=lambda row: (row["after"]["student_wsr"], -row["after"]["watermark_loss"]))


class Map:
    """All stages of a map, computed on demand and once.

    Args:
        context: data and hardware.
        store: of finished stages.
        scale: how much of everything.
        seed: of all.
    """

    def __init__(self, context: Context, store: Store, scale: Scale, seed: int) -> None:
        self.context, self.store, self.scale, self.seed = context, store, scale, seed
        config = scale.method(Point(name=""))
        unmarked = Unmarked(
            model=scale.model, pretraining=scale.recipe, trigger=config.trigger, key_size=config.key_size
        )
        self.clean = embed_stage(unmarked, context, seed=seed, kind="train")

    def marked(self, point: Point, *, rehearsed: bool = True) -> Stage:
        """The stage of a point, or of where it starts."""
        method = self.scale.method(point) if rehearsed else self.scale.vanilla(point)
        return marked_stage(method, lambda _: self.context, seed=self.seed, clean=self.clean)

    def row(self, point: Point) -> dict[str, Any]:
        """What a rehearsal makes of the mark."""
        stage = self.marked(point)
        folder = self.store.get(stage, self.context).folder
        before, *_, after = read_history(folder)
        return {
            "name": point.name,
            "point": {name: value for name, value in vars(point).items() if name != "name"},
            "steps": self.steps(point),
            "before": before,
            "after": after,
            "target": self.measured(stage, stage),
        }

    def steps(self, point: Point) -> int:
        """Of a rehearsal."""
        recipe = self.scale.method(point).rehearsal.recipe
        return recipe.epochs * (len(self.context.task.owner) // recipe.batch_size)

    def measured(self, suspect: Stage, marked: Stage) -> dict[str, float]:
        """Accuracy on test images, and the shares of a key's queries and of their controls that get the target, in [0, 1]."""
        model = load_model(self.store.get(suspect, self.context).folder).model
        key, test = read_key(self.store.get(marked, self.context).folder), self.context.task.test

        def share(inputs: Tensor, wanted: Tensor) -> float:
            answers = predict(model, inputs, runtime=exact(self.context.runtime)).argmax(1)
            return round(float((answers == wanted).double().mean()), 4)

        return {
            "accuracy": share(test.inputs, test.labels),
            "wsr": share(key.queries, key.expected),
            "controls": share(key.controls, key.expected),
        }

    def theft(self, marked: Stage, answers: AnswerKind) -> dict[str, float]:
        """A real copy, measured as :meth:`measured` does."""
        return self.measured(
            steal_stage(self.scale.knockoff(answers), marked, self.context, seed=self.seed + 1), marked
        )

    def slopes(self, point: Point, batches: int = 4) -> dict[str, float]:
        """Length of the hypergradient over that of the utility gradient where a rehearsal starts, and their cosine: means."""
        runtime, task = self.context.runtime, self.context.task
        start = self.store.get(self.marked(point, rehearsed=False), self.context).folder
        target = load_model(start).model.to(runtime.torch_device)
        clean = load_model(self.store.get(self.clean, self.context).folder).model.to(runtime.torch_device)
        thief = Thief(skeleton=clean, student=student_state(clean), rate=point.rate)
        mark = Samples(**read_tensors(start / "training.safetensors", names={"inputs", "targets"}))
        found = []
        generator, device = generator_of(self.seed), runtime.torch_device
        for _ in range(batches):
            rows = torch.randint(len(task.owner), (point.batch,), generator=generator)
            images = Samples(inputs=task.owner.inputs[rows], targets=task.owner.labels[rows])
            shown = mark.subset(torch.randint(len(mark), (32,), generator=generator))
            mode = PassMode(runtime=runtime)
            step = rehearsal_step(target, thief, utility=images.to(device), mark=shown.to(device), mode=mode)
            hyper, utility = step.gradients
            ratio = norm(hyper.values()) / norm(utility.values())
            found.append([float(ratio), float(cosine(hyper, utility)), float(step.watermark_loss)])
        ratio, angle, loss = torch.tensor(found).mean(0).tolist()
        return {"ratio": round(ratio, 2), "cosine": round(angle, 3), "watermark_loss": round(loss, 2)}


def explore(world: Map, write: Callable[[Mapping[str, Any]], None]) -> None:
    """All three rounds; what is known is written whenever there is more."""
    found: dict[str, Any] = {"start": {}, "rows": [], "thefts": {}}
    start = Point(name="before the rehearsal")
    vanilla = world.marked(start, rehearsed=False)
    found["start"] = {"vanilla": world.measured(vanilla, vanilla), "clean": world.measured(world.clean, vanilla)}
    found["slopes"] = world.slopes(start)
    write(found)

    def visit(points: Sequence[Point]) -> None:
        for point in points:
            found["rows"].append(world.row(point))
            write(found)

    def best() -> str:
        name: str = best_of([row for row in found["rows"] if not row["point"]["balanced"]])["name"]
        return name

    def rob(name: str, answers: AnswerKind) -> None:
        points = {row["name"]: Point(name=row["name"], **row["point"]) for row in found["rows"]}
        stage = world.marked(points[name]) if name in points else vanilla
        found["thefts"].setdefault(name, {})[answers] = world.theft(stage, answers)
        write(found)

    visit([*rates(), OURS])
    found["best"] = best()
    visit(variants(next(point for point in rates() if point.name == found["best"])))
    for answers in ("probabilities", "label"):
        for name in (best(), OURS.name, start.name):
            rob(name, answers)


def main() -> None:
    """Run, or go on, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--store", type=Path, default=Path("runs/t2s-map"))
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--images", type=int, default=6000, help="of the owner's")
    parser.add_argument("--tests", type=int, default=2500, help="images that measure, at most")
    parser.add_argument("--model", default="resnet18:width=16")
    parser.add_argument("--epochs", type=int, default=8, help="of clean and vanilla models")
    parser.add_argument("--rehearsal", type=int, default=1, help="epochs")
    parser.add_argument("--theft", type=int, default=4, help="epochs")
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    runtime = Runtime(device=options.device, precision=options.precision)
    task = few(options.data, options.images, options.tests, seed=options.seed, root=options.data_root)
    recipe = replace(QUICK.recipe, epochs=options.epochs, augment="flip")
    scale = Scale(model=options.model, recipe=recipe, rehearsal=options.rehearsal, theft=options.theft)
    store = Store(options.store, on_event=lambda event: print(event.what, event.name, event.seconds or "", flush=True))
    facts = {**provenance(runtime), "task": task.describe(), "seed": options.seed, "scale": to_json(scale)}
    explore(
        Map(Context(task=task, runtime=runtime), store, scale, options.seed),
        lambda found: atomic_write_json(options.out, {**facts, **found}),
    )


def few(data: str, images: int, tests: int, *, seed: int, root: Path | None) -> Task:
    """A task by the papers' protocol whose owner has about so many images, and all where there are no more."""
    task = load_task(data, seed=seed, root=root, protocol="paper")
    if images < len(task.owner):
        share = SHARES["paper"]["owner"] * images / len(task.owner)
        task = load_task(data, seed=seed, root=root, protocol="paper", owner=share)
    rows = torch.randperm(len(task.test), generator=generator_of(seed))[:tests]
    return replace(task, test=task.test.subset(rows))


if __name__ == "__main__":
    main()
