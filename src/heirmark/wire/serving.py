"""A model behind HTTP: the Open Inference Protocol, version 2, with JSON tensors, by FastAPI.

What it shows, and how often, is its black box's affair (:class:`heirmark.querying.blackbox.Api`).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from heirmark.errors import BadArtifact, BadConfig, BadData, BudgetExhausted, ShapeMismatch
from heirmark.files import MIB, parse_json
from heirmark.querying.blackbox import BlackBox
from heirmark.querying.oracle import ModelFault
from heirmark.tasks.media import Text
from heirmark.version import __version__

if TYPE_CHECKING:
    import fastapi

MODEL = "model"
MAX_BYTES = 64 * MIB
"""Of one question."""
_TYPES = {"FP32": torch.float32, "FP64": torch.float32, "UINT8": torch.uint8}


@dataclass(frozen=True, kw_only=True, eq=False)
class Served:
    """A model that is served.

    Attributes:
        box: answers, of a known input shape.
        name: of the model, the last part of its path.
        texts: reads its inputs, where they are texts; they come as BYTES then.
    """

    box: BlackBox
    name: str = MODEL
    texts: Text | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """What version 2 tells of a model."""
        assert self.box.input_shape is not None
        return {
            "name": self.name,
            "versions": ["1"],
            "platform": "heirmark",
            "inputs": [
                {"name": "input", "datatype": "FP32", "shape": [-1, *self.box.input_shape]}
                if self.texts is None
                else {"name": "input", "datatype": "BYTES", "shape": [-1]}
            ],
            "outputs": [_described(self._output, [-1], self.box.classes)],
        }

    @property
    def _output(self) -> str:
        return "label" if self.box.api.answers == "label" else "probabilities"

    def answer(self, asked: Any) -> dict[str, Any]:
        """The answer to a question of version 2.

        Args:
            asked: JSON, read already.

        Raises:
            BadConfig: when it is no such question.
            ShapeMismatch: when its numbers are not the model's inputs.
            BudgetExhausted: when no more is answered.
            ModelFault: when the model fails.
        """
        inputs = _inputs_of(asked) if self.texts is None else self._texts_of(asked, self.texts)
        wanted = asked.get("outputs") or [{"name": self._output}]
        if not isinstance(wanted, list) or any(
            not isinstance(w, Mapping) or w.get("name") != self._output for w in wanted
        ):
            raise BadConfig(f"the model has the output {self._output!r} alone")
        said = self.box.query(inputs)
        values = said.labels if said.probabilities is None else said.probabilities
        output = {**_described(self._output, [len(inputs)], self.box.classes), "data": values.flatten().tolist()}
        id_ = {"id": asked["id"]} if isinstance(asked.get("id"), str) else {}
        return {"model_name": self.name, "model_version": "1", **id_, "outputs": [output]}

    def _texts_of(self, asked: Any, texts: Text) -> Tensor:
        assert self.box.input_shape is not None
        shape, datatype, data = _given(asked)
        if datatype != "BYTES" or not isinstance(data, list) or not all(isinstance(each, str) for each in data):
            raise BadConfig("the input's datatype is BYTES, and its data are texts in a flat list")
        if not data or not isinstance(shape, list) or shape not in ([len(data)], [len(data), 1]):
            raise BadConfig(f"the input has {len(data)} texts, and its shape {shape} other ones")
        return texts.tokens(data, self.box.input_shape[0])


def make_app(served: Served) -> fastapi.FastAPI:
    """The application; one question is answered at a time.

    Raises:
        BadConfig: when FastAPI is not installed.
    """
    try:
        import fastapi
        from fastapi.concurrency import run_in_threadpool
        from fastapi.responses import JSONResponse
    except ImportError:
        raise BadConfig('a model is served by FastAPI: pip install "heirmark[serve]"') from None

    app = fastapi.FastAPI(title="heirmark", version=__version__, openapi_url=None)
    lock = threading.Lock()

    def told(status: int, words: str) -> JSONResponse:
        return JSONResponse({"error": words}, status_code=status)

    def only(name: str, then: Callable[[], Any]) -> Any:
        return then() if name == served.name else told(404, f"there is no model {name!r} here, but {served.name!r}")

    def work(body: bytes) -> JSONResponse:
        try:
            asked = parse_json(body, source="the question")
            with lock:
                return JSONResponse(served.answer(asked))
        except (BadArtifact, BadConfig, BadData, ShapeMismatch) as error:
            return told(400, str(error))
        except BudgetExhausted as error:
            return told(403, str(error))
        except ModelFault as error:
            return told(500, str(error))

    @app.get("/v2")
    def server() -> dict[str, Any]:
        return {"name": "heirmark", "version": __version__, "extensions": ["model_repository"]}

    @app.get("/v2/health/live")
    def live() -> dict[str, Any]:
        return {"live": True}

    @app.get("/v2/health/ready")
    def ready() -> dict[str, Any]:
        return {"ready": True}

    @app.post("/v2/repository/index")
    def index() -> list[dict[str, str]]:
        return [{"name": served.name, "version": "1", "state": "READY"}]

    @app.get("/v2/models/{name}/ready")
    @app.get("/v2/models/{name}/versions/1/ready")
    def model_ready(name: str) -> Any:
        return only(name, lambda: {"name": served.name, "ready": True})

    @app.get("/v2/models/{name}")
    @app.get("/v2/models/{name}/versions/1")
    def metadata(name: str) -> Any:
        return only(name, lambda: served.metadata)

    async def infer(name: str, request: fastapi.Request) -> Any:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MAX_BYTES:
                return told(413, f"a question has at most {MAX_BYTES:,} bytes: ask about fewer inputs at once")
        return await run_in_threadpool(work, bytes(body)) if name == served.name else only(name, dict)

    # Not by the annotations above, which are texts that are read where FastAPI's names are not.
    infer.__annotations__.update(name=str, request=fastapi.Request)
    for path in ("/v2/models/{name}/infer", "/v2/models/{name}/versions/1/infer"):
        app.post(path, response_model=None)(infer)
    return app


def _described(name: str, rows: list[int], classes: int) -> dict[str, Any]:
    if name == "label":
        return {"name": name, "datatype": "INT64", "shape": rows}
    return {"name": name, "datatype": "FP32", "shape": [*rows, classes]}


def _given(asked: Any) -> tuple[Any, Any, Any]:
    """Shape, datatype and data of the only input of a question."""
    inputs = asked.get("inputs") if isinstance(asked, Mapping) else None
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], Mapping):
        raise BadConfig("a question holds one input: {'inputs': [{'name', 'shape', 'datatype', 'data'}]}")
    shape, datatype, data = (inputs[0].get(part) for part in ("shape", "datatype", "data"))
    return shape, datatype, data


def _inputs_of(asked: Any) -> Tensor:
    """The tensor of a question.

    Raises:
        BadConfig: when there is none.
    """
    shape, datatype, data = _given(asked)
    if datatype not in _TYPES:
        raise BadConfig(f"the input's datatype is one of {', '.join(_TYPES)}")
    if (
        not isinstance(shape, list)
        or not shape
        or not all(isinstance(size, int) and 0 < size < 2**31 for size in shape)
    ):
        raise BadConfig("the input's shape is a list of positive whole numbers, the batch first")
    try:
        values = torch.tensor(data, dtype=_TYPES[datatype])
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise BadConfig("the input's data are numbers in a list, flat or nested as its shape is") from None
    if values.numel() != math.prod(shape):
        raise BadConfig(f"the input has {values.numel()} numbers, and its shape {shape} other ones")
    return values.reshape(shape)
