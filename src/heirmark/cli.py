"""The command line: parses, calls, prints.

Exit codes: 0 done, and for ``verify`` MARKED; 3 ``verify`` did not establish a mark; 2 bad usage or configuration; 1 failure,
an INVALID verdict among them; 130 interrupted.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console
from rich.table import Table

from heirmark.console import Bars, error_line
from heirmark.errors import BadConfig, HeirmarkError

MARKED, FAILURE, USAGE, NOT_ESTABLISHED, INTERRUPTED = 0, 1, 2, 3, 130

app = typer.Typer(
    help="Watermark a neural network so that stolen copies inherit the mark, and prove by queries alone that they did.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done or MARKED, 3 not established, 2 bad usage, 1 failure.",
)

P = ParamSpec("P")


def guarded(command: Callable[P, int]) -> Callable[P, None]:
    """End a command with its exit code; a known error is one line and never a traceback."""

    @functools.wraps(command)
    def run(*args: P.args, **options: P.kwargs) -> None:
        try:
            code = command(*args, **options)
        except KeyboardInterrupt:
            error_line("interrupted; run the same command again and it resumes")
            code = INTERRUPTED
        except HeirmarkError as error:
            error_line(str(error))
            code = USAGE if isinstance(error, BadConfig) else FAILURE
        except OSError as error:
            error_line(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
            code = FAILURE
        raise typer.Exit(code)

    return run


Out = Annotated[Path, typer.Option("--out", help="Folder to write; it must not exist yet, or be empty.")]
Data = Annotated[str, typer.Option("--data", help="Data set by name, or package.module:function that returns a Task.")]
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Folder of data sets; else $HEIRMARK_DATA, else ./data.")
]
Seed = Annotated[
    int, typer.Option("--seed", help="Seed of everything random; the same seed gives the same result.", min=0)
]
SplitSeed = Annotated[int, typer.Option("--split-seed", help="Seed of who gets which example.", min=0)]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:0 ...")]
Precision = Annotated[str, typer.Option("--precision", help="auto, float32 or bfloat16.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="field=value of the method or attack; 'heirmark fields NAME' lists them."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Model = Annotated[
    str | None, typer.Option("--model", help="name, name:option=value,... or package.module:factory of your own.")
]
StoreRoot = Annotated[
    Path,
    typer.Option(
        "--store", help="Where finished stages are kept, so that an interrupted run resumes.", envvar="HEIRMARK_STORE"
    ),
]


@app.command()
@guarded
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder of the results; run again to resume.")] = Path("runs/demo"),
    full: Annotated[bool, typer.Option("--full", help="Full Fashion-MNIST, longer training.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    data_root: DataRoot = None,
    as_json: Json = False,
) -> int:
    """Watermark, steal, prove: the main job on embedded data, in minutes on a CPU."""
    from heirmark.pipeline.demo import run_demo
    from heirmark.report import rows_to_json, table

    with Bars(quiet=as_json) as bars:
        result = run_demo(
            out,
            full=full,
            seed=seed,
            device=device,
            precision=precision,
            data_root=data_root,
            progress=bars.progress,
            on_event=bars.event,
        )
    if as_json:
        _print_json(rows_to_json(result.rows))
    else:
        console = Console()
        console.print(table(result.rows))
        for line in result.summary:
            console.print(line, highlight=False)
        console.print(
            f"Results: {out / 'results.json'}   Report: {out / 'report.html'}", highlight=False, soft_wrap=True
        )
    return MARKED


@app.command()
@guarded
def embed(
    out: Out,
    method: Annotated[str, typer.Option("--method", help="t2s, vanilla or unmarked.")] = "t2s",
    data: Data = "fashion-mini",
    model: Model = None,
    settings: Settings = None,
    calibrators: Annotated[
        int, typer.Option("--calibrators", help="Unmarked models trained to calibrate the test.", min=0)
    ] = 5,
    seed: Seed = 0,
    split_seed: SplitSeed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    data_root: DataRoot = None,
    store: StoreRoot = Path("runs/store"),
    as_json: Json = False,
) -> int:
    """Train a model with a watermark; write the model, its secret key and a calibration of the test."""
    from heirmark.configuration import apply_settings
    from heirmark.methods import METHODS
    from heirmark.pipeline.jobs import Origin, architecture_name, embed_job, load_named_task, user_object

    if method not in METHODS:
        raise BadConfig(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    config: Any = METHODS[method]()
    factory = user_object(model) if model is not None and _is_import(model) else None
    if model is not None:
        config = replace(config, model=factory or model)
    config = apply_settings(config, settings or [])
    task = load_named_task(data, seed=split_seed, root=data_root)
    with Bars(quiet=as_json) as bars:
        summary = embed_job(
            config,
            task,
            out,
            seed=seed,
            runtime=bars.runtime(device, precision),
            store=store,
            factory=factory,
            calibrators=calibrators,
            origin=Origin(data=data, split_seed=split_seed, model=architecture_name(config.model)),
            on_event=bars.event,
        )
    _print_facts(summary, as_json)
    return MARKED


@app.command()
@guarded
def steal(
    victim: Annotated[Path, typer.Argument(help="Folder of the victim, as embed wrote it.")],
    out: Out,
    attack: Annotated[str, typer.Option("--attack", help="knockoff.")] = "knockoff",
    answers: Annotated[
        str, typer.Option("--answers", help="What the victim gives away: probabilities, top-k or label.")
    ] = "probabilities",
    k: Annotated[int, typer.Option("--k", help="Of top-k.", min=1)] = 5,
    decimals: Annotated[
        int | None, typer.Option("--decimals", help="Round probabilities to so many decimals.", min=0, max=12)
    ] = None,
    budget: Annotated[
        int | None, typer.Option("--budget", help="Queries that the victim answers at most.", min=0)
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Data whose adversary split queries; default: the victim's.")
    ] = None,
    model: Model = None,
    settings: Settings = None,
    seed: Seed = 1,
    split_seed: Annotated[int | None, typer.Option("--split-seed", help="Default: the victim's.", min=0)] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    data_root: DataRoot = None,
    store: StoreRoot = Path("runs/store"),
    as_json: Json = False,
) -> int:
    """Attack a model through its answers alone, with the adversary's data; write the stolen model."""
    from heirmark.attacks import EXTRACTIONS
    from heirmark.configuration import apply_settings
    from heirmark.pipeline.jobs import load_named_task, read_origin, steal_job, user_object
    from heirmark.pipeline.stealing import Theft

    if attack not in EXTRACTIONS:
        raise BadConfig(f"unknown attack {attack!r}: choose one of {', '.join(EXTRACTIONS)}")
    strategy = EXTRACTIONS[attack]()
    factory = user_object(model) if model is not None and _is_import(model) else None
    known = read_origin(victim)
    if model is not None or known.model is not None:
        strategy = replace(strategy, model=factory or model or known.model)
    theft = Theft(
        attack=apply_settings(strategy, settings or []), answers=answers, k=k, decimals=decimals, budget=budget
    )
    task = load_named_task(
        data or known.data, seed=known.split_seed if split_seed is None else split_seed, root=data_root
    )
    with Bars(quiet=as_json) as bars:
        summary = steal_job(
            theft,
            victim,
            task,
            out,
            seed=seed,
            runtime=bars.runtime(device, precision),
            store=store,
            factory=factory,
            on_event=bars.event,
        )
    _print_facts(summary, as_json)
    return MARKED


@app.command()
@guarded
def verify(
    suspect: Annotated[Path, typer.Argument(help="Folder of the suspect's model, or an .onnx file.")],
    key: Annotated[Path, typer.Option("--key", help="Folder of the key, or of the marked model.")],
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="calibration.json; default: the one beside the key.")
    ] = None,
    level: Annotated[float, typer.Option("--level", help="Significance level.", min=1e-300, max=0.5)] = 0.01,
    model: Model = None,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> int:
    """Judge a suspect with a key, by queries alone. Exit code 0: MARKED; 3: not established; 1: INVALID."""
    from heirmark.pipeline.jobs import user_object, verify_job
    from heirmark.runtime import Runtime

    factory = user_object(model) if model is not None and _is_import(model) else None
    verdict = verify_job(
        suspect, key, calibration, level=level, runtime=Runtime(device=device, precision=precision), factory=factory
    )
    if as_json:
        _print_json(verdict.to_json())
    else:
        _print_verdict(verdict)
    return {"MARKED": MARKED, "NOT_ESTABLISHED": NOT_ESTABLISHED}.get(verdict.outcome, FAILURE)


@app.command()
@guarded
def inspect(
    path: Annotated[Path, typer.Argument(help="Folder of a model, a key, or both.")],
    secrets: Annotated[bool, typer.Option("--secrets", help="Show the trigger too.")] = False,
    as_json: Json = False,
) -> int:
    """Say what a folder holds and check that it is whole; a key's secrets stay hidden unless asked for."""
    from heirmark.pipeline.jobs import inspect_folder

    _print_facts(inspect_folder(path, secrets=secrets), as_json)
    return MARKED


@app.command()
@guarded
def fields(
    name: Annotated[str, typer.Argument(help="A method or an attack.")],
    as_json: Json = False,
) -> int:
    """List what --set can set of a method or an attack, with types, defaults and meaning."""
    from heirmark.attacks import EXTRACTIONS
    from heirmark.configuration import describe_fields
    from heirmark.methods import METHODS

    strategies: dict[str, type] = {**METHODS, **EXTRACTIONS}
    if name not in strategies:
        raise BadConfig(f"{name!r} is neither a method nor an attack: choose one of {', '.join(strategies)}")
    rows = list(describe_fields(strategies[name]))
    if as_json:
        _print_json(
            [{"field": row.name, "type": row.type, "default": row.default, "meaning": row.help} for row in rows]
        )
        return MARKED
    listing = Table("field", "type", "default", "meaning", title=f"--set of {name}")
    for row in rows:
        listing.add_row(row.name, row.type, row.default or "", row.help)
    Console().print(listing)
    return MARKED


def main() -> None:
    """Run the command line and exit with its code."""
    app()


def _is_import(model: str) -> bool:
    module, colon, name = model.partition(":")
    return bool(colon) and "." in module + "." and "=" not in name


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def _print_facts(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(facts)
        return
    listing = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        listing.add_row(
            f"[bold]{name.replace('_', ' ')}[/bold]", value if isinstance(value, str) else json.dumps(value)
        )
    Console().print(listing)


def _print_verdict(verdict: Any) -> None:
    from heirmark.console import verdict_lines

    console = Console()
    for line in verdict_lines(verdict):
        console.print(line, highlight=False)


if __name__ == "__main__":
    main()
