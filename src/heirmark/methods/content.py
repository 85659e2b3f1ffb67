"""Content watermarks: a text on images of one class (Zhang et al., AsiaCCS 2018, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from heirmark.methods.vanilla import Vanilla
from heirmark.triggers import AnyTrigger, TextStamp


@dataclass(frozen=True, kw_only=True)
class Content(Vanilla):
    """A text on images of one class, all labelled with one target: "Protecting intellectual property of DNNs with watermarking".

    Joint training on clean and trigger samples.

    Attributes:
        trigger: kind of trigger; a text is the paper's.
        triggers: trigger samples that train (inferred).
        pretraining: of the clean and of the marked model; T2S', so that the methods compare (inferred).
    """

    name: ClassVar[str] = "content"

    trigger: AnyTrigger = field(default=TextStamp())
    trigger_batch: int = 32
