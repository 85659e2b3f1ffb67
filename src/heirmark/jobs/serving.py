"""A user's own model behind HTTP."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from heirmark.data.zoo import located
from heirmark.errors import BadArtifact, BadConfig
from heirmark.files import GIB
from heirmark.isolation.limits import ProcessLimits
from heirmark.jobs.folder import ModelFolder
from heirmark.loading import user_object
from heirmark.models import Factory
from heirmark.models.storage import onnx_in
from heirmark.querying.blackbox import Api, BlackBox
from heirmark.querying.layout import are_probabilities
from heirmark.runtime import Runtime
from heirmark.tasks.media import FILE as MEDIUM
from heirmark.tasks.media import Medium, Text, load_medium
from heirmark.verification.answers import labels_from
from heirmark.verification.onnx_files import open_onnx
from heirmark.wire.serving import MODEL, Served, make_app
from heirmark.work.context import exact

_EVER = 1e9
"""Seconds that a served model may compute in all: a service has no end of its own."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What is served.

    Attributes:
        model: folder, ``.onnx`` file, or ``package.module:name`` of a torch module or of a function of a batch.
        name: by which clients know it.
        api: what it gives away.
        factory: builds the model of a folder, if it is the user's own.
        classes: where the model does not tell; None where it does.
        shape: of one input, ditto.
    """

    model: str
    name: str = MODEL
    api: Api = field(default=Api())
    factory: Factory | None = None
    classes: int | None = None
    shape: Sequence[int] | None = None


def open_served(shown: Shown, runtime: Runtime) -> Served:
    """A model, ready to be served.

    Raises:
        BadArtifact: when there is none, or it is damaged.
        BadConfig: when it does not tell its classes or shape, or the name is none for an address.
    """
    if _NAME.fullmatch(shown.name) is None:
        raise BadConfig(f"--name {shown.name}: up to 100 letters, digits, dots, dashes and underscores make a name")
    path = located(shown.model)
    file = path if path.suffix.lower() == ".onnx" else onnx_in(path)
    model: nn.Module | Callable[[Tensor], object]
    medium: Medium | None = None
    if file is not None:
        opened = open_onnx(file, classes=shown.classes, max_bytes=2 * GIB, limits=ProcessLimits(total=_EVER))
        model, classes, shape = (
            _as_probabilities(opened.run, opened.classes, opened.batch_size),
            opened.classes,
            opened.input_shape,
        )
    elif (path / "model.json").is_file():
        net = ModelFolder(path, shown.factory).net
        model, classes, shape = net.model, net.spec.classes, net.spec.input_shape
        medium = load_medium(path) if (path / MEDIUM).is_file() else None
    elif ":" in shown.model:
        found = user_object(shown.model)
        if shown.classes is None:
            raise BadConfig(f"{shown.model} does not tell how many classes it knows: say --classes")
        classes, shape = shown.classes, None
        model = found if isinstance(found, nn.Module) else _as_probabilities(found, classes)
    else:
        raise BadArtifact(
            f"{shown.model} is no model: name a folder that heirmark wrote, an .onnx file, or package.module:name"
        )
    if shape is None and shown.shape is None:
        raise BadConfig(f"{shown.model} does not tell the shape of its inputs: say --shape, as in --shape 3,32,32")
    box = BlackBox(
        model,
        classes=classes,
        api=shown.api,
        input_shape=tuple(shown.shape or shape or ()),
        runtime=exact(runtime),
    )
    return Served(box=box, name=shown.name, texts=medium if isinstance(medium, Text) else None)


def listen(host: str, port: int) -> socket.socket:
    """A socket that clients reach; port 0 takes a free one.

    Raises:
        BadConfig: when it cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=64)
    except OSError as error:
        raise BadConfig(
            f"{host} port {port} cannot be listened at ({error.strerror or error}): choose another --port"
        ) from None


def address_of(listening: socket.socket, served: Served) -> str:
    """What clients are to be told."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v2/models/{served.name}"


def is_loopback(listening: socket.socket) -> bool:
    """Whether this machine alone can reach it."""
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback


def serve_job(served: Served, listening: socket.socket) -> None:
    """Answer until the process is interrupted.

    Raises:
        BadConfig: when FastAPI or uvicorn are not installed.
    """
    app = make_app(served)
    try:
        import uvicorn
    except ImportError:
        raise BadConfig('a model is served by uvicorn: pip install "heirmark[serve]"') from None
    uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off")).run(sockets=[listening])


def _as_probabilities(
    function: Callable[[Tensor], object], classes: int, batch: int | None = None
) -> Callable[[Tensor], Tensor]:
    """What a function says, so many inputs at once, as probabilities: labels as certain, what are none as logits."""

    def once(inputs: Tensor) -> Tensor:
        scores = torch.as_tensor(function(inputs))
        if scores.ndim == 1:
            return nn.functional.one_hot(labels_from(scores, len(inputs), classes), classes).float()
        scores = scores.detach().float()
        return scores if are_probabilities(scores) else scores.softmax(1)

    return lambda inputs: torch.cat([once(part) for part in inputs.split(batch or max(1, len(inputs)))])  # type: ignore[no-untyped-call]
