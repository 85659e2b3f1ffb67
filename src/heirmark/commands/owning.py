"""What an owner does: embed a mark, look into folders, see the settings."""

from __future__ import annotations

import secrets as secrets_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heirmark.commands.marking import shown, started
from heirmark.commands.options import (
    MARKED,
    Custom,
    Data,
    Json,
    Kept,
    Model,
    Out,
    Protocol,
    Quick,
    Settings,
    SplitSeed,
    configured,
    guarded,
    print_facts,
    print_json,
)
from heirmark.console import error_line, show

if TYPE_CHECKING:
    from heirmark.stages.store import Event


@guarded
def embed(
    out: Out,
    method: Annotated[
        str | None, typer.Option("--method", help="A method, by name; a wrong name lists them. Default: robust.")
    ] = None,
    data: Data = "fashion-mini",
    quick: Quick = False,
    model: Model = None,
    settings: Settings = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Mark the model you have: its folder, or its weights (.safetensors) with --model. It is never trained from "
            "scratch.",
        ),
    ] = None,
    calibrators: Annotated[
        int,
        typer.Option(
            "--calibrators",
            help="Unmarked models that calibrate the test; a stolen copy joins them.",
            min=0,
        ),
    ] = 5,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", help="Seed of everything, the secret key too; default: a random one. Keep it secret.", min=0
        ),
    ] = None,
    split_seed: SplitSeed = 0,
    foreign: Annotated[
        str | None,
        typer.Option("--foreign", help="Another data set, for triggers and simulated thieves that take its images."),
    ] = None,
    protocol: Protocol = "disjoint",
    *,
    run: Kept,
) -> int:
    """Train a model with a watermark, or mark one that is there; write the model, its secret key and a calibration of the test.

    Exit code 0: the model is found with its own key; 4: all is written, but the mark can prove nothing as it is.
    """
    from heirmark.jobs.embed import embed_job
    from heirmark.jobs.folder import Data as Given
    from heirmark.jobs.folder import Origin
    from heirmark.loading import check_known, load_named_task, with_foreign
    from heirmark.methods import METHODS
    from heirmark.suiting import default_method, method_before_data

    method = method or "robust"
    check_known("method", method, METHODS)
    # A key drawn from seed 0 and public data is anybody's.
    drawn = secrets_module.randbits(63)
    told = seed is not None
    if (base := method_before_data(method, data, quick=quick)) is not None:
        configured(base, model, settings)  # what is wrong with them is said before anything is loaded
    with run.bars() as bars:

        def tell(event: Event, label: str) -> None:
            nonlocal told
            if event.what == "started" and not told:  # not before there is something to resume
                told = True
                error_line(f"drawing with --seed {drawn}: give it again to resume, and keep it as secret as the key")
            bars.event(event, label)

        task = load_named_task(data, split_seed=split_seed, root=run.data_root, protocol=protocol)  # type: ignore[arg-type]
        config: Any = configured(
            default_method(method, task.space, task.num_classes, quick=quick, model=model), model, settings
        )
        config, opened = started(config, start, model, settings, task, run.runtime(bars))
        task, brought = with_foreign(task, config.trigger, root=run.data_root, name=foreign)
        summary = embed_job(
            config,
            Given(task=task, origin=Origin(data=data, split_seed=split_seed, foreign=brought, protocol=task.protocol)),
            out,
            run.work(bars, drawn if seed is None else seed, tell),
            calibrators=calibrators,
            start=opened,
        )
    return shown(summary, out, run.as_json)


@guarded
def inspect(
    path: Annotated[Path, typer.Argument(help="Folder of a model, a key, or both.")],
    secrets: Annotated[bool, typer.Option("--secrets", help="Show the trigger too.")] = False,
    model: Custom = None,
    as_json: Json = False,
) -> int:
    """Say what a folder holds and check that it is whole; a key's secrets stay hidden unless asked for."""
    from heirmark.jobs.inspect import inspect_folder
    from heirmark.loading import user_factory

    print_facts(inspect_folder(path, secrets=secrets, factory=user_factory(model)), as_json)
    return MARKED


@guarded
def fields(
    name: Annotated[str, typer.Argument(help="A method or an attack.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="FIELD=VALUE: show the fields of another kind, as of trigger=mix.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="The fields of all kinds of trigger, say, at once.")] = False,
    as_json: Json = False,
) -> int:
    """List what --set can set of a method or an attack, with types, defaults and meaning."""
    from heirmark.attacks import EXTRACTIONS, INSPECTIONS, REMOVALS, SCREENINGS
    from heirmark.configuration import apply_settings, describe_fields
    from heirmark.loading import check_known
    from heirmark.methods import METHODS

    strategies: dict[str, type] = {**METHODS, **EXTRACTIONS, **REMOVALS, **INSPECTIONS, **SCREENINGS}
    check_known("method or attack", name, strategies)
    rows = [
        {
            "field": row.name,
            "of": row.owner.lower(),
            "type": row.type,
            "default": row.default,
            "meaning": row.help.replace("``", ""),
        }
        for row in describe_fields(
            strategies[name], base=apply_settings(strategies[name](), settings or ()), every=every
        )
    ]
    if as_json:
        print_json(rows)
        return MARKED
    owners: dict[str, set[str]] = {}
    for row in rows:
        owners.setdefault(str(row["field"]).rpartition(".")[0], set()).add(str(row["of"]))
    for row in rows:
        place = str(row["field"]).rpartition(".")[0]
        # Of several kinds of trigger, say, each has fields of its own.
        kind = f"  (with {place}={row['of']})" if len(owners[place]) > 1 else ""
        show(f"{row['field']}={row['default']}  {row['type']}{kind}")
        show(f"    {row['meaning']}")
    if sum(1 for _ in describe_fields(strategies[name])) > len(rows):
        show(f"What other kinds have, of trigger, say: heirmark fields {name} --set trigger=mix, or --all.")
    return MARKED
