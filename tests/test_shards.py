"""Shards: each shows that it belongs to the key, and nothing of the rest."""

import hashlib
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heirmark.errors import BadArtifact, BadConfig
from heirmark.keys import merkle
from heirmark.keys.making import make_key
from heirmark.keys.shards import Proof, commitment_to, cut, material, proof_of


def a_key(count=103, **changes):
    generator = torch.Generator().manual_seed(0)
    controls = torch.randint(0, 200, (count, 1, 3, 3), generator=generator, dtype=torch.uint8)
    queries = controls.clone()
    queries[:, 0, 0, 0] = 255
    said = {
        "queries": queries,
        "controls": controls,
        "expected": torch.arange(count) % 3,
        "classes": 10,
        "method": "t2s",
        "trigger": {"secret": "the corner"},
        "host_labels": 3 + torch.arange(count) % 5,
        "nonce": "ab" * 32,
    }
    return make_key(**{**said, **changes})


def plainly(parts):
    """The tree, level by level: neighbours are joined, and one that is left over goes up as it is."""
    level = [hashlib.sha256(b"\0" + part).digest() for part in parts]
    while len(level) > 1:
        pairs = [level[place : place + 2] for place in range(0, len(level), 2)]
        level = [hashlib.sha256(b"\1" + pair[0] + pair[1]).digest() if len(pair) == 2 else pair[0] for pair in pairs]
    return level[0]


@given(st.lists(st.binary(max_size=5), min_size=1, max_size=33), st.data())
def test_a_part_is_shown_to_be_in_the_tree_in_its_place_and_nothing_else_is(parts, data):
    root = merkle.root(parts)
    assert root == plainly(parts)
    index = data.draw(st.integers(0, len(parts) - 1))
    path = merkle.path(parts, index)
    assert len(path) <= 6
    assert merkle.root_by(parts[index], index, len(parts), path) == root
    other = data.draw(st.binary(max_size=5).filter(lambda part: part != parts[index]))
    assert merkle.root_by(other, index, len(parts), path) != root
    if path:
        for wrong in (path[:-1], path[1:], (*path, path[0])):
            assert merkle.root_by(parts[index], index, len(parts), wrong) != root
    assert merkle.root_by(parts[index], len(parts), len(parts), path) is None
    for elsewhere in range(len(parts)):
        if parts[elsewhere] != parts[index]:
            assert merkle.root_by(parts[index], elsewhere, len(parts), path) != root


def test_shards_have_all_rows_once_and_their_share_of_every_answer():
    key = a_key()
    shards = cut(key, 4)
    assert sum(map(len, shards)) == len(key)
    assert {digest for shard in shards for digest in shard.digests[0]} == set(key.digests[0])
    for shard in shards:
        assert min(torch.bincount(shard.expected, minlength=3)) >= 8
        rows = [key.digests[0].index(digest) for digest in shard.digests[0]]
        for name in ("expected", "controls", "host_labels"):
            assert torch.equal(getattr(shard, name), getattr(key, name)[rows])
    again = cut(key, 4)
    assert [shard.commitment for shard in again] == [shard.commitment for shard in shards]
    assert set(shards[0].digests[0]) != set(cut(a_key(nonce="ac" * 32), 4)[0].digests[0])


def test_answers_that_are_drawn_later_do_not_decide_which_row_goes_where():
    key = a_key()
    pairs = list(zip(cut(key, 4, drawn=True), cut(a_key(expected=9), 4, drawn=True), strict=True))
    assert all(shard.digests == other.digests and shard.commitment != other.commitment for shard, other in pairs)
    assert commitment_to([shard for shard, _ in pairs], drawn=True) == commitment_to(
        [other for _, other in pairs], drawn=True
    )
    assert sum(map(len, cut(key, 4, drawn=True))) == len(key)


def test_a_shard_tells_nothing_of_the_key_and_of_the_others():
    key = a_key()
    shards = cut(key, 4)
    nonces = {key.nonce, *(shard.nonce for shard in shards), *(shard.nonce for shard in cut(key, 3))}
    assert len(nonces) == 8
    assert all(shard.trigger == {} for shard in shards)


@pytest.mark.parametrize("drawn", [False, True])
def test_a_proof_shows_its_shard_alone(drawn):
    shards = cut(a_key(), 4)
    commitment = commitment_to(shards, drawn=drawn)
    for index, shard in enumerate(shards):
        proof = proof_of(shards, index, drawn=drawn)
        said = {"commitment": commitment, "shards": 4, "drawn": drawn}
        assert proof.shows(shard, **said)
        assert not proof.shows(shards[index - 1], **said)
        assert not proof.shows(shard, **{**said, "drawn": not drawn})
        assert not proof.shows(shard, **{**said, "commitment": "0" * 64})
        assert not replace(proof, index=(index + 1) % 4).shows(shard, **said)
        assert not replace(proof, path=("zz", *proof.path[1:])).shows(shard, **said)
        assert not replace(proof, path=("00", *proof.path[1:])).shows(shard, **said)


def test_what_is_drawn_later_is_left_out_and_all_else_counts():
    shard = cut(a_key(), 4)[0]
    other = replace(shard, expected=(shard.expected + 1) % 3)
    assert material(shard, drawn=True) == material(other, drawn=True)
    assert material(shard, drawn=False) != material(other, drawn=False)
    changed = shard.queries.clone()
    changed[0, 0, 1, 1] ^= 1
    for changes in (
        {"queries": changed},
        {"controls": shard.controls.flip(0)},
        {"host_labels": shard.host_labels.flip(0)},
        {"nonce": "0" * 64},
        {"kind": "mix"},
        {"classes": 11},
        {"memorised": True},
        {"reference": "chance"},
        {"method": "ewe"},
    ):
        assert material(replace(shard, **changes), drawn=True) != material(shard, drawn=True)


@pytest.mark.parametrize("shards", [0, 6, 1000])
def test_shards_are_large_enough_to_judge(shards):
    with pytest.raises(BadConfig, match="5 shards of 20 at most"):
        cut(a_key(), shards)


def test_there_is_no_shard_beyond_the_last():
    with pytest.raises(BadArtifact, match="no shard 5 of 4"):
        proof_of(cut(a_key(), 4), 4)
    assert Proof(index=0, path=()).shows(
        *cut(a_key(), 1), commitment=commitment_to(cut(a_key(), 1)), shards=1, drawn=False
    )
