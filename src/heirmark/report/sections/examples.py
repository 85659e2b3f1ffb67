"""Triggers beside the inputs that they were made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from heirmark.report.section import Gallery, Section, Shown


def examples(found: Sequence[Shown]) -> Iterator[Section]:
    """One section, where there are examples."""
    if not found:
        return
    beside = "Each trigger stands beside the ordinary inputs it was made of. " if found[0].hosts else ""
    yield Section(
        title="The triggers",
        aside=f"{beside}A marked model answers it with the target label; the matched control comes from the same "
        "inputs without the trigger, and should not be answered so.",
        parts=(Gallery(examples=tuple(found)),),
    )
