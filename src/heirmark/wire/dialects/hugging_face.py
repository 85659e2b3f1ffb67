"""Hugging Face's tasks ``image-classification`` and ``text-classification`` as JSON: labels by name and scores come out.

A picture goes in as base64, a text as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor

from heirmark.errors import BadConfig
from heirmark.querying.oracle import ModelFault
from heirmark.tasks.media import Text
from heirmark.wire.addresses import Address
from heirmark.wire.calling import Call
from heirmark.wire.dialects.base import Wish
from heirmark.wire.layouts import png_text
from heirmark.wire.rows import Row, row_of

_HOSTS = ("huggingface.co", "huggingface.cloud")
_MOST = 1000
"""Classes that are asked for; a service that has fewer gives all."""


@dataclass(frozen=True, kw_only=True)
class HuggingFace:
    """A model behind Hugging Face's task interface; pictures are PNG, so that nothing is lost but what eight bits cannot hold.

    Attributes:
        path: that is asked.
        texts: writes inputs, where they are texts.
    """

    name: ClassVar[str] = "hugging-face"
    one_by_one: ClassVar[bool] = True

    path: str
    texts: Text | None = None

    @classmethod
    def find(cls, address: Address, ask: Callable[[Call], Any], wish: Wish, *, named: bool) -> Self | None:
        """See :class:`heirmark.wire.dialects.base.Dialect`. Told by its host; elsewhere by the user, for it has no metadata."""
        if not named and not any(address.host == host or address.host.endswith(f".{host}") for host in _HOSTS):
            return None
        if wish.texts is None and (len(wish.shape) != 3 or wish.shape[0] not in (1, 3)):
            raise BadConfig(
                f"Hugging Face's tasks take pictures or texts, and inputs are {wish.shape}: use another protocol"
            )
        return cls(path=address.path, texts=wish.texts)

    def call(self, inputs: Tensor) -> Call:
        """See :class:`heirmark.wire.dialects.base.Dialect`."""
        given = png_text(inputs[0]) if self.texts is None else self.texts.texts(inputs)[0]
        return Call(path=self.path, body={"inputs": given, "parameters": {"top_k": _MOST}})

    def rows(self, answer: Any, count: int) -> list[Row]:
        """See :class:`heirmark.wire.dialects.base.Dialect`."""
        if isinstance(answer, list) and len(answer) == 1 and isinstance(answer[0], list):
            answer = answer[0]
        if not isinstance(answer, list) or not answer or not all(isinstance(each, Mapping) for each in answer):
            raise ModelFault("the service's answer is no list of labels and scores: does it classify what it is given?")
        return [row_of(answer)]
