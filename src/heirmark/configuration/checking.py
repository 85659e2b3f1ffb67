"""Fields of a configuration checked by their annotations, when one is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin

from heirmark.configuration.hints import (
    EXAMPLES,
    fields_of,
    hints_of,
    is_open,
    parts_of,
    ruled_members_of,
    type_name,
)
from heirmark.errors import BadConfig

T = TypeVar("T")
_PLAIN = (*EXAMPLES, tuple, list, dict)


def checked(kind: type[T]) -> type[T]:
    """Have a dataclass check its fields whenever one is made; stands below ``@dataclass``, and serves subclasses too.

    Of the types these are checked: true and false, integers (a boolean is none), finite numbers (an integer is one), texts,
    None, Literals, and tuples, mappings and unions of them; and whatever constraints stand beside them in ``Annotated``. A
    field of any other type takes all that is no such plain value. ::

        @dataclass(frozen=True, kw_only=True)
        @checked
        class Recipe:
            momentum: Annotated[float, at_least(0), below(1)] = 0.9

    What annotations cannot say, such as a rule for two fields, is left to the class' own ``__post_init__``, which runs
    afterwards and may rely on the fields. A subclass with a ``__post_init__`` of its own calls that of its parent first,
    or is checked itself.

    Raises:
        TypeError: when the class is a dataclass already, so that its constructor is made and checks nothing.
    """
    if "__dataclass_fields__" in vars(kind):
        raise TypeError(f"{kind.__name__} would not be checked: write @checked below @dataclass")
    rule_for_several = getattr(kind, "__post_init__", None)

    def check(self: T) -> None:
        check_fields(self)
        if rule_for_several is not None:
            rule_for_several(self)

    kind.__post_init__ = check  # type: ignore[attr-defined]
    return kind


def check_fields(config: object) -> None:
    """Make sure that the fields of a dataclass hold what their annotations say; see :func:`checked`.

    Raises:
        BadConfig: names the field, its value and what is allowed.
    """
    kind: Any = type(config)
    for field in fields_of(kind):
        fault = _fault(hints_of(kind)[field.name], getattr(config, field.name), f"{kind.__name__}.{field.name}")
        if fault is not None:
            raise BadConfig(fault)


def _fault(hint: Any, value: Any, where: str) -> str | None:
    """What is wrong with a value; None when nothing is."""
    inner = None
    for member, rules in ruled_members_of(hint, named=False):
        parts = _parts(member, value, where)
        if parts is None:
            continue
        faults = [fault for part in parts if (fault := _fault(*part)) is not None]
        if not faults and all(rule.holds(value) for rule in rules):
            return None
        inner = inner or next(iter(faults), None)  # that one item is wrong says more than that the tuple is
    return inner or f"{where}: expected {type_name(hint)}, not {value!r:.200}"


def _parts(kind: Any, value: Any, where: str) -> list[tuple[Any, Any, str]] | None:
    """Types of the items of a tuple, list or mapping, the items and their names; None when the value is of another kind."""
    if get_origin(kind) in (tuple, list):
        hints = parts_of(kind, len(value)) if isinstance(value, (tuple, list)) else None
        return None if hints is None else [(hints[k], item, f"{where}[{k}]") for k, item in enumerate(value)]
    if get_origin(kind) in (dict, Mapping) and isinstance(value, Mapping):
        return [(get_args(kind)[1], item, f"{where}.{key}") for key, item in value.items()]
    return [] if _has_type(kind, value) else None


def _has_type(kind: Any, value: object) -> bool:
    if get_origin(kind) is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(kind))
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and _is_finite(value)
    if kind in EXAMPLES:
        return isinstance(value, kind) and (kind is not int or not isinstance(value, bool))
    owner = get_origin(kind) or kind
    if owner is Any or owner is object or isinstance(owner, TypeVar):
        return True
    closed = isinstance(owner, type) and not is_open(owner)  # else a protocol, which no plain value keeps
    return (closed and isinstance(value, owner)) or not isinstance(value, _PLAIN)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False
