"""Stages that steal: a victim behind a black box in, a stolen model out. No key comes near them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from heirmark.attacks.base import Extraction
from heirmark.blackbox import BlackBox
from heirmark.configuration import checked
from heirmark.errors import BadConfig
from heirmark.models.storage import save_model
from heirmark.pipeline.answering import ADVERSARY, Remembering, answer_stage, pool_digest, pool_of, read_answers
from heirmark.pipeline.context import Context, context_of, exact
from heirmark.pipeline.stage import Job, Stage
from heirmark.pipeline.victim import attack_stage, load_victim

ANSWERS = "answers"


@dataclass(frozen=True, kw_only=True)
@checked
class Theft:
    """An attack and what the victim's API gives away.

    Attributes:
        attack: the extraction.
        answers: ``"probabilities"``, ``"top-k"`` or ``"label"``.
        k: of top-k.
        decimals: to which probabilities are rounded; None does not round.
        levels: to which probabilities are quantised; None does not.
        budget: queries that the API allows; None allows all.
        pool: what the thief asks about: the ``"adversary"``'s split, or images of another data set by their name among the
            context's pools. An attack that learns true labels, by a ``label_weight``, needs the first.
    """

    attack: Extraction
    answers: Literal["probabilities", "top-k", "label"] = "probabilities"
    k: int = 5
    decimals: int | None = None
    levels: int | None = None
    budget: int | None = None
    pool: str = ADVERSARY

    def __post_init__(self) -> None:
        if self.pool != ADVERSARY and getattr(self.attack, "label_weight", 0) > 0:
            raise BadConfig(
                f"the labels of {self.pool} are those of another task, and label_weight would teach them to the copy: "
                "set label_weight=0, or leave the pool out"
            )


def steal_stage(theft: Theft, victim: Stage, context: Context, *, seed: int) -> Stage:
    """A theft.

    Args:
        theft: attack, answers and queries.
        victim: makes the model.
        context: data and hardware.
        seed: of the attack.

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
    net = load_victim(job)
    model, spec = net.model, net.spec
    pool = pool_of(theft.pool, context)
    if ANSWERS in job.inputs:
        model = Remembering(model, pool.inputs, read_answers(job.inputs[ANSWERS].folder))
    # In float32 whatever the thief trains in: an API would, and attacks that take differences of answers see only noise else.
    box = BlackBox(
        model,
        classes=spec.classes,
        answers=theft.answers,
        k=min(theft.k, spec.classes),
        decimals=theft.decimals,
        levels=theft.levels,
        budget=theft.budget,
        runtime=exact(context.runtime),
    )
    stolen = theft.attack(box, pool, seed=job.seed, runtime=context.runtime)
    save_model(stolen, job.folder)
    return {"queries": box.queries_used}
