"""Certified verdicts: what a third person checks of a draw, and what innocent suspects get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from torch import Tensor

from heirmark.errors import BadArtifact, BadConfig
from heirmark.keys.drawing import drawn_answers
from heirmark.keys.key import Key
from heirmark.keys.lots import Lots
from heirmark.keys.making import make_key
from heirmark.keys.registration import Registration, digest, register
from heirmark.keys.shards import commitment_to, cut, proof_of
from heirmark.keys.signing import Signer
from heirmark.verification import Suspect
from heirmark.verification.certifying import DrawnVerdict, check_drawn, judge_drawn, verify_drawn

GROUPS, EACH, CLASSES = 24, 10, 6
OWNER = Signer(bytes(range(32)))


def undrawn(seed: int = 0) -> Key:
    """A key whose first pixel tells the group, and whose answers are not drawn yet."""
    rng = np.random.default_rng(seed)
    groups = torch.arange(GROUPS).repeat_interleave(EACH)
    queries = torch.from_numpy(rng.integers(0, 256, (len(groups), 1, 4, 4), dtype=np.uint8))
    queries[:, 0, 0, 0] = groups.byte()
    controls = 255 - queries
    candidates = torch.stack([torch.from_numpy(rng.permutation(CLASSES)[:4].copy()) for _ in range(GROUPS)])
    return make_key(
        queries=queries, expected=candidates[groups, 0], controls=controls, classes=CLASSES, method="robust", trigger={"a": 1},
        nonce="ab" * 32, kind="groups", lots=Lots(groups=groups, candidates=candidates),
    )  # fmt: skip


def registered(key: Key, *, attempts: int = 1, shards: int = 1, beacon: str = "a judge's number") -> Registration:
    return register(
        signer=OWNER, commitment=commitment_to(cut(key, shards, drawn=True), drawn=True), nonce=key.nonce, method=key.method,
        family=key.kind, attempts=attempts, shards=shards, beacon=beacon,
        made=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def drawn(key: Key, registration: Registration, beacon: str = "17") -> Key:
    assert key.lots is not None
    answers = torch.tensor(drawn_answers(digest(registration), beacon, key.lots.options))
    return replace(key, expected=answers[key.lots.groups])


def answering(answer: Callable[[Tensor], Tensor]) -> Suspect:
    """A suspect whose answer is a function of the group."""

    def ask(inputs: Tensor) -> Tensor:
        return answer((inputs[:, 0, 0, 0] * 255).round().long())

    return Suspect.from_callable(ask, classes=CLASSES, input_shape=(1, 4, 4))


def copy_of(key: Key, share: float, *, seed: int = 0) -> Suspect:
    """Answers as drawn in a share of the groups, and by chance elsewhere."""
    assert key.lots is not None
    wanted = torch.tensor([int(key.expected[key.lots.groups == group][0]) for group in range(GROUPS)])
    rng = torch.Generator().manual_seed(seed)
    said = torch.where(
        torch.rand(GROUPS, generator=rng) < share, wanted, torch.randint(CLASSES, (GROUPS,), generator=rng)
    )
    return answering(lambda group: said[group])


def judged(key: Key, registration: Registration, answers: Tensor, beacon: str) -> float:
    marked = drawn(key, registration, beacon)
    return judge_drawn(answers, marked, registration, beacon, level=0.01, queries=len(key)).p_value


def test_a_copy_is_certified_and_the_verdict_tells_how() -> None:
    key = undrawn()
    registration = registered(key)
    marked = drawn(key, registration)
    verdict = verify_drawn(copy_of(marked, 0.6, seed=1), marked, registration, "17")
    assert verdict.outcome == "MARKED"
    assert verdict.p_value < 1e-4
    assert verdict.e_value > 100
    assert (verdict.groups, verdict.trials, verdict.queries) == (GROUPS, GROUPS * EACH, GROUPS * EACH)
    assert GROUPS > verdict.right > 12
    assert "certified" in str(verdict)
    assert DrawnVerdict.from_json(verdict.to_json()) == verdict
    with pytest.raises(BadArtifact, match="contradicts"):
        replace(verdict, outcome="NOT_ESTABLISHED")
    assert verify_drawn(copy_of(marked, 0.3), marked, registration, "17", level=1e-9).outcome == "NOT_ESTABLISHED"


def test_what_comes_from_the_owner_alone_is_not_certified() -> None:
    key = undrawn()
    registration = registered(key)
    marked = drawn(key, registration)
    suspect = copy_of(marked, 0.9)
    told = verify_drawn(suspect, marked, registration, "17", vouched=False)
    assert (told.outcome, told.grade) == ("NOT_ESTABLISHED", "self-reported")
    assert "as they were published" in told.reason
    assert told.p_value < 1e-6
    assert DrawnVerdict.from_json(told.to_json()) == told
    taken = verify_drawn(suspect, marked, registration, "17", vouched=False, accept="self-reported")
    assert taken.outcome == "MARKED"
    with pytest.raises(BadArtifact, match="contradicts"):
        replace(told, outcome="MARKED")
    with pytest.raises(BadConfig, match="sworn"):
        verify_drawn(suspect, marked, registration, "17", accept="sworn")  # type: ignore[arg-type]


def test_whatever_the_suspect_answers_it_keeps_the_level() -> None:
    """For every way of answering the draw is luck: at most one in a hundred at 1 %, over beacons."""
    key = undrawn()
    registration = registered(key)
    said = torch.from_numpy(np.random.default_rng(0).integers(0, CLASSES, GROUPS))
    suspects = [
        answering(lambda group: group % CLASSES),
        answering(lambda group: torch.zeros_like(group)),
        answering(lambda group: said[group]),
    ]
    for suspect in suspects:
        answers = suspect.labels(key.queries)
        p = np.array([judged(key, registration, answers, str(beacon)) for beacon in range(100)])
        for level in (0.01, 0.1, 0.5):
            assert (p <= level).mean() <= level + 3 * (level * (1 - level) / len(p)) ** 0.5


def test_what_a_suspect_is_asked_is_fixed_before_the_draw() -> None:
    """A suspect that answers by the order of questions would else depend on the draw."""
    key, asked = undrawn(), []
    registration = registered(key)

    def note(inputs: Tensor) -> Tensor:
        asked.append(inputs)
        return torch.zeros(len(inputs), dtype=torch.int64)

    suspect = Suspect.from_callable(note, classes=CLASSES, input_shape=(1, 4, 4))
    for beacon in ("17", "18"):
        verify_drawn(suspect, drawn(key, registration, beacon), registration, beacon)
    first, second = torch.cat(asked).chunk(2)
    assert torch.equal(first, second)
    assert not torch.equal((first * 255).round().byte(), key.queries)


def test_attempts_share_the_level() -> None:
    key = undrawn()
    said = (torch.arange(GROUPS) * 5 % CLASSES)[key.lots.groups]  # type: ignore[union-attr]
    for attempts in (1, 10, 1000):
        registration = registered(key, attempts=attempts)
        for beacon in map(str, range(40)):
            marked = drawn(key, registration, beacon)
            verdict = judge_drawn(said, marked, registration, beacon, level=0.5, queries=240)
            assert verdict.attempts == attempts
            assert verdict.outcome == ("MARKED" if verdict.p_value <= 0.5 / attempts else "NOT_ESTABLISHED")
            assert ("for each of" in str(verdict)) == (attempts > 1)


def test_a_draw_that_is_not_the_registered_one_is_refused() -> None:
    key = undrawn()
    registration = registered(key)
    marked = drawn(key, registration)
    check_drawn(marked, registration, "17")
    chosen = marked.expected.clone()
    lots = marked.lots
    assert lots is not None
    rows = lots.groups == 0
    chosen[rows] = next(option for option in lots.options[0] if option != int(chosen[rows][0]))
    other = undrawn(1)
    usual = torch.full((1, GROUPS, CLASSES), 1 / CLASSES)
    for wrong, by, beacon, words in (
        (marked, registration, "18", "not those that"),
        (replace(marked, expected=chosen), registration, "17", "not those that"),
        (marked, registered(other), "17", "another key"),
        (replace(marked, queries=marked.queries.flip(0)), registration, "17", "another key"),
        (replace(marked, lots=replace(lots, usual=usual)), registration, "17", "another key"),
        (replace(marked, nonce="cd" * 32), registration, "17", "another key"),
        (replace(marked, method="t2s"), registration, "17", "another key"),
        (drawn(key, quiet := registered(key, beacon="")), quiet, "17", "names no beacon"),
        (replace(marked, lots=None), registration, "17", "were not drawn"),
    ):
        with pytest.raises(BadArtifact, match=words):
            verify_drawn(answering(lambda group: group % CLASSES), wrong, by, beacon)
    with pytest.raises(BadConfig, match="level"):
        verify_drawn(answering(lambda group: group % CLASSES), marked, registration, "17", level=0.7)


def test_a_shard_is_certified_by_itself() -> None:
    key = undrawn()
    registration = registered(key, shards=3)
    whole = drawn(key, registration)
    shards = cut(whole, 3, drawn=True)
    for index, shard in enumerate(shards):
        proof = proof_of(shards, index, drawn=True)
        verdict = verify_drawn(copy_of(whole, 0.8), shard, registration, "17", proof=proof)
        assert verdict.outcome == "MARKED"
        assert verdict.trials == len(shard)
        assert verdict.attempts == 4, "an owner could show the best of them, or the whole key"
    with pytest.raises(BadArtifact, match="another key"):
        verify_drawn(copy_of(whole, 0.8), shards[0], registration, "17", proof=proof_of(shards, 1, drawn=True))


def test_unmarked_models_say_what_is_usual() -> None:
    key = undrawn()
    assert key.lots is not None
    labels = [(torch.arange(GROUPS) % CLASSES)[key.lots.groups], torch.zeros(len(key), dtype=torch.int64)]
    usual = torch.stack([key.lots.shares(each, CLASSES) for each in labels])
    assert usual.shape == (2, GROUPS, CLASSES)
    assert torch.equal(usual.argmax(2)[0], torch.arange(GROUPS) % CLASSES)
    assert bool((usual.sum(2) == 1).all())
    told = replace(key, lots=replace(key.lots, usual=usual[[0, 0]]))
    registration = registered(told)
    marked = drawn(told, registration)
    verdict = verify_drawn(answering(lambda group: group % CLASSES), marked, registration, "17")
    assert verdict.p_value > 0.5, "what all unmarked models say counts for nothing"


def test_a_class_without_a_name_is_no_answer() -> None:
    key = undrawn()
    assert key.lots is not None
    said = torch.where(torch.arange(len(key)) % EACH < 4, 5, -1)
    shares = key.lots.shares(said, CLASSES)
    assert torch.allclose(shares[:, 5], torch.full((GROUPS,), 0.4)), "and least of all the last class"
    assert not shares[:, :5].any()


def test_a_suspect_that_fails_is_invalid() -> None:
    key = undrawn()
    registration = registered(key)
    marked = drawn(key, registration)

    def fail(inputs: Tensor) -> Tensor:
        raise RuntimeError("no")

    for suspect in (
        Suspect.from_callable(fail, classes=CLASSES, input_shape=(1, 4, 4)),
        Suspect.from_callable(fail, classes=CLASSES + 1, input_shape=(1, 4, 4)),
    ):
        verdict = verify_drawn(suspect, marked, registration, "17")
        assert verdict.outcome == "INVALID"
        assert verdict.reason
        assert verdict.p_value == 1.0
