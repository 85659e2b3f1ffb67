"""What the attacks without data share: a generator of images, and how it learns what a victim's answers tell."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.errors import BadData
from heirmark.float32 import whole_float32
from heirmark.querying.asking import evaluating
from heirmark.querying.blackbox import Answers, BlackBox
from heirmark.querying.layout import channels_last
from heirmark.runtime import Runtime


class Generator(nn.Module):
    """Noise to images, as in DFME's and MAZE's code: a linear layer, two nearest-neighbour upsamplings, three convolutions.

    Args:
        input_shape: ``(C, H, W)`` of the images, of any size.
        latent: length of the noise.
        width: channels of the last hidden layer; the others have twice as many.
        affine: whether the last normalisation learns a scale and a shift, as MAZE's does and DFME's does not.
    """

    def __init__(
        self, input_shape: tuple[int, int, int], *, latent: int = 256, width: int = 64, affine: bool = False
    ) -> None:
        super().__init__()
        self.latent = latent
        channels, height, side = input_shape
        self.start = (2 * width, math.ceil(height / 4), math.ceil(side / 4))
        self.project = nn.Linear(latent, math.prod(self.start))
        self.norm = nn.BatchNorm2d(2 * width)
        self.middle = nn.Sequential(
            nn.Upsample(size=(math.ceil(height / 2), math.ceil(side / 2))),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(0.2),
        )
        self.last = nn.Sequential(
            nn.Upsample(size=(height, side)),
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, channels, 3, padding=1),
            nn.BatchNorm2d(channels, affine=affine),
        )

    def draw(self, count: int, draws: torch.Generator, runtime: Runtime) -> Tensor:
        """Make ``[count, C, H, W]`` float32, images before :func:`pixels`, of noise from a generator on the CPU.

        Raises:
            BadData: when they are no longer finite.
        """
        noise = torch.randn(count, self.latent, generator=draws).to(self.project.weight.device)
        with runtime.autocast():
            images: Tensor = self(noise)
        if not bool(images.isfinite().all()):
            raise BadData("the generator makes images that are no longer finite: lower generator_rate")
        return images.float()

    def forward(self, noise: Tensor) -> Tensor:
        """Map ``[B, latent]`` to ``[B, C, H, W]``, images before :func:`pixels`."""
        first = self.project(noise).view(-1, *self.start)
        images: Tensor = self.last(self.middle(self.norm(channels_last(first))))
        return images


def pixels(raw: Tensor) -> Tensor:
    """The generator's output as images in [0, 1]: tanh, from [-1, 1] to there."""
    return (raw.tanh() + 1) / 2


def forward_difference(
    objective: Callable[[Tensor], Tensor], points: Tensor, directions: Tensor, epsilon: float
) -> Tensor:
    """Estimate the gradient of a function of which only values are known, at each of several points.

    ``d / m * sum_j (f(x + epsilon u_j) - f(x)) / epsilon * u_j`` with d numbers in a point: over directions that are uniform on
    the sphere its mean is the gradient, as epsilon goes to zero.

    Args:
        objective: maps ``[K, ...]`` to ``[K]``, each value of its own point; called once, with ``(m + 1) * B`` points.
        points: ``[B, ...]``.
        directions: ``[m, B, ...]`` of Euclidean length one per point.
        epsilon: length of the step.

    Returns:
        ``[B, ...]``.
    """
    count = len(directions)
    asked = torch.cat([points[None], points + epsilon * directions])
    values = objective(asked.flatten(0, 1)).view(count + 1, len(points))
    slopes = (values[1:] - values[0]) / epsilon
    return points[0].numel() * (slopes.view(count, -1, *[1] * (points.ndim - 1)) * directions).mean(0)


def sphere(count: int, points: Tensor, draws: torch.Generator) -> Tensor:
    """Directions for :func:`forward_difference`: ``[count, B, C, H, W]`` of length one per point, on the points' device.

    Args:
        count: of directions per point.
        points: ``[B, C, H, W]``.
        draws: on the CPU.
    """
    directions = torch.randn(count, *points.shape, generator=draws)
    directions /= directions.flatten(2).norm(dim=2)[..., None, None, None]
    return directions.to(points.device)


def gradient_by_differences(
    box: BlackBox,
    student: nn.Module,
    raw: Tensor,
    directions: Tensor,
    *,
    learned: Callable[[Answers], Tensor],
    gap: Callable[[Tensor, Tensor], Tensor],
    epsilon: float,
) -> tuple[Tensor, Tensor]:
    """How a generator learns of a victim that shows probabilities: forward differences of copy against victim.

    Args:
        box: the victim, asked about ``(m + 1) * B`` images in one call.
        student: the copy, which computes in eval mode here, so that every value is that of its own image alone.
        raw: ``[B, C, H, W]``, images before :func:`pixels`, without a graph.
        directions: ``[m, B, C, H, W]`` of :func:`sphere`.
        learned: what the copy learns of N answers, ``[N, K]``.
        gap: maps the copy's logits ``[N, K]`` and what it learns to ``[N]``, how far they are apart.
        epsilon: length of the step.

    Returns:
        The gradient of each image's gap ``[B, C, H, W]``, and what is learned of the B images themselves, on their device.
    """
    kept = list[Tensor]()

    def apart(points: Tensor) -> Tensor:
        images = pixels(points)
        truth = learned(box.query(images)).to(images.device)
        kept.append(truth[: len(raw)])
        # Without autocast: half precision does not see epsilon.
        with evaluating(student), whole_float32(images.device), torch.no_grad():
            return gap(student(images).float(), truth)

    return forward_difference(apart, raw, directions, epsilon), kept[0]


def gradient_by_labels(
    box: BlackBox, student: nn.Module, raw: Tensor, *, learned: Callable[[Answers], Tensor], diversity: float
) -> tuple[Tensor, Tensor]:
    """How a generator learns of a victim that shows labels alone, for which neither DFME nor MAZE has a recipe: ours.

    The copy's cross-entropy to the victim's label is to rise, and the label is a constant nearly everywhere, so that the copy's
    own gradient is the exact one; and, weighted, the entropy of the copy's mean answer over the batch, without which the
    generator may settle on one class.

    Args:
        box: the victim, asked about each image once.
        student: the copy; keeps its modes.
        raw: ``[B, C, H, W]``, images before :func:`pixels`.
        learned: what the copy learns of N answers, ``[N, ...]``.
        diversity: weight of the entropy.

    Returns:
        The gradient times B, in the form of :func:`forward_difference`, and what is learned of the images, on their device.
    """
    leaf = raw.detach().requires_grad_()
    images = pixels(leaf)
    answers = box.query(images.detach())
    with evaluating(student):
        logits = student(images).float()
    spread = torch.special.entr(logits.softmax(1).mean(0)).sum()
    value = F.cross_entropy(logits, answers.labels.to(images.device)) + diversity * spread
    return len(raw) * torch.autograd.grad(value, leaf)[0], learned(answers).to(images.device)


def check_finite(value: Tensor, iteration: int, *, what: str, field: str = "learning_rate") -> None:
    """Stop a training that has lost itself.

    Args:
        value: a scalar.
        iteration: counted from 0.
        what: the scalar is, for the error.
        field: of the attack that is to be lowered, for the error.

    Raises:
        BadData: when it is not finite.
    """
    if not bool(value.isfinite()):
        raise BadData(
            f"{what} became {float(value)} in iteration {iteration + 1}: lower {field}, or use a model with BatchNorm"
        )
