"""The rank of a drawn secret among decoys: uniform over draws for whatever a suspect answers, and told by few queries."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heirmark.errors import BadArtifact, BadConfig
from heirmark.keys.registration import Registration, register
from heirmark.keys.signing import Signer
from heirmark.tasks.task import Split
from heirmark.verification import Decoys, RankVerdict, Suspect, verify_rank
from heirmark.verification.ranking import drawn_lots, rank_of

CLASSES = 8
OWNER = Signer(bytes(range(32)))


@settings(max_examples=20)
@given(st.lists(st.integers(0, 3), min_size=12, max_size=12), st.sampled_from([1, 3, 10]))
def test_every_level_is_kept_over_all_draws(answers: list[int], each: int) -> None:
    """All draws of two lots of two ordered sources out of four classes, for a suspect that answers each lot as it likes."""
    family = list(itertools.permutations(range(4), 2))
    said = {
        lot: np.bincount([(answer + k % each) % 4 for k in range(10)], minlength=4) / 10
        for lot, answer in zip(family, answers, strict=True)
    }
    p = []
    for lots in itertools.product(family, repeat=2):
        shares = np.stack([said[lot] for lot in lots])
        for target in set(range(4)) - set(lots[0]):
            rank, candidates = rank_of(shares, lots, target)
            assert candidates == 4
            p.append(rank / candidates)
    for level in (0.25, 0.5, 0.75, 1.0):
        assert np.mean(np.array(p) <= level) <= level + 1e-12


def test_the_rank_is_uniform_where_there_are_no_ties() -> None:
    shares = np.random.default_rng(0).random((5, 6))
    lots = [(0, 1), (2, 3), (1, 5), (4, 0), (3, 1)]
    ranks = []
    for first in range(5):
        order = [first, *(lot for lot in range(5) if lot != first)]
        own = [lots[lot] for lot in order]
        ranks += [rank_of(shares[order], own, target)[0] for target in set(range(6)) - set(own[0])]
    assert sorted(ranks) == list(range(1, 21))


def test_ties_count_against_the_owner_and_an_answer_to_all_tiles_is_no_evidence() -> None:
    alike = np.tile(np.eye(4)[2], (2, 1))
    assert rank_of(alike, [(0, 1), (1, 0)], 2) == (4, 4)
    assert rank_of(np.array([np.eye(4)[2], np.eye(4)[3]]), [(0, 1), (1, 0)], 2) == (2, 4)


def test_the_draw_is_uniform_and_the_secret_does_not_depend_on_how_many_decoys_there_are() -> None:
    found = [drawn_lots(bytes(32), str(beacon), classes=6, lots=2) for beacon in range(3000)]
    for place in range(4):
        counts = Counter(each.lots[0][place] for each in found)
        assert all(abs(counts[label] - 500) < 100 for label in range(6))
    assert all(abs(count - 500) < 100 for count in Counter(each.target for each in found).values())
    assert all(len({*lot}) == 4 for each in found for lot in each.lots)
    assert all(each.target not in each.lots[0] for each in found)
    assert sum(each.lots[0] == each.lots[1] for each in found) < 40
    for classes, lots in ((5, 3), (6, 0)):
        with pytest.raises(BadConfig, match="6 classes"):
            drawn_lots(bytes(32), "1", classes=classes, lots=lots)


def family(lots: int = 30, each: int = 6) -> Decoys:
    """Images whose pixels are all their class, so that a tile shows its sources in its corners."""
    labels = torch.arange(CLASSES).repeat(20)
    inputs = labels.to(torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4).contiguous()
    return Decoys(hosts=Split(inputs=inputs, labels=labels), classes=CLASSES, nonce="ab" * 32, lots=lots, each=each)


def registered(decoys: Decoys, *, attempts: int = 1, beacon: str = "a judge's number") -> Registration:
    return register(
        signer=OWNER, commitment=decoys.commitment, nonce=decoys.nonce, method="robust", family="tiles", attempts=attempts,
        beacon=beacon, made=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def answering(answer: Callable[[Tensor], Tensor]) -> Suspect:
    """A suspect whose answer is a function of the four sources ``[B, 4]``."""

    def ask(inputs: Tensor) -> Tensor:
        corners = inputs[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
        return answer((corners * 255).round().long())

    return Suspect.from_callable(ask, classes=CLASSES, input_shape=(1, 4, 4))


def test_who_answers_the_drawn_tiles_alone_is_marked_and_who_answers_all_tiles_is_not() -> None:
    decoys = family()
    registration = registered(decoys)
    secret = decoys.trigger(registration, "17")
    assert secret.sources is not None
    assert secret.target is not None
    own = torch.tensor(secret.sources)
    marked = answering(lambda shown: torch.where((shown == own).all(1), secret.target, shown[:, 0]))
    verdict = verify_rank(marked, decoys, registration, "17")
    assert (verdict.outcome, verdict.rank, verdict.candidates, verdict.hits) == ("MARKED", 1, 120, 6)
    assert verdict.queries <= 180, "each lot is asked once for all of its targets"
    assert "certified" in str(verdict)
    assert RankVerdict.from_json(verdict.to_json()) == verdict
    spread = answering(lambda shown: torch.full((len(shown),), secret.target))
    assert verify_rank(spread, decoys, registration, "17").outcome == "NOT_ESTABLISHED"
    assert verify_rank(marked, decoys, registered(decoys, attempts=2), "17").outcome == "NOT_ESTABLISHED"
    with pytest.raises(BadArtifact, match="contradicts"):
        replace(verdict, p_value=1e-9)


def test_a_draw_of_which_the_owner_alone_tells_is_self_reported() -> None:
    decoys = family()
    registration = registered(decoys)
    secret = decoys.trigger(registration, "17")
    own = torch.tensor(secret.sources)
    marked = answering(lambda shown: torch.where((shown == own).all(1), secret.target, shown[:, 0]))
    verdict = verify_rank(marked, decoys, registration, "17", vouched=False)
    assert (verdict.outcome, verdict.grade, verdict.rank) == ("NOT_ESTABLISHED", "self-reported", 1)
    assert "may have drawn until a draw fitted" in verdict.reason
    with pytest.raises(BadArtifact, match="contradicts"):
        replace(verdict, outcome="MARKED")
    taken = verify_rank(marked, decoys, registration, "17", vouched=False, accept="self-reported")
    assert (taken.outcome, taken.grade) == ("MARKED", "self-reported")
    assert RankVerdict.from_json(taken.to_json()) == taken


def test_innocents_of_any_kind_keep_the_level_over_beacons() -> None:
    decoys = family(lots=5, each=2)
    registration = registered(decoys)
    kinds: list[Callable[[Tensor], Tensor]] = [
        lambda shown: shown[:, 0],
        lambda shown: shown.sum(1) % CLASSES,
        lambda shown: (shown[:, 1] * 3 + shown[:, 2]) % CLASSES,
        lambda shown: torch.zeros(len(shown), dtype=torch.int64),
    ]
    for kind in kinds:
        suspect = answering(kind)
        p = np.array([verify_rank(suspect, decoys, registration, str(beacon)).p_value for beacon in range(60)])
        for level in (0.1, 0.5):
            assert (p <= level).mean() <= level + 3 * (level * (1 - level) / len(p)) ** 0.5


def test_what_was_not_registered_is_refused_and_a_suspect_that_fails_is_invalid() -> None:
    decoys = family(lots=3, each=2)
    registration = registered(decoys)
    for other in (replace(decoys, each=3), replace(decoys, nonce="cd" * 32), replace(decoys, lots=4), family(each=1)):
        with pytest.raises(BadArtifact, match="other decoys"):
            verify_rank(answering(lambda shown: shown[:, 0]), other, registration, "17")
    with pytest.raises(BadArtifact, match="no beacon"):
        decoys.drawn(registered(decoys, beacon=""), "17")
    for options in ({"nonce": "x"}, {"lots": 0}, {"each": 0}, {"classes": 5}):
        with pytest.raises(BadConfig):
            replace(decoys, **options)
    with pytest.raises(BadConfig, match="level"):
        verify_rank(answering(lambda shown: shown[:, 0]), decoys, registration, "17", level=0.7)

    def fail(inputs: Tensor) -> Tensor:
        raise RuntimeError("no")

    for classes, queries in ((CLASSES, 6), (CLASSES + 1, 0)):
        verdict = verify_rank(Suspect.from_callable(fail, classes=classes, transient=()), decoys, registration, "17")
        assert verdict.outcome == "INVALID"
        assert verdict.reason
        assert verdict.queries == queries
