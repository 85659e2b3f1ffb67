"""Ten thousand and more hostile inputs: does anything end in a traceback, take longer than its limit, or get MARKED?

    python benchmarks/hostile.py --out results/hostile.json

Files are damaged, forged and disguised for every parser; suspects answer anything but labels, or any labels but true ones, in
this process and in one of their own; ONNX files loop, swell and lie; frames between processes are noise; and the command line
meets damaged folders. Each input ends well if it is refused in one printable line, taken for what it still is, or judged
INVALID or NOT_ESTABLISHED, within its limit of seconds. Verdicts are uncalibrated, claims that rest on that are accepted, and
the level is 1e-6: of innocent suspects that answer at random one in a million would be called MARKED. Liars are marked models
behind a detector of triggers; that some are found out is no false claim, so they are counted apart.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import resource
import socket
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import torch
from typer.testing import CliRunner

import heirmark.cli
from heirmark.errors import HeirmarkError
from heirmark.files import GIB, atomic_write_json
from heirmark.isolation import frames
from heirmark.isolation.frames import Frame, Gone, Kind
from heirmark.isolation.limits import ProcessLimits
from heirmark.jobs.isolating import open_isolated
from heirmark.jobs.opening import Named
from heirmark.jobs.verify import parse_normalisation, parse_order
from heirmark.runtime import Runtime, derive_seed
from heirmark.verification import Suspect, verify, verify_sequentially
from hostile_files import CLASSES, PARSERS, STRANGE, damaged, disguised, prepared, raw_pickle, small_key
from hostile_records import recorded
from hostile_suspects import liar, suspect
from provenance import provenance

LEVEL = 1e-6
SECONDS = {
    "files": 10.0,
    "suspects": 10.0,
    "records": 10.0,
    "onnx": 25.0,
    "code": 60.0,
    "frames": 5.0,
    "command line": 20.0,
}
"""Limits of one input; of ONNX files and code for loading, for asking, and some to start a process on a busy machine."""
LIMITS = ProcessLimits(seconds=5, memory=1 * GIB)
WELL = ("refused", "taken", "INVALID", "NOT_ESTABLISHED", "found out")
Case = tuple[str, str, Callable[[], str]]
"""Name of a kind, how it is hostile, and what becomes of it."""


def judged(asked: Suspect, *, sequentially: bool = False) -> str:
    """The outcome of a verdict, which must be fit to show and to be read back."""
    ask: Any = verify_sequentially if sequentially else verify
    verdict = ask(asked, KEY, level=LEVEL, accept="assumed")
    if not all(char.isprintable() or char == "\n" for char in str(verdict)):
        return "unprintable"
    type(verdict).from_json(verdict.to_json())
    return str(verdict.outcome)


KEY = small_key()


def files(count: int, seed: int, folder: Path) -> Iterator[Case]:
    """Damaged files, for each parser in turn, and texts for those of the command line."""
    for parser in PARSERS:
        sound = folder / f"sound {parser.name}"
        sound.mkdir(exist_ok=True)
        parser.make(sound)
        parser.read(sound)  # it is sound
        for index in range(count // len(PARSERS)):
            rng = random.Random(derive_seed(seed, parser.name, index))
            how = prepared(parser, folder / "damaged", rng, sound)

            def read(parser: Any = parser) -> str:
                parser.read(folder / "damaged")
                return "taken"

            yield parser.name, how, read
    for index in range(count // 10):
        rng = random.Random(derive_seed(seed, "texts", index))
        text = rng.choice(
            ("", *map(str, STRANGE[:-1]), rng.randbytes(9).decode("latin-1"), "1,2,-,0", "0.5,nan", "1e999,1")
        )
        parse = rng.choice((parse_order, parse_normalisation))
        yield "options", "texts", lambda parse=parse, text=text: str(parse(text)) and "taken"
    for index in range(count // 10):
        rng = random.Random(derive_seed(seed, "pickles", index))
        sound_pickle = (folder / "sound cifar" / "cifar-100-python" / "train").read_bytes()
        how, data = damaged(sound_pickle, rng)

        def unpickled(data: bytes = data) -> str:
            try:
                raw_pickle(data)
            except ValueError:  # as it says
                return "refused"
            return "taken"

        yield "pickles", how, unpickled


def suspects(count: int, seed: int, folder: Path) -> Iterator[Case]:
    """Suspects in this process."""
    for index in range(count):
        rng = random.Random(derive_seed(seed, "suspects", index))
        if index % 8 == 7:
            yield (
                "liar",
                "hides from its detector",
                lambda rng=rng: judged(liar(KEY, rng)).replace("MARKED", "found out"),
            )
            continue
        kind = ("callable", "callable", "module", "black-box")[index % 4]
        one_by_one = rng.random() < 0.2
        yield (
            kind,
            "a few at a time" if one_by_one else "all at once",
            lambda rng=rng, kind=kind, few=one_by_one: judged(suspect(kind, rng), sequentially=few),
        )


def onnx(count: int, seed: int, folder: Path) -> Iterator[Case]:
    """ONNX files, in processes of their own."""
    from hostile_onnx import hostile

    for index in range(count):
        rng = random.Random(derive_seed(seed, "onnx", index))
        how, data = hostile(rng)
        (folder / "model.onnx").write_bytes(data)
        yield "onnx", how, lambda: judged(Suspect.from_onnx(folder / "model.onnx", classes=CLASSES, limits=LIMITS))


CODE = {
    "sleeps": "time.sleep(10_000)",
    "spins": "while True: pass",
    "leaves": "os._exit(0)",
    "exits": "sys.exit(0)",
    "interrupts": "raise KeyboardInterrupt",
    "swells": "return [bytearray(2**28) for _ in range(64)]",
    "crashes": "ctypes.string_at(0)",
    "floods": "return b'7' * 10_000_000",
    "talks out of turn": "os.write(int(sys.argv[1]), b'MARKED' * 10_000)",
    "forks": "os.fork() or time.sleep(10_000)",
    "patches": "import heirmark.verification.verify as v; v.binomial_p = lambda *a: 0; return x[:, 0, 0, 0].long() * 0 + 7",
}


def code(count: int, seed: int, folder: Path) -> Iterator[Case]:
    """Code of strangers, isolated: as it is imported, and as it is asked."""
    head = "import ctypes, os, sys, time\n"
    for index in range(count):
        name, body = list(CODE.items())[index % len(CODE)]
        module = f"stranger_{index}"
        at_once = index // len(CODE) % 2 == 1 and "return" not in body
        lines = f"{body}\ndef f(x): return x\n" if at_once else f"def f(x):\n    {body}\n"
        (folder / f"{module}.py").write_text(head + lines)
        named = Named(name=f"{module}:f", limits=ProcessLimits(seconds=15, memory=2 * GIB))
        yield (
            "code",
            f"{name} when {'imported' if at_once else 'asked'}",
            lambda named=named: judged(
                open_isolated(named, factory=None, classes=CLASSES, runtime=Runtime(device="cpu"))
            ),
        )


def noise(count: int, seed: int, folder: Path) -> Iterator[Case]:
    """Frames that are none."""
    sound = frames.header_of(Frame(kind=Kind.ANSWER, values=torch.zeros(3).numpy())) + bytes(12)
    for index in range(count):
        rng = random.Random(derive_seed(seed, "frames", index))
        how, data = damaged(sound, rng)

        def read(data: bytes = data) -> str:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                ours.sendall(data[:100_000])
                ours.shutdown(socket.SHUT_WR)
                try:
                    frames.receive(theirs, most=64, until=time.monotonic() + 2)
                except Gone:
                    return "refused"
            return "taken"

        yield "frames", how, read


def commands(count: int, seed: int, folder: Path) -> Iterator[Case]:
    """The command line, with something damaged in each."""
    sound = folder / "sound key"
    for index in range(count):
        rng = random.Random(derive_seed(seed, "commands", index))
        shown, model, key = "verify", str(folder / "sound model"), sound
        which = rng.choice(("key", "model", "calibration"))
        parser = next(each for each in PARSERS if each.name == ("key" if which == "calibration" else which))
        at = folder / "commanded"
        how = prepared(parser, at, rng, folder / f"sound {parser.name}")
        options = ["--device", "cpu", "--accept", "assumed", "--level", str(LEVEL)]
        if which == "calibration":
            file = folder / f"calibration-{index}.json"
            file.write_text("{}")
            how = disguised(file, rng) if rng.random() < 0.5 else how
            options += ["--calibration", str(file)]
        else:
            model, key = (str(at), sound) if which == "model" else (model, at)
        if rng.random() < 0.2:
            shown, arguments = "inspect", [str(at)]
        else:
            arguments = [model, "--key", str(key), *options, *(["--json"] if rng.random() < 0.3 else [])]

        def run(shown: str = shown, arguments: list[str] = arguments) -> str:
            ended = CliRunner().invoke(heirmark.cli.app, [shown, *arguments])
            if ended.exception is not None and not isinstance(ended.exception, SystemExit):
                raise ended.exception
            if ended.exit_code == 0:
                return "taken" if shown == "inspect" else "MARKED"
            return {1: "refused", 2: "refused", 3: "NOT_ESTABLISHED"}.get(
                ended.exit_code, f"exit code {ended.exit_code}"
            )

        yield shown, f"{which}: {how}", run


def records(count: int, seed: int, folder: Path) -> Iterator[Case]:
    """Suspects that are asked on the record, every other time with an interruption."""
    for index in range(count):
        rng = random.Random(derive_seed(seed, "records", index))
        yield "bundle", "on the record", lambda rng=rng: recorded(rng, folder / "bundle")


FAMILIES: dict[str, tuple[Callable[[int, int, Path], Iterator[Case]], int]] = {
    "files": (files, 5400),
    "suspects": (suspects, 4000),
    "records": (records, 500),
    "onnx": (onnx, 300),
    "code": (code, 22),
    "frames": (noise, 1000),
    "command line": (commands, 300),
}


class Stalls:
    """Seconds in which this process did not run though it wanted to: the machine was busy elsewhere, or paused.

    No input is to blame for them. What computes and lets nobody else run is, so the processor's time is taken off.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watcher.join()

    def _watch(self) -> None:
        last, worked = time.monotonic(), time.process_time()
        while not self._over.wait(0.1):
            gap, work = time.monotonic() - last, time.process_time() - worked
            if gap > 1:
                self.seconds += max(0.0, gap - work - 0.1)
            last, worked = last + gap, worked + work


def ended(run: Callable[[], str]) -> tuple[str, str]:
    """What became of an input, and where it failed if it did."""
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            return run(), ""
    except HeirmarkError as error:
        return ("refused", "") if str(error).isprintable() else ("unprintable", repr(str(error))[:200])
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return "traceback", f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}"
    finally:
        torch.set_grad_enabled(True)  # what a suspect in this process did to it


def measure(family: str, count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Count what becomes of a family's inputs."""
    make, _ = FAMILIES[family]
    outcomes: dict[str, Counter[str]] = {}
    slowest, failures, late = (0.0, ""), list[str](), 0
    began = time.monotonic()
    with Stalls() as stalls:
        for kind, how, run in make(count, seed, folder):
            start, stalled = time.monotonic(), stalls.seconds
            outcome, place = ended(run)
            took = time.monotonic() - start
            if took > SECONDS[family]:
                time.sleep(0.3)  # until a stall is known
                took -= stalls.seconds - stalled
            slowest = max(slowest, (took, f"{kind}: {how}"))
            late += took > SECONDS[family]
            outcomes.setdefault(kind, Counter())[outcome] += 1
            if outcome not in WELL or took > SECONDS[family]:
                failures.append(f"{kind}, {how}: {outcome} {place} after {took:.1f} s")
    total = sum(outcomes.values(), Counter[str]())
    return {
        "inputs": total.total(),
        "outcomes": dict(sorted(total.items())),
        "by_kind": {kind: dict(sorted(found.items())) for kind, found in sorted(outcomes.items())},
        "limit_seconds": SECONDS[family],
        "slowest_seconds": round(slowest[0], 1),
        "slowest": slowest[1],
        "past_limit": late,
        "stalled_seconds": round(stalls.seconds),
        "failures": failures[:50],
        "seconds": round(time.monotonic() - began),
    }


def main() -> None:
    """Run, and write what was found; exit code 1 if anything ended badly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the usual numbers of inputs")
    parser.add_argument("--only", choices=FAMILIES, action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    began = time.monotonic()
    _ = (
        torch.zeros(1, device="meta") > 0
    )  # loads 800 modules of torch's at the first time, for which no input is to blame
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sys.path.insert(0, name)
        for each in PARSERS[:2]:  # whole ones, for whoever damages another
            (folder / f"sound {each.name}").mkdir()
            each.make(folder / f"sound {each.name}")
        for family in options.only or FAMILIES:
            found[family] = measure(family, int(options.share * FAMILIES[family][1]), options.seed, folder)
            if options.out:  # what is known, in case the rest fails
                atomic_write_json(options.out, {**provenance(), "seed": options.seed, "families": found})
            print(family, {key: value for key, value in found[family].items() if key != "by_kind"}, flush=True)
    whole = sum((Counter(each["outcomes"]) for each in found.values()), Counter[str]())
    told = {
        **provenance(),
        "seed": options.seed,
        "level": LEVEL,
        "inputs": whole.total(),
        "outcomes": dict(sorted(whole.items())),
        "ended_badly": sum(count for outcome, count in whole.items() if outcome not in WELL),
        "past_limit": sum(each["past_limit"] for each in found.values()),
        "seconds": round(time.monotonic() - began),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "families": found,
    }
    if options.out:
        atomic_write_json(options.out, told)
    print({key: value for key, value in told.items() if key != "families"})
    raise SystemExit(bool(told["ended_badly"] or told["past_limit"]))


if __name__ == "__main__":
    main()
