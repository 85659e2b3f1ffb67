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

# What files and finds results, or refuses a configuration, cannot change a number; how results are identified has a version
# of its own.
MECHANISM = frozenset(
    ["heirmark.configuration.checking"]
    + [f"heirmark.pipeline{part}" for part in ("", ".code_version", ".records", ".stage", ".store")]
)
REGISTRY = "registry"
"""Name of modules that map names to code."""
WHOLE = ""
"""In place of the name of a definition: all that a module says."""


@dataclass(frozen=True)
class _Statement:
    """A statement at the top of a module.

    Attributes:
        digest: of its syntax.
        idle: whether it only defines names.
        defines: these.
        mentions: names that stand in it.
        imports: pairs of module and name that it reads, at whatever depth.
    """

    digest: str
    idle: bool
    defines: frozenset[str]
    mentions: frozenset[str]
    imports: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Source:
    """What one file says.

    Attributes:
        statements: in order; an import of several names is several.
        passed_on: the names that a package only imports, and from where.
        parts: digest and imports of the parts that were asked for, by names.
    """

    statements: tuple[_Statement, ...]
    passed_on: Mapping[str, tuple[str, str]]
    parts: dict[frozenset[str], tuple[str, tuple[tuple[str, str], ...]]] = field(default_factory=dict)


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
    sources: dict[str, _Source] = {}
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
        pending.extend(_resolve(*used, tops) for used in _part(source, wanted[module])[1])
    return sources, {module: _part(sources[module], wanted[module])[0] for module in sorted(wanted)}


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
    trusted = name.partition(".")[0] == "heirmark"
    tree = ast.parse(path.read_bytes())
    stub = path.with_suffix(".pyi")
    if trusted and stub.is_file():  # names that a package imports on use
        tree.body += ast.parse(stub.read_bytes()).body
    tree = _Essence(annotated=not trusted).visit(tree)
    package = name if is_package else name.rpartition(".")[0]
    statements = tuple(
        _examine(part, package, trusted=trusted) for statement in tree.body for part in _apart(statement)
    )
    source = _Source(statements, _passed_on(tree, package) if is_package else {})
    _memo[name] = (mark, stamp, source)
    return source


def _apart(statement: ast.stmt) -> list[ast.stmt]:
    """An import of several names as one of each; any other statement as it is."""
    if not isinstance(statement, ast.ImportFrom):
        return [statement]
    return [ast.ImportFrom(module=statement.module, names=[alias], level=statement.level) for alias in statement.names]


def _examine(statement: ast.stmt, package: str, *, trusted: bool) -> _Statement:
    mentions: set[str] = set()
    imports: list[tuple[str, str]] = []
    for node in ast.walk(statement):
        if isinstance(node, ast.Name):
            mentions.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            imports += [used for _, target, whole in _imports(node, package) for used in (target, whole)]
    return _Statement(
        digest=hashlib.sha256(repr(_outline(statement)).encode("utf-8", "surrogatepass")).hexdigest(),
        idle=_idle(statement, trusted=trusted),
        defines=frozenset(_defines(statement)),
        mentions=frozenset(mentions),
        imports=tuple(imports),
    )


def _imports(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, tuple[str, str], tuple[str, str]]]:
    """Each name that an import binds, what that is, a pair of module and name, and what is imported for it."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            top = alias.name.partition(".")[0]
            yield alias.asname or top, (alias.name if alias.asname else top, WHOLE), (alias.name, WHOLE)
        return
    base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    module = ".".join([*base, *([node.module] if node.module else [])])
    for alias in node.names:
        yield alias.asname or alias.name, (module, alias.name), (module, alias.name)


def _passed_on(tree: ast.Module, package: str) -> dict[str, tuple[str, str]]:
    """The names that a module binds once, by importing them, and from where."""
    imports: dict[str, tuple[str, str]] = {}
    bound: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for name, target, _ in _imports(node, package):
                imports[name] = target
                bound[name] += 1
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound[node.id] += 1
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound[node.name] += 1
    return {name: target for name, target in imports.items() if bound[name] == 1}


def _part(source: _Source, roots: frozenset[str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Digest and imports of the part of a module that some of its definitions depend on.

    Left out are definitions that nothing in the rest mentions and whose making does nothing.
    """
    if roots not in source.parts:
        kept = {k for k, one in enumerate(source.statements) if WHOLE in roots or not one.idle}
        places: dict[str, list[int]] = {}
        for k, one in enumerate(source.statements):
            for name in one.defines:
                places.setdefault(name, []).append(k)
        pending = [*roots, *(name for k in kept for name in source.statements[k].mentions)]
        seen: set[str] = set()
        while pending:
            name = pending.pop()
            if name not in seen:
                seen.add(name)
                fresh = [k for k in places.get(name, ()) if k not in kept]
                kept.update(fresh)
                pending += [mention for k in fresh for mention in source.statements[k].mentions]
        part = [source.statements[k] for k in sorted(kept)]
        digest = hashlib.sha256("".join(one.digest for one in part).encode()).hexdigest()
        source.parts[roots] = digest, tuple(dict.fromkeys(used for one in part for used in one.imports))
    return source.parts[roots]


def _idle(statement: ast.stmt, *, trusted: bool) -> bool:
    """Whether a statement only defines names: in a user's package a registering decorator or base class would do more."""
    if isinstance(statement, ast.ImportFrom):
        return all(alias.name != "*" for alias in statement.names)
    if isinstance(statement, (ast.Assign, ast.AnnAssign)):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return trusted and all(isinstance(target, ast.Name) for target in targets)
    if isinstance(statement, ast.ClassDef):
        decorators = [ast.unparse(decorator).partition("(")[0] for decorator in statement.decorator_list]
        plain = all(name in ("dataclass", "dataclasses.dataclass", "checked") for name in decorators)
        acts = any(isinstance(part, ast.Expr) for part in statement.body)
        return not acts and (trusted or (plain and not statement.bases and not statement.keywords))
    return isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)) and (trusted or not statement.decorator_list)


def _defines(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    if isinstance(statement, ast.Assign):
        return {target.id for target in statement.targets if isinstance(target, ast.Name)}
    if isinstance(statement, ast.AnnAssign):
        return {statement.target.id} if isinstance(statement.target, ast.Name) else set()
    return {str(getattr(statement, "name", ""))}


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


def _outline(item: object) -> object:
    """A syntax tree as tuples without its empty parts, of which newer versions of Python have more."""
    if isinstance(item, ast.AST):
        parts = ((name, _outline(part)) for name, part in ast.iter_fields(item) if part is not None and part != [])
        return (type(item).__name__, *parts) if not isinstance(item, ast.Constant) else repr(item.value)
    return [_outline(part) for part in item] if isinstance(item, list) else item


class _Essence(ast.NodeTransformer):
    """Drops what cannot change a result: strings that stand alone, branches for type checkers, annotations that do not count."""

    def __init__(self, *, annotated: bool) -> None:
        self.annotated = annotated

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return node if self.annotated else ast.arg(arg=node.arg)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.returns = node.returns if self.annotated else None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if not self.annotated:
            # Of a dataclass the word says what is a field.
            node.annotation = ast.Constant(ast.unparse(node.annotation).startswith(("ClassVar", "InitVar")))
        return node

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
