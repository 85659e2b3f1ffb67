"""A thief in closed form: what a student who has finished answers to triggers, and its exact gradient for the target's answers.

A thief who trains a last layer to convergence on the features φ of some net of his own is ridge regression. With Φ ``[N, d]`` the
features of what he asked and Y ``[N, C]`` the target's answers, his weights are W = (ΦᵀΦ + λI)⁻¹ΦᵀY, so that a trigger t gets

    s(t) = φ(t)ᵀ (ΦᵀΦ + λI)⁻¹ ΦᵀY,

a fixed linear functional of Y. Its gradient for the target costs one backward pass through the target: no student is trained,
and nothing is differentiated twice. T2S (arXiv 2606.11698) differentiates one step of a student; this is the student at the end.
Kin: the kernel-inducing points of data-set distillation (Nguyen 2021, arXiv 2011.00050).

Nothing here is as large as N × N or M × N for M triggers: ΦᵀΦ is summed up in one pass over the queries, ΦᵀY is kept up to date
as answers change, and (ΦᵀΦ + λI)⁻¹φ(t) is solved for once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from heirmark.configuration import above, checked
from heirmark.errors import BadData, ShapeMismatch

CHUNK = 4096
"""Rows of features that are put into other units at a time."""
SMALLEST = 1e-3
"""Added to the spread of a feature, so that one which hardly varies is not blown up."""


@dataclass(frozen=True, kw_only=True)
@checked
class Closing:
    """How thieves in closed form finish.

    Attributes:
        ridge: λ over the mean of the diagonal of ΦᵀΦ.
        sharpness: κ, by which answers, which are about probabilities, are multiplied to be logits in the trigger loss; for ten
            classes, and more for more, so that an answer that is sure weighs as much.
    """

    ridge: Annotated[float, above(0)] = 0.01
    sharpness: Annotated[float, above(0)] = 8.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """What features are measured in: each standardised over the queries, all divided by √d, and a 1 appended.

    Attributes:
        mean: ``[d]``.
        scale: ``[d]``, what is divided by.
    """

    mean: Tensor
    scale: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Bring ``[n, d]`` features to ``[n, d + 1]``."""
        return F.pad((features.float() - self.mean) / self.scale, (0, 1), value=1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What a target's outputs mean to thieves in closed form, and what the mark wants of theirs.

    Attributes:
        answers: what thieves learn of outputs ``[B, C]``, as many numbers.
        loss: between a thief's answers ``[m, C]`` and targets ``[m]``, a mean.
        labels: of a thief's answers.
    """

    answers: Callable[[Tensor], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    labels: Callable[[Tensor], Tensor]

    @staticmethod
    def of_logits(sharpness: float) -> Reading:
        """Logits are learned as probabilities, and a thief's, times κ, are logits again."""
        return Reading(
            answers=lambda logits: logits.softmax(1),
            loss=lambda said, targets: F.cross_entropy(sharpness * said, targets),
            labels=lambda said: said.argmax(1),
        )


class ClosedFormThief:
    """A thief in the feature space of one net. Only :attr:`moments` changes, in place, with the target's answers."""

    features: Tensor
    """``[N, d + 1]`` of the queries, in :class:`Units`."""
    readout: Tensor
    """``[M, d + 1]``, (ΦᵀΦ + λI)⁻¹φ(t) for every trigger."""
    moments: Tensor
    """``[d + 1, C]``, ΦᵀY for the target's last answers."""

    def __init__(self, features: Tensor, triggers: Tensor, *, classes: int, ridge: float) -> None:
        """Sum up and solve; the target has answered nothing yet.

        Args:
            features: ``[N, d]`` float of what the thief asks.
            triggers: ``[M, d]`` features of the triggers.
            classes: C.
            ridge: λ over the mean of the diagonal of ΦᵀΦ.

        Raises:
            ShapeMismatch: when the two are not features of one net.
            BadData: when a feature of a query is not finite.
        """
        if features.ndim != 2 or triggers.ndim != 2 or features.shape[1] != triggers.shape[1] or not len(features):
            raise ShapeMismatch(
                f"features of the queries are {tuple(features.shape)} and of the triggers {tuple(triggers.shape)}: "
                "take both, [N, d] and [M, d], from one net"
            )
        units, gram = _sum_up(features)
        damped = gram + ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        factor = torch.linalg.cholesky(damped)
        self.features = _converted(features, units)
        self.readout = torch.cholesky_solve(units(triggers).double().T, factor).T.float().contiguous()
        self.moments = torch.zeros(len(gram), classes, device=features.device)

    def answer(self, rows: Tensor | None = None) -> Tensor:
        """What the thief answers to triggers at positions ``[m]``, or to all: about probabilities, ``[m, C]``."""
        return (self.readout if rows is None else self.readout[rows]) @ self.moments

    def changed(self, rows: Tensor, chosen: Tensor, change: Tensor) -> Tensor:
        """Answers ``[m, C]`` to triggers at ``rows`` if the target's to queries at ``chosen`` ``[B]`` changed by ``[B, C]``."""
        readout = self.readout[rows]
        return readout @ self.moments + (readout @ self.features[chosen].T) @ change

    def learn(self, chosen: Tensor, change: Tensor) -> None:
        """The target's answers to queries at ``[B]`` positions have changed by ``[B, C]``."""
        self.moments += self.features[chosen].T @ change

    def start(self, answers: Tensor) -> None:
        """Learn all answers ``[N, C]`` anew, which also takes out what rounding has added up."""
        total = torch.zeros_like(self.moments, dtype=torch.float64)
        for rows in torch.arange(len(answers), device=answers.device).split(CHUNK):  # type: ignore[no-untyped-call]
            total += (self.features[rows].T @ answers[rows]).double()
        self.moments.copy_(total)


def weights(thief: ClosedFormThief, rows: Tensor) -> Tensor:
    """The g of s = gY, ``[m, N]``: what each query's answer counts in the thief's answer to triggers at ``[m]`` positions.

    It is made for few triggers: to look at, and not to compute with.
    """
    return thief.readout[rows] @ thief.features.T


def _sum_up(features: Tensor) -> tuple[Units, Tensor]:
    """The units of ``[N, d]`` features, and ΦᵀΦ ``[d + 1, d + 1]`` in them, in double precision; one pass."""
    count, size = features.shape
    total = torch.zeros(size, dtype=torch.float64, device=features.device)
    gram = torch.zeros(size, size, dtype=torch.float64, device=features.device)
    # Moments about the first row and not about zero: features far from zero would lose their spread to rounding.
    origin = features[0].double()
    for rows in features.split(CHUNK):  # type: ignore[no-untyped-call]
        moved = rows.double() - origin
        total += moved.sum(0)
        gram += moved.T @ moved
    if not bool(torch.isfinite(gram).all()):
        raise BadData("a feature net gives numbers that are not finite: train it longer, or leave it out")
    mean = total / count
    gram -= count * torch.outer(mean, mean)
    spread = (gram.diagonal().clamp_min(0) / max(1, count - 1)).sqrt() + SMALLEST
    scale = spread * size**0.5
    whole = torch.zeros(size + 1, size + 1, dtype=torch.float64, device=features.device)
    whole[:size, :size] = gram / torch.outer(scale, scale)
    whole[size, size] = count
    return Units(mean=(mean + origin).float(), scale=scale.float()), whole


def _converted(features: Tensor, units: Units) -> Tensor:
    """All features in their units; ``[N, d + 1]`` float32."""
    made = torch.empty(len(features), features.shape[1] + 1, device=features.device)
    for start in range(0, len(features), CHUNK):
        made[start : start + CHUNK] = units(features[start : start + CHUNK])
    return made


@dataclass(frozen=True, kw_only=True, eq=False)
class Pull:
    """Where thieves in closed form pull the target's answers.

    Attributes:
        loss: trigger loss, the mean over thieves, a scalar.
        slope: ``[B, C]``, its gradient for the target's logits.
    """

    loss: Tensor
    slope: Tensor


class Audience:
    """Thieves in closed form that hear the same answers: they are as many as there are nets, and cost next to nothing.

    They ask about the same queries, of which the target's last answers are kept ``[N, C]``.
    """

    def __init__(
        self,
        thieves: Iterable[ClosedFormThief],
        targets: Tensor,
        answers: Tensor,
        settings: Closing,
        reading: Reading | None = None,
    ) -> None:
        """Let them hear the target's first answers.

        Args:
            thieves: at least one.
            targets: ``[M]`` int64, what triggers shall be answered.
            answers: ``[N, C]`` probabilities of the target for all queries.
            settings: sharpness of the trigger loss.
            reading: where the target gives something else than logits; then ``answers`` are what it makes of that.

        Raises:
            ShapeMismatch: when thieves, targets and answers do not fit each other.
        """
        self.thieves, self.targets = tuple(thieves), targets
        self.answers = answers.float().clone()
        for thief in self.thieves:
            if len(thief.features) != len(answers) or len(thief.readout) != len(targets):
                raise ShapeMismatch(
                    f"a thief of {len(thief.features)} queries and {len(thief.readout)} triggers was given {len(answers)} "
                    f"answers and {len(targets)} targets: give one for each"
                )
        if not self.thieves:
            raise ShapeMismatch("an audience needs a thief at least: give a feature net")
        self.reading = reading or Reading.of_logits(sharpness_for(answers.shape[1], settings.sharpness))
        self.refresh()

    def refresh(self) -> None:
        """Sum up all answers anew; once an epoch keeps rounding from adding up."""
        for thief in self.thieves:
            thief.start(self.answers)

    def pull(self, logits: Tensor, chosen: Tensor, rows: Tensor) -> Pull:
        """How the target's answers to a batch should change for the thieves to answer triggers as the mark wants.

        Args:
            logits: ``[B, C]`` of the target for the batch.
            chosen: ``[B]`` positions of the batch among the queries.
            rows: ``[m]`` positions of the triggers that count in this step.
        """
        with torch.enable_grad(), torch.autocast(logits.device.type, enabled=False):
            leaf = logits.detach().float().requires_grad_()
            change = self.reading.answers(leaf) - self.answers[chosen]
            losses = [
                self.reading.loss(thief.changed(rows, chosen, change), self.targets[rows]) for thief in self.thieves
            ]
            loss = torch.stack(losses).mean()
            (slope,) = torch.autograd.grad(loss, leaf)
        return Pull(loss=loss.detach(), slope=slope)

    def hear(self, logits: Tensor, chosen: Tensor) -> None:
        """Keep the target's answers ``[B, C]`` (logits) to the batch at ``[B]`` positions."""
        # A query may have been asked twice: one of its answers stays.
        places = torch.unique(chosen)
        before = self.answers[places]
        self.answers[chosen] = self.reading.answers(logits.detach().float())
        change = self.answers[places] - before
        for thief in self.thieves:
            thief.learn(places, change)

    def hits(self) -> Iterator[float]:
        """Share of the triggers that each thief answers as the mark wants, in [0, 1]."""
        for thief in self.thieves:
            yield float((self.reading.labels(thief.answer()) == self.targets).double().mean())

    def losses(self) -> list[float]:
        """Trigger loss of each thief, over all triggers."""
        return [float(self.reading.loss(thief.answer(), self.targets)) for thief in self.thieves]


def sharpness_for(classes: int, sharpness: float) -> float:
    """κ for a number of classes: times log C / log 10, as so much does it take for a softmax to be as sure.

    >>> sharpness_for(10, 8.0), sharpness_for(100, 8.0)
    (8.0, 16.0)
    """
    return float(sharpness * torch.log10(torch.tensor(float(max(2, classes)))).item())
