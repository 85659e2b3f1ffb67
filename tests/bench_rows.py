"""Rows made by hand, as a grid of four watermarks, five trials and three seeds would give them."""

from __future__ import annotations

import random
from dataclasses import replace

from heirmark.grids import Block, Grid, Marking, Published, Workload
from heirmark.methods import Unmarked, Vanilla
from heirmark.results.probes import Exposed, Screened
from heirmark.results.rows import Brief, Row
from heirmark.work.trials import Trial

SEEDS = (0, 1, 2)
VANILLA = Vanilla()
UNMARKED = Unmarked()
STRENGTH = {"vanilla": 0.02, "MEA-Defender": 0.4, "DeepTracer": 0.6, "T2S": 0.93}
TRIALS = {
    "": ("", 1.0),
    "Knockoff, probabilities": ("Extraction", 0.95),
    "Knockoff, labels": ("Extraction", 0.7),
    "fine-tuning, all layers": ("Removal", 0.9),
    "transfer": ("Removal", 0.6),
    "steal, then prune half": ("Chains", 0.5),
}
RATES = (0.1, 0.3, 0.5, 0.7, 0.9)
WEIGHTS = (1.0, 10.0, 50.0, 200.0)
PAIRS = ("shirt", "bag", "boot")
CURVE = "T2S, Mix, λ"


def grid() -> Grid:
    """What the rows would be of."""
    markings = (
        *(Marking(name=name, method=VANILLA) for name in STRENGTH),
        *(Marking(name=f"{CURVE} = {weight:g}", method=VANILLA, curve=("λ", weight)) for weight in WEIGHTS),
        *(Marking(name=f"{a} to {b}", method=VANILLA, cell=(a, b)) for a in PAIRS for b in PAIRS if a != b),
    )
    return Grid(
        name="by-hand",
        title="Watermarks against theft and removal",
        note="Settings of a study, not the papers': 6 epochs where a method trains once.",
        blocks=(
            Block(
                name="Fashion-MNIST, NaiveNet",
                workload=Workload(data="fashion-mini", pools=("cifar10",)),
                markings=markings,
                trials=(
                    *(Trial(name=name, group=group, steps=()) for name, (group, _) in TRIALS.items() if name),
                    *(
                        Trial(name=f"pruning {rate:g}", group="Pruning", steps=(), curve=("pruning rate", rate))
                        for rate in RATES
                    ),
                ),
                unmarked=UNMARKED,
                calibrators=(UNMARKED,),
            ),
        ),
        seeds=SEEDS,
        papers=(
            Published(
                source="T2S, Table II, CIFAR-10", marking="T2S", trial="Knockoff, labels", accuracy=0.82, wsr=0.976
            ),
            Published(source="T2S, Table I, CIFAR-10", marking="T2S", accuracy=0.895, wsr=1.0),
            Published(source="DeepTracer, Table 1", marking="DeepTracer", accuracy=0.915, wsr=1.0),
        ),
    )


def rows() -> list[Row]:
    """Verdicts, curves, heat maps, probes; two of the runs failed, one copy has collapsed."""
    draw = random.Random(5)
    block = grid().blocks[0]
    made: list[Row] = []

    def pair(row: Row, accuracy: float, wsr: float) -> None:
        accuracy, wsr = (min(1.0, max(0.0, rate + draw.uniform(-0.02, 0.02))) for rate in (accuracy, wsr))
        said = Brief(outcome="MARKED" if wsr > 0.2 else "NOT_ESTABLISHED", wsr=wsr, p_value=1e-9 if wsr > 0.2 else 0.6)
        marked = replace(
            row, accuracy=accuracy, verdict=said, asked=9000 if row.trial else 0,
            seconds=draw.uniform(2, 200) if row.trial else float("nan"),
        )  # fmt: skip
        free = Brief(outcome="NOT_ESTABLISHED", wsr=draw.uniform(0, 0.03), p_value=0.8)
        control = replace(row, arm="unmarked", accuracy=accuracy, verdict=free)
        made.extend((marked, replace(control, stage=row.stage[:-1] + "f")))

    for seed in SEEDS:
        for marking in block.markings:
            strength = STRENGTH.get(marking.name, 0.8)
            base = Row(
                block=block.name, marking=marking.name, arm="marked", seed=seed, curve=marking.curve, square=marking.cell,
                stage="verify/0123456789abcde0",
            )  # fmt: skip
            if marking.curve:
                strength = 1 / (1 + marking.curve[1] / 100)
            for name, (group, factor) in list(TRIALS.items())[: None if marking.name in STRENGTH else 2]:
                pair(replace(base, trial=name, group=group), 0.88, strength * factor if name else max(strength, 0.97))
            if marking.name in STRENGTH:
                for rate in RATES:
                    point = replace(base, trial=f"pruning {rate:g}", group="Pruning", curve=("pruning rate", rate))
                    pair(point, 0.88 - 0.7 * rate**6, strength * (1 - rate**3))
                for arm in ("marked", "unmarked"):
                    probe = replace(base, arm=arm, probe="Neural Cleanse", stage="expose/0123456789abcde0")
                    found = Exposed(found=seed == 1 and arm == "marked", false_suspects=seed)
                    made.append(replace(probe, search=found))
                screened = Screened(detected=0.31, flagged=0.05)
                probe = replace(base, probe="local outliers", stage="screen/0123456789abcde0", screen=screened)
                pair(probe, 0.84, strength * 0.7)
    failed = "a loss became inf in epoch 1: lower learning_rate"
    for place, row in enumerate(made):
        if row.marking == "vanilla" and row.trial == "transfer":
            made[place] = Row(
                block=row.block, marking=row.marking, trial=row.trial, group=row.group, arm=row.arm, seed=row.seed, error=failed,
                stage=row.stage,
            )  # fmt: skip
    first = next(
        place
        for place, row in enumerate(made)
        if (row.marking, row.trial, row.seed, row.arm) == ("DeepTracer", "transfer", 1, "marked")
    )
    row = made[first]
    made[first] = Row(
        block=row.block, marking=row.marking, trial=row.trial, group=row.group, arm=row.arm, seed=row.seed, error=failed
    )
    alarm = next(place for place, row in enumerate(made) if row.arm == "unmarked" and row.marking == "MEA-Defender")
    made[alarm] = replace(made[alarm], verdict=Brief(outcome="MARKED", wsr=0.31, p_value=0.8))
    collapsed = next(
        place
        for place, row in enumerate(made)
        if (row.marking, row.trial, row.seed, row.arm) == ("MEA-Defender", "transfer", 2, "marked")
    )
    made[collapsed] = replace(
        made[collapsed],
        accuracy=0.1,
        verdict=Brief(outcome="INVALID", reason="the suspect answers everything alike", wsr=0.0),
    )
    return made
