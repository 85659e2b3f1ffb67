"""What the commands share: options, exit codes, how they end and print."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from heirmark.console import Bars, error_line, show
from heirmark.errors import BadConfig, HeirmarkError, out_of_memory

if TYPE_CHECKING:
    from heirmark.jobs.means import OnEvent, Work
    from heirmark.runtime import Runtime

MARKED, FAILURE, USAGE, NOT_ESTABLISHED, USELESS, INTERRUPTED = 0, 1, 2, 3, 4, 130

exit_codes: list[int] = []
"""Of the commands that ended in this process."""


def guarded(command: Callable[..., int]) -> Callable[..., None]:
    """End a command with its exit code; a known error is one line and never a traceback.

    A parameter whose type is a dataclass of options, such as :class:`Run`, stands for its fields on the command line.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: each.annotation for name, each in signature.parameters.items() if is_dataclass(each.annotation)
    }

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            for name, group in groups.items():
                options[name] = group(**{part.name: options.pop(part.name) for part in fields(group)})
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
            if not out_of_memory(error):
                raise
            error_line(
                "out of memory: free some, choose a smaller model or batch where something trains (--set "
                "rehearsal.memory.micro_batch=..., for t2s), or use a larger machine"
            )
            code = FAILURE
        exit_codes.append(code)
        raise typer.Exit(code)

    run.__signature__ = signature.replace(parameters=list(_expanded(signature)))  # type: ignore[attr-defined]
    return run


def _expanded(signature: inspect.Signature) -> Iterator[inspect.Parameter]:
    """Parameters of a command, all by keyword, with the fields of each group of options in its place."""
    for each in signature.parameters.values():
        if is_dataclass(each.annotation):
            hints = get_type_hints(each.annotation, include_extras=True)
            for part in fields(each.annotation):
                yield inspect.Parameter(
                    part.name, inspect.Parameter.KEYWORD_ONLY, default=part.default, annotation=hints[part.name]
                )
        else:
            yield each.replace(kind=inspect.Parameter.KEYWORD_ONLY)


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
Seed = Annotated[
    int, typer.Option("--seed", help="Seed of everything random; the same seed gives the same result.", min=0)
]
SplitSeed = Annotated[
    int,
    typer.Option(
        "--split-seed", help="Seed of who gets which example, also for a --data function that takes seed.", min=0
    ),
]
ModelsSplitSeed = Annotated[int | None, typer.Option("--split-seed", help="Default: the model's.", min=0)]
Protocol = Annotated[
    str,
    typer.Option(
        "--protocol",
        help="disjoint: thieves have images that the owner has not; paper: the owner's own, and the owner nearly all.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:0 ...")]
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


def configured(config: Any, model: str | None, settings: list[str] | None) -> Any:
    """A method or attack with its ``--set`` and ``--model``; ``--set model=...`` is another way to write ``--model``."""
    from heirmark.configuration import apply_settings
    from heirmark.loading import named_architecture

    config = apply_settings(config, settings or [])
    if model is not None:
        if any(setting.partition("=")[0].strip() == "model" for setting in settings or []):
            raise BadConfig("--model and --set model=... name the same thing: give one of them")
        config = replace(config, model=model)
    return replace(config, model=named_architecture(config.model)) if isinstance(config.model, str) else config


@dataclass(frozen=True)
class Run:
    """Where a command computes, where data sets lie, and how it answers."""

    device: Device = "auto"
    precision: Annotated[str, typer.Option("--precision", help="auto, float32 or bfloat16.")] = "auto"
    data_root: Annotated[
        Path | None, typer.Option("--data-root", help="Folder of data sets; else $HEIRMARK_DATA, else ./data.")
    ] = None
    as_json: Json = False

    def bars(self, doing: str = "load the data") -> Bars:
        """Progress of what is done first; with ``--json`` only for somebody who watches: a program reads the document alone."""
        bars = Bars(quiet=self.as_json and not sys.stderr.isatty())
        bars.progress(doing, 0, 1)
        return bars

    def runtime(self, bars: Bars) -> Runtime:
        """A runtime that reports to bars."""
        return bars.runtime(self.device, self.precision)


@dataclass(frozen=True)
class Training(Run):
    """Of a command that trains."""

    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Train through torch.compile, in place of recorded graphs on a GPU; rounding, and so results, are its own.",
        ),
    ] = False

    def runtime(self, bars: Bars) -> Runtime:
        """See :meth:`Run.runtime`."""
        return bars.runtime(self.device, self.precision, self.compiled)


@dataclass(frozen=True)
class Kept(Training):
    """Of a command whose finished stages are kept for the next one."""

    store: Annotated[
        Path,
        typer.Option(
            "--store",
            help="Where finished stages are kept, so that an interrupted run resumes.",
            envvar="HEIRMARK_STORE",
        ),
    ] = Path("runs/store")

    def work(self, bars: Bars, seed: int, on_event: OnEvent | None = None) -> Work:
        """What a job is given; its events go to bars unless another is to be told."""
        from heirmark.jobs.means import Work

        return Work(seed=seed, runtime=self.runtime(bars), store=self.store, on_event=on_event or bars.event)


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
