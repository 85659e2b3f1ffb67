"""The demo as a grid: watermark, steal, prove, with every control that an honest claim needs; and what is made of its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from heirmark.configuration import to_json
from heirmark.data import DATASETS
from heirmark.errors import HeirmarkError
from heirmark.files import atomic_write_bytes, atomic_write_json
from heirmark.grids.demo_folder import NOTES, thieves_of, write_seed
from heirmark.grids.executors.here import run_here
from heirmark.grids.grid import Block, Grid, Marking, Workload
from heirmark.grids.reporting import part_command, report_of
from heirmark.grids.run import Executor, Run, run_grid
from heirmark.grids.settings import Contexts
from heirmark.jobs.means import OnEvent
from heirmark.loading import check_known
from heirmark.methods import METHODS
from heirmark.profiles import Profile
from heirmark.querying.blackbox import Api
from heirmark.report.demo_story import (
    LABEL,
    SHOWN,
    SOFT,
    VANILLA,
    suspect_of,
    tell_story,
)
from heirmark.report.page import render
from heirmark.report.section import Report
from heirmark.results.rows import Row, row_to_json
from heirmark.results.summary import summarise, summary_to_json
from heirmark.stages.stage import Artifact, lineage
from heirmark.suiting import Config, suited
from heirmark.tasks.space import Tokens
from heirmark.work.stealing import Theft
from heirmark.work.trials import Trial


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo found.

    Attributes:
        rows: one a suspect, key and seed.
        summary: the story in sentences.
        report: of several seeds; None of one.
    """

    rows: tuple[Row, ...]
    summary: tuple[str, ...]
    report: Report | None = None


def demo_grid(profile: Profile, *, seeds: tuple[int, ...] = (0,), methods: Sequence[str] = ()) -> Grid:
    """The watermark on show, and joint training to compare, each stolen three times, beside a clean model and a competitor's own.

    The model that chooses the key's classes neither calibrates nor is judged: it would look innocent by construction. The
    unmarked model that is judged, and stolen, is another; and the models that calibrate are reported nowhere. They are of
    several architectures where the profile names some.

    Args:
        profile: settings.
        seeds: of everything random, data's splits among it.
        methods: names of methods to show besides. Each brings its own key, and with it one more judgement of the controls.

    Raises:
        BadConfig: for a method that is none, or stands in the demo anyway.
    """
    for name in methods:
        check_known("further method", name, [known for known in METHODS if known not in (SHOWN, VANILLA, "unmarked")])
    unmarked, calibration = _suited(profile, profile.unmarked()), profile.calibration()
    made = {name: _suited(profile, profile.shown(name)) for name in (SHOWN, VANILLA, *methods)}
    made[VANILLA] = replace(made[VANILLA], trigger=made[SHOWN].trigger)
    same, other = profile.thieves()
    block = Block(
        name=profile.data,
        workload=Workload(data=profile.data),
        markings=tuple(Marking(name=name, method=method) for name, method in made.items()),
        trials=(
            Trial(name=SOFT, group="Stolen", steps=(Theft(attack=same),)),
            Trial(name=LABEL, group="Stolen", steps=(Theft(attack=same, api=Api(answers="label")),)),
            Trial(
                name=profile.other_name,
                group="Stolen",
                steps=(Theft(attack=other, api=Api(answers="label")),),
            ),
        ),
        unmarked=unmarked,
        controls={"clean": unmarked, "independent": replace(unmarked, data="adversary")},
        calibrators=tuple(_suited(profile, each) for each in calibration),
    )
    return Grid(
        name="demo",
        title="A watermark that survives theft",
        note=" ".join((thieves_of(profile.other_name), *NOTES)),
        blocks=(block,),
        seeds=seeds,
    )


def _suited(profile: Profile, method: Config) -> Config:
    """A method as it is, but on texts with the trigger that is to them what its own is to images."""
    data = DATASETS.get(profile.data)
    if data is None or data.tokenising is None:
        return method
    return suited(method, Tokens((data.tokenising.length or 1,)), len(data.classes))


def run_demo(
    grid: Grid,
    out: Path,
    *,
    contexts: Contexts,
    command: str,
    execute: Executor = run_here,
    facts: Mapping[str, str] | None = None,
    on_event: OnEvent | None = None,
) -> DemoResult:
    """Run the demo, or what is left of it.

    Args:
        grid: of :func:`demo_grid`.
        out: gets ``results.json``, ``report.html``, ``run.json``, ``key/``, ``calibration.json``, ``models/`` and ``stages/``, by
            which a second call resumes. With several seeds, the report is of all of them, and each has a folder ``seed-N`` of its
            own with a page, models and key.
        contexts: data and hardware.
        command: that makes these numbers again.
        execute: where stages run.
        facts: of these, for the provenance.
        on_event: told of every stage, with its name for people.

    Raises:
        HeirmarkError: when the watermark on show or joint training fails; a further method that fails takes its own rows along,
            and no others.
    """
    run = run_grid(
        grid, out, contexts=contexts, command=command, execute=execute, facts=facts, on_event=on_event, export=True
    )
    failures = _failures(run)
    rows = tuple(row for row in run.rows if not row.error)
    several = len(grid.seeds) > 1
    for seed in grid.seeds:
        mine = [row for row in rows if row.seed == seed]
        write_seed(run, seed, mine, out / f"seed-{seed}" if several else out, contexts, failures)
    summary = tuple(summarise(rows))
    report = None
    if several:
        report = report_of(
            grid,
            summary,
            made_by=lambda row: part_command(command, "", row.seed),
            provenance=run.provenance,
            notes=failures,
        )
        atomic_write_bytes(out / "report.html", render(report).encode())
    atomic_write_json(out / "results.json", plain_rows(rows))
    atomic_write_json(
        out / "run.json",
        {
            "provenance": run.provenance,
            "grid": to_json(grid),
            "summary": [summary_to_json(figures) for figures in summary],
            "training_seconds": round(sum(found.record["seconds"] for found in _artifacts(run)), 1),
        },
    )
    return DemoResult(
        rows=rows,
        summary=(*(tell_story(rows) if report is None else report.summary), *failures),
        report=report,
    )


def plain_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as JSON values, with what their suspects are called for people."""
    return [{"suspect": suspect_of(row).name, **row_to_json(row)} for row in rows]


def _artifacts(run: Run) -> Iterator[Artifact]:
    for stage in run.plan.stages:
        found = run.store.find(stage)
        if found is not None:
            yield found


def _failures(run: Run) -> tuple[str, ...]:
    """What failed first of every further method, in words."""
    core = lineage(*(goal for cell in run.plan.cells if cell.marking.name in (SHOWN, VANILLA) for goal in cell.goals))
    told = {}
    for stage in run.plan.stages:
        if stage.name in run.failed and not any(item.name in run.failed for item in stage.inputs.values()):
            told[stage.name] = f"To {run.plan.labels[stage.name]} failed: {run.failed[stage.name]}."
    for stage in core:
        if stage.name in told:
            raise HeirmarkError(told[stage.name])
    return tuple(told.values())
