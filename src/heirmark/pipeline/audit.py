"""The audit: a marked model and its unmarked twin under every attack of a programme, judged with the model's key."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from heirmark.configuration import to_json
from heirmark.errors import told
from heirmark.files import atomic_write_bytes, atomic_write_json
from heirmark.pipeline.altering import Alteration
from heirmark.pipeline.audit_plan import Programme
from heirmark.pipeline.context import Context
from heirmark.pipeline.detecting import expose_stage, read_exposed, read_served, screen_stage
from heirmark.pipeline.inspecting import inspect_stage
from heirmark.pipeline.judging import Judged, Judgement, read_judged, verify_stage
from heirmark.pipeline.provenance import made_here
from heirmark.pipeline.stage import Artifact, Stage
from heirmark.pipeline.stealing import ANSWERS, Theft
from heirmark.pipeline.store import Store
from heirmark.pipeline.trials import Probe, Trial, chain
from heirmark.report.audit import (
    MARKED_MODEL,
    STOLEN_COPY,
    UNMARKED_TWIN,
    AuditReport,
    AuditRow,
    InspectionRow,
    ScreenRow,
    render_audit,
    tell_audit,
    to_plain,
)


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """What an audit found.

    Attributes:
        victim: the marked model and its twin without any attack.
        rows: attacks.
        inspections: searches for the mark.
        screens: screens of queries.
        summary: the story in sentences.
        path: of the page; the numbers lie beside it as JSON.
    """

    victim: AuditRow
    rows: tuple[AuditRow, ...]
    inspections: tuple[InspectionRow, ...]
    screens: tuple[ScreenRow, ...]
    summary: tuple[str, ...]
    path: Path


@dataclass(frozen=True, kw_only=True)
class Auditor:
    """Marked model and twin as stages, and where what is done to them is kept.

    Attributes:
        marked: the marked model, without its key.
        key: its key and calibration.
        twin: the unmarked model.
        context: data and hardware.
        store: of finished stages.
        seed: of the attacks.
        label: told what a stage is called before it runs.
    """

    marked: Stage
    key: Stage
    twin: Stage
    context: Context
    store: Store
    seed: int
    label: Callable[[Stage, str], None]

    def attack(self, trial: Trial) -> AuditRow:
        """One attack on the marked model and on its twin; what fails is told in the row."""
        row = AuditRow(name=trial.name, group=trial.group, curve=trial.curve)
        try:
            judged, made = self._judge(trial, self.marked, "marked model")
        except Exception as error:  # whatever an attack runs into is a result
            return replace(row, error=told(error))
        row = replace(
            row,
            accuracy=judged.accuracy,
            wsr=judged.verdict.wsr,
            p_value=judged.verdict.p_value,
            outcome=judged.verdict.outcome,
            # What a second extraction asks, it asks of the thief's own copy.
            queries=made[0].summary.get("queries", 0) if made else 0,
            seconds=sum(artifact.record["seconds"] for artifact in made) if made else math.nan,
        )
        try:
            twin, _ = self._judge(trial, self.twin, "twin")
        except Exception as error:
            return replace(row, twin_error=told(error))
        return replace(row, twin_accuracy=twin.accuracy, twin_wsr=twin.verdict.wsr, twin_outcome=twin.verdict.outcome)

    def inspect(self, probe: Probe, classes: Sequence[str]) -> list[InspectionRow]:
        """One search for the mark, in every model that the probe names."""
        return [self._inspect(probe, name, stage, classes) for name, stage in self._models(probe)]

    def screen(self, probe: Probe) -> list[ScreenRow]:
        """One screen, before every model that the probe names."""
        return [self._screen(probe, name, stage) for name, stage in self._models(probe)]

    def _judge(self, trial: Trial, start: Stage, whom: str) -> tuple[Judged, list[Artifact]]:
        made = []
        stage = start
        for position, stage in enumerate(self._steps(trial.steps, start)):
            self.label(stage, f"{trial.name}, {whom}" + (f", step {position + 1}" if len(trial.steps) > 1 else ""))
            if ANSWERS in stage.inputs:
                self.label(stage.inputs[ANSWERS], f"answer queries, {whom}")
            made.append(self.store.get(stage, self.context))
        verification = verify_stage(stage, self.key, self.key, self.context, Judgement())
        self.label(verification, f"verify: {trial.name}, {whom}")
        return read_judged(self.store.get(verification, self.context).folder), made

    def _steps(self, steps: Sequence[Theft | Alteration], start: Stage) -> list[Stage]:
        return chain(steps, start, self.context, seed=self.seed)

    def _models(self, probe: Probe) -> list[tuple[str, Stage]]:
        stolen = [(STOLEN_COPY, self._steps(probe.stolen, self.marked)[-1])] if probe.stolen else []
        return [(MARKED_MODEL, self.marked), *stolen, (UNMARKED_TWIN, self.twin)]

    def _inspect(self, probe: Probe, name: str, model: Stage, classes: Sequence[str]) -> InspectionRow:
        inspection = inspect_stage(probe.attack, model, self.context, seed=self.seed)
        exposure = expose_stage(inspection, model, self.key, self.context)
        self.label(inspection, f"{probe.name}, {name}")
        self.label(exposure, f"hold {probe.name} against the key, {name}")
        try:
            found = read_exposed(self.store.get(exposure, self.context).folder)
            seconds = self.store.get(inspection, self.context).record["seconds"]
        except Exception as error:
            return InspectionRow(name=probe.name, model=name, error=told(error))
        return InspectionRow(
            name=probe.name,
            model=name,
            suspects=tuple(classes[label] for label in found.suspects),
            found=found.found,
            false_suspects=found.false_suspects,
            reversed_success=max((share for _, share in found.reversed_success), default=math.nan),
            seconds=seconds,
        )

    def _screen(self, probe: Probe, name: str, model: Stage) -> ScreenRow:
        stage = screen_stage(probe.attack, model, self.key, self.key, self.context, seed=self.seed)
        self.label(stage, f"{probe.name}, {name}")
        try:
            artifact = self.store.get(stage, self.context)
        except Exception as error:
            return ScreenRow(name=probe.name, model=name, error=told(error))
        found = read_served(artifact.folder)
        return ScreenRow(
            name=probe.name,
            model=name,
            detected=found.screened.detected,
            false_alarms=found.screened.flagged,
            accuracy=found.accuracy,
            wsr=found.verdict.wsr,
            p_value=found.verdict.p_value,
            outcome=found.verdict.outcome,
            seconds=artifact.record["seconds"],
        )


def run_audit(
    auditor: Auditor,
    programme: Programme,
    out: Path,
    *,
    title: str,
    command: str,
    name: str,
    notes: tuple[str, ...],
    facts: Mapping[str, str],
) -> AuditResult:
    """Run a programme, or what is left of it, and write ``NAME.json`` and ``NAME.html``.

    Args:
        auditor: the models.
        programme: the attacks.
        out: folder of the results.
        title: of the page.
        command: that makes these numbers again.
        name: of the two files.
        notes: for the page.
        facts: further provenance.
    """
    classes = auditor.context.task.classes
    victim = auditor.attack(Trial(name="no attack", group="The models", steps=()))
    rows = tuple(auditor.attack(trial) for trial in programme.trials)
    inspections = tuple(row for probe in programme.inspections for row in auditor.inspect(probe, classes))
    screens = tuple(row for probe in programme.screenings for row in auditor.screen(probe))
    summary = tell_audit(victim, rows, inspections, screens)
    provenance = {
        "command": command,
        "seed": str(auditor.seed),
        **made_here(auditor.context.runtime),
        "task": auditor.context.task.describe(),
        **facts,
    }
    report = AuditReport(
        title=title,
        summary=summary,
        victim=victim,
        rows=(victim, *rows),
        inspections=inspections,
        screens=screens,
        notes=(*notes, *programme.left_out),
        provenance=provenance,
    )
    out.mkdir(parents=True, exist_ok=True)
    page = out / f"{name}.html"
    atomic_write_json(
        page.with_suffix(".json"),
        {
            "provenance": provenance,
            "programme": to_json(programme),
            "summary": list(summary),
            "rows": [to_plain(row) for row in (victim, *rows)],
            "inspections": [to_plain(row) for row in inspections],
            "screens": [to_plain(row) for row in screens],
        },
    )
    atomic_write_bytes(page, render_audit(report).encode())
    return AuditResult(victim=victim, rows=rows, inspections=inspections, screens=screens, summary=summary, path=page)
