"""Models in processes of their own: what is said between the two, and what becomes of those that hang, swell, crash or lie."""

import contextlib
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from heirmark.errors import BadArtifact, BadConfig
from heirmark.files import GIB, MIB
from heirmark.isolation import frames
from heirmark.isolation.child import answered, serve
from heirmark.isolation.frames import Frame, Gone, Kind, Silence, frame_of
from heirmark.isolation.limits import ProcessLimits
from heirmark.isolation.process import Isolated
from heirmark.jobs.isolating import open_isolated
from heirmark.jobs.opening import Named, open_suspect
from heirmark.models import ModelSpec, Net
from heirmark.models.storage import save_model
from heirmark.querying.oracle import ModelFault
from heirmark.runtime import Runtime
from heirmark.verification import Suspect, verify
from strangers import sleeps
from test_verify import CLASSES, make

SHORT = ProcessLimits(seconds=1, memory=2 * GIB)
LONG = replace(SHORT, seconds=60)
DTYPES = st.sampled_from([dtype.str for dtype in frames.DTYPES])


@given(
    arrays.arrays(DTYPES, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)), st.integers(0, 2**40)
)
def test_what_is_said_arrives(values, most):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        frames.send(ours, Frame(kind=Kind.ASK, values=values, most=most))
        came = frames.receive(theirs, most=values.nbytes, until=time.monotonic() + 60)
    assert (came.kind, came.most, came.values.dtype.str) == (Kind.ASK, most, values.dtype.str)
    assert came.values.tobytes() == values.tobytes()
    assert came.values.shape == values.shape


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, 96), st.integers(0, 64))
def test_no_bytes_are_taken_for_more_than_they_are(noise, cut, most):
    """Whatever comes is a frame within the bound, or is refused as none; nothing is waited for once the other side is gone."""
    good = frames.header_of(Frame(kind=Kind.ANSWER, values=np.zeros(3, "<f4"))) + bytes(12)
    for data in (noise, good[:cut] + noise):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(data)
            ours.shutdown(socket.SHUT_WR)
            with contextlib.suppress(Gone):
                assert frames.receive(theirs, most=most).values.nbytes <= most


def test_a_frame_is_bounded_before_it_is_read():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(frames.header_of(Frame(kind=Kind.ANSWER, values=np.zeros(8))))
        with pytest.raises(Gone, match="64 bytes came where 63 are allowed"):
            frames.receive(theirs, most=63)
    with pytest.raises(ValueError, match="9 dimensions"):
        frames.header_of(Frame(kind=Kind.ANSWER, values=np.zeros([1] * 9)))
    with pytest.raises(BadArtifact, match="no object"):
        _ = Frame(kind=Kind.FACTS, values=np.frombuffer(b"[1]", np.uint8)).facts


def test_nobody_is_waited_for_without_end():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(Silence):
            frames.receive(ours, most=10, until=time.monotonic() + 0.01)
        with pytest.raises(Silence):  # that is not taken, either
            frames.send(ours, Frame(kind=Kind.ASK, values=np.zeros(2**24)), until=time.monotonic() + 0.05)


def test_a_child_serves_until_its_parent_leaves(monkeypatch):
    monkeypatch.setattr("signal.alarm", lambda seconds: None)  # it is this process, here
    monkeypatch.setattr("heirmark.isolation.child.limit", lambda memory: None)
    ours, theirs = socket.socketpair()
    ended = []

    def child():
        with theirs, pytest.raises(Gone):
            serve(theirs)
        ended.append(True)

    thread = threading.Thread(target=child)
    thread.start()
    until = time.monotonic() + 60
    first = {"opener": "strangers:opened", "options": {"a": 1, "b": 2}, "seconds": 1.0, "memory": 0}
    frames.send(ours, frame_of(Kind.FACTS, first))
    assert frames.receive(ours, most=1000, until=until).facts == {"classes": CLASSES, "sum": 3}
    for rows, kind in ((np.ones((2, 3)), Kind.ANSWER), (np.ones(3), Kind.FAULT)):
        frames.send(ours, Frame(kind=Kind.ASK, values=rows, most=100))
        assert frames.receive(ours, most=1000, until=until).kind == kind
    ours.close()
    thread.join(60)
    assert ended


def exits(inputs):
    raise SystemExit(0)


def swells(inputs):
    raise MemoryError


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (lambda inputs: inputs, Kind.ANSWER, None),
        (lambda inputs: inputs.tolist(), Kind.ANSWER, None),
        (lambda inputs: inputs.astype(np.longdouble), Kind.ANSWER, None),
        (lambda inputs: np.zeros(10 * MIB), Kind.FAULT, "83,886,080 bytes were answered to 4 inputs"),
        (lambda inputs: [object()], Kind.FAULT, "object values"),
        (lambda inputs: inputs + 1j, Kind.FAULT, "complex128 values"),
        (lambda inputs: [[1], [1, 2]], Kind.FAULT, "ValueError"),
        (exits, Kind.FAULT, "SystemExit"),
        (swells, Kind.MEMORY, "MemoryError"),
    ],
)
def test_whatever_a_model_says_becomes_one_frame(answer, kind, words):
    said = answered(answer, Frame(kind=Kind.ASK, values=np.zeros(4), most=1000))
    assert said.kind == kind
    frames.header_of(said)
    if words:
        assert words in said.facts["words"]


# ---------------------------------------------------------------- in true processes


@pytest.fixture(scope="module")
def child():
    made = Isolated("strangers:sleeper", {}, limits=LONG, name="mine", largest=lambda facts: facts["classes"])
    yield made
    made.close()


@pytest.mark.parametrize(
    ("what", "words"), [(3, "ended or did not keep"), (4, "ended or did not keep"), (5, "ended or did not keep")]
)
def test_a_model_that_crashes_or_talks_out_of_turn_is_ended_and_begun_again(child, what, words):
    with pytest.raises(ModelFault, match=words):
        child(np.full(2, what))
    assert child(np.zeros(2)).tolist() == [0, 0]


def test_a_model_sees_no_secret_of_the_environment(monkeypatch):
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "HEIRMARK_STORE", "MY_PATH"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    made = Isolated("strangers:nosy", {}, limits=LONG, name="mine", largest=lambda facts: 8)
    made.close()
    seen = set(made.facts["seen"])
    assert {"OMP_NUM_THREADS", "PATH", "PYTHONPATH"} <= seen
    assert not seen & {"HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "HEIRMARK_STORE", "MY_PATH"}


def test_threads_get_the_answers_to_their_own_inputs(child):
    """As those of a server do."""
    with ThreadPoolExecutor(4) as threads:
        rows = [np.full((2, 3), float(number)) for number in range(10, 60)]
        assert all(np.array_equal(said, row) for said, row in zip(threads.map(child, rows), rows, strict=True))


def test_a_model_that_swells_is_told_so(child):
    with pytest.raises(MemoryError, match="mine needs more than 2 GiB"):
        child(np.full(2, 2))


def test_a_model_that_sleeps_is_not_waited_for(child):
    child.limits = replace(SHORT, seconds=0.5)
    try:
        child(np.zeros(2))
        with pytest.raises(ModelFault, match=r"longer than 0.5 seconds to answer 2 inputs"):
            child(np.full(2, 1))
        child.left = 0.0
        with pytest.raises(ModelFault, match="to answer all that it was asked"):
            child(np.zeros(2))
    finally:
        child.limits, child.left = LONG, 3600.0


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("config", BadConfig, "ask otherwise"),
        ("own", BadArtifact, "mine cannot be opened: ZeroDivisionError: by .*nothing"),
    ],
)
def test_what_cannot_be_opened_says_why(how, error, words):
    with pytest.raises(error, match=words) as raised:
        Isolated("strangers:broken", {"how": how}, limits=LONG, name="mine", largest=lambda facts: 8)
    assert str(raised.value).isprintable()


# ---------------------------------------------------------------- code of others


@pytest.mark.parametrize(
    ("name", "outcome", "words"),
    [
        ("leaves", "INVALID", "ended or did not keep"),
        pytest.param("honest", "NOT_ESTABLISHED", "", marks=pytest.mark.slow),
        pytest.param("patches", "INVALID", "answers everything alike", marks=pytest.mark.slow),
        pytest.param("hoards", "INVALID", "memory ran out", marks=pytest.mark.slow),
    ],
)
def test_code_of_others_is_judged_from_outside(name, outcome, words):
    named = Named(name=f"strangers:{name}", limits=LONG)
    suspect = open_isolated(named, factory=None, classes=CLASSES, runtime=Runtime(device="cpu"))
    assert (suspect.kind, suspect.model) == ("callable", None)
    verdict = verify(suspect, make(40))
    assert (verdict.outcome, verdict.queries) == (outcome, 80 if name != "hoards" else verdict.queries)
    assert words in verdict.reason


@pytest.mark.slow  # four processes that import torch
def test_a_folder_of_others_is_judged_from_outside_as_it_would_be_here(tmp_path):
    spec = ModelSpec(name="naivenet", input_shape=(1, 16, 16), classes=6, options=(("hidden", 16), ("width", 4)))
    save_model(Net(model=spec.build(seed=0), spec=spec), tmp_path)
    runtime, inputs = Runtime(device="cpu"), torch.rand(9, 1, 16, 16)
    named = Named(name=str(tmp_path), normalise=([0.5], [0.25]), limits=LONG)
    inside = open_suspect(named, classes=6, runtime=runtime)
    outside = open_isolated(named, factory=None, classes=6, runtime=runtime)
    assert (outside.kind, outside.input_shape, outside.normalise) == ("module", (1, 16, 16), named.normalise)
    assert torch.equal(outside.labels(inputs), inside.labels(inputs))
    named = replace(named, order=(0, 1, 2, 3, 5, -1))
    renamed = open_isolated(named, factory=None, classes=6, runtime=runtime)
    assert renamed.order == named.order
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(BadArtifact, match="not a safetensors file"):
        open_isolated(named, factory=None, classes=6, runtime=runtime)


@pytest.mark.slow
def test_the_command_line_trusts_no_exit_code_of_a_suspects(tmp_path):
    """``os._exit(0)`` in the verifier's own process would say MARKED to whoever called it; and importing is running, too."""
    make(40).save(tmp_path)
    (tmp_path / "ends.py").write_text("import os\nos._exit(0)\n")
    command = [sys.executable, "-m", "heirmark", "verify", "--key", str(tmp_path), "--device", "cpu", "--isolate"]
    for suspect in ("strangers:leaves", "ends:model"):
        ended = subprocess.run([*command, suspect], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ended.returncode == 1
        assert "the process of" in ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_function_that_sleeps_is_not_waited_for():
    suspect = Suspect.from_callable(sleeps, classes=CLASSES, timeout=0.05)
    verdict = verify(suspect, make(40))
    assert (verdict.outcome, verdict.flags, verdict.queries) == ("INVALID", ("suspect-failed",), 80)
    assert "longer than 0.05 seconds to answer 80 inputs" in verdict.reason


# ---------------------------------------------------------------- ONNX files


def graph(*nodes, weights=(), batch="N", out=("N", CLASSES)):
    """An ONNX file that takes ``x [B, 1, 4, 4]`` and says ``y``."""
    helper = pytest.importorskip("onnx").helper
    made = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", 1, [batch, 1, 4, 4])],
        [helper.make_tensor_value_info("y", 1, list(out))],
        list(weights),
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def endless():
    """A loop of 2**62 rounds."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["a", "a"], ["b"])],
        "body",
        [
            helper.make_tensor_value_info("i", 7, []),
            helper.make_tensor_value_info("go", 9, []),
            helper.make_tensor_value_info("a", 1, None),
        ],
        [helper.make_tensor_value_info("on", 9, []), helper.make_tensor_value_info("b", 1, None)],
    )
    return graph(
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Loop", ["rounds", "yes", "flat"], ["y"], body=body),
        weights=[helper.make_tensor("rounds", 7, [], [2**62]), helper.make_tensor("yes", 9, [], [True])],
    )


def swelling(count):
    """A constant of so many numbers, made when it is asked."""
    helper = pytest.importorskip("onnx").helper
    return graph(
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["rows"]),
        helper.make_node("Mul", ["rows", "many"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["sum"]),
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Add", ["flat", "sum"], ["y"]),
        weights=[
            helper.make_tensor(name, 7, [1], [value]) for name, value in (("zero", 0), ("one", 1), ("many", count))
        ],
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (endless, "longer than 1 seconds to answer"),
        (lambda: swelling(2 * 10**9), "needs more than 2 GiB of memory"),
        (lambda: swelling(2**40), "fails|needs more|ended"),
        (
            lambda: graph(pytest.importorskip("onnx").helper.make_node("Flatten", ["x"], ["y"]), batch=2**31),
            "needs more|fails",
        ),
    ],
)
def test_an_onnx_file_without_bounds_is_invalid(tmp_path, data, words):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    path.write_bytes(data())
    suspect = Suspect.from_onnx(path, classes=CLASSES, limits=SHORT)
    verdict = verify(suspect, make(40))
    assert verdict.outcome == "INVALID"
    assert re.search(words, verdict.reason)


def test_a_file_that_is_never_loaded_is_refused(tmp_path):
    """Folding constants of this size takes minutes; the limits hold while a file is loaded, too."""
    helper = pytest.importorskip("onnx").helper
    pytest.importorskip("onnxruntime")
    square = helper.make_tensor("side", 7, [2], [6000, 6000])
    nodes = [helper.make_node("ConstantOfShape", ["side"], ["m0"])]
    nodes += [helper.make_node("MatMul", [f"m{n}", "m0"], [f"m{n + 1}"]) for n in range(9)]
    nodes += [helper.make_node("ReduceSum", ["m9"], ["sum"]), helper.make_node("Add", ["x", "sum"], ["y"])]
    path = tmp_path / "model.onnx"
    path.write_bytes(graph(*nodes, weights=[square]))
    with pytest.raises(BadArtifact, match="longer than 1 seconds to be opened"):
        Suspect.from_onnx(path, classes=CLASSES, limits=SHORT)


def test_an_honest_file_is_asked_again_after_its_process_ended(tmp_path):
    helper = pytest.importorskip("onnx").helper
    pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    path.write_bytes(graph(helper.make_node("Flatten", ["x"], ["y"]), out=("N", 16)))
    suspect = Suspect.from_onnx(path)
    inputs = torch.rand(5, 1, 4, 4)
    assert torch.equal(suspect.labels(inputs), inputs.flatten(1).argmax(1))
    path.write_bytes(b"gone")  # it is read once
    assert torch.equal(suspect.labels(inputs), inputs.flatten(1).argmax(1))
