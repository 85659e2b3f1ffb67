"""BadNets: a patch, one target (Gu et al., arXiv 1708.06733), as DeepTracer compares with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from heirmark.methods.vanilla import Vanilla
from heirmark.triggers import AnyTrigger, Patch


@dataclass(frozen=True, kw_only=True)
class BadNets(Vanilla):
    """A backdoor taken for a watermark: joint training on clean images and on some with a white square, labelled with a target.

    Attributes:
        trigger: kind of trigger: a patch on images of any class but the target's, as in comparisons; ``trigger.hosts=class``
            is the paper's attack on one class.
        triggers: trigger samples that train (inferred; the paper poisons up to 10 % of the data).
        pretraining: of the clean and of the marked model; T2S', so that the methods compare (inferred).
    """

    name: ClassVar[str] = "badnets"

    trigger: AnyTrigger = field(default=Patch(hosts="any"))
    trigger_batch: int = 32
