"""Configurations: frozen dataclasses that turn into JSON and back, take settings as text, and describe themselves.

The lowest layer: it knows nothing of what is configured, and needs no torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import inspect
import json
import math
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, is_dataclass
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from heirmark.errors import BadConfig

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
"""What :mod:`json` writes; no NaN, no infinity."""

T = TypeVar("T")

# Text that fits several members of a union means the first of these; anything at all is a string, so that comes last.
_RANKS = (type(None), Literal, bool, int, float, tuple)
_EXAMPLES = {bool: "true", int: "3", float: "0.1", str: "text", type(None): "none"}


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

    Example:
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
        names = [field.name for field in _fields(type(value)) if field.compare]
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

    Example:
        >>> qualified_name(to_json)
        'heirmark.configuration:to_json'
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

    Example:
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


def _decode(hint: Any, value: Any, known: Mapping[str, Callable[..., object]], where: str) -> Any:
    members = _members(hint)
    name = value.get("type") if isinstance(value, Mapping) else None
    kind = next((m for m in members if _is_config(m) and m.__name__ == name), None)
    if kind is None and isinstance(name, str) and any(_is_open(m) for m in members):
        kind = known.get(name)  # the annotation says nothing, so the caller's table decides
        if not _is_config(kind):
            raise BadConfig(f"{where}: unknown type {name!r}: choose from {', '.join(sorted(known)) or 'none here'}")
    if kind is not None:
        hints, given = _hints(kind), {key: item for key, item in value.items() if key != "type"}
        for key in given:
            _check_name(kind, key, where)
        return _make(
            kind, {key: _decode(hints[key], item, known, f"{where}.{key}") for key, item in given.items()}, where
        )
    for member in members:
        origin, arguments = get_origin(member), get_args(member)
        if origin is Literal:
            if any(value == choice and type(value) is type(choice) for choice in arguments):
                return value
        elif origin in (tuple, list) and isinstance(value, list):
            parts = _parts(member, len(value))
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
        elif member in _EXAMPLES:
            if type(value) is member:
                return value
        elif isinstance(value, Mapping) and set(value) == {"function"} and not _is_config(member):
            function = known.get(str(value["function"]))
            if function is None:
                raise BadConfig(
                    f"{where} was {value['function']}: pass that function along, it is not imported by name"
                )
            return function
        elif _is_open(member):
            if isinstance(value, Mapping):
                return {key: _decode(object, item, known, f"{where}.{key}") for key, item in value.items()}
            if isinstance(value, list):
                return [_decode(object, item, known, f"{where}[{index}]") for index, item in enumerate(value)]
            return value
    raise BadConfig(f"{where}: expected {_type_name(hint)}, not {value!r}")


def apply_settings(config: T, settings: Iterable[str]) -> T:
    """Change fields of a configuration by text: ``["epochs=30", "trigger=mix", "trigger.sources=3,5"]``.

    Values are read by the type of their field. A field that holds one of several dataclasses is set by class name, in
    lower case, and starts from that class' defaults. All settings take effect at once, whatever their order; of two for
    one field the last counts.

    Args:
        config: a dataclass.
        settings: each ``"field=value"`` or ``"field.field=value"``.

    Raises:
        BadConfig: for an unknown field, a value of the wrong type, or whatever the dataclass itself refuses.
    """
    texts: dict[str, str] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path.strip():
            raise BadConfig(f"setting {setting!r} has no value: write name=value, such as epochs=30")
        texts[path.strip()] = text.strip()
    changed: T = _apply(type(config), config, texts, "")
    return changed


def _apply(kind: Any, base: Any, texts: Mapping[str, str], path: str) -> Any:
    groups: dict[str, dict[str, str]] = {}
    for key, text in texts.items():
        name, _, rest = key.partition(".")
        _check_name(kind, name, path)
        groups.setdefault(name, {})[rest] = text  # an empty rest is the field itself
    hints, changes = _hints(kind), {}
    for name, group in groups.items():
        where = f"{path}.{name}" if path else name
        current = getattr(base, name, None) if base is not None else _default(kind, name)
        whole = group.pop("", None)
        choice = None if whole is None else _choice(hints[name], whole)
        if choice is not None:
            changes[name] = _apply(choice, None, group, where)
        elif whole is not None and not group:
            changes[name] = _parse(hints[name], whole, where, current)
        elif whole is None and is_dataclass(current):
            changes[name] = _apply(type(current), current, group, where)
        else:
            raise BadConfig(
                f"{where} holds nothing with a field {next(iter(group))!r}: "
                f"set {where} first, which takes {_type_name(hints[name])}"
            )
    if base is None:
        return _make(kind, changes, path)
    return dataclasses.replace(base, **changes)


def _parse(hint: Any, text: str, where: str, current: object = None) -> Any:
    for member in _members(hint):
        origin = get_origin(member)
        if origin is Literal:
            for literal in get_args(member):
                if _text(literal) == text:
                    return literal
        elif origin is tuple:
            words = [word.strip() for word in text.split(",")] if text else []
            parts = _parts(member, len(words))
            if parts is not None and not any(get_origin(part) is tuple for part in parts):
                with contextlib.suppress(BadConfig):  # what is said below names the whole type
                    return tuple(_parse(part, word, where) for part, word in zip(parts, words, strict=True))
        elif _is_config(member):
            if _choice(member, text) is not None:
                return _make(member, {}, where)
        elif member is bool or member is type(None):
            if text.lower() in (("true", "false") if member is bool else ("none",)):
                return text.lower() == "true" if member is bool else None
        elif member in (int, float):
            try:
                number = member(text)
            except ValueError:
                continue
            if member is int or math.isfinite(number):
                return number
        elif member is str:
            return text
    example = _example(hint) if current is None else _text(current)
    raise BadConfig(f"{where}: expected {_type_name(hint)}, such as {where}={example}, not {text!r}")


@dataclass(frozen=True, kw_only=True)
class FieldHelp:
    """One row of a configuration's help.

    Attributes:
        name: as :func:`apply_settings` takes it, such as ``"trigger.sources"``.
        owner: class that the field belongs to.
        type: what it accepts, such as ``"int"`` or ``"none|int,..."``.
        default: as a setting's text; None when the field has to be given.
        help: first sentence of its entry in the class' docstring.
    """

    name: str
    owner: str
    type: str
    default: str | None
    help: str


def describe_fields(kind: type, *, prefix: str = "", base: object = None) -> Iterator[FieldHelp]:
    """The fields of a dataclass for a help page; those of nested dataclasses follow the field that holds them.

    Args:
        kind: a dataclass whose docstring has an ``Attributes:`` section.
        prefix: put before each name.
        base: an instance whose values are the defaults; None for the class' own.
    """
    hints, texts = _hints(kind), _attribute_texts(kind)
    for field in _fields(kind):
        if not field.compare:
            continue
        required = base is None and field.default is MISSING and field.default_factory is MISSING
        default = _default(kind, field.name) if base is None else getattr(base, field.name)
        yield FieldHelp(
            name=prefix + field.name,
            owner=kind.__name__,
            type=_type_name(hints[field.name]),
            default=None if required else _text(default),
            help=texts.get(field.name, ""),
        )
        for member in _members(hints[field.name]):
            if _is_config(member):
                held = default if type(default) is member else None  # a holder may have defaults of its own
                yield from describe_fields(member, prefix=f"{prefix}{field.name}.", base=held)


def _attribute_texts(kind: type) -> dict[str, str]:
    texts: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        section = re.search(r"^Attributes:\n((?:[ \t]+.*\n?|\n)*)", inspect.cleandoc(owner.__doc__ or ""), re.MULTILINE)
        body = inspect.cleandoc("\n" + section[1]) if section else ""
        for name, text in re.findall(r"^(\w+)(?: \(.*?\))?:((?:.*\n?)(?:[ \t]+.*\n?)*)", body, re.MULTILINE):
            words = " ".join(text.split())
            first = re.match(r".*?\.(?=\s+[A-Z`:]|$)", words)
            texts[name] = first[0] if first else words
    return texts


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _fields(kind: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(kind) if field.init]


def _default(kind: Any, name: str) -> Any:
    field = next(field for field in _fields(kind) if field.name == name)
    if field.default_factory is not MISSING:
        return field.default_factory()
    return None if field.default is MISSING else field.default


def _check_name(kind: Any, name: str, where: str) -> None:
    names = [field.name for field in _fields(kind) if field.compare]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        place = f"{where}: " if where else ""
        raise BadConfig(
            f"{place}{kind.__name__} has no field {name!r}: {hint}choose from {', '.join(names) or 'none at all'}"
        )


def _make(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    needed = [f.name for f in _fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in needed if name not in values]
    if missing:
        place = f"{where}: " if where else ""
        raise BadConfig(f"{place}{kind.__name__} needs {', '.join(missing)}: give it as well")
    return kind(**values)


def _members(hint: Any) -> list[Any]:
    """The members of a union, in the order in which they claim a value; of any other type, that type alone."""
    hint = getattr(hint, "__value__", hint)  # a type alias made by the type statement
    if get_origin(hint) not in (Union, types.UnionType):
        return [hint]
    members = [member for part in get_args(hint) for member in _members(part)]
    ranks = [get_origin(m) if get_origin(m) in _RANKS else m for m in members]
    order = [_RANKS.index(r) if r in _RANKS else len(_RANKS) + (not _is_config(r)) + (r is str) for r in ranks]
    return [member for _, member in sorted(zip(order, members, strict=True), key=lambda pair: pair[0])]


def _parts(hint: Any, length: int) -> list[Any] | None:
    """Types of the items of a tuple or list type, or None when it does not have that length."""
    arguments = get_args(hint)
    if get_origin(hint) is list or (len(arguments) == 2 and arguments[1] is Ellipsis):
        return [arguments[0]] * length
    return list(arguments) if len(arguments) == length else None


def _is_open(hint: Any) -> bool:
    """Whether an annotation says nothing of JSON, so that any JSON fits it: object, Any, a protocol."""
    return hint is Any or hint is object or getattr(hint, "_is_protocol", False)


def _is_config(kind: Any) -> bool:
    return isinstance(kind, type) and is_dataclass(kind)


def _choice(hint: Any, text: str) -> Any:
    """The dataclass in a union that a text names."""
    wanted = text.lower().replace("-", "").replace("_", "")
    return next((m for m in _members(hint) if _is_config(m) and m.__name__.lower() == wanted), None)


def _text(value: object) -> str:
    """A value as a setting would give it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(_text(item) for item in value)
    if is_dataclass(value):
        return type(value).__name__.lower()
    return getattr(value, "__name__", str(value))


def _type_name(hint: Any) -> str:
    def name(member: Any) -> str:
        origin, arguments = get_origin(member), get_args(member)
        if origin is Literal:
            return "|".join(_text(choice) for choice in arguments)
        if origin is tuple:
            return ",".join("..." if part is Ellipsis else _type_name(part) for part in arguments)
        if _is_config(member):
            return str(member.__name__).lower()
        return {bool: "true|false", type(None): "none"}.get(member, getattr(member, "__name__", str(member)))

    members = [member for member in _members(hint) if get_origin(member) is not Callable]  # text cannot give a function
    return "|".join(name(member) for member in members) or "function"


def _example(hint: Any) -> str:
    member = next((m for m in _members(hint) if m is not type(None)), type(None))
    origin, arguments = get_origin(member), get_args(member)
    if origin is Literal:
        return _text(arguments[0])
    if origin is tuple:
        return ",".join(_example(part) for part in (_parts(member, 2) or arguments))
    return _EXAMPLES.get(member, _type_name(member))
