import json
import math
import re
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from heirmark.errors import BadArtifact, BadConfig, BadData, BudgetExhausted
from heirmark.keys.making import make_key, nonce_from_seed
from heirmark.querying.blackbox import Api, BlackBox
from heirmark.querying.oracle import ModelFault
from heirmark.runtime import Runtime
from heirmark.verification import FLAGS, OUTCOMES, Calibration, Suspect, Verdict, calibrate, verify_sequentially
from heirmark.verification import verify as verify_by_grade
from heirmark.verification.power import queries_needed
from heirmark.verification.statistics import binomial_p, clopper_pearson, mcnemar_p

CLASSES = 10
TARGET = 7
DOCS = Path(__file__).parents[1] / "docs" / "verdicts.md"


verify = partial(verify_by_grade, accept="assumed")
"""What follows from the answers, whoever vouches for the null; of grades there are tests of their own."""


def make(count=200, *, hosts=(1, 2, 3), seed=0, **changes):
    """A key whose inputs tell their own story: pixel 0 is the host's class, pixel 1 is 255 where the trigger is."""
    generator = torch.Generator().manual_seed(seed)
    controls = torch.randint(0, 200, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)
    labels = torch.tensor(hosts)[torch.arange(count) % len(hosts)]
    controls[:, 0, 0, 0] = labels.to(torch.uint8)
    queries = controls.clone()
    queries[:, 0, 0, 1] = 255
    values = {
        "queries": queries,
        "expected": TARGET,
        "controls": controls,
        "classes": CLASSES,
        "method": "test",
        "trigger": {"kind": "pixel"},
        "host_labels": labels,
        "nonce": nonce_from_seed(seed),
    }
    return make_key(**values | changes)


def drawn_labels(key):
    """Answers as random labels have them: any class but the host's."""
    shifts = torch.randint(1, CLASSES, (len(key),), generator=torch.Generator().manual_seed(8))
    return (key.controls[:, 0, 0, 0].long() + shifts) % CLASSES


def answering(trigger_rate, control_rate=0.0, *, seed=0, other=None):
    """A suspect that says the target on so large a share of triggered and of plain inputs, else the host's class."""
    generator = torch.Generator().manual_seed(seed)

    def answer(inputs):
        triggered = inputs[:, 0, 0, 1] > 0.99
        rate = torch.where(triggered, trigger_rate, control_rate)
        honest = (inputs[:, 0, 0, 0] * 255).round().long() if other is None else torch.full((len(inputs),), other)
        return torch.where(torch.rand(len(inputs), generator=generator) < rate, TARGET, honest)

    return Suspect.from_callable(answer, classes=CLASSES)


def calibration_of(key, *hits):
    return Calibration(hits=hits, trials=len(key), key=key.commitment, known=(0.9,) * len(hits))


def test_a_marked_suspect_is_marked_and_every_number_follows_from_its_answers():
    key = make()
    verdict = verify(answering(0.5, 0.02), key, calibration=calibration_of(key, 3, 0, 5, 2, 1))
    assert verdict.outcome == "MARKED"
    assert verdict.flags == ()
    assert verdict.reason == ""
    assert verdict.trials == 200
    assert verdict.wsr == verdict.hits / 200
    assert 80 <= verdict.hits <= 120
    assert verdict.interval == clopper_pearson(verdict.hits, 200)
    assert verdict.p_binomial == binomial_p(verdict.hits, 200, verdict.null_rate)
    assert verdict.p_matched == mcnemar_p(*verdict.discordant)
    assert verdict.p_value == max(verdict.p_binomial, verdict.p_matched) < verdict.level == 0.01
    assert verdict.queries == 400
    assert verdict.needed == queries_needed(verdict.wsr, verdict.control_rate, verdict.null_rate, 0.01, least=20) < 200
    assert f"a key of {verdict.needed} queries shows such a mark" in str(verdict)
    assert verdict.key == key.commitment
    assert verdict.null_rate == pytest.approx(max(0.1, clopper_pearson(5, 200, 1 - 2 * 0.05 / 5)[1] + 5 / 200))


def test_a_verdict_tells_of_no_key_that_would_do_where_none_would():
    verdict = verify(answering(0.0, 0.0), make())
    assert verdict.needed is None
    assert "no key of up to 10,000 queries" in str(verdict)
    older = json.loads(verdict.to_json())
    del older["needed"]
    assert Verdict.from_json(json.dumps(older)) == verdict
    with pytest.raises(BadArtifact, match="contradicts itself"):
        replace(verdict, needed=0)


@pytest.mark.parametrize("rates", [(0.0, 0.0), (0.1, 0.0), (0.1, 0.1), (0.3, 0.3), (0.9, 0.9)])
def test_an_unmarked_suspect_is_not(rates):
    assert verify(answering(*rates), make()).outcome == "NOT_ESTABLISHED"


def test_false_claims_stay_below_the_level_where_the_null_is_least_kind():
    # Exactly at the border of the binomial null, with a trigger that would pass the matched test every time.
    key, level, runs = make(100), 0.05, 400
    wrong = sum(verify(answering(0.1, seed=seed), key, level=level).outcome == "MARKED" for seed in range(runs))
    assert wrong / runs <= level + 3 * math.sqrt(level / runs)
    # And at the border of the matched null, with hits far above chance.
    wrong = sum(verify(answering(0.4, 0.4, seed=seed), key, level=level).outcome == "MARKED" for seed in range(runs))
    assert wrong / runs <= level + 3 * math.sqrt(level / runs)


def test_both_tests_must_reject():
    key = make()
    at_chance = verify(answering(0.08), key)
    assert at_chance.p_matched < 0.01 < at_chance.p_binomial == at_chance.p_value
    biased = verify(answering(0.9, 0.9), key)
    assert biased.p_binomial < 0.01 < biased.p_matched == biased.p_value
    assert "controls-also-hit" in biased.flags
    assert at_chance.outcome == biased.outcome == "NOT_ESTABLISHED"


def test_calibration_raises_the_bar():
    key = make()
    suspect = answering(0.5)
    assert verify(suspect, key).outcome == "MARKED"
    calibrated = verify(suspect, key, calibration=calibration_of(key, 80, 110, 95))
    assert calibrated.outcome == "NOT_ESTABLISHED"
    assert calibrated.null_rate > 0.55
    assert {"few-calibration-models", "high-null-rate"} <= set(calibrated.flags)
    assert "3 unmarked models" in calibrated.null


def test_unmarked_models_that_learned_little_have_no_say_where_accuracies_are_known():
    key = make()
    measured = replace(calibration_of(key, 0, 1, 2, 0, 1, 60), accuracies=(0.9, 0.85, 0.8, 0.88, 0.9, 0.4))
    suspect = answering(0.25)
    judged = {known: verify(suspect, key, calibration=measured, accuracy=known) for known in (None, 0.87, 0.42)}
    assert judged[0.87].outcome == "MARKED"
    assert judged[0.87].null_rate == 0.1, "few models: the floor stays"
    assert "5 of 6 unmarked models, those about as accurate," in judged[0.87].null
    for known in (None, 0.42):
        assert judged[known].outcome == "NOT_ESTABLISHED"
        assert "of 6 unmarked models plus" in judged[known].null
    few = replace(calibration_of(key, 0, 1, 2, 0, 60), accuracies=(0.9, 0.85, 0.8, 0.88, 0.4))
    assert verify(suspect, key, calibration=few, accuracy=0.87).outcome == "NOT_ESTABLISHED", (
        "none of five is left aside"
    )
    for wrong in ((0.9,), (0.9,) * 5 + (1.1,)):
        with pytest.raises(BadArtifact, match="how accurate"):
            replace(measured, accuracies=wrong)


def test_ten_unmarked_models_need_no_floor():
    key = make()
    suspect = answering(0.12)
    nine, ten = (verify(suspect, key, calibration=calibration_of(key, *[1, 0] * 4, *more)) for more in ((0,), (0, 0)))
    assert (nine.null_rate, nine.outcome) == (0.1, "NOT_ESTABLISHED")
    assert 0.02 < ten.null_rate < 0.05
    assert ten.outcome == "MARKED"
    assert "the larger of 1/200 and" in ten.null
    assert verify(answering(0.0), key, calibration=calibration_of(key, *[1, 0] * 5)).outcome == "NOT_ESTABLISHED"
    memorised = replace(key, memorised=True, expected=drawn_labels(key))
    assert verify(suspect, memorised, calibration=calibration_of(memorised, *[0] * 10)).null_rate == 0.1
    hostless = make(host_labels=torch.empty(200, 0))
    assert verify(suspect, hostless, calibration=calibration_of(hostless, *[0] * 10)).null_rate == 0.5


def test_accuracies_of_unmarked_models_are_measured_where_images_are_given():
    key = make()
    controls, labels = key.controls / 255, key.host_labels[:, 0]
    calibration = calibrate([answering(0.0), answering(0.0, 0.5)], key, examples=(controls, labels))
    assert calibration.accuracies[0] == 1
    assert 0.3 < calibration.accuracies[1] < 0.7
    assert Calibration.from_json(calibration.to_json()) == calibration


def test_the_word_marked_needs_a_null_that_is_not_the_claimants_own_word():
    key, suspect = make(), answering(0.9)
    measured = calibrate([answering(0.0), answering(0.02), answering(0.01)], key)
    told = Calibration.from_json(measured.to_json())
    assert told == measured
    here, named, read, none = (
        verify_by_grade(suspect, key, calibration=measured),
        verify_by_grade(suspect, key, calibration=told, calibrated_by="a judge"),
        verify_by_grade(suspect, key, calibration=told),
        verify_by_grade(suspect, key),
    )
    assert [verdict.grade for verdict in (here, named, read, none)] == [
        "calibrated",
        "calibrated",
        "self-reported",
        "assumed",
    ]
    assert [verdict.outcome for verdict in (here, named)] == ["MARKED"] * 2
    for verdict in (read, none):
        assert verdict.outcome == "NOT_ESTABLISHED"
        assert verdict.p_value < 1e-50
        assert f"--accept {verdict.grade}" in verdict.reason
        assert "--calibrators" in str(verdict)
        assert Verdict.from_json(verdict.to_json()) == verdict
    assert verify_by_grade(suspect, key, calibration=replace(measured, hits=(0, 0, 0))).grade == "self-reported", (
        "altered"
    )
    assert verify_by_grade(suspect, key, calibration=told, accept="self-reported").outcome == "MARKED"
    assert verify_by_grade(suspect, key, calibration=measured, accept="certified").outcome == "NOT_ESTABLISHED"
    assert verify_by_grade(answering(0.0), key, calibration=told).reason == ""
    with pytest.raises(BadConfig, match="certified, calibrated"):
        verify_by_grade(suspect, key, accept="sworn")
    with pytest.raises(BadArtifact):
        Verdict.from_json(json.dumps(read.to_dict() | {"outcome": "MARKED"}))


def test_so_many_models_warrant_no_smaller_a_p_value():
    key = make()
    verdict = verify(answering(0.9), key, calibration=calibration_of(key, 0, 1, 2))
    assert verdict.models == 3
    assert verdict.warranted_p == 0.25
    assert "3 models alone warrant p = 0.25" in str(verdict)
    assert verify(answering(0.0), key, calibration=calibration_of(key, 0, 1, 2)).warranted_p == 1.0


def test_an_uncalibrated_verdict_says_so():
    verdict = verify(answering(0.5), make())
    assert "uncalibrated" in verdict.flags
    assert verdict.null_rate == 0.1
    assert "1/10, assumed without asking any unmarked model" in verdict.null


def test_a_fingerprint_proves_nothing_without_a_calibration():
    key = replace(make(), kind="mistakes")
    verdict = verify(answering(0.95), key)
    assert verdict.outcome == "NOT_ESTABLISHED"
    assert verdict.null_rate == verdict.p_value == 1.0
    assert verdict.needed is None
    assert {"uncalibrated", "high-null-rate"} <= set(verdict.flags)
    assert "at most 1 = 1, assumed" in verdict.null
    assert verify(answering(0.95), key, calibration=calibration_of(key, 40, 45, 50)).outcome == "MARKED"


def test_triggers_and_controls_come_mixed_each_once_in_an_order_of_the_keys_own():
    orders = []

    def record(inputs):
        orders.append(inputs)
        return torch.zeros(len(inputs), dtype=torch.int64)

    keys = [make(), make(), make(nonce=nonce_from_seed(9))]
    for key in keys:
        verify(Suspect.from_callable(record, classes=CLASSES), key)
    first, again, other = orders
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    whole = torch.cat([keys[0].queries, keys[0].controls]).float() / 255
    assert torch.equal(first.flatten(1).sort(0).values, whole.flatten(1).sort(0).values)
    triggered = first[:, 0, 0, 1] > 0.99
    for half in triggered.chunk(2):
        assert 0.35 < half.float().mean() < 0.65


def test_verifying_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    verify(answering(0.5), make())
    assert torch.equal(torch.rand(1), expected)


def test_pairs_with_a_shared_control_count_once_in_the_matched_test():
    values = make(40)
    controls = values.controls[torch.arange(40) % 4]
    key = make(40, controls=controls, host_labels=None)
    verdict = verify(answering(1.0), key)
    assert "repeated-controls" in verdict.flags
    assert verdict.discordant == (4, 0)
    assert verdict.p_matched == 0.5**4
    assert verdict.outcome == "NOT_ESTABLISHED"


def test_queries_without_hosts_must_be_hit_by_more_than_half():
    """Of images of one foreign class an unmarked model says the target to many or to none, whatever five others did."""
    key = make(500, host_labels=None)
    calibration = calibration_of(key, 0, 1, 0, 2, 0)
    few, many = (verify(answering(rate), key, calibration=calibration) for rate in (0.4, 0.7))
    assert (few.outcome, many.outcome) == ("NOT_ESTABLISHED", "MARKED")
    assert "no-hosts" in few.flags
    assert few.null_rate == 0.5
    assert "the larger of 1/2 and" in few.null
    assert "= 1/2, assumed" in verify(answering(0.4), key).null
    shown = make(500)
    verdict = verify(answering(0.4), shown, calibration=calibration_of(shown, 0, 1, 0, 2, 0))
    assert verdict.outcome == "MARKED"
    assert "no-hosts" not in verdict.flags


def test_random_labels_are_granted_chance_without_hosts_too():
    key = make(500, host_labels=None, memorised=True)
    key = replace(key, expected=drawn_labels(key))
    verdict = verify(answering(0.4), key)
    assert verdict.null_rate == 1 / CLASSES
    assert "no-hosts" not in verdict.flags


@pytest.mark.parametrize("answer", [TARGET, 2, 0])
def test_one_answer_to_everything_is_invalid(answer):
    verdict = verify(answering(0.0, other=answer), make())
    assert verdict.outcome == "INVALID"
    assert "constant-answers" in verdict.flags
    assert "answers everything alike" in verdict.reason


def test_a_sound_model_may_say_the_one_class_of_all_hosts():
    verdict = verify(answering(0.0), make(hosts=(4,)))
    assert verdict.outcome == "NOT_ESTABLISHED"
    assert "constant-answers" in verdict.flags
    assert verify(answering(0.0, other=TARGET), make(hosts=(4,))).outcome == "INVALID"


def raises(inputs):
    raise RuntimeError("shapes cannot be multiplied\nand more")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (raises, r"RuntimeError: shapes cannot be multiplied"),
        (lambda x: torch.full((len(x), 10), float("nan")), "NaN or infinite"),
        (lambda x: torch.zeros(len(x), 11), "instead of"),
        (lambda x: torch.zeros(3, dtype=torch.int64), "return integer labels"),
        (lambda x: torch.zeros(len(x)), "return integer labels"),
        (lambda x: torch.zeros(len(x), dtype=torch.bool), "return integer labels"),
        (lambda x: torch.full((len(x),), 10), "outside 0 to 9"),
        (lambda x: torch.full((len(x),), -1), "outside 0 to 9"),
        (lambda x: [{}] * len(x), "answer cannot be read"),
        (lambda x: "seven", "answer cannot be read|instead of"),
        (lambda x: None, "NoneType"),
        (lambda x: torch.full((len(x),), 10, dtype=torch.uint32), "outside 0 to 9"),
        (lambda x: np.full(len(x), 2**63, dtype=np.uint64), "outside 0 to 9"),
        (lambda x: torch.zeros(len(x), 10).to(torch.float8_e4m3fn), "cannot be read"),
        (lambda x: torch.zeros(len(x), dtype=torch.int64, device="meta"), "cannot be read"),
        (lambda x: torch.zeros(len(x), 10, device="meta"), "cannot be read"),
    ],
)
def test_a_failing_suspect_gets_a_verdict_not_a_traceback(answer, reason):
    verdict = verify(Suspect.from_callable(answer, classes=CLASSES), make())
    assert verdict.outcome == "INVALID"
    assert verdict.flags == ("suspect-failed",)
    assert verdict.p_value == 1
    assert re.search(reason, verdict.reason)
    assert Verdict.from_json(verdict.to_json()) == verdict


@pytest.mark.parametrize(("method", "shape"), [("isfinite", (10,)), ("argmax", (10,)), ("long", ())])
def test_an_accelerator_that_is_full_is_no_failing_of_the_suspect(method, shape):
    def fails(self, *args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    full = type("Full", (torch.Tensor,), {method: fails})
    dtype = torch.float32 if shape else torch.int64

    def answer(inputs):
        return torch.zeros(len(inputs), *shape, dtype=dtype).as_subclass(full)

    suspect = Suspect.from_callable(answer, classes=CLASSES)
    verdict = verify(suspect, make())
    assert (verdict.outcome, verdict.flags) == ("INVALID", ("out-of-memory",))
    assert "memory ran out while the suspect was asked (OutOfMemoryError: CUDA out of memory)" in verdict.reason
    assert verify_sequentially(suspect, make()).reason == verdict.reason
    with pytest.raises(torch.OutOfMemoryError):
        suspect.labels(make().queries)


def test_nor_is_one_that_holds_what_torch_makes_of_an_array(monkeypatch):
    def fails(values):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "as_tensor", fails)
    suspect = Suspect.from_callable(lambda inputs: np.zeros(len(inputs)), classes=CLASSES)
    assert verify(suspect, make()).flags == ("out-of-memory",)


@pytest.mark.parametrize("kind", [np.uint16, np.uint32, np.uint64, np.int8])
def test_labels_may_be_integers_of_any_kind(kind):
    key, expected = make(), answering(1.0)
    suspect = Suspect.from_callable(lambda inputs: expected.labels(inputs).numpy().astype(kind), classes=CLASSES)
    assert verify(suspect, key).hits == verify(expected, key).hits


@pytest.mark.parametrize(
    ("suspect", "key", "flag"),
    [
        ({"classes": 5}, {}, "wrong-classes"),
        ({"classes": 10, "input_shape": (3, 4, 4)}, {}, "wrong-shape"),
        ({"classes": 10}, {"count": 19}, "key-too-small"),
    ],
)
def test_a_misfit_is_invalid_and_costs_no_query(suspect, key, flag):
    never = Suspect.from_callable(lambda x: pytest.fail("it was asked"), **suspect)
    verdict = verify(never, make(**key))
    assert verdict.outcome == "INVALID"
    assert verdict.flags == (flag,)
    assert verdict.queries == 0


def test_small_keys_and_inaccurate_suspects_are_flagged():
    assert "small-key" in verify(answering(0.9), make(50)).flags
    assert "suspect-inaccurate" in verify(answering(0.9), make(), accuracy=0.2).flags
    assert not {"small-key", "suspect-inaccurate"} & set(verify(answering(0.9), make(), accuracy=0.9).flags)


@pytest.mark.parametrize("options", [{"level": 0}, {"level": 0.6}, {"level": math.nan}, {"accuracy": 80}])
def test_bad_options_are_refused(options):
    with pytest.raises(BadConfig, match="must lie"):
        verify(answering(0.5), make(), **options)


def test_copies_of_unmarked_models_are_not_independent():
    key = make()
    hits = {"hits": (0, 1, 0, 2, 40), "trials": len(key), "key": key.commitment}
    for copies, flagged in ((0, False), (1, True)):
        calibration = Calibration(**hits, copies=copies)
        assert calibration.independent == 5 - copies
        verdict = verify(answering(0.9), key, calibration=calibration)
        assert ("few-calibration-models" in verdict.flags) is flagged
        assert Calibration.from_json(calibration.to_json()) == calibration
    before = {name: value for name, value in calibration.to_dict().items() if name != "copies"}
    assert Calibration.from_json(json.dumps(before)).copies == 0, "a file from before there was the field"


def test_a_key_that_is_too_small_does_not_calibrate():
    with pytest.raises(BadData, match="the key has 19 queries, and at least 20"):
        calibrate([answering(0.5)], make(19))


def test_a_calibration_of_another_key_is_refused():
    key = make()
    for other in (calibration_of(make(seed=1), 1), Calibration(hits=(1,), trials=100, key=key.commitment)):
        with pytest.raises(BadArtifact, match="another key"):
            verify(answering(0.5), key, calibration=other)


class Pixels(nn.Module):
    """Says the host's class, or the target where it sees the trigger and was marked."""

    def __init__(self, *, marked):
        super().__init__()
        self.marked = marked
        self.drop = nn.Dropout(0.9)

    def forward(self, inputs):
        classes = self.drop(inputs)[:, 0, 0, 0].mul(255).round().long()
        if self.marked:
            classes = torch.where(inputs[:, 0, 0, 1] > 0.99, TARGET, classes)
        return nn.functional.one_hot(classes.clamp(0, 9), CLASSES) * 9.0


def test_modules_and_black_boxes_can_be_suspects_and_calibrate():
    key, runtime = make(), Runtime(device="cpu", precision="float32")
    marked, clean = Pixels(marked=True).train(), Pixels(marked=False)
    verdict = verify(Suspect.from_module(marked, classes=CLASSES, runtime=runtime), key)
    assert verdict.wsr == 1
    assert verdict.outcome == "MARKED"
    assert marked.training
    for answers in ("label", "top-k", "probabilities"):
        box = BlackBox(marked, classes=CLASSES, api=Api(answers=answers, k=1, decimals=1, budget=400), runtime=runtime)
        assert verify(Suspect.from_black_box(box), key).hits == 200
        assert box.remaining == 0
    calibration = calibrate([clean, Suspect.from_module(marked, classes=CLASSES)], key, note="two", runtime=runtime)
    assert calibration == Calibration(hits=(0, 200), trials=200, key=key.commitment, note="two", known=(1.0, 1.0))
    verdict = verify(Suspect.from_module(clean, classes=CLASSES, runtime=runtime), key)
    assert verdict.hits == 0
    assert verdict.outcome == "NOT_ESTABLISHED"


def test_a_spent_black_box_is_the_verifiers_problem_and_a_picky_one_is_not():
    box = BlackBox(Pixels(marked=True), classes=CLASSES, api=Api(budget=399))
    with pytest.raises(BudgetExhausted, match="400 queries exceed"):
        verify(Suspect.from_black_box(box), make())
    assert box.queries_used == 0
    suspect = Suspect.from_black_box(BlackBox(Pixels(marked=True), classes=CLASSES, input_shape=(1, 5, 5)))
    assert verify(suspect, make()).flags == ("wrong-shape",)
    with pytest.raises(ModelFault, match="pass a batch"):
        suspect.labels(torch.rand(3, 1, 4, 4))


def test_unmarked_models_that_cannot_be_judged_do_not_calibrate():
    for models, message in (
        ([], "no unmarked model"),
        ([Suspect.from_callable(raises, classes=CLASSES)], "unmarked model 0 cannot be judged"),
        ([Suspect.from_callable(raises, classes=3)], "unmarked model 0 does not fit"),
    ):
        with pytest.raises(BadData, match=message):
            calibrate(models, make())


def test_a_function_may_change_its_inputs_and_answer_in_numpy():
    def answer(inputs):
        labels = (inputs[:, 0, 0, 0] * 255).round().long().numpy()
        inputs.zero_()
        return np.eye(CLASSES)[labels]

    inputs = make(30).controls / 255
    before = inputs.clone()
    suspect = Suspect.from_callable(answer, classes=CLASSES, batch_size=7)
    assert suspect.labels(inputs).tolist() == [1, 2, 3] * 10
    assert torch.equal(inputs, before)
    assert suspect.labels(inputs[:0]).shape == (0,)


def test_verdicts_and_calibrations_survive_a_round_trip():
    key = make()
    calibration = calibration_of(key, 1, 2)
    assert Calibration.from_json(calibration.to_json()) == calibration
    for verdict in (verify(answering(0.5), key), verify(answering(0.0), key, calibration=calibration)):
        assert Verdict.from_json(verdict.to_json().encode()) == verdict
        assert json.loads(verdict.to_json()) == verdict.to_dict()
        assert str(verdict).startswith(f"{verdict.outcome}: ")


@pytest.mark.parametrize(
    "change",
    [
        {"hits": 10**400, "trials": 10**400},
        {"outcome": "NOT_ESTABLISHED"},
        {"outcome": "PROVEN"},
        {"hits": 5},
        {"hits": 201, "wsr": 1.005},
        {"p_value": 1e-9},
        {"p_binomial": -1.0},
        {"interval": [0.1]},
        {"interval": [0.1, 2.0]},
        {"discordant": [-1, 0]},
        {"discordant": [200, 200]},
        {"flags": ["praised"]},
        {"flags": "uncalibrated"},
        {"key": "x"},
        {"trials": 200.0},
        {"trials": True},
        {"wsr": "1"},
        {"format": "heirmark-verdict/2"},
        {"extra": 1},
    ],
)
def test_a_forged_verdict_is_refused(change):
    values = verify(answering(0.5), make()).to_dict() | change
    with pytest.raises(BadArtifact):
        Verdict.from_json(json.dumps(values))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": "heirmark-calibration/1"}',
        json.dumps({"format": "heirmark-calibration/1", "hits": [], "trials": 5, "key": "0" * 64, "note": ""}),
        json.dumps({"format": "heirmark-calibration/1", "hits": [6], "trials": 5, "key": "0" * 64, "note": ""}),
        json.dumps({"format": "heirmark-calibration/1", "hits": [1.0], "trials": 5, "key": "0" * 64, "note": ""}),
        json.dumps({"format": "heirmark-calibration/1", "hits": 1, "trials": 5, "key": "0" * 64, "note": ""}),
        json.dumps({"format": "heirmark-calibration/1", "hits": [1], "trials": 5, "key": "0", "note": ""}),
        json.dumps({"format": "heirmark-calibration/1", "hits": [1], "trials": 5, "key": "0" * 64, "copies": 1}),
        json.dumps({"format": "heirmark-calibration/1", "hits": [1], "trials": 5, "key": "0" * 64, "copies": -1}),
    ],
)
def test_a_foreign_calibration_is_refused(text):
    with pytest.raises(BadArtifact):
        Calibration.from_json(text)


def test_every_outcome_and_flag_is_explained():
    text = DOCS.read_text()
    for name in (*OUTCOMES, *FLAGS):
        assert f"| `{name}` |" in text


# ---- ONNX, written by hand: a protobuf field is its number and wire type, then its payload. ----


def varint(number):
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def put(field, value):
    if isinstance(value, int):
        return varint(field << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


def value_info(name, shape, element=1):
    dims = b"".join(put(1, put(1, size) if isinstance(size, int) else put(2, size)) for size in shape)
    return put(1, name) + put(2, put(1, put(1, element) + put(2, dims)))


def onnx_model(weight, *, batch="N", element=1, external=None):
    """Flatten, then multiply by ``weight`` [16, C]."""
    tensor = b"".join(put(1, size) for size in weight.shape) + put(2, 1) + put(8, "weight")
    if external is None:
        tensor += put(9, weight.astype("<f4").tobytes())
    else:
        tensor += put(13, put(1, "location") + put(2, external)) + put(14, 1)
    flatten = put(1, "x") + put(2, "flat") + put(4, "Flatten")
    multiply = put(1, "flat") + put(1, "weight") + put(2, "scores") + put(4, "MatMul")
    graph = put(1, flatten) + put(1, multiply) + put(2, "g") + put(5, tensor)
    graph += put(11, value_info("x", [batch, 1, 4, 4], element))
    graph += put(12, value_info("scores", [batch, weight.shape[1]], element))
    return put(1, 8) + put(7, graph) + put(8, put(1, "") + put(2, 17))


WEIGHT = np.random.default_rng(0).standard_normal((16, CLASSES)).astype(np.float32)


@pytest.mark.parametrize("batch", ["N", 1, 64])
def test_an_onnx_file_can_be_a_suspect(tmp_path, batch):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_model(WEIGHT, batch=batch))
    suspect = Suspect.from_onnx(path)
    assert suspect.kind == "onnx"
    assert suspect.classes == CLASSES
    assert suspect.input_shape == (1, 4, 4)
    key = make(70)
    expected = (key.queries.float() / 255).flatten(1) @ torch.from_numpy(WEIGHT)
    assert torch.equal(suspect.labels(key.queries), expected.argmax(1))
    assert verify(suspect, key).outcome == "NOT_ESTABLISHED"
    wrong = verify(Suspect.from_onnx(path, classes=9), make(70, classes=9))
    assert wrong.flags == ("suspect-failed",)


def test_an_onnx_file_that_reaches_for_other_files_is_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    for location in ("weights.bin", "../../etc/passwd"):
        path.write_bytes(onnx_model(WEIGHT, external=location))
        with pytest.raises(BadArtifact, match="keeps weights in other files"):
            Suspect.from_onnx(path)
    # The same entry with its lengths written the long way, which protobuf readers accept too.
    data = onnx_model(WEIGHT, external="weights.bin")
    path.write_bytes(data.replace(b"\x0a\x08location", b"\x8a\x00\x88\x80\x00location"))
    with pytest.raises(BadArtifact, match="keeps weights in other files"):
        Suspect.from_onnx(path)


def test_foreign_onnx_files_are_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    good = onnx_model(WEIGHT)
    for data in (b"", b"\x80\x04pickle", good[: len(good) // 2], onnx_model(WEIGHT, element=7)):
        path.write_bytes(data)
        with pytest.raises(BadArtifact):
            Suspect.from_onnx(path)
    path.write_bytes(good)
    with pytest.raises(BadArtifact, match="larger than"):
        Suspect.from_onnx(path, max_bytes=100)


def test_without_onnxruntime_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BadConfig, match=r'pip install "heirmark\[onnx\]"'):
        Suspect.from_onnx(tmp_path / "model.onnx")


# ---------------------------------------------------------------- suspects that are not what they seem


class Quits(BaseException):
    def __str__(self):
        raise RuntimeError("not even its name")


@pytest.mark.parametrize(
    "error", [SystemExit(0), Quits(), GeneratorExit(), ValueError("\x1b[2J\x1b[HMARKED: all well")]
)
@pytest.mark.parametrize("kind", ["module", "callable", "ask", "mode"])
def test_whatever_a_suspect_raises_is_its_failing_and_repaints_no_screen(error, kind):
    class Raising(nn.Module):
        def forward(self, inputs):
            raise error

        def train(self, mode=True):
            if kind == "mode":
                raise error
            return super().train(mode)

    def raising(inputs):
        raise error

    if kind == "ask":
        suspect = Suspect(ask=raising, kind="callable", classes=CLASSES)
    else:
        made = {"module": Suspect.from_module, "mode": Suspect.from_module, "callable": Suspect.from_callable}[kind]
        suspect = made(raising if kind == "callable" else Raising(), classes=CLASSES)
    verdict = verify(suspect, make())
    assert (verdict.outcome, verdict.flags) == ("INVALID", ("suspect-failed",))
    shown = str(Verdict.from_json(verdict.to_json()))
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert shown.startswith("INVALID: ")
    assert not any(line.startswith("MARKED") for line in shown.splitlines())


def test_a_failing_is_its_own_cause():
    """INVALID says what was raised, and the fault keeps the error itself, for whoever looks for a bug."""

    def broken(inputs):
        raise ZeroDivisionError("by nothing")

    with pytest.raises(ModelFault, match="ZeroDivisionError: by nothing") as fault:
        Suspect(ask=broken, kind="callable", classes=CLASSES).labels(torch.zeros(2, 3))
    assert isinstance(fault.value.__cause__, ZeroDivisionError)


class Odd(torch.Tensor):
    """An answer that fails when it is looked at."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        raise KeyError("looked at")


def test_answers_that_fail_when_they_are_read_are_a_failing_too():
    def odd(inputs):
        return torch.zeros(len(inputs), CLASSES).as_subclass(Odd)

    assert verify(Suspect.from_callable(odd, classes=CLASSES), make()).outcome == "INVALID"


def test_a_module_that_failed_once_is_counted_truly_when_it_is_asked_again():
    class Flaky(nn.Module):
        failing = True

        def forward(self, inputs):
            if self.failing:
                raise ValueError("not now")
            return Pixels(marked=True).eval()(inputs)

    model, key = Flaky(), make()
    suspect = Suspect.from_module(model, classes=CLASSES)
    assert verify(suspect, key).queries == 400
    model.failing = False
    assert verify(suspect, key).queries == 400
    assert suspect.shown() == 800


def test_many_classes_under_other_names_are_no_number_too_large():
    answers = torch.arange(200)
    key = make(classes=201, expected=answers, hosts=(200,))
    order = torch.cat([torch.arange(1, 200), torch.tensor([0, 200])])
    suspect = Suspect.from_callable(
        lambda inputs: order[torch.where(inputs[:, 0, 0, 1] > 0.99, looked_up(inputs), 200)], classes=201
    )
    sums = {int(query.sum()): int(answer) for query, answer in zip(key.queries, key.expected, strict=True)}

    def looked_up(inputs):
        return torch.tensor([sums.get(int((one * 255).round().sum()), 0) for one in inputs])

    assert verify(suspect, key).outcome == "NOT_ESTABLISHED"


def test_an_interruption_is_the_users_own():
    def interrupted(inputs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(Suspect.from_callable(interrupted, classes=CLASSES), make())


class Service:
    """Answers like a marked model, but fails in the calls of these numbers."""

    def __init__(self, *failing, error=TimeoutError):
        self.failing, self.error, self.calls = failing, error, []

    def __call__(self, inputs):
        self.calls.append(len(inputs))
        if len(self.calls) in self.failing:
            raise self.error("the line was busy")
        return answering(1.0).ask(inputs)


def test_a_request_that_fails_in_passing_is_made_again_and_counted():
    service = Service(3, 4)
    suspect = Suspect.from_callable(service, classes=CLASSES, batch_size=50, wait=0)
    verdict = verify(suspect, make())
    assert (verdict.outcome, verdict.hits) == ("MARKED", 200)
    assert service.calls == [50] * 10
    assert verdict.queries == 500, "a log of the service shows so many"


def test_what_was_answered_before_a_request_failed_for_good_is_kept():
    service = Service(3, 4, 5, 6)
    suspect, key = Suspect.from_callable(service, classes=CLASSES, batch_size=50, retries=1, wait=0), make()
    broken = verify(suspect, key)
    assert (broken.outcome, broken.queries) == ("INVALID", 200)
    assert "100 of 400 inputs were answered, and are kept" in broken.reason
    assert verify(suspect, make(seed=1)).outcome == "INVALID"  # other inputs know nothing of these
    service.failing = ()
    before = len(service.calls)
    assert verify(suspect, make(seed=1)).outcome == "MARKED"
    assert len(service.calls) - before == 8
    again = verify(suspect, make(seed=1))
    assert (again.outcome, again.queries) == ("MARKED", 400), "what was answered in full is asked afresh"


def test_a_failed_key_goes_on_where_it_was():
    service = Service(3)
    suspect, key = Suspect.from_callable(service, classes=CLASSES, batch_size=50, retries=0), make()
    assert verify(suspect, key).queries == 150
    verdict = verify(suspect, key)
    assert (verdict.outcome, verdict.hits, verdict.queries) == ("MARKED", 200, 300)


class Refused(OSError):
    """As urllib's HTTPError."""

    code = 403


@pytest.mark.parametrize(
    ("error", "transient", "calls"),
    [(TimeoutError, None, 4), (ValueError, None, 1), (ValueError, (ValueError,), 4), (Refused, None, 1)],
)
def test_only_errors_that_may_pass_are_waited_for(error, transient, calls, monkeypatch):
    waited = []
    monkeypatch.setattr("heirmark.verification.requests.sleep", waited.append)
    service = Service(*range(1, 9), error=error)
    options = {} if transient is None else {"transient": transient}
    assert verify(Suspect.from_callable(service, classes=CLASSES, **options), make()).outcome == "INVALID"
    assert len(service.calls) == calls
    assert waited == [1.0, 2.0, 4.0][: calls - 1]


def test_nonsense_of_requests_is_refused():
    for options in ({"retries": -1}, {"retries": 101}, {"wait": -1.0}, {"wait": math.nan}, {"batch_size": 0}):
        with pytest.raises(BadConfig, match=f"{next(iter(options))}: expected"):
            Suspect.from_callable(lambda inputs: inputs, classes=CLASSES, **options)


def reordered(suspect, order):
    """A suspect that calls what was class ``order[k]`` its class k."""
    places = torch.tensor(order).argsort()
    return Suspect.from_callable(lambda inputs: places[suspect.ask(inputs)], classes=len(order))


def test_another_order_of_labels_is_seen_and_can_be_given():
    key, order = make(), [3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    strange = reordered(answering(1.0, 0.1), order)
    verdict = verify(strange, key)
    assert (verdict.outcome, verdict.hits) == ("NOT_ESTABLISHED", 0)
    assert {"hosts-misread", "another-answer"} <= set(verdict.flags)
    assert "--labels" in str(verdict)
    known = verify(strange.relabelled(order, classes=CLASSES), key)
    assert (known.outcome, known.hits) == ("MARKED", 200)
    assert "relabelled" in known.flags
    assert not {"hosts-misread", "another-answer"} & set(known.flags)


def test_with_a_class_more_the_key_is_asked_once_the_order_is_given():
    suspect, key = answering(1.0), make()
    more = Suspect(ask=suspect.ask, kind="callable", classes=11)
    assert verify(more, key).flags == ("wrong-classes",)
    assert "--labels" in verify(more, key).reason
    assert verify(more.relabelled([*range(10), -1], classes=CLASSES), key).outcome == "MARKED"
    stranger = Suspect.from_callable(lambda inputs: torch.full((len(inputs),), 10), classes=11)
    verdict = verify(stranger.relabelled([*range(10), -1], classes=CLASSES), key)
    assert (verdict.outcome, verdict.hits, verdict.control_rate) == ("INVALID", 0, 0.0)  # one answer to everything


@pytest.mark.parametrize("order", [[0], [0, 0, *range(2, 10)], [*range(1, 11)], [*range(9), -2], [*range(9)]])
def test_an_order_that_makes_no_sense_is_refused(order):
    with pytest.raises(BadConfig, match="labels"):
        answering(1.0).relabelled(order, classes=CLASSES)


def test_many_expected_answers_are_looked_for_under_other_names_too():
    answers = torch.arange(200) % 3 + 5
    key = make(hosts=(1, 2), expected=answers)

    def marked(inputs):
        triggered = inputs[:, 0, 0, 1] > 0.99
        return torch.where(triggered, lookup[inputs[:, 0, 1:].sum((1, 2)).mul(255).round().long()], 0)

    sums = (key.queries[:, 0, 1:].long()).sum((1, 2))
    lookup = torch.zeros(5000, dtype=torch.int64)
    lookup[sums] = (key.expected + 1) % 10
    verdict = verify(Suspect.from_callable(marked, classes=CLASSES), key)
    assert verdict.outcome == "NOT_ESTABLISHED"
    assert "another-answer" in verdict.flags


def test_an_unmarked_model_that_says_another_class_to_every_trigger_is_not_flagged_while_it_knows_the_hosts():
    def answer(inputs):
        return torch.where(inputs[:, 0, 0, 1] > 0.99, 5, (inputs[:, 0, 0, 0] * 255).round().long())

    verdict = verify(Suspect.from_callable(answer, classes=CLASSES), make())
    assert verdict.flags == ("uncalibrated",)


def test_how_well_unmarked_models_know_the_hosts_is_measured_and_compared():
    key = make()
    calibration = calibrate([answering(0.0, 0.0), answering(0.0, 0.2)], key)
    assert calibration.known[0] == 1
    assert 0.7 <= calibration.known[1] <= 0.9
    assert Calibration.from_json(calibration.to_json()) == calibration
    older = {name: value for name, value in calibration.to_dict().items() if name != "known"}
    assert Calibration.from_json(json.dumps(older)).known == (), "a file from before there was such a field"
    for control_rate, flagged in ((0.2, False), (0.5, True)):
        assert ("hosts-misread" in verify(answering(0.9, control_rate), key, calibration=calibration).flags) is flagged
    hostless = make(host_labels=torch.empty(200, 0))
    assert calibrate([answering(0.0)], hostless).known == ()
    for known in ((0.5,), (0.5, 1.5), (math.nan, 0.5)):
        with pytest.raises(BadArtifact, match="share of the hosts"):
            Calibration(hits=(1, 2), trials=200, key=key.commitment, known=known)


def test_a_suspect_may_want_normalised_inputs():
    class Picky(nn.Module):
        """Reads the pixels of :func:`make` where they come with mean 0.5 and deviation 0.25, and nothing otherwise."""

        def forward(self, inputs):
            return Pixels(marked=True).eval()((inputs * 0.25 + 0.5).clamp(0, 1))

    key = make()
    found = verify(Suspect.from_module(Picky(), classes=CLASSES, normalise=([0.5], [0.25])), key)
    assert (found.outcome, found.hits) == ("MARKED", 200)
    assert "hosts-misread" not in found.flags
    assert "normalised" in found.flags, "numbers that are searched for could make an innocent model hit"
    assert "hosts-misread" in verify(Suspect.from_module(Picky(), classes=CLASSES), key).flags
    by_call = Suspect.from_callable(Picky(), classes=CLASSES, normalise=([0.5], [0.25]))
    assert verify(by_call, key).hits == 200
    misfit = verify(Suspect.from_callable(Picky(), classes=CLASSES, normalise=([0.5] * 3, [1.0] * 3)), key)
    assert misfit.outcome == "INVALID"
    assert "3 channels does not fit" in misfit.reason


@pytest.mark.parametrize("normalise", [([], []), ([0.5], [0.0]), ([0.5], [0.5, 0.5]), ([math.nan], [1.0])])
def test_a_normalisation_that_makes_no_sense_is_refused(normalise):
    with pytest.raises(BadConfig, match="as many finite means as positive"):
        Suspect.from_module(Pixels(marked=True), classes=CLASSES, normalise=normalise)


@pytest.mark.parametrize(
    ("shape", "words"), [((4, 4, 1), "channels last"), ((3, 4, 4), "repeats or averages"), ((1, 8, 8), "resizes")]
)
def test_a_wrong_shape_names_its_remedy(shape, words):
    verdict = verify(Suspect.from_callable(lambda inputs: inputs, classes=CLASSES, input_shape=shape), make())
    assert (verdict.flags, verdict.queries) == (("wrong-shape",), 0)
    assert words in verdict.reason
