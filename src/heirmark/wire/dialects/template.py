"""Anything else that takes JSON and gives JSON, described by a file: what is sent, and where in the answer the answers stand.

    {"request": {"images": "$inputs"}, "answers": "results.*.probabilities"}

In ``request``, any JSON, ``"$inputs"`` stands for all inputs as nested lists and ``"$pngs"`` for all as PNG in base64;
``"$input"`` and ``"$png"`` for one, and then a call asks about one. ``"$texts"`` and ``"$text"`` do so for texts. ``answers``
is a path into the answer: names and places with
dots, ``*`` for each of a list. It leads to one thing for each input: scores, a label, a name, or names with scores. ``names``
beside it leads to names of the scores. ``path`` is asked in place of the address's own; ``bytes``: numbers are 0 to 255.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor

from heirmark.errors import BadArtifact, BadConfig, printable
from heirmark.files import MIB, read_json
from heirmark.querying.oracle import ModelFault
from heirmark.wire.addresses import Address
from heirmark.wire.calling import Call
from heirmark.wire.dialects.base import Wish, rows_of
from heirmark.wire.layouts import Layout, fit_layout, png_text
from heirmark.wire.rows import Row, row_of

_ALL, _ONE = ("$inputs", "$pngs", "$texts"), ("$input", "$png", "$text")
_KNOWN = {"request", "answers", "names", "path", "bytes"}


@dataclass(frozen=True, kw_only=True)
class Template:
    """A service that a user describes.

    Attributes:
        path: that is asked.
        request: JSON with a mark where inputs go.
        answers: path to what is said.
        names: path to the names of scores; None where they have none, or bring them along.
        layout: of one input.
        one_by_one: whether a call asks about one input.
    """

    name: ClassVar[str] = "template"

    path: str
    request: Any
    answers: str
    names: str | None
    layout: Layout
    one_by_one: bool

    @classmethod
    def read(cls, file: Path, address: Address, wish: Wish) -> Self:
        """A template from its file.

        Raises:
            BadArtifact: when the file is missing or no JSON.
            BadConfig: when it is no template.
        """
        said = read_json(file, max_bytes=MIB)
        if not isinstance(said, Mapping) or not {"request", "answers"} <= set(said) <= _KNOWN:
            raise BadConfig(f"{file} is no template: it has request and answers, and perhaps names, path and bytes")
        texts = [said["answers"], said.get("names", ""), said.get("path", "/")]
        if not all(isinstance(text, str) for text in texts) or not isinstance(said.get("bytes", False), bool):
            raise BadConfig(f"{file}: answers, names and path are texts, and bytes is true or false")
        try:
            marks = _marks(said["request"])
        except RecursionError:
            raise BadArtifact(f"{file} is nested too deeply: write it flatter") from None
        if len(marks) != 1:
            raise BadConfig(f"{file}: the request holds one of {', '.join((*_ALL, *_ONE))} once, where inputs go")
        if ("text" in marks[0]) != (wish.texts is not None):
            told = "are texts, for which $texts and $text stand" if wish.texts else "are no texts"
            raise BadConfig(f"{file}: the request holds {marks[0]}, and the inputs {told}")
        datatype = "UINT8" if said.get("bytes") else None
        layout = fit_layout(wish.shape, order=wish.order, datatype=None if wish.texts else datatype, texts=wish.texts)
        return cls(
            path=said.get("path", address.path),
            request=said["request"],
            answers=said["answers"],
            names=said.get("names"),
            layout=layout,
            one_by_one=marks[0] in _ONE,
        )

    def call(self, inputs: Tensor) -> Call:
        """See :class:`heirmark.wire.dialects.base.Dialect`."""
        mark = _marks(self.request)[0]
        given: Any = [png_text(each) for each in inputs] if "png" in mark else self.layout.listed(inputs)
        return Call(path=self.path, body=_filled(self.request, given[0] if mark in _ONE else given))

    def rows(self, answer: Any, count: int) -> list[Row]:
        """See :class:`heirmark.wire.dialects.base.Dialect`."""
        said = follow(answer, self.answers)
        said = [said] if self.one_by_one else said
        if self.names is None:
            return rows_of(said, count)
        names = follow(answer, self.names)
        names = [names] if self.one_by_one else names
        if not isinstance(said, list) or not isinstance(names, list) or not len(said) == len(names) == count:
            raise ModelFault(f"the service answers other than {count} inputs, or names other than it scores")
        rows = []
        for scores, called in zip(said, names, strict=True):
            if not isinstance(scores, list) or not isinstance(called, list) or len(scores) != len(called):
                raise ModelFault("the service gives scores and names that are not as many")
            rows.append(row_of([{"label": name, "score": score} for name, score in zip(called, scores, strict=True)]))
        return rows


def follow(said: Any, path: str) -> Any:
    """What stands at a path of JSON.

    Args:
        said: JSON.
        path: names and places with dots, ``*`` for each of a list; empty for the whole.

    Raises:
        ModelFault: when nothing stands there.

    Examples:
        >>> follow({"a": [{"b": 1}, {"b": 2}]}, "a.*.b"), follow({"a": [{"b": 1}]}, "a.0.b"), follow(3, "")
        ([1, 2], 1, 3)
    """
    step, _, rest = path.partition(".")
    if not step:
        return said
    if step == "*" and isinstance(said, list):
        return [follow(each, rest) for each in said]
    if isinstance(said, Mapping) and step in said:
        return follow(said[step], rest)
    if isinstance(said, list) and step.isdecimal() and int(step) < len(said):
        return follow(said[int(step)], rest)
    raise ModelFault(f"the service's answer holds nothing at {printable(path)[:100]!r}: mend the template")


def _marks(request: Any) -> list[str]:
    if isinstance(request, str):
        return [request] if request in (*_ALL, *_ONE) else []
    inner = request.values() if isinstance(request, Mapping) else request if isinstance(request, list) else ()
    return [mark for each in inner for mark in _marks(each)]


def _filled(request: Any, given: Any) -> Any:
    if isinstance(request, str):
        return given if request in (*_ALL, *_ONE) else request
    if isinstance(request, Mapping):
        return {name: _filled(each, given) for name, each in request.items()}
    return [_filled(each, given) for each in request] if isinstance(request, list) else request
