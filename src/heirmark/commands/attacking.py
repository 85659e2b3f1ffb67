"""What a thief does, and an owner before release: steal, remove, detect, audit."""

from __future__ import annotations

import shlex
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from heirmark.commands.options import (
    MARKED,
    DataRoot,
    Device,
    Json,
    Out,
    Precision,
    Quick,
    Seed,
    Settings,
    StoreRoot,
    bars_for,
    configured,
    guarded,
    print_facts,
    print_json,
)
from heirmark.console import show
from heirmark.errors import BadConfig


@guarded
def steal(
    victim: Annotated[Path, typer.Argument(help="Folder of the victim, as embed wrote it.")],
    out: Out,
    attack: Annotated[
        str, typer.Option("--attack", help="One of the README's table; knockoff is the default.")
    ] = "knockoff",
    answers: Annotated[
        str, typer.Option("--answers", help="What the victim gives away: probabilities, top-k or label.")
    ] = "probabilities",
    k: Annotated[int, typer.Option("--k", help="Of top-k.", min=1)] = 5,
    decimals: Annotated[
        int | None, typer.Option("--decimals", help="Round probabilities to so many decimals.", min=0, max=7)
    ] = None,
    levels: Annotated[
        int | None, typer.Option("--levels", help="Quantise probabilities to so many levels; 2 is a hard label.", min=2)
    ] = None,
    budget: Annotated[
        int | None, typer.Option("--budget", help="Queries that the victim answers at most.", min=0)
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Data whose adversary split queries; default: the victim's.")
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option("--pool", help="Another data set whose images query instead, brought to the victim's shape."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The thief's, written as embed's --model; default: the victim's.")
    ] = None,
    victim_model: Annotated[
        str | None,
        typer.Option("--victim-model", help="package.module:factory that builds the victim, if it is one of your own."),
    ] = None,
    quick: Quick = False,
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
    from heirmark.pipeline.attack_jobs import load_victims_pool, load_victims_task, steal_job, victims_architecture
    from heirmark.pipeline.audit_attacks import quick_attack
    from heirmark.pipeline.named import check_known, user_factory
    from heirmark.pipeline.stealing import ADVERSARY, Theft

    check_known("attack", attack, EXTRACTIONS)
    factory = None if victim_model is None else user_factory(victim_model)
    plain: Any = quick_attack(attack) if quick else EXTRACTIONS[attack]()
    strategy = replace(plain, model=victims_architecture(victim, factory))
    theft = Theft(
        attack=configured(strategy, model, settings),
        answers=answers,  # type: ignore[arg-type]  # checked there
        k=k,
        decimals=decimals,
        levels=levels,
        budget=budget,
        pool=pool or ADVERSARY,
    )
    with bars_for(as_json) as bars:
        bars.progress("load the data", 0, 1)
        task, origin = load_victims_task(victim, data, split_seed=split_seed, root=data_root)
        summary = steal_job(
            theft,
            victim,
            task,
            out,
            seed=seed,
            runtime=bars.runtime(device, precision),
            store=store,
            origin=origin,
            pools={} if pool is None else {pool: load_victims_pool(victim, pool, task, root=data_root)},
            factory=factory,
            on_event=bars.event,
        )
    print_facts(summary, as_json)
    return MARKED


Held = Annotated[Path, typer.Argument(help="Folder of a model that the thief holds: stolen, or the marked one itself.")]
HeldModel = Annotated[
    str | None, typer.Option("--model", help="package.module:factory that builds it, if it is a model of your own.")
]
HeldData = Annotated[
    str | None, typer.Option("--data", help="Data whose adversary split the thief has; default: the model's own.")
]
HeldSplit = Annotated[int | None, typer.Option("--split-seed", help="Default: the model's.", min=0)]


@guarded
def remove(
    held: Held,
    out: Out,
    attack: Annotated[
        str, typer.Option("--attack", help="One of the README's table of removal attacks.")
    ] = "fine-tuning",
    data: HeldData = None,
    pool: Annotated[
        str | None, typer.Option("--pool", help="Data set of another task, for an attack that learns one (transfer).")
    ] = None,
    model: HeldModel = None,
    quick: Quick = False,
    settings: Settings = None,
    seed: Seed = 1,
    split_seed: HeldSplit = None,
    device: Device = "auto",
    precision: Precision = "auto",
    data_root: DataRoot = None,
    store: StoreRoot = Path("runs/store"),
    as_json: Json = False,
) -> int:
    """Work on a model so that a mark in it may be lost, with the adversary's labelled data; write what is left."""
    from heirmark.attacks import REMOVALS
    from heirmark.configuration import apply_settings
    from heirmark.pipeline.altering import Alteration
    from heirmark.pipeline.attack_jobs import load_victims_pool, load_victims_task, remove_job
    from heirmark.pipeline.audit_attacks import quick_attack
    from heirmark.pipeline.named import check_known, user_factory

    check_known("removal attack", attack, REMOVALS)
    plain: Any = quick_attack(attack) if quick else REMOVALS[attack]()
    alteration = Alteration(attack=apply_settings(plain, settings or []), pool=pool)
    factory = None if model is None else user_factory(model)
    with bars_for(as_json) as bars:
        bars.progress("load the data", 0, 1)
        task, origin = load_victims_task(held, data, split_seed=split_seed, root=data_root)
        summary = remove_job(
            alteration,
            held,
            task,
            out,
            seed=seed,
            runtime=bars.runtime(device, precision),
            store=store,
            origin=origin,
            pools={} if pool is None else {pool: load_victims_pool(held, pool, task, root=data_root)},
            factory=factory,
            on_event=bars.event,
        )
    print_facts(summary, as_json)
    return MARKED


@guarded
def detect(
    held: Held,
    attack: Annotated[
        str, typer.Option("--attack", help="One of the README's table of detection attacks.")
    ] = "neural-cleanse",
    key: Annotated[
        Path | None,
        typer.Option("--key", help="Folder of the marked model, to hold what is suspected against the truth."),
    ] = None,
    data: HeldData = None,
    model: HeldModel = None,
    quick: Quick = False,
    settings: Settings = None,
    seed: Seed = 1,
    split_seed: HeldSplit = None,
    device: Device = "auto",
    precision: Precision = "auto",
    data_root: DataRoot = None,
    store: StoreRoot = Path("runs/store"),
    as_json: Json = False,
) -> int:
    """Look for a mark in a model, or for a verifier's queries among others. The attack never sees the key."""
    from heirmark.attacks import INSPECTIONS, SCREENINGS
    from heirmark.configuration import apply_settings
    from heirmark.pipeline.attack_jobs import inspect_job, load_victims_task, screen_job
    from heirmark.pipeline.audit_attacks import quick_attack
    from heirmark.pipeline.named import check_known, user_factory

    known: dict[str, type] = {**INSPECTIONS, **SCREENINGS}
    check_known("detection attack", attack, known)
    plain: Any = quick_attack(attack) if quick else known[attack]()
    strategy = apply_settings(plain, settings or [])
    if attack in SCREENINGS and key is None:
        raise BadConfig(f"{attack} tells queries from others: name the marked model, whose key is asked, with --key")
    factory = None if model is None else user_factory(model)
    with bars_for(as_json) as bars:
        bars.progress("load the data", 0, 1)
        task, _ = load_victims_task(held, data, split_seed=split_seed, root=data_root)
        runtime = bars.runtime(device, precision)
        if attack in SCREENINGS and key is not None:
            facts = screen_job(strategy, held, task, key, seed=seed, runtime=runtime, factory=factory)
        else:
            facts = inspect_job(
                strategy,
                held,
                task,
                seed=seed,
                runtime=runtime,
                store=store,
                key=key,
                factory=factory,
                on_event=bars.event,
            )
    print_facts(facts, as_json)
    return MARKED


@guarded
def audit(
    marked: Annotated[
        Path, typer.Argument(help="Folder of the marked model, as embed wrote it: with key and calibration.")
    ],
    profile: Annotated[
        str, typer.Option("--profile", help="quick: minutes on a CPU for small images; full: the papers' settings.")
    ] = "quick",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the results; run again to resume. Default: runs/audit-<model's folder>."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="A group of attacks, or a part of an attack's name; may be repeated."),
    ] = None,
    twin: Annotated[
        Path | None,
        typer.Option("--twin", help="Folder of an unmarked model; default: one is trained as the marked one was."),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option("--pool", help="Another data set, which a thief asks about and learns as another task."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="The model's data, where they come from code of yours; default: its own."),
    ] = None,
    model: HeldModel = None,
    seed: Seed = 0,
    split_seed: HeldSplit = None,
    device: Device = "auto",
    precision: Precision = "auto",
    data_root: DataRoot = None,
    as_json: Json = False,
) -> int:
    """Attack your own marked model, and an unmarked twin, in every known way; write one report of what survives."""
    from heirmark.pipeline.attack_jobs import (
        audit_job,
        load_victims_pool,
        load_victims_task,
        trigger_kind,
        victims_architecture,
    )
    from heirmark.pipeline.audit_attacks import Sizes
    from heirmark.pipeline.audit_plan import PROFILES, select
    from heirmark.pipeline.named import check_known, user_factory
    from heirmark.report.audit import audit_table, inspection_table, screen_table, to_plain

    check_known("profile", profile, PROFILES)
    factory = None if model is None else user_factory(model)
    out = out or Path("runs") / f"audit-{marked.resolve().name}"
    plan = partial(PROFILES[profile], victims_architecture(marked, factory), pool=pool, trigger=trigger_kind(marked))
    select(plan(), only or [])  # a name that there is not is told before data are loaded
    with bars_for(as_json) as bars:
        bars.progress("load the data", 0, 1)
        task, _ = load_victims_task(marked, data, split_seed=split_seed, root=data_root)
        programme = select(plan(sizes=Sizes.of(task)), only or [])
        result = audit_job(
            programme,
            marked,
            task,
            out,
            seed=seed,
            runtime=bars.runtime(device, precision),
            command=" ".join(
                ["heirmark audit", str(marked), f"--profile {profile} --seed {seed}"]
                + [f"--only {shlex.quote(name)}" for name in only or []]
                + ([f"--twin {twin}"] if twin else [])
                + ([f"--pool {pool}"] if pool else [])
                + ([f"--data {data}"] if data else [])
            ),
            twin=twin,
            pools={} if pool is None else {pool: load_victims_pool(marked, pool, task, root=data_root)},
            factory=factory,
            on_event=bars.event,
        )
    if as_json:
        print_json(
            {
                "rows": [to_plain(row) for row in (result.victim, *result.rows)],
                "inspections": [to_plain(row) for row in result.inspections],
                "screens": [to_plain(row) for row in result.screens],
            }
        )
        return MARKED
    console = Console()
    console.print(audit_table((result.victim, *result.rows)))
    if result.inspections:
        console.print(inspection_table(result.inspections))
    if result.screens:
        console.print(screen_table(result.screens))
    for line in result.summary:
        show(line)
    show(f"Results: {out / 'audit.json'}   Report: {out / 'audit.html'}")
    return MARKED
