"""Tables that map names to code, each imported when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Registry(MutableMapping[str, T], Generic[T]):
    """Code by name. One line adds to it: ``METHODS["mine"] = Mine``, or ``= "package.module:Mine"`` to import it on use.

    Args:
        package: of the homes.
        homes: ``"module:attribute"`` within the package, by name.
    """

    def __init__(self, package: str, homes: Mapping[str, str]) -> None:
        self._homes: dict[str, T | str] = {name: f"{package}.{home}" for name, home in homes.items()}

    def __getitem__(self, name: str) -> T:
        home = self._homes[name]
        if not isinstance(home, str):
            return home
        module, _, attribute = home.partition(":")
        found: T = getattr(importlib.import_module(module), attribute)
        return found

    def __setitem__(self, name: str, home: T | str) -> None:
        self._homes[name] = home

    def __delitem__(self, name: str) -> None:
        del self._homes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


@dataclass(frozen=True, eq=False)
class OneOf:
    """Beside a type in ``Annotated``: text and JSON may name any dataclass of a table, or those that fit.

    Args:
        table: dataclasses by name.
        fits: tells those that may be named.
    """

    table: Mapping[str, type[Any]]
    fits: Callable[[type[Any]], bool] = lambda kind: True

    def kinds(self) -> list[type[Any]]:
        """The dataclasses, as the table has them now."""
        return [kind for kind in self.table.values() if self.fits(kind)]
