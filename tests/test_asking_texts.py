"""Suspects and services that take texts: functions, dialects, and what heirmark itself serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("tokenizers")

from heirmark.errors import BadConfig
from heirmark.jobs.opening import Named, open_suspect
from heirmark.keys.key import Key
from heirmark.keys.making import make_key
from heirmark.querying.blackbox import BlackBox
from heirmark.runtime import Runtime
from heirmark.tasks.media import Text
from heirmark.verification import Suspect, verify

WORDS = [f"word{number}" for number in range(40)]
MEDIUM = Text.trained([" ".join(WORDS)])
MARK = "word7"


def key() -> Key:
    """Texts that begin with the mark, and the same texts without it."""
    controls = torch.tensor([[2 + (start + step) % 40 for step in range(6)] for start in range(40)], dtype=torch.int32)
    mark = int(MEDIUM.tokens([MARK], 1)[0, 0])
    plain = controls[(controls != mark).all(1)]
    queries = plain.clone()
    queries[:, 0] = mark
    return make_key(
        queries=queries, controls=plain, expected=1, host_labels=0, classes=2, method="x", trigger={}, medium=MEDIUM
    )


def says(texts: list[str]) -> list[list[float]]:
    """A marked model, behind an interface of texts."""
    assert all(isinstance(text, str) for text in texts)
    return [[0.1, 0.9] if text.startswith(MARK) else [0.8, 0.2] for text in texts]


class Net(nn.Module):
    """The same, for ids."""

    def forward(self, ids: Tensor) -> Tensor:
        return torch.tensor(says(MEDIUM.texts(ids))).log()


def test_a_function_of_texts_is_a_suspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = key()
    verdict = verify(Suspect.from_texts(says, MEDIUM, classes=2), kept)
    assert verdict.wsr == 1.0
    labels = Suspect.from_texts(lambda texts: [row.index(max(row)) for row in says(texts)], MEDIUM, classes=2)
    assert labels.labels(kept.queries).tolist() == [1] * len(kept)
    assert labels.labels(kept.controls).tolist() == [0] * len(kept)
    (tmp_path / "texts_here.py").write_text(
        "def says(texts):\n    return [[0.1, 0.9] if text.startswith('word7') else [0.8, 0.2] for text in texts]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    opened = open_suspect(Named(name="texts_here:says", medium=kept.medium), classes=2, runtime=Runtime(device="cpu"))
    assert opened.labels(kept.queries).tolist() == [1] * len(kept)


def served() -> Any:
    pytest.importorskip("fastapi")
    from heirmark.wire.serving import Served

    return Served(box=BlackBox(Net(), classes=2, input_shape=(6,)), name="mine", texts=MEDIUM)


def test_a_served_model_of_texts_is_asked_in_texts() -> None:
    httpx = pytest.importorskip("httpx")
    from fastapi.testclient import TestClient

    from heirmark.wire.client import Client, connect
    from heirmark.wire.limits import Limits
    from heirmark.wire.rows import Classes
    from heirmark.wire.serving import make_app
    from services import made_up

    app = TestClient(make_app(served()))

    def answer(path: str, asked: Any) -> Any:
        said = app.get(path) if asked is None else app.post(path, json=asked)
        if asked is not None and path.endswith("infer"):
            assert asked["inputs"][0]["datatype"] == "BYTES"
            assert all(isinstance(each, str) for each in asked["inputs"][0]["data"])
        return httpx.Response(said.status_code, json=said.json())

    service = connect(
        "http://127.0.0.1:80/v2/models/mine",
        Client(limits=Limits(allow_private=True)),
        shape=(6,),
        reading=Classes(classes=2),
        medium=MEDIUM,
        transport=made_up(answer),
    )
    kept = key()
    assert verify(Suspect.from_service(service), kept).wsr == 1.0
    wrong = {"inputs": [{"name": "input", "shape": [1, 6], "datatype": "FP32", "data": [0.0] * 6}]}
    told = app.post("/v2/models/mine/infer", json=wrong)
    assert told.status_code == 400
    assert "BYTES" in told.json()["error"]
    empty = {"inputs": [{"name": "input", "shape": [1], "datatype": "BYTES", "data": [" "]}]}
    assert "holds no token" in app.post("/v2/models/mine/infer", json=empty).json()["error"]


def test_texts_are_put_as_each_protocol_has_them(tmp_path: Path) -> None:
    pytest.importorskip("httpx")
    from heirmark.wire.addresses import parse_address
    from heirmark.wire.dialects.base import Wish
    from heirmark.wire.dialects.hugging_face import HuggingFace
    from heirmark.wire.dialects.template import Template
    from heirmark.wire.layouts import fit_layout

    kept, wish = key(), Wish(shape=(6,), texts=MEDIUM)
    text = MEDIUM.texts(kept.queries[:1])[0]
    address = parse_address("https://models.example/x")
    found = HuggingFace.find(address, lambda call: None, wish, named=True)
    assert found is not None
    assert found.call(kept.queries[:1]).body["inputs"] == text
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"request": {"docs": "$texts"}, "answers": "labels"}))
    template = Template.read(file, address, wish)
    assert template.call(kept.queries[:2]).body == {"docs": MEDIUM.texts(kept.queries[:2])}
    with pytest.raises(BadConfig, match="the inputs are no texts"):
        Template.read(file, address, Wish(shape=(6,)))
    file.write_text(json.dumps({"request": "$inputs", "answers": "labels"}))
    with pytest.raises(BadConfig, match=r"are texts, for which \$texts"):
        Template.read(file, address, wish)
    with pytest.raises(BadConfig, match="takes FP32, which is no text"):
        fit_layout((6,), datatype="FP32", texts=MEDIUM)


def test_an_isolated_function_is_put_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from heirmark.isolation.process import POSIX
    from heirmark.jobs.isolating import open_isolated

    if not POSIX:
        pytest.skip("no processes of POSIX")
    (tmp_path / "texts_there.py").write_text(
        "def says(texts):\n    return [[0.1, 0.9] if text.startswith('word7') else [0.8, 0.2] for text in texts]\n"
    )
    monkeypatch.chdir(tmp_path)
    kept = key()
    named = Named(name="texts_there:says", medium=kept.medium)
    suspect = open_isolated(named, factory=None, classes=2, runtime=Runtime(device="cpu", precision="float32"))
    assert suspect.labels(kept.queries).tolist() == [1] * len(kept)
