"""The directional derivative u = J v of a student's logits along a change v of its parameters.

Duals are made by hand, where ``torch.func.jvp`` of ``functional_call`` would do for plain nets: BatchNorm has a fused rule here
(:mod:`heirmark.rehearsal.rules`) and writes its statistics in place, every pass draws its masks from a seed, and batches go chunk
by chunk.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from heirmark.errors import told
from heirmark.rehearsal.combine import norm
from heirmark.rehearsal.passes import PassMode, chunks, copies, gradients, leaves, run
from heirmark.rehearsal.rules import FastRules
from heirmark.rehearsal.student import Derivative, Thief
from heirmark.runtime import generator_of


def directional_derivative(
    thief: Thief,
    inputs: Tensor,
    direction: Mapping[str, Tensor],
    *,
    kind: Derivative,
    mode: PassMode,
    logits: Tensor,
    micro_batch: int = 0,
) -> Tensor:
    """Directional derivative of a thief's logits, run as in its distillation pass.

    Differences step by ε = c ‖θ‖ / ‖v‖ with c = r^(2/3) for a relative round-off of r (c = 2e-5 in float32). Rounding
    errs as r/c; a net with kinks (ReLU, max-pool) as √c, as some of its units change sides, and a smooth one as c.
    On a trained ReLU network this leaves a few per cent of error in float32 at worst. Under autocast the logits at hand
    are too coarse for a difference: it is then taken in the parameters' own precision, with two forward passes.

    Args:
        thief: at whose state to differentiate; it is not changed.
        inputs: ``[N, ...]``.
        direction: v by parameter name.
        kind: how.
        mode: as in the distillation pass, so that random layers draw the same masks.
        logits: ``[N, C]`` answers of the distillation pass.
        micro_batch: examples at a time, as in the distillation pass.

    Returns:
        u, ``[N, C]``.
    """
    mode, student = thief.theft_mode(mode), thief.student
    if kind == "forward":
        return _in_chunks(thief, student.parameters, inputs, mode, micro_batch, direction)
    if kind == "difference" and mode.lowered(inputs.device):
        kind, mode = "central", replace(mode, full_precision=True)
    # The one look at the device of a step that differences; forward mode has none.
    norms = torch.stack([norm(direction.values()), norm(student.parameters.values())])
    length, size = (float(each) for each in norms.tolist())
    if length == 0:
        return torch.zeros_like(logits)
    coarsest = max(torch.finfo(p.dtype).eps for p in student.parameters.values())
    step = float(coarsest ** (2 / 3)) * (size or 1.0) / length

    def shifted(by: float) -> Tensor:
        moved = {name: torch.add(p, direction[name], alpha=by) for name, p in student.parameters.items()}
        return _in_chunks(thief, moved, inputs, mode, micro_batch)

    if kind == "central":
        return (shifted(step) - shifted(-step)) / (2 * step)
    return (shifted(step) - logits) / step


def choose_derivative(thief: Thief, inputs: Tensor, *, mode: PassMode = PassMode()) -> tuple[Derivative, str]:
    """Find out, on a few inputs, whether forward mode can be used for a thief; call it once and give the thief the answer.

    Forward mode is refused when a layer has no rule for it, or when a rule is wrong: <Jv, Jv> by forward mode must
    agree with <JᵀJv, v> by reverse mode to 5 %, on a random v.

    Args:
        thief: it is not changed.
        inputs: ``[N, ...]``; the first four are used.
        mode: seed of v and of random layers, and precision.

    Returns:
        ``"forward"`` or ``"difference"``, and why not forward (empty when it is).
    """
    few, student, generator = inputs[:4], thief.student, generator_of(mode.seed or 0)
    mode = thief.theft_mode(mode)
    v = {
        name: torch.randn(p.shape, generator=generator).to(p) * p.abs().mean() for name, p in student.parameters.items()
    }
    wanted = leaves(student.parameters)
    with torch.enable_grad():
        parameters = {**wanted, **student.frozen}
        logits = run(thief.skeleton, parameters, copies(student.buffers), few, mode.part("theft"))
    try:
        u = _in_chunks(thief, student.parameters, few, mode, 0, v)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # NotImplementedError, the usual one, is a RuntimeError
        return "difference", told(error)
    there = u.double().square().sum()
    back = sum((grad.double() * v[name].double()).sum() for name, grad in gradients(logits, wanted, u).items())
    if not torch.isclose(there, torch.as_tensor(back), rtol=0.05, atol=0.0):
        return "difference", "forward-mode and reverse-mode derivatives of the student disagree"
    return "forward", ""


def _in_chunks(
    thief: Thief,
    parameters: Mapping[str, Tensor],
    inputs: Tensor,
    mode: PassMode,
    micro_batch: int,
    tangents: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Logits of a thief with these parameters, without a graph; or with tangents of the parameters, the logits' tangent."""
    parts, student, buffers = [], thief.student, copies(thief.student.buffers)
    if tangents is not None:
        load_forward_rules()
        mode = replace(mode, math_attention=True)  # the fused kernels have no forward-mode rule
    for index, chunk in enumerate(chunks(inputs, micro_batch)):
        with torch.no_grad(), forward_ad.dual_level(), FastRules():
            shown = dict(parameters)
            if tangents is not None:
                shown = {name: forward_ad.make_dual(p, tangents[name]) for name, p in parameters.items()}  # type: ignore[no-untyped-call]
            logits = run(thief.skeleton, {**shown, **student.frozen}, buffers, chunk, mode.part("theft", index))
            if tangents is not None:
                tangent = forward_ad.unpack_dual(logits).tangent  # type: ignore[no-untyped-call]
                logits = torch.zeros_like(logits) if tangent is None else tangent
            parts.append(logits)
    return torch.cat(parts)


@cache
def load_forward_rules() -> None:
    """Have torch load its forward-mode rules; some releases warn of their own deprecated parts while they do."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)
        forward_ad.make_dual(torch.zeros(()), torch.zeros(()))  # type: ignore[no-untyped-call]
