"""Configurations as JSON and back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Literal, TypeAlias, get_args, get_origin

from heirmark.configuration.hints import (
    EXAMPLES,
    check_name,
    fields_of,
    hints_of,
    is_config,
    is_open,
    make,
    members_of,
    parts_of,
    type_name,
)
from heirmark.errors import BadConfig

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
"""What :mod:`json` writes; no NaN, no infinity."""


def to_json(value: object, where: str = "configuration") -> JSON:
    """Turn a configuration into JSON.

    A dataclass becomes an object of its fields with its class name under ``"type"``. Fields that take no part in
    equality or in the constructor are left out. A module-level function or class (a model factory, say) becomes
    ``{"function": "module:name"}``.

    Args:
        value: dataclasses, tuples, lists, mappings with string keys, strings, finite numbers, booleans, None; nested.
        where: what to call the value in an error.

    Raises:
        BadConfig: for anything else.

    Examples:
        >>> to_json({"sizes": (3, 5)})
        {'sizes': [3, 5]}
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadConfig(f"{where} is {value}, which JSON cannot hold: give a finite number or None")
        return float(value)
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields_of(type(value)) if field.compare]
        if "type" in names:
            raise BadConfig(
                f"{type(value).__name__} has a field named 'type', which JSON needs for the class: rename it"
            )
        return {"type": type(value).__name__} | {
            name: to_json(getattr(value, name), f"{where}.{name}") for name in names
        }
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise BadConfig(f"{where} has keys that are not strings: make them strings")
        return {str(key): to_json(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if callable(value):
        return {"function": qualified_name(value, where)}
    raise BadConfig(
        f"{where} is a {type(value).__name__}, which has no place in a configuration: "
        "give numbers, strings, tuples or frozen dataclasses, and for a file the digest of its content"
    )


def qualified_name(function: object, where: str = "function") -> str:
    """``"module:name"`` of a function or class that another process can find by it.

    Raises:
        BadConfig: for a lambda, a nested function, a partial or any other object.

    Examples:
        >>> qualified_name(to_json)
        'heirmark.configuration.encoding:to_json'
    """
    name = getattr(function, "__qualname__", None)
    module = getattr(function, "__module__", None)
    if not isinstance(name, str) or not isinstance(module, str) or "<" in name:
        raise BadConfig(
            f"{where} is {function!r}, which has no name to find it by: give a function defined in a module with def"
        )
    return f"{module}:{name}"


def canonical_json(value: object) -> bytes:
    """The one encoding of a configuration, for hashing: equal configurations give equal bytes.

    As :func:`to_json`, with sorted keys, no spaces, ASCII only; a float without a fraction is written as an integer,
    because Python holds ``1.0 == 1``.

    Raises:
        BadConfig: as :func:`to_json`.

    Examples:
        >>> canonical_json({"b": (1.0, 2.5), "a": None})
        b'{"a":null,"b":[1,2.5]}'
    """

    def settle(item: JSON) -> JSON:
        if isinstance(item, float):
            return int(item) if item.is_integer() else item
        if isinstance(item, Mapping):
            return {key: settle(part) for key, part in item.items()}
        return item if item is None or isinstance(item, (bool, int, str)) else [settle(part) for part in item]

    return json.dumps(settle(to_json(value)), sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def from_json(types: Mapping[str, Callable[..., object]], value: object) -> object:
    """Rebuild what :func:`to_json` wrote. The result equals the original.

    Args:
        types: dataclasses by class name. Those that a field's annotation names need not be listed. A function is
            found here by its ``"module:name"``; none is ever imported by name.
        value: parsed JSON. A field that is missing takes its default.

    Raises:
        BadConfig: for an unknown class or field, or a value that its field's type does not allow.
    """
    return _decode(object, value, types, "configuration")


def decoded(hint: Any, value: object, where: str) -> Any:
    """A JSON value as a type annotation wants it.

    Raises:
        BadConfig: when it is of another type.
    """
    return _decode(hint, value, {}, where)


def _decode(hint: Any, value: Any, known: Mapping[str, Callable[..., object]], where: str) -> Any:
    members = members_of(hint)
    name = value.get("type") if isinstance(value, Mapping) else None
    kind = next((m for m in members if is_config(m) and m.__name__ == name), None)
    if kind is None and isinstance(name, str) and any(is_open(m) for m in members):
        kind = known.get(name)  # the annotation says nothing, so the caller's table decides
        if not is_config(kind):
            raise BadConfig(f"{where}: unknown type {name!r}: choose from {', '.join(sorted(known)) or 'none here'}")
    if kind is not None:
        hints, given = hints_of(kind), {key: item for key, item in value.items() if key != "type"}
        for key in given:
            check_name(kind, key, where)
        return make(
            kind, {key: _decode(hints[key], item, known, f"{where}.{key}") for key, item in given.items()}, where
        )
    for member in members:
        origin, arguments = get_origin(member), get_args(member)
        if origin is Literal:
            if any(value == choice and type(value) is type(choice) for choice in arguments):
                return value
        elif origin in (tuple, list) and isinstance(value, list):
            parts = parts_of(member, len(value))
            if parts is None:
                continue
            try:
                items = [
                    _decode(p, v, known, f"{where}[{i}]") for i, (p, v) in enumerate(zip(parts, value, strict=True))
                ]
            except BadConfig:
                if sum(get_origin(other) is origin for other in members) > 1:
                    continue
                raise
            return tuple(items) if origin is tuple else items
        elif origin in (dict, Mapping) and isinstance(value, Mapping):
            return {key: _decode(arguments[1], item, known, f"{where}.{key}") for key, item in value.items()}
        elif member is float and type(value) is int:
            return float(value)
        elif member in EXAMPLES:
            if type(value) is member:
                return value
        elif isinstance(value, Mapping) and set(value) == {"function"} and not is_config(member):
            function = known.get(str(value["function"]))
            if function is None:
                raise BadConfig(
                    f"{where} was {value['function']}: pass that function along, it is not imported by name"
                )
            return function
        elif is_open(member):
            if isinstance(value, Mapping):
                return {key: _decode(object, item, known, f"{where}.{key}") for key, item in value.items()}
            if isinstance(value, list):
                return [_decode(object, item, known, f"{where}[{index}]") for index, item in enumerate(value)]
            return value
    raise BadConfig(f"{where}: expected {type_name(hint)}, not {value!r}")
