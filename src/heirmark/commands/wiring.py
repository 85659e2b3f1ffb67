"""Options of commands that may ask a service."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from heirmark.jobs.folder import ModelFolder
    from heirmark.jobs.services import Asking
    from heirmark.wire.client import Client


@dataclass(frozen=True)
class Wire:
    """How a service is asked; see :class:`heirmark.wire.client.Client` and :class:`heirmark.wire.limits.Limits`."""

    protocol: Annotated[
        str, typer.Option("--protocol", help="Of a service: auto, or one by name; a wrong name lists them.")
    ] = "auto"
    layout: Annotated[
        str,
        typer.Option("--layout", help="Of an input at a service: auto, channels-first, channels-last or flat."),
    ] = "auto"
    output: Annotated[
        str | None, typer.Option("--output", help="Output of a service to read, where it has several.")
    ] = None
    header: Annotated[
        list[str] | None,
        typer.Option("--header", help="'Name: value' for a service; $NAME in it is looked up in the environment."),
    ] = None
    transcript: Annotated[
        Path | None,
        typer.Option(
            "--transcript", help="File of all that a service is asked and answers; what it holds is not asked again."
        ),
    ] = None
    batch: Annotated[int, typer.Option("--batch", help="Inputs a call to a service.", min=1, max=4096)] = 32
    call_seconds: Annotated[
        float, typer.Option("--call-seconds", help="A call to a service is given up after so long.", min=0.001)
    ] = 30.0
    total_seconds: Annotated[
        float, typer.Option("--total-seconds", help="A service is asked nothing more after so long.", min=0.001)
    ] = 86400.0
    retries: Annotated[
        int, typer.Option("--retries", help="How often a call that failed in passing is made again.", min=0, max=100)
    ] = 4
    rate: Annotated[float | None, typer.Option("--rate", help="Inputs a second to a service, at most.", min=1e-6)] = (
        None
    )
    price: Annotated[float, typer.Option("--price", help="Of one input to a service.", min=0.0)] = 0.0
    max_cost: Annotated[
        float | None,
        typer.Option("--max-cost", help="No question that could cost more in all; with --price 1, inputs.", min=0.0),
    ] = None
    allow_private: Annotated[
        bool,
        typer.Option("--allow-private", help="Ask services of this machine (127.0.0.1) and of private networks."),
    ] = False
    allow_redirects: Annotated[
        bool, typer.Option("--allow-redirects", help="Follow a service that names another address.")
    ] = False

    def client(self) -> Client:
        """The client.

        Raises:
            BadConfig: for what makes no sense.
        """
        from typing import cast, get_args

        from heirmark.loading import check_known
        from heirmark.wire.client import Client, read_headers
        from heirmark.wire.layouts import Order
        from heirmark.wire.limits import Limits

        check_known("layout", self.layout, get_args(Order))
        limits = Limits(
            batch=self.batch,
            call_seconds=self.call_seconds,
            total_seconds=self.total_seconds,
            retries=self.retries,
            rate=self.rate,
            price=self.price,
            max_cost=self.max_cost,
            allow_private=self.allow_private,
            allow_redirects=self.allow_redirects,
        )
        return Client(
            protocol=self.protocol,
            order=cast(Order, self.layout),
            output=self.output,
            headers=read_headers(self.header or ()),
            limits=limits,
            transcript=self.transcript,
        )


@dataclass(frozen=True)
class Ordinary:
    """What a verifier has besides a key, when a service is asked."""

    ordinary: Annotated[
        str | None,
        typer.Option(
            "--ordinary",
            help="Data set whose test images tell what a service's classes mean, and hide questions; default: the key's own.",
        ),
    ] = None
    data_root: Annotated[
        Path | None, typer.Option("--data-root", help="Folder of data sets; else $HEIRMARK_DATA, else ./data.")
    ] = None
    mix: Annotated[
        float, typer.Option("--mix", help="Ordinary inputs for each question to a service.", min=0.0, max=100.0)
    ] = 0.0
    decoys: Annotated[
        float,
        typer.Option(
            "--decoys",
            help="Inputs like the key's, by another secret, for each question to a service.",
            min=0.0,
            max=100.0,
        ),
    ] = 0.0

    def asking(self, key: ModelFolder, client: Client, labels: str | None) -> Asking:
        """How services are asked.

        Args:
            key: to whose classes theirs are matched.
            client: how it is asked.
            labels: as ``--labels`` has it; numbers are another's affair.

        Raises:
            BadConfig: for what makes no sense.
        """
        from heirmark.console import error_line
        from heirmark.jobs.services import Asking, cover_of, ordinary_task
        from heirmark.jobs.verify import parse_names

        task = ordinary_task(key, self.ordinary, self.data_root)
        cover = cover_of(key.key.kind, task, ordinary=self.mix, decoys=self.decoys)
        names = parse_names(labels) if labels is not None and "=" in labels else None
        asking = Asking(client=client, names=names, inferred=labels == "auto", tell=error_line)
        return asking.among(task).covered(cover)
