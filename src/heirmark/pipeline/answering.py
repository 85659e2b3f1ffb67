"""Stages that ask a victim about all images of a pool once, so that no other attack on it computes the same answers again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from heirmark.asking import predict
from heirmark.errors import BadConfig
from heirmark.files import atomic_write_tensors, read_tensors
from heirmark.layout import takes_stored
from heirmark.pipeline.context import Context, context_of, exact
from heirmark.pipeline.stage import Job, Stage
from heirmark.pipeline.victim import attack_stage, load_victim
from heirmark.space import row_digests
from heirmark.task import Split

ADVERSARY = "adversary"
LOGITS = "logits.safetensors"


def pool_of(name: str, context: Context) -> Split:
    """The images that a thief asks about: the adversary's split, or those of another data set.

    Raises:
        BadConfig: when the context has no such pool.
    """
    if name == ADVERSARY:
        return context.task.adversary
    if name not in context.pools:
        known = ", ".join([ADVERSARY, *context.pools])
        raise BadConfig(f"the thief has no images called {name!r}: choose of {known}")
    return context.pools[name]


def pool_digest(name: str, context: Context) -> dict[str, str]:
    """What of a pool belongs into an identity besides the task.

    Raises:
        BadConfig: when the context has no such pool.
    """
    return {} if name == ADVERSARY else {"pool": pool_of(name, context).digest()}


def answer_stage(pool: str, victim: Stage, context: Context) -> Stage:
    """A victim's logits for every image of a pool.

    Args:
        pool: its name.
        victim: makes the model.
        context: data and hardware.
    """
    config = {"pool": pool}
    return attack_stage(run_answer, config, victim, context, seed=0, external=pool_digest(pool, context))


def run_answer(job: Job) -> Mapping[str, Any]:
    """Ask, in float32, and write the logits."""
    context = context_of(job)
    inputs = pool_of(job.config["pool"], context).inputs
    atomic_write_tensors(
        job.folder / LOGITS, {"logits": predict(load_victim(job).model, inputs, runtime=exact(context.runtime))}
    )
    return {"inputs": len(inputs)}


def read_answers(folder: Path) -> Tensor:
    """What :func:`run_answer` wrote: ``[N, C]`` float32."""
    return read_tensors(folder / LOGITS, names={"logits"})["logits"]


class Remembering(nn.Module):
    """A model that knows its logits for some inputs and computes those of all others.

    Args:
        model: maps float32 ``[B, ...]`` in [0, 1] to logits ``[B, C]``.
        inputs: ``[N, ...]`` uint8 or float32.
        logits: ``[N, C]`` of the model for these.
    """

    def __init__(self, model: nn.Module, inputs: Tensor, logits: Tensor) -> None:
        super().__init__()
        self.model = model
        self._logits = logits
        self._places = {digest: row for row, digest in enumerate(row_digests(inputs))}

    @property
    def takes_stored(self) -> bool:
        """Whether the model does."""
        return takes_stored(self.model)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[B, ...]`` to logits ``[B, C]``, on the inputs' device."""
        places = [self._places.get(digest) for digest in row_digests(inputs)]
        known = [row for row, place in enumerate(places) if place is not None]
        if not known:
            logits: Tensor = self.model(inputs)
            return logits
        found = torch.empty(len(inputs), self._logits.shape[1], device=inputs.device)
        found[known] = self._logits[[places[row] for row in known]].to(inputs.device)
        unknown = [row for row, place in enumerate(places) if place is None]
        if unknown:
            found[unknown] = self.model(inputs[unknown]).float()
        return found
