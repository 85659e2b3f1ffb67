"""A folder of a user's with a model, as ``embed``, ``steal`` or ``remove`` wrote it: each fact of it is read and checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from heirmark.configuration import from_json, qualified_name
from heirmark.data.naming import names_files
from heirmark.data.zoo import located
from heirmark.errors import BadArtifact, BadConfig, BadData, ShapeMismatch
from heirmark.files import read_json
from heirmark.keys.key import Key
from heirmark.loading import (
    ForeignPart,
    check_factory,
    describe_model,
    load_named_task,
    load_pool,
    splits_by_seed,
    with_images,
)
from heirmark.methods import Unmarked
from heirmark.models import CUSTOM, Architecture, Factory, ModelSpec, Net
from heirmark.models.storage import load_model, load_spec, missing_factory
from heirmark.profiles import QUICK
from heirmark.records import record_of
from heirmark.results.verdict import Calibration
from heirmark.stages.stage import Stage
from heirmark.tasks.task import Protocol, Split, Task
from heirmark.training.fitting import Recipe
from heirmark.work.adopting import adopt_stage
from heirmark.work.judging import CALIBRATION, read_calibration, read_key
from heirmark.work.victim import check_fit

TASK = "task.json"
TWIN = "twin.json"
"""What trains the same model without the mark."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The data behind a model, as ``task.json`` beside it says.

    Attributes:
        data: name of the data set, or ``module:function``.
        split_seed: of who got which example.
        digest: of the task; empty before it is known.
        foreign: data set that brought the task's foreign images, of which the key may be made; None when none did.
        foreign_part: which of its images.
        protocol: what a thief has; that of a function is its own affair.
    """

    data: str
    split_seed: int = 0
    digest: str = ""
    foreign: str | None = None
    foreign_part: ForeignPart = "test"
    protocol: Protocol = "disjoint"


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """What a job works on.

    Attributes:
        task: the data.
        origin: what they are called, for ``task.json``.
        pools: images of other data sets by name, in the task's shape.
    """

    task: Task
    origin: Origin
    pools: Mapping[str, Split] = field(default_factory=dict)


class ModelFolder:
    """A folder with a model, a key, or both. Nothing is read before it is asked for, and nothing twice.

    Args:
        path: the folder; ``zoo:NAME`` is one of the package's zoo.
        factory: builds the model, where it is a user's own; never taken from the files.
        option: of the command line that names the factory, for errors.
    """

    def __init__(self, path: Path, factory: Factory | None = None, *, option: str = "--model") -> None:
        self.path, self.factory, self._option = located(path), factory, option

    @cached_property
    def spec(self) -> ModelSpec:
        """What rebuilds the model; a user's own has been built and asked once.

        Raises:
            BadArtifact: when the folder holds no model.
            BadConfig: when it holds a custom model and the factory is missing or fails.
        """
        spec = load_spec(self.path)
        if spec.name == CUSTOM:
            if self.factory is None:
                raise BadConfig(missing_factory(self.path, spec, self._option))
            check_factory(self.factory, spec)
        return spec

    @cached_property
    def net(self) -> Net:
        """The model, in eval mode.

        Raises:
            BadArtifact: when its files are damaged or do not fit each other.
            BadConfig: see :attr:`spec`.
        """
        assert self.spec is not None  # asks for the factory
        return load_model(self.path, factories=self.factories)

    @property
    def factories(self) -> tuple[Factory, ...]:
        """The factory, where there is one."""
        return () if self.factory is None else (self.factory,)

    @property
    def architecture(self) -> Architecture:
        """The model's architecture, which is a thief's when no other is asked for."""
        return self.factory if self.factory is not None and self.spec.name == CUSTOM else describe_model(self.spec)

    @cached_property
    def origin(self) -> Origin | None:
        """What ``task.json`` says of the data; None where there is none.

        Raises:
            BadArtifact: when it is foreign.
        """
        path = self.path / TASK
        if not path.is_file():
            return None
        record = read_json(path, max_bytes=1 << 20)
        try:
            if not isinstance(record, Mapping):
                raise BadArtifact("it is no object of JSON")
            values = {part.name: record.get(part.name) for part in fields(Origin)}
            # Before it was said, foreign images were training images: of those a thief's pool may hold none.
            values["foreign_part"] = record.get("foreign_part", "train")
            return record_of(Origin, values, str(path))
        except BadArtifact as error:
            raise BadArtifact(
                f"{path} is foreign or damaged ({error}): remove it, and name the data with --data"
            ) from error

    @cached_property
    def twin(self) -> Unmarked:
        """What trains the model without its mark, as ``twin.json`` says.

        Raises:
            BadConfig: when there is none.
            BadArtifact: when what it says is damaged.
        """
        path = self.path / TWIN
        if not path.is_file():
            raise BadConfig(
                f"{self.path} does not say how to train its unmarked twin (no {TWIN}): name one with --twin"
            )
        _ = self.spec  # a twin of one's own architecture wants the factory too, and this asks for it by its option
        known: dict[str, Any] = {"Unmarked": Unmarked}
        if self.factory is not None:
            known[qualified_name(self.factory)] = self.factory
        try:
            twin = from_json(known, read_json(path, max_bytes=1 << 20))
        except BadConfig as error:
            raise BadArtifact(
                f"{path} is foreign or damaged ({error}): remove it, and audit with an unmarked model that --twin names"
            ) from error
        if not isinstance(twin, Unmarked):
            raise BadArtifact(f"{path} describes no unmarked model: remove it, and audit with one that --twin names")
        return twin

    @property
    def recipe(self) -> Recipe:
        """By what recipe the model learned; the demo's where nothing says so."""
        return self.twin.pretraining if (self.path / TWIN).is_file() else QUICK.recipe

    @cached_property
    def key(self) -> Key:
        """The key in the folder, or in the folder ``key`` inside.

        Raises:
            BadArtifact: when it is missing or damaged.
        """
        return read_key(self.path)

    @property
    def has_key(self) -> bool:
        """Whether there is a key."""
        return any((folder / "key.json").is_file() for folder in (self.path, self.path / "key"))

    @property
    def trigger_kind(self) -> str | None:
        """The kind of the key's triggers, which is public with the method; None where there is no key."""
        return self.key.kind if self.has_key else None

    @cached_property
    def calibration(self) -> Calibration | None:
        """How unmarked models answer the key; None where nothing says so.

        Raises:
            BadArtifact: when it is damaged, or belongs to another key than the one beside it.
        """
        path = self.path / CALIBRATION
        if not path.is_file():
            return None
        calibration = read_calibration(path)
        if self.has_key and calibration.key != self.key.commitment:
            raise BadArtifact(
                f"{path} belongs to another key than the one beside it: remove it, or embed the model again"
            )
        return calibration

    def check_fit(self, task: Task) -> None:
        """Read the model, and make sure that it is of a task, before hours of work.

        Raises:
            ShapeMismatch: when it is not.
            BadArtifact: see :attr:`net`; likewise BadConfig.
        """
        check_fit(self.spec, task)
        _ = self.net

    def check_key(self, task: Task) -> None:
        """Make sure that the key is of a task.

        Raises:
            ShapeMismatch: when it is not.
        """
        if (self.key.classes, self.key.input_shape) != (task.num_classes, task.input_shape):
            raise ShapeMismatch(
                f"the key in {self.path} asks inputs of shape {self.key.input_shape} for {self.key.classes} classes, but "
                f"{task.name} has {task.input_shape} and {task.num_classes}: name the key of a model of the same task"
            )

    @property
    def model_stage(self) -> Stage:
        """The model adopted into a store, without its key: all that an attack may see. See :func:`adopt_stage`."""
        return adopt_stage(self.path, "model", factory=self.factory)

    @property
    def key_stage(self) -> Stage:
        """The key adopted, with its calibration and the samples that trained where they are there."""
        return adopt_stage(self.path, "key")

    def data(
        self,
        name: str | None = None,
        *,
        split_seed: int | None = None,
        root: Path | None = None,
        pool: str | None = None,
    ) -> Data:
        """The data of somebody who works on the model: its own task and split seed, unless others are named.

        With a pool, another data set, its images come along: none that the key may be made of.

        Raises:
            BadConfig: when nothing says what the data are; or when only the folder does and it names code, which may be a
                stranger's and is not run.
            BadData: when data of the same name and seed have changed, so that a thief may hold the owner's examples; or no
                image of the pool is left.
        """
        known = self.origin
        if name is None:
            if known is None:
                raise BadConfig(f"{self.path} does not say which data it is for (no {TASK}): name them with --data")
            if names_files(known.data):
                raise BadConfig(
                    f"the data of {self.path} come from code or a folder ({known.data}): if it is yours, say --data {known.data}"
                )
            name = known.data
        seed = split_seed if split_seed is not None else 0 if known is None else known.split_seed
        if known is not None and name == known.data and seed != known.split_seed:
            raise BadConfig(
                f"with split seed {seed} the thief would hold images of the owner, who split {name} with "
                f"{known.split_seed}: leave --split-seed out, or take other data"
            )
        protocol: Protocol = known.protocol if known is not None and name == known.data else "disjoint"
        task = load_named_task(name, split_seed=seed, root=root, protocol=protocol)
        if known is not None and name == known.data and task.digest() != known.digest:
            remedy = "restore the data"
            if ":" in name and splits_by_seed(name):
                remedy = f"let it return the same data when it is called with the split seed (seed={seed})"
            raise BadData(
                f"{name} is no longer what {self.path} was made with, so the thief could hold the owner's images: "
                f"{remedy}, or take others with --data"
            )
        origin = replace(known or Origin(data=name), data=name, split_seed=seed, digest="", protocol=task.protocol)
        if pool is None:
            return Data(task=task, origin=origin)
        whole = task
        if origin.foreign is not None:
            whole = with_images(task, origin.foreign, part=origin.foreign_part, root=root)
        return Data(task=task, origin=origin, pools={pool: load_pool(pool, whole, root=root)})
