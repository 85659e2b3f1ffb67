"""The command line: parses, calls, prints.

Exit codes: 0 done, and for ``verify`` MARKED; 3 ``verify`` did not establish a mark; 4 ``embed`` wrote a mark that can prove
nothing, or ``export`` would lose it; 2 bad usage or configuration; 1 failure, an INVALID verdict among them; 130 interrupted.
"""

from __future__ import annotations

import sys
import warnings
from typing import Annotated, Any

import typer

from heirmark.commands import (
    attacking,
    auditing,
    benching,
    drafting,
    exporting,
    owning,
    proving,
    serving,
    showing,
    verifying,
)
from heirmark.commands.options import FAILURE, ended_well
from heirmark.console import error_line
from heirmark.errors import HeirmarkWarning
from heirmark.version import __version__

_PYTHONS_WAY = warnings.showwarning
_told: set[str] = set()

app = typer.Typer(
    help="Watermark a neural network so that stolen copies inherit the mark, and prove by queries alone that they did.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done or MARKED, 3 not established, 4 the mark is of no use or would be lost, 2 bad usage, 1 failure.",
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
    showing.demo,
    owning.embed,
    drafting.draft,
    drafting.draw,
    auditing.audit,
    attacking.steal,
    attacking.remove,
    attacking.detect,
    benching.bench,
    verifying.verify,
    proving.commit,
    proving.disclose,
    proving.recheck,
    serving.serve,
    exporting.export,
    owning.inspect,
    owning.fields,
):
    app.command()(command)


def main() -> None:
    """Run the command line and exit with its code.

    An exit code of 0 means MARKED to whoever called ``verify``, so it is given only when a command said so itself, or when help
    or the version was asked for: some releases of the library that parses the command line show the version unasked.
    """
    warnings.showwarning = _show_warning
    try:
        app()
    except SystemExit as end:
        asked = sys.argv[1:]
        if end.code in (0, None) and not (ended_well() or not asked or {"--help", "--version"} & set(asked)):
            error_line(
                "the command did not run: the installed typer and click do not fit each other; install heirmark anew"
            )
            raise SystemExit(FAILURE) from None
        raise


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """One line for a warning of heirmark's, once; Python's own way for all others."""
    if issubclass(category, HeirmarkWarning):
        if str(message) not in _told:
            error_line(f"note: {message}")
        _told.add(str(message))
    else:
        _PYTHONS_WAY(message, category, *place, **more)


if __name__ == "__main__":
    main()
