"""The Open Inference Protocol, version 2, over HTTP: KServe, Triton, MLServer, OpenVINO, and ``heirmark serve``.

``GET v2/models/NAME`` tells inputs and outputs, ``POST v2/models/NAME/infer`` asks. Tensors are JSON here; the binary
extension is not used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeGuard
from urllib.parse import quote

from torch import Tensor

from heirmark.errors import BadConfig, printable
from heirmark.querying.oracle import ModelFault
from heirmark.wire.addresses import Address
from heirmark.wire.calling import Call
from heirmark.wire.dialects.base import Wish, chosen, quietly
from heirmark.wire.layouts import Layout, fit_layout
from heirmark.wire.rows import Row, row_of

_MODEL = re.compile(r"(?P<model>/.*v2/models/[^/?]+(?:/versions/[^/?]+)?)(?:/(?:infer|ready))?/?")
_RANKED = re.compile(r"(?P<score>-?[0-9.eE+-]+):(?P<place>[0-9]+)(?::(?P<name>.+))?")
"""What an output of Triton's classification extension holds."""


@dataclass(frozen=True, kw_only=True)
class OpenInference:
    """A model behind version 2.

    Attributes:
        path: of the model.
        input: name of its input.
        layout: of one input.
        datatype: of its numbers.
        output: name of what is read; None takes what the answer has.
    """

    name: ClassVar[str] = "v2"
    one_by_one: ClassVar[bool] = False

    path: str
    input: str
    layout: Layout
    datatype: str = "FP32"
    output: str | None = None

    @classmethod
    def find(cls, address: Address, ask: Callable[[Call], Any], wish: Wish, *, named: bool) -> Self | None:
        """See :class:`heirmark.wire.dialects.base.Dialect`. At a root the repository's index is asked for the only model."""
        found = _MODEL.fullmatch(address.path)
        path = found["model"] if found else _only_model(address, ask)
        if path is None:
            if named:
                raise BadConfig(f"{address} names no model: write its path to the end, .../v2/models/NAME")
            return None
        told = quietly(ask, Call(path=path))
        if not isinstance(told, Mapping) or not isinstance(told.get("inputs", []), list):
            if named or found:
                raise BadConfig(f"{address.at(path)} tells nothing of a model: check its name, and that it is ready")
            return None
        inputs = [each for each in told.get("inputs") or [] if isinstance(each, Mapping)]
        if len(inputs) > 1:
            names = ", ".join(printable(str(each.get("name"))) for each in inputs)[:200]
            raise BadConfig(f"the model takes several inputs ({names}): ask it through a function of your own")
        first = inputs[0] if inputs else {}
        shape, datatype = first.get("shape"), str(first.get("datatype") or ("BYTES" if wish.texts else "FP32"))
        claimed = shape[1:] if _is_shape(shape) else None
        layout = fit_layout(wish.shape, order=wish.order, claimed=claimed, datatype=datatype, texts=wish.texts)
        listed = told.get("outputs")
        outputs = [
            str(each.get("name")) for each in (listed if isinstance(listed, list) else []) if isinstance(each, Mapping)
        ]
        output = chosen(outputs, wish.output) if outputs else wish.output
        return cls(path=path, input=str(first.get("name") or "input"), layout=layout, datatype=datatype, output=output)

    def call(self, inputs: Tensor) -> Call:
        """See :class:`heirmark.wire.dialects.base.Dialect`."""
        if self.layout.texts is not None:
            shape, data = [len(inputs), *self.layout.shape], self.layout.listed(inputs)
        else:
            values = self.layout.arranged(inputs)
            shape, data = list(values.shape), values.flatten().tolist()
        given = {"name": self.input, "shape": shape, "datatype": self.datatype, "data": data}
        body: dict[str, Any] = {"inputs": [given]}
        if self.output is not None:
            body["outputs"] = [{"name": self.output}]
        return Call(path=f"{self.path}/infer", body=body)

    def rows(self, answer: Any, count: int) -> list[Row]:
        """See :class:`heirmark.wire.dialects.base.Dialect`."""
        said = answer.get("outputs") if isinstance(answer, Mapping) else None
        listed = said if isinstance(said, list) else []
        outputs = {str(each.get("name")): each for each in listed if isinstance(each, Mapping)}
        if not outputs:
            raise ModelFault("the service's answer has no outputs: does it speak version 2?")
        read = outputs[chosen(list(outputs), self.output)]
        shape, data = read.get("shape"), read.get("data")
        if not _is_shape(shape) or not isinstance(data, list) or shape[0] != count:
            raise ModelFault(f"the service answers a tensor of shape {printable(str(shape))[:60]} to {count} inputs")
        flat = _flat(data)
        width = math.prod(shape[1:])
        if len(flat) != count * width:
            raise ModelFault(
                f"the service answers {len(flat)} numbers in a tensor of shape {printable(str(shape))[:60]}"
            )
        return [_row(flat[row * width : (row + 1) * width]) for row in range(count)]


def _row(values: list[Any]) -> Row:
    if not values or not all(isinstance(value, str) for value in values):
        return row_of(values)
    ranked = [_RANKED.fullmatch(value) for value in values]
    if all(ranked):
        return row_of(
            [{"label": each["name"] or each["place"], "score": _score(each["score"])} for each in ranked if each]
        )
    return row_of(values)


def _score(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ModelFault(f"the service says {text!r} where a score is expected") from None


def _only_model(address: Address, ask: Callable[[Call], Any]) -> str | None:
    """The path of the only model of a server, where the address names none."""
    root = address.path.partition("?")[0].rstrip("/").removesuffix("/v2")
    for call in (Call(path=f"{root}/v2/repository/index", body={}), Call(path=f"{root}/v2/models")):
        told = quietly(ask, call)
        models = told.get("models") if isinstance(told, Mapping) else told
        if isinstance(models, list) and models:
            names = {str(each.get("name") if isinstance(each, Mapping) else each) for each in models}
            if len(names) > 1:
                raise BadConfig(
                    f"{address} has the models {', '.join(sorted(map(printable, names)))[:200]}: name one's path"
                )
            return f"{root}/v2/models/{quote(names.pop(), safe='')}"
    return None


def _is_shape(shape: Any) -> TypeGuard[list[int]]:
    return isinstance(shape, list) and bool(shape) and all(isinstance(size, int) for size in shape)


def _flat(data: list[Any]) -> list[Any]:
    """A tensor's numbers one after another; servers may nest them as its shape is."""
    while data and isinstance(data[0], list):
        if not all(isinstance(each, list) for each in data):
            raise ModelFault("the service answers a list that is ragged")
        data = [value for each in data for value in each]
    return data
