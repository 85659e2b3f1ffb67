"""A verdict that stops when it is enough: a suspect is asked a few pairs at a time, and the evidence is looked at after each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from heirmark.errors import BadArtifact, BadConfig, printable
from heirmark.keys.key import Key
from heirmark.results.grades import LEAST_GRADE, Grade, as_grade, in_words, suffices
from heirmark.results.verdict import OUTCOMES, Calibration, Document, Outcome
from heirmark.runtime import generator_of
from heirmark.verification.calibrating import share_known
from heirmark.verification.e_process import e_value, log_e_value
from heirmark.verification.null import grade_of, null_of, shortfall
from heirmark.verification.questions import (
    FAILINGS,
    check_terms,
    failing_of,
    meter,
    misfit_of,
    order_seed,
    shuffled_labels,
)
from heirmark.verification.scrutiny import doubts_of, told_apart
from heirmark.verification.suspects import Suspect


@dataclass(frozen=True, kw_only=True)
class SequentialVerdict(Document):
    """What was found by the query at which the asking stopped.

    Attributes:
        outcome: MARKED if ``p_value <= level`` and the grade is accepted.
        reason: why it is INVALID, or withheld for its grade; else empty.
        hits: triggers that got the expected answer.
        trials: triggers asked.
        discordant: of the pairs with controls of their own, those that hit with the trigger only, and without it only.
        p_value: one over the larger e-value there ever was, valid however often one looked: at most 1.
        e_value: the smaller of the next two where the asking stopped. The null is that one of two things holds, so both must be
            refuted.
        e_binomial: against hits at the null rate.
        e_matched: against a trigger that makes no difference.
        null_rate: hit rate that an unmarked model is taken not to exceed.
        null: the null hypothesis, in words.
        level: significance level of the whole claim, at which the asking stops.
        queries: inputs put to the suspect.
        models: unmarked models whose hits made the null; 0 where that is not known.
        grade: how the null is warranted, of :data:`heirmark.results.grades.GRADES`.
        accepts: the least grade by which the claim is made.
        key: the key's commitment.

    Raises:
        BadArtifact: if the values contradict each other.
    """

    outcome: Outcome
    reason: str = ""
    hits: int = 0
    trials: int = 0
    discordant: tuple[int, int] = (0, 0)
    p_value: float = 1.0
    e_value: float = 1.0
    e_binomial: float = 1.0
    e_matched: float = 1.0
    null_rate: float = 1.0
    null: str = "none was tested"
    level: float
    queries: int
    models: int = 0
    grade: Grade
    accepts: Grade
    key: str

    def __post_init__(self) -> None:
        sound = (
            self.outcome in OUTCOMES
            and 0 <= self.hits <= self.trials
            and min(self.discordant) >= 0
            and sum(self.discordant) <= self.trials
            and 0 < self.p_value <= 1
            and 0 < self.level <= 1
            and 0 < self.null_rate <= 1
            and self.models >= 0
            and self.e_value == min(self.e_binomial, self.e_matched)
            and math.isclose(self.e_binomial, e_value(log_e_value(self.hits, self.trials - self.hits, self.null_rate)))
            and math.isclose(self.e_matched, e_value(log_e_value(*self.discordant, 0.5)))
            and self.e_value * self.p_value <= 1 + 1e-9
            and (self.outcome != "MARKED" or math.isclose(self.e_value * self.p_value, 1))
            and (
                self.outcome == "INVALID"
                or (self.outcome == "MARKED") == (self.p_value <= self.level and suffices(self.grade, self.accepts))
            )
        )
        if not sound:
            raise BadArtifact("the verdict contradicts itself: it was changed or damaged; verify again")

    def __str__(self) -> str:
        """The verdict in a few lines of plain text."""
        lines = [
            f"{self.outcome}: {self.reason or OUTCOMES[self.outcome]}",
            f"  hits      {self.hits} of {self.trials} triggers, when the asking stopped",
            f"  pairs     {self.discordant[0]} hit with the trigger only, {self.discordant[1]} without it only",
            f"  p-value   {self.p_value:.2g} at level {self.level:g}, valid at any time "
            f"(e-values: binomial {self.e_binomial:.3g}, matched {self.e_matched:.3g})",
            f"  null      {self.null}",
            f"  grade     {in_words(self.grade, self.p_value, self.models)}",
            f"  queries   {self.queries}, key {self.key[:16]}",
        ]
        return "\n".join(map(printable, lines))


def verify_sequentially(
    suspect: Suspect,
    key: Key,
    *,
    calibration: Calibration | None = None,
    level: float = 0.01,
    max_queries: int | None = None,
    at_once: int = 8,
    accuracy: float | None = None,
    calibrated_by: str | None = None,
    accept: Grade = LEAST_GRADE,
) -> SequentialVerdict:
    """Ask pairs of a key's triggers and controls until the evidence suffices, or the queries are spent.

    Two e-processes grow by the answers, one for each test of :func:`heirmark.verification.verify`, and the claim is made once
    both reach 1 / ``level``: their smaller one is an e-process of the null that either holds. It may be looked at after every
    answer, so that a strong mark costs a few dozen queries and a faint one as many as it needs.

    Args:
        suspect: whom to ask.
        key: drawn by a method when it marked the owner's model.
        calibration: as for :func:`heirmark.verification.verify`.
        level: chance of a wrong MARKED that is tolerated, in (0, 0.5].
        max_queries: inputs that may be put to the suspect at most; None is the whole key.
        at_once: pairs put to it together. More are fewer requests and some more queries; of one pair alone a suspect
            may see that its two inputs are alike.
        accuracy: of the suspect, in [0, 1], if it is known; see :func:`heirmark.verification.verify`.
        calibrated_by: see :func:`heirmark.verification.verify`.
        accept: likewise.

    Returns:
        The verdict. Of a suspect that fails on the way, what was found until then, as INVALID.

    Raises:
        BadConfig: if an option is out of range.
        BadArtifact: if the calibration is of another key.
        BudgetExhausted: if the suspect is a black box with too few queries left.
    """
    if at_once < 1 or (max_queries is not None and max_queries < 2):
        raise BadConfig(f"ask one pair at once at least, and two queries in all: not {at_once} and {max_queries}")
    commitment, key = key.commitment, told_apart(key)
    check_terms(key, commitment, calibration, level, accuracy)
    as_grade(accept)
    grade = grade_of(calibration, calibrated_by)
    if (misfit := misfit_of(suspect, key)) is not None:
        return SequentialVerdict(
            outcome="INVALID",
            reason=misfit[1],
            level=level,
            queries=0,
            grade=grade,
            accepts=accept,
            key=commitment,
        )
    doubts = doubts_of(key)
    null = null_of(key, calibration, accuracy, doubts=doubts)
    models = null.models
    shown, seed = meter(suspect), order_seed(key)
    counted = torch.zeros(len(key), dtype=torch.bool)
    counted[key.independent_pairs()] = True
    order = torch.randperm(len(key), generator=generator_of(seed))
    most = len(key) if max_queries is None else min(len(key), max_queries // 2)
    bare = torch.full((len(key),), -1)
    hits = trials = asked = only_trigger = only_control = 0
    evidence, smallest = (0.0, 0.0), 1.0
    outcome: Outcome = "NOT_ESTABLISHED"
    reason = ""
    for start in range(0, most, at_once):
        rows = order[start : min(start + at_once, most)]
        try:
            triggers, controls = shuffled_labels(
                suspect, torch.cat([key.queries[rows], key.controls[rows]]), seed=seed + start + 1
            ).chunk(2)
        except FAILINGS as fault:
            outcome, reason = "INVALID", failing_of(fault)[1]
            break
        asked += 2 * len(rows)
        bare[rows] = controls
        hit, plain, own = triggers == key.expected[rows], controls == key.expected[rows], counted[rows]
        hits, trials = hits + int(hit.sum()), trials + len(rows)
        only_trigger += int((hit & ~plain & own).sum())
        only_control += int((plain & ~hit & own).sum())
        evidence = (
            log_e_value(hits, trials - hits, null.rate),
            log_e_value(only_trigger, only_control, 0.5),
        )
        smallest = min(smallest, 1 / e_value(max(0.0, min(evidence))))
        if smallest <= level:
            # Only now is it known what the suspect knows, and so whether the models that were asked are as good.
            told = null_of(key, calibration, accuracy, known=share_known(bare, key, order[:trials]), doubts=doubts)
            models = told.models if told.rate <= null.rate else 0
            grade = grade_of(calibration, calibrated_by, models)
            reason = shortfall(told, grade, accept)
            outcome = "NOT_ESTABLISHED" if reason else "MARKED"
            break
    binomial, matched = map(e_value, evidence)
    return SequentialVerdict(
        outcome=outcome,
        reason=reason,
        hits=hits,
        trials=trials,
        discordant=(only_trigger, only_control),
        p_value=smallest,
        e_value=min(binomial, matched),
        e_binomial=binomial,
        e_matched=matched,
        null_rate=null.rate,
        null=null.words,
        level=level,
        queries=shown(asked),
        models=models,
        grade=grade,
        accepts=accept,
        key=commitment,
    )
