"""A key whose answers are drawn: settle its triggers, and, once they are registered, draw and mark."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated, Any

import typer

from heirmark.commands.marking import shown, started
from heirmark.commands.options import (
    MARKED,
    Custom,
    Data,
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
)
from heirmark.console import error_line
from heirmark.errors import BadConfig

Start = Annotated[
    Path | None,
    typer.Option("--from", help="Mark the model you have: its folder, or its weights (.safetensors) with --model."),
]


@guarded
def draft(
    out: Out,
    data: Data = "fashion-mini",
    quick: Quick = False,
    model: Model = None,
    settings: Settings = None,
    start: Start = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", help="Seed of everything, the triggers too; default: a random one. Keep it secret.", min=0
        ),
    ] = None,
    split_seed: SplitSeed = 0,
    protocol: Protocol = "disjoint",
    *,
    run: Kept,
) -> int:
    """Settle the triggers of a mark whose answers will be drawn: what is registered before the draw."""
    from heirmark.jobs.drafting import draft_job, grouped
    from heirmark.jobs.folder import Data as Given
    from heirmark.jobs.folder import Origin
    from heirmark.loading import load_named_task
    from heirmark.methods import Robust
    from heirmark.profiles import QUICK

    base = QUICK.method("robust") if quick else Robust()
    method: Any = configured(grouped(base), model, settings)
    with run.bars() as bars:
        task = load_named_task(data, split_seed=split_seed, root=run.data_root, protocol=protocol)  # type: ignore[arg-type]
        method, opened = started(method, start, model, settings, task, run.runtime(bars))
        given = Given(task=task, origin=Origin(data=data, split_seed=split_seed, protocol=task.protocol))
        work = run.work(bars, secrets.randbits(63) if seed is None else seed, bars.event)
        facts = draft_job(method, given, out, work, start=opened)
    print_facts(facts, run.as_json)
    error_line(f"next: heirmark commit {out}, which registers it, and once the beacon is known heirmark draw {out}")
    return MARKED


@guarded
def draw(
    folder: Annotated[Path, typer.Argument(help="The draft, registered by heirmark commit.")],
    beacon: Annotated[
        str,
        typer.Option("--beacon", help="The value that draws the answers, as it was published after the registration."),
    ],
    out: Out,
    start: Start = None,
    model: Custom = None,
    calibrators: Annotated[
        int, typer.Option("--calibrators", help="Unmarked models that calibrate the ordinary test beside.", min=0)
    ] = 5,
    *,
    run: Kept,
) -> int:
    """Draw the answers of a registered draft and mark the model with them. Exit codes as those of embed."""
    from heirmark.jobs.drafting import Draft
    from heirmark.jobs.embed import embed_job
    from heirmark.jobs.folder import Data as Given
    from heirmark.jobs.folder import ModelFolder
    from heirmark.jobs.starting import open_start
    from heirmark.loading import load_named_task, user_factory

    factory = user_factory(model)
    opened_draft = Draft.open(folder, beacon, factory=factory)
    origin = ModelFolder(folder).origin
    if origin is None:
        raise BadConfig(f"{folder} does not say which data it is of: make it anew by heirmark draft")
    with run.bars() as bars:
        task = load_named_task(origin.data, split_seed=origin.split_seed, root=run.data_root, protocol=origin.protocol)
        opened = None if start is None else open_start(start, factory, task, runtime=run.runtime(bars))
        summary = embed_job(
            opened_draft.method,
            Given(task=task, origin=origin),
            out,
            run.work(bars, opened_draft.seed, bars.event),
            calibrators=calibrators,
            start=opened,
            draft=opened_draft,
        )
    return shown(summary, out, run.as_json)
