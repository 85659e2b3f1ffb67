"""Forward-mode rules of our own, for layers whose built-in rule sweeps over the activations many times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

NOTHING = 1e-30
"""Added to a variance, changes none that is a float32 above 1e-23; some releases of torch take no zero for it."""


class FastRules(TorchFunctionMode):
    """While active, layers in forward mode use a rule of :data:`RULES` where there is one, and torch's elsewhere."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Divert a call of a function that has a rule here."""
        return RULES.get(func, func)(*args, **(kwargs or {}))


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Batch normalisation of dual tensors; arguments as those of :func:`torch.nn.functional.batch_norm`.

    In train mode, y = γ x̂ + β has ∂y/∂x = γ/σ (I - 11ᵀ/n - x̂x̂ᵀ/n) for each channel. That is symmetric, so the fused
    backward kernel, given the tangent of x for a gradient, returns the tangent of y. What the tangents of γ and β add
    is itself a normalisation, in eval mode, with them as weight and bias.
    """
    x, x_tangent = _split(input)
    if not training or x_tangent is None:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    (scale, scale_tangent), (shift, shift_tangent) = _split(weight), _split(bias)
    y, mean, inverse = torch.native_batch_norm(x, scale, shift, running_mean, running_var, True, momentum, eps)
    tangent, _, _ = torch.ops.aten.native_batch_norm_backward(
        x_tangent, x, scale, running_mean, running_var, mean, inverse, True, eps, [True, False, False]
    )
    if scale_tangent is not None or shift_tangent is not None:
        gain = torch.zeros_like(mean) if scale_tangent is None else scale_tangent
        tangent = tangent.add_(F.batch_norm(x, mean, inverse.pow(-2), gain, shift_tangent, False, 0.0, NOTHING))
    dual: Tensor = forward_ad.make_dual(y, tangent)  # type: ignore[no-untyped-call]
    return dual


def _split(tensor: Tensor | None) -> tuple[Any, Any]:
    """Primal and tangent; ``None`` for what there is not."""
    return (None, None) if tensor is None else forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]


RULES: dict[Callable[..., Any], Callable[..., Any]] = {F.batch_norm: batch_norm}
"""Functions of torch, and what is called in their place with the same arguments, of which some are dual. A rule is one entry."""
