"""What the inspections that reconstruct triggers share: masks and patterns, and how well one works."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heirmark.asking import predict
from heirmark.attacks.base import Reversed
from heirmark.errors import BadData
from heirmark.runtime import Runtime, generator_of
from heirmark.space import decode
from heirmark.task import Split

EPSILON = 1e-6


def squash(free: Tensor) -> Tensor:
    """Map free numbers into (0, 1) by tanh.

    Example:
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
    mask: Tensor,
    pattern: Tensor,
    label: int,
    data: Split,
    *,
    checked: int,
    seed: int,
    runtime: Runtime,
) -> Reversed:
    """A reconstructed trigger, with its success on images of other classes.

    Args:
        model: that is inspected.
        mask: ``[1, H, W]`` in [0, 1].
        pattern: ``[C, H, W]`` in [0, 1].
        label: class that the trigger is for.
        data: the adversary's examples.
        checked: on how many of other classes the success is measured, at most.
        seed: of the choice of these.
        runtime: device, precision.

    Raises:
        BadData: when there is no image of another class.
    """
    others = (data.labels != label).nonzero().flatten()
    if len(others) == 0:
        raise BadData(f"all images are of class {label}: a reconstructed trigger is tried on images of other classes")
    order = torch.randperm(len(others), generator=generator_of(seed))
    trigger = Reversed(mask=mask.detach().float().cpu(), pattern=pattern.detach().float().cpu(), success=0.0)
    hits = torch.cat(
        [
            predict(model, trigger.apply(decode(data.inputs[chosen])), runtime=runtime).argmax(1) == label
            for chosen in others[order[:checked]].split(1000)  # type: ignore[no-untyped-call]
        ]
    )
    return Reversed(mask=trigger.mask, pattern=trigger.pattern, success=float(hits.double().mean()))
