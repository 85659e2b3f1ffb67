"""How embeddings went, epoch by epoch: success rate and accuracy of the marked model and of its thieves (T2S, Figs. 3 and 4)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from heirmark.grids.grid import Block
from heirmark.grids.plan import Cell
from heirmark.grids.settings import Contexts
from heirmark.report.section import Column, Entry, Figure, Line, Panels, Section, Table
from heirmark.report.words import number, percent
from heirmark.results.spreads import spread_of
from heirmark.stages.store import Store
from heirmark.work.marked_folder import read_history

WHOSE = (("target", "marked model"), ("student", "simulated thief"), ("thief", "held-out thief"))
MEASURES = (("wsr", "Watermark success rate", "WSR"), ("accuracy", "Clean accuracy", "ACC"))


@dataclass(frozen=True, kw_only=True)
class Course:
    """How an embedding went, epoch by epoch.

    Attributes:
        marking: that was embedded.
        history: rows with ``epoch``, possibly fractional, and any of ``target_wsr``, ``student_wsr``, ``thief_wsr`` and the same
            of ``accuracy``, each 0..1, means over seeds.
        clean_accuracy: of an unmarked model, to hold against; NaN where none is known.
    """

    marking: str = ""
    history: tuple[Mapping[str, float], ...]
    clean_accuracy: float = math.nan


def draw(block: Block, cells: Sequence[Cell], store: Store, contexts: Contexts) -> Iterator[Course]:
    """The mean history over seeds; none for a method that keeps no success rate."""
    history = history_of(cells, store)
    if any(name.endswith("_wsr") for row in history for name in row):
        yield Course(marking=cells[0].marking.name, history=history)


def history_of(cells: Sequence[Cell], store: Store) -> tuple[Mapping[str, float], ...]:
    """The mean history of a watermark's embeddings, over the seeds that are finished."""
    found = [store.find(stage) for stage in {cell.seed: cell.goal.inputs["marked"] for cell in cells}.values()]
    return mean_history([course_of(read_history(artifact.folder)) for artifact in found if artifact is not None])


def course_of(history: Sequence[Mapping[str, float]]) -> tuple[Mapping[str, float], ...]:
    """A history without a further row of an epoch: such a one repeats the figures of what was chosen in the end.

    Examples:
        >>> course_of([{"epoch": 1.0, "wsr": 0.5}, {"epoch": 2.0, "wsr": 0.75}, {"epoch": 2.0, "wsr": 0.5}])
        ({'epoch': 1.0, 'wsr': 0.5}, {'epoch': 2.0, 'wsr': 0.75})
    """
    first = {row["epoch"]: place for place, row in reversed(list(enumerate(history))) if "epoch" in row}
    return tuple(row for place, row in enumerate(history) if first.get(row.get("epoch", math.nan), place) == place)


def mean_history(histories: Sequence[Sequence[Mapping[str, float]]]) -> tuple[Mapping[str, float], ...]:
    """Histories of several seeds as one: the mean of every field at every epoch, of the seeds that have it.

    Examples:
        >>> mean_history([[{"epoch": 0.0, "wsr": 0.25}], [{"epoch": 0.0, "wsr": 0.75}]])
        ({'epoch': 0.0, 'wsr': 0.5},)
    """
    places: dict[float, dict[str, list[float]]] = {}
    for history in histories:
        for row in history:
            place = places.setdefault(float(row.get("epoch", math.nan)), {})
            for name, value in row.items():
                place.setdefault(name, []).append(float(value))
    return tuple(
        {name: sum(values) / len(values) for name, values in fields.items()} for _, fields in sorted(places.items())
    )


def show(found: Sequence[Course], where: str = "b0") -> Iterator[Section]:
    """One section, where a history has such rates."""
    parts = [part for place, course in enumerate(found) for part in _parts(course, f"{where}-course-{place}")]
    if parts:
        yield Section(
            title="The embedding, epoch by epoch",
            aside="From the methods’ own histories, means over seeds; nothing is chosen by them. While a mark is "
            "rehearsed, a simulated thief copies the model at every step, and the model learns to pass the mark on to "
            "it. It works when the thief’s success rate climbs and nobody’s accuracy falls.",
            parts=tuple(parts),
        )


def _parts(course: Course, where: str) -> Iterator[Panels | Table]:
    figures = tuple(
        figure for measure, name, _ in MEASURES if (figure := _figure(course, measure, name, f"{where}-{measure}"))
    )
    if not figures:
        return
    yield Panels(title=course.marking, figures=figures)
    fields = [
        (f"{whose}_{measure}", f"{name} {short}")
        for measure, _, short in MEASURES
        for whose, name in WHOSE
        if _series(course.history, f"{whose}_{measure}")
    ]
    lines = tuple(
        Line(name=number(row.get("epoch")), cells=tuple(Entry(text=percent(row.get(name))) for name, _ in fields))
        for row in course.history
    )
    yield Table(
        label=f"{course.marking or 'The embedding'}, numbers per epoch",
        columns=(Column(name="epoch", number=False), *(Column(name=name) for _, name in fields)),
        groups=(("", lines),),
        style="plain",
        folded="The numbers behind the lines",
    )


def _figure(course: Course, measure: str, name: str, where: str) -> Figure | None:
    from heirmark.report.charts import LOOKS, Rates, rate_figure

    lines = [
        Rates(name=words, points=tuple((epoch, spread_of([rate])) for epoch, rate in series), look=look)
        for (whose, words), look in zip(WHOSE, LOOKS, strict=False)
        if (series := _series(course.history, f"{whose}_{measure}"))
    ]
    if not lines:
        return None
    alt = f"Lines: {name.lower()} per epoch of the embedding; the numbers follow below the figure."
    clean = course.clean_accuracy if measure == "accuracy" else math.nan
    return rate_figure(lines, name, "epoch of embedding", where, alt, whole=measure == "wsr", clean=clean)


def _series(history: Sequence[Mapping[str, float]], name: str) -> list[tuple[float, float]]:
    """The finite (epoch, value) pairs of a history."""
    pairs = [(float(row.get("epoch", math.nan)), float(row.get(name, math.nan))) for row in history]
    return [pair for pair in pairs if all(map(math.isfinite, pair))]
