"""What a researcher does: every watermark against every attack, over seeds."""

from __future__ import annotations

import functools
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heirmark.commands.options import MARKED, DataRoot, Device, Json, Precision, bars_for, guarded, print_json
from heirmark.console import show

if TYPE_CHECKING:
    from heirmark.bench.bench import Executor


@guarded
def bench(
    recipe: Annotated[str, typer.Argument(help="FILE.py:FUNCTION, which returns a grid; see recipes/.")],
    scale: Annotated[
        str, typer.Option("--scale", help="cpu: small data and nets; paper: the paper's nets, data and epochs.")
    ] = "cpu",
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the results; run again to resume. Default: runs/bench-NAME.")
    ] = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", help="In place of the recipe's; may be repeated.", min=0)
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A part of a watermark's name; may be repeated.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", help="Finished stages: a folder, or a URL (s3://..., gs://..., file:///...). Default: in --out."
        ),
    ] = None,
    ray: Annotated[
        str | None, typer.Option("--ray", help="Run stages at once on Ray: local, or the address of a cluster.")
    ] = None,
    ray_cpus: Annotated[float, typer.Option("--ray-cpus", help="CPUs, and threads, of a stage on Ray.")] = 1.0,
    ray_gpus: Annotated[
        float, typer.Option("--ray-gpus", help="GPUs of a stage on Ray; 0.5 lets two stages share one.")
    ] = 0.0,
    device: Device = "auto",
    precision: Precision = "auto",
    data_root: DataRoot = None,
    as_json: Json = False,
) -> int:
    """Run a recipe: tasks, watermarks, attacks and seeds; write rows and a report. What was finished is kept."""
    from heirmark.bench import select
    from heirmark.bench.bench import run_bench
    from heirmark.bench.recipes import load_grid
    from heirmark.bench.rows import to_plain
    from heirmark.bench.settings import Contexts

    grid = select(load_grid(recipe, scale), only or [], seeds or [])
    out = out or Path("runs") / f"bench-{grid.name}"
    execute, facts = _executor(recipe, ray, ray_cpus, ray_gpus)
    said = [word for seed in seeds or [] for word in ("--seed", str(seed))]
    said += [word for name in only or [] for word in ("--only", name)]
    with bars_for(as_json) as bars:
        result = run_bench(
            grid,
            out,
            contexts=Contexts(bars.runtime(device, precision), data_root),
            command=shlex.join(["heirmark", "bench", recipe, "--scale", scale, *said]),
            store=store,
            execute=execute,
            facts=facts,
            on_event=bars.event,
        )
    if as_json:
        print_json([to_plain(figures) for figures in result.summary])
        return MARKED
    show(f"Rows: {out / 'rows.jsonl'}   Figures: {out / 'bench.json'}")
    return MARKED


def _executor(recipe: str, ray: str | None, cpus: float, gpus: float) -> tuple[Executor, dict[str, str]]:
    """Where stages run, and what is to be said of that."""
    if ray is None:
        from heirmark.bench.running import run_here

        return run_here, {}
    from heirmark.bench.on_ray import run_on_ray, threads_for

    folder = Path(recipe if recipe.endswith(".py") else recipe.rpartition(":")[0]).resolve().parent
    facts = {"threads": str(threads_for(cpus)), "ray": f"{cpus:g} CPUs, {gpus:g} GPUs a stage"}
    return functools.partial(run_on_ray, address=ray, cpus=cpus, gpus=gpus, code=folder), facts
