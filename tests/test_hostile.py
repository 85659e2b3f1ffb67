"""Every parser and every reader of answers, fuzzed: what is hostile is refused in one line or judged, and nothing else happens.

The inputs are those of ``benchmarks/hostile.py``, which tries many more of them.
"""

import contextlib
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from heirmark import files
from heirmark.configuration.encoding import from_json
from heirmark.data import pickles
from heirmark.data.idx import read_idx
from heirmark.data.root import read_bounded
from heirmark.errors import BadArtifact, BadConfig, BadData, HeirmarkError
from heirmark.evidence.case import Asked
from heirmark.evidence.disclosing import read_beacon, read_proof, read_registration
from heirmark.evidence.gathering import Model, gather
from heirmark.evidence.rechecking import recheck
from heirmark.jobs.drafting import Draft
from heirmark.jobs.verify import parse_names, parse_normalisation, parse_order
from heirmark.keys.signing import Signer
from heirmark.methods import Unmarked
from heirmark.querying.oracle import ModelFault
from heirmark.results.tails import MOST_TRIALS, agrees
from heirmark.results.verdict import Calibration, Verdict
from heirmark.verification import RankVerdict, SequentialVerdict, Suspect, verify
from heirmark.verification.answers import labels_from
from heirmark.verification.certifying import DrawnVerdict
from heirmark.verification.statistics import binomial_p

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import hostile
import hostile_files
import hostile_records
import hostile_suspects

pytestmark = pytest.mark.filterwarnings("ignore")  # suspects warn of what they like, and torch of what they do
FEW = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


@contextlib.contextmanager
def one_line():
    """What is refused here is refused in words that are fit to show."""
    words = ""
    try:
        yield
    except HeirmarkError as error:
        words = str(error)
    assert words.isprintable()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Sound folders, by the function that makes them."""
    made = {}

    def of(parser):
        if parser.make not in made:
            made[parser.make] = tmp_path_factory.mktemp("sound")
            parser.make(made[parser.make])
        return made[parser.make]

    return of


@pytest.mark.parametrize("parser", hostile_files.PARSERS, ids=lambda parser: parser.name)
@FEW
@given(rng=st.randoms())
def test_a_parser_takes_a_file_or_refuses_it_in_one_line(parser, rng, sound, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    parser.read(sound(parser))
    hostile_files.prepared(parser, folder, rng, sound(parser))
    with one_line():
        parser.read(folder)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("kind", [Verdict, SequentialVerdict, DrawnVerdict, RankVerdict, Calibration])
@settings(deadline=None)
@given(data=st.data())
def test_no_document_says_other_than_it_is(kind, data):
    """Any values under any of its names; what is taken says the same when it is written again."""
    sound = {"format": kind.format(), "key": "0" * 64, "level": 0.01, "queries": 1, "flags": [], "calibrated": True}
    sound |= {"attempts": 1, "registration": "0" * 64, "beacon": "0" * 64}
    names = [name for name in kind.__dataclass_fields__ if name not in sound]
    chosen = data.draw(st.dictionaries(st.sampled_from(names), VALUES, max_size=5))
    known = {name: value for name, value in sound.items() if name == "format" or name in kind.__dataclass_fields__}
    with contextlib.suppress(BadArtifact):
        read = kind.from_json(json.dumps({**known, **chosen}))
        assert kind.from_json(read.to_json()) == read


@FEW
@given(values=VALUES)
def test_what_lies_beside_a_key_is_read_or_refused_in_one_line(tmp_path_factory, values):
    folder = tmp_path_factory.getbasetemp() / "beside"
    folder.mkdir(exist_ok=True)
    readers = {
        "draft.json": lambda: Draft.open(folder, "17"),
        "draw.json": lambda: read_beacon(folder),
        "proof.json": lambda: read_proof(folder),
        "registration.json": lambda: read_registration(folder),
    }
    for name, read in readers.items():
        for said in (values, {"method": values, "seed": 0}, {"beacon": values}, {"index": 0, "path": values}):
            (folder / name).write_text(json.dumps(said))
            with one_line():
                read()


@settings(deadline=None)
@given(VALUES)
def test_no_values_are_taken_for_a_configuration_but_by_its_own_rules(values):
    with contextlib.suppress(BadConfig):
        from_json({"Unmarked": Unmarked}, values)


@settings(deadline=None)
@given(st.text(max_size=20) | st.from_regex(r"[-0-9,. e]{0,20}", fullmatch=True))
@example("9" * 5000)
@example("9" * 5000 + "=1,a=" + "9" * 5000)
def test_options_are_read_or_refused_in_one_line(text):
    for parse in (parse_order, parse_names, parse_normalisation):
        with one_line():
            parse(text)


# ---------------------------------------------------------------- answers


@settings(deadline=None)  # the first tensor on the meta device takes seconds
@given(rng=st.randoms(), rows=st.integers(0, 5))
def test_answers_are_labels_of_all_inputs_or_a_fault(rng, rows):
    labels = torch.arange(rows)
    with contextlib.suppress(ModelFault):
        try:
            said = hostile_suspects.shapes(labels, rng) if rows else torch.empty(0)
        except (IndexError, RuntimeError, ValueError):  # made of nothing
            return
        with contextlib.suppress(SystemExit, KeyError):  # of what is looked at, which Suspect.labels catches
            read = labels_from(said, rows, hostile_files.CLASSES)
            assert (read.dtype, tuple(read.shape), read.device.type) == (torch.int64, (rows,), "cpu")
            assert bool(((read >= 0) & (read < hostile_files.CLASSES)).all())


@pytest.mark.parametrize("kind", ["callable", "module", "black-box", "liar"])
@settings(FEW, max_examples=25)
@given(rng=st.randoms())
def test_a_hostile_suspect_is_judged(kind, rng):
    with torch.random.fork_rng():
        suspect = hostile_suspects.liar(hostile.KEY, rng) if kind == "liar" else hostile_suspects.suspect(kind, rng)
        outcome, where = hostile.ended(lambda: hostile.judged(suspect, sequentially=rng.random() < 0.3))
    allowed = ("INVALID", "NOT_ESTABLISHED", *(["MARKED"] if kind == "liar" else []))
    assert outcome in allowed, where


@FEW
@given(rng=st.randoms())
def test_a_hostile_suspect_is_on_the_record_as_it_answered(rng, tmp_path_factory):
    """Whatever it does, and where the asking is interrupted, too: who reads the record alone comes to the same verdict."""
    with torch.random.fork_rng():
        folder = tmp_path_factory.getbasetemp() / "bundle"
        outcome, where = hostile.ended(lambda: hostile_records.recorded(rng, folder))
    assert outcome in ("INVALID", "NOT_ESTABLISHED"), where


def test_memory_that_ran_out_is_on_the_record(tmp_path):
    def full(inputs):
        raise MemoryError("no room")

    suspect = Suspect.from_callable(full, classes=hostile_files.CLASSES)
    model = Model(told=Asked.of(suspect, "a:model"), suspect=suspect)
    gather(model, hostile_records.disclosed(), tmp_path, signer=Signer(bytes(32)))
    found = recheck(tmp_path)
    assert found.outcome == "INVALID"
    assert "memory ran out while the suspect was asked (MemoryError: no room)" in found.verdict.reason


@pytest.mark.parametrize(
    "form",
    [
        lambda labels: labels[::-1].copy()[::-1],
        lambda labels: labels.astype(">i8"),
        lambda labels: labels.astype(">u2"),
        lambda labels: np.eye(10)[labels].astype(np.longdouble),
        lambda labels: np.eye(10)[labels].astype(">f4")[:, ::-1].copy()[:, ::-1],
        lambda labels: np.ma.masked_array(labels, mask=False),
        lambda labels: list(labels),
    ],
)
def test_an_honest_array_is_read_however_it_lies_in_memory(form):
    assert labels_from(form(np.array([3, 1, 2])), 3, 10).tolist() == [3, 1, 2]


def test_masked_answers_are_none():
    with pytest.raises(ModelFault, match="masked"):
        labels_from(np.ma.masked_array([3, 1, 2], mask=[0, 1, 0]), 3, 10)


def test_a_module_that_resizes_what_it_is_given_answers_nothing():
    class Resizing(torch.nn.Module):
        def forward(self, inputs):
            inputs.resize_(0)
            return torch.zeros(0, 10)

    verdict = verify(Suspect.from_module(Resizing(), classes=10), hostile.KEY)
    assert (verdict.outcome, verdict.flags) == ("INVALID", ("suspect-failed",))
    with pytest.raises(ModelFault, match="answers to 4 inputs"):
        Suspect(ask=lambda inputs: torch.zeros(1), kind="callable", classes=10).labels(torch.zeros(4, 2))


# ---------------------------------------------------------------- files


def test_a_pickle_whose_names_are_tuples_of_tuples_is_refused_at_once():
    """Its sixty levels would take 2**60 steps to be hashed, or to be shown in an error."""
    with pytest.raises(ValueError, match="the name that is no text"):
        pickles.parse(hostile_files.tuples())
    state = b"q\x00h\x00\x86" * 60
    content = pickle.dumps({"data": np.zeros((2, 3), np.uint8)}, 2).replace(b"K\x02K\x03\x86", b")" + state)
    with pytest.raises(ValueError, match=r"dimensions that do not hold|broken"):
        pickles.parse(content)


def test_json_is_not_nested_deeper_than_anything_that_reads_it():
    assert files.parse_json("[" * 100 + "]" * 100, source="it")
    for text in ("[" * 101 + "]" * 101, '{"a":' * 101 + "1" + "}" * 101):
        with pytest.raises(BadArtifact, match="it is not valid JSON"):
            files.parse_json(text, source="it")


def test_zeros_are_not_read_to_be_refused(tmp_path, monkeypatch):
    """A sparse file of gigabytes takes no room on the disk."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(BadArtifact, match="another kind of file"):
        files.read_bytes(path, max_bytes=2**34, begins=b"{")
    assert len(read_bounded(path, most=2**34, sign=b"IM", at=126)) <= 1024
    monkeypatch.setattr(files, "read_bytes", lambda *given, **options: pytest.fail("it was read"))
    with pytest.raises(BadArtifact, match="not a safetensors file"):
        files.read_tensors(path, max_bytes=2**34)


def test_a_pipe_is_no_data_set(tmp_path):
    os = pytest.importorskip("posix")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadData, match="not a regular file"):
        read_idx(tmp_path / "pipe", dims=3)


# ---------------------------------------------------------------- verdicts


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 400), st.floats(0, 1))
def test_a_p_value_belongs_to_its_counts(hits, more, rate):
    p_value = binomial_p(hits, hits + more, rate)
    assert agrees(p_value, hits, hits + more, rate)
    assert not agrees(p_value * 0.99, hits, hits + more, rate) or p_value < 1e-300
    assert not agrees(0.0, hits, hits + more, rate)


def test_counts_that_no_key_has_are_not_summed():
    assert not agrees(0.5, 10**300, 2 * 10**300, 0.5)
    assert agrees(binomial_p(10**6, MOST_TRIALS, 0.1), 10**6, MOST_TRIALS, 0.1)


def test_a_verdict_with_a_p_value_of_its_own_is_refused():
    honest = verify(Suspect.from_callable(hostile_files.honest, classes=10), hostile.KEY, accept="assumed").to_dict()
    forged = {**honest, "outcome": "MARKED", "p_value": 1e-300, "p_binomial": 1e-300, "p_matched": 1e-300, "flags": []}
    with pytest.raises(BadArtifact, match="not those of its counts"):
        Verdict.from_json(json.dumps(forged))


# ---------------------------------------------------------------- the benchmark


@pytest.mark.parametrize("family", ["files", "frames", "command line"])
def test_what_ends_badly_is_counted(family, tmp_path):
    for parser in hostile_files.PARSERS[:2]:
        (tmp_path / f"sound {parser.name}").mkdir()
        parser.make(tmp_path / f"sound {parser.name}")
    found = hostile.measure(family, 20, 1, tmp_path)
    assert found["failures"] == []
    assert set(found["outcomes"]) <= set(hostile.WELL)


def test_a_traceback_is_one():
    def broken():
        raise KeyError("mine")

    outcome, where = hostile.ended(broken)
    assert (outcome, where.split(":")[0]) == ("traceback", "KeyError in test_hostile.py")
    assert hostile.ended(lambda: hostile.judged(Suspect.from_callable(lambda x: 7 / 0, classes=10)))[0] == "INVALID"
