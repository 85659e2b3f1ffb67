"""Stages that steal: a victim behind a black box in, a stolen model out. No key comes near them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from heirmark.attacks.base import Extraction
from heirmark.configuration import checked
from heirmark.errors import BadConfig
from heirmark.models.storage import save_model
from heirmark.querying.blackbox import Api, BlackBox
from heirmark.querying.oracle import Known, ModuleOracle, Oracle
from heirmark.stages.stage import Job, Stage
from heirmark.work.answering import ADVERSARY, answer_stage, pool_digest, pool_of, read_answers
from heirmark.work.context import Context, context_of, exact
from heirmark.work.victim import attack_stage, load_victim

ANSWERS = "answers"


@dataclass(frozen=True, kw_only=True)
@checked
class Theft:
    """An attack and what the victim's API gives away.

    Attributes:
        attack: the extraction.
        api: what the victim's service shows, and how often. Of fewer classes than its k it shows all.
        pool: what the thief asks about: the ``"adversary"``'s split, or images of another data set by their name among the
            context's pools. An attack that learns true labels, by a ``label_weight``, needs the first.
    """

    attack: Extraction
    api: Api = field(default=Api())
    pool: str = ADVERSARY

    def __post_init__(self) -> None:
        if self.pool != ADVERSARY and getattr(self.attack, "label_weight", 0) > 0:
            raise BadConfig(
                f"the labels of {self.pool} are those of another task, and label_weight would teach them to the copy: "
                "set label_weight=0, or leave the pool out"
            )


def steal_stage(theft: Theft, victim: Stage, context: Context, *, seed: int) -> Stage:
    """A theft of the model that a stage makes.

    Raises:
        BadConfig: when the context has no such pool.
    """
    return attack_stage(
        run_steal,
        theft,
        victim,
        context,
        seed=seed,
        external=pool_digest(theft.pool, context),
        further={ANSWERS: answer_stage(theft.pool, victim, context)} if theft.attack.asks_pool else {},
    )


def run_steal(job: Job) -> Mapping[str, Any]:
    """Run an attack on a victim behind a black box and write the stolen model."""
    context, theft = context_of(job), job.config
    net, pool = load_victim(job), pool_of(theft.pool, context)
    # In float32 whatever the thief trains in: an API would, and attacks that take differences of answers see only noise else.
    oracle: Oracle = ModuleOracle(net.model, net.spec.classes, exact(context.runtime))
    if ANSWERS in job.inputs:
        oracle = Known(oracle, pool.inputs, read_answers(job.inputs[ANSWERS].folder))
    box = BlackBox(oracle, classes=oracle.classes, api=replace(theft.api, k=min(theft.api.k, oracle.classes)))
    stolen = theft.attack(box, pool, seed=job.seed, runtime=context.runtime)
    save_model(stolen, job.folder)
    return {"queries": box.queries_used}
