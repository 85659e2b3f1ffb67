"""The scoring server of MLflow: ``POST /invocations`` with tensors as nested lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor

from heirmark.wire.addresses import Address
from heirmark.wire.calling import Call
from heirmark.wire.dialects.base import Wish, is_there, named_rows, predictions_of
from heirmark.wire.layouts import Layout, fit_layout
from heirmark.wire.rows import Row

_END = "/invocations"


@dataclass(frozen=True, kw_only=True)
class MLflow:
    """A model behind MLflow's server. It tells nothing of its inputs; they are left as they lie unless ``--layout`` says more.

    Attributes:
        path: that is asked.
        layout: of one input.
        output: name of what is read, where an answer has several.
    """

    name: ClassVar[str] = "mlflow"
    one_by_one: ClassVar[bool] = False

    path: str
    layout: Layout
    output: str | None = None

    @classmethod
    def find(cls, address: Address, ask: Callable[[Call], Any], wish: Wish, *, named: bool) -> Self | None:
        """See :class:`heirmark.wire.dialects.base.Dialect`. A server tells its version and that it is there."""
        root = address.path.rstrip("/")
        if not root.endswith(_END):
            if not named and not all(is_there(ask, Call(path=f"{root}/{part}")) for part in ("ping", "version")):
                return None
            root += _END
        return cls(path=root, layout=fit_layout(wish.shape, order=wish.order, texts=wish.texts), output=wish.output)

    def call(self, inputs: Tensor) -> Call:
        """See :class:`heirmark.wire.dialects.base.Dialect`."""
        return Call(path=self.path, body={"inputs": self.layout.listed(inputs)})

    def rows(self, answer: Any, count: int) -> list[Row]:
        """See :class:`heirmark.wire.dialects.base.Dialect`; rows of a table with one column are what stands in it."""
        said = predictions_of(answer, "MLflow's server")
        if isinstance(said, list):
            said = [next(iter(row.values())) if isinstance(row, Mapping) and len(row) == 1 else row for row in said]
        return named_rows(said, count, self.output)
