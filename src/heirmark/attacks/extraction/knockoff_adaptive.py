"""Knockoff Nets, adaptive: a bandit chooses what to ask (Orekondy, Schiele, Fritz 2019, arXiv 1812.02766, section 4.1.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.attacks.extraction.generating import check_finite
from heirmark.attacks.extraction.knockoff import KNOCKOFF_RECIPE
from heirmark.attacks.extraction.learning import OfPool, probabilities_of, targets_of, train_step
from heirmark.configuration import above, at_least
from heirmark.errors import BadConfig
from heirmark.models import Net
from heirmark.querying.asking import predict
from heirmark.querying.blackbox import AnswerKind, BlackBox
from heirmark.runtime import Runtime, derive_seed, generator_of, seeded
from heirmark.tasks.space import Continuous, Tokens
from heirmark.tasks.storing import decode
from heirmark.tasks.task import Split
from heirmark.training.augmenting import augment
from heirmark.training.fitting import Recipe, make_optimizer

ONLINE_RECIPE = Recipe(
    epochs=1, batch_size=64, learning_rate=0.01, momentum=0.5, weight_decay=5e-4, schedule="constant"
)
"""Training of the copy while it asks: the optimiser of the final training, at a constant rate."""

Reward = Literal["certainty", "diversity", "loss"]
_REWARDS: tuple[Reward, ...] = ("certainty", "diversity", "loss")
_SIDE = 8
_ITERATIONS = 20


def certainty(answers: Tensor) -> Tensor:
    """Margin between the two most likely classes of ``[N, C]`` probabilities: ``[N]`` in [0, 1]."""
    top = answers.topk(2, dim=1).values
    return top[:, 0] - top[:, 1]


def diversity(answer: Tensor, past: Tensor) -> Tensor:
    """How much an answer exceeds what was answered before: ``sum_k max(0, y_k - mean of past y_k)``, a scalar in [0, 1].

    Args:
        answer: ``[C]`` probabilities.
        past: ``[M, C]``; none means zeros.
    """
    return (answer - (past.mean(0) if len(past) else 0.0)).clamp_min(0).sum()


def advantage(window: Tensor) -> float:
    """How much better the last step was than the average one.

    Args:
        window: ``[W, R]`` rewards of R kinds, the last row the newest.

    Returns:
        The sum over the kinds of the newest reward less the mean of the window, after the window was scaled to [0, 1].
    """
    low, high = window.amin(0), window.amax(0)
    scaled = (window - low) / (high - low).clamp_min(1e-12)
    return float((scaled[-1] - scaled.mean(0)).sum())


def policy(preferences: Tensor, left: Tensor) -> Tensor:
    """Probability of each group: softmax of the preferences ``[G]`` over the groups that still have images left ``[G]``."""
    return preferences.masked_fill(left == 0, -torch.inf).softmax(0)


def updated(preferences: Tensor, probabilities: Tensor, chosen: int, step: float) -> Tensor:
    """One step of gradient ascent: ``H + step * (1[chosen] - pi)``, step being the learning rate times the advantage."""
    towards = -probabilities
    towards[chosen] += 1
    return preferences + step * towards


def clusters_of(inputs: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Group images by k-means on their pixels, reduced to 8x8.

    Args:
        inputs: ``[N, ...]`` uint8 or float32.
        count: of groups, at most N.
        generator: on the CPU.

    Returns:
        ``[N]`` int64 numbers of groups on the CPU.
    """
    points = torch.cat([_reduced(part) for part in inputs.split(4096)])  # type: ignore[no-untyped-call]
    centres = points[torch.randperm(len(points), generator=generator)[:count].to(points.device)]
    groups = torch.cdist(points, centres).argmin(1)
    for _ in range(_ITERATIONS):
        members = F.one_hot(groups, count).to(points.dtype)
        sizes = members.sum(0)[:, None]
        centres = torch.where(sizes > 0, members.T @ points / sizes.clamp_min(1), centres)
        groups = torch.cdist(points, centres).argmin(1)
    return groups.cpu()


def _reduced(inputs: Tensor) -> Tensor:
    images = decode(inputs)
    return (F.adaptive_avg_pool2d(images, _SIDE) if images.ndim == 4 else images).flatten(1)


@dataclass(frozen=True, kw_only=True)
class KnockoffAdaptive(OfPool):
    """Learn which groups of one's images are worth asking about, while asking; then train a copy on all answers.

    A gradient bandit over groups of the adversary's images: preferences H give the policy pi = softmax(H); a group is drawn
    from pi and an image from the group, never one twice; the victim's answer is rewarded and H is moved by
    ``rate * advantage * (1[group] - pi)``; the copy learns the answer. The final copy is trained from scratch.

    Rewards: certainty of the victim (it knows such images), diversity of its answers (against asking about one class alone),
    loss of the copy on them before it learns them. Each is scaled to [0, 1] over the window and reduced by its mean there;
    several are summed. Where the box shows labels alone, certainty says nothing: ``"all"`` then means the other two.

    The groups are the labels of the images by default. These are the adversary's own annotation of his own pool, which the
    paper gives him, and not the victim's truth; where he is not to have them, group by ``"clusters"``.

    Attributes:
        model: architecture of the copy; the paper's worst case is the victim's own.
        recipe: how the final copy is trained.
        queries: how many images are asked about; 60,000 at most in the paper, of a pool of 2.2 million. None asks about half of
            the pool: all of it would leave nothing to choose.
        reward: what is rewarded: ``"certainty"``, ``"diversity"``, ``"loss"``, or ``"all"`` three.
        groups: among what the bandit chooses: the ``"labels"`` of the adversary's images, or ``"clusters"`` of their pixels.
        clusters: how many clusters, where these are the groups.
        batch: images asked about at once; the policy is updated after each answer all the same (inferred; 1 is the paper's
            own form). BatchNorm learns nothing of one image: a last batch of one joins the one before it, and where all
            are of one the copy learns each with the one before it.
        online: optimiser and augmentation of the copy while it asks: one step a batch of answers; epochs do not count.
        rate: learning rate of the bandit; None is the paper's, one over the number of times that the group was drawn.
        window: steps back over which rewards are scaled and averaged, and over which diversity looks (inferred).
    """

    needs = property(lambda self: Continuous if self.groups == "clusters" else Continuous | Tokens)
    otherwise: ClassVar = "set groups=labels"
    title: ClassVar[str] = "adaptive Knockoff"
    shown: ClassVar[tuple[AnswerKind, ...]] = ("probabilities",)
    shown_on_pool: ClassVar[tuple[AnswerKind, ...]] = ("probabilities",)
    chooses: ClassVar[bool] = True

    recipe: Recipe = field(default=KNOCKOFF_RECIPE)
    reward: Literal["certainty", "diversity", "loss", "all"] = "all"
    groups: Literal["labels", "clusters"] = "labels"
    clusters: Annotated[int, at_least(1)] = 30
    batch: Annotated[int, at_least(1)] = 64
    online: Recipe = field(default=ONLINE_RECIPE)
    rate: Annotated[float, above(0)] | None = None
    window: Annotated[int, at_least(2)] = 100

    def rewards(self, box: BlackBox) -> tuple[Reward, ...]:
        """The kinds of reward that this victim's answers allow.

        Raises:
            BadConfig: when certainty alone is wanted of a victim that shows labels alone.
        """
        kinds = _REWARDS if self.reward == "all" else (self.reward,)
        if box.api.answers == "label":
            kinds = tuple(kind for kind in kinds if kind != "certainty")
        if not kinds:
            raise BadConfig("labels alone have no certainty to reward: set reward to diversity, loss or all")
        return kinds

    def steal(self, box: BlackBox, data: Split, *, seed: int, runtime: Runtime) -> Net:
        """Ask, then train; see :class:`heirmark.attacks.base.Extraction`.

        Raises:
            BadConfig: see :meth:`rewards`.
        """
        kinds, count = self.rewards(box), self.count(data)
        box.require(count)
        pool = data.inputs.to(runtime.torch_device)
        online = self.fresh_copy(box, data, seed=derive_seed(seed, "online copy")).model.to(runtime.torch_device)
        groups = self._groups(data, pool, seed)
        chosen, targets = self._ask(box, online, pool, groups, count, kinds, seed=seed, runtime=runtime)
        net = self.fresh_copy(box, data, seed=derive_seed(seed, "copy"))
        return self.train(net, pool[chosen.to(pool.device)], targets, seed=seed, runtime=runtime)

    def _size(self, left: int) -> int:
        """Images of the next batch, of so many that are left."""
        return left if self.batch > 1 and left <= self.batch + 1 else min(left, self.batch)

    def _groups(self, data: Split, pool: Tensor, seed: int) -> Tensor:
        if self.groups == "labels":
            known = data.labels.unique()  # type: ignore[no-untyped-call]
            return torch.searchsorted(known, data.labels)
        generator = generator_of(derive_seed(seed, "clusters"))
        return clusters_of(pool, min(self.clusters, len(pool)), generator)

    def _ask(
        self,
        box: BlackBox,
        copy: nn.Module,
        pool: Tensor,
        groups: Tensor,
        count: int,
        kinds: tuple[Reward, ...],
        *,
        seed: int,
        runtime: Runtime,
    ) -> tuple[Tensor, Tensor]:
        """Positions of the images that were asked about, in order, and what is learned of each."""
        generator = generator_of(derive_seed(seed, "queries"))
        optimizer = make_optimizer(copy, self.online)
        # One shuffled queue per group: a group is used up when its images are.
        order = torch.randperm(len(pool), generator=generator)
        queues = [order[groups[order] == group].tolist() for group in range(int(groups.max()) + 1)]
        left = torch.tensor([len(queue) for queue in queues])
        preferences = torch.zeros(len(queues), dtype=torch.float64)
        drawn = torch.zeros(len(queues))
        answers = torch.empty(count, box.classes, dtype=torch.float64)
        rewards = torch.empty(count, len(kinds), dtype=torch.float64)
        taken, learned = list[int](), list[Tensor]()
        with seeded(derive_seed(seed, "online")):
            while len(taken) < count:
                start = len(taken)
                steps = list[tuple[int, Tensor]]()
                for _ in range(self._size(count - start)):
                    probabilities = policy(preferences, left)
                    group = int(torch.multinomial(probabilities, 1, generator=generator))
                    left[group] -= 1
                    taken.append(queues[group].pop())
                    steps.append((group, probabilities))
                images = pool[torch.tensor(taken[start:], device=pool.device)]
                given = box.query(images)
                learned.append(targets_of(given))
                truth = probabilities_of(given, box.classes)
                answers[start : len(taken)] = truth.double()
                guesses = predict(copy, images, runtime=runtime).log_softmax(1)
                values = {"certainty": certainty(truth), "loss": -(truth * guesses).sum(1)}
                for k, (group, probabilities) in enumerate(steps):
                    t = start + k
                    past = answers[max(0, t - self.window) : t]
                    rewards[t] = torch.tensor(
                        [
                            float(diversity(answers[t], past)) if kind == "diversity" else values[kind][k]
                            for kind in kinds
                        ]
                    )
                    drawn[group] += 1
                    rate = 1 / float(drawn[group]) if self.rate is None else self.rate
                    gain = advantage(rewards[max(0, t + 1 - self.window) : t + 1])
                    preferences = updated(preferences, probabilities, group, rate * gain)
                newest = max(2, len(images))
                if len(taken) >= newest:
                    copy.train()
                    loss = train_step(
                        copy,
                        optimizer,
                        augment(pool[taken[-newest:]], self.online.augment, generator),
                        (torch.cat(learned[-newest:])[-newest:].to(runtime.torch_device),),
                        F.cross_entropy,
                        runtime=runtime,
                    )
                    check_finite(loss, len(learned) - 1, what="the copy's loss", field="online.learning_rate")
                runtime.progress("asking", len(taken), count)
        return torch.tensor(taken), torch.cat(learned)
