"""Fields set by text, as on a command line."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin

from heirmark.configuration.hints import (
    as_text,
    check_name,
    choice_of,
    default_of,
    example_of,
    hints_of,
    is_config,
    make,
    members_of,
    parts_of,
    type_name,
)
from heirmark.errors import BadConfig

T = TypeVar("T")


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
        check_name(kind, name, path)
        groups.setdefault(name, {})[rest] = text  # an empty rest is the field itself
    hints, changes = hints_of(kind), {}
    for name, group in groups.items():
        where = f"{path}.{name}" if path else name
        current = getattr(base, name, None) if base is not None else default_of(kind, name)
        whole = group.pop("", None)
        choice = None if whole is None else choice_of(hints[name], whole)
        if choice is not None:
            changes[name] = _apply(choice, None, group, where)
        elif whole is not None and not group:
            changes[name] = read_text(hints[name], whole, where, current)
        elif whole is None and is_dataclass(current):
            changes[name] = _apply(type(current), current, group, where)
        else:
            raise BadConfig(
                f"{where} holds nothing with a field {next(iter(group))!r}: "
                f"set {where} first, which takes {type_name(hints[name])}"
            )
    if base is None:
        return make(kind, changes, path)
    return dataclasses.replace(base, **changes)


def words_of(text: str) -> list[str]:
    """The items of a list; what looks like a further option of the item before it belongs to that one.

    Examples:
        >>> words_of("resnet18, vgg-like:width=16,dropout=0.1,alexnet")
        ['resnet18', 'vgg-like:width=16,dropout=0.1', 'alexnet']
    """
    words: list[str] = []
    for word in text.split(",") if text else []:
        name, option, _ = word.partition("=")
        if words and option and ":" not in name and ":" in words[-1]:
            words[-1] += f",{word.strip()}"
        else:
            words.append(word.strip())
    return words


def read_text(hint: Any, text: str, where: str, current: object = None) -> Any:
    """A value of a type from its text.

    Args:
        hint: the type; of a union the first member counts that the text fits, in the order of ``members_of``.
        text: what was written.
        where: what to call the value in an error.
        current: a value of the type, for an example in an error.

    Raises:
        BadConfig: when the text gives no such value.
    """
    for member in members_of(hint):
        origin = get_origin(member)
        if origin is Literal:
            for literal in get_args(member):
                if as_text(literal) == text:
                    return literal
        elif origin is tuple:
            words = words_of(text)
            parts = parts_of(member, len(words))
            if parts is not None and not any(get_origin(m) is tuple for part in parts for m in members_of(part)):
                with contextlib.suppress(BadConfig):  # what is said below names the whole type
                    return tuple(read_text(part, word, where) for part, word in zip(parts, words, strict=True))
        elif origin is Mapping:
            pairs = [word.partition(":") for word in text.split(",")] if text else []
            if all(name.strip() and colon for name, colon, _ in pairs):
                with contextlib.suppress(BadConfig):
                    return {
                        name.strip(): read_text(get_args(member)[1], part.strip(), where) for name, _, part in pairs
                    }
        elif is_config(member):
            if choice_of(member, text) is not None:
                return make(member, {}, where)
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
    example = ("" if current is None else as_text(current)) or example_of(hint)
    raise BadConfig(f"{where}: expected {type_name(hint)}, such as {where}={example}, not {text!r}")
