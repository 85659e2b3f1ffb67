"""What verification hands out: a verdict, and the calibration it may rest on. Both are data and travel as JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from heirmark.errors import BadArtifact, printable
from heirmark.files import parse_json
from heirmark.records import plain, record_of
from heirmark.results.flags import FLAGS
from heirmark.results.grades import Grade, in_words, suffices, warranted
from heirmark.results.tails import agrees

Outcome = Literal["MARKED", "NOT_ESTABLISHED", "INVALID"]
OUTCOMES: Mapping[Outcome, str] = {
    "MARKED": "Every test rejects at the level: the suspect answers as marked models and their copies do.",
    "NOT_ESTABLISHED": "The tests do not all reject. This is no proof that the model is independent.",
    "INVALID": "The suspect or the key cannot be judged, so nothing is said about the mark.",
}
_HEX = re.compile(r"[0-9a-f]{64}")


class Document:
    """A record that is handed out as JSON, headed by its format."""

    @classmethod
    def format(cls) -> str:
        """What it is, with the version of its layout."""
        return f"heirmark-{cls.__name__.lower()}/1"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"format": self.format(), **plain(self)}

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read back what :meth:`to_json` wrote.

        Raises:
            BadArtifact: if it is anything else.
        """
        name = cls.__name__.lower()
        data = parse_json(text, source=f"the {name}")
        if not isinstance(data, dict) or data.pop("format", None) != cls.format():
            raise BadArtifact(f"this is no {name} of format {cls.format()}: check the file, or update heirmark")
        return record_of(cls, data, f"the {name}")


@dataclass(frozen=True, kw_only=True)
class Calibration(Document):
    """How often unmarked models hit a key. It belongs to that key alone.

    Attributes:
        hits: of each unmarked model: trained as a suspect might be, none of which helped to choose the key's target or to filter
            its queries.
        trials: queries that each was asked; all of the key's.
        key: the key's commitment.
        note: where the models come from, in words.
        copies: how many of the models were stolen from others among them, and so are not independent.
        known: share of the key's controls to which each model gives a class of their hosts, in [0, 1]; empty where controls
            have no hosts.
        accuracies: of each model on ordinary images, in [0, 1]; empty where they were not measured.
        families: name of each model's family of nets, empty where it is not known; or none of them.

    Raises:
        BadArtifact: if there is no model, or a number is out of range.
    """

    hits: tuple[int, ...]
    trials: int
    key: str
    note: str = ""
    copies: int = 0
    known: tuple[float, ...] = ()
    accuracies: tuple[float, ...] = ()
    families: tuple[str, ...] = ()

    @property
    def made_here(self) -> bool:
        """Whether it was measured in this very process: what was read from a file, or altered, was not."""
        return bool(getattr(self, "_made_here", False))

    def just_made(self) -> Calibration:
        """The same, noted as measured in this process; for :func:`heirmark.verification.calibrate` alone."""
        object.__setattr__(self, "_made_here", True)
        return self

    @property
    def independent(self) -> int:
        """How many models are no copies of others."""
        return len(self.hits) - self.copies

    @property
    def one_family(self) -> bool:
        """Whether all of several models are known to be of one family of nets."""
        return len(self.families) > 1 and len(set(self.families)) == 1 and bool(self.families[0])

    def comparable(
        self, accuracy: float | None, known: float | None = None, *, share: float, known_share: float = 1.0
    ) -> tuple[int, ...]:
        """Which models are about as good as a suspect, or better.

        What a model that learned little says to triggers tells nothing of a good one: it hits some of nearly any key, or none.
        Which models count is told by ordinary images and hosts alone, and so not by whether the suspect hits.

        Args:
            accuracy: of the suspect, in [0, 1]; None where it is not known.
            known: share of the hosts that the suspect knows, which counts where accuracies are not known; likewise.
            share: of the first that a model must have to be compared with it, in [0, 1].
            known_share: likewise of the second.

        Returns:
            Their places in :attr:`hits`; all where nothing is known.

        Examples:
            >>> measured = Calibration(hits=(0, 2, 27), trials=500, key="0" * 64, accuracies=(0.85, 0.8, 0.35))
            >>> measured.comparable(0.84, share=0.9), measured.comparable(0.3, share=0.9)
            ((0, 1), (0, 1, 2))
        """
        everyone = tuple(range(len(self.hits)))
        if accuracy is not None and self.accuracies:
            return tuple(place for place in everyone if self.accuracies[place] >= share * accuracy)
        if known is not None and self.known:
            return tuple(place for place in everyone if self.known[place] >= known_share * known)
        return everyone

    def __post_init__(self) -> None:
        if not 0 <= self.copies < max(1, len(self.hits)):
            raise BadArtifact(
                f"of {len(self.hits)} unmarked models {self.copies} cannot be copies of others: calibrate again"
            )
        if not self.hits or not all(0 <= hits <= self.trials for hits in self.hits):
            raise BadArtifact(f"a calibration needs unmarked models with 0 to {self.trials} hits each: calibrate again")
        if len(self.known) not in (0, len(self.hits)) or not all(0 <= share <= 1 for share in self.known):
            raise BadArtifact("a calibration says of each model which share of the hosts it knows: calibrate again")
        if len(self.accuracies) not in (0, len(self.hits)) or not all(0 <= share <= 1 for share in self.accuracies):
            raise BadArtifact("a calibration says of each model how accurate it is, or of none: calibrate again")
        if len(self.families) not in (0, len(self.hits)):
            raise BadArtifact("a calibration says of each model which family it is of, or of none: calibrate again")
        if not _HEX.fullmatch(self.key):
            raise BadArtifact("a calibration names its key by a commitment of 64 hex digits: calibrate again")


@dataclass(frozen=True, kw_only=True)
class Verdict(Document):
    """What a key says about a suspect; see :data:`OUTCOMES` and :data:`FLAGS`. The defaults say that it could not be judged.

    Attributes:
        outcome: MARKED if ``p_value < level``, the grade is accepted, and nothing is invalid.
        reason: why it is INVALID, or withheld for its grade; else empty.
        wsr: watermark success rate, hits / trials.
        hits: queries that got the expected answer.
        trials: queries asked, M; 0 if the suspect could not be judged.
        interval: 95 % Clopper-Pearson interval of the WSR.
        control_rate: share of the controls that got the expected answer.
        discordant: pairs with distinct controls that hit with the trigger only, and without it only.
        p_value: the larger of the next two: the claim is made only if every test rejects (an intersection-union test).
        p_binomial: so many hits or more, if each query hit at ``null_rate``.
        p_matched: exact McNemar test of triggers against their controls.
        null_rate: hit rate that an unmarked model is taken not to exceed.
        null: the null hypothesis, in words.
        level: significance level of the whole claim.
        needed: how many queries a key must have for a suspect that hits at these rates, queries and controls, to be called MARKED
            with a chance of 90 % at this null rate and level; as many controls come on top. None where no key of 10,000 would
            do, where nothing was judged, and in verdicts of before it was told.
        grade: how the null is warranted, of :data:`heirmark.results.grades.GRADES`; verdicts of before there were any have the
            third.
        accepts: the least grade by which the claim is made; before there were grades any was.
        models: unmarked models whose hits made the null; 0 where that is not known.
        queries: inputs put to the suspect: M triggers and M controls, and those of requests that failed and were repeated; what
            was put to it until it failed, where it did.
        flags: names from :data:`FLAGS`.
        key: the key's commitment.

    Raises:
        BadArtifact: if the values contradict each other.
    """

    outcome: Outcome
    reason: str = ""
    wsr: float = 0.0
    hits: int = 0
    trials: int = 0
    interval: tuple[float, float] = (0.0, 1.0)
    control_rate: float = 0.0
    discordant: tuple[int, int] = (0, 0)
    p_value: float = 1.0
    p_binomial: float = 1.0
    p_matched: float = 1.0
    null_rate: float = 1.0
    null: str = "none was tested"
    level: float
    needed: int | None = None
    grade: Grade = "self-reported"
    accepts: Grade = "assumed"
    models: int = 0
    queries: int
    flags: tuple[str, ...]
    key: str

    def __post_init__(self) -> None:
        rates = (self.wsr, *self.interval, self.control_rate, self.null_rate)
        shares = (*rates, self.p_binomial, self.p_matched, self.level)
        sound = (
            self.outcome in OUTCOMES
            and (self.trials > 0 or self.outcome == "INVALID")
            and all(0 <= share <= 1 for share in shares)
            and 0 <= self.hits <= self.trials
            and min(self.discordant) >= 0
            and (self.needed is None or self.needed > 0)
            and sum(self.discordant) <= self.trials
            and math.isclose(self.wsr * self.trials, self.hits, abs_tol=1e-6)
            and self.p_value == max(self.p_binomial, self.p_matched)
            and self.models >= 0
            and (
                self.outcome == "INVALID"
                or (self.outcome == "MARKED") == (self.p_value < self.level and suffices(self.grade, self.accepts))
            )
            and set(self.flags) <= set(FLAGS)
            and _HEX.fullmatch(self.key) is not None
        )
        if not sound:
            raise BadArtifact("the verdict contradicts itself: it was changed or damaged; verify again")

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read back what :meth:`to_json` wrote, and hold its p-values to its counts; a certified verdict's are of other counts.

        Raises:
            BadArtifact: if it is anything else.
        """
        read = super().from_json(text)
        if read.trials and read.grade != "certified" and not read._follows():
            raise BadArtifact(
                "the verdict's p-values are not those of its counts: it was changed or damaged; verify again"
            )
        return read

    def _follows(self) -> bool:
        return agrees(self.p_binomial, self.hits, self.trials, self.null_rate) and agrees(
            self.p_matched, self.discordant[0], sum(self.discordant), 0.5
        )

    def __str__(self) -> str:
        """The verdict in a few lines of plain text; what a suspect or a file said is made fit to show."""
        lines = [f"{self.outcome}: {self.reason or OUTCOMES[self.outcome]}"]
        if self.trials:
            low, high = self.interval
            lines += [
                f"  hits      {self.hits} of {self.trials}, WSR {self.wsr:.1%} (95 % interval {low:.1%} to {high:.1%})",
                f"  controls  {self.control_rate:.1%} without the trigger",
                f"  p-value   {self.p_value:.2g} at level {self.level:g} "
                f"(binomial {self.p_binomial:.2g}, matched {self.p_matched:.2g})",
                f"  null      {self.null}",
                f"  grade     {in_words(self.grade, self.p_value, 0 if self.outcome == 'INVALID' else self.models)}",
                f"  needed    {self._needed_in_words()}",
            ]
        lines += [f"  flag      {flag}: {FLAGS[flag]}" for flag in self.flags]
        return "\n".join(map(printable, [*lines, f"  queries   {self.queries}, key {self.key[:16]}"]))

    def _needed_in_words(self) -> str:
        if self.needed is None:
            return "no key of up to 10,000 queries shows a mark at these rates with a chance of 90 %"
        return f"a key of {self.needed} queries shows such a mark with a chance of 90 %"

    @property
    def warranted_p(self) -> float:
        """See :func:`heirmark.results.grades.warranted`."""
        return warranted(self.p_value, self.models, self.grade)
