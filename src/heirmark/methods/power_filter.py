"""Keys chosen for power: of many candidates those that tell simulated copies from unmarked models, whatever the thief's net."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from heirmark.configuration import at_least, checked, distinct, not_empty
from heirmark.methods.base import Prepared, queries_of
from heirmark.methods.key_filter import new_controls_first
from heirmark.methods.nets import new_model, train_from_scratch
from heirmark.models import Architecture, architecture
from heirmark.querying.asking import predict
from heirmark.runtime import Runtime, derive_seed
from heirmark.tasks.space import AnySpace
from heirmark.tasks.storing import row_digests
from heirmark.training.fitting import Recipe, fit
from heirmark.triggers import TriggerSet

_SMOOTHING = 0.5
"""Hits, and as many misses, that are added to what shadows show (Jeffreys' prior): so few models prove no certainty."""


@dataclass(frozen=True, kw_only=True)
@checked
class PowerFilter:
    """Keep the held-out triggers that tell copies of the marked model from unmarked models, as shadows show.

    Shadows are models that the owner trains for this alone: copies of the marked model by thieves of several architectures, from
    its probabilities and from its labels, and unmarked models of the same architectures. Every candidate gets a score,
    :func:`separation`; the best make the key. No candidate has to hit anything, so a key of a faint mark is the best there is,
    and no error.

    What this does to figures:

    - Of the shadows no rate may be told: the key was chosen by them. The marked model's own WSR rises with its copies', as the
      choice favours what this model teaches; only copies that had no part in the choice, made by thieves with seeds and images
      of their own, say what a thief's copy will hit.
    - The null stays honest, since what calibrates has no part in the choice: seeds are derived apart, and neither the owner's
      clean model nor a calibrating one is a shadow. Given the key, models that calibrate and suspects without the mark are drawn
      alike, and the allowance for how they differ stands. What does not hold for a chosen key is chance, 1/C, in place of a
      calibration: calibrate it. Shadows and calibrating models train on the owner's images, which a suspect need not have.
    - The choice favours pairs whose control misses, so on a chosen key the matched test alone says less than on a drawn one. A
      verdict needs both tests, and the first bears the level.

    Attributes:
        candidates: held-out triggers to choose from.
        thieves: architectures of the shadows, of different families.
        answers: what shadow copies learn from, one copy of each architecture for each of them.
        unmarked: unmarked shadows of each architecture.
        recipe: of every shadow's training.
        queries: what thieves ask the marked model: the ``"owner"``'s images, or the task's ``"foreign"`` ones, brought to shape.
    """

    candidates: Annotated[int, at_least(1)] = 5000
    thieves: Annotated[tuple[Architecture, ...], not_empty] = architecture(
        ("naivenet:batch_norm=true", "vgg-like:width=16", "resnet18:width=8")
    )
    answers: Annotated[tuple[Literal["probabilities", "label"], ...], not_empty, distinct] = ("probabilities", "label")
    unmarked: Annotated[int, at_least(1)] = 2
    recipe: Recipe = field(default=Recipe(epochs=10, batch_size=128, optimizer="adam", learning_rate=1e-3))
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
        """Choose.

        Args:
            drawn: the candidates.
            victim: the marked model.
            prepared: the task and the secret. Its clean model is not looked at.
            keep: size of the key, at most.
            architecture: of the victim; the shadows have their own.
            seed: of the shadows.
            runtime: device, precision, progress.

        Returns:
            At most ``keep`` of them, the highest scores first, but those that repeat a control last.

        Raises:
            BadConfig: when foreign queries are asked for and the task brings none.
        """
        first = {digest: row for row, digest in reversed(list(enumerate(row_digests(drawn.inputs))))}
        drawn = drawn.subset(torch.tensor(sorted(first.values())))  # a repeated query counts for nothing
        copies = [
            torch.stack([_net_hits(copy, drawn, runtime) for copy in family])
            for family in self.copies(victim, prepared, seed=seed, runtime=runtime)
        ]
        unmarked = [
            _said(model, drawn.inputs, drawn.targets, runtime)
            for model in self.innocents(prepared, seed=seed, runtime=runtime)
        ]
        order = separation(copies, torch.stack(unmarked)).argsort(descending=True, stable=True)
        return drawn.subset(new_controls_first(drawn, order)[:keep])

    def architectures(self, space: AnySpace) -> Iterator[Architecture]:
        """All that it builds."""
        yield from self.thieves

    def copies(
        self, victim: nn.Module, prepared: Prepared, *, seed: int, runtime: Runtime
    ) -> Iterator[list[nn.Module]]:
        """Copies of the victim, family by family, one for each kind of answers."""
        queries = queries_of(prepared, self.queries)
        scores = predict(victim, queries, runtime=runtime)
        learnt = {"probabilities": scores.softmax(1), "label": scores.argmax(1)}

        def copy(thief: Architecture, place: int, answers: str) -> nn.Module:
            own = derive_seed(seed, "shadow copy", place, answers)
            model = new_model(prepared.task, thief, seed=derive_seed(own, "init"))
            what = f"training a shadow copy by {thief} from {answers}"
            fit(model, queries, learnt[answers], recipe=self.recipe, seed=own, runtime=runtime, description=what)
            return model

        for place, thief in enumerate(self.thieves):
            yield [copy(thief, place, answers) for answers in self.answers]

    def innocents(self, prepared: Prepared, *, seed: int, runtime: Runtime) -> Iterator[nn.Module]:
        """Unmarked models of every architecture, trained on the owner's images and labels."""
        for place, thief in enumerate(self.thieves):
            for number in range(self.unmarked):
                own = derive_seed(seed, "unmarked shadow", place, number)
                yield train_from_scratch(prepared.task, thief, self.recipe, seed=own, runtime=runtime)


def separation(copies: Sequence[Tensor], unmarked: Tensor) -> Tensor:
    r"""How well each candidate tells copies by any family of thieves from unmarked models: a log-likelihood ratio.

    .. math:: s_i = \frac{1}{F} \sum_f \log \frac{k_{fi} + 1/2}{n_f + 1} - \log \frac{u_i + 1/2}{m + 1}

    with :math:`k_{fi}` the hits of the :math:`n_f` copies by family f on candidate i that their answers to its control do not
    explain, :math:`u_i` those of the m unmarked models, each a sum of probabilities, which tell more of few models than labels
    do. The sum over families is the likelihood that a copy by *every* one of them hits: a family that misses costs more than
    another gains, and one whose copies learned nothing of the mark, so that it hits all alike, decides nothing.

    Args:
        copies: a family each, ``[n, N]`` in [0, 1].
        unmarked: ``[m, N]`` in [0, 1].

    Returns:
        ``[N]`` float64, the higher the better.

    Examples:
        >>> one, other = torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
        >>> separation([one, other], torch.tensor([[0.0, 0.0, 1.0]])).argsort(descending=True).tolist()
        [0, 1, 2]
    """
    return torch.stack([_log_rate(family) for family in copies]).mean(0) - _log_rate(unmarked)


def _log_rate(hits: Tensor) -> Tensor:
    return ((hits.double().sum(0) + _SMOOTHING) / (len(hits) + 2 * _SMOOTHING)).log()


def _net_hits(model: nn.Module, drawn: TriggerSet, runtime: Runtime) -> Tensor:
    """Probability that a model hits each candidate and, were the two independent, misses its control, ``[N]``."""
    hit, control = (_said(model, inputs, drawn.targets, runtime) for inputs in (drawn.inputs, drawn.controls))
    return hit * (1 - control)


def _said(model: nn.Module, inputs: Tensor, targets: Tensor, runtime: Runtime) -> Tensor:
    """Probability that a model gives each input its target, ``[N]``."""
    return predict(model, inputs, runtime=runtime).softmax(1).gather(1, targets[:, None])[:, 0]
