"""What a researcher does: every watermark against every attack, over seeds."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heirmark.commands.executing import Spread, as_typed, executor, print_report
from heirmark.commands.options import FAILURE, MARKED, Training, guarded, print_json
from heirmark.console import error_line, show

if TYPE_CHECKING:
    from heirmark.grids.bench import BenchResult
    from heirmark.grids.grid import Grid


@guarded
def bench(
    recipe: Annotated[str, typer.Argument(help="FILE.py:FUNCTION, which returns a grid; see recipes/.")] = "",
    scale: Annotated[
        str, typer.Option("--scale", help="cpu: small data and nets; paper: the paper's nets, data and epochs.")
    ] = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder of the results; run again to resume. Default: runs/bench-NAME, at another scale than cpu "
            "runs/bench-NAME-SCALE, and for a part, or parts put together, a folder in it.",
        ),
    ] = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", help="In place of the recipe's; may be repeated.", min=0)
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A part of a watermark's name; may be repeated.")
    ] = None,
    blocks: Annotated[
        list[str] | None, typer.Option("--block", help="A part of a block's name; may be repeated.")
    ] = None,
    trials: Annotated[
        list[str] | None,
        typer.Option(
            "--trial",
            help="A part of the name of a trial, which leaves out probes; may be repeated. The model itself is always judged.",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", help="Finished stages: a folder, or a URL (s3://..., gs://..., file:///...). Default: in --out."
        ),
    ] = None,
    as_list: Annotated[bool, typer.Option("--list", help="List the recipes of the file, and run none.")] = False,
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", help="Folder of event files for histories and figures.")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option("--mlflow", help="Tracking URI of MLflow, for histories and figures.")
    ] = None,
    rows: Annotated[
        list[Path] | None,
        typer.Option(
            "--rows",
            help="Folder of a run of some seeds or watermarks; repeated, such runs are put together into one report, "
            "and nothing is computed.",
        ),
    ] = None,
    glance: Annotated[
        bool, typer.Option("--glance", help="Print what --rows holds as one small Markdown table a block, and no more.")
    ] = False,
    *,
    spread: Spread,
    run: Training,
) -> int:
    """Run a recipe: tasks, watermarks, attacks and seeds; write rows and a report. What was finished is kept."""
    from heirmark.errors import BadConfig
    from heirmark.grids import select, tracking
    from heirmark.grids.bench import run_bench
    from heirmark.grids.recipes import described, load_grid, names_file_only
    from heirmark.grids.settings import Contexts

    if glance:
        return _glance(rows or [])
    if not recipe:
        raise BadConfig("name a recipe, FILE.py:FUNCTION, or a file of recipes to list them")
    parts = {"--seed": seeds, "--only": only, "--block": blocks, "--trial": trials}
    shares = {f"--{name.replace('_', '-')}": value for name, value in vars(spread).items()}
    given: dict[str, object] = {**parts, "--store": store, **shares}
    given |= {"--tensorboard": tensorboard, "--mlflow": mlflow, "--compile": run.compiled, "--data-root": run.data_root}
    given |= {name: value != "auto" for name, value in (("--device", run.device), ("--precision", run.precision))}
    computing = [name for name, value in given.items() if value is not None and value is not False and value != []]
    if as_list or names_file_only(recipe):
        if not as_list and (computing or out or rows):
            raise BadConfig(f"{recipe} has several recipes: choose one of {', '.join(described(recipe))}")
        _list(described(recipe), run.as_json)
        return MARKED
    if rows:
        return _join(recipe, scale, rows, out, computing, run.as_json)
    # Before anything is computed, so that what is missing is said at once.
    trackers = [tracking.tensorboard(tensorboard)] if tensorboard else []
    trackers += [tracking.mlflow(mlflow)] if mlflow else []
    grid = select(load_grid(recipe, scale), only or [], seeds or [], blocks=blocks or [], trials=trials or [])
    code = Path(recipe if recipe.endswith(".py") else recipe.rpartition(":")[0]).resolve().parent
    execute, facts, shared = executor(code, spread)
    said = as_typed(parts)
    whole = folder_of(grid, scale)
    # A part shares the whole's stages, but must not take the place of its report.
    store = store or (None if out else str(whole / "stages"))
    out = out or (whole / "parts" / part_name(said) if said else whole)
    with run.bars() as bars:
        runtime = run.runtime(bars)
        result = run_bench(
            grid,
            out,
            contexts=Contexts(runtime, run.data_root),
            # Where things lie is left out: the report may go to others.
            command=shlex.join(["heirmark", "bench", recipe, "--scale", scale, *runtime.options(), *shared, *said]),
            store=store,
            execute=execute,
            facts=facts,
            on_event=bars.event,
            trackers=trackers,
        )
    return _tell(result, run.as_json)


def _glance(folders: Sequence[Path]) -> int:
    """Print the rows of runs as matrices."""
    from heirmark.errors import BadConfig
    from heirmark.grids.parts import ROWS
    from heirmark.report.sections.glance import glance_markdown
    from heirmark.results.rows import read_rows

    if not folders:
        raise BadConfig("--glance shows rows that are there: name their folder with --rows")
    print(glance_markdown([row for folder in folders for row in read_rows(folder / ROWS)]), end="")
    return MARKED


def _join(
    recipe: str, scale: str, folders: Sequence[Path], out: Path | None, computing: Sequence[str], as_json: bool
) -> int:
    """Put parts of a grid together."""
    from heirmark.errors import BadConfig
    from heirmark.grids.bench import join_bench
    from heirmark.grids.recipes import load_grid

    if computing:
        raise BadConfig(f"--rows puts together what was computed: leave out {', '.join(computing)}")
    grid = load_grid(recipe, scale)
    command = shlex.join(["heirmark", "bench", recipe, *as_typed({"--scale": scale, "--rows": list(folders)})])
    return _tell(join_bench(grid, out or folder_of(grid, scale) / "joined", folders, command=command), as_json)


def folder_of(grid: Grid, scale: str) -> Path:
    """Where a recipe's results go unless one says otherwise."""
    return Path("runs") / f"bench-{grid.name}{'' if scale == 'cpu' else f'-{scale}'}"


def _tell(result: BenchResult, as_json: bool) -> int:
    """Print what was found, and what a reader must know of it; returns the exit code."""
    from heirmark.results.summary import summary_to_json

    if as_json:
        print_json([summary_to_json(figures) for figures in result.summary])
    else:
        print_report(result.report)
        out = result.page.parent
        show(
            f"Report: {result.page}   Tables: {out / 'tables.md'}\nRows: {out / 'rows.jsonl'}   Figures: {out / 'bench.json'}"
        )
    for note in result.report.notes:
        error_line(note)
    # A cell that fails among others is a row, and a failure only where no cell has a result.
    return FAILURE if result.untold or all(row.error for row in result.rows) else MARKED


def part_name(words: Sequence[str]) -> str:
    """Options as the name of a folder; a long one is cut, and told from others by a digest."""
    name = re.sub(r"\W+", "-", " ".join(words)).strip("-")
    digest = hashlib.sha256(shlex.join(words).encode()).hexdigest()[:12]
    return name if len(name) <= 100 else f"{name[:80]}-{digest}"


def _list(recipes: Mapping[str, str], as_json: bool) -> None:
    if as_json:
        print_json(dict(recipes))
        return
    width = max(map(len, recipes))
    for name, line in recipes.items():
        show(f"{name:<{width}}  {line}")
