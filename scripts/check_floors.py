"""Install heirmark with every dependency at its declared floor, in an environment of its own, and use the installed command.

    python scripts/check_floors.py [--torch VERSION] [--venv DIR] [--no-apart]

The floors are read out of pyproject.toml; what the dependencies need in turn (click, say) is pip's choice, the newest that fits.
First comes one environment with all that heirmark needs and the extras that go together: the command's help, version, exit codes
and listings, a model that is really marked, stolen and judged, and a part of the tests, with old libraries' warnings let through.
Then every other extra, in an environment of its own on top: installed at its floor, imported as heirmark does it, and tested.

torch's floor brings gigabytes of GPU libraries along; ``--torch`` takes another release. ``--venv`` keeps what was installed. The
exit code is 1 when anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = ("pyproject.toml", "README.md", "LICENSE", "src", "tests", "recipes", "benchmarks", "scripts", "docs")
"""What is installed, tested and linted: a copy, so that nothing is built in the repository."""

RUNTIME = ""
"""Where :func:`read_floors` keeps what is no extra."""
TOGETHER = ("onnx", "fsspec", "http", "serve", "sound", "text", "timestamp", "test")
"""Extras in the first environment."""

TESTS = (
    "cli", "files", "key", "statistics", "verify", "wilcoxon", "blackbox", "configuration", "data", "mirror", "rehearsal",
    "training", "triggers", "sections", "results", "bench_report", "transcript", "wire", "dialects",
)  # fmt: skip
CONTRACTS = ("removals", "detections")
LENIENT = ("DeprecationWarning", "FutureWarning", "ResourceWarning", "pytest.PytestUnraisableExceptionWarning")
"""Warnings of old libraries about new ones, and of processes that they leave behind; the gate takes them for errors."""

OWN_TASK = '''"""A task that a tiny net learns in a second."""

import torch
import torch.nn.functional as F

from heirmark.tasks.splitting import make_task
from heirmark.tasks.task import Split, Task

CLASSES = 5


def images(count: int, seed: int) -> Split:
    patterns = F.interpolate(torch.rand(CLASSES, 1, 4, 4, generator=torch.Generator().manual_seed(77)), size=(16, 16))
    labels = torch.arange(count) % CLASSES
    noise = 0.1 * torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    return Split(inputs=(patterns[labels] + noise).clamp(0, 1).mul(255).round().to(torch.uint8), labels=labels)


def make() -> Task:
    names = tuple(f"kind {number}" for number in range(CLASSES))
    third = 1 / 3
    return make_task("own", names, images(600, 1), images(100, 2), seed=0, owner=third, adversary=third, calibration=third)
'''

_REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[a-z,]+\])?>=([0-9]+(?:\.[0-9]+)*)")


@dataclass(frozen=True)
class Ran:
    """A command that has ended.

    Attributes:
        code: its exit code; None when it was ended for taking too long.
        out: standard output.
        err: standard error.
        seconds: how long it took.
    """

    code: int | None
    out: str
    err: str
    seconds: float


@dataclass(frozen=True)
class Result:
    """What became of one check: ``ok``, ``FAILED``, or ``left out``, with the reason."""

    name: str
    outcome: str
    seconds: float = 0.0
    words: str = ""


@dataclass(frozen=True)
class Apart:
    """An extra that has an environment of its own.

    Attributes:
        code: Python that imports what heirmark imports of it.
        tests: arguments of pytest.
        commands: names and arguments of Python, run in the copied tree.
        excuse: a part of an error on import that is another's; then nothing more is run.
    """

    code: str
    tests: tuple[str, ...] = ()
    commands: tuple[tuple[str, tuple[str, ...]], ...] = ()
    excuse: str = ""


APART = {
    "tensorboard": Apart(
        "from torch.utils.tensorboard import SummaryWriter", ("tests/test_bench_report.py", "-k", "tensorboard")
    ),
    "mlflow": Apart("import mlflow; mlflow.set_experiment", ("tests/test_bench_report.py", "-k", "mlflow")),
    "ray": Apart("import ray; ray.cloudpickle, ray.exceptions", ("tests/test_on_ray.py",)),
    "timm": Apart(
        "import timm; timm.create_model",
        ("tests/test_models_wide.py", "-k", "timm"),
        excuse="torchvision::nms does not exist",  # a torchvision for GPUs beside a torch without
    ),
    "transformers": Apart(
        "import transformers; transformers.AutoModelForSequenceClassification", ("tests/test_transformers.py",)
    ),
    "docs": Apart("import mkdocs, material, mkdocstrings", commands=(("mkdocs --version", ("-m", "mkdocs", "--version")),)),
    # The types are those of the libraries in constraints.txt, not of their floors.
    "lint": Apart(
        "import ruff, mypy, importlinter",
        commands=(
            ("ruff check", ("-m", "ruff", "check", "--no-cache", ".")),
            ("ruff format", ("-m", "ruff", "format", "--check", "--no-cache", ".")),
            (
                "import-linter",
                ("-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"),
            ),
            ("mypy --version", ("-m", "mypy", "--version")),
        ),
    ),
}  # fmt: skip


def floor(requirement: str) -> tuple[str, str]:
    """Name and floor of a requirement.

    Args:
        requirement: ``name>=version``, the name with extras or without, and nothing more.

    Raises:
        ValueError: when it is written in another way.
    """
    found = _REQUIREMENT.fullmatch(requirement.replace(" ", ""))
    if found is None:
        raise ValueError(f"{requirement!r} declares no floor: write name>=version")
    return found[1], found[2]


def read_floors(path: Path) -> dict[str, dict[str, str]]:
    """Floors by extra and name; those of :data:`RUNTIME` come first.

    Args:
        path: a pyproject.toml.

    Raises:
        ValueError: for a requirement without a floor, or one that stands twice in its list.
    """
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    floors: dict[str, dict[str, str]] = {}
    for extra, requirements in {RUNTIME: project["dependencies"], **project["optional-dependencies"]}.items():
        floors[extra] = dict(map(floor, requirements))
        if len(floors[extra]) != len(requirements):
            raise ValueError(f"a name stands twice in the list of {extra or 'dependencies'}")
    return floors


def pins(floors: Mapping[str, str]) -> list[str]:
    """Requirements that take these versions and no other; ``1.26`` stands for 1.26.0."""
    return [f"{name}=={version}" for name, version in floors.items()]


def same_release(one: str, other: str) -> bool:
    """Whether two versions are the same release: ``1.26`` and ``1.26.0`` are, and so is ``1.26+cpu``."""

    def numbers(version: str) -> list[str]:
        parts = version.partition("+")[0].split(".")
        while parts and parts[-1] == "0":
            parts.pop()
        return parts

    return numbers(one) == numbers(other)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, as wide as they need to be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def run(command: Sequence[str | Path], folder: Path, *, limit: float = 600.0) -> Ran:
    """A command in a folder, with one thread and none of this process' own Python settings; ended after ``limit`` seconds."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HEIRMARK_", "VIRTUAL_ENV"))
    }
    settings = {
        "OMP_NUM_THREADS": "1", "COLUMNS": "120", "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }  # fmt: skip
    start = time.monotonic()
    words = [str(word) for word in command]
    try:
        ended = subprocess.run(
            words, cwd=folder, env=kept | settings, capture_output=True, text=True, errors="replace", timeout=limit, check=False
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Ran(None, "", f"it was ended after {limit:.0f} seconds", time.monotonic() - start)
    return Ran(ended.returncode, ended.stdout, ended.stderr, time.monotonic() - start)


def copy_tree(goal: Path) -> None:
    """Copy what is installed and tested, afresh."""
    shutil.rmtree(goal, ignore_errors=True)
    goal.mkdir(parents=True)
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
    for name in TREE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, goal / name, ignore=unwanted)
        else:
            shutil.copy(source, goal / name)


@dataclass
class Checker:
    """Makes the environments, uses what is in them, and keeps what became of it.

    Attributes:
        home: folder of all that is made.
        floors: as :func:`read_floors` gives them.
        results: of the checks so far.
    """

    home: Path
    floors: dict[str, dict[str, str]]
    results: list[Result] = field(default_factory=list)

    @property
    def tree(self) -> Path:
        """The copied repository."""
        return self.home / "tree"

    @property
    def work(self) -> Path:
        """Where the command is run."""
        return self.home / "work"

    @property
    def shared(self) -> list[str]:
        """What the first environment has, and what no other may change."""
        return [pin for extra in (RUNTIME, *TOGETHER) for pin in pins(self.floors[extra])]

    def python(self, environment: str = "main") -> Path:
        """An environment's interpreter."""
        return self.home / environment / "bin" / "python"

    def note(self, name: str, outcome: str, seconds: float = 0.0, words: str = "") -> None:
        """Keep a result and show it."""
        self.results.append(Result(name, outcome, seconds, words))
        print(f"  {outcome:<8}  {name}  {seconds:.1f} s{f'  {words}' if words else ''}", flush=True)

    def judge(self, name: str, ran: Ran, *, codes: Sequence[int] = (0,), problem: str = "") -> bool:
        """Keep whether a command ended as it should have: with one of these codes, no traceback and no other problem."""
        if ran.code not in codes:
            problem = f"exit code {ran.code} instead of {' or '.join(map(str, codes))}"
        elif "Traceback" in ran.err:
            problem = "a traceback"
        self.note(name, "FAILED" if problem else "ok", ran.seconds, problem)
        if problem:
            print("\n".join(f"    | {line}" for text in (ran.out, ran.err) for line in text.splitlines()[-40:]))
        return not problem

    def install(self, name: str, requirements: Sequence[str | Path], environment: str = "main") -> bool:
        """Let pip bring these into an environment, and the newest of what they need."""
        pip = [self.python(environment), "-m", "pip", "install", "--quiet", "--upgrade", "--upgrade-strategy", "eager"]
        return self.judge(f"{name}: install", run([*pip, *requirements], self.home, limit=3600))

    def make_main(self) -> bool:
        """The environment of heirmark itself; False when there is none."""
        copy_tree(self.tree)
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        (self.work / "own_task.py").write_text(OWN_TASK)
        if not self.python().exists():
            made = run([sys.executable, "-m", "venv", self.home / "main"], self.home)
            # Later releases of Python bring none along: what needs it has to say so.
            bare = run([self.python(), "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools"], self.home)
            if made.code or bare.code:
                return self.judge("main: venv", made if made.code else bare)
        if not self.install("main", self.shared):
            return False
        pip = [self.python(), "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", self.tree]
        brought = self.judge("main: install heirmark", run(pip, self.home))
        shutil.rmtree(self.tree / "build", ignore_errors=True)
        return brought and self.judge("main: pip check", run([self.python(), "-m", "pip", "check"], self.home))

    def installed(self, environment: str = "main") -> dict[str, str]:
        """Versions by lower-case name."""
        listed = run([self.python(environment), "-m", "pip", "list", "--format", "json"], self.home)
        return {row["name"].lower().replace("_", "-"): row["version"] for row in json.loads(listed.out or "[]")}

    def at_floors(self, name: str, extras: Sequence[str], environment: str = "main") -> None:
        """Check that pip took the floors of these extras, and print what else it brought along."""
        there = self.installed(environment)
        floors = {package: version for extra in extras for package, version in self.floors[extra].items()}
        rows = [(package, version, there.get(package, "none")) for package, version in floors.items()]
        print(table([("package", "wanted", "installed"), *rows]))
        if environment == "main":
            others = (f"{package} {version}" for package, version in sorted(there.items()) if package not in floors)
            print(f"pip's choice: {', '.join(others)}")
        wrong = [package for package, wanted, found in rows if not same_release(wanted, found)]
        self.note(f"{name}: every dependency is at its floor", "FAILED" if wrong else "ok", words=", ".join(wrong))

    def command(self, name: str, *words: str, codes: Sequence[int] = (0,), says: str = "", tells: str = "") -> None:
        """Run the installed command, and look at its exit code, its output (``says``) and its standard error (``tells``)."""
        ran = run([self.home / "main" / "bin" / "heirmark", *words], self.work)
        lacks = [text for text, there in ((says, ran.out), (tells, ran.err)) if text not in there]
        self.judge(name, ran, codes=codes, problem=f"it does not say {lacks[0]!r}" if lacks else "")

    def document(self, name: str, *words: str, code: int = 0, **wanted: object) -> None:
        """Run the installed command with ``--json``, and look for these fields in its document."""
        ran = run([self.home / "main" / "bin" / "heirmark", *words, "--json"], self.work)
        try:
            found = json.loads(ran.out)
            wrong = [key for key, value in wanted.items() if found[key] != value]
            problem = f"another {', '.join(wrong)} than expected" if wrong else ""
        except (ValueError, KeyError) as error:
            problem = f"no such document ({error!r})"
        self.judge(name, ran, codes=(code,), problem=problem)

    def use_command(self) -> None:
        """Help, version, exit codes and listings."""
        code = "import heirmark, sys; print(heirmark.__file__); sys.exit('site-packages' not in heirmark.__file__)"
        self.judge("it is the installed package", run([self.python(), "-c", code], self.work))
        code = "import typer, heirmark.cli; print(*typer.main.get_command(heirmark.cli.app).commands)"
        listed = run([self.python(), "-c", code], self.work)
        commands = listed.out.split()
        self.judge("list the commands", listed, problem="" if "verify" in commands else "verify is none of them")
        for words in ([], *([name] for name in commands)):
            self.command(" ".join(["heirmark", *words, "--help"]), *words, "--help", says="Usage:")
        self.command("heirmark --version", "--version", says="heirmark ")
        self.command("heirmark", codes=(0, 2), says="Usage:")  # click's own change of mind
        # A command that does not run must not end with 0, which means MARKED.
        self.command(
            "a suspect that is not there",
            "verify",
            "nothing.onnx",
            "--key",
            "nokey",
            codes=(1,),
            tells="heirmark: nokey",
        )
        for name, words in {
            "an unknown command": ["nonsense"],
            "an unknown option": ["verify", "a", "--nonsense"],
            "without --key": ["verify", "a"],
            "without a suspect": ["verify", "--key", "b"],
            "without --out": ["embed", "--method", "vanilla"],
            "a seed below 0": ["embed", "--out", "a", "--seed", "-1"],
            "a level that is no number": ["verify", "a", "--key", "b", "--level", "high"],
            "an unknown method": ["fields", "nonsense"],
        }.items():
            self.command(name, *words, codes=(2,))
        self.command("heirmark fields t2s", "fields", "t2s", says="rehearsal.update.rho")
        recipe = str(self.tree / "recipes" / "t2s.py")
        self.command("heirmark bench recipes/t2s.py --list", "bench", recipe, "--list", says="table_7")

    def use_models(self) -> None:
        """Mark a model, steal, judge, look into folders, and write the report of an audit."""
        here = ["--data", "own_task:make", "--device", "cpu", "--precision", "float32"]
        net = ["--model", "naivenet:width=4,hidden=16,batch_norm=true"]

        def settings(**values: object) -> list[str]:
            return [word for name, value in values.items() for word in ("--set", f"{name.replace('__', '.')}={value}")]

        training = settings(
            trigger="mix",
            key_size=60,
            pretraining__epochs=5,
            pretraining__batch_size=32,
            pretraining__learning_rate=0.05,
        )
        vanilla = ["--method", "vanilla", *training, *settings(triggers=40, trigger_batch=8), "--calibrators", "2"]
        unmarked = ["--method", "unmarked", *training, "--calibrators", "0"]
        recipe = settings(recipe__epochs=3, recipe__batch_size=32, recipe__learning_rate=0.05)
        self.command("embed", "embed", *vanilla, *here, *net, "--seed", "0", "--out", "marked", says="commitment")
        self.document("embed without a mark, --json", "embed", *unmarked, *here, *net, "--seed", "5", "--out", "clean")
        self.command("verify the marked model", "verify", "marked", "--key", "marked", says="MARKED")
        self.document("verify the marked model, --json", "verify", "marked", "--key", "marked", outcome="MARKED")
        self.document("verify the other", "verify", "clean", "--key", "marked", code=3, outcome="NOT_ESTABLISHED")
        self.document("inspect", "inspect", "marked")
        self.document("steal", "steal", "marked", *here, *recipe, "--seed", "1", "--out", "stolen")
        self.command("verify the stolen model", "verify", "stolen", "--key", "marked", codes=(0, 3), says="p-value")
        only = ["--only", "marked model: pruning of 10", "--data", "own_task:make", "--device", "cpu"]
        self.command("audit", "audit", "marked", *only, "--twin", "clean", "--out", "audit")
        page = self.work / "audit" / "part.html"
        self.note("the audit's page is there", "ok" if page.is_file() else "FAILED")

    def test(self, name: str, arguments: Sequence[str], environment: str = "main") -> None:
        """Run tests in the copied tree against the installed package."""
        lenient = [word for warning in LENIENT for word in ("-W", f"default::{warning}")]
        quiet = ["-q", "-p", "no:cacheprovider", *lenient]
        ran = run([self.python(environment), "-m", "pytest", *quiet, *arguments], self.tree, limit=3600)
        if self.judge(name, ran):
            print(f"    {ran.out.strip().splitlines()[-1]}")

    def check_apart(self, extra: str) -> None:
        """Install an extra on top of the first environment, import it, and test it."""
        apart = APART[extra]
        shutil.rmtree(self.home / extra, ignore_errors=True)
        made = run([sys.executable, "-m", "venv", "--without-pip", self.home / extra], self.home)
        if made.code:
            self.judge(f"{extra}: venv", made)
            return
        # Everything of the first environment, pip too, is there as well, and what is installed here goes before it.
        (below,) = (self.home / "main" / "lib").glob("python*/site-packages")
        (above,) = (self.home / extra / "lib").glob("python*/site-packages")
        (above / "main.pth").write_text(f"{below}\n")
        runtime = pins(self.floors[RUNTIME])
        if not self.install(extra, [*runtime, *pins(self.floors[extra])], extra):
            return
        self.at_floors(extra, (RUNTIME, extra), extra)
        ran = run([self.python(extra), "-c", apart.code], self.work)
        if ran.code and apart.excuse and apart.excuse in ran.err:
            self.note(f"{extra}: import and tests", "left out", ran.seconds, apart.excuse)
            return
        if not self.judge(f"{extra}: import", ran):
            return
        if apart.tests:
            self.test(f"{extra}: tests", apart.tests, extra)
        for name, words in apart.commands:
            self.judge(f"{extra}: {name}", run([self.python(extra), *words], self.tree))


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the floors.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", metavar="VERSION", help="in place of its floor")
    parser.add_argument(
        "--venv", metavar="DIR", type=Path, help="folder to keep and to use again; default: a temporary one"
    )
    parser.add_argument("--no-apart", action="store_true", help=f"leave out {', '.join(APART)}")
    options = parser.parse_args(arguments)
    floors = read_floors(ROOT / "pyproject.toml")
    missing = set(floors) - {RUNTIME, *TOGETHER, *APART}
    if missing:
        parser.error(f"nothing here checks the extra {', '.join(sorted(missing))}")
    if options.torch:
        floors[RUNTIME]["torch"] = options.torch
    with tempfile.TemporaryDirectory() as folder:
        home = Path(options.venv or folder).resolve()
        home.mkdir(parents=True, exist_ok=True)
        checker = Checker(home, floors)
        start = time.monotonic()
        if checker.make_main():
            checker.at_floors("main", (RUNTIME, *TOGETHER))
            checker.use_command()
            checker.use_models()
            contracts = (f"tests/contract/test_{name}.py" for name in CONTRACTS)
            checker.test("tests", [*(f"tests/test_{name}.py" for name in TESTS), *contracts])
            for extra in () if options.no_apart else APART:
                checker.check_apart(extra)
    print()
    print(
        table(
            [
                ("check", "seconds", "outcome"),
                *((r.name, f"{r.seconds:.1f}", f"{r.outcome}  {r.words}") for r in checker.results),
            ]
        )
    )
    failed = sum(result.outcome == "FAILED" for result in checker.results)
    print(f"{len(checker.results)} checks, {failed} failed, {time.monotonic() - start:.0f} seconds")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
