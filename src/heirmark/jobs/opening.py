"""Suspects as users name them. Here alone it is decided what an address stands for: a new kind of it is one more opener."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from heirmark.data.zoo import in_zoo
from heirmark.errors import BadArtifact, BadConfig
from heirmark.isolation.limits import ProcessLimits
from heirmark.jobs.folder import ModelFolder
from heirmark.jobs.services import Asking, open_service
from heirmark.loading import user_object
from heirmark.models import Factory
from heirmark.models.storage import onnx_in
from heirmark.runtime import Runtime
from heirmark.tasks.media import Medium, Text
from heirmark.verification import Suspect
from heirmark.verification.normalising import Normalisation
from heirmark.verification.requests import LONGEST_CALL
from heirmark.wire.addresses import is_address, shown_name
from heirmark.work.context import exact

_CODE = re.compile(r"[\w.]+:[\w.]+")


@dataclass(frozen=True, kw_only=True)
class Named:
    """A suspect as a user names it.

    Attributes:
        name: a folder that heirmark wrote, ``zoo:NAME`` of the package's zoo, an ``.onnx`` file, or ``package.module:name`` of a
            torch module or of a function that maps float32 ``[B, ...]`` in [0, 1], or B texts where the key is of such, to scores
            ``[B, C]`` or labels ``[B]``; or ``http://`` and ``https://`` addresses of a service.
        factory: that builds the model of a folder, if it is the user's own.
        order: for each class of the suspect's the class of the key that it means, -1 for none; None where they are the same.
        normalise: what it wants its inputs normalised by.
        limits: of the process that an ONNX file runs in, or any suspect that is isolated; their seconds hold for a call of a
            function in this process, too. None are the usual ones.
        asking: how a service is asked.
        medium: of the key, by which functions and services of texts are put texts.
    """

    name: str
    factory: Factory | None = None
    order: Sequence[int] | None = None
    normalise: Normalisation | None = None
    limits: ProcessLimits | None = None
    asking: Asking = field(default=Asking())
    medium: Medium | None = None


def open_suspect(
    named: Named | str, *, classes: int, runtime: Runtime | None = None, shape: Sequence[int] | None = None
) -> Suspect:
    """Whom a name stands for, ready to be asked the queries of a key of so many classes; a module computes in float32.

    Args:
        named: by its user; a name alone is asked as it stands.
        classes: of the key.
        runtime: where a module computes.
        shape: of one input of the key's, which a service has to be told.

    Raises:
        ModelFault: when a service cannot be reached.
        BadArtifact: when there is nothing that can be asked, or it is damaged.
        BadConfig: when the user's own code cannot be imported, a factory is missing, or the order of labels does not fit.
    """
    named, runtime = Named(name=named) if isinstance(named, str) else named, runtime or Runtime()
    if is_address(named.name):
        if shape is None:
            raise BadConfig(f"{shown_name(named.name)} cannot be asked before the shape of an input is known: pass it")
        service = open_service(
            named.name,
            named.asking,
            classes=classes,
            shape=shape,
            order=named.order,
            normalise=named.normalise,
            medium=named.medium,
        )
        return Suspect.from_service(service, normalise=named.normalise)
    if named.asking.names is not None or named.asking.inferred:
        raise BadConfig(
            f"{named.name} is no service, which alone has names: give the numbers of its classes (--labels 2,0,-)"
        )
    own = classes if named.order is None else len(named.order)
    for opener in OPENERS:
        found = opener(named, own, runtime)
        if found is not None:
            return found if named.order is None else found.relabelled(named.order, classes=classes)
    path = Path(named.name)
    found_is = "is missing" if not path.exists() else "holds no model.json" if path.is_dir() else "is no model alone"
    raise BadArtifact(
        f"{named.name} {found_is}: a suspect is a folder that heirmark wrote, an .onnx file, an http:// address, or "
        "package.module:name of a torch module or of a function of a batch. A state dict needs its code: write in mine.py "
        "model = Net() and model.load_state_dict(torch.load(FILE, weights_only=True)), and verify mine:model"
    )


def runs_here(name: str) -> bool:
    """Whether the suspect of a name would run in this process: code of a user's, or a model of PyTorch's in a folder."""
    return _is_code(name) or (Path(name) / "model.json").is_file()


def _is_code(name: str) -> bool:
    return _CODE.fullmatch(name) is not None and not Path(name).exists() and not in_zoo(name)


def open_code(named: Named, classes: int, runtime: Runtime) -> Suspect | None:
    """A user's own module or function, by ``package.module:name``.

    Raises:
        BadConfig: when it cannot be imported, or is a class.
    """
    if not _is_code(named.name):
        return None
    found: Callable[..., object] = user_object(named.name)
    if isinstance(found, type):
        raise BadConfig(f"{named.name} is a class: name a model made of it, or a function that asks one")
    if isinstance(found, nn.Module):
        return Suspect.from_module(found, classes=classes, runtime=exact(runtime), normalise=named.normalise)
    timeout = LONGEST_CALL if named.limits is None else named.limits.seconds
    if isinstance(named.medium, Text):
        return Suspect.from_texts(found, named.medium, classes=classes, timeout=timeout)
    return Suspect.from_callable(found, classes=classes, timeout=timeout, normalise=named.normalise)


def open_onnx(named: Named, classes: int, runtime: Runtime) -> Suspect | None:
    """An ONNX file, or a folder with one in place of a model of PyTorch's."""
    path = Path(named.name)
    file = path if path.suffix.lower() == ".onnx" else onnx_in(path)
    return (
        None
        if file is None
        else Suspect.from_onnx(file, classes=classes, normalise=named.normalise, limits=named.limits)
    )


def open_folder(named: Named, classes: int, runtime: Runtime) -> Suspect | None:
    """A folder of heirmark's."""
    folder = ModelFolder(Path(named.name), named.factory)
    if not (folder.path / "model.json").is_file():
        return None
    return Suspect.from_net(folder.net, runtime=exact(runtime), normalise=named.normalise)


OPENERS = (open_code, open_onnx, open_folder)
"""Asked in turn; one that a name is nothing to says None."""
