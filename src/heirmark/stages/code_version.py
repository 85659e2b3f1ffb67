"""Which source code a result depends on, found by reading it and never by importing it.

A function, and each dataclass or function in its configuration, depends on those definitions that it reaches, by name, through
all modules of the package heirmark and of their own packages; what else stands in these modules does not count. Neither do
comments, docstrings, formatting and imports for type checkers. In heirmark annotations do not count either, and definitions do
nothing but define, so that those that nothing reaches are left out. In a user's package whatever runs on import counts: calls,
decorators, base classes, stars.

A definition that is looked up by a computed name is not seen. So modules called ``registry``, which only map names to code, are
passed over, and a field of a configuration that holds such a name says what it rests on: ``metadata={"rests_on": f}``, where
``f`` gives the classes or functions that its value stands for.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType

from heirmark.configuration import qualified_name
from heirmark.errors import BadConfig
from heirmark.stages.code_syntax import WHOLE, Source, part_of, read_source

# What files and finds results, or refuses a configuration, cannot change a number; how results are identified has a version
# of its own.
MECHANISM = frozenset(
    ["heirmark.configuration.checking"]
    + [f"heirmark.stages{part}" for part in ("", ".code_syntax", ".code_version", ".records", ".stage", ".store")]
)
REGISTRY = "registry"
"""Name of modules that map names to code."""


# By module: what was read, and the import (or the file's time and size) that it was read for.
_memo: dict[str, tuple[object, tuple[int, int], Source]] = {}
# By names to start from: what was read on the way, and the digests; good while reading again would give the same.
_found: dict[frozenset[tuple[str, str]], tuple[dict[str, Source], dict[str, str]]] = {}


def code_digests(function: Callable[..., object], config: object = None) -> dict[str, str]:
    """Digests of all modules that a function and its configuration depend on.

    Args:
        function: defined in a module.
        config: searched for dataclasses, functions and classes.

    Returns:
        SHA-256 by module name, sorted.

    Raises:
        BadConfig: when the function or a class has no source file, as in an interactive session.
    """
    items = {(module_name(item), _top_name(item)) for item in (function, *_code_in(config))}
    start = frozenset((module, name) for module, name in items if module != "builtins")
    if start not in _found or any(_read(name) is not source for name, source in _found[start][0].items()):
        _found[start] = _follow(start)
    return dict(_found[start][1])


def _follow(start: frozenset[tuple[str, str]]) -> tuple[dict[str, Source], dict[str, str]]:
    tops = {"heirmark"} | {module.partition(".")[0] for module, _ in start}
    sources: dict[str, Source] = {}
    wanted: dict[str, frozenset[str]] = {}
    pending = sorted(start)
    while pending:
        module, name = pending.pop()
        known = wanted.get(module, frozenset())
        if name in known or not _counts(module, tops):
            continue
        source = _read(module)
        if source is None:
            if (module, name) in start:
                raise BadConfig(
                    f"module {module} has no source file to tell its version by: define functions in a file"
                )
            continue
        sources[module], wanted[module] = source, known | {name}
        pending.extend(_resolve(*used, tops) for used in part_of(source, wanted[module])[1])
    return sources, {module: part_of(sources[module], wanted[module])[0] for module in sorted(wanted)}


def _counts(module: str, tops: set[str]) -> bool:
    top, _, rest = module.partition(".")
    return top in tops and module not in MECHANISM and rest.rpartition(".")[2] != REGISTRY


def code_version(function: Callable[..., object], config: object = None) -> str:
    """One SHA-256 over :func:`code_digests`."""
    lines = [f"{name} {digest}\n" for name, digest in code_digests(function, config).items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def module_name(item: object) -> str:
    """Name of the module that defines something; a module run by ``python -m`` has the name it is imported by."""
    name = str(getattr(item, "__module__", None))
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return spec.name if name == "__main__" and spec is not None else name


def _top_name(item: object) -> str:
    return qualified_name(item).partition(":")[2].partition(".")[0]


def _code_in(value: object) -> Iterator[object]:
    """Classes of the dataclasses in a configuration, and its functions and classes."""
    if is_dataclass(value) and not isinstance(value, type):
        yield type(value)
        for part in fields(value):
            if part.compare:
                yield from _code_in(getattr(value, part.name))
            yield from part.metadata.get("rests_on", lambda named: ())(getattr(value, part.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _code_in(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _code_in(item)
    elif callable(value):
        yield value


def _path(name: str) -> Path | None:
    """Source file of a module; its top package has to be loaded, since finding that may run code."""
    top, *rest = name.split(".")
    loaded = sys.modules.get(top)
    if not rest:
        file = getattr(loaded, "__file__", None)
        return Path(file) if file and file.endswith(".py") else None
    for folder in getattr(loaded, "__path__", ()):
        stem = Path(folder).joinpath(*rest)
        for path in (stem / "__init__.py", stem.with_name(stem.name + ".py")):
            if path.is_file():
                return path
    return None


def _read(name: str) -> Source | None:
    loaded: ModuleType | None = sys.modules.get(name)
    # What runs is the code that was imported, so a loaded module is read once; a reload gives it a new specification.
    mark = None if loaded is None else getattr(loaded, "__spec__", None) or loaded
    known = _memo.get(name)
    if known is not None and mark is not None and known[0] is mark:
        return known[2]
    path = _path(name)
    if path is None:
        return None
    status = path.stat()
    stamp = (status.st_mtime_ns, status.st_size)
    if known is not None and known[0] is mark and known[1] == stamp:
        return known[2]
    source = read_source(path, name)
    _memo[name] = (mark, stamp, source)
    return source


def _resolve(module: str, attribute: str, tops: set[str]) -> tuple[str, str]:
    """The definition that an import reads: all of a submodule, else what the package has from elsewhere, else its own."""
    seen: set[tuple[str, str]] = set()
    while attribute and (module, attribute) not in seen and module.partition(".")[0] in tops:
        seen.add((module, attribute))
        if _path(f"{module}.{attribute}") is not None:
            return f"{module}.{attribute}", WHOLE
        source = _read(module)
        if source is None or attribute not in source.passed_on:
            break
        module, attribute = source.passed_on[attribute]
    return module, WHOLE if attribute == "*" else attribute
