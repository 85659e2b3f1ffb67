"""The test of Feature Sharing (ICLR 2022 submission XHxRBwjpEQ, section 3.2): Wilcoxon's signed rank with a margin, and WDR.

It needs probabilities, where :func:`heirmark.verification.verify` needs labels only, and it asks whether the target's
probability rises by a margin: evidence of another kind, beside that verdict and never in place of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch import Tensor

from heirmark.errors import BadConfig, ShapeMismatch
from heirmark.keys.key import Key
from heirmark.querying.blackbox import BlackBox
from heirmark.runtime import check_seed

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class WilcoxonResult:
    """What the test found.

    Attributes:
        p_value: one-sided, of H0: the target's probability is above its reference by less than the margin. What the
            signed-rank test speaks of is the centre of symmetric differences, so where hits are all or nothing it can reject
            though fewer than half of the triggers hit.
        rejects: whether H0 is rejected at the level.
        detection_rate: WDR, the share of resamples in which H0 is rejected. The resamples are drawn from one set of triggers
            and overlap, so it says how repeatable the answer is, and is no error rate.
        mean_rise: mean of the probability less its reference.
        queries: trigger samples that were tested.
        margin: the paper's alpha.
        level: of significance.
        reference: ``"control"`` or ``"chance"``.
    """

    p_value: float
    rejects: bool
    detection_rate: float
    mean_rise: float
    queries: int
    margin: float
    level: float
    reference: str

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"Wilcoxon, margin {self.margin:g} over {self.reference}: {'rejects' if self.rejects else 'does not reject'} at "
            f"{self.level:g} (p = {self.p_value:.2g}, mean rise {self.mean_rise:.3f}, {self.queries} triggers); "
            f"WDR {self.detection_rate:.0%}, which is repeatability and no error rate"
        )


def margin_p_value(rises: Floats, margin: float) -> float:
    """One-sided p-value of Wilcoxon's signed-rank test that rises are above a margin.

    Args:
        rises: ``[n]`` differences in [-1, 1].
        margin: in [0, 1).

    Examples:
        >>> margin_p_value(np.linspace(0.8, 0.9, 20), 0.3) < 1e-5
        True
        >>> margin_p_value(np.full(20, 0.3), 0.3)
        1.0
    """
    shifted = rises - margin
    if not np.any(shifted):
        return 1.0
    return float(stats.wilcoxon(shifted, alternative="greater", zero_method="wilcox").pvalue)


def detection_rate(
    rises: Floats, margin: float, *, level: float = 0.05, resamples: int = 200, share: float = 0.1, seed: int = 0
) -> float:
    """WDR: the share of random subsets of the triggers in which the test rejects.

    Args:
        rises: ``[n]`` differences.
        margin: in [0, 1).
        level: of significance.
        resamples: subsets; 200 in the paper.
        share: of the triggers in a subset; the paper's text lost it (inferred).
        seed: of the draw.
    """
    size = max(1, round(share * len(rises)))
    generator = np.random.default_rng(check_seed(seed))
    drawn = (generator.choice(len(rises), size, replace=False) for _ in range(resamples))
    return sum(margin_p_value(rises[rows], margin) <= level for rows in drawn) / resamples


def independent_triggers(key: Key) -> Tensor:
    """Rows of a key that the test counts, ``[P]`` int64: of pairs that share a control the first, as in a verdict."""
    return torch.arange(len(key)) if key.reference == "chance" else key.independent_pairs()


def verify_wilcoxon(
    box: BlackBox,
    key: Key,
    *,
    margin: float = 0.3,
    level: float = 0.05,
    resamples: int = 200,
    share: float = 0.1,
    seed: int = 0,
) -> WilcoxonResult:
    """Ask a suspect for probabilities, and test whether triggers raise the target's by a margin.

    The reference is the probability on the matched control: the same image without its trigger, as in the paper's
    in-distribution test. Out-of-distribution triggers have no such image; there it is chance, 1/C, as in the paper.

    Args:
        box: the suspect, with ``answers="probabilities"``.
        key: the key.
        margin: the paper's alpha.
        level: of significance.
        resamples: of WDR.
        share: of the triggers in a resample.
        seed: of the resamples.

    Raises:
        BadConfig: for an option out of range, or a suspect that gives no probabilities.
        ShapeMismatch: when the suspect has other classes than the key.
        ModelFault: when the suspect fails.
    """
    if not (0 <= margin < 1 and 0 < level <= 0.5 and resamples >= 1 and 0 < share <= 1):
        raise BadConfig(
            f"margin must lie in [0, 1), level in (0, 0.5], share in (0, 1], resamples be positive: "
            f"{margin}, {level}, {share}, {resamples}"
        )
    if box.api.answers != "probabilities":
        raise BadConfig(f"this test needs probabilities, not {box.api.answers}: use verify(), which needs labels only")
    counted = independent_triggers(key)
    size = max(1, round(share * len(counted)))
    if 2.0**-size > level:
        raise BadConfig(f"no resample of {size} triggers can reject at {level}: raise share, or draw a larger key")
    if box.classes != key.classes:
        raise ShapeMismatch(f"the suspect has {box.classes} classes, the key {key.classes}")
    chance = key.reference == "chance"
    asked = key.queries if chance else torch.cat([key.queries, key.controls])
    probabilities = box.query(asked).probabilities
    assert probabilities is not None
    count = len(key)
    wanted = probabilities[torch.arange(len(asked)), key.expected.repeat(len(asked) // count)].double().numpy()
    rises = wanted - 1 / key.classes if chance else wanted[:count] - wanted[count:]
    rises = rises[counted.numpy()]
    p_value = margin_p_value(rises, margin)
    return WilcoxonResult(
        p_value=p_value,
        rejects=p_value <= level,
        detection_rate=detection_rate(rises, margin, level=level, resamples=resamples, share=share, seed=seed),
        mean_rise=float(rises.mean()),
        queries=len(rises),
        margin=margin,
        level=level,
        reference=key.reference,
    )
