"""The one rule by which keys are calibrated: unmarked models, and copies stolen from them, since suspects are mostly copies."""

from __future__ import annotations

from collections.abc import Sequence

from heirmark.runtime import derive_seed
from heirmark.stages.stage import Stage
from heirmark.work.context import Context
from heirmark.work.stealing import Theft
from heirmark.work.trials import chain


def calibrator_seed(seed: int, index: int) -> int:
    """Of the unmarked model at a position, of the run's own seed."""
    return derive_seed(seed, "calibrator", index)


def stolen_calibrators(
    trained: Sequence[Stage], thefts: Sequence[Theft], context: Context, *, seed: int
) -> tuple[Stage, ...]:
    """A copy of an unmarked model, which take turns as victims, by every kind of thief; they count as no independent models."""
    own = derive_seed(seed, "calibrator", "thief")
    return tuple(
        chain((theft,), trained[number % len(trained)], context, seed=own)[0] for number, theft in enumerate(thefts)
    )
