"""Services of every protocol, made up after their own descriptions: found, asked and read right, or refused."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

httpx = pytest.importorskip("httpx")

from heirmark.errors import BadConfig  # noqa: E402
from heirmark.querying.oracle import ModelFault  # noqa: E402
from heirmark.wire import calling  # noqa: E402
from heirmark.wire.addresses import parse_address  # noqa: E402
from heirmark.wire.client import Client, connect  # noqa: E402
from heirmark.wire.dialects.base import Wish  # noqa: E402
from heirmark.wire.dialects.hugging_face import HuggingFace  # noqa: E402
from heirmark.wire.dialects.mlflow import MLflow  # noqa: E402
from heirmark.wire.dialects.registry import DIALECTS  # noqa: E402
from heirmark.wire.dialects.template import Template, follow  # noqa: E402
from heirmark.wire.dialects.tf_serving import TFServing  # noqa: E402
from heirmark.wire.layouts import fit_layout  # noqa: E402
from heirmark.wire.limits import Limits  # noqa: E402
from heirmark.wire.rows import Classes  # noqa: E402
from services import made_up, public  # noqa: E402
from test_wire import JSON, MODEL, host_scores, images, v2_service  # noqa: E402

ROOT = "https://models.example"
NONE = httpx.Response(404, json={"detail": "Not Found"})
NAMES = {f"kind {label}": label for label in range(10)}


@pytest.fixture(autouse=True)
def found_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calling, "_look_up", public)


def open_(address: str, answer: Any, *, names: Any = None, **how: Any) -> Any:
    client = Client(limits=Limits(retries=0), **how)
    reading = Classes(classes=10, names=names or {})
    return connect(address, client, shape=(1, 4, 4), reading=reading, transport=made_up(answer))


def right(service: Any) -> bool:
    inputs = images(23)
    return torch.equal(service.labels(inputs), inputs[:, 0, 0, 0].long())


def tf_serving(path: str, asked: Any) -> Any:
    """As TensorFlow Serving describes it, channels last and bytes."""
    given = {
        "dtype": "DT_UINT8",
        "tensor_shape": {"dim": [{"size": "-1"}, {"size": "4"}, {"size": "4"}, {"size": "1"}]},
    }
    if path == "/v1/models/m/metadata":
        signatures = {"serving_default": {"inputs": {"x": given}, "outputs": {}}}
        return {"model_spec": {}, "metadata": {"signature_def": {"signature_def": signatures}}}
    if path != "/v1/models/m:predict":
        return NONE
    values = torch.tensor(asked["instances"])
    assert values.shape[1:] == (4, 4, 1)
    return {"predictions": host_scores(values.movedim(-1, 1) / 255).tolist()}


def mlflow(path: str, asked: Any) -> Any:
    if path in ("/ping", "/version"):
        return httpx.Response(200, text="\n" if path == "/ping" else "3.9.0")
    return {"predictions": host_scores(torch.tensor(asked["inputs"])).argmax(1).tolist()} if asked else NONE


def hugging_face(path: str, asked: Any) -> Any:
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(asked["inputs"]))) as picture:
        assert picture.size == (4, 4)
        label = picture.getpixel((0, 0))
    ranked = [{"label": f"kind {label}", "score": 0.8}, {"label": f"kind {(label + 1) % 10}", "score": 0.1}]
    return [ranked] if label % 2 else ranked


@pytest.mark.parametrize(
    ("address", "answer", "name"),
    [
        (MODEL, v2_service(host_scores), "v2"),
        (f"{ROOT}/v1/models/m", tf_serving, "tf-serving"),
        (f"{ROOT}/v1/models/m:predict", tf_serving, "tf-serving"),
        (ROOT, mlflow, "mlflow"),
        (f"{ROOT}/invocations", mlflow, "mlflow"),
        ("https://router.huggingface.co/hf-inference/models/somebody/net", hugging_face, "hugging-face"),
    ],
)
def test_what_a_service_speaks_is_found_out(address: str, answer: Any, name: str) -> None:
    names = NAMES if name == "hugging-face" else None
    for protocol in ("auto", name):
        service = open_(address, answer, names=names, protocol=protocol)
        assert service.dialect.name == name
        assert right(service)


def test_a_service_that_speaks_nothing_known_is_refused_and_the_names_are_listed() -> None:
    with pytest.raises(BadConfig, match=", ".join(DIALECTS)):
        open_(ROOT, lambda path, asked: NONE)
    with pytest.raises(BadConfig, match="did you mean 'mlflow'"):
        open_(ROOT, mlflow, protocol="mlfow")
    for protocol in ("v2", "tf-serving"):
        with pytest.raises(BadConfig, match="names no model"):
            open_(ROOT, lambda path, asked: NONE, protocol=protocol)
    with pytest.raises(BadConfig, match="tells nothing of a model"):
        open_(MODEL, lambda path, asked: NONE)


def test_of_several_models_none_is_guessed() -> None:
    def many(path: str, asked: Any) -> Any:
        return [{"name": "a"}, {"name": "b"}] if path == "/v2/repository/index" else NONE

    with pytest.raises(BadConfig, match="the models a, b"):
        open_(ROOT, many)


@pytest.mark.parametrize(
    ("said", "output"),
    [
        (lambda scores: scores.argmax(1).tolist(), None),
        (lambda scores: [{"probabilities": row, "embedding": [0.0] * 3} for row in scores.tolist()], None),
        (lambda scores: [{"a": row, "b": [0.0] * 3} for row in scores.tolist()], "a"),
        (lambda scores: {"a": scores.tolist(), "b": [0]}, "a"),
        (lambda scores: [{str(place): score for place, score in enumerate(row)} for row in scores.tolist()], None),
        (lambda scores: [{"label": int(label)} for label in scores.argmax(1)], None),
        (lambda scores: [[str(int(label))] for label in scores.argmax(1)], None),
    ],
)
def test_predictions_of_every_kind_are_read(said: Any, output: str | None) -> None:
    def answer(path: str, asked: Any) -> Any:
        return {"predictions": said(host_scores(torch.tensor(asked["inputs"])))}

    assert right(open_(f"{ROOT}/invocations", answer, protocol="mlflow", output=output))


def test_of_several_outputs_none_is_guessed() -> None:
    def answer(path: str, asked: Any) -> Any:
        return {"predictions": [{"a": [0.0] * 10, "b": [0.0] * 10} for _ in asked["inputs"]]}

    with pytest.raises(ModelFault, match="--output"):
        open_(f"{ROOT}/invocations", answer, protocol="mlflow").labels(images(2))
    with pytest.raises(ModelFault, match="no output 'c'"):
        open_(f"{ROOT}/invocations", answer, protocol="mlflow", output="c").labels(images(2))


def test_tritons_ranked_classes_are_read() -> None:
    def answer(path: str, asked: Any) -> Any:
        plain = v2_service(host_scores)(path, asked)
        if asked is None:
            return plain
        rows = torch.tensor(plain["outputs"][0]["data"]).reshape(-1, 10).argmax(1).tolist()
        data = [
            text for row in rows for text in (f"0.75:{row}:kind {row}", f"0.125:{(row + 1) % 10}:kind {(row + 1) % 10}")
        ]
        return {"outputs": [{"name": "y", "datatype": "BYTES", "shape": [len(rows), 2], "data": data}]}

    service = open_(MODEL, answer, names=NAMES)
    assert right(service)
    assert service.scores(images(4)).sum(1).tolist() == [0.875] * 4


# ---------------------------------------------------------------- templates


def template(folder: Path, **said: Any) -> str:
    (folder / "service.json").write_text(json.dumps(said))
    return str(folder / "service.json")


def test_a_template_describes_anything(tmp_path: Path) -> None:
    def answer(path: str, asked: Any) -> Any:
        assert path == "/classify"
        values = torch.tensor(asked["batch"]["images"]) / 255
        return {"results": [{"scores": row} for row in host_scores(values).tolist()], "took": 3}

    request = {"batch": {"images": "$inputs"}, "fast": True}
    file = template(tmp_path, request=request, answers="results.*.scores", path="/classify", bytes=True)
    service = open_(f"{ROOT}/anything", answer, protocol=file)
    assert service.dialect.name == "template"
    assert right(service)


def test_a_template_may_send_one_picture_and_get_names_apart(tmp_path: Path) -> None:
    def answer(path: str, asked: Any) -> Any:
        said = hugging_face(path, {"inputs": asked["image"][0]})
        ranked = said[0] if isinstance(said[0], list) else said
        return [{"names": [each["label"] for each in ranked], "p": [each["score"] for each in ranked]}]

    file = template(tmp_path, request={"image": ["$png"]}, answers="0.p", names="0.names")
    assert right(open_(ROOT, answer, names=NAMES, protocol=file))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"request": {}}, "request and answers"),
        ({"request": {}, "answers": ""}, "once, where inputs go"),
        ({"request": ["$input", "$inputs"], "answers": ""}, "once, where inputs go"),
        ({"request": "$input", "answers": 3}, "are texts"),
        ({"request": "$input", "answers": "", "adress": ""}, "request and answers"),
    ],
)
def test_templates_that_are_none(tmp_path: Path, said: Any, words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        open_(ROOT, lambda path, asked: NONE, protocol=template(tmp_path, **said))


@settings(max_examples=50)
@given(JSON, st.lists(st.sampled_from(["*", "0", "a", "label", "7"]), max_size=4))
def test_any_answer_to_any_dialect_is_read_or_refused(said: Any, steps: list[str]) -> None:
    layout = fit_layout((1, 4, 4))
    template = Template(
        path="/", request="$inputs", answers=".".join(steps), names=None, layout=layout, one_by_one=False
    )
    named = Template(path="/", request="$inputs", answers="", names=".".join(steps), layout=layout, one_by_one=False)
    dialects = (
        template,
        named,
        HuggingFace(path="/"),
        TFServing(path="/", layout=layout),
        MLflow(path="/", layout=layout),
    )
    for dialect in dialects:
        for answer in (said, {"predictions": said}, {"predictions": [said, said]}, [said, said]):
            with contextlib.suppress(ModelFault):
                assert isinstance(dialect.rows(answer, 2), list)


FACTS = st.recursive(
    st.none() | st.integers(-2, 9) | st.floats() | st.sampled_from(["", "FP32", "-1", "4", "x", "BYTES", "UINT8"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["name", "shape", "datatype", "dtype", "size"]), inner)
    ),
)
INPUT = st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "shape", "datatype", "dtype", "tensor_shape"), FACTS))


@settings(max_examples=100)
@given(
    st.one_of(FACTS, st.lists(INPUT, max_size=2), st.dictionaries(st.sampled_from(["a", "serving_default"]), INPUT)),
    FACTS,
)
def test_whatever_a_service_tells_of_itself_is_taken_or_refused(inputs: Any, more: Any) -> None:
    told = [inputs, {"inputs": inputs, "outputs": more}, {"inputs": more, "outputs": inputs}, {"models": inputs}]
    for step in (
        {"inputs": inputs},
        {"inputs": {"x": inputs}},
        {"inputs": {"x": {"dtype": more, "tensor_shape": {"dim": inputs}}}},
    ):
        told.append({"metadata": {"signature_def": {"signature_def": {"serving_default": step}}}})
    wish = Wish(shape=(1, 4, 4))
    for answer in told:
        for dialect in DIALECTS.values():
            for path in ("/v2/models/m", "/v1/models/m", "/"):
                with contextlib.suppress(BadConfig, ModelFault):
                    found = dialect.find(parse_address(ROOT).at(path), lambda call, said=answer: said, wish, named=True)
                    assert found is None or found.call(torch.rand(1, 1, 4, 4)).path.startswith("/")


@given(JSON, st.text(alphabet="*0a.", max_size=6))
def test_a_path_leads_somewhere_or_is_refused(said: Any, path: str) -> None:
    with contextlib.suppress(ModelFault):
        assert repr(follow([said], f"0.{path}")) == repr(follow(said, path)), "a nan is unlike itself"
