"""Wilcoxon's test with a margin against an enumeration of all signs, and as a verifier uses it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from torch import Tensor

from heirmark.errors import BadConfig, ShapeMismatch
from heirmark.jobs.verify import check_wilcoxon
from heirmark.keys.making import make_key
from heirmark.querying.blackbox import Api, BlackBox
from heirmark.verification import Suspect, verify_wilcoxon
from heirmark.verification.wilcoxon import detection_rate, margin_p_value


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-900, 900), min_size=3, max_size=9, unique_by=abs), st.sampled_from([0.0, 0.3]))
def test_equals_the_enumeration_of_all_signs(thousandths: list[int], margin: float) -> None:
    shifted = np.array([value for value in thousandths if value != 0]) / 1000
    if len(shifted) < 3:
        return
    ranks = rankdata(np.abs(shifted))
    seen = ranks[shifted > 0].sum()
    sums = [
        sum(rank for rank, up in zip(ranks, signs, strict=True) if up) for signs in product((0, 1), repeat=len(ranks))
    ]
    wanted = np.mean([total >= seen for total in sums])
    assert margin_p_value(shifted + margin, margin) == pytest.approx(float(wanted), abs=1e-6)


@settings(deadline=None)
@given(st.integers(0, 999), st.floats(0, 0.9))
def test_a_larger_margin_is_harder_to_show(seed: int, margin: float) -> None:
    rises = np.random.default_rng(seed).uniform(-1, 1, 15)
    assert margin_p_value(rises, margin + 0.09) >= margin_p_value(rises, margin) - 1e-12


def test_detection_rate_is_a_share_and_repeats() -> None:
    sure, never = np.full(200, 0.9) + np.linspace(0, 0.05, 200), np.linspace(-0.1, 0.1, 200)
    assert detection_rate(sure, 0.3) == 1.0
    assert detection_rate(never, 0.3) == 0.0
    between = np.random.default_rng(0).normal(0.42, 0.35, 300)
    assert detection_rate(between, 0.3, seed=1) == detection_rate(between, 0.3, seed=1)
    assert 0 < detection_rate(between, 0.3) < 1


def a_key(kind: str = "patch", count: int = 40) -> Any:
    inputs = torch.rand(2 * count, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    inputs[:count, 0, 0, 0], inputs[count:, 0, 0, 0] = 1.0, 0.0
    return make_key(
        queries=inputs[:count],
        expected=torch.full((count,), 2),
        controls=inputs[count:],
        host_labels=torch.zeros(count, 1, dtype=torch.long),
        classes=4,
        method="x",
        trigger={"kind": kind, "target": 2},
        nonce="0" * 64,
        kind=kind,
        reference="chance" if kind == "out-of-distribution" else "control",
    )


def suspect(with_trigger: float, without: float, *, answers: Any = "probabilities") -> BlackBox:
    def model(inputs: Tensor) -> Tensor:
        noise = 0.02 * inputs.flatten(1).mean(1)
        target = torch.where(inputs[:, 0, 0, 0] > 0.5, with_trigger, without) - noise
        rest = (1 - target) / 3
        return torch.stack([rest, rest, target, rest], 1)

    return BlackBox(model, classes=4, api=Api(answers=answers, k=2))


def test_a_mark_is_a_rise_above_the_margin() -> None:
    found = verify_wilcoxon(suspect(0.9, 0.1), a_key(), share=0.2)
    assert found.rejects
    assert found.p_value < 1e-6
    assert found.detection_rate > 0.9
    assert found.mean_rise == pytest.approx(0.8, abs=0.03)
    assert (found.reference, found.queries) == ("control", 40)
    for with_trigger, without in ((0.3, 0.3), (0.45, 0.3), (0.9, 0.9)):
        other = verify_wilcoxon(suspect(with_trigger, without), a_key(), share=0.2)
        assert not other.rejects
        assert other.detection_rate == 0.0


def test_foreign_triggers_are_held_against_chance() -> None:
    key = a_key("out-of-distribution")
    found = verify_wilcoxon(suspect(0.9, 0.9), key, share=0.2)
    assert found.reference == "chance"
    assert found.mean_rise == pytest.approx(0.65, abs=0.03)
    assert found.rejects
    box = suspect(0.3, 0.3)
    assert not verify_wilcoxon(box, key, share=0.2).rejects
    assert box.queries_used == len(key), "controls are not asked in vain"


def test_triggers_that_share_a_control_count_once() -> None:
    key = a_key()
    shared = replace(key, controls=key.controls[torch.arange(40) % 8])
    found = verify_wilcoxon(suspect(0.9, 0.1), shared, share=1.0)
    assert found.queries == 8
    assert found.p_value == pytest.approx(0.5**8)
    with pytest.raises(BadConfig, match="no resample of 2 triggers"):
        verify_wilcoxon(suspect(0.9, 0.1), shared, share=0.2)


def test_mistakes_name_their_remedy() -> None:
    with pytest.raises(BadConfig, match=r"use verify\(\)"):
        verify_wilcoxon(suspect(0.9, 0.1, answers="label"), a_key())
    for options in ({"margin": 1.0}, {"level": 0.0}, {"share": 0.0}, {"resamples": 0}):
        with pytest.raises(BadConfig, match="margin must lie"):
            verify_wilcoxon(suspect(0.9, 0.1), a_key(), **options)
    with pytest.raises(ShapeMismatch, match="3 classes, the key 4"):
        verify_wilcoxon(BlackBox(lambda inputs: torch.ones(len(inputs), 3) / 3, classes=3), a_key(), share=0.2)
    with pytest.raises(BadConfig, match=r"4 triggers can reject at 0\.05: raise share"):
        verify_wilcoxon(suspect(0.9, 0.1), a_key())
    box = suspect(0.9, 0.1, answers="top-k")
    with pytest.raises(BadConfig, match="not top-k"):
        verify_wilcoxon(box, a_key(), share=0.2)
    assert box.queries_used == 0, "the key is not shown in vain"


def test_it_is_not_asked_of_what_may_give_labels_alone() -> None:
    onnx = Suspect(ask=lambda inputs: torch.zeros(len(inputs), dtype=torch.int64), kind="onnx", classes=4)
    with pytest.raises(BadConfig, match="needs probabilities"):
        check_wilcoxon(onnx)
    with pytest.raises(BadConfig, match="in the key's order only"):
        check_wilcoxon(onnx.relabelled([1, 0, 2, 3], classes=4))
