"""What data are named by: a key of the registry, a folder, or a function; texts with options behind it."""

from __future__ import annotations

import os
import re

from heirmark.errors import BadConfig

_WITH_OPTIONS = re.compile(r"(.+?):(\w+=.*)", re.DOTALL)


def parts_of(name: str) -> tuple[str, dict[str, str]]:
    """The name itself, and the options behind it.

    Raises:
        BadConfig: for an option without a value.

    Examples:
        >>> parts_of("sst2:length=32,vocabulary=4096"), parts_of("mine:task")
        (('sst2', {'length': '32', 'vocabulary': '4096'}), ('mine:task', {}))
    """
    found = _WITH_OPTIONS.fullmatch(name)
    if found is None:
        return name, {}
    options = {}
    for item in found[2].split(","):
        option, equals, value = item.partition("=")
        if not equals:
            raise BadConfig(f"the option {item!r} of {found[1]} has no value: write {found[1]}:option=value,...")
        options[option.strip()] = value.strip()
    return found[1], options


def is_folder(name: str) -> bool:
    """Whether data are named by the folder that they lie in: its name has a slash."""
    own = parts_of(name)[0]
    return "/" in own or os.sep in own


def is_code(name: str) -> bool:
    """Whether data are named by a function, ``package.module:function``."""
    return ":" in parts_of(name)[0] and not is_folder(name)


def names_files(name: str) -> bool:
    """Whether data, or what reads them, come of code or files that the name says where to find."""
    return ":" in parts_of(name)[0] or "/" in name or os.sep in name
