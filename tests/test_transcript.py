"""Transcripts: what was written is read, and nothing else passes for it."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heirmark.errors import BadArtifact, BadConfig
from heirmark.querying.transcript import BEGINNING, Transcript, chained, read_transcript

HEAD = {"address": "https://a.example/v2/models/m"}
SAID = st.dictionaries(
    st.text(max_size=5), st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8))
)


def written(folder: Path, count: int = 4) -> Path:
    with Transcript(folder / "asked.jsonl", head=HEAD) as transcript:
        for number in range(count):
            transcript.append({"kind": "answer", "row": [number / 7, 0.25]})
    return folder / "asked.jsonl"


@settings(max_examples=25, deadline=None)
@given(st.lists(SAID, max_size=5), st.integers(0, 5))
def test_what_was_said_is_read_whether_or_not_it_was_written_in_one_go(said, pause):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "asked.jsonl"
        with Transcript(path, head=HEAD) as transcript:
            for one in said[:pause]:
                transcript.append(one)
        with Transcript(path, head=HEAD) as transcript:
            assert [entry.said for entry in transcript.found] == said[:pause]
            for one in said[pause:]:
                transcript.append(one)
        entries = read_transcript(path)
        assert [dict(entry.said) for entry in entries[1:]] == said
        before = BEGINNING
        for entry in entries:
            before = chained(before, entry.at, entry.said)
            assert entry.hash == before


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_no_byte_can_be_changed_and_no_line_left_out_or_moved(data):
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder))
        whole = path.read_bytes()
        lines = whole.splitlines(keepends=True)
        what = data.draw(st.sampled_from(["byte", "leave out", "swap", "cut"]))
        if what == "byte":
            place = data.draw(st.integers(0, len(whole) - 2))
            other = data.draw(st.integers(0, 255).filter(lambda value: value != whole[place]))
            changed = whole[:place] + bytes([other]) + whole[place + 1 :]
        elif what == "leave out":
            gone = data.draw(st.integers(0, len(lines) - 2))  # what is missing at the end only the last hash tells
            changed = b"".join(lines[:gone] + lines[gone + 1 :])
        elif what == "swap":
            first = data.draw(st.integers(0, len(lines) - 2))
            lines[first], lines[first + 1] = lines[first + 1], lines[first]
            changed = b"".join(lines)
        else:
            end = data.draw(st.integers(1, len(whole) - 1).filter(lambda end: whole[end - 1 : end] != b"\n"))
            changed = whole[:end]
        path.write_bytes(changed)
        with pytest.raises(BadArtifact):
            read_transcript(path)


def test_a_line_that_was_not_finished_is_dropped_on_going_on(tmp_path):
    path = written(tmp_path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"at":"2026-')
    with Transcript(path, head=HEAD) as transcript:
        assert len(transcript.found) == 2
        transcript.append({"kind": "answer", "row": [1]})
    assert path.read_bytes().startswith(whole)
    assert len(read_transcript(path)) == 4


def test_a_transcript_of_something_else_is_not_gone_on_with(tmp_path):
    path = written(tmp_path)
    with pytest.raises(BadConfig, match=r"something else \(address\)"):
        Transcript(path, head={"address": "https://b.example"})
    (tmp_path / "other.jsonl").write_text(json.dumps({"label": 1}) + "\n")
    with pytest.raises(BadArtifact, match="line 1 is no line of a transcript"):
        Transcript(tmp_path / "other.jsonl", head=HEAD)
    assert (tmp_path / "other.jsonl").read_text() == '{"label": 1}\n'


def test_two_processes_do_not_write_to_one_file(tmp_path):
    with Transcript(tmp_path / "asked.jsonl", head=HEAD), pytest.raises(BadConfig, match="another process"):
        Transcript(tmp_path / "asked.jsonl", head=HEAD)


def test_nobody_else_can_read_it(tmp_path):
    assert written(tmp_path).stat().st_mode & 0o077 == 0
