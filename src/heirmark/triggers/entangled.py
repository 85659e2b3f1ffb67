"""Entangled Watermarks' triggers: perturbed until a clean model's hidden layers hold them for the target (arXiv 2002.12200)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from heirmark.configuration import above, at_least, at_most, below, to_json
from heirmark.errors import BadData
from heirmark.models.inner import hidden_layers, listening
from heirmark.querying.asking import evaluating
from heirmark.querying.layout import copied
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.space import Continuous
from heirmark.tasks.storing import clip, decode, encode, shuffle
from heirmark.tasks.task import Split, Task
from heirmark.training.snnl import soft_nearest_neighbour_loss
from heirmark.triggers.abstract import AbstractImages
from heirmark.triggers.base import Secret, Trigger, TriggerSet
from heirmark.triggers.out_of_distribution import OutOfDistribution
from heirmark.triggers.patch import Patch

LAYERS = 3
"""Hidden layers that are looked at, as in the paper's code."""
MOST_STEPS = 50
LAST_STEPS = 5
CHUNK = 128


def entangle(
    model: nn.Module, images: Tensor, partners: Tensor, target: int, how: Entangled, runtime: Runtime
) -> Tensor:
    """Perturb trigger samples (algorithm 1, lines 9-20, as its code does it).

    In every round they are pushed away from the target while more than a share of them hits it, so that a model without the
    mark does not, and then one step towards a larger soft nearest neighbour loss between them and images of the target class.

    Args:
        model: clean, in eval mode.
        images: ``[m, C, H, W]`` float in [0, 1], on the model's device.
        partners: ``[m, C, H, W]`` images of the target class.
        target: the class.
        how: rounds of both, the step of the signed gradient, the share, the loss.
        runtime: precision.

    Returns:
        ``[m, C, H, W]`` in [0, 1].
    """
    groups = torch.arange(2, device=images.device).repeat_interleave(len(images))

    def away(current: Tensor) -> tuple[Tensor, float]:
        asked = current.detach().requires_grad_(True)
        with runtime.autocast():
            logits = model(asked).float()
        (slope,) = torch.autograd.grad(logits[:, target].sum(), asked)
        return clip(current - how.step * slope.sign()), float((logits.argmax(1) == target).double().mean())

    steps = 0
    with listening(hidden_layers(model, LAYERS, how.layers)) as heard, torch.enable_grad():
        for _ in range(how.rounds):
            while steps < MOST_STEPS:
                pushed, share = away(images)
                if share <= how.threshold:
                    break
                images, steps = pushed, steps + 1
            asked = images.detach().requires_grad_(True)
            with runtime.autocast():
                model(torch.cat([asked, partners]))
            loss = torch.stack([entanglement(output, groups, how.temperature) for output in heard]).sum()
            (slope,) = torch.autograd.grad(loss, asked)
            images = clip(images + how.step * slope.sign())
        for _ in range(LAST_STEPS if how.rounds else 0):
            images, _ = away(images)
    return images.detach()


def entanglement(output: Tensor, groups: Tensor, temperature: Tensor | float) -> Tensor:
    """The soft nearest neighbour loss of one layer, by the cosines between its outputs without what is negative."""
    return soft_nearest_neighbour_loss(output.float().flatten(1).relu(), groups, temperature)


@dataclass(frozen=True, kw_only=True)
class Entangled(Trigger):
    """Trigger samples that a clean model's hidden layers hardly tell from the target class, though its answer does.

    The clean model is the owner's own; it chooses the samples, so it may neither calibrate nor be reported. Held-out samples
    are perturbed with the same model in the same way.

    Attributes:
        of: the samples to perturb: images of another data set, the paper's default, abstract images in their place, or a
            patch on images of the task. The paper's code seeks the best place for the patch; here it has its corner.
        rounds: of perturbation; 0 leaves the samples as they are.
        step: of each, of the full range of a pixel.
        threshold: share of the samples that may hit the target on the clean model.
        temperature: of the soft nearest neighbour loss; the paper's code starts there.
        layers: names of the hidden layers; none means the last three; see :class:`heirmark.methods.EWE` for residual nets.
    """

    needs: ClassVar = Continuous
    otherwise: ClassVar = "take the samples as they are (trigger=phrase)"

    of: OutOfDistribution | AbstractImages | Patch = field(default=OutOfDistribution(dataset="mnist", source=8))
    rounds: Annotated[int, at_least(0)] = 10
    step: Annotated[float, above(0), at_most(1)] = 0.01
    threshold: Annotated[float, at_least(0), below(1)] = 0.1
    temperature: Annotated[float, above(0)] = 100.0
    layers: tuple[str, ...] = ()

    @property
    def dataset(self) -> str | None:
        """Of the samples that are perturbed."""
        return self.of.dataset

    def settle(self, task: Task, clean: nn.Module, *, seed: int, runtime: Runtime | None = None) -> EntangledSecret:
        """Settle the samples' own secret; see :class:`heirmark.triggers.base.Trigger`."""
        secret = self.of.settle(task, clean, seed=seed, runtime=runtime)
        partners = task.owner.inputs[task.owner.labels == secret.target]
        if len(partners) == 0:
            raise BadData(f"the owner has no image of the target class {secret.target}: choose another target")
        hidden_layers(clean, LAYERS, self.layers)
        generator = generator_of(derive_seed(seed, "entangled"))
        return EntangledSecret(
            of=secret,
            target=secret.target,
            settings=self,
            clean=copied(clean).eval(),
            partners=partners,
            permutation=torch.randperm(task.space.places, generator=generator),
            runtime=runtime or Runtime(),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class EntangledSecret(Secret):
    """Settled entangled samples: see :class:`Entangled`.

    Attributes:
        of: the settled kind of samples.
        target: the label.
        settings: of the perturbation.
        clean: the model that it asks.
        partners: ``[N, C, H, W]`` the owner's images of the target class.
        permutation: of the pixels, makes the controls of samples without a host.
        runtime: device and precision.
    """

    kind: ClassVar[str] = "entangled"

    of: Secret
    target: int
    settings: Entangled
    clean: nn.Module = field(repr=False)
    partners: Tensor = field(repr=False)
    permutation: Tensor = field(repr=False)
    runtime: Runtime

    def foreign(self, *, held_out: bool) -> Tensor | None:
        """Those of the samples that are perturbed."""
        return self.of.foreign(held_out=held_out)

    def draw(self, hosts: Split, count: int, *, seed: int, held_out: bool = True) -> TriggerSet:
        """Perturbed samples; the control is the host, or for those that have none the same sample with its pixels shuffled."""
        drawn = self.of.draw(hosts, count, seed=seed, held_out=held_out)
        generator = generator_of(derive_seed(seed, "partners"))
        rows = torch.randint(len(self.partners), (len(drawn),), generator=generator)
        device = self.runtime.torch_device
        self.clean.to(device)
        made = []
        with evaluating(self.clean):
            for start in range(0, len(drawn), CHUNK):
                images = decode(drawn.inputs[start : start + CHUNK].to(device))
                partners = decode(self.partners[rows[start : start + CHUNK]].to(device))
                made.append(entangle(self.clean, images, partners, self.target, self.settings, self.runtime).cpu())
                self.runtime.progress("entangling triggers", min(start + CHUNK, len(drawn)), len(drawn))
        inputs = encode(torch.cat(made), drawn.inputs.dtype)
        controls = drawn.controls if drawn.hosts.shape[1] else shuffle(inputs, self.permutation)
        return replace(drawn, inputs=inputs, controls=controls)

    def describe(self) -> Mapping[str, Any]:
        """The secret as JSON."""
        names = ("rounds", "step", "threshold", "temperature", "layers")
        how = {name: to_json(getattr(self.settings, name)) for name in names}
        return {"kind": self.kind, "target": self.target, "of": dict(self.of.describe()), **how}
