"""The audit: a marked model and its unmarked twin under every attack of a programme, judged with the model's key."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from heirmark.configuration import to_json
from heirmark.errors import HeirmarkError
from heirmark.files import atomic_write_bytes, atomic_write_json
from heirmark.pipeline.altering import Alteration, alter_stage
from heirmark.pipeline.audit_plan import Probe, Programme, Trial
from heirmark.pipeline.context import Context
from heirmark.pipeline.detecting import expose_stage, read_exposed, read_screened, screen_stage
from heirmark.pipeline.inspecting import inspect_stage
from heirmark.pipeline.judging import Judged, Judgement, read_judged, verify_stage
from heirmark.pipeline.stage import Artifact, Stage
from heirmark.pipeline.stealing import Theft, steal_stage
from heirmark.pipeline.store import Store
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
from heirmark.runtime import derive_seed
from heirmark.version import __version__

NOTES = (
    "The thief has the adversary's split of the data, of which the owner trained on nothing, and for removal and detection its "
    "true labels too. No attack is given the key, and what it does to the marked model and to the twin has the same seed.",
    "WSR is measured on held-out triggers, or for a key of random labels on those that trained. The twin is the same net trained "
    "on the same data without a mark, with another seed than the models that chose the key's classes, filtered it or calibrate "
    "its test.",
    "A mark that survives these attacks may fall to others, or to the same ones with more work.",
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
    """

    victim: AuditRow
    rows: tuple[AuditRow, ...]
    inspections: tuple[InspectionRow, ...]
    screens: tuple[ScreenRow, ...]
    summary: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Auditor:
    """Marked model and twin as stages, and where what is done to them is kept.

    Attributes:
        marked: the model's folder with key and calibration.
        twin: the unmarked model.
        context: data and hardware.
        store: of finished stages.
        seed: of the attacks.
        label: told what a stage is called before it runs.
    """

    marked: Stage
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
            made.append(self.store.get(stage, self.context))
        verification = verify_stage(stage, self.marked, self.marked, self.context, Judgement())
        self.label(verification, f"verify: {trial.name}, {whom}")
        return read_judged(self.store.get(verification, self.context).folder), made

    def _steps(self, steps: Sequence[Theft | Alteration], start: Stage) -> list[Stage]:
        """A stage a step, each on what the one before it made."""
        stages: list[Stage] = []
        for position, step in enumerate(steps):
            before = stages[-1] if stages else start
            seed = derive_seed(self.seed, "attack", position)
            if isinstance(step, Theft):
                stages.append(steal_stage(step, before, self.context, seed=seed))
            else:
                stages.append(alter_stage(step, before, self.context, seed=seed))
        return stages

    def _models(self, probe: Probe) -> list[tuple[str, Stage]]:
        stolen = [(STOLEN_COPY, self._steps(probe.stolen, self.marked)[-1])] if probe.stolen else []
        return [(MARKED_MODEL, self.marked), *stolen, (UNMARKED_TWIN, self.twin)]

    def _inspect(self, probe: Probe, name: str, model: Stage, classes: Sequence[str]) -> InspectionRow:
        inspection = inspect_stage(probe.attack, model, self.context, seed=self.seed)
        exposure = expose_stage(inspection, model, self.marked, self.context)
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
            reversed_success=max(found.reversed_success.values(), default=math.nan),
            seconds=seconds,
        )

    def _screen(self, probe: Probe, name: str, model: Stage) -> ScreenRow:
        stage = screen_stage(probe.attack, model, self.marked, self.marked, self.context, seed=self.seed)
        self.label(stage, f"{probe.name}, {name}")
        try:
            artifact = self.store.get(stage, self.context)
        except Exception as error:
            return ScreenRow(name=probe.name, model=name, error=told(error))
        found = read_screened(artifact.folder)
        return ScreenRow(
            name=probe.name,
            model=name,
            detected=found.detected,
            false_alarms=found.false_alarms,
            accuracy=found.accuracy,
            wsr=found.wsr,
            p_value=found.p_value,
            outcome=found.outcome,
            seconds=artifact.record["seconds"],
        )


def told(error: Exception) -> str:
    """What went wrong, on one line."""
    words = str(error).strip().partition("\n")[0][:300]
    return words if isinstance(error, HeirmarkError) else f"{type(error).__name__}: {words}"


def run_audit(
    auditor: Auditor, programme: Programme, out: Path, *, title: str, command: str, facts: Mapping[str, str]
) -> AuditResult:
    """Run a programme, or what is left of it, and write ``audit.json`` and ``audit.html``.

    Args:
        auditor: the models.
        programme: the attacks.
        out: folder of the results.
        title: of the page.
        command: that makes these numbers again.
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
        "date": datetime.now(UTC).date().isoformat(),
        "heirmark": __version__,
        "python": platform.python_version(),
        **auditor.context.runtime.facts(),
        "threads": str(torch.get_num_threads()),
        "processor": f"{os.cpu_count()} x {platform.machine()}",
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
        notes=NOTES,
        provenance=provenance,
    )
    out.mkdir(parents=True, exist_ok=True)
    atomic_write_json(
        out / "audit.json",
        {
            "provenance": provenance,
            "programme": to_json(programme),
            "summary": list(summary),
            "rows": [to_plain(row) for row in (victim, *rows)],
            "inspections": [to_plain(row) for row in inspections],
            "screens": [to_plain(row) for row in screens],
        },
    )
    atomic_write_bytes(out / "audit.html", render_audit(report).encode())
    return AuditResult(victim=victim, rows=rows, inspections=inspections, screens=screens, summary=summary)
