"""The demo over several seeds: mean, spread and worst of every row, and how long it took.

    python benchmarks/demo_seeds.py --seeds 0 1 2 --out results/demo.json
    python benchmarks/demo_seeds.py --full --seeds 0 --out results/demo-full.json

Each seed draws its own splits, models, thieves and key. A seed's folder under --runs is a demo like any other: finished
stages in it are not computed again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from heirmark.pipeline.demo import run_demo

from heirmark.console import Bars
from heirmark.files import atomic_write_json
from heirmark.report import rows_to_json
from provenance import provenance
from summary import figures, grouped


def summarise(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a suspect: figures over seeds."""
    return [
        {
            "suspect": suspect,
            "answers": answers,
            **figures(members, inherits=members[0]["inherits"]),
            "control_rate_mean": round(statistics.mean(row["control_rate"] for row in members), 4),
        }
        for (suspect, answers), members in grouped(found, lambda row: (row["suspect"], row["answers"])).items()
    ]


def main() -> None:
    """Run, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--precision", default="auto", help="auto, float32 or bfloat16")
    parser.add_argument("--runs", type=Path, default=Path("runs/demo-seeds"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    seconds = {}
    with Bars() as bars:
        for seed in options.seeds:
            folder = options.runs / f"{'full-' if options.full else ''}{seed}"
            result = run_demo(
                folder,
                full=options.full,
                seed=seed,
                precision=options.precision,
                progress=bars.progress,
                on_event=bars.event,
            )
            rows += [{"seed": seed, **row} for row in rows_to_json(result.rows)]
            seconds[str(seed)] = json.loads((folder / "run.json").read_text())["training_seconds"]
    record = {
        **provenance(),
        "training_seconds": seconds,
        "summary": summarise(rows),
        "rows": rows,
    }
    if options.out:
        atomic_write_json(options.out, record)
    print(json.dumps(record["summary"], indent=2))


if __name__ == "__main__":
    main()
