"""Knockoff against the same attack in the Adversarial Robustness Toolbox: same victim, net, data, optimiser, in one run.

    pip install adversarial-robustness-toolbox
    python benchmarks/attacks.py --out results/attacks-speed.json

Both thieves ask a NaiveNet about the adversary's 9,000 images of the embedded Fashion-MNIST once and train a fresh NaiveNet on
the probabilities by SGD at a constant rate. heirmark's runs are timed in its default precision and in float32, the toolbox knows
float32 only; a last row is heirmark with the demo's recipe, which has a warm-up and an end of its own. Runs of 1, 2, 4 and 8
epochs say how long each takes to a copy of a given accuracy: the fastest of its runs whose median copy has it. The order changes
from round to round, and the figures are medians. Aim: at least three times as fast at equal accuracy.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from heirmark.attacks import Knockoff
from heirmark.data import load_task
from heirmark.files import atomic_write_json
from heirmark.models import specify
from heirmark.profiles import QUICK
from heirmark.querying.blackbox import BlackBox
from heirmark.runtime import Runtime
from heirmark.tasks.storing import decode
from heirmark.tasks.task import Task
from heirmark.training.fitting import Recipe, accuracy, fit
from provenance import provenance

RECIPE = Recipe(epochs=8, batch_size=128, learning_rate=0.02, momentum=0.9, weight_decay=0.0, schedule="constant")
EPOCHS = (1, 2, 4, 8)
GOALS = (0.78, 0.80, 0.82, 0.84, 0.86)
QUERY_BATCH = 1000

Thief = Callable[[int, int], tuple[float, nn.Module]]
"""Given epochs and seed: the seconds that it took, and the copy."""


def heirmark_thief(victim: nn.Module, task: Task, model: str, runtime: Runtime, recipe: Recipe = RECIPE) -> Thief:
    """Knockoff as heirmark has it."""

    def steal(epochs: int, seed: int) -> tuple[float, nn.Module]:
        attack = Knockoff(model=model, recipe=replace(recipe, epochs=epochs))
        clock = time.perf_counter()
        box = BlackBox(victim, classes=task.num_classes, runtime=runtime)
        stolen = attack(box, task.adversary, seed=seed, runtime=runtime)
        return time.perf_counter() - clock, stolen.model

    return steal


def rival_thief(victim: nn.Module, task: Task, model: str) -> Thief:
    """Knockoff as the Adversarial Robustness Toolbox has it, with its random strategy."""
    from art.attacks.extraction import KnockoffNets

    inputs = task.adversary.floats().numpy()
    asked = as_rival(answering(victim), task)

    def steal(epochs: int, seed: int) -> tuple[float, nn.Module]:
        spec = specify(model, input_shape=task.input_shape, classes=task.num_classes)
        copy = spec.build(seed=seed)
        np.random.seed(seed)  # noqa: NPY002 - the toolbox draws from the global generator
        clock = time.perf_counter()
        attack = KnockoffNets(
            classifier=asked,
            batch_size_fit=RECIPE.batch_size,
            batch_size_query=QUERY_BATCH,
            nb_epochs=epochs,
            nb_stolen=len(inputs),
            sampling_strategy="random",
            use_probability=True,
            verbose=False,
        )
        attack.extract(inputs, thieved_classifier=as_rival(copy, task))
        return time.perf_counter() - clock, copy.eval()

    return steal


def answering(victim: nn.Module) -> nn.Module:
    """A victim that answers probabilities: logits would be taken for soft labels, and the copy's loss would not be finite."""
    return nn.Sequential(victim, nn.Softmax(dim=1))


def as_rival(model: nn.Module, task: Task) -> Any:
    """A model as the toolbox wants it; the recipe's optimiser."""
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(model.parameters(), RECIPE.learning_rate, momentum=RECIPE.momentum),
        input_shape=task.input_shape,
        nb_classes=task.num_classes,
        clip_values=(0.0, 1.0),
    )


def queries_per_second(victim: nn.Module, task: Task, rounds: int) -> dict[str, float]:
    """How many queries each box answers in a second."""
    inputs = task.adversary.inputs
    floats = decode(inputs).numpy()
    rival = as_rival(answering(victim), task)
    boxes: dict[str, Callable[[], object]] = {
        "heirmark": lambda: BlackBox(victim, classes=task.num_classes).query(inputs),
        "heirmark, float32": lambda: BlackBox(
            victim, classes=task.num_classes, runtime=Runtime(precision="float32")
        ).query(inputs),
        "rival": lambda: rival.predict(x=floats, batch_size=QUERY_BATCH),
    }
    times: dict[str, list[float]] = {name: [] for name in boxes}
    for _ in range(rounds):
        for name, ask in boxes.items():
            clock = time.perf_counter()
            ask()
            times[name].append(time.perf_counter() - clock)
    return {name: round(len(inputs) / statistics.median(taken)) for name, taken in times.items()}


def main() -> None:
    """Run, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="naivenet:batch_norm=true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    try:
        import art
    except ImportError:
        sys.exit("attacks.py: this compares with another toolbox: pip install adversarial-robustness-toolbox")
    task, runtime = load_task("fashion-mini", seed=options.seed), Runtime()
    spec = specify(options.model, input_shape=task.input_shape, classes=task.num_classes)
    victim = spec.build(seed=options.seed)
    fit(victim, task.owner.inputs, task.owner.labels, recipe=RECIPE, seed=options.seed)
    thieves = {
        "heirmark": heirmark_thief(victim, task, options.model, runtime),
        "heirmark, float32": heirmark_thief(victim, task, options.model, Runtime(precision="float32")),
        "rival": rival_thief(victim, task, options.model),
        "heirmark, the demo's recipe": heirmark_thief(victim, task, options.model, runtime, QUICK.recipe),
    }
    rows: list[dict[str, Any]] = []
    for number in range(options.rounds):
        order = list(thieves.items())
        for name, steal in order[number % len(order) :] + order[: number % len(order)]:
            for epochs in EPOCHS:
                seconds, copy = steal(epochs, options.seed + number)
                row = {"thief": name, "round": number, "epochs": epochs, "seconds": round(seconds, 3)}
                rows.append(row | {"accuracy": accuracy(copy, task.test, runtime=Runtime(precision="float32"))})
                print(rows[-1], flush=True)
    result = {
        **provenance(runtime),
        "rival": f"adversarial-robustness-toolbox {art.__version__}",
        "model": options.model,
        "victim_accuracy": accuracy(victim, task.test),
        "queries_per_second": queries_per_second(victim, task, options.rounds),
        "summary": summarise(rows),
        "seconds_to_accuracy": goals(summarise(rows)),
        "rows": rows,
    }
    if options.out:
        atomic_write_json(options.out, result)
    print(result["queries_per_second"], *result["summary"], *result["seconds_to_accuracy"].items(), sep="\n")


def goals(summary: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """By accuracy and thief: the seconds of its fastest run whose copy has that accuracy, or none."""
    thieves = dict.fromkeys(row["thief"] for row in summary)
    return {
        f"{goal:.0%}": {
            thief: min(
                (row["seconds"] for row in summary if row["thief"] == thief and row["accuracy"] >= goal), default=None
            )
            for thief in thieves
        }
        for goal in GOALS
    }


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians by thief and epochs, and how many times as long the rival takes."""
    summary = []
    for name in dict.fromkeys(row["thief"] for row in rows):
        for epochs in EPOCHS:

            def median(field: str, thief: str, epochs: int = epochs) -> float:
                chosen = [row[field] for row in rows if row["thief"] == thief and row["epochs"] == epochs]
                return float(statistics.median(chosen))

            summary.append(
                {
                    "thief": name,
                    "epochs": epochs,
                    "seconds": round(median("seconds", name), 3),
                    "accuracy": round(median("accuracy", name), 4),
                    "rival_takes": round(median("seconds", "rival") / median("seconds", name), 2),
                }
            )
    return summary


if __name__ == "__main__":
    main()
