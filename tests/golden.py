"""A tiny grid, demo and audit, and all figures that they give: what a rebuilt house must compute as before.

``python tests/golden.py`` records them in ``golden.json`` (float32, one thread). Rounding is a processor's own, so the record
says on which it was made.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

RECORD = Path(__file__).with_name("golden.json")


FIGURES = (
    "block", "marking", "trial", "group", "probe", "arm", "seed", "curve", "accuracy", "wsr", "p_value", "outcome", "reason",
    "control_rate", "wfpr", "asked", "found", "false_suspects", "detected", "error",
)  # fmt: skip
"""Of a row of a grid."""


def machine() -> dict[str, str]:
    """What rounding depends on."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "torch": torch.__version__,
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "processor": names[0].partition(":")[2].strip() if names else "",
    }


def commitments(store: Path) -> list[str]:
    """Of the keys of all marked models in a store."""
    return sorted(json.loads(found.read_text())["commitment"] for found in store.glob("embed/*/key/key.json"))


def grid_figures(folder: Path) -> dict[str, Any]:
    """Rows and tables of a grid with every kind of cell."""
    from heirmark.attacks import Knockoff, LocalOutliers, MixProbing, Pruning
    from heirmark.grids import Block, Grid, Marking, Published, Workload
    from heirmark.grids.bench import run_bench
    from heirmark.grids.settings import Contexts
    from heirmark.methods import T2S, Unmarked, Vanilla
    from heirmark.querying.blackbox import Api
    from heirmark.rehearsal.settings import Balanced, Rehearsal
    from heirmark.runtime import Runtime
    from heirmark.training.fitting import Recipe
    from heirmark.triggers import Mix
    from heirmark.work.altering import Alteration
    from heirmark.work.stealing import Theft
    from heirmark.work.trials import Probe, Trial

    net, recipe = "naivenet:width=4,hidden=16,batch_norm=true", Recipe(epochs=2, batch_size=32, learning_rate=0.05)
    common = {"model": net, "trigger": Mix(), "key_size": 40, "pretraining": recipe}
    theft = Theft(attack=Knockoff(model=net, recipe=recipe), api=Api(answers="label"))
    marking = {"triggers": 40, "trigger_batch": 8}
    rehearsal = Rehearsal(
        recipe=Recipe(epochs=1, batch_size=32, learning_rate=0.02, weight_decay=0.0), trigger_batch=8, update=Balanced()
    )
    unmarked = Unmarked(**common)  # type: ignore[arg-type]
    grid = Grid(
        name="golden",
        title="A tiny grid",
        blocks=(
            Block(
                name="shapes",
                workload=Workload(data="own_code:make_task"),
                markings=(
                    Marking(name="joint", method=Vanilla(**common, **marking)),  # type: ignore[arg-type]
                    Marking(name="T2S", method=T2S(**common, **marking, rehearsal=rehearsal)),  # type: ignore[arg-type]
                ),
                trials=(
                    Trial(name="Knockoff", group="Extraction", steps=(theft,)),
                    Trial(name="pruned", group="Removal", steps=(Alteration(attack=Pruning(rate=0.5)),)),
                ),
                probes=(
                    Probe(name="probing", attack=MixProbing()),
                    Probe(name="outliers", attack=LocalOutliers(samples=60, neighbours=5)),
                ),
                unmarked=unmarked,
                calibrators=(unmarked, unmarked),
            ),
        ),
        seeds=(0, 1),
        papers=(Published(source="nobody's Table 1", marking="joint", trial="Knockoff", wsr=0.5),),
    )
    runtime = Runtime(device="cpu", precision="float32")
    result = run_bench(grid, folder, contexts=Contexts(runtime), command="golden")
    rows = [
        {name: getattr(row, name) for name in FIGURES} | {"cell": row.square, "false_alarms": row.flagged}
        for row in result.rows
    ]
    tables = [line for line in (folder / "tables.md").read_text().splitlines() if line.startswith("|")]
    return {"rows": rows, "tables": tables, "keys": commitments(folder / "stages")}


def demo_figures(folder: Path) -> dict[str, Any]:
    """Rows of a demo, and the commitments of its keys."""
    import own_code
    from heirmark.grids.demo import demo_grid, run_demo
    from heirmark.grids.settings import Contexts
    from heirmark.runtime import Runtime

    contexts = Contexts(Runtime(device="cpu", precision="float32"))
    run_demo(demo_grid(own_code.demo_profile()), folder, contexts=contexts, command="golden")
    rows = [
        {name: value for name, value in row.items() if name != "stage"}
        for row in json.loads((folder / "results.json").read_text())
    ]
    return {"rows": rows, "keys": commitments(folder / "stages")}


def audit_figures(folder: Path) -> dict[str, Any]:
    """Rows of an audit, an attack and what it does to the twin in one."""
    import own_code
    from heirmark.attacks import FineTuning, Knockoff, MixProbing, Pruning, Quantisation
    from heirmark.configuration import to_json
    from heirmark.grids.audit import run_audit
    from heirmark.grids.programme import Programme
    from heirmark.grids.settings import Contexts
    from heirmark.jobs.embed import embed_job
    from heirmark.jobs.folder import Data, ModelFolder, Origin
    from heirmark.jobs.means import Work
    from heirmark.methods import Vanilla
    from heirmark.runtime import Runtime
    from heirmark.training.fitting import Recipe
    from heirmark.triggers import Mix
    from heirmark.work.altering import Alteration
    from heirmark.work.stealing import Theft
    from heirmark.work.trials import Probe, Trial

    net, recipe = "naivenet:width=4,hidden=16,batch_norm=true", Recipe(epochs=4, batch_size=32, learning_rate=0.05)
    method = Vanilla(model=net, trigger=Mix(), triggers=40, key_size=60, trigger_batch=8, pretraining=recipe)
    data = Data(task=own_code.make_task(), origin=Origin(data="own_code:make_task"))
    work = Work(seed=0, runtime=Runtime(device="cpu", precision="float32"), store=folder / "store")
    embed_job(method, data, folder / "marked", work, calibrators=2)
    theft = Theft(attack=Knockoff(model=net, recipe=recipe))
    tuning = FineTuning(recipe=Recipe(epochs=1, batch_size=32, learning_rate=0.01))
    programme = Programme(
        trials=(
            Trial(name="Knockoff", group="Extraction", steps=(theft,)),
            Trial(name="tuned", group="Removal", steps=(Alteration(attack=tuning),)),
            Trial(name="two bits", group="Removal", steps=(Alteration(attack=Quantisation(bits=2)),)),
            *(
                Trial(
                    name=f"pruned {rate}",
                    group="Removal",
                    steps=(Alteration(attack=Pruning(rate=rate)),),
                    curve=("pruning rate", rate),
                )
                for rate in (0.5, 0.9)
            ),
        ),
        probes=(Probe(name="probing", attack=MixProbing()),),
    )
    result = run_audit(
        programme,
        ModelFolder(folder / "marked"),
        data,
        folder / "out",
        seed=0,
        contexts=Contexts(work.runtime),
        command="golden",
    )
    report = result.report
    rows = []
    for trial in report.chapters[0].rows:
        if trial.kind != "verdict":
            continue
        mine, twin = trial.rows
        assert mine.whole is not None
        assert twin.whole is not None
        figures = {"name": trial.trial or "no attack", "group": mine.group or "The models", "curve": mine.curve}
        figures |= {"accuracy": mine.accuracy, "wsr": mine.whole.wsr, "p_value": mine.whole.p_value}
        figures |= {"outcome": mine.outcome, "queries": mine.asked, "error": mine.error, "twin_error": twin.error}
        rows.append(
            figures | {"twin_accuracy": twin.accuracy, "twin_wsr": twin.whole.wsr, "twin_outcome": twin.outcome}
        )
    inspections = [
        {
            "name": row.probe,
            "model": "marked model" if row.marked else "unmarked twin",
            "suspects": [data.task.classes[label] for label in row.search.suspects],
            "found": row.search.found,
            "false_suspects": row.search.false_suspects,
            "reversed_success": max((share for _, share in row.search.reversed_success), default=None),
            "error": row.error,
        }
        for row in result.rows
        if row.search
    ]
    told: Any = to_json(programme)
    told |= {"inspections": told.pop("probes"), "screenings": []}
    results = {"rows": rows, "inspections": inspections, "screens": [], "summary": report.summary, "programme": told}
    return {"results": results, "keys": commitments(folder / "store")}


VOLATILE = {"seconds", "date", "versions", "command", "provenance", "machine"}


def steady(value: Any) -> Any:
    """A value without what differs from run to run; what is not a number becomes text, as JSON has none."""
    if isinstance(value, dict):
        return {name: steady(item) for name, item in value.items() if name not in VOLATILE}
    if isinstance(value, list | tuple):
        return [steady(item) for item in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def figures() -> dict[str, Any]:
    """All of them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            made = {
                "grid": grid_figures(Path(folder, "grid")),
                "demo": demo_figures(Path(folder, "demo")),
                "audit": audit_figures(Path(folder, "audit")),
            }
    finally:
        torch.set_num_threads(threads)
    plain: dict[str, Any] = json.loads(json.dumps(steady(made)))
    return plain


if __name__ == "__main__":
    goal = Path(sys.argv[1]) if sys.argv[1:] else RECORD
    goal.write_text(json.dumps({"machine": machine(), **figures()}, indent=1, sort_keys=True) + "\n")
