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

from heirmark.console import Bars
from heirmark.files import atomic_write_json
from heirmark.pipeline.demo import run_demo
from heirmark.report import rows_to_json
from provenance import provenance


def summarise(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a suspect: figures over seeds. The worst is the lowest for a copy of a marked model, else the highest."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found:
        groups.setdefault((row["suspect"], row["answers"]), []).append(row)
    summary = []
    for (suspect, answers), members in groups.items():
        accuracy, wsr = [row["accuracy"] for row in members], [row["wsr"] for row in members]
        inherits = members[0]["inherits"]
        summary.append(
            {
                "suspect": suspect,
                "answers": answers,
                "seeds": len(members),
                "accuracy_mean": round(statistics.mean(accuracy), 4),
                "accuracy_worst": round(min(accuracy), 4),
                "accuracy_spread": round(statistics.stdev(accuracy), 4) if len(members) > 1 else None,
                "wsr_mean": round(statistics.mean(wsr), 4),
                "wsr_spread": round(statistics.stdev(wsr), 4) if len(members) > 1 else None,
                "wsr_worst": round(min(wsr) if inherits else max(wsr), 4),
                "control_rate_mean": round(statistics.mean(row["control_rate"] for row in members), 4),
                "p_value_largest": max(row["p_value"] for row in members),
                "marked": sum(row["outcome"] == "MARKED" for row in members),
            }
        )
    return summary


def main() -> None:
    """Run, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--runs", type=Path, default=Path("runs/demo-seeds"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    seconds = {}
    with Bars() as bars:
        for seed in options.seeds:
            folder = options.runs / f"{'full-' if options.full else ''}{seed}"
            result = run_demo(folder, full=options.full, seed=seed, progress=bars.progress, on_event=bars.event)
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
