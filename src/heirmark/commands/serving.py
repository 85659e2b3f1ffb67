"""Serve a model of one's own."""

from __future__ import annotations

from typing import Annotated

import typer

from heirmark.commands.attacking import Shown
from heirmark.commands.options import MARKED, Custom, Device, Run, guarded
from heirmark.console import error_line, show


@guarded
def serve(
    model: Annotated[
        str,
        typer.Argument(help="Folder of a model, an .onnx file, or package.module:name of a module or a function."),
    ],
    host: Annotated[str, typer.Option("--host", help="Address to listen at; the default is this machine's own.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.", min=0, max=65535)] = 8000,
    name: Annotated[str, typer.Option("--name", help="By which clients know the model.")] = "model",
    classes: Annotated[
        int | None, typer.Option("--classes", help="How many, where the model does not tell.", min=2)
    ] = None,
    shape: Annotated[
        str | None, typer.Option("--shape", help="Of one input, such as 3,32,32, where the model does not tell.")
    ] = None,
    factory: Custom = None,
    device: Device = "auto",
    *,
    shown: Shown,
) -> int:
    """Answer questions over HTTP by the Open Inference Protocol (version 2), until interrupted."""
    from heirmark.jobs import serving
    from heirmark.loading import user_factory
    from heirmark.querying.blackbox import Api

    what = serving.Shown(
        model=model,
        name=name,
        api=Api(**vars(shown)),
        factory=user_factory(factory),
        classes=classes,
        shape=None if shape is None else parse_shape(shape),
    )
    with Run().bars("load the model") as bars:
        served = serving.open_served(what, bars.runtime(device, "float32"))
    with serving.listen(host, port) as listening:
        if not serving.is_loopback(listening):
            error_line("whoever reaches this machine can ask the model: there are no passwords, and no encryption")
        show(f"serving at {serving.address_of(listening, served)}")
        serving.serve_job(served, listening)
    return MARKED


def parse_shape(text: str) -> tuple[int, ...]:
    """Sizes from text such as ``"3,32,32"``.

    Raises:
        BadConfig: for anything else.

    Examples:
        >>> parse_shape("3,32,32")
        (3, 32, 32)
    """
    from heirmark.errors import BadConfig

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) < 1 << 20 for part in parts):
        raise BadConfig(f"--shape {text}: write whole numbers with commas, as in 3,32,32")
    return tuple(map(int, parts))
