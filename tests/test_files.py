import contextlib
import json
import os
import stat
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heirmark import files
from heirmark.errors import BadArtifact


def test_a_failed_write_keeps_the_old_content_and_leaves_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    files.atomic_write_bytes(path, b"old")

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        files.atomic_write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["report.json"]  # noqa: PTH208


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_private_files_are_for_the_owner_only(tmp_path):
    files.atomic_write_bytes(tmp_path / "secret", b"x", private=True)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_json_refuses_nan_both_ways(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.atomic_write_json(tmp_path / "x.json", {"p": float("nan")})
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", ["", "{", '{"a": NaN}', '{"a": Infinity}', '{"a": 1e999}', '{"a": 1, "a": 2}', "[" * 100_000, b"\xff"]
)
def test_loose_json_is_refused(text):
    with pytest.raises(BadArtifact, match="the manifest is not valid JSON"):
        files.parse_json(text, source="the manifest")


def test_reading_is_bounded_and_needs_a_regular_file(tmp_path):
    path = tmp_path / "big"
    path.write_bytes(b"x" * 11)
    assert len(files.read_bytes(path, max_bytes=11)) == 11
    with pytest.raises(BadArtifact, match="larger than the 10 bytes"):
        files.read_bytes(path, max_bytes=10)
    for not_a_file in (tmp_path, tmp_path / "absent"):
        with pytest.raises(BadArtifact, match="missing or not a regular file"):
            files.read_bytes(not_a_file, max_bytes=10)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a pipe")
def test_a_pipe_is_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadArtifact, match="not a regular file"):
        files.read_bytes(tmp_path / "pipe", max_bytes=10)


def test_tensors_survive_a_round_trip_and_give_the_same_bytes(tmp_path):
    shared = torch.arange(24.0).view(2, 3, 4)
    tensors = {
        "view": shared.transpose(0, 1),
        "tied": shared,
        "same": shared,
        "images": torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "empty": torch.empty(3, 0, dtype=torch.int64),
        "scalar": torch.tensor(True),
    }
    for name in ("one", "two"):
        files.atomic_write_tensors(tmp_path / name, tensors)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    read = files.read_tensors(tmp_path / "one", names=tensors)
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    with pytest.raises(BadArtifact, match="exactly the tensors view"):
        files.read_tensors(tmp_path / "one", names=["view"])


def _header(**entries):
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04\x95",
        b"PK\x03\x04" + b"\0" * 100,
        (2**63).to_bytes(8, "little") + b"{}",
        (100).to_bytes(8, "little") + b"{}",
        _header(x={"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}),
        _header(x={"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}),
        _header(x={"dtype": "F32", "shape": [5], "data_offsets": [0, 16]}) + b"\0" * 16,
        _header(x={"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]}) + b"\0" * 4,
        _header(x={"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}) + b"\0",
    ],
)
def test_damaged_tensor_files_are_refused(tmp_path, data):
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(BadArtifact, match="safetensors file"):
        files.read_tensors(tmp_path / "x.safetensors")


@given(st.binary(max_size=200), st.integers(0, 150))
def test_no_bytes_raise_anything_else(tmp_path_factory, noise, cut):
    path = tmp_path_factory.getbasetemp() / "noise.safetensors"
    good = _header(x={"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}) + b"\0" * 16
    for data in (noise, good[:cut] + noise):
        path.write_bytes(data)
        with contextlib.suppress(BadArtifact):
            files.read_tensors(path)
