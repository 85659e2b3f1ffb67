"""Which source code a result depends on, found by reading it and never by importing it.

A function, and each dataclass or function in its configuration, depends on those definitions of its own module that it
reaches, and on every module that these import, directly or not, inside the package heirmark and their own packages.
Comments, docstrings, formatting and imports for type checkers do not count. A package's ``__init__`` counts when a name
is taken from it that it does not merely pass on; code that it runs on import must not change results. A module that is
imported, or a definition that is looked up, by a computed name is not seen.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import ModuleType

from heirmark.configuration import qualified_name
from heirmark.errors import BadConfig

# What files and finds results cannot change a number in them; how results are identified has a version of its own.
MECHANISM = frozenset(f"heirmark.pipeline{part}" for part in ("", ".code_version", ".records", ".stage", ".store"))


@dataclass(frozen=True)
class _Source:
    """What one file, or a part of it, says.

    ``imports`` are pairs of module and name; ``passed_on`` are the names that it only imports, and from where.
    """

    tree: ast.Module
    package: str
    digest: str
    imports: frozenset[tuple[str, str]]
    passed_on: Mapping[str, tuple[str, str]]
    slices: dict[frozenset[str], _Source] = field(default_factory=dict)


# By module: what was read, and the import (or the file's time and size) that it was read for.
_memo: dict[str, tuple[object, tuple[int, int], _Source]] = {}
# By names to start from: what was read on the way, and the digests; good while reading again would give the same.
_found: dict[frozenset[tuple[str, str]], tuple[dict[str, _Source], dict[str, str]]] = {}


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


def _follow(start: frozenset[tuple[str, str]]) -> tuple[dict[str, _Source], dict[str, str]]:
    tops = {"heirmark"} | {module.partition(".")[0] for module, _ in start}
    digests: dict[str, str] = {}
    sources: dict[str, _Source] = {}
    pending: list[str] = []
    for module in {module for module, _ in start}:
        source = _read(module)
        if source is None:
            raise BadConfig(f"module {module} has no source file to tell its version by: define functions in a file")
        part = _slice(source, frozenset(name for other, name in start if other == module))
        sources[module], digests[module] = source, part.digest
        pending.extend(_resolve(*used, tops) for used in part.imports)
    whole: set[str] = set()
    while pending:
        module = pending.pop()
        if module in whole or module in MECHANISM or module.partition(".")[0] not in tops:
            continue
        whole.add(module)
        source = _read(module)
        if source is not None:
            sources[module], digests[module] = source, source.digest  # all of it, also where it was a part before
            pending.extend(_resolve(*used, tops) for used in source.imports)
    return sources, dict(sorted(digests.items()))


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


def _read(name: str) -> _Source | None:
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
    is_package = path.name == "__init__.py"
    tree = _Essence().visit(ast.parse(path.read_bytes()))
    source = _examine(tree, name if is_package else name.rpartition(".")[0], is_package=is_package)
    _memo[name] = (mark, stamp, source)
    return source


def _examine(tree: ast.Module, package: str, *, is_package: bool = False) -> _Source:
    imports: dict[str, tuple[str, str]] = {}
    bound: Counter[str] = Counter()
    used: set[tuple[str, str]] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                imports[alias.asname or top] = (alias.name if alias.asname else top, "")
                bound[alias.asname or top] += 1
                used |= {(alias.name, ""), imports[alias.asname or top]}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                imports[alias.asname or alias.name] = (module, alias.name)
                bound[alias.asname or alias.name] += 1
                used.add((module, alias.name))
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound[node.id] += 1
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound[node.name] += 1
    digest = hashlib.sha256(repr(_outline(tree)).encode("utf-8", "surrogatepass")).hexdigest()
    passed_on = {name: target for name, target in imports.items() if is_package and bound[name] == 1}
    return _Source(tree, package, digest, frozenset(used), passed_on)


def _slice(source: _Source, roots: frozenset[str]) -> _Source:
    """The part of a module that some of its definitions depend on.

    Left out are functions, classes and imported names that nothing in the rest mentions and whose making does nothing.
    """
    if roots not in source.slices:
        body = source.tree.body
        kept = {index for index, statement in enumerate(body) if not _idle(statement)}
        needed, size = roots | {name for index in kept for name in _mentions(body[index])}, -1
        while size != len(kept):
            size = len(kept)
            for index, statement in enumerate(body):
                if index not in kept and needed & _defines(statement):
                    kept.add(index)
                    needed |= _mentions(statement)
        tree = ast.Module(body=[body[index] for index in sorted(kept)], type_ignores=[])
        source.slices[roots] = _examine(tree, source.package)
    return source.slices[roots]


def _idle(statement: ast.stmt) -> bool:
    """Whether a statement only defines names: a registering decorator or base class would do more."""
    if isinstance(statement, ast.ImportFrom):
        return all(alias.name != "*" for alias in statement.names)
    if isinstance(statement, ast.ClassDef):
        decorators = [ast.unparse(decorator).partition("(")[0] for decorator in statement.decorator_list]
        plain = all(name in ("dataclass", "dataclasses.dataclass") for name in decorators)
        acts = any(isinstance(part, ast.Expr) for part in statement.body)
        return plain and not acts and not statement.bases and not statement.keywords
    return isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)) and not statement.decorator_list


def _defines(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    return {str(getattr(statement, "name", ""))}


def _mentions(statement: ast.stmt) -> set[str]:
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}


def _resolve(module: str, attribute: str, tops: set[str]) -> str:
    """Module that an import reads: a submodule, else where the package has the name from, else the module itself."""
    seen: set[tuple[str, str]] = set()
    while attribute and (module, attribute) not in seen and module.partition(".")[0] in tops:
        seen.add((module, attribute))
        if _path(f"{module}.{attribute}") is not None:
            return f"{module}.{attribute}"
        source = _read(module)
        if source is None or attribute not in source.passed_on:
            break
        module, attribute = source.passed_on[attribute]
    return module


def _outline(item: object) -> object:
    """A syntax tree as tuples without its empty parts, of which newer versions of Python have more."""
    if isinstance(item, ast.AST):
        parts = ((name, _outline(part)) for name, part in ast.iter_fields(item) if part is not None and part != [])
        return (type(item).__name__, *parts) if not isinstance(item, ast.Constant) else repr(item.value)
    return [_outline(part) for part in item] if isinstance(item, list) else item


class _Essence(ast.NodeTransformer):
    """Drops what cannot change a result: strings that stand alone, and branches for type checkers."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        alone = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if alone else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        checker = getattr(node.test, "id", None) or getattr(node.test, "attr", None)
        return node.orelse if checker == "TYPE_CHECKING" else node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if getattr(node, "body", None) == [] and not isinstance(node, ast.Module):
            node.body = [ast.Pass()]  # type: ignore[attr-defined]
        return node
