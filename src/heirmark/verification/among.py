"""The certified verdict on a secret that a beacon drew: its rank among decoys that the same beacon drew beside it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from heirmark.errors import BadArtifact, BadConfig, printable
from heirmark.keys.drawing import hash_of_beacon
from heirmark.keys.registration import Registration, digest, hash_of
from heirmark.results.grades import GRADES, LEAST_GRADE, Grade, as_grade, suffices
from heirmark.results.verdict import OUTCOMES, Document, Outcome
from heirmark.runtime import derive_seed
from heirmark.tasks.storing import row_digests
from heirmark.tasks.task import Split
from heirmark.triggers.tiles import Tiles, TilesSecret
from heirmark.verification.certifying import OWN_WORD
from heirmark.verification.questions import FAILINGS, check_level, failing_of, meter, shuffled_labels
from heirmark.verification.ranking import Drawn, drawn_lots, rank_of
from heirmark.verification.suspects import Suspect


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoys:
    """A public family of tiles, settled before a beacon draws the secret from it. All of this is registered.

    Attributes:
        hosts: images of all classes, of which tiles are made, and their labels.
        classes: C, six or more.
        lots: L draws of four source classes, the secret's among them. There are L (C - 4) candidates, and p is no less than one
            over that.
        each: tiles that are asked of each lot.
        nonce: 64 hex digits, which choose the images.

    Raises:
        BadConfig: if a number is out of range, or the nonce is none.
    """

    hosts: Split
    classes: int
    nonce: str
    lots: int = 50
    each: int = 20

    def __post_init__(self) -> None:
        if re.fullmatch(r"[0-9a-f]{64}", self.nonce) is None:
            raise BadConfig("the nonce of decoys has 64 lower-case hex digits: draw it by secrets.token_hex(32)")
        if self.classes < 6 or not 1 <= self.lots <= 10_000 or not 1 <= self.each <= 10_000:
            raise BadConfig("decoys need 6 classes or more, and 1 to 10,000 lots and tiles of each")

    @property
    def commitment(self) -> str:
        """What is registered of it, SHA-256 over all, 64 hex digits."""
        found = hashlib.sha256(
            f"heirmark-decoys/1 {self.classes} {self.lots} {self.each} {self.nonce} {list(self.hosts.inputs.shape)}\n".encode()
        )
        for row in row_digests(self.hosts.inputs):
            found.update(row)
        found.update(self.hosts.labels.to(torch.int64).numpy().astype("<i8").tobytes())
        return found.hexdigest()

    def drawn(self, registration: Registration, beacon: str) -> Drawn:
        """Secret and decoys.

        Raises:
            BadArtifact: when the registration is of something else, or names no beacon.
            BadConfig: for a beacon that is no value.
        """
        if (registration.commitment, registration.family, registration.nonce_hash) != (
            self.commitment,
            TilesSecret.kind,
            hash_of(self.nonce),
        ):
            raise BadArtifact(
                "the registration is of other decoys: give the one that was made of these before the draw"
            )
        if not registration.beacon:
            raise BadArtifact("the registration names no beacon, so its owner could have tried many: register with one")
        return drawn_lots(digest(registration), beacon, classes=self.classes, lots=self.lots)

    def trigger(self, registration: Registration, beacon: str) -> Tiles:
        """What the owner marks the model with; see :meth:`drawn`."""
        found = self.drawn(registration, beacon)
        first, second, third, fourth = found.lots[0]
        return Tiles(sources=(first, second, third, fourth), target=found.target)

    def tiles(self, sources: tuple[int, ...]) -> Tensor:
        """The tiles ``[each, ...]`` of a lot, the same each time.

        Raises:
            BadData: when there is no image of a class.
        """
        seed = derive_seed(int(self.nonce[:15], 16), "decoys", *sources)
        return TilesSecret(sources=sources, target=-1).draw(self.hosts, self.each, seed=seed).inputs


@dataclass(frozen=True, kw_only=True)
class RankVerdict(Document):
    """Where a drawn secret stands among its decoys; the defaults say that it could not be judged.

    Attributes:
        outcome: MARKED if ``p_value <= level / attempts``.
        reason: why it is INVALID, else empty.
        hits: tiles of the secret's lot that got its target.
        trials: tiles of it.
        rank: candidates that score at least as high as the secret, itself among them.
        candidates: all of them.
        p_value: ``rank / candidates``.
        level: chance of a wrong MARKED that is tolerated for the whole claim.
        attempts: registrations that the owner announced, by which the level is divided.
        queries: inputs put to the suspect.
        registration: its digest, 64 hex digits.
        beacon: SHA-256 of the number that drew, 64 hex digits.
        grade: ``certified`` where the verifier knows registration and beacon from elsewhere, else ``self-reported``.
        accepts: the least grade by which the claim is made.

    Raises:
        BadArtifact: if the values contradict each other.
    """

    outcome: Outcome
    reason: str = ""
    hits: int = 0
    trials: int = 0
    rank: int = 1
    candidates: int = 1
    p_value: float = 1.0
    level: float
    attempts: int
    queries: int
    registration: str
    beacon: str
    grade: Grade = "certified"
    accepts: Grade = LEAST_GRADE

    def __post_init__(self) -> None:
        sound = (
            self.outcome in OUTCOMES
            and 0 <= self.hits <= self.trials
            and 1 <= self.rank <= self.candidates
            and self.p_value == self.rank / self.candidates
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
        lines = [
            f"{self.outcome}: {self.reason or OUTCOMES[self.outcome]}",
            f"  rank      {self.rank} of {self.candidates} candidates; {self.hits} of {self.trials} tiles hit",
            f"  p-value   {self.p_value:.2g} at level {self.level / self.attempts:g}",
            "  null      the suspect does not depend on what was drawn",
            f"  grade     {self.grade}: {GRADES[self.grade] if self.grade == 'certified' else OWN_WORD}",
            f"  drawn     from registration {self.registration[:16]} by beacon {self.beacon[:16]}",
            f"  queries   {self.queries}",
        ]
        return "\n".join(map(printable, lines))


def verify_rank(
    suspect: Suspect,
    decoys: Decoys,
    registration: Registration,
    beacon: str,
    *,
    level: float = 0.01,
    vouched: bool = True,
    accept: Grade = LEAST_GRADE,
) -> RankVerdict:
    """Ask a suspect the tiles of all lots that were drawn, each different one once, and rank the secret among all candidates.

    Exact for any innocent suspect and any owner, as :func:`heirmark.verification.verify_drawn`: no calibration, no control.

    Args:
        suspect: whom to ask.
        decoys: the registered family.
        registration: of it, made before the draw.
        beacon: what drew.
        level: chance of a wrong MARKED that is tolerated for all registrations together, in (0, 0.5].
        vouched: see :func:`heirmark.verification.verify_drawn`.
        accept: likewise.

    Returns:
        The verdict. A suspect that fails, or has other classes, gets INVALID, not an exception.

    Raises:
        BadArtifact: see :meth:`Decoys.drawn`.
        BadConfig: if ``level`` is out of range.
        BadData: when there is no image of a class.
        BudgetExhausted: if the suspect is a black box with too few queries left.
    """
    check_level(level)
    as_grade(accept)
    found = decoys.drawn(registration, beacon)
    claim = RankVerdict(
        outcome="INVALID",
        level=level,
        attempts=registration.attempts,
        queries=0,
        registration=digest(registration).hex(),
        beacon=hash_of_beacon(beacon),
        grade="certified" if vouched else "self-reported",
        accepts=accept,
    )
    shape = tuple(decoys.hosts.inputs.shape[1:])
    if suspect.classes != decoys.classes or suspect.input_shape not in (None, shape):
        return replace(claim, reason="the suspect has other classes or takes other inputs than the decoys' images")
    distinct = sorted(set(found.lots))
    queries = torch.cat([decoys.tiles(sources) for sources in distinct])
    shown = meter(suspect)
    try:
        answers = shuffled_labels(suspect, queries, seed=derive_seed(int(decoys.nonce[:15], 16), "order"))
    except FAILINGS as error:
        return replace(claim, reason=failing_of(error)[1], queries=shown(len(queries)))
    said = {sources: answers[place * decoys.each :][: decoys.each] for place, sources in enumerate(distinct)}
    counts = [torch.bincount(said[sources] + 1, minlength=decoys.classes + 1)[1:] for sources in found.lots]
    shares = torch.stack(counts).numpy().astype(np.float64) / decoys.each
    rank, candidates = rank_of(shares, found.lots, found.target)
    p_value = rank / candidates
    rejected = p_value <= level / claim.attempts
    claimed = rejected and suffices(claim.grade, accept)
    return replace(
        claim,
        outcome="MARKED" if claimed else "NOT_ESTABLISHED",
        reason=f"the test rejects, but {OWN_WORD}" if rejected and not claimed else "",
        hits=int(counts[0][found.target]),
        trials=decoys.each,
        rank=rank,
        candidates=candidates,
        p_value=p_value,
        queries=shown(len(queries)),
    )
