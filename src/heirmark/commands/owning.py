"""What an owner does: embed a mark, verify a suspect, look into folders."""

from __future__ import annotations

import secrets as secrets_module
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heirmark.commands.options import (
    FAILURE,
    MARKED,
    NOT_ESTABLISHED,
    USELESS,
    Custom,
    Data,
    Device,
    Json,
    Kept,
    Model,
    Out,
    Protocol,
    Quick,
    Run,
    Settings,
    SplitSeed,
    configured,
    guarded,
    print_facts,
    print_json,
)
from heirmark.console import error_line, show
from heirmark.errors import BadConfig, HeirmarkError

if TYPE_CHECKING:
    from heirmark.stages.store import Event
    from heirmark.verification import SequentialVerdict, Verdict


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
    from heirmark.jobs.starting import check_starts, open_start
    from heirmark.jobs.worth import in_words
    from heirmark.loading import check_known, load_named_task, with_foreign
    from heirmark.methods import METHODS
    from heirmark.profiles import QUICK

    method = method or "robust"
    check_known("method", method, METHODS)
    # A key drawn from seed 0 and public data is anybody's.
    drawn = secrets_module.randbits(63)
    told = seed is not None
    config: Any = configured(QUICK.method(method) if quick else METHODS[method](), model, settings)
    with run.bars() as bars:

        def tell(event: Event, label: str) -> None:
            nonlocal told
            if event.what == "started" and not told:  # not before there is something to resume
                told = True
                error_line(f"drawing with --seed {drawn}: give it again to resume, and keep it as secret as the key")
            bars.event(event, label)

        task = load_named_task(data, split_seed=split_seed, root=run.data_root, protocol=protocol)  # type: ignore[arg-type]
        opened = None
        if start is not None:
            check_starts(config)
            named = model is not None or any(each.partition("=")[0].strip() == "model" for each in settings or [])
            opened = open_start(start, config.model if named else None, task, runtime=run.runtime(bars))
            config = replace(config, model=opened.architecture)
        task, brought = with_foreign(task, config.trigger, root=run.data_root, name=foreign)
        summary = embed_job(
            config,
            Given(task=task, origin=Origin(data=data, split_seed=split_seed, foreign=brought, protocol=task.protocol)),
            out,
            run.work(bars, drawn if seed is None else seed, tell),
            calibrators=calibrators,
            start=opened,
        )
    print_facts(summary if run.as_json else in_words(summary), run.as_json)
    if not summary["shortcoming"]:
        return MARKED
    error_line(f"{out} is written, but {summary['shortcoming']}")
    return USELESS


@guarded
def verify(
    suspect: Annotated[
        str,
        typer.Argument(
            help="Folder of the suspect's model, an .onnx file, or package.module:name of a module or a function of a batch."
        ),
    ],
    key: Annotated[Path, typer.Option("--key", help="Folder of the key, or of the marked model.")],
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="calibration.json; default: the one beside the key.")
    ] = None,
    level: Annotated[float, typer.Option("--level", help="Significance level.", min=1e-300, max=0.5)] = 0.01,
    wilcoxon: Annotated[
        float | None,
        typer.Option(
            "--wilcoxon",
            help="Margin of Feature Sharing's test on probabilities, at level 0.05, to stand beside the verdict; 0.3 there.",
            min=0.0,
            max=0.99,
        ),
    ] = None,
    sequential: Annotated[
        bool,
        typer.Option(
            "--sequential", help="Ask a few pairs at a time and stop once the level is reached, or all are asked."
        ),
    ] = False,
    max_queries: Annotated[
        int | None,
        typer.Option("--max-queries", help="With --sequential: inputs put to the suspect at most.", min=2),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            help="If the suspect orders its classes otherwise: for each of its classes the key's, by number, or - for none.",
        ),
    ] = None,
    normalise: Annotated[
        str | None,
        typer.Option(
            "--normalise", help="mean,std if the suspect wants normalised inputs; or all means, then all stds."
        ),
    ] = None,
    model: Custom = None,
    device: Device = "auto",
    as_json: Json = False,
) -> int:
    """Judge a suspect with a key, by queries alone. Exit code 0: MARKED; 3: not established; 1: INVALID."""
    from heirmark.jobs.folder import ModelFolder
    from heirmark.jobs.opening import Named, open_suspect
    from heirmark.jobs.verify import (
        check_wilcoxon,
        parse_normalisation,
        parse_order,
        sequential_job,
        verify_job,
        wilcoxon_job,
    )
    from heirmark.loading import user_factory

    if sequential and wilcoxon is not None:
        raise BadConfig("--wilcoxon asks the whole key, and --sequential spares it: leave one of them out")
    if max_queries is not None and not sequential:
        raise BadConfig("--max-queries goes with --sequential: the verdict of the whole key asks all of it")
    named = Named(
        name=suspect,
        factory=user_factory(model),
        order=None if labels is None else parse_order(labels),
        normalise=None if normalise is None else parse_normalisation(normalise),
    )
    with Run(as_json=as_json).bars("ask the suspect") as bars:
        runtime = bars.runtime(device, "float32")
        folder = ModelFolder(key)
        asked = open_suspect(named, classes=folder.key.classes, runtime=runtime)
        if wilcoxon is not None:
            check_wilcoxon(asked)
        verdict: Verdict | SequentialVerdict
        if sequential:
            verdict = sequential_job(asked, folder, calibration, level=level, max_queries=max_queries)
        else:
            verdict = verify_job(asked, folder, calibration, level=level)
        beside = None
        if wilcoxon is not None and verdict.outcome in ("MARKED", "NOT_ESTABLISHED"):  # else there is nothing to test
            try:
                beside = wilcoxon_job(asked, folder, margin=wilcoxon, runtime=runtime)
            except HeirmarkError as error:  # the verdict, which has cost the key, stands
                error_line(f"no test of probabilities: {error}")
    if as_json:
        told = verdict.to_dict()
        print_json(told if wilcoxon is None else {"verdict": told, "wilcoxon": beside and asdict(beside)})
    else:
        show(str(verdict))
        if beside:
            show(str(beside))
    return {"MARKED": MARKED, "NOT_ESTABLISHED": NOT_ESTABLISHED}.get(verdict.outcome, FAILURE)


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
