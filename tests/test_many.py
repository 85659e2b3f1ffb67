"""Several suspects and keys in one claim: what each verdict counts with, and what follows for all."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heirmark.errors import BadArtifact, BadConfig
from heirmark.verification import DrawnVerdict, SequentialVerdict, Verdict, statistics
from heirmark.verification.e_process import e_value, log_e_value
from heirmark.verification.many import Together, e_bh, holm, together
from heirmark.verification.sequential import Grade

KEY = "0" * 64
ps = st.floats(1e-12, 1)


def plain(p: float, *, grade: Grade = "calibrated", level: float = 0.01, accepts: Grade = "calibrated") -> Verdict:
    marked = p < level and grade in ("certified", accepts)
    return Verdict(
        outcome="MARKED" if marked else "NOT_ESTABLISHED", wsr=0.5, hits=50, trials=100, p_value=p, p_binomial=p,
        p_matched=p, level=level, queries=200, flags=(), key=KEY, grade=grade, accepts=accepts,
    )  # fmt: skip


def drawn(p: float, e: float, *, attempts: int = 1, level: float = 0.01) -> DrawnVerdict:
    return DrawnVerdict(
        outcome="MARKED" if p <= level / attempts else "NOT_ESTABLISHED", p_value=p, e_value=e, level=level, attempts=attempts,
        queries=9, registration=KEY, beacon=KEY, key=KEY,
    )  # fmt: skip


def sequential(hits: int, misses: int, *, grade: Grade = "calibrated") -> SequentialVerdict:
    """Of pairs with the same discordance as hits, at a null of a half, so that both e-values are one."""
    found = e_value(log_e_value(hits, misses, 0.5))
    p = min(1.0, 1 / found)
    return SequentialVerdict(
        outcome="MARKED" if p <= 0.01 and grade == "calibrated" else "NOT_ESTABLISHED", hits=hits, trials=hits + misses,
        discordant=(hits, misses), p_value=p, e_value=found, e_binomial=found, e_matched=found, null_rate=0.5, level=0.01,
        queries=2 * (hits + misses), grade=grade, accepts="calibrated", key=KEY,
    )  # fmt: skip


INVALID = Verdict(outcome="INVALID", reason="it failed", level=0.01, queries=3, flags=("suspect-failed",), key=KEY)


@given(ps)
def test_a_single_verdict_stays_what_it_is(p: float) -> None:
    for own in (plain(p), plain(p, grade="assumed"), drawn(p, 2.0)):
        if p != own.level:
            assert holm([own]).outcomes == (own.outcome,)


@given(st.lists(ps, min_size=1, max_size=8), st.sampled_from([0.01, 0.05, 0.3]))
def test_p_values_are_corrected_by_holm(values: list[float], level: float) -> None:
    found = holm([plain(p) for p in values], level=level)
    adjusted = statistics.holm(values)
    assert list(found.adjusted) == adjusted
    assert found.outcomes == tuple("MARKED" if p < level else "NOT_ESTABLISHED" for p in adjusted)
    assert found.rule == "holm"


def test_what_cannot_be_judged_or_claimed_counts_for_nothing_but_counts() -> None:
    found = holm([plain(0.004), plain(1e-9, grade="self-reported"), INVALID])
    assert found.values == (0.004, 1.0, 1.0)
    assert found.outcomes == ("NOT_ESTABLISHED", "NOT_ESTABLISHED", "INVALID"), "0.012 of three"
    assert holm([plain(0.003), plain(1e-9, grade="self-reported"), INVALID]).outcomes[0] == "MARKED"
    assert holm([plain(0.004), plain(1e-9, grade="self-reported", accepts="self-reported")]).outcomes == ("MARKED",) * 2
    by_e = e_bh([sequential(30, 0), sequential(30, 0, grade="assumed"), INVALID])
    assert by_e.values[1:] == (0.0, 0.0)
    assert by_e.outcomes == ("MARKED", "NOT_ESTABLISHED", "INVALID")


def test_a_draw_of_which_the_owner_alone_tells_counts_for_nothing() -> None:
    told = replace(drawn(1e-9, 1e6), grade="self-reported", outcome="NOT_ESTABLISHED")
    assert holm([told]).outcomes == e_bh([told]).outcomes == ("NOT_ESTABLISHED",)
    assert holm([replace(told, accepts="self-reported", outcome="MARKED")]).outcomes == ("MARKED",)


def test_attempts_of_a_draw_count() -> None:
    assert holm([drawn(0.001, 900.0, attempts=5)]).values == (0.005,)
    assert holm([drawn(0.5, 0.1, attempts=5)]).values == (1.0,)
    assert e_bh([drawn(0.001, 900.0, attempts=5)]).values == (180.0,)


def test_e_values_are_taken_where_all_have_them() -> None:
    own = [drawn(1e-6, 5e4), drawn(0.01, 150.0), drawn(0.4, 0.3)]
    found = together(own)
    assert found.rule == "e-bh"
    assert found.outcomes == ("MARKED", "MARKED", "NOT_ESTABLISHED"), "150 is 3 / (2 * 0.01)"
    assert together([*own, INVALID]).rule == "e-bh"
    assert together([*own, sequential(3, 1)]).rule == "e-bh"
    assert together([*own, plain(0.5)]).rule == "holm"
    assert together([INVALID]).outcomes == ("INVALID",)
    with pytest.raises(BadConfig, match="no e-value"):
        e_bh([*own, plain(0.5)])


def test_bad_levels_and_nothing_are_refused() -> None:
    for rule in (holm, e_bh):
        for level in (0.0, 0.6):
            with pytest.raises(BadConfig, match="level"):
                rule([drawn(0.5, 1.0)], level=level)
        with pytest.raises(BadConfig, match="no verdict"):
            rule([])


def test_it_travels_as_json_and_a_forged_one_is_refused() -> None:
    found = holm([plain(0.001), plain(0.4), INVALID])
    assert Together.from_json(found.to_json()) == found
    for change in (
        {"outcomes": ["MARKED", "MARKED", "INVALID"]},
        {"values": [1e-9, 0.4, 1.0]},
        {"values": [-1, 0.4, 1.0]},
        {"rule": "e-bh"},
        {"level": 0.9},
        {"outcomes": ["MARKED"]},
        {"adjusted": []},
    ):
        with pytest.raises(BadArtifact):
            Together.from_json(json.dumps(found.to_dict() | change))
    with pytest.raises(BadArtifact):
        replace(found, level=1e-9)
