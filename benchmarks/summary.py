"""Figures over seeds, as every benchmark here gives them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

Group = TypeVar("Group", bound=Hashable)
Row = Mapping[str, Any]


def grouped(rows: Iterable[Row], key: Callable[[Row], Group]) -> dict[Group, list[Row]]:
    """Rows by key, in the order of first appearance."""
    groups: dict[Group, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def spread(name: str, values: Sequence[float], *, worst: Callable[[Sequence[float]], float]) -> dict[str, float | None]:
    """Mean, standard deviation (None of a single value) and worst."""
    return {
        f"{name}_mean": round(statistics.mean(values), 4),
        f"{name}_spread": round(statistics.stdev(values), 4) if len(values) > 1 else None,
        f"{name}_worst": round(worst(values), 4),
    }


def figures(members: Sequence[Row], *, inherits: bool) -> dict[str, Any]:
    """Accuracy, WSR and verdicts over seeds; the worst WSR is the lowest of what should carry the mark, else the highest."""
    return {
        "seeds": len(members),
        **spread("accuracy", [row["accuracy"] for row in members], worst=min),
        **spread("wsr", [row["wsr"] for row in members], worst=min if inherits else max),
        "p_value_largest": max(row["p_value"] for row in members),
        "marked": sum(row["outcome"] == "MARKED" for row in members),
    }
