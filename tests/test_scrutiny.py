"""Keys and calibrators as dishonest owners choose them; and that honest ones raise nothing."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import heirmark as hm
from heirmark.keys.making import make_key, nonce_from_seed
from heirmark.querying.asking import predict
from heirmark.tasks.task import Split
from heirmark.triggers import (
    AbstractImages,
    AutoencoderBlend,
    Entangled,
    Feature,
    GaussianNoise,
    Groups,
    Mistakes,
    Mix,
    OutOfDistribution,
    Patch,
    PixelBlend,
    RandomLabels,
    Stripes,
    TextStamp,
    Tiles,
)
from heirmark.verification import Calibration, Suspect, calibrate, verify, verify_sequentially
from heirmark.verification.calibrating import share_known, tells_nothing_apart
from heirmark.verification.kinship import share_akin
from heirmark.verification.scrutiny import doubts_of, log_e_of_pattern, near_repeats, told_apart

CLASSES, TARGET = 10, 7
TRIGGERS = {
    "tiles": Tiles(sources=(0, 3, 5, 8), target=1),
    "mix": Mix(),
    "blended": Mix(combiner=PixelBlend()),
    "striped": Mix(combiner=Stripes()),
    "autoencoded": Mix(combiner=AutoencoderBlend()),
    "patch": Patch(),
    "any-host": Patch(hosts="any"),
    "text": TextStamp(),
    "noise": GaussianNoise(),
    "feature": Feature(steps=5),
    "entangled": Entangled(of=Patch()),
    "mistakes": Mistakes(),
    "random-labels": RandomLabels(),
    "random-labels-on-text": RandomLabels(of=TextStamp()),
    "random-labels-on-abstract": RandomLabels(of=AbstractImages()),
}
HOSTLESS = {
    "abstract": AbstractImages(),
    "groups": Groups(count=8, samples=10),
    "out-of-distribution": OutOfDistribution(source=1),
}


@pytest.fixture(scope="module")
def zoo():
    return hm.load_zoo()


@pytest.fixture(scope="module")
def task():
    found = hm.load_task("fashion-mini", seed=0)
    shown = found.test.inputs[:300].flip(2)
    return replace(found, foreign=Split(inputs=shown, labels=torch.arange(300) % 3))


def key_of(trigger, task, model, count=120):
    secret = trigger.settle(task, model, seed=3, runtime=hm.Runtime(device="cpu", precision="float32"))
    drawn = secret.draw(task.test, count, seed=5)
    return make_key(
        queries=drawn.inputs,
        expected=drawn.targets,
        controls=drawn.controls,
        classes=CLASSES,
        method="test",
        trigger={},
        host_labels=drawn.host_labels,
        kind=secret.kind,
        memorised=secret.memorised,
        nonce=nonce_from_seed(0),
    )


def make(count=200, *, hosts=(1, 2, 3), **changes):
    """Pixel 0 is the host's class, pixel 1 is 255 where the trigger is."""
    controls = torch.randint(0, 200, (count, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.tensor(hosts)[torch.arange(count) % len(hosts)]
    controls[:, 0, 0, 0] = labels.to(torch.uint8)
    queries = controls.clone()
    queries[:, 0, 0, 1] = 255
    said = {"queries": queries, "expected": TARGET, "controls": controls, "host_labels": labels}
    return make_key(
        **said | changes, classes=CLASSES, method="test", trigger={}, kind="pixel", nonce=nonce_from_seed(0)
    )


def knowing(share, *, hits=0.0, seed=0, otherwise=0):
    """Gives a share of hosts their class, and a share of triggers the target."""
    generator = torch.Generator().manual_seed(seed)

    def answer(inputs):
        triggered = inputs[:, 0, 0, 1] > 0.99
        honest = (inputs[:, 0, 0, 0] * 255).round().long()
        honest = torch.where(torch.rand(len(inputs), generator=generator) < share, honest, otherwise)
        return torch.where(triggered & (torch.rand(len(inputs), generator=generator) < hits), TARGET, honest)

    return Suspect.from_callable(answer, classes=CLASSES)


# ---------------------------------------------------------------- honest keys


SLOW = ("autoencoded", "entangled")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in TRIGGERS]
)
def test_honest_keys_raise_no_doubt(name, task, zoo):
    key = key_of(TRIGGERS[name], task, zoo.marked.model)
    assert doubts_of(key) == frozenset()
    assert told_apart(key) is key


@pytest.mark.parametrize("name", HOSTLESS)
def test_honest_keys_without_hosts_are_just_that(name, task, zoo):
    key = key_of(HOSTLESS[name], task, zoo.marked.model)
    assert doubts_of(key) == {"no-hosts"}
    assert told_apart(key) is key


def test_the_key_of_the_zoo_and_its_models_raise_no_new_flag(zoo):
    calibration = calibrate([Suspect.from_net(zoo.innocents[name], runtime=hm.Runtime(device="cpu")) for name in
                             list(zoo.innocents)[:6]], zoo.key)  # fmt: skip
    assert calibration.families == ("naivenet", "vgg-like", "resnet") * 2
    assert calibration.copies == 0
    assert not calibration.one_family
    verdict = verify(Suspect.from_module(zoo.marked.model, classes=CLASSES), zoo.key, calibration=calibration)
    assert verdict.outcome == "MARKED"
    assert not {"ignorant-calibrators", "untested-calibrators", "one-family", "foreign-controls"} & set(verdict.flags)


# ---------------------------------------------------------------- dishonest keys


def photographs(task, count=150):
    """Photographs of one class as triggers, others as their hosts."""
    images = task.test
    shown, others = (torch.nonzero(images.labels == label).flatten()[:count] for label in (5, 8))
    return make_key(
        queries=images.inputs[shown],
        expected=5,
        controls=images.inputs[others],
        host_labels=8,
        classes=CLASSES,
        method="test",
        trigger={},
        nonce=nonce_from_seed(0),
    )


def test_photographs_of_a_class_and_of_another_are_no_triggers_and_hosts(task, zoo):
    key = photographs(task)
    assert doubts_of(key) == {"foreign-controls"}
    suspect = Suspect.from_module(zoo.innocents["innocent-1"].model, classes=CLASSES)
    verdict = verify(suspect, key, accept="assumed")
    assert verdict.wsr > 0.9
    assert (verdict.null_rate, verdict.outcome) == (1.0, "NOT_ESTABLISHED")
    assert "foreign-controls" in verdict.flags
    by_hand = Calibration(hits=(0, 0, 1, 0, 0), trials=len(key), key=key.commitment)
    verdict = verify(suspect, key, calibration=by_hand, accept="self-reported")
    assert verdict.null_rate == 0.5
    assert "1/2 (foreign-controls)" in verdict.null
    assert {"foreign-controls", "untested-calibrators"} <= set(verdict.flags)
    assert verify_sequentially(suspect, key, accept="assumed").outcome == "NOT_ESTABLISHED"


def test_common_errors_with_foreign_hosts_are_no_triggers(task, zoo):
    said = predict(zoo.innocents["innocent-1"].model, task.test.inputs).argmax(1)
    wrong = torch.nonzero(said != task.test.labels).flatten()[:60]
    noise = torch.randint(-3, 4, (240, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    others = torch.nonzero(said == task.test.labels).flatten()[:240]
    key = make_key(
        queries=(task.test.inputs[wrong.repeat(4)].int() + noise).clamp(0, 255).to(torch.uint8),
        expected=said[wrong.repeat(4)],
        controls=task.test.inputs[others],
        host_labels=task.test.labels[wrong.repeat(4)],
        classes=CLASSES,
        method="test",
        trigger={},
        nonce=nonce_from_seed(0),
    )
    assert len(told_apart(key)) == 60
    suspect = Suspect.from_module(zoo.innocents["innocent-1"].model, classes=CLASSES)
    verdict = verify(suspect, key, accept="assumed")
    assert (verdict.trials, verdict.outcome) == (60, "NOT_ESTABLISHED")
    assert {"near-repeats", "foreign-controls"} <= set(verdict.flags)
    calibration = calibrate([zoo.innocents["innocent-2"].model], key)
    assert (calibration.trials, calibration.key) == (60, key.commitment)
    assert "disputed-hosts" in verify(suspect, key, calibration=calibration).flags
    assert verify_sequentially(suspect, key, calibration=calibration).trials <= 60


def test_one_picture_with_noise_is_one_trial():
    noise = torch.randint(-3, 4, (300, 1, 4, 4), generator=torch.Generator().manual_seed(1))
    queries = (make(1).queries.int() + noise).clamp(0, 255).to(torch.uint8)
    queries[:, 0, 0, :2] = torch.tensor([1, 255])
    key = make(300, queries=queries)
    verdict = verify(knowing(1, hits=1), key, accept="assumed")
    assert (verdict.outcome, verdict.flags) == ("INVALID", ("key-too-small", "near-repeats"))
    with pytest.raises(hm.errors.BadData, match="the key has"):
        calibrate([knowing(1)], key)


@given(st.integers(2, 30), st.integers(0, 2**20), st.sampled_from([0.0, 0.01, 0.2]))
def test_near_repeats_are_found_as_plain_loops_find_them(count, seed, noise):
    generator = torch.Generator().manual_seed(seed)
    base = torch.rand(5, 3, 4, generator=generator)[torch.randint(5, (count,), generator=generator)]
    inputs = base + noise * torch.rand(count, 3, 4, generator=generator)
    slow = [
        any(
            float((inputs[row] - inputs[other]).square().mean().sqrt()) < 0.1 * float(inputs[row].std())
            for other in range(row)
        )
        for row in range(count)
    ]
    # Within rounding of the bound either is right; the noises lie far from it.
    assert near_repeats(inputs).tolist() == slow


def test_near_repeats_in_large_keys_are_found_where_means_are_near():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(2500, 1, 4, 4, generator=generator)
    inputs[1500:] = inputs[:1000] + 0.004 * torch.rand(1000, 1, 4, 4, generator=generator)
    found = near_repeats(inputs)
    assert not found[:1500].any()
    assert found[1500:].float().mean() > 0.95


def test_hosts_of_no_class_are_none():
    labels = torch.arange(200) % 3 + 1
    labels[::4] = -1
    for hosts in (-1, labels):
        key = make(host_labels=hosts)
        assert doubts_of(key) == {"no-hosts"}
        verdict = verify(knowing(1, hits=0.45), key, accept="assumed")
        assert (verdict.null_rate, verdict.outcome) == (0.5, "NOT_ESTABLISHED")
        assert "no-hosts" in verdict.flags


def test_labels_that_are_said_to_be_drawn_have_to_look_so():
    """All alike, of few classes, and by the host's class."""
    hosts = torch.arange(200) % 3 + 1
    for expected in (TARGET, torch.tensor([5, 7])[torch.arange(200) // 7 % 2], (hosts + 4) % CLASSES):
        key = replace(make(expected=expected), memorised=True)
        assert "chosen-labels" in doubts_of(key)
        key = replace(make(expected=expected, host_labels=None), memorised=True)
        if expected is TARGET:
            verdict = verify(knowing(1, hits=0.45), key, accept="assumed")
            assert verdict.null_rate == 0.5
            assert {"chosen-labels", "no-hosts"} <= set(verdict.flags)


def test_drawn_labels_are_doubted_less_often_than_said():
    """The mean of the e-value is at most 1 for any number of queries, classes and hosts."""
    for count, classes, hosted in ((20, 3, True), (40, 10, False), (30, 100, True)):
        values = []
        for seed in range(200):
            generator = torch.Generator().manual_seed(seed)
            hosts = torch.randint(classes, (count,), generator=generator)
            labels = torch.randint(classes, (count,), generator=generator)
            if hosted:
                labels = (hosts + torch.randint(1, classes, (count,), generator=generator)) % classes
            key = make_key(
                queries=torch.rand(count, 1, 4, 4, generator=generator),
                controls=torch.rand(count, 1, 4, 4, generator=generator),
                expected=labels,
                host_labels=hosts if hosted else None,
                classes=classes,
                method="test",
                trigger={},
                memorised=True,
                nonce=nonce_from_seed(0),
            )
            values.append(log_e_of_pattern(key))
        assert torch.tensor(values).double().exp().mean() < 1.5
        assert max(values) < 6


def test_pictures_of_other_shapes_and_equal_controls_are_not_compared():
    assert share_akin(torch.rand(30, 8), torch.rand(30, 8), torch.zeros(30, 1)) == (1.0, 0)
    assert share_akin(torch.rand(30, 1, 8, 8), torch.ones(30, 1, 8, 8), torch.zeros(30, 1)) == (1.0, 0)


# ---------------------------------------------------------------- calibrators


def test_models_that_know_far_less_than_the_suspect_have_no_say():
    key = make()
    calibration = calibrate([knowing(0.3, seed=seed) for seed in range(10)], key)
    suspect = knowing(0.95, hits=0.9)
    verdict = verify(suspect, key, calibration=calibration)
    assert (verdict.outcome, verdict.grade, verdict.models) == ("NOT_ESTABLISHED", "assumed", 0)
    assert "none has a say" in verdict.reason
    assert {"ignorant-calibrators", "disputed-hosts"} <= set(verdict.flags)
    found = verify_sequentially(knowing(0.95, hits=0.9), key, calibration=calibration)
    assert (found.outcome, found.grade) == ("NOT_ESTABLISHED", "assumed")
    assert "none has a say" in found.reason
    # With five good ones the others are left aside, and with fewer they raise the rate at most.
    good = [knowing(0.95, seed=seed) for seed in range(5)]
    wild = [knowing(0.3, hits=1.0, seed=9)]
    verdict = verify(suspect, key, calibration=calibrate([*good, *wild], key))
    assert (verdict.outcome, verdict.models, "ignorant-calibrators" in verdict.flags) == ("MARKED", 5, True)
    verdict = verify(suspect, key, calibration=calibrate([*good[:4], *wild], key))
    assert (verdict.outcome, verdict.null_rate, verdict.models) == ("NOT_ESTABLISHED", 1.0, 4)


def test_ten_models_spare_the_floor_only_if_they_know_something():
    key = make()
    weak = calibrate([knowing(0.55, seed=seed) for seed in range(10)], key)
    assert verify(knowing(0.95), key, calibration=weak).null_rate == 1 / CLASSES
    assert verify(knowing(0.6), key, calibration=weak).null_rate < 0.05


def test_a_model_that_answers_all_hosts_alike_knows_none():
    """Of composites any class of theirs would do, and a constant one would know all hosts."""
    key = make(host_labels=torch.tensor([[1, 2, 3]]).repeat(200, 1))
    constant = Suspect.from_callable(lambda inputs: torch.full((len(inputs),), 2), classes=CLASSES)
    calibration = calibrate([constant, knowing(0.95)], key)
    assert calibration.known[0] == 0
    assert calibration.known[1] > 0.9
    assert not tells_nothing_apart(torch.full((200,), 3), make(hosts=(3,)))
    assert not tells_nothing_apart(torch.full((200,), 3), make(host_labels=None))


def test_an_answer_that_has_no_name_is_no_host():
    """Rows with fewer hosts are filled up with -1, and so are the classes of a suspect that mean none of the key's."""
    key = make(host_labels=torch.tensor([[1, -1], [2, 3]]).repeat(100, 1))
    nameless = torch.full((200,), -1)
    assert share_known(nameless, key) == 0
    assert share_known(torch.tensor([1, 3]).repeat(100), key) == 1
    assert share_known(nameless, key, torch.tensor([], dtype=torch.int64)) is None
    unnamed = [replace(knowing(0.0, seed=seed), order=(-1,) * CLASSES) for seed in range(2)]
    assert calibrate(unnamed, key).known == (0.0, 0.0)
    assert calibrate(unnamed, key).copies == 1  # both get all hosts wrong, and in the same way


def test_one_model_under_two_names_is_one():
    key = make()
    twice = [knowing(0.9, seed=1), knowing(0.9, seed=1), knowing(0.9, seed=2)]
    assert calibrate(twice, key).copies == 1
    assert calibrate([knowing(1.0), knowing(1.0)], key).copies == 0  # two that make no error may agree


def test_models_of_one_family_raise_a_flag():
    key = make()

    def of(*families):
        return calibrate([replace(knowing(0.9, seed=seed), family=name) for seed, name in enumerate(families)], key)

    for families, one in ((["a"] * 5, True), (["a"] * 4 + ["b"], False), (["a"] * 4 + [""], False), ([""] * 5, False)):
        calibration = of(*families)
        assert ("one-family" in verify(knowing(0.9), key, calibration=calibration).flags) == one
        again = Calibration.from_json(calibration.to_json())
        assert again == calibration
    said = json.loads(of("a", "b").to_json())
    said["families"] = ["a"]
    with pytest.raises(hm.errors.BadArtifact, match="family"):
        Calibration.from_json(json.dumps(said))


def test_a_calibration_without_hosts_or_accuracies_says_nothing_of_its_models():
    key = make(host_labels=None)
    images = torch.zeros(5, 1, 4, 4, dtype=torch.uint8)
    for examples, flagged in ((None, True), ((images, torch.zeros(5, dtype=torch.int64)), False)):
        calibration = calibrate([knowing(0.9)], key, examples=examples)
        assert ("untested-calibrators" in verify(knowing(0.9), key, calibration=calibration).flags) == flagged


def test_modules_tell_no_family():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
    assert calibrate([net], make()).families == ()


def test_a_text_with_one_word_changed_is_an_earlier_text() -> None:
    first = torch.arange(2, 22, dtype=torch.int32)
    near, far, short = first.clone(), first.clone(), first.clone()
    near[3], far[:3], short[15:] = 90, 90, 0
    assert near_repeats(torch.stack([first, near, far, short])).tolist() == [False, True, False, False]
