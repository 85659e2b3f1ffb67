"""What a researcher does: every watermark against every attack, over seeds."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from heirmark.commands.options import MARKED, DataRoot, Device, Json, Precision, bars_for, guarded, print_json
from heirmark.console import show


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
        Path | None, typer.Option("--store", help="Finished stages, which several grids may share. Default: in --out.")
    ] = None,
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
    said = [word for seed in seeds or [] for word in ("--seed", str(seed))]
    said += [word for name in only or [] for word in ("--only", name)]
    with bars_for(as_json) as bars:
        result = run_bench(
            grid,
            out,
            contexts=Contexts(bars.runtime(device, precision), data_root),
            command=shlex.join(["heirmark", "bench", recipe, "--scale", scale, *said]),
            store=store,
            on_event=bars.event,
        )
    if as_json:
        print_json([to_plain(figures) for figures in result.summary])
        return MARKED
    show(f"Rows: {out / 'rows.jsonl'}   Figures: {out / 'bench.json'}")
    return MARKED
