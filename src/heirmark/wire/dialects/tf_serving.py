"""The REST interface of TensorFlow Serving, which is version 1 of KServe's protocol too: ``v1/models/NAME:predict``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor

from heirmark.errors import BadConfig
from heirmark.wire.addresses import Address
from heirmark.wire.calling import Call
from heirmark.wire.dialects.base import Wish, named_rows, predictions_of, quietly
from heirmark.wire.layouts import Layout, fit_layout
from heirmark.wire.rows import Row

_MODEL = re.compile(r"(?P<model>/.*v1/models/[^/?:]+(?:/(?:versions|labels)/[^/?:]+)?)(?::predict|/metadata)?/?")
_SIGNATURE = "serving_default"


@dataclass(frozen=True, kw_only=True)
class TFServing:
    """A model behind TensorFlow Serving, or version 1 of KServe's protocol.

    Attributes:
        path: of the model.
        layout: of one input.
        output: name of what is read, where an answer has several.
    """

    name: ClassVar[str] = "tf-serving"
    one_by_one: ClassVar[bool] = False

    path: str
    layout: Layout
    output: str | None = None

    @classmethod
    def find(cls, address: Address, ask: Callable[[Call], Any], wish: Wish, *, named: bool) -> Self | None:
        """See :class:`heirmark.wire.dialects.base.Dialect`. Without metadata, as KServe has none, inputs are left as they lie."""
        found = _MODEL.fullmatch(address.path)
        if found is None:
            if named:
                raise BadConfig(f"{address} names no model: write its path to the end, .../v1/models/NAME")
            return None
        path = found["model"]
        claimed, datatype = _input_of(quietly(ask, Call(path=f"{path}/metadata")))
        layout = fit_layout(wish.shape, order=wish.order, claimed=claimed, datatype=datatype, texts=wish.texts)
        return cls(path=path, layout=layout, output=wish.output)

    def call(self, inputs: Tensor) -> Call:
        """See :class:`heirmark.wire.dialects.base.Dialect`."""
        return Call(path=f"{self.path}:predict", body={"instances": self.layout.listed(inputs)})

    def rows(self, answer: Any, count: int) -> list[Row]:
        """See :class:`heirmark.wire.dialects.base.Dialect`."""
        return named_rows(predictions_of(answer, "TensorFlow Serving"), count, self.output)


def _input_of(told: Any) -> tuple[list[int] | None, str | None]:
    """Shape of one input and name of its numbers, where metadata tell them.

    Raises:
        BadConfig: when the model takes several inputs.
    """
    for step in ("metadata", "signature_def", "signature_def"):
        told = told.get(step) if isinstance(told, Mapping) else None
    if not isinstance(told, Mapping) or not told:
        return None, None
    signature = told.get(_SIGNATURE) or next(iter(told.values()))
    inputs = signature.get("inputs") if isinstance(signature, Mapping) else None
    if not isinstance(inputs, Mapping) or not inputs:
        return None, None
    if len(inputs) > 1:
        raise BadConfig(f"the model takes {len(inputs)} inputs: ask it through a function of your own")
    (first,) = inputs.values()
    if not isinstance(first, Mapping):
        return None, None
    shape = first.get("tensor_shape")
    sizes = shape.get("dim") if isinstance(shape, Mapping) else None
    try:
        claimed = [int(size["size"]) for size in sizes][1:] if isinstance(sizes, list) else None
    except (KeyError, TypeError, ValueError):
        claimed = None
    datatype = first.get("dtype")
    return claimed or None, datatype if isinstance(datatype, str) else None
