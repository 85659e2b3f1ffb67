"""A fingerprint that trains nothing: the model's own mistakes (AKH of QuRD, Godinot et al. 2025, AAAI, arXiv 2412.13021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from heirmark.methods.base import Marked
from heirmark.methods.nets import own_model
from heirmark.methods.unmarked import unaltered
from heirmark.methods.watermark import Method
from heirmark.runtime import Runtime
from heirmark.tasks.task import Task
from heirmark.triggers import AnyTrigger
from heirmark.triggers.mistakes import Mistakes


@dataclass(frozen=True, kw_only=True)
class Fingerprint(Method):
    """Ask a suspect what the owner's clean model gets wrong: models that are right are alike, each errs in its own way.

    The control that a watermark has to beat, for it costs no accuracy and no training. The key's queries are images of the
    calibration split on which the model errs, drawn evenly as in AKH, the Anna Karenina heuristic; expected is its own wrong
    answer. AKH compares suspects by the share of agreement alone. Here that share is held against unmarked models and copies of
    them by the same verdict as any mark, and each mistake has a control: another image of its class that the model gets right but
    most nearly takes for the same thing.

    What it proves is less than a mark's key does. Many mistakes are everybody's: unmarked models of the task hit most of them
    and few of the controls, so the matched test rejects for innocents too, and all rests on the calibration. Without one a
    verdict means nothing here, and by models of another family than the suspect's little; an honest one leaves little room.
    There is no secret that somebody embedded, either: whoever has a model's answers can draw such a key from them afterwards and
    accuse it. Only a commitment that is older than the suspect shows that this was not so. And a copy inherits mistakes only as
    far as it is faithful: whoever trains it on with true labels corrects them.

    Attributes:
        trigger: whose draws are asked: the model's mistakes.
        key_size: mistakes in the key, at most; a good model has fewer, and below 20 there is no key.
        pretraining: of the model.
    """

    name: ClassVar[str] = "fingerprint"
    alters: ClassVar[bool] = False

    trigger: AnyTrigger = field(default=Mistakes())

    def make(
        self, task: Task, clean: nn.Module | None, given: Mapping[str, nn.Module], *, seed: int, runtime: Runtime
    ) -> Marked:
        """Draw the key; see :meth:`heirmark.methods.watermark.Method.__call__`."""
        model = own_model(task, self.model, self.pretraining, clean, seed=seed, runtime=runtime)
        return unaltered(self, model, task, seed=seed, runtime=runtime)
