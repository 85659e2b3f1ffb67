"""Stages that alter: a model that a thief holds in, another out. No key comes near them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heirmark.attacks.base import Removal
from heirmark.errors import BadConfig
from heirmark.models.storage import save_model
from heirmark.stages.stage import Job, Stage
from heirmark.work.context import Context, context_of
from heirmark.work.victim import attack_stage, load_victim


@dataclass(frozen=True, kw_only=True)
class Alteration:
    """A removal attack and what the thief has besides his own split.

    Attributes:
        attack: the removal.
        pool: labelled examples of another task, by their name among the context's pools; None without any.
    """

    attack: Removal
    pool: str | None = None


def alter_stage(alteration: Alteration, victim: Stage, context: Context, *, seed: int) -> Stage:
    """A removal attack at work on the model that a stage makes.

    Raises:
        BadConfig: when the context has no such pool.
    """
    external = {}
    if alteration.pool is not None:
        if alteration.pool not in context.pools:
            raise BadConfig(f"there are no examples called {alteration.pool!r}: name another data set with --pool")
        external["pool"] = context.pools[alteration.pool].digest()
    return attack_stage(run_alter, alteration, victim, context, seed=seed, external=external)


def run_alter(job: Job) -> Mapping[str, Any]:
    """Run an attack on a model and write what comes out."""
    context, alteration = context_of(job), job.config
    other = None if alteration.pool is None else context.pools[alteration.pool]
    net = alteration.attack(
        load_victim(job), context.task.adversary, other=other, seed=job.seed, runtime=context.runtime
    )
    save_model(net, job.folder)
    return {"onnx": net.onnx is not None}
