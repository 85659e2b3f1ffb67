"""What a dataclass's annotations say: which values a field takes, and how they and their types are written as text."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from heirmark.configuration.constraints import Constraint
from heirmark.configuration.registry import OneOf
from heirmark.errors import BadConfig

# Text that fits several members of a union means the first of these; anything at all is a string, so that comes last.
_RANKS = (type(None), Literal, bool, int, float, tuple)
EXAMPLES = {bool: "true", int: "3", float: "0.1", str: "text", type(None): "none"}
"""Types that text can give directly, and an example of each."""


@functools.cache
def hints_of(kind: type) -> dict[str, Any]:
    """Types of a dataclass's fields, by name, with the constraints that stand beside them.

    Raises:
        BadConfig: when an annotation names what its module does not have.
    """
    try:
        return get_type_hints(kind, include_extras=True)
    except NameError as error:
        raise BadConfig(
            f"the fields of {kind.__name__} cannot be read ({error}): import what their annotations name at the top of its module"
        ) from error


def fields_of(kind: Any) -> list[dataclasses.Field[Any]]:
    """Fields that its constructor takes."""
    return [field for field in dataclasses.fields(kind) if field.init]


def needed_of(kind: Any) -> list[str]:
    """Names of the fields that must be given, for they have no default."""
    return [f.name for f in fields_of(kind) if f.default is MISSING and f.default_factory is MISSING]


def default_of(kind: Any, name: str) -> Any:
    """What a field holds when nothing is given; None where something must be."""
    field = next(field for field in fields_of(kind) if field.name == name)
    if field.default_factory is not MISSING:
        return field.default_factory()
    return None if field.default is MISSING else field.default


def check_name(kind: Any, name: str, where: str) -> None:
    """Make sure that a dataclass has a field.

    Args:
        kind: the dataclass.
        name: of the field.
        where: what to call the place in an error; may be empty.

    Raises:
        BadConfig: when it has not.
    """
    names = [field.name for field in fields_of(kind) if field.compare]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        place = f"{where}: " if where else ""
        raise BadConfig(
            f"{place}{kind.__name__} has no field {name!r}: {hint}choose from {', '.join(names) or 'none at all'}"
        )


def make(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    """An instance of a dataclass.

    Args:
        kind: the dataclass.
        values: by field.
        where: what to call the place in an error; may be empty.

    Raises:
        BadConfig: when a field without a default is missing, or whatever the dataclass itself refuses.
    """
    missing = [name for name in needed_of(kind) if name not in values]
    if missing:
        place = f"{where}: " if where else ""
        raise BadConfig(f"{place}{kind.__name__} needs {', '.join(missing)}: give it as well")
    return kind(**values)


def members_of(hint: Any) -> list[Any]:
    """The members of a union, in the order in which they claim a value; of any other type, that type alone."""
    return [member for member, _ in ruled_members_of(hint)]


def ruled_members_of(hint: Any, *, named: bool = True) -> list[tuple[Any, tuple[Constraint, ...]]]:
    """As :func:`members_of`, each with what it must be besides.

    Args:
        hint: a type.
        named: where it is :class:`OneOf` those of a table, the dataclasses of the table; else the type that they have in common.
    """

    def rank(member: Any) -> int:
        kind = get_origin(member) if get_origin(member) in _RANKS else member
        return _RANKS.index(kind) if kind in _RANKS else len(_RANKS) + (not is_config(kind)) + (kind is str)

    return sorted(_flat(hint, (), named), key=lambda pair: rank(pair[0]))


def _flat(hint: Any, rules: tuple[Constraint, ...], named: bool) -> list[tuple[Any, tuple[Constraint, ...]]]:
    hint = getattr(hint, "__value__", hint)  # a type alias made by the type statement
    if get_origin(hint) is Annotated:
        kind, *notes = get_args(hint)
        tables = [note for note in notes if isinstance(note, OneOf)] if named else []
        kinds = [member for table in tables for member in table.kinds()] or [kind]
        rules = (*rules, *(note for note in notes if isinstance(note, Constraint)))
        return [pair for kind in kinds for pair in _flat(kind, rules, named)]
    if get_origin(hint) in (Union, types.UnionType):
        return [pair for part in get_args(hint) for pair in _flat(part, rules, named)]
    return [(hint, () if hint is type(None) else rules)]


def parts_of(hint: Any, length: int) -> list[Any] | None:
    """Types of the items of a tuple or list type, or None when it does not have that length."""
    arguments = get_args(hint)
    if get_origin(hint) is list or (len(arguments) == 2 and arguments[1] is Ellipsis):
        return [arguments[0]] * length
    return list(arguments) if len(arguments) == length else None


def is_open(hint: Any) -> bool:
    """Whether an annotation says nothing of JSON, so that any JSON fits it: object, Any, a protocol."""
    return hint is Any or hint is object or getattr(hint, "_is_protocol", False)


def is_config(kind: Any) -> bool:
    """Whether it is a dataclass, not an instance of one."""
    return isinstance(kind, type) and is_dataclass(kind)


def choice_of(hint: Any, text: str) -> Any:
    """The dataclass in a union that a text names."""
    wanted = text.lower().replace("-", "").replace("_", "")
    return next((m for m in members_of(hint) if is_config(m) and m.__name__.lower() == wanted), None)


def as_text(value: object) -> str:
    """A value as a setting would give it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(as_text(item) for item in value)
    if isinstance(value, Mapping):
        return ",".join(f"{name}:{as_text(item)}" for name, item in value.items())
    if is_dataclass(value):
        return type(value).__name__.lower()
    return getattr(value, "__name__", str(value))


def type_name(hint: Any) -> str:
    """What a type takes, in a few signs: ``none|int >= 1,...``."""

    def name(member: Any) -> str:
        origin, arguments = get_origin(member), get_args(member)
        if origin is Literal:
            return "|".join(as_text(choice) for choice in arguments)
        if origin is tuple:
            return ",".join("..." if part is Ellipsis else type_name(part) for part in arguments)
        if origin is Mapping:
            return f"name:{type_name(arguments[1])},..."
        if is_config(member):
            return str(member.__name__).lower()
        return {bool: "true|false", type(None): "none"}.get(member, getattr(member, "__name__", str(member)))

    # Text cannot give a function.
    members = [pair for pair in ruled_members_of(hint) if get_origin(pair[0]) is not Callable]
    return (
        "|".join(f"{name(kind)} {' and '.join(rule.sign for rule in rules)}".rstrip() for kind, rules in members)
        or "function"
    )


def example_of(hint: Any) -> str:
    """A text that a type takes."""
    member = next((m for m in members_of(hint) if m is not type(None)), type(None))
    origin, arguments = get_origin(member), get_args(member)
    if origin is Literal:
        return as_text(arguments[0])
    if origin is tuple:
        return ",".join(example_of(part) for part in (parts_of(member, 2) or arguments))
    if origin is Mapping:
        return f"name:{example_of(arguments[1])}"
    return EXAMPLES.get(member, type_name(member))
