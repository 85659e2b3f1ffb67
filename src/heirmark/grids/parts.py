"""Rows of a grid that was run in parts, seed by seed or here and there, put together again."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from heirmark.configuration import to_json
from heirmark.errors import BadArtifact, BadConfig
from heirmark.files import MIB, read_json
from heirmark.grids.grid import Grid, of_blocks
from heirmark.results.rows import Row, read_rows
from heirmark.work.trials import Trial

ROWS, BENCH = "rows.jsonl", "bench.json"
"""Files of a run: one cell a line, and its settings."""
PARTS = "parts"
"""In the settings of a whole: where each part of it comes from."""
LAYOUT = 2
"""Of the settings in ``bench.json``; those without a number were laid out otherwise, and can be held against each other alone."""
_SHOWN = ("pictures", "markings")
"""Of a block, what may differ between parts: what the report shows besides, and which watermarks there are."""
_FEW = 4
"""So many names a note takes."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a run of some of a grid's seeds or watermarks left.

    Attributes:
        folder: where it lies.
        rows: one a cell.
        provenance: how to make them again; ``command`` among it.
        grid: its settings as JSON.
        layout: of the settings.
    """

    folder: Path
    rows: tuple[Row, ...]
    provenance: Mapping[str, str]
    grid: Mapping[str, Any]
    layout: int = LAYOUT


@dataclass(frozen=True, kw_only=True)
class Whole:
    """Parts put together.

    Attributes:
        grid: with the seeds and watermarks that the parts have.
        rows: of all parts, in the order of the grid.
        provenance: facts of all parts; where these differ, each fact once.
        made_by: the command that made a row.
        missing: how many cells of the grid no part has.
        absent: seeds, blocks and watermarks of the recipe that no part has, in words.
        uneven: seeds whose unmarked control is not one model in all parts.
        unlike: how parts were computed otherwise than others, in words.
    """

    grid: Grid
    rows: tuple[Row, ...]
    provenance: Mapping[str, str]
    made_by: Callable[[Row], str]
    missing: int
    absent: tuple[str, ...]
    uneven: tuple[int, ...]
    unlike: tuple[str, ...]


def read_part(folder: Path) -> Part:
    """The rows and settings that a run wrote into a folder.

    Raises:
        BadArtifact: when they are missing, damaged or no such files.
    """
    described = read_json(folder / BENCH, max_bytes=64 * MIB)
    try:
        grid, provenance = dict(described["grid"]), {str(k): str(v) for k, v in described["provenance"].items()}
        blocks = [(block["name"], [marking["name"] for marking in block["markings"]]) for block in grid["blocks"]]
    except (AttributeError, KeyError, TypeError, ValueError):
        blocks = []
    if not blocks or "command" not in provenance:
        raise BadArtifact(f"{folder / BENCH} holds no settings of a grid: name a folder that heirmark bench wrote")
    if PARTS in described:
        raise BadArtifact(f"{folder} is put together of parts itself: name these instead")
    layout = LAYOUT if described.get("layout") == LAYOUT else 1
    return Part(folder=folder, rows=read_rows(folder / ROWS), provenance=provenance, grid=grid, layout=layout)


def join(grid: Grid, parts: Sequence[Part], command: str) -> Whole:
    """Put the rows of several runs of one grid together. A cell that two of them have is refused, since one had to be chosen.

    Args:
        grid: the recipe's.
        parts: runs of some of its seeds or watermarks, with the same settings; title, note and papers' figures may have changed.
        command: by which they are put together.

    Raises:
        BadConfig: when a part was run with other settings, or two have the same cell.
    """
    wanted = _wanted(grid, parts)
    found: dict[tuple[str, str, str, str, str, int], tuple[Row, Part]] = {}
    for part in parts:
        _check_settings(part, wanted)
        for row in part.rows:
            other = found.setdefault(row.place, (row, part))[1]
            if other is not part:
                raise BadConfig(
                    f"{other.folder} and {part.folder} both have {row.marking} with seed {row.seed}: leave one of them out"
                )
    seeds = tuple(sorted({row.seed for row, _ in found.values()}))
    markings = {(row.block, row.marking) for row, _ in found.values()}
    present = {block for block, _ in markings}
    blocks = tuple(
        replace(block, markings=kept)
        for block in grid.blocks
        if (kept := tuple(marking for marking in block.markings if (block.name, marking.name) in markings))
    )
    whole = replace(of_blocks(grid, blocks), seeds=seeds)
    places = list(_places(whole))
    unknown = set(found) - set(places)
    if unknown:
        row, part = found[min(unknown)]
        raise BadConfig(
            f"{part.folder} has a row that is none of the grid's ({row.marking}, {row.trial or row.probe}): run it again"
        )
    commands = {place: part.provenance["command"] for place, (_, part) in found.items()}
    return Whole(
        grid=whole,
        rows=tuple(found[place][0] for place in places if place in found),
        provenance={
            "command": command,
            "seeds": " ".join(map(str, seeds)),
            **_common([part.provenance for part in parts], but=("command", "seeds")),
        },
        made_by=lambda row: commands[row.place],
        missing=sum(place not in found for place in places),
        absent=(
            *(f"seed {seed}" for seed in grid.seeds if seed not in seeds),
            *(block.name for block in grid.blocks if block.name not in present),
            *(
                marking.name
                for block in grid.blocks
                for marking in block.markings
                if block.name in present and (block.name, marking.name) not in markings
            ),
        ),
        uneven=tuple(_uneven(parts)),
        unlike=(*unlike(parts), *([OLDER] if parts[0].layout != LAYOUT else [])),
    )


def _uneven(parts: Sequence[Part]) -> list[int]:
    """Seeds of which two parts have the control of a block at different accuracies, so that it was trained twice."""
    seen: dict[tuple[int, str, str, str], list[set[float]]] = {}
    for part in parts:
        mine: dict[tuple[int, str, str, str], set[float]] = {}
        for row in part.rows:
            if not row.marked and math.isfinite(row.accuracy):
                mine.setdefault((row.seed, row.block, row.trial, row.probe), set()).add(row.accuracy)
        for question, accuracies in mine.items():
            seen.setdefault(question, []).append(accuracies)
    return sorted(
        {
            seed
            for (seed, *_), each in seen.items()
            if any(one.isdisjoint(other) for one, other in itertools.combinations(each, 2))
        }
    )


def unlike(parts: Sequence[Part]) -> Iterator[str]:
    """What of the runtime, which can change a number, is not the same in all parts."""
    for fact in ("device", "precision", "torch", "compile"):
        having: dict[str, list[Part]] = {}
        for part in parts:
            having.setdefault(part.provenance.get(fact, "none"), []).append(part)
        if len(having) > 1:
            told = "; ".join(f"{value}: {_whose(some, parts)}" for value, some in having.items())
            yield f"The parts differ in {fact}, which changes numbers a little: {told}."


def _whose(parts: Sequence[Part], among: Sequence[Part]) -> str:
    """The rows of parts, by seed: all that any part has of it, or which."""
    found = []
    for seed in sorted({row.seed for part in parts for row in part.rows}):
        mine, every = _marked(parts, seed), _marked(among, seed)
        found.append(f"seed {seed}" if len(mine) == len(every) else f"seed {seed} ({_which(mine, every)})")
    return ", ".join(found)


def _marked(parts: Sequence[Part], seed: int) -> dict[tuple[str, str], None]:
    """Blocks and watermarks of which parts have rows of a seed, in their order."""
    return dict.fromkeys((row.block, row.marking) for part in parts for row in part.rows if row.seed == seed)


def _which(mine: Collection[tuple[str, str]], every: Collection[tuple[str, str]]) -> str:
    """Blocks and watermarks by name, or those that are left out, or how many where a reader would count."""
    named, others = _names(mine, every), _names([pair for pair in every if pair not in mine], every)
    fewest = min(named, others, key=len)
    if len(fewest) > _FEW:
        return f"{len(mine)} of {len(every)} watermarks"
    # Names have commas of their own.
    return ("" if fewest is named else "all but ") + " and ".join(fewest)


def _names(some: Collection[tuple[str, str]], every: Collection[tuple[str, str]]) -> list[str]:
    """Blocks, where they are whole and others are there, and watermarks."""
    names = []
    blocks = dict.fromkeys(block for block, _ in every)
    for block in blocks:
        kept, whole = ([marking for name, marking in each if name == block] for each in (some, every))
        if len(blocks) > 1:
            kept = [block] if len(kept) == len(whole) else [f"{block}: {marking}" for marking in kept]
        names += kept
    return names


OLDER = "The settings of these parts are laid out as they were before; they are held against each other, not against the recipe."


def _wanted(grid: Grid, parts: Sequence[Part]) -> dict[str, Any]:
    """The settings that parts must have, by block: the recipe's, or where all are laid out as before those of all of them."""
    layouts = {part.layout for part in parts}
    if len(layouts) > 1:
        older = next(part for part in parts if part.layout == min(layouts))
        raise BadConfig(
            f"the settings of {older.folder} are laid out otherwise than those of other parts and cannot be held against them: "
            "run it again, or put parts of one time together"
        )
    if layouts == {LAYOUT}:
        described: Any = to_json(grid)
        return {block["name"]: block for block in described["blocks"]}
    wanted: dict[str, Any] = {}
    for block in (block for part in parts for block in part.grid["blocks"]):
        first = wanted.setdefault(block["name"], {**block, "markings": []})
        known = {marking["name"] for marking in first["markings"]}
        first["markings"] += [marking for marking in block["markings"] if marking["name"] not in known]
    return {block.name: wanted[block.name] for block in grid.blocks if block.name in wanted}


def _check_settings(part: Part, wanted: Mapping[str, Any]) -> None:
    """Make sure that a part is one of this grid."""
    for block in part.grid["blocks"]:
        name, mine = block["name"], wanted.get(block["name"])
        differs = "is no block of it" if mine is None else ""
        if mine is not None:
            methods = {marking["name"]: marking for marking in mine["markings"]}
            told, here = _said(block), _said(mine)
            changed = [key for key in mine if key not in _SHOWN and told.get(key) != here.get(key)]
            changed += [
                marking["name"]
                for marking in block["markings"]
                if _said(methods.get(marking["name"])) != _said(marking)
            ]
            differs = f"has other settings now: {', '.join(changed)}" if changed else ""
        if differs:
            raise BadConfig(f"{part.folder} was not run by this recipe, for {name!r} {differs}; run it again")


def _said(value: Any) -> Any:
    """Settings without what says nothing: a field that came later says nothing where a grid does without it."""
    if isinstance(value, Mapping):
        return {name: said for name, item in value.items() if (said := _said(item)) not in (None, {})}
    return [_said(item) for item in value] if isinstance(value, list) else value


def _common(facts: Sequence[Mapping[str, str]], but: Sequence[str]) -> dict[str, str]:
    """Facts by name, each that differs once."""
    names = dict.fromkeys(name for each in facts for name in each if name not in but)
    return {name: "; ".join(dict.fromkeys(each[name] for each in facts if name in each)) for name in names}


def _places(grid: Grid) -> Iterator[tuple[str, str, str, str, str, int]]:
    """Every cell, in the order of a plan."""
    for seed in grid.seeds:
        for block in grid.blocks:
            for marking in block.markings:
                for question, arm in block.questions:
                    names = (question.name, "") if isinstance(question, Trial) else ("", question.name)
                    yield block.name, marking.name, *names, arm, seed
