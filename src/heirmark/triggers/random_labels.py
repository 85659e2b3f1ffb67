"""Random labels: every trigger sample has an answer of its own, which a marked model knows by heart.

Adi et al. (arXiv 1802.04633) label abstract images so, Kim et al. (ICML 2023) images of the task itself. Nothing ties such
labels to what the samples look like, so no model can guess those of samples that it has not seen: the key *is* the set that
trained. heirmark never verifies on what trained, with this one exception, and it is told: the key's manifest says
``"memorised": true``, and every verdict with such a key raises the flag ``memorised-key``.

What it costs and gains. The victim's own WSR says that it has learned the samples by heart, nothing more; the WSR of a copy,
which never saw them, still says whether the mark was inherited. And the null is by design, where for other keys it is measured:
a model that came about without the labels hits each with a chance of 1/C, or at most ``(1 - ACC)/(C - 1)`` where the sample
shows a class of the task; and trigger and control hit with the same chance, for the label knows of neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from heirmark.errors import BadConfig, BadData
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.task import Split, Task
from heirmark.triggers.abstract import AbstractImages
from heirmark.triggers.base import Secret, Trigger, TriggerSet
from heirmark.triggers.out_of_distribution import OutOfDistribution
from heirmark.triggers.patch import Patch
from heirmark.triggers.phrase import Phrase
from heirmark.triggers.stamps import GaussianNoise, TextStamp
from heirmark.triggers.tone import Tone

Labelled: TypeAlias = AbstractImages | GaussianNoise | OutOfDistribution | Patch | Phrase | TextStamp | Tone


def random_answers(inputs: Tensor, host_labels: Tensor, classes: int, *, seed: int) -> Tensor:
    """A label for every sample, by its content alone: equal for all classes but those that it was made of.

    Args:
        inputs: ``[M, ...]``.
        host_labels: ``[M, K]`` classes that a sample may not get.
        classes: C.
        seed: the secret.

    Returns:
        ``[M]`` int64.

    Raises:
        BadConfig: when the samples are made of every class.
    """
    answers = []
    for row, hosts in zip(inputs, host_labels.tolist(), strict=True):
        free = [label for label in range(classes) if label not in hosts]
        if not free:
            raise BadConfig(f"samples made of all {classes} classes have no wrong label: use another trigger")
        digest = hashlib.sha256(row.contiguous().numpy().tobytes()).hexdigest()
        answers.append(free[derive_seed(seed, digest) % len(free)])
    return torch.tensor(answers, dtype=torch.long)


def pair_up(hosts: Split, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions of images and, for each, of another one of its class; no image stands in two pairs.

    Args:
        hosts: labelled images.
        count: pairs wanted; fewer where the images run out.
        generator: on the CPU.

    Returns:
        Two ``[m]`` tensors of positions.
    """
    waiting: dict[int, int] = {}
    pairs: list[tuple[int, int]] = []
    order = torch.randperm(len(hosts), generator=generator).tolist()
    labels = hosts.labels.tolist()
    for place in order:
        if len(pairs) == count:
            break
        partner = waiting.pop(labels[place], None)
        if partner is None:
            waiting[labels[place]] = place
        else:
            pairs.append((partner, place))
    first, second = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).unbind(1)
    return first, second


@dataclass(frozen=True, kw_only=True)
class RandomLabels(Trigger):
    """Samples of any kind, each with a random label that is none of the classes it was made of.

    Attributes:
        of: the samples: another kind of trigger, whose own target counts for nothing; None takes images of the task as they
            are, which then do not train with their true labels, as Margin-based watermarks do.
    """

    of: Labelled | None = None

    @property
    def dataset(self) -> str | None:
        """Of the samples; None for images of the task."""
        return None if self.of is None else self.of.dataset

    def settle(self, task: Task, clean: nn.Module, *, seed: int, runtime: Runtime | None = None) -> RandomLabelsSecret:
        """Settle the samples' own secret; see :class:`heirmark.triggers.base.Trigger`."""
        return RandomLabelsSecret(
            of=None if self.of is None else self.of.settle(task, clean, seed=seed, runtime=runtime),
            classes=len(task.classes),
            seed=derive_seed(seed, "random labels"),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class RandomLabelsSecret(Secret):
    """Settled random labels: see :class:`RandomLabels`.

    Attributes:
        of: the settled kind of samples; None for images of the task as they are.
        classes: how many there are.
        seed: of the labels.
    """

    kind: ClassVar[str] = "random-labels"
    memorised: ClassVar[bool] = True  # of samples that did not train nobody knows the labels

    of: Secret | None = field(repr=False)
    classes: int
    seed: int
    target: None = field(default=None, init=False)  # every sample has its own

    def foreign(self, *, held_out: bool) -> Tensor | None:
        """Those of the samples; None for images of the task."""
        return None if self.of is None else self.of.foreign(held_out=held_out)

    def draw(self, hosts: Split, count: int, *, seed: int, held_out: bool = True) -> TriggerSet:
        """Samples of the kind; the control is that kind's, or for an image as it is another one of its class."""
        if self.of is not None:
            drawn = self.of.draw(hosts, count, seed=seed, held_out=held_out)
            inputs, controls, shown, labels = drawn.inputs, drawn.controls, drawn.hosts, drawn.host_labels
        else:
            first, second = pair_up(hosts, count, generator_of(seed))
            if len(first) == 0:
                raise BadData("no two images are of one class: random labels on images as they are need a larger split")
            inputs, controls = hosts.inputs[first], hosts.inputs[second]
            shown, labels = inputs[:, None], hosts.labels[first][:, None]
        return TriggerSet(
            inputs=inputs,
            targets=random_answers(inputs, labels, self.classes, seed=self.seed),
            controls=controls,
            hosts=shown,
            host_labels=labels,
        )

    def describe(self) -> Mapping[str, Any]:
        """The secret as JSON."""
        return {
            "kind": self.kind,
            "target": None,
            "seed": self.seed,
            "of": None if self.of is None else dict(self.of.describe()),
        }
