"""What a thief does: steal, remove, detect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from heirmark.commands.options import (
    MARKED,
    Compile,
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
    fit,
    guarded,
    print_facts,
)
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
    compiled: Compile = False,
    data_root: DataRoot = None,
    store: StoreRoot = Path("runs/store"),
    as_json: Json = False,
) -> int:
    """Attack a model through its answers alone, with the adversary's data; write the stolen model."""
    from heirmark.attacks import EXTRACTIONS
    from heirmark.attacks.base import Sizes
    from heirmark.blackbox import Api
    from heirmark.pipeline.answering import ADVERSARY
    from heirmark.pipeline.attack_jobs import steal_job
    from heirmark.pipeline.audit_attacks import quick_attacks
    from heirmark.pipeline.folder import ModelFolder
    from heirmark.pipeline.loading import check_known, user_factory
    from heirmark.pipeline.stealing import Theft
    from heirmark.pipeline.work import Work

    check_known("attack", attack, EXTRACTIONS)
    factory = None if victim_model is None else user_factory(victim_model)
    folder = ModelFolder(victim, factory, option="--victim-model")

    def build(plain: Any) -> Any:
        return configured(replace(plain, model=folder.architecture), model, settings)

    recipe = folder.recipe if quick else None
    theft = Theft(
        attack=build(EXTRACTIONS[attack]() if recipe is None else quick_attacks(recipe)[attack]),
        api=Api(answers=answers, k=k, decimals=decimals, levels=levels, budget=budget),  # type: ignore[arg-type]  # checked
        pool=pool or ADVERSARY,
    )
    with bars_for(as_json) as bars:
        bars.progress("load the data", 0, 1)
        found = folder.data(data, split_seed=split_seed, root=data_root, pool=pool)
        fact = dict[str, Any]()
        if recipe is not None:
            sizes = Sizes.of(found.task, *found.pools.values()).on_pool()
            fits, fact = fit(attack, build, sizes, recipe)
            theft = replace(theft, attack=fits)
        summary = steal_job(
            theft,
            folder,
            found,
            out,
            Work(seed=seed, runtime=bars.runtime(device, precision, compiled), store=store, on_event=bars.event),
        )
    print_facts(summary | fact, as_json)
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
    victim: Held,
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
    compiled: Compile = False,
    data_root: DataRoot = None,
    store: StoreRoot = Path("runs/store"),
    as_json: Json = False,
) -> int:
    """Work on a model so that a mark in it may be lost, with the adversary's labelled data; write what is left."""
    from heirmark.attacks import REMOVALS
    from heirmark.attacks.base import Sizes
    from heirmark.configuration import apply_settings
    from heirmark.pipeline.altering import Alteration
    from heirmark.pipeline.attack_jobs import remove_job
    from heirmark.pipeline.audit_attacks import quick_attacks
    from heirmark.pipeline.folder import ModelFolder
    from heirmark.pipeline.loading import check_known, user_factory
    from heirmark.pipeline.work import Work

    check_known("removal attack", attack, REMOVALS)
    folder = ModelFolder(victim, None if model is None else user_factory(model))
    recipe = folder.recipe if quick else None

    def build(plain: Any) -> Any:
        return apply_settings(plain, settings or [])

    alteration = Alteration(
        attack=build(REMOVALS[attack]() if recipe is None else quick_attacks(recipe)[attack]), pool=pool
    )
    with bars_for(as_json) as bars:
        bars.progress("load the data", 0, 1)
        found = folder.data(data, split_seed=split_seed, root=data_root, pool=pool)
        fact = dict[str, Any]()
        if recipe is not None:
            fits, fact = fit(attack, build, Sizes.of(found.task), recipe)
            alteration = replace(alteration, attack=fits)
        summary = remove_job(
            alteration,
            folder,
            found,
            out,
            Work(seed=seed, runtime=bars.runtime(device, precision, compiled), store=store, on_event=bars.event),
        )
    print_facts(summary | fact, as_json)
    return MARKED


@guarded
def detect(
    victim: Held,
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
    from heirmark.attacks.base import Sizes
    from heirmark.configuration import apply_settings
    from heirmark.pipeline.attack_jobs import inspect_job, screen_job
    from heirmark.pipeline.audit_attacks import quick_attacks
    from heirmark.pipeline.folder import ModelFolder
    from heirmark.pipeline.loading import check_known, user_factory
    from heirmark.pipeline.work import Work

    known: dict[str, type] = {**INSPECTIONS, **SCREENINGS}
    check_known("detection attack", attack, known)
    folder = ModelFolder(victim, None if model is None else user_factory(model))
    recipe = folder.recipe if quick else None

    def build(plain: Any) -> Any:
        return apply_settings(plain, settings or [])

    strategy = build(known[attack]() if recipe is None else quick_attacks(recipe)[attack])
    if attack in SCREENINGS and key is None:
        raise BadConfig(f"{attack} tells queries from others: name the marked model, whose key is asked, with --key")
    with bars_for(as_json) as bars:
        bars.progress("load the data", 0, 1)
        found = folder.data(data, split_seed=split_seed, root=data_root)
        fact = dict[str, Any]()
        if recipe is not None:
            strategy, fact = fit(attack, build, Sizes.of(found.task), recipe)
        work = Work(seed=seed, runtime=bars.runtime(device, precision), store=store, on_event=bars.event)
        truth = None if key is None else ModelFolder(key)
        if attack in SCREENINGS and truth is not None:
            facts = screen_job(strategy, folder, found, work, truth)
        else:
            facts = inspect_job(strategy, folder, found, work, truth)
    print_facts(facts | fact, as_json)
    return MARKED
