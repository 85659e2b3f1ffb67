"""Feature-based triggers: a pattern that carries a class's features (T2S, section III-D, after Narcissus, arXiv 2204.05255)."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heirmark.configuration import above, at_least, at_most
from heirmark.errors import BadConfig
from heirmark.querying.asking import evaluating
from heirmark.runtime import Runtime, derive_seed, generator_of, to_device
from heirmark.tasks.space import Continuous
from heirmark.tasks.storing import clip, decode, encode
from heirmark.tasks.task import Task
from heirmark.triggers.marked import MarkedSecret, Marking, choose_pair

PAPER_PAIRS = {"cifar10": ("truck", "frog"), "cifar100": ("apple", "willow_tree")}
"""Source and target of T2S, section IV-A."""


def stamp(images: Tensor, pattern: Tensor) -> Tensor:
    """Add a pattern and clip to the range of pixels or samples.

    Args:
        images: ``[M, ...]`` as they are stored.
        pattern: ``[...]`` float, in units of a pixel's full range, or of the loudest a sample may be.

    Returns:
        ``[M, ...]`` of the dtype of ``images``.
    """
    return encode(decode(images) + pattern, images.dtype)


@dataclass(frozen=True, kw_only=True)
class Feature(Marking):
    """Source-class images with an optimised additive pattern, labelled with the target.

    Attributes:
        source: class of the hosts; None takes the paper's (truck on CIFAR-10, apple on CIFAR-100), elsewhere draws one.
        target: the label; None takes the paper's (frog, willow tree), elsewhere draws one.
        epsilon: largest change of a pixel, or of a sample in [-1, 1]; 16/255 is Narcissus', T2S' text lost its own. Over quiet
            sounds that is a hiss that one hears.
        steps: of Adam on the pattern (inferred).
        learning_rate: of Adam (Narcissus: 0.01).
        batch_size: hosts per step (inferred).
    """

    needs: ClassVar = Continuous
    otherwise: ClassVar = "use the trigger phrase on texts"

    epsilon: Annotated[float, above(0), at_most(1)] = 16 / 255
    steps: Annotated[int, at_least(1)] = 200
    learning_rate: Annotated[float, above(0)] = 0.01
    batch_size: Annotated[int, at_least(1)] = 128

    def settle(self, task: Task, clean: nn.Module, *, seed: int, runtime: Runtime | None = None) -> FeatureSecret:
        """Optimise the pattern on the owner's source-class images; see :class:`heirmark.triggers.base.Trigger`."""
        source, target = self._pair(task, seed)
        hosts = task.owner.inputs[task.owner.labels == source]
        if len(hosts) == 0:
            raise BadConfig(f"class {source} has no image in the owner's split: choose another source")
        pattern = self._optimise(
            hosts, source, clean, seed=derive_seed(seed, "feature", "pattern"), runtime=runtime or Runtime()
        )
        return FeatureSecret(source=source, target=target, epsilon=self.epsilon, pattern=pattern)

    def _pair(self, task: Task, seed: int) -> tuple[int, int]:
        source, target = self.source, self.target
        names = PAPER_PAIRS.get(task.name)
        if names is not None and set(names) <= set(task.classes):
            first, second = (task.classes.index(name) for name in names)
            # One that the user's choice has taken already is drawn instead.
            source = first if source is None and first != target else source
            target = second if target is None and second != source else target
        return choose_pair(source, target, task, derive_seed(seed, "feature", "classes"))

    def _optimise(self, hosts: Tensor, source: int, clean: nn.Module, *, seed: int, runtime: Runtime) -> Tensor:
        """Minimise the cross-entropy of f(clip(x + pattern)) to the source class over source-class x (T2S, section III-D)."""
        device = runtime.torch_device
        clean.to(device)
        generator = generator_of(seed)
        hosts = hosts.to(device)
        pattern = torch.zeros(hosts.shape[1:], device=device, requires_grad=True)
        optimizer = torch.optim.Adam([pattern], self.learning_rate)
        with evaluating(clean), torch.enable_grad():
            for step in range(self.steps):
                chosen = torch.randint(len(hosts), (min(self.batch_size, len(hosts)),), generator=generator)
                stamped = clip(decode(hosts[to_device(chosen, device)]) + pattern)
                with runtime.autocast():
                    logits = clean(stamped)
                loss = F.cross_entropy(logits.float(), torch.full((len(chosen),), source, device=device))
                (pattern.grad,) = torch.autograd.grad(loss, [pattern])
                optimizer.step()
                with torch.no_grad():
                    pattern.clamp_(-self.epsilon, self.epsilon)
                runtime.progress("feature trigger", step + 1, self.steps)
        return pattern.detach().cpu()


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureSecret(MarkedSecret):
    """Settled feature trigger: see :class:`Feature`.

    Attributes:
        epsilon: largest change of a pixel.
        pattern: ``[C, H, W]`` float32, in [-epsilon, epsilon].
    """

    kind: ClassVar[str] = "feature"

    epsilon: float
    pattern: Tensor = field(repr=False)

    def mark(self, images: Tensor) -> Tensor:
        """See :class:`heirmark.triggers.marked.MarkedSecret`."""
        return stamp(images, self.pattern)

    def describe(self) -> Mapping[str, Any]:
        """The secret as JSON; the pattern as deflated float32, base64."""
        packed = base64.b64encode(zlib.compress(self.pattern.numpy().astype("<f4").tobytes(), 9)).decode()
        return {**super().describe(), "pattern": packed, "pattern_shape": list(self.pattern.shape)}
