"""Plain records, such as rows and verdicts, as JSON and back: frozen dataclasses whose classes the reader knows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from heirmark.configuration.encoding import decoded
from heirmark.configuration.hints import check_name, fields_of, hints_of, is_config, make, members_of, needed_of
from heirmark.errors import BadArtifact, BadConfig
from heirmark.files import MIB, read_json

T = TypeVar("T")


def plain(value: Any) -> Any:
    """A record as JSON values: an object of its fields, lists for tuples, None for NaN.

    Examples:
        >>> plain({"rate": float("nan"), "interval": (0.25, 0.5)})
        {'rate': None, 'interval': [0.25, 0.5]}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def record_of(kind: type[T], values: object, source: str) -> T:
    """Rebuild what :func:`plain` made.

    Args:
        kind: the dataclass. What is missing or None takes its default; of a union of records, the first is meant that has the
            fields.
        values: parsed JSON.
        source: what to call it in an error.

    Raises:
        BadArtifact: when it is anything else.
    """
    try:
        made: T = _record(kind, values, "")
    except OverflowError:  # integers that no float holds
        raise BadArtifact(f"the numbers of {source} are out of range: it was changed or damaged") from None
    except BadConfig as error:
        raise BadArtifact(
            f"{source} is not as heirmark writes it ({error}): it is foreign, changed or damaged"
        ) from None
    return made


def read_record(path: Path, kind: type[T], *, max_bytes: int = 16 * MIB) -> T:
    """A record from its file.

    Args:
        path: the file, JSON.
        kind: the dataclass.
        max_bytes: refuse anything larger.

    Raises:
        BadArtifact: when the file is missing, too large, damaged or no such record; the message names the file.
    """
    return record_of(kind, read_json(path, max_bytes=max_bytes), str(path))


def _record(kind: Any, values: object, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise BadConfig(f"{where or 'it'} is no object of {kind.__name__}'s fields")
    hints = hints_of(kind)
    for name in values:
        check_name(kind, str(name), where)
    given = {name: _value(hints[name], item, name) for name, item in values.items() if item is not None}
    return make(kind, given, where)


def _value(hint: Any, value: Any, where: str) -> Any:
    kinds = [member for member in members_of(hint) if is_config(member)]
    if not kinds:
        return decoded(hint, value, where)
    return _record(next((kind for kind in kinds if _fits(kind, value)), kinds[0]), value, where)


def _fits(kind: Any, value: Any) -> bool:
    """Whether an object has all fields that a record needs, and no others."""
    if not isinstance(value, Mapping):
        return False
    given = {name for name, item in value.items() if item is not None}
    return given.issuperset(needed_of(kind)) and set(value) <= {field.name for field in fields_of(kind)}
