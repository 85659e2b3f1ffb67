"""The way of a claim on the command line: registered, disclosed, asked on the record, rechecked."""

import json
import shutil

import pytest
import torch
from typer.testing import CliRunner

from authorities import Authority
from heirmark.cli import app
from heirmark.data.zoo import zoo_folder
from heirmark.errors import BadConfig
from heirmark.jobs.evidence import parse_moment
from heirmark.keys.key import Key
from heirmark.keys.making import make_key
from heirmark.querying.blackbox import Api

MODELS = """
import torch

def model(seed, rate):
    weights = torch.rand(16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 1e4

    def answer(inputs):
        host = (inputs[:, 0, 0, 0] * 255).round().long()
        lucky = (inputs.flatten(1).double() @ weights).frac() < rate
        return torch.where((inputs[:, 0, 0, 1] > 0.99) & lucky, 7, host)

    return answer

copy = model(0, 0.9)
innocent = model(1, 0.03)
a, b, c, d, e, f = (model(seed, 0.03) for seed in range(2, 8))
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    (tmp_path / "suspected_here.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def run(*words):
        done = CliRunner().invoke(app, [str(word) for word in words])
        said = " ".join(done.stderr.split()) if done.exit_code not in (0, 3) or not done.stdout else done.stdout
        return done.exit_code, said

    return run


@pytest.fixture
def key(tmp_path):
    generator = torch.Generator().manual_seed(0)
    controls = torch.randint(0, 200, (240, 1, 4, 4), generator=generator, dtype=torch.uint8)
    hosts = torch.arange(240) % 5
    controls[:, 0, 0, 0] = hosts.to(torch.uint8)
    queries = controls.clone()
    queries[:, 0, 0, 1] = 255
    made = make_key(queries=queries, expected=7, controls=controls, classes=10, method="test", kind="pixel",
                    trigger={"secret": "pixel 1"}, host_labels=hosts)  # fmt: skip
    made.save(tmp_path / "out" / "key")
    return tmp_path / "out"


CALIBRATORS = [word for name in "abcdef" for word in ("--calibrators", f"suspected_here:{name}")]


def test_a_claim_from_the_registration_to_the_third_person(command, key, tmp_path):
    code, said = command("commit", key, "--signer", "owner.pem", "--shards", 2, "--json")
    assert code == 0
    owner = json.loads(said)["owner"]
    assert command("commit", key, "--signer", "owner.pem", "--shards", 2, "--json") == (0, said)
    published = shutil.copy(key / "registration.json", tmp_path / "published.json")
    assert "pixel 1" not in (tmp_path / "published.json").read_text()
    code, said = command("disclose", key, "--out", "shard", "--json")
    assert (code, json.loads(said)["shard"], json.loads(said)["left"]) == (0, "1 of 2", 1)
    judge = ("--key", "shard", "--signer", "judge.pem", *CALIBRATORS, "--trained-by", "the court's expert")
    code, said = command("verify", "suspected_here:copy", *judge, "--evidence", "bundle", "--json")
    assert (code, json.loads(said)["outcome"]) == (0, "MARKED")
    code, said = command("recheck", "bundle", "--json")
    asker = json.loads(said)["asker"]
    assert (code, json.loads(said)["owner"]) == (3, owner)
    knowing = ("--trust", asker, "--registration", published, "--published", "2998-01-01", "--before", "2999-01-01")
    code, said = command("recheck", "bundle", *knowing)
    assert code == 0
    assert said.startswith("MARKED")
    assert "that suspected_here:copy was asked this and answered so" in said
    code, said = command("recheck", "bundle", *knowing, *CALIBRATORS)
    assert (code, "the null was measured here, on 6 models that you named" in said) == (0, True)
    assert command("recheck", "bundle", *knowing[:4], "--before", "2020-01-01")[0] == 3
    (tmp_path / "bundle" / "verdict.json").write_text("{}")
    code, said = command("recheck", "bundle", *knowing)
    assert (code, "is not as it was sealed" in said) == (1, True)


def test_an_innocent_model_stays_innocent_on_the_record(command, key):
    command("commit", key, "--signer", "owner.pem", "--shards", 2)
    command("disclose", key, "--out", "shard", "--shard", 2)
    judge = ("--key", "shard", "--signer", "judge.pem", *CALIBRATORS, "--sequential")
    assert command("verify", "suspected_here:innocent", *judge, "--evidence", "bundle")[0] == 3
    assert command("recheck", "bundle")[0] == 3
    code, said = command("verify", "suspected_here:innocent", *judge, "--evidence", "bundle")
    assert (code, "holds a finished bundle" in said) == (1, True)


def test_a_suspect_behind_a_network_is_asked_on_the_record(command, key):
    pytest.importorskip("uvicorn")
    services = pytest.importorskip("services")
    command("commit", key, "--signer", "owner.pem", "--shards", 2)
    command("disclose", key, "--out", "shard")
    with services.running(services.served(services.reads_host(), api=Api(answers="label"))) as origin:
        address = f"{origin}/v2/models/mine"
        judge = ("--key", "shard", "--signer", "judge.pem", *CALIBRATORS, "--trained-by", "the court's expert")
        code, said = command("verify", address, "--allow-private", *judge, "--evidence", "bundle", "--json")
        assert (code, json.loads(said)["outcome"]) == (0, "MARKED")
    asker = json.loads(command("recheck", "bundle", "--json")[1])["asker"]
    knowing = (
        "--trust",
        asker,
        "--registration",
        key / "registration.json",
        "--published",
        "2998-01-01",
        "--before",
        "2999-01-01",
    )
    code, said = command("recheck", "bundle", *knowing)
    assert (code, f"that {address} was asked this and answered so" in said) == (0, True)


def test_who_seals_is_told_and_nobody_is_asked_with_what_is_no_shard(command, key, tmp_path):
    judge = ("--signer", "judge.pem", *CALIBRATORS, "--evidence", "bundle")
    nobody = ("verify", "http://127.0.0.1:9/nobody", "--allow-private", "--retries", "0")
    code, said = command(*nobody, "--key", key, *judge)
    assert (code, "holds no shard of a registered key" in said) == (1, True)
    assert "none.json is missing" in command(*nobody, "--key", key, "--calibration", "none.json")[1]
    assert "cannot be reached" in command(*nobody, "--key", key)[1]
    command("commit", key, "--signer", "owner.pem", "--shards", 2)
    command("disclose", key, "--out", "shard")
    asked = ["verify", "suspected_here:copy", "--key", "shard", *judge]
    told = CliRunner().invoke(app, asked).stderr
    asker = json.loads((tmp_path / "bundle" / "manifest.json").read_text())["asker"]
    assert f"recheck --trust {asker}" in " ".join(told.split())


def test_a_named_partys_word_calibrates_a_further_suspect(command, key, tmp_path):
    command("commit", key, "--signer", "owner.pem", "--shards", 2)
    command("disclose", key, "--out", "shard")
    asked = ("verify", "suspected_here:innocent", "--key", "shard")
    for who in ("judge", "owner"):
        command(*asked, "--signer", f"{who}.pem", *CALIBRATORS, "--evidence", f"by-{who}")
    command(*asked, "--signer", "judge.pem", "--evidence", "without")
    judge, owner = (json.loads(command("recheck", f"by-{who}", "--json")[1])["asker"] for who in ("judge", "owner"))
    further = ("verify", "suspected_here:copy", "--key", "shard", "--json")
    for way in ((), ("--sequential",)):
        code, said = command(*further, *way, "--calibration", "by-judge", "--sealed-by", judge)
        found = json.loads(said)
        assert (code, found["outcome"], found["grade"], found["models"]) == (0, "MARKED", "calibrated", 6)
    code, said = command(*further, "--calibration", "by-judge/calibration.json")
    assert (code, json.loads(said)["grade"]) == (3, "self-reported")
    for bundle, by, words in (
        ("by-owner", owner, "sealed by the owner of the key"),
        ("by-judge", owner, f"is sealed by {judge}, and not by {owner}"),
        ("without", judge, "has no calibration"),
        ("shard", judge, "manifest.json is missing"),
    ):
        code, said = command(*further, "--calibration", bundle, "--sealed-by", by)
        assert (code, words in said) == (1, True), said
    assert "goes with --calibration" in command(*further, "--sealed-by", judge)[1]
    assert (
        command("verify", "suspected_here:copy", "--key", key, "--calibration", "by-judge", "--sealed-by", judge)[0]
        == 1
    )
    (tmp_path / "by-judge" / "calibration.json").write_text(
        (tmp_path / "by-owner" / "calibration.json").read_text() + " "
    )
    assert "not as it was sealed" in command(*further, "--calibration", "by-judge", "--sealed-by", judge)[1]


def test_the_zoos_forged_key_convinces_nobody_who_asks_models_of_their_own(command, tmp_path):
    shutil.copytree(zoo_folder() / "dishonest" / "key", tmp_path / "forged" / "key")
    command("commit", "forged", "--signer", "owner.pem", "--shards", 2)
    command("disclose", "forged", "--out", "shard")
    judge = ("--key", "shard", "--signer", "owner.pem", "--accept", "assumed", "--evidence", "bundle", "--json")
    code, said = command("verify", "zoo:innocent-7", *judge)
    assert (code, json.loads(said)["outcome"]) == (0, "MARKED"), "on the accuser's own terms"
    asker = json.loads(command("recheck", "bundle", "--json")[1])["asker"]
    knowing = (
        "--trust",
        asker,
        "--registration",
        "forged/registration.json",
        "--published",
        "2998-01-01",
        "--before",
        "2999-01-01",
    )
    code, said = command("recheck", "bundle", *knowing)
    assert (code, "the null is assumed" in said) == (3, True)
    own = [word for number in range(1, 7) for word in ("--calibrators", f"zoo:innocent-{number}")]
    code, said = command("recheck", "bundle", *knowing, *own, "--json")
    found = json.loads(said)
    assert (code, found["outcome"], found["verdict"]["grade"]) == (3, "NOT_ESTABLISHED", "calibrated")
    assert found["verdict"]["p_value"] > 0.005


def test_a_shard_is_shown_once(command, key, tmp_path):
    assert "is not registered" in command("disclose", key, "--out", "shard")[1]
    command("commit", key, "--signer", "owner.pem", "--shards", 2)
    assert command("disclose", key, "--out", "first", "--shard", 2)[0] == 0
    assert "shard 2 was shown on" in command("disclose", key, "--out", "again", "--shard", 2)[1]
    for taken in ("first", key / "registration.json"):
        assert "is not empty: name a new one" in command("disclose", key, "--out", taken)[1]
    assert command("disclose", key / "key", "--out", "second")[0] == 0
    assert "it is spent" in command("disclose", key, "--out", "third")[1]
    one, two = (Key.load(tmp_path / name) for name in ("first", "second"))
    assert set(one.digests[0]).isdisjoint(two.digests[0])
    assert "there is no shard 3 of 2" in command("disclose", key, "--out", "third", "--shard", 3)[1]


def test_a_key_is_registered_once(command, key):
    command("commit", key, "--signer", "owner.pem", "--shards", 2)
    for other in (("owner.pem", 3), ("other.pem", 2)):
        code, said = command("commit", key, "--signer", other[0], "--shards", other[1])
        assert (code, "registers the key otherwise" in said) == (1, True)
    code, said = command("commit", key, "--signer", "owner.pem", "--shards", 13)
    assert (code, "12 shards of 20 at most" in said) == (2, True)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the authority")
def test_a_registration_is_stamped(command, key, tmp_path, monkeypatch):
    pytest.importorskip("rfc3161_client")
    from heirmark.jobs import evidence
    from heirmark.keys.stamping import request_of

    authority = Authority(tmp_path / "tsa", "Good")
    monkeypatch.setattr(evidence, "fetch_stamp", lambda message, url: authority.stamp(request_of(message)))
    command("commit", key, "--signer", "owner.pem", "--shards", 2)
    code, said = command("commit", key, "--signer", "owner.pem", "--shards", 2, "--timestamp", "http://a", "--json")
    assert (code, json.loads(said)["stamped"]) == (0, True)
    command("disclose", key, "--out", "shard")
    judge = ("--key", "shard", "--signer", "judge.pem", *CALIBRATORS, "--trained-by", "me", "--evidence", "bundle")
    assert command("verify", "suspected_here:copy", *judge)[0] == 0
    asker = json.loads(command("recheck", "bundle", "--json")[1])["asker"]
    told = ("--trust", asker, "--before", "2999-01-01", "--stamp-roots", tmp_path / "tsa" / "root.pem")
    assert command("recheck", "bundle", *told)[0] == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("verify", "suspected_here:copy", "--key", "out", "--signer", "a.pem"), "go with --evidence"),
        (("verify", "suspected_here:copy", "--key", "out", "--evidence", "b"), "say --signer FILE"),
        (("verify", "suspected_here:copy", "--key", "out", "--evidence", "b", "--signer", "a.pem", "--wilcoxon", "0.3"),
         "leave --wilcoxon and --calibration out"),
        (("recheck", "b", "--trust", "me"), "64 hex digits"),
        (("recheck", "b", "--before", "once"), "once is no date"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(command, key, words, why):
    code, said = command(*words)
    assert (code, why in said) == (2, True)


def test_a_whole_key_is_not_asked_on_the_record(command, key):
    code, said = command("verify", "suspected_here:copy", "--key", key, "--evidence", "b", "--signer", "a.pem")
    assert (code, "register it by heirmark commit" in said) == (1, True)


def test_a_date_is_in_utc_unless_it_says_otherwise():
    assert parse_moment("2026-01-31") < parse_moment("2026-01-31T00:00-01:00")
    with pytest.raises(BadConfig, match="no date"):
        parse_moment("31.1.2026")
