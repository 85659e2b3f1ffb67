"""A victim's answers to a pool: asked once, remembered, and charged all the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import own_code
from heirmark.attacks import DFME, Distillation, Knockoff
from heirmark.methods import Unmarked
from heirmark.querying.blackbox import Api, BlackBox
from heirmark.querying.oracle import Known, ModuleOracle
from heirmark.runtime import Runtime
from heirmark.stages import Store
from heirmark.tasks.storing import decode
from heirmark.training.fitting import Recipe
from heirmark.work.answering import read_answers
from heirmark.work.context import Context
from heirmark.work.embedding import train_stage
from heirmark.work.stealing import Theft, steal_stage

NET = "naivenet:width=4,hidden=16,batch_norm=true"
RECIPE = Recipe(epochs=1, batch_size=32, learning_rate=0.05)
CPU = Runtime(device="cpu", precision="float32")


class Counting(torch.nn.Module):
    """Counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        self.asked += len(inputs)
        return self.layer(inputs.flatten(1))


def test_known_answers_are_not_computed_again() -> None:
    model = Counting()
    pool = torch.randint(256, (7, 1, 2, 2), dtype=torch.uint8)
    logits = torch.arange(21.0).view(7, 3)
    known = Known(ModuleOracle(model, 3, CPU), pool, logits)
    other = torch.full((2, 1, 2, 2), 0.123)
    order = torch.tensor([3, 0, 6])
    assert torch.equal(known.scores(decode(pool[order])), logits[order])
    assert model.asked == 0
    mixed = known.scores(torch.cat([other, decode(pool[order]).to(memory_format=torch.channels_last)]))
    assert torch.equal(mixed[2:], logits[order])
    assert torch.equal(mixed[:2], model.layer(other.flatten(1)).detach())
    assert model.asked == 2
    known.scores(other)
    assert model.asked == 4


def test_a_box_charges_for_what_is_remembered() -> None:
    pool = torch.randint(256, (7, 1, 2, 2), dtype=torch.uint8)
    known = Known(ModuleOracle(Counting(), 3, CPU), pool, torch.zeros(7, 3))
    box = BlackBox(known, classes=3, api=Api(budget=7))
    box.query(pool)
    assert (box.remaining, box.inputs_shown) == (0, 7)


def test_attacks_on_one_victim_share_its_answers(tmp_path: Path) -> None:
    context = Context(task=own_code.make_task(), runtime=CPU)
    victim = train_stage(Unmarked(model=NET, pretraining=RECIPE), context, seed=0)
    knockoff = Theft(attack=Knockoff(model=NET, recipe=RECIPE))
    stages = [
        steal_stage(theft, victim, context, seed=1)
        for theft in (
            knockoff,
            replace(knockoff, api=Api(answers="label")),
            Theft(attack=Distillation(model=NET, recipe=RECIPE)),
        )
    ]
    answers = {stage.inputs["answers"].name for stage in stages}
    assert len(answers) == 1
    own_queries = steal_stage(Theft(attack=DFME(model=NET, queries=5000)), victim, context, seed=1)
    assert "answers" not in own_queries.inputs
    store = Store(tmp_path)
    made = store.get(stages[0], context)
    assert made.summary["queries"] == len(context.task.adversary)
    kept = store.get(stages[0].inputs["answers"])
    assert read_answers(kept.folder).shape == (len(context.task.adversary), len(context.task.classes))
