"""What the commands share: options, exit codes, how they end and print."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

from heirmark.console import Bars, error_line, show
from heirmark.errors import BadConfig, HeirmarkError

MARKED, FAILURE, USAGE, NOT_ESTABLISHED, USELESS, INTERRUPTED = 0, 1, 2, 3, 4, 130

exit_codes: list[int] = []
"""Of the commands that ended in this process."""
"""Exit codes of the commands that this process has run."""

P = ParamSpec("P")


def guarded(command: Callable[P, int]) -> Callable[P, None]:
    """End a command with its exit code; a known error is one line and never a traceback."""

    @functools.wraps(command)
    def run(*args: P.args, **options: P.kwargs) -> None:
        try:
            code = command(*args, **options)
        except KeyboardInterrupt:
            error_line("interrupted; what was finished is kept: run the same command with the same seed to go on")
            code = INTERRUPTED
        except HeirmarkError as error:
            error_line(str(error))
            code = USAGE if isinstance(error, BadConfig) else FAILURE
        except BrokenPipeError:
            raise  # the reader has gone, as in `heirmark fields t2s | head`: typer ends quietly
        except OSError as error:
            error_line(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
            code = FAILURE
        except Exception as error:
            from heirmark.asking import out_of_memory

            if not out_of_memory(error):
                raise
            error_line(
                "out of memory: free some, choose a smaller model or batch where something trains (--set "
                "rehearsal.memory.micro_batch=..., for t2s), or use a larger machine"
            )
            code = FAILURE
        exit_codes.append(code)
        raise typer.Exit(code)

    return run


def ended_well() -> bool:
    """Whether a command ran to its end here, and ended with 0."""
    return exit_codes[-1:] == [MARKED]


Out = Annotated[Path, typer.Option("--out", help="Folder to write; it must not exist yet, or be empty.")]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="Data set by name, a folder of arrays or images (./photos), or package.module:function that returns a Task; "
        "if it takes seed, it gets the split seed.",
    ),
]
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Folder of data sets; else $HEIRMARK_DATA, else ./data.")
]
Seed = Annotated[
    int, typer.Option("--seed", help="Seed of everything random; the same seed gives the same result.", min=0)
]
SplitSeed = Annotated[
    int,
    typer.Option(
        "--split-seed", help="Seed of who gets which example, also for a --data function that takes seed.", min=0
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:0 ...")]
Precision = Annotated[str, typer.Option("--precision", help="auto, float32 or bfloat16.")]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Train through torch.compile, in place of recorded graphs on a GPU; rounding, and so results, are its own.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="field=value of the method or attack; 'heirmark fields NAME' lists them."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Model = Annotated[
    str | None, typer.Option("--model", help="name, name:option=value,... or package.module:factory of your own.")
]
Custom = Annotated[
    str | None, typer.Option("--model", help="package.module:factory that builds it, if it is a model of your own.")
]
Quick = Annotated[
    bool,
    typer.Option(
        "--quick", help="Start from the demo's settings, not the paper's: minutes on a CPU, for small images."
    ),
]
StoreRoot = Annotated[
    Path,
    typer.Option(
        "--store", help="Where finished stages are kept, so that an interrupted run resumes.", envvar="HEIRMARK_STORE"
    ),
]


def configured(config: Any, model: str | None, settings: list[str] | None) -> Any:
    """A method or attack with its ``--set`` and ``--model``; ``--set model=...`` is another way to write ``--model``."""
    from heirmark.configuration import apply_settings
    from heirmark.pipeline.loading import named_architecture

    config = apply_settings(config, settings or [])
    if model is not None:
        if any(setting.partition("=")[0].strip() == "model" for setting in settings or []):
            raise BadConfig("--model and --set model=... name the same thing: give one of them")
        config = replace(config, model=model)
    return replace(config, model=named_architecture(config.model)) if isinstance(config.model, str) else config


def fit(attack: str, build: Callable[[Any], Any], sizes: Any, recipe: Any) -> tuple[Any, dict[str, Any]]:
    """A ``--quick`` attack fitted to what the adversary has, as an audit's is, and the fact to show of it.

    Args:
        attack: its name.
        build: puts the user's own settings on top, which are never changed.
        sizes: what he has, :class:`heirmark.attacks.base.Sizes`.
        recipe: by which the attacked model learned.
    """
    from heirmark.pipeline.audit_attacks import fitting, quick_attack, quick_attacks

    fits = build(quick_attack(attack, sizes, recipe))
    words = fitting(build(quick_attacks(recipe)[attack]), fits, sizes)
    return fits, {"fitted": words} if words else {}


def bars_for(as_json: bool) -> Bars:
    """Progress; with ``--json`` only for somebody who watches, so that a program reads nothing but the document."""
    return Bars(quiet=as_json and not sys.stderr.isatty())


def print_json(value: object) -> None:
    """Print a document."""
    print(json.dumps(value, indent=2, allow_nan=False))


def print_facts(facts: dict[str, Any], as_json: bool) -> None:
    """Print facts, one a line, or as a document."""
    if as_json:
        print_json(facts)
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        show(f"{name.replace('_', ' '):<{width}}  {value if isinstance(value, str) else json.dumps(value)}")
