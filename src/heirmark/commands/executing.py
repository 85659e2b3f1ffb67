"""Where the stages of a grid run: options that bench, demo and audit share."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heirmark.console import show
from heirmark.errors import BadConfig

if TYPE_CHECKING:
    from heirmark.grids.run import Executor
    from heirmark.report.section import Report


@dataclass(frozen=True)
class Spread:
    """Whether stages run on Ray, ``"local"`` or at an address, and with how many CPUs and GPUs each; None for here, in turn."""

    ray: Annotated[
        str | None, typer.Option("--ray", help="Run stages at once on Ray: local, or the address of a cluster.")
    ] = None
    ray_cpus: Annotated[
        float | None, typer.Option("--ray-cpus", help="CPUs, and threads, of a stage on Ray. Default: 1.")
    ] = None
    ray_gpus: Annotated[
        float | None,
        typer.Option("--ray-gpus", help="GPUs of a stage on Ray; 0.5 lets two stages share one. Default: 0."),
    ] = None


def executor(code: Path, spread: Spread) -> tuple[Executor, dict[str, str], list[str]]:
    """Where stages run, what is to be said of that, and the options that give each as many threads elsewhere.

    ``code`` is the folder of the user's own modules.

    Raises:
        BadConfig: when there are shares but no Ray to give them.
    """
    ray, cpus, gpus = spread.ray, spread.ray_cpus, spread.ray_gpus
    if ray is None:
        from heirmark.grids.executors.here import run_here

        if cpus is not None or gpus is not None:
            raise BadConfig("--ray-cpus and --ray-gpus are for stages on Ray: give --ray local or an address, too")
        return run_here, {}, []
    from heirmark.grids.executors.on_ray import LOCAL, check_share, run_on_ray, threads_for

    cpus, gpus = 1.0 if cpus is None else cpus, 0.0 if gpus is None else gpus
    check_share(cpus, gpus)
    where = "" if ray == LOCAL else "; the processor is that of the machine that started it"
    facts = {"threads": str(threads_for(cpus)), "ray": f"{cpus:g} CPUs, {gpus:g} GPUs a stage{where}"}
    shared = ["--ray", LOCAL]
    shared += ["--ray-cpus", f"{cpus:g}"] * (cpus != 1) + ["--ray-gpus", f"{gpus:g}"] * (gpus != 0)
    return functools.partial(run_on_ray, address=ray, cpus=cpus, gpus=gpus, code=code), facts, shared


def as_typed(options: Mapping[str, object]) -> list[str]:
    """Options as words of a command line: one that has several values is repeated, one that has none is left out."""
    pairs = [
        (name, value)
        for name, given in options.items()
        for value in (given if isinstance(given, (list, tuple)) else [given])
    ]
    return [word for name, value in pairs if value is not None for word in (name, str(value))]


def print_report(report: Report) -> None:
    """The tables of a grid for the terminal, and what they say in sentences."""
    from rich.console import Console

    from heirmark.report.terminal import probe_table, verdict_table

    console = Console()
    for chapter in (chapter for chapter in report.chapters if chapter.rows):
        console.print(verdict_table(chapter.name, chapter.rows))
        probes = probe_table(chapter.rows)
        if probes is not None:
            console.print(probes)
    rows = [row for chapter in report.chapters for row in chapter.rows]
    points = sum(row.curve is not None or row.square is not None for row in rows)
    drawn = [f"{points} points of curves and heat maps stand in the report."] if points else []
    show(" ".join([*report.summary, *drawn]))
