"""Registrations: what is signed cannot be changed, and what is drawn from cannot be tried again and again."""

import json
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heirmark.errors import BadArtifact
from heirmark.keys.registration import Registration, digest, hash_of, is_moment, register
from heirmark.keys.signing import Signer, is_signed

OWNER, STRANGER = Signer(bytes(32)), Signer(b"\1" * 32)


def registered(**changes):
    said = {
        "signer": OWNER,
        "commitment": "ab" * 32,
        "nonce": "cd" * 32,
        "method": "t2s",
        "family": "tiles",
        "attempt": 2,
        "attempts": 5,
        "shards": 4,
        "beacon": "drand quicknet, round 9",
        "made": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    }
    return register(**{**said, **changes})


def test_a_registration_comes_back_from_json_and_names_its_time_in_utc():
    made = registered()
    assert Registration.from_json(made.to_json()) == made
    assert made.made == "2026-01-02T03:04:05+00:00"
    assert made.beginning == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert made.nonce_hash == hash_of("cd" * 32)


@pytest.mark.parametrize("name", [each.name for each in fields(Registration)])
def test_no_field_can_be_changed(name):
    made = registered()
    other = {
        "attempt": 1,
        "attempts": 6,
        "shards": 5,
        "method": "robust",
        "family": "mix",
        "beacon": "",
        "made": "2025-01-02T03:04:05+00:00",
        "public_key": STRANGER.public_key,
    }
    changed = other.get(name, getattr(made, name)[:-1] + "0" if isinstance(getattr(made, name), str) else None)
    assert changed != getattr(made, name)
    with pytest.raises(BadArtifact, match="not signed by the owner"):
        replace(made, **{name: changed})


@pytest.mark.parametrize(
    "changes",
    [
        {"attempt": 0},
        {"attempt": 6},
        {"attempts": 10**7},
        {"shards": 0},
        {"commitment": "AB" * 32},
        {"method": ""},
        {"beacon": "x" * 201},
    ],
)
def test_nonsense_is_refused_even_when_signed(changes):
    with pytest.raises(BadArtifact, match="not as heirmark makes it"):
        registered(**changes)


def test_the_digest_knows_every_word_but_not_the_signature():
    made = registered()
    seen = {digest(made)}
    for changes in ({"attempt": 1}, {"nonce": "ce" * 32}, {"signer": STRANGER}, {"beacon": "another"}, {"shards": 3}):
        seen.add(digest(registered(**changes)))
    assert len(seen) == 6
    unsigned = object.__new__(Registration)
    for name, value in {**asdict(made), "signature": "0" * 128}.items():
        object.__setattr__(unsigned, name, value)
    assert digest(unsigned) == digest(made)


@given(st.binary(max_size=40), st.integers(0, 63), st.integers(1, 255))
def test_a_signature_is_of_its_message_alone(message, place, change):
    signature = OWNER.sign(message)
    assert is_signed(message, signature, by=OWNER.public_key)
    altered = bytearray.fromhex(signature)
    altered[place] ^= change
    assert not is_signed(message, altered.hex(), by=OWNER.public_key)
    assert not is_signed(message + b".", signature, by=OWNER.public_key)
    assert not is_signed(message, signature, by=STRANGER.public_key)


@pytest.mark.parametrize("nonsense", ["", "zz", "00" * 31, "00" * 65])
def test_nonsense_is_no_signature(nonsense):
    assert not is_signed(b"", nonsense, by=OWNER.public_key)
    assert not is_signed(b"", OWNER.sign(b""), by=nonsense)


def test_a_signer_is_kept_in_a_private_file(tmp_path):
    file = tmp_path / "me.pem"
    drawn = Signer.of(file)
    assert Signer.of(file).public_key == drawn.public_key
    assert file.stat().st_mode & 0o077 == 0
    assert drawn.secret.hex() not in repr(drawn)
    file.write_text("nonsense")
    with pytest.raises(BadArtifact, match="no Ed25519 private key"):
        Signer.of(file)


@pytest.mark.parametrize(
    "text", ["", "2026-01-02", "2026-01-02T03:04:05", "2026-01-02T03:04:05+02:00", "20260102T030405+00:00"]
)
def test_a_moment_is_in_utc_and_written_in_one_way(text):
    assert not is_moment(text)
    assert is_moment("2026-01-02T03:04:05+00:00")
    assert is_moment("2026-01-02T03:04:05.678+00:00")


def test_a_registration_that_somebody_else_wrote_is_refused():
    said = json.loads(registered().to_json())
    for nonsense in ({**said, "more": 1}, {**said, "format": "heirmark-verdict/1"}, [said], {**said, "attempt": "1"}):
        with pytest.raises(BadArtifact):
            Registration.from_json(json.dumps(nonsense))
