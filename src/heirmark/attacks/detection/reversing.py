"""What the inspections that reconstruct triggers share: masks and patterns, and how well one works."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from heirmark.attacks.base import Reversed
from heirmark.errors import BadData
from heirmark.querying.asking import predict
from heirmark.runtime import Runtime, generator_of
from heirmark.tasks.storing import decode
from heirmark.tasks.task import Split

EPSILON = 1e-6


def squash(free: Tensor) -> Tensor:
    """Map free numbers into (0, 1) by tanh.

    Examples:
        >>> squash(torch.tensor([-9.0, 0.0, 9.0])).round(decimals=3).tolist()
        [0.0, 0.5, 1.0]
    """
    return free.tanh() / 2 + 0.5


def unsquash(values: Tensor) -> Tensor:
    """What :func:`squash` maps to values in [0, 1], which are kept off the ends by 1e-6."""
    return torch.atanh(2 * values.clamp(EPSILON, 1 - EPSILON) - 1)


def stamp(images: Tensor, masks: Tensor, patterns: Tensor) -> Tensor:
    """Every image under every trigger.

    Args:
        images: ``[B, C, H, W]`` float32 in [0, 1].
        masks: ``[K, 1, H, W]`` in [0, 1].
        patterns: ``[K, C, H, W]`` in [0, 1].

    Returns:
        ``[K * B, C, H, W]``, the images under the first trigger first.
    """
    masks, patterns = masks[:, None], patterns[:, None]
    return ((1 - masks) * images + masks * patterns).flatten(0, 1)


def measured(
    model: nn.Module,
    labels: Sequence[int],
    found: Sequence[tuple[Tensor, Tensor]],
    data: Split,
    *,
    checked: int,
    seed: int,
    runtime: Runtime,
) -> list[Reversed]:
    """Reconstructed triggers, each with its success on images of other classes.

    Args:
        model: that is inspected.
        labels: class that each trigger is for.
        found: their masks ``[1, H, W]`` and patterns ``[C, H, W]``, in [0, 1].
        data: the adversary's examples.
        checked: on how many of other classes the success is measured, at most.
        seed: of the choice of these.
        runtime: device, precision.

    Raises:
        BadData: when there is no image of another class.
    """
    triggers = []
    for label, (mask, pattern) in zip(labels, found, strict=True):
        others = (data.labels != label).nonzero().flatten()
        if len(others) == 0:
            raise BadData(
                f"all images are of class {label}: a reconstructed trigger is tried on images of other classes"
            )
        order = torch.randperm(len(others), generator=generator_of(seed))
        trigger = Reversed(mask=mask.detach().float().cpu(), pattern=pattern.detach().float().cpu(), success=0.0)
        hits = torch.cat(
            [
                predict(model, trigger.apply(decode(data.inputs[chosen])), runtime=runtime).argmax(1) == label
                for chosen in others[order[:checked]].split(1000)  # type: ignore[no-untyped-call]
            ]
        )
        triggers.append(replace(trigger, success=float(hits.double().mean())))
    return triggers
