"""A grid as stages: who is trained, marked, robbed and judged, and in which cell the result stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from heirmark.grids.grid import (
    CONTROL_ARM,
    MARKED_ARM,
    UNTOUCHED,
    Adopted,
    Block,
    Control,
    Grid,
    Marking,
)
from heirmark.grids.settings import Contexts, Setting
from heirmark.methods import Method, Unmarked
from heirmark.runtime import derive_seed
from heirmark.stages.stage import Stage, lineage
from heirmark.work.adopting import adopt_stage
from heirmark.work.altering import Alteration
from heirmark.work.calibrating import calibrator_seed, stolen_calibrators
from heirmark.work.context import Context
from heirmark.work.detecting import expose_stage, screen_stage
from heirmark.work.embedding import embed_stage, marked_stage, train_stage
from heirmark.work.inspecting import inspect_stage
from heirmark.work.judging import calibrate_stage, verify_stage
from heirmark.work.look_alikes import look_alikes, mixed_stage
from heirmark.work.stealing import Theft
from heirmark.work.trials import Probe, Trial, chain


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One result.

    Attributes:
        block: name of its block.
        marking: whose key judges.
        trial: what was done first; its name is empty for the model itself.
        probe: name of the search or screen, instead of a verdict; empty for a verdict.
        arm: whether it was done to the marked model or to the first control, or which other control was judged.
        seed: of the grid.
        goal: the stage that says the result.
        steps: the stages of the trial.
        mixed: the stage that says the WFPR; None where the watermark is no mix of two classes.
    """

    block: str
    marking: Marking
    trial: Trial = UNTOUCHED
    probe: str = ""
    arm: str
    seed: int
    goal: Stage
    steps: tuple[Stage, ...] = ()
    mixed: Stage | None = None

    @property
    def goals(self) -> tuple[Stage, ...]:
        """All stages of which figures are read."""
        return (self.goal,) if self.mixed is None else (self.goal, self.mixed)

    @property
    def judged(self) -> tuple[Stage, ...]:
        """The suspect, the key and its calibration, of a verdict."""
        return tuple(self.goal.inputs.values())


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """All cells, and where their stages run.

    Attributes:
        grid: the cells' grid.
        cells: in the order of the grid, seed after seed.
        settings: by identity of the stage.
        labels: what a stage is called for people, by its name.
        adopted: stages that are to be in the store before anything runs, and the folders that they take copies of.
        exported: stages that are wanted themselves, and not only for what is read of the cells'.
    """

    grid: Grid
    cells: tuple[Cell, ...]
    settings: Mapping[str, Setting]
    labels: Mapping[str, str]
    adopted: Mapping[Stage, Path]
    exported: tuple[Stage, ...] = ()

    @property
    def stages(self) -> list[Stage]:
        """Every stage once, inputs before their readers."""
        return lineage(*(goal for cell in self.cells for goal in cell.goals))


def plan_grid(grid: Grid, contexts: Contexts) -> Plan:
    """Lay a grid out as stages.

    Args:
        grid: what is wanted.
        contexts: the data, on whose content identities depend.

    Raises:
        BadArtifact: when the folder of an adopted model lacks a file.
    """
    settings: dict[str, Setting] = {}
    labels: dict[str, str] = {}
    adopted: dict[Stage, Path] = {}
    cells = tuple(
        cell
        for seed in grid.seeds
        for block in grid.blocks
        for cell in _Planner(
            block=block,
            seed=seed,
            run=f" (seed {seed})" if len(grid.seeds) > 1 else "",
            contexts=contexts,
            settings=settings,
            labels=labels,
            adopted=adopted,
        ).cells()
    )
    return Plan(grid=grid, cells=cells, settings=settings, labels=labels, adopted=adopted)


def setting_of(block: Block, seed: int) -> Setting:
    """The data of a block for a seed of the grid. Foreign images need not be at hand where nobody takes them."""
    load = block.workload
    asked = any(isinstance(marking.method, Adopted) or marking.method.needs_foreign for marking in block.markings)
    return Setting(
        data=load.data,
        split_seed=seed if load.split_seed is None else load.split_seed,
        pools=load.pools,
        foreign=load.foreign if asked else None,
        foreign_part=load.foreign_part,
        protocol=load.protocol,
        factories=block.factories,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Planner:
    """One block and seed; settings, labels and adopted folders of all are collected in the mappings that it is given."""

    block: Block
    seed: int
    run: str
    contexts: Contexts
    settings: dict[str, Setting]
    labels: dict[str, str]
    adopted: dict[Stage, Path]
    plain: Setting = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "plain", setting_of(self.block, self.seed))

    def cells(self) -> Iterator[Cell]:
        """All cells."""
        chooser = None
        if self.block.unmarked is not None:
            chooser = self._unmarked(self.block.unmarked, self.seed, "train the owner's clean model")
        controls = {self.block.arms[name]: self._control(name, kind) for name, kind in self.block.beside.items()}
        calibrators = list(self._calibrators())
        for marking in self.block.markings:
            model, key, calibration = self._mark(marking, chooser, calibrators)
            for question, arm in self.block.questions:
                start = model if arm == MARKED_ARM else controls[arm]
                if isinstance(question, Trial):
                    yield self._judge(marking, question, arm, start, key, calibration)
                else:
                    yield self._probe(marking, question, arm, start, key, calibration)

    def _judge(self, marking: Marking, trial: Trial, arm: str, start: Stage, marked: Stage, calibration: Stage) -> Cell:
        context = self.contexts(self.plain)
        what = f"{marking.name}, {trial.name or 'itself'}{_on(arm)}"
        steps = self._chain(trial.steps, marking, start, what)
        goal = verify_stage(steps[-1] if steps else start, marked, calibration, context)
        self._place(goal, f"verify: {what}")
        mixed = None
        if not isinstance(marking.method, Adopted) and (found := look_alikes(marking.method)) is not None:
            mixed = self._place(mixed_stage(found, goal.inputs["suspect"], marked, context), f"mix otherwise: {what}")
        return Cell(
            block=self.block.name,
            marking=marking,
            trial=trial,
            arm=arm,
            seed=self.seed,
            goal=goal,
            steps=tuple(steps),
            mixed=mixed,
        )

    def _probe(self, marking: Marking, probe: Probe, arm: str, start: Stage, marked: Stage, calibration: Stage) -> Cell:
        context = self.contexts(self.plain)
        what = f"{probe.name}: {marking.name}{_on(arm)}"
        # The seed is the trials', so a probe looks into the very copy that they judge.
        steps = self._chain(probe.stolen, marking, start, what)
        held = steps[-1] if steps else start
        if probe.screens:
            goal = screen_stage(probe.attack, held, marked, calibration, context, seed=self.seed)
        else:
            found = self._place(inspect_stage(probe.attack, held, context, seed=self.seed), what)
            goal = expose_stage(found, held, marked, context)
        self._place(goal, what)
        return Cell(block=self.block.name, marking=marking, probe=probe.name, arm=arm, seed=self.seed, goal=goal)

    def _chain(self, steps: Sequence[Theft | Alteration], marking: Marking, start: Stage, what: str) -> list[Stage]:
        # The seed of a model that is there already was another run's.
        seed = self.seed if isinstance(marking.method, Adopted) else derive_seed(self.seed, "thief")
        stages = chain(steps, start, self.contexts(self.plain), seed=seed)
        for number, stage in enumerate(stages, 1):
            self._place(stage, what + (f", step {number}" if len(stages) > 1 else ""))
        return stages

    def _mark(
        self, marking: Marking, chooser: Stage | None, calibrators: Sequence[Stage]
    ) -> tuple[Stage, Stage, Stage]:
        """A marked model, its key, and what calibrates it: a key that is adopted has that with it."""
        method = marking.method
        if isinstance(method, Adopted):
            key = self._adopt(method, "key", "read the key")
            return self._adopt(method, "model", "read the marked model"), key, key
        assert chooser is not None  # of a block that embeds
        marked = marked_stage(method, self._owners, seed=self.seed, clean=chooser)
        for role in method.builds_on():
            self._place(marked.inputs[role], f"embed the {role} model that {marking.name} starts from")
        self._place(marked, f"embed {marking.name}")
        calibration = calibrate_stage(marked, calibrators, self.contexts(self.plain))
        return marked, marked, self._place(calibration, f"calibrate the key of {marking.name}")

    def _owners(self, method: Method) -> Context:
        return self.contexts(replace(self.plain, shows_foreign=method.needs_foreign))

    def _control(self, name: str, control: Control) -> Stage:
        what = f"the {'unmarked control' if name == 'clean' else name}"
        if isinstance(control, Adopted):
            return self._adopt(control, "model", f"read {what}")
        return self._unmarked(control, derive_seed(self.seed, name), f"train {what}")

    def _unmarked(self, unmarked: Unmarked, seed: int, label: str) -> Stage:
        context = self.contexts(self.plain)
        if self.block.unmarked is None:
            return self._place(train_stage(unmarked, context, seed=seed), label)
        return self._place(embed_stage(unmarked, context, seed=seed, kind="train"), label)

    def _adopt(self, model: Adopted, part: Literal["model", "key"], label: str) -> Stage:
        folder = Path(model.folder)
        stage = adopt_stage(folder, part, factory=model.factory)
        self.adopted[stage] = folder
        return self._place(stage, label)

    def _calibrators(self) -> Iterator[Stage]:
        """Unmarked models and, since suspects are mostly copies, a copy of an unmarked model by every kind of thief."""
        context = self.contexts(self.plain)
        trained = [
            self._place(
                train_stage(unmarked, context, seed=calibrator_seed(self.seed, index)),
                f"train unmarked model {index + 1}",
            )
            for index, unmarked in enumerate(self.block.calibrators)
        ]
        yield from trained
        copies = stolen_calibrators(trained, self._thieves() if trained else (), context, seed=self.seed)
        for number, copy in enumerate(copies, 1):
            yield self._place(copy, f"steal an unmarked model, thief {number}")

    def _thieves(self) -> list[Theft]:
        """Every attack, architecture and pool once, label-only."""
        thefts: dict[str, Theft] = {}
        for steps in (*(trial.steps for trial in self.block.trials), *(probe.stolen for probe in self.block.probes)):
            if steps and isinstance(steps[0], Theft):
                first = steps[0]
                theft = replace(first, api=replace(first.api, answers="label", decimals=None, levels=None))
                thefts.setdefault(repr(theft), theft)
        return list(thefts.values())

    def _place(self, stage: Stage, label: str) -> Stage:
        for item in lineage(stage):  # what a stage brings along, such as a victim's answers, runs where it does
            setting = replace(self.plain, shows_foreign="foreign" in item.external)
            self.settings.setdefault(item.identity, setting)
            self.labels.setdefault(item.name, label + self.run)
        return stage


def _on(arm: str) -> str:
    return {MARKED_ARM: "", CONTROL_ARM: ", on the control"}.get(arm, f", on the {arm} model")
