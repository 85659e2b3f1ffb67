"""The fields of a configuration, for a help page."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass

from heirmark.configuration.hints import (
    as_text,
    default_of,
    fields_of,
    hints_of,
    is_config,
    members_of,
    needed_of,
    type_name,
)


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


def describe_fields(kind: type, *, prefix: str = "", base: object = None, every: bool = True) -> Iterator[FieldHelp]:
    """The fields of a dataclass for a help page; those of nested dataclasses follow the field that holds them.

    Args:
        kind: a dataclass whose docstring has an ``Attributes:`` section.
        prefix: put before each name.
        base: an instance whose values are the defaults; None for the class' own.
        every: of a field that may hold dataclasses of several kinds, the fields of all; else of the kind that it holds.
    """
    hints, texts = hints_of(kind), _attribute_texts(kind)
    for field in fields_of(kind):
        if not field.compare:
            continue
        required = base is None and field.name in needed_of(kind)
        default = default_of(kind, field.name) if base is None else getattr(base, field.name)
        yield FieldHelp(
            name=prefix + field.name,
            owner=kind.__name__,
            type=type_name(hints[field.name]),
            default=None if required else as_text(default),
            help=texts.get(field.name, ""),
        )
        for member in members_of(hints[field.name]):
            held = default if type(default) is member else None  # a holder may have defaults of its own
            if is_config(member) and (every or held is not None):
                yield from describe_fields(member, prefix=f"{prefix}{field.name}.", base=held, every=every)


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
