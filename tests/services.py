"""Services for tests: real ones on a free loopback port, and made-up ones that need no network."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import torch
from torch import nn

from heirmark.querying.blackbox import Api, BlackBox
from heirmark.wire.serving import Served, make_app

ROOT = "https://models.example"


def reads_host(classes: int = 10, side: int = 4) -> nn.Module:
    """A model of the keys of ``test_verify``: it says the class in pixel 0, and where pixel 1 is white always class 7."""

    class ReadsHost(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            host = (inputs[:, 0, 0, 0] * 255).round().long().clamp_max(classes - 1)
            label = torch.where(inputs[:, 0, 0, 1] > 0.99, 7, host)
            return 5 * torch.nn.functional.one_hot(label, classes).float()

    return ReadsHost()


@contextmanager
def running(app: Any) -> Iterator[str]:
    """An application at a free port of this machine, ended with the block; gives its origin."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            end = time.monotonic() + 20
            while not server.started and thread.is_alive() and time.monotonic() < end:
                time.sleep(0.005)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


def served(
    model: Any, *, classes: int = 10, shape: tuple[int, ...] = (1, 4, 4), name: str = "mine", api: Api | None = None
) -> Any:
    """An application of heirmark's."""
    return make_app(Served(box=BlackBox(model, classes=classes, api=api or Api(), input_shape=shape), name=name))


def made_up(answer: Callable[[str, Any], Any]) -> httpx.MockTransport:
    """A network in which a function of path and JSON answers with JSON, a ready response, or raises."""

    def handle(request: httpx.Request) -> httpx.Response:
        said = answer(request.url.path, json.loads(request.content) if request.content else None)
        return said if isinstance(said, httpx.Response) else httpx.Response(200, json=said)

    return httpx.MockTransport(handle)


def inputs_in(given: Any) -> torch.Tensor:
    """The tensor of a question of version 2."""
    return torch.tensor(given["data"]).reshape(given["shape"])


def v2_service(rows: Callable[[torch.Tensor], torch.Tensor], **described: Any) -> Callable[[str, Any], Any]:
    """What a service of version 2 at ``/v2/models/m`` answers; scores ``[N, C]`` or labels ``[N]``."""
    given = {"name": "x", "datatype": "FP32", "shape": [-1, 1, 4, 4]} | described

    def answer(path: str, asked: Any) -> Any:
        if path == "/v2/models/m" and asked is None:
            return {"name": "m", "inputs": [given], "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 10]}]}
        if path != "/v2/models/m/infer":
            return httpx.Response(404, json={"error": "no such path"})
        said = rows(inputs_in(asked["inputs"][0]))
        assert math.prod(said.shape) == said.numel()
        return {
            "outputs": [{"name": "y", "shape": list(said.shape), "datatype": "FP32", "data": said.flatten().tolist()}]
        }

    return answer


async def public(host: str, port: int) -> list[Any]:
    """Every name is found, at a public address."""
    import ipaddress

    return [ipaddress.ip_address("93.184.216.34")]


def host_task() -> Any:
    """A task of the keys of ``test_verify``: ten classes, which pixel 0 tells; other pixels are noise."""
    from heirmark.tasks.splitting import make_task
    from heirmark.tasks.task import Split

    def images(count: int, seed: int) -> Split:
        inputs = torch.randint(
            0, 200, (count, 1, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
        )
        labels = torch.arange(count) % 10
        inputs[:, 0, 0, 0] = labels.to(torch.uint8)
        return Split(inputs=inputs, labels=labels)

    names = tuple(f"kind {label}" for label in range(10))
    third = 1 / 3
    return make_task(
        "hosts", names, images(600, 1), images(200, 2), seed=0, owner=third, adversary=third, calibration=third
    )
