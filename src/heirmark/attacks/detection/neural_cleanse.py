"""Neural Cleanse: the class that the smallest trigger leads to (Wang, Yao, Shan, Li, Viswanath, Zheng, Zhao 2019, IEEE S&P)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.attacks.base import Inspected, Inspection, Sizes
from heirmark.attacks.detection.outliers import anomaly_index
from heirmark.attacks.detection.reversing import measured, squash, stamp, unsquash
from heirmark.configuration import above, at_least, at_most, checked, distinct
from heirmark.errors import BadConfig, BadData
from heirmark.models import Net
from heirmark.querying.asking import evaluating
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.space import Images
from heirmark.tasks.storing import decode
from heirmark.tasks.task import Split
from heirmark.training.fitting import Recipe
from heirmark.training.samples import ShuffledIndex

BETAS = (0.5, 0.9)
"""Of Adam, as in the authors' public code."""


@dataclass(kw_only=True)
class Balance:
    """The authors' control of the cost of a mask: none until the trigger works, then up while it works and down while not.

    Attributes:
        initial: cost that follows zero.
        patience: steps in a row after which it changes.
        multiplier: by which it rises; it falls by this to the power of 1.5.
        cost: at present.
    """

    initial: float
    patience: int
    multiplier: float
    cost: float = 0.0
    rose: bool = field(default=False, init=False)
    fell: bool = field(default=False, init=False)
    _free: int = field(default=0, init=False)
    _working: int = field(default=0, init=False)
    _failing: int = field(default=0, init=False)

    def update(self, works: bool) -> None:
        """Take note of a step.

        Args:
            works: whether the trigger's success reached what is asked for.
        """
        self._free = self._free + 1 if self.cost == 0 and works else 0
        if self._free >= self.patience:
            self.cost = self.initial
            self._working = self._failing = 0
            self.rose = self.fell = False
        self._working, self._failing = (self._working + 1, 0) if works else (0, self._failing + 1)
        if self._working >= self.patience:
            self._working = 0
            self.cost *= self.multiplier
            self.rose = True
        elif self._failing >= self.patience:
            self._failing = 0
            self.cost /= self.multiplier**1.5
            self.fell = True


class Search:
    """The search for one class' trigger: what is optimised, its cost, and the smallest mask that has worked."""

    def __init__(self, shape: tuple[int, ...], balance: Balance, seed: int, device: torch.device) -> None:
        generator = generator_of(seed)
        start = [torch.rand(size, generator=generator) for size in (shape, (1, *shape[1:]))]
        self.pattern, self.mask = (unsquash(values).to(device).requires_grad_() for values in start)
        self.balance = balance
        self.smallest = math.inf
        self.best: tuple[Tensor, Tensor] | None = None
        self.stale = 0

    @property
    def current(self) -> tuple[Tensor, Tensor]:
        """Mask ``[1, H, W]`` and pattern ``[C, H, W]`` as they are now."""
        return squash(self.mask.detach()).cpu(), squash(self.pattern.detach()).cpu()

    def update(self, works: bool, norm: float) -> None:
        """Take note of a step: whether the trigger worked, and the L1 norm of its mask."""
        if works and norm < self.smallest:
            self.best, self.smallest, self.stale = self.current, norm, 0
        elif self.best is not None:
            self.stale += 1

    def settled(self, patience: int | None) -> bool:
        """Whether the mask has not become smaller for a while, though the cost went both ways."""
        return patience is not None and self.stale >= patience and self.balance.rose and self.balance.fell


@dataclass(frozen=True, kw_only=True)
@checked
class NeuralCleanse(Inspection):
    """For every class, find the smallest mask and pattern that send images there; a class with a far smaller one is suspect.

    Defaults are the paper's and, where it is silent, those of the authors' public example (patience, multiplier, early stop).
    A class for which no trigger ever works well enough enters with its last mask, as in that code.

    Attributes:
        steps: of each class' optimisation, at most.
        samples: images of a step, in batches; the success of a step is measured over these.
        batch_size: images of each update.
        learning_rate: of Adam.
        initial_cost: weight of the mask's L1 norm, once the trigger works.
        success: share of images that a working trigger sends to its class.
        patience: steps in a row that work, or do not, after which the cost changes.
        multiplier: by which the cost rises; it falls by this to the power of 1.5.
        stop_patience: steps without a smaller mask after which a class is done; none runs all steps.
        threshold: anomaly index above which a class is suspect; only masks below the median count.
        sources: ``"all"`` optimises on images of all classes, as the public code does; ``"other"`` leaves out those of the class.
        classes: that are tried, three at least; none tries all.
        together: classes optimised side by side; of speed and memory only.
        checked: images of other classes on which a trigger's success is reported, at most.
    """

    title: ClassVar[str] = "Neural Cleanse"
    needs: ClassVar = Images

    steps: Annotated[int, at_least(1)] = 1000
    samples: Annotated[int, at_least(1)] = 1000
    batch_size: Annotated[int, at_least(1)] = 32
    learning_rate: Annotated[float, above(0)] = 0.1
    initial_cost: Annotated[float, above(0)] = 1e-3
    success: Annotated[float, above(0), at_most(1)] = 0.99
    patience: Annotated[int, at_least(1)] = 5
    multiplier: Annotated[float, above(1)] = 2.0
    stop_patience: Annotated[int, at_least(1)] | None = 25
    threshold: Annotated[float, above(0)] = 2.0
    sources: Literal["all", "other"] = "all"
    classes: Annotated[tuple[Annotated[int, at_least(0)], ...], distinct] | None = None
    together: Annotated[int, at_least(1)] = 10
    checked: Annotated[int, at_least(1)] = 1000

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes; see :class:`heirmark.attacks.base.Attack`."""
        return cls(steps=100, samples=128, checked=500)

    def unfit(self, sizes: Sizes) -> str:
        """Two classes are too few."""
        return "no class stands out of two" if sizes.classes < 3 else ""

    def __post_init__(self) -> None:
        if self.classes is not None and len(self.classes) < 3:
            raise BadConfig(f"an outlier needs three different classes to stand out from, not {self.classes}: add some")

    def inspect(self, net: Net, data: Split, *, seed: int, runtime: Runtime) -> Inspected:
        """Inspect; see :class:`heirmark.attacks.base.Inspection`.

        Raises:
            BadConfig: for a class that the model does not have.
            BadData: when all images are of one class.
        """
        model = net.askable()
        labels = tuple(range(net.spec.classes)) if self.classes is None else self.classes
        if max(labels) >= net.spec.classes or len(labels) < 3:
            raise BadConfig(
                f"the model has {net.spec.classes} classes, of which three at least are needed, not {labels}"
            )
        if len(data.labels.unique()) < 2:  # type: ignore[no-untyped-call]
            raise BadData("all images are of one class: give images of others too, on which a trigger can be tried")
        model.to(runtime.torch_device)
        searches: list[Search] = []
        for start in range(0, len(labels), self.together):
            done = (len(searches), len(labels))
            searches += self._reverse(model, labels[start : start + self.together], data, seed, runtime, done)
        found = [search.current if search.best is None else search.best for search in searches]
        norms = torch.stack([mask.sum() for mask, _ in found])
        index = (-anomaly_index(norms)).clamp_min(0).tolist()
        scores = [0.0] * net.spec.classes
        for label, figure in zip(labels, index, strict=True):
            scores[label] = figure
        triggers = measured(
            model, labels, found, data, checked=self.checked, seed=derive_seed(seed, "check"), runtime=runtime
        )
        norm_of = {f"mask norm of class {label}": float(norm) for label, norm in zip(labels, norms, strict=True)}
        return Inspected(
            suspects=tuple(label for label, score in enumerate(scores) if score > self.threshold),
            scores=tuple(scores),
            threshold=self.threshold,
            triggers=dict(zip(labels, triggers, strict=True)),
            details={"largest anomaly index": max(scores), "median mask norm": float(norms.quantile(0.5)), **norm_of},
        )

    def _reverse(
        self, model: nn.Module, labels: Sequence[int], data: Split, seed: int, runtime: Runtime, done: tuple[int, int]
    ) -> list[Search]:
        """Optimise the triggers of some classes side by side; each sees the batches that it would see alone."""
        device = runtime.torch_device
        inputs, truth = data.inputs.to(device), data.labels.to(device)
        searches = [
            Search(
                tuple(inputs.shape[1:]),
                Balance(initial=self.initial_cost, patience=self.patience, multiplier=self.multiplier),
                derive_seed(seed, "start", label),
                device,
            )
            for label in labels
        ]
        optimizer = torch.optim.Adam(
            [free for search in searches for free in (search.mask, search.pattern)], self.learning_rate, betas=BETAS
        )
        generator = generator_of(derive_seed(seed, "batches"))
        rows = ShuffledIndex(len(data), min(self.batch_size, len(data)))
        batches = max(self.samples // rows.per_batch, 1)
        active = list(range(len(labels)))
        with evaluating(model):
            for step in range(self.steps):
                running = [searches[k] for k in active]
                wanted = torch.tensor([labels[k] for k in active], device=device)
                hits, seen, norms = (torch.zeros(len(active), device=device) for _ in range(3))
                for _ in range(batches):
                    chosen = rows.draw(generator).to(device)
                    counted = (truth[chosen] != wanted[:, None]) if self.sources == "other" else None
                    hit, total, norm = self._update(
                        model, optimizer, running, decode(inputs[chosen]), wanted, counted, runtime
                    )
                    hits, seen, norms = hits + hit, seen + total, norms + norm
                working = ((hits >= self.success * seen) & (seen > 0)).tolist()
                for search, works, norm in zip(running, working, (norms / batches).tolist(), strict=True):
                    search.update(works, norm)
                active = [k for k in active if not searches[k].settled(self.stop_patience)]
                for search, works in zip(running, working, strict=True):
                    search.balance.update(works)
                settled = self.steps * (len(labels) - len(active)) + len(active) * (step + 1)
                runtime.progress("reversing triggers", self.steps * done[0] + settled, self.steps * done[1])
                if not active:
                    break
        return searches

    def _update(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        running: Sequence[Search],
        images: Tensor,
        wanted: Tensor,
        counted: Tensor | None,
        runtime: Runtime,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step of Adam for each of K triggers: how many images hit, of how many, and the masks' norms, ``[K]`` each."""
        frees = [free for search in running for free in (search.mask, search.pattern)]
        masks, patterns = squash(torch.stack(frees[::2])), squash(torch.stack(frees[1::2]))
        with runtime.autocast():
            logits = model(stamp(images, masks, patterns))
        logits = logits.float().unflatten(0, (len(running), len(images)))
        goals = wanted[:, None].expand(-1, len(images))
        weights = torch.ones_like(logits[..., 0]) if counted is None else counted.float()
        losses = F.cross_entropy(logits.transpose(1, 2), goals, reduction="none") * weights
        norms = masks.flatten(1).sum(1)
        costs = torch.tensor([search.balance.cost for search in running], device=images.device)
        loss = (losses.sum(1) / weights.sum(1).clamp_min(1) + costs * norms).sum()
        gradients = torch.autograd.grad(loss, frees)
        optimizer.zero_grad(set_to_none=True)  # a class that is done has no gradient, and Adam leaves it alone
        for free, gradient in zip(frees, gradients, strict=True):
            free.grad = gradient
        optimizer.step()
        hits = ((logits.argmax(2) == goals) * weights).sum(1)
        return hits, weights.sum(1), norms.detach()
