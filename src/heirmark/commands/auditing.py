"""What an owner does before release: attack the model in every known way, and read what its mark survives."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from heirmark.commands.executing import Spread, as_typed, executor
from heirmark.commands.options import MARKED, Custom, ModelsSplitSeed, Run, Seed, guarded, print_json
from heirmark.console import show


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
    model: Custom = None,
    seed: Seed = 0,
    split_seed: ModelsSplitSeed = None,
    *,
    spread: Spread,
    run: Run,
) -> int:
    """Attack your own marked model, and an unmarked twin, in every known way; write one report of what survives."""
    from heirmark.attacks.base import Sizes
    from heirmark.grids.audit import run_audit
    from heirmark.grids.programme import PROFILES, select
    from heirmark.grids.settings import Contexts
    from heirmark.jobs.folder import ModelFolder
    from heirmark.loading import check_known, user_factory
    from heirmark.report.terminal import attack_table, probe_table
    from heirmark.results.rows import row_to_json

    check_known("profile", profile, PROFILES)
    execute, facts, shared = executor(Path.cwd(), spread)
    factory = user_factory(model)
    out = out or Path("runs") / f"audit-{marked.resolve().name}"
    folder = ModelFolder(marked, factory)
    plan = partial(PROFILES[profile], folder.architecture, pool=pool, trigger=folder.trigger_kind, recipe=folder.recipe)
    select(plan(), only or [])  # a name that there is not is told before data are loaded
    given: dict[str, object] = {"--profile": profile, "--seed": seed, "--twin": twin, "--pool": pool}
    said = as_typed(given | {"--data": data, "--model": model, "--split-seed": split_seed})
    chosen = as_typed({"--only": only})
    with run.bars() as bars:
        runtime = run.runtime(bars)
        found = folder.data(data, split_seed=split_seed, root=run.data_root, pool=pool)
        programme = select(plan(sizes=Sizes.of(found.task, *found.pools.values())), only or [])
        result = run_audit(
            programme,
            folder,
            found,
            out,
            seed=seed,
            contexts=Contexts(runtime, run.data_root),
            command=shlex.join(["heirmark", "audit", str(marked), *said, *runtime.options(), *shared, *chosen]),
            name="part" if only else "audit",
            twin=None if twin is None else ModelFolder(twin, factory),
            execute=execute,
            facts=facts,
            on_event=bars.event,
        )
    if run.as_json:
        print_json([row_to_json(row) for row in result.rows])
        return MARKED
    console = Console()
    (chapter,) = result.report.chapters
    console.print(attack_table(chapter.rows))
    probes = probe_table(chapter.rows)
    if probes is not None:
        console.print(probes)
    for line in result.report.summary:
        show(line)
    show(f"Results: {result.path.with_suffix('.json')}   Report: {result.path}")
    return MARKED
