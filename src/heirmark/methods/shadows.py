"""Triggers optimised with shadow models: the machinery of SSW (Tan et al., ACM MM 2023)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.errors import BadData
from heirmark.querying.asking import evaluating, predict
from heirmark.runtime import Runtime
from heirmark.tasks.storing import decode, encode, shuffle
from heirmark.triggers import TriggerSet

CHUNK = 100
LEAST_GAIN = 0.001
MOST_STEPS = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class Shadows:
    """The three models that a trigger is optimised with.

    Attributes:
        host: the marked model.
        positive: a thief of it.
        negative: a clean model.
    """

    host: nn.Module
    positive: nn.Module
    negative: nn.Module


def fusion_loss(host: Tensor, positive: Tensor, negative: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over p_host * p_positive * (1 - p_negative) taken for logits, as the public code has it.

    Args:
        host: ``[m, C]`` logits.
        positive: the same of the positive shadow.
        negative: the same of the negative shadow.
        targets: ``[m]`` int64.

    Examples:
        >>> sure, even = torch.tensor([[50.0, 0.0]]), torch.zeros(1, 2)
        >>> round(fusion_loss(sure, sure, even, torch.tensor([0])).item(), 4)  # log(1 + e^-0.5)
        0.4741
    """
    fused = host.softmax(1) * positive.softmax(1) * (1 - negative.softmax(1))
    return F.cross_entropy(fused, targets)


def refine(
    inputs: Tensor, targets: Tensor, shadows: Shadows, *, steps: int, learning_rate: float, runtime: Runtime
) -> Tensor:
    """Optimise pixels by Adam, a hundred samples at a time, at least so many steps and on while a shadow gains.

    Args:
        inputs: ``[M, ...]`` uint8 or float in [0, 1].
        targets: ``[M]`` int64.
        shadows: all in eval mode; they are moved to the runtime's device.
        steps: the least number; there are 200 at most (ours).
        learning_rate: of Adam, of the full range.
        runtime: device, progress.

    Returns:
        ``[M, ...]`` of the same dtype.
    """
    device = runtime.torch_device
    # Nothing else may have asked the clean model yet, which comes from a file where it was handed in.
    nets = [net.to(device) for net in (shadows.host, shadows.positive, shadows.negative)]
    made = []
    for start in range(0, len(inputs), CHUNK):
        pixels = decode(inputs[start : start + CHUNK].to(device)).clone().requires_grad_(True)
        wanted = targets[start : start + CHUNK].to(device)
        optimizer = torch.optim.Adam([pixels], learning_rate)
        hit_negative, hit_positive = 1.0, 0.0
        with torch.enable_grad():
            for step in range(MOST_STEPS):
                answers = [net(pixels).float() for net in nets]
                # Shares of the pixels that the last step made: the code measures them one more time each.
                positive, negative = (float((answer.argmax(1) == wanted).double().mean()) for answer in answers[1:])
                stalled = hit_negative - negative < LEAST_GAIN and positive - hit_positive < LEAST_GAIN
                if step >= steps and stalled:
                    break
                hit_positive, hit_negative = positive, negative
                (pixels.grad,) = torch.autograd.grad(fusion_loss(answers[0], answers[1], answers[2], wanted), [pixels])
                optimizer.step()
                with torch.no_grad():
                    pixels.clamp_(0, 1)
        made.append(pixels.detach().cpu())
        runtime.progress("optimising triggers", min(start + CHUNK, len(inputs)), len(inputs))
    return encode(torch.cat(made), inputs.dtype)


def optimised(
    drawn: TriggerSet,
    shadows: Shadows,
    permutation: Tensor,
    *,
    steps: int,
    learning_rate: float,
    runtime: Runtime,
) -> TriggerSet:
    """Trigger samples with optimised pixels; the controls of those that have no host are they themselves, shuffled."""
    with evaluating(shadows.host), evaluating(shadows.positive), evaluating(shadows.negative):
        inputs = refine(drawn.inputs, drawn.targets, shadows, steps=steps, learning_rate=learning_rate, runtime=runtime)
    return replace(
        drawn, inputs=inputs, controls=drawn.controls if drawn.hosts.shape[1] else shuffle(inputs, permutation)
    )


def select(drawn: TriggerSet, shadows: Shadows, *, runtime: Runtime) -> TriggerSet:
    """The samples that hit on host and positive shadow and miss on the negative one.

    Raises:
        BadData: when none does.
    """
    host, positive, negative = (
        predict(net, drawn.inputs, runtime=runtime).argmax(1) == drawn.targets
        for net in (shadows.host, shadows.positive, shadows.negative)
    )
    kept = (host & positive & ~negative).nonzero().flatten()
    if len(kept) == 0:
        raise BadData(
            f"of {len(drawn)} candidates none hits on host and positive shadow and misses on the clean model: "
            "train longer, raise steps, or set selected=false"
        )
    return drawn.subset(kept)
