"""What a grid consists of: plain frozen data, which recipes return."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Annotated, ClassVar, TypeAlias

from heirmark.configuration import checked, distinct, not_empty
from heirmark.errors import BadConfig
from heirmark.loading import ForeignPart
from heirmark.methods import Method, Unmarked
from heirmark.models import Factory
from heirmark.results.summary import Published
from heirmark.tasks.task import Protocol
from heirmark.verification.questions import LEAST_QUERIES
from heirmark.work.trials import Probe, Trial

PICTURES: Mapping[str, str] = {"history": "histories", "shift": "shifts", "pca": "clouds", "view": "views"}
"""Files in ``grids/pictures`` by what blocks ask for, in the order of the page; imported on use."""
MARKED_ARM, CONTROL_ARM = "marked", "unmarked"
"""What a row is of: the marked model, or the first control. Further controls have their own names."""
UNTOUCHED = Trial(name="", group="", steps=())
"""The model itself."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The data of a block; every seed splits them anew.

    Attributes:
        data: as ``--data`` takes them: a name, or ``module:function``, which is given the seed if it takes one of that name, and
            else returns the same split for all.
        split_seed: of who got which example, for all seeds of the grid; None splits by each of these.
        pools: data sets whose images thieves ask about; ``"owner"`` is the owner's own split, as some papers query.
        foreign: data set whose test images the owner has besides, for methods and key filters that take such; none of them is
            in a pool.
        foreign_part: which of its images, if not these: models of before had training images.
        protocol: ``"paper"`` gives thieves the owner's own examples, and the owner nearly all of the training set.
    """

    data: str
    split_seed: int | None = None
    pools: tuple[str, ...] = ()
    foreign: str | None = None
    foreign_part: ForeignPart = "test"
    protocol: Protocol = "disjoint"


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """A model that is there already, in a folder of the user's. The grid takes a copy into its store.

    Attributes:
        folder: that ``heirmark embed`` wrote, with key and calibration, where it is to be a marked model; of a control, any that
            holds a model.
        factory: the user's own, of a custom model.
    """

    needs_foreign: ClassVar[bool] = False

    folder: str
    factory: Factory | None = None


Control: TypeAlias = Unmarked | Adopted
"""An unmarked model to set beside the marked ones: how it is trained, or where it lies."""


@dataclass(frozen=True, kw_only=True)
class Marking:
    """One watermark.

    Attributes:
        name: of the row.
        method: with all its settings, or a marked model that is there already.
        curve: the axis and place of a marking that is a point of a curve.
        cell: row and column of a marking that is a square of a heat map: its source and target class.
    """

    name: str
    method: Method | Adopted
    curve: tuple[str, float] | None = None
    cell: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.method, Adopted) and self.method.key_size < LEAST_QUERIES:
            raise BadConfig(
                f"{self.name} is to have a key of {self.method.key_size} samples, and no verdict can rest on fewer than "
                f"{LEAST_QUERIES}: raise key_size"
            )


@dataclass(frozen=True, kw_only=True)
@checked
class Block:
    """Every watermark against every attack, on one task.

    Attributes:
        name: of the block, for people.
        workload: the data.
        markings: the watermarks.
        trials: what is done to the marked model and to the first control, each before it is judged. That all models are judged
            untouched as well need not be said.
        probes: searches for the mark, and screens of queries, each in the marked model and in the first control, or in a copy of
            either that is stolen first.
        unmarked: how the model is trained that methods start from, choose classes by or filter keys with; None where every marked
            model is there already.
        controls: unmarked models by name, of which the seeds of those that are trained are derived. What is done to a marked
            model is done to the first; the others are judged as they are. Without any there is one, ``"clean"``, as ``unmarked``
            says.
        calibrators: how unmarked models are trained that calibrate the tests, each with a seed of its own; a copy of one of
            them by every kind of thief among trials and probes joins them. An adopted model has its own calibration.
        pictures: what the report shows besides: ``"pca"``, the features of each marked model, of its first stolen copy and of the
            control (MEA-Defender, Fig. 3), for the first seed; ``"history"``, WSR by epoch of the embedding where the method
            keeps it (T2S, Fig. 4); ``"shift"``, how far the weights of each layer moved, where the method keeps that (Feature
            Sharing, Fig. 3); ``"view"``, which ordinary images' answers give a trigger away to a thief, for the first seed.
    """

    name: str
    workload: Workload
    markings: Annotated[tuple[Marking, ...], not_empty]
    trials: tuple[Trial, ...] = ()
    probes: tuple[Probe, ...] = ()
    unmarked: Unmarked | None = None
    controls: Mapping[str, Control] = field(default_factory=dict)
    calibrators: tuple[Unmarked, ...] = ()
    pictures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        embeds = any(not isinstance(marking.method, Adopted) for marking in self.markings)
        if embeds and not self.calibrators:
            raise BadConfig(f"block {self.name!r} needs a calibrator at least: give it some")
        if not self.beside or (embeds and self.unmarked is None):
            raise BadConfig(f"block {self.name!r} has no unmarked model beside the marked ones: say how it is trained")
        if {MARKED_ARM, CONTROL_ARM} & set(self.controls):
            raise BadConfig(
                f"a control of block {self.name!r} is called {MARKED_ARM} or {CONTROL_ARM}: name it otherwise"
            )
        for words in (
            [marking.name for marking in self.markings],
            [trial.name for trial in self.trials],
            [probe.name for probe in self.probes],
        ):
            if len(set(words)) < len(words):
                raise BadConfig(f"block {self.name!r} has two rows of one name: tell them apart")
            if "" in words:
                raise BadConfig(f"block {self.name!r} has a row without a name, as the model itself alone is: name it")
        unknown = set(self.pictures) - set(PICTURES)
        if unknown:
            raise BadConfig(f"unknown picture {min(unknown)!r}: choose of {', '.join(PICTURES)}")

    @property
    def beside(self) -> Mapping[str, Control]:
        """The controls by name."""
        return self.controls or ({} if self.unmarked is None else {"clean": self.unmarked})

    @property
    def arms(self) -> Mapping[str, str]:
        """What rows call the controls, by their names."""
        return {name: name if number else CONTROL_ARM for number, name in enumerate(self.beside)}

    @property
    def questions(self) -> Iterator[tuple[Trial | Probe, str]]:
        """What is asked of every watermark, in the order of rows: the models themselves, then trials and probes, of which arm."""
        for arm in (MARKED_ARM, *self.arms.values()):
            yield UNTOUCHED, arm
        asked: tuple[Trial | Probe, ...] = (*self.trials, *self.probes)
        for question in asked:
            yield question, MARKED_ARM
            yield question, CONTROL_ARM

    @property
    def factories(self) -> tuple[Factory, ...]:
        """The user's own model factories among its architectures, which stages need to load such models again."""
        return tuple(dict.fromkeys(_factories(self)))


@dataclass(frozen=True, kw_only=True)
@checked
class Grid:
    """Blocks times seeds.

    Attributes:
        name: lower-case, for files.
        title: of the report.
        note: what a reader should know of the settings.
        blocks: tables.
        seeds: of splits, models, keys and attacks.
        papers: what is printed elsewhere.
    """

    name: str
    title: str
    note: str = ""
    blocks: Annotated[tuple[Block, ...], not_empty]
    seeds: Annotated[tuple[int, ...], not_empty, distinct] = (0, 1, 2)
    papers: tuple[Published, ...] = ()

    def __post_init__(self) -> None:
        if len({block.name for block in self.blocks}) < len(self.blocks):
            raise BadConfig(f"grid {self.name!r} has two blocks of one name: tell them apart")


def select(
    grid: Grid,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    *,
    blocks: Sequence[str] = (),
    trials: Sequence[str] = (),
) -> Grid:
    """A part of a grid. Names are given by parts of them, upper or lower case.

    Args:
        grid: the whole.
        only: of markings; none keeps all.
        seeds: to run in place of the grid's; none keeps these.
        blocks: of blocks; none keeps all.
        trials: of trials; none keeps all, and the probes, which some leave out.

    Raises:
        BadConfig: for what no name has in it.
    """
    if seeds:
        grid = replace(grid, seeds=tuple(seeds))
    if blocks:
        wanted = _named(blocks, "block", [block.name for block in grid.blocks])
        grid = of_blocks(grid, [block for block in grid.blocks if wanted(block.name)])
    if trials:
        wanted = _named(trials, "trial", [trial.name for block in grid.blocks for trial in block.trials])
        grid = replace(
            grid,
            blocks=tuple(
                replace(block, trials=tuple(trial for trial in block.trials if wanted(trial.name)), probes=())
                for block in grid.blocks
            ),
        )
    if only:
        wanted = _named(only, "marking", [marking.name for block in grid.blocks for marking in block.markings])
        kept = [(block, tuple(marking for marking in block.markings if wanted(marking.name))) for block in grid.blocks]
        grid = of_blocks(grid, [replace(block, markings=some) for block, some in kept if some])
    return grid


def of_blocks(grid: Grid, blocks: Sequence[Block]) -> Grid:
    """The grid of some of its blocks alone, or of parts of them, and without what papers print for the others."""
    left_out = {block.name for block in grid.blocks} - {block.name for block in blocks}
    papers = tuple(paper for paper in grid.papers if paper.block not in left_out)
    return replace(grid, blocks=tuple(blocks), papers=papers)


def _named(words: Sequence[str], what: str, names: Sequence[str]) -> Callable[[str], bool]:
    """Tells names that have one of the words in them; each must be in one at least."""
    sought = [word.strip().lower() for word in words]
    for word in sought:
        if not word or not any(word in name.lower() for name in names):
            known = f"choose a part of one of {'; '.join(dict.fromkeys(names))}" if names else f"there is no {what}"
            raise BadConfig(f"no {what} is called {word!r}: {known}")
    return lambda name: any(word in name.lower() for word in sought)


def _factories(value: object) -> Iterator[Factory]:
    """Functions among settings: architectures alone are such."""
    if is_dataclass(value) and not isinstance(value, type):
        for part in fields(value):
            yield from _factories(getattr(value, part.name))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _factories(item)
    elif isinstance(value, Mapping):
        yield from _factories(list(value.values()))
    elif callable(value):
        yield value
