"""What copies keep of drawn answers: certified p-values of marked models, their copies, and innocent models.

    python benchmarks/drawn_answers.py --out results/drawn-answers.json

Embedded Fashion-MNIST, ``robust`` with the trigger ``groups`` as ``heirmark draft --quick`` sets it. For each victim's net and
seed a draft is registered, a beacon draws its answers, the model is marked, and thieves of each net copy it by probabilities
and by labels. Innocent models are clean ones of other seeds. Rows are kept as they come: run it again to go on.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from torch import nn

import heirmark as hm
from heirmark.files import atomic_write_json
from heirmark.jobs.drafting import grouped
from heirmark.keys.drawing import drawn_answers
from heirmark.keys.registration import digest, register
from heirmark.keys.shards import commitment_to, cut
from heirmark.keys.signing import Signer
from heirmark.profiles import QUICK
from heirmark.runtime import derive_seed
from heirmark.tasks.task import Task
from provenance import provenance

NETS = {"NaiveNet": "naivenet:batch_norm=true", "VGG-like": "vgg-like:width=16", "ResNet-18": "resnet18:width=8"}
ANSWERS: tuple[Literal["probabilities", "label"], ...] = ("probabilities", "label")


def measure(task: Task, victim: str, seed: int, runtime: hm.Runtime) -> list[dict[str, Any]]:
    """Rows of one victim and seed."""
    method = replace(grouped(QUICK.method("robust")), model=NETS[victim])
    unmarked = replace(QUICK.unmarked(), model=NETS[victim])
    clean = unmarked.train(task, seed=seed, runtime=runtime)
    key = method.draft(task, clean, seed=seed, runtime=runtime)
    registration = register(
        signer=Signer(bytes(32)), commitment=commitment_to(cut(key, 1, drawn=True), drawn=True), nonce=key.nonce,
        method=key.method, family=key.kind, beacon="the seed of this benchmark", made=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    beacon = f"seed {seed}"
    targets = drawn_answers(digest(registration), beacon, key.lots.options)
    marked = replace(method, trigger=replace(method.trigger, targets=targets))(
        task, seed=seed, runtime=runtime, clean=clean
    )
    rows = []

    def judge(model: nn.Module, what: str, net: str, answers: str = "") -> None:
        verdict = hm.verify_drawn(
            hm.Suspect.from_module(model, classes=10, runtime=runtime), marked.key, registration, beacon
        )
        rows.append({
            "victim": victim, "seed": seed, "suspect": what, "net": net, "answers": answers,
            "accuracy": round(hm.accuracy(model, task.test, runtime=runtime), 4), "wsr": round(verdict.hits / verdict.trials, 4),
            "right": verdict.right, "groups": verdict.groups, "p_value": verdict.p_value, "e_value": verdict.e_value,
            "outcome": verdict.outcome,
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)

    judge(clean, "clean model", victim)
    judge(marked.model, "marked model", victim)
    for thief in NETS:
        for answers in ANSWERS:
            box = hm.BlackBox(marked.model, classes=10, api=hm.Api(answers=answers, budget=50_000), runtime=runtime)
            attack = hm.Knockoff(model=NETS[thief], recipe=QUICK.recipe)
            judge(
                attack(box, task.adversary, seed=derive_seed(seed, "thief", thief), runtime=runtime).model,
                "copy",
                thief,
                answers,
            )
    for index, net in enumerate(NETS):
        other = replace(unmarked, model=NETS[net]).train(
            task, seed=derive_seed(seed, "innocent", index), runtime=runtime
        )
        judge(other, "innocent model", net)
    return rows


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--victims", nargs="+", default=list(NETS), choices=list(NETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    runtime = hm.Runtime(device="cpu", precision="bfloat16")
    rows: list[dict[str, Any]] = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    for seed in options.seeds:
        for victim in options.victims:
            if any((row["victim"], row["seed"]) == (victim, seed) for row in rows):
                continue
            task = hm.load_task("fashion-mini", seed=seed)
            rows += measure(task, victim, seed, runtime)
            atomic_write_json(options.out, {**provenance(runtime), "data": QUICK.data, "rows": rows})


if __name__ == "__main__":
    main()
