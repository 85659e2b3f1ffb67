"""Suspects judged as the options say: one with one key, or several with several keys, whose verdicts are corrected together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from heirmark.commands.options import FAILURE, MARKED, NOT_ESTABLISHED, print_json
from heirmark.console import show
from heirmark.errors import BadConfig, HeirmarkError
from heirmark.evidence.disclosing import read_proof
from heirmark.jobs.drafting import read_draw
from heirmark.jobs.folder import ModelFolder
from heirmark.jobs.opening import Named
from heirmark.jobs.verify import Terms, sequential_job, verify_job
from heirmark.keys.registration import Registration
from heirmark.results.grades import as_grade
from heirmark.runtime import Runtime
from heirmark.verification import Suspect, Together, Verdict
from heirmark.verification.certifying import verify_drawn
from heirmark.verification.many import Single, together
from heirmark.wire.addresses import shown_name

Judge = Callable[[Suspect], Single]
_RULES = {
    "holm": "Holm: any innocent suspect is among those called MARKED with a chance of {level:g} at most",
    "e-bh": "e-BH: of those called MARKED an expected share of {level:g} at most is innocent",
}


@dataclass(frozen=True, kw_only=True)
class Judging:
    """A key, and how suspects are judged with it.

    Attributes:
        path: of its folder, as it was named.
        folder: the same.
        named: all of a suspect but its name.
        opener: of suspects.
        runtime: where modules compute.
        level: of one verdict.
        calibration: a file, or None; with ``sealed_by`` a bundle.
        sealed_by: public key of who sealed that, and is believed.
        calibrators: names of unmarked models.
        accept: name of the least grade.
        sequential: whether to stop when it is enough.
        max_queries: then at most.
        plain: not by its draw, though it has one.
        vouches: whether the verifier knows registration and beacon of a draw from elsewhere.
    """

    path: Path
    folder: ModelFolder
    named: Named
    opener: Callable[..., Suspect]
    runtime: Runtime
    level: float
    calibration: Path | None
    sealed_by: str
    calibrators: Sequence[str]
    accept: str
    sequential: bool
    max_queries: int | None
    plain: bool
    vouches: Callable[[Registration, str], bool]

    def open(self, name: str) -> Suspect:
        """A suspect."""
        return self._open(replace(self.named, name=name))

    def open_calibrators(self) -> tuple[Suspect, ...]:
        """The unmarked models."""
        alone = replace(self.named, order=None, asking=self.named.asking.alone())
        return tuple(self._open(replace(alone, name=each)) for each in self.calibrators)

    def _open(self, named: Named) -> Suspect:
        key = self.folder.key
        named = replace(named, medium=key.medium)
        return self.opener(named, classes=key.classes, runtime=self.runtime, shape=key.input_shape)

    def judge(self, *, measured: bool = False) -> Judge:
        """What judges a suspect; ``measured`` asks the unmarked models at once, and so once for all suspects."""
        draw = (
            None
            if self.sequential or self.plain or self.calibration or self.calibrators
            else read_draw(self.folder.path)
        )
        if draw is not None:
            registration, beacon = draw
            vouched = self.vouches(registration, beacon)
            return lambda suspect: verify_drawn(
                suspect,
                self.folder.key,
                registration,
                beacon,
                proof=read_proof(self.folder.path),
                level=self.level,
                vouched=vouched,
                accept=as_grade(self.accept),
            )
        terms = Terms(
            level=self.level,
            calibration=self.calibration,
            sealed_by=self.sealed_by,
            calibrators=self.open_calibrators(),
            accept=as_grade(self.accept),
        )
        if measured:
            terms = replace(terms, calibration=terms.measured(self.folder), calibrators=())
        if self.sequential:
            return partial(sequential_job, key=self.folder, terms=terms, max_queries=self.max_queries)
        return partial(verify_job, key=self.folder, terms=terms)


def check_distinct(suspects: Sequence[str], keys: Sequence[Path]) -> None:
    """Make sure that nothing is named twice, and would count as two.

    Raises:
        BadConfig: when it is.
    """
    if len(set(suspects)) < len(suspects):
        raise BadConfig("a suspect is named twice, and would count as two: name each once")
    if len({ModelFolder(key).key.commitment for key in keys}) < len(keys):
        raise BadConfig("--key: a key is named twice, and would count as two: name each once")


def judge_all(suspects: Sequence[str], judgings: Sequence[Judging]) -> list[tuple[str, Path, Single]]:
    """Every suspect with every key. Keys and calibrations are read, and unmarked models asked, before any suspect is.

    A suspect that cannot be opened is INVALID, so that what the others said is not lost.
    """
    judges = [judging.judge(measured=True) for judging in judgings]
    found: list[tuple[str, Path, Single]] = []
    for judging, judge in zip(judgings, judges, strict=True):
        for name in suspects:
            try:
                verdict = judge(judging.open(name))
            except HeirmarkError as error:
                verdict = Verdict(
                    outcome="INVALID",
                    reason=str(error),
                    level=judging.level,
                    queries=0,
                    flags=("suspect-failed",),
                    key=judging.folder.key.commitment,
                )
            found.append((shown_name(name), judging.path, verdict))
    return found


def tell_all(found: Sequence[tuple[str, Path, Single]], *, level: float, as_json: bool) -> int:
    """Show verdicts corrected for how many they are, one a line.

    Returns:
        The exit code: 0 if one at least is MARKED, 1 if none could be judged, else 3.
    """
    corrected = together([verdict for _, _, verdict in found], level=level)
    if as_json:
        pairs = [
            {"suspect": name, "key": str(key), "outcome": outcome, "adjusted": adjusted, "verdict": verdict.to_dict()}
            for (name, key, verdict), outcome, adjusted in zip(
                found, corrected.outcomes, corrected.adjusted, strict=True
            )
        ]
        print_json({"together": corrected.to_dict(), "pairs": pairs})
    else:
        show("\n".join(_lines(found, corrected)))
    if "MARKED" in corrected.outcomes:
        return MARKED
    return FAILURE if set(corrected.outcomes) == {"INVALID"} else NOT_ESTABLISHED


def _lines(found: Sequence[tuple[str, Path, Single]], corrected: Together) -> list[str]:
    by_e = corrected.rule == "e-bh"
    table = [("outcome", "p-value", *(["e-value"] if by_e else []), "corrected", "queries", "suspect", "key")]
    for (name, key, verdict), value, adjusted, outcome in zip(
        found, corrected.values, corrected.adjusted, corrected.outcomes, strict=True
    ):
        evidence = [f"{value:.3g}"] if by_e else []
        told = (f"{verdict.p_value:.2g}", *evidence, f"{adjusted:.2g}", str(verdict.queries))
        table.append((outcome, *told, name, str(key)))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    marked = corrected.outcomes.count("MARKED")
    rule = _RULES[corrected.rule].format(level=corrected.level)
    return [
        f"{marked} of {len(found)} MARKED, corrected together by {rule}",
        *("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in table),
        *(
            f"  {outcome}  {name} with {key}: {verdict.reason}"
            for (name, key, verdict), outcome in zip(found, corrected.outcomes, strict=True)
            if verdict.reason
        ),
    ]
