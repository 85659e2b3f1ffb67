"""A grid as stages: who is trained, marked, robbed and judged, and in which cell the result stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from heirmark.attacks import SCREENINGS
from heirmark.bench.grid import UNTOUCHED, Arm, Block, Grid, Marking, asks_foreign
from heirmark.bench.settings import Contexts, Setting
from heirmark.methods import T2S, AnyMethod
from heirmark.pipeline.calibrating import calibrator_seed, stolen_calibrators
from heirmark.pipeline.context import Context
from heirmark.pipeline.detecting import expose_stage, screen_stage
from heirmark.pipeline.embedding import embed_stage, train_stage
from heirmark.pipeline.inspecting import inspect_stage
from heirmark.pipeline.judging import Judgement, calibrate_stage, verify_stage
from heirmark.pipeline.mixing import look_alikes, mixed_stage
from heirmark.pipeline.stage import Stage, lineage
from heirmark.pipeline.stealing import Theft
from heirmark.pipeline.trials import Probe, Trial, chain
from heirmark.runtime import derive_seed


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One result.

    Attributes:
        block: name of its block.
        marking: whose key judges.
        trial: what was done first; its name is empty for the model itself.
        probe: name of the search or screen, instead of a verdict; empty for a verdict.
        arm: whether it was done to the marked model or to the unmarked control.
        seed: of the grid.
        goal: the stage that says the result.
        steps: the stages of the trial.
        mixed: the stage that says the WFPR; None where the watermark is no mix of two classes.
    """

    block: str
    marking: Marking
    trial: Trial = UNTOUCHED
    probe: str = ""
    arm: Arm
    seed: int
    goal: Stage
    steps: tuple[Stage, ...] = ()
    mixed: Stage | None = None

    @property
    def goals(self) -> tuple[Stage, ...]:
        """All stages of which figures are read."""
        return (self.goal,) if self.mixed is None else (self.goal, self.mixed)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """All cells, and where their stages run.

    Attributes:
        grid: the cells' grid.
        cells: in the order of the grid, seed after seed.
        settings: by identity of the stage.
        labels: what a stage is called for people, by its name.
    """

    grid: Grid
    cells: tuple[Cell, ...]
    settings: Mapping[str, Setting]
    labels: Mapping[str, str]

    @property
    def stages(self) -> list[Stage]:
        """Every stage once, inputs before their readers."""
        return lineage(*(goal for cell in self.cells for goal in cell.goals))


def plan_grid(grid: Grid, contexts: Contexts) -> Plan:
    """Lay a grid out as stages.

    Args:
        grid: what is wanted.
        contexts: the data, on whose content identities depend.
    """
    cells: list[Cell] = []
    settings: dict[str, Setting] = {}
    labels: dict[str, str] = {}
    for seed in grid.seeds:
        for block in grid.blocks:
            planner = _Planner(block=block, seed=seed, contexts=contexts, settings=settings, labels=labels)
            cells += planner.cells()
    return Plan(grid=grid, cells=tuple(cells), settings=settings, labels=labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Planner:
    """One block and seed; settings and labels of all are collected in the mappings that it is given."""

    block: Block
    seed: int
    contexts: Contexts
    settings: dict[str, Setting]
    labels: dict[str, str]
    plain: Setting = field(init=False)

    def __post_init__(self) -> None:
        load = self.block.workload
        asked = any(asks_foreign(marking.method) for marking in self.block.markings)  # else they need not be at hand
        setting = Setting(
            data=load.data,
            seed=self.seed,
            pools=load.pools,
            foreign=load.foreign if asked else None,
            factory=self.block.factory,
        )
        object.__setattr__(self, "plain", setting)

    def cells(self) -> Iterator[Cell]:
        """All cells."""
        chooser = self._unmarked(self.seed, "train the owner's clean model")
        control = self._unmarked(derive_seed(self.seed, "clean"), "train the unmarked control")
        calibrators = list(self._calibrators())
        for marking in self.block.markings:
            marked = self._mark(marking, chooser)
            calibration = self._place(
                calibrate_stage(marked, calibrators, self.contexts(self.plain)), f"calibrate the key of {marking.name}"
            )
            for question, arm in self.block.questions:
                start = marked if arm == "marked" else control
                if isinstance(question, Trial):
                    yield self._judge(marking, question, arm, start, marked, calibration)
                else:
                    yield self._probe(marking, question, arm, start, marked, calibration)

    def _judge(self, marking: Marking, trial: Trial, arm: Arm, start: Stage, marked: Stage, calibration: Stage) -> Cell:
        context = self.contexts(self.plain)
        what = f"{marking.name}, {trial.name or 'itself'}" + ("" if arm == "marked" else ", on the control")
        steps = chain(trial.steps, start, context, seed=derive_seed(self.seed, "thief"))
        for stage in steps:
            self._place(stage, what)
        goal = verify_stage(steps[-1] if steps else start, marked, calibration, context, Judgement())
        self._place(goal, f"verify: {what}")
        mixed, found = None, look_alikes(marking.method)
        if found is not None:
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

    def _probe(self, marking: Marking, probe: Probe, arm: Arm, start: Stage, marked: Stage, calibration: Stage) -> Cell:
        context = self.contexts(self.plain)
        what = f"{probe.name}: {marking.name}" + ("" if arm == "marked" else ", the control")
        # The seed is the trials', so a probe looks into the very copy that they judge.
        steps = chain(probe.stolen, start, context, seed=derive_seed(self.seed, "thief"))
        for stage in steps:
            self._place(stage, what)
        held = steps[-1] if steps else start
        if type(probe.attack) in SCREENINGS.values():
            goal = screen_stage(probe.attack, held, marked, calibration, context, seed=self.seed)
        else:
            found = self._place(inspect_stage(probe.attack, held, context, seed=self.seed), what)
            goal = expose_stage(found, held, marked, context)
        self._place(goal, what)
        return Cell(block=self.block.name, marking=marking, probe=probe.name, arm=arm, seed=self.seed, goal=goal)

    def _mark(self, marking: Marking, chooser: Stage) -> Stage:
        method, start = marking.method, None
        if isinstance(method, T2S) and method.initial == "watermarked":
            first = method.first_phase()
            start = self._place(
                embed_stage(first, self._owners(first), seed=self.seed, clean=chooser),
                f"watermark before the rehearsal of {marking.name}",
                shows_foreign=asks_foreign(first),
            )
        return self._place(
            embed_stage(method, self._owners(method), seed=self.seed, clean=chooser, watermarked=start),
            f"embed {marking.name}",
            shows_foreign=asks_foreign(method),
        )

    def _owners(self, method: AnyMethod) -> Context:
        return self.contexts(replace(self.plain, shows_foreign=asks_foreign(method)))

    def _unmarked(self, seed: int, label: str) -> Stage:
        return self._place(embed_stage(self.block.unmarked, self.contexts(self.plain), seed=seed, kind="train"), label)

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
        copies = stolen_calibrators(trained, self._thieves(), context, seed=self.seed)
        for number, copy in enumerate(copies, 1):
            yield self._place(copy, f"steal an unmarked model, thief {number}")

    def _thieves(self) -> list[Theft]:
        """Every attack, architecture and pool once, label-only."""
        thefts: dict[str, Theft] = {}
        for steps in (*(trial.steps for trial in self.block.trials), *(probe.stolen for probe in self.block.probes)):
            if steps and isinstance(steps[0], Theft):
                theft = replace(steps[0], answers="label", decimals=None, levels=None)
                thefts.setdefault(repr(theft), theft)
        return list(thefts.values())

    def _place(self, stage: Stage, label: str, *, shows_foreign: bool = False) -> Stage:
        for item in lineage(stage):  # what a stage brings along, such as a victim's answers, runs where it does
            self.settings.setdefault(item.identity, replace(self.plain, shows_foreign=shows_foreign))
            self.labels.setdefault(item.name, f"{label} (seed {self.seed})")
        return stage
