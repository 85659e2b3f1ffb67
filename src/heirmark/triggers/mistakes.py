"""A model's own mistakes: no trigger at all, but what a fingerprint asks (QuRD's AKH, Godinot et al. 2025, arXiv 2412.13021)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from heirmark.errors import BadConfig, BadData
from heirmark.querying.asking import predict
from heirmark.runtime import Runtime, generator_of
from heirmark.tasks.task import Split, Task
from heirmark.triggers.base import Secret, Trigger, TriggerSet

LEAST = 20
"""Mistakes that a key needs: no verdict rests on fewer."""


def near_misses(scores: Tensor, labels: Tensor, count: int, generator: torch.Generator) -> list[tuple[int, int]]:
    """Images that a model gets wrong, each with another one of its class that the model nearly takes for the same thing.

    Args:
        scores: ``[N, C]`` the model's probabilities.
        labels: ``[N]`` true classes.
        count: pairs wanted.
        generator: on the CPU; draws which mistakes, evenly.

    Returns:
        Positions of a mistake and of its control; no position twice. The control has the largest probability of the wrong answer
        among those left that do not get this answer; where none is left, among those that do. Such pairs, which tell little, come
        last, and only up to :data:`LEAST` pairs in all.
    """
    said = scores.argmax(1)
    order = torch.randperm(len(labels), generator=generator)
    wrong, free = order[(said != labels)[order]], torch.ones(len(labels), dtype=torch.bool)
    # Where a class is mostly mistaken, some mistakes have to be the others' controls.
    room = (labels.bincount() // 2).tolist()
    chosen: list[int] = []
    for place in wrong.tolist():
        if len(chosen) < count and room[labels[place]]:
            room[labels[place]] -= 1
            chosen.append(place)
    free[chosen] = False
    telling: list[tuple[int, int]] = []
    dull: list[tuple[int, int]] = []
    for place in chosen:
        others = (free & (labels == labels[place])).nonzero().flatten()
        answer = said[place]
        control = int(others[(scores[others, answer] - (said[others] == answer).float()).argmax()])
        free[control] = False
        (telling if said[control] != answer else dull).append((place, control))
    return telling + dull[: max(0, LEAST - len(telling))]


@dataclass(frozen=True, kw_only=True)
class Mistakes(Trigger):
    """Images as they are that the model gets wrong, to be answered as it answers them. Nothing trains on them."""

    def settle(self, task: Task, clean: nn.Module, *, seed: int, runtime: Runtime | None = None) -> MistakesSecret:
        """Keep the model; see :class:`heirmark.triggers.base.Trigger`."""
        return MistakesSecret(model=clean, runtime=runtime)


@dataclass(frozen=True, kw_only=True, eq=False)
class MistakesSecret(Secret):
    """Settled mistakes: see :class:`Mistakes`.

    Attributes:
        model: whose mistakes they are.
        runtime: where it is asked.
    """

    kind: ClassVar[str] = "mistakes"

    model: nn.Module = field(repr=False)
    runtime: Runtime | None = field(repr=False)
    target: None = field(default=None, init=False)  # every mistake has its own

    def draw(self, hosts: Split, count: int, *, seed: int, held_out: bool = True) -> TriggerSet:
        """Mistakes drawn evenly; the control is an image of the same class that the model nearly takes for the same thing.

        Raises:
            BadConfig: for samples to train on.
            BadData: when there are too few mistakes.
        """
        if not held_out:
            raise BadConfig(
                "a model's mistakes are found, not taught: choose another trigger, or the method fingerprint"
            )
        scores = predict(self.model, hosts.inputs, runtime=self.runtime).softmax(1)
        labels = hosts.labels.cpu()
        pairs = near_misses(scores, labels, count, generator_of(seed))
        if len(pairs) < min(count, LEAST):
            raise BadData(
                f"the model gives only {len(pairs)} mistakes among {len(hosts)} held-out images, and a key needs {LEAST}: "
                "make the calibration split larger, or mark the model instead"
            )
        places, controls = torch.tensor(pairs).unbind(1)
        inputs = hosts.inputs[places]
        return TriggerSet(
            inputs=inputs,
            targets=scores.argmax(1)[places],
            controls=hosts.inputs[controls],
            hosts=inputs[:, None],
            host_labels=labels[places][:, None],
        )
