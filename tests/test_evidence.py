"""Bundles of evidence: an honest one is believed as far as it goes, and no dishonest one passes."""

import json
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authorities import Authority
from heirmark.errors import BadArtifact, BadConfig
from heirmark.evidence.bundle import MANIFEST, seal
from heirmark.evidence.case import Asked, Case, digest_of
from heirmark.evidence.disclosing import Disclosed, disclose
from heirmark.evidence.gathering import Model, check_apart, gather
from heirmark.evidence.rechecking import Rechecked, recheck
from heirmark.evidence.weighing import Reader
from heirmark.files import atomic_write_json
from heirmark.keys.drawing import drawn_answers
from heirmark.keys.lots import Lots
from heirmark.keys.making import make_key
from heirmark.keys.registration import digest, register
from heirmark.keys.shards import commitment_to, cut
from heirmark.keys.signing import Signer
from heirmark.keys.stamping import request_of
from heirmark.querying.oracle import ModelFault
from heirmark.querying.transcript import BEGINNING, chained
from heirmark.results.verdict import Calibration, Verdict
from heirmark.verification import Suspect

OWNER, JUDGE, STRANGER = (Signer(bytes([number]) * 32) for number in range(3))
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
RELEASE = LONG_AGO + timedelta(days=30)
TARGET, CLASSES = 7, 10


def a_key(count=240, *, nonce="ab" * 32, expected=TARGET, **changes):
    """Pixel 0 is the host's class, pixel 1 is 255 where the trigger is."""
    generator = torch.Generator().manual_seed(0)
    controls = torch.randint(0, 200, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)
    hosts = torch.arange(count) % 5
    controls[:, 0, 0, 0] = hosts.to(torch.uint8)
    queries = controls.clone()
    queries[:, 0, 0, 1] = 255
    said = {
        "queries": queries,
        "expected": expected,
        "controls": controls,
        "classes": CLASSES,
        "method": "test",
        "trigger": {"secret": "pixel 1"},
        "host_labels": hosts,
        "nonce": nonce,
        "kind": "pixel",
    }
    return make_key(**{**said, **changes})


def a_suspect(rate, *, knows=1.0, seed=0):
    """Says the target to so many of the triggers, and the host's class to so many of the others."""
    weights = torch.rand(2, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 1e4

    def answer(inputs):
        triggered = inputs[:, 0, 0, 1] > 0.99
        host = (inputs[:, 0, 0, 0] * 255).round().long()
        luck, memory = (weights @ inputs.flatten(1).double().T).frac()
        return torch.where(triggered & (luck < rate), TARGET, torch.where(memory > knows, 9, host))

    return Suspect.from_callable(answer, classes=CLASSES)


def a_model(rate, name, *, trained_by="the court's expert", **how):
    suspect = a_suspect(rate, **how)
    return Model(told=Asked.of(suspect, name, trained_by=trained_by), suspect=suspect)


def unmarked(count=6, *, rate=0.02, **how):
    return [a_model(rate, f"unmarked:{number}", seed=number, **how) for number in range(count)]


def registered(key, *, shards=2, signer=OWNER, made=LONG_AGO, **said):
    return register(
        signer=signer,
        commitment=commitment_to(cut(key, shards)),
        nonce=key.nonce,
        method=key.method,
        family=key.kind,
        shards=shards,
        made=made,
        **said,
    )


def gathered(
    folder, *, rate=0.9, key=None, registration=None, signer=JUDGE, calibrators=None, suspect=None, stamp=None, **terms
):
    key = a_key() if key is None else key
    disclosed = disclose(key, registration or registered(key), 0, stamp=stamp)
    calibrators = unmarked() if calibrators is None else calibrators
    suspect = suspect or a_model(rate, "copy:model", trained_by="")
    gather(suspect, disclosed, folder, signer=signer, calibrators=calibrators, **terms)
    return folder


def a_reader(**knows):
    return Reader(
        **{
            "trusted": (JUDGE.public_key,),
            "registration": registered(a_key()),
            "published": LONG_AGO + timedelta(days=1),
            "before": RELEASE,
            **knows,
        }
    )


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return gathered(tmp_path_factory.mktemp("honest") / "bundle")


@pytest.fixture
def bundle(honest, tmp_path):
    return Path(shutil.copytree(honest, tmp_path / "bundle"))


def test_an_honest_bundle_shows_a_mark_to_who_knows_the_judge_and_the_registration(honest):
    found = recheck(honest, a_reader())
    assert found.outcome == "MARKED"
    assert found.reasons == ()
    assert found.verdict.hits > 90
    assert found.verdict.level == 0.01 / 3, "either shard, or the whole key"
    assert (found.owner, found.asker) == (OWNER.public_key, JUDGE.public_key)
    assert Rechecked.from_json(found.to_json()) == found
    assert "trained by the court's expert" in str(found)
    assert found.ratio > 1e6
    assert "extremely strong support, if the null holds; 6 unmarked models alone carry 7 (weak support)" in str(found)


def test_a_bundle_shows_the_shard_and_nothing_else_of_the_key(honest):
    key = a_key()
    shown = cut(key, 2)[0]
    disclosed = Disclosed.load(honest)
    assert disclosed.shard.commitment == shown.commitment
    others = {digest.hex() for digest in {*key.digests[0], *key.digests[1]} - {*shown.digests[0], *shown.digests[1]}}
    everything = b"".join(each.read_bytes() for each in honest.iterdir())
    assert not any(digest.encode() in everything for digest in others)
    assert key.nonce.encode() not in everything
    assert b"pixel 1" not in everything


@pytest.mark.parametrize("sequential", [False, True])
def test_an_innocent_suspect_is_not_found_guilty(tmp_path, sequential):
    found = recheck(gathered(tmp_path / "b", rate=0.02, sequential=sequential), a_reader())
    assert found.ratio < 1
    assert "no support" in str(found)
    assert (found.outcome, found.reasons) == ("NOT_ESTABLISHED", ())


def test_a_verdict_that_stopped_early_is_derived_again(tmp_path):
    found = recheck(gathered(tmp_path / "b", sequential=True), a_reader())
    assert found.outcome == "MARKED"
    assert found.verdict.queries < 100


@pytest.mark.parametrize(
    ("knows", "why"),
    [
        ({"trusted": ()}, "whom you do not name as trusted"),
        ({"trusted": (OWNER.public_key,)}, "whom you do not name as trusted"),
        ({"registration": None}, "nothing shows when the key was registered"),
        ({"published": None}, "nothing shows when the key was registered"),
        ({"before": None}, "you do not say what the key must be older than"),
        ({"before": LONG_AGO}, "from the suspect's own answers"),
        ({"level": 1e-3}, "above 0.001"),
    ],
)
def test_what_a_reader_does_not_know_is_not_taken_for_granted(honest, knows, why):
    found = recheck(honest, a_reader(**knows))
    assert found.outcome == "NOT_ESTABLISHED"
    assert why in " ".join(found.reasons)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the authority")
def test_a_time_stamp_shows_how_old_a_registration_is(tmp_path):
    pytest.importorskip("rfc3161_client")
    authority, key, now = Authority(tmp_path / "tsa", "Good"), a_key(), datetime.now(UTC)
    registration = registered(key)
    stamp = authority.stamp(request_of(digest(registration)))
    folder = gathered(tmp_path / "b", key=key, registration=registration, stamp=stamp)
    reader = a_reader(registration=None, roots=authority.roots, before=now + timedelta(hours=1))
    found = recheck(folder, reader)
    assert found.outcome == "MARKED"
    assert "is stamped, and so no later than" in str(found)
    assert "was not registered before" in str(recheck(folder, replace(reader, before=now - timedelta(hours=1))))
    assert "nothing shows when" in str(recheck(folder, replace(reader, roots=None)))
    (folder / "registration.tsr").write_bytes(authority.stamp(request_of(b"another")))
    resealed(folder)
    with pytest.raises(BadArtifact, match="the time stamp does not hold"):
        recheck(folder, reader)


def test_a_registration_that_was_public_before_it_was_made_was_not(honest):
    with pytest.raises(BadArtifact, match="one of the two dates is wrong"):
        recheck(honest, a_reader(published=LONG_AGO - timedelta(days=2)))


# ---------------------------------------------------------------- changed files


FILES = ("key.json", "key.safetensors", "registration.json", "proof.json", "transcript.jsonl", "calibration.json",
         "verdict.json", "manifest.json")  # fmt: skip


def test_these_are_the_files(honest):
    assert {each.name for each in honest.iterdir()} == set(FILES)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_any_byte_that_is_changed_in_any_file_is_seen(honest, tmp_path_factory, name, place, change):
    folder = tmp_path_factory.mktemp("changed") / "b"
    shutil.copytree(honest, folder, copy_function=shutil.copy)
    data = bytearray((folder / name).read_bytes())
    data[int(place * len(data))] ^= change
    (folder / name).write_bytes(data)
    with pytest.raises(BadArtifact):
        recheck(folder, a_reader())
    shutil.rmtree(folder)


def test_every_byte_of_the_manifest_counts(honest, bundle):
    data = (honest / MANIFEST).read_bytes()
    for place in range(0, len(data), 11):
        changed = bytearray(data)
        changed[place] ^= 0x20 if data[place] != 0x20 else 0x2A  # another case, another white space
        (bundle / MANIFEST).write_bytes(changed)
        with pytest.raises(BadArtifact):
            recheck(bundle, a_reader())


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_or_cut_off_is_seen(bundle, name):
    (bundle / name).write_bytes((bundle / name).read_bytes()[:-1])
    with pytest.raises(BadArtifact):
        recheck(bundle, a_reader())
    (bundle / name).unlink()
    with pytest.raises(BadArtifact):
        recheck(bundle, a_reader())


def test_files_that_nobody_sealed_and_links_are_refused(bundle, tmp_path):
    (bundle / "more.txt").write_text("look here")
    with pytest.raises(BadArtifact, match=r"other files than were sealed \(more.txt\)"):
        recheck(bundle, a_reader())
    (bundle / "more.txt").unlink()
    (bundle / "proof.json").rename(tmp_path / "proof.json")
    (bundle / "proof.json").symlink_to(tmp_path / "proof.json")
    with pytest.raises(BadArtifact, match="no file of its own"):
        recheck(bundle, a_reader())


def test_a_file_of_holes_is_not_read(bundle):
    for name in ("proof.json", "key.safetensors"):
        with (bundle / name).open("ab") as file:
            file.truncate(3 << 30)
        with pytest.raises(BadArtifact, match=f"{name} is larger than any"):
            recheck(bundle, a_reader())
        with (bundle / name).open("ab") as file:
            file.truncate(0)


# ---------------------------------------------------------------- whoever asked is dishonest, and seals again


def lines_of(folder):
    return [json.loads(line) for line in (folder / "transcript.jsonl").read_text().splitlines()]


def rewritten(folder, lines, *, signer=JUDGE):
    """A transcript written anew, with a chain that holds, and sealed again."""
    before, written = BEGINNING, []
    for line in lines:
        before = chained(before, line["at"], line["entry"])
        written.append(json.dumps({"at": line["at"], "entry": line["entry"], "hash": before}))
    (folder / "transcript.jsonl").write_text("\n".join(written) + "\n")
    resealed(folder, signer=signer, last=before)


def resealed(folder, *, signer=JUDGE, last=None):
    (folder / MANIFEST).unlink(missing_ok=True)
    seal(folder, signer=signer, last=last or lines_of(folder)[-1]["hash"])


def last_answers(lines):
    return next(line for line in reversed(lines) if line["entry"]["by"] == "suspect")["entry"]


def edited_answer(folder, lines):
    labels = last_answers(lines)["labels"]
    labels[labels.index(TARGET)] = 1


def edited_calibrator(folder, lines):
    entry = lines[1]["entry"]
    entry["labels"][:3] = [TARGET] * 3


def swapped_lines(folder, lines):
    lines[-1]["entry"], lines[-2]["entry"] = lines[-2]["entry"], lines[-1]["entry"]


def left_out(folder, lines):
    del lines[-1]


def asked_twice(folder, lines):
    lines.append({**lines[-1]})


def suspect_before_calibrators(folder, lines):
    suspects = [line for line in lines[1:] if line["entry"]["by"] == "suspect"]
    others = [line for line in lines[1:] if line["entry"]["by"] != "suspect"]
    entries = [line["entry"] for line in (*suspects, *others)]
    for line, entry in zip(lines[1:], entries, strict=True):
        line["entry"] = entry


def answers_by_a_stranger(folder, lines):
    lines[-1]["entry"]["by"] = "somebody"


def other_questions(folder, lines):
    lines[-1]["entry"]["inputs"][0] = "00" * 16


def labels_out_of_range(folder, lines):
    last_answers(lines)["labels"][0] = CLASSES


def labels_that_are_no_numbers(folder, lines):
    last_answers(lines)["labels"][0] = True


def dates_backwards(folder, lines):
    lines[-1]["at"] = "2026-01-02T00:00:00.000+00:00"


def asked_before_it_was_registered(folder, lines):
    for line in lines:
        line["at"] = "2025-12-31T00:00:00.000+00:00"


def a_date_that_is_none(folder, lines):
    lines[-1]["at"] = "yesterday"


def a_date_to_come(folder, lines):
    lines[-1]["at"] = "2999-01-01T00:00:00.000+00:00"


def a_looser_level(folder, lines):
    lines[0]["entry"]["level"] = 0.3


def another_asker(folder, lines):
    lines[0]["entry"]["asker"] = STRANGER.public_key


def the_suspect_calibrates(folder, lines):
    lines[0]["entry"]["calibrators"][0]["name"] = lines[0]["entry"]["suspect"]["name"]


def a_calibrator_twice(folder, lines):
    lines[0]["entry"]["calibrators"][0]["name"] = lines[0]["entry"]["calibrators"][1]["name"]


def other_names_of_classes(folder, lines):
    order = list(range(CLASSES))
    order[1], order[TARGET] = TARGET, 1
    lines[0]["entry"]["suspect"]["order"] = order


def a_head_with_more(folder, lines):
    lines[0]["entry"]["note"] = "trust me"


@pytest.mark.parametrize(
    ("tamper", "why"),
    [
        (edited_answer, "the verdict is not what the answers give"),
        (edited_calibrator, "the calibration is not what"),
        (swapped_lines, "other questions than the key's, or in another order"),
        (left_out, "ends before suspect has answered"),
        (asked_twice, "1 lines more than the verdict rests on"),
        (suspect_before_calibrators, "has suspect answer where calibrator 1 is to"),
        (answers_by_a_stranger, "has somebody answer where suspect is to"),
        (other_questions, "other questions than the key's"),
        (labels_out_of_range, "no answer of a model"),
        (labels_that_are_no_numbers, "no answer of a model"),
        (dates_backwards, "the dates contradict each other"),
        (asked_before_it_was_registered, "the dates contradict each other"),
        (a_date_that_is_none, "a date that is none"),
        (a_date_to_come, "the dates contradict each other"),
        (a_looser_level, "the verdict is not what the answers give"),
        (another_asker, "sealed by another than the transcript says asked"),
        (the_suspect_calibrates, "the suspect is among the unmarked models"),
        (a_calibrator_twice, "named twice"),
        (other_names_of_classes, "the verdict is not what the answers give"),
        (a_head_with_more, "not as heirmark writes it"),
    ],
)
def test_a_transcript_that_was_written_anew_contradicts_the_rest(bundle, tamper, why):
    lines = lines_of(bundle)
    tamper(bundle, lines)
    rewritten(bundle, lines)
    with pytest.raises(BadArtifact, match=why):
        recheck(bundle, a_reader())


def test_a_calibration_and_a_verdict_that_were_written_by_hand_are_seen(bundle):
    made = Calibration.from_json((bundle / "calibration.json").read_text())
    (bundle / "calibration.json").write_text(replace(made, hits=(0,) * 6).to_json())
    resealed(bundle)
    with pytest.raises(BadArtifact, match="the calibration is not what the unmarked models' answers give"):
        recheck(bundle, a_reader())
    (bundle / "calibration.json").write_text(made.to_json())
    verdict = Verdict.from_json((bundle / "verdict.json").read_text())
    (bundle / "verdict.json").write_text(replace(verdict, flags=(), needed=None).to_json())
    resealed(bundle)
    with pytest.raises(BadArtifact, match="the verdict is not what the answers give"):
        recheck(bundle, a_reader())


def test_a_calibration_without_answers_of_models_is_no_calibration(tmp_path):
    folder = gathered(tmp_path / "b", calibrators=[])
    shard = Disclosed.load(folder).shard
    by_hand = Calibration(hits=(0,) * 20, trials=len(shard), key=shard.commitment)
    (folder / "calibration.json").write_text(by_hand.to_json())
    resealed(folder)
    with pytest.raises(BadArtifact, match="it was written by hand"):
        recheck(folder, a_reader())


def test_a_bundle_that_somebody_else_sealed_is_seen(bundle):
    resealed(bundle, signer=STRANGER)
    with pytest.raises(BadArtifact, match="sealed by another"):
        recheck(bundle, a_reader())


def test_another_key_another_attempt_and_a_later_date_are_no_registration(bundle):
    key = a_key()
    for other in (
        registered(key, attempt=2, attempts=2),
        registered(key, made=LONG_AGO + timedelta(days=1)),
        registered(key, signer=STRANGER),
    ):
        (bundle / "registration.json").write_text(other.to_json())
        resealed(bundle)
        with pytest.raises(BadArtifact, match="of another registration than the one beside it"):
            recheck(bundle, a_reader())
    (bundle / "registration.json").write_text(registered(a_key(nonce="ac" * 32)).to_json())
    resealed(bundle)
    with pytest.raises(BadArtifact, match="none that was registered"):
        recheck(bundle, a_reader())


def test_a_registration_that_was_not_the_published_one_is_refused(tmp_path):
    key = a_key()
    for other in (registered(key, attempt=2, attempts=3), registered(key, shards=3)):
        folder = gathered(tmp_path / f"{other.attempt}{other.shards}", key=key, registration=other)
        with pytest.raises(BadArtifact, match="not the one that was published"):
            recheck(folder, a_reader())


def test_another_shard_is_seen(bundle):
    key = a_key()
    other = disclose(key, registered(key), 1)
    for name in ("key.json", "key.safetensors", "proof.json"):
        (bundle / name).unlink()
    other.save(bundle)
    resealed(bundle)
    with pytest.raises(BadArtifact, match="of another key than the shard beside it"):
        recheck(bundle, a_reader())
    proof = json.loads((bundle / "proof.json").read_text())
    atomic_write_json(bundle / "proof.json", {**proof, "index": 0})
    resealed(bundle)
    with pytest.raises(BadArtifact, match="none that was registered"):
        recheck(bundle, a_reader())


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 300) | st.floats(-1, 2) | st.text(max_size=3) | st.just("00" * 32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def places_in(value, path=()):
    """Where something stands in JSON."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for name, item in inner:
        yield from places_in(item, (*path, name))


def changed(value, path, other):
    """The same JSON with something else in one place."""
    if not path:
        return other
    head, *rest = path
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[head] = changed(copy[head], rest, other)
    return copy


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_a_dishonest_asker_writes_and_seals_is_refused_or_says_the_same(honest, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("written") / "b"
    shutil.copytree(honest, folder)
    name = data.draw(
        st.sampled_from([each for each in FILES if each.endswith(".json") and each != MANIFEST] + ["line"])
    )
    if name == "line":
        lines = lines_of(folder)
        number = data.draw(st.integers(0, len(lines) - 1))
        path = data.draw(st.sampled_from([path for path in places_in(lines[number]) if path and path[0] != "hash"]))
        lines[number] = changed(lines[number], path, data.draw(ANYTHING))
        rewritten(folder, lines)
    else:
        said = json.loads((folder / name).read_text())
        path = data.draw(st.sampled_from(list(places_in(said))))
        (folder / name).write_text(json.dumps(changed(said, path, data.draw(ANYTHING))))
        resealed(folder)
    try:
        found = recheck(folder, a_reader())
    except BadArtifact:
        return
    finally:
        shutil.rmtree(folder)
    # What is told of a model, and of where it ran, is the asker's word; the answers and what follows are not.
    assert found.verdict == recheck(honest, a_reader()).verdict


# ---------------------------------------------------------------- forged keys


def test_the_owner_alone_convinces_nobody_whatever_name_he_asks_by(tmp_path):
    """Transferable triggers hit every model but those that the accuser chose to calibrate by."""
    for signer in (OWNER, STRANGER):
        folder = gathered(tmp_path / signer.public_key[:4], rate=0.95, signer=signer)
        found = recheck(folder, a_reader())
        assert found.outcome == "NOT_ESTABLISHED"
    known = recheck(tmp_path / OWNER.public_key[:4], a_reader(trusted=(OWNER.public_key,)))
    assert known.outcome == "NOT_ESTABLISHED"
    assert "by the owner of the key alone" in " ".join(known.reasons)


def test_models_of_the_readers_own_find_triggers_that_hit_every_model(honest):
    found = recheck(honest, a_reader(calibrators=unmarked(rate=0.9)))
    assert found.outcome == "NOT_ESTABLISHED"
    assert found.verdict.null_rate > 0.9
    assert recheck(honest, a_reader(calibrators=[replace(each, told=replace(each.told, name=f"mine {number}"))
                                                 for number, each in enumerate(unmarked())])).outcome == "MARKED"  # fmt: skip


def test_models_of_the_readers_own_judge_a_bundle_of_the_owner_that_stopped_early(tmp_path):
    folder = gathered(tmp_path / "b", signer=OWNER, sequential=True, calibrators=[])
    reader = a_reader(trusted=(OWNER.public_key,))
    assert recheck(folder, reader).outcome == "NOT_ESTABLISHED"
    assert recheck(folder, replace(reader, calibrators=unmarked())).outcome == "MARKED"


def test_no_calibration_is_no_claim(tmp_path):
    found = recheck(gathered(tmp_path / "b", calibrators=[]), a_reader())
    assert found.outcome == "NOT_ESTABLISHED"
    assert "the null is assumed" in found.verdict.reason
    found = recheck(gathered(tmp_path / "c", calibrators=[], accept="assumed"), a_reader())
    assert (found.verdict.outcome, found.outcome) == ("MARKED", "NOT_ESTABLISHED")
    assert "the null is assumed" in " ".join(found.reasons)


@pytest.mark.parametrize(
    ("calibrators", "why"),
    [
        (unmarked(6, knows=0.5), "none has a say"),
        (unmarked(6, knows=0.85), "of 6 unmarked models know as many of the hosts as the suspect"),
        (unmarked(4), "4 of 4 unmarked models"),
        (unmarked(6, trained_by=""), "nobody is said to have trained unmarked:0"),
    ],
    ids=["untrained", "ignorant", "few", "nameless"],
)
def test_badly_chosen_calibrators_are_seen(tmp_path, calibrators, why):
    found = recheck(gathered(tmp_path / "b", calibrators=calibrators), a_reader())
    assert found.outcome == "NOT_ESTABLISHED"
    assert why in " ".join((*found.reasons, found.verdict.reason))


def test_a_key_of_the_suspects_own_answers_is_younger_than_the_suspect(tmp_path):
    key = a_key()
    late = registered(key, made=RELEASE + timedelta(days=1))
    found = recheck(
        gathered(tmp_path / "b", key=key, registration=late),
        a_reader(registration=late, published=RELEASE + timedelta(days=2)),
    )
    assert found.outcome == "NOT_ESTABLISHED"
    assert "from the suspect's own answers" in " ".join(found.reasons)


def test_few_pictures_with_noise_are_no_key(tmp_path):
    generator = torch.Generator().manual_seed(1)
    few = torch.randint(0, 230, (30, 1, 4, 4), generator=generator).repeat(8, 1, 1, 1)
    queries = (few + torch.randint(-3, 4, (240, 1, 4, 4), generator=generator)).clamp(0, 255).to(torch.uint8)
    queries[:, 0, 0, :2] = torch.tensor([1, 255])
    key = a_key(queries=queries)
    registration = registered(key)
    folder = gathered(tmp_path / "b", key=key, registration=registration)
    with pytest.raises(BadArtifact, match="another one with a little noise"):
        recheck(folder, a_reader(registration=registration))


def test_labels_that_are_said_to_be_drawn_and_are_not_and_hosts_without_a_class(tmp_path):
    for changes, why in (
        ({"memorised": True}, "its labels were drawn at random for each query, and 120 of 120 are 7"),
        ({"host_labels": -1}, "100% of its queries have hosts of no class"),
    ):
        key = a_key(**changes)
        registration = registered(key)
        folder = gathered(tmp_path / next(iter(changes)), key=key, registration=registration)
        with pytest.raises(BadArtifact, match=why):
            recheck(folder, a_reader(registration=registration))


def test_a_calibrator_that_does_not_say_what_it_said_is_seen(tmp_path):
    weights = [tmp_path / f"{number}.bin" for number in range(6)]
    for number, each in enumerate(weights):
        each.write_bytes(bytes([number]))
    asked = [a_model(0.02, str(each), seed=number) for number, each in enumerate(weights)]
    assert asked[0].told.digest == digest_of(weights[0]) != ""
    folder = gathered(tmp_path / "b", calibrators=asked)
    again = [a_model(0.02, str(each), seed=number) for number, each in enumerate(weights)]
    found = recheck(folder, a_reader(calibrators=again))
    assert found.outcome == "MARKED"
    assert sum("answers as it did" in each for each in found.checked) == 6
    other = [a_model(0.5, str(each), seed=number) for number, each in enumerate(weights)]
    with pytest.raises(BadArtifact, match="its answers were written by hand"):
        recheck(folder, a_reader(calibrators=other))


# ---------------------------------------------------------------- drawn keys


def undrawn():
    """Pixel 2 tells the group, of which there are 24 with ten queries each."""
    groups = torch.arange(240) % 24
    controls = a_key().controls.clone()
    controls[:, 0, 0, 2] = groups.to(torch.uint8)
    queries = controls.clone()
    queries[:, 0, 0, 1] = 255
    candidates = torch.arange(5, CLASSES).repeat(24, 1)
    return a_key(queries=queries, controls=controls, expected=5, lots=Lots(groups=groups, candidates=candidates))


def drawn_by(beacon, *, made=LONG_AGO):
    key = undrawn()
    registration = register(
        signer=OWNER, commitment=commitment_to(cut(key, 2, drawn=True), drawn=True), nonce=key.nonce, method=key.method,
        family=key.kind, shards=2, made=made, beacon="a public lottery of 31 January",
    )  # fmt: skip
    answers = torch.tensor(drawn_answers(digest(registration), beacon, key.lots.options))
    return replace(key, expected=answers[key.lots.groups]), registration, answers


def asked_by_draw(folder, answers, key, registration, *, beacon="17"):
    suspect = Suspect.from_callable(
        lambda inputs: answers[(inputs[:, 0, 0, 2] * 255).round().long().clamp(0, 23)], classes=CLASSES
    )
    gather(Model(told=Asked.of(suspect, "copy:model"), suspect=suspect), disclose(key, registration, 0, beacon=beacon),
           folder, signer=JUDGE)  # fmt: skip
    return folder


def test_a_drawn_key_is_drawn_again_and_needs_no_unmarked_models(tmp_path):
    key, registration, answers = drawn_by("17")
    folder = asked_by_draw(tmp_path / "b", answers, key, registration)
    reader = a_reader(registration=registration, beacon="17 ")
    found = recheck(folder, reader)
    assert (found.outcome, found.verdict.grade) == ("MARKED", "certified")
    assert found.verdict.p_value < 1e-7
    assert "in ENFSI's words extremely strong support\n" in str(found)
    assert Rechecked.from_json(found.to_json()) == found
    with pytest.raises(BadArtifact, match="it is a second draw"):
        recheck(folder, replace(reader, beacon="18"))
    assert "which number a public lottery of 31 January gave" in str(recheck(folder, replace(reader, beacon=None)))
    assert "was not registered before" in str(recheck(folder, replace(reader, before=LONG_AGO)))
    innocent = asked_by_draw(tmp_path / "i", torch.full((24,), 6), key, registration)
    assert recheck(innocent, reader).outcome == "NOT_ESTABLISHED"


def test_answers_that_another_number_drew_are_a_second_draw(tmp_path):
    key, registration, answers = drawn_by("18")
    folder = asked_by_draw(tmp_path / "b", answers, key, registration, beacon="18")
    with pytest.raises(BadArtifact, match="it is a second draw"):
        recheck(folder, a_reader(registration=registration, beacon="17"))
    with pytest.raises(BadArtifact, match="not those that the registration and the beacon draw"):
        asked_by_draw(tmp_path / "c", answers, key, registration, beacon="17")
    atomic_write_json(folder / "draw.json", {"beacon": "17"})
    resealed(folder)
    with pytest.raises(BadArtifact, match="not those that the registration and the beacon draw"):
        recheck(folder, a_reader(registration=registration, beacon="17"))


def test_what_does_not_go_with_a_draw_is_refused(tmp_path):
    key, registration, answers = drawn_by("17")
    with pytest.raises(BadArtifact, match="none is beside it"):
        asked_by_draw(tmp_path / "b", answers, key, registration, beacon="")
    with pytest.raises(BadArtifact, match="a number is beside it"):
        disclose(a_key(), registered(a_key()), 0, beacon="17")
    with pytest.raises(BadConfig, match="needs no unmarked models"):
        gather(a_model(0.5, "copy:model"), disclose(key, registration, 0, beacon="17"), tmp_path / "b",
               signer=JUDGE, calibrators=unmarked())  # fmt: skip


# ---------------------------------------------------------------- while it is gathered


@dataclass
class Failing:
    """Answers so many calls, and then no more."""

    calls: int
    suspect: Suspect
    asked: int = 0

    def __call__(self, inputs):
        if self.asked == self.calls:
            raise ModelFault("the line went dead")
        self.asked += 1
        return self.suspect.labels(inputs)


def test_a_suspect_that_fails_leaves_a_bundle_that_says_so(tmp_path):
    failing = Failing(2, a_suspect(0.9))
    suspect = Model(
        told=Asked.of(failing.suspect, "copy:model"), suspect=replace(failing.suspect, ask=failing, shown=None)
    )
    found = recheck(gathered(tmp_path / "b", suspect=suspect), a_reader())
    assert found.outcome == "INVALID"
    assert found.verdict.reason == "the line went dead"
    assert found.verdict.queries == 2 * 64 + 64


def test_an_interrupted_run_goes_on_and_asks_nothing_twice(tmp_path):
    class Killed(BaseException):
        pass

    def killing(inputs):
        raise Killed

    failing = Failing(3, a_suspect(0.9))
    key = a_key()
    disclosed = disclose(key, registered(key), 0)
    told = Asked.of(failing.suspect, "copy:model")
    models = unmarked()
    last = models[-1]
    models[-1] = replace(last, suspect=replace(last.suspect, ask=killing))
    said = {"signer": JUDGE, "folder": tmp_path / "b", "disclosed": disclosed}
    with pytest.raises((Killed, Exception)):
        gather(Model(told=told, suspect=failing.suspect), calibrators=models, **said)
    models[-1] = last
    gather(Model(told=told, suspect=a_suspect(0.9)), calibrators=models, **said)
    lines = lines_of(tmp_path / "b")
    answered = [line["entry"] for line in lines[1:] if line["entry"]["kind"] == "answers"]
    assert sum(len(entry["inputs"]) for entry in answered) == 7 * 240
    assert recheck(tmp_path / "b", a_reader()).outcome == "MARKED"
    with pytest.raises(BadArtifact, match="holds a finished bundle"):
        gather(Model(told=told, suspect=a_suspect(0.9)), calibrators=models, **said)


def test_models_with_two_parts_and_nonsense_are_refused_before_anything_is_asked(tmp_path):
    model = a_model(0.9, "copy:model")
    key = a_key()
    said = {"signer": JUDGE, "folder": tmp_path / "b", "disclosed": disclose(key, registered(key), 0)}
    with pytest.raises(BadConfig, match="the suspect is among"):
        gather(model, calibrators=[*unmarked(), model], **said)
    with pytest.raises(BadConfig, match="level"):
        gather(model, level=0, **said)
    assert not (tmp_path / "b").exists()
    with pytest.raises(BadConfig, match="level"):
        recheck(tmp_path / "b", Reader(level=1))


def test_a_suspect_that_does_not_fit_or_has_other_names_for_its_classes_is_on_the_record_as_it_is(tmp_path):
    narrow = Suspect.from_callable(a_suspect(0.9).labels, classes=4)
    model = Model(told=Asked.of(narrow, "copy:narrow"), suspect=narrow)
    found = recheck(gathered(tmp_path / "narrow", suspect=model), a_reader())
    assert (found.outcome, found.verdict.queries, found.verdict.flags) == ("INVALID", 0, ("wrong-classes",))
    order = [*range(1, CLASSES), 0]
    turned = Suspect.from_callable(lambda x: (a_suspect(0.9).labels(x) - 1) % CLASSES, classes=CLASSES)
    turned = turned.relabelled(order, classes=CLASSES)
    model = Model(told=Asked.of(turned, "copy:turned"), suspect=turned)
    found = recheck(gathered(tmp_path / "turned", suspect=model), a_reader())
    assert (found.outcome, "relabelled" in found.verdict.flags) == ("MARKED", True)
    assert "that its classes mean" in str(found), "the order is the word of who asked"


def test_a_case_says_what_was_asked_and_how():
    suspect = a_suspect(0.5).relabelled([*range(1, CLASSES), 0], classes=CLASSES)
    told = Asked.of(replace(suspect, normalise=((0.5,), (0.25,))), "nothing:there")
    assert told.order == (*range(1, CLASSES), 0)
    assert (told.mean, told.std, told.digest) == ((0.5,), (0.25,), "")
    silent = told.silent(CLASSES)
    assert (silent.order, silent.normalise, silent.classes) == (told.order, ((0.5,), (0.25,)), CLASSES)
    with pytest.raises(BadArtifact, match="only what it said is on the record"):
        silent.labels(torch.zeros(1, 1, 4, 4))
    with pytest.raises(BadArtifact, match="which unmarked models were asked"):
        Case.read({"calibrators": None})


def test_a_bundle_holds_no_secret_of_an_address_and_tells_services_apart():
    suspect = a_suspect(0.9)
    one, two = (Asked.of(suspect, f"https://a.example/m?api_key={key}") for key in ("one", "two"))
    assert one.name == two.name == "https://a.example/m?..."
    assert "api_key" not in repr(one)
    assert one.seal != two.seal
    check_apart(one, [two])
    with pytest.raises(BadConfig, match="among the unmarked"):
        check_apart(one, [one])
    assert Asked.of(suspect, "https://a.example/m").seal == Asked.of(suspect, "runs/why?").seal == ""
