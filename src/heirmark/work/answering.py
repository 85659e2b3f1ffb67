"""Stages that ask a victim about all images of a pool once, so that no other attack on it computes the same answers again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from heirmark.errors import BadConfig
from heirmark.files import atomic_write_tensors, read_tensors
from heirmark.querying.asking import predict
from heirmark.stages.stage import Job, Stage
from heirmark.tasks.task import Split
from heirmark.work.context import Context, context_of, exact
from heirmark.work.victim import attack_stage, load_victim

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
    """What of a pool belongs into an identity besides the task; raises as :func:`pool_of` does."""
    return {} if name == ADVERSARY else {"pool": pool_of(name, context).digest()}


def answer_stage(pool: str, victim: Stage, context: Context) -> Stage:
    """A victim's logits for every image of the pool of a name."""
    return attack_stage(run_answer, {"pool": pool}, victim, context, seed=0, external=pool_digest(pool, context))


def run_answer(job: Job) -> Mapping[str, Any]:
    """Ask, in float32, and write the logits."""
    context = context_of(job)
    inputs = pool_of(job.config["pool"], context).inputs
    logits = predict(load_victim(job).model, inputs, runtime=exact(context.runtime))
    atomic_write_tensors(job.folder / LOGITS, {"logits": logits})
    return {"inputs": len(inputs)}


def read_answers(folder: Path) -> Tensor:
    """What :func:`run_answer` wrote: ``[N, C]`` float32."""
    return read_tensors(folder / LOGITS, names={"logits"})["logits"]
