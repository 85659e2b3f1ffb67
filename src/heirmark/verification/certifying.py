"""The certified verdict: answers that were drawn after the triggers were registered, asked of a suspect, and tested exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from heirmark.errors import BadArtifact, printable
from heirmark.keys.drawing import drawn_answers, hash_of_beacon
from heirmark.keys.key import Key
from heirmark.keys.lots import Lots
from heirmark.keys.registration import Registration, digest, hash_of
from heirmark.keys.shards import Proof, commitment_to, cut
from heirmark.results.grades import GRADES, LEAST_GRADE, Grade, as_grade, suffices
from heirmark.results.verdict import OUTCOMES, Document, Outcome
from heirmark.verification.drawn import log_e_of_drawn, p_of_drawn, scores
from heirmark.verification.e_process import e_value
from heirmark.verification.questions import (
    FAILINGS,
    check_level,
    failing_of,
    meter,
    misfit_of,
    order_seed,
    shuffled_labels,
)
from heirmark.verification.suspects import Suspect

OWN_WORD: Final = (
    "registration and beacon come from who claims, who may have drawn until a draw fitted: give both as they were published "
    "(--registration FILE --beacon VALUE)"
)


@dataclass(frozen=True, kw_only=True)
class DrawnVerdict(Document):
    """What the drawn answers of a key say about a suspect; the defaults say that it could not be judged.

    Attributes:
        outcome: MARKED if ``p_value <= level / attempts``.
        reason: why it is INVALID, else empty.
        hits: triggers that got the drawn answer.
        trials: triggers asked.
        groups: groups asked, each with one answer of its own.
        right: groups in which the drawn answer stands out more than any other candidate.
        p_value: share of all draws whose answers fit the suspect's as well, exact or a little above.
        e_value: of the same draw, a bet whose mean is 1; e-values of several suspects or keys may be averaged.
        level: chance of a wrong MARKED that is tolerated for the whole claim.
        attempts: tests that the owner could make, by which the level is divided; see
            :attr:`heirmark.keys.registration.Registration.tries`.
        queries: inputs put to the suspect.
        registration: digest of the registration that the answers are drawn from, 64 hex digits.
        beacon: SHA-256 of the number that drew them, 64 hex digits.
        key: the key's commitment.
        grade: ``certified`` where the verifier knows registration and beacon from elsewhere, else ``self-reported``.
        accepts: the least grade by which the claim is made.

    Raises:
        BadArtifact: if the values contradict each other.
    """

    outcome: Outcome
    reason: str = ""
    hits: int = 0
    trials: int = 0
    groups: int = 0
    right: int = 0
    p_value: float = 1.0
    e_value: float = 1.0
    level: float
    attempts: int
    queries: int
    registration: str
    beacon: str
    key: str
    grade: Grade = "certified"
    accepts: Grade = LEAST_GRADE

    def __post_init__(self) -> None:
        sound = (
            self.outcome in OUTCOMES
            and 0 <= self.hits <= self.trials
            and 0 <= self.right <= self.groups <= self.trials
            and 0 < self.p_value <= 1
            and 0 <= self.e_value < math.inf
            and 0 < self.level <= 0.5
            and self.attempts >= 1
            and self.grade in GRADES
            and self.accepts in GRADES
            and (
                self.outcome == "INVALID"
                or (self.outcome == "MARKED")
                == (self.p_value <= self.level / self.attempts and suffices(self.grade, self.accepts))
            )
        )
        if not sound:
            raise BadArtifact("the verdict contradicts itself: it was changed or damaged; verify again")

    def __str__(self) -> str:
        """The verdict in a few lines of plain text."""
        among = f", {self.level / self.attempts:.2g} for each of {self.attempts} tries" if self.attempts > 1 else ""
        lines = [
            f"{self.outcome}: {self.reason or OUTCOMES[self.outcome]}",
            f"  groups    {self.right} of {self.groups} answer as was drawn; {self.hits} of {self.trials} triggers",
            f"  p-value   {self.p_value:.2g} at level {self.level:g}{among} (e-value {self.e_value:.3g})",
            "  null      the suspect does not depend on what was drawn",
            f"  grade     {self.grade}: {GRADES[self.grade] if self.grade == 'certified' else OWN_WORD}",
            f"  drawn     from registration {self.registration[:16]} by beacon {self.beacon[:16]}",
            f"  queries   {self.queries}, key {self.key[:16]}",
        ]
        return "\n".join(map(printable, lines))


def check_drawn(key: Key, registration: Registration, beacon: str, proof: Proof | None = None) -> None:
    """Make sure that a key is the registered one, and that its answers are those that were drawn.

    Args:
        key: the whole key, or a shard of it.
        registration: what was published before the draw.
        beacon: the number that came later.
        proof: that a shard is one of the registered key's; None where the key is whole.

    Raises:
        BadArtifact: when one of these does not hold; the message says which.
        BadConfig: for a beacon that is no value.
    """
    lots = _lots(key)
    if proof is None:
        same = hash_of(key.nonce) == registration.nonce_hash
        same = same and commitment_to(cut(key, registration.shards, drawn=True), drawn=True) == registration.commitment
    else:
        same = proof.shows(key, commitment=registration.commitment, shards=registration.shards, drawn=True)
    if not same or (registration.method, registration.family) != (key.method, key.kind):
        raise BadArtifact("the registration is of another key: give the one that was made of this key before the draw")
    if not registration.beacon:
        raise BadArtifact(
            "the registration names no beacon, so its owner could have tried many: register the key with one"
        )
    drawn = drawn_answers(digest(registration), beacon, lots.options)
    if not torch.equal(torch.tensor(drawn)[lots.groups], key.expected):
        raise BadArtifact("the answers of this key are not those that the registration and the beacon draw")


def verify_drawn(
    suspect: Suspect,
    key: Key,
    registration: Registration,
    beacon: str,
    *,
    proof: Proof | None = None,
    level: float = 0.01,
    vouched: bool = True,
    accept: Grade = LEAST_GRADE,
) -> DrawnVerdict:
    """Ask a suspect the triggers of a drawn key, once each, and test its answers against the draw.

    No control is asked and no calibration needed: whatever the suspect is, if it does not depend on what was drawn, it is
    called MARKED with a chance of at most ``level``. That holds for any owner, too: triggers, groups and what unmarked models
    say to them were fixed by the registration, and attempts are counted.

    Args:
        suspect: whom to ask.
        key: with lots.
        registration: of the key, as it was published before the draw.
        beacon: what drew the answers, as it was published.
        proof: of a shard; see :func:`check_drawn`.
        level: chance of a wrong MARKED that is tolerated for all registrations together, in (0, 0.5].
        vouched: whether registration and beacon are known to the verifier from elsewhere than the owner's files. An owner who
            hands in both may have drawn until a draw fitted this suspect.
        accept: the least grade by which the claim is made.

    Returns:
        The verdict. A suspect that fails, answers nonsense or does not fit the key gets INVALID, not an exception.

    Raises:
        BadArtifact: see :func:`check_drawn`.
        BadConfig: if ``level`` is out of range.
        BudgetExhausted: if the suspect is a black box with fewer than M queries left; none is asked then.
    """
    check_drawn(key, registration, beacon, proof)
    check_level(level)
    as_grade(accept)
    claim = _claim(key, registration, beacon, level, vouched, accept)
    if (misfit := misfit_of(suspect, key)) is not None:
        return replace(claim, reason=misfit[1], queries=0)
    shown = meter(suspect)
    try:
        answers = shuffled_labels(suspect, key.queries, seed=order_seed(key))
    except FAILINGS as error:
        return replace(claim, reason=failing_of(error)[1], queries=shown(len(key)))
    return _judged(claim, answers, key, queries=shown(len(key)))


def judge_drawn(
    answers: Tensor,
    key: Key,
    registration: Registration,
    beacon: str,
    *,
    level: float,
    queries: int,
    vouched: bool = True,
    accept: Grade = LEAST_GRADE,
) -> DrawnVerdict:
    """The verdict on answers ``[M]`` (labels) to the queries of a drawn key, in their order.

    Args:
        answers: by a suspect.
        key: whose draw :func:`check_drawn` found to be right.
        registration: of the key.
        beacon: that drew the answers.
        level: of the whole claim.
        queries: that it took.
        vouched: see :func:`verify_drawn`.
        accept: likewise.

    Raises:
        BadArtifact: when the key has no lots.
    """
    claim = _claim(key, registration, beacon, level, vouched, accept)
    return _judged(claim, answers, key, queries=queries)


def _judged(claim: DrawnVerdict, answers: Tensor, key: Key, *, queries: int) -> DrawnVerdict:
    """What is claimed, after answers ``[M]`` to the queries."""
    lots = _lots(key)
    drawn = lots.places(key.expected)
    asked = [group for group, place in enumerate(drawn) if place >= 0]
    places = [drawn[group] for group in asked]
    usual = lots.usual.double().numpy()[:, asked] if len(lots.usual) else np.empty((0, len(asked), key.classes))
    said = lots.shares(answers, key.classes)[asked].double().numpy()
    found = scores(said, usual, [lots.options[group] for group in asked])
    p_value = p_of_drawn(found, places)
    rejected = p_value <= claim.level / claim.attempts
    claimed = rejected and suffices(claim.grade, claim.accepts)
    return replace(
        claim,
        outcome="MARKED" if claimed else "NOT_ESTABLISHED",
        reason=f"the test rejects, but {OWN_WORD}" if rejected and not claimed else "",
        hits=int((answers == key.expected).sum()),
        trials=len(key),
        groups=len(asked),
        right=sum(
            bool((group < group[place]).sum() == len(group) - 1) for group, place in zip(found, places, strict=True)
        ),
        p_value=p_value,
        e_value=e_value(log_e_of_drawn(found, places)),
        queries=queries,
    )


def _claim(
    key: Key, registration: Registration, beacon: str, level: float, vouched: bool, accept: Grade
) -> DrawnVerdict:
    """What is claimed, before anything was asked."""
    return DrawnVerdict(
        outcome="INVALID",
        level=level,
        attempts=registration.tries,
        grade="certified" if vouched else "self-reported",
        accepts=accept,
        queries=0,
        registration=digest(registration).hex(),
        beacon=hash_of_beacon(beacon),
        key=key.commitment,
    )


def _lots(key: Key) -> Lots:
    if key.lots is None:
        raise BadArtifact("the answers of this key were not drawn: nothing about it can be certified")
    return key.lots
