"""What others can check: register a key, show a shard of it, recheck a bundle of evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heirmark.commands.options import (
    FAILURE,
    MARKED,
    NOT_ESTABLISHED,
    Device,
    Json,
    Run,
    guarded,
    print_facts,
    print_json,
)
from heirmark.console import show

KeyFolder = Annotated[Path, typer.Argument(help="Folder of the key, or of the marked model.")]


@guarded
def commit(
    key: KeyFolder,
    signer: Annotated[
        Path, typer.Option("--signer", help="File of your private key (Ed25519, PEM); it is made if it is missing.")
    ],
    shards: Annotated[int, typer.Option("--shards", help="Parts of the key; a dispute shows one.", min=1)] = 4,
    attempt: Annotated[int, typer.Option("--attempt", help="Which of your keys for this model it is.", min=1)] = 1,
    attempts: Annotated[
        int, typer.Option("--attempts", help="How many there will be; it divides the level.", min=1)
    ] = 1,
    beacon: Annotated[
        str,
        typer.Option(
            "--beacon", help="Of a key whose answers are drawn: which number will, in words; nobody may know it yet."
        ),
    ] = "",
    timestamp: Annotated[
        str | None, typer.Option("--timestamp", help="http(s):// of an authority that stamps it (RFC 3161).")
    ] = None,
    as_json: Json = False,
) -> int:
    """Register a key before the model is released: write registration.json beside it, which shows nothing of it. Publish that."""
    from heirmark.jobs.evidence import Attempt, commit_job

    said = Attempt(attempt=attempt, attempts=attempts, shards=shards, beacon=beacon)
    print_facts(commit_job(key, said, signer=signer, stamp_from=timestamp), as_json)
    return MARKED


@guarded
def disclose(
    key: KeyFolder,
    out: Annotated[Path, typer.Option("--out", help="Folder to write, for whoever asks the suspect.")],
    shard: Annotated[
        int | None, typer.Option("--shard", help="Which one; default: the first never shown.", min=1)
    ] = None,
    as_json: Json = False,
) -> int:
    """Show one shard of a registered key, with what proves that it was registered; the others stay secret."""
    from heirmark.jobs.evidence import disclose_job

    print_facts(disclose_job(key, out, number=shard), as_json)
    return MARKED


@guarded
def recheck(
    bundle: Annotated[Path, typer.Argument(help="Folder that verify --evidence wrote.")],
    trust: Annotated[
        list[str] | None,
        typer.Option("--trust", help="Public key of somebody whose word you take for what was asked and answered."),
    ] = None,
    registration: Annotated[
        Path | None,
        typer.Option("--registration", help="registration.json as it was published, not as the bundle has it."),
    ] = None,
    published: Annotated[
        str | None, typer.Option("--published", help="Since when you know that registration to be public.")
    ] = None,
    before: Annotated[
        str | None, typer.Option("--before", help="When the suspect first appeared: the key must be older.")
    ] = None,
    beacon: Annotated[
        str | None,
        typer.Option("--beacon", help="The number that drew the answers of a drawn key, as it was published."),
    ] = None,
    stamp_roots: Annotated[
        Path | None,
        typer.Option("--stamp-roots", help="Certificates (PEM) of the authorities whose time stamps you trust."),
    ] = None,
    calibrators: Annotated[
        list[str] | None,
        typer.Option(
            "--calibrators", help="An unmarked model of your own, or one that the bundle names; give several."
        ),
    ] = None,
    level: Annotated[
        float, typer.Option("--level", help="Significance level, over all shards and attempts.", min=1e-300, max=0.5)
    ] = 0.01,
    device: Device = "auto",
    as_json: Json = False,
) -> int:
    """Derive a bundle of evidence again, offline and without the suspect. Exit code 0: MARKED; 3: not established; 1: refused."""
    from heirmark.evidence.disclosing import Disclosed
    from heirmark.jobs.evidence import recheck_job
    from heirmark.jobs.opening import Named, open_suspect

    with Run(as_json=as_json).bars("read the bundle") as bars:
        runtime = bars.runtime(device, "float32")
        shard = Disclosed.load(bundle).shard if calibrators else None
        found = recheck_job(
            bundle,
            trusted=trust or (),
            registration=registration,
            published=published,
            before=before,
            roots=stamp_roots,
            beacon=beacon,
            calibrators=[
                (
                    name,
                    open_suspect(
                        Named(name=name, medium=shard.medium),
                        classes=shard.classes,
                        runtime=runtime,
                        shape=shard.input_shape,
                    ),
                )
                for name in calibrators or ()
                if shard is not None
            ],
            level=level,
        )
    if as_json:
        print_json(found.to_dict())
    else:
        show(str(found))
    return {"MARKED": MARKED, "NOT_ESTABLISHED": NOT_ESTABLISHED}.get(found.outcome, FAILURE)
