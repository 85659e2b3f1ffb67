"""Heat maps over source and target classes, a pair a trial (T2S, Figs. 9 and 10)."""

from __future__ import annotations

from collections.abc import Iterator

from heirmark.report.section import Figure, Panels, Section, Source, Table
from heirmark.report.sections.curves import headline, numbers_of
from heirmark.report.sections.verdicts import sheet_of
from heirmark.results.summary import Summary


def maps(source: Source) -> Iterator[Section]:
    """One section, where there are squares of heat maps."""
    from heirmark.report.charts import heat_map

    by_trial: dict[str, list[Summary]] = {}
    for row in source.rows:
        if row.square is not None and row.kind == "verdict":
            by_trial.setdefault(row.trial, []).append(row)
    if not by_trial:
        return
    parts: list[Panels | Table] = []
    for number, (trial, rows) in enumerate(by_trial.items()):
        figures = tuple(
            Figure(
                title=title,
                drawing=heat_map(
                    {row.square: getattr(row, field).mean for row in rows if row.square},
                    ("source", "target"),
                    f"{source.where}-map-{number}-{field}",
                    f"Heat map: {title.lower()} in percent; the numbers follow below.",
                ),
            )
            for title, field in (("Watermark success rate", "wsr"), ("Accuracy", "accuracy"))
        )
        title = headline(trial)
        parts += (Panels(title=title, figures=figures), numbers_of([(row.marking, row) for row in rows], title, source))
    yield Section(
        title="Source and target classes",
        aside="Means over seeds in percent: a row is a source class, a column a target class.",
        parts=tuple(parts),
        sheets=(sheet_of((row for row in source.rows if row.square is not None), "Pairs of classes"),),
    )
