"""Judge a suspect of a user's. It is asked afresh each time and nothing is kept: a verdict is about what the suspect says now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from heirmark.data.zoo import in_zoo, located
from heirmark.errors import BadArtifact, BadConfig, printable
from heirmark.evidence.bundle import read_manifest
from heirmark.evidence.disclosing import read_registration
from heirmark.jobs.folder import ModelFolder
from heirmark.querying.blackbox import BlackBox
from heirmark.results.grades import LEAST_GRADE, Grade
from heirmark.runtime import Runtime
from heirmark.verification import (
    Calibration,
    SequentialVerdict,
    Suspect,
    Verdict,
    calibrate,
    verify,
    verify_sequentially,
)
from heirmark.verification.normalising import Normalisation, checked_normalisation
from heirmark.verification.wilcoxon import WilcoxonResult, independent_triggers, verify_wilcoxon
from heirmark.work.context import exact
from heirmark.work.judging import CALIBRATION, homes_of, read_calibration


def parse_order(text: str) -> tuple[int, ...]:
    """The classes that a suspect's mean, from text such as ``"2,0,1,-"``; a dash means none.

    Raises:
        BadConfig: for anything else.

    Examples:
        >>> parse_order("2, 0,-")
        (2, 0, -1)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part == "-" or _is_number(part) for part in parts):
        raise BadConfig(
            f"--labels {printable(text)}: give for each class of the suspect's, in its order, the number of the class that it "
            "means in the key, or - for none, with commas"
        )
    return tuple(-1 if part == "-" else int(part) for part in parts)


def parse_names(text: str) -> dict[str, int]:
    """The classes that a service's names mean, from text such as ``"cat=2,dog=0,other=-"``; a dash means none.

    Raises:
        BadConfig: for anything else.

    Examples:
        >>> parse_names("cat=2, dog=0,other=-")
        {'cat': 2, 'dog': 0, 'other': -1}
    """
    pairs = [part.rpartition("=") for part in text.split(",")]
    names = {name.strip(): -1 if number.strip() == "-" else number.strip() for name, _, number in pairs}
    if len(names) < len(pairs) or not all(name and (n == -1 or _is_number(str(n))) for name, n in names.items()):
        raise BadConfig(
            f"--labels {printable(text)}: give for each name of the service's another number of a class of the key's, with "
            "commas, or - for none"
        )
    return {name: int(number) for name, number in names.items()}


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) < 10  # Python refuses to read thousands of digits


def parse_normalisation(text: str) -> Normalisation:
    """Mean and standard deviation from ``"mean,std"``, or from all means and then all deviations of the channels.

    Raises:
        BadConfig: for anything else.

    Examples:
        >>> parse_normalisation("0.5,0.25")
        ((0.5,), (0.25,))
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or len(numbers) % 2:
        raise BadConfig(
            f"--normalise {printable(text)}: give mean,std, or the means of all channels and then their deviations"
        )
    return checked_normalisation((numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]))


@dataclass(frozen=True, kw_only=True)
class Terms:
    """On which terms a suspect is judged.

    Attributes:
        level: chance of a wrong MARKED that is tolerated.
        calibration: file of a calibration; None looks for ``calibration.json`` beside the key. Either is somebody's word. Or one
            that was measured already.
        sealed_by: public key of a party whose word is taken: ``calibration`` is then the folder of a bundle that it sealed.
        calibrators: unmarked models, which are asked here and now instead.
        accept: the least grade by which the claim is made.
    """

    level: float = 0.01
    calibration: Path | Calibration | None = None
    sealed_by: str = ""
    calibrators: tuple[Suspect, ...] = ()
    accept: Grade = LEAST_GRADE

    def measured(self, key: ModelFolder) -> Calibration | None:
        """The calibration of a key, measured or read.

        Raises:
            BadArtifact: when a file is damaged.
            BadConfig: when there are models and a file.
            BadData: when a model cannot calibrate.
        """
        if isinstance(self.calibration, Calibration):
            return self.calibration
        if self.calibrators and self.calibration is not None:
            raise BadConfig("--calibrators measure what --calibration tells: leave one of them out")
        if self.sealed_by and self.calibration is not None:
            return sealed_calibration(self.calibration, self.sealed_by)
        if not self.calibrators:
            return calibration_for(key, self.calibration)
        return calibrate(self.calibrators, key.key, note="models that the verifier named")


def verify_job(suspect: Suspect, key: ModelFolder, terms: Terms) -> Verdict:
    """Judge a suspect with a key; see :meth:`Terms.measured` for the errors.

    Raises:
        BadArtifact: when the key is missing or damaged.
    """
    return verify(
        suspect,
        key.key,
        calibration=terms.measured(key),
        calibrated_by=terms.sealed_by,
        level=terms.level,
        accept=terms.accept,
    )


def sequential_job(
    suspect: Suspect, key: ModelFolder, terms: Terms, *, max_queries: int | None = None
) -> SequentialVerdict:
    """Judge a suspect by as many queries as it takes; see :func:`verify_job`.

    Raises:
        BadArtifact: when the key is missing or damaged.
        BadConfig: when so few queries are allowed that nothing can be asked.
    """
    return verify_sequentially(
        suspect,
        key.key,
        calibration=terms.measured(key),
        calibrated_by=terms.sealed_by,
        level=terms.level,
        accept=terms.accept,
        max_queries=max_queries,
    )


def calibration_for(key: ModelFolder, file: Path | None) -> Calibration | None:
    """The calibration in a file, or the one beside a key, if there is one."""
    if file is None:
        found = (folder / CALIBRATION for folder in homes_of(key.path))
        file = next((each for each in found if each.is_file()), None)
    elif in_zoo(file):
        file = located(file) / CALIBRATION
    return None if file is None else read_calibration(file)


def sealed_calibration(bundle: Path, by: str) -> Calibration:
    """The calibration in a bundle of evidence, which a party sealed that is not who claims.

    Args:
        bundle: that ``verify --evidence`` wrote.
        by: public key of the party.

    Raises:
        BadArtifact: when the bundle was changed, another sealed it, that was the owner of the key, or it has no calibration.
    """
    manifest = read_manifest(bundle)
    if manifest.asker != by:
        raise BadArtifact(f"{bundle} is sealed by {manifest.asker}, and not by {printable(by)}, whose word you take")
    if by == read_registration(bundle).public_key:
        raise BadArtifact(f"{bundle} is sealed by the owner of the key: a claim takes the word of somebody else")
    if CALIBRATION not in manifest.files:
        raise BadArtifact(f"{bundle} has no calibration: name one in which unmarked models were asked (--calibrators)")
    return read_calibration(bundle / CALIBRATION)


def check_wilcoxon(suspect: Suspect) -> None:
    """Make sure that a suspect gives probabilities of the key's classes.

    Raises:
        BadConfig: for an ONNX file, of which nothing says whether it does, for a suspect that is isolated, and for one whose
            classes have other names.
    """
    if suspect.order is not None:
        raise BadConfig("--wilcoxon takes classes in the key's order only: leave --labels or --wilcoxon out")
    if suspect.model is None:
        raise BadConfig(
            "--wilcoxon needs probabilities: nothing says whether an ONNX file or a service gives them, and an isolated suspect "
            "gives labels; leave it out, or use heirmark.verification.wilcoxon.verify_wilcoxon with a BlackBox"
        )


def wilcoxon_job(suspect: Suspect, key: ModelFolder, *, margin: float, runtime: Runtime) -> WilcoxonResult:
    """Put a suspect to Feature Sharing's test, which asks it for probabilities; ``margin`` is the paper's alpha.

    Raises:
        BadConfig: see :func:`check_wilcoxon`.
    """
    check_wilcoxon(suspect)
    assert suspect.model is not None
    box = BlackBox(suspect.model, classes=suspect.classes, input_shape=key.key.input_shape, runtime=exact(runtime))
    # A resample of fewer than 5 could never reject at 0.05.
    return verify_wilcoxon(
        box, key.key, margin=margin, share=max(0.1, min(1.0, 5 / len(independent_triggers(key.key))))
    )
