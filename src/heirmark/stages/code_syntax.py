"""What a source file says, as far as it can change a result: its statements, and which definitions each of them mentions."""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

WHOLE = ""
"""In place of the name of a definition: all that a module says."""


@dataclass(frozen=True)
class Statement:
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
class Source:
    """What one file says.

    Attributes:
        statements: in order; an import of several names is several.
        passed_on: the names that a package only imports, and from where.
        parts: digest and imports of the parts that were asked for, by names.
    """

    statements: tuple[Statement, ...]
    passed_on: Mapping[str, tuple[str, str]]
    parts: dict[frozenset[str], tuple[str, tuple[tuple[str, str], ...]]] = field(default_factory=dict)


def read_source(path: Path, name: str) -> Source:
    """What the file of a module says; see :mod:`heirmark.stages.code_version` for what counts."""
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
    return Source(statements, _passed_on(tree, package) if is_package else {})


def _apart(statement: ast.stmt) -> list[ast.stmt]:
    """An import of several names as one of each; any other statement as it is."""
    if not isinstance(statement, ast.ImportFrom):
        return [statement]
    return [ast.ImportFrom(module=statement.module, names=[alias], level=statement.level) for alias in statement.names]


def _examine(statement: ast.stmt, package: str, *, trusted: bool) -> Statement:
    mentions: set[str] = set()
    imports: list[tuple[str, str]] = []
    for node in ast.walk(statement):
        if isinstance(node, ast.Name):
            mentions.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            imports += [used for _, target, whole in _imports(node, package) for used in (target, whole)]
    return Statement(
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


def part_of(source: Source, roots: frozenset[str]) -> tuple[str, tuple[tuple[str, str], ...]]:
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
