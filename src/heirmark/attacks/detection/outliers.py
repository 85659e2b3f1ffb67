"""The outlier rule that the inspections share: how many median absolute deviations a figure lies from the median."""

from __future__ import annotations

import torch
from torch import Tensor

CONSISTENCY = 1.4826
"""Makes the median absolute deviation of normally distributed figures estimate their standard deviation."""


def anomaly_index(values: Tensor, *, noise: float = 0.0) -> Tensor:
    """Signed distance of each figure from the median, in median absolute deviations.

    Args:
        values: ``[N]`` finite, N of at least 1.
        noise: standard error of the figures; distances are measured in this where it is larger than the deviation among them.

    Returns:
        ``[N]`` float64; where both the deviations' median and the noise are zero, 0 on the median and plus or minus infinity
        off it.

    Examples:
        >>> anomaly_index(torch.tensor([1.0, 9.0, 10.0, 11.0, 10.0])).round(decimals=2).tolist()
        [-6.07, -0.67, 0.0, 0.67, 0.0]
    """
    values = values.double()
    off = values - _median(values)
    scale = (CONSISTENCY * _median(off.abs())).clamp_min(noise)
    return torch.where(off == 0, off, off / scale)


def _median(values: Tensor) -> Tensor:
    """The mean of the two in the middle, where torch takes the lower one."""
    ordered = values.sort().values
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
