"""Write a model for release, if what is written still carries its mark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heirmark.commands.options import (
    MARKED,
    USELESS,
    Custom,
    ModelsSplitSeed,
    Run,
    Seed,
    Settings,
    guarded,
    print_facts,
)
from heirmark.console import error_line
from heirmark.errors import BadConfig


@guarded
def export(
    model: Annotated[Path, typer.Argument(help="Folder of the marked model, as embed wrote it.")],
    out: Annotated[Path, typer.Option("--out", help="File to write, ending in .onnx; it must not exist yet.")],
    to: Annotated[str, typer.Option("--to", help="Format: onnx.")] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise to 8-bit integers, with ranges measured on the owner's data.")
    ] = False,
    settings: Settings = None,
    force: Annotated[bool, typer.Option("--force", help="Write the file though the mark be lost in it.")] = False,
    key: Annotated[
        Path | None, typer.Option("--key", help="Folder of the key; default: the one in the model's.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Data of the model; default: what its folder says.")
    ] = None,
    seed: Seed = 1,
    split_seed: ModelsSplitSeed = None,
    factory: Custom = None,
    *,
    run: Run,
) -> int:
    """Write a model as ONNX, with the answers and the mark of the file held against the model's.

    Exit code 0: written; 4: not written, because the file no longer carries the mark, or written all the same (--force).
    """
    from heirmark.attacks import Int8
    from heirmark.configuration import apply_settings
    from heirmark.jobs.converting import export_job
    from heirmark.jobs.folder import ModelFolder
    from heirmark.loading import check_known, user_factory

    check_known("format", to, ("onnx",))
    if settings and not int8:
        raise BadConfig("--set sets fields of the quantisation: add --int8, or leave it out")
    folder = ModelFolder(model, user_factory(factory))
    marked = folder if key is None else ModelFolder(key)
    if not marked.has_key:
        raise BadConfig(
            f"{marked.path} holds no key, so nobody could say whether the file carries a mark: name it with --key"
        )
    with run.bars() as bars:
        found = export_job(
            folder,
            marked,
            folder.data(data, split_seed=split_seed, root=run.data_root),
            out,
            seed=seed,
            runtime=run.runtime(bars),
            int8=apply_settings(Int8(), settings or []) if int8 else None,
            anyway=force,
        )
    print_facts(found.facts, run.as_json)
    if not found.lost:
        return MARKED
    error_line(found.lost if found.written else f"{out} is not written: {found.lost}; --force writes it all the same")
    return USELESS
