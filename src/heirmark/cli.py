"""The command line: parses, calls, prints.

Exit codes: 0 done, and for ``verify`` MARKED; 3 ``verify`` did not establish a mark; 2 bad usage or configuration; 1 failure,
an INVALID verdict among them; 130 interrupted.
"""

from __future__ import annotations

from typing import Annotated

import typer

from heirmark.commands import attacking, auditing, benching, owning
from heirmark.version import __version__

app = typer.Typer(
    help="Watermark a neural network so that stolen copies inherit the mark, and prove by queries alone that they did.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done or MARKED, 3 not established, 2 bad usage, 1 failure.",
)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"heirmark {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Take what stands before the command."""


for command in (
    owning.demo,
    owning.embed,
    auditing.audit,
    attacking.steal,
    attacking.remove,
    attacking.detect,
    benching.bench,
    owning.verify,
    owning.inspect,
    owning.fields,
):
    app.command()(command)


def main() -> None:
    """Run the command line and exit with its code."""
    app()


if __name__ == "__main__":
    main()
