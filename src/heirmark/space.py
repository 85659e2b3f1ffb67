"""What inputs are: how they are stored, and which numbers a net computes with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def decode(stored: Tensor) -> Tensor:
    """The numbers that stored inputs stand for, as a net computes with them.

    Args:
        stored: ``[N, ...]`` uint8 (0..255) or floating point.

    Returns:
        ``[N, ...]`` float32; uint8 pixels become x/255 in [0, 1], float32 is passed on as it is.
    """
    if stored.dtype != torch.uint8:
        return stored.float()
    # By a tensor: by a plain number CUDA multiplies with its reciprocal, and half of the grey levels differ from the CPU's.
    return stored.float().div_(torch.full((), 255.0, device=stored.device))


def numbers(stored: Tensor) -> Tensor:
    """What a net computes with: pixels decoded, all else as it is, in its own precision and with its gradients."""
    return decode(stored) if stored.dtype == torch.uint8 else stored


def encode(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers as inputs of a dtype are stored: clipped to [0, 1], and rounded to a grey level where that is uint8."""
    values = values.clamp(0, 1)
    return values.mul(255).round().to(dtype) if dtype == torch.uint8 else values.to(dtype)


def join(parts: Sequence[Tensor]) -> Tensor:
    """Stored inputs ``[N, ...]`` one after another; pixels among floats are decoded first, for torch would not."""
    if len({part.dtype for part in parts}) > 1:
        parts = [numbers(part) for part in parts]
    return torch.cat(list(parts))
