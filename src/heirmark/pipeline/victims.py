"""What a thief of the model in a folder starts from: its architecture, its data, other images."""

from __future__ import annotations

from pathlib import Path

from heirmark.errors import BadConfig, BadData
from heirmark.models import CUSTOM, Architecture, Factory
from heirmark.models.storage import load_spec
from heirmark.pipeline.exporting import TASK, Origin, read_origin
from heirmark.pipeline.loading import (
    check_given,
    describe_model,
    load_named_task,
    load_pool,
    splits_by_seed,
    with_images,
)
from heirmark.task import Split, Task


def victims_architecture(victim: Path, factory: Factory | None, *, option: str = "--victim-model") -> Architecture:
    """The architecture of the model in a folder, which is a thief's when no other is asked for.

    Args:
        victim: folder of the model.
        factory: that builds it, when it is a custom model.
        option: of the command line that names the factory, for the error.

    Raises:
        BadArtifact: when the folder holds no model.
        BadConfig: when it holds a custom model and the factory is missing or fails.
    """
    spec = load_spec(victim)
    check_given(spec, factory, victim, option=option)
    return factory if factory is not None and spec.name == CUSTOM else describe_model(spec)


def load_victims_task(
    victim: Path, data: str | None, *, split_seed: int | None, root: Path | None
) -> tuple[Task, Origin]:
    """The data that a thief of the model in a folder has: the victim's task, unless another is named.

    Args:
        victim: folder of the model.
        data: name, or ``module:function``; None takes what the folder says.
        split_seed: None takes what the folder says. A function that takes a ``seed`` is called with it.
        root: where data sets lie.

    Raises:
        BadConfig: when nothing says what the data are; or when only the folder does and it names code, which may be a
            stranger's and is not run.
        BadData: when data of the same name and seed have changed, so that the thief may hold the owner's examples.
    """
    known = read_origin(victim)
    if data is None:
        if known is None:
            raise BadConfig(f"{victim} does not say which data it is for (no {TASK}): name them with --data")
        if ":" in known.data:
            raise BadConfig(
                f"the data of {victim} come from code ({known.data}): if it is yours, say --data {known.data}"
            )
    name = known.data if data is None and known is not None else str(data)
    seed = split_seed if split_seed is not None else 0 if known is None else known.split_seed
    if known is not None and name == known.data and seed != known.split_seed:
        raise BadConfig(
            f"with split seed {seed} the thief would hold images of the owner, who split {name} with {known.split_seed}: "
            "leave --split-seed out, or take other data"
        )
    task = load_named_task(name, seed=seed, root=root)
    if known is not None and (name, seed) == (known.data, known.split_seed) and task.digest() != known.digest:
        remedy = "restore the data"
        if ":" in name and splits_by_seed(name):
            remedy = f"let it return the same data when it is called with the split seed (seed={seed})"
        raise BadData(
            f"{name} is no longer what {victim} was made with, so the thief could hold the owner's images: "
            f"{remedy}, or take others with --data"
        )
    return task, Origin(data=name, split_seed=seed, foreign=None if known is None else known.foreign)


def load_victims_pool(victim: Path, name: str, task: Task, *, root: Path | None) -> Split:
    """Images of another data set for a thief of the model in a folder: none that its key may be made of.

    Args:
        victim: folder of the model.
        name: of the data set.
        task: the thief's.
        root: where data sets lie.

    Raises:
        BadConfig: for an unknown name.
        BadData: when no image is left.
    """
    known = read_origin(victim)
    if known is not None and known.foreign is not None:
        task = with_images(task, known.foreign, root=root)
    return load_pool(name, task, root=root)
