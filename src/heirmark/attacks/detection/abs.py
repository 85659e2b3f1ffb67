"""ABS: neurons whose stimulation leads to one class, and triggers that excite them (Liu et al. 2019, ACM CCS)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from heirmark.attacks.base import Inspected, Inspection, Reversed
from heirmark.attacks.detection.reversing import measured, squash, stamp
from heirmark.attacks.detection.stimulation import Layer, choose_layers, layers_of, stimulated, watching
from heirmark.configuration import above, at_least, at_most, not_empty
from heirmark.errors import BadData
from heirmark.models import Net
from heirmark.querying.asking import evaluating
from heirmark.runtime import Runtime, derive_seed, generator_of
from heirmark.tasks.space import Images
from heirmark.tasks.storing import decode
from heirmark.tasks.task import Split
from heirmark.training.fitting import Recipe

SHOWN = 0.01
"""A mask's entry below this does not count as part of the trigger, as in the authors' public code."""
START = 2.0
"""Free number at which the mask starts: its positive in a square in the top left corner, its negative elsewhere."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidate:
    """A neuron that may have been compromised.

    Attributes:
        layer: it is of.
        neuron: its number there.
        label: class that its stimulation raises.
        strength: by how much more than any other class, in logits, on the seed image where this is least.
    """

    layer: Layer
    neuron: int
    label: int
    strength: float


def elevations(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Which class a stimulation raises most, and by how much more than the second.

    Args:
        logits: ``[M, L, B, C]``, the first of the L levels being the rest that others are compared with.

    Returns:
        Labels ``[M, B]`` int64 and margins ``[M, B]``.

    Examples:
        >>> elevations(torch.tensor([[[[0.0, 1.0, 2.0]], [[5.0, 2.0, 2.0]]]]))
        (tensor([[0]]), tensor([[4.]]))
    """
    raised = logits[:, 1:].amax(1) - logits[:, 0]
    top = raised.topk(2, dim=2)
    return top.indices[..., 0], top.values[..., 0] - top.values[..., 1]


@dataclass(frozen=True, kw_only=True)
class ABS(Inspection):
    """Hold neuron after neuron at rising levels, take those that lead to one class, and make triggers that excite them.

    The paper's method for triggers that cover a part of an image; its other one, for filters, is not here. Figures that the
    paper does not settle are those of the authors' public code, with two exceptions. Its weights are for sums of outputs as
    they come, which ties them to one net; here a neuron's activity is a mean in units of its layer's largest output. And in the
    end only the largest ``size`` of a mask's entries are kept, so that the bound holds whatever the weights.

    Attributes:
        layers: ``"all"`` stimulates all but the logits, as the paper does; ``"last"`` the last convolution and the
            features, which keeps large nets affordable; else names of layers, or positions among these.
        seeds: images of each class that are looked at; the paper asks for one.
        levels: of stimulation, the first being zero.
        reach: the levels lie below this many times the layer's largest output.
        agreement: share of the seed images on which a neuron has to raise the same class.
        candidates: neurons for which a trigger is reconstructed, the strongest of all.
        steps: of Adam for a trigger.
        learning_rate: of Adam.
        size: share of the image's pixels that a trigger may cover; 64 of 32 x 32.
        other_weight: weight of the layer's other neurons, which are to stay calm.
        mask_weight: weight of the mask's sum, as a share of what it may cover, while it covers too much; twice that while it
            covers far too much (ours).
        threshold: success of a reconstructed trigger (REASR) above which its class is suspect.
        checked: images of other classes on which the success is measured, at most.
    """

    title: ClassVar[str] = "ABS"
    needs: ClassVar = Images

    layers: Literal["last", "all"] | Annotated[tuple[int | str, ...], not_empty] = "all"
    seeds: Annotated[int, at_least(1)] = 1
    levels: Annotated[int, at_least(2)] = 5
    reach: Annotated[float, above(0)] = 4.0
    agreement: Annotated[float, above(0), at_most(1)] = 0.8
    candidates: Annotated[int, at_least(1)] = 10
    steps: Annotated[int, at_least(1)] = 1000
    learning_rate: Annotated[float, above(0)] = 0.1
    size: Annotated[float, above(0), at_most(1)] = 0.0625
    other_weight: Annotated[float, at_least(0)] = 1e-4
    mask_weight: Annotated[float, at_least(0)] = 2.0
    threshold: Annotated[float, above(0), at_most(1)] = 0.88
    checked: Annotated[int, at_least(1)] = 1000

    @classmethod
    def quick(cls, recipe: Recipe) -> Self:
        """Settings for minutes; see :class:`heirmark.attacks.base.Attack`."""
        return cls(layers="last", steps=300, candidates=5, checked=500)

    def inspect(self, net: Net, data: Split, *, seed: int, runtime: Runtime) -> Inspected:
        """Inspect; see :class:`heirmark.attacks.base.Inspection`.

        Raises:
            BadConfig: for a layer that the model does not have.
            BadData: when the adversary has images of one class only.
        """
        model = net.askable()
        images, labels = seed_images(data, self.seeds, seed=derive_seed(seed, "seeds"))
        if bool((labels == labels[0]).all()):
            raise BadData("all images are of one class: stimulation needs images of several")
        images = images.to(runtime.torch_device)
        model.to(runtime.torch_device)
        layers = choose_layers(layers_of(model, images, runtime), self.layers)
        candidates = [
            candidate for layer in layers for candidate in self._stimulate(model, layer, images, labels, runtime)
        ]
        candidates = sorted(candidates, key=lambda candidate: -candidate.strength)[: self.candidates]
        scores = [0.0] * net.spec.classes
        triggers: dict[int, Reversed] = {}
        details = {"candidates": float(len(candidates))}
        excited = self._excite(model, candidates, images, seed, runtime)
        wanted = [candidate.label for candidate in candidates]
        found = measured(
            model, wanted, excited, data, checked=self.checked, seed=derive_seed(seed, "check"), runtime=runtime
        )
        for candidate, trigger in zip(candidates, found, strict=True):
            label = candidate.label
            details[f"class {label}, {candidate.layer.name}, neuron {candidate.neuron}"] = trigger.success
            if label not in triggers or trigger.success > scores[label]:
                scores[label], triggers[label] = trigger.success, trigger
        return Inspected(
            suspects=tuple(label for label, score in enumerate(scores) if score > self.threshold),
            scores=tuple(scores),
            threshold=self.threshold,
            triggers=triggers,
            details={"largest REASR": max(scores), **details},
        )

    def _stimulate(
        self, model: nn.Module, layer: Layer, images: Tensor, labels: Tensor, runtime: Runtime
    ) -> list[Candidate]:
        """The neurons of a layer that raise one class on nearly all seed images, its own class' images aside."""
        levels = torch.arange(self.levels) * (self.reach * layer.largest / self.levels)
        raised, margins = elevations(stimulated(model, layer, images, levels, runtime))
        common = raised.mode(1).values
        agrees = raised == common[:, None]
        tells = agrees & (labels != common[:, None])
        strengths = margins.where(tells, math.inf).amin(1)
        enough = (agrees.double().mean(1) >= self.agreement) & tells.any(1) & (strengths > 0)
        return [
            Candidate(layer=layer, neuron=n, label=int(common[n]), strength=float(strengths[n]))
            for n in enough.nonzero().flatten().tolist()
        ]

    def _excite(
        self, model: nn.Module, candidates: Sequence[Candidate], images: Tensor, seed: int, runtime: Runtime
    ) -> list[tuple[Tensor, Tensor]]:
        """Masks and patterns that excite each candidate's neuron, and its layer's others little; all side by side."""
        if not candidates:
            return []
        height, width = images.shape[2:]
        bound = max(round(self.size * height * width), 1)
        far = (math.sqrt(bound) + 2) ** 2
        corner = torch.full((1, height, width), -START)
        corner[:, : max(math.isqrt(bound), 1), : max(math.isqrt(bound), 1)] = START
        free_masks = corner.repeat(len(candidates), 1, 1, 1).to(images.device).requires_grad_()
        starts = [
            torch.randn(
                images.shape[1:],
                generator=generator_of(derive_seed(seed, "start", c.layer.name, c.neuron)),
            )
            for c in candidates
        ]
        free_patterns = torch.stack(starts).to(images.device).requires_grad_()
        optimizer = torch.optim.Adam([free_masks, free_patterns], self.learning_rate)
        modules = {c.layer.name: c.layer.module for c in candidates}
        with evaluating(model), watching(modules) as outputs:
            for step in range(self.steps):
                masks = squash(free_masks)
                with runtime.autocast():
                    model(stamp(images, masks, squash(free_patterns)))
                covered = (masks.detach() > SHOWN).flatten(1).sum(1)
                weights = self.mask_weight / bound * ((covered > bound).float() + (covered > far).float())
                loss = (weights * masks.flatten(1).sum(1)).sum()
                for k, candidate in enumerate(candidates):
                    mine = outputs[candidate.layer.name][k * len(images) : (k + 1) * len(images)].float()
                    mine = candidate.layer.neurons_first(mine)
                    activity = (mine + mine.relu()).transpose(0, 1).flatten(1).mean(1) / candidate.layer.largest
                    others = activity.sum() - activity[candidate.neuron]
                    loss = loss - activity[candidate.neuron] + self.other_weight * others
                free_masks.grad, free_patterns.grad = torch.autograd.grad(loss, (free_masks, free_patterns))
                optimizer.step()
                runtime.progress("exciting neurons", step + 1, self.steps)
        masks = squash(free_masks.detach())
        flat = masks.flatten(1)
        largest = flat.topk(bound, dim=1)  # by place, as many may be equal
        kept = torch.zeros_like(flat).scatter(1, largest.indices, largest.values)
        masks = kept.where(kept >= SHOWN, 0.0).view_as(masks)
        return list(zip(masks.cpu(), squash(free_patterns.detach()).cpu(), strict=True))


def seed_images(data: Split, each: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """A few images of every class.

    Args:
        data: the adversary's.
        each: images of a class; fewer where it has fewer.
        seed: of the choice.

    Returns:
        ``[B, C, H, W]`` float32 and their labels ``[B]``, class by class.
    """
    order = torch.randperm(len(data), generator=generator_of(seed))
    shuffled = data.labels[order]
    chosen = torch.cat([order[shuffled == label][:each] for label in data.labels.bincount().nonzero().flatten()])
    return decode(data.inputs[chosen]), data.labels[chosen]
