"""ActiveThief: model extraction by active learning from a pool (Pal et al. 2020, AAAI, doi 10.1609/aaai.v34i01.5432)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.attacks.base import Sizes
from heirmark.attacks.extraction.learning import OfPool, learn, targets_of
from heirmark.configuration import above, at_least, at_most, checked, within
from heirmark.errors import BadConfig
from heirmark.models import Architecture, Net, architecture
from heirmark.querying.asking import predict
from heirmark.querying.blackbox import AnswerKind, BlackBox
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.task import Split
from heirmark.training.fitting import Recipe

ACTIVE_THIEF_RECIPE = Recipe(
    epochs=1000, batch_size=150, optimizer="adam", learning_rate=1e-3, weight_decay=1e-3, schedule="constant"
)
"""Training of the copy as in the paper: Adam, batches of 150, L2 0.001, at most 1000 epochs."""


def most_uncertain(probabilities: Tensor, count: int) -> Tensor:
    """Positions of the rows of highest entropy.

    Args:
        probabilities: ``[N, C]``.
        count: how many.

    Returns:
        ``[count]`` int64, most uncertain first; of equals the first.
    """
    entropy: Tensor = torch.special.entr(probabilities).sum(1)
    return entropy.argsort(descending=True, stable=True)[:count]


def farthest(candidates: Tensor, centres: Tensor, count: int) -> Tensor:
    """Greedy k-centre: again and again the candidate that is farthest from all centres, which then is one of them.

    Args:
        candidates: ``[N, C]``.
        centres: ``[M, C]``, at least one.
        count: how many.

    Returns:
        ``[count]`` int64 positions, in order of choice.
    """
    distance = torch.cat([torch.cdist(part, centres).amin(1) for part in candidates.split(4096)])  # type: ignore[no-untyped-call]
    chosen = torch.empty(count, dtype=torch.long, device=candidates.device)
    for k in range(count):
        chosen[k] = distance.argmax()
        distance = distance.minimum((candidates - candidates[chosen[k]]).norm(dim=1))
        distance[chosen[: k + 1]] = -1.0  # equal rows are all at distance zero, and none is to be chosen twice
    return chosen


@dataclass(frozen=True, kw_only=True)
@checked
class ActiveThief(OfPool):
    """Ask about a few images of the pool, train a copy, let it choose what to ask next, and repeat.

    Each round trains a copy from scratch on all answers so far. A share of the queries is never trained on: on it the F1
    score against the victim's labels decides when a training ends, and the best epoch is kept. No image is asked about twice.
    Two strategies of the paper, which search adversarial neighbours of every image of the pool (DFAL), are not here.

    Attributes:
        model: architecture of the copy. The paper's is of this kind: blocks of small convolutions and pooling, then fully
            connected layers, with dropout 0.1 (0.2 on CIFAR-10).
        recipe: how the copy is trained in each round; see :data:`ACTIVE_THIEF_RECIPE`.
        queries: how many images are asked about in all, 10,000 to 30,000 in the paper. None asks about half of the pool: all
            of it would leave nothing to choose.
        strategy: ``"uncertainty"``: the images of which the copy's answer has the highest entropy; ``"k-center"``: those whose
            answers are farthest from all that were asked about; ``"random"``.
        rounds: in which the rest of the queries is chosen, in equal parts.
        initial: share of the queries that the first copy learns, drawn at random.
        validation: share of the queries that decides when a training ends, drawn at random. 0 always runs all epochs.
        patience: epochs without a better F1 score after which a training ends.
    """

    title: ClassVar[str] = "ActiveThief"
    shown: ClassVar[tuple[AnswerKind, ...]] = ("label",)
    shown_on_pool: ClassVar[tuple[AnswerKind, ...]] = ("label",)
    chooses: ClassVar[bool] = True

    model: Architecture = architecture("vgg-like:dropout=0.1")
    recipe: Recipe = field(default=ACTIVE_THIEF_RECIPE)
    strategy: Literal["uncertainty", "k-center", "random"] = "uncertainty"
    rounds: Annotated[int, at_least(1)] = 10
    initial: Annotated[float, above(0), at_most(1)] = 0.1
    validation: Annotated[float, within(0, 1)] = 0.2
    patience: Annotated[int, at_least(1)] = 100

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes; see :class:`heirmark.attacks.base.Attack`."""
        return cls(recipe=recipe, rounds=3, validation=0.1, queries=4000)

    def fitted(self, sizes: Sizes) -> Self:
        """Ask about half of the images at most, so that there is something to choose."""
        half = max(1, sizes.images // 2)
        return replace(self, queries=None if self.queries is None else min(self.queries, half))

    def __post_init__(self) -> None:
        if self.initial + self.validation > 1:
            raise BadConfig(
                f"initial and validation are shares of the queries: lower them, from {self.initial} and "
                f"{self.validation}, to at most 1 together"
            )

    def shares(self, queries: int) -> tuple[int, int, tuple[int, ...]]:
        """How queries are spent.

        Args:
            queries: in all.

        Returns:
            How many validate, how many the first copy learns, and how many each round chooses.

        Examples:
            >>> ActiveThief(rounds=3).shares(100)
            (20, 10, (23, 23, 24))
        """
        validation = round(queries * self.validation)
        initial = min(max(1, round(queries * self.initial)), queries - validation)
        rest = queries - validation - initial
        ends = [rest * number // self.rounds for number in range(self.rounds + 1)]
        return validation, initial, tuple(end - start for start, end in pairwise(ends))

    def steal(self, box: BlackBox, data: Split, *, seed: int, runtime: Runtime) -> Net:
        """Ask, train and choose in turn; see :class:`heirmark.attacks.base.Extraction`.

        Raises:
            BadConfig: when no query is left to train on.
        """
        queries = self.count(data)
        validation, initial, rounds = self.shares(queries)
        if initial < 1:
            raise BadConfig(f"{queries} queries leave none to train on: raise queries, or lower validation")
        box.require(queries)
        pool = data.inputs.to(runtime.torch_device)
        generator = generator_of(derive_seed(seed, "queries"))
        drawn = torch.randperm(len(data), generator=generator)[: validation + initial]
        answers = box.query(pool[drawn.to(pool.device)])
        held = (pool[drawn[:validation].to(pool.device)], answers.labels[:validation])
        asked, targets = drawn[validation:], targets_of(answers)[validation:]
        free = torch.ones(len(data), dtype=torch.bool)
        free[drawn] = False

        def train(number: int) -> Net:
            """A copy trained from scratch."""
            net = self.fresh_copy(box, data, seed=derive_seed(seed, "copy", number))
            best = _Best(net.model, *held, self.patience, runtime) if validation else None
            learn(
                net.model,
                pool[asked.to(pool.device)],
                (targets,),
                F.cross_entropy,
                recipe=self.recipe,
                seed=derive_seed(seed, "training", number),
                runtime=runtime,
                description=f"stealing, round {number}/{self.rounds}",
                stop=best,
            )
            if best is not None:
                best.restore()
            return net

        def choose(copy: nn.Module, count: int) -> Tensor:
            """Positions in the pool of what is asked next."""
            left = free.nonzero().flatten()
            if self.strategy == "random":
                return left[torch.randperm(len(left), generator=generator)[:count]]
            candidates = predict(copy, pool[left.to(pool.device)], runtime=runtime).softmax(1)
            if self.strategy == "uncertainty":
                return left[most_uncertain(candidates, count)]
            centres = predict(copy, pool[asked.to(pool.device)], runtime=runtime).softmax(1)
            return left[farthest(candidates.to(pool.device), centres.to(pool.device), count).cpu()]

        net = train(0)
        for number, count in enumerate(rounds, start=1):
            if count:
                chosen = choose(net.model, count)
                answers = box.query(pool[chosen.to(pool.device)])
                free[chosen] = False
                asked, targets = torch.cat([asked, chosen]), torch.cat([targets, targets_of(answers)])
                net = train(number)
        return net


class _Best:
    """Asked after every epoch whether to stop; keeps the weights of the best."""

    def __init__(self, model: nn.Module, inputs: Tensor, labels: Tensor, patience: int, runtime: Runtime) -> None:
        self.model, self.inputs, self.labels = model, inputs, labels
        self.patience, self.runtime = patience, runtime
        self.score, self.waited = -1.0, 0
        self.weights: dict[str, Tensor] = {}

    def __call__(self) -> bool:
        from sklearn.metrics import f1_score

        predicted = predict(self.model, self.inputs, runtime=self.runtime).argmax(1)
        scores = f1_score(self.labels.numpy(), predicted.numpy(), average=None, zero_division=0).tolist()
        score = sum(scores) / len(scores)  # of the classes that occur
        if score > self.score:
            self.score, self.waited = score, 0
            self.weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        else:
            self.waited += 1
        return self.waited >= self.patience

    def restore(self) -> None:
        if self.weights:
            self.model.load_state_dict(self.weights)
