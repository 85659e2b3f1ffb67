"""Black boxes as suspects: their answers, read as labels, and their failings told from the verifier's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

from heirmark.errors import BadConfig, BudgetExhausted, HeirmarkError, ShapeMismatch
from heirmark.querying.blackbox import Answers, Api, BlackBox
from heirmark.querying.oracle import ModelFault
from heirmark.runtime import Runtime
from heirmark.training.linear_probe import Probe

Encoder: TypeAlias = nn.Module | Callable[[Tensor], object] | BlackBox
FEATURES = Api(answers="features")


def asking(box: BlackBox, read: Callable[[Answers], Tensor]) -> Callable[[Tensor], Tensor]:
    """What maps inputs ``[N, ...]`` to labels ``[N]``: asks a box, and reads its answers."""

    def ask(inputs: Tensor) -> Tensor:
        try:
            return read(box.query(inputs))
        except BudgetExhausted:
            raise  # the verifier's own purse, no failing of the suspect's
        except HeirmarkError as error:
            raise error if isinstance(error, ModelFault) else ModelFault(str(error)) from error

    return ask


def feature_box(encoder: Encoder, probe: Probe, runtime: Runtime | None) -> BlackBox:
    """An encoder behind an interface that shows its features; one that is behind such a one already as it is.

    Raises:
        BadConfig: when a box shows something else.
        ShapeMismatch: when it shows other features than those of the probe.
    """
    if not isinstance(encoder, BlackBox):
        return BlackBox(encoder, classes=probe.width, api=FEATURES, runtime=runtime)
    if encoder.api.answers != "features":
        raise BadConfig(f'the box shows {encoder.api.answers}, and no features: give one of Api(answers="features")')
    if encoder.classes != probe.width:
        raise ShapeMismatch(
            f"the encoder gives {encoder.classes} features and the probe takes {probe.width}: fit a probe to this encoder"
        )
    return encoder


def read_by(probe: Probe) -> Callable[[Answers], Tensor]:
    """Labels that a probe makes of features; it is brought to the CPU, where answers are."""
    probe.cpu().eval()

    def read(answers: Answers) -> Tensor:
        assert answers.features is not None
        return probe(answers.features).argmax(1)  # type: ignore[no-any-return]

    return read
