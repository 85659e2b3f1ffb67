"""What users name: a data set, an architecture; built-in, or code of their own, checked before hours of work rest on it."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from heirmark.data import DATASETS, load_task
from heirmark.data.naming import is_code, is_folder, parts_of
from heirmark.data.registry import foreign_to, load_data
from heirmark.errors import BadConfig, BadData, HeirmarkError
from heirmark.models import MODELS, Architecture, Factory, ModelSpec, specify
from heirmark.querying.layout import unwrapped
from heirmark.querying.oracle import ModelFault, ModuleOracle
from heirmark.runtime import Runtime, seeded
from heirmark.tasks.space import Images, Tokens, Waves
from heirmark.tasks.splitting import SHARES
from heirmark.tasks.task import Protocol, Split, Task
from heirmark.triggers import Trigger
from heirmark.triggers.out_of_distribution import fit_shape

ForeignPart: TypeAlias = Literal["test", "train"]
"""Which images of another data set an owner has."""


def check_known(what: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that is not among those known, and say which was meant.

    Raises:
        BadConfig: when it is not.
    """
    names = list(known)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise BadConfig(f"unknown {what} {name!r}: {hint}choose one of {', '.join(names)}")


def user_object(path: str) -> Any:
    """Import ``package.module:name`` of the user's own code; the current folder is searched first.

    Raises:
        BadConfig: when it cannot be imported, or is not callable.
    """
    module, _, name = path.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # it runs whatever the user wrote
        raise BadConfig(
            f"cannot import {path!r} ({_told(error)}): write package.module:name of code that Python finds"
        ) from error
    if not callable(found):
        raise BadConfig(f"{path!r} is not callable: name a function, or what else can be called")
    return found


def load_named_task(data: str, *, split_seed: int, root: Path | None, protocol: Protocol = "disjoint") -> Task:
    """The task of a data set by name, of a folder, or that a user's function ``package.module:function`` returns.

    The function is called with the split seed if it takes a ``seed``, whatever its default. It does its own splitting.

    Raises:
        BadConfig: for an unknown name or protocol, or a function that cannot be called, returns no task, or is asked for a
            protocol.
    """
    check_known("protocol", protocol, SHARES)
    if not is_code(data):
        if not is_folder(data):
            check_known("data set", parts_of(data)[0], DATASETS)
        return load_task(data, seed=split_seed, root=root, protocol=protocol)
    function = user_object(data)
    try:
        task = function(seed=split_seed) if _takes_seed(function) else function()
    except HeirmarkError:
        raise
    except (Exception, SystemExit) as error:  # it runs whatever the user wrote
        raise BadConfig(
            f"{data!r} failed ({_told(error)}): it is called with the split seed if it takes a seed, and no more"
        ) from error
    if not isinstance(task, Task):
        raise BadConfig(f"{data!r} returned {type(task).__name__}: return a heirmark.Task")
    if protocol == "paper" != task.protocol:
        raise BadConfig(f'{data!r} splits its data itself: let it return a Task with protocol="paper", or ask for none')
    return task


def splits_by_seed(data: str) -> bool:
    """Whether another seed splits the data that a name stands for in another way.

    Raises:
        BadConfig: for a function that cannot be imported.
    """
    return not is_code(data) or _takes_seed(user_object(data))


def _takes_seed(function: Callable[..., Any]) -> bool:
    try:
        return "seed" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # of a callable that tells nothing of itself
        return False


def with_foreign(
    task: Task, trigger: Trigger, *, root: Path | None, name: str | None = None
) -> tuple[Task, str | None]:
    """A task with the images of another data set: one that is named, or else one that the trigger is made of.

    Returns:
        The task, and the data set that was added; None when none was.

    Raises:
        BadConfig: when the trigger is made of another one than is named, or the name is unknown.
    """
    wanted = trigger.dataset
    if name is not None and wanted not in (None, name):
        raise BadConfig(
            f"the trigger is made of {wanted}, not of {name}: set trigger.dataset={name}, or leave --foreign out"
        )
    chosen = name or wanted
    if chosen is None or (name is None and task.foreign is not None):
        return task, None
    return with_images(task, chosen, root=root), chosen


def with_images(task: Task, name: str, *, part: ForeignPart = "test", root: Path | None) -> Task:
    """A task with the images of another data set as its foreign ones.

    They are the test images, since what thieves ask about are training images: so owner and thief may take the same data set.
    Models of before this was so were made with training images.

    Raises:
        BadConfig: for an unknown name.
    """
    check_known("foreign data set", parts_of(name)[0], DATASETS)
    found = load_data(name, root=root, like=task)
    return replace(task, foreign=foreign_to(task, found.test if part == "test" else found.train))


def load_pool(name: str, task: Task, *, root: Path | None) -> Split:
    """Images of another data set, brought to a task's shape, for a thief to ask about; or texts, by the task's tokenizer.

    Those that the task holds itself, foreign ones among them, are left out: of these the owner's key may be made.

    Returns:
        The training examples, as the task's are stored, with their own labels; images uint8, sounds int16.

    Raises:
        BadConfig: for an unknown name, a task that is made of none of them, or a data set of another kind than the task's.
        BadData: when the task holds all of them.
    """
    check_known("data set", parts_of(name)[0], DATASETS)
    if not isinstance(task.space, Images | Tokens | Waves):
        raise BadConfig(
            f"--pool names images, sounds or texts, and {task.name} is made of {task.input_shape}: leave it out"
        )
    found = load_data(name, root=root, like=task)
    if isinstance(found.train.space, Tokens) != isinstance(task.space, Tokens):
        raise BadConfig(
            f"{name} is made of {found.train.space.named}, and {task.name} of {task.space.named}: name another"
        )

    def shaped(split: Split) -> Split:
        if isinstance(split.space, Tokens):
            return split
        return Split(inputs=fit_shape(split.inputs, task.input_shape), labels=split.labels)

    pool = shaped(found.train)
    own = [split for split in (*task.splits.values(), task.foreign) if split is not None]
    held = set().union(*(shaped(split).digests() for split in own))
    left = torch.tensor([digest not in held for digest in pool.row_digests])
    if not left.any():
        kind = "text" if isinstance(task.space, Tokens) else "image"
        raise BadData(f"{task.name} holds every {kind} of {name} itself: name another data set for the thief")
    return pool.subset(left)


def named_architecture(text: str) -> Architecture:
    """An architecture from ``"name"``, ``"name:option=value,..."`` or ``"package.module:factory"``; built-in names first.

    Raises:
        BadConfig: for an unknown name, or a factory that cannot be imported.
    """
    name, colon, _ = text.partition(":")
    if colon and name not in MODELS:
        factory: Factory = user_object(text)
        return factory
    check_known("model", name, [*MODELS, "package.module:factory of your own"])
    if MODELS[name].from_folder:  # with a digest of the weights, so that others are another architecture
        return f"{name}:{MODELS[name].described(text.partition(':')[2]).source}"
    return text


def user_factory(path: str | None) -> Factory | None:
    """A user's own model factory by ``package.module:name``; None where none is named.

    Raises:
        BadConfig: when it cannot be imported.
    """
    if path is None:
        return None
    if ":" not in path or path.partition(":")[0] in MODELS:
        raise BadConfig(f"{path!r} is no package.module:factory: only a model of your own needs one")
    factory: Factory = user_object(path)
    return factory


def check_architecture(architecture: Architecture, *, input_shape: tuple[int, ...], classes: int) -> None:
    """Make sure that an architecture can be built for a task; a user's own is built and asked once.

    Raises:
        BadConfig: when it cannot, or a user's factory gives anything but a fresh module of the right shapes.
        ShapeMismatch: when a built-in model cannot take the inputs.
    """
    spec = specify(architecture, input_shape=input_shape, classes=classes)
    if not isinstance(architecture, str):
        check_factory(architecture, spec)


def check_factory(factory: Factory, spec: ModelSpec) -> None:
    """Build a user's model and ask it about two blank inputs.

    Raises:
        BadConfig: when that fails.
    """
    name = getattr(factory, "__qualname__", repr(factory))
    remedy = "it gets a heirmark.ModelSpec and returns a fresh nn.Module"
    try:
        with seeded(0):
            model, another = factory(spec), factory(spec)
    except (Exception, SystemExit) as error:  # it runs whatever the user wrote
        raise BadConfig(f"the model factory {name} failed ({_told(error)}): {remedy}") from error
    if not isinstance(model, nn.Module) or model is another:
        made = "the same module twice" if isinstance(model, nn.Module) else type(model).__name__
        raise BadConfig(f"the model factory {name} returned {made}: {remedy}")
    oracle = ModuleOracle(unwrapped(model), spec.classes, Runtime(device="cpu", precision="float32"))
    blank = torch.zeros(2, *spec.input_shape)
    faults = []
    for inputs in (blank, blank.to(torch.int32) + 1) if blank.ndim == 2 else (blank,):  # texts are of one dimension
        try:
            oracle.scores(inputs)
            return
        except ModelFault as error:
            faults.append(error)
    raise BadConfig(f"the model of {name} does not fit the task: {faults[0]}") from faults[0]


def describe_model(spec: ModelSpec) -> str:
    """A model's name and options, as ``--model`` takes them; what stands before it is left out."""
    options = spec.source or ",".join(f"{name}={str(value).lower()}" for name, value in spec.options)
    return f"{spec.name}:{options}" if options else spec.name


def _told(error: BaseException) -> str:
    """What went wrong in a user's code, and where."""
    words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    foreign = ("<frozen", "importlib", "site-packages", __file__)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(part in frame.filename for part in foreign)
    ]
    return words if not frames else f"{words}, {Path(frames[-1].filename).name} line {frames[-1].lineno}"
