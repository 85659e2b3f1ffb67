"""A step of rehearsal with thieves in closed form, which may take turns with others."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from heirmark.rehearsal.asking import APART, Asking, Outcome
from heirmark.rehearsal.closed_form import Audience
from heirmark.rehearsal.passes import Memory, PassMode
from heirmark.training.samples import Samples


def closed_form_step(
    teacher: nn.Module,
    audience: Audience,
    *,
    utility: Samples,
    chosen: Tensor,
    rows: Tensor,
    asked: Tensor | None = None,
    weights: Sequence[tuple[float, float]] = APART,
    mode: PassMode = PassMode(),
    memory: Memory = Memory(),
) -> Outcome:
    """What thieves who have finished want of a target: one forward and one backward pass of it for each pair of weights.

    The teacher and torch's global generators are as before on return; the audience has heard the new answers.

    Args:
        teacher: the target model, maps ``[N, ...]`` to logits ``[N, C]``.
        audience: what steals it.
        utility: clean ``[N, ...]`` samples with their labels.
        chosen: ``[N]`` or ``[Q]`` positions of what is asked, among the audience's queries.
        rows: ``[m]`` positions of the triggers that count.
        asked: ``[Q, ...]`` what the thieves ask; None is the utility's own inputs.
        weights: see :func:`heirmark.rehearsal.rehearsal_step`.
        mode: likewise.
        memory: likewise.

    Raises:
        BadConfig: when the teacher has nothing to train.
        ShapeMismatch: when batches, classes or counts do not fit each other.
    """
    asking = Asking(teacher, utility, asked, mode=mode, memory=memory)
    pull = audience.pull(asking.logits, chosen, rows)
    audience.hear(asking.logits, chosen)
    found, loss = asking.back(pull.slope, weights)
    return Outcome(gradients=found, teacher_buffers=asking.buffers, watermark_loss=pull.loss, utility_loss=loss)
