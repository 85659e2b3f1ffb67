"""Suspects that would run in this process, code of a user's and models in folders, opened in a process of their own.

That keeps the verifier from hanging, crashing, swelling, and from being changed by what it imports. It is a fence and no jail:
the code runs with the user's rights, may read files and reach the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heirmark.errors import BadArtifact
from heirmark.isolation.child import Opened
from heirmark.isolation.limits import ProcessLimits
from heirmark.isolation.process import Isolated
from heirmark.jobs.opening import Named, open_suspect, runs_here
from heirmark.loading import user_factory
from heirmark.runtime import Runtime
from heirmark.tasks.media import Text
from heirmark.verification import Suspect
from heirmark.verification.normalising import Normalisation
from heirmark.work.context import exact

_KINDS = ("module", "callable")


def open_isolated(
    named: Named, *, factory: str | None, classes: int, runtime: Runtime, shape: Sequence[int] | None = None
) -> Suspect:
    """As :func:`heirmark.jobs.opening.open_suspect`, but nothing of the suspect's is imported or loaded here.

    Args:
        named: whom; its factory is left out.
        factory: that builds the model of a folder, as ``package.module:name``.
        classes: of the key.
        runtime: where the other process computes.
        shape: of one input of the key's, which a service has to be told.

    Raises:
        BadArtifact: when there is nothing that can be asked, it is damaged, or it cannot be opened within the limits.
        BadConfig: when the user's own code cannot be imported, a factory is missing, or the order of labels does not fit.
    """
    if not runs_here(named.name):
        # Of another kind: it is not opened in this process anyway.
        return open_suspect(named, classes=classes, runtime=runtime, shape=shape)
    own = classes if named.order is None else len(named.order)
    options = {
        "name": named.name,
        "factory": factory,
        "classes": own,
        "normalise": named.normalise,
        "device": runtime.device,
        "threads": torch.get_num_threads(),
        "tokenizer": named.medium.tokenizer if isinstance(named.medium, Text) else None,
    }
    child = Isolated(
        f"{opened.__module__}:{opened.__name__}",
        options,
        limits=named.limits or ProcessLimits(),
        name=named.name,
        largest=lambda facts: 8,
    )

    def ask(inputs: Tensor) -> NDArray[Any]:
        return child(inputs.numpy())

    try:
        kind, shape = str(child.facts["kind"]), child.facts["input_shape"]
        suspect = Suspect.from_callable(
            ask,
            classes=int(child.facts["classes"]),
            input_shape=None if shape is None else tuple(map(int, shape)),
            retries=0,
            timeout=None,
        )
    except (KeyError, TypeError, ValueError):
        raise BadArtifact(f"{named.name} does not say what it is: do not trust it") from None
    kind = kind if kind in _KINDS else "callable"
    suspect = replace(suspect, kind=kind, normalise=named.normalise, model=None)
    return suspect if named.order is None else suspect.relabelled(named.order, classes=classes)


def opened(
    *,
    name: str,
    factory: str | None,
    classes: int,
    normalise: Sequence[Sequence[float]] | None,
    device: str,
    threads: int,
    tokenizer: str | None,
) -> Opened:
    """The other side: a suspect opened in this process, and what gives its labels ``[B]`` to inputs ``[B, ...]``."""
    torch.set_num_threads(threads)
    wanted: Normalisation | None = None if normalise is None else (normalise[0], normalise[1])
    medium = None if tokenizer is None else Text(tokenizer=tokenizer)
    named = Named(name=name, factory=user_factory(factory), normalise=wanted, medium=medium)
    suspect = open_suspect(named, classes=classes, runtime=exact(Runtime(device=device, precision="float32")))
    facts = {"classes": suspect.classes, "kind": suspect.kind, "input_shape": suspect.input_shape}

    def answer(inputs: NDArray[Any]) -> NDArray[np.int64]:
        given = torch.from_numpy(inputs)
        given = given.to(torch.int32) if given.dtype == torch.int64 else given  # ids of tokens, as they are stored
        labels: NDArray[np.int64] = suspect.labels(given).numpy()
        return labels

    return facts, answer
