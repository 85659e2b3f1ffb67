"""What a report says, before anyone decides how it looks: rows, examples, the whole; numbers and names in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heirmark.errors import BadConfig, ShapeMismatch
from heirmark.report.words import DASH, OUTCOMES, p_text, percent, points

UNSAID = frozenset({"", "-", "–", "—", "none"})
"""Ways to write that a row has no method, no attack or no particular kind of answers."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One suspect and what its verification found.

    Attributes:
        suspect: name for people, for example ``"stolen from t2s"``; untrusted, escaped wherever it is shown.
        method: watermark method of the model, or of the model it was stolen from.
        attack: attack that made the suspect; empty, ``"none"`` or a dash when there was none.
        answers: what the thief was given (``"label"``, ``"soft"`` ...); empty, ``"none"`` or a dash when it does not apply.
        accuracy: clean test accuracy, 0..1, or NaN.
        wsr: watermark success rate, the fraction of triggers answered as the key says, 0..1, or NaN.
        p_value: of the verification, 0..1, or NaN when there is none.
        outcome: ``"MARKED"``, ``"NOT_ESTABLISHED"`` or ``"INVALID"``.
        interval: Clopper-Pearson confidence interval of ``wsr``, each end 0..1 or NaN.
        control_rate: fraction of matched controls answered with the expected answer, 0..1, or NaN.
        null_rate: success rate granted to unmarked models, 0..1, or NaN.
        queries: how many inputs the suspect was asked.
        inherits: the truth, whether it should be called marked; None when nobody knows.
        flags: warnings of the verification.
        training_wsr: the success rate on the trigger samples that trained, 0..1, or NaN; no verdict rests on it.

    Raises:
        BadConfig: for an unknown outcome, or a rate outside 0..1.
    """

    suspect: str
    method: str
    attack: str
    answers: str
    accuracy: float
    wsr: float
    p_value: float
    outcome: str
    interval: tuple[float, float]
    control_rate: float
    null_rate: float
    queries: int
    inherits: bool | None
    flags: tuple[str, ...] = ()
    training_wsr: float = math.nan

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise BadConfig(f"unknown outcome {self.outcome!r} of a report row: use one of {', '.join(OUTCOMES)}")
        rates = (self.accuracy, self.wsr, self.p_value, *self.interval, self.control_rate, self.null_rate)
        # Written so that NaN passes: a rate nobody could measure is no mistake.
        if any(rate < 0 or rate > 1 for rate in rates):
            raise BadConfig(f"a rate of report row {self.suspect!r} lies outside 0..1: give fractions, not percentages")

    @property
    def attacked(self) -> bool:
        """Whether an attack made this suspect."""
        return self.attack not in UNSAID

    @property
    def setting(self) -> str:
        """Method, attack and answers in one phrase, without those that do not apply."""
        return " · ".join(part for part in (self.method, self.attack, self.answers) if part not in UNSAID)

    @property
    def label(self) -> str:
        """The suspect's name, with the kind of answers where the name does not tell it."""
        told = self.answers in UNSAID or self.answers in self.suspect
        return self.suspect if told else f"{self.suspect} ({self.answers})"

    @property
    def judgement(self) -> str:
        """How the verdict compares with the truth: correct, false alarm, missed; empty when that cannot be said."""
        if self.inherits is None or self.outcome == "INVALID":
            return ""
        called = self.outcome == "MARKED"
        if called == self.inherits:
            return "correct"
        return "false alarm" if called else "missed"


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One trigger beside the images it was made of.

    Attributes:
        hosts: the images the trigger was made of, each ``[C, H, W]`` uint8; grey, or the first three channels as RGB.
        trigger: ``[C, H, W]`` uint8, sizes may differ from the hosts'.
        control: the matched control ``[C, H, W]`` uint8, or None.
        host_labels: class names of the hosts.
        target: class name that the key expects for the trigger.

    Raises:
        ShapeMismatch: when an image is not uint8 ``[C, H, W]``, or hosts and labels differ in number.
    """

    hosts: tuple[NDArray[np.uint8], ...]
    trigger: NDArray[np.uint8]
    control: NDArray[np.uint8] | None
    host_labels: tuple[str, ...]
    target: str

    def __post_init__(self) -> None:
        images = (*self.hosts, self.trigger) if self.control is None else (*self.hosts, self.trigger, self.control)
        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or 0 in image.shape:
                raise ShapeMismatch(
                    f"an example image is {image.dtype} {list(image.shape)}: give uint8 [C, H, W], pixels 0..255"
                )
        if len(self.hosts) != len(self.host_labels):
            raise ShapeMismatch(
                f"an example has {len(self.hosts)} hosts and {len(self.host_labels)} labels: give one for each"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """Everything that a page shows.

    Attributes:
        title: headline of the page.
        summary: what happened, in about three sentences.
        rows: the suspects, in the order of the table.
        history: per epoch of rehearsal (possibly fractional): ``epoch``, and any of ``target_accuracy``, ``target_wsr``,
            ``student_accuracy``, ``student_wsr``, ``thief_accuracy``, ``thief_wsr``, each 0..1.
        examples: trigger images beside their hosts.
        provenance: how to make these numbers again: seed, versions, command, task digest ...
        notes: remarks, one a paragraph.
        clean_accuracy: accuracy of the unmarked twin, 0..1, or None.
        key_facts: short name to short value, shown under the summary.
    """

    title: str
    summary: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    history: tuple[Mapping[str, float], ...] = ()
    examples: tuple[Example, ...] = ()
    provenance: Mapping[str, str]
    notes: tuple[str, ...] = ()
    clean_accuracy: float | None = None
    key_facts: Mapping[str, str]


def rows_to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every field of every row as JSON-ready values; NaN, which JSON lacks, becomes None and tuples become lists."""
    return [{field.name: _json(asdict(row)[field.name]) for field in fields(row)} for row in rows]


def _json(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, tuple):
        return [_json(item) for item in value]
    return value


__all__ = ["DASH", "OUTCOMES", "UNSAID", "Example", "Report", "Row", "p_text", "percent", "points", "rows_to_json"]
