"""The two-stage key filter of DeepTracer (arXiv 2511.08985, eq. 7-8), behind any method."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from heirmark.configuration import at_least, checked
from heirmark.errors import BadData
from heirmark.methods.base import Prepared, queries_of
from heirmark.methods.nets import new_model
from heirmark.models import Architecture, architecture
from heirmark.querying.asking import predict
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.space import AnySpace, Tokens, Waves
from heirmark.training.fitting import Recipe, fit
from heirmark.triggers import TriggerSet


@dataclass(frozen=True, kw_only=True)
@checked
class KeyFilter:
    """Keep the held-out triggers that a simulated thief answers best.

    Stage 1 keeps those that hit on the victim and on a surrogate, a thief simulated by the owner, and miss on a benign model.
    Stage 2 keeps the most confident on the surrogate. The benign model that filters is the owner's own clean one: it would look
    innocent by construction, so it may neither calibrate a test nor be reported. Calibrate and report on others. By the same
    token the victim hits every trigger of a filtered key: its own WSR is 100 % by construction, and only that of its copies says
    anything.

    Attributes:
        candidates: held-out triggers to choose from (the paper does not say how many).
        surrogate: architecture of the surrogate, AlexNet in the paper; None takes the victim's, and so does AlexNet for waves
            and texts, which it cannot take.
        recipe: of its training on the victim's probabilities (inferred).
        queries: what it asks the victim: the ``"owner"``'s images, or the task's ``"foreign"`` ones, brought to shape. The paper
            asks Tiny-ImageNet; the default is another because a task need not have such.
    """

    candidates: Annotated[int, at_least(1)] = 5000
    surrogate: Architecture | None = architecture("alexnet")
    recipe: Recipe = field(default=Recipe(epochs=20, batch_size=128, optimizer="adam", learning_rate=1e-3))
    queries: Literal["owner", "foreign"] = "owner"

    def __call__(
        self,
        drawn: TriggerSet,
        victim: nn.Module,
        prepared: Prepared,
        *,
        keep: int,
        architecture: Architecture,
        seed: int,
        runtime: Runtime,
    ) -> TriggerSet:
        """Filter.

        Args:
            drawn: the candidates.
            victim: the marked model.
            prepared: the task, the benign model and the secret.
            keep: M of eq. 8, at most.
            architecture: of the victim, for a surrogate of the same.
            seed: of the surrogate.
            runtime: device, precision, progress.

        Returns:
            At most ``keep`` of them, the surrogate's most confident first, but those that repeat a control last.

        Raises:
            BadData: when none is left.
        """
        surrogate = self.steal(victim, prepared, architecture=architecture, seed=seed, runtime=runtime)
        hits = [
            predict(model, drawn.inputs, runtime=runtime).argmax(1) == drawn.targets
            for model in (victim, surrogate, prepared.clean)
        ]
        kept = (hits[0] & hits[1] & ~hits[2]).nonzero().flatten()
        if len(kept) == 0:
            raise BadData(
                f"of {len(drawn)} candidates none hits on victim and surrogate and misses on the benign model: the mark does "
                "not survive the simulated theft; embed it more strongly, or set key_filter=none"
            )
        answers = predict(surrogate, drawn.inputs[kept], runtime=runtime).softmax(1)
        confidence = answers.gather(1, drawn.targets[kept, None])[:, 0]
        kept = kept[confidence.argsort(descending=True, stable=True)]
        return drawn.subset(new_controls_first(drawn, kept)[:keep])

    def architectures(self, space: AnySpace) -> Iterator[Architecture]:
        """All that it builds, the victim's own left out."""
        if (named := self._surrogate(space)) is not None:
            yield named

    def _surrogate(self, space: AnySpace) -> Architecture | None:
        return None if self.surrogate == "alexnet" and isinstance(space, Waves | Tokens) else self.surrogate

    def steal(
        self, victim: nn.Module, prepared: Prepared, *, architecture: Architecture, seed: int, runtime: Runtime
    ) -> nn.Module:
        """The surrogate: a net fitted to the victim's probabilities.

        Raises:
            BadConfig: when foreign queries are asked for and the task brings none.
        """
        queries = queries_of(prepared, self.queries)
        named = self._surrogate(prepared.task.space) or architecture
        model = new_model(prepared.task, named, seed=derive_seed(seed, "surrogate", "init"))
        fit(
            model,
            queries,
            predict(victim, queries, runtime=runtime).softmax(1),
            recipe=self.recipe,
            seed=derive_seed(seed, "surrogate", "training"),
            runtime=runtime,
            description="training the surrogate",
        )
        return model


def new_controls_first(drawn: TriggerSet, order: Tensor) -> Tensor:
    """Candidates in an order, but those that repeat a control last: pairs with one control are not independent.

    Args:
        drawn: the candidates.
        order: ``[N]`` int64 positions, the best first.
    """
    seen: set[bytes] = set()
    later = []
    for index in order.tolist():
        control = drawn.controls[index].numpy().tobytes()
        later.append(control in seen)
        seen.add(control)
    return order[torch.tensor(later).int().argsort(stable=True)]
