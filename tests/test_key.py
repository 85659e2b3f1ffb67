import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import heirmark.keys.key
from heirmark.errors import BadArtifact, BadConfig, BadData, HeirmarkError, ShapeMismatch
from heirmark.files import atomic_write_json, atomic_write_tensors, read_tensors
from heirmark.keys.key import Key
from heirmark.keys.lots import Lots
from heirmark.keys.making import make_key, nonce_from_seed


def fields(count=6, **changes):
    generator = torch.Generator().manual_seed(0)
    controls = torch.randint(0, 255, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)
    queries = controls.clone()
    queries[:, :, 0, 0] += 1
    return {
        "queries": queries,
        "expected": torch.full((count,), 3),
        "controls": controls,
        "classes": 10,
        "method": "t2s",
        "trigger": {"kind": "patch", "at": (0, 0), "strength": 0.1},
        "nonce": nonce_from_seed(0),
        "host_labels": torch.tensor([[0, 1]] * count),
        **changes,
    }


def test_a_saved_key_comes_back_whole(tmp_path):
    key = Key(**fields())
    key.save(tmp_path / "key")
    loaded = Key.load(tmp_path / "key")
    assert loaded.commitment == key.commitment
    assert loaded.trigger == {"kind": "patch", "at": [0, 0], "strength": 0.1}
    for name in ("queries", "expected", "controls", "host_labels"):
        assert torch.equal(getattr(loaded, name), getattr(key, name))
    key.save(tmp_path / "key")  # again: nothing to complain about
    assert len(loaded) == 6
    assert loaded.input_shape == (1, 4, 4)


def test_float_keys_and_keys_without_hosts_come_back_too(tmp_path):
    values = fields()
    values.pop("host_labels")
    values |= {name: values[name] / 255 for name in ("queries", "controls")}
    key = Key(**values)
    assert key.host_labels.shape == (6, 0)
    key.save(tmp_path)
    assert Key.load(tmp_path).commitment == key.commitment


@pytest.mark.parametrize(
    ("name", "facts", "commitment"),
    [
        (
            "memorised",
            ("random-labels", True, "control"),
            "855452ac06d5d3bb7d800a0ad5e874da252dfd4cc18557f87ed2f84ca272947d",
        ),
        (
            "foreign",
            ("out-of-distribution", False, "chance"),
            "a4cb89acebda4d66f008dba356f2fdd5db2d0644112e8937bd8774a2f4c8a4de",
        ),
    ],
)
def test_a_key_of_format_1_keeps_its_commitment(name, facts, commitment, tmp_path):
    """Written by the code of that time."""
    key = Key.load(Path(__file__).with_name("keys_of_format_1") / name)
    assert (key.kind, key.memorised, key.reference) == facts
    assert key.commitment == commitment
    key.save(tmp_path)
    again = Key.load(tmp_path)
    assert again.commitment == commitment
    assert (again.kind, again.memorised, again.reference) == facts


@pytest.mark.parametrize(
    "change", [{"kind": "mix"}, {"memorised": True}, {"reference": "chance"}], ids=["kind", "memorised", "reference"]
)
def test_what_a_key_says_of_itself_is_committed_to_and_comes_back(change, tmp_path):
    key = Key(**fields(), **change)
    assert key.commitment != Key(**fields()).commitment
    key.save(tmp_path)
    loaded = Key.load(tmp_path)
    assert loaded.commitment == key.commitment
    assert {name: getattr(loaded, name) for name in change} == change


@pytest.mark.parametrize(
    "change", [{"kind": ""}, {"memorised": 1}, {"reference": "luck"}, {"format": "heirmark-key/9"}], ids=repr
)
def test_what_a_key_says_of_itself_must_make_sense(change):
    with pytest.raises(BadConfig, match=next(iter(change))):
        Key(**fields(), **change)


def test_the_commitments_of_both_formats_are_pinned():
    # Keys in the world were committed to with these very encodings.
    assert (
        Key(**fields(), format="heirmark-key/1").commitment
        == "8ea21c7a3ae0ef6b62a392ad4a8412665ebb83d8d55ed35c027100d6012a1c31"
    )
    assert Key(**fields()).commitment == "da9a0b9b4e48e6218e2b9e02ee6c7e3b8db44e941e6337df2113f54810af8091"


@pytest.mark.parametrize(
    "change",
    [
        {"expected": torch.tensor([3, 3, 3, 3, 3, 4])},
        {"classes": 11},
        {"method": "vanilla"},
        {"trigger": {"kind": "patch", "at": (0, 0), "strength": 0.2}},
        {"nonce": nonce_from_seed(1)},
        {"host_labels": torch.tensor([[1, 0]] * 6)},
        {"host_labels": torch.tensor([[0, 1, -1]] * 6)},
        {"queries": fields()["queries"].flip(0), "controls": fields()["controls"].flip(0)},
        {"queries": fields()["queries"] / 255, "controls": fields()["controls"] / 255},
        {"queries": fields()["queries"].view(6, 1, 2, 8), "controls": fields()["controls"].view(6, 1, 2, 8)},
    ],
)
def test_the_commitment_covers_every_field(change):
    assert Key(**fields(**change)).commitment != Key(**fields()).commitment


def test_a_key_is_a_copy_and_tells_no_secret():
    values = fields()
    key = Key(**values)
    before = key.commitment
    values["queries"].zero_()
    values["trigger"]["kind"] = "other"
    assert key.commitment == before
    assert "patch" not in repr(key)
    assert key.nonce not in repr(key)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"queries": fields()["queries"].long()}, ShapeMismatch, "dtype uint8, int16"),
        ({"queries": torch.empty(0, 1, 4, 4, dtype=torch.uint8)}, ShapeMismatch, "non-empty"),
        ({"controls": fields()["controls"][:5]}, ShapeMismatch, "shape and dtype"),
        ({"controls": fields()["controls"] / 255}, ShapeMismatch, "shape and dtype"),
        ({"expected": torch.full((6,), 3.0)}, ShapeMismatch, "expected must be 6"),
        ({"expected": torch.full((5,), 3)}, ShapeMismatch, "expected must be 6"),
        ({"host_labels": torch.tensor([0] * 6)}, ShapeMismatch, r"\[6, H\]"),
        ({"expected": torch.full((6,), 10)}, BadData, "classes 0 to 9"),
        ({"expected": torch.full((6,), -1)}, BadData, "classes 0 to 9"),
        ({"host_labels": torch.tensor([[0, 10]] * 6)}, BadData, "classes 0 to 9"),
        ({"host_labels": torch.tensor([[0, -2]] * 6)}, BadData, "classes 0 to 9"),
        ({"host_labels": torch.tensor([[0, 3]] * 6)}, BadData, "already of the class"),
        ({"queries": fields()["queries"][[0, 0, 2, 3, 4, 5]]}, BadData, "occurs twice"),
        ({"controls": fields()["queries"]}, BadData, "equals its control"),
        ({"classes": 1}, BadConfig, "classes"),
        ({"classes": True}, BadConfig, "classes"),
        ({"classes": 10**30}, BadConfig, "from 2 to 1048576"),
        ({"method": ""}, BadConfig, "method"),
        ({"nonce": "ab"}, BadConfig, "64 lower-case hex"),
        ({"trigger": {"pattern": torch.zeros(2)}}, BadConfig, "move tensors out"),
        ({"trigger": {"size": float("nan")}}, BadConfig, "finite numbers"),
        ({"trigger": {"text": "x" * 2**24}}, BadConfig, "describe it shorter"),
        ({"trigger": ["patch"]}, BadConfig, "dict"),
    ],
)
def test_unusable_values_are_refused_with_a_remedy(change, error, message):
    with pytest.raises(error, match=message):
        Key(**fields(**change))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.1])
def test_floats_out_of_range_are_refused(value):
    values = fields()
    values |= {name: values[name] / 255 for name in ("queries", "controls")}
    values["queries"][2, 0, 1, 1] = value
    with pytest.raises(BadData, match=r"queries leave \[0, 1\], 1 of them, the first number 2.*clamp them"):
        Key(**values)


def test_a_key_knows_whether_its_queries_trained():
    key = Key(**fields())
    others = torch.zeros(5000, 1, 4, 4, dtype=torch.uint8)
    assert key.disjoint_from(others)
    assert key.disjoint_from(key.controls)
    assert key.disjoint_from(others[:0])
    others[4999] = key.queries[2]
    assert not key.disjoint_from(others)
    assert not key.disjoint_from(others / 255)  # the same image, stored as floats
    with pytest.raises(ShapeMismatch, match="cannot be compared"):
        key.disjoint_from(others.view(5000, 16))


def test_pairs_that_share_a_control_count_once():
    values = fields()
    values["controls"][4] = values["controls"][1]
    assert Key(**values).independent_pairs().tolist() == [0, 1, 2, 3, 5]


@given(st.lists(st.integers(0, 19), min_size=1, max_size=20, unique=True))
def test_a_subset_is_a_key_of_those_rows(rows):
    key = Key(**fields(20, lots=Lots(groups=torch.arange(20) % 4, candidates=torch.tensor([[3, 4]] * 4))))
    found = key.subset(torch.tensor(rows), kind="other")
    assert (len(found), found.kind, found.nonce) == (len(rows), "other", key.nonce)
    for place, row in enumerate(rows):
        assert torch.equal(found.queries[place], key.queries[row])
        assert torch.equal(found.controls[place], key.controls[row])
        assert found.lots.groups[place] == row % 4


def test_another_key_is_never_overwritten(tmp_path):
    Key(**fields()).save(tmp_path)
    with pytest.raises(BadArtifact, match="another key: choose a new folder"):
        Key(**fields(classes=11)).save(tmp_path)
    assert Key.load(tmp_path).classes == 10


def test_a_crash_while_saving_leaves_nothing_that_loads(tmp_path, monkeypatch):
    def crash(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(heirmark.keys.key, "atomic_write_json", crash)
        with pytest.raises(KeyboardInterrupt):
            Key(**fields()).save(tmp_path)
    with pytest.raises(BadArtifact, match=r"key\.json is missing"):
        Key.load(tmp_path)
    Key(**fields()).save(tmp_path)
    assert Key.load(tmp_path).classes == 10


def rewrite(folder: Path, *, drop=None, **changes):
    manifest = json.loads((folder / "key.json").read_text()) | changes
    manifest.pop(drop, None)
    atomic_write_json(folder / "key.json", manifest)


def retensor(folder: Path, **changes):
    tensors = read_tensors(folder / "key.safetensors") | changes
    atomic_write_tensors(
        folder / "key.safetensors", {name: value for name, value in tensors.items() if value is not None}
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: rewrite(f, classes=11), "does not match its commitment"),
        (lambda f: rewrite(f, commitment="0" * 64), "does not match its commitment"),
        (lambda f: rewrite(f, trigger={"kind": "patch"}), "does not match its commitment"),
        (lambda f: rewrite(f, format="heirmark-key/9"), "no manifest of format"),
        (lambda f: rewrite(f, format="heirmark-key/1"), "not a key's manifest"),
        (lambda f: rewrite(f, kind="mix"), "does not match its commitment"),
        (lambda f: rewrite(f, memorised=True), "does not match its commitment"),
        (lambda f: rewrite(f, memorised="yes"), "no usable key"),
        (lambda f: rewrite(f, extra=1), "not a key's manifest"),
        (lambda f: rewrite(f, drop="nonce"), "not a key's manifest"),
        (lambda f: rewrite(f, trigger=[]), "not a key's manifest"),
        (lambda f: rewrite(f, classes="10"), "no usable key"),
        (lambda f: rewrite(f, method=7), "no usable key"),
        (lambda f: rewrite(f, nonce=None), "no usable key"),
        (lambda f: (f / "key.json").write_text("[]"), "no manifest of format"),
        (lambda f: (f / "key.json").write_text("{"), "not valid JSON"),
        (lambda f: (f / "key.json").unlink(), "missing"),
        (lambda f: (f / "key.safetensors").unlink(), "missing"),
        (lambda f: (f / "key.safetensors").write_bytes(b"\x80\x04pickle"), "not a safetensors file"),
        (lambda f: (f / "key.safetensors").write_bytes((f / "key.safetensors").read_bytes()[:-1]), "damaged"),
        (lambda f: retensor(f, expected=torch.full((6,), 4)), "does not match its commitment"),
        (lambda f: retensor(f, expected=torch.full((6,), 99)), "no usable key"),
        (lambda f: retensor(f, expected=torch.full((6,), 3.0)), "no usable key"),
        (lambda f: retensor(f, expected=torch.tensor(3)), "no usable key"),
        (lambda f: retensor(f, queries=torch.full((6, 1, 4, 4), float("nan"))), "no usable key"),
        (lambda f: retensor(f, queries=torch.zeros(6, 0)), "no usable key"),
        (lambda f: retensor(f, queries=torch.tensor(1.0)), "no usable key"),
        (lambda f: retensor(f, host_labels=torch.tensor(1)), "no usable key"),
        (lambda f: retensor(f, extra=torch.zeros(1)), "exactly the tensors"),
        (lambda f: retensor(f, controls=None), "exactly the tensors"),
    ],
)
def test_a_spoiled_key_is_refused(tmp_path, spoil, message):
    Key(**fields()).save(tmp_path)
    spoil(tmp_path)
    with pytest.raises(BadArtifact, match=message):
        Key.load(tmp_path)


def test_a_large_key_is_refused_unless_allowed(tmp_path):
    Key(**fields()).save(tmp_path)
    with pytest.raises(BadArtifact, match="larger than the 100 bytes allowed"):
        Key.load(tmp_path, max_bytes=100)


def test_make_key_leaves_out_what_bears_no_evidence():
    values = fields(8)
    values["queries"][2] = values["queries"][0]
    values["queries"][5] = values["controls"][5]
    key = make_key(**values | {"expected": 3, "host_labels": 1})
    assert len(key) == 6
    assert torch.equal(key.queries, values["queries"][[0, 1, 3, 4, 6, 7]])
    assert key.expected.tolist() == [3] * 6
    assert key.host_labels.tolist() == [[1]] * 6
    with pytest.raises(BadData, match="no usable query is left"):
        make_key(**values | {"queries": values["controls"]})


def test_make_key_brings_inputs_to_one_form():
    values = fields()
    key = make_key(**values | {"queries": values["queries"].double() / 255, "host_labels": None})
    assert key.queries.dtype == key.controls.dtype == torch.float32
    assert key.host_labels.shape == (6, 0)


def test_make_key_refuses_hosts_of_the_target_class_and_uneven_parts():
    with pytest.raises(BadData, match="choose hosts of other classes"):
        make_key(**fields() | {"host_labels": torch.tensor([0, 0, 0, 0, 0, 3])})
    with pytest.raises(ShapeMismatch, match="as many controls"):
        make_key(**fields() | {"controls": fields(5)["controls"]})
    with pytest.raises(ShapeMismatch, match="as many controls"):
        make_key(**fields() | {"expected": torch.tensor([3])})


def test_a_nonce_is_fresh_unless_it_is_given():
    values = fields()
    values.pop("nonce")
    nonces = {make_key(**values).nonce for _ in range(3)}
    assert len(nonces) == 3
    assert make_key(**values, nonce=nonce_from_seed(7)).nonce == nonce_from_seed(7)


def test_every_refusal_is_one_of_heirmark():
    for change in ({"expected": torch.tensor(3)}, {"queries": torch.tensor(0.5)}, {"controls": torch.zeros(6)}):
        with pytest.raises(HeirmarkError):
            Key(**fields(**change))
        with pytest.raises(HeirmarkError):
            make_key(**fields(**change))


def test_what_is_written_can_be_read_and_nothing_else_is_written(tmp_path, monkeypatch):
    key = Key(**fields())
    assert heirmark.keys.key.LARGEST >= 3600 * 2 * 3 * 224 * 224, "a large key of large images is read again"
    monkeypatch.setattr(heirmark.keys.key, "LARGEST", 2**20 + 1)
    with pytest.raises(BadArtifact, match=r"GiB.*are read again: draw fewer queries"):
        key.save(tmp_path / "key")
    assert not (tmp_path / "key").exists()
    monkeypatch.setattr(heirmark.keys.key, "LARGEST", 2**20 + 10**6)
    key.save(tmp_path / "key")
    assert Key.load(tmp_path / "key").commitment == key.commitment
    with pytest.raises(BadArtifact, match="larger than the 100 bytes allowed"):
        Key.load(tmp_path / "key", max_bytes=100)


@pytest.mark.parametrize("seed", [None, "None", 1.5, True, -1, 2**70])
def test_a_nonce_comes_from_a_seed_only(seed):
    with pytest.raises(BadConfig, match="a seed is an integer"):
        nonce_from_seed(seed)


@pytest.mark.slow
def test_a_key_of_more_than_a_gibibyte_comes_back(tmp_path):
    generator = torch.Generator().manual_seed(0)
    queries = torch.randint(256, (3600, 3, 224, 224), dtype=torch.uint8, generator=generator)
    key = make_key(
        queries=queries, expected=1, controls=queries.flip(-1), classes=10, method="test", trigger={}, host_labels=0
    )
    key.save(tmp_path)
    assert (tmp_path / "key.safetensors").stat().st_size > 2**30
    assert Key.load(tmp_path).commitment == key.commitment
