"""A linear probe: what a linear classifier reads off an encoder's features, by which encoders are judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.errors import ShapeMismatch
from heirmark.querying.asking import outputs_of
from heirmark.querying.blackbox import BlackBox
from heirmark.querying.layout import takes_stored, through_entry
from heirmark.runtime import Runtime
from heirmark.tasks.task import Split

PENALTY = 1e-3
"""Weight of half the squared weights beside the mean cross-entropy: little, and enough for some hundred examples."""
_STEPS = 200
_SMALLEST = 1e-6


class Probe(nn.Module):
    """Maps features ``[N, D]`` to scores of classes ``[N, C]``."""

    @property
    def classes(self) -> int:
        """C."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """D."""
        raise NotImplementedError


class LinearProbe(Probe):
    """Maps features ``[N, D]`` to logits ``[N, C]``: standardised, then linear. It is fitted by :func:`fit_probe`."""

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Hold ``mean`` and ``scale`` ``[D]``, ``weight`` ``[C, D]`` and ``bias`` ``[C]``; none of them trains."""
        super().__init__()
        for name in ("mean", "scale", "weight", "bias"):
            self.register_buffer(name, tensors[name].float())

    @property
    def classes(self) -> int:
        """C."""
        return len(self.weight)

    @property
    def width(self) -> int:
        """D."""
        return self.weight.shape[1]

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``[N, C]`` of features ``[N, D]``."""
        return F.linear((features.float() - self.mean) / self.scale, self.weight, self.bias)


class Probed(nn.Module):
    """An encoder with a probe behind it: a classifier, so that all that is made for classifiers works on it."""

    def __init__(self, encoder: nn.Module, probe: LinearProbe) -> None:
        """Put the two together; both stay as they are."""
        super().__init__()
        self.encoder, self.head = encoder, probe

    @property
    def takes_stored(self) -> bool:
        """Whether the encoder does."""
        return takes_stored(self.encoder)

    def features(self, inputs: Tensor) -> Tensor:
        """Features ``[N, D]`` of inputs as the encoder takes them."""
        said: Tensor = (
            through_entry(self.encoder, self.encoder)(inputs) if not self.takes_stored else self.encoder(inputs)
        )
        return said

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits ``[N, C]``."""
        said: Tensor = self.head(self.encoder(inputs))
        return said


def fit_probe(features: Tensor, labels: Tensor, *, classes: int, penalty: float = PENALTY) -> LinearProbe:
    """Logistic regression on standardised features, to convergence; the same of the same numbers every time.

    Args:
        features: ``[N, D]``.
        labels: ``[N]`` int64.
        classes: C; of one without an example nothing is known, and it is hardly ever said.
        penalty: see :data:`PENALTY`.

    Raises:
        ShapeMismatch: when there is not one label for each row, or one is no class.
    """
    if features.ndim != 2 or not len(features) or len(features) != len(labels) or int(labels.max()) >= classes:
        raise ShapeMismatch(
            f"features are {list(features.shape)} with {len(labels)} labels for {classes} classes: give [N, D] and a label "
            "below the number of classes for each"
        )
    labels = labels.to(features.device)
    own = features.detach().double()
    mean, scale = own.mean(0), own.std(0, unbiased=False).clamp_min(_SMALLEST)
    own = (own - mean) / scale
    weight = torch.zeros(classes, own.shape[1], dtype=own.dtype, device=own.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=own.dtype, device=own.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(own, weight, bias), labels) + 0.5 * penalty * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return LinearProbe({"mean": mean, "scale": scale, "weight": weight.detach(), "bias": bias.detach()})


def probe_encoder(
    encoder: nn.Module | BlackBox,
    data: Split,
    *,
    classes: int,
    penalty: float = PENALTY,
    runtime: Runtime | None = None,
) -> LinearProbe:
    """A probe of an encoder, on labelled data of whoever probes.

    Args:
        encoder: maps ``[B, ...]`` to features ``[B, D]``; or a box that shows features, which is charged for the queries.
        data: labelled examples.
        classes: C.
        penalty: see :data:`PENALTY`.
        runtime: where a module computes.

    Returns:
        The probe, on the CPU.

    Raises:
        ShapeMismatch: when what the encoder gives is not ``[N, D]``.
        BudgetExhausted: when the box answers fewer queries.
    """
    return fit_probe(
        features_from(encoder, data.inputs, runtime=runtime), data.labels, classes=classes, penalty=penalty
    )


def features_from(encoder: nn.Module | BlackBox, inputs: Tensor, *, runtime: Runtime | None = None) -> Tensor:
    """Features ``[N, D]``, float32 on the CPU, of an encoder or a box that shows them; see :func:`probe_encoder`."""
    if isinstance(encoder, BlackBox):
        return encoder.features(inputs)
    return outputs_of(encoder, inputs, runtime=runtime)


def probe_accuracy(encoder: nn.Module, probe: LinearProbe, split: Split, *, runtime: Runtime | None = None) -> float:
    """Share of a split that a probe of an encoder classifies as labelled, in [0, 1]."""
    said = probe(features_from(encoder, split.inputs, runtime=runtime)).argmax(1)
    return float((said == split.labels).double().mean())
