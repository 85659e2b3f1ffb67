"""Thieves in closed form, in the features of nets that methods have."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from heirmark.models.probing import decision_inputs
from heirmark.querying.asking import predict
from heirmark.rehearsal.closed_form import Audience, ClosedFormThief, Closing
from heirmark.runtime import Runtime
from heirmark.training.samples import Samples


def thief_in(
    net: nn.Module, queries: Tensor, triggers: Tensor, *, classes: int, ridge: float, runtime: Runtime
) -> ClosedFormThief:
    """The thief who finishes in the features of a net.

    Args:
        net: any trained net; it stays as it is.
        queries: ``[N, ...]`` inputs as they are stored.
        triggers: ``[M, ...]`` likewise.
        classes: that the target answers.
        ridge: see :class:`heirmark.rehearsal.closed_form.Closing`.
        runtime: device, precision.
    """
    features, shown = (
        decision_inputs(net, inputs, runtime=runtime).to(runtime.torch_device) for inputs in (queries, triggers)
    )
    return ClosedFormThief(features, shown, classes=classes, ridge=ridge)


def audience_of(
    target: nn.Module,
    thieves: Sequence[ClosedFormThief],
    queries: Tensor,
    mark: Samples,
    *,
    closing: Closing,
    runtime: Runtime,
) -> Audience:
    """These thieves, who have heard what a target answers to their queries ``[N, ...]`` now."""
    answers = predict(target, queries, runtime=runtime).softmax(1).to(runtime.torch_device)
    return Audience(thieves, mark.targets.to(runtime.torch_device), answers, closing)
