"""What a newcomer does: watch a mark survive a theft."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from heirmark.commands.executing import Spread, as_typed, executor, print_report
from heirmark.commands.options import MARKED, Run, guarded, print_json
from heirmark.console import show
from heirmark.errors import BadConfig


@guarded
def demo(
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the results; run again to resume. Default: runs/demo[-full]."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Full Fashion-MNIST, longer training.")] = False,
    space: Annotated[
        Literal["image", "sound", "text"],
        typer.Option(
            "--space", help="What the models are given: clothes in pictures, made-up sounds or made-up texts."
        ),
    ] = "image",
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            help="Show these too, with commas: t2s, mea-defender, deeptracer, or other methods by name. Minutes each.",
        ),
    ] = "",
    seeds: Annotated[
        list[int] | None,
        typer.Option(
            "--seed", help="Of everything random. Default: 0; may be repeated, for figures over seeds.", min=0
        ),
    ] = None,
    *,
    spread: Spread,
    run: Run,
) -> int:
    """Watermark, steal, prove: the main job on embedded data, in minutes on a CPU."""
    from rich.console import Console

    from heirmark import profiles
    from heirmark.grids.demo import demo_grid, plain_rows, run_demo
    from heirmark.grids.settings import Contexts
    from heirmark.report.demo_story import suspect_of
    from heirmark.report.terminal import suspect_table

    execute, facts, shared = executor(Path.cwd(), spread)
    named = tuple(dict.fromkeys(name.strip() for name in methods.split(",") if name.strip()))
    if full and space != "image":
        raise BadConfig(
            f"--full is of Fashion-MNIST, and --space {space} has made-up data of one size: leave one of them out"
        )
    profile = {"image": profiles.FULL if full else profiles.QUICK, "sound": profiles.CHIRPS, "text": profiles.SENTENCES}
    grid = demo_grid(profile[space], seeds=tuple(seeds or [0]), methods=named)
    out = out or Path("runs/demo" + "-full" * full + f"-{space}" * (space != "image"))
    of = None if space == "image" else space
    said = ["--full"] * full + as_typed({"--space": of, "--methods": ",".join(named) or None, "--seed": grid.seeds})
    with run.bars() as bars:
        runtime = run.runtime(bars)
        result = run_demo(
            grid,
            out,
            contexts=Contexts(runtime, run.data_root),
            command=shlex.join(["heirmark", "demo", *said, *runtime.options(), *shared]),
            execute=execute,
            facts=facts,
            on_event=bars.event,
        )
    if run.as_json:
        print_json(plain_rows(result.rows))
        return MARKED
    if result.report is not None:
        print_report(result.report)
    else:
        Console().print(suspect_table([suspect_of(row) for row in result.rows]))
        for line in result.summary:
            show(line)
    show(f"Results: {out / 'results.json'}   Report: {out / 'report.html'}")
    return MARKED
