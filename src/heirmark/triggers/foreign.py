"""Which kinds of trigger are made of another data set's images, alone or inside another kind."""

from __future__ import annotations

from torch import Tensor

from heirmark.triggers.base import Secret, Trigger
from heirmark.triggers.entangled import Entangled, EntangledSecret
from heirmark.triggers.out_of_distribution import OutOfDistribution, OutOfDistributionSecret
from heirmark.triggers.random_labels import RandomLabels, RandomLabelsSecret


def foreign_dataset(trigger: Trigger) -> str | None:
    """The data set that a trigger needs beside the task's own; None when it needs none."""
    inner = trigger.of if isinstance(trigger, Entangled | RandomLabels) else trigger
    return inner.dataset if isinstance(inner, OutOfDistribution) else None


def foreign_images(secret: Secret) -> Tensor | None:
    """The foreign images of which a secret's key may be made, ``[N, C, H, W]``; None when it is made of others."""
    inner = secret.of if isinstance(secret, EntangledSecret | RandomLabelsSecret) else secret
    if not isinstance(inner, OutOfDistributionSecret):
        return None
    return inner.training if isinstance(secret, RandomLabelsSecret) else inner.held_out
