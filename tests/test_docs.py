"""What README.md, CONTRIBUTING.md and docs/ show is true: blocks run, commands parse, links and names lead somewhere."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import runpy
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from typer.testing import CliRunner

import heirmark
from documents import (
    PLACEHOLDER,
    ROOT,
    Block,
    Command,
    anchors_of,
    blocks_of,
    commands_in,
    commands_of,
    links_of,
    pages,
    spoken_of,
    text_of,
)
from heirmark.cli import app
from heirmark.configuration import apply_settings
from heirmark.grids import Grid
from heirmark.grids.plan import plan_grid
from heirmark.grids.settings import Contexts
from heirmark.runtime import Runtime
from heirmark.tasks.task import Task

BLOCKS = [block for page in pages() for block in blocks_of(page)]
COMMANDS = [command for page in pages() for command in commands_of(page)]
OURS = [command for command in COMMANDS if command.words[0] == "heirmark"]
SCRIPTS = [command for command in COMMANDS if command.words[0] == "python" and len(command.words) > 1]
CLI: Any = typer.main.get_command(app)


def told(command: Command) -> str:
    return f"{command.place}: {command}"


# ---------------------------------------------------------------- Python


class Briefly(ast.NodeTransformer):
    """The same program with one epoch wherever it says how many."""

    def visit_keyword(self, node: ast.keyword) -> ast.keyword:
        if node.arg == "epochs":
            node.value = ast.Constant(1)
        self.generic_visit(node)
        return node


def run(block: Block, known: dict[str, Any]) -> None:
    tree = ast.fix_missing_locations(Briefly().visit(ast.parse(block.code)))
    try:
        exec(compile(tree, block.place, "exec"), known)
    except Exception as error:
        pytest.fail(f"the block at {block.place} does not run: {type(error).__name__}: {error}")


@pytest.fixture
def known(tiny_task_of: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What blocks take for granted: data sets a, b, c, d of three classes; and a small task wherever one is loaded."""
    small = tiny_task_of(classes=10, train=450, test=50)
    monkeypatch.setattr(heirmark, "load_task", lambda *_, **__: small, raising=False)
    three: Task = tiny_task_of(classes=3, train=120, test=30)
    parts = (three.owner, three.adversary, three.calibration, three.test)
    items = [[(image, int(label)) for image, label in zip(p.inputs, p.labels, strict=True)] for p in parts]
    return dict(zip("abcd", items, strict=True))


@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS if block.language == "python"}))
def test_python_blocks_run_one_after_the_other(page: str, known: dict[str, Any]) -> None:
    """With tiny data and one epoch. A function of a scale is a recipe, whose grid is planned."""
    for block in BLOCKS:
        if block.page == page and block.language == "python" and not block.reason:
            run(block, known)
    for name, made in list(known.items()):
        if inspect.isfunction(made) and list(inspect.signature(made).parameters) == ["scale"]:
            for scale in ("cpu", "paper"):
                grid = made(scale)
                assert isinstance(grid, Grid), name
            short = replace(made("cpu"), seeds=made("cpu").seeds[:1])
            assert plan_grid(short, Contexts(Runtime(device="cpu", precision="float32"))).cells


def test_the_packages_own_example_runs(known: dict[str, Any]) -> None:
    assert heirmark.__doc__ is not None
    (code,) = re.findall(r"::\n\n((?:    .*\n|\n)+)", heirmark.__doc__)
    run(Block(page="heirmark.__doc__", line=1, language="python", code=textwrap.dedent(code), reason=""), known)


def test_a_block_says_in_what_language_it_is() -> None:
    shells = ("", "sh", "shell", "bash", "console")
    assert [
        block.place for block in BLOCKS if block.language not in (*shells, "python", "text", "json", "mermaid", "toml")
    ] == []


# ---------------------------------------------------------------- commands


@pytest.mark.parametrize("command", [c for c in OURS if c.whole], ids=told)
def test_a_command_can_be_copied(command: Command) -> None:
    """Parsed by the command line's own parser: command, options and values are real, and none that is needed is missing."""
    name, *words = command.words[1:]
    try:
        context = CLI.commands[name].make_context(name, list(words))
    except KeyError:
        pytest.fail(f"{told(command)}: there is no command {name!r}")
    except click.exceptions.Exit:
        return  # --help
    except click.ClickException as error:
        pytest.fail(f"{told(command)}: {error.format_message()}")
    check_names(command, name, context.params)


def check_names(command: Command, name: str, values: dict[str, Any]) -> None:
    """What is named beside the options: methods, attacks, settings."""
    from heirmark.attacks import EXTRACTIONS, INSPECTIONS, REMOVALS, SCREENINGS
    from heirmark.methods import METHODS

    kinds: dict[str, dict[str, Any]] = {
        "embed": dict(METHODS), "steal": dict(EXTRACTIONS), "remove": dict(REMOVALS),
        "detect": {**INSPECTIONS, **SCREENINGS},
    }  # fmt: skip
    if name not in kinds:
        return
    chosen = values.get("method") or values.get("attack")
    if chosen is None or PLACEHOLDER.fullmatch(chosen):
        return
    assert chosen in kinds[name], f"{told(command)}: {chosen!r} is none of {', '.join(kinds[name])}"
    apply_settings(kinds[name][chosen](), list(values.get("settings") or ()))


@pytest.mark.parametrize("command", [c for c in OURS if not c.whole], ids=told)
def test_a_command_that_a_sentence_names_exists(command: Command) -> None:
    name, *words = command.words[1:]
    if name.startswith("--"):
        name, words = "heirmark", [name, *words]
    known = CLI if name == "heirmark" else CLI.commands.get(name)
    assert known is not None, f"{told(command)}: there is no command {name!r}"
    options = {option for parameter in known.params for option in (*parameter.opts, *parameter.secondary_opts)}
    options.add("--help")
    assert [word for word in words if word.startswith("--") and word not in options] == [], told(command)


@pytest.mark.parametrize("page", pages())
def test_an_option_that_a_sentence_names_exists(page: str) -> None:
    options = {
        option for known in CLI.commands.values() for p in known.params for option in (*p.opts, *p.secondary_opts)
    }
    options |= {"--help", "--version"}
    named = [text.split()[0].partition("=")[0] for text in spoken_of(page) if text.startswith("--")]
    assert [option for option in named if option not in options] == []


class Parsed(Exception):
    """A script has read its command line, and is not to begin its work."""


@pytest.mark.parametrize("command", SCRIPTS, ids=told)
def test_a_script_takes_the_options_that_a_page_gives_it(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    script = ROOT / command.words[1]
    if command.words[1] in ("-m", "-c"):
        return
    assert script.is_file(), told(command)
    if "argparse" not in script.read_text(encoding="utf-8"):
        return
    read = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, *given: Any) -> None:
        read(parser, *given)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", list(command.words[1:]))
    monkeypatch.setattr(sys, "path", [str(script.parent), *sys.path])
    modules = set(sys.modules)
    try:
        runpy.run_path(str(script), run_name="__main__")
    except Parsed:
        return
    except SystemExit as end:
        if end.code or "--help" not in command.words:
            pytest.fail(f"{told(command)}: the script does not take this")
    finally:
        for name in set(sys.modules) - modules:
            if (ROOT / "benchmarks" / f"{name}.py").exists():  # another test may import its own
                del sys.modules[name]


def test_targets_and_extras_that_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    for command in COMMANDS:
        if command.words[0] == "make":
            assert {word for word in command.words[1:] if "=" not in word} <= targets, told(command)
    for page in pages():
        for extra in re.findall(r"heirmark\[([\w,]+)\]", text_of(page)):
            assert set(extra.split(",")) <= set(project["optional-dependencies"]), f"{page}: heirmark[{extra}]"


CHEAP = ("fields", "--list", "--help", "--version")
"""Words of a command that takes no time."""


def test_cheap_commands_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    cheap = [c for c in OURS if c.whole and any(word in c.words for word in CHEAP) and not PLACEHOLDER.search(str(c))]
    assert cheap
    for command in cheap:
        result = CliRunner().invoke(app, list(command.words[1:]))
        assert result.exit_code == 0, (told(command), result.output)
        assert result.output.strip()


# ---------------------------------------------------------------- commands that compute, with little data

TINY = ["--device", "cpu", "--precision", "float32"]
OWN = [*TINY, "--data", "own_code:make_task"]
BRIEFLY: dict[str, list[str]] = {
    "embed": [
        *OWN, "--seed", "0", "--calibrators", "2", "--model", "naivenet:width=4,hidden=16,batch_norm=true",
        "--set", "key_size=60", "--set", "triggers=40", "--set", "pretraining.epochs=5", "--set", "pretraining.batch_size=32",
        "--set", "rehearsal.recipe.epochs=1", "--set", "rehearsal.recipe.batch_size=32",
    ],
    "steal": [*OWN, "--set", "recipe.epochs=4", "--set", "recipe.batch_size=16"],
    "remove": OWN,
    "detect": OWN,
    "export": OWN, "commit": ["--shards", "2"],
    "audit": [*OWN, "--only", "pruning"],
    "bench": TINY,
}  # fmt: skip
"""What makes a page's command short. ``demo`` has a test of its own, and whatever is not here runs as it stands."""
ROBUST = ["--set", "feature_recipe.epochs=1", "--set", "thieves=naivenet:width=4", "--set", "judges=naivenet:width=3"]
"""What makes the default method short besides."""
MINE = "from torch import nn\n\nmodel = nn.Sequential(nn.Flatten(), nn.LayerNorm(256), nn.Linear(256, 5, bias=False))\n"
GRID = "from test_bench_report import TINY\n\n\ndef table_1(scale):\n    return TINY\n"


def shortened(command: Command) -> list[str]:
    """A command with less to do; a placeholder, and a recipe of the repository, become what the test has made."""
    name, *words = command.words[1:]
    large = [] if "--list" in words else ["recipes/"]
    words = [
        "my_grid.py:table_1" if PLACEHOLDER.search(word) or word.startswith(tuple(large)) else word for word in words
    ]
    joining = name == "bench" and "--rows" in words
    brief = [*BRIEFLY.get(name, []), *(ROBUST if name == "embed" and "--method" not in words else [])]
    return [name, *words, *([] if joining or "--list" in words else brief)]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("my_grid.py").write_text(GRID)
    Path("mine.py").write_text(MINE)
    shutil.copytree(ROOT / "recipes", "recipes")
    yield tmp_path
    for name in ("my_grid", "mine"):
        sys.modules.pop(name, None)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", sorted({command.place.partition(":")[0] for command in OURS if command.whole}))
def test_the_commands_of_a_page_run_one_after_the_other(page: str, workplace: Path) -> None:
    """Those that compute, with little data; so short a training need leave no mark that could be proved (exit codes 3, 4)."""
    shown = [command for block in blocks_of(page) if not block.reason for command in commands_in(block)]
    wanted = [command for command in shown if command.words[0] == "heirmark" and command.words[1] != "demo"]
    if not any(command.words[1] == "embed" for command in wanted):  # then it speaks of the README's model
        wanted = [*[c for c in OURS if c.place.startswith("README") and c.words[1] == "embed" and c.whole][:1], *wanted]
    for command in wanted:
        result = CliRunner().invoke(app, shortened(command))
        assert result.exit_code in (0, 3, 4), (told(command), result.output, result.exception)
        weights = Path("runs/mine/model.safetensors")
        if weights.exists():
            shutil.copy(weights, "weights.safetensors")  # what a reader's own are called


# ---------------------------------------------------------------- links and names


@pytest.mark.parametrize("page", [*pages(), "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    for link in links_of(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors_of(target.read_text(encoding="utf-8")), f"{page}: {link}"


@pytest.mark.parametrize("page", pages())
def test_files_that_sentences_name_exist(page: str) -> None:
    """Paths from the root of the repository."""
    places = r"(?:benchmarks|recipes|results|docs|tests|scripts|src)/[\w./-]*"
    named = {text for text in spoken_of(page) if re.fullmatch(places, text) and not PLACEHOLDER.search(text)}
    assert {text for text in named if not (ROOT / text).exists()} == set()


# ---------------------------------------------------------------- the package's modules and names


def test_modules_are_small() -> None:
    """As CONTRIBUTING says."""
    package = Path(heirmark.__file__).parent
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in package.rglob("*.py")}
    assert len(sizes) > 200
    assert {str(path.relative_to(package)): size for path, size in sizes.items() if size > 300} == {}


def test_the_packages_names_agree() -> None:
    """What ``from heirmark import ...`` gives, what ``__all__`` says and what a type checker sees are the same."""
    stub = Path(heirmark.__file__).with_suffix(".pyi")
    tree = ast.parse((stub if stub.exists() else Path(heirmark.__file__)).read_text(encoding="utf-8"))
    seen = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("heirmark.")
        for alias in node.names
    }
    assert sorted(heirmark.__all__) == sorted(set(heirmark.__all__)), "a name stands in __all__ twice"
    assert set(heirmark.__all__) == seen
    assert set(heirmark.__all__) <= set(dir(heirmark))
    for name in heirmark.__all__:
        assert getattr(heirmark, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = heirmark.nothing_of_the_kind


# ---------------------------------------------------------------- tables


def test_tables_say_what_is_recorded() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "make_tables.py"))
    for page in pages():
        text = text_of(page)
        assert made["current"](text, ROOT / page) == text, f"{page} is not current: make tables"
