"""What tests of extraction share: how the victim is trained, one that listens, and how far two models agree."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from heirmark.querying.asking import predict
from heirmark.runtime import Runtime
from heirmark.training.fitting import Recipe

MODEL = "naivenet:width=4,hidden=16,batch_norm=true"
RECIPE = Recipe(epochs=3, batch_size=16, learning_rate=0.02, optimizer="adam")


class Listener:
    """A victim that keeps what it is asked and answers as it is told."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        self.answer, self.asked = answer, list[Tensor]()

    def __call__(self, inputs: Tensor) -> Tensor:
        self.asked.append(inputs.clone())
        return self.answer(inputs)


def agreement(one: nn.Module, other: nn.Module, inputs: Tensor, runtime: Runtime) -> float:
    """The share of inputs that both give the same class."""
    answers = [predict(model, inputs, runtime=runtime).argmax(1) for model in (one, other)]
    return float((answers[0] == answers[1]).double().mean())
