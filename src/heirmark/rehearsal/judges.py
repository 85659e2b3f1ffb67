"""Who says how good a model is while it is tuned: images that train nothing, and thieves that do not pull."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.querying.asking import predict
from heirmark.rehearsal.closed_form import ClosedFormThief, sharpness_for
from heirmark.runtime import Runtime
from heirmark.tasks.task import Split
from heirmark.training.samples import Samples


@dataclass(frozen=True, kw_only=True, eq=False)
class Judges:
    """Who says how good a model is as it stands; nothing trains on what they hold, and none of it is the key's.

    Attributes:
        watch: labelled images on which accuracy is watched.
        thieves: in closed form, that do not pull.
        queries: ``[Q, ...]`` what these ask.
        triggers: what they, and the target, are asked to judge by.
        sharpness: of their trigger loss.
    """

    watch: Split
    thieves: Sequence[ClosedFormThief]
    queries: Tensor
    triggers: Samples
    sharpness: float = 8.0

    def right(self, model: nn.Module, runtime: Runtime) -> Tensor:
        """Which of the images that watch a model gets right, ``[W]`` bool."""
        return predict(model, self.watch.inputs, runtime=runtime).argmax(1) == self.watch.labels

    def judge(self, model: nn.Module, before: Tensor, *, prior: float, runtime: Runtime) -> dict[str, float]:
        """Figures of a model as it stands.

        Args:
            model: the target.
            before: ``[W]`` bool, which images it got right at the start.
            prior: see :func:`accuracy_loss`.
            runtime: device, precision.

        Returns:
            Accuracy and WSR of the target, of its accuracy what is estimated to be ``lost``, what was ``lost_seen`` on these
            images, and the ``lost_error`` of that, WSR of the thieves that hold its
            answers, and their trigger loss.
        """
        right = self.right(model, runtime)
        hit = predict(model, self.triggers.inputs, runtime=runtime).argmax(1) == self.triggers.targets
        lost, error = accuracy_loss(before, right, prior=prior)
        answers, targets = predict(model, self.queries, runtime=runtime).softmax(1), self.triggers.targets
        losses, hits = [], []
        for thief in self.thieves:
            thief.start(answers.to(thief.features.device))
            said = thief.answer().cpu()
            losses.append(float(F.cross_entropy(sharpness_for(said.shape[1], self.sharpness) * said, targets)))
            hits.append(float((said.argmax(1) == targets).double().mean()))
        return {
            "target_accuracy": float(right.double().mean()),
            "target_wsr": float(hit.double().mean()),
            "lost": lost,
            "lost_seen": (float(before.double().mean()) - float(right.double().mean())),
            "lost_error": error,
            "thief_wsr": sum(hits) / len(hits),
            "thief_loss": sum(losses) / len(losses),
        }


def accuracy_loss(before: Tensor, now: Tensor, *, prior: float) -> tuple[float, float]:
    """How much accuracy was lost, as far as so many images can tell.

    A thousand images cannot tell half a point: they see it with a standard error of 0.7. What they see is therefore shrunk
    towards no loss, to the posterior mean under a normal prior of mean 0; the more images, the less. What is certain is believed
    all the same: the result is never below the bare difference less two errors.

    Args:
        before: ``[W]`` bool, which images were right.
        now: the same, later.
        prior: standard deviation of the prior.

    Returns:
        The estimated loss, and the standard error of the bare difference (of paired shares, McNemar).

    Examples:
        >>> import torch
        >>> before, now = torch.arange(1000) < 900, torch.arange(1000) < 880
        >>> [round(figure, 4) for figure in accuracy_loss(before, now, prior=0.005)]
        [0.0109, 0.0046]
    """
    count = len(before)
    worse, better = int((before & ~now).sum()), int((now & ~before).sum())
    # One discordant image more than there are: an error of 0 is not to be believed.
    error = (worse + better + 1) ** 0.5 / count
    seen = (worse - better) / count
    weight = prior**2 / (prior**2 + error**2) if prior else 1.0
    return max(weight * seen, seen - 2 * error), error
